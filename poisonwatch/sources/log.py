"""A finite log, read once from start to end: plain or compressed."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

from poisonwatch.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

READ_SIZE = 1 << 20


def open_log(path: Path) -> BinaryIO:
    """Open a log for reading, compressed (`.gz`) or plain.

    Raises:
        LogError: when it cannot be opened.
    """
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise _unreadable(path, error) from None


def blocks(path: Path, longest: int, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """Complete lines, about a megabyte at a time; a last line without its newline is a line too.

    Of a line longer than `longest` bytes only that many are given. `progress` is called with the bytes of the file that
    were read since its last call.

    Raises:
        LogError: when the log cannot be read, or is not what its name says.
    """
    with open_log(path) as file:
        rest, skipping, told = b"", False, 0
        while True:
            try:
                read = file.read(READ_SIZE)
                at = _raw_position(file)
            except (OSError, EOFError, zlib.error) as error:
                raise _unreadable(path, error) from None
            if progress is not None:
                progress(at - told)
                told = at
            if not read:
                break
            if skipping:
                _, newline, read = read.partition(b"\n")
                skipping = not newline
            head, newline, rest = (rest + read).rpartition(b"\n")
            if newline:
                yield head + newline
            if len(rest) >= longest:
                yield rest[:longest] + b"\n"
                rest, skipping = b"", True
        if rest:
            yield rest + b"\n"


def _raw_position(file: BinaryIO) -> int:
    """How far the file itself was read, below the decompression."""
    raw: BinaryIO = getattr(file, "fileobj", file)
    return raw.tell()


def _unreadable(path: Path, error: Exception) -> LogError:
    return LogError(f"{path}: the log cannot be read ({getattr(error, 'strerror', None) or error})")
