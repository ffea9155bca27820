"""All alerts, decisions and rollbacks of one model, moved by one report at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from poisonwatch.judge.aftermath import Rollback, RollbackState, aim, begin, latest, step
from poisonwatch.judge.alerts import step_alerts
from poisonwatch.judge.cause import COMPARED
from poisonwatch.judge.decision import HARM, decide, is_clean, is_condemned
from poisonwatch.judge.override import Override, overridden
from poisonwatch.judge.wording import with_advice
from poisonwatch.types import PROVEN, Action, Alert, AlertState, Cause, Decision, Reason, Severity, TriggerState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poisonwatch.types import Report


MOST_CLEAN = 16
"""Versions that are gone and remembered as clean, the last ones."""

NOT_CLEAN = frozenset([Reason.INSUFFICIENT_DATA, Reason.TRIGGER_UNCONFIRMED, Reason.TRIGGER_CONFIRMED])
"""With what a version may not have gone, beside alerts of its own."""

SILENT = "Nothing shows it any more, which is silence and no refutation: the version stays on hold until it is gone or a person decides."


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands of one model: open alerts by fingerprint, our own decisions by version.

    `clean` are versions that are gone and were healthy to the end: one can roll back to them. `latched` are decisions by version that outlive their
    evidence: rollbacks (without a target where theirs was found out; also of versions that are gone, while they are watched), and holds whose
    evidence only fell silent. `overrides` are what people
    decided instead, by version, and `rollbacks` those that are being watched; `told` are the decisions that hold, as they were told last.
    """

    alerts: dict[str, Alert] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    clean: tuple[str, ...] = ()
    latched: dict[str, Decision] = field(default_factory=dict)
    overrides: dict[str, Override] = field(default_factory=dict)
    rollbacks: dict[str, Rollback] = field(default_factory=dict)
    told: dict[str, Decision] = field(default_factory=dict)


class Judged(NamedTuple):
    """What stands after a report, and what changed: alerts, decisions that hold, rollbacks that are watched."""

    standing: Standing
    alerts: list[Alert]
    decisions: list[Decision]
    rollbacks: list[Rollback]


def effective(standing: Standing) -> dict[str, Decision]:
    """The decisions that hold, by version: a person's where one overrides ours, without a target that was found out since."""
    return {
        name: own if (ordered := standing.overrides.get(name)) is None else _overruled(own, ordered, standing)
        for name, own in standing.decisions.items()
    }


def _overruled(own: Decision, ordered: Override, standing: Standing) -> Decision:
    found_out = ordered.target is not None and is_condemned(ordered.target, standing)
    return overridden(own, ordered, ordered.time, found_out=found_out)


def judge(standing: Standing, report: Report, fewest: int) -> Judged:
    """Take one report into account; one that has no news restates what stands, after a person has ordered something."""
    alerts, changed = step_alerts(standing.alerts, report.evidence, report.time)
    moved = replace(standing, alerts=alerts)
    gone = [
        name
        for name in report.retired
        if name in standing.decisions and standing.decisions[name].reason not in NOT_CLEAN and is_clean(name, moved)
    ]
    unfit = {facts.model_version for facts in report.versions} | _triggered(report)
    clean = tuple(name for name in dict.fromkeys((*standing.clean, *gone)) if name not in unfit)[-MOST_CLEAN:]
    for name, alert in list(alerts.items()):
        if alert.model_version in report.retired:
            del alerts[name]
            changed.append(_ended(alert, report.time))
    running = {facts.model_version for facts in report.versions}
    moved = replace(
        standing,
        alerts=alerts,
        clean=clean,
        latched={
            name: one
            for name, one in standing.latched.items()
            if name in running or _comes_back(one, standing.rollbacks)
        },
        overrides={name: one for name, one in standing.overrides.items() if name in running},
    )
    moved = replace(moved, latched={**moved.latched, **_fallen_silent(moved, report, changed)})
    decisions: dict[str, Decision] = {}
    for facts in report.versions:
        version = facts.model_version
        before = standing.decisions.get(version)
        after = decide(report.model, facts, report.versions, moved, fewest, report.time)
        same = before is not None and _gist(before) == _gist(after)
        decisions[version] = before if same and before is not None else after
    now = replace(moved, decisions=_resumed(moved, decisions, report.time), latched=_latched(moved, decisions))
    holds = effective(now)
    told = {
        name: before
        if (before := standing.told.get(name)) is not None and _gist(before) == _gist(decision)
        else decision
        for name, decision in holds.items()
    }
    news = [decision for name, decision in told.items() if decision is not standing.told.get(name)]
    rollbacks = _follow(now, holds, report, fewest)
    stirred = [one for name, one in rollbacks.items() if _came_to(one) != _came_to(standing.rollbacks.get(name))]
    return Judged(replace(now, told=told, rollbacks=rollbacks), changed, news, stirred)


def _comes_back(latched: Decision, rollbacks: Mapping[str, Rollback]) -> bool:
    """Is a version that is gone still to be rolled back, should somebody deploy it again?"""
    return latched.decision is Action.ROLLBACK and latched.model_version in rollbacks


def _resumed(standing: Standing, decisions: dict[str, Decision], time: float) -> dict[str, Decision]:
    """Our own decisions; where a person's has just ended, ours holds since now."""
    return {
        name: msgspec.structs.replace(decision, time=time)
        if (told := standing.told.get(name)) is not None
        and told.reason is Reason.OVERRIDDEN
        and name not in standing.overrides
        else decision
        for name, decision in decisions.items()
    }


def _latched(standing: Standing, decisions: dict[str, Decision]) -> dict[str, Decision]:
    """What goes on after this report whatever the evidence does. Where a person says otherwise meanwhile, nothing latches beneath."""
    latched = dict(standing.latched)
    for name, decision in decisions.items():
        ordered = standing.overrides.get(name)
        before = latched.get(name)
        if decision.decision is Action.ROLLBACK and (ordered is None or ordered.decision is Action.ROLLBACK):
            latched[name] = decision
        elif before is not None and before.decision is Action.ROLLBACK and before.target is not None:
            # Its target was found out. The rollback stands all the same, and waits for another.
            found_out = {
                "target": None,
                "cause": decision.cause,
                "alerts": decision.alerts,
                "summary": decision.summary,
            }
            latched[name] = msgspec.structs.replace(before, **found_out)
    return latched


def _fallen_silent(standing: Standing, report: Report, changed: Iterable[Alert]) -> dict[str, Decision]:
    """Versions held for harm whose evidence has ended without being refuted: nobody brings the trigger any more, or nothing runs beside them.

    Whoever planted a backdoor must not get it kept by waiting.
    """
    quiet = {
        effect.model_version
        for trigger in report.triggers
        if trigger.state is TriggerState.ENDED
        for effect in trigger.versions
        if effect.works
    }
    alone = {(e.model_version, e.group) for e in report.evidence if e.group in COMPARED and e.compared_with is None}
    ended = {
        alert.model_version: alert
        for alert in changed
        if alert.state is AlertState.RESOLVED
        and (alert.model_version, alert.group) in alone
        and alert.cause in HARM
        and alert.severity is Severity.PAGE
    }
    return {
        name: msgspec.structs.replace(held, time=report.time, summary=with_advice(held.summary, SILENT))
        for name, held in standing.decisions.items()
        if name not in standing.latched
        and held.decision is Action.HOLD
        and held.cause in HARM
        and name not in standing.overrides
        and (
            (name in quiet and held.cause is Cause.BACKDOOR)
            or (name in ended and held.reason is not Reason.EVIDENCE_PENDING)
        )
    }


def _follow(standing: Standing, holds: dict[str, Decision], report: Report, fewest: int) -> dict[str, Rollback]:
    """The rollbacks that are watched, after this report; `standing` has the decisions of now and what was told before."""
    watched = {name: step(one, report, standing, fewest) for name, one in standing.rollbacks.items()}
    for name, decision in holds.items():
        told, latched = standing.told.get(name), standing.latched.get(name)
        if decision.decision is Action.ROLLBACK:
            newly = told is None or told.decision is not Action.ROLLBACK
            before = watched.get(name)
            elsewhere = (
                before is not None and before.state is not RollbackState.AWAITED and before.target != decision.target
            )
            if before is None or (newly and elsewhere):
                watched[name] = begin(decision, report, before)
            watched[name] = aim(watched[name], decision.target, report.time)
        elif name in watched and (_rolls_back(latched) or _rolls_back(standing.overrides.get(name))):
            # It is to be rolled back all the same, and its target was found out.
            watched[name] = aim(watched[name], None, report.time)
    return latest(watched, holds)


def _rolls_back(decided: Decision | Override | None) -> bool:
    return decided is not None and decided.decision is Action.ROLLBACK


def _came_to(rollback: Rollback | None) -> tuple[object, ...]:
    """What makes a rollback worth telling again."""
    return () if rollback is None else (rollback.state, rollback.target, rollback.receiver, rollback.decided)


def _triggered(report: Report) -> set[str]:
    """Versions in which a trigger that is told works: also those that are gone."""
    return {
        version
        for trigger in report.triggers
        for version in (
            *(effect.model_version for effect in trigger.versions if effect.works and trigger.state in PROVEN),
            *(test.model_version for test in trigger.tests if test.verdict is TriggerState.CONFIRMED),
        )
    }


def _gist(decision: Decision) -> tuple[object, ...]:
    """What makes a decision worth telling again: also that a trigger explains it."""
    return decision.decision, decision.reason, decision.target, decision.cause is Cause.BACKDOOR


def _ended(alert: Alert, time: float) -> Alert:
    """The alert of a version that is gone."""
    told = f"{alert.model} {alert.model_version} is gone, and what was found of it with it: nothing more can be seen of it."
    return msgspec.structs.replace(alert, state=AlertState.RESOLVED, time=time, summary=told)
