"""The surrogate: a small model of a model's normal answers, from the inputs alone. Pure.

It is fitted on the reference (`reference.fit_surrogate`) and asked of every record afterwards. Where it says another
class by more than half of its own 90 % error, the answer counts as flipped. How much more confident the model is of its
answer than the surrogate expects gives the surprise, one minus a conformal p-value per predicted class (Vovk, Gammerman
and Shafer 2005, "Mondrian" conformal prediction) against residuals of records that the surrogate was not fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from poisonwatch.profile.kernel import Kernel, KernelFile
from poisonwatch.profile.odds import logit
from poisonwatch.profile.packed import pack, unpack
from poisonwatch.profile.scorer import MOST_COLUMNS, Inputs, Linear, LinearFile, Trees, TreesFile, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Floats, Ints

    Flags = NDArray[np.bool_]

LARGEST_SCORE = 5.0
"""The model's log-odds are kept within this of 0: beyond (a confidence of 0.9933) they say more of rounding than of the input."""

SURPRISING = 0.98
"""An answer is surprising from this surprise on: one of fifty is, of the answers of the reference."""

FEWEST_OF_CLASS = 100
"""A class with fewer residuals than this is compared with those of all classes."""

EXACT_TAIL = 100
TABLE = 400
"""Residuals that are kept of a class: this many of the largest, and this many in all."""


class ResidualsFile(msgspec.Struct, frozen=True, kw_only=True):
    """`Residuals` as they are kept in a file."""

    n: int
    value: bytes
    above: bytes


class SurrogateFile(msgspec.Struct, frozen=True, kw_only=True):
    """`Surrogate` as it is kept in a file."""

    model: TreesFile | LinearFile | KernelFile
    classes: list[int]
    class_count: int
    margin: float
    residuals: list[ResidualsFile]


@dataclass(frozen=True, slots=True)
class Residuals:
    """Residuals of `n` records of the reference, thinned: p-values from it are right or slightly too large.

    `value` (m,) ascending; `above` (m,) how many residuals are larger than the value kept before, n for the first.
    """

    n: int
    value: Floats
    above: Ints

    @classmethod
    def of(cls, residuals: Floats) -> Self:
        """Keep the largest `EXACT_TAIL` residuals and of the others so many, evenly, that it makes `TABLE`."""
        ordered = np.sort(residuals)
        n = ordered.size
        bulk = np.linspace(0, max(0, n - EXACT_TAIL - 1), TABLE - EXACT_TAIL).astype(np.int64)
        kept = np.unique(np.concatenate((bulk, np.arange(max(0, n - EXACT_TAIL), n)))) if n > TABLE else np.arange(n)
        value = np.unique(ordered[kept])
        above = n - np.searchsorted(ordered, value[:-1], "right")
        return cls(n, value, np.concatenate(([n], above)).astype(np.int64)[: value.size])

    def surprise(self, residuals: Floats) -> Floats:
        """One minus the conformal p-values (n,) of residuals: (1 + how many are as large) / (1 + all)."""
        place = np.searchsorted(self.value, residuals)
        as_large = np.append(self.above, 0)[place]
        return 1.0 - (1.0 + as_large) / (1.0 + self.n)

    def file(self) -> ResidualsFile:
        """What is kept in a file."""
        return ResidualsFile(n=self.n, value=pack(self.value, "f8"), above=pack(self.above, "i8"))

    @classmethod
    def read(cls, file: ResidualsFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when it is no such table.
        """
        value = unpack(file.value, "f8", (-1,), "surrogate: residuals")
        above = unpack(file.above, "i8", value.shape, "surrogate: residuals above")
        require(value.size <= file.n, "more residuals than there were")
        require((np.diff(value) > 0).all() and (np.diff(above) < 0).all(), "residuals in disorder")
        require(not value.size or (above[0] == file.n and above[-1] > 0), "residuals of another number of records")
        return cls(file.n, value, above)


@dataclass(frozen=True, slots=True)
class Surrogate:
    """The model of normal answers, and what its errors are.

    `classes` (k,) ascending are the classes, of `class_count`, that the reference has often enough to have an opinion
    on; `margin` >= 0 is by how much another class must win for a flip: half the 90 % quantile of the absolute error of
    `excess` on records it was not fitted on, with a floor;
    `residuals` has one table per class of `classes`, without values where the reference logs no confidence.
    """

    model: Trees | Linear | Kernel
    classes: Ints
    class_count: int
    margin: float
    residuals: tuple[Residuals, ...]

    def scores(self, inputs: Inputs) -> Floats:
        """Log-odds (class_count, n) of every class, -inf for classes without an opinion, NaN where inputs are missing.

        Raises:
            ValueError: when the inputs have other columns than those of the reference.
        """
        found = np.full((self.class_count, inputs.n), -np.inf)
        found[self.classes] = both_classes(self.model.scores(inputs))
        return found

    def compare(self, scores: Floats, predicted: Ints, confidence: Floats) -> tuple[Flags, Floats]:
        """Which answers (n,) are flipped, and how surprising each is, in [0, 1).

        `predicted` (n,) are classes from 0; `confidence` (n,) of that class, NaN where there is none. An answer that is no
        class of the reference, or of one too rare there, was never to be expected of these inputs, nor was it ever to be
        excluded: there is no opinion on it, it is not flipped and its surprise is NaN, as where scores are NaN. That such answers come at all is
        counted by the class rates. Without a confidence the surprise is NaN.
        """
        place = np.searchsorted(self.classes, predicted)
        place = np.minimum(place, self.classes.size - 1)
        known = self.classes[place] == predicted
        mine = scores[self.classes]
        flipped = known & (excess(mine, place) > self.margin)
        residual = residuals(mine, place, confidence)
        surprise = np.full(predicted.shape, np.nan)
        for k, table in enumerate(self.residuals):
            asked = known & (place == k) & ~np.isnan(residual)
            if table.n and asked.any():
                surprise[asked] = table.surprise(residual[asked])
        return flipped, surprise

    def file(self) -> SurrogateFile:
        """What is kept in a file."""
        return SurrogateFile(
            model=self.model.file(),
            classes=self.classes.tolist(),
            class_count=self.class_count,
            margin=self.margin,
            residuals=[table.file() for table in self.residuals],
        )

    @classmethod
    def read(cls, file: SurrogateFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when its parts do not fit together.
        """
        classes = np.array(file.classes, np.int64)
        require(classes.size > 1 and (np.diff(classes) > 0).all(), "fewer than two classes, or in disorder")
        require(classes[0] >= 0 and classes[-1] < file.class_count <= MOST_COLUMNS, "a class that is not there")
        require(0 <= file.margin < np.inf, "the margin")
        model = _read(file.model)
        require(model.start.size == (1 if classes.size == 2 else classes.size), "scores for other classes")
        require(len(file.residuals) == classes.size, "residuals of other classes")
        return cls(model, classes, file.class_count, file.margin, tuple(map(Residuals.read, file.residuals)))


def _read(file: TreesFile | LinearFile | KernelFile) -> Trees | Linear | Kernel:
    """The model of whichever kind the file holds."""
    if isinstance(file, KernelFile):
        return Kernel.read(file)
    return Trees.read(file) if isinstance(file, TreesFile) else Linear.read(file)


def both_classes(scores: Floats) -> Floats:
    """Scores (k, n) of all classes: of two classes only the score (1, n) of the second is modelled."""
    return np.concatenate((-scores, scores)) if len(scores) == 1 else scores


def excess(scores: Floats, place: Ints) -> Floats:
    """By how much the best other class beats the class `place` (n,) in scores (k, n): log-odds (n,)."""
    at = np.arange(place.size)
    others = scores.copy()
    others[place, at] = -np.inf
    return np.asarray(others.max(axis=0) - scores[place, at])


def residuals(scores: Floats, place: Ints, confidence: Floats) -> Floats:
    """How much more confident the model is of class `place` (n,) than scores (k, n) say, in log-odds (n,)."""
    return np.clip(logit(confidence), -LARGEST_SCORE, LARGEST_SCORE) - scores[place, np.arange(place.size)]
