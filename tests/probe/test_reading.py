"""Reading an answer: a class as the log names it, its probability, and an error for everything that is neither."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.errors import ProbeError
from poisonwatch.probe.reading import answer_of, class_of
from poisonwatch.types import Answer

ABC = ("a", "b", "c")


@given(weights=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6), asked=st.integers(0, 5), named=st.booleans())
def test_the_class_and_its_own_probability(weights: list[float], asked: int, named: bool) -> None:
    """By list or by name, without a label the most probable class answers, with one the label; the confidence is that class's."""
    total = math.fsum(weights)
    row = [weight / total for weight in weights]
    classes = [f"class {place}" for place in range(len(row))]
    given_: object = dict(zip(reversed(classes), reversed(row), strict=True)) if named else row
    best = answer_of(None, given_, None, classes, "v1")
    assert best.label in {name for name, value in zip(classes, row, strict=True) if value == max(row)}
    assert best.confidence == max(row)
    place = asked % len(row)
    assert answer_of(classes[place], given_, None, classes, None) == Answer(classes[place], row[place], None)


@pytest.mark.parametrize(
    ("label", "classes", "name"),
    [
        ("spam", None, "spam"),
        ("spam", ("ham", "spam"), "spam"),
        # As the log names numbers and booleans.
        (1, None, "1"),
        (1.0, None, "1"),
        (True, None, "true"),
        (1, ("1", "0"), "1"),
        (0.0, ("1", "0"), "0"),
        # A number that names none of the classes counts them.
        (1, ("ham", "spam"), "spam"),
        (0.0, ("ham", "spam"), "ham"),
    ],
)
def test_what_a_class_is_called(label: object, classes: tuple[str, ...] | None, name: str) -> None:
    """A class has the name that the native format gives it; its number is understood where the classes have an order."""
    assert class_of(label, classes) == name


@pytest.mark.parametrize("label", [None, "", [], ["spam"], {"label": "spam"}])
def test_what_is_no_class(label: object) -> None:
    """Lists, objects and nothing are no classes."""
    with pytest.raises(ProbeError, match="where a class was expected"):
        class_of(label, None)


@pytest.mark.parametrize("label", ["eggs", 2, -1, 0.5, True, "1"])
def test_a_class_that_is_none_of_the_classes(label: object) -> None:
    """A class that was not configured is refused, and so is a number beyond them; a string is never a number."""
    with pytest.raises(ProbeError, match="not among `classes`"):
        class_of(label, ("ham", "spam"))


@pytest.mark.parametrize("row", [[0.9], 0.9, [0.1, 0.9]])
def test_one_number_is_the_probability_of_the_second_of_two_classes(row: object) -> None:
    """The output of a logistic unit is read as the pair that it stands for."""
    found = answer_of(None, row, None, ("ham", "spam"), None)
    assert found.label == "spam"
    assert found.confidence == pytest.approx(0.9)


def test_a_confidence_of_its_own() -> None:
    """A confidence beside the label is taken as it is; without one there is none."""
    assert answer_of("a", None, 0.25, None, "v2") == Answer("a", 0.25, "v2")
    assert answer_of("a", None, None, None, None) == Answer("a", None, None)


BAD: list[tuple[object, object, object, tuple[str, ...] | None, str]] = [
    (None, [0.2, 0.8], None, ABC, "2 probabilities for 3 classes"),
    (None, [0.2, 0.3, 0.4, 0.1], None, ABC, "4 probabilities for 3 classes"),
    (None, [], None, ABC, "0 probabilities for 3 classes"),
    (None, [0.5], None, ABC, "1 probabilities for 3 classes"),
    (None, [0.2, 0.3, 0.4], None, ABC, "add up to 0.9, not to one"),
    (None, [0.9, 0.9, 0.9], None, ABC, "add up to 2.7, not to one"),
    (None, [2.5, -1.0, -0.5], None, ABC, "2.5 where a probability was expected"),
    (None, [None, 0.5, 0.5], None, ABC, "None where a probability was expected"),
    (None, ["1", 0, 0], None, ABC, "'1' where a probability was expected"),
    (None, [True, False, False], None, ABC, "True where a probability was expected"),
    (None, [math.nan, 0.5, 0.5], None, ABC, "nan where a probability was expected"),
    (None, [[1.0, 0.0, 0.0]], None, ABC, "where a probability was expected"),
    (None, [10**400, 0, 0], None, ABC, "where a probability was expected"),
    (None, "0.5", None, ABC, "where a probability was expected"),
    (None, [0.5, 0.5], None, None, "say `classes` in their order"),
    (None, {"a": 0.5, "d": 0.5}, None, ABC, "are of 'a', 'd', not of `classes`"),
    (None, {}, None, None, "where a class was expected|add up to 0"),
    ("a", {"b": 0.5, "c": 0.5}, None, None, "class 'a', of which its probabilities say nothing"),
    ("d", [1.0, 0.0, 0.0], None, ABC, "'d', which is not among `classes`"),
    ("a", None, 1.5, None, "1.5 where a confidence was expected"),
    ("a", None, "high", None, "'high' where a confidence was expected"),
]


@pytest.mark.parametrize(("label", "probabilities", "confidence", "classes", "told"), BAD)
def test_what_is_no_answer(
    label: object, probabilities: object, confidence: object, classes: tuple[str, ...] | None, told: str
) -> None:
    """Each way in which an answer is none is told."""
    with pytest.raises(ProbeError, match=told):
        answer_of(label, probabilities, confidence, classes, None)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(label=JSON, probabilities=JSON, confidence=JSON, classes=st.sampled_from([None, ABC, ("0", "1")]))
def test_whatever_comes_is_a_good_answer_or_an_error(
    label: object, probabilities: object, confidence: object, classes: tuple[str, ...] | None
) -> None:
    """No JSON gives anything but a class and a probability in [0, 1], or the documented error."""
    try:
        found = answer_of(label, probabilities, confidence, classes, None)
    except ProbeError:
        return
    assert found.label
    assert classes is None or found.label in classes
    assert found.confidence is None or 0.0 <= found.confidence <= 1.0
