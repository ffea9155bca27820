"""Alerts: evidence on its way over the budget and back, with hysteresis, one per model, version and group."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.cause import affected, diagnose, farewell, summarise
from poisonwatch.profile.indicators import (
    CANARY_FLIPS,
    CANARY_INPUTS,
    CONFIDENCE_FALL,
    COVERAGE,
    INPUTS,
    QUALITY,
    SLICE_CONFIDENCE,
    TRIGGERS,
)
from poisonwatch.types import Alert, AlertState, Cause, Severity, Sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poisonwatch.types import Evidence

PENDING_AT = math.log(0.1)
"""Evidence of a tenth of the budget is worth watching."""

FIRING_AT = 0.0
"""Evidence of the whole budget may page."""

RESOLVED_AT = math.log(0.01)
"""An alert ends when its evidence fell to a hundredth of the budget, or below the budget with no effect left."""

SMALL = 0.8
"""Share of the floor below which the effect of an open alert counts as gone: at the floor itself nothing opens and ends by turns."""


EXPLAINED = frozenset([Cause.INPUT_DRIFT, Cause.DATA_QUALITY, Cause.REFERENCE_UNFIT, Cause.BLIND])
"""Causes that lie outside of the version."""

UNSEEN = frozenset([QUALITY, COVERAGE])
"""Groups that page because the monitor is blind; what else pages of the same version is another matter."""

COUNTS_FROM = {
    INPUTS: PENDING_AT,
    QUALITY: PENDING_AT,
    CANARY_INPUTS: PENDING_AT,
    CANARY_FLIPS: PENDING_AT,
    CONFIDENCE_FALL: RESOLVED_AT,
    SLICE_CONFIDENCE: RESOLVED_AT,
}
"""Evidence in nats from which a group counts as a mark, where that is less than what fires."""


def fingerprint(model: str, version: str | None, group: str) -> str:
    """Name of an alert that survives restarts and is the same in every replica."""
    return hashlib.sha256("\0".join((model, version or "", group)).encode()).hexdigest()[:16]


def step_alerts(
    alerts: Mapping[str, Alert], evidence: Iterable[Evidence], time: float
) -> tuple[dict[str, Alert], list[Alert]]:
    """Move the open alerts by new evidence: the alerts that are open now, and those whose state or severity changed.

    An alert's summary is that of its last change, its numbers are those of now. A resolved alert is among the changes and no longer among the open ones. Alerts without new evidence stay. Of several that would page at
    once a trigger does: it says what the others are effects of.
    """
    evidence = sorted(evidence, key=lambda found: found.group != TRIGGERS)
    marks = _marks(evidence)
    opened, changes = dict(alerts), []
    for found in evidence:
        if not alerts and found.log_e < PENDING_AT:
            continue  # the usual case, a thousand times an hour
        name = fingerprint(found.model, found.model_version, found.group)
        before = alerts.get(name)
        state = _state(found, before)
        if state is None:
            continue
        paged = any(
            alert.severity is Severity.PAGE
            and alert.state is AlertState.FIRING
            and alert.model_version == found.model_version
            and (alert.group in UNSEEN) == (found.group in UNSEEN)
            for of, alert in opened.items()
            if of != name
        )
        after = _alert(found, name, state, before, time, marks[found.model_version], paged=paged)
        if before is not None and _gist(before) == _gist(after):
            # Nothing to tell anew; whoever looks now sees the numbers of now.
            opened[name] = msgspec.structs.replace(
                before,
                log_e=after.log_e,
                effect=after.effect,
                n=after.n,
                subjects=after.subjects or before.subjects,
                affected=before.affected if after.affected is None else after.affected,
            )
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
    small = abs(evidence.effect) < evidence.floor * (1.0 if before is None else SMALL)
    if evidence.log_e <= RESOLVED_AT or (evidence.log_e < FIRING_AT and small):
        return None if before is None else AlertState.RESOLVED
    if before is not None and before.state is AlertState.FIRING:
        return AlertState.FIRING
    if large and evidence.log_e >= FIRING_AT:
        return AlertState.FIRING
    return AlertState.PENDING if before is not None or evidence.log_e >= PENDING_AT else None


def _large(evidence: Evidence) -> bool:
    """Is the effect beyond the floor? Where little comes in, the budget that time earned is evidence of nothing."""
    return abs(evidence.effect) >= evidence.floor


def _marks(evidence: Iterable[Evidence]) -> dict[str | None, frozenset[str]]:
    """By version, the groups whose evidence fires. Some count earlier.

    Inputs do, so that what they explain does not page before they fire; so does what only has to agree with evidence that
    fires by itself.
    """
    found: dict[str | None, set[str]] = {}
    for e in evidence:
        known = found.setdefault(e.model_version, set())
        if e.log_e >= COUNTS_FROM.get(e.group, FIRING_AT) and _large(e):
            known.add(e.group)
    return {version: frozenset(groups) for version, groups in found.items()}


def _gist(alert: Alert) -> tuple[object, ...]:
    """What makes an alert worth telling again; once it fires, also what it rests on."""
    because = alert.because if alert.state is AlertState.FIRING else ()
    return alert.state, alert.severity, alert.cause, because


def _unexplained(alert: Alert) -> bool:
    """Is it a ticket for which nothing but the version can be to blame?"""
    return alert.severity is Severity.TICKET and alert.cause not in EXPLAINED


def _lasts(before: Alert, cause: Cause) -> bool:
    """Is the monitor still blind, of which there is a ticket?"""
    return before.severity is Severity.TICKET and before.cause is cause is Cause.BLIND


def _found_out(before: Alert, evidence: Evidence, cause: Cause) -> bool:
    """Is a pattern known as a trigger by now, or a trigger as confirmed? What was confirmed stays confirmed."""
    return cause is Cause.BACKDOOR and evidence.log_e >= FIRING_AT and Sign.CONFIRMED not in before.because


def _alert(
    evidence: Evidence,
    name: str,
    state: AlertState,
    before: Alert | None,
    time: float,
    marks: frozenset[str],
    *,
    paged: bool,
) -> Alert:
    """The alert as it is now. Where the version's page is open already (`paged`), another one would wake nobody better."""
    cause, severity, because, against = diagnose(evidence, marks)
    rises = severity is Severity.PAGE and evidence.log_e >= FIRING_AT and not paged
    moves = before is not None and (
        (rises and (_unexplained(before) or _lasts(before, cause))) or _found_out(before, evidence, cause)
    )
    if before is not None and before.state is AlertState.FIRING and not moves:
        # The cause was established when it fired. What moves afterwards does not rewrite it, unless harm is seen of what
        # nothing explained, or a trigger becomes known, while the evidence is as strong: as it fades, so do the marks.
        cause, severity, because, against = before.cause, before.severity, before.because, before.against
    elif paged:
        severity = Severity.TICKET
    return Alert(
        fingerprint=name,
        model=evidence.model,
        model_version=evidence.model_version,
        state=state,
        severity=severity,
        cause=cause,
        group=evidence.group,
        signal=evidence.signal,
        subjects=evidence.subjects,
        log_e=evidence.log_e,
        effect=evidence.effect,
        onset=before.onset if before is not None and state is AlertState.RESOLVED else evidence.onset,
        n=evidence.n,
        time=time,
        summary=(farewell if state is AlertState.RESOLVED else summarise)(evidence, cause),
        second_onset=evidence.second_onset,
        because=because,
        against=against,
        affected=affected(evidence),
    )
