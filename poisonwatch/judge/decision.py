"""One decision per model version, with a named reason. A rollback is recommended on proof, never on silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poisonwatch.types import Action, AlertState, Cause, Decision, Reason, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poisonwatch.types import Alert, VersionFacts


SUSPECT = (Cause.OUTPUT_CHANGE, Cause.DATA_QUALITY)
"""What hold is said for: a version that shows it itself is no target."""


def decide(
    model: str,
    facts: VersionFacts,
    versions: Iterable[VersionFacts],
    alerts: Mapping[str, Alert],
    before: Mapping[str, Decision],
    fewest: int,
    time: float,
) -> Decision:
    """Decide for the version of `facts`.

    `versions` are all that are known, `alerts` the open ones of the model by fingerprint, `before` the decisions so far by
    version, `fewest` how many predictions a version must have before it can be called healthy. A rollback latches.
    """
    name = facts.model_version
    latched = before.get(name)
    if latched is not None and latched.decision is Action.ROLLBACK:
        return latched
    own = [alert for alert in alerts.values() if alert.model_version == name]
    firing = [alert for alert in own if alert.state is AlertState.FIRING]
    # What concerns the log as a whole concerns every version: too little of it may have been seen.
    of_log = [a for a in alerts.values() if a.model_version is None and a.state is AlertState.FIRING]
    pages = [alert for alert in own if alert.severity is Severity.PAGE]
    firing_pages = [alert for alert in firing if alert.severity is Severity.PAGE]

    def decision(action: Action, reason: Reason, on: list[Alert], summary: str, target: str | None = None) -> Decision:
        return Decision(
            model=model,
            model_version=name,
            decision=action,
            reason=reason,
            cause=on[0].cause if on else None,
            target=target,
            alerts=tuple(sorted(alert.fingerprint for alert in on)),
            time=time,
            summary=summary,
        )

    if firing_pages:
        target = _target(name, versions, alerts, before, fewest) if facts.junior else None
        why = firing_pages[0].summary
        if target is None:
            return decision(
                Action.HOLD,
                Reason.NO_CLEAN_TARGET,
                firing_pages,
                f"{why} No version to roll back to is known to be older or trusted, and clean.",
            )
        return decision(
            Action.ROLLBACK, Reason.WORSE_THAN_STABLE, firing_pages, f"{why} Roll back to {target}.", target
        )
    if pages:
        return decision(Action.HOLD, Reason.EVIDENCE_PENDING, pages, f"Do not promote {name} yet. {pages[0].summary}")
    for cause, action, reason in (
        (Cause.OUTPUT_CHANGE, Action.HOLD, Reason.OUTPUTS_MOVED),
        (Cause.DATA_QUALITY, Action.HOLD, Reason.DATA_QUALITY),
    ):
        on = [alert for alert in (*firing, *of_log) if alert.cause is cause]
        if on:
            return decision(action, reason, on, on[0].summary)
    if facts.predictions < fewest:
        return decision(
            Action.HOLD, Reason.INSUFFICIENT_DATA, [], f"{name} has fewer than {fewest} predictions: too few to judge."
        )
    drift = [alert for alert in firing if alert.cause is Cause.INPUT_DRIFT]
    if drift:
        return decision(Action.KEEP, Reason.INPUTS_MOVED, drift, drift[0].summary)
    return decision(Action.KEEP, Reason.HEALTHY, [], f"{name} answers as the reference says it should.")


def _target(
    name: str,
    versions: Iterable[VersionFacts],
    alerts: Mapping[str, Alert],
    before: Mapping[str, Decision],
    fewest: int,
) -> str | None:
    """The stable version, if it has shown enough traffic and nothing speaks against it."""
    for facts in versions:
        candidate = facts.model_version
        against = [alert for alert in alerts.values() if alert.model_version == candidate]
        accused = any(
            alert.severity is Severity.PAGE or (alert.cause in SUSPECT and alert.state is AlertState.FIRING)
            for alert in against
        )
        condemned = candidate in before and before[candidate].decision is Action.ROLLBACK
        if facts.stable and candidate != name and facts.predictions >= fewest and not accused and not condemned:
            return candidate
    return None
