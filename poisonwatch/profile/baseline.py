"""The baseline: what a window is compared with, how well it is known, and how noisy it is by nature. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.profile.indicators import FLIPS, SLICE_FLIPS, overall_of
from poisonwatch.profile.odds import expit, log_odds_gap, logit
from poisonwatch.profile.season import Blocks, History, Season

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

FEW_DAYS = 14
"""With fewer days an indicator's own noise is known so badly that its group's median is a floor, not only its signal's."""

FEWEST_A_DAY = 10
"""How often an indicator must be answered both ways on a day for that day to count in the day-level noise."""

FEWEST_BLOCKS = 20
"""Blocks of time that a reference must have before its design effect is measured."""

CELL_Z = 2.0
"""The same for a cell: cells err independently, so that over a day most of their error cancels."""

FLIPS_Z = 2.0
"""The same for flips, whose effect floor leaves room for more than the reference's error."""

PRIOR = 500.0
"""Predictions that the whole day's rate weighs in every cell, at most."""

NEGLIGIBLE = 0.05
"""Standard error of a cell's log-odds up to which a season that cannot be told from it is smaller than any floor."""

LABELS_Z = 2.0
"""How many standard errors of the reference the null of error rates allows for: labels are few."""

LABELS_PRIOR = 8.0
"""Labels that the overall error rate weighs in every class and slice."""

CHUNK = 512
"""Indicators that are worked on together, which bounds the memory."""

TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is expected of every indicator; all arrays (j,).

    `counts` (size,) is the profile itself; `low` and `high` are log-odds between which the finite baseline leaves the true
    rate; `design_effect` >= 1 is how much more block sums vary than independent records would; `day_noise` is the
    standard deviation of the daily log-odds beyond sampling. Where the reference covers enough days `season` has rate and
    bounds of every hour, and those of the whole day stand for their mean.
    """

    questions: Questions
    counts: Ints
    rate: Floats
    low: Floats
    high: Floats
    design_effect: Floats
    day_noise: Floats
    season: Season | None = None

    @property
    def n(self) -> int:
        """How many predictions the baseline rests on."""
        return int(self.counts[0])

    def cell_of(self, time: float) -> int:
        """Which cell a time falls to; 0 where there are no seasons."""
        return 0 if self.season is None else self.season.cell_of(time)

    def rate_in(self, cell: int) -> Floats:
        """Rates (j,) expected in a cell.

        The sum of `asked * rate_in(cell)` over windows is the expected number of yes of the profiles' sum; what was seen
        is held against it by `profile.odds.log_odds_gap`.
        """
        return self.rate if self.season is None else np.asarray(self.season.rate[cell])

    def bounds_in(self, cell: int) -> tuple[Floats, Floats]:
        """Low and high (j,) in a cell."""
        if self.season is None:
            return self.low, self.high
        return np.asarray(self.season.low[cell]), np.asarray(self.season.high[cell])


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
    """A baseline from its counts (size,), and from the same counts by block (b, size) and by day (d, size), no seasons.

    Without times there is one block and one day: records are then taken as exchangeable, the design effect is 1 and the
    day-level noise the stated default.
    """
    none = np.zeros(blocks.shape[0], np.int64)
    scale = Blocks(blocks, none, none - 1)
    return describe_history(questions, History(counts[None], days, days[:, :1], (scale,)), counts)


def describe_history(
    questions: Questions, history: History, counts: Ints | None = None, fewest_blocks: int = FEWEST_BLOCKS
) -> Baseline:
    """A baseline with seasons from a timed reference, as `profile.season.Tally` counted it.

    `counts` (size,) are the counts of the whole where they were corrected after counting; rates and bounds of all cells are
    corrected in proportion. Scales with fewer blocks than `fewest_blocks` are left out of the design effect.
    """
    raw = history.cells.sum(axis=0)
    counts = raw if counts is None else counts
    measured = [
        _measure(questions, history, fewest_blocks, slice(start, start + CHUNK))
        for start in range(0, len(questions.indicators), CHUNK)
    ]
    effect, noise = (np.concatenate(arrays) for arrays in zip(*measured, strict=True))
    asked, yes = counts[questions.asked], counts[questions.yes]
    flips = np.array([signal.group in {FLIPS, SLICE_FLIPS} for signal in questions.signals], np.bool_)
    z = np.where(flips[questions.signal_of], FLIPS_Z, REFERENCE_ERROR_Z)
    low, high = _bounds(asked / effect, yes / effect, z)
    season = None
    if history.cells.shape[0] > 1:
        part = history.cells[:, :1] / max(int(raw[0]), 1)
        cells = np.maximum(history.cells + part * (counts - raw), 0.0)
        # A correction spread over the cells may leave a cell fewer that were asked than said yes.
        of_cells = cells[:, questions.asked]
        season = _season(of_cells / effect, np.minimum(cells[:, questions.yes], of_cells) / effect, z)
    return Baseline(
        questions=questions,
        counts=counts,
        rate=(yes + 0.5) / (asked + 1.0),
        low=low,
        high=high,
        design_effect=effect,
        day_noise=_floored(questions, noise, history.days.shape[0]),
        season=season,
    )


def describe_errors(questions: Questions, counts: Ints, z: float = LABELS_Z) -> Baseline:
    """A baseline of error rates from the labels of a reference: asked is labelled, yes is wrong.

    The rate of a class or a slice is shrunk to that over all labels as if `LABELS_PRIOR` more labels had shown it, so that a
    slice without labels has a wide null and not none. Bounds are at `z` standard errors. Labels are taken as exchangeable.
    """
    asked, yes = counts[questions.asked].astype(np.float64), counts[questions.yes].astype(np.float64)
    overall = overall_of(questions)
    prior = np.where(np.arange(asked.size) == overall, 0.0, LABELS_PRIOR)
    everywhere = (yes[overall] + 0.5) / (asked[overall] + 1.0)
    asked, yes = asked + prior, yes + prior * everywhere
    low, high = _bounds(asked, yes, z)
    return Baseline(
        questions=questions,
        counts=counts,
        rate=(yes + 0.5) / (asked + 1.0),
        low=low,
        high=high,
        design_effect=np.ones(asked.size),
        day_noise=np.zeros(asked.size),
    )


def _bounds(asked: Floats, yes: Floats, z: Floats | float) -> tuple[Floats, Floats]:
    """Log-odds of the Beta quantiles (Clopper, Pearson 1934) at `z` on either side."""
    from scipy.special import betaincinv, ndtr  # noqa: PLC0415 - only who learns a reference pays for SciPy

    tail = ndtr(-z)
    no = asked - yes
    low = np.where(yes > 0, betaincinv(np.where(yes > 0, yes, 1.0), no + 1, tail), 0.0)
    high = np.where(no > 0, betaincinv(yes + 1, np.where(no > 0, no, 1.0), 1 - tail), 1.0)
    return logit(low), logit(high)


def _season(asked: Floats, yes: Floats, z: Floats) -> Season:
    """Cells from effective counts (k, j), shrunk to the whole day's rate by as much as the cells resemble each other.

    `z` (j,) is what the whole day's bounds allow for; cells that are the whole day's err together and allow for the same.

    With rates of cells spread by s around p, a cell's prior is p (1 - p) / s^2 predictions (the beta distribution of that
    spread; Efron, Morris 1975), from an upper bound on s, so that a cell off the mean is not dragged out of its bounds.
    Where no season is seen (chi-square at 5 %) and one that stays unseen would not matter, all cells are the whole day's.
    """
    from scipy.special import chdtri  # noqa: PLC0415

    total = asked.sum(axis=0)
    mean = (yes.sum(axis=0) + 0.5) / (total + 1.0)
    free = np.maximum((asked > 0).sum(axis=0) - 1, 1)
    spread = ((yes - asked * mean) ** 2 / np.maximum(asked * mean * (1 - mean), TINY)).sum(axis=0)
    excess = spread * free / chdtri(free, 0.95) - free
    prior = np.clip(total / np.maximum(excess, TINY), 1.0, PRIOR)
    error = 1 / np.sqrt(np.maximum(total / (free + 1) * mean * (1 - mean), TINY))
    level = (spread <= chdtri(free, 0.05)) & (error <= NEGLIGIBLE)
    asked = np.where(level, total, asked + prior)
    yes = np.where(level, total * mean, yes + prior * mean)
    low, high = _bounds(asked, yes, np.where(level, z, CELL_Z))
    return Season(yes / asked, low, high)


def _measure(questions: Questions, history: History, fewest_blocks: int, some: slice) -> tuple[Floats, Floats]:
    """Design effect and daily noise of some indicators, cells' rates removed from both and the days' levels from the first.

    What differs from day to day is noise of the days: block sums that vary with it would count it twice. Where too few
    days are known to tell, the design effect carries it.
    """
    asked, yes = questions.asked[some], questions.yes[some]
    in_cells = history.cells[:, asked]
    whole = (history.cells[:, yes].sum(axis=0) + 0.5) / (in_cells.sum(axis=0) + 1.0)
    rate = (history.cells[:, yes] + whole) / (in_cells + 1.0) if history.cells.shape[0] > 1 else whole[None]
    gap, used, by_day = _daily(history, asked, yes, rate)
    number = used.sum(axis=0)
    known = number >= FEWEST_DAYS
    level = np.where(used & known, gap - gap.sum(axis=0) / np.maximum(number, 1), 0.0)
    effect = np.ones(whole.size)
    fitted = (in_cells > 0).sum(axis=0) + np.where(known, number - 1, 0)
    for scale in history.scales:
        part = scale.counts[:, asked].sum(axis=0) / np.maximum(in_cells.sum(axis=0), 1)
        found = _design_effect(scale, asked, yes, rate, level, fitted * part, fewest_blocks)
        effect = np.maximum(effect, found)
    return effect, _day_noise(gap, used, effect, by_day)


def _daily(history: History, asked: Ints, yes: Ints, rate: Floats) -> tuple[Floats, Ints, Floats]:
    """Log-odds of every day beyond what its hours let expect (d, j), where that is known, and its information (d, j).

    Only days on which an indicator and its complement were both seen often enough count.
    """
    of_day, yes_of_day = history.days[:, asked], history.days[:, yes]
    used = np.minimum(yes_of_day, of_day - yes_of_day) >= FEWEST_A_DAY
    # How many of a day's answers fell to a cell is not counted for each question; its predictions are.
    in_cells = history.cells[:, asked]
    weight = history.mix / np.maximum(history.cells[:, 0], 1)
    expected = weight @ (in_cells * rate) / np.maximum(weight @ in_cells, TINY)
    gap = log_odds_gap(of_day, yes_of_day, of_day * expected)
    share = (yes_of_day + 0.5) / (of_day + 1.0)
    return np.where(used, gap, 0.0), used, of_day * share * (1 - share)


def _design_effect(
    scale: Blocks, asked: Ints, yes: Ints, rate: Floats, level: Floats, fitted: Floats, fewest: int
) -> Floats:
    """Variance of block sums over that of independent records: the upper 95 % bound, and at least 1.

    Expected are the `rate` (k, j) of the block's cell, moved by the `level` (d, j) of its day; `fitted` (j,) numbers were
    fitted to these blocks.
    """
    from scipy.special import chdtri  # noqa: PLC0415

    if scale.counts.shape[0] < fewest:
        return np.ones(asked.size)
    n, k = scale.counts[:, asked], scale.counts[:, yes]
    used = n > 0
    expected = rate[scale.cell]
    if level.any():
        expected = expit(logit(expected) + np.where(scale.day[:, None] >= 0, level[scale.day], 0.0))
    spread = (k - n * expected) ** 2 / np.maximum(n * expected * (1 - expected), TINY)
    number = used.sum(axis=0)
    summed = np.where(used, spread, 0.0).sum(axis=0)
    bound = chdtri(np.maximum(number - fitted, 1), 0.95)
    return np.where(number >= fewest, np.maximum(1.0, summed / bound), 1.0)


def _day_noise(gap: Floats, used: Ints, effect: Floats, information: Floats) -> Floats:
    """Standard deviation of the daily log-odds beyond sampling."""
    number = used.sum(axis=0)
    mean = gap.sum(axis=0) / np.maximum(number, 1)
    variance = np.where(used, (gap - mean) ** 2, 0.0).sum(axis=0) / np.maximum(number - 1, 1)
    sampling = np.where(used, effect / np.maximum(information, TINY), 0.0).sum(axis=0) / np.maximum(number, 1)
    # A few days know their own noise badly, hence the factor of statistics over the number of days.
    measured = np.sqrt(np.maximum(variance - sampling, 0.0)) * np.sqrt(1.0 + 1.0 / np.maximum(number, 1))
    return np.where(number >= FEWEST_DAYS, measured, DEFAULT_DAY_NOISE)


def _floored(questions: Questions, noise: Floats, days: int) -> Floats:
    """Noise raised to the median over the signal's indicators, and over the group's while few days are known."""
    floored = noise.copy()
    group_of = np.array([signal.group for signal in questions.signals])[questions.signal_of]
    families = [questions.signal_of == signal for signal in range(len(questions.signals))]
    if FEWEST_DAYS <= days < FEW_DAYS:
        families += [group_of == group for group in np.unique(group_of)]
    for of in families:
        floored[of] = np.maximum(floored[of], np.median(noise[of]))
    return floored
