"""The JSON objects of an event, however many it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poisonwatch.formats.lenient import Rejected, load_json
from poisonwatch.formats.opening import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft


def objects(event: Event, most_bytes: int, draft: Draft) -> Iterator[dict[str, Any]]:
    """The JSON objects of a body, which is one, a list of them, or one a line; what is none is counted.

    Raises:
        Rejected: when the body cannot be opened, or has more than `most_bytes`.
    """
    body = opened(event, most_bytes)
    try:
        loaded = load_json(body)
    except Rejected:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2:
            raise
    else:
        yield from _members(loaded, body, draft)
        return
    for line in lines:
        try:
            loaded = load_json(line)
        except Rejected as rejected:
            draft.reject(rejected.args[0], line)
        else:
            yield from _members(loaded, line, draft)


def _members(loaded: Any, sample: bytes, draft: Draft) -> Iterator[dict[str, Any]]:
    if loaded == []:
        draft.reject("empty_list", sample)
    for value in loaded if isinstance(loaded, list) else (loaded,):
        if isinstance(value, dict):
            yield value
        else:
            draft.reject("not_an_object", sample)
