"""What there is to tell of the models as they stand: the alerts of deploy/prometheus, under the same names and the same conditions.

Where a rule of Prometheus and this would say different things, whoever was called by one could not look it up with the other. Rules on the agent
itself (down, stale, ...) have no notice: who is dead tells nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.advice import ADVISED, next_steps, runbook
from poisonwatch.judge.aftermath import Rollback, RollbackState
from poisonwatch.judge.alerts import fingerprint
from poisonwatch.judge.decision import HARM
from poisonwatch.judge.story import Story
from poisonwatch.judge.wording import instant, percent
from poisonwatch.types import Action, Alert, AlertState, Cause, Decision, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poisonwatch.sinks.snapshot import ModelSnapshot

HARM_WAITS = 300.0
"""Seconds that harm waits for a proof, which makes it a rollback: one page, not two."""

ROLLBACK_WAITS = 1800.0
"""Seconds that a rollback has to be carried out before it is asked for again."""

HARMS = "PoisonwatchHarm"
NOT_EXECUTED = "PoisonwatchRollbackNotExecuted"
FAILED = "PoisonwatchRollbackFailed"

PAGES = frozenset([ADVISED, NOT_EXECUTED, FAILED, HARMS, "PoisonwatchFeedbackPoisoned", "PoisonwatchBlind"])
"""What somebody must get up for."""

UNSAID = "The agent does not tell of it any more. That is not to say that all is well: ask it (`poisonwatch decision`)."

TITLES = {
    HARMS: "{who} does harm ({cause}), and a person must decide.",
    "PoisonwatchFeedbackPoisoned": "Somebody poisons the labels of {model}: stop retraining on them.",
    "PoisonwatchBlind": "Nobody can say whether {who} is healthy: too little of its log arrives.",
    "PoisonwatchInputDrift": "The inputs of {who} moved.",
    "PoisonwatchOutputChange": "The answers of {who} moved, and nothing yet says that it does harm.",
    "PoisonwatchDataQuality": "The data of {who} changed in kind.",
    "PoisonwatchReferenceUnfit": "The reference of {model} does not fit its labels; errors are not watched well until it does.",
    "PoisonwatchPartlyBlind": "Predictions of {who} get lost on their way to the monitor.",
}

DEEDS = {
    HARMS: "Do: stop any promotion of {version}, then decide: roll back by hand, or `poisonwatch override` with your reason.",
    "PoisonwatchFeedbackPoisoned": "Do: stop every retraining that takes these labels, before the next one runs. The model that answers now is not "
    "accused: do not roll back for this.",
    "PoisonwatchBlind": "Do: treat {model} as unwatched. Promote nothing, and find out where its predictions get lost.",
}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to tell: what Prometheus would call an alert. It fires until it has `ended`.

    `id` is the same whenever the same state of the same thing is told, also after a restart and from another replica. `began` and `ended` are Unix
    seconds of event time. `cause` is empty where it may change while the notice stands. `description` is the whole story for whoever is woken;
    `alert`, `decision` with its `story`, and `rollback` are what it tells of.
    """

    id: str
    name: str
    fingerprint: str
    model: str
    model_version: str | None
    cause: str
    severity: str
    began: float
    summary: str
    description: str
    ended: float | None = None
    alert: Alert | None = None
    decision: Decision | None = None
    story: Story | None = None
    rollback: Rollback | None = None


def closed(notice: Notice, at: float, why: str = UNSAID) -> Notice:
    """The same, ended at a time of event time."""
    identity = _id(notice.name, notice.fingerprint, notice.cause, "resolved", at)
    return msgspec.structs.replace(notice, id=identity, ended=at, description=why)


def key_of(notice: Notice) -> tuple[str, str, str]:
    """What stays the same while something goes on. An alert whose cause is another now is another thing: so it is for Alertmanager."""
    return notice.name, notice.fingerprint, notice.cause


def notices_of(
    now: float, started: float, models: Iterable[ModelSnapshot], resolved: Iterable[Alert] = ()
) -> list[Notice]:
    """Everything that stands at `now` (Unix seconds), and that the alerts which were `resolved` since the last call do not any more.

    `started` is when the agent did: nobody was told before of what it finds in an old log, so what waits begins to wait then.
    """
    found = [notice for model in models for notice in _of_model(now, started, model)]
    stand = {key_of(notice) for notice in found if notice.ended is None}
    parted = [
        closed(_of_alert(alert), alert.time, f"{alert.summary}\n{UNSAID}")
        for alert in resolved
        if alert.state is AlertState.RESOLVED
    ]
    return found + [notice for notice in parted if key_of(notice) not in stand]


def _of_model(now: float, started: float, model: ModelSnapshot) -> Iterator[Notice]:
    decided = {one.model_version: one for one in model.decisions}
    rollbacks = {one.model_version: one for one in model.rollbacks}
    for alert in model.alerts:
        decision = decided.get(alert.model_version or "")
        if alert.state is AlertState.FIRING and _told(alert):
            notice = _of_alert(alert, decision, model.stories.get(alert.model_version or ""))
            if notice.name != HARMS:
                yield notice
            elif decision is not None and (settled := _settled(model, decision)):
                yield closed(notice, decision.time, settled)
            elif now - max(alert.time, started) >= HARM_WAITS:
                yield notice
    for version, decision in decided.items():
        yield _of_decision(model, decision, rollbacks.get(version))
    for version, rollback in rollbacks.items():
        decision = decided.get(version)
        waited = now - max(rollback.decided, started) >= ROLLBACK_WAITS
        if rollback.state is RollbackState.FAILED:
            yield _of_rollback(FAILED, rollback, decision)
        elif rollback.state is RollbackState.AWAITED and waited and _recommended(decision):
            yield _of_rollback(NOT_EXECUTED, rollback, decision)


def _settled(model: ModelSnapshot, decision: Decision) -> str:
    """Why nobody has to decide on a version that does harm; empty where somebody must."""
    if _recommended(decision):
        return f"It is told as {ADVISED} now."
    return decision.summary if any(one.model_version == decision.model_version for one in model.overrides) else ""


def _recommended(decision: Decision | None) -> bool:
    return decision is not None and decision.decision is Action.ROLLBACK


def _told(alert: Alert) -> bool:
    """Has it a rule? What would page is a ticket where the page of its version is open already, and that tells of it."""
    paging = alert.cause in HARM or alert.cause is Cause.FEEDBACK_POISONING
    return alert.severity is Severity.PAGE or not paging


def _of_alert(alert: Alert, decision: Decision | None = None, story: Story | None = None) -> Notice:
    name = runbook(alert, ())
    version = alert.model_version
    words = {
        "who": alert.model if version is None else f"{alert.model} {version}",
        "model": alert.model,
        "version": version or "any version",
        "cause": alert.cause.replace("_", " "),
    }
    lines = [alert.summary, f"Since: {instant(alert.onset)}."]
    if alert.affected is not None:
        lines.append(f"Touched: {percent(alert.affected)} of {'its' if version else 'the'} predictions since then.")
    if name == HARMS and decision is not None:
        lines.append(
            f"Decision: {decision.decision} ({decision.reason.replace('_', ' ')}), which does not protect anybody whom {version} answers now."
        )
    lines.append(DEEDS[name].format(**words) if name in DEEDS else f"Ask: poisonwatch explain {alert.fingerprint}")
    return Notice(
        id=_id(name, alert.fingerprint, alert.cause, "firing", alert.time),
        name=name,
        fingerprint=alert.fingerprint,
        model=alert.model,
        model_version=version,
        cause=alert.cause,
        severity=_severity(name),
        began=alert.time,
        summary=TITLES[name].format(**words),
        description="\n".join(lines),
        alert=alert,
        decision=decision,
        story=story,
    )


def _of_decision(of: ModelSnapshot, decision: Decision, rollback: Rollback | None) -> Notice:
    """That a version is to be rolled back, until its traffic has left."""
    model, version, target = decision.model, decision.model_version, decision.target
    name, story = fingerprint(model, version, "decision"), of.stories.get(version)
    where = f" to {target}" if target else ""
    why = f": {decision.cause.replace('_', ' ')}" if decision.cause is not None else ""
    lines = [decision.summary]
    if story is not None and story.onset is not None:
        lines.append(f"Since: {instant(story.onset)}.")
    if story is not None and story.share is not None:
        lines.append(f"Touched: {percent(story.share)} of its predictions since then.")
    if story is not None and story.target_because:
        lines.append(f"Target: {story.target_because}")
    if rollback is not None:
        lines.append(f"Traffic: {version} still answers {percent(rollback.traffic)} of the requests.")
    lines.append(f"Do: {' '.join(next_steps(decision, rollback))}")
    notice = Notice(
        id=_id(ADVISED, name, "", "firing", decision.time, target or ""),
        name=ADVISED,
        fingerprint=name,
        model=model,
        model_version=version,
        cause="",
        severity=_severity(ADVISED),
        began=decision.time,
        summary=f"Roll back {model} {version}{where}{why}.",
        description="\n".join(lines),
        alert=next((alert for alert in of.alerts if alert.fingerprint in decision.alerts), None),
        decision=decision,
        story=story,
        rollback=rollback,
    )
    if not _recommended(decision):
        return closed(notice, decision.time, decision.summary)
    if rollback is not None and rollback.state is not RollbackState.AWAITED:
        return closed(notice, rollback.time, rollback.summary)
    return notice


def _of_rollback(name: str, rollback: Rollback, decision: Decision | None) -> Notice:
    """What has become of a rollback, where that is bad."""
    model, version, target, receiver = rollback.model, rollback.model_version, rollback.target, rollback.receiver
    since = rollback.decided if name == NOT_EXECUTED else rollback.time
    if name == NOT_EXECUTED:
        summary = f"{model} {version} was to be rolled back half an hour ago and still gets traffic."
        deed = "Do: look why the rollout stands still, and move the traffic by hand."
    else:
        summary = f"{model} was rolled back from {version}{_symptom_in(receiver, target)}"
        instead = (
            f"move the traffic to {target} if `poisonwatch decision` still recommends it, for this does not speak against it; else "
            if _went_elsewhere(receiver, target)
            else ""
        )
        deed = (
            f"Do: {instead}take {model} out of service, or fall back to whatever answers without it, until somebody knows why. "
            "Suspect the shared training data first."
        )
    blamed = [f"Why {version} was blamed: {decision.summary}"] if decision is not None else []
    of = fingerprint(model, version, "rollback")
    return Notice(
        id=_id(name, of, "", "firing", since, receiver or target or ""),
        name=name,
        fingerprint=of,
        model=model,
        model_version=version,
        cause="",
        severity=_severity(name),
        began=since,
        summary=summary,
        description="\n".join([rollback.summary, *blamed, deed]),
        decision=decision,
        rollback=rollback,
    )


def _symptom_in(receiver: str | None, target: str | None) -> str:
    """Who shows the symptom: whoever took the traffic, and nobody else."""
    if receiver is None:
        return ", and the symptom is still there."
    if receiver == target:
        return f" to {target}, and the symptom is still there."
    missed = f", not {target}," if target else ""
    return f"; {receiver} took the traffic{missed} and shows the symptom."


def _went_elsewhere(receiver: str | None, target: str | None) -> bool:
    return receiver is not None and target is not None and receiver != target


def _severity(name: str) -> str:
    return "critical" if name in PAGES else "warning"


def _id(name: str, of: str, cause: str, state: str, since: float, target: str = "") -> str:
    """The name of a state: what is the same state has the same, whoever tells it and however often."""
    told = "\0".join((name, of, cause, state, repr(since), target))
    return f"pw_{hashlib.sha256(told.encode()).hexdigest()[:32]}"
