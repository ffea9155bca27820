"""Fitting surrogates: the exported trees are scikit-learn's, what is said of the reference is honest, quality is measured."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from poisonwatch.errors import MissingExtraError
from poisonwatch.profile.odds import expit
from poisonwatch.profile.scorer import Inputs, Linear, Trees
from poisonwatch.profile.surrogate import FEWEST_OF_CLASS
from poisonwatch.profile.words import tokens
from poisonwatch.reference.fit_models import MANY_SCORES, ONE_SCORE, SETTINGS, SHRINKAGE, fit_trees
from poisonwatch.reference.fit_surrogate import (
    FEWEST_TO_LEARN,
    LEAST_MARGIN,
    MOST_CLASSES,
    Fitted,
    Quality,
    fit,
)

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

FAR = 1e-6
"""Chance with which a statistical bound of this module fails although the code is right."""

CODES = (6, 3)

FILLER = tuple(f"word{k}" for k in range(40))


def table(seed: int, n: int) -> Inputs:
    """Three numbers, a tenth of them missing, and two columns of codes."""
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=(3, n))
    numbers[generator.random((3, n)) < 0.1] = np.nan
    return Inputs(numbers, np.stack([generator.integers(0, count, n) for count in CODES]))


def model(inputs: Inputs, classes: int = 2) -> tuple[Ints, Floats]:
    """The answers of a model that looks at numbers, at a pair of them, and at codes, and how sure it is."""
    x, (a, b) = np.nan_to_num(inputs.numbers), inputs.codes
    odds = np.stack([2 * x[k % 3] + (a == k) * 2 - x[0] * x[1] * (k % 2) + b * (k % 3) for k in range(classes)])
    odds[0] += 1
    share = np.exp(odds) / np.exp(odds).sum(axis=0)
    return share.argmax(axis=0), share.max(axis=0)


def texts(seed: int, n: int) -> tuple[Inputs, Ints, Floats]:
    """Texts of some words, and a model that looks for a few of them."""
    generator = np.random.default_rng(seed)
    words = generator.integers(0, len(FILLER), (n, 6))
    odds = 2.0 * (words < 6).sum(axis=1) - 2.5
    content = np.array([[" ".join(FILLER[w] for w in row) for row in words.tolist()]], object)
    return Inputs(np.empty((0, n)), np.empty((0, n), np.int64), tokens(content)), (odds > 0) * 1, expit(np.abs(odds))


def fitted(inputs: Inputs, predicted: Ints, confidence: Floats, class_count: int = 2) -> Fitted:
    """Fit, where there is something to learn."""
    found = fit(inputs, CODES if len(inputs.codes) else (), predicted, confidence, class_count)
    assert found is not None
    return found


@pytest.mark.parametrize("scores", [1, 3])
def test_the_exported_trees_say_what_scikit_learn_says(scores: int) -> None:
    """On records they were not grown on, with missing numbers, and codes that were never seen, which count as missing."""
    inputs, others = table(0, 800), table(1, 500)
    inputs.codes[0][inputs.codes[0] == 4] = 3
    generator = np.random.default_rng(0)
    targets = np.nan_to_num(inputs.numbers[:scores]) * 2 + inputs.codes[0] + generator.normal(size=(scores, 800))
    settings = SETTINGS | (ONE_SCORE if scores == 1 else MANY_SCORES)
    expected = []
    for target in targets:
        means: list[dict[int, float]] = []
        for row, count in zip(inputs.codes, CODES, strict=True):
            of_code = {c: target[row == c] for c in range(count) if (row == c).any()}
            means.append({c: (t.sum() + SHRINKAGE * target.mean()) / (t.size + SHRINKAGE) for c, t in of_code.items()})
        design = [
            np.concatenate(
                (
                    each.numbers,
                    [[m.get(c, math.nan) for c in r.tolist()] for m, r in zip(means, each.codes, strict=True)],
                )
            ).T
            for each in (inputs, others)
        ]
        with threadpool_limits(1):
            expected.append(HistGradientBoostingRegressor(**settings).fit(design[0], target).predict(design[1]))
    with threadpool_limits(1):
        found = fit_trees(inputs, CODES, targets).scores(others)
    assert (others.codes[0] == 4).any()
    assert np.ptp(found) > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_tables_get_trees_and_texts_a_linear_model() -> None:
    """And both agree with a model that they can learn far more often than the most frequent class does."""
    inputs = table(2, 1500)
    of_table, of_text = fitted(inputs, *model(inputs)), fitted(*texts(2, 1500))
    assert isinstance(of_table.surrogate.model, Trees)
    assert isinstance(of_text.surrogate.model, Linear)
    for found in (of_table, of_text):
        assert found.quality.agreement > 0.9 > found.quality.majority + 0.1
        assert found.quality.correlation > 0.9
        assert found.quality.sees > 0.6
        assert not found.quality.blind


def test_a_linear_model_sees_features_beside_the_words() -> None:
    """A model that only looks at a number and a category is learned as well where there are words."""
    inputs, tokens_of = table(3, 1500), texts(3, 1500)[0].tokens
    odds = 3 * np.nan_to_num(inputs.numbers[0]) + 3 * (inputs.codes[0] == 2) - 1.5
    found = fitted(Inputs(*inputs[:2], tokens_of), (odds > 0) * 1, expit(np.abs(odds)))
    assert found.quality.kind == "linear"
    assert found.quality.agreement > 0.93


@pytest.mark.parametrize("kind", ["trees", "linear"])
def test_shuffled_inputs_leave_a_surrogate_blind(kind: str) -> None:
    """Where the answers have nothing to do with the inputs, quality falls and says so."""
    inputs, predicted, confidence = texts(4, 1500) if kind == "linear" else (table(4, 1500), *model(table(4, 1500)))
    order = np.random.default_rng(0).permutation(1500)
    good, bad = fitted(inputs, predicted, confidence), fitted(inputs, predicted[order], confidence[order])
    assert good.quality.kind == bad.quality.kind == kind
    assert not good.quality.blind
    assert bad.quality.blind
    assert bad.quality.correlation < 0.1 < good.quality.correlation
    assert bad.quality.agreement < bad.quality.majority + 0.02


@pytest.mark.parametrize(
    ("change", "blind"),
    [
        ({}, False),
        ({"agreement": 0.84}, True),
        ({"sees": 0.29}, True),
        ({"majority": 0.99, "agreement": 0.995}, False),
        ({"majority": 0.99, "agreement": 0.995, "n": 500}, True),
    ],
)
def test_who_is_blind(change: dict[str, Any], *, blind: bool) -> None:
    """Not clearly better than the most frequent answer, or missing most wrong answers; few records show little."""
    base: dict[str, Any] = {
        "kind": "trees",
        "n": 5000,
        "agreement": 0.9,
        "majority": 0.8,
        "correlation": 0.9,
        "flip_rate": 0.01,
        "needs": 7,
    }
    assert Quality(**(base | {"sees": 0.8} | change)).blind == blind


def test_flips_and_surprise_of_the_reference_are_those_of_fresh_records() -> None:
    """Out of fold, surprise is uniform, and the flip rate is what a fresh sample has.

    Surprise of the fresh sample is bounded from above only: the surrogate that says it was fitted on more records. Two
    empirical distributions of n records each differ by at most 2 sqrt(log(2 / FAR) / (2 n)) (Dvoretzky, Kiefer and
    Wolfowitz 1956, with Massart's constant), two rates by six standard errors at most.
    """
    n = 3000
    inputs, fresh = table(5, n), table(6, n)
    found = fitted(inputs, *model(inputs))
    flipped, surprise = found.surrogate.compare(found.surrogate.scores(fresh), *model(fresh))
    bound = math.sqrt(math.log(2 / FAR) / (2 * n))
    grid = np.linspace(0, 1, 201)
    assert np.abs(np.mean(found.surprise <= grid[:, None], axis=1) - grid).max() < bound
    assert (np.mean(surprise > grid[:, None], axis=1) - (1 - grid)).max() < 2 * bound
    rates = found.flipped.mean(), flipped.mean()
    assert found.quality.flip_rate == rates[0] > 0
    assert abs(rates[0] - rates[1]) < 6 * math.sqrt((rates[0] + rates[1]) / n)


def test_in_sample_answers_would_flatter() -> None:
    """What the final surrogate says of its own records is rosier than the out-of-fold answers: they are not the same."""
    inputs = table(7, 600)
    predicted, confidence = model(inputs)
    found = fitted(inputs, predicted, confidence)
    own = found.surrogate.compare(found.surrogate.scores(inputs), predicted, confidence)[0]
    assert own.sum() < 0.5 * found.flipped.sum()


def test_a_text_and_its_copy_share_a_fold() -> None:
    """Noise cannot be learned: where every text comes with copies of itself in another order, no copy tells its answer."""
    generator = np.random.default_rng(8)
    n = 300
    lines = [" ".join(f"rare{k}x{w}" for w in range(4)) for k in range(n)]
    turned = [" ".join(reversed(line.split())) for line in lines]
    content = np.array([lines + turned + lines], object)
    predicted = np.tile(generator.integers(0, 2, n), 3)
    inputs = Inputs(np.empty((0, 3 * n)), np.empty((0, 3 * n), np.int64), tokens(content))
    found = fitted(inputs, predicted, np.full(3 * n, 0.99))
    # Right by luck: six standard errors of n coins.
    assert abs(found.quality.agreement - 0.5) < 6 * 0.5 / math.sqrt(n)
    assert found.quality.blind


@pytest.mark.slow
def test_the_same_reference_gives_the_same_arrays() -> None:
    """The reference's SHA-256 stands for what it was learned from."""
    inputs = table(9, 500)
    for given in ((inputs, *model(inputs, 3), 3), (*texts(9, 500), 2)):
        one, two = fitted(*given), fitted(*given)
        assert msgspec.json.encode(one.surrogate.file()) == msgspec.json.encode(two.surrogate.file())
        np.testing.assert_array_equal(one.surprise, two.surprise)


def test_a_model_without_confidence_still_has_flips() -> None:
    """Its answers are taken as fairly sure; nothing is surprising."""
    inputs = table(10, 1500)
    predicted, confidence = model(inputs)
    found = fitted(inputs, predicted, np.full(1500, np.nan))
    assert not found.quality.blind
    assert 0 < found.flipped.sum() < 75
    assert np.isnan(found.surprise).all()
    assert np.isnan(found.surrogate.compare(found.surrogate.scores(inputs), predicted, confidence)[1]).all()


def test_what_is_near_the_border_is_no_flip() -> None:
    """However well the surrogate fits, another class must win by `LEAST_MARGIN`: honest retraining moves that much."""
    inputs = table(17, 1500)
    odds = np.nan_to_num(inputs.numbers[0])
    found = fitted(inputs, (odds > 0) * 1, expit(np.abs(odds)))
    assert found.quality.correlation > 0.99
    assert found.surrogate.margin == LEAST_MARGIN


def test_wrong_answers_flip_as_often_as_quality_says() -> None:
    """Fresh records whose answer is replaced by another at high confidence: flips come at the rate `sees`, per class."""
    inputs, fresh = table(11, 3000), table(12, 3000)
    found = fitted(inputs, *model(inputs, 3), 3)
    predicted, _ = model(fresh, 3)
    scores = found.surrogate.scores(fresh)
    share = []
    for c in range(3):
        for step in (1, 2):
            flipped, _ = found.surrogate.compare(scores, (predicted + step) % 3, np.full(3000, 0.99))
            share.append(flipped[predicted == c].mean())
    assert found.quality.sees == pytest.approx(np.mean(share), abs=0.05)


@pytest.mark.slow
def test_rare_classes_have_no_opinion_and_no_weight() -> None:
    """A class below the least count is not modelled, its records neither flip nor surprise; more than enough are cut."""
    inputs = table(13, 1500)
    predicted, confidence = model(inputs)
    predicted[: FEWEST_TO_LEARN - 1] = 3
    predicted[-1] = -1
    found = fitted(inputs, predicted, confidence, 5)
    assert found.surrogate.classes.tolist() == [0, 1]
    assert found.surrogate.class_count == 5
    assert found.quality.n == 1500 - FEWEST_TO_LEARN
    strange = (predicted > 1) | (predicted < 0)
    assert not found.flipped[strange].any()
    assert np.array_equal(np.isnan(found.surprise), strange)
    few = Inputs(inputs.numbers[:1, :390], inputs.codes[:, :390])
    assert fitted(few, np.arange(390) % 15, confidence[:390], 15).surrogate.classes.tolist() == list(
        range(MOST_CLASSES)
    )


@pytest.mark.slow
def test_classes_with_few_residuals_are_compared_with_all() -> None:
    """Their table is the pooled one."""
    inputs = table(14, 1200)
    predicted, confidence = model(inputs)
    predicted[: FEWEST_OF_CLASS - 1] = 2
    found = fitted(inputs, predicted, confidence, 3)
    assert [table.n for table in found.surrogate.residuals][2] == 1200
    assert [table.n for table in found.surrogate.residuals][:2] == np.bincount(predicted)[:2].tolist()


def test_nothing_to_learn_is_no_surrogate() -> None:
    """One class, no columns, or texts without a word."""
    inputs = table(15, 300)
    predicted, confidence = model(inputs)
    assert fit(inputs, CODES, np.zeros(300, np.int64), confidence, 2) is None
    bare = Inputs(np.empty((0, 300)), np.empty((0, 300), np.int64))
    assert fit(bare, (), predicted, confidence, 2) is None
    assert fit(Inputs(*bare[:2], tokens(np.full((1, 300), "", object))), (), predicted, confidence, 2) is None


@pytest.mark.parametrize("missing", ["sklearn", "sklearn.ensemble", "threadpoolctl"])
def test_without_the_extra_the_error_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the command."""
    monkeypatch.setitem(sys.modules, missing, None)
    inputs = table(16, 200)
    with pytest.raises(MissingExtraError, match=r'pip install "poisonwatch\[fit\]"'):
        fit(inputs, CODES, *model(inputs), 2)
