"""Fitting the surrogate on a reference, with scikit-learn (the extra `fit`); scoring needs NumPy only.

Everything that is said of the reference's own records (quality, flips, surprise) is said by models that were fitted
without them: of five folds, texts with the same words in the same fold. Same input, same arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from poisonwatch.errors import BaselineError, MissingExtraError
from poisonwatch.profile.odds import logit
from poisonwatch.profile.scorer import LEAVES, Inputs, Linear, Splits, Trees, buckets, standardised
from poisonwatch.profile.surrogate import (
    FEWEST_OF_CLASS,
    LARGEST_SCORE,
    Residuals,
    Surrogate,
    both_classes,
    excess,
    residuals,
)
from poisonwatch.profile.words import Tokens, mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Floats, Ints

    Flags = NDArray[np.bool_]

FOLDS = 5

FEWEST_TO_LEARN = 20
"""A class that the reference predicts less often gets no opinion."""

MOST_CLASSES = 12
"""The most frequent classes that get an opinion, for every one costs trees."""

MOST_FITTED = 20_000
"""Records that one model is fitted on; all others of a larger reference only get its opinion."""

CHECKED = 200
"""Records on which the exported trees must say what scikit-learn says."""

LEAST_MARGIN = 1.0
"""By so much, in log-odds, another class must win at least: an honest retrain moves answers that are nearer to the border.

Measured on Adult with a logistic regression, which the surrogate fits within 0.4: a fifth of poisoned labels has 2.3 times
the flips of an honest retrain on other data at that margin, and 4.5 to 7 times at this one.
"""

UNSPOKEN = 0.95
"""The confidence of a model that logs none."""

SHRINKAGE = 10.0
"""Records of the overall mean that are added to those of a category when it is encoded."""

SETTINGS: dict[str, Any] = {
    "max_leaf_nodes": LEAVES,
    "max_bins": 64,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}
ONE_SCORE = {"max_iter": 200, "learning_rate": 0.15}
MANY_SCORES = {"max_iter": 60, "learning_rate": 0.3}
"""How the trees are grown: one score can afford more, and slower, trees than many."""

PENALTY = 0.3
"""Ridge penalty of the linear kind."""

BITS = 16
BITS_OF_MANY = 14
FEW_CLASSES = 4
"""Buckets for words as powers of two, up to this many classes and above."""

FAIREST_SHARE = 0.25
"""Of the answers that the most frequent class gets wrong, a surrogate that is of use must get this share right."""

LOWEST_SEES = 0.3
"""A surrogate must see this share of wrong answers."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What the surrogate is worth, measured on the `n` records of the reference, each by a model fitted without it.

    `agreement` is the share whose answer the surrogate gives too, `majority` that of the most frequent answer,
    `correlation` the mean over classes of that between its log-odds and the model's (0 where either is constant),
    `flip_rate` the share that counts as flipped. `sees` is the share of wrong answers that would: every answer replaced
    in turn by each other class, averaged over the classes replaced, so that a frequent class does not speak for all.
    """

    kind: str
    n: int
    agreement: float
    majority: float
    correlation: float
    flip_rate: float
    sees: float

    @property
    def blind(self) -> bool:
        """Whether its flips say nothing.

        So it is when it does not beat the most frequent class clearly: by `FAIREST_SHARE` of what there is to win and by
        three standard errors; or when it would miss most wrong answers.
        """
        to_win = 1.0 - self.majority
        needed = max(FAIREST_SHARE * to_win, 3.0 * float(np.sqrt(self.majority * to_win / max(1, self.n))))
        return self.agreement - self.majority < needed or self.sees < LOWEST_SEES


@dataclass(frozen=True, slots=True)
class Fitted:
    """A surrogate, its quality, and what it says of the reference's own records out of fold.

    `flipped` (n,) and `surprise` (n,) as `Surrogate.compare` gives them.
    """

    surrogate: Surrogate
    quality: Quality
    flipped: Flags
    surprise: Floats


def fit(
    inputs: Inputs, code_counts: tuple[int, ...], predicted: Ints, confidence: Floats, class_count: int
) -> Fitted | None:
    """Fit the surrogate of a reference: `linear` where there are words, else `trees`.

    `inputs` are its n records, `code_counts` (c,) how many codes each column of codes has, `predicted` (n,) classes from
    0 (what is not below `class_count` is none), `confidence` (n,) of the predicted class, NaN where it is not known.

    Returns:
        None when there is nothing to learn: no inputs, or not two classes that are frequent enough.

    Raises:
        MissingExtraError: when scikit-learn is not installed.
        BaselineError: when its version keeps trees in a way that is not known.
    """
    counts = np.bincount(predicted[(predicted >= 0) & (predicted < class_count)], minlength=class_count)
    frequent = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    classes = np.sort(frequent[counts[frequent] >= FEWEST_TO_LEARN])
    words = inputs.tokens is not None and inputs.tokens.word.size > 0
    if classes.size < 2 or not (words or inputs.numbers.size or inputs.codes.size):
        return None
    learn = fit_linear if words else fit_trees
    place = np.minimum(np.searchsorted(classes, predicted), classes.size - 1)
    known = classes[place] == predicted
    learnt = np.flatnonzero(known)
    chosen, place, sure = _select(inputs, learnt), place[learnt], confidence[learnt]
    targets = _targets(place, sure, classes.size)
    modelled = targets[1:] if classes.size == 2 else targets
    generator = np.random.default_rng(0)
    fold = _folds(chosen, generator)
    scores = np.empty(targets.shape)
    with _one_thread():
        for k in range(FOLDS):
            of_fold = np.flatnonzero(fold == k)
            if of_fold.size:
                others = _at_most(np.flatnonzero(fold != k), generator)
                model = learn(_select(chosen, others), code_counts, modelled[:, others])
                scores[:, of_fold] = both_classes(model.scores(_select(chosen, of_fold)))
        everything = _at_most(np.arange(learnt.size), generator)
        model = learn(_select(chosen, everything), code_counts, modelled[:, everything])
    over = excess(scores, place)
    margin = max(LEAST_MARGIN, round(0.5 * float(np.quantile(np.abs(over - excess(targets, place)), 0.9)), 9))
    residual = residuals(scores, place, sure).round(9)
    table = _residuals_by_class(residual, place, classes.size)
    flipped, surprise = np.zeros(predicted.shape, np.bool_), np.full(predicted.shape, np.nan)
    flipped[learnt] = over > margin
    surprise[learnt] = _own_surprise(residual, place, classes.size)
    quality = Quality(
        kind="linear" if words else "trees",
        n=learnt.size,
        agreement=float((over < 0).mean()),
        majority=float(counts.max() / learnt.size),
        correlation=round(float(np.mean([_correlation(*pair) for pair in zip(scores, targets, strict=True)])), 9),
        flip_rate=float((over > margin).mean()),
        sees=_sees(scores, place, margin),
    )
    return Fitted(Surrogate(model, classes, class_count, margin, table), quality, flipped, surprise)


def _targets(place: Ints, confidence: Floats, classes: int) -> Floats:
    """The model's log-odds (k, n): the confidence of the predicted class, the rest evenly spread over the others."""
    sure = np.where(np.isnan(confidence), UNSPOKEN, confidence)
    rest = np.broadcast_to((1.0 - sure) / (classes - 1), (classes, sure.size)).copy()
    rest[place, np.arange(sure.size)] = sure
    # Rounded: processors differ in the last bit of a logarithm, and the same log must give the same fit on all.
    return np.asarray(np.clip(logit(rest), -LARGEST_SCORE, LARGEST_SCORE).round(9))


def _select(inputs: Inputs, at: Ints) -> Inputs:
    """The inputs of some records, `at` ascending."""
    if inputs.tokens is None:
        return Inputs(inputs.numbers[:, at], inputs.codes[:, at])
    word, row = inputs.tokens
    new = np.full(inputs.n, -1)
    new[at] = np.arange(at.size)
    kept = new[row] >= 0
    return Inputs(inputs.numbers[:, at], inputs.codes[:, at], Tokens(word[kept], new[row[kept]]))


def _folds(inputs: Inputs, generator: np.random.Generator) -> Ints:
    """A fold for every record (n,): texts with the same set of words share theirs, everything else falls as it falls."""
    group = np.arange(inputs.n)
    if inputs.tokens is not None and inputs.tokens.word.size:
        pairs = np.unique(np.stack((inputs.tokens.row.astype(np.uint64), inputs.tokens.word)), axis=1)
        of_set = np.zeros(inputs.n, np.uint64)
        np.add.at(of_set, pairs[0].astype(np.int64), mix(pairs[1]))
        group = np.unique(of_set, return_inverse=True)[1]
    return np.asarray(generator.permutation(group.max() + 1)[group] % FOLDS)


def _at_most(records: Ints, generator: np.random.Generator) -> Ints:
    """So many of the records, ascending, as one model is fitted on."""
    if records.size <= MOST_FITTED:
        return records
    return np.sort(generator.choice(records, MOST_FITTED, replace=False))


def fit_trees(inputs: Inputs, code_counts: tuple[int, ...], targets: Floats) -> Trees:
    """Boosted trees for each score (s, n).

    Categories stand in the order of their mean target, as is best for one split (Fisher 1958).
    """
    try:
        import sklearn  # noqa: PLC0415
        from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415
    except ImportError as error:
        raise _missing() from error
    settings = SETTINGS | (ONE_SCORE if len(targets) == 1 else MANY_SCORES)
    encoding, encoded = _encode(inputs.codes, code_counts, targets)
    numbers = np.where(np.isfinite(inputs.numbers), inputs.numbers, np.nan)
    start: list[float] = []
    values: list[Floats] = []
    splits: list[tuple[int, int, float, int, int, int]] = []
    said = []
    for k, target in enumerate(targets):
        seen = np.concatenate((numbers, *(e[k, row][None] for e, row in zip(encoding, inputs.codes, strict=True))))
        model = HistGradientBoostingRegressor(**settings).fit(seen.T, target)
        for (tree,) in model._predictors:  # noqa: SLF001 - there is no public way to the trees
            of_leaves, of_splits = _flatten(tree.nodes, len(values))
            values.append(of_leaves)
            splits += of_splits
        start.append(float(np.ravel(model._baseline_prediction)[0]))  # noqa: SLF001
        said.append(model.predict(seen[:, :CHECKED].T))
    columns = zip(*splits, strict=True) if splits else ((),) * len(Splits._fields)
    kinds = (np.int32, np.int32, np.float64, np.uint8, np.uint8, np.uint8)
    flat = Splits(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))
    trees = Trees(len(numbers), code_counts, np.array(start), np.array(values), flat, encoding, encoded)
    first = np.arange(min(CHECKED, inputs.n))
    if not np.allclose(trees.scores(_select(inputs, first)), said, atol=1e-6):
        msg = (
            f"the trees of scikit-learn {sklearn.__version__} are laid out in a way that is not known: install another"
        )
        raise BaselineError(msg)
    return trees


def _flatten(nodes: NDArray[Any], number: int) -> tuple[Floats, list[tuple[int, int, float, int, int, int]]]:
    """Leaf values (LEAVES,) from left to right, and the splits as `Splits` has them, of one tree of scikit-learn's."""
    values = np.zeros(LEAVES)
    splits: list[tuple[int, int, float, int, int, int]] = []
    met = 0

    def below(at: int) -> int:
        nonlocal met
        node = nodes[at]
        if node["is_leaf"]:
            values[met] = node["value"]
            met += 1
            return 1 << (met - 1)
        left, right = below(int(node["left"])), below(int(node["right"]))
        # A split of missing from all other values has the threshold infinity.
        threshold = min(float(node["num_threshold"]), float(np.finfo(np.float64).max))
        splits.append((number, int(node["feature_idx"]), threshold, int(node["missing_go_to_left"]), left, right))
        return left | right

    below(0)
    return values, splits


def _encode(
    codes: NDArray[np.integer], code_counts: tuple[int, ...], targets: Floats
) -> tuple[tuple[Floats, ...], tuple[Flags, ...]]:
    """For each column of codes their mean targets (s, code count), shrunk to the overall one, and which were seen."""
    mean = targets.mean(axis=1, keepdims=True)
    encoding, encoded = [], []
    for row, count in zip(codes, code_counts, strict=True):
        many = np.bincount(row, minlength=count)
        total = np.stack([np.bincount(row, target, count) for target in targets])
        encoding.append((total + SHRINKAGE * mean) / (many + SHRINKAGE))
        encoded.append(np.broadcast_to(many > 0, total.shape))
    return tuple(encoding), tuple(encoded)


def fit_linear(inputs: Inputs, code_counts: tuple[int, ...], targets: Floats) -> Linear:
    """Ridge regression of each score (s, n) on words, standardised numbers and codes."""
    try:
        from scipy import sparse  # noqa: PLC0415
        from sklearn.linear_model import Ridge  # noqa: PLC0415
    except ImportError as error:
        raise _missing() from error
    n = inputs.n
    bits = BITS if len(targets) <= FEW_CLASSES else BITS_OF_MANY
    word, row = inputs.tokens if inputs.tokens is not None else (np.empty(0, np.uint64), np.empty(0, np.int64))
    share = 1.0 / np.sqrt(np.maximum(1, np.bincount(row, minlength=n)))
    words = sparse.csr_matrix((share[row], (row, buckets(word, bits))), shape=(n, 1 << bits))
    finite = np.where(np.isfinite(inputs.numbers), inputs.numbers, np.nan)
    counted = np.maximum(1, (~np.isnan(finite)).sum(axis=1))
    centre = np.nansum(finite, axis=1) / counted
    spread = np.sqrt(np.nansum((finite - centre[:, None]) ** 2, axis=1) / counted)
    scale = np.where(spread > 0, spread, 1.0)
    first = np.concatenate(([0], np.cumsum(code_counts))).astype(np.int64)
    at = inputs.codes.astype(np.int64) + first[:-1, None]
    of_codes = sparse.csr_matrix(
        (np.ones(at.size), (np.tile(np.arange(n), len(at)), at.ravel())), shape=(n, int(first[-1]))
    )
    numbers = standardised(finite, centre, scale)
    design = sparse.hstack((words, sparse.csr_matrix(numbers.T), of_codes), "csr")
    model = Ridge(alpha=PENALTY, solver="sparse_cg", tol=1e-6).fit(design, targets.T)
    weight = np.atleast_2d(model.coef_)
    last = (1 << bits) + len(numbers)
    return Linear(
        code_counts,
        bits,
        np.broadcast_to(model.intercept_, (len(targets),)).astype(np.float64),
        weight[:, : 1 << bits].astype(np.float32),
        centre,
        scale,
        weight[:, 1 << bits : last].copy(),
        weight[:, last:].copy(),
    )


def _residuals_by_class(residual: Floats, place: Ints, classes: int) -> tuple[Residuals, ...]:
    """The tables of residuals, of all classes together for those that have few."""
    known = ~np.isnan(residual)
    pooled = Residuals.of(residual[known])
    own = [residual[known & (place == k)] for k in range(classes)]
    return tuple(Residuals.of(mine) if mine.size >= FEWEST_OF_CLASS else pooled for mine in own)


def _own_surprise(residual: Floats, place: Ints, classes: int) -> Floats:
    """One minus the conformal p-value (n,) of each record among the others of its class, or of all where those are few."""
    surprise = np.full(residual.shape, np.nan)
    known = ~np.isnan(residual)
    everyone = np.sort(residual[known])
    for k in range(classes):
        mine = known & (place == k)
        among = np.sort(residual[mine]) if mine.sum() >= FEWEST_OF_CLASS else everyone
        # The record itself is among them, as the one that is added in the p-value.
        as_large = among.size - np.searchsorted(among, residual[mine], "left")
        surprise[mine] = 1.0 - as_large / max(1, among.size)
    return surprise


def _sees(scores: Floats, place: Ints, margin: float) -> float:
    """Which share of wrong answers would be flips; see `Quality`."""
    classes = len(scores)
    seen = np.zeros((classes, place.size), np.bool_)
    for k in range(classes):
        seen[k] = (excess(scores, np.full_like(place, k)) > margin) & (place != k)
    share = seen.sum(axis=0) / (classes - 1)
    return float(np.mean([share[place == k].mean() for k in range(classes)]))


def _correlation(scores: Floats, targets: Floats) -> float:
    """Pearson's correlation, 0 where either is constant."""
    a, b = scores - scores.mean(), targets - targets.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _one_thread() -> Any:
    """On few records, threads wait for each other longer than they work, and their sums depend on their number."""
    try:
        # Only libraries that are loaded already can be limited.
        import sklearn.ensemble  # noqa: F401, PLC0415
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn
    except ImportError as error:
        raise _missing() from error
    return threadpool_limits(1)


def _missing() -> MissingExtraError:
    return MissingExtraError('fitting the surrogate needs scikit-learn: `pip install "poisonwatch[fit]"`')
