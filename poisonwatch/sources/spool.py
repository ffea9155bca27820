"""Events on disk between who sends them and the loop: nothing is acknowledged before it is safe, nothing is read before.

A spool is a folder of append-only segments of frames, `NUMBER-MARK.frames`. The mark, random and the same for all
segments of a folder, stands before every frame: where bytes are damaged, the next mark is the next frame. It is in no
answer, so nobody who sends can put one into a body and forge a frame that a damage would then uncover.

Any thread may append; all the rest belongs to the loop's thread.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from poisonwatch.errors import SpoolFullError, StateError
from poisonwatch.formats.events import Block, Event, frame, frame_at
from poisonwatch.formats.opening import GZIP, ZSTD
from poisonwatch.sinks.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

READ_SIZE = 1 << 20
"""Bytes that are read in one go."""

COMPRESSED_AT_ONCE = 4
"""Compressed bodies in one block, each of which may grow to the largest body that is allowed."""

SEGMENT_BYTES = 16 << 20
"""Segments are deleted whole: the smaller they are, the sooner there is room again."""

RESERVE = 32 << 20
"""Bytes of the disk that are left alone: on a disk that the spool filled no checkpoint could be written, and none of it deleted."""

RETRY_SECONDS = 5
"""When to come again to a full spool: room comes with the next checkpoint."""

_MARK_BYTES = 8
_NAME = re.compile(r"(?P<number>[0-9]{12})-(?P<mark>[0-9a-f]{16})\.frames")


@dataclass(slots=True)
class _Segment:
    """One file. What stands before `end` is acknowledged; what may stand behind it is not there."""

    path: Path
    number: int
    mark: bytes
    end: int


class _Group:
    """Events of several threads that go to disk together."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.done = False
        self.error: OSError | None = None


class _Read(NamedTuple):
    """Whole frames without their marks, the place to go on at, the place after the last whole one, and damages met."""

    frames: list[bytes]
    offset: int
    whole: int
    damaged: int


class Spool:
    """One stream of events, kept on disk until a checkpoint has taken them in.

    `most_bytes` is what its segments may take; a segment is deleted when all of it is committed. `refused` is what the
    writers turned away, by reason, `faults` what was odd about what they took: they count, the loop reads. `damaged`
    counts places where bytes were no frames, `failed` writes that the disk refused, and `torn` the bytes that a crash left
    behind unacknowledged.

    Raises:
        StateError: when another agent has the folder, or it cannot be made or read.
    """

    def __init__(self, folder: Path, most_bytes: int, segment_bytes: int = SEGMENT_BYTES, name: str = "spool") -> None:
        self.name = name
        self.refused: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.damaged = 0
        self.failed = 0
        self.torn = 0
        self._folder = folder
        self._most = most_bytes
        # With an eighth, a full spool whose segments are committed has room again.
        self._segment_bytes = max(1, min(segment_bytes, most_bytes // 8))
        self._change = threading.Condition()
        self._group = _Group()
        self._busy = False
        self._closed = False
        self._writing = -1  # the last segment, open for appending; a start never goes on in an old one
        self._unclean = False  # may there be bytes behind the end of the last segment?
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(folder / "spool")
            self._segments = _segments_of(folder)
        except OSError as error:
            msg = f"{folder}: cannot hold a spool ({error.strerror}): make it writable, or choose another `state`"
            raise StateError(msg) from None
        self._mark = self._segments[-1].mark if self._segments else secrets.token_bytes(_MARK_BYTES)
        self._held = sum(segment.end for segment in self._segments)
        self._reading = -1
        self._number, self._offset = (self._segments[0].number if self._segments else 0), 0
        if self._segments:
            self._recover(self._segments[-1])

    # Writers

    def append(self, events: Sequence[Event]) -> None:
        """Put events on disk; they are safe when this returns, and not there at all when it raises.

        Threads that come while others' events are being written go to disk together.

        Raises:
            SpoolFullError: when there is no room for them.
            OSError: when the disk refuses.
        """
        data = b"".join([part for event in events for part in (self._mark, frame(event))])
        with self._change:
            if self._held + self._group.size + len(data) > self._most or self._free() < RESERVE:
                raise SpoolFullError(RETRY_SECONDS)
            group = self._group
            group.parts.append(data)
            group.size += len(data)
            while self._busy and not group.done:
                self._change.wait()
            if not group.done:
                self._busy = True
                self._group = _Group()
                self._held += group.size
        if not group.done:
            self._settle(group)
        if group.error is not None:
            raise OSError(group.error.errno, group.error.strerror)

    def _free(self) -> int:
        """Bytes that the disk has left for us."""
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return RESERVE  # what is wrong with the disk shows when it is written to
        return disk.f_bavail * disk.f_frsize

    def _settle(self, group: _Group) -> None:
        """Write a group in the name of all who wait for it."""
        try:
            self._write(b"".join(group.parts))
        except OSError as error:
            group.error = error
        finally:
            with self._change:
                if group.error is not None:
                    self._held -= group.size
                    self.failed += 1
                group.done = True
                self._busy = False
                self._change.notify_all()

    def _write(self, data: bytes) -> None:
        """Append to the last segment; only one thread at a time is here.

        Raises:
            OSError: when the disk refuses; then the segment ends where it did.
        """
        if self._closed:
            raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
        if self._writing < 0 or (
            self._segments[-1].end > 0 and self._segments[-1].end + len(data) > self._segment_bytes
        ):
            self._begin_segment()
        segment = self._segments[-1]
        if self._unclean:
            self._clean(segment)
        try:
            rest, place = memoryview(data), segment.end
            while rest:
                written = os.pwrite(self._writing, rest, place)
                rest, place = rest[written:], place + written
            os.fdatasync(self._writing)
        except OSError:
            self._unclean = True
            with suppress(OSError):  # tried again before the next write
                self._clean(segment)
            raise
        with self._change:
            segment.end += len(data)

    def _clean(self, segment: _Segment) -> None:
        """Take away what stands behind the end of the last segment."""
        os.ftruncate(self._writing, segment.end)
        self._unclean = False

    def _begin_segment(self) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        path = self._folder / f"{number:012d}-{self._mark.hex()}.frames"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _sync(self._folder)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._stop_writing()
        with self._change:
            self._writing = descriptor
            self._segments.append(_Segment(path, number, self._mark, 0))

    def _stop_writing(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    # The loop

    @property
    def found(self) -> bool:
        """A spool is always there."""
        return True

    @property
    def held(self) -> int:
        """Bytes that the segments take, of `most_bytes`."""
        return self._held

    def streams(self) -> Sequence[Spool]:
        """The one stream: itself."""
        return (self,)

    def poll(self) -> Block | None:
        """Whole frames that are safe on disk, about a megabyte at most, or None when there are no more."""
        while (segment := self._current()) is not None:
            try:
                if self._reading < 0:
                    self._reading = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
                read = _read(self._reading, segment.mark, self._offset, segment.end)
            except FileNotFoundError:
                # Somebody took it away.
                self.damaged += 1
                self._offset = segment.end
                continue
            except OSError:
                # Not skipped: it is acknowledged, and the disk may come back. The lag tells of it.
                return None
            self.damaged += read.damaged
            self._offset = read.offset
            if read.frames:
                return Block(b"".join(read.frames), framed=True, origin=self.name)
        return None

    def lag(self) -> int:
        """Bytes that are safe on disk and were not given yet."""
        with self._change:
            return sum(s.end for s in self._segments if s.number >= self._number) - self._offset

    def lost(self) -> Mapping[str, int]:
        """What writers turned away, and places where acknowledged bytes were no frames any more, by reason."""
        return {**dict(self.refused), "damaged": self.damaged} if self.damaged else dict(self.refused)

    def position(self) -> dict[str, Any]:
        """What was given: all before `offset` of the segment of this number."""
        return {"mark": self._mark.hex(), "segment": self._number, "offset": self._offset}

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Go on after a saved position; without that place, from the oldest that there is."""
        mark, number, offset = position["mark"], position["segment"], position["offset"]
        known = [segment for segment in self._segments if segment.mark.hex() == mark]
        if not known:
            if not number:
                return []
            return [f"{self._folder}: its segments were removed: what they held and was not read yet is lost"]
        self._number, self._offset = number, offset
        self.commit(position)
        at = next((segment for segment in known if segment.number == number), None)
        if at is None and number:
            self._offset = 0
            return [f"{self._folder}: segment {number} was removed: what it held and was not read yet is lost"]
        if at is not None and offset > at.end:
            self._offset = at.end
            return [
                f"{at.path}: it is shorter than what was read of it: the disk has lost bytes that were safe; check the disk"
            ]
        return []

    def commit(self, position: dict[str, Any]) -> None:
        """Delete the segments before a position that a checkpoint holds. The last stays: its number and mark go on."""
        with self._change:
            if position["mark"] != self._mark.hex():
                return
            done = [segment for segment in self._segments[:-1] if segment.number < position["segment"]]
        for segment in done:
            try:
                segment.path.unlink(missing_ok=True)
            except OSError:
                return  # a read-only disk; tried again with the next checkpoint
            with self._change:
                self._segments.remove(segment)
                self._held -= segment.end
        self._let_go_of_large()

    def close(self) -> None:
        """Wait for what is being written, then let go of files and lock; later appends fail."""
        with self._change:
            self._change.wait_for(lambda: not self._busy)
            self._closed = True
        self._stop_writing()
        self._stop_reading()
        self._lock.close()

    def _let_go_of_large(self) -> None:
        """Begin a new segment after one that became too large to ever leave room for what would begin it."""
        with self._change:
            if self._busy or self._writing < 0 or self._segments[-1].end < self._segment_bytes:
                return
            self._busy = True
        with suppress(OSError):  # tried again with the next checkpoint
            self._begin_segment()
        with self._change:
            self._busy = False
            self._change.notify_all()

    def _current(self) -> _Segment | None:
        """The segment that has more to read, after a step to the next one where the one before is done."""
        with self._change:
            for segment in self._segments:
                if segment.number < self._number:
                    continue
                if segment.number > self._number:
                    self._stop_reading()
                    self._number, self._offset = segment.number, 0
                if self._offset < segment.end:
                    return segment
            return None

    def _stop_reading(self) -> None:
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1

    def _recover(self, last: _Segment) -> None:
        """Find the last whole frame of a segment in which a crash may have left half of one, and cut off the rest.

        Raises:
            StateError: when it cannot be read.
        """
        try:
            descriptor = os.open(last.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                whole = offset = 0
                while offset < last.end:
                    read = _read(descriptor, last.mark, offset, last.end)
                    offset = read.offset
                    whole = read.whole if read.frames else whole
            finally:
                os.close(descriptor)
        except OSError as error:
            self._lock.close()
            msg = f"{last.path}: cannot be read ({error.strerror}): mend the disk, or move the file away"
            raise StateError(msg) from None
        self.torn = last.end - whole
        self._held -= self.torn
        last.end = whole
        _end_at(last.path, whole)


def _segments_of(folder: Path) -> list[_Segment]:
    """Segments of a folder in their order; other files are not ours."""
    found = []
    for path in folder.iterdir():
        named = _NAME.fullmatch(path.name)
        if named is not None:
            found.append(_Segment(path, int(named["number"]), bytes.fromhex(named["mark"]), path.stat().st_size))
    return sorted(found, key=lambda segment: (segment.number, segment.mark))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end_at(path: Path, end: int) -> None:
    """Cut a file, and see that what is left is safe: a process that was killed may not have come to that."""
    with suppress(OSError):  # a read-only disk: what is behind the end is not read all the same
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(descriptor: int, mark: bytes, offset: int, end: int) -> _Read:
    """Frames from `offset` on, of a segment that ends at `end`; at least one, or all up to the end."""
    size = READ_SIZE
    while True:
        wanted = min(size, end - offset)
        data = _bytes_at(descriptor, wanted, offset)
        last = offset + len(data) >= end or len(data) < wanted
        frames: list[bytes] = []
        start = whole = damaged = compressed = 0
        while start < len(data) and compressed < COMPRESSED_AT_ONCE:
            found = frame_at(data, start + len(mark)) if data.startswith(mark, start) else None
            if found is not None:
                frames.append(data[start + len(mark) : found.end])
                start = whole = found.end
                compressed += found.event.body.startswith((GZIP, ZSTD))
                continue
            following = data.find(mark, start + 1)
            if following < 0 and not last:
                break  # the rest of this frame, or the next mark, was not read yet
            damaged += 1
            start = following if following >= 0 else len(data)
        if frames or last:
            if len(data) < wanted and start == len(data):
                start, damaged = end - offset, damaged + 1  # somebody cut the file
            return _Read(frames, offset + start, offset + whole, damaged)
        size *= 2


def _bytes_at(descriptor: int, count: int, offset: int) -> bytes:
    """Up to `count` bytes; fewer only where the file ends."""
    parts = []
    while count and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
