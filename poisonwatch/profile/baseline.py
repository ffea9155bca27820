"""The baseline: what a window is compared with, how well it is known, and how noisy it is by nature. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.profile.odds import logit

if TYPE_CHECKING:
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Floats, Ints

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Where the cut points of a numerical row stand in the reference."""

SATURATION = (0.99, 0.999)
"""Confidences that a backdoor's answers exceed and that get a cut of their own."""

REFERENCE_ERROR_Z = 3.0
"""How many standard errors of the reference the null allows for."""

DEFAULT_DAY_NOISE = 0.03
"""Day-to-day standard deviation in log-odds that is assumed where the reference cannot show its own."""

FEWEST_DAYS = 5
"""Days that a reference must cover before its day-to-day noise is measured instead of assumed."""


FEWEST_A_DAY = 10
"""How often an indicator must be answered both ways on a day for that day to count in the day-level noise."""

FEWEST_BLOCKS = 20
"""Blocks of time that a reference must have before its design effect is measured."""

TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is expected of every indicator; all arrays (j,).

    `counts` (size,) is the profile itself; `low` and `high` are log-odds between which the finite baseline leaves the true
    rate; `design_effect` >= 1 is how much more block sums vary than independent records would; `day_noise` is the
    standard deviation of the daily log-odds beyond sampling.
    """

    questions: Questions
    counts: Ints
    rate: Floats
    low: Floats
    high: Floats
    design_effect: Floats
    day_noise: Floats

    @property
    def n(self) -> int:
        """How many predictions the baseline rests on."""
        return int(self.counts[0])


def cut_points(values: Floats, *, confidence: bool = False) -> tuple[float, ...]:
    """Cut points of a numerical row from a sample of the reference; NaN are left out, ties dropped.

    A cut at the largest value would be answered yes always; where that value holds a mass of its own (confidence 1.0),
    the cut just below it asks for that mass.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return ()
    largest = known.max()
    if known.min() == largest and not confidence:
        # A constant has no quantiles; what can happen to it is to move below or above.
        return (float(np.nextafter(largest, -np.inf)), float(largest))
    wanted = np.quantile(known, QUANTILES)
    below = np.nextafter(largest, -np.inf)
    # Saturation is asked for even where the reference never saturates, or ends just there.
    cuts = np.unique((*np.where(wanted == largest, below, wanted), *(SATURATION if confidence else ())))
    return tuple(float(cut) for cut in cuts)


def describe(questions: Questions, counts: Ints, blocks: Ints, days: Ints) -> Baseline:
    """A baseline from its counts (size,), and from the same counts by block (b, size) and by day (d, size).

    Without times there is one block and one day: records are then taken as exchangeable, the design effect is 1 and the
    day-level noise the stated default.
    """
    asked, yes = counts[questions.asked], counts[questions.yes]
    rate = (yes + 0.5) / (asked + 1.0)
    effect = _design_effect(questions, blocks, rate)
    low, high = _bounds(asked / effect, yes / effect)
    return Baseline(
        questions=questions,
        counts=counts,
        rate=rate,
        low=low,
        high=high,
        design_effect=effect,
        day_noise=_day_noise(questions, days, effect),
    )


def _bounds(asked: Floats, yes: Floats) -> tuple[Floats, Floats]:
    """Log-odds of the Beta quantiles (Clopper, Pearson 1934) at `REFERENCE_ERROR_Z` on either side."""
    from scipy.special import betaincinv, ndtr  # noqa: PLC0415 - only who learns a reference pays for SciPy

    tail = ndtr(-REFERENCE_ERROR_Z)
    no = asked - yes
    low = np.where(yes > 0, betaincinv(np.where(yes > 0, yes, 1.0), no + 1, tail), 0.0)
    high = np.where(no > 0, betaincinv(yes + 1, np.where(no > 0, no, 1.0), 1 - tail), 1.0)
    return logit(low), logit(high)


def _design_effect(questions: Questions, blocks: Ints, rate: Floats) -> Floats:
    """Variance of block sums over that of independent records: the upper 95 % bound, and at least 1."""
    from scipy.special import chdtri  # noqa: PLC0415

    asked, yes = blocks[:, questions.asked], blocks[:, questions.yes]
    used = asked > 0
    spread = (yes - asked * rate) ** 2 / np.maximum(asked * rate * (1 - rate), TINY)
    number = used.sum(axis=0)
    if blocks.shape[0] < FEWEST_BLOCKS:
        return np.ones(rate.size)
    summed = np.where(used, spread, 0.0).sum(axis=0)
    bound = chdtri(np.maximum(number - 1, 1), 0.95)
    return np.where(number >= FEWEST_BLOCKS, np.maximum(1.0, summed / bound), 1.0)


def _day_noise(questions: Questions, days: Ints, effect: Floats) -> Floats:
    """Standard deviation of the daily log-odds beyond sampling, no less than the median over a signal's indicators.

    Only days on which an indicator and its complement were both seen often enough count.
    """
    asked, yes = days[:, questions.asked], days[:, questions.yes]
    used = np.minimum(yes, asked - yes) >= FEWEST_A_DAY
    number = used.sum(axis=0)
    share = (yes + 0.5) / (asked + 1.0)
    sampling = effect / np.maximum(asked * share * (1 - share), TINY)
    daily = np.where(used, logit(share), 0.0)
    mean = daily.sum(axis=0) / np.maximum(number, 1)
    variance = np.where(used, (daily - mean) ** 2, 0.0).sum(axis=0) / np.maximum(number - 1, 1)
    excess = variance - np.where(used, sampling, 0.0).sum(axis=0) / np.maximum(number, 1)
    # A few days know their own noise badly, hence the factor of statistics over the number of days.
    measured = np.sqrt(np.maximum(excess, 0.0)) * np.sqrt(1.0 + 1.0 / np.maximum(number, 1))
    noise = np.where(number >= FEWEST_DAYS, measured, DEFAULT_DAY_NOISE)
    for signal in range(len(questions.signals)):
        of = questions.signal_of == signal
        noise[of] = np.maximum(noise[of], np.median(noise[of]))
    return noise
