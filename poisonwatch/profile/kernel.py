"""The surrogate of images and other embeddings: a smooth function of where an embedding lies among known ones. Pure.

Embeddings are compared by a Gaussian kernel with landmarks, which are embeddings of the reference (Nystroem: Williams and
Seeger, NIPS 2000), after a projection to the directions in which they differ most. What lies far from all landmarks
gets the mean. Features and words beside the embedding have a model of their own, of what the embedding leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from poisonwatch.profile.embedding import MOST_DIMENSIONS, usable
from poisonwatch.profile.packed import pack, unpack
from poisonwatch.profile.scorer import Inputs, Linear, LinearFile, Trees, TreesFile, require

if TYPE_CHECKING:
    from poisonwatch.types import Floats

MOST_LANDMARKS = 600
MOST_DIRECTIONS = 32

_BLOCK = 1 << 9
"""Records that are compared with the landmarks at once: what fits into a core's cache."""

_DECIMALS = 6
"""Scores are rounded: the last bits of a matrix product depend on how many records it was made for."""


class KernelFile(msgspec.Struct, frozen=True, kw_only=True, tag="kernel"):
    """`Kernel` as it is kept in a file: little-endian float32."""

    width: int
    directions: bytes
    landmarks: bytes
    start: bytes
    weight: bytes
    beside: TreesFile | LinearFile | None = None


@dataclass(frozen=True, slots=True)
class Kernel:
    """A sum of Gaussian bumps of embeddings, for s scores, and what `beside` adds, a model of all other inputs.

    `directions` (e, p) takes embeddings to where they are compared, in units in which a bump has the width 1;
    `landmarks` (l, p) are the middles of the bumps, `weight` (s, l) how high they are, `start` (s,) what is said
    far from all of them.
    """

    directions: Floats
    landmarks: Floats
    start: Floats
    weight: Floats
    beside: Trees | Linear | None = None

    def scores(self, inputs: Inputs) -> Floats:
        """What the model says of records: (s, n), NaN where the embedding is missing, all zero or not finite.

        Raises:
            ValueError: when the embeddings have another width, or the other inputs other columns.
        """
        embeddings = inputs.embeddings
        if embeddings is None or embeddings.shape[0] != self.directions.shape[0]:
            width = 0 if embeddings is None else embeddings.shape[0]
            msg = f"the surrogate sees embeddings of {self.directions.shape[0]} numbers, not {width}"
            raise ValueError(msg)
        there = np.flatnonzero(usable(embeddings))
        found = np.full((self.start.size, inputs.n), np.nan)
        for first in range(0, there.size, _BLOCK):
            part = there[first : first + _BLOCK]
            bumps = gaussian(embeddings[:, part].T.astype(np.float64) @ self.directions, self.landmarks)
            found[:, part] = (bumps @ self.weight.T + self.start).T
        found = found.round(_DECIMALS)
        return found if self.beside is None else found + self.beside.scores(inputs)

    def file(self) -> KernelFile:
        """What is kept in a file."""
        return KernelFile(
            width=self.directions.shape[0],
            directions=pack(self.directions, "f4"),
            landmarks=pack(self.landmarks, "f4"),
            start=pack(self.start, "f4"),
            weight=pack(self.weight, "f4"),
            beside=None if self.beside is None else self.beside.file(),
        )

    @classmethod
    def read(cls, file: KernelFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when the arrays do not fit together.
        """
        require(1 <= file.width <= MOST_DIMENSIONS, "the width of the embeddings")
        directions = unpack(file.directions, "f4", (file.width, -1), "surrogate: directions").astype(np.float64)
        require(1 <= directions.shape[1] <= MOST_DIRECTIONS, "the number of directions")
        landmarks = unpack(file.landmarks, "f4", (-1, directions.shape[1]), "surrogate: landmarks").astype(np.float64)
        require(1 <= len(landmarks) <= MOST_LANDMARKS, "the number of landmarks")
        start = unpack(file.start, "f4", (-1,), "surrogate: start").astype(np.float64)
        require(0 < start.size <= 256, "the number of scores")
        weight = unpack(file.weight, "f4", (start.size, len(landmarks)), "surrogate: weight").astype(np.float64)
        beside: Trees | Linear | None = None
        if file.beside is not None:
            beside = Trees.read(file.beside) if isinstance(file.beside, TreesFile) else Linear.read(file.beside)
            require(beside.start.size == start.size, "other scores beside the embedding")
        return cls(directions, landmarks, start, weight, beside)


def gaussian(points: Floats, landmarks: Floats) -> Floats:
    """exp(-|x - z|^2 / 2) of points (n, p) and landmarks (l, p): (n, l)."""
    squared = points @ landmarks.T
    squared *= 2.0
    squared -= np.square(points).sum(axis=1)[:, None]
    squared -= np.square(landmarks).sum(axis=1)
    squared *= 0.5
    return np.exp(np.minimum(squared, 0.0, out=squared), out=squared)
