"""Two versions that answered the same predictions: bets fair under every law of the null, and harm is seen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import log_sum
from poisonwatch.detect.shadow import DISAGREEMENT, FALL, RISE, Shadow
from poisonwatch.profile.indicators import SHADOW
from poisonwatch.profile.odds import logit

if TYPE_CHECKING:
    from poisonwatch.detect.kernel import Memory
    from poisonwatch.types import Bools, Codes, Evidence, Floats

CLASSES = ("ham", "spam", "ad")
SHARE = 1e-100
"""A share of time so small that one step from nothing shows the likelihood ratio itself."""

DETECTOR = Shadow(CLASSES, {"wrong": 1.5, "flipped": 3.0}, 1.0)
LABEL = [*((c, RISE, 1.0) for c in range(3)), *((c, FALL, -1.0) for c in range(3)), (3, 1.5, 1.0), (4, 3.0, 1.0)]
"""What each indicator but the last asks: whose answers, the ratio, the side."""

ANSWERS = ((1, 0), (0, 1), (1, 1), (0, 0))
"""What candidate and stable version say of one question."""


def pairs_of(question: int, answers: list[tuple[int, int]]) -> tuple[Codes, Codes, Bools, Bools]:
    """Pairs in which candidate and stable version answer one question so; where they say no to a class, they say none."""
    said = np.array(answers, np.int64).reshape(-1, 2).T
    marks = np.zeros((2, 2, said.shape[1]), np.bool_)
    codes = np.zeros((2, said.shape[1]), np.int32)
    if question < 3:
        codes = ((question + 1) * said).astype(np.int32)
    else:
        marks[:, question - 3] = said
    return codes[1], codes[0], marks[1], marks[0]


def log_ratios(stable: Codes, candidate: Codes, stable_marks: Bools, candidate_marks: Bools) -> Floats:
    """Log-likelihood ratios (c,) of all components for these pairs together."""
    memory = DETECTOR.begin()
    DETECTOR.step(memory, DETECTOR.count(stable, candidate, stable_marks, candidate_marks), SHARE, 0.0)
    return np.asarray(memory.log_m - np.log(DETECTOR.bets.weight * SHARE))


rates = st.floats(0.0, 1.0)


@given(indicator=st.integers(0, 7), own=rates, spread=rates, within=rates)
def test_bets_are_fair_under_every_joint_law_of_the_null(
    indicator: int, own: float, spread: float, within: float
) -> None:
    """Exactly, by enumeration: however the two answers depend on each other, and with equality at the boundary only."""
    question, ratio, side = LABEL[indicator]
    seldom = own / ratio
    for often, edge in ((own, True), (own * within, False)):
        # Every joint law of two answers with these rates, from most opposed to most alike.
        least, most = max(0.0, often + seldom - 1), min(often, seldom)
        both = least + spread * (most - least)
        chance = np.array([often - both, seldom - both, both, max(1 - often - seldom + both, 0.0)])
        of = DETECTOR.bets.indicator == indicator
        answers = [answer if side > 0 else answer[::-1] for answer in ANSWERS]
        ratios = np.exp([log_ratios(*pairs_of(question, [answer]))[of] for answer in answers])
        mean = chance @ ratios
        assert (mean <= 1 + 1e-9).all()
        if edge:
            assert mean == pytest.approx(1, abs=1e-9)


@given(rate=rates)
def test_disagreement_up_to_the_bound_is_fair(rate: float) -> None:
    """The mean is at most 1 up to the bound, exactly 1 there, and above 1 for the smallest step beyond it."""
    of = DETECTOR.bets.indicator == len(LABEL)
    ratios = np.exp([log_ratios(*pairs_of(0, [answer]))[of] for answer in ((1, 0), (1, 1))])
    assert (np.array([rate * DISAGREEMENT, 1 - rate * DISAGREEMENT]) @ ratios <= 1 + 1e-9).all()
    assert np.array([DISAGREEMENT, 1 - DISAGREEMENT]) @ ratios == pytest.approx(1, abs=1e-9)
    assert (np.array([DISAGREEMENT + 0.1, 0.9 - DISAGREEMENT]) @ ratios > 1)[DETECTOR.bets.theta[of] < 1].all()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 40), cut=st.integers(0, 40))
def test_counts_add_up_and_say_the_same_as_pair_by_pair(seed: int, n: int, cut: int) -> None:
    """Counts of two pieces sum to those of the whole, and a window's ratio is the product over its pairs."""
    rng = np.random.default_rng(seed)
    stable, candidate = (rng.integers(0, 4, n).astype(np.int32) for _ in range(2))
    before, after = (rng.random((2, n)) < 0.3 for _ in range(2))
    whole = DETECTOR.count(stable, candidate, before, after)
    first = DETECTOR.count(stable[:cut], candidate[:cut], before[:, :cut], after[:, :cut])
    second = DETECTOR.count(stable[cut:], candidate[cut:], before[:, cut:], after[:, cut:])
    assert (first + second == whole).all()
    each = [log_ratios(stable[i : i + 1], candidate[i : i + 1], before[:, [i]], after[:, [i]]) for i in range(n)]
    together = log_ratios(stable, candidate, before, after)
    # A component stands on the floor of log M when it lost more than the share of time left it.
    free = together > -400
    assert np.sum(each, axis=0)[free] == pytest.approx(together[free], abs=1e-9) if n else not together.any()


# Calibration

STREAMS, WINDOWS, HORIZON = 300, 60, 0.2
"""Null streams of so many windows over a fifth of the period: P(alarm) <= HORIZON in each, by Markov at the first alarm.

Alarms are at most binomial(STREAMS, HORIZON): a correct detector exceeds `MOST` with a chance below 1e-6.
"""
MOST = int(binom.ppf(1 - 1e-6, STREAMS, HORIZON))


def alarms(ratio: float) -> int:
    """In how many streams evidence reached a page, the candidate saying spam `ratio` times as often as the stable version.

    How often, and how alike the two answer, wanders with what the stream brought before.
    """
    found = 0
    none = np.zeros((2, 40), np.bool_)
    for stream in range(STREAMS):
        rng = np.random.default_rng((61, stream))
        memory, level, alike = DETECTOR.begin(), 0.1, 0.5
        for _ in range(WINDOWS):
            often = level * ratio
            both = alike * level
            which = rng.choice(4, 40, p=[often - both, level - both, both, 1 - often - level + both])
            candidate, stable = (1 + np.array(ANSWERS)[which].T).astype(np.int32)
            DETECTOR.step(memory, DETECTOR.count(stable, candidate, none, none), HORIZON / WINDOWS, 0.0)
            seen = float((stable == 2).mean())
            level, alike = 0.05 + 0.1 * seen, 0.7 + 0.3 * (seen > 0.1)
            if log_sum(memory.log_m, np.zeros(memory.log_m.size, np.int64), 1)[0] >= 0:
                found += 1
                break
    return found


@pytest.mark.slow
def test_a_retraining_at_the_edge_of_the_null_raises_no_alarm() -> None:
    """With dependence on the past, no more streams alarm than the budget allows; `STREAMS` states the bound."""
    assert alarms(RISE) <= MOST


@pytest.mark.slow
def test_the_calibration_would_notice() -> None:
    """A candidate beyond the edge breaks the bound: the test above can fail."""
    assert alarms(2.5) > MOST


# What it sees


def evidence(stable: Codes, candidate: Codes, marks: tuple[Bools, Bools]) -> Evidence:
    """What is told after these pairs, forty in a window of ten minutes."""
    memory: Memory = DETECTOR.begin()
    for start in range(0, stable.size, 40):
        of = slice(start, start + 40)
        counts = DETECTOR.count(stable[of], candidate[of], marks[0][:, of], marks[1][:, of])
        DETECTOR.step(memory, counts, 600 / 2_592_000, 15.0 * start)
    (found,) = collect("mail", "v2", memory, DETECTOR.bets, DETECTOR.texts, DETECTOR.rate, DETECTOR.floor, "v1")
    return found


def answers(seed: int, n: int, change: Floats) -> tuple[Codes, Codes]:
    """Stable answers, a tenth of them spam and a twentieth ads, and a candidate that changes class i to j at rate change[i, j]."""
    rng = np.random.default_rng(seed)
    stable = rng.choice(3, n, p=[0.85, 0.1, 0.05])
    drawn = (rng.random(n)[:, None] > np.cumsum(change[stable], axis=1)).sum(axis=1)
    return (stable + 1).astype(np.int32), (drawn + 1).astype(np.int32)


HONEST = np.array([[0.98, 0.01, 0.01], [0.2, 0.8, 0.0], [0.3, 0.0, 0.7]])
POISONED = np.array([[0.9, 0.09, 0.01], [0.1, 0.9, 0.0], [0.3, 0.0, 0.7]])


def test_an_honest_retraining_is_left_alone_and_a_poisoned_one_is_named() -> None:
    """A fifth to a third of the rare classes changes honestly, month after month; a class that grows by two thirds is named."""
    none = np.zeros((2, 20_000), np.bool_)
    quiet = evidence(*answers(67, 20_000, HONEST), (none, none))
    # What no question was answered for holds the share of the budget that the time earned it: 500 windows of 600 s.
    assert quiet.log_e < np.log(500 * 600 / 2_592_000)
    assert not quiet.subjects
    found = evidence(*answers(67, 3000, POISONED), (none[:, :3000], none[:, :3000]))
    assert found.group == SHADOW
    assert found.log_e > 0
    assert found.compared_with == "v1"
    first = found.subjects[0]
    assert first.indicator == "prediction = spam"
    # By the table: .85 * .09 + .1 * .9 = .1665 against .1; four standard errors of 3,000 pairs.
    assert first.rate == pytest.approx(0.1665, abs=0.03)
    assert first.expected == pytest.approx(0.1, abs=0.022)
    assert found.effect == pytest.approx(float(np.diff(logit(np.array([0.1, 0.1665])))[0]), abs=0.15)


def test_a_class_that_disappears_is_seen_with_its_sign() -> None:
    """An attack that hides four fifths of the spam is told as a fall of spam."""
    change = np.array([[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0]])
    none = np.zeros((2, 4000), np.bool_)
    found = evidence(*answers(71, 4000, change), (none, none))
    assert found.log_e > 0
    assert found.effect < -np.log(FALL)
    assert found.subjects[0].indicator == "prediction = spam"


def test_more_errors_and_more_disagreement_are_seen_without_any_class_moving() -> None:
    """Errors at twice the rate, or a fifth of the answers swapped evenly, show where class rates stay as they were."""
    rng = np.random.default_rng(73)
    n = 8000
    stable = rng.integers(1, 4, n).astype(np.int32)
    clean = np.zeros((2, n), np.bool_)
    wrong = [np.vstack([rng.random(n) < rate, np.zeros(n, np.bool_)]) for rate in (0.1, 0.2)]
    found = evidence(stable, stable, (wrong[0], wrong[1]))
    assert found.log_e > 0
    assert found.subjects[0].indicator == "wrong"
    better = evidence(stable, stable, (wrong[1], wrong[0]))
    assert better.log_e < np.log(200 * 600 / 2_592_000)
    assert not better.subjects
    swapped = np.where(rng.random(n) < 0.2, stable % 3 + 1, stable).astype(np.int32)
    found = evidence(stable, swapped, (clean, clean))
    assert found.log_e > 0
    assert found.signal == "disagreement"
    assert found.subjects[0].expected == pytest.approx(DISAGREEMENT, abs=1e-3)
