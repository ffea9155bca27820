"""Enrichment: what it adds is what its parts say, the rest stays, and chopping changes nothing."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.enrich import Enrichment, feature_codes, feature_numbers
from poisonwatch.profile.indicators import FLIPPED, SURPRISE, SURPRISING, UNSURE, code_rows, number_rows
from poisonwatch.profile.outlier import OUTLIER
from poisonwatch.profile.scorer import Inputs
from poisonwatch.profile.words import TEXT_ROWS, text_rows, tokens
from tests.streams import batch, chopped, rich_predictions, rich_reference

if TYPE_CHECKING:
    from poisonwatch.types import Batch, Bools, Ints

WINDOW = 60.0


@pytest.fixture(scope="module")
def fitted() -> Enrichment:
    """Everything that can be fitted."""
    return rich_reference().enrichment()


@pytest.fixture(scope="module")
def stream() -> Batch:
    """Live predictions, some of which lack what is asked about."""
    records = rich_predictions(400, 7)
    for number, record in enumerate(records):
        if number % 11 == 0:
            record["text"] = None
        if number % 13 == 0:
            record["embedding"] = None
        if number % 17 == 0:
            record["features"]["amount"] = None
        if number % 19 == 0:
            record["confidence"] = None
        if number % 23 == 0:
            record["prediction"] = "eggs"
    return batch(rich_reference(), records)


def of(whole: Batch, which: Ints) -> Batch:
    """Some of the records."""
    columns = ("time", "version", "numbers", "codes", "ids", "labels", "texts", "embeddings", "marks")
    return dataclasses.replace(whole, **{name: getattr(whole, name)[..., which] for name in columns})


def test_features_are_all_rows_but_what_the_model_says(fitted: Enrichment) -> None:
    """The surrogate never sees the confidence or the answer: it would only have to repeat them."""
    schema = fitted.schema
    numbers = [number_rows(schema)[row] for row in feature_numbers(schema)]
    codes = [code_rows(schema)[row].name for row in feature_codes(schema)]
    assert numbers == ["features.amount", "features.age"]
    assert codes == ["features.country", "segment"]


def test_it_adds_what_its_parts_say(fitted: Enrichment, stream: Batch) -> None:
    """Every derived row and every mark is that of the part asked alone, in the order of their names."""
    scored = np.arange(stream.time.size) % 3 == 0
    found = fitted.apply(stream, scored)
    assert (fitted.surrogate, fitted.vocabulary, fitted.centroids, fitted.forest) != (None,) * 4
    assert fitted.surrogate is not None
    assert fitted.vocabulary is not None
    assert fitted.centroids is not None
    assert fitted.forest is not None
    assert fitted.unsure is not None
    words = tokens(stream.texts)
    features = stream.numbers[feature_numbers(fitted.schema)]
    inputs = Inputs(features, stream.codes[feature_codes(fitted.schema)], words, stream.embeddings)
    flipped, surprise = fitted.surrogate.compare(
        fitted.surrogate.scores(inputs), stream.codes[0].astype(np.int64) - 1, stream.numbers[0]
    )
    outlier = np.array([fitted.forest.score(features[:, [n]])[0] if scored[n] else np.nan for n in range(scored.size)])
    expected = [
        surprise,
        *text_rows(stream.texts, words, fitted.vocabulary),
        fitted.centroids.distance(stream.embeddings, stream.codes[0]),
        outlier,
    ]
    assert fitted.derived == (SURPRISE, *TEXT_ROWS, "embedding.distance", OUTLIER)
    assert fitted.marks == (*fitted.asked, SURPRISING) == (FLIPPED, UNSURE, SURPRISING)
    assert np.array_equal(found.numbers[stream.numbers.shape[0] :], expected, equal_nan=True)
    limits = dict(zip(fitted.centroids.classes.tolist(), fitted.centroids.limits.tolist(), strict=True))
    beyond = [d > limits.get(code, np.inf) for d, code in zip(expected[-2], stream.codes[0].tolist(), strict=True)]
    surprising = [bool(s >= 0.98 or far) for s, far in zip(surprise, beyond, strict=True)]
    unsure = [bool(c <= fitted.unsure) for c in stream.numbers[0]]
    assert found.marks.tolist() == [flipped.tolist(), unsure, surprising]
    assert any(s >= 0.98 and not far for s, far in zip(surprise, beyond, strict=True))
    assert any(far and not s >= 0.98 for s, far in zip(surprise, beyond, strict=True))
    # The sample has something of everything.
    assert flipped.any()
    assert np.isnan(surprise).any()
    assert not flipped.all()
    unknown = stream.codes[0] > 2
    assert unknown.any()
    assert not flipped[unknown].any()


def test_the_rest_stays(fitted: Enrichment, stream: Batch) -> None:
    """No column that was there is changed or moved, and the batch that was given is not touched."""
    before = stream.numbers.copy()
    found = fitted.apply(stream, np.ones(stream.time.size, np.bool_))
    assert np.array_equal(stream.numbers, before, equal_nan=True)
    assert stream.marks.shape[0] == 0
    assert np.array_equal(found.numbers[: before.shape[0]], before, equal_nan=True)
    for name in ("time", "version", "codes", "ids", "labels", "texts", "rejected_at"):
        assert getattr(found, name) is getattr(stream, name)
    assert np.array_equal(found.embeddings, stream.embeddings, equal_nan=True)


def applied(fitted: Enrichment, pieces: list[Batch]) -> Batch:
    """What a stream in pieces becomes, with the sampler's choice of records."""
    sampler = fitted.sampler(WINDOW)
    made = [fitted.apply(piece, sampler.take(piece.time)) for piece in pieces]
    return dataclasses.replace(
        made[0],
        numbers=np.concatenate([piece.numbers for piece in made], axis=1),
        marks=np.concatenate([piece.marks for piece in made], axis=1),
    )


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_chopping_does_not_matter(fitted: Enrichment, stream: Batch, cuts: list[int]) -> None:
    """Bit for bit, a record's values do not depend on what it came together with."""
    whole, parts = applied(fitted, [stream]), applied(fitted, chopped(stream, cuts))
    assert np.array_equal(whole.numbers, parts.numbers, equal_nan=True)
    assert np.array_equal(whole.marks, parts.marks)
    outlier = whole.numbers[-1]
    assert np.isfinite(outlier).any()
    assert np.isnan(outlier).any()


@given(seed=st.integers(0, 2**32 - 1))
def test_order_does_not_matter(fitted: Enrichment, stream: Batch, seed: int) -> None:
    """A record's values are its own: shuffled records have the shuffled values."""
    order = np.random.default_rng(seed).permutation(stream.time.size)
    everyone: Bools = np.ones(order.size, np.bool_)
    plain, shuffled = fitted.apply(stream, everyone), fitted.apply(of(stream, order), everyone)
    assert np.array_equal(plain.numbers[:, order], shuffled.numbers, equal_nan=True)
    assert np.array_equal(plain.marks[:, order], shuffled.marks)


def test_no_records(fitted: Enrichment, stream: Batch) -> None:
    """An empty batch gets its rows and marks too, with nothing in them."""
    pieces = [piece.time.size for piece in chopped(stream, [0])]
    assert sum(pieces) == stream.time.size
    nothing = of(stream, np.empty(0, np.int64))
    found = fitted.apply(nothing, np.empty(0, np.bool_))
    assert found.numbers.shape == (stream.numbers.shape[0] + len(fitted.derived), 0)
    assert found.marks.shape == (len(fitted.marks), 0)


PARTS = ("surrogate", "vocabulary", "centroids", "forest", "unsure")


@pytest.mark.parametrize("kept", [(), *((part,) for part in PARTS), *pairwise(PARTS)])
def test_what_was_not_fitted_is_not_asked(fitted: Enrichment, stream: Batch, kept: tuple[str, ...]) -> None:
    """Each part brings its rows and marks, whatever else is there; rows and names always agree."""
    left_out: dict[str, Any] = dict.fromkeys(set(PARTS) - {*kept})
    some = dataclasses.replace(fitted, **left_out)
    found = some.apply(stream, np.ones(stream.time.size, np.bool_))
    whole = fitted.apply(stream, np.ones(stream.time.size, np.bool_))
    base = stream.numbers.shape[0]
    assert found.numbers.shape[0] == base + len(some.derived)
    assert found.marks.shape[0] == len(some.marks)
    for row, name in enumerate(some.derived):
        other = whole.numbers[base + fitted.derived.index(name)]
        assert np.array_equal(found.numbers[base + row], other, equal_nan=True), name
    for row, name in enumerate(some.marks):
        other = whole.marks[fitted.marks.index(name)]
        if name == SURPRISING and (some.surrogate is None or some.centroids is None):
            assert not (found.marks[row] & ~other).any()
        else:
            assert found.marks[row].tolist() == other.tolist()


def test_a_log_without_confidence_has_flips_and_no_surprise(fitted: Enrichment, stream: Batch) -> None:
    """Surprise is about the confidence: where none is logged there is no such row, and flips are what they were."""
    bare = dataclasses.replace(fitted, schema=msgspec.structs.replace(fitted.schema, confidence=False), unsure=None)
    everyone = np.ones(stream.time.size, np.bool_)
    found = bare.apply(dataclasses.replace(stream, numbers=stream.numbers[1:]), everyone)
    assert SURPRISE not in bare.derived
    assert bare.marks == (FLIPPED, SURPRISING)
    assert found.marks[0].tolist() == fitted.apply(stream, everyone).marks[0].tolist()
    assert fitted.centroids is not None
    distances = fitted.centroids.distance(stream.embeddings, stream.codes[0])
    assert found.marks[1].tolist() == fitted.centroids.surpassed(distances, stream.codes[0]).tolist()


def test_a_surrogate_that_does_not_count_flips_marks_them_for_the_miner_only(fitted: Enrichment, stream: Batch) -> None:
    """No indicator asks of its flips or its surprise; both marks are what they are where flips are counted."""
    everyone = np.ones(stream.time.size, np.bool_)
    kept = dataclasses.replace(fitted, counts_flips=False)
    assert kept.asked == (UNSURE,)
    assert kept.marks == (UNSURE, FLIPPED, SURPRISING)
    assert SURPRISE not in kept.derived
    found, whole = kept.apply(stream, everyone), fitted.apply(stream, everyone)
    assert found.marks.tolist() == whole.marks[[1, 0, 2]].tolist()
    assert np.array_equal(found.numbers[-1], whole.numbers[-1], equal_nan=True)
