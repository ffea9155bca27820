"""Bodies without their compression, never larger than they may be."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import zstandard

from poisonwatch.formats.lenient import Rejected

if TYPE_CHECKING:
    from poisonwatch.formats.events import Event

GZIP = b"\x1f\x8b\x08"
ZSTD = b"\x28\xb5\x2f\xfd"

MOST_LAYERS = 2
"""How often a body may be compressed: a client may do it, and what stands before the server may do it again."""

MOST_MEMBERS = 64
"""Compressed streams that one body may have after one another."""

WINDOW = 1 << 23
"""Bytes that a zstd stream may look back: what RFC 8878 asks of every reader."""

BITE = 256
"""Compressed bytes that zstd is given at once: what they grow to, 128 KB per 4 bytes at worst, is held before it is counted."""


def opened(event: Event, most_bytes: int) -> bytes:
    """The event's body, decompressed where it is gzip or zstd.

    What it is tells its first bytes, not Content-Encoding: that header may have been stripped, or have outlived the
    compression, and no JSON begins like this.

    Raises:
        Rejected: "body_too_large" when it has more than `most_bytes`, "bad_compression" when it is broken.
    """
    body = event.body
    if len(body) > most_bytes:
        raise Rejected("body_too_large")
    for _ in range(MOST_LAYERS):
        if body.startswith(GZIP):
            body = _gunzipped(body, most_bytes)
        elif body.startswith(ZSTD):
            body = _unzstd(body, most_bytes)
        else:
            return body
    if body.startswith((GZIP, ZSTD)):
        raise Rejected("bad_compression")
    return body


def _gunzipped(data: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    left = most
    for _ in range(MOST_MEMBERS):
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(data, left + 1)
        except zlib.error:
            raise Rejected("bad_compression") from None
        if len(part) > left:
            raise Rejected("body_too_large")
        if not stream.eof:
            raise Rejected("bad_compression")
        parts.append(part)
        left -= len(part)
        data = stream.unused_data.lstrip(b"\0")
        if not data:
            return b"".join(parts)
    raise Rejected("bad_compression")


def _unzstd(data: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    left = most
    start = 0
    for _ in range(MOST_MEMBERS):
        stream = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        while not stream.eof:
            bite = data[start : start + BITE]
            if not bite:
                raise Rejected("bad_compression")
            try:
                part = stream.decompress(bite)
            except zstandard.ZstdError:
                raise Rejected("bad_compression") from None
            start += len(bite) - len(stream.unused_data)
            left -= len(part)
            if left < 0:
                raise Rejected("body_too_large")
            parts.append(part)
        if start >= len(data):
            return b"".join(parts)
    raise Rejected("bad_compression")
