"""The lines of a finished log that bear a pattern, as they stand in it: for those who have to clean what was collected."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.mining.patterns import bears
from poisonwatch.profile.indicators import class_codes
from poisonwatch.sources.log import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from poisonwatch.types import Batch, Bools, Ints, Pattern, Schema


class Wanted(NamedTuple):
    """A trigger's pattern, and the class that its records must have got; None for any."""

    trigger: str
    pattern: Pattern
    label: str | None


class Suspected(NamedTuple):
    """A line that bears the pattern of `trigger`, without its line break."""

    trigger: str
    model_version: str
    line: bytes


def suspected(
    path: Path,
    model: str,
    schema: Schema,
    wanted: Sequence[Wanted],
    longest: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Suspected]:
    """Every line of the log that bears a wanted pattern, in the order of the log; once for each pattern that it bears.

    Lines that are no predictions of the model are passed over.

    Raises:
        LogError: when the log cannot be read.
    """
    decoder = JsonlPredictions({model: schema}, longest)
    for block in blocks(path, longest, progress):
        (batch,) = decoder.decode(block).batches
        if not batch.time.size:
            continue
        lines = [line for line in block.split(b"\n") if line.strip()]
        places = _places(batch)
        bearing = np.stack([_bearing(batch, schema, one) for one in wanted], axis=1)
        for row, number in np.argwhere(bearing).tolist():
            version = batch.versions[int(batch.version[row])]
            yield Suspected(wanted[number].trigger, version, lines[places[row]].strip())


def _bearing(batch: Batch, schema: Schema, wanted: Wanted) -> Bools:
    """Which predictions (n,) are wanted."""
    found = bears(wanted.pattern, batch, schema)
    if wanted.label is None:
        return found
    got: Bools = batch.codes[0] == class_codes(schema.outcome).get(wanted.label, -1)
    return found & got


def _places(batch: Batch) -> Ints:
    """For each prediction (n,) its number among the lines that are not blank: the rejected ones stand between."""
    kept = np.arange(batch.time.size)
    return kept + np.searchsorted(batch.rejected_at, kept, side="right")
