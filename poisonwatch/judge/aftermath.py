"""After a rollback was decided: did the traffic move, and did the symptom end?"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class RollbackState(StrEnum):
    """How far a rollback has come.

    `AWAITED`: traffic still goes to the bad version. `MOVED`: it left, and the target is watched. `VERIFIED`: the target took the traffic and
    is healthy. `FAILED`: the symptom shows in the target, too: the version was not the cause, or not the only one.
    """

    AWAITED = "awaited"
    MOVED = "moved"
    VERIFIED = "verified"
    FAILED = "failed"


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """A rollback from `model_version` to `target` that was decided at `decided`, and is in `state` since `time`.

    `traffic` is the bad version's share of the model's recent predictions.
    """

    model: str
    model_version: str
    target: str | None
    state: RollbackState
    decided: float
    time: float
    traffic: float
    summary: str
