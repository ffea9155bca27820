"""Standard input, by way of a spool: a pipe cannot be read twice, so its lines are safe on disk before the loop sees them."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

from poisonwatch.errors import SpoolFullError
from poisonwatch.formats.events import Block, Event, events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from poisonwatch.sources.source import Stream
    from poisonwatch.sources.spool import Spool

READ_SIZE = 1 << 18
"""Bytes that are taken from the pipe in one go, and go to disk together."""

NAP_SECONDS = 0.1
"""How long a full spool or a sick disk is waited for before the next try; how soon a stop is noticed."""


class StdinSource:
    """Gives the lines of a pipe or file, as a source with one stream; a thread of its own reads them into the spool.

    When the spool is full nothing is taken from the pipe, and whoever writes to it waits. A last line without newline
    counts. Of a line longer than `longest` bytes only that many are kept, and counted as too long where it is decoded.
    """

    name = "stdin"

    def __init__(self, spool: Spool, file: BinaryIO, longest: int) -> None:
        self._spool = spool
        self._descriptor = file.fileno()
        self._longest = longest
        self._partial = b""
        self._skipping = False
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poisonwatch-stdin", daemon=True)
        self._thread.start()

    @property
    def found(self) -> bool:
        """Standard input is always there."""
        return True

    def streams(self) -> Sequence[Stream]:
        """Itself, until the pipe has ended and all of it was given."""
        ended = self._ended.is_set()  # asked first: what it wrote before is then in the lag
        return () if ended and not self._spool.lag() else (self,)

    def poll(self) -> Block | None:
        """The next lines, or None when there are none now."""
        block = self._spool.poll()
        if block is None:
            return None
        return Block(b"".join([event.body for event in events(block)]), origin=self.name)

    def lag(self) -> int:
        """Bytes that were taken from the pipe and not given yet."""
        return self._spool.lag()

    def lost(self) -> Mapping[str, int]:
        """What could not be read again, by reason."""
        return self._spool.lost()

    def position(self) -> dict[str, Any]:
        """What was given."""
        return self._spool.position()

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Go on with what an earlier run took from its pipe and did not give any more."""
        return self._spool.resume(position)

    def commit(self, position: dict[str, Any]) -> None:
        """A checkpoint with this position is safe."""
        self._spool.commit(position)

    def close(self) -> None:
        """Take no more from the pipe; what was taken is on disk, unless the disk refuses it."""
        self._stop.set()
        self._thread.join()
        self._spool.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            # A pipe that nobody writes to must not keep the agent from stopping.
            ready, _, _ = select.select([self._descriptor], [], [], NAP_SECONDS)
            if not ready:
                continue
            read = os.read(self._descriptor, READ_SIZE)
            if not read:
                break
            if not self._keep(self._lines(read)):
                break
        if self._partial and not self._skipping:
            self._keep(self._partial + b"\n")
        self._ended.set()

    def _lines(self, read: bytes) -> bytes:
        """Complete lines; the last one waits for its newline."""
        if self._skipping:
            _, newline, read = read.partition(b"\n")
            self._skipping = not newline
        head, newline, self._partial = (self._partial + read).rpartition(b"\n")
        lines = head + newline
        if len(self._partial) >= self._longest:
            lines += self._partial[: self._longest] + b"\n"
            self._partial, self._skipping = b"", True
        return lines

    def _keep(self, lines: bytes) -> bool:
        """Put lines into the spool, whenever it has room; False when the agent stops first: then they are lost."""
        while lines:
            try:
                self._spool.append([Event(lines, at=time.time(), origin=self.name)])
            except (SpoolFullError, OSError):
                if self._stop.wait(NAP_SECONDS):
                    self._spool.refused["stopped"] += lines.count(b"\n")
                    return False
            else:
                return True
        return True
