"""Fitting surrogates: the exported trees are scikit-learn's, what is said of the reference is honest, quality is measured."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from threadpoolctl import threadpool_limits

from poisonwatch.errors import MissingExtraError
from poisonwatch.profile.kernel import Kernel
from poisonwatch.profile.odds import expit, logit
from poisonwatch.profile.scorer import Inputs, Linear, Trees
from poisonwatch.profile.surrogate import FEWEST_OF_CLASS, Surrogate
from poisonwatch.profile.words import tokens
from poisonwatch.reference.fit_models import MANY_SCORES, ONE_SCORE, SETTINGS, SHRINKAGE, fit_trees
from poisonwatch.reference.fit_surrogate import (
    FEWEST_TO_LEARN,
    LEAST_FLIPPED,
    LEAST_MARGIN,
    LEAST_SURPRISING,
    MOST_CLASSES,
    MOST_NEEDED,
    SURFACES,
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


def digits(seed: int = 0) -> tuple[Inputs, Ints, Floats]:
    """scikit-learn's digits as embeddings of 64 pixels, and what a forest of 50 trees, trained on 600, says of the other 1,197."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    pixels, labels = pixels[order], labels[order]
    with threadpool_limits(1):
        said = RandomForestClassifier(50, random_state=seed).fit(pixels[:600], labels[:600]).predict_proba(pixels[600:])
    n = len(said)
    inputs = Inputs(np.empty((0, n)), np.empty((0, n), np.int64), None, pixels[600:].T.astype(np.float32))
    return inputs, said.argmax(axis=1), said.max(axis=1)


@pytest.fixture(scope="module")
def of_digits() -> Fitted:
    """The surrogate of a forest that reads digits."""
    inputs, predicted, confidence = digits()
    return fitted(inputs, predicted, confidence, 10)


def test_images_get_a_kernel(of_digits: Fitted) -> None:
    """It learns what a forest says of digits (measured: .97, correlation .94), flips 2 % at most, and sees what a trigger does."""
    quality = of_digits.quality
    assert quality.kind == "kernel"
    assert isinstance(of_digits.surrogate.model, Kernel)
    assert quality.agreement > 0.93
    assert quality.correlation > 0.9
    assert quality.flip_rate < 0.02
    assert quality.sees > 0.9
    assert quality.needs is not None
    assert quality.needs < 10
    again = Surrogate.read(of_digits.surrogate.file())
    inputs = digits()[0]
    np.testing.assert_array_equal(again.scores(inputs), of_digits.surrogate.scores(inputs))


def test_a_record_without_embedding_gets_no_opinion(of_digits: Fitted) -> None:
    """It is neither flipped nor surprising, live and in the reference; the others' values are as they are."""
    inputs, predicted, confidence = digits()
    assert inputs.embeddings is not None
    gone = np.arange(inputs.n) % 3 == 0
    embeddings = inputs.embeddings.copy()
    embeddings[:, gone] = np.nan
    holed = inputs._replace(embeddings=embeddings)
    made = of_digits.surrogate
    whole = made.compare(made.scores(inputs), (predicted + 1) % 10, confidence)
    flipped, surprise = made.compare(made.scores(holed), (predicted + 1) % 10, confidence)
    np.testing.assert_array_equal(flipped, whole[0] & ~gone)
    np.testing.assert_array_equal(surprise, np.where(gone, np.nan, whole[1]))
    found = fitted(holed, predicted, confidence, 10)
    assert found.quality.n == int((~gone).sum())
    assert np.isnan(found.surprise[gone]).all()
    assert not np.isnan(found.surprise[~gone]).any()
    assert not found.flipped[gone].any()


def test_where_most_embeddings_are_missing_the_other_inputs_are_learned_from() -> None:
    """A surrogate that knows half of the records or fewer by their embedding is none of all."""
    inputs = table(20, 900)
    embeddings = np.random.default_rng(0).normal(size=(4, 900)).astype(np.float32)
    embeddings[:, ::2] = np.nan
    embeddings[:, 1] = 0.0
    found = fitted(inputs._replace(embeddings=embeddings), *model(inputs))
    assert found.quality.kind == "trees"
    assert found.quality.n == 900


@pytest.mark.slow
@pytest.mark.parametrize("words", [False, True])
def test_embeddings_and_what_stands_beside_are_seen_together(*, words: bool) -> None:
    """A model that adds up what an embedding, and a number or words say is learned better than from either alone."""
    n = 1500
    inputs, of_text = table(21, n), texts(21, n)
    embeddings = np.random.default_rng(210).normal(size=(5, n)).astype(np.float32)
    odds = 2.0 * np.sin(embeddings[0]) + 2.0 * embeddings[1]
    if words:
        inputs = of_text[0]
        odds = odds + 2.0 * np.where(of_text[1] == 1, 1.0, -1.0) * logit(of_text[2]) / 2.5
    else:
        odds = odds + 3.0 * np.nan_to_num(inputs.numbers[0])
    answers = (odds > 0) * 1, expit(np.abs(odds))
    both = fitted(inputs._replace(embeddings=embeddings), *answers).quality
    beside = fitted(inputs, *answers).quality
    empty = Inputs(np.empty((0, n)), np.empty((0, n), np.int64), None, embeddings)
    alone = fitted(empty, *answers).quality
    assert (both.kind, beside.kind, alone.kind) == ("kernel", "linear" if words else "trees", "kernel")
    assert both.correlation > 0.9 > max(beside.correlation, alone.correlation)


@pytest.mark.slow
def test_embeddings_that_say_nothing_leave_the_answers_to_the_rest() -> None:
    """Noise beside a table costs little: what is learned from both is nearly what is learned from the table."""
    inputs = table(22, 1500)
    noise = np.random.default_rng(220).normal(size=(8, 1500)).astype(np.float32)
    plain, with_noise = fitted(inputs, *model(inputs)), fitted(inputs._replace(embeddings=noise), *model(inputs))
    assert with_noise.quality.kind == "kernel"
    assert with_noise.quality.correlation > plain.quality.correlation - 0.05


def test_a_simulated_trigger_needs_as_many_records_as_a_test_of_its_hits() -> None:
    """For a surrogate that sees nearly every such record it is what the likelihood ratio of always hitting gives, rounded up.

    Every triggered record then adds log(q / p) at the largest q, where p is the least null: to reach `SURFACES`.
    """
    inputs = table(23, 1500)
    odds = 8.0 * np.nan_to_num(inputs.numbers[0])
    kept = np.abs(odds) > 6
    inputs = Inputs(inputs.numbers[:, kept], inputs.codes[:, kept])
    found = fitted(inputs, (odds[kept] > 0) * 1, expit(np.abs(odds[kept]) / 2))
    assert found.quality.sees > 0.99
    best = LEAST_FLIPPED + (1 - LEAST_FLIPPED) * 0.9
    assert found.quality.needs == math.ceil(SURFACES / math.log(best / LEAST_FLIPPED))


def test_what_a_trigger_needs_is_what_playing_it_needs() -> None:
    """Fresh records of another class, sent to a class with its own confidence: as many as their mean evidence says, within a third."""
    inputs, fresh = table(24, 3000), table(25, 3000)
    found = fitted(inputs, *model(inputs, 3), 3)
    predicted, confidence = model(fresh, 3)
    scores = found.surrogate.scores(fresh)
    needed = []
    for k in range(3):
        sent = predicted != k
        sure = np.where(sent, np.quantile(confidence[~sent], 0.9), confidence)
        flipped, surprise = found.surrogate.compare(scores, np.full(3000, k), sure)
        evidence = 0.0
        for hit, least in ((flipped, 0.02), (surprise >= 0.98, LEAST_SURPRISING)):
            p, h = max(least, 3 * hit[~sent].mean()), hit[sent].mean()
            for share in (0.3, 0.6, 0.9):
                q = p + (1 - p) * share
                evidence = max(evidence, h * math.log(q / p) + (1 - h) * math.log((1 - q) / (1 - p)))
        needed.append(SURFACES / evidence)
    assert found.quality.needs == pytest.approx(sorted(needed)[1], rel=0.34)


def test_embeddings_far_from_their_class_count_as_surprising() -> None:
    """Where the surrogate itself knows nothing, a trigger is still found by where its embeddings lie."""
    inputs, predicted, confidence = texts(26, 900)
    order = np.random.default_rng(26).permutation(900)
    predicted, confidence = predicted[order], confidence[order]
    far = np.stack([predicted == 1, predicted == 0])
    blind = fit(inputs, (), predicted, confidence, 2)
    seen = fit(inputs, (), predicted, confidence, 2, far)
    assert blind is not None
    assert seen is not None
    assert blind.quality.blind
    assert not blind.quality.mines
    assert seen.quality.blind
    assert seen.quality.mines


@pytest.mark.parametrize(("needs", "mines"), [(None, False), (MOST_NEEDED, True), (MOST_NEEDED + 1, False)])
def test_who_mines(needs: int | None, *, mines: bool) -> None:
    """A trigger must surface at all, and after a number of records that attacks have."""
    quality = Quality(
        kind="trees", n=1, agreement=0.5, majority=0.5, correlation=0.0, flip_rate=0.0, sees=0.0, needs=needs
    )
    assert quality.mines == mines


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
    # One answer in fifty is not what the inputs ask for.
    odd = np.arange(n) % 50 == 0
    (said, sure), (fresh_said, fresh_sure) = model(inputs), model(fresh)
    found = fitted(inputs, said ^ odd, sure)
    flipped, surprise = found.surrogate.compare(found.surrogate.scores(fresh), fresh_said ^ odd, fresh_sure)
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
    for given in ((inputs, *model(inputs, 3), 3), (*texts(9, 500), 2), (*digits(), 10)):
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
