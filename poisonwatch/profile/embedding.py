"""Embeddings: how far a record lies from the centroid of the class that was predicted for it. Pure.

The distance is that of Mahalanobis with one covariance for all classes (Lee et al., NeurIPS 2018), shrunk towards
equal variances. Of embeddings wider than `WIDEST` (images, above all) it is that of a factor analysis: correlated in a
few directions only. A patch of few pixels where the reference hardly has any stands out there, which a projection of all
to few numbers would hide: of 3 x 3 patches in MNIST that finds 45 %, this all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from poisonwatch.profile.packed import pack, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Codes, Floats, Ints

EMBEDDING_DISTANCE = "embedding.distance"
"""Name of the row that the distances make."""

WIDEST = 256
FACTORS = 32
"""Embeddings wider than the first are compared by so many factors."""

SHRINKAGE = 0.1
MOST_CLASSES = 50
FEWEST_OF_CLASS = 20
"""A class with fewer embeddings in the reference has no centroid of its own."""

MOST_DIMENSIONS = 1 << 16

_BLOCK = 1 << 9
"""Embeddings that are measured at once, which bounds the memory whatever their number."""


class CentroidsFile(msgspec.Struct, frozen=True, kw_only=True):
    """Centroids as they are kept in a file: little-endian arrays, see `Centroids`."""

    width: int
    classes: list[int]
    counts: list[int]
    means: bytes
    whitening: bytes
    spread: bytes
    limits: bytes


def usable(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which embeddings (e, n) are there: finite, and not all zero."""
    return np.asarray(np.isfinite(embeddings).all(axis=0) & (embeddings != 0).any(axis=0))


@dataclass(frozen=True, slots=True)
class Centroids:
    """Where the embeddings of each class lie, for embeddings of `width` numbers.

    `classes` (k,) ascending codes with a centroid; `means` (k, width); `counts` (k,) embeddings behind each. Without
    classes there is a single centroid, of all. `whitening` (width, width) makes the pooled covariance the identity.
    Of wide embeddings `spread` (width,) has the standard deviations that are left beside the factors (else it is empty),
    and `whitening` (width, FACTORS) is what the factors take from the squared distance in these. `limits` (k,) are distances that
    are `surpassed` by few of the reference's.
    """

    width: int
    classes: Ints
    counts: Ints
    means: Floats
    whitening: Floats
    spread: Floats
    limits: Floats

    def distance(self, embeddings: NDArray[np.float32], codes: Codes, own: NDArray[np.bool_] | None = None) -> Floats:
        """Distances (n,) of embeddings (e, n) to the centroid of the predicted class, by its code (n,).

        In standard deviations per dimension: about 1 for a usual record, whatever the width. Where the class has no
        centroid, the distance to the nearest one: a rare or new class over usual inputs is no odd input. NaN where the
        embedding is missing, all zero or not finite. `own` (n,) marks the records that the centroids were fitted on:
        each is measured as if it had not been among them.
        """
        distances = np.full(embeddings.shape[1], np.nan)
        there = np.flatnonzero(usable(embeddings))
        centres = self._whitened(self.means)
        for first in range(0, there.size, _BLOCK):
            part = there[first : first + _BLOCK]
            points = self._whitened(embeddings[:, part].T.astype(np.float64))
            place = self._place(codes[part])
            own_class = place >= 0
            squared = self._squared(points - centres[np.maximum(place, 0)])
            if own is not None:
                squared = np.where(own[part] & own_class, self._left_out(squared, np.maximum(place, 0)), squared)
            if not own_class.all():
                rest = points[~own_class]
                # Class by class: the differences to all centroids at once would be many.
                squared[~own_class] = np.min([self._squared(rest - centre) for centre in centres], axis=0)
            # Rounded: the last bits of a matrix product depend on how many records it was made for.
            rounded = np.minimum(np.sqrt(squared / self.width), np.finfo(np.float32).max).astype(np.float32)
            distances[part] = rounded
        return distances

    def surpassed(self, distances: Floats, codes: Codes) -> NDArray[np.bool_]:
        """Which distances (n,) are beyond the limit of the predicted class; none of a class without a centroid."""
        place = self._place(codes)
        return np.asarray((place >= 0) & (distances > self.limits[np.maximum(place, 0)]))

    def _whitened(self, points: Floats) -> Floats:
        """Points (n, width) in coordinates in which distances are measured."""
        return np.asarray(points / self.spread if self.spread.size else points @ self.whitening)

    def _squared(self, differences: Floats) -> Floats:
        """Squared lengths (n,) of differences (n, width) of whitened points (Woodbury 1950)."""
        squared = np.square(differences).sum(axis=1)
        if not self.spread.size:
            return np.asarray(squared)
        return np.asarray(np.maximum(squared - np.square(differences @ self.whitening).sum(axis=1), 0.0))

    def _place(self, codes: Codes) -> Ints:
        """Which centroid belongs to each code, -1 for none."""
        if not self.classes.size:
            return np.zeros(codes.size, np.int64)
        place = np.minimum(np.searchsorted(self.classes, codes), self.classes.size - 1)
        return np.where(self.classes[place] == codes, place, -1)

    def _left_out(self, squared: Floats, place: Ints) -> Floats:
        """Squared distances as they would be without the record itself (Sherman, Morrison 1950).

        Without a record at distance r its centroid moves away by r/(count - 1), and the covariance loses its outer
        product; that the total number falls by one, and the shrinkage's target a little, is left out.
        """
        away = self.counts[place] / (self.counts[place] - 1.0)
        lost = (1 - SHRINKAGE) * away * squared / self.counts.sum()
        return np.asarray(away**2 * squared / np.maximum(1.0 - lost, SHRINKAGE**2))

    def file(self) -> CentroidsFile:
        """What is kept in a file."""
        return CentroidsFile(
            width=self.width,
            classes=self.classes.tolist(),
            counts=self.counts.tolist(),
            means=pack(self.means, "f4"),
            whitening=pack(self.whitening, "f4"),
            spread=pack(self.spread, "f4"),
            limits=pack(self.limits, "f4"),
        )

    @classmethod
    def read(cls, file: CentroidsFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when these are no centroids.
        """
        if not 1 <= file.width <= MOST_DIMENSIONS:
            msg = f"centroids.width: {file.width} is not between 1 and {MOST_DIMENSIONS}"
            raise ValueError(msg)
        if len(file.classes) > MOST_CLASSES or file.classes != sorted({*file.classes}):
            msg = f"centroids.classes: not ascending, or more than {MOST_CLASSES}"
            raise ValueError(msg)
        if not all(0 <= code < 1 << 31 for code in file.classes):
            msg = "centroids.classes: a code is out of range"
            raise ValueError(msg)
        if len(file.counts) != max(1, len(file.classes)) or not all(2 <= count < 1 << 53 for count in file.counts):
            msg = "centroids.counts: one for each centroid is needed, and 2 at least"
            raise ValueError(msg)
        wide = file.width > WIDEST
        spread = unpack(file.spread, "f4", (file.width if wide else 0,), "centroids.spread").astype(np.float64)
        if (spread <= 0).any():
            msg = "centroids.spread: not every number is positive"
            raise ValueError(msg)
        shape = (file.width, FACTORS if wide else file.width)
        means = unpack(file.means, "f4", (len(file.counts), file.width), "centroids.means")
        return cls(
            width=file.width,
            classes=np.array(file.classes, np.int64),
            counts=np.array(file.counts, np.int64),
            means=means.astype(np.float64),
            whitening=unpack(file.whitening, "f4", shape, "centroids.whitening").astype(np.float64),
            spread=spread,
            limits=unpack(file.limits, "f4", (len(file.counts),), "centroids.limits").astype(np.float64),
        )
