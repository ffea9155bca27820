"""Tensors of the Open Inference Protocol (v2) as rows: JSON or binary, whatever their shapes claim."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np

from poisonwatch.formats.lenient import Rejected

if TYPE_CHECKING:
    from collections import Counter

MOST_TENSORS = 10_000
"""Tensors that are read of one body: where every feature is one, their number is that of the features."""

MOST_DIMENSIONS = 16
"""Levels of nesting of `data` that are taken off."""

BINARY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""How the values of each datatype but BYTES stand in a binary body."""


class Tensor(NamedTuple):
    """A named tensor: its rows, of `width` values each, in one flat list."""

    name: str
    rows: int
    width: int
    values: list[Any]

    def row(self, number: int) -> Any:
        """One row: a value where it has only one, else a list; None behind the last."""
        if number >= self.rows:
            return None
        if self.width == 1:
            return self.values[number]
        return self.values[number * self.width : (number + 1) * self.width]


def are_tensors(found: object) -> TypeGuard[list[Any]]:
    """Does a body's `inputs` or `outputs` hold tensors, and not rows?"""
    return (
        isinstance(found, list)
        and bool(found)
        and isinstance(found[0], dict)
        and "name" in found[0]
        and ("datatype" in found[0] or "shape" in found[0])
    )


def tensors_of(found: list[Any], tail: bytes, default: object, faults: Counter[str]) -> list[Tensor]:
    """The tensors of a body; `tail` holds the binary ones in their order, `default` is the body's own content type.

    Raises:
        Rejected: when one cannot be read.
    """
    if len(found) > MOST_TENSORS:
        raise Rejected("too_many_tensors")
    tensors = []
    start = 0
    for tensor in found:
        if not isinstance(tensor, dict):
            raise Rejected("bad_tensor")
        name, datatype = tensor.get("name"), tensor.get("datatype")
        parameters = tensor.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        size = parameters.get("binary_data_size")
        if "data" in tensor or size is None:
            values = _flat(tensor.get("data"))
        else:
            if not isinstance(size, int) or not 0 <= size <= len(tail) - start:
                raise Rejected("bad_tensor")
            values = _unpacked(tail[start : start + size], datatype, faults)
            start += size
        if datatype == "BYTES" and parameters.get("content_type", default) == "base64":
            values = [_from_base64(value, faults) for value in values]
        rows, width = _rows(tensor.get("shape"), len(values))
        tensors.append(Tensor(name if isinstance(name, str) else "", rows, width, values))
    if start < len(tail):
        faults["bytes_behind_tensors"] += 1
    return tensors


def rows_of(tensors: list[Tensor], *, named: bool) -> list[Any]:
    """Rows of all tensors together: of a single one its own values, of several, or where `named`, an object by name.

    Raises:
        Rejected: when their lengths differ so much that the table would be larger than what was sent.
    """
    if not tensors:
        return []
    count = max(tensor.rows for tensor in tensors)
    if len(tensors) == 1 and not named:
        return [tensors[0].row(number) for number in range(count)]
    if count * len(tensors) > 2 * (sum(tensor.rows for tensor in tensors) + len(tensors)):
        raise Rejected("ragged_columns")
    return [{tensor.name: tensor.row(number) for tensor in tensors} for number in range(count)]


def _flat(data: object) -> list[Any]:
    """Row-major values of nested or flat data."""
    if not isinstance(data, list):
        raise Rejected("bad_tensor")
    for _ in range(MOST_DIMENSIONS):
        if not any(isinstance(value, list) for value in data):
            break
        data = [member for value in data for member in (value if isinstance(value, list) else (value,))]
    return data


def _rows(shape: object, values: int) -> tuple[int, int]:
    """Rows and values of each, as the shape says and the number of values confirms."""
    if shape is None or shape == []:
        return values, 1
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        raise Rejected("bad_tensor")
    total = 1
    for length in shape:
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise Rejected("bad_tensor")
        total *= length
    if total != values:
        raise Rejected("shape_mismatch")
    # Shapes without values may claim any number of rows.
    return (shape[0], values // shape[0]) if values else (0, 1)


def _unpacked(data: bytes, datatype: object, faults: Counter[str]) -> list[Any]:
    """Values of a binary tensor."""
    if datatype == "BYTES":
        return _strings(data, faults)
    kind = BINARY.get(datatype) if isinstance(datatype, str) else None
    if kind is None or len(data) % np.dtype(kind).itemsize:
        raise Rejected("bad_tensor")
    found: list[Any] = np.frombuffer(data, kind).tolist()
    return found


def _strings(data: bytes, faults: Counter[str]) -> list[str]:
    """Strings, each after its length in four bytes."""
    found = []
    start = 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "little")
        end = start + 4 + length
        if start + 4 > len(data) or end > len(data):
            raise Rejected("bad_tensor")
        found.append(_decoded(data[start + 4 : end], faults))
        start = end
    return found


def _from_base64(value: Any, faults: Counter[str]) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return _decoded(base64.b64decode(value, validate=True), faults)
    except (binascii.Error, ValueError):
        faults["bad_base64"] += 1
        return value


def _decoded(data: bytes, faults: Counter[str]) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        faults["invalid_utf8"] += 1
        return data.decode("utf-8", "replace")
