"""What rotation calls the files that it makes of a log, and which of them is older."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

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


def oldest_first(log: str, entries: Iterable[Entry]) -> list[Entry]:
    """Files of a log in the order in which they were written.

    What is compressed is older than what is not: compressing may have set its time anew. Then the times of the last writes
    count. Files of the same instant go by their names: dates as they come, and numbers the way that the times of the others
    run, or as logrotate counts, `.2` before `.1`.
    """
    found = [(*_named(log, entry.path.name), entry) for entry in entries]
    numbered = sorted((entry.written, number) for _, number, _, entry in found if number)
    rises = sum((b > a) - (b < a) for (at, a), (later, b) in pairwise(numbered) if at < later)
    sign = 1 if rises > 0 else -1
    found.sort(key=lambda one: (one[0], one[3].written, sign * one[1], one[2]))
    return [entry for *_, entry in found]


def _named(log: str, name: str) -> tuple[bool, int, str]:
    """Is it plain, the number that counts rotations, 0 where there is none, and the name without compression."""
    plain = _COMPRESSED.sub("", name)
    numbers = _DIGITS.findall(plain.removeprefix(log))
    counted = len(numbers) == 1 and len(numbers[0]) <= _FEW
    return plain == name, int(numbers[0]) if counted else 0, plain
