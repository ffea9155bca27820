"""Follow one log: the file at a path, and what rotation makes of it, across restarts.

Every file of the log has a mark that says how far it was read. Whatever is behind is read: what was rotated away first, in
the order in which it was written, then the file at the path. A file is known again by its inode, and where that fails by
its contents, so that copies and compressed files are read on where the original was left.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from poisonwatch.formats.events import Block
from poisonwatch.sources.contents import BrokenFileError, Contents
from poisonwatch.sources.folders import SCAN_SECONDS, Entry, Folders, entry_of
from poisonwatch.sources.identity import SHORTEST
from poisonwatch.sources.ledger import Key, LaterError, Ledger
from poisonwatch.sources.reading import Reading
from poisonwatch.sources.rotation import oldest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poisonwatch.sources.identity import Mark
    from poisonwatch.sources.ledger import Kin

log = structlog.get_logger()

READ_SIZE = 1 << 20
"""Bytes that are read in one go."""

STEPS = 8
"""Reads of one poll that may give nothing: within a line too long, or on the way from file to file."""

LOOKS = 8
"""Looks at the files until two in a row find the same ones; rotation may rename them between one and the next."""

PATIENCE = 2.0
"""Seconds that a rotated file's last line may take to get its newline; its writer may not know of the rotation yet."""

UNFINISHED_SECONDS = 30.0
"""How long a compressed file that breaks off is taken to be still written."""


class FollowedFile:
    """The complete lines of a log; of the last line of a rotated file also without newline.

    At the very first start (no `resume`) what was rotated before is not read, but for what `wanted` says. `kin` gives what
    other streams know of a file; `clock` tells seconds.
    """

    def __init__(
        self,
        path: Path,
        longest: int,
        *,
        name: str = "",
        folders: Folders | None = None,
        clock: Callable[[], float] = time.monotonic,
        wanted: Callable[[Path], bool] = lambda _: False,
        kin: Callable[[Contents], Iterable[Kin]] = lambda _: (),
    ) -> None:
        self.path = path
        self.name = name or str(path)
        self.found = False
        self.lost: Counter[str] = Counter()
        self.read_size = READ_SIZE
        self.quiet_since = clock()
        self.last_after: float | None = None
        """Seconds without news after which the last line of the file at the path is complete without its newline."""
        self._longest = longest
        self._clock = clock
        self._folders = folders or Folders(clock)
        self._wanted = wanted
        self._readings: dict[Key, Reading] = {}
        self._ledger = Ledger(self._readings, kin)
        self._current: Reading | None = None
        self._candidate: Contents | None = None  # a compressed file on the way to a place
        self._problems: dict[str, str] = {}
        self._begun = False
        self._looked: float | None = None
        self._changed = True  # a listing of a second ago will not do
        self._here: Key | None = None  # what was at the path at the last look
        self._ended: tuple[float, int] | None = None  # when the end of a rotated file was met, and where
        self._waiting: dict[Key, int] = {}  # bytes of files that were not opened yet

    def poll(self) -> Block | None:
        """The next complete lines, about a megabyte at most, or None when there are none now. Never blocks."""
        self._begin()
        for _ in range(STEPS):
            if self._current is None and not self._choose():
                return None
            if self._current is not None and self._current.hardly_known:
                # It may have been copied and truncated meanwhile: then the copy is older than what it says now.
                self._changed = True
                self._choose()
            reading = self._current
            if reading is None:
                return None
            try:
                lines = reading.lines(self.read_size)
                if lines is None:
                    lines = self._at_end(reading)
                else:
                    self._ended, self.quiet_since = None, self._clock()
            except OSError as error:
                self._fail(reading, error)
                return None
            if lines:
                return Block(lines, origin=reading.contents.origin)
            if lines is None:
                return None
        return None

    def lag(self) -> int:
        """Bytes that are there and were not given; of a compressed file that was not opened yet, compressed ones."""
        waiting = sum(size for key, size in self._waiting.items() if key not in self._readings)
        return waiting + sum(reading.unread for reading in self._readings.values())

    def position(self) -> dict[str, Any]:
        """How far every file was read, and which one is being read: its inode, and where it was found."""
        self._begin()
        current = None
        if self._current is not None:
            contents = self._current.contents
            current = [contents.device, contents.inode, contents.origin]
        return {"current": current, **self._ledger.state()}

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Go on after a saved position; says so when the file that was being read is nowhere to be found."""
        self._ledger.restore(position)
        self._begun = True
        if position["current"] is None:
            return []
        device, inode, origin = position["current"]
        mark = self._ledger.marks.get((device, inode))
        if mark is None or not mark.offset or self._take_up(mark, Path(origin)):
            return []
        self.lost["file_gone"] += 1
        said = (
            f"{self.path}: the file that was read up to byte {mark.offset} is gone, and what may have been written to it "
            f"since is lost: keep rotated files for as long as the agent may be down"
        )
        return [said]

    def close(self) -> None:
        """Let go of all files."""
        for reading in self._readings.values():
            reading.contents.close()
        self._readings.clear()
        self._current = None
        self._drop_candidate()

    @property
    def idle(self) -> bool:
        """Is all that was there given? Only then it may rest."""
        return self._looked is not None and self._candidate is None and not self.lag()

    def rest(self) -> dict[str, Any]:
        """Let go of all files, which were read to their ends: the position says so."""
        for reading in list(self._readings.values()):
            self._settle(reading)
        return self.position()

    def marks(self) -> Iterator[tuple[Mark, Path | None, bool]]:
        """Marks of all files, their paths where they are open, and whether they are."""
        for key, mark in self._ledger.marks.items():
            reading = self._readings.get(key)
            yield mark, None if reading is None else reading.contents.path, reading is not None

    def take(self, marks: Iterable[Mark]) -> None:
        """Take over the marks of files that are found to belong to this log."""
        self._ledger.take(marks)

    # What is there

    def _begin(self) -> None:
        """At the very first look: what was rotated before is not this agent's."""
        if self._begun:
            return
        self._begun = True
        here = entry_of(self.path)
        for path in self._folders.siblings(self.path, fresh=True) or ():
            entry = entry_of(path)
            if entry is None or self._wanted(path) or (here is not None and entry.key == here.key):
                continue
            try:
                contents = Contents(path)
            except OSError:
                self._ledger.ignore(entry, None)
            else:
                self._ledger.ignore(entry, contents)
                contents.close()

    def _look(self) -> tuple[Entry | None, list[Entry]]:
        """The file at the path, and all others of the log, the oldest first."""
        self._looked = self._clock()
        here = entry_of(self.path)
        changed = self._changed or self._here != (here and here.key)
        paths = self._folders.siblings(self.path, fresh=changed or not self._readings)
        self._changed, self._here = False, here and here.key
        self.found = here is not None and str(self.path) not in self._problems
        if paths is None:
            return here, []
        there = {} if here is None else {here.key: here}
        for path in paths:
            entry = entry_of(path)
            if entry is not None:
                there.setdefault(entry.key, entry)
        for key, reading in self._readings.items():
            if key not in there:  # it has no name any more, or one that tells nothing
                status = reading.contents.status
                there[key] = Entry(reading.contents.path, *key, status.st_size, status.st_mtime_ns)
        self._ledger.met(dict(there))
        if here is not None:
            there.pop(here.key)
        return here, oldest_first(self.path.name, there.values())

    def _behind(self) -> tuple[Entry | None, list[Entry]] | None:
        """The file at the path, and all that is to be read, the oldest first; None while files change their names.

        What is rotated in the middle of a look is seen as it was before, and what was written next as it is now. In a
        second look all that is older than the file that the first one found has been written to its end.
        """
        known: list[tuple[Path, Key]] | None = None
        for _ in range(LOOKS):
            here, others = self._look()
            there = [entry for entry in (*others, here) if entry is not None]
            behind = [entry for entry in there if not self._ledger.done(entry)]
            names = [(entry.path, entry.key) for entry in there]
            if not behind or behind[0] is here or names == known:
                return here, behind
            known, self._changed = names, True
        return None

    def _choose(self) -> bool:
        """Turn to the oldest file that is behind, or to the one at the path; False when there is none now."""
        if self._nothing_to_see():
            return False
        found = self._behind()
        return found is not None and self._turn_to(*found)

    def _turn_to(self, here: Entry | None, behind: list[Entry]) -> bool:
        before, self._current = self._current, None
        self._waiting = {entry.key: entry.size for entry in behind}
        for entry in behind:
            try:
                reading = self._opened(entry, here)
            except LaterError:
                self._changed = True
                return False
            except OSError as error:
                self._problem(entry.path, error)
                if isinstance(error, BrokenFileError):
                    self._ledger.ignore(entry, None)
                continue
            self._waiting.pop(entry.key)
            if reading is None:
                continue
            self._problems.pop(str(entry.path), None)
            if entry is here or reading.behind:
                self._current, self._ended = reading, None
                self.found = self.found or entry is here
                return True
            if here is not None or reading is not before:
                self._settle(reading)
        if before is not None and before in self._readings.values():
            self._current = before  # removed or renamed: its writer may still have it
        return False

    def _nothing_to_see(self) -> bool:
        """Was all looked at a moment ago, and is there still no file with something in it at the path?"""
        if self._readings or self._candidate is not None or not self._early():
            return False
        here = entry_of(self.path)
        return here is None or not here.size or bool(self._problems) or self._ledger.done(here)

    def _early(self) -> bool:
        return self._looked is not None and 0 <= self._clock() - self._looked < SCAN_SECONDS

    def _opened(self, entry: Entry, here: Entry | None) -> Reading | None:
        """A file from where it was left; None when there is nothing in it that has to be read."""
        known = self._readings.get(entry.key)
        if known is None and not entry.size:
            return None
        contents = known.contents if known is not None else self._contents(entry)
        try:
            mark = self._ledger.identify(entry, contents, here)
        except LaterError:
            if known is None and self._candidate is not contents:
                self._drop_candidate()
                self._candidate = contents
            raise
        except OSError:
            self._drop(contents)
            raise
        if known is not None and known.mark is mark:
            return known
        if mark is None:
            self._drop(contents)
            return None
        if self._candidate is contents:
            self._candidate = None
        reading = self._readings[entry.key] = Reading(contents, mark, self._longest)
        return reading

    def _contents(self, entry: Entry) -> Contents:
        """The open file of an entry, which may have another name by now: then later."""
        held = self._candidate
        if held is not None and (held.device, held.inode) == entry.key:
            return held
        try:
            contents = Contents(entry.path)
        except FileNotFoundError:
            raise LaterError from None
        if (contents.device, contents.inode) != entry.key:
            contents.close()
            raise LaterError
        return contents

    def _take_up(self, mark: Mark, origin: Path) -> bool:
        """Find the file that was being read, whatever it is called now."""
        paths = [self.path, *(self._folders.siblings(self.path, fresh=True) or ()), origin]
        paths += self._folders.with_inode(origin.parent, mark.inode)
        for path in paths:
            try:
                contents = Contents(path)
            except OSError:
                continue
            held = mark.holds(contents)
            if held and (contents.device, contents.inode) == (mark.device, mark.inode):
                # Held open, so that it is read to its end even where its name tells nothing.
                self._readings[mark.device, mark.inode] = Reading(contents, mark, self._longest)
                return True
            contents.close()
            if held is not False:
                return True
        return False

    # The end of a file

    def _at_end(self, reading: Reading) -> bytes | None:
        """The last line, nothing when another file is next, or None when nothing has happened."""
        key = (reading.contents.device, reading.contents.inode)
        if not reading.same():
            # Truncated, or written anew: what was not given may be in a copy.
            self._ledger.detach(key)
            self._let_go(reading)
            return b""
        if reading.contents.compressed:
            return self._at_end_of_compressed(reading)
        here = entry_of(self.path)
        now = self._clock()
        if here is None or here.key == key:
            if self.last_after is not None and reading.partial and now - self.quiet_since >= self.last_after:
                return reading.last()
            if self._early():
                return None
            return b"" if self._choose() and self._current is not reading else None
        if self._ended is None or self._ended[1] != reading.contents.length:
            self._ended = (now, reading.contents.length)
            return None
        if reading.partial and 0 <= now - self._ended[0] < PATIENCE:
            return None
        last = b"" if self._goes_on(reading) else reading.last()
        self._settle(reading, left=len(reading.partial))
        return last

    def _at_end_of_compressed(self, reading: Reading) -> bytes | None:
        contents = reading.contents
        if not contents.ended:
            return None
        now = self._clock()
        if not contents.complete:
            if self._ended is None or self._ended[1] != contents.status.st_size:
                self._ended = (now, contents.status.st_size)
            if 0 <= now - self._ended[0] < UNFINISHED_SECONDS:
                return None
            self._problem(contents.path, BrokenFileError(0, "breaks off: what was compressed is not whole"))
            self._settle(reading)  # its last line was cut, and may be whole in another file
            return b""
        last = reading.last()
        self._settle(reading)
        return last

    def _goes_on(self, reading: Reading) -> bool:
        """Does another file begin with all that this one has, its unfinished line too? Then it is a longer copy."""
        partial, mark = reading.partial, reading.mark
        removed = not reading.contents.status.st_nlink
        if not partial or (mark.offset + len(partial) < SHORTEST and not removed):
            return False
        for path in (self.path, *(self._folders.siblings(self.path, fresh=True) or ())):
            try:
                contents = Contents(path)
            except OSError:
                continue
            try:
                if (contents.device, contents.inode) == (mark.device, mark.inode) or not mark.holds(contents):
                    continue
                rest = contents.read(mark.offset, len(partial) + 1)
                # Of two copies that end alike one has to give the line; the file at the path may still grow.
                if rest.startswith(partial) and (len(rest) > len(partial) or path == self.path):
                    return True
            finally:
                contents.close()
        return False

    def _settle(self, reading: Reading, left: int = 0) -> None:
        """It is done with until it changes, but for bytes that are `left` to another; not if it has changed already."""
        status = reading.contents.status
        if reading.contents.compressed or status.st_size <= reading.mark.offset + left:
            reading.mark.size, reading.mark.written = status.st_size, status.st_mtime_ns
        self._let_go(reading)

    def _let_go(self, reading: Reading) -> None:
        self._changed = True
        reading.contents.close()
        del self._readings[reading.contents.device, reading.contents.inode]
        if self._current is reading:
            self._current = self._ended = None

    def _fail(self, reading: Reading, error: OSError) -> None:
        self._problem(reading.contents.path, error)
        if isinstance(error, BrokenFileError):
            self._settle(reading)
        else:
            self._let_go(reading)

    def _problem(self, path: Path, error: OSError) -> None:
        """Count and say once that a file cannot be read; it is tried again."""
        problem = error.strerror or str(error)
        if path == self.path:
            self.found = False
        if self._problems.get(str(path)) != problem:
            self._problems[str(path)] = problem
            self.lost["file_broken" if isinstance(error, BrokenFileError) else "file_unreadable"] += 1
            log.warning("file_unreadable", path=str(path), problem=problem, remedy="let the agent's user read it")

    def _drop(self, contents: Contents) -> None:
        """Close a file that nobody reads."""
        if all(reading.contents is not contents for reading in self._readings.values()):
            contents.close()
        if self._candidate is contents:
            self._candidate = None

    def _drop_candidate(self) -> None:
        if self._candidate is not None:
            self._candidate.close()
            self._candidate = None
