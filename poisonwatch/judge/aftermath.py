"""After a rollback was decided: did the traffic move, and did the symptom end?

Traffic is measured between two reports that are far enough apart and have enough predictions between them: silence is no
answer. So a log that is dead leaves a rollback where it was.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.wording import instant, percent, with_advice
from poisonwatch.types import Action, AlertState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poisonwatch.judge.standing import Standing
    from poisonwatch.types import Alert, Decision, Report, VersionFacts

INTERVAL = 600.0
"""Least seconds of event time over which traffic is measured."""

LEFT = 0.01
"""Share of the model's predictions at and below which a version's traffic has left it; of a version that had little, a tenth of what it had."""

LEAST_LEFT = 0.001
"""The same for a version that had next to nothing: below it would take too many predictions to tell."""

RECENT = 3600.0
"""Seconds after its last prediction for which a version is taken to have traffic, until that is measured."""

MOST_ROLLBACKS = 16
"""Rollbacks of a model that are watched beside those that are recommended now, the last ones decided."""

SYMPTOMS = frozenset([Cause.BACKDOOR, Cause.DEGRADATION, Cause.SLICE_DEGRADATION, Cause.BASELINE_CREEP])
"""Causes of an alert of the target that say that the harm went on."""


class RollbackState(StrEnum):
    """How far a rollback has come.

    `AWAITED`: traffic still goes to the bad version. `MOVED`: it left, and what took it is watched. `VERIFIED`: it answered enough and
    is healthy. `FAILED`: the symptom shows in what took the traffic, too: the version was not the cause, or not the only one.
    """

    AWAITED = "awaited"
    MOVED = "moved"
    VERIFIED = "verified"
    FAILED = "failed"


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """A rollback from `model_version` to `target` that was decided at `decided`, and is in `state` since `time`; both of event time.

    `traffic` is the bad version's share of the model's recent predictions; until the first measurement it is estimated from all that was
    seen. From `limit` on down the traffic has left. `since` and `marks` are when the interval that is being measured began, and how many predictions each version
    had then. `receiver` is who took the traffic (the target, or what runs instead), which had answered `received` predictions by then.
    """

    model: str
    model_version: str
    target: str | None
    state: RollbackState
    decided: float
    time: float
    traffic: float
    summary: str
    limit: float = LEFT
    since: float = 0.0
    marks: dict[str, int] = {}
    receiver: str | None = None
    received: int = 0


def begin(decision: Decision, report: Report, before: Rollback | None = None) -> Rollback:
    """Watch a rollback that is decided now; `before` is one of the same version that led elsewhere, and knows what traffic it gets."""
    rates = {one.model_version: _rate(one) for one in report.versions if report.time - one.last_seen <= RECENT}
    answered = sum(rates.values())
    share = rates.get(decision.model_version, 0.0) / answered if answered else 0.0
    limit = max(min(LEFT, share / 10), LEAST_LEFT) if share else LEFT
    awaited = Rollback(
        model=decision.model,
        model_version=decision.model_version,
        target=decision.target,
        state=RollbackState.AWAITED,
        decided=report.time,
        time=report.time,
        traffic=share if before is None else before.traffic,
        summary="",
        limit=limit if before is None else before.limit,
        since=report.time,
        marks=_counts(report.versions),
    )
    return msgspec.structs.replace(awaited, summary=_awaiting(awaited))


def step(rollback: Rollback, report: Report, standing: Standing, fewest: int) -> Rollback:
    """Where a rollback stands after a report; `standing` is what stands after it, our own decisions among them."""
    counts = _counts(report.versions)
    since = {name: n - before if n >= (before := rollback.marks.get(name, 0)) else n for name, n in counts.items()}
    answered = sum(since.values())
    measured = report.time - rollback.since >= INTERVAL and answered * rollback.limit >= 1
    if rollback.state is RollbackState.AWAITED and _is_unseen(rollback.model_version, standing.alerts.values()):
        # Its server answers what the log does not show: that nothing is seen of it is no sign that it left.
        return rollback
    if measured:
        share = since.get(rollback.model_version, 0) / answered
        rollback = msgspec.structs.replace(rollback, traffic=share, since=report.time, marks=counts)
    gone = rollback.model_version not in counts and bool(counts)
    if gone:
        rollback = msgspec.structs.replace(rollback, traffic=0.0)
    if rollback.state is RollbackState.AWAITED:
        if gone or (measured and rollback.traffic <= rollback.limit):
            return _moved(rollback, since, counts, report.time)
        return msgspec.structs.replace(rollback, summary=_awaiting(rollback)) if measured else rollback
    if measured and rollback.traffic > rollback.limit:
        back = _in_state(rollback, RollbackState.AWAITED, report.time, _returned(rollback))
        return msgspec.structs.replace(back, receiver=None, received=0)
    return _watched(rollback, since, counts, report, standing, fewest, measured=measured)


def aim(rollback: Rollback, target: str | None, time: float) -> Rollback:
    """The rollback with another target, while its traffic has not moved."""
    if rollback.state is not RollbackState.AWAITED or rollback.target == target:
        return rollback
    aimed = msgspec.structs.replace(rollback, target=target, time=time)
    return msgspec.structs.replace(aimed, summary=_awaiting(aimed))


def latest(rollbacks: Mapping[str, Rollback], holds: Mapping[str, Decision]) -> dict[str, Rollback]:
    """Those that hold by the decisions of now, and as many more as are watched, the last ones decided."""
    decided = {name for name, decision in holds.items() if decision.decision is Action.ROLLBACK}
    others = [one for name, one in rollbacks.items() if name not in decided]
    kept = sorted(others, key=lambda one: (one.decided, one.model_version))[-MOST_ROLLBACKS:]
    return {name: one for name, one in rollbacks.items() if name in decided or one in kept}


def _moved(rollback: Rollback, since: Mapping[str, int], counts: Mapping[str, int], time: float) -> Rollback:
    """The traffic left; who took it?"""
    receiver = _receiver(rollback, since)
    if receiver is None:
        return rollback
    summary = f"The traffic left {rollback.model_version} by {instant(time)}; {_takes(receiver, rollback.target)}. Whether the symptom ended is being watched."
    moved = _in_state(rollback, RollbackState.MOVED, time, summary)
    return msgspec.structs.replace(moved, receiver=receiver, received=counts[receiver])


def _watched(
    rollback: Rollback,
    since: Mapping[str, int],
    counts: Mapping[str, int],
    report: Report,
    standing: Standing,
    fewest: int,
    *,
    measured: bool,
) -> Rollback:
    """What the version that took the traffic shows."""
    receiver = rollback.receiver
    if receiver is None or receiver not in counts or (measured and not since[receiver]):
        # It went, too, or gets nothing any more: the next one has all to show.
        instead = _receiver(rollback, since)
        if instead is None or instead == receiver:
            return rollback
        return _moved(rollback, since, counts, report.time)
    symptom = _symptom(receiver, report.versions, standing.alerts.values())
    if rollback.state is RollbackState.FAILED:
        return rollback if symptom is not None else _ended(rollback, receiver, counts, report.time)
    if symptom is not None:
        told = f"The symptom went on in {receiver} after the traffic had left {rollback.model_version}, which was not the cause, or not the only one."
        return _in_state(rollback, RollbackState.FAILED, report.time, with_advice(symptom, told))
    answered = counts[receiver] - (rollback.received if counts[receiver] >= rollback.received else 0)
    own = standing.decisions.get(receiver)
    healthy = own is not None and own.decision is Action.KEEP
    left = since.get(rollback.model_version, 0) <= rollback.limit * sum(since.values())
    if rollback.state is RollbackState.MOVED and answered >= fewest and healthy and left:
        summary = f"The traffic left {rollback.model_version}. {receiver} has answered {answered:,} predictions since, and nothing speaks against it."
        return _in_state(rollback, RollbackState.VERIFIED, report.time, summary)
    return rollback


def _ended(rollback: Rollback, receiver: str, counts: Mapping[str, int], time: float) -> Rollback:
    """The symptom is gone from the version that took the traffic, too: it has to prove itself anew."""
    summary = f"The symptom is not seen in {receiver} any more. Whether it stays so is being watched."
    moved = _in_state(rollback, RollbackState.MOVED, time, summary)
    return msgspec.structs.replace(moved, received=counts[receiver])


def _is_unseen(version: str, alerts: Iterable[Alert]) -> bool:
    """Is it known that predictions of a version do not arrive here?"""
    return any(
        alert.model_version == version and alert.state is AlertState.FIRING and alert.cause is Cause.BLIND
        for alert in alerts
    )


def _symptom(receiver: str, versions: Iterable[VersionFacts], alerts: Iterable[Alert]) -> str | None:
    """What shows the harm in the version that took the traffic."""
    for alert in alerts:
        if alert.model_version == receiver and alert.state is AlertState.FIRING and alert.cause in SYMPTOMS:
            return alert.summary
    works = any(one.model_version == receiver and one.triggered for one in versions)
    return f"The trigger works in {receiver}, too." if works else None


def _receiver(rollback: Rollback, since: Mapping[str, int]) -> str | None:
    """Who answers instead: the target where it does, else who answers most."""
    others = {name: n for name, n in since.items() if n and name != rollback.model_version}
    if rollback.target in others:
        return rollback.target
    return max(others, key=lambda name: (others[name], name), default=None)


def _in_state(rollback: Rollback, state: RollbackState, time: float, summary: str) -> Rollback:
    return msgspec.structs.replace(rollback, state=state, time=time, summary=summary)


def _awaiting(rollback: Rollback) -> str:
    about = "about " if rollback.since == rollback.decided else ""
    told = f"{rollback.model_version} still gets {about}{percent(rollback.traffic)} of the predictions"
    where = (
        f"{rollback.target} is to take them"
        if rollback.target is not None
        else "no clean version is known to take them"
    )
    return f"{told}; {where}."


def _returned(rollback: Rollback) -> str:
    name, since = rollback.model_version, instant(rollback.time)
    back = f"{name} is back with {percent(rollback.traffic)} of the predictions, although its rollback was {rollback.state.value} at {since}"
    return f"{back}: somebody or something deployed it again."


def _takes(receiver: str, target: str | None) -> str:
    return (
        f"{receiver} takes it" if receiver == target else f"{receiver} takes it, and not {target or 'a known target'}"
    )


def _rate(facts: VersionFacts) -> float:
    """Predictions a second, over all the time that a version was seen."""
    return facts.predictions / max(facts.last_seen - facts.first_seen, 60.0)


def _counts(versions: Iterable[VersionFacts]) -> dict[str, int]:
    return {one.model_version: one.predictions for one in versions}
