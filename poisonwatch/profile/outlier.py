"""Multivariate outliers: half-space trees (Tan, Ting, Liu, IJCAI 2011) in NumPy, and which records they look at. Pure.

The trees are grown and filled offline, see `reference.fit_inputs`; here they only score. A record is an outlier as far
as the regions that it falls into hold few of the reference's records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np

from poisonwatch.profile.packed import pack, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Floats, Ints

    Bools = NDArray[np.bool_]

OUTLIER = "outlier"
"""Name of the row that the scores make."""

SLOTS = 256
"""Records scored per window, at most: the first in each slot of time."""

SPARSE = 0.1
"""A region with less than this share of the reference is not looked at more closely."""

TALLEST = 12
MOST_TREES = 100
MOST_FEATURES = 1 << 16


class ForestFile(msgspec.Struct, frozen=True, kw_only=True):
    """A forest as it is kept in a file: little-endian arrays, see `Forest`."""

    records: int
    features: int
    trees: int
    height: int
    low: bytes
    span: bytes
    middle: bytes
    feature: bytes
    threshold: bytes
    mass: bytes


@dataclass(frozen=True, slots=True)
class Forest:
    """Half-space trees over `d` numerical features, filled with `records` records.

    A value is scaled to (value - low) / span, with `middle` in place of a missing one; all three (d,). `feature` and
    `threshold` (trees, 2^height - 1) are the splits and `mass` (trees, 2^(height+1) - 1) the records in every region:
    the children of region i are 2i + 1 (below the threshold) and 2i + 2.
    """

    records: int
    low: Floats
    span: Floats
    middle: Floats
    feature: Ints
    threshold: Floats
    mass: Ints

    @property
    def height(self) -> int:
        """Splits between the root and a leaf."""
        return int(self.feature.shape[1]).bit_length()

    def score(self, numbers: Floats, own: Bools | None = None) -> Floats:
        """How much of an outlier each record is, 0 to 1: (n,) from the features' values (d, n).

        `own` (n,) marks the records that the forest was filled with: each is scored as if it had not been.
        """
        known = np.where(np.isfinite(numbers), numbers, self.middle[:, None])
        scaled = (known - self.low[:, None]) / self.span[:, None]
        n, trees = numbers.shape[1], np.arange(self.feature.shape[0])[:, None]
        itself = np.zeros(n, np.int64) if own is None else own.astype(np.int64)
        others = self.records - itself
        region = np.zeros((trees.size, n), np.int64)
        inside = np.ones(region.shape, np.bool_)
        total = np.zeros(n, np.int64)
        for depth in range(self.height + 1):
            mass = self.mass[trees, region] - itself
            total += np.where(inside, mass << depth, 0).sum(axis=0)
            if depth < self.height:
                inside &= mass >= SPARSE * others
                right = scaled[self.feature[trees, region], np.arange(n)] >= self.threshold[trees, region]
                region = 2 * region + 1 + right
        return 1.0 - total / (trees.size * others * (2 ** (self.height + 1) - 1))

    def file(self) -> ForestFile:
        """What is kept in a file."""
        return ForestFile(
            records=self.records,
            features=self.low.size,
            trees=self.feature.shape[0],
            height=self.height,
            low=pack(self.low, "f4"),
            span=pack(self.span, "f4"),
            middle=pack(self.middle, "f4"),
            feature=pack(self.feature, "u2"),
            threshold=pack(self.threshold, "f8"),
            mass=pack(self.mass, "u4"),
        )

    @classmethod
    def read(cls, file: ForestFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when it is no forest.
        """
        if not (1 <= file.height <= TALLEST and 1 <= file.trees <= MOST_TREES and 2 <= file.features <= MOST_FEATURES):
            msg = f"forest: {file.trees} trees of height {file.height} over {file.features} features are not allowed"
            raise ValueError(msg)
        inner, features = 2**file.height - 1, file.features
        forest = cls(
            records=file.records,
            low=unpack(file.low, "f4", (features,), "forest.low").astype(np.float64),
            span=unpack(file.span, "f4", (features,), "forest.span").astype(np.float64),
            middle=unpack(file.middle, "f4", (features,), "forest.middle").astype(np.float64),
            feature=unpack(file.feature, "u2", (file.trees, inner), "forest.feature").astype(np.int64),
            threshold=unpack(file.threshold, "f8", (file.trees, inner), "forest.threshold"),
            mass=unpack(file.mass, "u4", (file.trees, 2 * inner + 1), "forest.mass").astype(np.int64),
        )
        if (forest.span <= 0).any():
            msg = "forest.span: not every span is positive"
            raise ValueError(msg)
        if (forest.feature >= features).any():
            msg = f"forest.feature: a split asks for a feature beyond the {features}"
            raise ValueError(msg)
        parts = forest.mass[:, 1:]
        if (
            file.records < 2
            or (forest.mass[:, 0] != file.records).any()
            or (parts[:, ::2] + parts[:, 1::2] != forest.mass[:, :inner]).any()
        ):
            msg = f"forest.mass: the regions do not add up to {file.records} records, 2 at least"
            raise ValueError(msg)
        return forest


class Sampler:
    """Which records are looked at: the first in each slot of time, in the order of the stream.

    A slot is a `SLOTS`-th of a window of `window` seconds, so no window has more than `SLOTS` of them; a record before
    the newest slot is not looked at. Whether a record is depends only on the records before it.
    """

    def __init__(self, window: float) -> None:
        self._width = window / SLOTS
        self._newest = -math.inf

    def take(self, time: Floats) -> Bools:
        """For each record, by its event time (n,), whether it is looked at: (n,)."""
        slot = np.floor(time / self._width)
        newest = np.maximum.accumulate(np.concatenate(([self._newest], slot)))
        self._newest = float(newest[-1])
        return np.asarray(slot > newest[:-1])

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"newest": self._newest}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._newest = state["newest"]
