"""JSON values out of bytes that anybody may have sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.formats.jsonl import DECODE_ERRORS
from poisonwatch.formats.lenient import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.formats.foreign import Draft

_decode = msgspec.json.Decoder().decode


def load(body: bytes | str) -> Any:
    """The JSON value that a body is; NaN, infinities and halves of surrogate pairs are read as Python's own reader does.

    Raises:
        Rejected: `malformed`, `invalid_utf8` or `too_deep`.
    """
    try:
        return _decode(body)
    except DECODE_ERRORS:
        pass
    try:
        text = body.decode() if isinstance(body, bytes) else body
        loaded = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            # Half a surrogate pair, which only an escape can bring, cannot be written to any file.
            loaded = json.loads(json.dumps(loaded, ensure_ascii=False).encode("utf-8", "replace"))
    except UnicodeDecodeError:
        raise Rejected("invalid_utf8") from None
    except RecursionError:
        raise Rejected("too_deep") from None
    except ValueError:
        raise Rejected("malformed") from None
    return loaded


def objects(body: bytes, draft: Draft) -> Iterator[dict[str, Any]]:
    """The JSON objects of a body: one, a list of them, or one a line; what is none is counted."""
    try:
        loaded = load(body)
    except Rejected as rejected:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2:
            draft.reject(rejected.args[0], body)
            return
        for line in lines:
            yield from _object(line, draft)
        return
    for value in loaded if isinstance(loaded, list) else (loaded,):
        if isinstance(value, dict):
            yield value
        else:
            draft.reject("not_an_object", body)


def _object(line: bytes, draft: Draft) -> Iterator[dict[str, Any]]:
    try:
        loaded = load(line)
    except Rejected as rejected:
        draft.reject(rejected.args[0], line)
        return
    if isinstance(loaded, dict):
        yield loaded
    else:
        draft.reject("not_an_object", line)
