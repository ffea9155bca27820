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

    Of a line much longer than `longest` bytes the rest is left out. `progress` is called with the bytes of the file that
    were read since its last call.

    Raises:
        LogError: when the log cannot be read, or is not what its name says.
    """
    with open_log(path) as file:
        told = 0
        while True:
            try:
                block = _whole_lines(file, longest)
                at = _raw_position(file)
            except (OSError, EOFError, zlib.error) as error:
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
    raw: BinaryIO = getattr(file, "fileobj", file)
    return raw.tell()


def _unreadable(path: Path, error: Exception) -> LogError:
    return LogError(f"{path}: the log cannot be read ({getattr(error, 'strerror', None) or error})")
