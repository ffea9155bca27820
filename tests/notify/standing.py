"""Models as they stand, made for the tests: only what is told of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from poisonwatch.judge.aftermath import Rollback, RollbackState
from poisonwatch.judge.alerts import fingerprint
from poisonwatch.judge.story import Story
from poisonwatch.notify.notices import Notice, notices_of
from poisonwatch.sinks.snapshot import ModelSnapshot
from poisonwatch.types import Action, Alert, AlertState, Cause, Decision, Reason, Severity
from tests.streams import START

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.judge.override import Override
    from poisonwatch.monitor.accused import FeedbackView
    from poisonwatch.profile.indicators import Questions

NOW = START + 7200.0
STORY = Story(
    onset=START + 600,
    share=0.031,
    predictions=57,
    speaks_for=("for it",),
    speaks_against=(),
    ruled_out=("drift",),
    would_change=("labels",),
    target_because="v1 was healthy on 8,000 predictions.",
)


def alert(
    cause: Cause = Cause.BACKDOOR,
    *,
    version: str | None = "v2",
    state: AlertState = AlertState.FIRING,
    severity: Severity = Severity.PAGE,
    group: str = "triggers",
    time: float = START + 1200,
) -> Alert:
    """An alert of the model `mail`."""
    return Alert(
        fingerprint=fingerprint("mail", version, group),
        model="mail",
        model_version=version,
        state=state,
        severity=severity,
        cause=cause,
        group=group,
        signal="trigger",
        subjects=(),
        log_e=math.log(50),
        effect=2.0,
        onset=START + 600,
        n=1800,
        time=time,
        summary="57 predictions with “free entry” became ham.",
        affected=0.031,
    )


def decision(
    action: Action = Action.ROLLBACK,
    *,
    version: str = "v2",
    target: str | None = "v1",
    time: float = START + 1500,
    summary: str = "Roll back mail v2 to v1: a trigger works in it.",
) -> Decision:
    """A decision on a version of the model `mail`."""
    return Decision(
        model="mail",
        model_version=version,
        decision=action,
        reason=Reason.TRIGGER_CONFIRMED if action is Action.ROLLBACK else Reason.PROOF_MISSING,
        cause=Cause.BACKDOOR,
        target=target if action is Action.ROLLBACK else None,
        alerts=(fingerprint("mail", version, "triggers"),),
        time=time,
        summary=summary,
    )


def rollback(state: RollbackState, *, decided: float = START + 1500, time: float = START + 1500) -> Rollback:
    """A rollback from v2 to v1 that is watched."""
    return Rollback(
        model="mail",
        model_version="v2",
        target="v1",
        state=state,
        decided=decided,
        time=time,
        traffic=0.42,
        summary=f"The rollback is {state.value}.",
    )


def model(
    alerts: Iterable[Alert] = (),
    decisions: Iterable[Decision] = (),
    rollbacks: Iterable[Rollback] = (),
    overrides: Iterable[Override] = (),
) -> ModelSnapshot:
    """The model `mail` with these; what is not told of it is left out."""
    return ModelSnapshot(
        model="mail",
        reference="",
        reference_predictions=0,
        questions=cast("Questions", None),
        versions={},
        lines=(),
        alerts=tuple(alerts),
        decisions=tuple(decisions),
        late=0,
        unproven=False,
        quality={},
        blind={},
        feedback=cast("FeedbackView", None),
        displacement=0.0,
        stories={"v2": STORY},
        overrides=tuple(overrides),
        rollbacks=tuple(rollbacks),
    )


def page(version: str = "v2", time: float = START + 1500) -> Notice:
    """That a version of `mail` is to be rolled back."""
    (notice,) = notices_of(NOW, 0.0, [model(decisions=[decision(version=version, time=time)])])
    return notice


def ticket(version: str = "v2", time: float = START + 1200) -> Notice:
    """That the inputs of a version of `mail` moved."""
    moved = alert(Cause.INPUT_DRIFT, version=version, severity=Severity.TICKET, group="inputs", time=time)
    (notice,) = notices_of(NOW, 0.0, [model([moved])])
    return notice
