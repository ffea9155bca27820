"""Traffic volume as indicators: was this slot of time one of the emptiest, or of the busiest, for its hour? Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.profile.baseline import FEWEST_DAYS, Baseline, describe_history
from poisonwatch.profile.indicators import VOLUME, Indicator, Questions, Signal
from poisonwatch.profile.season import DAY, SLOT, Blocks, History, cell_of, cells_over

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

LOW, HIGH = (0.05, 0.01), (0.95, 0.99)
"""Quantiles of the reference's counts of an hour: below the low and above the high ones is asked of every slot."""

FAR = 2.0
"""A slot is far off with less than the least of its hour divided by this, or more than the most times this.

Quiet days make slots below a quantile come in clusters, so that those questions wait for days. What the reference never
came near to is found within some two hours.
"""

WIDTHS = (1, 2, 3, 6)
"""Slots of the reference that make one slot of volume: no more than an hour, which has limits of its own."""

ENOUGH = 20.0
"""Predictions that a slot should hold in the mean: counts of fewer have too few values to have quantiles."""

FOLDS = 20
"""Into how many parts the days are divided, each of which is held against the limits of all others."""

SCALES = (3600.0, 21600.0, DAY)
"""Lengths of the blocks, in seconds, over which the design effect is measured: traffic has a long memory."""

LONGEST_GAP = 144
"""Empty slots that a gap can show; what is silent for longer says no more."""


@dataclass(frozen=True, slots=True)
class UsualVolume:
    """The reference's volume. `limits` (cells, 6) are counts of a slot of `slot` seconds: three low ones, three high ones."""

    slot: float
    limits: Floats
    baseline: Baseline

    def answers(self, cell: int, count: int) -> Ints:
        """The profile (7,) of one slot: itself, and whether it was below or above each of the six limits."""
        return np.asarray(_answers(self.limits[cell], np.array([count]))[0])


def ask_volume() -> Questions:
    """The six questions asked of every slot. Vector: slots, below the three low limits, above the three high ones."""
    signal = Signal("volume", VOLUME)
    few = [f"fewer than in all but {q:.0%} of such hours" for q in LOW]
    many = [f"more than in all but {1 - q:.0%} of such hours" for q in HIGH]
    texts = (
        *few,
        f"fewer than 1/{FAR:g} of the least in such hours",
        *many,
        f"more than {FAR:g} x the most in such hours",
    )
    indicators = tuple(
        Indicator(f"predictions {text}", signal, 0, place, down=False) for place, text in enumerate(texts, start=1)
    )
    return Questions(
        indicators=indicators,
        signals=(signal,),
        numbers=(),
        cuts=np.empty((0, 0)),
        code_columns=(),
        offsets=np.empty((0, 1), np.int64),
        codes=len(indicators),
        asked=np.zeros(len(indicators), np.int64),
        yes=np.arange(1, len(indicators) + 1),
        signal_of=np.zeros(len(indicators), np.int64),
        sides=np.array([(True, False)] * len(indicators), np.bool_),
    )


def _limits(counts: Ints) -> Floats:
    """Limits (6,) from the counts (s,) of one cell's slots."""
    return np.array(
        [*np.quantile(counts, LOW), counts.min() / FAR, *np.quantile(counts, HIGH), counts.max() * FAR], np.float64
    )


def _answers(limits: Floats, counts: Ints) -> Ints:
    """Profiles (s, 7) of slots with these counts (s,) of one cell."""
    low, high = limits[:3], limits[3:]
    asked = np.ones((counts.size, 1), np.int64)
    return np.concatenate((asked, counts[:, None] < low, counts[:, None] > high), axis=1)


def describe_volume(counts: Ints, start: float) -> UsualVolume | None:
    """The volume of a reference from its predictions in every slot (s,) since `start`: `profile.season.Tally.volume`.

    None where it covers fewer whole days than hours of the day need. How often a limit is passed is counted on days that
    it was not taken from: a limit is passed least where it was made.
    """
    # The first and the last slot are not whole.
    counts, start = counts[1:-1], start + SLOT
    cells = cells_over(start, start + (counts.size - 1) * SLOT)
    if cells == 1:
        return None
    mean = max(float(counts.mean()), 1e-9)
    width = next((width for width in WIDTHS if width * mean >= ENOUGH), WIDTHS[-1])
    skip = -round(start / SLOT) % width
    whole = (counts.size - skip) // width
    pooled = counts[skip : skip + whole * width].reshape(whole, width).sum(axis=1)
    slot = width * SLOT
    time = start + skip * SLOT + slot * np.arange(whole, dtype=np.float64)
    cell = np.array([cell_of(float(at), cells) for at in time])
    fold = (time // DAY).astype(np.int64) % FOLDS
    limits = []
    passed = np.zeros((whole, ask_volume().size), np.int64)
    for number in range(cells):
        mine = np.flatnonzero(cell == number)
        limits.append(_limits(pooled[mine]))
        for part in np.unique(fold[mine]):
            judged = mine[fold[mine] == part]
            passed[judged] = _answers(_limits(pooled[mine[fold[mine] != part]]), pooled[judged])
    scales = tuple(_blocks(passed, time, length) for length in SCALES)
    # The design effect over days holds what differs between them: there is no day-level noise beside it.
    total = passed.sum(axis=0)[None]
    history = History(total, total, total[:, :1], scales)
    return UsualVolume(slot, np.array(limits), describe_history(ask_volume(), history, fewest_blocks=FEWEST_DAYS))


def _blocks(passed: Ints, time: Floats, length: float) -> Blocks:
    """Slots (s, 7) summed over blocks of so many seconds."""
    starts = np.flatnonzero(np.diff(time // length, prepend=-1.0))
    none = np.zeros(starts.size, np.int64)
    return Blocks(np.add.reduceat(passed, starts), none, none - 1)


class Volume:
    """Pools the windows of all versions into slots and asks of each whether it was unusual for its hour.

    Windows must fit into slots (`fits`). The slot in which the first window falls is not whole and is left out. A slot
    without any window was empty.
    """

    def __init__(self, usual: UsualVolume) -> None:
        self._usual = usual
        self._slot: int | None = None
        self._whole = False
        self._count = 0

    @staticmethod
    def fits(usual: UsualVolume, window: float) -> bool:
        """Does a whole number of windows, `window` seconds wide, make a slot?"""
        return usual.slot % window == 0

    def note(self, start: float, count: int) -> list[tuple[float, Ints]]:
        """Take the predictions of a window that began at `start`, no earlier than the one before.

        Gives start and profile (7,) of every slot that this closes, oldest first: a step each for the detector.
        """
        slot = math.floor(start / self._usual.slot)
        closed: list[tuple[float, Ints]] = []
        if self._slot is None:
            self._slot = slot
        elif slot > self._slot:
            if self._whole:
                closed.append(self._judge(self._slot, self._count))
            first_empty = max(self._slot + 1, slot - LONGEST_GAP)
            closed += [self._judge(empty, 0) for empty in range(first_empty, slot)]
            self._slot, self._whole, self._count = slot, True, 0
        self._count += count
        return closed

    def _judge(self, slot: int, count: int) -> tuple[float, Ints]:
        start = slot * self._usual.slot
        return start, self._usual.answers(cell_of(start, self._usual.limits.shape[0]), count)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"slot": self._slot, "whole": self._whole, "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._slot, self._whole, self._count = state["slot"], state["whole"], state["count"]
