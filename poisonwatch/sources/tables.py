"""Tables as finite logs: the rows of CSV and Parquet files, as JSON lines.

In a *native* table the columns go where a native record has them: `timestamp`, `prediction` and so on keep their place,
`features.age`, `probabilities.spam` and `attributes.network` are members of these objects, and every other column is a feature.
In the table of a foreign log every column keeps its name.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from poisonwatch.errors import LogError, MissingExtraError
from poisonwatch.formats.cells import LONGEST_NUMBER, NUMBER
from poisonwatch.formats.jsonl import DECODE_ERRORS
from poisonwatch.formats.records import IDENTITIES, PASSED, READ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

GROUPS = ("features", "probabilities", "scores", "attributes")
"""Objects of a native record whose members can be columns: `features.age`."""

NATIVE = frozenset((*READ, *PASSED, "attributes"))
NAMES = frozenset((*IDENTITIES, "model", "model_version", "source", "segment", "text"))
"""Columns whose cells are text, also where they look like numbers."""

STRUCTURED = frozenset((*GROUPS, "embedding"))
"""Columns whose cells are JSON: lists or objects."""

ROWS = 4096
"""Rows of a Parquet file that are held at once."""

_quote = json.JSONEncoder(ensure_ascii=False).encode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode
_TRUTH = {"true": "true", "True": "true", "TRUE": "true", "false": "false", "False": "false", "FALSE": "false"}


class Place(NamedTuple):
    """Where in its line a column goes: the object of the record that it is a member of (empty: none) and the name."""

    group: str
    name: str


def places(columns: Sequence[str], *, native: bool) -> list[Place | None]:
    """Where each column goes; None for columns without a name, such as numbers of rows.

    Raises:
        ValueError: when two columns go to the same place.
    """
    found = [_place(column, native=native) if column else None for column in columns]
    counted = Counter(place for place in found if place is not None)
    groups = {place.group for place in counted}
    if not counted:
        msg = "it has no columns"
        raise ValueError(msg)
    if native and not counted.keys() & {Place("", "prediction"), Place("", "label")}:
        msg = "it has no column `prediction` (or, of labels, `label`): name one so"
        raise ValueError(msg)
    twice = [place for place, count in counted.items() if count > 1 or (not place.group and place.name in groups)]
    if twice:
        group, name = twice[0]
        msg = f"two columns are {f'{group}.{name}' if group else name!r}: rename one"
        raise ValueError(msg)
    return found


def _place(column: str, *, native: bool) -> Place:
    if not native or column in NATIVE:
        return Place("", column)
    group, dot, name = column.partition(".")
    return Place(group, name) if dot and name and group in GROUPS else Place("features", column)


class _Feed:
    """The lines of a file, for a reader of CSV that takes one or several for a row and may have to give them back."""

    def __init__(self, blocks: Iterable[bytes], longest: int) -> None:
        self._lines = (line for block in blocks for line in _lines(block))
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self._longest, self._size = longest, 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self._size > self._longest:
            raise csv.Error("a row does not end")
        line = self._again.popleft() if self._again else next(self._lines)
        self._row.append(line)
        self._size += len(line)
        return line

    def taken(self) -> str:
        """The lines that were read are a row; the first of them."""
        first = self._row[0] if self._row else ""
        self._row.clear()
        self._size = 0
        return first

    def broken(self) -> str:
        """Of the lines that were read only the first is done with: quotes that are not closed must not swallow others."""
        self._again.extendleft(reversed(self._row[1:]))
        return self.taken()


def _lines(block: bytes) -> Iterator[str]:
    lines = block.decode("utf-8", "surrogateescape").split("\n")
    last = lines.pop()
    yield from (f"{line}\n" for line in lines)
    if last:
        yield last


def csv_lines(path: Path, blocks: Iterable[bytes], longest: int, *, native: bool) -> Iterator[bytes]:
    """A JSON line for every row of a CSV file whose first line names the columns; `blocks` are complete lines of it.

    An empty cell is null; what JSON would take for a number or a truth value is one. A row with more or fewer cells than
    there are columns, or with broken quotes, becomes a line that is no JSON, for whoever reads the lines to count.

    Raises:
        LogError: when the first line cannot be the names of columns.
    """
    feed = _Feed(blocks, longest)
    reader = csv.reader(feed, strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        feed.taken()
    except csv.Error as error:
        raise _unusable(path, f"its first line does not name columns ({error})") from None
    if columns:
        columns[0] = columns[0].removeprefix("\ufeff")
    number = next((name for name in columns if NUMBER.fullmatch(name)), None)
    if number is not None:
        raise _unusable(path, f"its first line must name the columns, and has {number!r}")
    plan, end = _plan(path, columns, native=native)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            yield _bad(feed.broken())
            continue
        if row is None:
            return
        first = feed.taken()
        if len(row) == len(columns):
            line = "".join([key + cell(row[place]) for key, cell, place in plan]) + end
            yield line.encode("utf-8", "surrogateescape")
        elif row:
            yield _bad(first)


def _plan(path: Path, columns: list[str], *, native: bool) -> tuple[list[tuple[str, Callable[[str], str], int]], str]:
    """What is written before each cell, how it is written and its place in the row, in the order of the line."""
    try:
        found = places(columns, native=native)
    except ValueError as error:
        raise _unusable(path, str(error)) from None
    grouped: dict[str, list[tuple[str, int]]] = {}
    for number, place in enumerate(found):
        if place is not None:
            grouped.setdefault(place.group, []).append((place.name, number))
    plan: list[tuple[str, Callable[[str], str], int]] = []
    before = "{"
    for group, members in sorted(grouped.items()):
        if group:
            before += f"{_quote(group)}:{{"
        for name, number in members:
            plan.append((f"{before}{_quote(name)}:", _writer(group, name, native=native), number))
            before = ","
        before = "}," if group else ","
    return plan, f"{before[:-1]}}}\n"


def _writer(group: str, name: str, *, native: bool) -> Callable[[str], str]:
    if native and not group and name in NAMES:
        return _text
    return _structured if native and not group and name in STRUCTURED else _value


def _value(cell: str) -> str:
    return _short(cell) if len(cell) <= LONGEST_NUMBER else _quote(cell)


@lru_cache(1 << 14)
def _short(cell: str) -> str:
    if not cell:
        return "null"
    return cell if NUMBER.fullmatch(cell) else _TRUTH.get(cell) or _quote(cell)


def _text(cell: str) -> str:
    return _quote(cell) if cell else "null"


def _structured(cell: str) -> str:
    """A list or an object as it stands in the cell; other cells, and what is none after all, as text."""
    try:
        return msgspec.json.encode(_decode(cell)).decode() if cell[:1] in {"[", "{"} else _value(cell)
    except DECODE_ERRORS:
        return _quote(cell)


def _bad(line: str) -> bytes:
    """The line as one that no reader of JSON takes, whatever it is."""
    return b"?" + line.strip("\r\n").encode("utf-8", "replace") + b"\n"


def parquet_lines(path: Path, progress: Callable[[int], None] | None, *, native: bool) -> Iterator[bytes]:
    """A JSON line for every row of a Parquet file. Timestamps keep what they say of a zone.

    `progress` is called with a share of the file's bytes.

    Raises:
        LogError: when it cannot be read.
        MissingExtraError: when pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415 - same
    except ImportError:
        raise MissingExtraError('reading Parquet needs pyarrow: `pip install "poisonwatch[parquet]"`') from None
    try:
        size = path.stat().st_size
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            found = places(names, native=native)
            told = read = 0
            for batch in file.iter_batches(ROWS):
                yield from _rows(found, [_listed(pa, column) for column in batch.columns])
                read += batch.num_rows
                if progress is not None:
                    at = size * read // file.metadata.num_rows
                    progress(at - told)
                    told = at
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unusable(path, f"it cannot be read ({str(error)[:200]})") from None


def _listed(pa: Any, column: Any) -> list[Any]:
    """The values of a column as Python has them; maps become objects, times lose what is below microseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(kind):
        return [None if value is None else {str(name): member for name, member in value} for value in values]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if value is None else value.decode("utf-8", "replace") for value in values]
    return values


def _rows(found: list[Place | None], columns: list[list[Any]]) -> Iterator[bytes]:
    for row in zip(*columns, strict=True):
        record: dict[str, Any] = {}
        for place, value in zip(found, row, strict=True):
            if place is None or value is None:
                continue
            if place.group:
                record.setdefault(place.group, {})[place.name] = value
            else:
                record[place.name] = value
        yield _encode(record) + b"\n"


def _unusable(path: Path, problem: str) -> LogError:
    return LogError(f"{path}: the table cannot be used: {problem}")
