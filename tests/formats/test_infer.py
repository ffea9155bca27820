"""Inference: from a trusted log to the schema, without a word from anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from poisonwatch.errors import BaselineError
from poisonwatch.formats.infer import (
    MOST_CATEGORIES,
    MOST_CLASSES,
    MOST_FEATURES,
    MOST_KNOWN,
    MOST_SEGMENTS,
    WIDEST,
    infer,
)
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.types import UNVERSIONED
from tests.streams import START, Record, lines

if TYPE_CHECKING:
    from poisonwatch.types import Column, Schema

RNG_SEED = 7


def learned(records: list[Record], model: str | None = None) -> Schema:
    """The schema of these records."""
    return infer(lines(records).splitlines(), model).schema


def column(schema: Schema, name: str) -> Column:
    """A feature's column."""
    (found,) = (column for column in schema.features if column.name == name)
    return found


def feature(values: list[Any]) -> Column:
    """The column that these values of one feature make."""
    schema = learned([{"prediction": "a", "features": {"x": value}} for value in values])
    return column(schema, "features.x")


def test_mixed_features() -> None:
    """Numbers, categories, booleans and text are told apart in one log; of the rest only the presence is watched."""
    rng = np.random.default_rng(RNG_SEED)
    schema = learned(
        [
            {
                "prediction": "ham",
                "features": {
                    "amount": rng.normal(),
                    "count": int(rng.integers(9)),
                    "country": str(rng.choice(["de", "fr"])),
                    "member": bool(rng.integers(2)),
                    "subject": "these are more than three words",
                    "vector": [0.5, 0.25],
                    "nested": {"a": 1},
                    "nothing": None,
                },
            }
            for _ in range(50)
        ]
    )
    assert [(found.name, found.kind) for found in schema.features] == [
        ("features.amount", "numerical"),
        ("features.count", "numerical"),
        ("features.country", "categorical"),
        ("features.member", "categorical"),
        ("features.subject", "text"),
        ("features.vector", "opaque"),
        ("features.nested", "opaque"),
        ("features.nothing", "opaque"),
    ]
    assert sorted(column(schema, "features.member").values) == ["false", "true"]
    assert (schema.layout, schema.confidence) == ("object", False)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5, None], "numerical"),
        ([1, "unknown"], "categorical"),
        (["a b c", "a b"], "categorical"),
        (["a b c d e", "a b"], "text"),
        ([True, 1], "categorical"),
        (["a b c d e f", 1], "categorical"),
        ([[1, 2], "x"], "opaque"),
        ([[1, 2], [1, 2]], "opaque"),
        ([None], "opaque"),
        ([{"a": 1}], "opaque"),
        ([f"u{n}" for n in range(50)], "categorical"),
    ],
)
def test_kinds(values: list[Any], kind: str) -> None:
    """Mixed values make the kind that can hold them all; what never has a usable value is watched for its presence."""
    assert feature(values * 2).kind == kind


@pytest.mark.parametrize(
    ("repeated", "once", "kind"),
    [(1000, 0, "categorical"), (1001, 0, "opaque"), (9, 2, "categorical"), (9, 3, "opaque"), (0, 2, "opaque")],
)
def test_nearly_all_different(repeated: int, once: int, kind: str) -> None:
    """With over 1,000 values, or over 10 % of the records with a value met once, only presence is watched."""
    values = [f"r{n}" for n in range(repeated)] * 2 + [f"o{n}" for n in range(once)]
    assert feature(values).kind == kind
    mixed = [7 if value == values[0] else value for value in values]
    assert feature([*mixed, None]).kind == kind


def test_outcome_with_many_values_stays_one() -> None:
    """The prediction itself is never taken for text."""
    assert learned([{"prediction": f"c{n}"} for n in range(1200)]).outcome.kind == "categorical"


def own(values: list[Any], name: str) -> Column | None:
    """The column that these values of a field of the record itself make."""
    schema = learned([{"prediction": "a", name: value} for value in values])
    return next((column for column in schema.features if column.name == name), None)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["hello"], "text"),
        (["one", None], "text"),
        ([f"t{n}" for n in range(MOST_KNOWN + 1)], "text"),
        (["hello", 5], "opaque"),
        ([5], "opaque"),
        ([["a"]], "opaque"),
    ],
)
def test_text_of_the_record_is_text(values: list[Any], kind: str) -> None:
    """However short and however often repeated, a record's own text is text when all of it is strings."""
    found = own(values, "text")
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(
    ("values", "kind", "width"),
    [
        ([[0.5, 1], [1, 2]], "embedding", 2),
        ([[1.0] * WIDEST, None], "embedding", WIDEST),
        ([[1.0] * (WIDEST + 1)], "opaque", 0),
        ([[1, 2], [1, 2, 3]], "opaque", 0),
        ([[1, 2], []], "opaque", 0),
        ([[1, "x"]], "opaque", 0),
        ([[1, 2], "x"], "opaque", 0),
        (["x"], "opaque", 0),
        ([5.0], "opaque", 0),
    ],
)
def test_embedding_of_the_record(values: list[Any], kind: str, width: int) -> None:
    """Lists of numbers of one width are an embedding; of anything else only the presence is watched."""
    found = own(values, "embedding")
    assert found is not None
    assert (found.kind, found.width) == (kind, width)


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        (["eu", "us", "us"], "categorical", "us"),
        ([7, 7, 8.0], "categorical", "7"),
        ([True, "eu", 7, 7], "categorical", "7"),
        (["many words say where this was", "x", "x"], "categorical", "x"),
        (["eu", ["us"]], "opaque", "present"),
        ([{"a": 1}], "opaque", "present"),
    ],
)
def test_segment_is_a_category(values: list[Any], kind: str, first: str) -> None:
    """A segment is a category whatever single values it has, most frequent first."""
    found = own(values, "segment")
    assert found is not None
    assert (found.kind, found.values[0]) == (kind, first)
    assert found.strings == (kind == "categorical" and all(isinstance(value, str) for value in values))


def test_segments_have_room() -> None:
    """Two hundred segments have codes of their own, though each was met once; the others up to 1,000 are known."""
    found = own([f"s{n:04d}" for n in range(MOST_KNOWN + 100)], "segment")
    assert found is not None
    assert found.kind == "categorical"
    assert found.values == tuple(f"s{n:04d}" for n in range(MOST_SEGMENTS))
    assert len(found.folded) == MOST_KNOWN - MOST_SEGMENTS


def test_own_fields_stand_behind_the_features() -> None:
    """Segment, text and embedding come last, in this order, and only when the reference has them."""
    whole = {"embedding": [1, 2], "text": "a", "segment": "eu", "features": {"text": 1, "segment": "x"}}
    schema = learned([{"prediction": "a", **whole}] * 2)
    names = [found.name for found in schema.features]
    assert names == ["features.text", "features.segment", "segment", "text", "embedding"]
    assert own([None], "text") is None
    assert learned([{"prediction": "a", "text": "hello"}]).layout == "none"


def test_list_features() -> None:
    """Features as a list are numerical columns by position."""
    schema = learned([{"prediction": 1, "features": [1, 2, None]}])
    assert schema.layout == "list"
    assert [(found.name, found.kind) for found in schema.features] == [
        (f"features[{n}]", "numerical") for n in range(3)
    ]


@pytest.mark.parametrize(
    ("predictions", "kind", "values"),
    [
        (["ham", "spam", "ham"], "categorical", ("ham", "spam")),
        ([1, 0, 1], "categorical", ("1", "0")),
        ([1.0, 0, 1], "categorical", ("1", "0")),
        ([True, False, True], "categorical", ("true", "false")),
        (list(range(21)), "numerical", ()),
        ([0.5, 1, 2], "numerical", ()),
        ([1, "unknown", 1], "categorical", ("1", "unknown")),
    ],
)
def test_outcomes(predictions: list[Any], kind: str, values: tuple[str, ...]) -> None:
    """Few whole numbers are classes, most frequent first; many, or fractions, are a number."""
    outcome = learned([{"prediction": prediction} for prediction in predictions]).outcome
    assert (outcome.kind, outcome.values) == (kind, values)


def test_caps() -> None:
    """Classes, categories and features beyond their caps share a code or are ignored, and that is counted."""
    many = [
        {
            "prediction": f"c{n % 1200:04d}",
            "features": {"id": f"i{n % 599}", **{f"f{m}": m for m in range(MOST_FEATURES + 4)}},
        }
        for n in range(1201)
    ]
    found = infer(lines(many).splitlines())
    outcome, identity = found.schema.outcome, column(found.schema, "features.id")
    assert (len(outcome.values), len(outcome.folded)) == (MOST_CLASSES, MOST_KNOWN - MOST_CLASSES)
    assert (len(identity.values), len(identity.folded)) == (MOST_CATEGORIES, 599 - MOST_CATEGORIES)
    assert len(found.schema.features) == MOST_FEATURES
    assert found.ignored_features == 1201 * 5
    assert found.singletons["features.id"] == ([], [])
    own, folded = found.singletons["prediction"]
    assert (len(own), len(folded)) == (MOST_CLASSES - 1, MOST_KNOWN - MOST_CLASSES)


@pytest.mark.parametrize("name", ['qu"ote', "back\\slash", "new\nline"])
def test_feature_that_cannot_be_watched(name: str) -> None:
    """A feature whose name no struct can carry is ignored, and that is counted."""
    found = infer(lines([{"prediction": "a", "features": {name: 1, "x": 2}}]).splitlines())
    assert [found.name for found in found.schema.features] == ["features.x"]
    assert found.ignored_features == 1


def test_confidence_from_probabilities() -> None:
    """A log that only has probabilities, under either name, has a confidence: the largest."""
    for said in (
        {"probabilities": [0.25, 0.75]},
        {"scores": {"a": 0.75, "b": 0.25}},
        {"probabilities": None, "scores": [0.75]},
    ):
        found = infer(lines([{"prediction": "a", **said}]).splitlines())
        assert found.schema.confidence
        assert found.samples["confidence"].tolist() == [0.75]


def test_span_and_times() -> None:
    """The span is that of the times told, in whichever notation; records without one are counted."""
    found = infer(
        lines(
            [
                {"prediction": "a", "timestamp": START + 5},
                {"prediction": "a", "timestamp": "2026-01-05T08:00:00Z"},
                {"prediction": "a"},
                {"prediction": "a", "timestamp": "yesterday"},
            ]
        ).splitlines()
    )
    assert (found.first, found.last, found.records, found.timed) == (START, START + 5, 4, 2)


def test_labels() -> None:
    """Known truth gives how many predictions of each class were wrong; 1 and "1" are no disagreement."""
    told = [(1, 1), (1, "1"), (1, 0), (0, 1), (0, None), (0, True)]
    found = infer(lines([{"prediction": said, "label": true} for said, true in told]).splitlines())
    assert found.labels == {"1": (3, 1), "0": (2, 2)}


def test_versions() -> None:
    """Versions are counted under the names that the decoder gives them, the most frequent first, sixteen at most."""
    said: list[Any] = ["v2", "v1", "v2", 3, 3.0, "3", None, "", True, [1], 1e400, 2**60]
    records = [{"prediction": "a", "timestamp": START, "model_version": version} for version in said]
    records += [{"prediction": "a"}, {"model_version": "v1"}]
    found = infer(lines(records).splitlines())
    assert list(found.versions.items()) == [("3", 3), ("v2", 2), ("1.152921504606847e+18", 1), ("v1", 1)]
    (decoded,) = JsonlPredictions({"": found.schema}, 1 << 20).decode(lines(records)).batches
    assert {*found.versions, UNVERSIONED} == {*decoded.versions}
    many = [{"prediction": "a", "model_version": f"v{n}"} for n in range(40) for _ in range(n + 1)]
    assert infer(lines(many).splitlines()).versions == {f"v{n}": n + 1 for n in range(39, 23, -1)}


@pytest.mark.parametrize(
    ("records", "model", "text"),
    [
        ([], None, "the reference has no record with a prediction"),
        ([{"timestamp": START}], None, "the reference has no record with a prediction"),
        ([{"prediction": ["a"]}], None, "the reference has no record with a prediction"),
        (
            [{"prediction": "a", "model": "b"}, {"prediction": "a", "model": "a"}],
            None,
            "the reference holds several models (a, b): choose one with --model",
        ),
        (
            [{"prediction": "a", "model": "b"}, {"prediction": "a", "model": "a"}],
            "c",
            "the reference has no record of the model 'c'; it holds records of a, b",
        ),
        (
            [{"prediction": "a", "features": [1]}, {"prediction": "a", "features": {"x": 1}}],
            None,
            "the reference's `features` are sometimes an object and sometimes a list: use one shape",
        ),
        (
            [{"prediction": "a", "features": [1]}, {"prediction": "a", "features": [1, 2]}],
            None,
            "the reference's `features` lists have different lengths (1, 2): every list must have the same",
        ),
    ],
)
def test_what_makes_no_reference(records: list[Record], model: str | None, text: str) -> None:
    """A log that cannot be learned from is refused with what is wrong and what to do."""
    with pytest.raises(BaselineError) as refused:
        learned(records, model)
    assert str(refused.value) == text


def test_model_is_chosen() -> None:
    """Of several models the chosen one is learned, with records that name none."""
    records = [{"prediction": "x", "model": "a"}, {"prediction": "y", "model": "b"}, {"prediction": "z"}]
    schema = learned(records, "a")
    assert (schema.model, sorted(schema.outcome.values)) == ("a", ["x", "z"])
    assert learned(records[:1]).model == "a"
    assert learned(records[2:]).model is None
