"""Changes that keep what JSON, headers and compression are, so that they reach what lies behind the parsers."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import TYPE_CHECKING, Any

import zstandard

from tests.fuzz.targets import as_bytes, as_events

if TYPE_CHECKING:
    import random

    from poisonwatch.formats.events import Event

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, -(2**64), 10**400, 0.5, 1e308, math.nan, math.inf, -math.inf),
    *("", "x", "\ud800", "\0", "\u202e", "x" * 300, "NaN", "1", "2026-01-05T08:00:00", "2026-01-05T08:00:00Z", "/etc"),
    *([], {}, [[]], [None], {"": None}, [[[[]]]], [{}], {"data": []}, [1, "a", None], "e30=", "[]", "{}", "\n"),
)
"""Values that code is seldom written for."""

NAMES = (
    *(
        "id",
        "data",
        "inputs",
        "outputs",
        "instances",
        "predictions",
        "shape",
        "datatype",
        "parameters",
        "name",
        "error",
    ),
    *(
        "ce-id",
        "ce-type",
        "ce-time",
        "ce-specversion",
        "ce-statuscode",
        "ce-annotations",
        "ce-requestid",
        "ce-endpoint",
    ),
    *("content-type", "content-encoding", "meta", "names", "ndarray", "tensor", "values", "binary_data_size", "status"),
    *("inference-header-content-length", "data_base64", "specversion", "type", "reqType", "bytes", "model", "label"),
    *("features", "prediction", "timestamp", "prediction_id", "probabilities", "confidence", "text", "model_version"),
)
TYPES = (
    *("application/json", "application/cloudevents+json", "application/cloudevents-batch+json", "text/csv"),
    *("application/octet-stream", "application/x-ndjson", "", "a/b; charset=utf-16"),
)


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one place in it changed."""
    if rng.random() < 0.8:
        if isinstance(value, dict) and value:
            return _changed_object(value, rng)
        if isinstance(value, list) and value:
            return _changed_list(value, rng)
        if isinstance(value, str) and value[:1] in {"{", "["}:
            # JSON within JSON.
            try:
                return json.dumps(changed(json.loads(value), rng))
            except (ValueError, RecursionError):
                pass
    return rng.choice([[value], json.dumps(value), {rng.choice(NAMES): value}, *[rng.choice(ODD)] * 2])


def _changed_object(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    key = rng.choice(list(value))
    match rng.randrange(6):
        case 0:
            return {name: kept for name, kept in value.items() if name != key}
        case 1:
            return {**value, rng.choice(NAMES): rng.choice(ODD)}
        case 2:
            return {(rng.choice(NAMES) if name == key else name): kept for name, kept in value.items()}
    return {**value, key: changed(value[key], rng)}


def _changed_list(value: list[Any], rng: random.Random) -> list[Any]:
    place = rng.randrange(len(value))
    match rng.randrange(6):
        case 0:
            return value[:place] + value[place + 1 :]
        case 1:
            return [*value, *value[: 1 + place]]
        case 2:
            return [*value[:place], rng.choice(ODD), *value[place:]]
    return [*value[:place], changed(value[place], rng), *value[place + 1 :]]


def changed_event(event: Event, rng: random.Random) -> Event:
    """An event with its body or one of its headers changed."""
    headers = dict(event.headers)
    match rng.randrange(8):
        case 0 if headers:
            del headers[rng.choice(list(headers))]
        case 1:
            headers[rng.choice(NAMES)] = rng.choice(["", "1", "\xff", "%00%ff", "x" * 100, '{"a":[1]}', "-1", *TYPES])
        case 2:
            headers["content-type"] = rng.choice(TYPES)
        case 3:
            packed = (gzip.compress(event.body), zstandard.compress(event.body), base64.b64encode(event.body))
            return event._replace(body=rng.choice(packed))
        case _:
            return event._replace(body=_changed_body(event.body, rng))
    return event._replace(headers=headers)


def _changed_body(body: bytes, rng: random.Random) -> bytes:
    lines = body.split(b"\n")
    place = rng.randrange(len(lines))
    try:
        value = changed(json.loads(lines[place]), rng)
        lines[place] = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        cut = rng.randrange(len(body) + 1)
        return body[:cut] + rng.choice([b"", b"\n", b"}", b"\0", b"[" * 50, b'"']) + body[cut + rng.randrange(3) :]
    return b"\n".join(lines)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """An input of the targets that read events, with some of its events changed, repeated, left out or put elsewhere."""
    found = as_events(data)
    for _ in range(1 + rng.randrange(3)):
        place = rng.randrange(len(found))
        match rng.randrange(8):
            case 0:
                found.append(found[place])
            case 1 if len(found) > 1:
                del found[place]
            case 2:
                rng.shuffle(found)
            case _:
                found[place] = changed_event(found[place], rng)
    return as_bytes(found)
