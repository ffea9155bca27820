"""What every source is: streams of blocks, and a position that says what was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poisonwatch.formats.events import Block


class Stream(Protocol):
    """Blocks in the order in which they were written: one file and what it is rotated to, one partition, one spool."""

    @property
    def name(self) -> str:
        """What it is called, the same after a restart; no two streams of a source have the same name."""
        ...

    def poll(self) -> Block | None:
        """The next block, about a megabyte at most, or None when there is none now. Never blocks for long."""
        ...


class Source(Protocol):
    """Where records come from. All of it is called by the loop's thread alone."""

    @property
    def found(self) -> bool:
        """Is what it reads there?"""
        ...

    def streams(self) -> Sequence[Stream]:
        """The streams that there are now. One that has ended and gave all that it had is not among them any more."""
        ...

    def lag(self) -> int:
        """Bytes (of a broker: messages) that are there and were not given yet."""
        ...

    def lost(self) -> Mapping[str, int]:
        """What was refused, or was there and could not be read, by reason, since this process began."""
        ...

    def position(self) -> dict[str, Any]:
        """What was given so far, as JSON values; saved with the state that took it in."""
        ...

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Go on after a saved position, before the first poll; says what could not be found again, in sentences with a remedy."""
        ...

    def commit(self, position: dict[str, Any]) -> None:
        """A checkpoint with this position is safe on disk: what stands before it is not needed any more."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
