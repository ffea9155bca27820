"""The slow path: one line that the typed decoder refused, looked at value by value.

What makes a prediction worthless (no prediction, no usable time, no JSON) rejects the line. What is wrong with one value
only makes that value missing and is counted as a fault: a record must not escape the monitor because one field is odd.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.formats.records import (
    IDENTITIES,
    PASSED,
    READ,
    feature_key,
    name_of,
    object_features,
    own_columns,
    seconds,
)

if TYPE_CHECKING:
    from collections import Counter

    from poisonwatch.formats.records import Code
    from poisonwatch.types import Column, Schema


DEEPEST = 64
"""Levels of nesting that are looked at where there are more than the decoders take."""

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]+|[\]}]+', re.DOTALL)
"""Strings, and brackets one after another."""


class Rejected(Exception):  # noqa: N818 - carries a reason, is no error
    """The line is no usable prediction; `args[0]` is the reason under which it is counted."""


def load_object(line: bytes) -> dict[str, Any]:
    """The JSON object of one line.

    Raises:
        Rejected: when there is none.
    """
    try:
        try:
            loaded = _loaded(line)
        except RecursionError:
            # Whoever may add a field to a record must not hide the record with it.
            loaded = _loaded(shallow(line))
    except UnicodeDecodeError:
        raise Rejected("invalid_utf8") from None
    except ValueError:
        raise Rejected("malformed") from None
    if not isinstance(loaded, dict):
        raise Rejected("not_an_object")
    return loaded


def _loaded(line: bytes) -> Any:
    loaded = json.loads(line.decode())
    if b"\\ud" in line or b"\\uD" in line:
        # Half a surrogate pair, which only an escape can bring, cannot be written to any file.
        loaded = json.loads(json.dumps(loaded, ensure_ascii=False).encode("utf-8", "replace"))
    return loaded


def shallow(data: bytes) -> bytes:
    """JSON with an empty list for whatever is nested more than `DEEPEST` deep: no field of a record is."""
    kept: list[bytes] = []
    depth = start = 0
    for token in _BRACKETS.finditer(data):
        begin, end = token.span()
        before, kind = depth, data[begin]
        if kind in b"[{":
            depth += end - begin
            if before <= DEEPEST < depth:
                kept += [data[start : begin + DEEPEST - before], b"[]"]
        elif kind in b"]}":
            depth = max(0, depth - (end - begin))
            if depth <= DEEPEST < before:
                start = begin + before - DEEPEST
    return b"".join(kept) if depth > DEEPEST else b"".join((*kept, data[start:]))


def load_json(data: bytes) -> Any:
    """Any JSON value of a body, also where it is UTF-16 or begins with a byte order mark: servers read these, too.

    Raises:
        Rejected: when there is none.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # Half a surrogate pair cannot be written to any file.
        text = json.dumps(json.loads(data), ensure_ascii=False)
        return json.loads(text.encode("utf-8", "replace"))
    except UnicodeDecodeError:
        raise Rejected("invalid_utf8") from None
    except RecursionError:
        raise Rejected("too_deep") from None
    except ValueError:
        raise Rejected("malformed") from None


def timestamp_of(loaded: dict[str, Any]) -> float | None:
    """Unix seconds, or None where there is no timestamp.

    Raises:
        Rejected: when there is one that cannot be understood.
    """
    try:
        time = seconds(loaded.get("timestamp"))
    except ValueError as error:
        raise Rejected(str(error)) from None
    if math.isinf(time):
        raise Rejected("absurd_timestamp")
    return None if math.isnan(time) else time


def read_record(line: bytes, kind: Any, schema: Schema, codes: dict[str, type[Code]], faults: Counter[str]) -> Any:
    """One line as an instance of the record struct `kind`; faults of single values are counted.

    Raises:
        Rejected: when the line is no usable prediction.
    """
    loaded = load_object(line)
    time = timestamp_of(loaded)
    prediction = loaded.get("prediction")
    if isinstance(prediction, list | dict):
        raise Rejected("wrong_type")
    if isinstance(prediction, int | float) and not isinstance(prediction, bool):
        prediction = _finite(prediction)
        if prediction is None:
            raise Rejected("not_finite")
    elif prediction is not None and schema.outcome.kind == "numerical":
        raise Rejected("wrong_type")
    model = loaded.get("model")
    if model is not None and not isinstance(model, str):
        raise Rejected("wrong_type")
    known = {*READ, *PASSED}
    faults["unknown_field"] += sum(name not in known for name in loaded)
    values = {
        "timestamp": time,
        "prediction": _coded(prediction, schema.outcome, codes),
        "confidence": _number(loaded, "confidence", faults),
        "probabilities": _probabilities(loaded, "probabilities", faults),
        "scores": _probabilities(loaded, "scores", faults),
        "label": _label(loaded, faults),
        "model": model,
        "model_version": version_of(loaded.get("model_version"), faults),
        **{name: _identity(loaded, name, faults) for name in (*IDENTITIES, "source")},
        **{name: _value(loaded, name, column, codes, faults, name) for name, column in own_columns(schema).items()},
    }
    features = loaded.get("features")
    if schema.layout == "object":
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        values["features"] = fields["features"](**_features(features, schema, codes, faults))
    elif schema.layout == "list":
        values["features"] = _listed(features, faults, "features")
    return kind(**values)


def _coded(value: Any, column: Column, codes: dict[str, type[Code]]) -> Any:
    """A category as the typed decoder would give it: the same category in another JSON type is the same."""
    if value is None or column.name not in codes:
        return value
    member_of: Any = codes[column.name]
    return member_of(name_of(value))


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(values: dict[str, Any], key: str, faults: Counter[str], name: str | None = None) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        faults[f"{name or key}_wrong_type"] += 1
        return None
    number = _finite(value)
    if number is None:
        faults[f"{name or key}_not_finite"] += 1
    return number


def _probabilities(loaded: dict[str, Any], key: str, faults: Counter[str]) -> list[float] | dict[str, float] | None:
    found = loaded.get(key)
    if found is None:
        return None
    members = found.values() if isinstance(found, dict) else found if isinstance(found, list) else [None]
    if any(isinstance(m, bool) or not isinstance(m, int | float) or _finite(m) is None for m in members):
        faults["probabilities_wrong_type"] += 1
        return None
    return {name: float(p) for name, p in found.items()} if isinstance(found, dict) else [float(p) for p in found]


def _identity(loaded: dict[str, Any], name: str, faults: Counter[str]) -> str | float | None:
    value = loaded.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _number(loaded, name, faults)


def _label(loaded: dict[str, Any], faults: Counter[str]) -> str | float | None:
    value = loaded.get("label")
    if isinstance(value, list | dict):
        faults["label_wrong_type"] += 1
        return None
    return _number(loaded, "label", faults) if _is_number(value) else value


def _text(values: dict[str, Any], key: str, faults: Counter[str], name: str) -> str | None:
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value
    faults[f"{name}_wrong_type"] += 1
    return None


def version_of(value: object, faults: Counter[str]) -> str | float | None:
    """A model version as it was given, or None where there is none that could be one."""
    if value is None or isinstance(value, str):
        return value
    number = _finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if number is None:
        faults["model_version_wrong_type"] += 1
    return number


def _features(found: object, schema: Schema, codes: dict[str, type[Code]], faults: Counter[str]) -> dict[str, Any]:
    if found is not None and not isinstance(found, dict):
        faults["features_wrong_type"] += 1
    values = found if isinstance(found, dict) else {}
    known = {feature_key(column) for _, column in object_features(schema)}
    faults["unknown_feature"] += sum(name not in known for name in values)
    return {
        f"f{number}": _value(values, feature_key(column), column, codes, faults, "feature")
        for number, column in object_features(schema)
    }


def _value(
    values: dict[str, Any], key: str, column: Column, codes: dict[str, type[Code]], faults: Counter[str], name: str
) -> object:
    """The value at `key` as its column wants it; what is wrong is counted as a fault of `name`."""
    value = values.get(key)
    match column.kind:
        case "numerical":
            return _number(values, key, faults, name)
        case "text":
            return _text(values, key, faults, name)
        case "embedding":
            return None if value is None else _listed(value, faults, name)
        case "opaque":
            return msgspec.UNSET if value is None else msgspec.Raw(b"[]")
    if isinstance(value, list | dict):
        faults[f"{name}_wrong_type"] += 1
        return None
    return _coded(_number(values, key, faults, name) if _is_number(value) else value, column, codes)


def _listed(found: object, faults: Counter[str], name: str) -> list[float | None]:
    if found is None:
        return []
    if not isinstance(found, list):
        faults[f"{name}_wrong_type"] += 1
        return []
    return [_number({name: value}, name, faults) for value in found]
