"""One decision per model version, with a named reason. A rollback is recommended on proof, never on silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.cause import PROOFS
from poisonwatch.profile.indicators import BY_LABELS, GOLDEN, TRIGGERS
from poisonwatch.types import Action, AlertState, Cause, Decision, Reason, Severity, Sign

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from poisonwatch.types import Alert, VersionFacts

HARM = (Cause.BACKDOOR, Cause.DEGRADATION, Cause.SLICE_DEGRADATION, Cause.BASELINE_CREEP)
"""Causes that say that the version does harm. A known backdoor says why."""

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
    before it can be called healthy. A rollback latches: afterwards only a trigger that is found changes what is said of it,
    or its target, where it works there, too.
    """
    name, versions = facts.model_version, tuple(versions)
    own = [alert for alert in alerts.values() if alert.model_version == name]
    firing = [alert for alert in own if alert.state is AlertState.FIRING]
    # What concerns the log or the feedback as a whole concerns every version.
    of_log = [a for a in alerts.values() if a.model_version is None and a.state is AlertState.FIRING]
    harm = _harm(firing)
    triggered = {other.model_version for other in versions if other.triggered}
    latched = before.get(name)
    if latched is not None and latched.decision is Action.ROLLBACK and latched.target not in triggered:
        return _restated(latched, harm, time)

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
    if facts.triggered and (on := _harm(a for a in alerts.values() if a.cause is Cause.BACKDOOR)):
        told = f"A trigger that was found in another version works in {name}, too. {on[0].summary}"
        return decision(Action.HOLD, Reason.TRIGGER_UNCONFIRMED, on, told)
    pending = [alert for alert in own if alert.severity is Severity.PAGE and alert.cause is not Cause.BLIND]
    if pending:
        return decision(
            Action.HOLD, Reason.EVIDENCE_PENDING, pending, f"Do not promote {name} yet. {pending[0].summary}"
        )
    if shown := _first(HELD, (*firing, *of_log)):
        reason, on = shown
        return decision(Action.HOLD, reason, on, on[0].summary)
    if facts.predictions < fewest:
        return decision(
            Action.HOLD, Reason.INSUFFICIENT_DATA, [], f"{name} has fewer than {fewest} predictions: too few to judge."
        )
    if shown := _first(KEPT, (*firing, *of_log)):
        reason, on = shown
        return decision(Action.KEEP, reason, on, on[0].summary)
    return decision(Action.KEEP, Reason.HEALTHY, [], f"{name} answers as the reference says it should.")


def _first(table: tuple[tuple[Cause, Reason], ...], alerts: Iterable[Alert]) -> tuple[Reason, list[Alert]] | None:
    """The first cause of the table that alerts have, as the reason that it is for a decision, and these alerts."""
    alerts = tuple(alerts)
    for cause, reason in table:
        on = [alert for alert in alerts if alert.cause is cause]
        if on:
            return reason, on
    return None


def _harm(alerts: Iterable[Alert]) -> list[Alert]:
    """Alerts that fire and say that a version does harm: what is known to be a backdoor first, then the best proven."""
    return sorted(
        (alert for alert in alerts if alert.state is AlertState.FIRING and alert.cause in HARM),
        key=lambda alert: (
            alert.cause is not Cause.BACKDOOR,
            alert.group not in PROOFS,
            alert.severity is not Severity.PAGE,
            alert.fingerprint,
        ),
    )


def _on_harm(harm: list[Alert], target: str | None) -> tuple[Action, Reason, list[Alert], str, str | None]:
    """What to do about a version that does harm, the best told first: roll back on proof, and only to a clean version."""
    why = harm[0].summary
    proofs = [alert for alert in harm if alert.group in PROOFS]
    settled = [alert for alert in proofs if not {Sign.AWAITED, Sign.REFUTED} & set(alert.because)]
    if not proofs:
        missing = "What is missing for a rollback: labels, or another version on the same traffic."
        return Action.HOLD, Reason.PROOF_MISSING, harm, f"{why} {missing}", None
    if not settled and all(Sign.REFUTED in alert.because for alert in proofs):
        missing = "Insertion did not reproduce it: look at the records, it may need more than what is named."
        return Action.HOLD, Reason.TRIGGER_UNCONFIRMED, harm, f"{why} {missing}", None
    if not settled:
        missing = "The decision waits for the inference endpoint to confirm or refute it."
        return Action.HOLD, Reason.EVIDENCE_PENDING, harm, f"{why} {missing}", None
    if target is None:
        missing = "No version to roll back to is known to be older or trusted, and clean."
        return Action.HOLD, Reason.NO_CLEAN_TARGET, harm, f"{why} {missing}", None
    proof = f" {settled[0].summary}" if settled[0] is not harm[0] else ""
    return Action.ROLLBACK, _proven(settled[0]), harm, f"{why}{proof} Roll back to {target}.", target


def _proven(alert: Alert) -> Reason:
    """By what the harm is proven."""
    if alert.group == TRIGGERS:
        return Reason.TRIGGER_CONFIRMED if Sign.CONFIRMED in alert.because else Reason.TRIGGER_UNCONFIRMED
    return Reason.MORE_ERRORS if alert.group in {*BY_LABELS, GOLDEN} else Reason.WORSE_THAN_STABLE


def _restated(latched: Decision, harm: list[Alert], time: float) -> Decision:
    """A rollback that stands. A trigger that was found or confirmed since says what the harm is."""
    if not harm or harm[0].cause is not Cause.BACKDOOR:
        return latched
    reason = Reason.TRIGGER_CONFIRMED if Sign.CONFIRMED in harm[0].because else latched.reason
    if (latched.cause, latched.reason) == (Cause.BACKDOOR, reason):
        return latched
    return msgspec.structs.replace(
        latched,
        reason=reason,
        cause=Cause.BACKDOOR,
        alerts=tuple(sorted({*latched.alerts, *(alert.fingerprint for alert in harm)})),
        time=time,
        summary=f"{harm[0].summary} Roll back to {latched.target}.",
    )


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
        if elder not in running or running[elder].predictions < fewest or running[elder].triggered:
            continue
        if is_clean(elder, alerts, before):
            return elder
    return None
