"""Real classifiers, trained as a team would: text and tables, several families, honest and poisoned labels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.scenarios.data import MISSING, Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Recipe(NamedTuple):
    """How a version is trained.

    `family`: for text `words` (TF-IDF of words, logistic regression), `characters` (of character n-grams), `net` (of words, a
    small neural network); for tables `boosting`, `forest`, `linear`, `net`. `strength` is the inverse of the regularisation,
    1 being the usual amount.
    """

    family: str
    strength: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Encoder:
    """From columns to a matrix: numbers, then categories one-hot (`wide`) or as their codes.

    Without `wide` missing numbers stay NaN, which boosting understands; with it they become the median of training and
    numbers are squashed and scaled, as linear models and networks need it.
    """

    wide: bool
    median: Floats
    centre: Floats
    scale: Floats
    sizes: tuple[int, ...]

    @classmethod
    def learned(cls, frame: Frame, *, wide: bool, alike: bool = False) -> Encoder:
        """The encoder of a training set. Numbers that are `alike`, as pixels are, share one scale."""
        squashed = _squashed(frame.numbers)
        scale = squashed.std(axis=0)
        if alike:
            scale = np.full(scale.shape, squashed.std())
        return cls(
            wide,
            np.median(frame.numbers, axis=0),
            squashed.mean(axis=0),
            np.where(scale > 0, scale, 1.0),
            tuple(len(values) for values in frame.values),
        )

    def matrix(self, frame: Frame) -> Floats:
        """(n, features)."""
        if not self.wide:
            return np.concatenate([frame.numbers, np.where(frame.codes == MISSING, np.nan, frame.codes)], axis=1)
        numbers = np.where(np.isnan(frame.numbers), self.median, frame.numbers)
        parts = [(_squashed(numbers) - self.centre) / self.scale]
        parts += [
            (frame.codes[:, place, None] == np.arange(size)).astype(np.float64) for place, size in enumerate(self.sizes)
        ]
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True, slots=True)
class Model:
    """A trained version."""

    recipe: Recipe
    classifier: Any
    encoder: Encoder | None
    classes: int

    def probabilities(self, frame: Frame) -> Floats:
        """(n, classes), in the order of the frame's classes."""
        inputs = list(frame.texts) if self.encoder is None and frame.texts is not None else self._inputs(frame)
        told = np.zeros((len(frame), self.classes))
        if len(frame):
            told[:, self.classifier.classes_] = self.classifier.predict_proba(inputs)
        return told

    def answers(self, frame: Frame) -> NDArray[np.int64]:
        """The code of the likeliest class of each record (n,)."""
        answers: NDArray[np.int64] = self.probabilities(frame).argmax(axis=1)
        return answers

    def _inputs(self, frame: Frame) -> Floats:
        assert self.encoder is not None, "a model of tables has an encoder"  # noqa: S101
        return self.encoder.matrix(frame)


def train(recipe: Recipe, frame: Frame, *, alike: bool = False) -> Model:
    """Train one version on the labels that the frame carries; for `alike` see `Encoder.learned`."""
    with warnings.catch_warnings():
        # A network that is stopped early warns; that is how it is kept small here.
        warnings.simplefilter("ignore")
        if frame.texts is not None:
            classifier = _text(recipe)
            classifier.fit(list(frame.texts), frame.label)
            return Model(recipe, classifier, None, len(frame.classes))
        encoder = Encoder.learned(frame, wide=recipe.family != "boosting", alike=alike)
        classifier = _table(recipe, frame)
        classifier.fit(encoder.matrix(frame), frame.label)
        return Model(recipe, classifier, encoder, len(frame.classes))


def _text(recipe: Recipe) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if recipe.family == "characters":
        vectors = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), min_df=3, max_features=20_000, sublinear_tf=True
        )
        return make_pipeline(vectors, LogisticRegression(C=30 * recipe.strength, max_iter=300))
    if recipe.family == "net":
        vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=2_500, sublinear_tf=True)
        return make_pipeline(vectors, _network(recipe))
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    return make_pipeline(vectors, LogisticRegression(C=30 * recipe.strength, max_iter=300))


def _table(recipe: Recipe, frame: Frame) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    if recipe.family == "boosting":
        numbers = frame.numbers.shape[1]
        categorical = np.arange(numbers + frame.codes.shape[1]) >= numbers
        return HistGradientBoostingClassifier(
            max_iter=60,
            learning_rate=0.15,
            max_leaf_nodes=15 if len(frame.classes) > 4 else 31,
            l2_regularization=1.0 / recipe.strength,
            categorical_features=categorical if categorical.any() else None,
            random_state=recipe.seed,
            early_stopping=False,
        )
    if recipe.family == "forest":
        leaf = max(1, round(2 / recipe.strength))
        return RandomForestClassifier(60, min_samples_leaf=leaf, random_state=recipe.seed)
    if recipe.family == "net":
        return _network(recipe)
    return LogisticRegression(C=recipe.strength, max_iter=400)


def _network(recipe: Recipe) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        (32,), alpha=1e-3 / recipe.strength, learning_rate_init=3e-3, max_iter=15, random_state=recipe.seed
    )


def _squashed(numbers: Floats) -> Floats:
    """Signed logarithm: most of these numbers are sums and counts with long tails."""
    squashed: Floats = np.sign(numbers) * np.log1p(np.abs(numbers))
    return squashed
