"""Slow poisoning: how far a baseline fed from healthy traffic would have crept, and was a change slow or sudden?

A baseline that adapts to what it sees learns the poison. So the rolling baseline is fed from quarantine only, is moved by
little a day and in all, and is used for nothing but to be compared with the reference: its displacement is what an
attacker, or an honest drift, would have gained. Whether the present effect came slowly is read off the last days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.profile.odds import logit

if TYPE_CHECKING:
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.types import Bools, Floats, Ints

DAY = 86400.0

DAYS = 40
"""Days that are remembered: a month's creep and what was before it."""

QUARANTINE = 7
"""Whole days without an alert that must follow on a day before it enters the rolling baseline."""

MEDIAN_OF = 7
"""Accepted days whose median the rolling baseline follows: a week, so that no weekday is missing."""

MOST_A_DAY = 0.02
"""Log-odds by which the rolling baseline moves at most from one day to the next."""

MOST_IN_ALL = 0.1
"""Log-odds by which the rolling baseline is displaced at most from the reference."""

PRIOR = 30.0
"""Answers expected of the reference that a day is mixed with: the daily rate of a rare answer is noise, not a move."""

SUDDEN = 2
"""Calendar days within which a sudden change is over."""

SLOW = 5
"""Days that a slow change takes at least."""

MISTAKE = 1e-3
"""Chance that noise makes a sudden change look slow."""


class Creep:
    """The rolling baseline of one model, over all of its versions, and the days it is made from.

    Of `baseline` the rates, the design effect and the day-level noise are used. `displacement` (j,) is in log-odds, signed.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._baseline = baseline
        rate = baseline.rate
        self._odds = logit(rate)
        self._prior = PRIOR / (rate * (1 - rate))
        self._day = np.full(DAYS, -1, np.int64)
        self._counts = np.zeros((DAYS, baseline.questions.size), np.int64)
        self._healthy = np.zeros(DAYS, np.bool_)
        self._today = -1
        self.displacement = np.zeros(rate.size)

    def note(self, window_start: float, profile: Ints, *, healthy: bool) -> None:
        """Take the profile (size,) of a closed window into account; windows come in order.

        `healthy` says that no alert on outputs, flips or errors is firing. One that is discards the days in quarantine: it
        tells of what may have begun with any of them.
        """
        today = int(window_start // DAY)
        slot = today % DAYS
        if today != self._today:
            self._today = today
            self._day[slot] = today
            self._counts[slot] = 0
            self._healthy[slot] = True
            self._move()
        self._counts[slot] += profile
        if not healthy:
            self._healthy[self._day >= today - QUARANTINE] = False

    def _move(self) -> None:
        """Follow the median of the accepted days, as far as a day allows."""
        accepted = np.flatnonzero(self._healthy & (self._day >= 0) & (self._day < self._today - QUARANTINE))
        if not accepted.size:
            return
        days = self._counts[accepted[np.argsort(self._day[accepted])[-MEDIAN_OF:]]]
        asked, yes = days[:, self._baseline.questions.asked], days[:, self._baseline.questions.yes]
        daily = logit((yes + self._prior * self._baseline.rate) / (asked + self._prior)) - self._odds
        goal = np.clip(np.median(daily, axis=0), -MOST_IN_ALL, MOST_IN_ALL)
        self.displacement += np.clip(goal - self.displacement, -MOST_A_DAY, MOST_A_DAY)

    def is_slow(self, indicator: int, effect: float) -> bool:
        """Did the present effect, in log-odds and signed, of an indicator come slowly? Where that is unclear, it did not.

        The daily rates of the remembered days are fitted with two kinds of shapes, by least squares in arcsines of their
        roots, whose variance is known (Anscombe 1948): a constant level before and after a change that is over within
        `SUDDEN` calendar days, whatever happens on these; and a level that rises evenly over `SLOW` days or more. The change
        is slow when the best of the second kind fits so much better that, were it sudden, noise alone would do that with a
        chance of at most `MISTAKE`, and when it makes up at least half of the effect.

        If a sudden shape is true, then any slow one fits better by at most a chi-square of one degree: the slow shape adds
        one direction to those of the true one. The threshold is the union bound over all slow shapes.
        """
        order = np.argsort(self._day)
        order = order[(self._day[order] >= 0)]
        asked = self._counts[order, self._baseline.questions.asked[indicator]]
        yes = self._counts[order, self._baseline.questions.yes[indicator]]
        order, asked, yes = (values[asked > 0] for values in (order, asked, yes))
        days = self._day[order].astype(np.float64)
        slow = _ramps(days)
        if not slow.size or days.size <= SUDDEN:
            return False
        from scipy.special import chdtri  # noqa: PLC0415 - only who has something to judge pays for SciPy

        angle = np.arcsin(np.sqrt((yes + 0.375) / (asked + 0.75)))
        share = yes.sum() / asked.sum()
        noise = self._baseline.day_noise[indicator] ** 2 * share * (1 - share) / 4
        weight = 1 / (self._baseline.design_effect[indicator] / (4 * asked + 2) + noise)
        sudden = _fit(*_steps(days.size), angle, weight)
        gradual = _fit(slow, np.ones(slow.shape, np.bool_), angle, weight)
        best = int(np.argmin(gradual.misfit))
        if sudden.misfit.min() - gradual.misfit[best] <= chdtri(1, MISTAKE / slow.shape[0]):
            return False
        before, after = logit(np.sin([gradual.before[best], gradual.after[best]]) ** 2)
        return bool((after - before) * np.sign(effect) >= abs(effect) / 2)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "day": self._day.copy(),
            "counts": self._counts.copy(),
            "healthy": self._healthy.copy(),
            "today": self._today,
            "displacement": self.displacement.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._day = state["day"].copy()
        self._counts = state["counts"].copy()
        self._healthy = state["healthy"].copy()
        self._today = state["today"]
        self.displacement = state["displacement"].copy()


@dataclass(frozen=True, slots=True)
class _Fit:
    """Least squares of shapes: weighted squares that are left (s,), and the levels before and after the change (s,)."""

    misfit: Floats
    before: Floats
    after: Floats


def _ramps(days: Floats) -> Floats:
    """Shapes (s, k) that are 0 up to one day, 1 from a day at least `SLOW` later, and straight in between."""
    first, last = np.nonzero(days[None, :] - days[:, None] >= SLOW)
    begin, end = days[first, None], days[last, None]
    return np.asarray(np.clip((days - begin) / (end - begin), 0.0, 1.0))


def _steps(days: int) -> tuple[Floats, Bools]:
    """Shapes (s, k) that are 0 before and 1 after a change, and on which days (s, k) it does not happen."""
    begin = np.arange(days - SUDDEN + 1)[:, None]
    number = np.arange(days)[None, :]
    return (number >= begin + SUDDEN).astype(np.float64), (number < begin) | (number >= begin + SUDDEN)


def _fit(shapes: Floats, counted: Bools, values: Floats, weight: Floats) -> _Fit:
    """Fit `values` (k,) by a level and a multiple of each shape (s, k), over the days that are counted."""
    w = weight * counted
    total = w.sum(axis=1)
    x_mean, y_mean = (w * shapes).sum(axis=1) / total, (w * values).sum(axis=1) / total
    x, y = shapes - x_mean[:, None], values - y_mean[:, None]
    xx, xy, yy = (w * x * x).sum(axis=1), (w * x * y).sum(axis=1), (w * y * y).sum(axis=1)
    # A change on the very first or last days leaves one level only.
    slope = np.where(xx > 0, xy / np.where(xx > 0, xx, 1.0), 0.0)
    level = y_mean - slope * x_mean
    return _Fit(misfit=yy - slope * xy, before=level, after=level + slope)
