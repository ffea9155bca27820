"""A finite log, read once from start to end: lines or a table, plain or compressed."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, Any

import zstandard

from poisonwatch.errors import LogError
from poisonwatch.sources.tables import csv_lines, parquet_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

READ_SIZE = 1 << 20

ZSTD_READ = 1 << 10
"""Compressed bytes that are unpacked at once: what they become is up to some 30,000 times as many."""

COMPRESSED = (".gz", ".zst")
UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError)


class _Zstd(io.RawIOBase):
    """Unpacks a file; one that was cut off is an error, not the end."""

    def __init__(self, fileobj: BinaryIO) -> None:
        super().__init__()
        self.fileobj = fileobj
        self._frame: Any = None
        self._packed = self._unpacked = b""

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack some bytes; 0 at the end.

        Raises:
            EOFError: when the file ends in the middle of a frame.
        """
        while not self._unpacked:
            packed = self._packed or self.fileobj.read(ZSTD_READ)
            self._packed = b""
            if not packed:
                if self._frame is not None:
                    raise EOFError("it ends too early")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._unpacked = self._frame.decompress(packed)
            if self._frame.eof:
                self._frame, self._packed = None, self._frame.unused_data
        size = min(len(buffer), len(self._unpacked))
        buffer[:size] = self._unpacked[:size]
        self._unpacked = self._unpacked[size:]
        return size

    def close(self) -> None:
        """Close the file too."""
        self.fileobj.close()
        super().close()


def open_log(path: Path) -> BinaryIO:
    """Open a log for reading, compressed (`.gz`, `.zst`) or plain.

    Raises:
        LogError: when it cannot be opened.
    """
    try:
        if path.suffix == ".gz":
            return gzip.open(path)  # type: ignore[return-value]
        return io.BufferedReader(_Zstd(path.open("rb")), READ_SIZE) if path.suffix == ".zst" else path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None


def blocks(
    path: Path, longest: int, progress: Callable[[int], None] | None = None, *, native: bool = True
) -> Iterator[bytes]:
    """Complete lines, about a megabyte at a time; a last line without its newline is a line too.

    Of a line much longer than `longest` bytes the rest is left out. `progress` is called with the bytes of the file that
    were read since its last call. Rows of a table (`.csv`, `.parquet`) become JSON lines: native records, or where the log is
    not `native`, objects of its columns.

    Raises:
        LogError: when the log cannot be read, or is not what its name says.
        MissingExtraError: when what reads it is not installed.
    """
    kind = path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix
    if kind == ".csv":
        return _together(csv_lines(path, _plain(path, longest, progress), longest, native=native))
    if path.suffix == ".parquet":
        return _together(parquet_lines(path, progress, native=native))
    return _plain(path, longest, progress)


def _together(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines in blocks of about a megabyte."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= READ_SIZE:
            yield b"".join(block)
            block, size = [], 0
    if block:
        yield b"".join(block)


def _plain(path: Path, longest: int, progress: Callable[[int], None] | None) -> Iterator[bytes]:
    with open_log(path) as file:
        told = 0
        while True:
            try:
                block = _whole_lines(file, longest)
                at = _raw_position(file)
            except UNREADABLE as error:
                raise _unreadable(path, error) from None
            if progress is not None:
                progress(at - told)
                told = at
            if not block:
                return
            yield block


def _whole_lines(file: BinaryIO, longest: int) -> bytes:
    """The next megabyte, and what is missing of its last line."""
    block = file.read(READ_SIZE)
    if not block or block.endswith(b"\n"):
        return block
    rest = file.readline(longest)
    if rest.endswith(b"\n"):
        return block + rest
    while (skipped := file.readline(READ_SIZE)) and not skipped.endswith(b"\n"):
        pass
    return block + rest + b"\n"


def _raw_position(file: BinaryIO) -> int:
    """How far the file itself was read, below the decompression."""
    packed = getattr(file, "raw", None)
    raw: BinaryIO = packed.fileobj if isinstance(packed, _Zstd) else getattr(file, "fileobj", file)
    return raw.tell()


def _unreadable(path: Path, error: Exception) -> LogError:
    return LogError(f"{path}: the log cannot be read ({getattr(error, 'strerror', None) or error})")
