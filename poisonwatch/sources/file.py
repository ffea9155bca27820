"""Follow one log: the file at a path, and what rotation makes of it, across restarts.

Every file of the log has a mark that says how far it was read. Whatever is behind is read: what was rotated away first, in
the order in which it was written, then the file at the path. A file is known again by its inode, and where that fails by
its contents, so that copies and compressed files are read on where the original was left.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.formats.events import Block
from poisonwatch.sources.contents import BrokenFileError, Contents
from poisonwatch.sources.folders import SCAN_SECONDS, Entry, Folders, entry_of
from poisonwatch.sources.identity import HEAD, TAIL, Mark, digest
from poisonwatch.sources.reading import Reading
from poisonwatch.sources.rotation import age

if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE = 1 << 20
"""Bytes that are read in one go."""

STEPS = 8
"""Reads of one poll that may give nothing: within a line too long, or on the way from file to file."""

PATIENCE = 2.0
"""Seconds that a rotated file's last line may take to get its newline; its writer may not know of the rotation yet."""

UNFINISHED_SECONDS = 30.0
"""How long a compressed file that breaks off is taken to be still written."""

MOST_GONE = 32
"""Files no longer there whose marks are kept: a copy of one may turn up."""

Key = tuple[int, int]


class FollowedFile:
    """The complete lines of a log; of the last line of a rotated file also without newline.

    At the very first start (no `resume`) what was rotated before is not read, but for what `wanted` says.
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
    ) -> None:
        self.path = path
        self.name = name or str(path)
        self.found = False
        self.problems: dict[str, str] = {}
        self.read_size = READ_SIZE
        self.quiet_since = clock()
        self._longest = longest
        self._clock = clock
        self._folders = folders or Folders(clock)
        self._wanted = wanted
        self._marks: dict[Key, Mark] = {}
        self._gone: list[Mark] = []
        self._readings: dict[Key, Reading] = {}
        self._current: Reading | None = None
        self._candidate: Contents | None = None  # a compressed file on the way to a place
        self._begun = False
        self._looked = -1.0
        self._changed = True  # a listing of a second ago will not do
        self._there: dict[Key, Entry] = {}
        self._ended: tuple[float, int] | None = None  # when the end of a rotated file was met, and where
        self._waiting: dict[Key, int] = {}  # bytes of files that were not opened yet

    def poll(self) -> Block | None:
        """The next complete lines, about a megabyte at most, or None when there are none now. Never blocks."""
        self._begin()
        for _ in range(STEPS):
            if self._current is None and not self._choose():
                return None
            reading = self._current
            if reading is None:
                return None
            try:
                lines = reading.lines(self.read_size)
                if lines is None:
                    lines = self._at_end(reading)
            except OSError as error:
                self._fail(reading, error)
                return None
            if lines:
                self._ended = None
                self.quiet_since = self._clock()
                return Block(lines, origin=reading.contents.origin)
            if lines is None:
                return None
        return None

    def lag(self) -> int:
        """Bytes that are there and were not given; of a compressed file that was not opened yet, compressed ones."""
        waiting = sum(size for key, size in self._waiting.items() if key not in self._readings)
        return waiting + sum(reading.unread for reading in self._readings.values())

    def position(self) -> dict[str, Any]:
        """How far every file was read."""
        self._begin()
        current = self._current.mark if self._current is not None else None
        return {
            "origin": self._current.contents.origin if self._current is not None else "",
            "marks": msgspec.to_builtins(list(self._marks.values())),
            "gone": msgspec.to_builtins(self._gone),
            "current": next((number for number, mark in enumerate(self._marks.values()) if mark is current), None),
        }

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Go on after a saved position; says so when the file that was being read is nowhere to be found."""
        marks = msgspec.convert(position["marks"], list[Mark])
        self._gone = msgspec.convert(position["gone"], list[Mark])
        self._marks = {(mark.device, mark.inode): mark for mark in marks}
        self._begun = True
        current = marks[position["current"]] if position["current"] is not None else None
        if current is None or current.offset == 0 or self._take_up(current, position["origin"]):
            return []
        return [
            f"{self.path}: the file that was read up to byte {current.offset} is gone, and what may have been written to it"
            " since is lost: keep rotated files for as long as the agent may be down"
        ]

    def close(self) -> None:
        """Let go of all files."""
        for reading in self._readings.values():
            reading.contents.close()
        self._readings.clear()
        self._current = None
        self._drop_candidate()

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
            mark = Mark(device=entry.device, inode=entry.inode)
            try:
                contents = Contents(path)
            except OSError:
                pass
            else:
                mark = _at_the_end_of(contents)
                contents.close()
            mark.ignored, mark.size, mark.written = True, entry.size, entry.written
            self._marks[entry.key] = mark

    def _look(self) -> tuple[Entry | None, list[Entry]]:
        """The file at the path, and all others of the log, the oldest first."""
        self._looked = self._clock()
        here = entry_of(self.path)
        paths = self._folders.siblings(self.path, fresh=self._changed)
        self._changed = False
        if paths is None:
            self.found = False
            return here, []
        self.found = here is not None and str(self.path) not in self.problems
        others = {} if here is None else {here.key: here}
        for path in paths:
            entry = entry_of(path)
            if entry is not None:
                others.setdefault(entry.key, entry)
        for key, reading in self._readings.items():
            if key not in others:  # it has no name any more, or one that tells nothing
                status = reading.contents.status
                others[key] = Entry(reading.contents.path, *key, status.st_size, status.st_mtime_ns)
        self._prune(set(others))
        self._there = dict(others)
        if here is not None:
            others.pop(here.key)
        log = self.path.name
        return here, sorted(others.values(), key=lambda entry: (entry.written, age(log, entry.path.name)))

    def _prune(self, there: set[Key]) -> None:
        """Marks of files that are gone are kept for a while, without their inode."""
        for key in [key for key in self._marks if key not in there]:
            mark = self._marks[key]
            same = next((k for k in there if k[1] == key[1] and k not in self._marks and mark.size >= 0), None)
            if same is not None:
                # The device has another number since the system was started again; what the file holds is checked.
                self._marks[same] = msgspec.structs.replace(self._marks.pop(key), device=same[0])
            else:
                self._detach(key)

    def _detach(self, key: Key) -> None:
        mark = self._marks.pop(key)
        if mark.offset and mark.head:
            self._gone = [*self._gone, mark.moved(-1, -1)][-MOST_GONE:]

    def _choose(self) -> bool:
        """Turn to the oldest file that is behind, or to the one at the path; False when there is none now."""
        if self._looked >= 0 and not self._readings and self._candidate is None and self._early():
            here = entry_of(self.path)
            if here is None or str(self.path) in self.problems:
                return False
        before, (here, others) = self._current, self._look()
        self._current = None
        self._waiting = {}
        for entry in (*others, here):
            if entry is None or self._settled(entry):
                continue
            self._waiting[entry.key] = entry.size
        for entry in (*others, here):
            if entry is None or entry.key not in self._waiting:
                continue
            at_path = entry is here
            try:
                reading = self._opened(entry, here, at_path=at_path)
            except _LaterError:
                self._changed = True
                return False
            except OSError as error:
                self._problem(entry.path, error)
                if isinstance(error, BrokenFileError):
                    self._marks[entry.key] = Mark(
                        device=entry.device, inode=entry.inode, ignored=True, size=entry.size, written=entry.written
                    )
                continue
            self._waiting.pop(entry.key)
            if reading is None:
                continue
            self.problems.pop(str(entry.path), None)
            if at_path or reading.unread or (reading.contents.compressed and not reading.contents.ended):
                self._current, self._ended = reading, None
                return True
            if here is not None or reading is not before:
                self._settle(reading)
        if before is not None and before in self._readings.values():
            self._current = before  # removed or renamed: its writer may still have it
        return False

    def _early(self) -> bool:
        return 0 <= self._clock() - self._looked < SCAN_SECONDS

    def _settled(self, entry: Entry) -> bool:
        mark = self._marks.get(entry.key)
        return mark is not None and (mark.size, mark.written) == (entry.size, entry.written)

    # Which file is which

    def _opened(self, entry: Entry, here: Entry | None, *, at_path: bool) -> Reading | None:
        """A file from where it was left; None when there is nothing in it that has to be read."""
        known = self._readings.get(entry.key)
        contents = known.contents if known is not None else self._contents(entry)
        try:
            own = known.mark if known is not None else self._own(entry, contents, at_path=at_path)
            if known is None and not at_path and here is not None and self._copied(contents, entry, here):
                mark = None  # what the file at the path says, too: it is read there
            else:
                mark = self._reached(entry, contents, own, at_path=at_path)
        except _LaterError:
            if self._candidate is not contents:
                self._drop_candidate()
                self._candidate = contents
            raise
        except OSError:
            self._drop(contents)
            raise
        if mark is None or mark.ignored:
            self._drop(contents)
            return None
        if known is not None and known.mark is mark:
            return known
        if self._candidate is contents:
            self._candidate = None
        reading = self._readings[entry.key] = Reading(contents, mark, self._longest)
        return reading

    def _reached(self, entry: Entry, contents: Contents, own: Mark | None, *, at_path: bool) -> Mark:
        """How far this file was read, also as another one that it is a copy of."""
        mark = own or Mark(device=entry.device, inode=entry.inode)
        for other in sorted((*self._marks.values(), *self._gone), key=lambda other: other.offset):
            if other is own or other.offset <= mark.offset or not other.head:
                continue
            if mark.ignored or (other.ignored and (at_path or own is not None)):
                continue
            held = other.holds(contents)
            if held is None:
                raise _LaterError
            if held:
                mark = other.moved(entry.device, entry.inode)
        if own is None and mark.offset == 0 and not at_path and self._shorter_copy(contents):
            mark = _at_the_end_of(contents)
        if mark.ignored:
            mark.size, mark.written = entry.size, entry.written
        self._marks[entry.key] = mark
        return mark

    def _own(self, entry: Entry, contents: Contents, *, at_path: bool) -> Mark | None:
        """The mark of this inode, if the file still is what the mark says."""
        mark = self._marks.get(entry.key)
        if mark is None:
            return None
        if mark.ignored and at_path:
            del self._marks[entry.key]
            return None
        if mark.ignored and (contents.compressed or not mark.head):
            held: bool | None = bool(mark.head) and mark.begins(contents)
        else:
            held = mark.holds(contents)
        if held is None:
            raise _LaterError
        if held:
            return mark
        self._detach(entry.key)
        return None

    def _contents(self, entry: Entry) -> Contents:
        """The open file of an entry, which may have another name by now: then later."""
        held = self._candidate
        if held is not None and (held.device, held.inode) == entry.key:
            return held
        try:
            contents = Contents(entry.path)
        except FileNotFoundError:
            raise _LaterError from None
        if (contents.device, contents.inode) != entry.key:
            contents.close()
            raise _LaterError
        return contents

    def _copied(self, contents: Contents, entry: Entry, here: Entry) -> bool:
        """Is this file a copy, finished or not, of the one at the path?"""
        if contents.compressed or not self._within(contents, here):
            return False
        mark = self._marks.get(here.key)
        if mark is not None and mark.offset >= contents.length:
            self._marks[entry.key] = copy = _at_the_end_of(contents)
            copy.size, copy.written = entry.size, entry.written
        return True

    def _shorter_copy(self, contents: Contents) -> bool:
        """Is this file the beginning of one that was read further than that?"""
        if contents.compressed and not (contents.ended and contents.complete):
            return False
        return any(
            mark.offset > contents.length and key in self._there and self._within(contents, self._there[key])
            for key, mark in self._marks.items()
        )

    def _within(self, contents: Contents, entry: Entry) -> bool:
        """Does the file of an entry begin with all that these contents are?"""
        known = self._readings.get(entry.key)
        try:
            other = known.contents if known is not None else Contents(entry.path)
        except OSError:
            return False
        try:
            return _begins_with(other, contents)
        finally:
            if known is None:
                other.close()

    def _take_up(self, mark: Mark, origin: str) -> bool:
        """Find the file that was being read, whatever it is called now."""
        paths = [self.path, *(self._folders.siblings(self.path, fresh=True) or ()), Path(origin)]
        paths += self._folders.with_inode(self.path.parent, mark.inode)
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
            self._detach(key)
            self._let_go(reading)
            return b""
        if reading.contents.compressed:
            return self._at_end_of_compressed(reading)
        here = entry_of(self.path)
        if here is None or here.key == key:
            if self._early():
                return None
            return b"" if self._choose() and self._current is not reading else None
        now = self._clock()
        if self._ended is None or self._ended[1] != reading.contents.length:
            self._ended = (now, reading.contents.length)
            return None
        if reading.partial and 0 <= now - self._ended[0] < PATIENCE:
            return None
        last = b"" if self._goes_on(reading, here) else reading.last()
        self._settle(reading)
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
            self._problem(contents.path, OSError(0, "breaks off: what was compressed is not whole"))
        last = reading.last()
        self._settle(reading)
        return last

    def _goes_on(self, reading: Reading, here: Entry) -> bool:
        """Does the file that has taken the place begin with all that this one has? Then it is a longer copy."""
        try:
            contents = Contents(here.path)
        except OSError:
            return False
        try:
            partial = reading.partial
            return (
                bool(partial)
                and bool(reading.mark.holds(contents))
                and contents.read(reading.mark.offset, len(partial)) == partial
            )
        finally:
            contents.close()

    def _settle(self, reading: Reading) -> None:
        """It is done with until it changes; where it has changed since it was read, it is not."""
        status = reading.contents.status
        if reading.contents.compressed or status.st_size <= reading.mark.offset:
            reading.mark.size, reading.mark.written = status.st_size, status.st_mtime_ns
        self._let_go(reading)

    def _let_go(self, reading: Reading) -> None:
        self._changed = True
        reading.contents.close()
        self._readings = {key: other for key, other in self._readings.items() if other is not reading}
        self._current = self._ended = None

    def _fail(self, reading: Reading, error: OSError) -> None:
        self._problem(reading.contents.path, error)
        if isinstance(error, BrokenFileError):
            self._settle(reading)
        else:
            self._let_go(reading)

    def _problem(self, path: Path, error: OSError) -> None:
        self.problems[str(path)] = error.strerror or str(error)
        if path == self.path:
            self.found = False

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


class _LaterError(Exception):
    """Which file it is will be known at a later look."""


def _at_the_end_of(contents: Contents) -> Mark:
    """A mark after all that a file has; a compressed one is not decompressed for it."""
    mark = Mark(device=contents.device, inode=contents.inode)
    head = contents.read(0, HEAD)
    mark.head, mark.head_digest = len(head), digest(head)
    if not contents.compressed or (contents.ended and contents.length > 0):
        mark.offset = contents.length
        tail = contents.read(max(0, mark.offset - TAIL), TAIL)
        mark.tail, mark.tail_digest = len(tail), digest(tail)
    return mark


def _begins_with(longer: Contents, shorter: Contents) -> bool:
    """Are the first bytes of one all that the other has? Both ends of these are compared."""
    length = shorter.length
    if not length or longer.length < length or longer.compressed:
        return False
    tail = max(0, length - TAIL)
    return longer.read(0, HEAD)[:length] == shorter.read(0, HEAD)[:length] and longer.read(
        tail, length - tail
    ) == shorter.read(tail, length - tail)
