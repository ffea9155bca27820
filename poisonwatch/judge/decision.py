"""One decision per model version, with a named reason. A rollback is recommended on proof, never on silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.cause import PROOFS
from poisonwatch.judge.wording import with_advice, within
from poisonwatch.profile.indicators import BY_LABELS, GOLDEN, TRIGGERS
from poisonwatch.types import Action, AlertState, Cause, Decision, Reason, Severity, Sign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.judge.standing import Standing
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

NO_TARGET = (
    "No version to roll back to is known to be older or trusted, and clean: choose yourself what serves instead."
)


def decide(
    model: str, facts: VersionFacts, versions: Iterable[VersionFacts], standing: Standing, fewest: int, time: float
) -> Decision:
    """Decide for the version of `facts`; what a person decided instead is laid over it elsewhere (`override`).

    `versions` are all that are known, `standing` has the alerts of now and the decisions so far, `fewest` is how many predictions a version
    must have before it can be called healthy. A rollback latches: afterwards only a trigger that is found changes what is said of it, or a
    target that is found out itself; then another clean one is named, or none, and the version is held. It is never kept.
    """
    name, versions = facts.model_version, tuple(versions)
    firing = [a for a in standing.alerts.values() if a.model_version == name and a.state is AlertState.FIRING]
    harm = _harm(firing)
    latched = standing.latched.get(name)
    if latched is not None and latched.decision is Action.ROLLBACK:
        return _standing_by(latched, harm, facts, versions, standing, fewest, time)
    found = _found(model, facts, versions, standing, fewest, time, firing, harm)
    if latched is not None and found.cause not in HARM:
        return latched
    return found


def _found(
    model: str,
    facts: VersionFacts,
    versions: tuple[VersionFacts, ...],
    standing: Standing,
    fewest: int,
    time: float,
    firing: list[Alert],
    harm: list[Alert],
) -> Decision:
    """What the evidence of now says, whatever was decided before."""
    name, alerts = facts.model_version, standing.alerts

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
            summary=within(summary),
        )

    if harm:
        return decision(*_on_harm(harm, find_target(facts, versions, standing, fewest)))
    if facts.triggered and (on := _harm(a for a in alerts.values() if a.cause is Cause.BACKDOOR)):
        told = f"A trigger that was found in another version works in {name}, too. {on[0].summary}"
        return decision(Action.HOLD, Reason.TRIGGER_UNCONFIRMED, on, told)
    pending = [
        a
        for a in alerts.values()
        if a.model_version == name and a.severity is Severity.PAGE and a.cause is not Cause.BLIND
    ]
    if pending:
        told = f"Do not promote {name} yet. {pending[0].summary}"
        return decision(Action.HOLD, Reason.EVIDENCE_PENDING, pending, told)
    # What concerns the log or the feedback as a whole concerns every version.
    of_log = [a for a in alerts.values() if a.model_version is None and a.state is AlertState.FIRING]
    if shown := _first(HELD, (*firing, *of_log)):
        reason, on = shown
        return decision(Action.HOLD, reason, on, with_advice(on[0].summary, f"Do not promote {name} meanwhile."))
    if facts.predictions < fewest:
        few = f"{name} has {facts.predictions:,} predictions, fewer than {fewest}: too few to judge."
        return decision(Action.HOLD, Reason.INSUFFICIENT_DATA, [], few)
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
        return Action.HOLD, Reason.PROOF_MISSING, harm, with_advice(why, missing), None
    if not settled and all(Sign.REFUTED in alert.because for alert in proofs):
        missing = "Insertion did not reproduce it: look at the records, it may need more than what is named."
        return Action.HOLD, Reason.TRIGGER_UNCONFIRMED, harm, with_advice(why, missing), None
    if not settled:
        missing = "The decision waits for the inference endpoint to confirm or refute it."
        return Action.HOLD, Reason.EVIDENCE_PENDING, harm, with_advice(why, missing), None
    if target is None:
        return Action.HOLD, Reason.NO_CLEAN_TARGET, harm, with_advice(why, NO_TARGET), None
    if all(alert.severity is not Severity.PAGE for alert in harm):
        missing = "Its page has ended and what is left fades: a rollback needs a page that fires."
        return Action.HOLD, Reason.EVIDENCE_PENDING, harm, with_advice(why, missing), None
    proof = f" {settled[0].summary}" if settled[0] is not harm[0] else ""
    return Action.ROLLBACK, _proven(settled[0]), harm, with_advice(f"{why}{proof}", _back_to(target)), target


def _back_to(target: str) -> str:
    return f"Roll back to {target}."


def _proven(alert: Alert) -> Reason:
    """By what the harm is proven."""
    if alert.group == TRIGGERS:
        return Reason.TRIGGER_CONFIRMED if Sign.CONFIRMED in alert.because else Reason.TRIGGER_UNCONFIRMED
    return Reason.MORE_ERRORS if alert.group in {*BY_LABELS, GOLDEN} else Reason.WORSE_THAN_STABLE


def _standing_by(
    latched: Decision,
    harm: list[Alert],
    facts: VersionFacts,
    versions: tuple[VersionFacts, ...],
    standing: Standing,
    fewest: int,
    time: float,
) -> Decision:
    """A rollback that stands. A trigger that was found or confirmed since says what the harm is; a target that was found out is given up."""
    why = latched.summary.removesuffix(f" {_back_to(latched.target)}" if latched.target else f" {NO_TARGET}")
    known = latched
    if harm and harm[0].cause is Cause.BACKDOOR:
        reason = Reason.TRIGGER_CONFIRMED if Sign.CONFIRMED in harm[0].because else latched.reason
        if (latched.cause, latched.reason) != (Cause.BACKDOOR, reason):
            why = harm[0].summary
            alerts = tuple(sorted({*latched.alerts, *(alert.fingerprint for alert in harm)}))
            known = msgspec.structs.replace(latched, reason=reason, cause=Cause.BACKDOOR, alerts=alerts, time=time)
    triggered = {other.model_version for other in versions if other.triggered}
    target = latched.target
    if target is None or target in triggered or is_condemned(target, standing):
        target = find_target(facts, versions, standing, fewest)
    if target is None:
        return msgspec.structs.replace(
            known,
            decision=Action.HOLD,
            reason=Reason.NO_CLEAN_TARGET,
            target=None,
            time=time,
            summary=with_advice(why, NO_TARGET),
        )
    if known is latched and target == latched.target:
        return latched
    return msgspec.structs.replace(known, target=target, time=time, summary=with_advice(why, _back_to(target)))


def is_condemned(name: str, standing: Standing) -> bool:
    """Is it proven that a version does harm, or did a person roll it back?"""
    before, ordered = standing.decisions.get(name), standing.overrides.get(name)
    proven = any(
        alert.model_version == name and alert.group in PROOFS and not {Sign.AWAITED, Sign.REFUTED} & set(alert.because)
        for alert in _harm(standing.alerts.values())
    )
    return (
        proven
        or name in standing.latched
        or name in standing.rollbacks
        or (before is not None and before.decision is Action.ROLLBACK)
        or (ordered is not None and ordered.decision is Action.ROLLBACK)
    )


def is_clean(name: str, standing: Standing) -> bool:
    """Does nothing speak against a version? Only then may it be a target."""
    accused = any(
        alert.severity is Severity.PAGE or (alert.cause in SUSPECT and alert.state is AlertState.FIRING)
        for alert in standing.alerts.values()
        if alert.model_version == name
    )
    return not accused and not is_condemned(name, standing)


def find_target(facts: VersionFacts, versions: Iterable[VersionFacts], standing: Standing, fewest: int) -> str | None:
    """The last version known to be older or trusted that has shown enough traffic and that nothing speaks against."""
    running = {other.model_version: other for other in versions}
    for elder in facts.elders:
        if elder not in running and elder in standing.clean:
            return elder
        if elder not in running or running[elder].predictions < fewest or running[elder].triggered:
            continue
        if is_clean(elder, standing):
            return elder
    return None
