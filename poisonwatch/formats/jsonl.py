"""Native JSON lines: one prediction a line (`JsonlPredictions`), one label a line (`JsonlFeedback`)."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from datetime import datetime
from itertools import compress, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from poisonwatch.formats.columns import Columns, Filled, identities, names, times, versions_of
from poisonwatch.formats.lenient import Rejected, load_object, read_record, timestamp_of
from poisonwatch.formats.records import (
    EARLIEST,
    LATEST,
    MOST_EXTRAS,
    Timestamp,
    code_types,
    fits_struct,
    name_of,
    record_struct,
    seconds,
)
from poisonwatch.types import Batch, Decoded, Feedback

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from poisonwatch.types import Codes, Floats, Schema

CHUNK = 1 << 16
"""Bytes that are held as Python objects at once: more of them fall out of the processor's cache."""

MOST_ATTRIBUTES = 8
"""Attributes of a label's source that are read, the first by name."""

MOST_SAMPLES = 3
LONGEST_SAMPLE = 500
"""Rejected lines that a block gives to the dead-letter file, and bytes of each."""

UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?P<at> - at `\$\.features`)?", re.DOTALL)
"""What the decoder says of a field that the struct does not have."""

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def chunks(block: bytes, size: int = CHUNK) -> Iterator[bytes]:
    """Cut a block of complete lines into pieces of about `size` bytes, between lines."""
    start = 0
    while start < len(block):
        end = block.rfind(b"\n", start, start + size) + 1 or block.find(b"\n", start + size) + 1 or len(block)
        yield block[start:end]
        start = end


class _Header(msgspec.Struct, gc=False):
    model: str | None = None


class _Tally:
    """What went wrong in one block. `at` holds before which kept record each rejected line stood."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.samples: list[tuple[str, bytes]] = []
        self.at: list[int] = []

    def reject(self, reason: str, line: bytes, at: int) -> None:
        self.rejected[reason] += 1
        self.at.append(at)
        if len(self.samples) < MOST_SAMPLES:
            self.samples.append((reason, line[:LONGEST_SAMPLE]))


class JsonlPredictions:
    """Decodes predictions of one or several models, each by its own schema.

    With one model every line is taken for it, and a record that names another is rejected; with several, a line goes
    to the model that it names. `timed=False` takes records without a timestamp too (a reference); their time is NaN.
    """

    def __init__(self, schemas: dict[str, Schema], longest_line: int, *, timed: bool = True) -> None:
        self._readers = {model: _Reader(model, schema, timed=timed) for model, schema in schemas.items()}
        self._longest = longest_line
        self._model_of = msgspec.json.Decoder(_Header)

    def decode(self, block: bytes, latest: float = LATEST) -> Decoded:
        """Columns of a block of complete lines. Records with a timestamp after `latest` are rejected."""
        tally = _Tally()
        if len(self._readers) == 1:
            (reader,) = self._readers.values()
            return _decoded([reader.read(block, latest, self._longest, tally)], tally)
        routed: dict[str, list[bytes]] = {}
        for line in block.split(b"\n"):
            if not line.strip():
                continue
            try:
                routed.setdefault(self._route(line), []).append(line)
            except Rejected as rejected:
                tally.reject(rejected.args[0], line, 0)
        unrouted = tally.rejected.total()
        batches = [
            self._readers[model].read(b"\n".join(mine) + b"\n", latest, self._longest, tally)
            for model, mine in routed.items()
        ]
        return _decoded(self.with_lost(batches, unrouted), tally)

    def with_lost(self, batches: Sequence[Batch], count: int) -> list[Batch]:
        """The batches of a block, with `count` more lines that were lost before anybody knew of which model they were.

        They count for the first model, whether or not the block has any other line of it, at the end of the block: where
        exactly they stood is not known any more.
        """
        if not count:
            return [*batches]
        model, reader = next(iter(self._readers.items()))
        found = next((batch for batch in batches if batch.model == model), None)
        first = reader.read(b"", LATEST, self._longest, _Tally()) if found is None else found
        at = np.concatenate((first.rejected_at, np.full(count, first.time.size, np.int64)))
        mine = dataclasses.replace(first, rejected_at=at)
        return [mine, *batches] if found is None else [mine if batch is found else batch for batch in batches]

    def _route(self, line: bytes) -> str:
        """The model that a line names."""
        if len(line) >= self._longest:
            raise Rejected("too_long")
        try:
            model = self._model_of.decode(line).model
        except DECODE_ERRORS:
            model = load_object(line).get("model")
        if model is None:
            raise Rejected("missing_model")
        if not isinstance(model, str):
            raise Rejected("wrong_type")
        if model not in self._readers:
            raise Rejected("other_model")
        return model


def _one_a_line(chunk: bytes, count: int) -> bool:
    """Is each of `count` decoded objects a line of its own? Then every line break stands between two of them."""
    found = np.frombuffer(chunk, np.uint8)
    breaks = np.flatnonzero(found == ord("\n"))
    return bool(
        breaks.size == count
        and count
        and breaks[-1] == found.size - 1
        and (found[breaks - 1] == ord("}")).all()
        and (found[breaks[:-1] + 1] == ord("{")).all()
    )


def _decoded(batches: list[Batch], tally: _Tally) -> Decoded:
    """A line is accepted or rejected; blank lines are no lines."""
    predictions = sum(batch.time.size for batch in batches)
    return Decoded(
        lines=predictions + tally.rejected.total(),
        predictions=predictions,
        batches=tuple(batches),
        rejected=dict(tally.rejected),
        faults={reason: count for reason, count in tally.faults.items() if count},
        samples=tuple(tally.samples),
    )


class _Part(NamedTuple):
    """Columns of one chunk; `version` holds codes into `versions`."""

    time: Floats
    version: Codes
    versions: tuple[str, ...]
    columns: Filled


class _Reader:
    """Decodes the predictions of one model."""

    def __init__(self, model: str, schema: Schema, *, timed: bool) -> None:
        self._model, self._schema, self._timed = model, schema, timed
        self._columns = Columns(schema)
        self._codes = code_types(schema)
        self._extras: tuple[str, ...] = ()
        self._feature_extras: tuple[str, ...] = ()
        self._compile()

    def _compile(self) -> None:
        self._kind = record_struct(
            self._schema, self._codes, self._columns.packed.order, self._extras, self._feature_extras
        )
        self._decoder = msgspec.json.Decoder(self._kind)

    def read(self, block: bytes, latest: float, longest: int, tally: _Tally) -> Batch:
        """Columns of all lines of a block that are predictions of this model."""
        parts = []
        kept = 0
        tally.at = []
        for chunk in chunks(block):
            known = len(tally.at)
            records = self._records(chunk, longest, tally)
            part = self._part(records, latest, tally, known, kept)
            kept += part.time.size
            parts.append(part)
        versions: dict[str, int] = {}
        codes = [
            np.array([versions.setdefault(name, len(versions)) for name in part.versions], np.int32)[part.version]
            for part in parts
        ]
        if not parts:
            parts, codes = [self._part([], latest, tally, 0, 0)], [np.empty(0, np.int32)]
        columns = Filled(
            *(np.concatenate(column, axis=-1) for column in zip(*(part.columns for part in parts), strict=True))
        )
        return Batch(
            model=self._model,
            time=np.concatenate([part.time for part in parts]),
            version=np.concatenate(codes),
            versions=tuple(versions),
            **columns._asdict(),
            marks=np.empty((0, kept), np.bool_),
            rejected_at=np.array(sorted(tally.at), np.int64),
        )

    def _records(self, chunk: bytes, longest: int, tally: _Tally) -> list[Any]:
        """Records of a chunk; rejected lines are noted with the place where they stood among the chunk's records."""
        try:
            records = self._decoder.decode_lines(chunk)
        except DECODE_ERRORS:
            records = None
        # A value that spans lines, or two on one line, is no line-oriented record, whatever the decoder makes of it.
        if records is not None and len(chunk) <= longest:
            count = len(records)
            if _one_a_line(chunk, count) or _one_a_line(chunk.replace(b"\r\n", b"\n"), count):
                return records
        records = []
        for line in chunk.split(b"\n"):
            if not line.strip():
                continue
            if len(line) >= longest:
                tally.reject("too_long", line, len(records))
                continue
            try:
                records.append(self._record(line, tally))
            except Rejected as rejected:
                tally.reject(rejected.args[0], line, len(records))
        return records

    def _record(self, line: bytes, tally: _Tally) -> Any:
        for _ in range(MOST_EXTRAS):
            try:
                return self._decoder.decode(line)
            except DECODE_ERRORS as error:
                if not self._learn(str(error)):
                    break
        return read_record(line, self._kind, self._schema, self._codes, tally.faults)

    def _learn(self, error: str) -> bool:
        """Make an unknown field known, so that the next record that has it decodes at full speed."""
        found = UNKNOWN_FIELD.fullmatch(error)
        if found is None or not fits_struct(found["name"]):
            return False
        name = found["name"]
        if found["at"] is None and name not in self._extras:
            self._extras = (*self._extras, name)
        elif found["at"] is not None and name not in self._feature_extras:
            self._feature_extras = (*self._feature_extras, name)
        else:
            return False
        self._compile()
        return True

    def _part(self, records: list[Any], latest: float, tally: _Tally, known: int, before: int) -> _Part:
        """What is accepted of the records of one chunk."""
        self._count_extras(records, tally)
        time = times(list(map(_get_timestamp, records)))
        predictions = list(map(_get_prediction, records))
        keep, reasons = self._accept(records, time, predictions, latest)
        order = self._columns.packed.order
        columns = self._columns.fill(records, predictions, tally.faults)
        if self._columns.packed.order is not order:
            self._compile()
        said = list(map(_get_version, records))
        if reasons:
            # The place of a line among all records becomes its place among the accepted ones.
            place = np.concatenate(([0], np.cumsum(keep)))
            tally.at[known:] = place[np.array(tally.at[known:], np.int64)].tolist()
            for index, reason in reasons.items():
                tally.reject(reason, msgspec.json.encode(_plain(records[index])), int(place[index]))
            time, columns, said = time[keep], columns.only(keep), list(compress(said, keep))
        tally.at[known:] = [before + at for at in tally.at[known:]]
        version, versions = versions_of(said)
        return _Part(time, version, versions, columns)

    def _accept(
        self, records: list[Any], time: Floats, predictions: list[Any], latest: float
    ) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], dict[int, str]]:
        """Which records are accepted, and why each of the others is not."""
        keep = np.ones(len(records), np.bool_)
        reasons: dict[int, str] = {}
        in_range = time.size and time.min() >= EARLIEST and time.max() <= min(LATEST, latest)  # false for a NaN

        def refuse(where: Sequence[int], reason: str) -> None:
            for index in where:
                reasons.setdefault(int(index), reason)
                keep[index] = False

        if not in_range:
            timed = ~np.isnan(time)
            if self._timed:
                refuse(np.flatnonzero(~timed).tolist(), "missing_timestamp")
            refuse(np.flatnonzero(timed & ~((time >= EARLIEST) & (time <= LATEST))).tolist(), "absurd_timestamp")
            refuse(np.flatnonzero(timed & (time > latest)).tolist(), "future_timestamp")
        if None in predictions:
            refuse([i for i, p in enumerate(predictions) if p is None], "missing_prediction")
        if self._schema.model is not None:
            models = list(map(_get_model, records))
            if models.count(self._schema.model) + models.count(None) != len(models):
                refuse([i for i, m in enumerate(models) if m not in {None, self._schema.model}], "other_model")
        return keep, reasons

    def _count_extras(self, records: list[Any], tally: _Tally) -> None:
        # Records that were decoded before a name was learned have no such attribute.
        for number in range(len(self._extras)):
            values = list(map(getattr, records, repeat(f"x{number}"), repeat(msgspec.UNSET)))
            tally.faults["unknown_field"] += len(values) - values.count(msgspec.UNSET)
        for number in range(len(self._feature_extras)):
            values = list(map(getattr, map(_get_features, records), repeat(f"x{number}"), repeat(msgspec.UNSET)))
            tally.faults["unknown_feature"] += len(values) - values.count(msgspec.UNSET)


_get_timestamp = attrgetter("timestamp")
_get_prediction = attrgetter("prediction")
_get_version = attrgetter("model_version")
_get_model = attrgetter("model")
_get_features = attrgetter("features")


def _plain(record: Any) -> dict[str, Any]:
    """What a rejected record said, for the dead-letter file."""
    return {
        name: value for name in ("timestamp", "prediction", "model") if (value := getattr(record, name)) is not None
    }


class _Label(msgspec.Struct, gc=False, forbid_unknown_fields=False):
    timestamp: Timestamp | None = None
    prediction_id: str | int | float | None = None
    request_id: str | int | float | None = None
    inference_id: str | int | float | None = None
    label: str | bool | float | None = None
    source: str | float | None = None
    attributes: dict[str, str | bool | float | None] | None = None


class JsonlFeedback:
    """Decodes labels: `timestamp`, `prediction_id`, `label`, and the optional `source` and `attributes`."""

    def __init__(self, longest_line: int) -> None:
        self._decoder = msgspec.json.Decoder(_Label)
        self._longest = longest_line

    def decode(self, block: bytes, latest: float = LATEST) -> Decoded:
        """Columns of a block of complete lines. Labels with a timestamp after `latest` are rejected."""
        tally = _Tally()
        times: list[float] = []
        kept: list[_Label] = []
        lines = [line for line in block.split(b"\n") if line.strip()]
        for line in lines:
            try:
                time, label = self._read(line, latest)
            except Rejected as rejected:
                tally.reject(rejected.args[0], line, 0)
            else:
                times.append(time)
                kept.append(label)
        feedback = Feedback(
            time=np.array(times, np.float64),
            ids=identities(kept),
            labels=names([label.label for label in kept]),
            sources=names([label.source for label in kept]),
            attributes=np.fromiter((_shared(label.attributes) for label in kept), np.object_, len(kept)),
        )
        return Decoded(
            lines=len(lines),
            labels=len(kept),
            feedback=feedback,
            rejected=dict(tally.rejected),
            samples=tuple(tally.samples),
        )

    def _read(self, line: bytes, latest: float) -> tuple[float, _Label]:
        if len(line) >= self._longest:
            raise Rejected("too_long")
        try:
            label = self._decoder.decode(line)
        except DECODE_ERRORS:
            timestamp_of(load_object(line))
            raise Rejected("wrong_type") from None
        identity = next((i for i in (label.prediction_id, label.request_id, label.inference_id) if i is not None), None)
        for value, reason in (
            (label.timestamp, "missing_timestamp"),
            (identity, "missing_prediction_id"),
            (label.label, "missing_label"),
        ):
            if value is None:
                raise Rejected(reason)
        time = label.timestamp.timestamp() if isinstance(label.timestamp, datetime) else seconds(label.timestamp)
        if not EARLIEST <= time <= LATEST:
            raise Rejected("absurd_timestamp")
        if time > latest:
            raise Rejected("future_timestamp")
        return time, label


def _shared(attributes: dict[str, str | bool | float | None] | None) -> tuple[str, ...]:
    """What a label's source shares with others, as `name=value`; without values it shares nothing."""
    given = sorted((name, value) for name, value in (attributes or {}).items() if value is not None)
    return tuple(sorted(f"{name_of(name)}={name_of(value)}" for name, value in given[:MOST_ATTRIBUTES]))
