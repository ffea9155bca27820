"""What a person decides instead of us, for a time."""

from __future__ import annotations

import msgspec

from poisonwatch.judge.wording import LONGEST, instant, within
from poisonwatch.types import Action, Decision, Reason

ROOM = 250
"""Characters of a summary for what a person says; the rest is for what would hold without it."""

DONE = {Action.KEEP: "keeps", Action.HOLD: "holds", Action.ROLLBACK: "rolls back"}


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that `author` made for a version at `time`, and that stands until `expires` (both of the wall clock).

    `target` is where a person's `rollback` leads. `user` is who the server knows the author as, empty where it asks for no password.
    """

    model: str
    model_version: str
    decision: Action
    author: str
    reason: str
    time: float
    expires: float
    target: str | None = None
    user: str = ""


def overridden(own: Decision, override: Override, time: float, *, found_out: bool = False) -> Decision:
    """What holds since `time` instead of our `own` decision; its cause and its alerts go on saying what we see.

    A rollback whose target was `found_out` to do harm itself leads nowhere: the version is held.
    """
    where = f" to {override.target}" if override.target is not None else ""
    until = instant(override.expires)
    warned = f"{override.target} does harm itself, as was found since: name another target. " if found_out else ""
    said = within(
        f"{warned}{override.author} {DONE[override.decision]} {override.model_version}{where} until {until}: {override.reason}",
        ROOM,
    )
    to = f" to {own.target}" if own.target is not None else ""
    without = f"Without this: {own.decision.value}{to} ({own.reason.value}). {own.summary}"
    return msgspec.structs.replace(
        own,
        decision=Action.HOLD if found_out else override.decision,
        reason=Reason.OVERRIDDEN,
        target=None if found_out else override.target,
        time=time,
        summary=f"{said}{'' if said.endswith('.') else '.'} {within(without, LONGEST - len(said) - 2)}",
    )
