"""What a model of a model's answers would say without a group of records: exact, for as many groups as one likes.

A ridge regression of log-odds y on features with the kernel K (n, n), refitted without the group g, misses the group's by
(A_gg)^-1 (A y)_g, where A = (K + penalty I)^-1 (Cook and Weisberg 1982, for a group): one inversion serves all groups. So nothing
that the group taught can speak for it, as it does when weights are only subtracted from a fit that the group took part in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from poisonwatch.profile.odds import logit
from poisonwatch.profile.surrogate import LARGEST_SCORE, excess
from poisonwatch.reference.fit_models import one_thread
from poisonwatch.reference.fit_surrogate import beats

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Floats, Ints

PENALTY = 0.3
CONSTANT = 9.0
"""What is added to the kernel for a constant, which so is hardly penalised."""

UNSPOKEN = 0.95
"""The confidence of a model that logs none."""

FEWEST_OF_CLASS = 20
"""A class with fewer records is not one that answers could be overturned to."""

CLEARLY = 0.45
QUARTILE = 0.25
LEAST_MARGIN = 0.5
"""An answer is overturned when another class wins by so much of what a quarter of that class's own records win by at most.

So a class that speaks for itself wherever nothing speaks, as the most frequent one does, must say more than that. On short
messages with spam as the rare class it lowers the largest benign share from 0.38 (a fixed margin of 2) to 0.14, and keeps that
of triggers above 0.3 in both directions.
"""


@dataclass(frozen=True, slots=True)
class Refit:
    """A ridge regression of log-odds of k classes on n records, and what is said of records when they are left out.

    `inverse` (n, n) is A, `targets` (k, n) are the log-odds, `place` (n,) the answers from 0, `error` (k, n) is A y, and
    `margin` (k, k) by how much an answer (row) must lose to another (column) to be overturned, infinite where it cannot be.
    """

    inverse: Floats
    targets: Floats
    place: Ints
    error: Floats
    margin: Floats

    @classmethod
    def of(cls, kernel: Floats, place: Ints, confidence: Floats, classes: int) -> Self:
        """Fit; `kernel` (n, n) is overwritten, `confidence` (n,) is that of the answer, NaN where it is not known.

        Raises:
            MissingExtraError: when scikit-learn, which limits the threads, is not installed.
        """
        from scipy.linalg.lapack import dpotrf, dpotri  # noqa: PLC0415

        targets = _log_odds(place, confidence, classes)
        kernel += CONSTANT
        kernel[np.diag_indices_from(kernel)] += PENALTY
        with one_thread():
            # Of a symmetric matrix the transpose is the same in the order that LAPACK works in place on.
            factor, failed = dpotrf(kernel.T, lower=1, overwrite_a=1)
            inverse, failed_too = dpotri(factor, lower=1, overwrite_c=1)
            # The penalty makes it positive definite, unless a number is not finite.
            if failed or failed_too:
                msg = "the records' kernel cannot be inverted"
                raise ArithmeticError(msg)
            lower = np.tril(inverse)
            inverse = lower + np.tril(lower, -1).T
            error = targets @ inverse
        alone = targets - error / np.diag(inverse)
        return cls(inverse, targets, place, error, _margins(alone, place))

    @property
    def alone(self) -> Floats:
        """What is said of each record by a fit without it: log-odds (k, n)."""
        return self.targets - self.error / np.diag(self.inverse)

    @property
    def explains(self) -> bool:
        """Whether the other records tell the answers clearly better than the most frequent answer does."""
        right = float((self.alone.argmax(axis=0) == self.place).mean())
        majority = float(np.bincount(self.place).max() / self.place.size)
        return beats(right, majority, self.place.size)

    def without(self, group: Ints) -> Floats:
        """What a fit without a group (g,) says of it: log-odds (k, g)."""
        from scipy.linalg import solve  # noqa: PLC0415

        missed = solve(self.inverse[np.ix_(group, group)], self.error[:, group].T, assume_a="pos", overwrite_a=True)
        return self.targets[:, group] - missed.T

    def lost(self, scores: Floats, group: Ints) -> Floats:
        """By how much more than their margin the answers of records (g,) lose in scores (k, g); positive is overturned."""
        place = self.place[group]
        others = scores.copy()
        others[place, np.arange(group.size)] = -np.inf
        return np.asarray(excess(scores, place) - self.margin[place, others.argmax(axis=0)])

    def overturned(self, group: Ints) -> Bools:
        """Which answers of a group (g,) are overturned by a fit without it."""
        return np.asarray(self.lost(self.without(group), group) > 0)


def _log_odds(place: Ints, confidence: Floats, classes: int) -> Floats:
    """The model's log-odds (k, n): the confidence of the answer, the rest evenly spread over the others."""
    sure = np.where(np.isnan(confidence), UNSPOKEN, confidence)
    odds = np.broadcast_to((1.0 - sure) / (classes - 1), (classes, sure.size)).copy()
    odds[place, np.arange(sure.size)] = sure
    return np.asarray(np.clip(logit(odds), -LARGEST_SCORE, LARGEST_SCORE).round(9))


def _margins(alone: Floats, place: Ints) -> Floats:
    classes = len(alone)
    found = np.full((classes, classes), np.inf)
    for other in range(classes):
        of = alone[:, place == other]
        if of.shape[1] >= FEWEST_OF_CLASS:
            wins = np.quantile(of[other] - of, QUARTILE, axis=1)
            found[:, other] = np.maximum(LEAST_MARGIN, CLEARLY * wins)
    return found
