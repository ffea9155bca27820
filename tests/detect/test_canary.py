"""The canary against stable: exact under every odds ratio of the null, whatever the traffic does, and it sees harm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln, logsumexp
from scipy.stats import binom, hypergeom, nchypergeom_fisher

from poisonwatch.detect.canary import MOST_INDICATORS, Canary, Pair, concurrent, confinement
from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import log_sum
from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_CONFIDENCE,
    CANARY_ERRORS,
    CANARY_FLIPS,
    CANARY_INPUTS,
    FLIPPED,
    ask,
    ask_errors,
)
from poisonwatch.profile.odds import expit, logit
from poisonwatch.types import Column, Schema
from tests.streams import SMALL, sharp, small_questions

if TYPE_CHECKING:
    from poisonwatch.types import Evidence, Floats, Ints

QUESTIONS = small_questions()
OUTPUT_SIGNALS = {s: g for s, g in concurrent(QUESTIONS).items() if g in {CANARY_CLASS, CANARY_CONFIDENCE}}
HOUR = 3600.0
RATES = np.full(len(QUESTIONS.indicators), 0.3)
SPAM = next(n for n, indicator in enumerate(QUESTIONS.indicators) if indicator.text == "prediction = spam")
SHARES = {CANARY_CLASS: 0.9, CANARY_CONFIDENCE: 0.1}
SHARE = 1e-100
"""A share of time so small that one step from nothing shows the likelihood ratio itself."""


def canary_with(*floors: float, design_effect: float = 1.0) -> Canary:
    """A canary's detector with these floors."""
    both = dict.fromkeys(SHARES, floors)
    return Canary(sharp(QUESTIONS, RATES, design_effect), OUTPUT_SIGNALS, both, SHARES, 30, HOUR)


def profile_of(asked: int, yes: int) -> Ints:
    """A profile in which the class `spam` was asked and answered so often."""
    profile = np.zeros(QUESTIONS.size, np.int64)
    profile[0] = profile[QUESTIONS.asked[SPAM]] = asked
    profile[QUESTIONS.yes[SPAM]] = yes
    return profile


def log_ratios(detector: Canary, canary: int, stable: int, both: int, yes: int) -> Floats:
    """Log-likelihood ratios (c,) of the components on `spam` when `yes` of `both` fell to the canary."""
    pair = detector.begin()
    detector.step(pair, profile_of(canary, yes), profile_of(stable, both - yes), SHARE, 0.0)
    mine = detector.indicators[detector.bets.indicator] == SPAM
    return np.asarray((pair.memory.log_m - np.log(detector.bets.weight * SHARE))[mine])


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
    detector = canary_with(floor, design_effect=effect)
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
        pair = detector.begin()
        for block in range(BLOCKS):
            to_canary = rng.random(int(volume[block])) < routed[block]
            base = expit(np.array([level[block], level[block] + log_odds]))
            spam = rng.random(to_canary.size) < base[to_canary.astype(int)]
            sure = np.where(spam, 0.4, 0.6) + rng.uniform(-0.5, 0.5, to_canary.size)
            numbers = np.stack([sure, np.zeros(sure.size)])
            codes = np.stack([spam + 1, np.ones(sure.size), np.ones(sure.size)]).astype(np.int32)
            arms = [QUESTIONS.count(numbers[:, of], codes[:, of]) for of in (to_canary, ~to_canary)]
            detector.step(pair, arms[0], arms[1], HORIZON / BLOCKS, 0.0)
            if log_sum(pair.memory.log_m, together, 1)[0] >= 0:
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
    pair = detector.begin()
    rng = np.random.default_rng(43)
    for number, (canary, stable) in enumerate(blocks):
        arms = profile_of(60, int(rng.binomial(60, canary))), profile_of(180, int(rng.binomial(180, stable)))
        detector.step(pair, *arms, 1e-5, 60.0 * number)
    texts = tuple(QUESTIONS.indicators[of].text for of in detector.indicators)
    floors = np.full(len(texts), floor)
    one, two = collect(
        "mail", "v2", pair.memory, detector.bets, texts, RATES[detector.indicators], floors, compared_with="v1"
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
    pair = detector.begin()
    for block in range(40):
        high = block % 2 == 0
        canary = profile_of(240, 96) if high else profile_of(60, 3)
        stable = profile_of(60, 33) if high else profile_of(240, 24)
        detector.step(pair, canary, stable, 1e-5, 60.0 * block)
    texts = tuple(QUESTIONS.indicators[of].text for of in detector.indicators)
    floors = np.full(len(texts), 0.1)
    found = collect(
        "mail", "v2", pair.memory, detector.bets, texts, RATES[detector.indicators], floors, compared_with="v1"
    )
    (classes,) = (evidence for evidence in found if evidence.group == CANARY_CLASS)
    assert classes.log_e > 0
    assert classes.effect < -0.5
    first = classes.subjects[0]
    # By definition: 99 of 300 against 240 * 33/60 + 60 * 24/240 = 138 of 300.
    assert first.rate == pytest.approx(99 / 300, abs=0.01)
    assert first.expected == pytest.approx(138 / 300, abs=0.01)


# How large the effect is at least

FLOORS = (0.1, 0.3, 0.5, 0.8)


@given(tables=st.lists(small_tables, min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_every_further_floor_has_the_evidence_of_a_detector_of_its_own(
    tables: list[tuple[int, int, int]], seed: int
) -> None:
    """Whatever the blocks; and evidence falls from floor to floor on every path, so the bound holds at all floors together."""
    rng = np.random.default_rng(seed)
    blocks = [(canary, stable, both, int(rng.integers(max(0, both - stable), min(canary, both) + 1)))
              for canary, stable, both in tables]  # fmt: skip
    together, alone = canary_with(*FLOORS), [canary_with(floor) for floor in FLOORS]
    pair, pairs = together.begin(), [detector.begin() for detector in alone]
    for canary, stable, both, yes in blocks:
        arms = profile_of(canary, yes), profile_of(stable, both - yes)
        for detector, of in zip((together, *alone), (pair, *pairs), strict=True):
            detector.step(of, *arms, SHARE, 0.0)
    expected = np.array([one.memory.log_m for one in pairs])
    found = np.vstack((pair.memory.log_m, pair.beyond.reshape(-1, len(FLOORS) - 1).T))
    assert found == pytest.approx(expected, abs=1e-9)
    assert (np.diff(found, axis=0) <= 1e-9).all()


def test_the_lower_bound_approaches_the_effect_from_below() -> None:
    """It is the largest floor at which a detector of its own would have passed the budget, and stops before the true effect."""
    floors = (0.1, 0.3, 0.5, 0.8, 1.5)
    detector, alone = canary_with(*floors), [canary_with(floor) for floor in floors]
    pair, pairs = detector.begin(), [one.begin() for one in alone]
    group = detector.bets.groups.index(CANARY_CLASS)
    rng = np.random.default_rng(47)
    rates = expit(logit(np.array([0.3, 0.3])) + np.array([1.0, 0.0]))
    found = []
    for number in range(150):
        canary, stable = profile_of(60, rng.binomial(60, rates[0])), profile_of(180, rng.binomial(180, rates[1]))
        for one, of in zip((detector, *alone), (pair, *pairs), strict=True):
            one.step(of, canary, stable, 1e-5, 60.0 * number)
        log_e = [log_sum(of.memory.log_m, detector.bets.group, 2)[group] for of in pairs]
        bounds = detector.lower_bounds(pair)
        assert bounds == {
            CANARY_CLASS: max([floor for floor, e in zip(floors, log_e, strict=True) if e >= 0], default=0.0),
            CANARY_CONFIDENCE: 0.0,
        }
        found.append(bounds[CANARY_CLASS])
    assert found[0] == 0.0
    assert found[-1] == 0.8
    assert {0.1, 0.3, 0.5} & set(found)


# Is it one class?

CLASSES = Schema(
    model="mail",
    outcome=Column(name="prediction", kind="categorical", values=("a", "b", "c", "d", "e")),
    features=(),
    layout="object",
    confidence=False,
)


def compared(tilt: Floats, seed: int, blocks: int = 60, canary: int = 40, stable: int = 160) -> Pair:
    """Two versions whose classes differ by `tilt` (5,) in log weight, on traffic whose classes drift from block to block."""
    questions = ask(CLASSES, {})
    baseline = sharp(questions, np.full(len(questions.indicators), 0.2))
    watched = concurrent(questions)
    detector = Canary(baseline, watched, {CANARY_CLASS: (0.3,)}, {CANARY_CLASS: 1.0}, 30, HOUR)
    pair, rng = detector.begin(), np.random.default_rng(seed)
    weight = np.log([0.4, 0.3, 0.15, 0.1, 0.05])
    for block in range(blocks):
        weight = weight + rng.normal(0, 0.05, 5)
        arms = []
        for n, extra in ((canary, tilt), (stable, np.zeros(5))):
            p = np.exp(weight + extra)
            classes = rng.choice(5, n, p=p / p.sum()) + 1
            arms.append(questions.count(np.empty((0, n)), classes[None].astype(np.int32)))
        detector.step(pair, arms[0], arms[1], 1e-5, 60.0 * block)
    return pair


def test_the_score_is_that_of_the_conditional_distribution() -> None:
    """Score and variance of one class are the count less its mean and the variance of SciPy's hypergeometric distribution."""
    pair = compared(np.zeros(5), 3, blocks=1)
    detector_counts = pair.memory.yes[0]
    both = detector_counts + pair.memory.yes[1] * 160 / 40
    for of in range(5):
        law = hypergeom(200, round(both[of]), 40)
        assert pair.score[of] == pytest.approx(detector_counts[of] - law.mean())
        assert pair.variance[of, of] == pytest.approx(law.var())
    assert pair.variance.sum(axis=1) == pytest.approx(np.zeros(5), abs=1e-9)


def test_one_class_that_moves_is_told_from_all_of_them() -> None:
    """One class tilted by 1.2 leaves the others in agreement, however their shares shrink; two tilted do not."""
    for of in range(5):
        tilt = np.zeros(5)
        tilt[of] = 1.2
        found = confinement(compared(tilt, 10 + of, blocks=200))
        assert found is not None
        assert found.top == of
        assert found.effect == pytest.approx(1.2, abs=0.5)
        assert found.rest == 0.0
    found = confinement(compared(np.array([0.0, 0.9, -0.9, 0.0, 0.9]), 16, blocks=200))
    assert found is not None
    assert found.rest > 0.3


@pytest.mark.slow
def test_agreement_of_the_others_is_seldom_denied() -> None:
    """In 300 streams with one tilted class the others are said to differ at most as often as binomial(300, .001) allows.

    A correct bound exceeds that quantile with a chance below 1e-6.
    """
    denied = 0
    for seed in range(300):
        found = confinement(compared(np.array([0.0, 0.0, 0.8, 0.0, 0.0]), 100 + seed))
        denied += found is not None and found.rest > 0
    assert denied <= binom.ppf(1 - 1e-6, 300, 0.001)


def test_of_two_classes_one_explains_the_other() -> None:
    """Nothing is left over, and before anything was seen nothing is said."""
    detector = canary_with(0.3)
    pair = detector.begin()
    assert confinement(pair) is None
    profiles = []
    for spam in (20, 5):
        codes = np.array([[2] * spam + [1] * (40 - spam), [1] * 40, [1] * 40], np.int32)
        profiles.append(QUESTIONS.count(np.full((2, 40), 0.5), codes))
    detector.step(pair, profiles[0], profiles[1], SHARE, 0.0)
    found = confinement(pair)
    assert found is not None
    # 20 of 25 spam among the canary's 40 of 80: (20 - 12.5) over 40 * 40 * 25 * 55 / (80 * 80 * 79).
    assert abs(found.effect) == pytest.approx(7.5 / (40 * 40 * 25 * 55 / (80 * 80 * 79)))
    assert found.rest == 0.0


# Which indicators


def test_flips_and_errors_count_only_when_they_rise() -> None:
    """A canary with fewer flips, or fewer errors, is no cause for concern."""
    flips = ask(SMALL, {"confidence": (0.5,), "features.amount": (0.0,)}, marks=(FLIPPED,))
    for questions, group in ((flips, CANARY_FLIPS), (ask_errors(SMALL, flips=True), CANARY_ERRORS)):
        watched = {signal: told for signal, told in concurrent(questions).items() if told == group}
        rates = np.full(len(questions.indicators), 0.1)
        detector = Canary(sharp(questions, rates), watched, {group: (0.2,)}, {group: 1.0}, 5, HOUR)
        assert detector.bets.groups == (group,)
        assert (detector.bets.sign > 0).all()
        texts = [questions.indicators[of].text for of in detector.indicators]
        assert any("spam" in text for text in texts)
        assert not any("country" in text for text in texts)


def test_routing_by_the_input_is_named_and_random_routing_is_not() -> None:
    """The canary gets the large amounts: evidence on the inputs names the feature. With random routing there is none."""
    watched = {signal: told for signal, told in concurrent(QUESTIONS).items() if told == CANARY_INPUTS}
    floors = {CANARY_INPUTS: (0.1,)}
    detector = Canary(sharp(QUESTIONS, RATES), watched, floors, {CANARY_INPUTS: 1.0}, 30, HOUR)
    rng = np.random.default_rng(53)
    for routed_by, expected in ((1.0, True), (0.0, False)):
        pair = detector.begin()
        for block in range(60):
            amount = rng.normal(0, 1, 200)
            codes = np.stack([np.ones(200), rng.integers(1, 4, 200), np.ones(200)]).astype(np.int32)
            numbers = np.stack([np.full(200, 0.5), amount])
            of = rng.random(200) < expit(routed_by * amount - 1)
            arms = [QUESTIONS.count(numbers[:, part], codes[:, part]) for part in (of, ~of)]
            detector.step(pair, arms[0], arms[1], 1e-5, 60.0 * block)
        texts = tuple(QUESTIONS.indicators[of].text for of in detector.indicators)
        (found,) = collect(
            "mail", "v2", pair.memory, detector.bets, texts, RATES[detector.indicators], detector.floor, "v1"
        )
        assert (found.log_e > 0) is expected
        if expected:
            assert found.signal == "features.amount"


def test_many_inputs_are_thinned_out_evenly() -> None:
    """Of many features with many cuts at most so many indicators are compared, and every feature keeps one while there is room."""
    for features, kept in ((30, 30), (250, MOST_INDICATORS)):
        columns = tuple(Column(name=f"features.f{of}", kind="numerical") for of in range(features))
        schema = Schema(
            model="m", outcome=SMALL.outcome, features=columns, layout="object",
            confidence=False,
        )  # fmt: skip
        questions = ask(schema, {column.name: tuple(np.linspace(-1, 1, 9)) for column in columns})
        watched = {signal: told for signal, told in concurrent(questions).items() if told == CANARY_INPUTS}
        rates = np.full(len(questions.indicators), 0.5)
        detector = Canary(sharp(questions, rates), watched, {CANARY_INPUTS: (0.1,)}, {CANARY_INPUTS: 1.0}, 30, HOUR)
        assert detector.indicators.size <= MOST_INDICATORS
        assert len(detector.bets.signals) == kept
        middle = [questions.indicators[of].text.endswith("<= 0") for of in detector.indicators]
        assert sum(middle) == kept


# Pooling


def fed(windows: list[tuple[float, int, int]], *, interrupted: bool = False) -> tuple[Pair, list[float]]:
    """A pair after windows of ten minutes (start, canary, stable), and until when the budget was spent after each."""
    detector, spent, all_spent = canary_with(0.1, 0.5), -600.0, []
    pair = detector.begin()
    for start, canary, stable in windows:
        arms = profile_of(canary, canary // 2), profile_of(stable, stable // 5)
        spent = detector.add(pair, *arms, start, start + 600, spent, 1e-8)
        all_spent.append(spent)
        if interrupted:
            pair = Pair.restored(pair.state())
    return pair, all_spent


def test_a_block_waits_for_both_versions() -> None:
    """Windows are pooled until both have enough, and are then judged as one: the budget is spent up to there."""
    pair, spent = fed([(0, 20, 300), (600, 9, 300), (1200, 1, 300)])
    assert spent == [-600.0, -600.0, 1800.0]
    assert pair.canary.sum() == pair.stable.sum() == 0
    by_hand = canary_with(0.1, 0.5)
    one = by_hand.begin()
    by_hand.step(one, profile_of(30, 14), profile_of(900, 180), 2400 * 1e-8, 0.0)
    assert (one.memory.log_m == pair.memory.log_m).all()
    assert (one.beyond == pair.beyond).all()


def test_hours_apart_are_not_mixed() -> None:
    """What waits since more than an hour is judged alone, small as it is, before a new block begins."""
    pair, spent = fed([(0, 20, 300), (36_000, 20, 300)])
    assert spent == [-600.0, 600.0]
    assert pair.canary[0] == 20
    assert pair.start == 36_000
    assert pair.memory.asked[0, 0] == 20


def test_a_version_that_waits_alone_is_not_mixed_with_later_hours_either() -> None:
    """Labels may come for the stable version only: such a block ends after an hour too, and says nothing."""
    pair, spent = fed([(0, 0, 20), (600, 0, 20), (36_000, 20, 20)])
    assert spent == [-600.0, -600.0, 1200.0]
    assert pair.start == 36_000
    assert pair.stable[0] == 20


def test_sparse_traffic_is_judged_at_least_hourly() -> None:
    """At two canary predictions in ten minutes nothing waits for thirty: every hour is a block."""
    _, spent = fed([(600.0 * window, 2, 20) for window in range(12)])
    assert spent[5] == 3600.0
    assert spent[11] == 7200.0


def test_a_pair_survives_a_restart_at_any_window() -> None:
    """Saved and restored after every window, everything is the same bit for bit."""
    windows = [(600.0 * window, 3 * (window % 4), 25) for window in range(40)]
    plain, _ = fed(windows)
    restored, _ = fed(windows, interrupted=True)
    for name, value in plain.state().items():
        if name != "memory":
            assert np.array_equal(value, restored.state()[name]), name
    for name, value in plain.memory.state().items():
        assert np.array_equal(value, restored.memory.state()[name]), name
