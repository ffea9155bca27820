"""Who asked, told without names: identities as keyed hashes, the same for as long as the key is kept."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from poisonwatch.types import Trigger

KEY_BYTES = 32
SHOWN = 12
"""Hex digits of a hash that are shown."""


def key_of(path: Path | None) -> bytes:
    """The key that stands beside a journal at `path`, made when there is none; without a journal, one for this run.

    Raises:
        StateError: when the file beside it holds no key.
    """
    if path is None:
        return secrets.token_bytes(KEY_BYTES)
    beside = path.with_name(path.name + ".key")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = beside.read_bytes()
        if len(key) != KEY_BYTES:
            msg = f"{beside}: this is no key of {KEY_BYTES} bytes: remove it, and the next start makes a new one"
            raise StateError(msg) from None
        return key
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        os.fsync(file.fileno())
    return key


def redactor(key: bytes) -> Callable[[Trigger], Trigger]:
    """What hides the sources and example ids of a trigger; its pattern is the finding, and stays."""

    def hidden(name: str) -> str:
        return hmac.new(key, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:SHOWN]

    def redacted(trigger: Trigger) -> Trigger:
        return msgspec.structs.replace(
            trigger,
            sources=tuple((hidden(name), count) for name, count in trigger.sources),
            examples=tuple(hidden(name) for name in trigger.examples),
        )

    return redacted
