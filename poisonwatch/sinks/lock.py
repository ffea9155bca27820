"""Locks on what an agent writes: two agents on one state would each undo what the other did.

The system lets go of a lock when its holder ends, however it ends. A file system that knows no locks is taken as it is.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from poisonwatch.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path


def hold(descriptor: int, path: Path) -> None:
    """Lock the open file for this process, until its descriptor is closed.

    Raises:
        StateError: when another process has it; names `path` and the remedy.
    """
    with suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{path}: another agent writes to it: stop that agent, or give this one a `state` of its own"
            raise StateError(msg) from None


class Lock:
    """Holds the right to write to `path`, by a lock on a file beside it, as `path` itself is replaced again and again."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        with suppress(OSError):  # where this file cannot be made, writing to `path` fails as well, and says so
            beside = path.with_name(path.name + ".lock")
            self._descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._descriptor is not None:
            try:
                hold(self._descriptor, path)
            except StateError:
                self.close()
                raise

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
