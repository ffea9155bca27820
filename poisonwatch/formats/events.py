"""What sources give and formats read: blocks of bytes, and the single events in them.

A block is complete lines, or frames. A frame carries one event with its headers, as it came over HTTP or from a broker,
whatever bytes its body has; on disk it is known by its mark and checked by its CRC.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MARK = b"\xf5pw\n"
_HEAD = struct.Struct("<4sIIId")
"""Mark, CRC-32 of all that follows it, bytes of the headers, bytes of the body, time of receipt."""

FRAME_OVERHEAD = _HEAD.size

_headers = msgspec.json.Decoder(dict[str, str])


class Event(NamedTuple):
    """One line, one POST or one message.

    `headers` have lower-case names; a line has none. `at` is when it was received (Unix seconds), NaN where nobody noted it.
    `origin` is where it came from: the path of a file, the path of a POST, or a topic.
    """

    body: bytes
    headers: Mapping[str, str] = {}
    at: float = math.nan
    origin: str = ""


class Block(NamedTuple):
    """Complete lines, or complete frames, of one origin."""

    data: bytes
    framed: bool = False
    origin: str = ""


class Frame(NamedTuple):
    """An event found in bytes, and the place after it."""

    event: Event
    end: int


def frame(event: Event) -> bytes:
    """The event as bytes; its origin travels among the headers."""
    headers = msgspec.json.encode({**event.headers, ":origin": event.origin} if event.origin else dict(event.headers))
    rest = struct.pack("<IId", len(headers), len(event.body), event.at) + headers + event.body
    return MARK + struct.pack("<I", zlib.crc32(rest)) + rest


def frame_at(data: bytes, start: int) -> Frame | None:
    """The frame that begins at `start`; None where there is no whole one, or its CRC does not hold."""
    if len(data) - start < _HEAD.size:
        return None
    mark, crc, headers, body, at = _HEAD.unpack_from(data, start)
    end = start + _HEAD.size + headers + body
    if mark != MARK or end > len(data) or zlib.crc32(memoryview(data)[start + 8 : end]) != crc:
        return None
    middle = start + _HEAD.size + headers
    found = _headers.decode(data[start + _HEAD.size : middle])
    origin = found.pop(":origin", "")
    return Frame(Event(data[middle:end], found, at, origin), end)


def events(block: Block) -> Iterator[Event]:
    """The events of a block in their order; blank lines are none."""
    if not block.framed:
        for line in block.data.split(b"\n"):
            if line.strip():
                yield Event(line, origin=block.origin)
        return
    start = 0
    while (found := frame_at(block.data, start)) is not None:
        yield found.event
        start = found.end
