"""How the logs of a reference are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from poisonwatch.sources.log import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class Read(Protocol):
    """Reads logs, whatever their format, from the start on every call."""

    def __call__(
        self, paths: Sequence[Path], longest: int, progress: Callable[[int], None] | None, /
    ) -> Iterator[tuple[bytes, dict[str, int]]]:
        """Blocks of native lines of at most `longest` bytes, with what was lost on the way to each, by reason."""
        ...


def native(
    paths: Sequence[Path], longest: int, progress: Callable[[int], None] | None, /
) -> Iterator[tuple[bytes, dict[str, int]]]:
    """Blocks of logs that are native lines."""
    return ((block, {}) for path in paths for block in blocks(path, longest, progress))
