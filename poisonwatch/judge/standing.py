"""All alerts and decisions of one model, moved by one report at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.alerts import step_alerts
from poisonwatch.judge.decision import decide, is_clean
from poisonwatch.types import PROVEN, Alert, AlertState, Cause, Decision, Reason, TriggerState

if TYPE_CHECKING:
    from poisonwatch.types import Report


MOST_CLEAN = 16
"""Versions that are gone and remembered as clean, the last ones."""

NOT_CLEAN = frozenset([Reason.INSUFFICIENT_DATA, Reason.TRIGGER_UNCONFIRMED, Reason.TRIGGER_CONFIRMED])
"""With what a version may not have gone, beside alerts of its own."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands of one model: open alerts by fingerprint, decisions by version.

    `clean` are versions that are gone and were healthy to the end: one can roll back to them.
    """

    alerts: dict[str, Alert] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    clean: tuple[str, ...] = ()


def judge(standing: Standing, report: Report, fewest: int) -> tuple[Standing, list[Alert], list[Decision]]:
    """Take one report into account: what stands now, the alerts that changed, the decisions that changed."""
    alerts, changed = step_alerts(standing.alerts, report.evidence, report.time)
    gone = [
        name
        for name in report.retired
        if name in standing.decisions
        and standing.decisions[name].reason not in NOT_CLEAN
        and is_clean(name, alerts, standing.decisions)
    ]
    unfit = {facts.model_version for facts in report.versions} | _triggered(report)
    clean = tuple(name for name in dict.fromkeys((*standing.clean, *gone)) if name not in unfit)[-MOST_CLEAN:]
    for name, alert in list(alerts.items()):
        if alert.model_version in report.retired:
            del alerts[name]
            changed.append(_ended(alert, report.time))
    decisions: dict[str, Decision] = {}
    news = []
    for facts in report.versions:
        version = facts.model_version
        before = standing.decisions.get(version)
        after = decide(report.model, facts, report.versions, alerts, standing.decisions, clean, fewest, report.time)
        same = before is not None and _gist(before) == _gist(after)
        decisions[version] = before if same and before is not None else after
        if not same:
            news.append(after)
    return Standing(alerts, decisions, clean), changed, news


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
    return msgspec.structs.replace(
        alert, state=AlertState.RESOLVED, time=time, summary=f"{alert.model} {alert.model_version} is gone."
    )
