"""SageMaker data capture, and the files of ground truth that belong to it."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from poisonwatch.formats.cells import csv_rows
from poisonwatch.formats.cloudevents import bytes_of, event_time
from poisonwatch.formats.events import Event
from poisonwatch.formats.invocations import inputs_for, request_rows, response_rows
from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.loading import objects
from poisonwatch.formats.opening import opened
from poisonwatch.formats.rows import Rows

if TYPE_CHECKING:
    from poisonwatch.formats.foreign import Draft
    from poisonwatch.formats.invocations import LogConfig
    from poisonwatch.formats.pairing import Pairing

MOST_BYTES = 4 << 20
"""Bytes of one body after decompression."""

_VARIANT = re.compile(r"(?:^|/)([^/]+)/([^/]+)/\d{4}/\d\d/\d\d/\d\d/[^/]+$")
_HOUR = re.compile(r"(?:^|/)(\d{4})/(\d\d)/(\d\d)/(\d\d)/[^/]+$")


class Where(NamedTuple):
    """What the path of a captured file says; None where it says nothing."""

    endpoint: str | None
    variant: str | None


@lru_cache(64)
def where(origin: str) -> Where:
    """Endpoint and variant of `.../{endpoint}/{variant}/yyyy/mm/dd/hh/file.jsonl`."""
    found = _VARIANT.search(origin)
    return Where(found[1], found[2]) if found else Where(None, None)


@lru_cache(64)
def end_of_hour(origin: str) -> float:
    """Unix seconds of the last second of the hour in `.../yyyy/mm/dd/hh/file.jsonl`, NaN without one."""
    found = _HOUR.search(origin)
    try:
        hour = datetime(*map(int, found.groups()), tzinfo=UTC) if found else None  # type: ignore[arg-type,misc]
    except ValueError:
        return math.nan
    return math.nan if hour is None else (hour + timedelta(minutes=59, seconds=59)).timestamp()


class Sagemaker:
    """Predictions of data capture, labels of ground truth."""

    pairing: Pairing | None = None

    def __init__(self, config: LogConfig, most_bytes: int = MOST_BYTES) -> None:
        self._config, self._most = config, most_bytes
        self._rows = Rows(config)

    def read(self, event: Event, draft: Draft) -> None:
        """Add the predictions or labels of an event.

        Raises:
            Rejected: when it cannot be opened.
        """
        for loaded in objects(event, self._most, draft):
            captured, truth = loaded.get("captureData"), loaded.get("groundTruthData")
            try:
                if isinstance(captured, dict):
                    self._capture(captured, loaded, event, draft)
                elif isinstance(truth, dict):
                    self._truth(truth, loaded, event, draft)
                else:
                    draft.reject("unknown_event", event.body)
            except Rejected as rejected:
                draft.reject(rejected.args[0], event.body)

    def _capture(self, captured: dict[str, Any], loaded: dict[str, Any], event: Event, draft: Draft) -> None:
        given, answered = captured.get("endpointInput"), captured.get("endpointOutput")
        if not isinstance(answered, dict):
            raise Rejected("unpaired_request")
        outputs = self._read(answered)
        rows = outputs if isinstance(outputs, _Csv) else response_rows(outputs, draft.faults)
        inputs = inputs_for(rows, lambda: self._inputs(given, draft), draft.faults)
        if len(rows) == 1 and isinstance(rows[0], list) and 1 < len(inputs) == len(rows[0]):
            # Built-in algorithms answer many rows of CSV with one.
            rows = list(rows[0])
        told = _metadata(loaded)
        path = where(event.origin)
        common = {
            "timestamp": _known(event_time(told.get("inferenceTime"), event.at, draft)),
            "prediction_id": _identity(told, "inferenceId", "eventId"),
            "model": self._config.model or path.endpoint,
            "model_version": self._config.model_version or path.variant,
        }
        common = {name: value for name, value in common.items() if value is not None}
        self._rows.records(inputs, rows, common, draft, event.body)

    def _inputs(self, given: object, draft: Draft) -> list[Any]:
        if not isinstance(given, dict):
            raise Rejected("missing_request")
        found = self._read(given)
        return found if isinstance(found, _Csv) else request_rows(found, self._config, draft.faults)

    def _truth(self, truth: dict[str, Any], loaded: dict[str, Any], event: Event, draft: Draft) -> None:
        found = self._read(truth)
        rows = found if isinstance(found, list) else [found]
        told = _metadata(loaded)
        name = _identity(told, "eventId", "inferenceId")
        # Nothing in the event says when the label came: not before the end of the hour that it is filed under.
        time = event_time(told.get("inferenceTime"), event.at, draft)
        time = end_of_hour(event.origin) if math.isnan(time) else time
        for number, row in enumerate(rows):
            label = {
                "timestamp": _known(time),
                "prediction_id": name if len(rows) == 1 or name is None else f"{name}#{number}",
                "label": self._rows.answered(row).get("prediction"),
            }
            draft.labels.append(label)

    def _read(self, part: dict[str, Any]) -> Any:
        """What was captured: rows of CSV, or a JSON value.

        Raises:
            Rejected: when it is neither.
        """
        data, encoding = part.get("data"), str(part.get("encoding") or "").upper()
        if not isinstance(data, str):
            return data
        said = str(part.get("observedContentType") or "").lower()
        if encoding == "BASE64":
            data = _text(opened(Event(bytes_of(data)), self._most))
            encoding = "CSV" if "csv" in said else "JSON" if "json" in said else ""
        if encoding == "CSV" or (not encoding and not data.lstrip().startswith(("{", "["))):
            return _Csv(csv_rows(data))
        return _json(data)


class _Csv(list[Any]):
    """Rows of CSV, in which a list is never anything else."""


def _json(text: str) -> Any:
    """One JSON value, or the list of those that stand one a line."""
    data = text.encode("utf-8", "replace")
    try:
        return load_json(data)
    except Rejected:
        lines = [line for line in data.split(b"\n") if line.strip()]
        if len(lines) < 2:
            raise
        return [_unwrapped(load_json(line)) for line in lines]


def _unwrapped(row: Any) -> Any:
    """A row of JSON lines that holds its outputs under `predictions`."""
    return row["predictions"] if isinstance(row, dict) and row.keys() == {"predictions"} else row


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Rejected("unknown_encoding") from None


def _metadata(loaded: dict[str, Any]) -> dict[str, Any]:
    found = loaded.get("eventMetadata")
    return found if isinstance(found, dict) else {}


def _identity(told: dict[str, Any], *names: str) -> str | int | None:
    return next((told[name] for name in names if isinstance(told.get(name), str | int) and told[name] != ""), None)


def _known(time: float) -> float | None:
    return None if math.isnan(time) else time
