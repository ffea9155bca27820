"""What is learned offline about inputs: known words, centroids of embeddings, half-space trees.

All of it is deterministic, and bounded by the caller's sample. River is imported only by who grows trees.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.profile.embedding import FACTORS, FEWEST_OF_CLASS, MOST_CLASSES, SHRINKAGE, WIDEST, Centroids, usable
from poisonwatch.profile.outlier import KNOTS, Forest, ranks
from poisonwatch.profile.words import LARGEST_VOCABULARY, Vocabulary, mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.profile.words import Hashes, Tokens
    from poisonwatch.types import Codes, Floats, Ints

MOST_COUNTED = 1 << 20
"""Distinct words that are counted at once; what was met least is forgotten when there are more."""

FEWEST_RECORDS = 100
"""Fewer embeddings or numerical records than this make neither centroids nor trees."""

BEYOND = 0.02
"""Share of the reference's embeddings that lie beyond the limit of their class."""

ROUNDS = 5
"""Rounds in which principal directions are looked for."""

MOST_GROWN = 2000
"""Records that trees are filled with, at most."""

TREES = 25
HEIGHT = 8
SEED = 1


class WordCounts:
    """In how many records of the reference each word stands."""

    def __init__(self) -> None:
        self._words: Hashes = np.empty(0, np.uint64)
        self._records: Ints = np.empty(0, np.int64)

    def add(self, tokens: Tokens) -> None:
        """Count the words of a batch, once per record."""
        order = np.lexsort((tokens.row, tokens.word))
        word, row = tokens.word[order], tokens.row[order]
        # The first of the equal (word, record) pairs that stand next to each other.
        new = np.ones(word.size, np.bool_)
        new[1:] = (word[1:] != word[:-1]) | (row[1:] != row[:-1])
        words, records = np.unique(word[new], return_counts=True)
        both, place = np.unique(np.concatenate((self._words, words)), return_inverse=True)
        counts = np.zeros(both.size, np.int64)
        np.add.at(counts, place, np.concatenate((self._records, records)))
        if both.size > MOST_COUNTED:
            kept = counts > np.partition(counts, both.size - MOST_COUNTED - 1)[both.size - MOST_COUNTED - 1]
            both, counts = both[kept], counts[kept]
        self._words, self._records = both, counts

    def vocabularies(self) -> tuple[Vocabulary, Vocabulary]:
        """The vocabulary for live records, and the one that the reference's own records are to be asked about.

        Known is a word that at least two records have, and more where more than `LARGEST_VOCABULARY` words would be
        known. A record of the reference must not count itself: for it one record more is needed, which makes its share
        of unseen words what it would be if the vocabulary had been learned from all other records.
        """
        least = 2
        if self._records.size > LARGEST_VOCABULARY:
            least = max(least, int(np.partition(self._records, -LARGEST_VOCABULARY - 1)[-LARGEST_VOCABULARY - 1]) + 1)
        return Vocabulary(self._words[self._records >= least]), Vocabulary(self._words[self._records > least])


def fit_centroids(embeddings: NDArray[np.float32], codes: Codes) -> Centroids | None:
    """Centroids of embeddings (e, n) by the code of the predicted class (n,), or None where too few are usable.

    One centroid per class with at least `FEWEST_OF_CLASS` embeddings (the most frequent `MOST_CLASSES`), else a single one
    of all; one covariance around them, shrunk towards equal variances by `SHRINKAGE`.
    """
    there = usable(embeddings)
    points, of_class = embeddings[:, there].T.astype(np.float64), codes[there]
    if of_class.size < FEWEST_RECORDS:
        return None
    classes, counts = np.unique(of_class, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    kept = np.sort(most[counts[most] >= FEWEST_OF_CLASS])
    if kept.size:
        classes = classes[kept]
        fitted = np.isin(of_class, classes)
        points, place = points[fitted], np.searchsorted(classes, of_class[fitted])
    else:
        classes, place = classes[:0], np.zeros(of_class.size, np.int64)
    counts = np.bincount(place)
    means = np.stack([points[place == index].mean(axis=0) for index in range(counts.size)]).astype(np.float32)
    whitening, spread = (_factors if points.shape[1] > WIDEST else _whitening)(points - means[place])
    return Centroids(
        width=embeddings.shape[0],
        classes=classes.astype(np.int64),
        counts=counts,
        means=means.astype(np.float64),
        whitening=whitening.astype(np.float32).astype(np.float64),
        spread=spread.astype(np.float32).astype(np.float64),
        limits=np.full(counts.size, np.finfo(np.float32).max, np.float64),
    )


def _whitening(residuals: Floats) -> tuple[Floats, Floats]:
    """What makes the shrunk covariance of residuals (n, d) the identity, (d, d), and no spread."""
    covariance = residuals.T @ residuals / len(residuals)
    typical = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * typical * np.eye(len(covariance))
    return np.linalg.inv(np.linalg.cholesky(shrunk)).T, np.empty(0)


def _factors(residuals: Floats) -> tuple[Floats, Floats]:
    """Whitening (e, FACTORS) and spread (e,) of `Centroids`, of residuals (n, e): principal factors, one round.

    With loadings V, variances w and what they leave of each number, psi, the covariance is V w V' + psi, whose inverse
    is psi^-1 - psi^-1 V (w^-1 + V' psi^-1 V)^-1 V' psi^-1.
    """
    loadings = principal(residuals, FACTORS)
    along = residuals @ loadings
    left = np.square(residuals - along @ loadings.T).mean(axis=0)
    spread = np.sqrt(left + SHRINKAGE * max(float(left.mean()), 1e-12))
    scaled = loadings / spread[:, None]
    inner = np.diag(1.0 / np.maximum(np.square(along).mean(axis=0), 1e-12)) + scaled.T @ scaled
    return scaled @ np.linalg.inv(np.linalg.cholesky(inner)).T, spread


def principal(points: Floats, count: int) -> Floats:
    """So many directions (e, count), or e where that is less, in which centred points (n, e) vary most, the most first.

    By subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) from signs that are the bits of mixed
    counters: random enough, and the same everywhere without a generator.
    """
    width = points.shape[1]
    tried = min(width, count + 8)
    bits = mix(np.arange(1, width + 1, dtype=np.uint64))[:, None] >> np.arange(tried, dtype=np.uint64)
    basis = 1.0 - 2.0 * (bits & np.uint64(1)).astype(np.float64)
    for _ in range(ROUNDS):
        basis = np.linalg.qr(points.T @ (points @ basis))[0]
    values, turn = np.linalg.eigh((points @ basis).T @ (points @ basis))
    return np.asarray(basis @ turn[:, np.argsort(-values, kind="stable")[: min(count, width)]])


def honest_distances(embeddings: NDArray[np.float32], codes: Codes, centroids: Centroids, folds: int = 5) -> Floats:
    """Distances (n,) of embeddings (e, n) that `centroids` were fitted on, as a fit without each would give them.

    Factors adapt to their records in more ways than can be taken back: there the others are fitted again, fold by fold.
    """
    n = codes.size
    if embeddings.shape[0] <= WIDEST:
        return centroids.distance(embeddings, codes, np.ones(n, np.bool_))
    found = np.full(n, np.nan)
    for fold in range(folds):
        mine = np.arange(n) % folds == fold
        others = fit_centroids(embeddings[:, ~mine], codes[~mine])
        found[mine] = (others or centroids).distance(embeddings[:, mine], codes[mine])
    return found


def with_limits(centroids: Centroids, distances: Floats, codes: Codes) -> Centroids:
    """Centroids with the limits that a share of `BEYOND` of honest distances (n,) surpasses, class by class.

    A class that has few distances is not given a smaller limit than all have together.
    """
    known = ~np.isnan(distances)
    if not known.any():
        return centroids
    pooled = float(np.quantile(distances[known], 1.0 - BEYOND, method="higher"))
    limits = np.full(centroids.counts.size, pooled)
    for index, code in enumerate(centroids.classes.tolist()):
        mine = distances[known & (codes == code)]
        if mine.size:
            own = float(np.quantile(mine, 1.0 - BEYOND, method="higher"))
            limits[index] = own if mine.size >= FEWEST_RECORDS else max(own, pooled)
    return dataclasses.replace(centroids, limits=limits.astype(np.float32).astype(np.float64))


def sampled(n: int) -> Ints:
    """The records that trees are filled with: at most `MOST_GROWN` of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_GROWN)).astype(np.int64))


def grow_forest(numbers: Floats) -> Forest | None:
    """Half-space trees filled with the records `sampled` of numbers (d, n), or None where they cannot be grown.

    At least two features must vary and `FEWEST_RECORDS` records be there. The trees are those of river's `HalfSpaceTrees`,
    which draws all splits when it meets its first record (they depend on the seed and the features only) and counts
    masses over a window: here one window of the whole sample.
    """
    from river.anomaly import HalfSpaceTrees  # noqa: PLC0415 - optional, and only who learns a reference needs it

    sample = numbers[:, sampled(numbers.shape[1])]
    known = np.isfinite(sample)
    if sample.shape[0] < 2 or sample.shape[1] < FEWEST_RECORDS or not known.any(axis=1).all():
        return None
    # Quantiles that are values themselves: between the largest numbers nothing can be interpolated.
    wanted = np.linspace(0.0, 1.0, KNOTS)
    knots = np.stack(
        [np.quantile(row[here], wanted, method="inverted_cdf") for row, here in zip(sample, known, strict=True)]
    )
    varying = np.flatnonzero(knots[:, 0] < knots[:, -1])
    if varying.size < 2:
        return None
    scaled = ranks(sample, knots)[varying]
    grown: Any = HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=sample.shape[1], seed=SEED)
    for record in scaled.T.tolist():
        grown.learn_one(dict(zip(varying.tolist(), record, strict=True)))
    inner = 2**HEIGHT - 1
    feature, threshold = np.empty((TREES, inner), np.int64), np.empty((TREES, inner))
    mass = np.empty((TREES, 2 * inner + 1), np.int64)
    for tree, root in enumerate(grown.trees):
        level: list[Any] = [root]
        place = 0
        while level:
            for node in level:
                mass[tree, place] = node.r_mass
                if place < inner:
                    feature[tree, place], threshold[tree, place] = node.feature, node.threshold
                place += 1
            level = [child for node in level for child in node.children] if place <= inner else []
    return Forest(sample.shape[1], knots, feature, threshold, mass)
