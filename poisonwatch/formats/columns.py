"""From records to columns: each loop over records here runs in native code."""

from __future__ import annotations

import math
import struct
from datetime import datetime
from itertools import repeat, starmap
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from poisonwatch.formats.records import (
    IDENTITIES,
    LONGEST_NAME,
    codes_by_value,
    listed_features,
    name_of,
    object_features,
    own_columns,
)
from poisonwatch.profile.indicators import MISSING_CODE, code_rows, embedding_width, number_rows, text_rows, unseen_code
from poisonwatch.types import UNVERSIONED

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from poisonwatch.types import Bools, Codes, Column, Floats, Schema, Texts, Vectors

NULL = msgspec.Raw(b"null")

_get_features = attrgetter("features")
_get_confidence = attrgetter("confidence")
_get_ids = [attrgetter(name) for name in IDENTITIES]


class Filled(NamedTuple):
    """Columns of n records: see `types.Batch`."""

    numbers: Floats
    codes: Codes
    ids: Texts
    labels: Texts
    sources: Texts
    texts: Texts
    embeddings: Vectors

    def only(self, keep: Bools) -> Filled:
        """The columns of the records to keep."""
        kept: Any = [column[..., keep] for column in self]
        return Filled(*kept)


class Columns:
    """The columns of the records of one schema, laid out as `profile.indicators` says."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._number_count, self._columns = len(number_rows(schema)), code_rows(schema)
        fields = {column.name: f"f{number}" for number, column in object_features(schema)}
        own = own_columns(schema)

        def getter(column: Column) -> tuple[bool, Callable[[Any], Any]]:
            """Whether a column's value is in `features`, and how to get it there or in the record."""
            return column.name not in own, attrgetter(fields.get(column.name, column.name))

        numerical = [fields[c.name] for _, c in object_features(schema) if c.kind == "numerical"]
        coded = [(row, fields[c.name]) for row, c in enumerate(self._columns) if c.strings and c.name in fields]
        self.packed = Packed([*numerical, *(field for _, field in coded)])
        self._numerical, self._coded = len(numerical), [row for row, _ in coded]
        self._listed = listed_features(schema)
        self._looked_up = [
            (row, codes_by_value(column), unseen_code(column), attrgetter(fields[column.name]))
            for row, column in enumerate(self._columns)
            if column.kind == "categorical" and not column.strings and column.name in fields
        ]
        self._segment = next(
            (
                (row, None if column.strings else codes_by_value(column), unseen_code(column))
                for row, column in enumerate(self._columns)
                if column.name in own and column.kind == "categorical"
            ),
            None,
        )
        self._present = [
            (row, *getter(column)) for row, column in enumerate(self._columns) if column.kind != "categorical"
        ]
        self._texts = [getter(column) for column in text_rows(schema)]
        self._width = embedding_width(schema)
        self._classes = codes_by_value(schema.outcome)

    def fill(self, records: list[Any], predictions: list[Any], faults: Counter[str]) -> Filled:
        """Columns of n records."""
        n = len(records)
        features = list(map(_get_features, records))
        numbers = np.empty((self._number_count, n))
        codes = np.empty((len(self._columns), n), np.int32)
        row = 0
        if self._schema.confidence:
            numbers[row] = _confidences(records, faults)
            row += 1
        if self._schema.outcome.kind == "numerical":
            numbers[row] = np.array(predictions, np.float64)
            row += 1
        else:
            codes[0] = self._class_codes(predictions)
        if self._listed:
            numbers[row:] = _listed(features, self._listed, faults)
        else:
            packed = self.packed.fill(features)
            numbers[row:] = packed[: self._numerical]
            codes[self._coded] = _without_nan(packed[self._numerical :])
        for row, known, unseen, value_of in self._looked_up:
            codes[row] = np.fromiter(map(known.get, map(value_of, features), repeat(unseen)), np.int32, n)
        for row, in_features, get in self._present:
            codes[row] = np.fromiter(map(_is_present, map(get, features if in_features else records)), np.int32, n)
        if self._segment is not None:
            row, known_segments, unseen = self._segment
            segments = map(_get_segment, records)
            codes[row] = (
                _without_nan(np.array(list(segments), np.float64))
                if known_segments is None
                else np.fromiter(map(known_segments.get, segments, repeat(unseen)), np.int32, n)
            )
        texts = np.empty((len(self._texts), n), np.object_)
        for row, (in_features, get) in enumerate(self._texts):
            texts[row] = [value or "" for value in map(get, features if in_features else records)]
        labels = names(list(map(_get_label, records)))
        sources = names(list(map(_get_source, records)))
        embeddings = self._embeddings(records, faults)
        return Filled(numbers, codes, identities(records), labels, sources, texts, embeddings)

    def _embeddings(self, records: list[Any], faults: Counter[str]) -> Vectors:
        if not self._width:
            return np.empty((0, len(records)), np.float32)
        values = [record.embedding for record in records]
        wrong = sum(value is not None and len(value) != self._width for value in values)
        if wrong:
            faults["embedding_wrong_length"] += wrong
        missing = [math.nan] * self._width
        values = [value if value is not None and len(value) == self._width else missing for value in values]
        with np.errstate(over="ignore"):
            found = np.array(values, np.float32).reshape(-1, self._width).T
        # JSON has numbers that single precision does not have.
        huge = np.isinf(found)
        if huge.any():
            faults["embedding_not_finite"] += int(huge.sum())
            found[huge] = math.nan
        return found

    def _class_codes(self, predictions: list[Any]) -> Floats:
        if not self._schema.outcome.strings:
            found = map(self._classes.get, predictions, repeat(unseen_code(self._schema.outcome)))
            return np.fromiter(found, np.float64, len(predictions))
        return _without_nan(np.array(predictions, np.float64))  # a missing one makes its record rejected


def _without_nan(values: Floats) -> Floats:
    """The same array with `MISSING_CODE` for NaN; ten times as fast as the general `numpy.nan_to_num`."""
    values[np.isnan(values)] = MISSING_CODE
    return values


class Packed:
    """Numbers and coded categories of `features` structs as one matrix.

    Packing a whole struct as doubles is several times faster than letting NumPy look at every value. It takes no None, so
    the struct has the fields that were ever null behind the others: `order` is how its first fields must stand.
    """

    def __init__(self, fields: list[str]) -> None:
        self._fields = fields
        self._get = _tuple_of(fields)
        self._expect(set())

    def _expect(self, nullable: set[int]) -> None:
        self._dense = [number for number in range(len(self._fields)) if number not in nullable]
        self._nullable = sorted(nullable)
        self._pack = struct.Struct(f"{len(self._dense)}d").pack
        self._leading = itemgetter(slice(0, len(self._dense)))
        self._get_nullable = _tuple_of([self._fields[number] for number in self._nullable])
        self.order = [self._fields[number] for number in (*self._dense, *self._nullable)]

    def fill(self, features: list[Any]) -> Floats:
        """Values (fields, n) of n structs, NaN where one is missing."""
        n = len(features)
        found = np.empty((len(self._fields), n))
        if not self._fields:
            return found
        try:
            packed = b"".join(starmap(self._pack, map(self._leading, map(msgspec.structs.astuple, features))))
        except struct.error:
            found[:] = np.array(list(map(self._get, features)), np.float64).reshape(n, len(self._fields)).T
            self._expect({*self._nullable, *np.flatnonzero(np.isnan(found).any(axis=1)).tolist()})
            return found
        found[self._dense] = np.frombuffer(packed).reshape(n, len(self._dense)).T
        if self._nullable:
            values = list(map(self._get_nullable, features))
            found[self._nullable] = np.array(values, np.float64).reshape(n, len(self._nullable)).T
        return found


def _tuple_of(fields: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Getter of several attributes as a tuple, also where it is only one."""
    if len(fields) == 1:
        get = attrgetter(fields[0])
        return lambda record: (get(record),)
    return attrgetter(*fields) if fields else lambda _: ()


def identities(records: list[Any]) -> Texts:
    """Ids (n,) of records or labels as text: the first field that holds one, else empty."""
    found = list(map(_get_ids[0], records))
    for get in _get_ids[1:]:
        if None not in found:
            break
        found = [get(record) if known is None else known for record, known in zip(records, found, strict=True)]
    return names(found)


def names(values: list[Any]) -> Texts:
    """Canonical texts (n,) of names; empty for None."""
    found = np.empty(len(values), np.object_)
    if values.count(None) == len(values):
        found[:] = ""
        return found
    plain = set(map(type, values)) <= {str}
    if not plain or not "".join(values).isprintable() or max(map(len, values), default=0) > LONGEST_NAME:
        values = ["" if value is None else name_of(value) for value in values]
    found[:] = values
    return found


_get_segment = attrgetter("segment")
_get_label = attrgetter("label")
_get_source = attrgetter("source")


def _is_present(value: object) -> bool:
    return value is not None and value is not msgspec.UNSET and value != NULL


def times(values: list[Any]) -> Floats:
    """Unix seconds (n,) of timestamps that are numbers, datetimes or absent."""
    try:
        return np.fromiter(map(datetime.timestamp, values), np.float64, len(values))
    except TypeError:
        pass
    try:
        return np.array(values, np.float64)
    except TypeError:
        return np.array([v.timestamp() if isinstance(v, datetime) else math.nan if v is None else v for v in values])


def versions_of(values: list[Any]) -> tuple[Codes, tuple[str, ...]]:
    """Codes (n,) and names of model versions."""
    n = len(values)
    same = bool(values) and values.count(values[0]) == n
    found = dict.fromkeys(values[:1] if same else values)
    names = {value: (UNVERSIONED if value is None else name_of(value)) or UNVERSIONED for value in found}
    unique = tuple(dict.fromkeys(names.values()))
    if same:
        return np.zeros(n, np.int32), unique
    place = {value: unique.index(name) for value, name in names.items()}
    return np.fromiter(map(place.__getitem__, values), np.int32, n), unique


def _confidences(records: list[Any], faults: Counter[str]) -> Floats:
    """Confidences (n,): as stated, else the largest probability; outside of [0, 1] they are missing."""
    found = np.array(list(map(_get_confidence, records)), np.float64)
    if found.size and found.min() >= 0 and found.max() <= 1:  # false for a NaN
        return found
    for index in np.flatnonzero(np.isnan(found)).tolist():
        record = records[index]
        probabilities = record.probabilities if record.probabilities is not None else record.scores
        if probabilities:
            found[index] = max(probabilities.values() if isinstance(probabilities, dict) else probabilities)
    outside = (found < 0) | (found > 1)
    if outside.any():
        faults["confidence_out_of_range"] += int(outside.sum())
        found[outside] = math.nan
    return found


def _listed(values: Sequence[list[float | None]], width: int, faults: Counter[str]) -> Floats:
    """Features given as lists: (width, n), cut or filled with missing values where the length is wrong."""
    wrong = sum(len(value) != width for value in values)
    if wrong:
        faults["features_wrong_length"] += wrong
        values = [(value + [None] * width)[:width] for value in values]
    return np.array(values, np.float64).reshape(len(values), width).T
