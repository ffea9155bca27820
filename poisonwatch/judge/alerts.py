"""Alerts: evidence on its way over the budget and back, with hysteresis, one per model, version and group."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from poisonwatch.judge.cause import cause_of, summarise
from poisonwatch.profile.indicators import INPUTS
from poisonwatch.types import Alert, AlertState, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poisonwatch.types import Evidence

PENDING_AT = math.log(0.1)
"""Evidence of a tenth of the budget is worth watching."""

FIRING_AT = 0.0
"""Evidence of the whole budget may page."""

RESOLVED_AT = math.log(0.01)
"""An alert ends when its evidence fell to a hundredth of the budget, or below the budget with no effect left."""


def fingerprint(model: str, version: str | None, group: str) -> str:
    """Name of an alert that survives restarts and is the same in every replica."""
    return hashlib.sha256("\0".join((model, version or "", group)).encode()).hexdigest()[:16]


def step_alerts(
    alerts: Mapping[str, Alert], evidence: Iterable[Evidence], time: float
) -> tuple[dict[str, Alert], list[Alert]]:
    """Move the open alerts by new evidence: the alerts that are open now, and those whose state or severity changed.

    A resolved alert is among the changes and no longer among the open ones. Alerts without new evidence stay.
    """
    evidence = tuple(evidence)
    moved = {e.model_version for e in evidence if e.group == INPUTS and e.log_e >= PENDING_AT and _large(e)}
    opened, changes = dict(alerts), []
    for found in evidence:
        if not alerts and found.log_e < PENDING_AT:
            continue  # the usual case, a thousand times an hour
        name = fingerprint(found.model, found.model_version, found.group)
        before = alerts.get(name)
        state = _state(found, before)
        if state is None:
            continue
        after = _alert(found, name, state, before, time, inputs_moved=found.model_version in moved)
        if before is not None and (before.state, before.severity) == (state, after.severity):
            continue
        changes.append(after)
        if state is AlertState.RESOLVED:
            del opened[name]
        else:
            opened[name] = after
    return opened, changes


def _state(evidence: Evidence, before: Alert | None) -> AlertState | None:
    """Next state, or None for no alert. What fires goes on firing until it is resolved."""
    large = _large(evidence)
    if evidence.log_e <= RESOLVED_AT or (evidence.log_e < FIRING_AT and not large):
        return None if before is None else AlertState.RESOLVED
    if before is not None and before.state is AlertState.FIRING:
        return AlertState.FIRING
    if large and evidence.log_e >= FIRING_AT:
        return AlertState.FIRING
    return AlertState.PENDING if before is not None or evidence.log_e >= PENDING_AT else None


def _large(evidence: Evidence) -> bool:
    """Is the effect beyond the floor? Where little comes in, the budget that time earned is evidence of nothing."""
    return abs(evidence.effect) >= evidence.floor


def _alert(
    evidence: Evidence, name: str, state: AlertState, before: Alert | None, time: float, *, inputs_moved: bool
) -> Alert:
    cause, severity = cause_of(evidence, inputs_moved=inputs_moved)
    if before is not None and before.state is AlertState.FIRING:
        # The cause was established when it fired; what moves afterwards does not rewrite it.
        cause, severity = before.cause, before.severity
    return Alert(
        fingerprint=name,
        model=evidence.model,
        model_version=evidence.model_version,
        state=state,
        severity=Severity(severity),
        cause=cause,
        group=evidence.group,
        signal=evidence.signal,
        subjects=evidence.subjects,
        log_e=evidence.log_e,
        effect=evidence.effect,
        onset=evidence.onset,
        n=evidence.n,
        time=time,
        summary=summarise(evidence, cause),
    )
