"""Rows of every usual shape become the same native fields, and no value of a row breaks the reading."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import KserveConfig
from poisonwatch.formats.foreign import Draft
from poisonwatch.formats.rows import MOST_ROWS, Rows
from tests.formats.posted import JSON

HAM = {"ham": 0.25, "spam": 0.75}
SURE = {"prediction": "spam", "confidence": 0.75, "probabilities": HAM}


def rows(**told: Any) -> Rows:
    """A reader that is configured so."""
    return Rows(KserveConfig(**told))


@pytest.mark.parametrize(
    ("row", "told", "expected"),
    [
        ("hello you", {}, {"text": "hello you"}),
        (["hello you"], {}, {"text": "hello you"}),
        ("hello you", {"features": ("subject",)}, {"features": {"subject": "hello you"}}),
        ("hello you", {"features": ("subject",), "text": "subject"}, {"text": "hello you"}),
        ([1, 2.5, None], {}, {"features": [1, 2.5, None]}),
        (7, {}, {"features": [7]}),
        ([1, 2.5], {"embedding": "vector"}, {"embedding": [1, 2.5]}),
        ([1, "de"], {}, {"features": {"0": 1, "1": "de"}}),
        ([1, "de"], {"features": ("age", "country")}, {"features": {"age": 1, "country": "de"}}),
        ({"age": 1, "country": "de"}, {}, {"features": {"age": 1, "country": "de"}}),
        ({"age": 1, "body": "x", "v": [1]}, {"text": "body", "embedding": "v"}, {"features": {"age": 1}, "text": "x", "embedding": [1]}),
        ({"features": [1, 2]}, {}, {"features": [1, 2]}),
        ({"features": {"age": 1}}, {}, {"features": {"age": 1}}),
        ({"features": [1, 2], "age": 1}, {}, {"features": {"features": [1, 2], "age": 1}}),
        ({}, {}, {}),
        (None, {}, {}),
    ],
)  # fmt: skip
def test_inputs(row: Any, told: dict[str, Any], expected: dict[str, Any]) -> None:
    """Names, places, texts and embeddings land where a native record has them."""
    faults: Counter[str] = Counter()
    assert rows(**told).given(row, faults) == expected
    assert not faults


@pytest.mark.parametrize("row", [[1, 2, 3], [1]])
def test_a_row_of_another_length_keeps_what_fits_and_is_counted(row: list[int]) -> None:
    """A value too many or too few shifts no other."""
    faults: Counter[str] = Counter()
    found = rows(features=("age", "size")).given(row, faults)
    assert found == {"features": dict(zip(("age", "size"), row, strict=False))}
    assert faults == {"features_wrong_length": 1}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("spam", {"prediction": "spam"}),
        (1, {"prediction": "spam"}),
        (1.0, {"prediction": "spam"}),
        (True, {"prediction": "spam"}),
        ("1", {"prediction": "spam"}),
        (7, {"prediction": 7}),
        (0.75, SURE),
        ([0.75], SURE),
        ([0.25, 0.75], SURE),
        ([[0.25, 0.75]], SURE),
        ([-1.5, 3.0], {"prediction": "spam"}),
        (HAM, SURE),
        ({"prediction": "spam", "probabilities": [0.25, 0.75]}, SURE),
        ({"prediction": 1, "probabilities": [[0.25, 0.75]]}, SURE),
        ({"prediction": [1], "probabilities": HAM}, SURE),
        ({"predict": "spam", "predict_proba": [0.25, 0.75]}, SURE),
        ({"label": "spam", "scores": HAM}, SURE),
        ({"label": "spam", "probability": [0.25, 0.75]}, SURE),
        ({"classes": ["spam", "ham"], "scores": [0.75, 0.25]}, SURE),
        ({"output": [0.25, 0.75]}, SURE),
        ({"output": {"output": [0.25, 0.75]}}, SURE),
        ({"probs": [0.25, 0.75]}, SURE),
        ({"output-0": "spam", "output-1": [0.25, 0.75]}, SURE),
        ([{"label": "ham", "score": 0.25}, {"label": "spam", "score": 0.75}], SURE),
        (["spam", 0.75], {"prediction": "spam", "confidence": 0.75}),
        ({"predicted_label": "spam", "score": 0.75}, {"prediction": "spam", "confidence": 0.75}),
        ({"class": "ham", "scores": HAM}, {"prediction": "ham", "confidence": 0.25, "probabilities": HAM}),
        ({"prediction": None, "predicted_class": "ham"}, {"prediction": "ham"}),
        ([0.1, 0.2, 0.7], {"prediction": 2, "confidence": 0.7, "probabilities": [0.1, 0.2, 0.7]}),
        ([1, 2, 3], {"prediction": [1, 2, 3]}),
        ([], {"prediction": []}),
        (None, {"prediction": None}),
        ({}, {}),
    ],
)
def test_outputs(row: Any, expected: dict[str, Any]) -> None:
    """Labels, numbers of classes and probabilities of every usual shape say the same prediction."""
    found = rows(classes=("ham", "spam")).answered(row)
    assert found == expected


def test_outputs_without_classes_are_numbered() -> None:
    """Nobody said what the classes are called."""
    assert rows().answered([0.25, 0.75]) == {"prediction": 1, "confidence": 0.75, "probabilities": [0.25, 0.75]}
    assert rows().answered(0.75) == {"prediction": 0.75}
    assert rows().answered({"predict": "spam", "predict_proba": [0.25, 0.75]}) == {
        "prediction": "spam",
        "probabilities": [0.25, 0.75],
    }


def test_named_outputs_are_taken_and_no_others() -> None:
    """What the configuration names goes before the usual names, and is not replaced by them."""
    told = rows(prediction="verdict", confidence="sure", probabilities="shares")
    assert told.answered({"verdict": "spam", "sure": 0.9, "label": "ham"}) == {"prediction": "spam", "confidence": 0.9}
    assert told.answered({"label": "ham"}) == {}
    assert told.answered({"shares": HAM}) == SURE


def test_rows_are_zipped_and_numbered() -> None:
    """One row keeps the id, several get a number each; what they share is said once more in each."""
    draft = Draft()
    reader = rows()
    reader.records([[1]], ["spam"], {"prediction_id": "a", "timestamp": 5}, draft, b"")
    reader.records([[1], [2]], ["spam", "ham"], {"prediction_id": "b"}, draft, b"")
    assert draft.records == [
        {"prediction_id": "a", "timestamp": 5, "features": [1], "prediction": "spam"},
        {"prediction_id": "b#0", "features": [1], "prediction": "spam"},
        {"prediction_id": "b#1", "features": [2], "prediction": "ham"},
    ]
    assert not draft.rejected


@given(given_=st.integers(0, 5), answered=st.integers(0, 5))
def test_no_row_is_hidden(given_: int, answered: int) -> None:
    """Every row is a record or is counted; the surplus of either side has a reason of its own."""
    draft = Draft()
    rows().records([[1]] * given_, ["spam"] * answered, {"prediction_id": "a"}, draft, b"x")
    assert len(draft.records) == min(given_, answered)
    assert draft.rejected["rows_do_not_match"] == abs(given_ - answered)
    assert draft.rejected["no_rows"] == (given_ == answered == 0)
    assert len({record["prediction_id"] for record in draft.records}) == len(draft.records)
    if given_ != answered and draft.records:
        assert draft.records[0]["prediction_id"] == "a#0"


def test_rows_beyond_the_limit_are_counted() -> None:
    """An event of a hundred thousand rows costs no more than one of the limit."""
    draft = Draft()
    rows().records([[1]] * (MOST_ROWS + 5), ["spam"] * (MOST_ROWS + 5), {}, draft, b"")
    assert len(draft.records) == MOST_ROWS
    assert draft.rejected == {"too_many_rows": 5}


@given(
    row=JSON,
    classes=st.sampled_from([(), ("ham", "spam"), ("a", "b", "c")]),
    names=st.sampled_from([(), ("x",), ("x", "y")]),
    text=st.sampled_from([None, "x"]),
)
def test_no_row_raises(row: Any, classes: tuple[str, ...], names: tuple[str, ...], text: str | None) -> None:
    """Whatever stands in a row, only the three fields of an input and the three of an output come out."""
    reader = rows(classes=classes, features=names, text=text, embedding="y" if text else None)
    assert reader.given(row, Counter()).keys() <= {"features", "text", "embedding"}
    assert reader.answered(row).keys() <= {"prediction", "confidence", "probabilities"}


@given(
    output=st.dictionaries(
        st.sampled_from(["prediction", "label", "output", "score", "scores", "probabilities", "classes", "x"]),
        JSON | st.lists(st.floats() | st.integers(), max_size=3) | st.just(10**400),
        max_size=4,
    )
)
def test_no_named_output_raises(output: dict[str, Any]) -> None:
    """The usual names may hold anything."""
    assert rows(classes=("ham", "spam")).answered(output).keys() <= {"prediction", "confidence", "probabilities"}
    assert rows().answered(output).keys() <= {"prediction", "confidence", "probabilities"}
