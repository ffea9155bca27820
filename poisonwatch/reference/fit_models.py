"""The models that a surrogate can be, fitted with scikit-learn (the extra `fit`); scoring needs NumPy only.

Each learns several scores at once from the inputs of records. Same input, same arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.errors import BaselineError, MissingExtraError
from poisonwatch.profile.kernel import MOST_DIRECTIONS, MOST_LANDMARKS, Kernel, gaussian
from poisonwatch.profile.scorer import LEAVES, Inputs, Linear, Splits, Trees, buckets, standardised
from poisonwatch.profile.words import Tokens
from poisonwatch.reference.fit_inputs import principal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Floats, Ints

    Flags = NDArray[np.bool_]

CHECKED = 200
"""Records on which the exported trees must say what scikit-learn says."""

SHRINKAGE = 10.0
"""Records of the overall mean that are added to those of a category when it is encoded."""

SETTINGS: dict[str, Any] = {
    "max_leaf_nodes": LEAVES,
    "max_bins": 250,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}
ONE_SCORE = {"max_iter": 300, "learning_rate": 0.15}
MANY_SCORES = {"max_iter": 60, "learning_rate": 0.3}
"""How the trees are grown: one score can afford more, and slower, trees than many.

Measured on Adult (9,000 answers, others held back) as correlation of log-odds: boosted trees .985, random forest .962; with
200 trees .983 and .960, with 400 .986 and .963, with 64 bins .973 and .958, with trees of 31 leaves .980 and .963.
"""

PENALTY = 0.3
"""Ridge penalty of the linear kind."""

BITS = 16
BITS_OF_MANY = 14
FEW_CLASSES = 4
"""Buckets for words as powers of two, up to this many classes and above."""

NARROWNESS = 0.5
"""Width of a bump as a share of the median distance between embeddings.

Measured on MNIST (2,000 answers of a random forest, others held back, 512 landmarks): correlation of log-odds at .35, .5 and .7
is .949, .951 and .946, the share of wrong answers that are seen .92, .95 and .95; of a perceptron .89, .93 and .93.
"""

PENALTIES = (0.03, 0.3, 3.0, 30.0, 300.0)
"""Ridge penalties of which the one with the least error out of sample is taken."""

JITTER = 1e-3
"""What is added to how alike a landmark is to itself: landmarks that stand close together would cancel each other."""

COMPARED = 500
"""Embeddings between which distances are looked at."""


def learn(kind: str, inputs: Inputs, code_counts: tuple[int, ...], targets: Floats) -> Trees | Linear | Kernel:
    """The model of a kind for each score (s, n) of records: `trees`, `linear` or `kernel`."""
    if kind == "kernel":
        return fit_kernel(inputs, code_counts, targets)
    return fit_linear(inputs, code_counts, targets) if kind == "linear" else fit_trees(inputs, code_counts, targets)


def fit_trees(inputs: Inputs, code_counts: tuple[int, ...], targets: Floats) -> Trees:
    """Boosted trees for each score (s, n).

    Categories stand in the order of their mean target, as is best for one split (Fisher 1958).
    """
    try:
        import sklearn  # noqa: PLC0415
        from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415
    except ImportError as error:
        raise missing() from error
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
    if not np.allclose(trees.scores(select(inputs, first)), said, atol=1e-6):
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
        raise missing() from error
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


def fit_kernel(inputs: Inputs, code_counts: tuple[int, ...], targets: Floats) -> Kernel:
    """Kernel ridge regression of each score (s, n) on embeddings, which all must be there, by Nystroem's method.

    What it leaves open out of sample (in closed form, Allen 1974) is what the other inputs are asked for.
    """
    embeddings = inputs.embeddings
    assert embeddings is not None  # noqa: S101 - asked for by those who know
    points = embeddings.T.astype(np.float64)
    directions = principal(points - points.mean(axis=0), MOST_DIRECTIONS)
    some = points[_evenly(inputs.n, COMPARED)] @ directions
    between = np.sqrt(np.square(some[:, None] - some[None]).sum(axis=2))
    typical = float(np.median(between[np.triu_indices(len(some), 1)])) if len(some) > 1 else 0.0
    directions = _single(directions / max(NARROWNESS * typical, 1e-12))
    places = points @ directions
    landmarks = _single(places[_evenly(inputs.n, MOST_LANDMARKS)])
    among = gaussian(landmarks, landmarks) + JITTER * np.eye(len(landmarks))
    back = np.linalg.inv(np.linalg.cholesky(among)).T
    bumps = gaussian(places, landmarks) @ back
    centre, mean = bumps.mean(axis=0), targets.mean(axis=1, keepdims=True)
    bumps -= centre
    strength, axes = np.linalg.eigh(bumps.T @ bumps)
    strength = np.maximum(strength, 0.0)
    rotated = bumps @ axes
    wanted = (targets - mean) @ rotated
    best, left = np.empty(0), targets - mean
    error = np.inf
    for penalty in PENALTIES:
        weight = wanted / (strength + penalty)
        leverage = 1.0 / inputs.n + np.square(rotated) @ (1.0 / (strength + penalty))
        open_ = (targets - mean - weight @ rotated.T) / np.maximum(1.0 - leverage, 1e-3)
        if float(np.square(open_).mean()) < error:
            error, best, left = float(np.square(open_).mean()), weight @ axes.T, open_
    beside = _beside(inputs, code_counts, left)
    return Kernel(directions, landmarks, _single(mean[:, 0] - best @ centre), _single(best @ back.T), beside)


def _beside(inputs: Inputs, code_counts: tuple[int, ...], left: Floats) -> Trees | Linear | None:
    """The model of the inputs beside embeddings, of what those left open (s, n); None where there are none."""
    if inputs.tokens is not None and inputs.tokens.word.size:
        return fit_linear(inputs, code_counts, left)
    return fit_trees(inputs, code_counts, left) if inputs.numbers.size or inputs.codes.size else None


def _evenly(n: int, most: int) -> Ints:
    """At most so many of n records, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _single(values: Floats) -> Floats:
    """Values as a file keeps them."""
    return values.astype(np.float32).astype(np.float64)


def select(inputs: Inputs, at: Ints) -> Inputs:
    """The inputs of some records, `at` ascending."""
    embeddings = None if inputs.embeddings is None else inputs.embeddings[:, at]
    if inputs.tokens is None:
        return Inputs(inputs.numbers[:, at], inputs.codes[:, at], None, embeddings)
    word, row = inputs.tokens
    new = np.full(inputs.n, -1)
    new[at] = np.arange(at.size)
    kept = new[row] >= 0
    return Inputs(inputs.numbers[:, at], inputs.codes[:, at], Tokens(word[kept], new[row[kept]]), embeddings)


def one_thread() -> Any:
    """On few records, threads wait for each other longer than they work, and their sums depend on their number."""
    try:
        # Only libraries that are loaded already can be limited.
        import sklearn.ensemble  # noqa: F401, PLC0415
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn
    except ImportError as error:
        raise missing() from error
    return threadpool_limits(1)


def missing() -> MissingExtraError:
    """What says which extra to install."""
    return MissingExtraError('fitting the surrogate needs scikit-learn: `pip install "poisonwatch[fit]"`')
