"""The golden set: inputs of native records whose label a person has verified."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec

from poisonwatch.errors import GoldenError
from poisonwatch.formats.records import name_of
from poisonwatch.types import GoldenInput, Question

if TYPE_CHECKING:
    from pathlib import Path

FEWEST, MOST = 20, 2000
"""Records that a golden set must and may have."""

FEWEST_OF_CLASS = 30
"""With fewer inputs of a class its accuracy says little, and a trigger can hardly be put into enough of them that were answered rightly."""

LARGEST = 1 << 28
"""Bytes of a golden set, unpacked."""


class GoldenSet(NamedTuple):
    """Verified inputs in the order of the file, and the SHA-256 of its content, unpacked.

    `thin` has the classes with few inputs, and how many they have.
    """

    inputs: tuple[GoldenInput, ...]
    sha256: str
    thin: dict[str, int]


class _Record(msgspec.Struct):
    """What is read of a native record."""

    label: str | int | float | bool | None = None
    text: str | None = None
    features: dict[str, float | str | bool | None] | list[float | None] | None = None
    embedding: list[float] | None = None


def read(path: Path, classes: tuple[str, ...]) -> GoldenSet:
    """Read a golden set of a model with these classes.

    Raises:
        GoldenError: with the file, the line and the remedy.
    """
    content = _content(path)
    decoder = msgspec.json.Decoder(_Record)
    inputs: list[GoldenInput] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        if len(inputs) == MOST:
            _refuse(path, number, f"more than {MOST:,} records: take a sample of them, as many of each class")
        inputs.append(_input(path, number, line, decoder, classes))
    if len(inputs) < FEWEST:
        _refuse(
            path, None, f"{len(inputs)} records, at least {FEWEST} are needed, {FEWEST_OF_CLASS} or more of each class"
        )
    kinds = {_kind(one.question) for one in inputs}
    if len(kinds) > 1:
        _refuse(
            path, None, "its records do not all have the same inputs: give each the same of text, features, embedding"
        )
    counts = Counter(one.label for one in inputs)
    thin = {name: counts[name] for name in classes if counts[name] < FEWEST_OF_CLASS}
    return GoldenSet(tuple(inputs), hashlib.sha256(content).hexdigest(), thin)


def _content(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytes(file.read(LARGEST + 1))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        _refuse(path, None, f"it cannot be read ({reason})")
    if len(content) > LARGEST:
        _refuse(path, None, f"it has more than {LARGEST:,} bytes: {MOST:,} records are enough")
    return content


def _input(
    path: Path, number: int, line: bytes, decoder: msgspec.json.Decoder[_Record], classes: tuple[str, ...]
) -> GoldenInput:
    try:
        record = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(path, number, f"this is no native record ({error})")
    if record.label is None:
        _refuse(path, number, "it has no `label`: add the verified one, or leave the record out")
    label = name_of(record.label)
    if label not in classes:
        _refuse(path, number, f"the label {label!r} is no class of the reference, which has {', '.join(classes)}")
    question = Question(record.text, record.features, record.embedding)
    if question == Question(None, None, None):
        _refuse(path, number, "it has no input: give `text`, `features` or `embedding`")
    return GoldenInput(question, label)


def _kind(question: Question) -> tuple[Any, ...]:
    """Which inputs a record has, and of what shape."""
    features = question.features
    shape = len(features) if isinstance(features, list) else type(features).__name__
    return question.text is None, shape, None if question.embedding is None else len(question.embedding)


def _refuse(path: Path, line: int | None, problem: str) -> NoReturn:
    place = f"{path}, line {line}" if line else str(path)
    msg = f"{place}: {problem}"
    raise GoldenError(msg)
