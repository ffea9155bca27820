"""Events that say their own number, and what a spool gives of them; programs that are killed import it, so it is small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poisonwatch.formats.events import Event, events

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.sources.spool import Spool


def numbered(number: int, size: int = 0) -> Event:
    """An event that says its own number, padded to a size."""
    return Event(b"%d " % number + b"x" * size, {"n": str(number)}, 1.5, "/v1/predictions")


def drain(spool: Spool) -> list[int]:
    """The numbers of all events that are there now."""
    given = []
    while (block := spool.poll()) is not None:
        given += [int(event.body.split()[0]) for event in events(block)]
    return given


def segments(folder: Path) -> list[Path]:
    """The files of a spool, in order."""
    return sorted(folder.glob("*.frames"))
