"""The source of kind `file`: one log at a path, or every log that matches a glob.

Of a glob's logs a limited number is followed at a time: those that are behind, the oldest first, then those that were
written to of late. The others rest: they are known, but not open, until they change.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from poisonwatch.sources.file import READ_SIZE, FollowedFile
from poisonwatch.sources.folders import SCAN_SECONDS, Entry, Folders, entry_of, fixed, matching
from poisonwatch.sources.identity import Mark
from poisonwatch.sources.ledger import Kin, alike
from poisonwatch.sources.rotation import logs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from poisonwatch.sources.contents import Contents

log = structlog.get_logger()

MOST_FOLLOWED = 128
"""Logs of a glob that are open at a time: each may have a block in memory."""

MOST_KNOWN = 4096
"""Logs of a glob that are remembered one by one."""

REST_SECONDS = 600.0
"""A log of a glob that has not grown for so long is done with until it grows; its last line needs no newline then."""

YIELD_SECONDS = 1.0
"""The same, without the last line, where others wait to be followed."""

TURN_SECONDS = 2.0
"""How long a log that is never quiet is followed while others wait."""

_SLACK = 10**9
"""Nanoseconds that times of files may lag behind the clock."""

_ALL_BLOCKS = 16 << 20
"""Bytes that the blocks of all streams may have together."""


class _Resting(msgspec.Struct):
    """A log that was read to its end: its marks, what its files looked like, and when it was last written (ns)."""

    marks: list[Mark]
    gone: list[Mark]
    seen: list[list[int]]
    written: int


class FilesSource:
    """Follows the log at a path, or all that match a glob: `*`, `?`, `[...]`, and `**` for any folders.

    A stream is called after its path below the glob's fixed folder. Lines longer than `longest` bytes are cut.
    """

    def __init__(
        self,
        path: Path,
        longest: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_followed: int = MOST_FOLLOWED,
        most_known: int = MOST_KNOWN,
    ) -> None:
        self.path = path
        self._longest = longest
        self._clock = clock
        self._most_followed = most_followed
        self._most_known = most_known
        self._folders = Folders(clock)
        self._root, self._parts = fixed(path)
        self._streams: dict[str, FollowedFile] = {}
        self._followed_since: dict[str, float] = {}
        self._resting: dict[str, _Resting] = {}
        self._waiting: dict[str, Entry] = {}
        self._passed: frozenset[Path] = frozenset()  # what matched at the last look
        self._before = -1  # files written to until then (ns) and not known were read and forgotten
        self._since = -1  # when the first look was, ever (ns)
        self._scanned: float | None = None
        self._lost: Counter[str] = Counter()
        if not self._parts:
            self._streams[str(path)] = FollowedFile(path, longest, folders=self._folders, clock=clock)

    @property
    def found(self) -> bool:
        """Is there a file that can be read?"""
        return bool(self._resting or self._waiting) or any(stream.found for stream in self._streams.values())

    def streams(self) -> Sequence[FollowedFile]:
        """The logs that are followed now."""
        now = self._clock()
        if self._parts and (self._scanned is None or not 0 <= now - self._scanned < SCAN_SECONDS):
            self._scanned = now
            self._scan(now)
        return list(self._streams.values())

    def lag(self) -> int:
        """Bytes that were not given yet."""
        return sum(stream.lag() for stream in self._streams.values()) + sum(e.size for e in self._waiting.values())

    def lost(self) -> Counter[str]:
        """Files that were gone before they were read to their ends, that are no valid compression, or cannot be read."""
        return sum((stream.lost for stream in self._streams.values()), self._lost)

    def position(self) -> dict[str, Any]:
        """How far every file was read."""
        return {
            "streams": {name: stream.position() for name, stream in self._streams.items()},
            "resting": msgspec.to_builtins(self._resting),
            "before": self._before,
            "since": self._since,
        }

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Go on after a saved position; says what could not be found again."""
        said = []
        for name, saved in position["streams"].items():
            if self._parts:
                self._follow(name)
            if name in self._streams:
                said += self._streams[name].resume(saved)
        if self._parts:
            self._resting = msgspec.convert(position["resting"], dict[str, _Resting])
            self._before, self._since = position["before"], position["since"]
        return said

    def commit(self, position: dict[str, Any]) -> None:
        """Files are their writers', not this agent's to delete."""

    def close(self) -> None:
        """Let go of files."""
        for stream in self._streams.values():
            stream.close()

    # Globs

    def _scan(self, now: float) -> None:
        """See what matches now, and who is to be followed."""
        if self._since < 0:
            self._since = time.time_ns()
        self._folders.forget()
        logs = self._logs()
        # Who has waited longest comes first, and of those who came together the oldest.
        for name, (entry, members) in sorted(logs.items(), key=lambda log: (log[1][0].written, log[0])):
            if name in self._streams:
                continue
            resting = self._resting.get(name)
            seen = [[e.device, e.inode, e.size, e.written] for e in members]
            if resting is not None and all(s in resting.seen for s in seen):
                continue
            if resting is None and entry.written <= self._before:
                continue
            self._waiting[name] = entry
        self._waiting = {name: entry for name, entry in self._waiting.items() if name in logs}
        for name, stream in list(self._streams.items()):
            self._let_rest(name, stream, logs, now)
        free = self._most_followed - len(self._streams)
        for name in list(self._waiting)[: max(free, 0)]:
            del self._waiting[name]
            stream = self._follow(name)
            resting = self._resting.pop(name, None)
            if resting is not None:
                stream.resume(msgspec.to_builtins({"current": None, "marks": resting.marks, "gone": resting.gone}))
            self._absorb(name, stream, [member.path for member in logs[name][1]])
        self._forget(logs)
        for stream in self._streams.values():
            stream.read_size = min(READ_SIZE, _ALL_BLOCKS // max(len(self._streams), 1))
            stream.last_after = REST_SECONDS

    def _logs(self) -> dict[str, tuple[Entry, list[Entry]]]:
        """Logs by name: the file at the path, and with it all of its files that match."""
        there: dict[tuple[int, int], Entry] = {}
        for path in matching(self._root, self._parts):
            entry = entry_of(path)
            # A file that has two names, one of them a link, goes by the other.
            if entry is not None and (entry.key not in there or not path.is_symlink()):
                there[entry.key] = entry
        entries = {entry.path: entry for entry in there.values()}
        self._passed = frozenset(entries)
        known = {self._root / name for name in (*self._streams, *self._resting)} | entries.keys()
        found: dict[str, tuple[Entry, list[Entry]]] = {}
        for path, entry in entries.items():
            owner = _owner(path, known)
            name = str(owner.relative_to(self._root))
            first, members = found.get(name, (entry, []))
            found[name] = (entry if path == owner else first, [*members, entry])
        return found

    def _follow(self, name: str) -> FollowedFile:
        path = self._root / name
        stream = FollowedFile(
            path,
            self._longest,
            name=name,
            folders=self._folders,
            clock=self._clock,
            wanted=self._wanted,
            kin=lambda contents: self._kin(name, contents),
        )
        self._streams[name] = stream
        self._followed_since[name] = self._clock()
        return stream

    def _wanted(self, path: Path) -> bool:
        """Is what a log that was not known until now was rotated to this agent's to read?

        It is when it matches, or was written since the first look ever: the log may have been rotated before it was met.
        """
        entry = entry_of(path)
        return path in self._passed or (
            entry is not None and entry.written >= max(self._since - _SLACK, self._before + 1)
        )

    def _kin(self, name: str, contents: Contents) -> Iterator[Kin]:
        """What other logs know of a file that begins like this one."""

        def known() -> Iterator[tuple[Mark, Path | None, bool]]:
            for other, stream in self._streams.items():
                if other != name:
                    yield from stream.marks()
            for other, resting in self._resting.items():
                path = self._root / other
                for mark in resting.marks:
                    yield mark, path, False

        return alike(contents, known())

    def _absorb(self, name: str, stream: FollowedFile, members: list[Path]) -> None:
        """A log that turns out to be what another was rotated to is part of that."""
        for path in members:
            other = str(path.relative_to(self._root))
            if other == name:
                continue
            if other in self._streams:
                stream.take([mark for mark, _, _ in self._streams[other].marks()])
                self._drop(other)
            elif other in self._resting:
                stream.take(self._resting.pop(other).marks)

    def _drop(self, name: str) -> None:
        stream = self._streams.pop(name)
        self._followed_since.pop(name)
        self._lost.update(stream.lost)
        stream.close()

    def _let_rest(
        self, name: str, stream: FollowedFile, logs: dict[str, tuple[Entry, list[Entry]]], now: float
    ) -> None:
        """Close a log that has nothing new."""
        there = name in logs
        seconds = YIELD_SECONDS if self._waiting or not there else REST_SECONDS
        # A log that is never quiet has had its turn after a while, when others wait.
        turn_over = bool(self._waiting) and now - self._followed_since[name] >= TURN_SECONDS
        if not stream.idle or not (turn_over or 0 <= seconds <= now - stream.quiet_since):
            return
        entry, members = logs[name] if there else (None, [])
        position = stream.rest()
        self._drop(name)
        marks = msgspec.convert(position["marks"], list[Mark])
        # What was written between the last poll and now was not read: it is not among what was seen.
        read = [[mark.device, mark.inode, mark.size, mark.written] for mark in marks]
        seen = [look for e in members if (look := [e.device, e.inode, e.size, e.written]) in read or not e.size]
        gone = msgspec.convert(position["gone"], list[Mark])
        self._resting[name] = _Resting(marks, gone, seen, entry.written if entry is not None else 0)

    def _forget(self, logs: dict[str, tuple[Entry, list[Entry]]]) -> None:
        """Remember the oldest by the time only: a file written before it is taken as read."""
        excess = len(self._resting) - self._most_known
        if excess <= 0:
            return
        order = sorted(self._resting, key=lambda name: (name in logs, self._resting[name].written))
        for name in order[:excess]:
            resting = self._resting.pop(name)
            if name in logs:
                if self._before < 0:
                    log.warning(
                        "files_forgotten",
                        path=str(self.path),
                        known=self._most_known,
                        remedy="remove old logs: of more than so many only the time of the last write is remembered",
                    )
                self._before = max(self._before, resting.written)


def _owner(path: Path, known: set[Path]) -> Path:
    """The log that a file was rotated from, if that is known; else it is one itself."""
    logs = sorted({path.with_name(name) for name in logs_of(path.name)} & known, key=lambda log: len(log.name))
    return logs[0] if logs else path
