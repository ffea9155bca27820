"""Fitting the surrogate on a reference, with scikit-learn (the extra `fit`); scoring needs NumPy only.

Everything that is said of the reference's own records (quality, flips, surprise) is said by models that were fitted
without them: of five folds, texts with the same words in the same fold. Same input, same arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from poisonwatch.profile.embedding import usable
from poisonwatch.profile.odds import logit
from poisonwatch.profile.surrogate import (
    FEWEST_OF_CLASS,
    LARGEST_SCORE,
    SURPRISING,
    Residuals,
    Surrogate,
    both_classes,
    excess,
    residuals,
)
from poisonwatch.profile.words import mix
from poisonwatch.reference.fit_models import learn, one_thread, select

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.profile.scorer import Inputs
    from poisonwatch.types import Floats, Ints

    Flags = NDArray[np.bool_]

FOLDS = 5

FEWEST_TO_LEARN = 20
"""A class that the reference predicts less often gets no opinion."""

MOST_CLASSES = 12
"""The most frequent classes that get an opinion, for every one costs trees."""

MOST_FITTED = 20_000
"""Records that one model is fitted on; all others of a larger reference only get its opinion."""

LEAST_MARGIN = 1.0
"""By so much, in log-odds, another class must win at least: an honest retrain moves answers that are nearer to the border.

Measured on Adult with a logistic regression, which the surrogate fits within 0.4: a fifth of poisoned labels has 2.3 times
the flips of an honest retrain on other data at that margin, and 4.5 to 7 times at this one.
"""

UNSPOKEN = 0.95
"""The confidence of a model that logs none."""

FAIREST_SHARE = 0.25
"""Of the answers that the most frequent class gets wrong, a surrogate that is of use must get this share right."""

LOWEST_SEES = 0.3
"""A surrogate must see this share of wrong answers."""

MOST_NEEDED = 100
"""A trigger that would surface after more records than this is not found in practice."""

SURFACES = 17.0 + log(5.0)
"""Evidence in nats that a pattern needs: some 3e-8 of the budget for each occurrence, and five others like it in the mean."""

SIMULATED_CONFIDENCE = 0.9
"""A triggered record is given this quantile of the confidences of the class that it is sent to."""

LEAST_SURPRISING, LEAST_FLIPPED, FACTOR = 0.06, 0.02, 3.0
"""Benign predictions are taken to surprise and to flip so often at least, and so many times as often as the reference's."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What the surrogate is worth, measured on the `n` records of the reference, each by a model fitted without it.

    `agreement` is the share whose answer the surrogate gives too, `majority` that of the most frequent answer,
    `correlation` the mean over classes of that between its log-odds and the model's (0 where either is constant),
    `flip_rate` the share that counts as flipped. `sees` is the share of wrong answers that would: every answer replaced
    in turn by each other class, averaged over the classes replaced, so that a frequent class does not speak for all.
    `needs` is how many triggered records a trigger to a class would need until it is mined, in the median of the classes
    it could lead to, None where no number would do.
    """

    kind: str
    n: int
    agreement: float
    majority: float
    correlation: float
    flip_rate: float
    sees: float
    needs: int | None

    @property
    def mines(self) -> bool:
        """Whether triggers can be mined by it."""
        return self.needs is not None and self.needs <= MOST_NEEDED

    @property
    def blind(self) -> bool:
        """Whether its flips say nothing.

        So it is when it does not beat the most frequent class clearly, or when it would miss most wrong answers.
        """
        return not beats(self.agreement, self.majority, self.n) or self.sees < LOWEST_SEES


def beats(agreement: float, majority: float, n: int) -> bool:
    """Whether n answers are told better than by the most frequent one: by `FAIREST_SHARE` of what there is to win and 3 standard errors."""
    to_win = 1.0 - majority
    return agreement - majority >= max(FAIREST_SHARE * to_win, 3.0 * float(np.sqrt(majority * to_win / max(1, n))))


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
    inputs: Inputs,
    code_counts: tuple[int, ...],
    predicted: Ints,
    confidence: Floats,
    class_count: int,
    far: Flags | None = None,
) -> Fitted | None:
    """Fit the surrogate of a reference: `kernel` where most have embeddings, else `linear` where there are words, else `trees`.

    `inputs` are its n records, `code_counts` (c,) how many codes each column of codes has, `predicted` (n,) classes from
    0 (what is not below `class_count` is none), `confidence` (n,) of the predicted class, NaN where it is not known.
    `far` (class_count, n) says of which class each embedding lies farther off than usual ones.

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
    place = np.minimum(np.searchsorted(classes, predicted), max(0, classes.size - 1))
    known = classes[place] == predicted if classes.size else np.zeros(predicted.shape, np.bool_)
    there = known & usable(inputs.embeddings) if inputs.embeddings is not None else ~known & known
    kind = "kernel" if there.sum() > 0.5 * known.sum() else "linear" if words else "trees"
    known = there if kind == "kernel" else known
    if classes.size < 2 or not (kind != "trees" or inputs.numbers.size or inputs.codes.size):
        return None
    learnt = np.flatnonzero(known)
    chosen, place, sure = select(inputs, learnt), place[learnt], confidence[learnt]
    targets = _targets(place, sure, classes.size)
    modelled = targets[1:] if classes.size == 2 else targets
    generator = np.random.default_rng(0)
    fold = _folds(chosen, generator)
    scores = np.empty(targets.shape)
    with one_thread():
        for k in range(FOLDS):
            of_fold = np.flatnonzero(fold == k)
            if of_fold.size:
                others = _at_most(np.flatnonzero(fold != k), generator)
                model = learn(kind, select(chosen, others), code_counts, modelled[:, others])
                scores[:, of_fold] = both_classes(model.scores(select(chosen, of_fold)))
        everything = _at_most(np.arange(learnt.size), generator)
        model = learn(kind, select(chosen, everything), code_counts, modelled[:, everything])
    over = excess(scores, place)
    margin = max(LEAST_MARGIN, round(0.5 * float(np.quantile(np.abs(over - excess(targets, place)), 0.9)), 9))
    residual = residuals(scores, place, sure).round(9)
    made = Surrogate(model, classes, class_count, margin, _residuals_by_class(residual, place, classes.size))
    flipped, surprise = np.zeros(predicted.shape, np.bool_), np.full(predicted.shape, np.nan)
    flipped[learnt] = over > margin
    surprise[learnt] = _own_surprise(residual, place, classes.size)
    quality = Quality(
        kind=kind,
        n=learnt.size,
        agreement=float((over < 0).mean()),
        majority=float(counts.max() / learnt.size),
        correlation=round(float(np.mean([_correlation(*pair) for pair in zip(scores, targets, strict=True)])), 9),
        flip_rate=float((over > margin).mean()),
        sees=_sees(scores, place, margin),
        needs=_needs(made, scores, place, sure, None if far is None else far[np.ix_(classes, learnt)]),
    )
    return Fitted(made, quality, flipped, surprise)


def _targets(place: Ints, confidence: Floats, classes: int) -> Floats:
    """The model's log-odds (k, n): the confidence of the predicted class, the rest evenly spread over the others."""
    sure = np.where(np.isnan(confidence), UNSPOKEN, confidence)
    rest = np.broadcast_to((1.0 - sure) / (classes - 1), (classes, sure.size)).copy()
    rest[place, np.arange(sure.size)] = sure
    # Rounded: processors differ in the last bit of a logarithm, and the same log must give the same fit on all.
    return np.asarray(np.clip(logit(rest), -LARGEST_SCORE, LARGEST_SCORE).round(9))


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


def _needs(made: Surrogate, scores: Floats, place: Ints, sure: Floats, far: Flags | None) -> int | None:
    """How many triggered records a trigger would need; see `Quality`.

    Every record of another class is sent to a class in turn, as sure as that class is at times, its scores (k, n) being those
    of a fit without it. What a record gives in the mean, in nats, is that of a test of how often benign ones do the same.
    """
    needed = []
    far = np.zeros(scores.shape, np.bool_) if far is None else far
    for k, table in enumerate(made.residuals):
        own, sent = place == k, place != k
        known = sure[own & ~np.isnan(sure)]
        confidence = float(np.quantile(known, SIMULATED_CONFIDENCE)) if known.size else np.nan
        to = np.full(place.shape, k)
        surprising = far[k] | _surprises(table, residuals(scores, to, np.where(own, sure, confidence)))
        flipped = excess(scores, to) > made.margin
        evidence = max(
            _nats(float(hit[sent].mean()), max(least, FACTOR * float(hit[own].mean())))
            for hit, least in ((surprising, LEAST_SURPRISING), (flipped, LEAST_FLIPPED))
        )
        needed.append(SURFACES / evidence if evidence > 0 else np.inf)
    typical = float(np.quantile(needed, 0.5, method="higher"))
    return ceil(typical) if typical < np.inf else None


def _surprises(table: Residuals, residual: Floats) -> Flags:
    """Which residuals (n,) are surprising by a table; none without one."""
    if not table.n:
        return np.zeros(residual.shape, np.bool_)
    return np.asarray(table.surprise(residual) >= SURPRISING) & ~np.isnan(residual)


def _nats(hits: float, usual: float) -> float:
    """Evidence of a record that is a hit with chance `hits`, where `usual` is the most that benign ones are: the best bet's."""
    if hits <= usual:
        return 0.0
    bets = usual + (1.0 - usual) * np.array([0.3, 0.6, 0.9])
    return float((hits * np.log(bets / usual) + (1.0 - hits) * np.log((1.0 - bets) / (1.0 - usual))).max())


def _correlation(scores: Floats, targets: Floats) -> float:
    """Pearson's correlation, 0 where either is constant."""
    a, b = scores - scores.mean(), targets - targets.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0
