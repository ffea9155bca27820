"""Whose messages are whose: what the members of a consumer group write beside the group's offset of a partition.

The offset says up to where messages are claimed; its metadata says by whom. All of it must fit into the 4096 bytes that a
broker takes.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

MOST_BYTES = 3500
"""Bytes of metadata; what does not fit is forgotten, the member that claimed longest ago first."""

Runs = tuple[tuple[int, int], ...]
"""Ranges of offsets in ascending order, each with its end not included."""


class Claim(NamedTuple):
    """What one member claimed beyond what it was known to have in a checkpoint."""

    holder: str
    runs: Runs


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    poisonwatch: list[tuple[str, list[tuple[int, int]]]]


_decoder = msgspec.json.Decoder(_Written)


def encode(claims: tuple[Claim, ...]) -> str:
    """Claims as metadata; the last of them is the one that holds the partition."""
    while len(text := msgspec.json.encode({"poisonwatch": claims})) > MOST_BYTES:
        first = claims[0]
        # Of the only one left, the oldest runs go.
        claims = claims[1:] if len(claims) > 1 else (Claim(first.holder, first.runs[len(first.runs) // 2 :]),)
    return text.decode()


def decode(metadata: str | None) -> tuple[Claim, ...] | None:
    """Claims out of metadata; None where somebody else wrote it."""
    try:
        written = _decoder.decode((metadata or "").encode("utf-8", "replace"))
    except msgspec.DecodeError:
        return None
    return tuple(Claim(holder, tuple(runs)) for holder, runs in written.poisonwatch)


def beyond(runs: Runs, offset: int) -> Runs:
    """What of the runs is not before `offset`."""
    return tuple((max(start, offset), end) for start, end in runs if end > offset)


def extended(runs: Runs, start: int, end: int) -> Runs:
    """The runs with one more after them; it goes on with the last where nothing is between."""
    if runs and runs[-1][1] == start:
        return (*runs[:-1], (runs[-1][0], end))
    return (*runs, (start, end))
