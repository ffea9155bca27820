"""The store of waiting predictions: a dictionary while there is room, a fair sample when there is none, always bounded."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from poisonwatch.profile.waiting import CROWDED, MOST_PUTS, WAYS, Pairs, Waiting, mix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.types import Codes, Floats, Words

HORIZON = 1000.0
Told = tuple[int, float, int, int, int]


class Stream(NamedTuple):
    """Predictions in the order of the log: ids (n,), time (n,), version (n,), facts (2, n)."""

    ids: Words
    time: Floats
    version: Codes
    facts: Codes


def stream(seed: int, n: int, most_ids: int, step: float, versions: int = 3) -> Stream:
    """Seeded predictions with ids up to `most_ids` (0, none, among them), `step` seconds apart in the mean, unordered a little."""
    rng = np.random.default_rng(seed)
    return Stream(
        rng.integers(0, most_ids + 1, n, dtype=np.uint64),
        np.cumsum(rng.exponential(step, n)) + rng.uniform(0, 3 * step, n),
        rng.integers(0, versions, n).astype(np.int32),
        rng.integers(-9, 9, (2, n)).astype(np.int32),
    )


def distinct(n: int, rate: float, first: int = 1) -> Stream:
    """Predictions with ids of their own, `rate` a second."""
    ids = np.arange(first, first + n, dtype=np.uint64)
    return Stream(ids, (ids - np.uint64(1)) / rate, np.zeros(n, np.int32), np.zeros((2, n), np.int32))


def put(waiting: Waiting, of: Stream, cuts: Iterable[int] = ()) -> list[Pairs]:
    """Put a stream in pieces; the pairs with their records counted over the whole stream."""
    edges = sorted({0, of.ids.size, *(min(cut, of.ids.size) for cut in cuts)})
    found = []
    for first, last in pairwise(edges):
        pairs = waiting.put(of.ids[first:last], of.time[first:last], of.version[first:last], of.facts[:, first:last])
        found.append(Pairs(pairs.record + first, pairs.time, pairs.version, pairs.facts))
    return found


def told(pairs: list[Pairs]) -> list[Told]:
    """Pairs as plain values."""
    return [
        (int(p.record[i]), float(p.time[i]), int(p.version[i]), int(p.facts[0, i]), int(p.facts[1, i]))
        for p in pairs
        for i in range(p.record.size)
    ]


def same_state(one: Waiting, other: Waiting) -> bool:
    """Is the saved state of both the same, bit for bit?"""
    left, right = one.state(), other.state()
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def later(pairs: list[Told], first: int) -> list[Told]:
    """The same pairs with records counted from `first` on."""
    return [(n + first, time, version, one, two) for n, time, version, one, two in pairs]


class Plain:
    """What the store does while there is room, one record after the other, in dictionaries."""

    def __init__(self) -> None:
        self.now = -np.inf
        self.entries: dict[tuple[int, int], tuple[int, float, tuple[int, int], bool]] = {}
        self.pairs: list[Told] = []

    def alive(self, ident: int) -> dict[int, tuple[int, float, tuple[int, int], bool]]:
        """What waits under an id, by version."""
        return {v: e for (i, v), e in self.entries.items() if i == ident and e[1] > self.now - HORIZON}

    def put(self, n: int, of: Stream) -> None:
        """Record number `n`."""
        ident, version, time = int(of.ids[n]), int(of.version[n]), float(of.time[n])
        self.now = max(self.now, time)
        if not ident:
            return
        waiting = self.alive(ident)
        labelled = waiting[version][3] if version in waiting else False
        others = [(entry[0], other) for other, entry in waiting.items() if other != version]
        if version not in waiting and others:
            _, other = max(others)
            entry = waiting[other]
            self.pairs.append((n, entry[1], other, *entry[2]))
        self.entries[ident, version] = (n, time, (int(of.facts[0, n]), int(of.facts[1, n])), labelled)

    def find(self, ident: int, version: int | None) -> tuple[int, int] | None:
        """The key of what waits under an id, of a version or the newest put."""
        waiting = self.alive(ident)
        if version is not None:
            return (ident, version) if version in waiting else None
        return max(((entry[0], (ident, other)) for other, entry in waiting.items()), default=(0, None))[1]

    def settle(self, key: tuple[int, int] | None) -> bool:
        """Is it the first label?"""
        if key is None or self.entries[key][3]:
            return False
        self.entries[key] = (*self.entries[key][:3], True)
        return True


@given(
    seed=st.integers(0, 2**32 - 1), step=st.sampled_from([1.0, 30.0]), pieces=st.lists(st.integers(1, 40), max_size=6)
)
def test_with_room_it_is_a_dictionary(seed: int, step: float, pieces: list[int]) -> None:
    """Rows, columns, first labels and pairs are those of plain dictionaries, whatever is put again or has expired."""
    whole = stream(seed, sum(pieces), 30, step)
    rng = np.random.default_rng((seed, 1))
    waiting, plain, pairs = Waiting(1 << 12, 2, HORIZON), Plain(), list[Told]()
    first = 0
    for size in pieces:
        part = slice(first, first + size)
        piece = Stream(whole.ids[part], whole.time[part], whole.version[part], whole.facts[:, part])
        pairs += later(told(put(waiting, piece)), first)
        for n in range(first, first + size):
            plain.put(n, whole)
        first += size
        asked = rng.integers(0, 33, 40, dtype=np.uint64)
        wanted = rng.integers(0, 3, 40).astype(np.int32)
        for versions in (None, wanted):
            rows = waiting.find(asked, versions)
            keys = [plain.find(int(i), None if versions is None else int(wanted[m])) for m, i in enumerate(asked)]
            assert [row >= 0 for row in rows] == [key is not None for key in keys]
            for row, key in zip(rows.tolist(), keys, strict=True):
                if key is not None:
                    assert (int(waiting.version[row]), float(waiting.time[row])) == (key[1], plain.entries[key][1])
                    assert tuple(waiting.facts[:, row].tolist()) == plain.entries[key][2]
        labels = rng.integers(0, 33, 5, dtype=np.uint64)
        keys = [plain.find(int(i), None) for i in labels]
        assert waiting.settle(waiting.find(labels)).tolist() == [plain.settle(key) for key in keys]
    assert pairs == plain.pairs
    assert (waiting.level, waiting.crowded_out) == (0, 0)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    most_ids=st.sampled_from([5, 60, 10**9]),
    step=st.sampled_from([0.1, 1.0, 20.0]),
    cuts=st.lists(st.integers(0, 800), max_size=8),
    stop=st.integers(0, 800),
)
def test_chopping_and_a_restart_change_nothing(
    seed: int, most_ids: int, step: float, cuts: list[int], stop: int
) -> None:
    """Crowded or roomy, with levels rising and falling: state and pairs do not show the batches or the interruption."""
    whole = stream(seed, 800, most_ids, step)
    one, other = Waiting(64, 2, HORIZON), Waiting(64, 2, HORIZON)
    expected = told(put(one, whole, range(800)))
    before = Stream(whole.ids[:stop], whole.time[:stop], whole.version[:stop], whole.facts[:, :stop])
    after = Stream(whole.ids[stop:], whole.time[stop:], whole.version[stop:], whole.facts[:, stop:])
    found = told(put(other, before, cuts))
    restored = Waiting(64, 2, HORIZON)
    put(restored, stream(seed + 1, 50, 9, 1.0))
    restored.restore(other.state())
    assert same_state(restored, other)
    found += later(told(put(restored, after, [max(cut - stop, 0) for cut in cuts])), stop)
    assert found == expected
    assert same_state(one, restored)


def test_within_a_set_the_one_put_longest_ago_makes_room() -> None:
    """One set of eight: eight ids are found, a ninth pushes out the oldest; one put again is no longer the oldest."""
    waiting = Waiting(WAYS, 2, HORIZON)
    ids = np.arange(1, 11, dtype=np.uint64)
    for ident in [1, 2, 3, 4, 5, 6, 7, 8, 1, 9]:
        waiting.put(ids[ident - 1 : ident], np.array([1.0]), np.zeros(1, np.int32), np.zeros((2, 1), np.int32))
    assert waiting.crowded_out == 1
    assert (waiting.find(ids) >= 0).tolist() == [ident not in {2, 10} for ident in ids.tolist()]


def test_the_sample_is_uniform_and_large_enough() -> None:
    """Far too much traffic: what is found is a fair sample over the last horizon, and what is not is said to be outside.

    Mixed ids are spread as independent uniform ones. The numbers kept of ten equal stretches of the horizon then are binomial
    alike but for crowding (in all at most CROWDED and the noise of it), so their chi-square over 9 degrees exceeds its 1e-6
    quantile with that chance only.
    """
    waiting, n = Waiting(1 << 12, 2, 40_000.0), 400_000
    whole = distinct(n, rate=4.0)
    put(waiting, whole, range(0, n, 7000))
    recent = whole.ids[whole.time > whole.time[-1] - 39_000.0]
    found = waiting.find(recent) >= 0
    outside = waiting.outside_sample(recent)
    assert waiting.level > 0
    expected = recent.size / 2**waiting.level
    assert not (found & outside).any()
    assert (1 - 2 * CROWDED) * expected <= found.sum() <= binom.ppf(1 - 1e-6, recent.size, 0.5**waiting.level)
    # Places are neither wasted by a level too high nor lost to crowding.
    assert (1 << 12) / 8 <= found.sum() <= 1 << 12
    per_stretch = np.array([part.sum() for part in np.array_split(found, 10)])
    spread = float(((per_stretch - per_stretch.mean()) ** 2).sum() / per_stretch.mean())
    assert spread <= chi2.ppf(1 - 1e-6, 9)
    missed = ~found & ~outside
    assert missed.sum() <= 2 * CROWDED * expected


def test_after_a_burst_the_level_falls_to_what_the_traffic_needs_and_no_further() -> None:
    """At a lower rate it falls step by step and stays: falling on would crowd the store a horizon later, and rise again."""
    waiting = Waiting(1 << 12, 2, HORIZON)
    put(waiting, distinct(400_000, rate=400.0), range(0, 400_000, 5000))
    calm, levels = distinct(100_000, rate=20.0, first=10**6), [waiting.level]
    begun = HORIZON - calm.time[0]
    for first in range(0, calm.ids.size, 500):
        piece = slice(first, first + 500)
        waiting.put(calm.ids[piece], calm.time[piece] + begun, calm.version[piece], calm.facts[:, piece])
        levels.append(waiting.level)
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > levels[-1] > 0
    assert 20.0 * HORIZON / 2 ** levels[-1] > (1 << 12) / 8


def test_when_traffic_falls_the_sample_grows_again() -> None:
    """After a burst the level comes back to 0; what the burst's level left out is called so for a horizon, then unknown."""
    waiting = Waiting(1 << 10, 2, HORIZON)
    burst = distinct(30_000, rate=100.0)
    put(waiting, burst)
    high = waiting.level
    assert high > 0
    late = Stream(
        np.arange(10**6, 10**6 + 4000, dtype=np.uint64),
        burst.time[-1] + np.arange(4000.0) * 10,
        np.zeros(4000, np.int32),
        np.zeros((2, 4000), np.int32),
    )
    put(waiting, Stream(late.ids[:60], late.time[:60], late.version[:60], late.facts[:, :60]))
    assert waiting.outside_sample(burst.ids[-1000:]).any()
    put(waiting, Stream(late.ids[60:], late.time[60:], late.version[60:], late.facts[:, 60:]))
    assert waiting.level == 0
    assert not waiting.outside_sample(burst.ids).any()
    assert (waiting.find(burst.ids) < 0).all()
    assert (waiting.find(late.ids[-90:]) >= 0).all()


def test_a_flood_of_one_id_costs_its_own_set_only() -> None:
    """One id for ever is stored a bounded number of times a round, and takes no place from any other set."""
    waiting = Waiting(1 << 10, 2, HORIZON)
    others = distinct(100, rate=100.0)
    put(waiting, others)
    n = 157 * 128 - others.ids.size  # whole rounds
    version = (np.arange(n) % 2).astype(np.int32)
    flood = Stream(
        np.full(n, 10**9, np.uint64), np.full(n, 2.0), version, np.arange(2 * n).reshape(2, n).astype(np.int32)
    )
    pairs = told(put(waiting, flood, range(0, n, 9)))
    assert len(pairs) == 1
    assert (waiting.find(others.ids) >= 0).all()
    # Of each round, which the others began, only the first few of the flood are stored.
    rows = waiting.find(flood.ids[:2], version[:2])
    of_round = (waiting.facts[0, rows] + others.ids.size) % ((1 << 10) // WAYS)
    assert of_round.tolist() == [MOST_PUTS - 2, MOST_PUTS - 1]


def test_memory_does_not_grow() -> None:
    """The arrays are those of the empty store after any traffic, and the saved state is no larger than they are."""
    waiting = Waiting(1 << 9, 2, HORIZON)
    empty = sum(array.nbytes for array in vars(waiting).values() if isinstance(array, np.ndarray))
    for seed in range(5):
        put(waiting, stream(seed, 3000, 10**12, 1.0))
    arrays = [array for array in vars(waiting).values() if isinstance(array, np.ndarray)]
    assert sum(array.nbytes for array in arrays) == empty
    assert waiting.state()["rows"].size <= 1 << 9


def test_mixing_loses_no_id() -> None:
    """Mixing is one-to-one on many ids, and each low bit is even between ones and zeros (6 standard deviations)."""
    mixed = mix(np.arange(100_000, dtype=np.uint64))
    assert np.unique(mixed).size == mixed.size
    for bit in range(0, 64, 7):
        ones = int((mixed >> np.uint64(bit) & np.uint64(1)).sum())
        assert abs(ones - 50_000) <= 6 * np.sqrt(25_000)
