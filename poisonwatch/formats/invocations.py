"""Bodies of requests and responses of servers that take many shapes: MLflow's, SageMaker's, Azure's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from poisonwatch.formats.bodies import Body, answer_of, input_rows
from poisonwatch.formats.lenient import Rejected
from poisonwatch.formats.rows import RowsConfig

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable


WRAPPINGS = ("dataframe_split", "input_data", "dataframe_records", "data")
"""Names under which the rows of a request may stand."""

MOST_WRAPPINGS = 2


class LogConfig(RowsConfig, Protocol):
    """What users say of formats whose events hold whole predictions."""

    @property
    def model(self) -> str | None:
        """Model of all records, where the log names none, or another."""
        ...

    @property
    def model_version(self) -> str | None:
        """Version of the records for which the log names none."""
        ...


def request_rows(loaded: Any, config: RowsConfig, faults: Counter[str]) -> list[Any]:
    """Rows of the inputs of a request, for `Rows`.

    A table (`columns` and `data`, alone or as `dataframe_split` or `input_data`), records (`dataframe_records`, or a list), `instances` or
    `inputs`; else it is one row. A list of numbers is one row.

    Raises:
        Rejected: when the names say one of these shapes, and it is none.
    """
    for _ in range(MOST_WRAPPINGS):
        if not isinstance(loaded, dict) or isinstance(loaded.get("columns"), list):
            break
        name = next((name for name in WRAPPINGS if isinstance(loaded.get(name), list | dict)), None)
        if name is None:
            break
        loaded = loaded[name]
    if isinstance(loaded, list):
        numbers = bool(loaded) and all(value is None or isinstance(value, int | float) for value in loaded)
        return [loaded] if numbers else [_dense(row) for row in loaded]
    if not isinstance(loaded, dict):
        return [loaded]
    if isinstance(loaded.get("columns"), list) and isinstance(loaded.get("data"), list):
        return _table(loaded["columns"], loaded["data"], faults)
    if isinstance(loaded.get("inputs"), str):
        return [loaded["inputs"]]
    if "instances" in loaded or "inputs" in loaded:
        return [_dense(row) for row in input_rows(Body(loaded), config, faults)]
    return [_dense(loaded)]


def _dense(row: Any) -> Any:
    """A row without the wrapping of SageMaker's dense format: `{"features": {"values": [...]}}`."""
    if isinstance(row, dict) and isinstance(row.get("data"), dict):
        row = row["data"]
    features = row.get("features") if isinstance(row, dict) else None
    if isinstance(features, dict) and isinstance(features.get("values"), list):
        return features["values"]
    return row


def _table(columns: list[Any], data: list[Any], faults: Counter[str]) -> list[Any]:
    names = [name if isinstance(name, str) else str(place) for place, name in enumerate(columns)]
    rows: list[Any] = []
    for row in data:
        values = row if isinstance(row, list) else [row]
        if len(values) != len(names):
            faults["features_wrong_length"] += 1
        rows.append(dict(zip(names, values, strict=False)))
    return rows


def response_rows(loaded: Any, faults: Counter[str]) -> list[Any]:
    """Rows of the outputs of a response, for `Rows`: `predictions` or `outputs`, a list of rows, or one row.

    Raises:
        Rejected: when the server said that it failed, or nothing.
    """
    if isinstance(loaded, dict):
        if loaded.get("predictions") is not None or loaded.get("outputs") is not None:
            return answer_of(Body(loaded), faults).rows
        if not loaded or loaded.get("error") is not None or loaded.get("error_code") is not None:
            raise Rejected("error_response")
        return [loaded]
    if loaded is None:
        raise Rejected("missing_response")
    return loaded if isinstance(loaded, list) else [loaded]


def inputs_for(outputs: list[Any], read: Callable[[], list[Any]], faults: Counter[str]) -> list[Any]:
    """The rows of a request; where it cannot be read, rows of which nothing is known.

    Whoever sends a request that the server understands and the monitor does not must not hide its prediction.
    """
    try:
        return read()
    except Rejected:
        faults["unreadable_request"] += 1
        return [None] * len(outputs)
