"""A version against its baseline: bets that are fair under the null, false alarms within the budget, shifts found."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory, log_evidence, log_sum
from poisonwatch.detect.shift import Shift
from poisonwatch.judge.budget import SHARES
from poisonwatch.profile.baseline import describe
from poisonwatch.profile.indicators import QUALITY, ask, ask_lines
from poisonwatch.profile.odds import expit, logit
from poisonwatch.profile.season import Season
from poisonwatch.types import Column, Schema
from tests.streams import sharp, small_batch, small_questions

if TYPE_CHECKING:
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Evidence, Floats, Ints

QUESTIONS = small_questions()
INDICATOR = next(n for n, indicator in enumerate(QUESTIONS.indicators) if indicator.text == "prediction = spam")
GROUPS = tuple(dict.fromkeys(signal.group for signal in QUESTIONS.signals))
FAIR = Schema(
    model=None,
    outcome=Column(name="prediction", kind="categorical", values=("a", "b", "c")),
    features=(),
    layout="none",
    confidence=True,
)
SHARE = 1e-100
"""A share of time so small that one step from nothing shows the likelihood ratio itself."""


def profile_of(asked: int, yes: int, indicator: int = INDICATOR) -> Ints:
    """A profile in which one indicator was asked and answered so often."""
    profile = np.zeros(QUESTIONS.size, np.int64)
    profile[QUESTIONS.asked[indicator]] = asked
    profile[QUESTIONS.yes[indicator]] = yes
    return profile


def log_ratios(shift: Shift, asked: int) -> Floats:
    """Logarithms of the likelihood ratios (asked + 1, c) of an indicator's components, by the number of yes."""
    mine = shift.bets.indicator == INDICATOR
    ratios = []
    for yes in range(asked + 1):
        memory = shift.begin()
        shift.step(memory, profile_of(asked, yes), SHARE, 0.0)
        ratios.append((memory.log_m - np.log(shift.bets.weight * SHARE))[mine])
    return np.array(ratios)


def by_formula(shift: Shift, asked: int, yes: int, component: int) -> float:
    """The tempered log-likelihood ratio of one component, from the formulas and nothing else."""
    base, of = shift.baseline, int(shift.bets.indicator[component])
    sign, theta = float(shift.bets.sign[component]), float(shift.bets.theta[component])
    edge = float(base.high[of] if sign > 0 else base.low[of]) + sign * float(shift.floor[of])
    null, bet = (1 / (1 + math.exp(-z)) for z in (edge, edge + sign * theta))
    gain = yes * math.log(bet / null) + (asked - yes) * math.log((1 - bet) / (1 - null))
    return gain / float(base.design_effect[of])


@given(
    seed=st.integers(0, 2**32 - 1),
    floor=st.floats(0, 0.5),
    blocks=st.lists(st.tuples(st.integers(0, 60), st.floats(1e-5, 1e-3)), min_size=1, max_size=4),
)
def test_steps_are_those_of_the_formulas(seed: int, floor: float, blocks: list[tuple[int, float]]) -> None:
    """On a learned baseline, M of every component is what slow and obvious arithmetic gives."""
    rng = np.random.default_rng(seed)
    learned = small_batch(range(400), rng)
    days = np.stack([QUESTIONS.count(learned.numbers[:, i::40], learned.codes[:, i::40]) for i in range(40)])
    shift = Shift(describe(QUESTIONS, days.sum(axis=0), days, days), np.full(len(QUESTIONS.indicators), floor), SHARES)
    memory = shift.begin()
    plain = [0.0] * shift.bets.indicator.size
    for size, share in blocks:
        piece = small_batch(range(size), rng)
        profile = QUESTIONS.count(piece.numbers, piece.codes)
        shift.step(memory, profile, share, 0.0)
        for c, of in enumerate(shift.bets.indicator.tolist()):
            asked, yes = int(profile[QUESTIONS.asked[of]]), int(profile[QUESTIONS.yes[of]])
            ratio = math.exp(by_formula(shift, asked, yes, c))
            plain[c] = min((plain[c] + float(shift.bets.weight[c]) * share) * ratio, math.exp(6.9))
    assert np.exp(memory.log_m) == pytest.approx(plain, rel=1e-6, abs=1e-300)


@given(
    asked=st.integers(0, 60),
    rate=st.floats(0.001, 0.999),
    floor=st.floats(0, 1),
    inside=st.floats(-1, 1),
    effect=st.sampled_from([1.0, 1.5, 12.0]),
)
def test_bets_are_fair_under_the_whole_null(
    asked: int, rate: float, floor: float, inside: float, effect: float
) -> None:
    """For every rate within the floor, exactly: the likelihood ratios have mean at most 1, tempered ones too."""
    rates = np.full(len(QUESTIONS.indicators), rate)
    shift = Shift(sharp(QUESTIONS, rates, effect), np.full(rates.size, floor), SHARES)
    true = expit(logit(rates[:1]) + inside * floor)[0]
    mean = binom.pmf(np.arange(asked + 1), asked, true) @ np.exp(log_ratios(shift, asked))
    assert (mean <= 1 + 1e-9).all()


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5, 0.9])
def test_bets_waste_nothing_at_the_edge_of_the_null(rate: float) -> None:
    """At the boundary itself a bet's mean is exactly 1, so a fairer bet would be unfair; beyond it the bet gains."""
    floor, rates = 0.3, np.full(len(QUESTIONS.indicators), rate)
    shift = Shift(sharp(QUESTIONS, rates), np.full(rates.size, floor), SHARES)
    ratios = np.exp(log_ratios(shift, 40))
    signs = shift.bets.sign[shift.bets.indicator == INDICATOR]
    for sign in (1.0, -1.0):
        for beyond, expected in ((0.0, 1.0), (0.4, None)):
            true = expit(logit(rates[:1]) + sign * (floor + beyond))[0]
            mean = (binom.pmf(np.arange(41), 40, true) @ ratios)[signs == sign]
            assert (mean > 1 if expected is None else np.isclose(mean, expected, rtol=1e-9)).all()


def test_the_mean_of_all_evidence_is_the_elapsed_share_of_the_budget() -> None:
    """Exactly, over all outcomes of two blocks at the edge of the null: E[sum of M] = weight x elapsed time / period."""
    rates = np.full(len(QUESTIONS.indicators), 0.3)
    shift = Shift(sharp(QUESTIONS, rates), np.zeros(rates.size), SHARES)
    mine = shift.bets.indicator == INDICATOR
    chance = binom.pmf(np.arange(13), 12, 0.3)
    mean = 0.0
    for first in range(13):
        for second in range(13):
            memory = shift.begin()
            shift.step(memory, profile_of(12, first), 2e-9, 0.0)
            shift.step(memory, profile_of(12, second), 5e-9, 0.0)
            mean += chance[first] * chance[second] * np.exp(memory.log_m[mine]).sum()
    assert mean == pytest.approx(shift.bets.weight[mine].sum() * 7e-9, rel=1e-9)


def test_records_in_copies_do_not_count_as_independent() -> None:
    """With the design effect of its clusters, a clustered block weighs what its clusters weigh (Hoelder's bound)."""
    rates = np.full(len(QUESTIONS.indicators), 0.3)
    plain = Shift(sharp(QUESTIONS, rates), np.full(rates.size, 0.1), SHARES)
    tempered = Shift(sharp(QUESTIONS, rates, 5.0), np.full(rates.size, 0.1), SHARES)
    assert log_ratios(tempered, 50)[::5] == pytest.approx(log_ratios(plain, 10))


# Seasons

MIDNIGHT = 1_767_571_200.0
"""2026-01-05, a Monday."""


def seasonal(questions: Questions, by_hour: Floats) -> Baseline:
    """A baseline that knows every indicator's rate of .2, which moves by so many log-odds (24,) over the hours."""
    rates = np.full(len(questions.indicators), 0.2)
    log_odds = np.repeat((logit(rates[:1]) + by_hour)[:, None], rates.size, axis=1)
    return dataclasses.replace(
        sharp(questions, rates), season=Season(rate=expit(log_odds), low=log_odds, high=log_odds)
    )


def two_weeks(baseline: Baseline, by_hour: Floats, moved: float = 0.0) -> tuple[float, Evidence]:
    """Two weeks of ten-minute windows of lost lines at a rate .2 that moves by the hour and by `moved`.

    Gives the largest evidence and the last.
    """
    rng = np.random.default_rng(61)
    shift = Shift(baseline, np.full(1, 0.1), {QUALITY: 1.0})
    memory, most = shift.begin(), -np.inf
    for window in range(14 * 144):
        rate = float(expit(logit(np.array([0.2])) + by_hour[window // 6 % 24] + moved)[0])
        profile = np.array([300, rng.binomial(300, rate)])
        shift.step(memory, profile, 1 / 30 / 144, MIDNIGHT + 600.0 * window)
        most = max(most, float(log_evidence(memory, shift.bets)[0]))
    (evidence,) = collect("mail", None, memory, shift.bets, ("lost",), baseline.rate, shift.floor)
    return most, evidence


def test_a_daily_cycle_fires_without_hours_and_not_with_them() -> None:
    """A rate that follows the hours is far off the whole day's, every day; against its own hours it is never."""
    by_hour = 0.8 * np.sin(2 * np.pi * np.arange(24) / 24)
    assert two_weeks(sharp(ask_lines(), np.full(1, 0.2)), by_hour)[0] > 0
    assert two_weeks(seasonal(ask_lines(), by_hour), by_hour)[0] < math.log(0.5)


def test_a_shift_under_a_cycle_is_told_beside_what_its_hours_expect() -> None:
    """What moved is held against the expectation of the hours since its onset, not against the whole day's."""
    by_hour = 1.5 * np.sin(2 * np.pi * np.arange(24) / 24)
    most, evidence = two_weeks(seasonal(ask_lines(), by_hour), by_hour, moved=0.5)
    assert most > 0
    assert evidence.onset == MIDNIGHT
    (subject,) = evidence.subjects
    hours = logit(np.array([0.2])) + by_hour
    assert subject.expected == pytest.approx(expit(hours).mean(), rel=1e-3)
    assert abs(subject.expected - 0.2) > 0.03
    # Four standard errors of 600,000 lines.
    assert subject.rate == pytest.approx(expit(hours + 0.5).mean(), abs=4 * math.sqrt(0.25 / 600_000))


@given(seed=st.integers(0, 2**32 - 1))
def test_each_window_is_held_against_its_own_hour(seed: int) -> None:
    """Steps over seasons are those of as many detectors without seasons, each with the bounds of its hour."""
    rng = np.random.default_rng(seed)
    baseline = seasonal(QUESTIONS, rng.normal(0, 0.5, 24))
    season = baseline.season
    assert season is not None
    floor = np.full(len(QUESTIONS.indicators), 0.1)
    shares = dict.fromkeys(GROUPS, 1.0)
    shift = Shift(baseline, floor, shares, thetas=(0.5, 1.5))
    memory = shift.begin()
    plain = Memory.fresh(shift.bets, floor.size)
    for hour in rng.integers(0, 48, 6).tolist():
        profile = profile_of(50, int(rng.integers(0, 51)))
        shift.step(memory, profile, 1e-4, MIDNIGHT + 3600.0 * hour + 17)
        cell = hour % 24
        of_hour = dataclasses.replace(
            baseline, rate=season.rate[cell], low=season.low[cell], high=season.high[cell], season=None
        )
        Shift(of_hour, floor, shares, thetas=(0.5, 1.5)).step(plain, profile, 1e-4, MIDNIGHT + 3600.0 * hour + 17)
    assert memory.log_m == pytest.approx(plain.log_m, abs=1e-9)
    assert memory.since.tolist() == plain.since.tolist()
    assert memory.yes[0].tolist() == plain.yes[0].tolist()


# Calibration

STREAMS, BLOCKS, SIZE, HORIZON = 400, 60, 50, 0.2
"""Independent null streams of so many blocks of so many predictions, over a fifth of the budget period in all.

E[sum of M at the first alarm or the end] <= elapsed / period, hence P(alarm within the horizon) <= HORIZON for each
stream, whatever the dependence between its indicators: at most binomial(STREAMS, HORIZON) alarms. A correct kernel
exceeds `MOST` with a chance below 1e-6.
"""
MOST = int(binom.ppf(1 - 1e-6, STREAMS, HORIZON))

FAIR_QUESTIONS = ask(FAIR, {"confidence": (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)})


def fair_classes(tilt: float) -> Floats:
    """Classes .5, .3, .2 with the log-odds of the last moved by `tilt` at the cost of both others."""
    odds = 0.25 * math.exp(tilt)
    return np.append(np.array([0.625, 0.375]) / (1 + odds), odds / (1 + odds))


def fair_profiles(rng: np.random.Generator, tilt: float) -> Ints:
    """Profiles (BLOCKS, size) of uniform confidences to the power e^-(tilt / 3) and tilted classes."""
    profiles = []
    for _ in range(BLOCKS):
        sure = rng.random((1, SIZE)) ** math.exp(-tilt / 3)
        codes = rng.choice([1, 2, 3], (1, SIZE), p=fair_classes(tilt)).astype(np.int32)
        profiles.append(FAIR_QUESTIONS.count(sure, codes))
    return np.array(profiles)


def fair_rates(tilt: float) -> Floats:
    """What `fair_profiles` make each indicator's rate."""
    rates = dict(zip(("prediction = a", "prediction = b", "prediction = c"), fair_classes(tilt), strict=True))
    rates |= {f"confidence <= {cut:g}": cut ** math.exp(tilt / 3) for cut in (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)}
    return np.array([rates.get(indicator.text, 1e-6) for indicator in FAIR_QUESTIONS.indicators])


def alarms(seed: int, floor: float, tilt: float) -> int:
    """In how many streams the evidence of all groups together ever reached a page."""
    shift = Shift(sharp(FAIR_QUESTIONS, fair_rates(0.0)), np.full(len(FAIR_QUESTIONS.indicators), floor), ALL_OF_IT)
    together = np.zeros(shift.bets.indicator.size, np.int64)
    found = 0
    for stream in range(STREAMS):
        memory = shift.begin()
        for profile in fair_profiles(np.random.default_rng((seed, stream)), tilt):
            shift.step(memory, profile, HORIZON / BLOCKS, 0.0)
            if log_sum(memory.log_m, together, 1)[0] >= 0:
                found += 1
                break
    return found


FAIR_GROUPS = {signal.group for signal in FAIR_QUESTIONS.signals}
ALL_OF_IT = dict.fromkeys(FAIR_GROUPS, 1 / len(FAIR_GROUPS))


@pytest.mark.slow
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_false_alarms_keep_within_the_budget(floor: float) -> None:
    """Streams at the edge of the null alarm no more often than the budget allows; `STREAMS` states the bound."""
    assert (np.abs(logit(fair_rates(floor)) - logit(fair_rates(0.0))) <= floor + 1e-9).all()
    assert alarms(31, floor, floor) <= MOST


@pytest.mark.slow
def test_the_calibration_would_notice() -> None:
    """The same streams moved beyond the floor break the bound: the test above can fail."""
    assert alarms(31, 0.0, 0.3) > MOST


# Delay


def blocks_until_page(rng: np.random.Generator, floor: float, shift_by: float, share: float) -> int:
    """Blocks of 50 until the class `a` (rate .2) that moved by `shift_by` log-odds allows a page."""
    rates = np.full(len(QUESTIONS.indicators), 0.2)
    shift = Shift(sharp(QUESTIONS, rates), np.full(rates.size, floor), SHARES)
    memory, mine = shift.begin(), shift.bets.indicator == INDICATOR
    moved = float(expit(logit(np.array([0.2])) + shift_by)[0])
    for block in range(1, 2000):
        shift.step(memory, profile_of(50, int(rng.binomial(50, moved))), share, 0.0)
        if np.exp(memory.log_m[mine]).sum() >= 1:
            return block
    return 2000


@pytest.mark.parametrize(("floor", "theta"), [(0.0, 0.4), (0.1, 0.4), (0.1, 1.0)])
def test_a_shift_is_found_about_as_fast_as_information_allows(floor: float, theta: float) -> None:
    """The median delay is within a factor 1.3 (plus a block) of log(period / share of a block) / KL, and no sooner than half.

    KL is that of the moved rate from the edge of the null, per block: no test with this budget is faster on average but
    for the run-up of its earlier starts. The bet on the very shift is among the components.
    """
    share = 1e-5
    delays = [blocks_until_page(np.random.default_rng((37, seed)), floor, floor + theta, share) for seed in range(41)]
    edge, moved = expit(logit(np.array([0.2])) + np.array([floor, floor + theta])).tolist()
    divergence = moved * math.log(moved / edge) + (1 - moved) * math.log((1 - moved) / (1 - edge))
    weight = SHARES["outputs"] / 2 / 16  # two signals in the group; bets on two classes, two sides, four sizes
    ideal = -math.log(weight * share) / (50 * divergence)
    assert ideal / 2 <= np.median(delays) <= 1.3 * ideal + 1


def test_what_stays_within_the_floor_is_never_found() -> None:
    """A rate that moved by less than the floor leaves the evidence where no time has gone by."""
    rng = np.random.default_rng(38)
    rates = np.full(len(QUESTIONS.indicators), 0.2)
    shift = Shift(sharp(QUESTIONS, rates), np.full(rates.size, 0.3), SHARES)
    memory, mine = shift.begin(), shift.bets.indicator == INDICATOR
    moved = float(expit(logit(np.array([0.2])) + 0.2)[0])
    for _ in range(2000):
        shift.step(memory, profile_of(50, int(rng.binomial(50, moved))), 1e-5, 0.0)
    assert np.exp(memory.log_m[mine]).sum() < 2000e-5


def test_a_restored_memory_steps_alike() -> None:
    """Memory made again from its saved state gives the same evidence bit for bit."""
    rng = np.random.default_rng(39)
    rates = np.full(len(QUESTIONS.indicators), 0.2)
    shift = Shift(sharp(QUESTIONS, rates), np.full(rates.size, 0.1), SHARES)
    memory = shift.begin()
    for step in range(20):
        profile = profile_of(50, int(rng.binomial(50, 0.35)))
        twin = Memory(**{name: array.copy() for name, array in memory.state().items()})
        for one in (memory, twin):
            shift.step(one, profile, 1e-5, 60.0 * step)
        for name, array in memory.state().items():
            assert array.tobytes() == twin.state()[name].tobytes()
        memory = twin
