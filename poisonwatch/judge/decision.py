"""One decision per model version, with a named reason. A rollback is recommended on proof, never on silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poisonwatch.judge.cause import PROOFS
from poisonwatch.profile.indicators import BY_LABELS
from poisonwatch.types import Action, AlertState, Cause, Decision, Reason, Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from poisonwatch.types import Alert, VersionFacts

HARM = (Cause.DEGRADATION, Cause.SLICE_DEGRADATION, Cause.BASELINE_CREEP)
"""Causes that say that the version does harm."""

SUSPECT = (*HARM, Cause.OUTPUT_CHANGE, Cause.DATA_QUALITY)
"""What hold is said for: a version that shows it itself is no target."""


HELD = (
    (Cause.FEEDBACK_POISONING, Reason.FEEDBACK_SUSPECT),
    (Cause.OUTPUT_CHANGE, Reason.OUTPUTS_MOVED),
    (Cause.BLIND, Reason.BLIND),
    (Cause.DATA_QUALITY, Reason.DATA_QUALITY),
)
"""Causes that prove no harm of the version and yet speak against promoting it, the gravest first."""


KEPT = ((Cause.INPUT_DRIFT, Reason.INPUTS_MOVED), (Cause.REFERENCE_UNFIT, Reason.REFERENCE_UNFIT))
"""Causes that are worth a word and no fault of the version."""


def decide(
    model: str,
    facts: VersionFacts,
    versions: Iterable[VersionFacts],
    alerts: Mapping[str, Alert],
    before: Mapping[str, Decision],
    clean: Collection[str],
    fewest: int,
    time: float,
) -> Decision:
    """Decide for the version of `facts`.

    `versions` are all that are known, `alerts` the open ones of the model by fingerprint, `before` the decisions so far by
    version, `clean` versions that are gone and were healthy to the end, `fewest` how many predictions a version must have
    before it can be called healthy. A rollback latches.
    """
    name = facts.model_version
    latched = before.get(name)
    if latched is not None and latched.decision is Action.ROLLBACK:
        return latched
    own = [alert for alert in alerts.values() if alert.model_version == name]
    firing = [alert for alert in own if alert.state is AlertState.FIRING]
    # What concerns the log or the feedback as a whole concerns every version.
    of_log = [a for a in alerts.values() if a.model_version is None and a.state is AlertState.FIRING]
    harm = sorted(
        (alert for alert in firing if alert.cause in HARM),
        key=lambda alert: (alert.group not in PROOFS, alert.severity is not Severity.PAGE, alert.fingerprint),
    )

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

    if harm:
        target = _target(facts, versions, alerts, before, clean, fewest)
        return decision(*_on_harm(harm, target))
    pending = [alert for alert in own if alert.severity is Severity.PAGE]
    if pending:
        return decision(
            Action.HOLD, Reason.EVIDENCE_PENDING, pending, f"Do not promote {name} yet. {pending[0].summary}"
        )
    for cause, reason in HELD:
        on = [alert for alert in (*firing, *of_log) if alert.cause is cause]
        if on:
            return decision(Action.HOLD, reason, on, on[0].summary)
    if facts.predictions < fewest:
        return decision(
            Action.HOLD, Reason.INSUFFICIENT_DATA, [], f"{name} has fewer than {fewest} predictions: too few to judge."
        )
    for cause, reason in KEPT:
        on = [alert for alert in (*firing, *of_log) if alert.cause is cause]
        if on:
            return decision(Action.KEEP, reason, on, on[0].summary)
    return decision(Action.KEEP, Reason.HEALTHY, [], f"{name} answers as the reference says it should.")


def _on_harm(harm: list[Alert], target: str | None) -> tuple[Action, Reason, list[Alert], str, str | None]:
    """What to do about a version that does harm, the best proven first: roll back on proof, and only to a clean version."""
    first, why = harm[0], harm[0].summary
    if first.group not in PROOFS:
        missing = "What is missing for a rollback: labels, or another version on the same traffic."
        return Action.HOLD, Reason.PROOF_MISSING, harm, f"{why} {missing}", None
    if target is None:
        missing = "No version to roll back to is known to be older or trusted, and clean."
        return Action.HOLD, Reason.NO_CLEAN_TARGET, harm, f"{why} {missing}", None
    reason = Reason.MORE_ERRORS if first.group in BY_LABELS else Reason.WORSE_THAN_STABLE
    return Action.ROLLBACK, reason, harm, f"{why} Roll back to {target}.", target


def is_clean(name: str, alerts: Mapping[str, Alert], before: Mapping[str, Decision]) -> bool:
    """Does nothing speak against a version? Only then may it be a target."""
    accused = any(
        alert.severity is Severity.PAGE or (alert.cause in SUSPECT and alert.state is AlertState.FIRING)
        for alert in alerts.values()
        if alert.model_version == name
    )
    return not accused and not (name in before and before[name].decision is Action.ROLLBACK)


def _target(
    facts: VersionFacts,
    versions: Iterable[VersionFacts],
    alerts: Mapping[str, Alert],
    before: Mapping[str, Decision],
    clean: Collection[str],
    fewest: int,
) -> str | None:
    """The last version known to be older or trusted that has shown enough traffic and that nothing speaks against."""
    running = {other.model_version: other for other in versions}
    for elder in facts.elders:
        if elder not in running and elder in clean:
            return elder
        if elder in running and running[elder].predictions >= fewest and is_clean(elder, alerts, before):
            return elder
    return None
