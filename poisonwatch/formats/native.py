"""Native records as they are posted: NDJSON, one JSON object, a list of them, or CloudEvents that carry any of these.

What a body is tells the body: clients send NDJSON as application/json, and lists as nothing at all. Only where
Content-Type names JSON lines is it believed. One odd record never costs the others of its body.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.formats.cloudevents import cloud_events, event_time
from poisonwatch.formats.events import events
from poisonwatch.formats.lenient import Rejected, shallow
from poisonwatch.formats.opening import opened
from poisonwatch.formats.records import IDENTITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.formats.events import Block, Event
    from poisonwatch.formats.foreign import Draft

JSON_LINES = frozenset(
    [
        *("application/x-ndjson", "application/ndjson", "application/x-ldjson", "application/jsonl"),
        *("application/jsonlines", "application/x-jsonlines", "application/json-lines", "text/jsonl"),
    ]
)
"""Content types of one record a line."""

_list = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[][{},]', re.DOTALL)
"""What tells where a member of a list ends."""

_BLANK = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def opened_lines(block: Block, most_bytes: int, draft: Draft) -> bytes:
    """The records of a block, one a line; bodies that hold none are counted in the draft.

    A body may have `most_bytes`, compressed or not. What a line says is looked at where lines are decoded.
    """
    if not block.framed:
        return block.data
    lines: list[bytes] = []
    for event in events(block):
        try:
            lines += _records(event, most_bytes, draft)
        except Rejected as rejected:
            draft.reject(rejected.args[0], event.body)
    return b"".join(lines)


def _records(event: Event, most_bytes: int, draft: Draft) -> Iterator[bytes]:
    body = opened(event, most_bytes)
    carried = cloud_events(event.headers, body, draft)
    if carried is None:
        yield from _lines(body, event.headers.get("content-type", ""), draft)
        return
    for cloud in carried:
        lines = b"".join(_lines(cloud.data, cloud.attributes.get("datacontenttype", ""), draft)).split(b"\n")
        records = [line for line in lines if line.strip(_BLANK)]
        when = event_time(cloud.attributes["time"], event.at, draft) if "time" in cloud.attributes else math.nan
        own_id = cloud.attributes.get("id") if len(records) == 1 else None
        yield from (_completed(record, when, own_id) for record in records)


def _lines(body: bytes, content_type: str, draft: Draft) -> Iterator[bytes]:
    """The records of a body, each ended by a newline."""
    body = body.removeprefix(_BYTE_ORDER_MARK).strip(_BLANK)
    if not body:
        raise Rejected("empty_body")
    if content_type.partition(";")[0].strip().lower() in JSON_LINES:
        yield body + b"\n"
    elif body.startswith(b"["):
        members = _members(body)
        draft.faults["empty_list"] += not members
        yield from map(_line, members)
    elif b"\n" not in body or not _spans_lines(body):
        yield body + b"\n"
    else:
        yield _line(body)


def _line(value: bytes) -> bytes:
    """A JSON value on one line: line breaks cannot stand within its strings."""
    return value.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def _spans_lines(body: bytes) -> bool:
    """Is a body of several lines one value?

    When it is none at all, only an object that begins with the body, and whose other lines do not all begin one, could have been
    meant; a line that could be a record says that lines were. Else many losses would count as one.
    """
    try:
        _object.decode(body)
    except _DECODE_ERRORS:
        lines = [line for line in (line.strip(_BLANK) for line in body.split(b"\n")) if line]
        opens = [line.startswith(b"{") for line in lines]
        whole = any(o and line.endswith(b"}") for o, line in zip(opens, lines, strict=True))
        return opens[0] and not all(opens) and not whole
    return True


def _members(body: bytes) -> list[bytes]:
    """The members of a list, also where one of them is nothing that the decoder takes: it is then refused alone."""
    try:
        return [bytes(member) for member in _list.decode(body)]
    except _DECODE_ERRORS:
        pass
    members: list[bytes] = []
    depth, start, in_list = 0, 0, False
    for token in _TOKEN.finditer(body):
        kind = token[0]
        if kind in {b"[", b"{"}:
            in_list = in_list if depth else kind == b"["
            depth += 1
            cut = depth == 1 and in_list
        elif kind in {b"]", b"}"}:
            depth = max(0, depth - 1)
            cut = not depth
        else:
            cut = kind == b"," and depth == 1 and in_list
        if cut:
            # The brackets and commas of a list are none of its members; the last bracket of an object is.
            member = body[start : token.start() if in_list else token.end()]
            members += [member] if member.strip(_BLANK) else []
            start = token.end()
    rest = body[start:]
    return [*members, rest] if rest.strip(_BLANK) else members


def _completed(line: bytes, when: float, own_id: str | None) -> bytes:
    """A record with the id and the time of the CloudEvent that carried it, where it has none of its own.

    Records that came together have no `own_id`: all but one would count as said twice.
    """
    try:
        try:
            record = _object.decode(line)
        except RecursionError:
            record = _object.decode(shallow(line))
    except _DECODE_ERRORS:
        return line + b"\n"
    said = {name for name, value in record.items() if bytes(value) != b"null"}
    if "timestamp" not in said and math.isfinite(when):
        record["timestamp"] = msgspec.Raw(msgspec.json.encode(when))
    if own_id and said.isdisjoint(IDENTITIES):
        record["prediction_id"] = msgspec.Raw(msgspec.json.encode(own_id))
    return msgspec.json.encode(record) + b"\n"
