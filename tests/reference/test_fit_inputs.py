"""What is learned about inputs: honest about the reference's own records, deterministic, bounded, and worth having."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from poisonwatch.profile.embedding import FACTORS, SHRINKAGE, WIDEST
from poisonwatch.profile.outlier import ranks
from poisonwatch.profile.words import text_rows, tokens, word_hashes
from poisonwatch.reference import fit_inputs
from poisonwatch.reference.fit_inputs import (
    BEYOND,
    WordCounts,
    fit_centroids,
    grow_forest,
    honest_distances,
    principal,
    sampled,
    with_limits,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Floats


def table(texts: list[str]) -> NDArray[Any]:
    """One row of texts as a batch carries it."""
    made = np.empty((1, len(texts)), object)
    made[0, :] = texts
    return made


def zipf_texts(n: int, seed: int) -> list[str]:
    """Texts of ten words from a long-tailed lexicon."""
    drawn = np.random.default_rng(seed).zipf(1.3, (n, 10)) % 100_000
    return [" ".join(f"w{word}" for word in words) for words in drawn.tolist()]


def counted(texts: list[str], pieces: int = 1) -> WordCounts:
    """Word counts of a log in pieces."""
    counts = WordCounts()
    for piece in range(pieces):
        counts.add(tokens(table(texts[piece::pieces])))
    return counts


def unseen_share(texts: list[str], vocabulary: Any) -> Floats:
    """The row of unseen words."""
    return np.asarray(text_rows(table(texts), tokens(table(texts)), vocabulary)[1])


def test_a_word_is_known_when_two_records_have_it() -> None:
    """A word counts once per record; live it needs two records, for a record of the reference two others."""
    texts = ["once once once", "twice", "twice three", "three", "three"]
    live, own = counted(texts).vocabularies()
    assert live.words.tolist() == sorted(word_hashes(["twice", "three"]).tolist())
    assert own.words.tolist() == word_hashes(["three"]).tolist()


def test_the_unseen_share_of_the_reference_is_that_of_a_vocabulary_without_the_record() -> None:
    """For each record of the reference, the same as if the vocabulary had been learned from all the others."""
    texts = zipf_texts(60, 0)
    _, own = counted(texts).vocabularies()
    honest = [
        unseen_share([text], counted(texts[:place] + texts[place + 1 :]).vocabularies()[0])[0]
        for place, text in enumerate(texts)
    ]
    assert unseen_share(texts, own).tolist() == honest


def test_the_vocabulary_does_not_depend_on_the_pieces() -> None:
    """A log in seven pieces teaches what the whole log teaches."""
    texts = zipf_texts(300, 1)
    for whole, in_pieces in zip(counted(texts).vocabularies(), counted(texts, 7).vocabularies(), strict=True):
        assert whole.words.tolist() == in_pieces.words.tolist()


def test_vocabularies_and_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over its bounds the most frequent words are kept, all that are met equally often or none of them."""
    monkeypatch.setattr(fit_inputs, "LARGEST_VOCABULARY", 3)
    monkeypatch.setattr(fit_inputs, "MOST_COUNTED", 5)
    texts = ["a b c d", "a b c d", "a b c d", "a b", "a", "x y"]
    live, own = counted(texts).vocabularies()
    assert live.words.tolist() == sorted(word_hashes(["a", "b"]).tolist())
    assert own.words.tolist() == word_hashes(["a"]).tolist()
    monkeypatch.setattr(fit_inputs, "LARGEST_VOCABULARY", 100)
    assert counted(texts).vocabularies()[0].words.size == 4


def digits() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """scikit-learn's digits as embeddings of 64 pixels (64, n), and the codes of their classes, in random order."""
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return pixels[order].T.astype(np.float32), (labels[order] + 1).astype(np.int32)


def stamped(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """A white patch of 2 x 2 pixels in the lower right corner."""
    images = pixels.copy().reshape(8, 8, -1)
    images[6:, 6:] = 16.0
    return images.reshape(64, -1)


def auroc(usual: Floats, odd: Floats) -> float:
    """The chance that an odd one is larger than a usual one."""
    place = np.searchsorted(np.sort(usual), odd)
    return float(place.mean() / usual.size)


def test_distances_tell_stamped_digits_from_clean_ones() -> None:
    """Stamped digits, called one class by a backdoor or their own, lie farther out than clean ones.

    Measured: .999 and above; with 897 of each a chance of .98 has a standard error of at most .005 (Hanley, McNeil 1982).
    """
    pixels, codes = digits()
    centroids = fit_centroids(pixels[:, :900], codes[:900])
    assert centroids is not None
    live, of_class = pixels[:, 900:], codes[900:]
    clean = centroids.distance(live, of_class)
    assert auroc(clean, centroids.distance(stamped(live), of_class)) > 0.98
    others = of_class != 3
    assert auroc(clean, centroids.distance(stamped(live[:, others]), np.full(others.sum(), 3, np.int32))) > 0.98


def test_distances_of_the_reference_are_those_of_held_out_records() -> None:
    """The closed form agrees with fitting anew without the record: within 1 %, where the plain distance is 3 % off."""
    rng = np.random.default_rng(1)
    embeddings, codes = rng.normal(size=(20, 150)).astype(np.float32), rng.integers(1, 4, 150).astype(np.int32)
    centroids = fit_centroids(embeddings, codes)
    assert centroids is not None
    closed = centroids.distance(embeddings, codes, np.ones(150, np.bool_))
    anew = []
    for place in range(150):
        rest = np.arange(150) != place
        without = fit_centroids(embeddings[:, rest], codes[rest])
        assert without is not None
        anew.append(without.distance(embeddings[:, [place]], codes[[place]])[0])
    np.testing.assert_allclose(closed, anew, rtol=0.01)
    assert (centroids.distance(embeddings, codes) < 0.97 * np.array(anew)).all()


def test_rare_classes_and_regressions_have_no_centroid_of_their_own() -> None:
    """A class with few embeddings is left out; when all are rare there is one centroid; too few records make none."""
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(3, 150)).astype(np.float32)
    embeddings[:, :30] = 0.0
    codes = np.repeat([1, 2, 3], [30, 110, 10]).astype(np.int32)
    centroids = fit_centroids(embeddings, codes)
    assert centroids is not None
    assert (centroids.classes.tolist(), centroids.counts.tolist()) == ([2], [110])
    alone = fit_centroids(embeddings, np.arange(150, dtype=np.int32))
    assert alone is not None
    assert (alone.classes.tolist(), alone.counts.tolist(), alone.means.shape) == ([], [120], (1, 3))
    assert fit_centroids(embeddings[:, :120], codes[:120]) is None


def test_a_constant_embedding_has_centroids() -> None:
    """Where nothing varies everything is at its centroid, and what moves is far away."""
    embeddings = np.ones((4, 200), np.float32)
    codes = np.ones(200, np.int32)
    centroids = fit_centroids(embeddings, codes)
    assert centroids is not None
    assert centroids.distance(embeddings, codes).max() == 0.0
    assert centroids.distance(embeddings + 1, codes).min() > 1000


def test_centroids_of_many_classes_and_wide_embeddings_are_bounded() -> None:
    """At most 50 classes are kept of 60, and of 1,000 numbers some factors: the file grows with the width, not its square."""
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(1000, 60 * 25)).astype(np.float32)
    centroids = fit_centroids(embeddings, np.repeat(np.arange(1, 61), 25).astype(np.int32))
    assert centroids is not None
    assert centroids.means.shape == (50, 1000)
    file = centroids.file()
    assert len(file.means) + len(file.whitening) + len(file.spread) == 4 * 1000 * (50 + FACTORS + 1)


def factored(n: int, seed: int, width: int = WIDEST + 44) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Embeddings of two classes that vary together along eight directions, and little otherwise, in a third hardly at all."""
    rng = np.random.default_rng(seed)
    along = np.random.default_rng(99).normal(size=(width, 8))
    noise = np.where(np.arange(width) % 3 == 0, 0.05, 0.5)[:, None]
    codes = rng.integers(1, 3, n).astype(np.int32)
    points = along @ rng.normal(size=(8, n)) + noise * rng.normal(size=(width, n)) + np.where(codes == 1, 0.3, -0.3)
    return points.astype(np.float32), codes


def test_wide_distances_are_those_of_the_covariance_that_the_factors_stand_for() -> None:
    """Of width 300, the distance by factors is Mahalanobis' with V w V' + psi written out, inverted as it stands."""
    embeddings, codes = factored(1500, 4)
    centroids = fit_centroids(embeddings, codes)
    assert centroids is not None
    residuals = (embeddings - centroids.means[codes - 1].T).T.astype(np.float64)
    loadings = principal(residuals, FACTORS)
    along = residuals @ loadings
    left = np.square(residuals - along @ loadings.T).mean(axis=0)
    covariance = loadings @ np.diag(np.square(along).mean(axis=0)) @ loadings.T
    covariance += np.diag(left + SHRINKAGE * left.mean())
    some = residuals[:100]
    expected = np.sqrt(np.einsum("ij,ij->i", some @ np.linalg.inv(covariance), some) / len(embeddings))
    np.testing.assert_allclose(centroids.distance(embeddings[:, :100], codes[:100]), expected, rtol=1e-4)


def test_principal_directions_are_those_of_the_singular_values() -> None:
    """They span what the leading right singular vectors span, where those stand out, in their order, orthonormal."""
    points = factored(1000, 5)[0].T.astype(np.float64)
    points -= points.mean(axis=0)
    found = principal(points, 9)
    expected = np.linalg.svd(points, full_matrices=False)[2][:9]
    np.testing.assert_allclose(found.T @ found, np.eye(9), atol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(found[:, :8].T * expected[:8], axis=1)), 1.0, atol=1e-6)
    assert principal(points[:, :5], 9).shape == (5, 5)


def test_wide_distances_of_the_reference_are_those_of_fresh_records() -> None:
    """Beyond the limits lie 2 % of the reference, and as many fresh records, which a fit's own distances would double.

    Of 2,000 fresh records 2 % have a standard error of .3 %, and so has the limit of 1,000 in each class (.44 %): five
    times both together is 2.7 %.
    """
    embeddings, codes = factored(2000, 6)
    fresh = factored(2000, 7)
    centroids = fit_centroids(embeddings, codes)
    assert centroids is not None
    honest = honest_distances(embeddings, codes, centroids)
    limited = with_limits(centroids, honest, codes)
    assert limited.surpassed(honest, codes).mean() == pytest.approx(BEYOND, abs=0.002)
    rate = limited.surpassed(limited.distance(*fresh), fresh[1]).mean()
    assert abs(rate - BEYOND) < 0.027
    flattering = with_limits(centroids, centroids.distance(embeddings, codes), codes)
    assert flattering.surpassed(flattering.distance(*fresh), fresh[1]).mean() > 1.5 * rate


def test_a_small_class_has_no_smaller_limit_than_all_together() -> None:
    """Of few distances the largest says little; a class without a centroid has no limit, missing distances none either."""
    rng = np.random.default_rng(8)
    codes = np.repeat([1, 2, 3], [600, 40, 10]).astype(np.int32)
    embeddings = rng.normal(size=(4, 650)).astype(np.float32)
    embeddings[:, 600:] *= 0.1
    centroids = fit_centroids(embeddings, codes)
    assert centroids is not None
    distances = honest_distances(embeddings, codes, centroids)
    limited = with_limits(centroids, distances, codes)
    assert limited.classes.tolist() == [1, 2]
    assert limited.limits[1] == pytest.approx(np.quantile(distances, 1 - BEYOND, method="higher"), rel=1e-6)
    assert limited.limits[0] == pytest.approx(np.quantile(distances[:600], 1 - BEYOND, method="higher"), rel=1e-6)
    far = np.full(3, 1e9)
    assert limited.surpassed(far, np.array([1, 2, 3], np.int32)).tolist() == [True, True, False]
    assert not limited.surpassed(np.full(3, np.nan), np.array([1, 2, 3], np.int32)).any()
    assert with_limits(centroids, np.full(650, np.nan), codes) is centroids


def correlated(n: int, seed: int, correlation: float = 0.95) -> Floats:
    """Two standard normal features of this correlation, and a constant one: (3, n)."""
    first, second = np.random.default_rng(seed).normal(size=(2, n))
    return np.stack((first, np.full(n, 7.0), correlation * first + np.sqrt(1 - correlation**2) * second))


def test_scores_are_those_of_river() -> None:
    """On the same trees and the same ranks our score is river's `score_one`, to the last bit."""
    river: Any = pytest.importorskip("river.anomaly")
    numbers = correlated(500, 0)
    forest = grow_forest(numbers)
    assert forest is not None
    theirs = river.HalfSpaceTrees(
        n_trees=fit_inputs.TREES, height=fit_inputs.HEIGHT, window_size=500, seed=fit_inputs.SEED
    )
    for first, _, second in ranks(numbers, forest.knots).T.tolist():
        theirs.learn_one({0: first, 2: second})
    live = correlated(300, 1) * 1.5
    expected = [theirs.score_one({0: first, 2: second}) for first, _, second in ranks(live, forest.knots).T.tolist()]
    assert forest.score(live).tolist() == expected
    assert len({*expected}) > 100


@pytest.mark.parametrize("seed", range(3))
def test_what_no_margin_shows_is_outlying(seed: int) -> None:
    """Where values are usual one by one, a cluster off their diagonal and a broken correlation lie beyond the clean 99 %.

    Measured over eight seeds: 1.0 of the cluster and .45 to .53 of independent pairs, where 1 % of clean ones do.
    """
    forest = grow_forest(correlated(2000, seed))
    assert forest is not None
    threshold = np.quantile(forest.score(correlated(2000, 10 + seed)), 0.99)
    cluster = np.array([[2.0], [7.0], [-2.0]]) + 0.1 * np.random.default_rng(seed).normal(size=(3, 200)) * [
        [1],
        [0],
        [1],
    ]
    assert (forest.score(cluster) > threshold).mean() > 0.9
    assert (forest.score(correlated(2000, 20 + seed, 0.0)) > threshold).mean() > 0.35


def test_scores_of_the_reference_are_those_of_new_records() -> None:
    """A record of the sample, scored as if it were not in it, exceeds the median of new records half of the time.

    With 2,000 of each, the difference of the two shares has a standard error of sqrt(.5 / 2000) = .016: 4 of them allowed.
    """
    numbers = correlated(2000, 0)
    forest = grow_forest(numbers)
    assert forest is not None
    own, new = forest.score(numbers, np.ones(2000, np.bool_)), forest.score(correlated(2000, 1))
    for level in (0.5, 0.9):
        cut = np.quantile(new, level)
        assert abs((own > cut).mean() - (new > cut).mean()) < 4 * 0.016


def test_a_forest_needs_two_varying_features_and_some_records() -> None:
    """A constant feature is never split on; one varying feature, few records or an empty column make no forest."""
    forest = grow_forest(correlated(500, 0))
    assert forest is not None
    assert set(np.unique(forest.feature)) == {0, 2}
    assert grow_forest(correlated(500, 0)[:2]) is None
    assert grow_forest(correlated(50, 0)) is None
    assert grow_forest(np.concatenate((correlated(500, 0), np.full((1, 500), np.nan)))) is None


def test_trees_are_deterministic_and_bounded() -> None:
    """The same reference gives the same file; a larger one no larger file, from an even sample."""
    first, again, large = (grow_forest(correlated(n, 0)) for n in (2500, 2500, 5000))
    assert first is not None
    assert again is not None
    assert large is not None
    assert msgspec.json.encode(first.file()) == msgspec.json.encode(again.file())
    assert large.records == first.records == fit_inputs.MOST_GROWN
    assert len(msgspec.json.encode(large.file())) < 160_000
    assert sampled(10_000).tolist() == sorted({*sampled(10_000).tolist()})
    assert (sampled(10_000).size, sampled(10_000)[0], sampled(10_000)[-1]) == (2000, 0, 9999)
    assert sampled(5).tolist() == [0, 1, 2, 3, 4]
