"""What a reference says of an indicator: cut points, bounds, design effect and day-level noise."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import beta, binom, chi2

from poisonwatch.profile.baseline import (
    CELL_Z,
    DEFAULT_DAY_NOISE,
    FEWEST_BLOCKS,
    FEWEST_DAYS,
    FLIPS_Z,
    LABELS_PRIOR,
    LABELS_Z,
    QUANTILES,
    REFERENCE_ERROR_Z,
    SATURATION,
    Baseline,
    cut_points,
    describe,
    describe_errors,
    describe_history,
)
from poisonwatch.profile.indicators import (
    FLIPPED,
    FLIPPED_AND_WRONG,
    FLIPS,
    SLICE_FLIPS,
    WRONG,
    WRONG_OF_FLIPPED,
    ask,
    ask_errors,
    ask_lines,
)
from poisonwatch.profile.odds import expit, log_odds_gap, logit
from poisonwatch.profile.season import DAY, SLOT, Tally, cell_of
from tests.streams import SMALL, small_batch, small_questions

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

ONE = ask_lines()
"""One indicator: its vector is (asked, yes)."""

FAR = 1e-6
"""Chance with which a statistical bound of this module fails although the code is right."""


def described(asked: Ints, yes: Ints, days: Ints | None = None) -> Baseline:
    """The baseline of one indicator from its counts in blocks, which are the days too unless `days` is given."""
    blocks = np.stack([asked, yes], axis=1)
    total = blocks.sum(axis=0)
    return describe(ONE, total, blocks, total[None] if days is None else days)


# Cut points


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=200))
def test_cuts_stand_at_the_quantiles_and_are_never_answered_alike(values: list[float]) -> None:
    """Cuts ascend, lie inside the sample, and at each there are values on both sides."""
    sample = np.array(values)
    cuts = np.array(cut_points(sample))
    assert (np.diff(cuts) > 0).all()
    assert cuts.size <= len(QUANTILES)
    if sample.min() < sample.max():
        share = (sample[:, None] <= cuts).mean(axis=0)
        assert ((share > 0) & (share < 1)).all()
        wanted = np.quantile(sample, QUANTILES)
        assert set(cuts) <= {*wanted, np.nextafter(sample.max(), -np.inf)}
        assert set(wanted) - {sample.max()} <= set(cuts)


@given(
    st.lists(st.sampled_from([0.5, 0.9, 0.98, 0.99, 0.999, 1.0]), min_size=1, max_size=50),
)
def test_saturation_is_always_asked_for(values: list[float]) -> None:
    """Every sample of confidences gives the cuts at .99 and .999, whether or not it reaches them."""
    cuts = cut_points(np.array(values), confidence=True)
    assert set(SATURATION) <= set(cuts)
    assert list(cuts) == sorted(set(cuts))


def test_the_mass_at_the_largest_value_has_a_cut_of_its_own() -> None:
    """Where a third of the confidences are exactly 1, one cut separates them from all others."""
    sample = np.concatenate((np.linspace(0.5, 0.98, 200), np.ones(100)))
    cuts = np.array(cut_points(sample, confidence=True))
    assert cuts.max() == np.nextafter(1.0, 0.0)
    assert (sample <= cuts.max()).sum() == 200
    heavy = np.array([0.0] * 20 + [7.0] * 980)
    assert cut_points(heavy) == (0.0, float(np.nextafter(7.0, 0.0)))


def test_a_constant_can_move_below_or_above() -> None:
    """The two cuts of a constant tell lower, equal and higher values apart."""
    low, high = cut_points(np.full(50, 3.0))
    assert [(value <= low, value <= high) for value in (2.9, 3.0, 3.1)] == [(True, True), (False, True), (False, False)]


def test_what_is_not_finite_makes_no_cut() -> None:
    """Missing and infinite values are left out; without any other there are no cuts."""
    assert cut_points(np.full(10, np.nan)) == ()
    assert cut_points(np.empty(0)) == ()
    noisy = np.array([np.nan, 1.0, 2.0, np.inf, 3.0, -np.inf])
    assert cut_points(noisy) == cut_points(np.array([1.0, 2.0, 3.0]))


# Bounds


@pytest.mark.parametrize("n", [20, 150])
@pytest.mark.parametrize("p", [0.001, 0.02, 0.3, 0.5, 0.97])
def test_bounds_hold_the_truth_as_often_as_they_say(n: int, p: float) -> None:
    """Exactly, over all outcomes of n records: each bound misses the true rate with at most the tail of z."""
    k = np.arange(n + 1)
    found = [described(np.array([n]), np.array([yes])) for yes in k]
    low, high = (np.array([getattr(b, side)[0] for b in found]) for side in ("low", "high"))
    chance, truth = binom.pmf(k, n, p), math.log(p / (1 - p))
    tail = float(ndtr(-REFERENCE_ERROR_Z))
    assert chance[low > truth].sum() <= tail
    assert chance[high < truth].sum() <= tail
    # Nor are they idle: they narrow as the reference grows, and contain the estimate.
    assert (low <= logit(k / n) + 1e-9).all()
    assert (high >= logit(k / n) - 1e-9).all()


def test_bounds_come_as_near_as_the_standard_error() -> None:
    """With a large reference each bound stands z standard errors from the estimate (normal limit, within 5 %)."""
    n, p = 40_000, 0.2
    baseline = described(np.array([n]), np.array([int(n * p)]))
    error = 1 / math.sqrt(n * p * (1 - p))
    for bound, sign in ((baseline.low, -1), (baseline.high, 1)):
        assert sign * (bound[0] - math.log(p / (1 - p))) == pytest.approx(REFERENCE_ERROR_Z * error, rel=0.05)


def test_a_design_effect_widens_the_bounds() -> None:
    """Records that come in copies count once: bounds are those of the reference without the copies."""
    rng = np.random.default_rng(11)
    yes = rng.binomial(50, 0.3, 400)
    plain = described(np.full(400, 50), yes)
    copied = described(np.full(400, 500), yes * 10)
    # Up to the half record that smooths the rate.
    assert plain.design_effect[0] * 10 == pytest.approx(copied.design_effect[0], rel=1e-4)
    assert copied.low[0] == pytest.approx(plain.low[0], rel=1e-4)
    assert copied.high[0] == pytest.approx(plain.high[0], rel=1e-4)


# Design effect


def upper_bound_between(blocks: int, effect: float) -> tuple[float, float]:
    """Where the upper 95 % bound on a true design effect must lie, but for `FAR`: effect X / q(.05), X chi-square."""
    free = blocks - 1
    low, high = (effect * float(chi2.ppf(q, free)) / float(chi2.ppf(0.05, free)) for q in (FAR, 1 - FAR))
    return max(1.0, low), high


@pytest.mark.parametrize("p", [0.02, 0.4])
def test_independent_records_have_a_design_effect_of_one(p: float) -> None:
    """Over blocks of unequal size the bound is as near to 1 as chi-square allows, and never below."""
    rng = np.random.default_rng(12)
    asked = rng.integers(200, 900, 300)
    found = described(asked, rng.binomial(asked, p)).design_effect[0]
    low, high = upper_bound_between(300, 1.0)
    assert low <= found <= high
    assert high < 1.7


@pytest.mark.parametrize("copies", [3, 12])
def test_clusters_show_their_size(copies: int) -> None:
    """Records that come in identical clusters of m have a design effect of m."""
    rng = np.random.default_rng(13)
    clusters = np.full(400, 60)
    found = described(clusters * copies, rng.binomial(clusters, 0.3) * copies).design_effect[0]
    low, high = upper_bound_between(400, copies)
    assert low <= found <= high


def test_the_design_effect_is_an_upper_bound() -> None:
    """Over 400 references of 50 blocks, it falls short of the truth in 5 % of them, up to a binomial's extreme quantile."""
    rng = np.random.default_rng(22)
    clusters = np.full(50, 60)
    found = [described(clusters * 3, rng.binomial(clusters, 0.3) * 3).design_effect[0] for _ in range(400)]
    assert (np.array(found) < 3).sum() <= binom.ppf(1 - FAR, 400, 0.05)


def test_autocorrelated_records_show_their_memory() -> None:
    """A two-state chain with lag-one correlation r has a design effect of (1 + r) / (1 - r) over long blocks."""
    rng = np.random.default_rng(14)
    r, p, length, blocks = 0.8, 0.3, 1000, 400
    state = rng.random(blocks) < p
    yes = np.zeros(blocks, np.int64)
    for _ in range(length):
        stay = rng.random(blocks) < r
        state = np.where(stay, state, rng.random(blocks) < p)
        yes += state
    # Blocks are finite, so their exact factor is a little smaller: 1 + 2 sum over lags of (1 - lag / n) r^lag.
    lags = np.arange(1, length)
    effect = 1 + 2 * float(((1 - lags / length) * r**lags).sum())
    assert effect == pytest.approx((1 + r) / (1 - r), rel=0.01)
    low, high = upper_bound_between(blocks, effect)
    assert low <= described(np.full(blocks, length), yes).design_effect[0] <= high


def test_few_blocks_measure_nothing() -> None:
    """Below the fewest blocks, or where few blocks asked the question, the design effect is 1."""
    wild = np.where(np.arange(FEWEST_BLOCKS) % 2, 1, 99)
    asked = np.full(FEWEST_BLOCKS, 100)
    assert described(asked[1:], wild[1:]).design_effect[0] == 1.0
    assert described(asked, wild).design_effect[0] > 10
    asked_of_few = np.where(np.arange(FEWEST_BLOCKS), 100, 0)
    assert described(asked_of_few, np.minimum(wild, asked_of_few)).design_effect[0] == 1.0


# Day-level noise


def noise_of(days: Floats, seed: int, n: int = 50_000) -> float:
    """Day-level noise measured on days with these log-odds, `n` records each."""
    rng = np.random.default_rng(seed)
    yes = rng.binomial(n, expit(days))
    by_day = np.stack([np.full(days.size, n), yes], axis=1)
    return float(describe(ONE, by_day.sum(axis=0), by_day.sum(axis=0)[None], by_day).day_noise[0])


@pytest.mark.parametrize("days", [FEWEST_DAYS, 60])
def test_day_noise_is_measured_where_there_are_days(days: int) -> None:
    """The measured noise is sqrt(1 + 1/D) tau sqrt(X / (D - 1)) with X chi-square: within its extreme quantiles."""
    tau, n = 0.2, 50_000
    found = noise_of(np.random.default_rng(15).normal(-1.0, tau, days), 16, n)
    sampling = 1 / (n * 0.27 * 0.73)
    low, high = (
        math.sqrt(max((tau**2 + sampling) * chi2.ppf(q, days - 1) / (days - 1) - 2 * sampling, 0.0) * (1 + 1 / days))
        for q in (FAR, 1 - FAR)
    )
    assert low <= found <= high
    assert found != DEFAULT_DAY_NOISE


def test_equal_days_have_no_noise_beyond_sampling() -> None:
    """Days with one rate have an excess of at most what chi-square leaves to sampling."""
    days, n = 2000, 50_000
    sampling = 1 / (n * 0.27 * 0.73)
    most = math.sqrt(sampling * (chi2.ppf(1 - FAR, days - 1) / (days - 1) - 0.99) * (1 + 1 / days))
    assert noise_of(np.full(days, -1.0), 17, n) <= most < math.sqrt(sampling) / 2


def test_a_short_reference_gets_the_stated_noise() -> None:
    """With fewer days than it takes, or too few answers a day, the default stands."""
    wild = np.random.default_rng(18).normal(-1.0, 1.0, FEWEST_DAYS)
    assert noise_of(wild[1:], 19) == DEFAULT_DAY_NOISE
    assert noise_of(np.full(FEWEST_DAYS, -1.0), 19, n=12) == DEFAULT_DAY_NOISE
    assert noise_of(wild, 19) > 0.2


def test_an_indicator_is_as_noisy_as_its_signal() -> None:
    """Less day-level noise than the median over its signal is raised to it: the lower half share one value."""
    questions = small_questions()
    rng = np.random.default_rng(20)
    days = np.stack(
        [questions.count(batch.numbers, batch.codes) for batch in (small_batch(range(900), rng) for _ in range(8))]
    )
    baseline = describe(questions, days.sum(axis=0), days.sum(axis=0)[None], days)
    raised = 0
    for number in range(len(questions.signals)):
        noise = np.sort(baseline.day_noise[questions.signal_of == number])
        half = noise[: (noise.size + 1) // 2]
        assert (half == noise[0]).all()
        raised += bool(half.size > 1 and noise[0] > 0)
    assert raised, "the sample shows nothing"


# Seasons

MIDNIGHT = 1_767_571_200.0
"""2026-01-05, a Monday."""

CYCLE = 1.2 * np.sin(2 * np.pi * np.arange(24) / 24)
"""Log-odds of the hours of a day, beside the mean."""


def tally_of(rng: np.random.Generator, levels: Floats, n: int, cycle: Floats = CYCLE, copies: int = 1) -> Tally:
    """One indicator over whole days with these levels (d,) beside the hours' cycle, `n` records in every slot, in copies."""
    tally = Tally(2, MIDNIGHT, MIDNIGHT + levels.size * DAY - 1)
    rates = expit(logit(np.array([0.3])) + levels[:, None] + cycle)
    yes = rng.binomial(n, np.repeat(rates.ravel(), 6))
    for slot, count in enumerate(yes.tolist(), start=int(MIDNIGHT // SLOT)):
        tally.add(slot, np.array([n * copies, count * copies]))
    return tally


@pytest.mark.parametrize("n", [2, 30, 600])
def test_cells_hold_the_truth_as_often_as_bounds_say(n: int) -> None:
    """Over hours of 20 references with a strong cycle, bounds miss the truth no more often than z says, prior included.

    Misses are at most binomial with the two tails of z, but for `FAR`; hours of few records are shrunk to the mean and must
    be held all the same.
    """
    rng = np.random.default_rng(31)
    missed = 0
    for _ in range(20):
        season = describe_history(ONE, tally_of(rng, np.zeros(7), n).history()).season
        assert season is not None
        truth = logit(np.array([0.3])) + CYCLE
        missed += int(((season.low[:, 0] > truth) | (truth > season.high[:, 0])).sum())
    assert missed <= binom.ppf(1 - FAR, 20 * 24, 2 * ndtr(-CELL_Z))


def test_cells_are_the_sharper_the_more_they_resemble_each_other() -> None:
    """Without a cycle an hour's bounds are nearer than its own records alone allow; with one they lean on them."""
    rng = np.random.default_rng(32)
    n = 7 * 6 * 4
    flat, steep = (
        describe_history(ONE, tally_of(rng, np.zeros(7), 4, cycle).history()).season for cycle in (0 * CYCLE, CYCLE)
    )
    assert flat is not None
    assert steep is not None
    alone = 2 * CELL_Z / np.sqrt(n * 0.21)
    assert np.median(flat.high - flat.low) < 0.75 * alone
    middle = np.abs(CYCLE) < 0.5
    assert np.median((steep.high - steep.low)[middle]) == pytest.approx(alone, rel=0.25)


def test_hours_that_are_alike_are_as_sharp_as_the_whole_day() -> None:
    """With many records and no cycle the hours have the bounds of the day, in all but some of 5 % of references; else never.

    Up to a binomial's extreme quantile. A cycle of a tenth is seen and keeps its hours.
    """
    rng = np.random.default_rng(40)
    apart = 0
    for _ in range(40):
        found = describe_history(ONE, tally_of(rng, np.zeros(7), 200, 0 * CYCLE).history())
        assert found.season is not None
        hours, day = ([bounds.low, bounds.high] for bounds in (found.season, found))
        apart += not np.allclose(hours, np.array(day)[:, None], atol=1e-3)
    assert apart <= binom.ppf(1 - FAR, 40, 0.05)
    found = describe_history(ONE, tally_of(rng, np.zeros(7), 200, CYCLE / 12).history())
    assert found.season is not None
    assert np.ptp(found.season.high) > 0.1


def test_a_cycle_is_no_noise() -> None:
    """With the hours' rates removed a cycle enters neither the design effect nor the noise of the days."""
    found = describe_history(ONE, tally_of(np.random.default_rng(33), np.zeros(14), 200).history())
    assert found.season is not None
    assert found.season.rate.shape == (48, 1)
    assert found.design_effect[0] < upper_bound_between(300, 1.0)[1]
    assert found.day_noise[0] < 0.02
    # The same counts without cells show it as what it is then: noise of the blocks.
    tally = tally_of(np.random.default_rng(33), np.zeros(14), 200)
    blocks, days = tally.history().scales[1].counts, tally.history().days
    assert describe(ONE, tally.total, blocks, days).design_effect[0] > 50


def test_fitted_hours_and_days_do_not_hide_clusters() -> None:
    """Over 60 references of a week, the hours' blocks show less than clusters of three in 5 % of them, as bounds say.

    Up to a binomial's extreme quantile; 24 hours and 7 days were fitted to 168 blocks, which vary the less for it.
    """
    rng = np.random.default_rng(39)
    found = []
    for _ in range(60):
        history = tally_of(rng, rng.normal(0, 0.2, 7), 60, copies=3).history()
        of_hours = dataclasses.replace(history, scales=history.scales[1:])
        found.append(describe_history(ONE, of_hours).design_effect[0])
    assert (np.array(found) < 3).sum() <= binom.ppf(1 - FAR, 60, 0.05)
    assert np.median(found) < 4


@pytest.mark.parametrize("days", [7, 28])
def test_days_that_differ_are_counted_once(days: int) -> None:
    """Levels of days make the noise of days, within what chi-square leaves of so few, and no design effect."""
    rng = np.random.default_rng(34)
    tau = 0.15
    found = describe_history(ONE, tally_of(rng, rng.normal(0, tau, days), 500).history())
    low, high = (tau * np.sqrt(chi2.ppf(q, days - 1) / (days - 1) * (1 + 1 / days)) for q in (FAR, 1 - FAR))
    assert 0.95 * low <= found.day_noise[0] <= 1.05 * high
    assert found.design_effect[0] < upper_bound_between(130, 1.0)[1]


def test_too_few_days_leave_their_noise_to_the_design_effect() -> None:
    """Four days have hours but do not show their noise: it is assumed, and what the blocks show of it is tempered."""
    rng = np.random.default_rng(35)
    found = describe_history(ONE, tally_of(rng, np.array([-0.4, 0.4, -0.4, 0.4]), 500).history())
    assert found.season is not None
    assert found.day_noise[0] == DEFAULT_DAY_NOISE
    assert found.design_effect[0] > 10


def test_counts_corrected_after_counting_correct_every_cell() -> None:
    """Yes that the whole has and no slot had are spread over the cells: none expects less than the whole says."""
    tally = tally_of(np.random.default_rng(36), np.full(7, -40.0), 500)
    assert tally.total[1] == 0
    counts = tally.total + np.array([0, 600])
    found = describe_history(ONE, tally.history(), counts)
    assert found.season is not None
    share = 600 / tally.total[0]
    assert found.season.rate == pytest.approx(share, rel=0.02)
    assert (found.season.high >= logit(np.array([share]))).all()


def test_short_references_have_one_cell() -> None:
    """Two days have no hours: every time is in the one cell, whose bounds are the whole's."""
    found = describe_history(ONE, tally_of(np.random.default_rng(37), np.zeros(2), 50).history())
    assert found.season is None
    assert found.cell_of(MIDNIGHT + 12345) == 0
    assert found.bounds_in(0) == (found.low, found.high)
    assert found.rate_in(0) is found.rate


def test_what_windows_expect_adds_up() -> None:
    """Over windows of many hours, the sum of asked x the hour's rate is what a healthy profile shows, to four errors."""
    rng = np.random.default_rng(38)
    found = describe_history(ONE, tally_of(rng, np.zeros(14), 600).history())
    asked = rng.integers(0, 400, 48)
    times = MIDNIGHT + 20 * DAY + 3600.0 * np.arange(48)
    yes = sum(
        int(rng.binomial(n, expit(logit(np.array([0.3])) + CYCLE[cell_of(t, 24)])[0]))
        for n, t in zip(asked.tolist(), times.tolist(), strict=True)
    )
    expected = sum(n * found.rate_in(found.cell_of(t))[0] for n, t in zip(asked.tolist(), times.tolist(), strict=True))
    gap = log_odds_gap(np.array([asked.sum()]), np.array([yes]), np.array([expected]))[0]
    assert abs(gap) < 4 / np.sqrt(asked.sum() * 0.2)


# Error rates


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("n", [0, 8, 100, 3000])
def test_slices_lean_on_the_overall_error_rate(n: int, *, flips: bool) -> None:
    """A slice's rate is that of its labels and of eight more at the overall rate of its mark; bounds hold both, at z = 2."""
    questions = ask_errors(SMALL, flips=flips)
    of = {indicator.text: number for number, indicator in enumerate(questions.indicators)}
    counts = np.zeros(questions.size, np.int64)
    counts[0] = 5000
    for mark, part in ((WRONG, 4), *(((FLIPPED_AND_WRONG, 8),) if flips else ())):
        overall, one = of[mark], of[f"{mark} where features.country = de"]
        counts[questions.yes[overall]] = 2000 // part
        counts[questions.asked[one]], counts[questions.yes[one]] = n, n // part
    found = describe_errors(questions, counts)
    for mark, part in ((WRONG, 4), *(((FLIPPED_AND_WRONG, 8),) if flips else ())):
        overall, one = of[mark], of[f"{mark} where features.country = de"]
        whole = (2000 / part + 0.5) / 5001
        rate = (n // part + LABELS_PRIOR * whole) / (n + LABELS_PRIOR)
        assert found.rate[overall] == pytest.approx(whole, abs=0.001)
        assert found.rate[one] == pytest.approx(
            (n // part + LABELS_PRIOR * whole + 0.5) / (n + LABELS_PRIOR + 1), abs=1e-3
        )
        # Each bound leaves the tail of z to the beta quantiles of the labels with the prior ones.
        tail, yes, no = ndtr(-LABELS_Z), (n + LABELS_PRIOR) * rate, (n + LABELS_PRIOR) * (1 - rate)
        assert expit(found.low[one : one + 1])[0] == pytest.approx(beta.ppf(tail, yes, no + 1), rel=0.01)
        assert expit(found.high[one : one + 1])[0] == pytest.approx(beta.ppf(1 - tail, yes + 1, no), rel=0.01)
        error = LABELS_Z / np.sqrt(5000 * whole * (1 - whole))
        assert found.high[overall] - found.low[overall] == pytest.approx(2 * error, rel=0.02)
    assert (found.design_effect == 1).all()
    assert (found.day_noise == 0).all()


@pytest.mark.parametrize("z", [0.5, 3.0])
def test_bounds_of_error_rates_stand_at_the_z_asked_for(z: float) -> None:
    """Of many labels each bound stands z standard errors from the rate (normal limit, within 2 %)."""
    questions = ask_errors(SMALL, flips=False)
    (overall,) = np.flatnonzero(questions.asked == 0)
    counts = np.zeros(questions.size, np.int64)
    counts[0], counts[questions.yes[overall]] = 40_000, 8_000
    found = describe_errors(questions, counts, z)
    error = z / np.sqrt(40_000 * 0.2 * 0.8)
    assert found.high[overall] - found.low[overall] == pytest.approx(2 * error, rel=0.02)


def test_those_flipped_are_asked_by_themselves() -> None:
    """How many of the flipped were wrong leans on no other rate: without one flipped label nothing is known of it."""
    questions = ask_errors(SMALL, flips=True)
    (own,) = (number for number, one in enumerate(questions.indicators) if one.text == WRONG_OF_FLIPPED)
    counts = np.zeros(questions.size, np.int64)
    counts[0], counts[questions.yes[own]], counts[questions.asked[own]] = 5000, 0, 0
    found = describe_errors(questions, counts)
    assert expit(found.low[own : own + 1])[0] < 1e-6
    assert expit(found.high[own : own + 1])[0] > 1 - 1e-6
    counts[questions.yes[own]], counts[questions.asked[own]] = 30, 100
    assert describe_errors(questions, counts).rate[own] == pytest.approx(30.5 / 101)


# The whole


def test_flips_allow_for_less_of_the_references_error() -> None:
    """Bounds of flips stand at their own z, all others' at the usual one: beta quantiles of the same counts."""
    questions = ask(SMALL, {"confidence": (), "features.amount": ()}, (), (FLIPPED,))
    counts = np.zeros(questions.size, np.int64)
    marked = np.array([indicator.signal.group in {FLIPS, SLICE_FLIPS} for indicator in questions.indicators])
    counts[questions.asked] = 4000
    counts[questions.yes[~marked]] = 400
    counts[questions.yes[marked]] = 40
    found = describe(questions, counts, counts[None], counts[None])
    for number, indicator in enumerate(questions.indicators):
        yes, asked = counts[indicator.yes], counts[indicator.asked]
        tail = ndtr(-FLIPS_Z if marked[number] else -REFERENCE_ERROR_Z)
        high = beta.ppf(1 - tail, yes + 1, asked - yes)
        assert found.high[number] == pytest.approx(logit(np.array([high]))[0], rel=1e-6), indicator.text
    assert {indicator.signal.group for indicator in questions.indicators} >= {FLIPS, SLICE_FLIPS}


def test_a_reference_without_times_is_taken_as_exchangeable() -> None:
    """One block and one day: design effect 1, the stated noise, and rates from the counts."""
    questions = small_questions()
    batch = small_batch(range(400), np.random.default_rng(21))
    counts = questions.count(batch.numbers, batch.codes)
    baseline = describe(questions, counts, counts[None], counts[None])
    assert (baseline.design_effect == 1).all()
    assert (baseline.day_noise == DEFAULT_DAY_NOISE).all()
    assert baseline.n == 400
    assert baseline.rate == pytest.approx((counts[questions.yes] + 0.5) / (counts[questions.asked] + 1))
    assert (baseline.low <= baseline.high).all()


@given(st.floats(1e-8, 1 - 1e-8))
def test_log_odds_and_rates_are_inverse(rate: float) -> None:
    """`expit` undoes `logit`, and both stay finite at 0 and 1."""
    assert expit(logit(np.array([rate])))[0] == pytest.approx(rate, rel=1e-6)
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
