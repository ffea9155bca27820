"""The questions: every yes/no question asked of a prediction, and where its answers stand in a profile.

A profile is one vector of counts. From front to back it holds: the number of predictions; per numerical row how
many values were present and how many missing; per row and cut how many values were at most the cut; per code row how
many values were present; and how often each code occurred. All of it adds up over pieces. An *indicator* is a pair of
places in that vector: how often the question was asked, and how often the answer was yes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Codes, Column, Floats, Ints, Schema

CONFIDENCE = "confidence"
OUTCOME = "prediction"

OUTPUTS = "outputs"
INPUTS = "inputs"
QUALITY = "quality"
CANARY_CLASS = "canary_class"
CANARY_CONFIDENCE = "canary_confidence"
REJECTED = "rejected"

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

    @property
    def size(self) -> int:
        """Length of a profile's vector."""
        rows, cuts = self.cuts.shape
        return int(1 + 2 * rows + rows * cuts + len(self.code_columns) + self.codes)

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
        start = self.size - self.codes + int(self.offsets[row, 0])
        return slice(start, start + code_count(self.code_columns[row]))

    def count(self, numbers: Floats, codes: Codes) -> Ints:
        """Answers of one piece: numbers (d, n), codes (c, n) to a vector (size,)."""
        n = numbers.shape[1] if numbers.size else codes.shape[1]
        missing = np.isnan(numbers).sum(axis=1)
        at_most = [(numbers <= self.cuts[:, q, None]).sum(axis=1) for q in range(self.cuts.shape[1])]
        by_code = np.bincount((codes + self.offsets).ravel(), minlength=self.codes)
        present = n - by_code[self.offsets[:, 0]]
        cut_counts = np.stack(at_most, axis=1).ravel() if at_most else np.empty(0, np.int64)
        return np.concatenate(([n], n - missing, missing, cut_counts, present, by_code)).astype(np.int64)


def ask(schema: Schema, cuts: dict[str, tuple[float, ...]]) -> Questions:
    """Lay out the questions about predictions of this schema; `cuts` has the cut points of every numerical row."""
    numbers, columns = number_rows(schema), code_rows(schema)
    width = max((len(cuts[name]) for name in numbers), default=0)
    padded = np.full((len(numbers), width), np.nan)
    for row, name in enumerate(numbers):
        padded[row, : len(cuts[name])] = cuts[name]
    starts = np.cumsum([0, *(code_count(column) for column in columns)])
    indicators = [
        *_number_indicators(numbers, padded),
        *_code_indicators(columns, starts, 1 + 2 * len(numbers) + padded.size),
    ]
    indicators.sort(key=lambda indicator: (indicator.signal.group, indicator.signal.name))
    return _questions(tuple(indicators), numbers, padded, columns, starts)


def ask_lines() -> Questions:
    """The one question asked of a model's lines, of whichever version: was it lost? Vector: lines, lost."""
    one = Indicator("line rejected or late", Signal(REJECTED, QUALITY), 0, 1, down=False)
    return _questions((one,), (), np.empty((0, 0)), (), np.array([0, 1], np.int64))


def _questions(
    indicators: tuple[Indicator, ...],
    numbers: tuple[str, ...],
    cuts: Floats,
    columns: tuple[Column, ...],
    starts: Ints,
) -> Questions:
    signals = tuple(dict.fromkeys(indicator.signal for indicator in indicators))
    place = {signal: index for index, signal in enumerate(signals)}
    return Questions(
        indicators=indicators,
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
    )


def _number_indicators(numbers: tuple[str, ...], cuts: Floats) -> list[Indicator]:
    rows, width = cuts.shape
    found: list[Indicator] = []
    for row, name in enumerate(numbers):
        group = OUTPUTS if name in {CONFIDENCE, OUTCOME} else INPUTS
        signal = Signal(name, group)
        place = 1 + 2 * rows + row * width
        found += [
            Indicator(f"{name} {_at_most(cut)}", signal, 1 + row, place + q)
            for q, cut in enumerate(cuts[row])
            if np.isfinite(cut)
        ]
        found.append(Indicator(f"{name} missing", Signal(f"missing:{name}", QUALITY), 0, 1 + rows + row))
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
