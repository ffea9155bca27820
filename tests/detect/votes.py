"""Streams of labels for the tests of the sources."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.detect.sources import Sources, Votes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Bools, Ints

CONFUSION = np.array([[544, 19], [36, 401]])
"""A reference in which 5.5 % of the labels disagree: two classes, errors of model and reviewers."""


def votes(
    time: NDArray[Any],
    source: list[str],
    item: Ints,
    predicted: Ints,
    label: Ints,
    attributes: list[tuple[str, ...]] | None = None,
) -> Votes:
    """Labels of the predictions numbered `item`."""
    shared = np.empty(len(source), object)
    shared[:] = attributes or [()] * len(source)
    return Votes(
        time=np.asarray(time, np.float64),
        source=np.array(source, object),
        attributes=shared,
        prediction_id=np.array([f"p{n}" for n in item], object),
        item=(item.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15),
        predicted=predicted.astype(np.int64),
        label=label.astype(np.int64),
    )


def part(stream: Votes, start: int, end: int) -> Votes:
    """Some labels of a stream."""
    return Votes(**{field.name: getattr(stream, field.name)[start:end] for field in fields(Votes)})


def play(sources: Sources, stream: Votes, size: int = 500) -> Bools:
    """All labels of a stream, a piece at a time; which of them count."""
    pieces = [sources.step(part(stream, at, at + size)) for at in range(0, stream.time.size, size)]
    return np.concatenate(pieces)


def same(left: Any, right: Any) -> bool:
    """Are two states equal to the last bit?"""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
    return bool(left == right)
