"""A second opinion on the onset: since when does river's ADWIN say that the rate is the present one?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

FEWEST_ASKED = 30
"""Answers that a rate must rest on before it is fed."""

DELTA = 0.002
"""Chance that ADWIN cuts at one step although the mean is constant; river's default."""


def second_opinion(start: Floats, asked: Ints, yes: Ints, delta: float = DELTA) -> float | None:
    """Where the rate of one indicator last jumped, a start out of `start`, or None where ADWIN never cut.

    `start` (k,) in order, `asked` (k,) and `yes` (k,) are a series of counts. Neighbours are pooled until they hold
    `FEWEST_ASKED` answers; the rates are spread over [0, 1], in which ADWIN takes its values to lie: its bound, meant for
    the full range, would be blind to rates of one percent. (ADWIN: Bifet, Gavalda, SDM 2007.)

    ADWIN says that there was a jump once it is sure; river's forgets all at that moment, so the jump is then placed by
    least squares, and a fresh ADWIN goes on from there.
    """
    begun, rates = _pooled(start, asked, yes)
    low, high = rates.min(initial=1.0), rates.max(initial=0.0)
    if high <= low:
        return None
    rates = (rates - low) / (high - low)
    jump = 0
    while (length := _until_sure(rates[jump:], delta)) is not None:
        jump += _split(rates[jump : jump + length])
    return float(begun[jump]) if jump else None


def _until_sure(rates: Floats, delta: float) -> int | None:
    """After how many of these rates (k,) ADWIN cuts, or None."""
    # It costs a second, and only who has something to place pays for it.
    from river.drift import ADWIN  # noqa: PLC0415

    make: Any = ADWIN  # river has no types
    adwin = make(delta=delta, clock=1)
    for count, rate in enumerate(rates.tolist(), 1):
        adwin.update(rate)
        if adwin.drift_detected:
            return count
    return None


def _split(rates: Floats) -> int:
    """The split of rates (k,) into two stretches that explains most of their squares: where the second begins."""
    first = np.arange(1, rates.size)
    upto = np.cumsum(rates)
    gap = upto[:-1] / first - (upto[-1] - upto[:-1]) / (rates.size - first)
    return int(first[np.argmax(first * (rates.size - first) * gap**2)])


def _pooled(start: Floats, asked: Ints, yes: Ints) -> tuple[Floats, Floats]:
    """Starts and rates of neighbours pooled; what is left over at the end belongs to the last."""
    begun, sums = [], []
    n = positive = 0
    for at, more, more_yes in zip(start.tolist(), asked.tolist(), yes.tolist(), strict=True):
        if not n:
            begun.append(at)
        n, positive = n + more, positive + more_yes
        if n >= FEWEST_ASKED:
            sums.append((n, positive))
            n = positive = 0
    if n and sums:
        sums[-1] = (sums[-1][0] + n, sums[-1][1] + positive)
    pooled = np.array(sums, np.float64).reshape(-1, 2)
    return np.array(begun[: len(sums)]), pooled[:, 1] / pooled[:, 0]
