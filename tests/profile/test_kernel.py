"""The kernel scores what its slow definition scores, alike in any company, comes back from a file, and refuses damage."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.kernel import MOST_LANDMARKS, Kernel, KernelFile, gaussian
from poisonwatch.profile.packed import pack
from poisonwatch.profile.scorer import Inputs, Linear
from tests.profile.test_scorer import forest, linear, records

if TYPE_CHECKING:
    from poisonwatch.types import Floats

WIDTH, DIRECTIONS, LANDMARKS, SCORES = 6, 3, 9, 3


def single(values: Floats) -> Floats:
    """Values that float32 can hold."""
    return values.astype(np.float32).astype(np.float64)


def kernel(seed: int = 0, scores: int = SCORES) -> Kernel:
    """A random kernel of embeddings of six numbers."""
    generator = np.random.default_rng(seed)
    return Kernel(
        single(generator.normal(size=(WIDTH, DIRECTIONS)) / 2),
        single(generator.normal(size=(LANDMARKS, DIRECTIONS))),
        single(generator.normal(size=scores)),
        single(generator.normal(size=(scores, LANDMARKS))),
    )


def inputs(seed: int = 1, n: int = 40) -> Inputs:
    """Embeddings of which one is missing, one all zero and one infinite, without anything beside."""
    embeddings = np.random.default_rng(seed).normal(size=(WIDTH, n)).astype(np.float32)
    embeddings[:, 3], embeddings[:, 5], embeddings[0, 7] = np.nan, 0.0, np.inf
    return Inputs(np.empty((0, n)), np.empty((0, n), np.int32), None, embeddings)


def test_scores_are_those_of_an_obvious_loop() -> None:
    """Bump by bump; no embedding, no opinion; scores are rounded to a millionth."""
    made, given = kernel(), inputs()
    assert given.embeddings is not None
    found = made.scores(given)
    assert found.shape == (SCORES, given.n)
    assert np.flatnonzero(np.isnan(found).any(axis=0)).tolist() == [3, 5, 7]
    for n in set(range(given.n)) - {3, 5, 7}:
        point = given.embeddings[:, n].astype(np.float64) @ made.directions
        for score in range(SCORES):
            total = float(made.start[score])
            for landmark, height in zip(made.landmarks, made.weight[score], strict=True):
                total += float(height) * math.exp(-0.5 * float(np.square(point - landmark).sum()))
            assert found[score, n] == pytest.approx(total, abs=1e-6)


def test_far_from_all_landmarks_the_start_is_said() -> None:
    """Also of the largest numbers that an embedding can hold, without a warning."""
    made, given = kernel(), inputs()
    largest = np.full((WIDTH, 2), np.finfo(np.float32).max, np.float32)
    found = made.scores(Inputs(np.empty((0, 2)), np.empty((0, 2), np.int32), given.tokens, largest))
    np.testing.assert_allclose(found, made.start[:, None].repeat(2, axis=1), atol=1e-6)


@given(st.lists(st.integers(0, 1300), max_size=4))
def test_scores_do_not_depend_on_the_chopping(cuts: list[int]) -> None:
    """Bit for bit, also where blocks are filled otherwise."""
    made, whole = kernel(), inputs(2, 1300)
    assert whole.embeddings is not None
    parts = []
    for start, end in pairwise([0, *sorted(cuts), 1300]):
        n = end - start
        none = np.empty((0, n)), np.empty((0, n), np.int32)
        parts.append(made.scores(Inputs(*none, None, whole.embeddings[:, start:end])))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), made.scores(whole))


@pytest.mark.parametrize("beside", [linear(0, SCORES), forest(0, SCORES)[0]])
def test_what_stands_beside_is_added(beside: Any) -> None:
    """The scores are the kernel's and the other model's together, and the file brings back both."""
    others = records(4, 40)
    both = others._replace(embeddings=inputs().embeddings)
    made = dataclasses.replace(kernel(), beside=beside)
    expected = kernel().scores(both) + beside.scores(others)
    np.testing.assert_allclose(made.scores(both), expected, atol=1e-9)
    again = Kernel.read(msgspec.json.decode(msgspec.json.encode(made.file()), type=KernelFile))
    np.testing.assert_array_equal(again.scores(both), made.scores(both))


@given(st.integers(0, 50), st.integers(1, 5))
def test_a_kernel_comes_back_from_its_file(seed: int, scores: int) -> None:
    """Through JSON and back it says the same, bit for bit, and writes the same file."""
    made = kernel(seed, scores)
    content = msgspec.json.encode(made.file())
    again = Kernel.read(msgspec.json.decode(content, type=KernelFile))
    assert msgspec.json.encode(again.file()) == content
    np.testing.assert_array_equal(again.scores(inputs(seed)), made.scores(inputs(seed)))


def test_embeddings_of_another_width_are_refused() -> None:
    """None at all are too."""
    given = inputs()
    assert given.embeddings is not None
    for other in (None, given.embeddings[1:]):
        with pytest.raises(ValueError, match="embeddings of 6 numbers, not"):
            kernel().scores(given._replace(embeddings=other))


def test_likeness_is_within_bounds() -> None:
    """A point is wholly alike itself, whatever rounding says, and never more."""
    points = 1e6 + np.random.default_rng(5).normal(size=(50, 3))
    assert gaussian(points, points).max() <= 1.0
    np.testing.assert_allclose(np.diag(gaussian(points - 1e6, points - 1e6)), 1.0)


FILE = dataclasses.replace(kernel(), beside=linear(0, SCORES)).file()


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": 1 << 40},
        {"width": WIDTH + 1},
        {"directions": b""},
        {"directions": pack(np.zeros((WIDTH, 33)), "f4")},
        {"landmarks": b""},
        {"landmarks": FILE.landmarks[4:]},
        {"landmarks": pack(np.zeros((MOST_LANDMARKS + 1, DIRECTIONS)), "f4")},
        {"landmarks": pack(np.full((LANDMARKS, DIRECTIONS), np.nan), "f4")},
        {"start": b""},
        {"start": FILE.start[4:]},
        {"weight": FILE.weight[4:]},
        {"beside": linear(0, SCORES + 1).file()},
        {"beside": msgspec.structs.replace(linear(0, SCORES).file(), bits=99)},
    ],
)
def test_a_damaged_kernel_is_refused(change: dict[str, Any]) -> None:
    """Arrays that do not fit together, are not finite, or would eat the memory."""
    assert isinstance(Kernel.read(FILE).beside, Linear)
    with pytest.raises(ValueError, match="surrogate"):
        Kernel.read(msgspec.structs.replace(FILE, **change))
