"""Half-space trees in NumPy score as river does; which records they look at does not depend on the chopping."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.outlier import KNOTS, SLOTS, SPARSE, TALLEST, Forest, ForestFile, Sampler, ranks
from poisonwatch.profile.packed import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from poisonwatch.types import Floats


def members_of(seed: int) -> Floats:
    """200 records (200, 3) from the unit cube."""
    return np.random.default_rng(seed).random((200, 3))


def small_forest() -> Forest:
    """Three trees of height 4 with random splits over three features, filled with 200 records."""
    rng = np.random.default_rng(9)
    feature, threshold = rng.integers(0, 3, (3, 15)), rng.random((3, 15))
    mass = np.zeros((3, 31), np.int64)
    for record in members_of(0):
        for tree in range(3):
            mass[tree, path(feature[tree], threshold[tree], record)] += 1
    return Forest(200, np.tile(np.linspace(0, 1, KNOTS), (3, 1)), feature, threshold, mass)


def path(feature: Any, threshold: Any, record: Any) -> list[int]:
    """The regions of one tree that a record falls into, from the root."""
    places = [0]
    while places[-1] < feature.size:
        place = places[-1]
        places.append(2 * place + (1 if record[feature[place]] < threshold[place] else 2))
    return places


def obvious_score(forest: Forest, record: Floats, itself: int = 0) -> float:
    """The score of one record of values already scaled, one tree and one region after the other."""
    records, total = forest.records - itself, 0
    for tree in range(forest.feature.shape[0]):
        for depth, place in enumerate(path(forest.feature[tree], forest.threshold[tree], record)):
            mass = int(forest.mass[tree, place]) - itself
            total += mass * 2**depth
            if mass < SPARSE * records:
                break
    return 1 - total / int(forest.feature.shape[0] * records * (2 ** (forest.height + 1) - 1))


def test_scores_are_those_of_an_obvious_walk() -> None:
    """Every record is scored as a walk through the trees does it, and a record of the sample as if it were not in it."""
    forest, rng = small_forest(), np.random.default_rng(1)
    numbers = rng.uniform(-0.5, 1.5, (3, 300))
    walked = [obvious_score(forest, record) for record in ranks(numbers, forest.knots).T]
    assert forest.score(numbers).tolist() == walked
    members, own = members_of(0).T, rng.random(200) < 0.5
    assert forest.score(members, own).tolist() == [
        obvious_score(forest, record, int(itself))
        for record, itself in zip(ranks(members, forest.knots).T, own, strict=True)
    ]


def test_ranks_are_those_of_the_reference() -> None:
    """Ranks are linear between quantiles, ties share their middle, and beyond the ends is 0 or 1, missing .5."""
    knots = np.array([[0.0, 1.0, 1.0, 1.0, 3.0], [7.0] * 5])
    values = np.array(
        [[-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 9.0, np.nan], [6.9, 7.0, 7.1, np.nan, np.inf, 0.0, 1e308, -1e308]]
    )
    expected = [[0.0, 0.0, 0.125, 0.5, 0.875, 1.0, 1.0, 0.5], [0.0, 0.5, 1.0, 0.5, 0.5, 0.0, 1.0, 0.0]]
    assert ranks(values, knots).tolist() == expected
    huge = np.linspace(-1, 1, 5)[None] * np.finfo(np.float64).max
    assert np.isfinite(ranks(np.linspace(-1, 1, 99)[None] * np.finfo(np.float64).max, huge)).all()


def test_missing_and_huge_values_have_scores() -> None:
    """A missing value counts as the usual one; what is not finite or overflows stays a score between 0 and 1."""
    forest = small_forest()
    odd = np.array([[np.nan, np.inf, 1e308, -1e308], [0.2] * 4, [0.3] * 4])
    found = forest.score(odd)
    assert found[0] == found[1] == forest.score(np.array([[0.5], [0.2], [0.3]])).item()
    assert ((found >= 0) & (found <= 1)).all()
    assert forest.score(np.empty((3, 0))).shape == (0,)


@given(st.integers(0, 20), st.lists(st.integers(0, 50), max_size=4))
def test_scores_do_not_depend_on_the_chopping(seed: int, cuts: list[int]) -> None:
    """The scores of a batch in pieces are the scores of the batch, bit for bit."""
    forest, numbers = small_forest(), np.random.default_rng(seed).random((3, 50))
    places = [0, *sorted(cuts), 50]
    pieces = [forest.score(numbers[:, start:end]) for start, end in pairwise(places)]
    assert np.concatenate(pieces).tolist() == forest.score(numbers).tolist()


def test_a_forest_survives_its_file() -> None:
    """Written as JSON and read again it gives the same scores and the same bytes."""
    forest = small_forest()
    content = msgspec.json.encode(forest.file())
    again = Forest.read(msgspec.json.decode(content, type=ForestFile))
    numbers = np.random.default_rng(2).random((3, 100))
    assert again.score(numbers).tolist() == forest.score(numbers).tolist()
    assert msgspec.json.encode(again.file()) == content


def test_a_forest_needs_at_least_two_features() -> None:
    """One feature alone has no joint behaviour."""
    with pytest.raises(ValueError, match="not allowed"):
        Forest.read(msgspec.structs.replace(small_forest().file(), features=1))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: {"height": TALLEST + 1}, "not allowed"),
        (lambda _: {"height": -1}, "not allowed"),
        (lambda _: {"trees": 1 << 40}, "not allowed"),
        (lambda _: {"trees": 2}, "forest.feature"),
        (lambda _: {"features": 2}, "forest.knots"),
        (lambda _: {"knots": pack(np.full((3, KNOTS), np.nan), "f8")}, "finite"),
        (lambda _: {"knots": pack(np.tile(np.arange(KNOTS)[::-1], (3, 1)), "f8")}, "ascending"),
        (lambda _: {"feature": pack(np.full(45, 3), "u2")}, "beyond the 3"),
        (lambda f: {"threshold": f.threshold[:-1]}, "forest.threshold"),
        (lambda f: {"mass": bytes(len(f.mass))}, "add up"),
        (lambda _: {"records": 201}, "add up"),
        (lambda f: {"records": 0, "mass": bytes(len(f.mass))}, "2 at least"),
    ],
)
def test_hostile_forests_are_refused(change: Callable[[ForestFile], dict[str, Any]], complaint: str) -> None:
    """What is cut, too large, points elsewhere or does not add up is no forest."""
    file = small_forest().file()
    with pytest.raises(ValueError, match=complaint):
        Forest.read(msgspec.structs.replace(file, **change(file)))


TIMES = st.lists(st.floats(0, 400), max_size=60).map(lambda times: np.array(times, np.float64))


@given(TIMES)
def test_the_first_record_of_each_newest_slot_is_taken(times: Floats) -> None:
    """One obvious step per record: it is taken when its slot is later than every slot before it."""
    newest, expected = -np.inf, []
    for time in times.tolist():
        slot = time // (100.0 / SLOTS)
        expected.append(slot > newest)
        newest = max(newest, slot)
    assert Sampler(100.0).take(times).tolist() == expected


@given(TIMES, st.lists(st.integers(0, 60), max_size=5), st.booleans())
def test_the_sample_does_not_depend_on_chopping_or_restarts(times: Floats, cuts: list[int], restart: bool) -> None:
    """In pieces, each by a new process or by the same one, the same records are taken as at once."""
    sampler, taken = Sampler(100.0), []
    places = [0, *sorted(min(cut, times.size) for cut in cuts), times.size]
    for start, end in pairwise(places):
        if restart:
            saved = sampler.state()
            sampler = Sampler(100.0)
            sampler.restore(saved)
        taken += sampler.take(times[start:end]).tolist()
    assert taken == Sampler(100.0).take(times).tolist()


def test_the_sample_is_bounded() -> None:
    """However many records come in whatever order, no window has more than `SLOTS` of them; a dense one has just that."""
    times = np.random.default_rng(0).uniform(0, 1000, 50_000)

    def per_window(times: Floats) -> list[int]:
        counts = np.bincount((times[Sampler(100.0).take(times)] // 100).astype(np.int64), minlength=10)
        return [int(count) for count in counts]

    assert max(per_window(times)) <= SLOTS
    assert per_window(np.sort(times)) == [SLOTS] * 10
