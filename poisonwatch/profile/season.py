"""Seasons: the hour of the day and the weekend, in UTC of event time, and a timed reference counted by them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

SLOT = 600.0
"""Seconds of the finest time that a reference is counted in. Slots, hours and days begin with those of UTC."""

SLOTS_AN_HOUR = 6
HOUR = SLOT * SLOTS_AN_HOUR
HOURS_A_DAY = 24
DAY = 86400.0

DAYS_FOR_HOURS = 3
"""Whole days that a reference must cover to know the hours of the day."""

DAYS_FOR_WEEKENDS = 14
"""Whole days that it must cover to know the hours of weekends as well."""

WORKING_DAYS = 5
MONDAY = 3
"""Days from the first Thursday of 1970, where UTC begins, back to a Monday."""

MOST_BLOCKS = 1000
"""Blocks that are kept at each scale to measure the design effect: enough for 5 %, and a bound on memory."""

MOST_DAYS = 366
"""Days that are kept apart, the last ones of the reference; seasons are counted over all of it."""

WEEK_OF_HOURS = 168


def cells_over(first: float, last: float) -> int:
    """How many cells a reference between these times can fill: 1, the hours (24), or those of both kinds of day (48)."""
    # Hours are counted that were touched: a log of whole days ends shortly before midnight.
    days = (last // HOUR - first // HOUR + 1) / HOURS_A_DAY
    if days >= DAYS_FOR_WEEKENDS:
        return 2 * HOURS_A_DAY
    return HOURS_A_DAY if days >= DAYS_FOR_HOURS else 1


def cell_of(time: float, cells: int) -> int:
    """The cell of a time among so many: the hour of the day, then the same hours of Saturdays and Sundays."""
    return _cell_of_hour(math.floor(time / HOUR), cells)


def _cell_of_hour(hour: int, cells: int) -> int:
    if cells == 1:
        return 0
    weekend = (hour // HOURS_A_DAY + MONDAY) % 7 >= WORKING_DAYS
    return hour % HOURS_A_DAY + HOURS_A_DAY * (cells > HOURS_A_DAY and weekend)


@dataclass(frozen=True, slots=True)
class Season:
    """What is expected of every indicator in each cell; all arrays (cells, j).

    `low` and `high` are log-odds between which the finite reference leaves the true rate in that cell.
    """

    rate: Floats
    low: Floats
    high: Floats

    def cell_of(self, time: float) -> int:
        """The cell of a time."""
        return cell_of(time, self.rate.shape[0])


class Blocks(NamedTuple):
    """Blocks of time of one length: `counts` (b, size), the `cell` (b,) of each and its `day` (b,), -1 for none."""

    counts: Ints
    cell: Ints
    day: Ints


@dataclass(frozen=True, slots=True)
class History:
    """A reference's counts by time.

    `cells` (k, size) holds all of it. `days` (d, size) are profiles of days and `mix` (d, k) how many of each day's
    predictions fell to each cell. `scales` are blocks of several lengths, shortest first.
    """

    cells: Ints
    days: Ints
    mix: Ints
    scales: tuple[Blocks, ...]


class _Sampled:
    """Blocks of whole hours drawn from [first, last], evenly and so that every hour of the week is met."""

    def __init__(self, size: int, first: int, last: int, parts: int) -> None:
        hours = last - first + 1
        stride = max(1, math.ceil(hours * parts / MOST_BLOCKS))
        while math.gcd(stride, WEEK_OF_HOURS) > 1 and stride > 1:
            stride += 1
        self.first, self.stride, self.parts = first, stride, parts
        self.counts = np.zeros((math.ceil(hours / stride) * parts, size), np.int64)

    def add(self, hour: int, part: int, profile: Ints) -> None:
        row, rest = divmod(hour - self.first, self.stride)
        if rest == 0 and row >= 0:
            self.counts[row * self.parts + part] += profile

    def blocks(self, cells: int, first_day: int) -> Blocks:
        hours = self.first + self.stride * (np.arange(self.counts.shape[0]) // self.parts)
        cell = [_cell_of_hour(int(hour), cells) for hour in hours]
        return Blocks(self.counts, np.array(cell, np.int64), hours // HOURS_A_DAY - first_day)


class Tally:
    """Counts a timed reference, piece by piece, in memory that does not grow with its length but for `volume`.

    A piece is what fell to one slot: cut the records of [`first`, `last`] by `slots`, count each cut with
    `Questions.count`, and `add` it. Vectors have `size` places. `volume` (s,) is the number of predictions in every slot
    from the first to the last.
    """

    def __init__(self, size: int, first: float, last: float) -> None:
        self._first, self._last = math.floor(first / SLOT), math.floor(last / SLOT)
        last_hour = self._last // SLOTS_AN_HOUR
        first_hour = max(self._first // SLOTS_AN_HOUR, (last_hour // HOURS_A_DAY - MOST_DAYS + 1) * HOURS_A_DAY)
        self._first_day = first_hour // HOURS_A_DAY
        cells = cells_over(first, last)
        days = last_hour // HOURS_A_DAY - self._first_day + 1
        self._cells = np.zeros((cells, size), np.int64)
        self._days = np.zeros((days, size), np.int64)
        self._mix = np.zeros((days, cells), np.int64)
        self._slots = _Sampled(size, first_hour, last_hour, SLOTS_AN_HOUR)
        self._hours = _Sampled(size, first_hour, last_hour, 1)
        self.volume = np.zeros(self._last - self._first + 1, np.int64)

    @property
    def start(self) -> float:
        """When the first slot began."""
        return self._first * SLOT

    @property
    def total(self) -> Ints:
        """The profile (size,) of everything that was added."""
        return np.asarray(self._cells.sum(axis=0))

    def slots(self, time: Floats) -> Ints:
        """The slot (n,) of each time."""
        return np.clip(np.floor(time / SLOT).astype(np.int64), self._first, self._last)

    def add(self, slot: int, profile: Ints) -> None:
        """Count the profile (size,) of predictions that fell to one slot."""
        hour, part = divmod(slot, SLOTS_AN_HOUR)
        cell, day = _cell_of_hour(hour, self._cells.shape[0]), hour // HOURS_A_DAY - self._first_day
        self.volume[slot - self._first] += profile[0]
        self._cells[cell] += profile
        if day >= 0:
            self._days[day] += profile
            self._mix[day, cell] += profile[0]
        self._slots.add(hour, part, profile)
        self._hours.add(hour, 0, profile)

    def history(self) -> History:
        """All that was counted."""
        cells = self._cells.shape[0]
        scales = tuple(sampled.blocks(cells, self._first_day) for sampled in (self._slots, self._hours))
        return History(self._cells, self._days, self._mix, scales)
