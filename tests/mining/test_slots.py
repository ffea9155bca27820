"""The table of e-processes: what an obvious loop over predictions finds, within the budget, and after as many hits as theory says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from poisonwatch.mining.duplicates import MOST_A_DAY, SourceCaps
from poisonwatch.mining.elevated import LEVELS, SILENT, Elevated, levels, rates_of_levels
from poisonwatch.mining.slots import COMPONENTS, LARGEST_START, SLOTS, Crossing, Slots
from poisonwatch.profile.words import Tokens, mix

if TYPE_CHECKING:
    from collections.abc import Sequence

PATTERNS = mix(np.arange(1, 7, dtype=np.uint64))
RATES = rates_of_levels()
DAY = 86400.0


class Prediction(NamedTuple):
    """One prediction of a generated log."""

    time: float
    version: int
    label: int
    surprising: bool
    flipped: bool
    null: tuple[float, float]
    source: int
    patterns: tuple[int, ...]


PREDICTIONS = st.builds(
    Prediction,
    time=st.sampled_from([0.0, 10.0, DAY + 1.0]),
    version=st.integers(0, 1),
    label=st.integers(0, 1),
    surprising=st.booleans(),
    flipped=st.booleans(),
    null=st.sampled_from([(0.06, 0.02), (0.1, 0.05), (0.9, 0.9)]),
    source=st.integers(0, 2),
    patterns=st.lists(st.integers(0, len(PATTERNS) - 1), min_size=1, max_size=5).map(tuple),
)


def step(slots: Slots, block: Sequence[Prediction], mass: float) -> list[Crossing]:
    """Hand a block to the table."""
    row = [k for k, one in enumerate(block) for _ in one.patterns]
    word = PATTERNS[[pattern for one in block for pattern in one.patterns]]
    return slots.step(
        Tokens(word, np.array(row, np.int64)),
        np.array([one.time for one in block]),
        np.array([one.version for one in block], np.int64),
        np.array([one.label for one in block], np.int64),
        np.array([[one.surprising for one in block], [one.flipped for one in block]]),
        np.array([one.null for one in block]).T,
        np.array([one.source for one in block], np.uint64),
        mass,
    )


def log_ratio(p: float, share: float, *, hit: bool) -> float:
    """The log-likelihood ratio of one prediction, for a null that is rounded up to the scale."""
    p = min((rate for rate in RATES if rate >= p * (1 - 1e-9)), default=1.0)
    if p == 1.0:
        return 0.0
    q = p + (1 - p) * share
    return math.log(q / p) if hit else math.log((1 - q) / (1 - p))


class Obvious:
    """The same with a dictionary by pattern, class and version, one prediction after the other."""

    def __init__(self, own: dict[tuple[int, int], tuple[float, float]]) -> None:
        self.own = own
        self.mass: dict[tuple[int, int, int], list[float]] = {}
        self.count: dict[tuple[int, int, int], list[int]] = {}
        self.by_source: dict[tuple[int, int, int, int, int], int] = {}

    def step(self, block: Sequence[Prediction], mass: float) -> dict[tuple[int, int, int], tuple[float, int, int]]:
        """What crossed, with log evidence and counts."""
        start = min(mass / sum(len(one.patterns) for one in block), LARGEST_START)
        hot = {
            (pattern, one.label, one.version)
            for one in block
            for pattern in one.patterns
            if one.surprising or one.flipped
        } | set(self.mass)
        crossed = {}
        for key in sorted(hot):
            gains, n, flips = [0.0] * len(COMPONENTS), 0, 0
            for one in block:
                if key[0] not in one.patterns or key[1:] != (one.label, one.version):
                    continue
                by = (*key, one.source, int(one.time // DAY))
                self.by_source[by] = self.by_source.get(by, 0) + 1
                if one.source and self.by_source[by] > MOST_A_DAY:
                    continue
                n, flips = n + 1, flips + one.flipped
                own = self.own.get(key[:2], (0.0, 0.0))
                for k, (indicator, share) in enumerate(COMPONENTS):
                    hit = (one.surprising, one.flipped)[indicator]
                    gains[k] += log_ratio(max(one.null[indicator], own[indicator]), share, hit=hit)
            if not n:
                continue
            now = [
                (before + n * start) * math.exp(gain)
                for before, gain in zip(self.mass.get(key, [0.0] * len(COMPONENTS)), gains, strict=True)
            ]
            before = self.count.pop(key, [0, 0])
            count = [before[0] + n, before[1] + flips]
            self.mass.pop(key, None)
            if sum(now) / len(now) >= 1.0:
                crossed[key] = (math.log(sum(now) / len(now)), count[0], count[1])
            elif any(mass > n * start for mass in now):
                self.mass[key], self.count[key] = now, count
        return crossed


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(PREDICTIONS, min_size=1, max_size=12), min_size=1, max_size=6))
def test_the_table_finds_what_an_obvious_loop_finds(log: list[list[Prediction]]) -> None:
    """Over any log: the same crossings, evidence and counts, with sources that repeat themselves and elevated patterns."""
    own = {(0, 1): (0.5, 0.3), (1, 0): (0.02, 0.4)}
    slots = Slots(elevated(own), SourceCaps())
    obvious = Obvious(own)
    for block in log:
        expected = obvious.step(block, 1.0)
        found = {
            (pattern_of(slots, one), one.label, one.version): (one.log_e, one.matched, one.flipped)
            for one in step(slots, block, 1.0)
        }
        assert found.keys() == expected.keys()
        for key, (log_e, matched, flipped) in found.items():
            # float32 keeps seven digits.
            assert log_e == pytest.approx(expected[key][0], abs=1e-5)
            assert (matched, flipped) == expected[key][1:]
        assert slots.state()["slot"].size == len(obvious.mass)


def elevated(own: dict[tuple[int, int], tuple[float, float]]) -> Elevated:
    """Elevated patterns, by number and class, as a reference has them."""
    from poisonwatch.mining.elevated import _keys  # noqa: PLC0415 - the key of a pattern in a class

    keys = _keys(PATTERNS[[pattern for pattern, _ in own]], np.array([label for _, label in own], np.int64))
    order = np.argsort(keys)
    return Elevated(keys[order], np.array(list(own.values())).T[:, order])


def pattern_of(slots: Slots, one: Crossing) -> int:
    """Which of the few patterns stands in the slot that crossed."""
    place = slots.places(PATTERNS, np.array([one.version]), np.array([one.label]))
    return int(np.flatnonzero(place == one.slot)[0])


def test_no_hit_is_worth_more_than_its_null_allows() -> None:
    """For each level and indicator the expected factor of a benign prediction is 1 at the level's rate, and less below it."""
    # With one occurrence M = start * factor, so that the state of a step shows the factors of all components.
    for level in range(SILENT):
        p = float(RATES[level])
        factor = np.zeros((len(COMPONENTS), 2))
        for hit in (False, True):
            slots = Slots(Elevated.none(), SourceCaps())
            # A hit of the other kind makes it count at all.
            for kind in (0, 1):
                odd = [True, True]
                odd[kind] = hit
                null = (p, 1.0) if kind == 0 else (1.0, p)
                step(slots, [Prediction(0.0, kind, 0, odd[0], odd[1], null, 0, (0,))], LARGEST_START)
                state = slots.state()
                place = slots.places(PATTERNS[:1], np.array([kind]), np.array([0]))
                mass = state["mass"][state["slot"] == place]
                mine = [k for k, (indicator, _) in enumerate(COMPONENTS) if indicator == kind]
                factor[mine, int(hit)] = mass[0, mine] / LARGEST_START if len(mass) else np.nan
        known = ~np.isnan(factor[:, 0])
        expected = (1 - p) * factor[known, 0] + p * factor[known, 1]
        np.testing.assert_allclose(expected, 1.0, rtol=1e-5)
        assert (factor[:, 1] > 1).all()


def test_levels_round_up() -> None:
    """No rate gets a lower null, and none up to 0.78 one that is more than 13 % higher."""
    rate = np.linspace(0.02, 1.0, 2000)
    rounded = RATES[levels(rate)]
    assert (rounded >= rate * (1 - 1e-9)).all()
    assert (rounded[rate <= RATES[SILENT - 1]] <= 1.131 * rate[rate <= RATES[SILENT - 1]]).all()
    assert levels(np.array([0.0, 0.02, 0.06])).tolist() == [0, 0, 9]
    assert levels(np.array([1.0])).tolist() == [LEVELS - 1]


@pytest.mark.slow
def test_chance_crosses_no_more_often_than_the_budget_says() -> None:
    """Of 2,000 patterns that hit as often as their null allows no more cross than their start masses permit.

    Each pattern earns 100 blocks x 50 x 1e-6 = 0.005 and crosses ever with at most that probability (Ville), independently
    of the others: of 2,000 at most 10 are expected, and more than 30 have a probability below 1e-6. A table whose
    predictions without a hit cost nothing makes hundreds.
    """
    generator = np.random.default_rng(5)
    patterns, each, blocks = 2000, 50, 100
    word = np.repeat(mix(np.arange(1, patterns + 1, dtype=np.uint64)), each)
    n = word.size
    found = Tokens(word, np.arange(n))
    slots = Slots(Elevated.none(), SourceCaps())
    zeros, null = np.zeros(n, np.int64), np.broadcast_to([[0.06], [0.02]], (2, n))
    crossed = set()
    for _ in range(blocks):
        hit = generator.random((2, n)) < null
        none = np.zeros(n, np.uint64)
        for one in slots.step(found, np.zeros(n), zeros, zeros, hit, null, none, n * LARGEST_START):
            crossed.add(one.slot)
    bound = patterns * blocks * each * LARGEST_START
    assert binom.sf(30, patterns, bound / patterns) < 1e-6
    assert len(crossed) <= 30


@pytest.mark.parametrize("null", [(0.06, 0.02), (0.06, 0.3), (0.2, 0.2)])
@pytest.mark.parametrize("odd", [(True, True), (True, False), (False, True)])
def test_a_planted_pattern_crosses_after_as_many_hits_as_theory_says(
    null: tuple[float, float], odd: tuple[bool, bool]
) -> None:
    """One occurrence a block, all of them hits: the mean over components of c (L + L^2 + ... + L^k) reaches 1 at the same k."""
    # Three predictions a minute of 39 patterns, a tenth of a page in 30 days.
    start = 0.105 * 20.0 / (30 * DAY) / 39
    needed, mass = 0, [0.0] * len(COMPONENTS)
    while sum(mass) / len(mass) < 1.0:
        ratios = [log_ratio(null[indicator], share, hit=odd[indicator]) for indicator, share in COMPONENTS]
        mass = [(m + start) * math.exp(ratio) for m, ratio in zip(mass, ratios, strict=True)]
        needed += 1
    slots = Slots(Elevated.none(), SourceCaps())
    crossed: list[Crossing] = []
    for k in range(1, needed + 1):
        crossed = step(slots, [Prediction(20.0 * k, 0, 1, *odd, null, 0, (0,))], start)
        assert bool(crossed) == (k == needed)
    assert crossed[0].matched == needed
    assert crossed[0].flipped == needed * odd[1]
    assert crossed[0].label == 1


def test_what_stands_twice_in_a_prediction_counts_once() -> None:
    """A word that is repeated in one text has one occurrence."""
    slots = Slots(Elevated.none(), SourceCaps())
    step(slots, [Prediction(0.0, 0, 0, True, True, (0.06, 0.02), 0, (0, 0, 0))], 1e-6)
    assert slots.state()["count"].tolist() == [[1, 1]]


def test_classes_and_versions_do_not_share_evidence() -> None:
    """The same word elsewhere neither helps nor dilutes."""
    alone, beside = (Slots(Elevated.none(), SourceCaps()) for _ in range(2))
    odd = Prediction(0.0, 0, 0, True, True, (0.06, 0.02), 0, (0,))
    others = [odd._replace(label=1, surprising=False, flipped=False), odd._replace(version=1)] * 20
    first, after = [], []
    for k in range(12):
        first += [k for one in step(alone, [odd], 1e-7) if (one.version, one.label) == (0, 0)]
        # Mass is shared among all occurrences of a block.
        after += [k for one in step(beside, [odd, *others], 41e-7) if (one.version, one.label) == (0, 0)]
    assert first
    assert first == after


def test_a_restart_changes_nothing() -> None:
    """A table that is saved and restored in the middle goes on as if nothing had happened."""
    generator = np.random.default_rng(2)
    blocks = [
        [
            Prediction(
                60.0 * k,
                0,
                int(generator.integers(2)),
                bool(generator.random() < 0.5),
                bool(generator.random() < 0.4),
                (0.06, 0.02),
                int(generator.integers(3)),
                tuple(generator.integers(0, 6, 3).tolist()),
            )
            for _ in range(5)
        ]
        for k in range(40)
    ]
    whole, second = (Slots(Elevated.none(), SourceCaps()) for _ in range(2))
    expected = [step(whole, block, 1e-5) for block in blocks]
    first = Slots(Elevated.none(), SourceCaps())
    found = [step(first, block, 1e-5) for block in blocks[:17]]
    # What was there before must not shine through.
    step(second, blocks[0], 1.0)
    second.restore(first.state())
    found += [step(second, block, 1e-5) for block in blocks[17:]]
    assert found == expected
    assert any(expected)


def test_the_table_has_its_size_from_the_start() -> None:
    """A flood of new patterns evicts nothing: what had evidence before still has it."""
    slots = Slots(Elevated.none(), SourceCaps())
    odd = Prediction(0.0, 0, 0, True, True, (0.06, 0.02), 0, (0,))
    step(slots, [odd] * 3, 1e-7)
    place = slots.places(PATTERNS[:1], np.array([0]), np.array([0]))
    before = slots.state()["mass"][slots.state()["slot"] == place]
    flood = mix(np.arange(1000, 1000 + 40_000, dtype=np.uint64))
    flood = flood[slots.places(flood, np.array([0]), np.array([0])) != place]
    n = 1000
    hit = np.ones((2, n), np.bool_)
    zeros = np.zeros(n, np.int64)
    slots.step(
        Tokens(flood, np.arange(flood.size) % n), np.zeros(n), zeros, zeros, hit, np.full((2, n), 0.06),
        np.zeros(n, np.uint64), 1e-7,
    )  # fmt: skip
    state = slots.state()
    assert state["slot"].size > 30_000
    assert state["slot"].max() < SLOTS
    np.testing.assert_array_equal(state["mass"][state["slot"] == place], before)
