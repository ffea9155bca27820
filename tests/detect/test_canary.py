"""The canary against stable: exact under every odds ratio of the null, whatever the traffic does, and it sees harm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln, logsumexp
from scipy.stats import binom, nchypergeom_fisher

from poisonwatch.detect.canary import Canary
from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import log_sum
from poisonwatch.profile.indicators import CANARY_CLASS, CANARY_CONFIDENCE
from poisonwatch.profile.odds import expit, logit
from tests.streams import sharp, small_questions

if TYPE_CHECKING:
    from poisonwatch.types import Evidence, Floats, Ints

QUESTIONS = small_questions()
RATES = np.full(len(QUESTIONS.indicators), 0.3)
SPAM = next(n for n, indicator in enumerate(QUESTIONS.indicators) if indicator.text == "prediction = spam")
SHARES = {CANARY_CLASS: 0.9, CANARY_CONFIDENCE: 0.1}
SHARE = 1e-100
"""A share of time so small that one step from nothing shows the likelihood ratio itself."""


def canary_with(floor: float, design_effect: float = 1.0) -> Canary:
    """A canary's detector with this floor."""
    return Canary(sharp(QUESTIONS, RATES, design_effect), floor, SHARES, 30)


def profile_of(asked: int, yes: int) -> Ints:
    """A profile in which the class `spam` was asked and answered so often."""
    profile = np.zeros(QUESTIONS.size, np.int64)
    profile[0] = profile[QUESTIONS.asked[SPAM]] = asked
    profile[QUESTIONS.yes[SPAM]] = yes
    return profile


def log_ratios(detector: Canary, canary: int, stable: int, both: int, yes: int) -> Floats:
    """Log-likelihood ratios (c,) of the components on `spam` when `yes` of `both` fell to the canary."""
    memory = detector.begin()
    detector.step(memory, profile_of(canary, yes), profile_of(stable, both - yes), SHARE, 0.0)
    mine = detector.indicators[detector.bets.indicator] == SPAM
    return np.asarray((memory.log_m - np.log(detector.bets.weight * SHARE))[mine])


def of_spam(detector: Canary) -> tuple[Floats, Floats]:
    """Sign and step of those components."""
    mine = detector.indicators[detector.bets.indicator] == SPAM
    return detector.bets.sign[mine], detector.bets.theta[mine]


def exact(canary: int, stable: int, both: int, log_odds: float) -> tuple[list[int], Floats]:
    """The support of the canary's yes, and their probabilities, by enumeration in whole numbers."""
    support = list(range(max(0, both - stable), min(canary, both) + 1))
    ways = [math.comb(canary, x) * math.comb(stable, both - x) * math.exp(x * log_odds) for x in support]
    return support, np.array(ways) / math.fsum(ways)


small_tables = st.tuples(st.integers(0, 14), st.integers(0, 14)).flatmap(
    lambda arms: st.tuples(st.just(arms[0]), st.just(arms[1]), st.integers(0, arms[0] + arms[1]))
)


@given(table=small_tables, floor=st.floats(0, 1), inside=st.floats(-1, 1), effect=st.sampled_from([1.0, 1.7, 6.0]))
def test_bets_are_fair_under_every_odds_ratio_of_the_null(
    table: tuple[int, int, int], floor: float, inside: float, effect: float
) -> None:
    """Exactly, for tables with any margins: the mean is at most 1 inside the floor, tempered or not."""
    detector = canary_with(floor, effect)
    support, chance = exact(*table, inside * floor)
    mean = chance @ np.exp([log_ratios(detector, *table, x) for x in support])
    assert (mean <= 1 + 1e-9).all()


@given(table=small_tables, floor=st.floats(0, 1))
def test_bets_waste_nothing_at_the_edge_of_the_null(table: tuple[int, int, int], floor: float) -> None:
    """At the boundary itself the mean is exactly 1 on that side; beyond it the bets gain as soon as a table can vary."""
    detector = canary_with(floor)
    signs, _ = of_spam(detector)
    for sign in (1.0, -1.0):
        support, chance = exact(*table, sign * floor)
        ratios = np.exp([log_ratios(detector, *table, x) for x in support])
        assert (chance @ ratios)[signs == sign] == pytest.approx(1, abs=1e-9)
        support, chance = exact(*table, sign * (floor + 0.5))
        gain = (chance @ ratios)[signs == sign]
        assert (gain > 1 + 1e-6).all() if len(support) > 1 else gain == pytest.approx(1)


def log_pmf(canary: int, stable: int, both: int, yes: int, log_odds: float) -> float:
    """Fisher's noncentral hypergeometric distribution, all terms summed."""
    x = np.arange(max(0, both - stable), min(canary, both) + 1)
    terms = -gammaln(x + 1) - gammaln(canary - x + 1) - gammaln(both - x + 1) - gammaln(stable - both + x + 1)
    terms = terms + x * log_odds
    return float(terms[np.flatnonzero(x == yes)[0]] - logsumexp(terms))


@pytest.mark.parametrize(
    "table",
    [(3, 200, 40), (40, 4000, 15), (900, 2100, 450), (5000, 5000, 5000), (20_000, 60_000, 4), (30_000, 50_000, 12_345)],
)
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_ratios_are_those_of_the_distribution(table: tuple[int, int, int], floor: float) -> None:
    """Up to tens of thousands of predictions a block, against direct sums over the whole support."""
    canary, stable, both = table
    detector = canary_with(floor)
    signs, thetas = of_spam(detector)
    low, high = max(0, both - stable), min(canary, both)
    typical = round(canary * both / (canary + stable))
    for yes in {low, high, min(max(typical + 3, low), high), (low + typical) // 2}:
        found = log_ratios(detector, canary, stable, both, yes)
        for ratio, sign, theta in zip(found, signs, thetas, strict=True):
            alternative, null = (log_pmf(*table, yes, float(sign * odds)) for odds in (floor + theta, floor))
            # Beyond this a component would reach its ceiling or floor.
            if abs(alternative - null) < 200:
                assert ratio == pytest.approx(alternative - null, rel=1e-7, abs=1e-7)


def test_ratios_agree_with_scipy() -> None:
    """Against SciPy's Fisher's noncentral hypergeometric distribution, where it is accurate."""
    detector = canary_with(0.3)
    signs, thetas = of_spam(detector)
    for canary, stable, both, yes in ((30, 50, 20, 9), (200, 600, 100, 40), (700, 700, 30, 11)):
        found = log_ratios(detector, canary, stable, both, yes)
        for ratio, sign, theta in zip(found, signs, thetas, strict=True):
            odds = [math.exp(sign * (0.3 + extra)) for extra in (theta, 0.0)]
            pmf = [nchypergeom_fisher.logpmf(yes, canary + stable, canary, both, o) for o in odds]
            assert ratio == pytest.approx(pmf[0] - pmf[1], rel=1e-6, abs=1e-6)


def test_an_empty_table_says_nothing() -> None:
    """Where nobody, everybody or only one version answered yes or was asked, every ratio is 1."""
    detector = canary_with(0.3)
    for table in ((0, 0, 0), (40, 60, 0), (40, 60, 100), (0, 60, 20), (40, 0, 20)):
        support, _ = exact(*table, 0.0)
        assert len(support) == 1
        assert log_ratios(detector, *table, support[0]) == pytest.approx(0, abs=1e-9)


# Calibration

STREAMS, BLOCKS, HORIZON = 200, 40, 0.2
"""Null streams of so many blocks, over a fifth of the period in all: P(alarm) <= HORIZON for each stream, since
E[sum of M at the first alarm or the end] <= elapsed / period. Alarms are at most binomial(STREAMS, HORIZON): a correct
detector exceeds `MOST` with a chance below 1e-6.
"""
MOST = int(binom.ppf(1 - 1e-6, STREAMS, HORIZON))


def alarms(seed: int, floor: float, log_odds: float) -> int:
    """In how many streams the evidence of both groups together ever reached a page.

    Traffic drifts and bursts, the routing share wanders, classes and confidence depend on each other; the canary's answers differ
    from stable's by `log_odds` only.
    """
    detector = canary_with(floor)
    together = np.zeros(detector.bets.indicator.size, np.int64)
    found = 0
    for stream in range(STREAMS):
        rng = np.random.default_rng((seed, stream))
        level = np.cumsum(rng.normal(0, 0.4, BLOCKS)) - 1
        routed = expit(np.cumsum(rng.normal(0, 0.5, BLOCKS)) - 1)
        volume = rng.poisson(120 * np.exp(rng.normal(0, 0.8, BLOCKS))) + 2
        memory = detector.begin()
        for block in range(BLOCKS):
            to_canary = rng.random(int(volume[block])) < routed[block]
            base = expit(np.array([level[block], level[block] + log_odds]))
            spam = rng.random(to_canary.size) < base[to_canary.astype(int)]
            sure = np.where(spam, 0.4, 0.6) + rng.uniform(-0.5, 0.5, to_canary.size)
            numbers = np.stack([sure, np.zeros(sure.size)])
            codes = np.stack([spam + 1, np.ones(sure.size), np.ones(sure.size)]).astype(np.int32)
            arms = [QUESTIONS.count(numbers[:, of], codes[:, of]) for of in (to_canary, ~to_canary)]
            detector.step(memory, arms[0], arms[1], HORIZON / BLOCKS, 0.0)
            if log_sum(memory.log_m, together, 1)[0] >= 0:
                found += 1
                break
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("floor", "log_odds"), [(0.0, 0.0), (0.3, 0.3)])
def test_drift_bursts_and_routing_raise_no_alarm(floor: float, log_odds: float) -> None:
    """A canary at the edge of the null alarms no more often than the budget allows; `STREAMS` states the bound.

    (Confidence differs by less than the class that it depends on, so its cuts stay inside the floor.)
    """
    assert alarms(41, floor, log_odds) <= MOST


@pytest.mark.slow
def test_the_calibration_would_notice() -> None:
    """The same traffic with a canary beyond the floor breaks the bound: the test above can fail."""
    assert alarms(41, 0.0, 0.6) > MOST


# What it sees


def evidence_after(blocks: list[tuple[float, float]], floor: float = 0.3) -> tuple[Evidence, Evidence]:
    """Evidence of both groups after blocks of a minute with these rates of spam, (canary, stable), 60 and 180 predictions."""
    detector = canary_with(floor)
    memory = detector.begin()
    rng = np.random.default_rng(43)
    for number, (canary, stable) in enumerate(blocks):
        arms = profile_of(60, int(rng.binomial(60, canary))), profile_of(180, int(rng.binomial(180, stable)))
        detector.step(memory, *arms, 1e-5, 60.0 * number)
    texts = tuple(QUESTIONS.indicators[of].text for of in detector.indicators)
    floors = np.full(len(texts), floor)
    one, two = collect(
        "mail", "v2", memory, detector.bets, texts, RATES[detector.indicators], floors, compared_with="v1"
    )
    return (one, two) if one.group == CANARY_CLASS else (two, one)


@pytest.mark.parametrize(("canary", "sign"), [(0.5, 1), (0.03, -1)])
def test_a_worse_canary_is_seen_with_the_sign_of_the_change(canary: float, sign: int) -> None:
    """Up or down, evidence passes the budget, and effect, subject and rates are those of the change."""
    classes, confidence = evidence_after([(canary, 0.2)] * 40)
    assert classes.log_e > 0
    assert classes.compared_with == "v1"
    assert classes.subjects[0].indicator == "prediction = spam"
    # Four standard errors of the log odds ratio of 40 blocks.
    error = math.sqrt(1 / (2400 * canary * (1 - canary)) + 1 / (7200 * 0.16))
    true = float(np.diff(logit(np.array([0.2, canary])))[0])
    assert math.copysign(1, classes.effect) == sign
    assert classes.effect == pytest.approx(true, abs=4 * error)
    assert classes.subjects[0].expected == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 7200))
    assert confidence.log_e < math.log(0.01)


def test_the_onset_is_where_the_canary_turned() -> None:
    """After an hour of agreement the onset is reported within a few blocks of the true one, and counts start there."""
    classes, _ = evidence_after([(0.2, 0.2)] * 60 + [(0.6, 0.2)] * 10)
    assert classes.log_e > 0
    assert abs(classes.onset - 3600) <= 180
    assert classes.n == 60 * (70 - classes.onset / 60)


def test_common_drift_is_not_the_canarys_fault() -> None:
    """Rates that move for both versions at once leave no evidence, however far they go."""
    classes, _ = evidence_after([(rate, rate) for rate in np.linspace(0.05, 0.9, 60).tolist()], floor=0.0)
    assert classes.log_e < math.log(0.1)


def test_an_honest_retraining_stays_within_the_floor() -> None:
    """A canary that differs by less than the floor is left alone, a day long."""
    rate = float(expit(logit(np.array([0.2])) + 0.2)[0])
    classes, _ = evidence_after([(rate, 0.2)] * 1440)
    assert classes.log_e < math.log(0.1)


def test_a_changing_share_of_traffic_does_not_turn_the_effect_round() -> None:
    """Lower in every block, yet higher when pooled, for the canary has most of the traffic when rates are high: lower it is."""
    detector = canary_with(0.1)
    memory = detector.begin()
    for block in range(40):
        high = block % 2 == 0
        canary = profile_of(240, 96) if high else profile_of(60, 3)
        stable = profile_of(60, 33) if high else profile_of(240, 24)
        detector.step(memory, canary, stable, 1e-5, 60.0 * block)
    texts = tuple(QUESTIONS.indicators[of].text for of in detector.indicators)
    floors = np.full(len(texts), 0.1)
    found = collect("mail", "v2", memory, detector.bets, texts, RATES[detector.indicators], floors, compared_with="v1")
    (classes,) = (evidence for evidence in found if evidence.group == CANARY_CLASS)
    assert classes.log_e > 0
    assert classes.effect < -0.5
    first = classes.subjects[0]
    # By definition: 99 of 300 against 240 * 33/60 + 60 * 24/240 = 138 of 300.
    assert first.rate == pytest.approx(99 / 300, abs=0.01)
    assert first.expected == pytest.approx(138 / 300, abs=0.01)


def test_a_block_needs_both_versions() -> None:
    """Small arms are not judged yet, on whichever side."""
    detector = canary_with(0.3)
    assert detector.ready(profile_of(30, 0), profile_of(30, 0))
    assert not detector.ready(profile_of(29, 0), profile_of(3000, 0))
    assert not detector.ready(profile_of(3000, 0), profile_of(29, 0))
