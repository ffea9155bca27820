"""The questions: every yes/no question asked of a prediction, and where its answers stand in a profile.

A profile is one vector of counts. From front to back it holds: the number of predictions; per numerical row how
many values were present and how many missing; per row and cut how many values were at most the cut; per code row how
many values were present; how often each code occurred; and, per mark, how many predictions bear it and how often each code
occurred among them. All of it adds up over pieces. An *indicator* is a pair of places in that vector: how often the
question was asked, and how often the answer was yes. So "flipped, among predictions with this code" is an indicator:
a class's, or a slice's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.types import Bools, Codes, Column, Floats, Ints, Schema

CONFIDENCE = "confidence"
OUTCOME = "prediction"
SEGMENT, TEXT, EMBEDDING = "segment", "text", "embedding"

OUTPUTS = "outputs"
CONFIDENCE_FALL = "confidence_fall"
SLICE_CONFIDENCE = "slice_confidence"
FLIPS = "flips"
SLICE_FLIPS = "slice_flips"
ERRORS = "errors"
SLICE_ERRORS = "slice_errors"
HARMFUL_FLIPS = "harmful_flips"
SLICE_HARMFUL_FLIPS = "slice_harmful_flips"
INPUTS = "inputs"
QUALITY = "quality"
CANARY_CLASS = "canary_class"
CANARY_CONFIDENCE = "canary_confidence"
CANARY_FLIPS = "canary_flips"
CANARY_ERRORS = "canary_errors"
CANARY_INPUTS = "canary_inputs"
SHADOW = "shadow"
SOURCES = "sources"
TRIGGERS = "triggers"
GOLDEN, GOLDEN_CHANGE = "golden", "golden_change"
VOLUME = "volume"
REJECTED = "rejected"
COVERAGE = "coverage"

BY_LABELS = frozenset([ERRORS, SLICE_ERRORS, HARMFUL_FLIPS, SLICE_HARMFUL_FLIPS])
"""Groups whose evidence on one version rests on labels."""

FLIPPED, UNSURE, WRONG, FLIPPED_AND_WRONG = "flipped", "unsure", "wrong", "flipped and wrong"
"""Marks: the surrogate says another class; the confidence is low for this model; the label says otherwise; both do."""

SURPRISING = "surprising"
"""A mark that is not asked of: more confident than the surrogate expects, or an embedding far from its class."""

WRONG_OF_FLIPPED = "wrong, of those flipped"

SURPRISE, OUTLIER = "surprise", "outlier"
"""Derived rows of numbers."""

ONE_SIDED = frozenset([SURPRISE, OUTLIER, "embedding.distance"])
"""Derived rows of which only large values say something."""

SURE_ENOUGH = 0.99
"""A confidence that falls from above this to anywhere below it is no sign of harm: regularisation does that."""

MOST_SLICES = 400
"""Slices in which flips, confidence and errors are watched: segments first, then categories in the order of the features."""

FEATURE = "features."
"""Prefix of a feature's column name: a feature may be called `confidence`."""

MISSING_CODE = 0
"""The code of a missing value in every code row."""


class Signal(NamedTuple):
    """A family of questions asked of one thing, and the group in which its evidence is told."""

    name: str
    group: str


class Indicator(NamedTuple):
    """One question: its text for people, its signal, its two places in the vector, the sides that are watched."""

    text: str
    signal: Signal
    asked: int
    yes: int
    up: bool = True
    down: bool = True


def number_rows(schema: Schema) -> tuple[str, ...]:
    """Names of the rows of `Batch.numbers`."""
    rows = [CONFIDENCE] if schema.confidence else []
    if schema.outcome.kind == "numerical":
        rows.append(OUTCOME)
    return (*rows, *(column.name for column in schema.features if column.kind == "numerical"))


def text_rows(schema: Schema) -> tuple[Column, ...]:
    """Columns of the rows of `Batch.texts`."""
    return tuple(column for column in schema.features if column.kind == "text")


def embedding_width(schema: Schema) -> int:
    """Number of rows of `Batch.embeddings`."""
    return next((column.width for column in schema.features if column.kind == "embedding"), 0)


def code_rows(schema: Schema) -> tuple[Column, ...]:
    """Columns of the rows of `Batch.codes`."""
    outcome = (schema.outcome,) if schema.outcome.kind == "categorical" else ()
    return (*outcome, *(column for column in schema.features if column.kind != "numerical"))


def code_count(column: Column) -> int:
    """How many codes a column has: missing, its values, then (categories only) one for folded and one for unseen."""
    return len(column.values) + (3 if column.kind == "categorical" else 2)


def folded_code(column: Column) -> int:
    """The code that the known but rare categories share."""
    return len(column.values) + 1


def unseen_code(column: Column) -> int:
    """The code of a category that the reference does not have."""
    return len(column.values) + 2


@dataclass(frozen=True, slots=True)
class Questions:
    """Every indicator of a model, and how to count the answers of a micro-batch.

    `cuts` (d, m) holds the cut points of each numerical row, padded with NaN; `offsets` (c, 1) is where the codes of
    each code row start. `asked`, `yes` (j,) are places in the profile's vector; `signal_of` (j,) indexes `signals`;
    `sides` (j, 2) says whether a rise and a fall are watched.
    """

    indicators: tuple[Indicator, ...]
    signals: tuple[Signal, ...]
    numbers: tuple[str, ...]
    cuts: Floats
    code_columns: tuple[Column, ...]
    offsets: Ints
    codes: int
    asked: Ints
    yes: Ints
    signal_of: Ints
    sides: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
    marks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Length of a profile's vector."""
        return _marked_place(self.cuts, len(self.code_columns), self.codes, len(self.marks))

    def cut_place(self, row: int) -> slice:
        """Where the counts at the cuts of a numerical row stand in the vector."""
        rows, cuts = self.cuts.shape
        start = 1 + 2 * rows + row * cuts
        return slice(start, start + int(np.isfinite(self.cuts[row]).sum()))

    def present_place(self, row: int) -> int:
        """Where the number of present values of a numerical row stands in the vector."""
        return 1 + row

    def code_place(self, row: int) -> slice:
        """Where the counts of a code row's codes stand in the vector, the missing ones first."""
        start = _marked_place(self.cuts, len(self.code_columns), self.codes, 0) - self.codes + int(self.offsets[row, 0])
        return slice(start, start + code_count(self.code_columns[row]))

    def marked_place(self, mark: int, row: int) -> slice:
        """Where the counts of a code row's codes among the predictions with a mark stand in the vector."""
        start = _marked_place(self.cuts, len(self.code_columns), self.codes, mark) + 1 + int(self.offsets[row, 0])
        return slice(start, start + code_count(self.code_columns[row]))

    def count(self, numbers: Floats, codes: Codes, marks: Bools | None = None) -> Ints:
        """Answers of one piece: numbers (d, n), codes (c, n), marks (m, n) to a vector (size,).

        Marks beyond those that are asked of are not counted.
        """
        n = numbers.shape[1] if numbers.size else codes.shape[1]
        missing = np.isnan(numbers).sum(axis=1)
        at_most = [(numbers <= self.cuts[:, q, None]).sum(axis=1) for q in range(self.cuts.shape[1])]
        placed = codes + self.offsets
        by_code = np.bincount(placed.ravel(), minlength=self.codes)
        present = n - by_code[self.offsets[:, 0]]
        cut_counts = np.stack(at_most, axis=1).ravel() if at_most else np.empty(0, np.int64)
        marked = [
            part
            for mark in (marks[: len(self.marks)] if marks is not None else ())
            for part in ([mark.sum()], np.bincount(placed[:, mark].ravel(), minlength=self.codes))
        ]
        return np.concatenate(([n], n - missing, missing, cut_counts, present, by_code, *marked)).astype(np.int64)


def _marked_place(cuts: Floats, columns: int, codes: int, mark: int) -> int:
    """Where the counts of a mark begin in the vector; of the mark after the last one, the vector's length."""
    return int(1 + 2 * cuts.shape[0] + cuts.size + columns + codes + mark * (1 + codes))


def ask(
    schema: Schema,
    cuts: dict[str, tuple[float, ...]],
    derived: tuple[str, ...] = (),
    marks: tuple[str, ...] = (),
) -> Questions:
    """Lay out the questions about predictions of this schema.

    `cuts` has the cut points of every numerical row; `derived` names the rows and `marks` the marks that the enrichment adds.
    """
    numbers, columns = (*number_rows(schema), *derived), code_rows(schema)
    width = max((len(cuts[name]) for name in numbers), default=0)
    padded = np.full((len(numbers), width), np.nan)
    for row, name in enumerate(numbers):
        padded[row, : len(cuts[name])] = cuts[name]
    starts = np.cumsum([0, *(code_count(column) for column in columns)])
    base = 1 + 2 * len(numbers) + padded.size
    indicators = [*_number_indicators(numbers, padded, derived), *_code_indicators(columns, starts, base)]
    for number, mark in enumerate(marks):
        place = _marked_place(padded, len(columns), int(starts[-1]), number)
        indicators += _marked_indicators(mark, _MARK_GROUPS[mark], columns, sliced_rows(schema), starts, base, place)
    return _questions(indicators, numbers, padded, columns, starts, marks)


def class_codes(outcome: Column) -> dict[str, int]:
    """Codes of the classes that a label may name; what is not among them has the code of an unseen class."""
    own = {value: 1 + code for code, value in enumerate(outcome.values)}
    return own | dict.fromkeys(outcome.folded, folded_code(outcome))


def sliced_rows(schema: Schema) -> tuple[int, ...]:
    """Rows of `Batch.codes` whose codes errors are counted by: the class first, then segments, then other categories."""
    columns = code_rows(schema)
    kept, room = [], MOST_SLICES
    for row in sorted(
        range(len(columns)), key=lambda row: (columns[row].name != OUTCOME, columns[row].name != SEGMENT)
    ):
        column = columns[row]
        if column.name == OUTCOME:
            kept.append(row)
        elif column.kind == "categorical" and len(column.values) <= room:
            kept.append(row)
            room -= len(column.values)
    return tuple(kept)


def ask_errors(schema: Schema, *, flips: bool) -> Questions:
    """The questions asked of predictions whose label is known: was it wrong, overall, by class, by slice?

    Codes are those of `sliced_rows`. With `flips` it is also asked whether a prediction was flipped and wrong, and how many of
    the flipped ones were wrong: an honest retraining flips as well, but it is about as often right as wrong where it does.
    """
    columns = tuple(code_rows(schema)[row] for row in sliced_rows(schema))
    starts = np.cumsum([0, *(code_count(column) for column in columns)])
    none = np.empty((0, 0))
    marks = (WRONG, FLIPPED_AND_WRONG, FLIPPED) if flips else (WRONG,)
    places = [_marked_place(none, len(columns), int(starts[-1]), number) for number in range(len(marks))]
    indicators: list[Indicator] = []
    for mark, place in zip(marks[:2], places, strict=False):
        indicators += _marked_indicators(mark, _MARK_GROUPS[mark], columns, range(len(columns)), starts, 1, place)
    if flips:
        signal = Signal(WRONG_OF_FLIPPED, HARMFUL_FLIPS)
        indicators.append(Indicator(WRONG_OF_FLIPPED, signal, places[2], places[1], down=False))
    return _questions(indicators, (), none, columns, starts, marks)


def overall_of(questions: Questions) -> Ints:
    """For each indicator (j,) of `ask_errors`, the number of the one over all labels with the same mark.

    The one that asks only of the flipped is its own.
    """
    first = _marked_place(questions.cuts, len(questions.code_columns), questions.codes, 0)
    mark = (questions.yes - first) // (1 + questions.codes)
    overall = {int(mark[number]): number for number in np.flatnonzero(questions.asked == 0).tolist()}
    found = np.array([overall[number] for number in mark.tolist()], np.int64)
    return np.where(questions.asked >= first, np.arange(found.size), found)


def ask_lines() -> Questions:
    """The one question asked of a model's lines, of whichever version: was it lost? Vector: lines, lost."""
    one = Indicator("line rejected or late", Signal(REJECTED, QUALITY), 0, 1, down=False)
    return _questions([one], (), np.empty((0, 0)), (), np.array([0, 1], np.int64))


def _questions(
    indicators: list[Indicator],
    numbers: tuple[str, ...],
    cuts: Floats,
    columns: tuple[Column, ...],
    starts: Ints,
    marks: tuple[str, ...] = (),
) -> Questions:
    indicators.sort(key=lambda indicator: (indicator.signal.group, indicator.signal.name))
    signals = tuple(dict.fromkeys(indicator.signal for indicator in indicators))
    place = {signal: index for index, signal in enumerate(signals)}
    return Questions(
        indicators=tuple(indicators),
        signals=signals,
        numbers=numbers,
        cuts=cuts,
        code_columns=columns,
        offsets=starts[:-1].astype(np.int64)[:, None],
        codes=int(starts[-1]),
        asked=np.array([indicator.asked for indicator in indicators], np.int64),
        yes=np.array([indicator.yes for indicator in indicators], np.int64),
        signal_of=np.array([place[indicator.signal] for indicator in indicators], np.int64),
        sides=np.array([(indicator.up, indicator.down) for indicator in indicators], np.bool_).reshape(-1, 2),
        marks=marks,
    )


_MARK_GROUPS = {
    FLIPPED: (FLIPS, SLICE_FLIPS),
    UNSURE: (None, SLICE_CONFIDENCE),
    WRONG: (ERRORS, SLICE_ERRORS),
    FLIPPED_AND_WRONG: (HARMFUL_FLIPS, SLICE_HARMFUL_FLIPS),
}
"""Groups of a mark's indicators: overall and by class, by slice."""


def _number_indicators(numbers: tuple[str, ...], cuts: Floats, derived: tuple[str, ...]) -> list[Indicator]:
    rows, width = cuts.shape
    found: list[Indicator] = []
    for row, name in enumerate(numbers):
        signal = Signal(name, OUTPUTS if name in {CONFIDENCE, OUTCOME, SURPRISE} else INPUTS)
        place = 1 + 2 * rows + row * width
        for q, cut in enumerate(cuts[row]):
            if not np.isfinite(cut):
                continue
            text, yes = f"{name} {_at_most(cut)}", place + q
            falls = name == CONFIDENCE and cut <= SURE_ENOUGH
            if falls:
                found.append(Indicator(text, Signal(name, CONFIDENCE_FALL), 1 + row, yes, down=False))
            found.append(Indicator(text, signal, 1 + row, yes, up=not falls and name not in ONE_SIDED))
        if name not in derived:
            found.append(Indicator(f"{name} missing", Signal(f"missing:{name}", QUALITY), 0, 1 + rows + row))
    return found


def _marked_indicators(
    mark: str,
    groups: tuple[str | None, str],
    columns: tuple[Column, ...],
    rows: Iterable[int],
    starts: Ints,
    base: int,
    place: int,
) -> list[Indicator]:
    """Is it marked: overall, and by class and slice of the columns in `rows`?

    `base` and `place` are where the counts of codes and of the mark begin.
    """
    overall, by_slice = groups
    found = [Indicator(mark, Signal(mark, overall), 0, place, down=False)] if overall else []
    for row in rows:
        column = columns[row]
        outcome = column.name == OUTCOME
        group = overall if outcome else by_slice
        if group is None:
            continue
        signal = Signal(f"{mark} by {'class' if outcome else column.name}", group)
        asked, yes = base + len(columns) + int(starts[row]), place + 1 + int(starts[row])
        found += [
            Indicator(f"{mark} where {column.name} = {value}", signal, asked + 1 + code, yes + 1 + code, down=False)
            for code, value in enumerate(column.values)
        ]
    return found


def _at_most(cut: float) -> str:
    """A cut in words; one that stands just below a value asks for less than that value."""
    above = float(np.nextafter(cut, np.inf)) + 0.0
    at_most, less = f"{cut:.6g}", f"{above:.6g}"
    if float(less) == above and (float(at_most) != cut or len(less) < len(at_most)):
        return f"< {less}"
    return f"<= {at_most}"


def _code_indicators(columns: tuple[Column, ...], starts: Ints, base: int) -> list[Indicator]:
    found: list[Indicator] = []
    for row, column in enumerate(columns):
        name, first = column.name, base + len(columns) + int(starts[row])
        outcome = name == OUTCOME
        found.append(Indicator(f"{name} missing", Signal(f"missing:{name}", QUALITY), 0, first + MISSING_CODE))
        if column.kind != "categorical":
            continue
        signal = Signal("class" if outcome else name, OUTPUTS if outcome else INPUTS)
        asked = base + row
        found += [
            Indicator(f"{name} = {value}", signal, asked, first + 1 + code) for code, value in enumerate(column.values)
        ]
        if column.folded:
            found.append(Indicator(f"{name} = any rare value", signal, asked, first + folded_code(column)))
        # A fall of the unseen share says nothing: it only means that the reference was short.
        unseen = Signal(f"unseen:{name}", QUALITY)
        found.append(Indicator(f"{name} unseen before", unseen, asked, first + unseen_code(column), down=False))
    return found
