"""From records to columns: each loop over records here runs in native code."""

from __future__ import annotations

import math
import struct
from datetime import datetime
from itertools import repeat, starmap
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from poisonwatch.formats.records import codes_by_value, listed_features, name_of, object_features
from poisonwatch.profile.indicators import code_rows, number_rows, unseen_code
from poisonwatch.types import UNVERSIONED

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from poisonwatch.types import Codes, Floats, Schema

NULL = msgspec.Raw(b"null")

_get_features = attrgetter("features")
_get_confidence = attrgetter("confidence")
_get_code = attrgetter("code")


class Columns:
    """Numbers and codes of the records of one schema, laid out as `profile.indicators` says."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._number_count, self._columns = len(number_rows(schema)), code_rows(schema)
        fields = {column.name: f"f{number}" for number, column in object_features(schema)}
        self._numbers = _NumberRows([f for name, f in fields.items() if _kind_of(schema, name) == "numerical"])
        self._listed = listed_features(schema)
        enumerated = [(row, c) for row, c in enumerate(self._columns) if c.strings and c is not schema.outcome]
        self._codes = _CodeRows([row for row, _ in enumerated], [fields[column.name] for _, column in enumerated])
        self._looked_up = [
            (row, codes_by_value(column), unseen_code(column), attrgetter(fields[column.name]))
            for row, column in enumerate(self._columns)
            if column.kind == "categorical" and not column.strings and column is not schema.outcome
        ]
        self._present = [
            (row, column.name in fields, attrgetter(fields.get(column.name, column.name)))
            for row, column in enumerate(self._columns)
            if column.kind != "categorical"
        ]
        self._classes = codes_by_value(schema.outcome)

    def fill(self, records: list[Any], predictions: list[Any], faults: Counter[str]) -> tuple[Floats, Codes]:
        """Numbers (d, n) and codes (c, n) of n records."""
        n = len(records)
        features = list(map(_get_features, records))
        numbers = np.empty((self._number_count, n))
        row = 0
        if self._schema.confidence:
            numbers[row] = _confidences(records, faults)
            row += 1
        if self._schema.outcome.kind == "numerical":
            numbers[row] = np.array(predictions, np.float64)
            row += 1
        if self._listed:
            numbers[row:] = _listed(features, self._listed, faults)
        else:
            self._numbers.fill(numbers[row:], features)
        codes = np.empty((len(self._columns), n), np.int32)
        if self._schema.outcome.kind == "categorical":
            codes[0] = self._class_codes(predictions)
        self._codes.fill(codes, features)
        for row, known, unseen, get in self._looked_up:
            codes[row] = np.fromiter(map(known.get, map(get, features), repeat(unseen)), np.int32, n)
        for row, in_features, get in self._present:
            codes[row] = np.fromiter(map(_is_present, map(get, features if in_features else records)), np.int32, n)
        return numbers, codes

    def _class_codes(self, predictions: list[Any]) -> Codes:
        n = len(predictions)
        if not self._schema.outcome.strings:
            found = map(self._classes.get, predictions, repeat(unseen_code(self._schema.outcome)))
            return np.fromiter(found, np.int32, n)
        try:
            return np.fromiter(map(_get_code, predictions), np.int32, n)
        except AttributeError:  # a prediction is missing; its record will be rejected
            return np.array([0 if prediction is None else prediction.code for prediction in predictions], np.int32)


def _kind_of(schema: Schema, name: str) -> str:
    return next(column.kind for column in schema.features if column.name == name)


class _NumberRows:
    """Numbers of `features` structs as rows of a matrix.

    Packing whole records as doubles is twice as fast as letting NumPy look at every value, but takes no None: fields that
    were ever null go the slower way.
    """

    def __init__(self, fields: list[str]) -> None:
        self._fields = fields
        self._split(frozenset())

    def _split(self, nullable: frozenset[int]) -> None:
        self._nullable = sorted(nullable)
        self._dense = [number for number in range(len(self._fields)) if number not in nullable]
        self._get_dense = _tuple_of([self._fields[number] for number in self._dense])
        self._get_nullable = _tuple_of([self._fields[number] for number in self._nullable])
        self._pack = struct.Struct(f"{len(self._dense)}d").pack

    def fill(self, rows: Floats, features: list[Any]) -> None:
        """Fill `rows` (fields, n) from n structs."""
        if self._dense:
            try:
                packed = b"".join(starmap(self._pack, map(self._get_dense, features)))
            except struct.error:
                values = zip(*map(self._get_dense, features), strict=True)
                found = {number for number, column in zip(self._dense, values, strict=True) if None in column}
                self._split(frozenset(self._nullable) | found)
                self.fill(rows, features)
                return
            rows[self._dense] = np.frombuffer(packed).reshape(len(features), len(self._dense)).T
        if self._nullable:
            found_values = list(map(self._get_nullable, features))
            rows[self._nullable] = np.array(found_values, np.float64).reshape(len(features), len(self._nullable)).T


class _CodeRows:
    """Codes of categories that the decoder has already turned into members of an enumeration."""

    def __init__(self, rows: list[int], fields: list[str]) -> None:
        self._rows = rows
        self._get = _tuple_of([f"{field}.code" for field in fields])
        self._each = [attrgetter(field) for field in fields]
        self._pack = struct.Struct(f"{len(rows)}i").pack

    def fill(self, codes: Codes, features: list[Any]) -> None:
        """Fill the rows of `codes` (c, n) that belong here from n structs."""
        if not self._rows:
            return
        try:
            packed = b"".join(starmap(self._pack, map(self._get, features)))
        except AttributeError:  # a category is missing somewhere
            for row, get in zip(self._rows, self._each, strict=True):
                codes[row] = [0 if member is None else member.code for member in map(get, features)]
            return
        codes[self._rows] = np.frombuffer(packed, np.int32).reshape(len(features), len(self._rows)).T


def _tuple_of(fields: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Getter of several attributes as a tuple, also where it is only one."""
    if len(fields) == 1:
        get = attrgetter(fields[0])
        return lambda record: (get(record),)
    return attrgetter(*fields) if fields else lambda _: ()


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
