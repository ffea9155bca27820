"""What a record is made of: columns of small codes that patterns are conjunctions of. Pure.

A numerical feature is a bin between the cut points of the reference, a categorical one its code. An embedding that is an image
gives coarse cells with the level of their mean; any other gives tables of sign bits of random projections (Charikar 2002), so that
records that lie together share a code. Codes are made for the columns that are asked for, and for no others.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec
import numpy as np

from poisonwatch.mining.grid import Grid, find_grid
from poisonwatch.profile.embedding import MOST_DIMENSIONS
from poisonwatch.profile.enrich import feature_codes, feature_numbers
from poisonwatch.profile.indicators import code_count, code_rows, embedding_width, folded_code, number_rows, unseen_code
from poisonwatch.profile.odds import poisson_upper
from poisonwatch.profile.packed import pack, unpack
from poisonwatch.profile.words import mix
from poisonwatch.types import Cell, Item

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.mining.records import Records
    from poisonwatch.types import Batch, Bools, Codes, Column, Floats, Ints, Schema, Values, Vectors

FEATURE_ITEM, CELL_ITEM, SIGN_ITEM = 0, 1, 2
"""Kinds of columns: conjunctions are made of items of one kind."""

TABLES = 8
BITS = 8
"""Tables of sign bits, and bits of a table."""

LEVELS = (0.125, 0.375, 0.625, 0.875)
"""Where the mean of a cell changes its level, between the darkest and the brightest usual pixel."""

MOST_REMEMBERED = 4000
MOST_CODES = 1 << 18
"""Records of the reference whose codes are kept, and codes in all."""

MISSING, RARE, NEW = "(missing)", "(rare)", "(new)"
"""What stands for a category that is missing, shares its code with other rare ones, or is not in the reference."""

PRIOR = 30.0
ERRORS = 2.0
"""A pattern's own rate in the reference is bounded as if so many more of its records had the class's rate, and by so many errors.

So a pattern that the reference does not show has a bound of its own, too, of about 0.15: among thousands of patterns there are
some that honest predictions flip that often, and it is these that get promoted.
"""
ERRORS_OF_SHARE = 2.0
"""By so many errors the share of a pattern's records may exceed what the reference shows."""


class Features(NamedTuple):
    """The columns of records that codes are made of; a text model's words are not looked for anew to choose some of them."""

    time: Floats
    numbers: Floats
    codes: Codes
    embeddings: Vectors

    @classmethod
    def of(cls, records: Records, which: Ints) -> Self:
        """Those of the chosen records."""
        return cls(*(getattr(records, name)[..., which] for name in cls._fields))


class Condition(NamedTuple):
    """A column has a code; where `value` is not None the number is exactly this, too."""

    column: int
    code: int
    value: float | None = None


class ItemsFile(msgspec.Struct, frozen=True, kw_only=True):
    """`Items` as they are kept in a file: little-endian arrays; the cut points and the schema are the reference's."""

    grid: Grid | None
    thresholds: bytes
    codes: bytes
    values: bytes
    label: bytes
    surprising: bytes
    flipped: bytes


class Sample(NamedTuple):
    """Records of the reference: `codes` (columns, m) of all columns, `values` (numerical, m) the numbers behind the bins.

    `label` (m,) is the predicted class; `hits` (2, m) whether each is surprising or flipped, out of fold.
    """

    codes: Ints
    values: Vectors
    label: Ints
    hits: Bools


_NOTHING = Sample(
    np.empty((0, 0), np.int64), np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty((2, 0), np.bool_)
)


@dataclass(frozen=True)
class Items:
    """Columns of codes for the records of one model, and a sample of its reference.

    `cuts` has the cut points of each numerical feature; `grid` where the embeddings are images; else `thresholds`
    (TABLES, BITS) are the medians of the projections, empty without embeddings.
    """

    schema: Schema
    cuts: tuple[Floats, ...]
    grid: Grid | None
    thresholds: Floats
    sample: Sample

    @classmethod
    def learn(cls, schema: Schema, cuts: dict[str, tuple[float, ...]], sample: Records) -> Self:
        """Learn from a sample of the reference, whose records say whether they are surprising or flipped out of fold."""
        grid = find_grid(sample.embeddings)
        thresholds = np.empty((0, BITS))
        if grid is None and embedding_width(schema):
            usable = _usable(sample.embeddings)
            if usable.any():
                projected = _projections(sample.embeddings[:, usable], np.arange(TABLES))
                # Rounded: processors differ in the last bit of a matrix product.
                thresholds = np.median(projected, axis=2).astype(np.float32).astype(np.float64)
        kinds = cls(schema, _cuts(schema, cuts), grid, thresholds, _NOTHING)
        many = min(MOST_REMEMBERED, MOST_CODES // max(1, kinds.width), sample.time.size)
        chosen = sample.select(np.linspace(0, sample.time.size - 1, many).astype(np.int64))
        remembered = Sample(
            codes=kinds.columns(chosen, np.arange(kinds.width)),
            values=_as_stored(chosen.numbers[feature_numbers(schema)]),
            label=chosen.label,
            hits=np.stack((chosen.surprising, chosen.flipped)),
        )
        return dataclasses.replace(kinds, sample=remembered)

    @cached_property
    def _features(self) -> tuple[Ints, Ints, tuple[Column, ...]]:
        """Rows of the numbers and of the codes that are features, and the columns of the latter."""
        of_codes = feature_codes(self.schema)
        columns = code_rows(self.schema)
        return feature_numbers(self.schema), of_codes, tuple(columns[row] for row in of_codes.tolist())

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Names of the features in the order of the columns."""
        numbers, _, columns = self._features
        rows = number_rows(self.schema)
        return (*(rows[row] for row in numbers.tolist()), *(column.name for column in columns))

    @cached_property
    def sizes(self) -> Ints:
        """How many codes each column has."""
        columns = self._features[2]
        cells = 0 if self.grid is None else len(self.grid.cells)
        sizes = [*(cuts.size + 2 for cuts in self.cuts), *(code_count(column) for column in columns)]
        return np.array([*sizes, *([len(LEVELS) + 2] * cells), *([1 << BITS] * len(self.thresholds))], np.int64)

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.sizes.size

    @cached_property
    def kinds(self) -> Ints:
        """Kind of each column."""
        features = len(self._names)
        cells = 0 if self.grid is None else len(self.grid.cells)
        return np.repeat([FEATURE_ITEM, CELL_ITEM, SIGN_ITEM], [features, cells, len(self.thresholds)])

    def columns(self, records: Records | Batch | Features, which: Ints) -> Ints:
        """Codes (len(which), n) of the chosen columns, given in ascending order."""
        numbers, of_codes, _ = self._features
        found = np.empty((which.size, records.time.size), np.int64)
        bound = numbers.size + of_codes.size
        for place, column in enumerate(which[which < bound].tolist()):
            if column < numbers.size:
                x, cuts = records.numbers[numbers[column]], self.cuts[column]
                found[place] = np.where(np.isnan(x), cuts.size + 1, np.searchsorted(cuts, x))
            else:
                found[place] = records.codes[of_codes[column - numbers.size]]
        rest = which[which >= bound] - bound
        if rest.size and self.grid is not None:
            means = self.grid.means(records.embeddings, rest)
            edges = self.grid.low + np.array(LEVELS) * (self.grid.high - self.grid.low)
            levels = np.where(np.isnan(means), len(LEVELS) + 1, np.searchsorted(edges, means))
            found[which.size - rest.size :] = levels
        elif rest.size:
            above = _projections(records.embeddings, rest) > self.thresholds[rest][:, :, None]
            found[which.size - rest.size :] = (above << np.arange(BITS)[:, None]).sum(axis=1)
        return found

    def numbers(self, records: Records | Features, column: int) -> Floats:
        """The numbers (n,) behind a column of bins."""
        return np.asarray(records.numbers[self._features[0][column]])

    @property
    def numerical(self) -> int:
        """So many columns, the first ones, are bins of numbers."""
        return len(self.cuts)

    def bound(self, conditions: Sequence[Condition], label: int) -> Floats:
        """Upper bounds (2,) of how often benign records of a class that bear a conjunction are surprising and flipped.

        The largest of those of all its parts: three values that each go with twice the flips go with more of them together, but
        three are met too rarely in a reference to say so.
        """
        of_class = self.sample.label == label
        if not of_class.any():
            return np.zeros(2)
        hits = self.sample.hits[:, of_class]
        borne = [self.meets_in_reference(condition)[of_class] for condition in conditions]
        rate = (hits.sum(axis=1) + 0.5) / (hits.shape[1] + 1.0)
        found = np.zeros(2)
        for many in range(1, len(borne) + 1):
            for part in combinations(borne, many):
                bears = np.logical_and.reduce(part)
                k, n = (hits & bears).sum(axis=1), bears.sum()
                k = k + PRIOR * rate
                found = np.maximum(found, poisson_upper(k, ERRORS) / (n + PRIOR))
        return found

    def usual_share(self, conditions: Sequence[Condition], label: int) -> float:
        """Upper bound of the share of all records that are of a class and bear a conjunction, from the reference."""
        borne = np.logical_and.reduce([self.meets_in_reference(condition) for condition in conditions])
        k = (borne & (self.sample.label == label)).sum()
        return float(poisson_upper(k, ERRORS_OF_SHARE) / max(1, borne.size))

    def share_of(self, pattern: Values) -> float:
        """Upper bound of the share of all records that meet conditions, whatever their class, from the reference."""
        borne = np.ones(self.sample.label.size, np.bool_)
        for item in pattern.items:
            borne &= self.meets_in_reference(self._condition(item))
        return float(poisson_upper(borne.sum(), ERRORS_OF_SHARE) / max(1, borne.size))

    def _condition(self, item: Item) -> Condition:
        """The condition that people read as an item."""
        column = self._names.index(item.feature)
        if column >= self.numerical:
            return Condition(column, _code(self._features[2][column - self.numerical], item.value))
        cuts = self.cuts[column]
        if item.low is None and item.high is None and item.value is None:
            return Condition(column, cuts.size + 1)
        high = np.inf if item.high is None else item.high
        exact = item.low if item.low == item.high else None
        return Condition(column, int(np.searchsorted(cuts, high)), exact)

    def meets_in_reference(self, condition: Condition) -> Bools:
        """Which records (m,) of the reference's sample meet a condition."""
        if condition.value is not None:
            return np.asarray(self.sample.values[condition.column] == _as_stored(np.array(condition.value)))
        return np.asarray(self.sample.codes[condition.column] == condition.code)

    def item(self, condition: Condition) -> Item:
        """A condition on a feature as people read it."""
        name = self._names[condition.column]
        if condition.column >= self.numerical:
            column = self._features[2][condition.column - self.numerical]
            return Item(feature=name, value=_value(column, condition.code))
        cuts = self.cuts[condition.column]
        if condition.value is not None:
            return Item(feature=name, low=condition.value, high=condition.value)
        if condition.code > cuts.size:
            return Item(feature=name)
        low = float(cuts[condition.code - 1]) if condition.code else None
        return Item(feature=name, low=low, high=float(cuts[condition.code]) if condition.code < cuts.size else None)

    def cell(self, condition: Condition) -> Cell:
        """A condition on a table of signs as a region of the embedding space."""
        table = condition.column - len(self._names)
        return Cell(table=table, signs=condition.code, thresholds=tuple(self.thresholds[table].tolist()))

    def image_cell(self, condition: Condition) -> int:
        """Number of the grid's cell that a condition is about."""
        return condition.column - len(self._names)

    def file(self) -> ItemsFile:
        """What is kept in a file."""
        return ItemsFile(
            grid=self.grid,
            thresholds=pack(self.thresholds, "f4"),
            codes=pack(self.sample.codes, "u4"),
            values=pack(np.nan_to_num(self.sample.values), "f4"),
            label=pack(self.sample.label, "i4"),
            surprising=pack(self.sample.hits[0], "u1"),
            flipped=pack(self.sample.hits[1], "u1"),
        )

    @classmethod
    def read(cls, file: ItemsFile, schema: Schema, cuts: dict[str, tuple[float, ...]]) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when the parts do not fit together, or not to the schema and cut points.
        """
        width = embedding_width(schema)
        if file.grid is not None:
            file.grid.check(width)
        if not 0 <= width <= MOST_DIMENSIONS:
            msg = f"items: embeddings of {width} numbers"
            raise ValueError(msg)
        thresholds = unpack(file.thresholds, "f4", (-1, BITS), "items.thresholds").astype(np.float64)
        if len(thresholds) not in ({0} if file.grid is not None or not width else {0, TABLES}):
            msg = f"items.thresholds: {len(thresholds)} tables"
            raise ValueError(msg)
        label = unpack(file.label, "i4", (-1,), "items.label").astype(np.int64)
        one_each = label.shape
        hits = np.stack(
            (
                unpack(file.surprising, "u1", one_each, "items.surprising"),
                unpack(file.flipped, "u1", one_each, "items.flipped"),
            )
        )
        kinds = cls(schema, _cuts(schema, cuts), file.grid, thresholds, _NOTHING)
        codes = unpack(file.codes, "u4", (kinds.width, label.size), "items.codes").astype(np.int64)
        if (codes >= kinds.sizes[:, None]).any():
            msg = "items.codes: a code is out of range"
            raise ValueError(msg)
        values = unpack(file.values, "f4", (kinds.numerical, label.size), "items.values")
        missing = codes[: kinds.numerical] == kinds.sizes[: kinds.numerical, None] - 1
        values = np.where(missing, np.float32(np.nan), values)
        return dataclasses.replace(kinds, sample=Sample(codes, values, label, hits != 0))


def bears_values(pattern: Values, records: Records | Batch, schema: Schema) -> Bools:
    """For each record (n,) whether it meets all the conditions; none does where a feature is not the schema's."""
    found = np.ones(records.time.size, np.bool_)
    numbers, columns = number_rows(schema), code_rows(schema)
    of_codes = {columns[row].name: row for row in feature_codes(schema).tolist()}
    of_numbers = {numbers[row]: row for row in feature_numbers(schema).tolist()}
    for item in pattern.items:
        if item.feature in of_numbers:
            found &= _meets(item, records.numbers[of_numbers[item.feature]])
        elif item.feature in of_codes:
            row = of_codes[item.feature]
            found &= records.codes[row] == _code(columns[row], item.value)
        else:
            found[:] = False
    return found


def bears_cell(pattern: Cell, embeddings: Vectors) -> Bools:
    """For each embedding (e, n) whether it lies in the region (n,)."""
    above = _projections(embeddings, np.array([pattern.table]))[0] > np.array(pattern.thresholds)[:, None]
    return np.asarray((above << np.arange(BITS)[:, None]).sum(axis=0) == pattern.signs) & _usable(embeddings)


def _cuts(schema: Schema, cuts: dict[str, tuple[float, ...]]) -> tuple[Floats, ...]:
    rows = number_rows(schema)
    return tuple(np.array(cuts[rows[row]], np.float64) for row in feature_numbers(schema).tolist())


def _as_stored(x: Floats) -> Vectors:
    """Numbers as they are kept of the reference."""
    largest = float(np.finfo(np.float32).max)
    return np.asarray(np.clip(x, -largest, largest), np.float32)


def _usable(embeddings: Vectors) -> Bools:
    return np.asarray(np.isfinite(embeddings).all(axis=0) & (embeddings != 0).any(axis=0))


def _projections(embeddings: Vectors, tables: Ints) -> Floats:
    """Projections (len(tables), BITS, n) of embeddings (e, n) by random signs: the bits of mixed counters."""
    counters = np.arange(1, len(embeddings) + 1, dtype=np.uint64) + np.uint64(1 << 32)
    bits = (tables[:, None] * BITS + np.arange(BITS)).ravel().astype(np.uint64)
    signs = 1.0 - 2.0 * ((mix(counters) >> bits[:, None]) & np.uint64(1)).astype(np.float64)
    found = signs @ np.nan_to_num(embeddings.astype(np.float64), posinf=0.0, neginf=0.0)
    return np.asarray(found.reshape(tables.size, BITS, -1))


def _value(column: Column, code: int) -> str:
    """What a code of a categorical column stands for."""
    special = {0: MISSING, folded_code(column): RARE, unseen_code(column): NEW}
    return special[code] if code in special else column.values[code - 1]


def _code(column: Column, value: str | None) -> int:
    """The code that `_value` names; -1 for none."""
    if value in column.values:
        return 1 + column.values.index(value)
    special = {MISSING: 0, RARE: folded_code(column), NEW: unseen_code(column)}
    return -1 if value is None else special.get(value, -1)


def _meets(item: Item, x: Floats) -> Bools:
    """Which numbers (n,) meet a condition."""
    if item.low is None and item.high is None:
        return np.isnan(x)
    if item.low == item.high:
        return np.asarray(x == item.low)
    low = -np.inf if item.low is None else item.low
    high = np.inf if item.high is None else item.high
    return np.asarray(((x > low) | (item.low is None)) & (x <= high))
