"""Inference tables of MLflow and Databricks: a row has a request and its response as JSON text."""

from __future__ import annotations

import math
from datetime import UTC
from typing import TYPE_CHECKING, Any

from poisonwatch.formats.instants import instant
from poisonwatch.formats.invocations import inputs_for, request_rows, response_rows
from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.loading import objects
from poisonwatch.formats.rows import Rows

if TYPE_CHECKING:
    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft
    from poisonwatch.formats.invocations import LogConfig
    from poisonwatch.formats.pairing import Pairing

MOST_BYTES = 4 << 20
"""Bytes of one body after decompression."""

TIMES = ("timestamp_ms", "request_time")
"""Columns with the time of the request: of the older tables in milliseconds, of the newer ones RFC 3339."""

IDENTITIES = ("client_request_id", "databricks_request_id", "request_id")
"""Columns with an id, that of the client before those that it does not know."""


class Mlflow:
    """Predictions of inference tables."""

    pairing: Pairing | None = None

    def __init__(self, config: LogConfig, most_bytes: int = MOST_BYTES) -> None:
        self._config, self._most = config, most_bytes
        self._rows = Rows(config)

    def read(self, event: Event, draft: Draft) -> None:
        """Add the predictions of a row.

        Raises:
            Rejected: when it cannot be opened.
        """
        for row in objects(event, self._most, draft):
            try:
                self._row(row, event, draft)
            except Rejected as rejected:
                draft.reject(rejected.args[0], event.body)

    def _row(self, row: dict[str, Any], event: Event, draft: Draft) -> None:
        if row.keys().isdisjoint({"request", "response"}):
            raise Rejected("unknown_event")
        status = row.get("status_code")
        if status is not None and str(status).removesuffix(".0") != "200":
            raise Rejected("error_response")
        outputs = response_rows(_json(row.get("response")), draft.faults)
        inputs = inputs_for(outputs, lambda: self._inputs(row.get("request"), draft), draft.faults)
        told = _metadata(row.get("request_metadata"))
        time = next((row[name] for name in TIMES if row.get(name) is not None), None)
        if time is None and not math.isnan(event.at):
            time = event.at
        common = {
            "timestamp": instant(time, UTC),
            "prediction_id": next((row[name] for name in IDENTITIES if row.get(name) not in (None, "")), None),
            "model": self._config.model or _name(told.get("model_name")),
            "model_version": _name(told.get("model_version"))
            or self._config.model_version
            or _name(row.get("served_entity_id")),
        }
        common = {name: value for name, value in common.items() if value is not None}
        self._rows.records(inputs, outputs, common, draft, event.body)

    def _inputs(self, request: object, draft: Draft) -> list[Any]:
        loaded = _json(request)
        if loaded is None:
            raise Rejected("missing_request")
        return request_rows(loaded, self._config, draft.faults)


def _json(value: Any) -> Any:
    """The JSON that a column holds as text, or as it is."""
    return load_json(value.encode("utf-8", "replace")) if isinstance(value, str) else value


def _metadata(value: object) -> dict[str, Any]:
    try:
        found = _json(value)
    except Rejected:
        return {}
    return found if isinstance(found, dict) else {}


def _name(value: object) -> str | None:
    """A name, or a number as one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:64]
    return value if isinstance(value, str) and value else None
