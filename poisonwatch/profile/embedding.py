"""Embeddings: how far a record lies from the centroid of the class that was predicted for it. Pure.

The distance is that of Mahalanobis with one covariance for all classes (Lee et al., NeurIPS 2018), shrunk towards
equal variances. Embeddings wider than `WIDEST` are first projected by random signs (Achlioptas 2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from poisonwatch.profile.packed import pack, unpack
from poisonwatch.profile.words import mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Codes, Floats, Ints

EMBEDDING_DISTANCE = "embedding.distance"
"""Name of the row that the distances make."""

WIDEST = 256
PROJECTED = 64
"""Wider embeddings than the first are projected to the second: one bit of a 64-bit number for each dimension."""

SHRINKAGE = 0.1
MOST_CLASSES = 50
FEWEST_OF_CLASS = 20
"""A class with fewer embeddings in the reference has no centroid of its own."""

MOST_DIMENSIONS = 1 << 16


class CentroidsFile(msgspec.Struct, frozen=True, kw_only=True):
    """Centroids as they are kept in a file: little-endian arrays, see `Centroids`."""

    width: int
    classes: list[int]
    counts: list[int]
    means: bytes
    whitening: bytes


def dimensions(width: int) -> int:
    """Dimensions in which embeddings of a width are compared."""
    return width if width <= WIDEST else PROJECTED


def reduced(embeddings: NDArray[np.float32]) -> Floats:
    """Embeddings (e, n) as points (n, dimensions(e)), projected where they are wide.

    The signs are the bits of mixed counters: random enough, and the same everywhere without a generator.
    """
    points: Floats = embeddings.T.astype(np.float64)
    width = points.shape[1]
    if width <= WIDEST:
        return points
    bits = mix(np.arange(1, width + 1, dtype=np.uint64))[:, None] >> np.arange(PROJECTED, dtype=np.uint64)
    signs = 1.0 - 2.0 * (bits & np.uint64(1)).astype(np.float64)
    return np.asarray(points @ signs / np.sqrt(PROJECTED))


@dataclass(frozen=True, slots=True)
class Centroids:
    """Where the embeddings of each class lie, for embeddings of `width` numbers compared in d dimensions.

    `classes` (k,) ascending codes with a centroid; `means` (k, d); `counts` (k,) embeddings behind each. Without classes
    there is a single centroid, of all. `whitening` (d, d) makes the pooled covariance the identity.
    """

    width: int
    classes: Ints
    counts: Ints
    means: Floats
    whitening: Floats

    def distance(self, embeddings: NDArray[np.float32], codes: Codes, own: NDArray[np.bool_] | None = None) -> Floats:
        """Distances (n,) of embeddings (e, n) to the centroid of the predicted class, by its code (n,).

        In standard deviations per dimension: about 1 for a usual record, whatever the width. Where the class has no
        centroid, the distance to the nearest one: a rare or new class over usual inputs is no odd input. NaN where the
        embedding is missing, all zero or not finite. `own` (n,) marks the records that the centroids were fitted on:
        each is measured as if it had not been among them.
        """
        usable = np.isfinite(embeddings).all(axis=0) & (embeddings != 0).any(axis=0)
        points = reduced(embeddings[:, usable]) @ self.whitening
        centres = self.means @ self.whitening
        place = self._place(codes[usable])
        own_class = place >= 0
        squared = np.square(points - centres[np.maximum(place, 0)]).sum(axis=1)
        if own is not None:
            squared = np.where(own[usable] & own_class, self._left_out(squared, np.maximum(place, 0)), squared)
        if not own_class.all():
            rest = points[~own_class]
            # Class by class: the differences to all centroids at once would not fit into memory.
            squared[~own_class] = np.min([np.square(rest - centre).sum(axis=1) for centre in centres], axis=0)
        distances = np.full(embeddings.shape[1], np.nan)
        # Rounded: the last bits of a matrix product depend on how many records it was made for.
        rounded = np.minimum(np.sqrt(squared / points.shape[1]), np.finfo(np.float32).max).astype(np.float32)
        distances[usable] = rounded
        return distances

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
        d = dimensions(file.width)
        return cls(
            width=file.width,
            classes=np.array(file.classes, np.int64),
            counts=np.array(file.counts, np.int64),
            means=unpack(file.means, "f4", (len(file.counts), d), "centroids.means").astype(np.float64),
            whitening=unpack(file.whitening, "f4", (d, d), "centroids.whitening").astype(np.float64),
        )
