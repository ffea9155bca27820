"""What is asked of a prediction, and that counting the answers adds up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.indicators import (
    CONFIDENCE_FALL,
    ERRORS,
    FLIPPED,
    FLIPPED_AND_WRONG,
    FLIPS,
    HARMFUL_FLIPS,
    MISSING_CODE,
    MOST_SLICES,
    ONE_SIDED,
    OUTPUTS,
    SLICE_CONFIDENCE,
    SLICE_ERRORS,
    SLICE_FLIPS,
    SLICE_HARMFUL_FLIPS,
    UNSURE,
    WRONG,
    WRONG_OF_FLIPPED,
    ask,
    ask_errors,
    ask_lines,
    class_codes,
    code_count,
    code_rows,
    folded_code,
    sliced_rows,
    unseen_code,
)
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


def sides(indicator: Indicator) -> tuple[bool, bool]:
    """Whether a rise and a fall of an indicator must be watched."""
    if indicator.text.startswith((FLIPPED, UNSURE, WRONG, "line ")) or indicator.text.endswith("unseen before"):
        return True, False
    if indicator.signal.name in ONE_SIDED:
        return False, True
    if indicator.signal.name == "confidence" and not indicator.text.endswith("missing"):
        return (True, False) if indicator.signal.group == CONFIDENCE_FALL else (False, True)
    return True, True


def test_only_what_says_something_is_watched() -> None:
    """A fall of what is lost, unseen or marked says nothing; nor does a rise of small values where large ones are odd."""
    everything = (
        *QUESTIONS.indicators,
        *MARKED.indicators,
        *ask_errors(SMALL, flips=True).indicators,
        *ask_lines().indicators,
    )
    assert {i: (i.up, i.down) for i in everything} == {i: sides(i) for i in everything}
    assert {sides(i) for i in everything} == {(True, True), (True, False), (False, True)}
    for questions in (QUESTIONS, MARKED):
        assert questions.sides.tolist() == [[i.up, i.down] for i in questions.indicators]


def test_a_fall_of_confidence_and_its_rise_are_told_apart() -> None:
    """At a cut up to .99 more low confidences are a fall of confidence; fewer, and all cuts above, are a change."""
    questions = ask(SMALL, {"confidence": (0.5, 0.99, 0.995), "features.amount": ()})
    told = [(i.text, i.signal.group, i.up, i.down) for i in questions.indicators if i.signal.name == "confidence"]
    assert sorted(told) == [
        ("confidence <= 0.5", CONFIDENCE_FALL, True, False),
        ("confidence <= 0.5", OUTPUTS, False, True),
        ("confidence <= 0.99", CONFIDENCE_FALL, True, False),
        ("confidence <= 0.99", OUTPUTS, False, True),
        ("confidence <= 0.995", OUTPUTS, True, True),
    ]


DERIVED = ("surprise", "text.words", "outlier")
MARKED = ask(
    SMALL,
    {
        "confidence": (0.5,),
        "features.amount": (0.0,),
        "surprise": (0.9,),
        "text.words": (4.0,),
        "outlier": (0.7,),
    },
    DERIVED,
    (FLIPPED, UNSURE),
)


@given(
    n=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
    shares=st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.floats(0, 1)),
)
def test_marks_are_counted_by_code(n: int, seed: int, shares: tuple[float, float]) -> None:
    """Behind the plain counts stand, per mark, how many bear it and every code's count among these, as by hand."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice([0.0, 0.5, 1.0, np.nan], (len(MARKED.numbers), n))
    codes = np.array([rng.integers(0, code_count(column), n) for column in MARKED.code_columns], np.int32)
    marks = rng.random((2, n)) < np.array(shares)[:, None]
    expected = by_hand(MARKED, numbers, codes)
    for mark in marks.tolist():
        bearing = [record for record, bears in enumerate(mark) if bears]
        expected.append(len(bearing))
        for row, column in zip(codes.tolist(), MARKED.code_columns, strict=True):
            expected += [sum(row[record] == code for record in bearing) for code in range(code_count(column))]
    profile = MARKED.count(numbers, codes, marks)
    assert profile.tolist() == expected
    assert profile.size == MARKED.size
    half = n // 2
    parts = (MARKED.count(numbers[:, s], codes[:, s], marks[:, s]) for s in (slice(0, half), slice(half, n)))
    assert sum(parts).tolist() == expected  # type: ignore[union-attr]
    for indicator in MARKED.indicators:
        found = re.fullmatch(r"(flipped|unsure)(?: where (\S+) = (\S+))?", indicator.text)
        if found is None:
            continue
        bears = marks[(FLIPPED, UNSURE).index(found[1])]
        among = np.ones(n, np.bool_)
        if found[2]:
            (row,) = (row for row, column in enumerate(MARKED.code_columns) if column.name == found[2])
            among = codes[row] == 1 + MARKED.code_columns[row].values.index(found[3])
        assert profile[indicator.asked] == among.sum()
        assert profile[indicator.yes] == (among & bears).sum()


def test_groups_of_marks() -> None:
    """Flips are watched overall, by class and by slice; unsure answers by slice only: overall that is a confidence cut."""
    told = {(i.text, i.signal.group) for i in MARKED.indicators if i.text.startswith((FLIPPED, UNSURE))}
    assert told == {
        ("flipped", FLIPS),
        ("flipped where prediction = ham", FLIPS),
        ("flipped where prediction = spam", FLIPS),
        ("flipped where features.country = de", SLICE_FLIPS),
        ("flipped where features.country = fr", SLICE_FLIPS),
        ("unsure where features.country = de", SLICE_CONFIDENCE),
        ("unsure where features.country = fr", SLICE_CONFIDENCE),
    }


def test_derived_rows_are_never_missing_in_the_sense_of_a_fault() -> None:
    """What the enrichment leaves out by design (unsampled records) is no missing value that anybody must hear of."""
    texts = {i.text for i in MARKED.indicators}
    assert "confidence missing" in texts
    assert not texts & {f"{name} missing" for name in DERIVED}


def categorical(name: str, values: int) -> Column:
    """A column of so many categories."""
    return Column(name=name, kind="categorical", values=tuple(f"c{n}" for n in range(values)))


def sliced(*features: Column) -> list[str]:
    """Names of the columns that errors are counted by, for these features."""
    schema = msgspec.structs.replace(SMALL, features=features)
    return [code_rows(schema)[row].name for row in sliced_rows(schema)]


def test_slices_are_capped_and_segments_come_first() -> None:
    """The class always; then segments, though they stand last; then categories as long as there is room, whole columns."""
    big, segment = categorical("features.big", 250), categorical("segment", 200)
    assert sliced(big, segment) == ["prediction", "segment"]
    assert sliced(big) == ["prediction", "features.big"]
    assert sliced(categorical("features.a", 20), big, segment) == ["prediction", "segment", "features.a"]
    assert sliced(big, categorical("features.b", 150), categorical("features.c", 1)) == [
        *("prediction", "features.big", "features.b"),
    ]
    many = [categorical(f"features.f{n}", 20) for n in range(50)]
    assert len(sliced(*many)) == 1 + MOST_SLICES // 20
    assert sliced(Column(name="text", kind="text", values=("present",)), segment) == ["prediction", "segment"]


def test_slices_of_a_model_that_predicts_numbers() -> None:
    """Without classes there are slices all the same, and no row is taken for the class."""
    schema = msgspec.structs.replace(
        SMALL,
        outcome=Column(name="prediction", kind="numerical"),
        features=(categorical("features.a", 3), categorical("segment", 2)),
    )
    assert [code_rows(schema)[row].name for row in sliced_rows(schema)] == ["segment", "features.a"]


@pytest.mark.parametrize("flips", [False, True])
def test_errors_are_counted_overall_by_class_and_by_slice(*, flips: bool) -> None:
    """The places of the error questions are those of the labelled and of the wrong, for every code asked of.

    With flips the same is asked of those that are wrong and flipped too, and how many of the flipped were wrong.
    """
    schema = msgspec.structs.replace(SMALL, features=(*SMALL.features, categorical("segment", 3)))
    questions = ask_errors(schema, flips=flips)
    columns = [code_rows(schema)[row] for row in sliced_rows(schema)]
    assert [column.name for column in columns] == ["prediction", "segment", "features.country"]
    rng = np.random.default_rng(9)
    codes = np.array([rng.integers(0, code_count(column), 300) for column in columns], np.int32)
    wrong, flipped = rng.random((2, 300)) < 0.3
    marks = np.stack((wrong, wrong & flipped, flipped))
    profile = questions.count(np.empty((0, 300)), codes, marks if flips else marks[:1])
    assert profile.size == questions.size
    told = {}
    for indicator in questions.indicators:
        if indicator.text == WRONG_OF_FLIPPED:
            assert (profile[indicator.asked], profile[indicator.yes]) == (flipped.sum(), (wrong & flipped).sum())
            assert flips
            told[indicator.text] = indicator.signal.group
            continue
        found = re.fullmatch(r"(wrong|flipped and wrong)(?: where (\S+) = (\S+))?", indicator.text)
        assert found is not None
        mark = marks[(WRONG, FLIPPED_AND_WRONG).index(found[1])]
        among = np.ones(300, np.bool_)
        if found[2]:
            (row,) = (row for row, column in enumerate(columns) if column.name == found[2])
            among = codes[row] == 1 + columns[row].values.index(found[3])
        assert profile[indicator.asked] == among.sum()
        assert profile[indicator.yes] == (among & mark).sum()
        told[indicator.text] = indicator.signal.group
    assert len(told) == (1 + 2 + 3 + 2) * (1 + flips) + flips
    own = {*("wrong", "wrong where prediction = ham", "wrong where prediction = spam")}
    assert {text for text, group in told.items() if group == ERRORS} == own
    assert {text for text, group in told.items() if group == HARMFUL_FLIPS} == (
        {WRONG_OF_FLIPPED, *(f"flipped and {text}" for text in own)} if flips else set()
    )
    assert set(told.values()) == {ERRORS, SLICE_ERRORS, *((HARMFUL_FLIPS, SLICE_HARMFUL_FLIPS) if flips else ())}


def test_codes_of_labels() -> None:
    """A label has the code of its class; the rare classes share one; any other label has none here."""
    outcome = Column(name="prediction", kind="categorical", values=("a", "b"), folded=("c", "d"))
    codes = class_codes(outcome)
    assert codes == {"a": 1, "b": 2, "c": folded_code(outcome), "d": folded_code(outcome)}
    assert unseen_code(outcome) not in codes.values()
    assert class_codes(Column(name="prediction", kind="numerical")) == {}


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 0.99, 1e6])
def test_a_cut_just_below_a_value_is_told_as_less_than_that_value(value: float) -> None:
    """The cut that asks for the mass at 1 reads `< 1`, that at 1 itself `<= 1`: no sixteen digits, no 5e-324."""
    questions = ask(SMALL, {"confidence": (float(np.nextafter(value, -np.inf)),), "features.amount": (value,)})
    texts = {indicator.text for indicator in questions.indicators}
    assert {f"confidence < {value:.6g}", f"features.amount <= {value:.6g}"} <= texts
