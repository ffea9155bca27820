"""What a person decides instead of us, for a time."""

from __future__ import annotations

import msgspec

from poisonwatch.types import Action


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
