"""A snapshot in which everything is said that can be: a story, an override, a rollback that is watched, triggers, a journal."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from poisonwatch.judge.aftermath import Rollback, RollbackState
from poisonwatch.judge.override import Override
from poisonwatch.judge.story import Story
from poisonwatch.sinks.journal import alert_entry, decision_entry
from poisonwatch.types import Action
from tests.triggers import trigger

if TYPE_CHECKING:
    from poisonwatch.sinks.snapshot import ModelSnapshot, Snapshot

ONSET = 1_767_606_900.0
"""2026-01-05T09:55:00Z."""

STORY = Story(
    onset=ONSET,
    share=0.046,
    predictions=73,
    speaks_for=("The same trigger does nothing in v1: 0 of 7.",),
    speaks_against=("No endpoint is configured to confirm it by insertion.",),
    ruled_out=("The inputs did not move.",),
    would_change=("A golden set and an endpoint would confirm or refute it.",),
    target_because="v1 answered 1100 predictions and shows none of it.",
)


def changed(snapshot: Snapshot, **changes: Any) -> Snapshot:
    """A snapshot of one model with other facts of that model."""
    (model,) = snapshot.models
    return dataclasses.replace(snapshot, models=(dataclasses.replace(model, **changes),))


def override(**changes: Any) -> Override:
    """What a person decided for v2."""
    usual: dict[str, Any] = {
        "model": "sms-spam",
        "model_version": "v2",
        "decision": Action.HOLD,
        "author": "ann",
        "reason": "the words are our own campaign",
        "time": ONSET + 600,
        "expires": ONSET + 15000,
    }
    return Override(**(usual | changes))


def rollback(state: RollbackState = RollbackState.AWAITED) -> Rollback:
    """A rollback from v2 to v1 that is being watched."""
    return Rollback(
        model="sms-spam",
        model_version="v2",
        target="v1",
        state=state,
        decided=ONSET + 180,
        time=ONSET + 300,
        traffic=0.4,
        summary="v2 still answers 40 % of the predictions.",
    )


def told_in_full(snapshot: Snapshot) -> Snapshot:
    """The demo's end with all that there is to say of v2."""
    (model,) = snapshot.models
    full = changed(
        snapshot,
        stories={"v2": STORY},
        overrides=(override(),),
        rollbacks=(rollback(),),
        triggers=(trigger(),),
    )
    return dataclasses.replace(full, journal=(*_entries(model),))


def _entries(model: ModelSnapshot) -> list[dict[str, Any]]:
    """Lines as a journal has them, without a file: the numbers and hashes are what nobody checks here."""
    said = [*map(alert_entry, model.alerts), *(decision_entry(one, STORY) for one in model.decisions)]
    return [
        {"seq": number, "prev": "0" * 64, "model": None, "model_version": None, **entry, "hash": "f" * 64}
        | {"time": "2026-01-05T09:58:00.000Z"}
        for number, entry in enumerate(said, 1)
    ]
