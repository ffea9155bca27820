"""Tail one log file: across rotation (rename and create, copy and truncate), partial lines and restarts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

READ_SIZE = 1 << 20
"""Bytes that are read in one go."""

FINGERPRINT = 256
"""A file is known again by a hash of this many first bytes: an inode number alone is reused, and copied content is not
the same file."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a file is known by. `length` of its first bytes were hashed."""

    device: int
    inode: int
    length: int
    digest: str

    @classmethod
    def of(cls, descriptor: int, length: int = FINGERPRINT) -> _Identity:
        status = os.fstat(descriptor)
        start = os.pread(descriptor, length, 0)
        return cls(status.st_dev, status.st_ino, len(start), hashlib.sha256(start).hexdigest())

    def still_of(self, descriptor: int) -> bool:
        """Does the open file still begin as it did?"""
        return _Identity.of(descriptor, self.length) == self


class FileSource:
    """Gives the complete lines of a growing file.

    A line is complete with its newline; of a rotated file that is no longer written, the last line is complete without.
    Of a line longer than `longest` bytes only that many are given, the rest is skipped.
    """

    def __init__(self, path: Path, longest: int) -> None:
        self.path = path
        self._longest = longest
        self._descriptor = -1
        self._identity: _Identity | None = None
        self._offset = 0  # after the last byte that was given (or skipped)
        self._partial = b""
        self._skipping = False
        self._ended_before = False
        self.found = False

    def poll(self) -> bytes:
        """Complete lines that are there now, about a megabyte at most; empty when there are none. Never blocks."""
        if self._descriptor < 0 and not self._open_path():
            return b""
        lines = self._read()
        if lines:
            self._ended_before = False
            return lines
        return self._at_end()

    def lag(self) -> int:
        """Bytes of the open file that were not given yet."""
        if self._descriptor < 0:
            return 0
        return max(0, os.fstat(self._descriptor).st_size - self._offset)

    def position(self) -> dict[str, Any] | None:
        """Where to go on after a restart; None when no file was found yet."""
        if self._descriptor < 0 or self._identity is None:
            return None
        identity = self._identity
        return {
            "device": identity.device,
            "inode": identity.inode,
            "length": identity.length,
            "digest": identity.digest,
            "offset": self._offset,
            "skipping": self._skipping,
        }

    def resume(self, position: dict[str, Any]) -> bool:
        """Go on from a saved position, in the file at the path or in the one it was renamed to.

        False when that file is nowhere to be found: then the file at the path is read from its start.
        """
        wanted = _Identity(position["device"], position["inode"], position["length"], position["digest"])
        for path in (self.path, *self._siblings()):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            if wanted.still_of(descriptor) and os.fstat(descriptor).st_size >= position["offset"]:
                self._use(descriptor, position["offset"], skipping=position["skipping"])
                return True
            os.close(descriptor)
        return False

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _siblings(self) -> list[Path]:
        """Files that a rotation may have made of this one."""
        try:
            return sorted(path for path in self.path.parent.glob(self.path.name + "*") if path != self.path)
        except OSError:
            return []

    def _open_path(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            self.found = False
            return False
        self._use(descriptor, 0, skipping=False)
        return True

    def _use(self, descriptor: int, offset: int, *, skipping: bool) -> None:
        self.close()
        self.found = True
        self._descriptor = descriptor
        self._identity = _Identity.of(descriptor)
        self._offset, self._partial, self._skipping = offset, b"", skipping

    def _begin_again(self) -> None:
        """The open file has other content now."""
        self._offset, self._partial, self._skipping = 0, b"", False
        self._identity = _Identity.of(self._descriptor)

    def _know_better(self) -> None:
        """A file that was short when it was opened is known by more bytes now."""
        if self._identity is not None and self._identity.length < FINGERPRINT:
            self._identity = _Identity.of(self._descriptor)

    def _read(self) -> bytes:
        read = os.pread(self._descriptor, READ_SIZE, self._offset + len(self._partial))
        if not read:
            return b""
        if self._identity is not None and not self._identity.still_of(self._descriptor):
            # Truncated, and already longer than it was: what was read is from the middle of other content.
            self._begin_again()
            return self._read()
        self._know_better()
        if self._skipping:
            _, newline, rest = read.partition(b"\n")
            if not newline:
                self._offset += len(read)
                return b""
            self._offset += len(read) - len(rest)
            self._skipping = False
            read = rest
        head, newline, tail = (self._partial + read).rpartition(b"\n")
        lines = head + newline
        self._offset += len(lines)
        self._partial = tail
        if len(tail) >= self._longest:
            # The decoder counts it as too long; its remaining bytes are not worth holding.
            lines += tail[: self._longest] + b"\n"
            self._offset += len(tail)
            self._partial, self._skipping = b"", True
        return lines

    def _at_end(self) -> bytes:
        """Nothing more to read: has the file been rotated under us?"""
        status = os.fstat(self._descriptor)
        if status.st_size > self._offset + len(self._partial):
            return b""  # a long line is being skipped
        truncated = status.st_size < self._offset + len(self._partial)
        if truncated or (self._identity is not None and not self._identity.still_of(self._descriptor)):
            self._begin_again()
            return self._read()
        if not self._replaced():
            self._ended_before = False
            return b""
        if not self._ended_before:
            # Its writer may not have noticed yet: look once more before leaving the renamed file.
            self._ended_before = True
            return b""
        self._ended_before = False
        last = self._partial + b"\n" if self._partial else b""
        self.close()
        self._open_path()
        return last

    def _replaced(self) -> bool:
        """Is another file at the path now? While there is none yet, the old one may still grow."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        held = os.fstat(self._descriptor)
        return (status.st_dev, status.st_ino) != (held.st_dev, held.st_ino)
