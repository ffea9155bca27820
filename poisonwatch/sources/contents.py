"""An open file as the bytes that were written to it, whether it has been compressed since or not."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from typing import TYPE_CHECKING, Protocol

import zstandard

if TYPE_CHECKING:
    from pathlib import Path

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
KEPT = 1 << 13
"""Decompressed bytes before the current place that can be read again."""

REACH = 8 << 20
"""Bytes that are decompressed in one go on the way to a place."""

_RAW = 1 << 16
_RAW_ZSTD = 1 << 10
"""Compressed bytes that are taken at once; zstandard cannot be told how many to give, and a kilobyte gives 32 MB at most."""

_WINDOW = 1 << 25
"""Memory that a zstandard frame may ask for."""


class BrokenFileError(OSError):
    """Compressed bytes that are no such thing."""


class _Decoder(Protocol):
    """What the decoders of both formats have."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class Contents:
    """One regular file, open for reading. `size` is that of the file, `length` what is known of its decompressed bytes."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: when that cannot be done, or when it is no regular file: a FIFO is never waited for.
        """
        self.path = path
        self.origin = os.path.realpath(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        self.device, self.inode = status.st_dev, status.st_ino
        magic = os.pread(self._descriptor, len(ZSTD), 0)
        self.compressed = magic.startswith((GZIP, ZSTD))
        self._zstd = magic.startswith(ZSTD)
        self._begin()

    @property
    def status(self) -> os.stat_result:
        """What the file system says of it now."""
        return os.fstat(self._descriptor)

    @property
    def complete(self) -> bool:
        """Of a compressed file: does it end where its format says that it ends?"""
        return self._decoder is None

    @property
    def length(self) -> int:
        """Bytes of the contents: all of a plain file, of a compressed one those that were met."""
        return self._at if self.compressed else self.status.st_size

    def read(self, offset: int, most: int) -> bytes:
        """Up to `most` bytes from a place on; empty where there are none now, or when it was not reached in one go.

        Raises:
            BrokenFileError: when the file cannot be decompressed.
        """
        if not self.compressed:
            return os.pread(self._descriptor, most, offset)
        if offset + most <= len(self._first):
            return self._first[offset : offset + most]
        if not self.reach(offset):
            return b""
        found = self._kept[len(self._kept) - (self._at - offset) :][:most] if offset < self._at else b""
        while len(found) < most and (more := self._more(most - len(found))):
            found += more
        return found

    def reach(self, offset: int) -> bool:
        """Go to a place; False when it is not there, or too far for one go: then `ended` tells which."""
        if not self.compressed:
            return self.length >= offset
        if offset < self._at - len(self._kept):
            self._begin()
        until = self._at + REACH
        while self._at < offset and self._at < until:
            if not self._more(min(offset - self._at, 1 << 20)):
                return False
        return self._at >= offset

    @property
    def ended(self) -> bool:
        """Of a compressed file: was all that it has now decompressed?"""
        return self._ended

    def after_hole(self, offset: int) -> int:
        """The place of the first byte from `offset` on that is on disk, where the file system knows it."""
        try:
            return max(offset, os.lseek(self._descriptor, offset, os.SEEK_DATA))
        except OSError:
            return offset

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self) -> None:
        self._decoder: _Decoder | None = None
        self._raw_at = self._at = 0
        self._input = self._pending = self._kept = self._first = b""
        self._ended = False

    def _more(self, most: int) -> bytes:
        """The next decompressed bytes."""
        while not self._pending:
            if not self._input:
                self._input = os.pread(self._descriptor, _RAW_ZSTD if self._zstd else _RAW, self._raw_at)
                self._raw_at += len(self._input)
            if self._decoder is None:
                self._input = self._input.lstrip(b"\0")  # padding between members
            self._ended = not self._input
            if self._ended:
                return b""
            try:
                self._pending = self._decompress(max(most, 1))
            except (zlib.error, zstandard.ZstdError) as error:
                raise BrokenFileError(errno.EIO, f"cannot be decompressed ({error})", str(self.path)) from None
        given, self._pending = self._pending[:most], self._pending[most:]
        if self._at < KEPT:
            self._first += given[: KEPT - self._at]
        self._at += len(given)
        self._kept = (self._kept + given)[-KEPT:]
        return given

    def _decompress(self, most: int) -> bytes:
        if self._zstd:
            frame = self._decoder or zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
            given = frame.decompress(self._input)  # type: ignore[attr-defined]
            self._input = b""
        else:
            frame = self._decoder or zlib.decompressobj(16 + zlib.MAX_WBITS)
            given = frame.decompress(self._input, most)  # type: ignore[attr-defined]
            self._input = frame.unconsumed_tail  # type: ignore[attr-defined]
        self._decoder = frame
        if frame.eof:
            self._input, self._decoder = frame.unused_data, None
        return bytes(given)
