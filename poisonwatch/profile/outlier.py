"""Multivariate outliers: half-space trees (Tan, Ting, Liu, IJCAI 2011) in NumPy, and which records they look at. Pure.

The trees are grown and filled offline, see `reference.fit_inputs`; here they only score. A record is an outlier as far
as the regions that it falls into hold few of the reference's records. Values are first turned into their ranks in the reference: that each is unusual by itself is
asked elsewhere, and of values scaled by their range the trees hardly see more than that.
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

KNOTS = 33
"""Quantiles of the reference, evenly spaced from its smallest to its largest value, between which ranks are linear."""

TALLEST = 12
MOST_TREES = 100
MOST_FEATURES = 1 << 16


class ForestFile(msgspec.Struct, frozen=True, kw_only=True):
    """A forest as it is kept in a file: little-endian arrays, see `Forest`."""

    records: int
    features: int
    trees: int
    height: int
    knots: bytes
    feature: bytes
    threshold: bytes
    mass: bytes


def ranks(numbers: Floats, knots: Floats) -> Floats:
    """Where each value (d, n) stands among the reference's quantiles (d, KNOTS): 0 to 1, and 0.5 for a missing one.

    A value that the reference has often stands in the middle of its own ranks.
    """
    position = np.linspace(0.0, 1.0, knots.shape[1])
    found = np.full(numbers.shape, 0.5)
    for row, (values, own) in enumerate(zip(numbers, knots, strict=True)):
        known = np.isfinite(values)
        # Among equal knots the one finds the last, the other, mirrored, the first.
        last = np.interp(values[known], own, position)
        first = 1.0 - np.interp(-values[known], -own[::-1], position)
        found[row, known] = (first + last) / 2
    return found


@dataclass(frozen=True, slots=True)
class Forest:
    """Half-space trees over `d` numerical features, filled with `records` records.

    `knots` (d, KNOTS) are the quantiles that make a value a rank from 0 to 1. `feature` and
    `threshold` (trees, 2^height - 1) are the splits and `mass` (trees, 2^(height+1) - 1) the records in every region:
    the children of region i are 2i + 1 (below the threshold) and 2i + 2.
    """

    records: int
    knots: Floats
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
        n = numbers.shape[1]
        scaled = ranks(numbers, self.knots).ravel()
        itself = np.zeros(n, np.int64) if own is None else own.astype(np.int64)
        others = self.records - itself
        feature, threshold, masses = self.feature.ravel(), self.threshold.ravel(), self.mass.ravel()
        tree = np.arange(self.feature.shape[0])[:, None]
        at_split, at_mass = tree * self.feature.shape[1], tree * self.mass.shape[1]
        region = np.zeros((tree.size, n), np.int64)
        inside = np.ones(region.shape, np.bool_)
        total = np.zeros(n, np.int64)
        for depth in range(self.height + 1):
            mass = masses.take(at_mass + region) - itself
            total += (mass * inside).sum(axis=0) << depth
            if depth < self.height:
                inside &= mass >= SPARSE * others
                split = at_split + region
                value = scaled.take(feature.take(split) * n + np.arange(n))
                region = 2 * region + 1 + (value >= threshold.take(split))
        return np.asarray(1.0 - total / (tree.size * others * (2 ** (self.height + 1) - 1)))

    def file(self) -> ForestFile:
        """What is kept in a file."""
        return ForestFile(
            records=self.records,
            features=self.knots.shape[0],
            trees=self.feature.shape[0],
            height=self.height,
            knots=pack(self.knots, "f8"),
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
            knots=unpack(file.knots, "f8", (features, KNOTS), "forest.knots"),
            feature=unpack(file.feature, "u2", (file.trees, inner), "forest.feature").astype(np.int64),
            threshold=unpack(file.threshold, "f8", (file.trees, inner), "forest.threshold"),
            mass=unpack(file.mass, "u4", (file.trees, 2 * inner + 1), "forest.mass").astype(np.int64),
        )
        if (forest.knots[:, 1:] < forest.knots[:, :-1]).any():
            msg = "forest.knots: not ascending"
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
