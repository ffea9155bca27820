"""The kernel does what its formulas say: sums of logarithms, one step, and shares that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.detect.kernel import THETAS, Memory, advance, lay_bets, log_evidence, log_sum
from poisonwatch.judge.budget import SHARES
from poisonwatch.profile.odds import LOG_CAP, LOG_ZERO
from tests.streams import small_questions

QUESTIONS = small_questions()
BETS = lay_bets(QUESTIONS.signal_of, QUESTIONS.sides, QUESTIONS.signals, SHARES)


@given(
    st.lists(st.tuples(st.floats(-800, 100), st.integers(0, 4)), max_size=40),
)
def test_log_sum_is_the_logarithm_of_the_sums(terms: list[tuple[float, int]]) -> None:
    """Equal to the plain sum of exponentials, and the stand-in for log 0 where that is nothing."""
    values = np.array([value for value, _ in terms], np.float64)
    of = np.array([group for _, group in terms], np.int64)
    found = log_sum(values, of, 5)
    for group in range(5):
        plain = math.fsum(math.exp(value) for value, member in terms if member == group)
        expected = math.log(plain) if plain > 0 else LOG_ZERO
        assert found[group] == pytest.approx(max(expected, LOG_ZERO), abs=1e-9 if plain > 1e-300 else 1.0)


def test_log_sum_holds_where_exponentials_do_not() -> None:
    """Sums of numbers that have no float of their own."""
    assert log_sum(np.array([1000.0, 1000.0]), np.array([0, 0]), 1)[0] == pytest.approx(1000 + math.log(2))
    assert log_sum(np.array([-740.0] * 4), np.array([0] * 4), 1)[0] == pytest.approx(-740 + math.log(4))


@given(seed=st.integers(0, 2**32 - 1))
def test_evidence_of_groups_is_the_logarithm_of_their_sums(seed: int) -> None:
    """From nothing to the cap, each group's is what summing exponentials of its own components gives."""
    rng = np.random.default_rng(seed)
    memory = Memory.fresh(BETS, len(QUESTIONS.indicators))
    assert (log_evidence(memory, BETS) >= LOG_ZERO).all()
    memory.log_m = rng.choice([LOG_ZERO, -300.0, -20.0, -1.0, LOG_CAP], BETS.indicator.size) * rng.uniform(0.99, 1)
    found = log_evidence(memory, BETS)
    for group in range(len(BETS.groups)):
        members = memory.log_m[BETS.group == group]
        assert found[group] == pytest.approx(math.log(math.fsum(np.exp(members).tolist())), rel=1e-9)
        assert (memory.log_m[BETS.of_group(group)] == members).all()


@given(
    shape=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.booleans()), min_size=1, max_size=8),
    shares=st.tuples(*[st.floats(0.01, 1)] * 3),
    thetas=st.sampled_from([THETAS, (0.4, 0.8, 1.4, 2.2), (1.0,)]),
)
def test_shares_of_the_bets_add_up(
    shape: list[tuple[int, int, bool]], shares: tuple[float, ...], thetas: tuple[float, ...]
) -> None:
    """Each group's weights sum to its share, divided equally over its signals; every watched side has every theta."""
    signals = tuple((f"s{number}", f"g{group}") for number, (group, _, _) in enumerate(shape))
    signal_of = np.array([number for number, (_, size, _) in enumerate(shape) for _ in range(size)], np.int64)
    sides = np.array([(True, both) for _, size, both in shape for _ in range(size)], np.bool_)
    of_group = {f"g{number}": share for number, share in enumerate(shares)}
    bets = lay_bets(signal_of, sides, signals, of_group, thetas)
    for group, name in enumerate(bets.groups):
        assert bets.weight[bets.group == group].sum() == pytest.approx(of_group[name])
        members = np.unique(bets.signal[bets.group == group])
        for signal in members:
            assert bets.weight[bets.signal == signal].sum() == pytest.approx(of_group[name] / members.size)
    for indicator, watched in enumerate(sides):
        mine = bets.indicator == indicator
        laid = sorted(zip(bets.sign[mine].tolist(), bets.theta[mine].tolist(), strict=True))
        assert laid == sorted(
            (sign, theta) for sign, on in zip((1.0, -1.0), watched, strict=True) if on for theta in thetas
        )
    assert (bets.weight > 0).all()


@given(
    steps=st.lists(st.tuples(st.floats(1e-6, 1e-2), st.integers(0, 2**32 - 1)), min_size=1, max_size=12),
)
def test_steps_are_those_of_the_formula(steps: list[tuple[float, int]]) -> None:
    """M <- L (M + c) in plain numbers, kept between the smallest float and the cap; and a CUSUM that places the onset."""
    memory = Memory.fresh(BETS, len(QUESTIONS.indicators))
    plain_m = [0.0] * BETS.indicator.size
    cusum = [0.0] * BETS.indicator.size
    since = [0.0] * BETS.indicator.size
    before = [0] * BETS.indicator.size
    total = np.zeros(len(QUESTIONS.indicators), np.int64)
    for number, (share, seed) in enumerate(steps):
        rng = np.random.default_rng(seed)
        log_l = rng.normal(-0.2, 2.0, BETS.indicator.size)
        asked = rng.integers(0, 50, total.size)
        for c, gain in enumerate(log_l.tolist()):
            grown = (plain_m[c] + float(BETS.weight[c]) * share) * math.exp(gain)
            plain_m[c] = min(grown, math.exp(LOG_CAP))
            if cusum[c] <= 0:
                cusum[c], since[c], before[c] = 0.0, 100.0 * number + 7, int(total[BETS.indicator[c]])
            cusum[c] += gain
        total = total + asked
        advance(memory, BETS, log_l, share, asked[None], asked[None] // 2, 100.0 * number + 7)
    assert np.exp(memory.log_m) == pytest.approx(plain_m, rel=1e-9)
    assert memory.since.tolist() == since
    assert memory.asked[0].tolist() == total.tolist()
    assert memory.asked_before[0].tolist() == before


def test_evidence_has_a_ceiling_and_a_floor() -> None:
    """A component never exceeds the cap, whatever was seen, and comes back from any depth by its share of time."""
    memory = Memory.fresh(BETS, len(QUESTIONS.indicators))
    none = np.zeros((1, len(QUESTIONS.indicators)), np.int64)
    advance(memory, BETS, np.full(BETS.indicator.size, 1e6), 1e-6, none, none, 0.0)
    assert (memory.log_m == LOG_CAP).all()
    advance(memory, BETS, np.full(BETS.indicator.size, -1e6), 1e-6, none, none, 0.0)
    assert (memory.log_m == LOG_ZERO).all()
    advance(memory, BETS, np.zeros(BETS.indicator.size), 1e-6, none, none, 0.0)
    assert np.exp(memory.log_m) == pytest.approx(BETS.weight * 1e-6)


def test_time_without_data_counts_once() -> None:
    """Two empty steps, or one of twice the time, earn the same; evidence neither grows nor shrinks by waiting."""
    none = np.zeros((1, len(QUESTIONS.indicators)), np.int64)
    nothing, gain = np.zeros(BETS.indicator.size), np.full(BETS.indicator.size, 0.7)
    one, two = (Memory.fresh(BETS, len(QUESTIONS.indicators)) for _ in range(2))
    for memory, shares in ((one, (1e-4, 1e-4, 3e-4)), (two, (5e-4,))):
        advance(memory, BETS, gain, 1e-3, none, none, 0.0)
        for share in shares:
            advance(memory, BETS, nothing, share, none, none, 0.0)
    assert one.log_m == pytest.approx(two.log_m)
    assert np.exp(one.log_m) == pytest.approx(BETS.weight * (1e-3 * math.exp(0.7) + 5e-4))
