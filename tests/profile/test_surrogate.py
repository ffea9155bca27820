"""What a surrogate makes of answers: flips and surprise as defined, tables that never overstate, files that come back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.packed import pack
from poisonwatch.profile.scorer import Inputs, Linear
from poisonwatch.profile.surrogate import (
    EXACT_TAIL,
    LARGEST_SCORE,
    TABLE,
    Residuals,
    Surrogate,
    SurrogateFile,
)

if TYPE_CHECKING:
    from poisonwatch.types import Floats

MARGIN = 0.7


def surrogate(classes: tuple[int, ...] = (0, 2, 3), class_count: int = 5) -> Surrogate:
    """A linear surrogate of two numbers with known residuals, without an opinion on some classes."""
    generator = np.random.default_rng(0)
    scores = 1 if len(classes) == 2 else len(classes)
    model = Linear(
        (),
        1,
        generator.normal(size=scores),
        np.zeros((scores, 2), np.float32),
        np.zeros(2),
        np.ones(2),
        generator.normal(size=(scores, 2)),
        np.zeros((scores, 0)),
    )
    tables = tuple(Residuals.of(generator.normal(size=150 + k)) for k in range(len(classes)))
    return Surrogate(model, np.array(classes), class_count, MARGIN, tables)


def answers(seed: int = 1, n: int = 500) -> tuple[Inputs, Any, Floats]:
    """Random inputs, answers (some of them no class at all), and confidences (some missing, some at the very ends)."""
    generator = np.random.default_rng(seed)
    confidence = generator.choice([0.0, 0.3, 0.6, 0.99, 1.0, np.nan], n)
    inputs = Inputs(generator.normal(size=(2, n)), np.empty((0, n), np.int32))
    return inputs, generator.integers(-1, 7, n), confidence


@pytest.mark.parametrize("classes", [(0, 2, 3), (1, 4)])
def test_flips_and_surprise_are_as_defined(classes: tuple[int, ...]) -> None:
    """Record by record: another class by more than the margin; one minus the conformal p-value of the residual."""
    made = surrogate(classes)
    inputs, predicted, confidence = answers()
    scores = made.scores(inputs)
    flipped, surprise = made.compare(scores, predicted, confidence)
    generator = np.random.default_rng(0)
    # The tables hold every residual (fewer than TABLE), so that the definition can be read off them.
    size = 1 if len(classes) == 2 else len(classes)
    generator.normal(size=size)
    generator.normal(size=(size, 2))
    known = {c: generator.normal(size=150 + k) for k, c in enumerate(classes)}
    for n, (c, sure) in enumerate(zip(predicted.tolist(), confidence.tolist(), strict=True)):
        if c not in known:
            assert not flipped[n]
            assert math.isnan(surprise[n])
            continue
        others = [float(scores[k, n]) for k in classes if k != c]
        assert flipped[n] == (max(others) - float(scores[c, n]) > MARGIN)
        if math.isnan(sure):
            assert math.isnan(surprise[n])
            continue
        odds = math.inf if sure == 1 else -math.inf if sure == 0 else math.log(sure / (1 - sure))
        residual = min(max(odds, -LARGEST_SCORE), LARGEST_SCORE) - float(scores[c, n])
        p = (1 + sum(r >= residual for r in known[c].tolist())) / (1 + len(known[c]))
        assert surprise[n] == pytest.approx(1 - p, abs=1e-12)
    assert 0 < flipped.sum() < flipped.size


def test_of_two_classes_one_is_the_other_turned_round() -> None:
    """One score serves both: they add up to nothing, and classes without an opinion never win."""
    scores = surrogate((1, 4)).scores(answers()[0])
    np.testing.assert_array_equal(scores[1], -scores[4])
    assert np.isneginf(scores[[0, 2, 3]]).all()


@pytest.mark.parametrize("predicted", [-1, 1, 4, 5, 100])
def test_there_is_no_opinion_on_an_answer_that_the_reference_does_not_know(predicted: int) -> None:
    """No answer, a class too rare in the reference, and one that it never had are neither flipped nor surprising."""
    made, (inputs, _, _) = surrogate(), answers()
    flipped, surprise = made.compare(made.scores(inputs), np.full(inputs.n, predicted), np.full(inputs.n, 0.9))
    assert not flipped.any()
    assert np.isnan(surprise).all()


def test_without_confidences_in_the_reference_nothing_surprises() -> None:
    """Flips need the answer only."""
    made, (inputs, predicted, confidence) = surrogate(), answers()
    bare = Surrogate(made.model, made.classes, made.class_count, MARGIN, (Residuals.of(np.empty(0)),) * 3)
    scores = made.scores(inputs)
    np.testing.assert_array_equal(
        bare.compare(scores, predicted, confidence)[0], made.compare(scores, predicted, confidence)[0]
    )
    assert np.isnan(bare.compare(scores, predicted, confidence)[1]).all()


@given(
    st.lists(st.integers(-20, 20).map(lambda x: x / 4), max_size=60),
    st.lists(st.integers(-24, 24).map(lambda x: x / 4), min_size=1, max_size=30),
)
def test_a_small_table_gives_the_conformal_p_value_itself(known: list[float], asked: list[float]) -> None:
    """With every residual kept, ties included, it is (1 + how many are as large) / (1 + all)."""
    expected = [1 - (1 + sum(k >= r for k in known)) / (1 + len(known)) for r in asked]
    assert Residuals.of(np.array(known)).surprise(np.array(asked)).tolist() == pytest.approx(expected)


def test_a_thinned_table_never_overstates_and_is_exact_in_the_tail() -> None:
    """Of 30,000 residuals TABLE are kept: surprise is at most that of all of them, by less than two steps of the table."""
    generator = np.random.default_rng(2)
    known, asked = generator.normal(size=30_000), np.sort(generator.normal(size=5000))
    table = Residuals.of(known)
    exact = 1 - (1 + (known >= asked[:, None]).sum(axis=1)) / (1 + known.size)
    short = exact - table.surprise(asked)
    assert table.value.size <= TABLE
    assert short.min() > -1e-12
    assert short.max() < 2 / (TABLE - EXACT_TAIL)
    tail = asked > np.sort(known)[-EXACT_TAIL]
    assert tail.sum() > 5
    np.testing.assert_allclose(short[tail], 0, atol=1e-12)


@pytest.mark.parametrize("classes", [(0, 2, 3), (1, 4)])
def test_a_surrogate_comes_back_from_its_file(classes: tuple[int, ...]) -> None:
    """Through JSON and back it says the same of every answer."""
    made = surrogate(classes)
    again = Surrogate.read(msgspec.json.decode(msgspec.json.encode(made.file()), type=SurrogateFile))
    inputs, predicted, confidence = answers()
    np.testing.assert_array_equal(again.scores(inputs), made.scores(inputs))
    for old, new in zip(
        made.compare(made.scores(inputs), predicted, confidence),
        again.compare(again.scores(inputs), predicted, confidence),
        strict=True,
    ):
        np.testing.assert_array_equal(new, old)


FILE = surrogate().file()
RESIDUALS = FILE.residuals[0]


@pytest.mark.parametrize(
    "change",
    [
        {"classes": [0]},
        {"classes": [2, 0, 3]},
        {"classes": [-1, 2, 3]},
        {"classes": [0, 2, 5]},
        {"classes": [0, 2]},
        {"class_count": 10**9},
        {"margin": math.nan},
        {"margin": -0.1},
        {"residuals": FILE.residuals[1:]},
        *(
            {"residuals": [msgspec.structs.replace(RESIDUALS, **bad), *FILE.residuals[1:]]}
            for bad in (
                {"n": 100},
                {"n": 151},
                {"value": RESIDUALS.value[::-1]},
                {"value": pack(np.zeros(150), "f8")},
                {"above": pack(np.zeros(150), "i8")},
                {"above": RESIDUALS.above[8:]},
            )
        ),
    ],
)
def test_a_damaged_surrogate_is_refused(change: dict[str, Any]) -> None:
    """Classes and tables that do not fit together, or would eat the memory."""
    Surrogate.read(FILE)
    with pytest.raises(ValueError, match="surrogate"):
        Surrogate.read(msgspec.structs.replace(FILE, **change))
