"""Requests and responses of inference servers as rows: the v1 protocol (also TensorFlow Serving's), and v2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.tensors import are_tensors, rows_of, tensors_of

if TYPE_CHECKING:
    from collections import Counter

    from poisonwatch.formats.rows import RowsConfig

_prefix = json.JSONDecoder()


class Body(NamedTuple):
    """A JSON value, and the binary tensors behind it."""

    loaded: Any
    tail: bytes = b""


class Answer(NamedTuple):
    """A response: rows of outputs, and what it says of the model; None where it says nothing."""

    rows: list[Any]
    model: str | None
    version: str | None


def load_body(data: bytes, head: str | None = None) -> Body:
    """The JSON of a body. Binary tensors may follow it, from `head` bytes on where a header said so.

    Raises:
        Rejected: when it is none.
    """
    if head is not None and head.isascii() and head.isdecimal() and len(head) < 10 and 0 < int(head) < len(data):
        try:
            return Body(load_json(data[: int(head)]), data[int(head) :])
        except Rejected:
            # Loggers write the request's headers beside the response, too.
            pass
    try:
        return Body(load_json(data))
    except Rejected:
        if not data.startswith(b"{"):
            raise
        return _split(data)


def _split(data: bytes) -> Body:
    """A JSON object with something behind it; nobody said where it ends."""
    try:
        # One character per byte, so that characters count bytes.
        _, end = _prefix.raw_decode(data.decode("latin-1"))
    except RecursionError:
        raise Rejected("too_deep") from None
    except ValueError:
        raise Rejected("malformed") from None
    if end == len(data):
        raise Rejected("malformed")
    return Body(load_json(data[:end]), data[end:])


def input_rows(body: Body, config: RowsConfig, faults: Counter[str]) -> list[Any]:
    """Rows of a request's inputs, for `Rows`.

    Raises:
        Rejected: when it is no request that is known.
    """
    loaded = body.loaded
    if not isinstance(loaded, dict):
        raise Rejected("not_an_object")
    inputs, instances = loaded.get("inputs"), loaded.get("instances")
    if inputs is not None and instances is not None:
        # KServe reads `inputs` then; a client that sends both may want a monitor to read the other.
        faults["ambiguous_request"] += 1
    if are_tensors(inputs):
        return _tensor_rows(inputs, body, config, faults)
    if inputs is None and instances is None:
        raise Rejected("unknown_request")
    return _plain_rows(instances if inputs is None else inputs)


def rows_for(request: bytes, head: str | None, answered: int, config: RowsConfig, faults: Counter[str]) -> list[Any]:
    """Rows of the inputs of a request that got `answered` rows of outputs.

    What cannot be read is the fault `unreadable_request`, and nothing is known of its rows: no request may hide what was
    answered to it.
    """
    try:
        return input_rows(load_body(request, head), config, faults)
    except Rejected:
        faults["unreadable_request"] += 1
        return [None] * answered


def _tensor_rows(inputs: list[Any], body: Body, config: RowsConfig, faults: Counter[str]) -> list[Any]:
    content = _content_type(body.loaded)
    tensors = tensors_of(inputs, body.tail, content, faults)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        faults["ambiguous_request"] += 1
    first = tensors[0]
    if len(tensors) > 1 and content != "pd" and first.width == len(config.features) > 1:
        # The model has one tensor of all its features: what a client puts behind it, the server does not look at.
        faults["unknown_input"] += len(tensors) - 1
        tensors = tensors[:1]
    return rows_of(tensors, named=content == "pd" or first.name in {config.text, config.embedding})


def _content_type(loaded: dict[str, Any]) -> object:
    parameters = loaded.get("parameters")
    return parameters.get("content_type") if isinstance(parameters, dict) else None


def _plain_rows(found: Any) -> list[Any]:
    """Rows as v1 writes them: a list of rows, or columns by name."""
    if isinstance(found, dict):
        return columns_as_rows(found)
    if not isinstance(found, list):
        raise Rejected("wrong_type")
    rows: list[Any] = []
    for row in found:
        # KServe makes a table of every instance that is an object of columns, or a list of objects.
        if isinstance(row, list) and row and all(isinstance(member, dict) for member in row):
            rows.extend(row)
        elif isinstance(row, dict) and row and all(isinstance(v, list) and len(v) == 1 for v in row.values()):
            rows.append({name: value[0] for name, value in row.items()})
        else:
            rows.append(row)
    return rows


def columns_as_rows(columns: dict[str, Any]) -> list[Any]:
    """Rows of columns by name; what is no column of the same length is missing in the rows where it has no value."""
    lengths = [len(column) for column in columns.values() if isinstance(column, list)]
    if not lengths:
        return [columns] if columns else []
    # Columns of hundreds of names, one of them long, must not become a table larger than what was sent.
    count = max(lengths)
    if count * len(columns) > 2 * (sum(lengths) + len(columns)):
        raise Rejected("ragged_columns")
    return [
        {
            name: (column[n] if n < len(column) else None) if isinstance(column, list) else column
            for name, column in columns.items()
        }
        for n in range(count)
    ]


def answer_of(body: Body, faults: Counter[str]) -> Answer:
    """Rows of a response's outputs, for `Rows`.

    Raises:
        Rejected: "error_response" when the server said that it failed; else when it is no response that is known.
    """
    loaded = body.loaded
    if not isinstance(loaded, dict):
        raise Rejected("not_an_object")
    model, version = _said(loaded.get("model_name")), _said(loaded.get("model_version"))
    outputs, predictions = loaded.get("outputs"), loaded.get("predictions")
    if outputs is None and predictions is None:
        raise Rejected("error_response" if loaded.get("error") is not None else "unknown_response")
    if predictions is None and are_tensors(outputs):
        rows = rows_of(tensors_of(outputs, body.tail, _content_type(loaded), faults), named=len(outputs) > 1)
        return Answer(rows, model, version)
    found = outputs if predictions is None else predictions
    if isinstance(found, dict):
        return Answer(columns_as_rows(found), model, version)
    if not isinstance(found, list):
        raise Rejected("wrong_type")
    return Answer(found, model, version)


def _said(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None
