"""Learn a reference from trusted logs."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from poisonwatch.errors import BaselineError
from poisonwatch.formats.infer import infer
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.profile.baseline import cut_points, describe
from poisonwatch.profile.indicators import CONFIDENCE, ask, ask_lines, folded_code, unseen_code
from poisonwatch.reference.file import FORMAT, Origin, Reference, digest, load, measured
from poisonwatch.sources.log import blocks, open_log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from poisonwatch.formats.infer import Inference
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Column, Ints

FEWEST_RECORDS = 100
"""Fewer predictions than this say nothing that could be compared with."""

LONGEST_LINE = 1 << 20

BLOCKS = 1000
SHORTEST_BLOCK = 600.0
"""Time is cut into about this many blocks, none shorter than this many seconds, to measure the design effect."""

DAY = 86400.0


def build(paths: Sequence[Path], model: str | None = None, progress: Callable[[int], None] | None = None) -> Reference:
    """Learn a reference from trusted logs. `progress` is called with bytes read; every log is read twice.

    Raises:
        BaselineError: when the logs cannot be read or do not make a reference.
    """
    found = infer(
        (line for path in paths for block in blocks(path, LONGEST_LINE, progress) for line in _lines(block)), model
    )
    if found.records < FEWEST_RECORDS:
        msg = (
            f"the reference has only {found.records} usable predictions: at least {FEWEST_RECORDS} are needed, "
            "and some thousands make a sharp one"
        )
        raise BaselineError(msg)
    cuts = {name: cut_points(values, confidence=name == CONFIDENCE) for name, values in found.samples.items()}
    questions = ask(found.schema, cuts)
    counted = _count(paths, found, questions, progress)
    for row, column in enumerate(questions.code_columns):
        if column.kind == "categorical":
            codes = counted.total[questions.code_place(row)]
            _without_luck(codes, column, found.kept[column.name])
            _leave_one_out(codes, column, *found.singletons[column.name])
    lines = np.array([counted.total[0] + sum(counted.rejected.values()), sum(counted.rejected.values())], np.int64)
    timed = found.timed == found.records
    draft = Reference(
        format=FORMAT,
        origins=[_origin(path) for path in paths],
        records=int(counted.total[0]),
        rejected=counted.rejected,
        timed=timed,
        first=found.first if timed else None,
        last=found.last if timed else None,
        labels=found.labels,
        versions=found.versions,
        ignored_features=found.ignored_features,
        schema=found.schema,
        cuts=cuts,
        outcome=measured(describe(questions, counted.total, counted.blocks, counted.days)),
        lines=measured(describe(ask_lines(), lines, lines[None], lines[None])),
    )
    return msgspec.structs.replace(draft, sha256=digest(draft))


def load_or_build(path: Path, model: str | None = None, progress: Callable[[int], None] | None = None) -> Reference:
    """Read a built reference, or learn one from a log: whichever the file is.

    Raises:
        BaselineError: when it is neither.
    """
    with open_log(path) as file:
        start = file.read(64)
    built = b"".join(start.split()).startswith(b'{"format":')
    return load(path) if built else build([path], model, progress)


def _without_luck(counts: Ints, column: Column, kept: float) -> None:
    """Give the rare values back what the frequent ones have only because they were chosen for it, in place."""
    own = slice(1, 1 + len(column.values))
    lucky = counts[own] - np.rint(counts[own] * kept).astype(np.int64)
    counts[own] -= lucky
    counts[folded_code(column)] += lucky.sum()


def _leave_one_out(counts: Ints, column: Column, own: list[int], folded: list[int]) -> None:
    """Count values as if each had been met by a reference that was learned from all other records, in place.

    What was met once would be unseen then: it stands for what was not met yet (Good 1953), and not for what is known,
    whose list it made longer itself. `own` and `folded` are the values met once among those with and without a code of
    their own. A record that the decoder rejected was not counted and cannot be taken away.
    """
    for place in own:
        met = min(1, int(counts[1 + place]))
        counts[1 + place] -= met
        counts[unseen_code(column)] += met
    met = min(len(folded), int(counts[folded_code(column)]))
    counts[folded_code(column)] -= met
    counts[unseen_code(column)] += met


class _Counted:
    def __init__(self, questions: Questions, blocks: int, days: int) -> None:
        self.total = np.zeros(questions.size, np.int64)
        self.blocks = np.zeros((blocks, questions.size), np.int64)
        self.days = np.zeros((days, questions.size), np.int64)
        self.rejected: dict[str, int] = {}


def _count(
    paths: Sequence[Path], found: Inference, questions: Questions, progress: Callable[[int], None] | None
) -> _Counted:
    """Profiles of the whole reference, of its blocks and of its days."""
    timed = found.timed == found.records
    span = found.last - found.first if timed else 0.0
    width = max(SHORTEST_BLOCK, span / BLOCKS)
    counted = _Counted(questions, math.floor(span / width) + 1, math.floor(span / DAY) + 1)
    reader = JsonlPredictions({found.schema.model or "": found.schema}, LONGEST_LINE, timed=False)
    for path in paths:
        for block in blocks(path, LONGEST_LINE, progress):
            decoded = reader.decode(block)
            for reason, lines in decoded.rejected.items():
                if reason == "other_model":
                    continue  # a shared log: the other model's records are no defect of this one's
                counted.rejected[reason] = counted.rejected.get(reason, 0) + lines
            for batch in decoded.batches:
                since = batch.time - found.first if timed else np.zeros(batch.time.size)
                which = np.clip((since / width).astype(np.int64), 0, counted.blocks.shape[0] - 1)
                for number in np.unique(which).tolist():
                    of = np.flatnonzero(which == number)
                    profile = questions.count(batch.numbers[:, of], batch.codes[:, of], batch.marks[:, of])
                    counted.total += profile
                    counted.blocks[number] += profile
                    counted.days[min(int(number * width / DAY), counted.days.shape[0] - 1)] += profile
    return counted


def _lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line.strip()]


def _origin(path: Path) -> Origin:
    with path.open("rb") as file:
        return Origin(name=path.name, bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
