"""All alerts and decisions of one model, moved by one report at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.alerts import step_alerts
from poisonwatch.judge.decision import decide, is_clean
from poisonwatch.types import Alert, AlertState, Decision, Reason

if TYPE_CHECKING:
    from poisonwatch.types import Report


MOST_CLEAN = 16
"""Versions that are gone and remembered as clean, the last ones."""


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
        and standing.decisions[name].reason is not Reason.INSUFFICIENT_DATA
        and is_clean(name, alerts, standing.decisions)
    ]
    running = {facts.model_version for facts in report.versions}
    clean = tuple(name for name in dict.fromkeys((*standing.clean, *gone)) if name not in running)[-MOST_CLEAN:]
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
        same = before is not None and (before.decision, before.reason, before.target) == (
            after.decision,
            after.reason,
            after.target,
        )
        decisions[version] = before if same and before is not None else after
        if not same:
            news.append(after)
    return Standing(alerts, decisions, clean), changed, news


def _ended(alert: Alert, time: float) -> Alert:
    """The alert of a version that is gone."""
    return msgspec.structs.replace(
        alert, state=AlertState.RESOLVED, time=time, summary=f"{alert.model} {alert.model_version} is gone."
    )
