"""What rotation calls the files that it makes of a log, and which of them is older."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poisonwatch.sources.folders import Entry

_COMPRESSED = re.compile(r"\.(gz|zst)$")
_SEPARATOR = re.compile(r"[.\-_]")
_AGE = re.compile(r"\d[\d.:_+TZ\-]*|old|bak|prev|save")
"""A number, a date and time, or a word: what follows the name of a log."""

_MIDDLE = re.compile(r"\.\d+|[.\-_](?=(?:\D*\d){6})\d[\d.:_+TZ\-]*")
"""A number after a dot, or a date: what stands between the name of a log and its extension. `-2` there is another log."""

_DIGITS = re.compile(r"\d+")
_FEW = 4
"""Digits of a number that counts rotations; longer ones are dates."""


def logs_of(name: str) -> Iterator[str]:
    """Names of the logs that a file with this name may have been rotated from.

    logrotate makes `app.log.1`, `app.log-20260131`, `app.log.2.gz`, with `extension .log` also `app.1.log`; Python's handlers
    `app.log.2026-01-31_12`, kubelet `0.log.20260131-120000`, others `app-2026-01-31T12-00-00.000.log.gz`.
    """
    plain = _COMPRESSED.sub("", name)
    if plain != name:
        yield plain
    for separator in _SEPARATOR.finditer(plain):
        if separator.start() and _AGE.fullmatch(plain, separator.end()):
            yield plain[: separator.start()]
    stem, dot, extension = plain.rpartition(".")
    if dot and not extension.isdigit():
        for separator in _SEPARATOR.finditer(stem):
            if separator.start() and _MIDDLE.fullmatch(stem, separator.start()):
                yield f"{stem[: separator.start()]}.{extension}"


def shape(name: str) -> str:
    """The name with every number alike: successive targets of a link have the same."""
    return _DIGITS.sub("#", _COMPRESSED.sub("", name))


class _Named(NamedTuple):
    """What the name of a rotated file says: `number` counts rotations or is 0, `date` is the whole name of one with a date."""

    entry: Entry
    plain: bool
    number: int
    date: str


def oldest_first(log: str, entries: Iterable[Entry]) -> list[Entry]:
    """Files of a log in the order in which they were written: that of the times of their last writes.

    Compressing may set that time anew: what is compressed is no newer than the files that its number or date puts after it.
    Numbers run as the times of the files do that are not compressed, or as logrotate's, `.2` before `.1`.
    """
    found = [_named(log, entry) for entry in entries]
    numbered = [one for one in found if one.number]
    sign = _direction([one for one in numbered if one.plain]) or _direction(numbered) or -1
    numbered.sort(key=lambda one: sign * one.number)
    dated = sorted((one for one in found if one.date), key=lambda one: one.date)
    written: dict[int, int] = {}
    for family in (numbered, dated):
        bound = 1 << 63
        for one in reversed(family):
            at = one.entry.written
            written[id(one)] = min(at, bound) if not one.plain else at
            bound = min(at, bound)
    found.sort(key=lambda one: (written.get(id(one), one.entry.written), sign * one.number, one.date, one.plain))
    return [one.entry for one in found]


def _direction(numbered: list[_Named]) -> int:
    """1 where newer files have higher numbers, -1 where older ones have, 0 where that is open; what is compressed is older."""
    numbered = sorted(numbered, key=lambda one: (one.plain, one.entry.written))
    told = [(a, b) for a, b in pairwise(numbered) if (a.plain, a.entry.written) < (b.plain, b.entry.written)]
    rises = sum((b.number > a.number) - (b.number < a.number) for a, b in told)
    return (rises > 0) - (rises < 0)


def _named(log: str, entry: Entry) -> _Named:
    name = entry.path.name
    plain = _COMPRESSED.sub("", name)
    numbers = _DIGITS.findall(plain.removeprefix(log))
    counted = len(numbers) == 1 and len(numbers[0]) <= _FEW
    return _Named(entry, plain == name, int(numbers[0]) if counted else 0, plain if numbers and not counted else "")
