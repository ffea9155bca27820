"""How far the files of one log were read, whatever has become of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from poisonwatch.sources.contents import Contents
from poisonwatch.sources.folders import entry_of
from poisonwatch.sources.identity import HEAD, SHORTEST, TAIL, Mark, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from poisonwatch.sources.folders import Entry
    from poisonwatch.sources.reading import Reading

MOST_GONE = 4096
"""Files no longer there whose marks are kept: a copy of one may turn up."""

Key = tuple[int, int]


class LaterError(Exception):
    """Which file it is will be known at a later look."""


class Kin(NamedTuple):
    """A file of another stream that begins like one of this: its mark, its path where that is known, and is it open?"""

    mark: Mark
    path: Path | None
    open: bool


class Ledger:
    """The marks of a log's files by device and inode, and those of files that are gone.

    `opened` are the files that are open now, as they come and go; `kin` gives what other streams know of files that begin
    like the one that is asked for.
    """

    def __init__(self, opened: Mapping[Key, Reading], kin: Callable[[Contents], Iterable[Kin]]) -> None:
        self.marks: dict[Key, Mark] = {}
        self.gone: list[Mark] = []
        self._kin = kin
        self._there: Mapping[Key, Entry] = {}
        self._open = opened
        self._copies: dict[Key, int] = {}  # bytes of copies at the last look: they may be still written

    def state(self) -> dict[str, Any]:
        """All marks, as JSON values."""
        return {
            "marks": msgspec.to_builtins(list(self.marks.values())),
            "gone": msgspec.to_builtins(self.gone),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up saved marks."""
        self.gone = msgspec.convert(state["gone"], list[Mark])
        self.take(msgspec.convert(state["marks"], list[Mark]))

    def take(self, marks: Iterable[Mark]) -> None:
        """Marks of further files of this log."""
        for mark in marks:
            self.marks.setdefault((mark.device, mark.inode), mark)

    def ignore(self, entry: Entry, contents: Contents | None) -> None:
        """This file is not to be read."""
        mark = Mark(device=entry.device, inode=entry.inode) if contents is None else end_of(contents)
        mark.ignored, mark.size, mark.written = True, entry.size, entry.written
        self.marks[entry.key] = mark

    def met(self, there: Mapping[Key, Entry]) -> None:
        """These files are there: marks of others are kept for a while, without their inode."""
        self._there = there
        self._copies = {key: size for key, size in self._copies.items() if key in there}
        for key in [key for key in self.marks if key not in there]:
            mark = self.marks[key]
            # The device may have another number since the system was started again.
            same = (entry for entry in there.values() if entry.inode == key[1] and entry.key not in self.marks)
            entry = next(same, None)
            if entry is not None and (mark.size, mark.written) == (entry.size, entry.written):
                self.marks[entry.key] = msgspec.structs.replace(self.marks.pop(key), device=entry.device)
            else:
                self.detach(key)

    def detach(self, key: Key) -> None:
        """The file with this inode is not what its mark says."""
        mark = self.marks.pop(key)
        if mark.offset and mark.head and not mark.copied:
            self.gone = [*self.gone, mark.moved(-1, -1)][-MOST_GONE:]

    def done(self, entry: Entry) -> bool:
        """Was it read, and not changed since?"""
        mark = self.marks.get(entry.key)
        return mark is not None and (mark.size, mark.written) == (entry.size, entry.written)

    def identify(self, entry: Entry, contents: Contents, here: Entry | None) -> Mark | None:
        """How far a file was read, maybe under another name; None when it need not be read, or is read elsewhere.

        Raises:
            LaterError: when that takes longer: call again with the same contents.
            OSError: when it cannot be read.
        """
        at_path = here is not None and entry.key == here.key
        own = self._own(entry, contents, at_path=at_path)
        if own is not None and own.ignored:
            own.size, own.written = entry.size, entry.written
            return None
        is_open = entry.key in self._open
        if not is_open and not at_path and self._beginning_of_another(entry, contents, here):
            return None  # it is read there
        elsewhere: list[Mark] = []
        if not is_open and (own is None or own.offset == 0):
            for kin in self._kin(contents):
                if self._read_there(entry, contents, kin):
                    return None
                elsewhere.append(kin.mark)
        mark = self._furthest(entry, contents, own, elsewhere, at_path=at_path)
        if mark is None:
            self.marks[entry.key] = end_of(contents, entry)
            return None
        if mark.ignored:
            mark.size, mark.written = entry.size, entry.written
        self.marks[entry.key] = mark
        return None if mark.ignored else mark

    def _own(self, entry: Entry, contents: Contents, *, at_path: bool) -> Mark | None:
        """The mark of this inode, if the file still is what the mark says."""
        mark = self.marks.get(entry.key)
        if mark is None:
            return None
        if mark.ignored and at_path:
            del self.marks[entry.key]
            return None
        if entry.key in self._open:
            return mark
        if not mark.offset and not mark.ignored:
            del self.marks[entry.key]  # nothing was read: it tells nothing that holds of this file alone
            return None
        held: bool | None
        if mark.ignored and (contents.compressed or not mark.head):
            held = bool(mark.head) and mark.begins(contents)
        else:
            held = mark.holds(contents)
        if held is None:
            raise LaterError
        if held:
            return mark
        self.detach(entry.key)
        return None

    def _furthest(
        self, entry: Entry, contents: Contents, own: Mark | None, elsewhere: list[Mark], *, at_path: bool
    ) -> Mark | None:
        """The mark of this file, or that of one with the same contents that was read further.

        None of a compressed file that is not whole and may turn out to be such a one.
        """
        mark = own or Mark(device=entry.device, inode=entry.inode)
        for other in sorted((*self.marks.values(), *self.gone, *elsewhere), key=lambda other: other.offset):
            if other.offset <= mark.offset or other.copied or mark.ignored or not other.head:
                continue
            if other.offset < SHORTEST and not _ends_at(contents, other.offset):
                continue
            if other.ignored and (at_path or own is not None):
                continue
            held = other.holds(contents)
            if held is None:
                raise LaterError
            if held:
                mark = other.moved(entry.device, entry.inode)
            elif contents.compressed and contents.ended and not contents.complete and other.begins(contents):
                return None
        return mark

    def _beginning_of_another(self, entry: Entry, contents: Contents, here: Entry | None) -> bool:
        """Does another file say all that this one does? Then it is done with once that was read so far.

        It may be a copy of the file at the path that is not whole yet: its last line is no line then.
        """
        if contents.compressed:
            # While the original is there, it may be still written.
            return entry_of(entry.path.with_suffix("")) is not None
        for other in self._there.values():
            longer = other.size > contents.length or (here is not None and other.key == here.key)
            if other.key == entry.key or not longer:
                continue
            with self._opened(other) as held:
                if held is None or not begins_with(held, contents):
                    continue
                mark = self.marks.get(other.key)
                # The mark may be that of a file that had this inode before.
                if mark is not None and mark.offset >= contents.length and mark.holds(held):
                    self.marks[entry.key] = end_of(contents, entry)
                return True
        return False

    @contextmanager
    def _opened(self, entry: Entry) -> Iterator[Contents | None]:
        """The contents of a file, which may be open already."""
        known = self._open.get(entry.key)
        if known is not None:
            yield known.contents
            return
        with _opened(entry.path) as contents:
            yield contents

    def _read_there(self, entry: Entry, contents: Contents, kin: Kin) -> bool:
        """Does another stream read this file, or one with the same contents?"""
        mark = kin.mark
        if (mark.device, mark.inode) == entry.key:
            return kin.open
        if kin.path is None or contents.compressed:
            return False
        with _opened(kin.path) as other:
            if other is None or (other.device, other.inode) != (mark.device, mark.inode):
                return False
            if begins_with(contents, other) and mark.offset < other.length:
                return True
            if not begins_with(other, contents):
                return False
            if mark.offset >= contents.length and self._copies.get(entry.key) == contents.length:
                self.marks[entry.key] = end_of(contents, entry)
            self._copies[entry.key] = contents.length
            return True


@contextmanager
def _opened(path: Path) -> Iterator[Contents | None]:
    """The contents of a file for a moment; None when it cannot be opened."""
    try:
        contents = Contents(path)
    except OSError:
        yield None
        return
    try:
        yield contents
    finally:
        contents.close()


def end_of(contents: Contents, entry: Entry | None = None) -> Mark:
    """A mark after all that a file has, as a copy that is done with where its entry is told; a compressed one is not decompressed for it."""
    mark = Mark(device=contents.device, inode=contents.inode)
    head = contents.read(0, HEAD)
    mark.head, mark.head_digest = len(head), digest(head)
    if not contents.compressed or (contents.ended and contents.length > 0):
        mark.offset = contents.length
        tail = contents.read(max(0, mark.offset - TAIL), TAIL)
        mark.tail, mark.tail_digest = len(tail), digest(tail)
    if entry is not None and (contents.compressed or contents.length <= entry.size):
        mark.copied, mark.size, mark.written = True, entry.size, entry.written
    return mark


def _ends_at(contents: Contents, offset: int) -> bool:
    """Is it compressed, and so long? What was compressed was there before, so that it may be known by a few bytes."""
    if not contents.compressed or not contents.reach(offset):
        return False
    return not contents.read(offset, 1) and contents.ended and contents.complete


def begins_with(longer: Contents, shorter: Contents) -> bool:
    """Are the first bytes of one all that the other has? Both ends of these are compared."""
    length = shorter.length
    if length < SHORTEST or longer.length < length or longer.compressed:
        return False
    tail = max(0, length - TAIL)
    return longer.read(0, HEAD)[:length] == shorter.read(0, HEAD)[:length] and longer.read(
        tail, length - tail
    ) == shorter.read(tail, length - tail)


def alike(contents: Contents, known: Iterable[tuple[Mark, Path | None, bool]]) -> Iterator[Kin]:
    """Of many marks those whose files begin like this one."""
    digests: dict[tuple[int, int], str] = {}
    for mark, path, is_open in known:
        if not mark.head or not mark.offset or mark.ignored or mark.copied:
            continue
        span = mark.start, mark.head
        if span not in digests:
            digests[span] = digest(contents.read(*span))
        if digests[span] == mark.head_digest:
            yield Kin(mark, path, is_open)
