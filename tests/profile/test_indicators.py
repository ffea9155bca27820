"""What is asked of a prediction, and that counting the answers adds up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.indicators import MISSING_CODE, ask, ask_lines, code_count, folded_code, unseen_code
from poisonwatch.types import Column, Schema
from tests.streams import SMALL, chopped, small_batch, small_questions

if TYPE_CHECKING:
    from poisonwatch.profile.indicators import Indicator, Questions
    from poisonwatch.types import Batch, Codes, Floats, Ints

QUESTIONS = small_questions()


def counted(batch: Batch, of: Ints | slice = slice(None)) -> Ints:
    """The profile of some predictions of a batch."""
    return QUESTIONS.count(batch.numbers[:, of], batch.codes[:, of])


def by_hand(questions: Questions, numbers: Floats, codes: Codes) -> list[int]:
    """The vector as the module describes it, one record and one question at a time."""
    n = codes.shape[1]
    vector = [n]
    vector += [sum(1 for value in row if value == value) for row in numbers.tolist()]  # noqa: PLR0124 - NaN is not itself
    vector += [sum(1 for value in row if value != value) for row in numbers.tolist()]  # noqa: PLR0124
    for row, cuts in zip(numbers.tolist(), questions.cuts.tolist(), strict=True):
        vector += [sum(1 for value in row if value <= cut) for cut in cuts]
    vector += [sum(1 for code in row if code != MISSING_CODE) for row in codes.tolist()]
    for row, column in zip(codes.tolist(), questions.code_columns, strict=True):
        vector += [row.count(code) for code in range(code_count(column))]
    return vector


numbers_with_ties = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, np.nan, np.inf, -np.inf]), st.floats(-2, 2)
)


@st.composite
def columns(draw: st.DrawFn) -> tuple[Floats, Codes]:
    """Numbers and codes of up to 30 predictions of `SMALL`."""
    n = draw(st.integers(0, 30))
    numbers = [draw(st.lists(numbers_with_ties, min_size=n, max_size=n)) for _ in QUESTIONS.numbers]
    codes = [
        draw(st.lists(st.integers(0, code_count(column) - 1), min_size=n, max_size=n))
        for column in QUESTIONS.code_columns
    ]
    return np.array(numbers, np.float64), np.array(codes, np.int32)


@given(columns())
def test_counts_are_those_of_asking_every_record_every_question(rows: tuple[Floats, Codes]) -> None:
    """Whatever the values, NaN, infinities and ties at the cuts included, the profile is the obvious count."""
    numbers, codes = rows
    profile = QUESTIONS.count(numbers, codes)
    assert profile.tolist() == by_hand(QUESTIONS, numbers, codes)
    assert profile.size == QUESTIONS.size


def holds(indicator: Indicator, batch: Batch, record: int) -> bool:
    """Is the text of an indicator true of a record? Read from the text alone."""
    for number, name in enumerate(QUESTIONS.numbers):
        row = float(batch.numbers[number, record])
        if indicator.text == f"{name} missing":
            return bool(np.isnan(row))
        if found := re.fullmatch(rf"{re.escape(name)} (<=|<) (\S+)", indicator.text):
            return row <= float(found[2]) if found[1] == "<=" else row < float(found[2])
    for number, column in enumerate(QUESTIONS.code_columns):
        names = ["missing", *(f"= {value}" for value in column.values), "= any rare value", "unseen before"]
        if indicator.text.startswith(f"{column.name} "):
            code = int(batch.codes[number, record])
            return names[code] == indicator.text.removeprefix(f"{column.name} ")
    raise AssertionError(indicator.text)


def test_an_indicator_counts_what_its_text_says() -> None:
    """For every indicator the count of yes is the number of records of which its text is true."""
    batch = small_batch(range(500), np.random.default_rng(1))
    profile = counted(batch)
    for indicator in QUESTIONS.indicators:
        true = sum(holds(indicator, batch, record) for record in range(500))
        assert profile[indicator.yes] == true, indicator.text
        assert true, f"{indicator.text}: the sample shows nothing"


def test_a_question_is_asked_of_whoever_can_answer_it() -> None:
    """Whether a value is missing is asked of every prediction, everything else of those that have the value."""
    batch = small_batch(range(500), np.random.default_rng(2))
    profile = counted(batch)
    present = {name: int((~np.isnan(row)).sum()) for name, row in zip(QUESTIONS.numbers, batch.numbers, strict=True)}
    present |= {c.name: int((row != 0).sum()) for c, row in zip(QUESTIONS.code_columns, batch.codes, strict=True)}
    for indicator in QUESTIONS.indicators:
        name = indicator.text.split(" ")[0]
        assert profile[indicator.asked] == (500 if indicator.text.endswith("missing") else present[name])
        assert profile[indicator.yes] <= profile[indicator.asked]


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 60), max_size=60))
def test_pieces_count_as_the_whole(seed: int, cuts: list[int]) -> None:
    """Update in pieces equals update in whole, however the predictions were chopped."""
    batch = small_batch(range(60), np.random.default_rng(seed))
    total = np.zeros(QUESTIONS.size, np.int64)
    for piece in chopped(batch, cuts):
        total += counted(piece)
    assert total.tolist() == counted(batch).tolist()


@given(seeds=st.tuples(*[st.integers(0, 2**32 - 1)] * 3), sizes=st.tuples(*[st.integers(0, 40)] * 3))
def test_profiles_merge_in_any_order(seeds: tuple[int, int, int], sizes: tuple[int, int, int]) -> None:
    """Merging is associative and commutative, and the profile of nothing is its identity."""
    pieces = [small_batch(range(n), np.random.default_rng(s)) for s, n in zip(seeds, sizes, strict=True)]
    a, b, c = map(counted, pieces)
    assert ((a + b) + c).tolist() == (a + (b + c)).tolist()
    assert (a + b).tolist() == (b + a).tolist()
    nothing = counted(pieces[0], slice(0, 0))
    assert (a + nothing).tolist() == a.tolist()
    assert not nothing.any()
    numbers = np.concatenate([piece.numbers for piece in pieces], axis=1)
    codes = np.concatenate([piece.codes for piece in pieces], axis=1)
    assert (a + b + c).tolist() == QUESTIONS.count(numbers, codes).tolist()


@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_predictions_does_not_count(seed: int) -> None:
    """A profile is invariant under permutation of its predictions."""
    rng = np.random.default_rng(seed)
    batch = small_batch(range(50), rng)
    assert counted(batch, rng.permutation(50)).tolist() == counted(batch).tolist()


def test_rows_without_numbers_or_without_codes_are_counted() -> None:
    """A schema may have only codes, or only numbers; both count every prediction."""
    only_codes = Schema(
        model=None,
        outcome=SMALL.outcome,
        features=(),
        layout="none",
        confidence=False,
    )
    profile = ask(only_codes, {}).count(np.empty((0, 3)), np.array([[1, 2, 2]], np.int32))
    assert profile.tolist() == [3, 3, 0, 1, 2, 0, 0]
    only_numbers = Schema(
        model=None,
        outcome=Column(name="prediction", kind="numerical"),
        features=(),
        layout="none",
        confidence=False,
    )
    profile = ask(only_numbers, {"prediction": (1.0,)}).count(
        np.array([[0.0, 1.0, np.nan]]), np.empty((0, 3), np.int32)
    )
    assert profile.tolist() == [3, 2, 1, 2]


def test_places_name_the_parts_of_the_vector() -> None:
    """`cut_place`, `present_place` and `code_place` find what was counted for a row."""
    batch = small_batch(range(200), np.random.default_rng(3))
    profile = counted(batch)
    for row in range(len(QUESTIONS.numbers)):
        values = batch.numbers[row]
        cuts = QUESTIONS.cuts[row][np.isfinite(QUESTIONS.cuts[row])]
        assert profile[QUESTIONS.cut_place(row)].tolist() == [int((values <= cut).sum()) for cut in cuts]
        assert profile[QUESTIONS.present_place(row)] == np.isfinite(values).sum()
    for row, column in enumerate(QUESTIONS.code_columns):
        found = profile[QUESTIONS.code_place(row)]
        assert found.tolist() == [int((batch.codes[row] == code).sum()) for code in range(code_count(column))]


@pytest.mark.parametrize("values", [(), ("a",), ("a", "b", "c")])
def test_codes_of_a_category_are_distinct(values: tuple[str, ...]) -> None:
    """Missing, every value, folded and unseen have a code each, and no other code exists."""
    column = Column(name="x", kind="categorical", values=values)
    codes = {MISSING_CODE, *range(1, len(values) + 1), folded_code(column), unseen_code(column)}
    assert codes == set(range(code_count(column)))


def test_only_rises_are_watched_where_a_fall_says_nothing() -> None:
    """Rejected lines and unseen categories are watched upwards only, all else both ways."""
    one_sided = {i.text for i in (*QUESTIONS.indicators, *ask_lines().indicators) if not i.down}
    assert one_sided == {"line rejected or late", "prediction unseen before", "features.country unseen before"}
    assert all(i.up for i in (*QUESTIONS.indicators, *ask_lines().indicators))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 0.99, 1e6])
def test_a_cut_just_below_a_value_is_told_as_less_than_that_value(value: float) -> None:
    """The cut that asks for the mass at 1 reads `< 1`, that at 1 itself `<= 1`: no sixteen digits, no 5e-324."""
    questions = ask(SMALL, {"confidence": (float(np.nextafter(value, -np.inf)),), "features.amount": (value,)})
    texts = {indicator.text for indicator in questions.indicators}
    assert {f"confidence < {value:.6g}", f"features.amount <= {value:.6g}"} <= texts
