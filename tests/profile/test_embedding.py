"""Distances of embeddings: exact where they can be recomputed the obvious way, and they tell stamped images apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.embedding import FACTORS, MOST_CLASSES, WIDEST, Centroids, CentroidsFile, usable
from poisonwatch.profile.packed import pack

if TYPE_CHECKING:
    from collections.abc import Callable


def small_centroids(d: int = 4, seed: int = 0) -> Centroids:
    """Three classes with the codes 1, 2 and 5."""
    rng = np.random.default_rng(seed)
    whitening = (np.eye(d) + 0.3 * rng.normal(size=(d, d))).astype(np.float32).astype(np.float64)
    means = rng.normal(size=(3, d)).astype(np.float32).astype(np.float64)
    return Centroids(
        d, np.array([1, 2, 5]), np.array([40, 30, 30]), means, whitening, np.empty(0), np.array([1.0, 1.5, 2.0])
    )


def wide_centroids(seed: int = 0, width: int = WIDEST + 44) -> Centroids:
    """Three classes of wide embeddings, whose factors take away less than all of the squared distance."""
    rng = np.random.default_rng(seed)
    factors = np.linalg.qr(rng.normal(size=(width, FACTORS)))[0] * 0.9
    return Centroids(
        width,
        np.array([1, 2, 5]),
        np.array([40, 30, 30]),
        rng.normal(size=(3, width)).astype(np.float32).astype(np.float64),
        factors.astype(np.float32).astype(np.float64),
        rng.uniform(0.5, 2, width).astype(np.float32).astype(np.float64),
        np.array([1.0, 1.5, 2.0]),
    )


def obvious_distances(centroids: Centroids, embeddings: Any, codes: Any) -> list[float]:
    """One record and one centroid after the other."""
    found = []
    inverse = centroids.whitening @ centroids.whitening.T
    for embedding, code in zip(embeddings.T.astype(np.float64), codes.tolist(), strict=True):
        squared = [float((embedding - mean) @ inverse @ (embedding - mean)) for mean in centroids.means]
        own = centroids.classes.tolist().index(code) if code in centroids.classes else int(np.argmin(squared))
        usable = bool(np.isfinite(embedding).all() and embedding.any())
        found.append(float(np.sqrt(squared[own] / embedding.size)) if usable else np.nan)
    return found


def test_distances_are_those_of_an_obvious_loop() -> None:
    """Known classes are measured against their own centroid, others against the nearest; no embedding, no distance."""
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(4, 200)).astype(np.float32)
    embeddings[:, 7], embeddings[2, 9], embeddings[0, 11] = 0.0, np.nan, np.inf
    codes = rng.integers(0, 8, 200).astype(np.int32)
    found = small_centroids().distance(embeddings, codes)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7, 9, 11]
    with np.errstate(invalid="ignore"):
        expected = obvious_distances(small_centroids(), embeddings, codes)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_classes_everything_is_measured_against_the_one_centroid() -> None:
    """A model that predicts numbers, or classes too rare each, has one centroid whatever the code."""
    three = small_centroids()
    one = Centroids(
        4, np.empty(0, np.int64), np.array([100]), three.means[:1], three.whitening, np.empty(0), np.ones(1)
    )
    embeddings = np.random.default_rng(4).normal(size=(4, 20)).astype(np.float32)
    found = one.distance(embeddings, np.arange(20, dtype=np.int32))
    assert found.tolist() == three.distance(embeddings, np.full(20, 1, np.int32)).tolist()


def test_wide_distances_are_those_of_an_obvious_loop() -> None:
    """The squared distance in spreads without what each factor takes away, one record after the other."""
    rng, centroids = np.random.default_rng(9), wide_centroids()
    embeddings, codes = rng.normal(size=(centroids.width, 30)).astype(np.float32), np.tile([1, 2, 5], 10)
    expected = []
    for embedding, code in zip(embeddings.T.astype(np.float64), codes.tolist(), strict=True):
        difference = (embedding - centroids.means[[1, 2, 5].index(code)]) / centroids.spread
        taken = sum(float(difference @ factor) ** 2 for factor in centroids.whitening.T)
        expected.append(np.sqrt((float(difference @ difference) - taken) / centroids.width))
    np.testing.assert_allclose(centroids.distance(embeddings, codes.astype(np.int32)), expected, rtol=1e-6)


def test_embeddings_that_are_there() -> None:
    """Finite, and not all zero."""
    embeddings = np.ones((2, 4), np.float32)
    embeddings[:, 1], embeddings[0, 2], embeddings[1, 3] = 0.0, np.nan, 0.0
    assert usable(embeddings).tolist() == [True, False, False, True]


def test_what_is_beyond_the_limit_of_its_class() -> None:
    """Strictly beyond, of the class that was predicted; a class without a centroid has no limit."""
    codes = np.array([1, 1, 2, 5, 3, 9], np.int32)
    found = small_centroids().surpassed(np.array([1.0, 1.1, 1.1, 2.1, 9.0, 9.0]), codes)
    assert found.tolist() == [False, True, False, True, False, False]


@pytest.mark.parametrize("centroids", [small_centroids(), wide_centroids()])
@given(cuts=st.lists(st.integers(0, 600), max_size=4))
def test_distances_do_not_depend_on_the_chopping(centroids: Centroids, cuts: list[int]) -> None:
    """The distances of a batch in pieces are those of the batch, also beyond one block."""
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(centroids.width, 600)).astype(np.float32)
    codes = rng.integers(0, 6, 600).astype(np.int32)
    pieces = [
        centroids.distance(embeddings[:, start:end], codes[start:end])
        for start, end in pairwise([0, *sorted(cuts), 600])
    ]
    assert np.concatenate(pieces).tolist() == centroids.distance(embeddings, codes).tolist()


def test_huge_embeddings_have_finite_distances() -> None:
    """The largest numbers that an embedding can hold neither overflow nor warn."""
    embeddings = np.full((4, 2), np.finfo(np.float32).max, np.float32)
    centroids = small_centroids()
    sharp = replace(centroids, whitening=1000 * centroids.whitening)
    assert np.isfinite(sharp.distance(embeddings, np.array([1, 9], np.int32))).all()


@pytest.mark.parametrize("centroids", [small_centroids(), wide_centroids()])
def test_centroids_survive_their_file(centroids: Centroids) -> None:
    """Written as JSON and read again they give the same distances and the same bytes."""
    content = msgspec.json.encode(centroids.file())
    again = Centroids.read(msgspec.json.decode(content, type=CentroidsFile))
    assert msgspec.json.encode(again.file()) == content
    codes = np.arange(9, dtype=np.int32)
    embeddings = np.random.default_rng(8).normal(size=(centroids.width, 9)).astype(np.float32)
    distances = centroids.distance(embeddings, codes)
    assert again.distance(embeddings, codes).tolist() == distances.tolist()
    assert again.surpassed(distances, codes).tolist() == centroids.surpassed(distances, codes).tolist()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: {"width": 0}, "width"),
        (lambda _: {"width": 1 << 40}, "width"),
        (lambda _: {"width": 5}, "means"),
        (lambda _: {"classes": [1, 1, 5]}, "classes"),
        (lambda _: {"classes": [5, 2, 1]}, "classes"),
        (lambda _: {"classes": [-1, 2, 5]}, "classes"),
        (lambda _: {"classes": [1, 2, 1 << 70]}, "classes"),
        (lambda _: {"classes": list(range(MOST_CLASSES + 1))}, "classes"),
        (lambda _: {"counts": [40, 30]}, "counts"),
        (lambda _: {"counts": [40, 30, 1]}, "counts"),
        (lambda _: {"counts": [40, 30, 1 << 70]}, "counts"),
        (lambda f: {"means": f.means[:-4]}, "means"),
        (lambda f: {"whitening": f.whitening + f.whitening}, "whitening"),
        (lambda _: {"whitening": pack(np.full((4, 4), np.inf), "f4")}, "finite"),
        (lambda _: {"spread": pack(np.ones(4), "f4")}, "spread"),
        (lambda f: {"limits": f.limits[:-4]}, "limits"),
    ],
)
def test_hostile_centroids_are_refused(change: Callable[[CentroidsFile], dict[str, Any]], complaint: str) -> None:
    """What is cut, too large, unordered or not finite makes no centroids."""
    file = small_centroids().file()
    with pytest.raises(ValueError, match=complaint):
        Centroids.read(msgspec.structs.replace(file, **change(file)))


@pytest.mark.parametrize("spread", [np.ones(4), np.zeros(300)])
def test_hostile_wide_centroids_are_refused(spread: Any) -> None:
    """Spreads of another width, and those that would divide by zero."""
    with pytest.raises(ValueError, match="spread"):
        Centroids.read(msgspec.structs.replace(wide_centroids().file(), spread=pack(spread, "f4")))
