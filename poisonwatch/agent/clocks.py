"""Where the loop gets the time from."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol

from poisonwatch.formats.records import LATEST

if TYPE_CHECKING:
    from poisonwatch.sources.intake import Intake


class Clock(Protocol):
    """Where the loop gets the time from."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Rest."""
        ...


class WallClock:
    """The time of day."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Rest."""
        time.sleep(seconds)


class EventClock:
    """The time that the logs tell: in a replay nothing else is known."""

    def __init__(self, intake: Intake) -> None:
        self._merge = intake.merge

    def now(self) -> float:
        """Largest event time met so far; before the first record, the time of the one that will be first."""
        met = max((lane.clock for lane in self._merge.lanes), default=-math.inf)
        if math.isfinite(met):
            return met
        first = [float(lane.clocks[0]) for lane in self._merge.lanes if lane.fill(LATEST)]
        return min(first, default=0.0)

    def sleep(self, seconds: float) -> None:
        """A replay never waits."""
