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

from poisonwatch.profile.embedding import MOST_CLASSES, Centroids, CentroidsFile
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


@given(st.lists(st.integers(0, 60), max_size=4))
def test_distances_do_not_depend_on_the_chopping(cuts: list[int]) -> None:
    """The distances of a batch in pieces are those of the batch."""
    rng = np.random.default_rng(5)
    embeddings, codes = rng.normal(size=(4, 60)).astype(np.float32), rng.integers(0, 6, 60).astype(np.int32)
    centroids = small_centroids()
    pieces = [
        centroids.distance(embeddings[:, start:end], codes[start:end])
        for start, end in pairwise([0, *sorted(cuts), 60])
    ]
    assert np.concatenate(pieces).tolist() == centroids.distance(embeddings, codes).tolist()


def test_huge_embeddings_have_finite_distances() -> None:
    """The largest numbers that an embedding can hold neither overflow nor warn."""
    embeddings = np.full((4, 2), np.finfo(np.float32).max, np.float32)
    centroids = small_centroids()
    sharp = replace(centroids, whitening=1000 * centroids.whitening)
    assert np.isfinite(sharp.distance(embeddings, np.array([1, 9], np.int32))).all()


def test_centroids_survive_their_file() -> None:
    """Written as JSON and read again they give the same distances and the same bytes."""
    content = msgspec.json.encode(small_centroids().file())
    again = Centroids.read(msgspec.json.decode(content, type=CentroidsFile))
    assert msgspec.json.encode(again.file()) == content
    embeddings, codes = np.random.default_rng(8).normal(size=(4, 9)).astype(np.float32), np.arange(9, dtype=np.int32)
    assert again.distance(embeddings, codes).tolist() == small_centroids().distance(embeddings, codes).tolist()


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
    ],
)
def test_hostile_centroids_are_refused(change: Callable[[CentroidsFile], dict[str, Any]], complaint: str) -> None:
    """What is cut, too large, unordered or not finite makes no centroids."""
    file = small_centroids().file()
    with pytest.raises(ValueError, match=complaint):
        Centroids.read(msgspec.structs.replace(file, **change(file)))
