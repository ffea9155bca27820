"""Learn a reference from trusted logs."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from poisonwatch.errors import BaselineError
from poisonwatch.formats.infer import infer
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.mining.learned import Mining
from poisonwatch.profile.baseline import cut_points, describe, describe_errors, describe_history
from poisonwatch.profile.indicators import (
    CONFIDENCE,
    FLIPPED,
    ask,
    ask_errors,
    ask_lines,
    class_codes,
    folded_code,
    sliced_rows,
    unseen_code,
)
from poisonwatch.profile.season import Tally
from poisonwatch.profile.volume import describe_volume
from poisonwatch.reference.audit import signed
from poisonwatch.reference.file import FORMAT, Origin, Reference, digest, load, measured, measured_volume
from poisonwatch.reference.fit import fit
from poisonwatch.reference.logs import native
from poisonwatch.sources.log import open_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from poisonwatch.formats.infer import Inference
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.reference.audit import Signature
    from poisonwatch.reference.fit import Fitted
    from poisonwatch.reference.logs import Read
    from poisonwatch.types import Batch, Column, Ints

FEWEST_RECORDS = 100
"""Fewer predictions than this say nothing that could be compared with."""

MOST_REJECTED = 0.5
"""Share of the lines that may be rejected: a log may have other lines beside predictions, but not mostly."""

LONGEST_LINE = 1 << 20


def build(
    paths: Sequence[Path],
    model: str | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    unproven: bool = False,
    signature: Signature | None = None,
    read: Read = native,
) -> Reference:
    """Learn a reference from trusted logs, or from live ones that nobody has looked at (`unproven`).

    `progress` is called with bytes read; every log is read three times, by `read`. `signature` accepts what the audit suspects.

    Raises:
        BaselineError: when the logs cannot be read or do not make a reference, or when it is suspect and nobody signs.
    """
    found = infer((line for block, _ in read(paths, LONGEST_LINE, progress) for line in _lines(block)), model)
    if found.records < FEWEST_RECORDS:
        msg = (
            f"the reference has only {found.records} usable predictions: at least {FEWEST_RECORDS} are needed, "
            "and some thousands make a sharp one"
        )
        raise BaselineError(msg)
    fitted = fit(found, (batch for batch, _ in _batches(read(paths, LONGEST_LINE, progress), found)))
    audit = signed(fitted.audit, signature)
    values = found.samples | dict(zip(fitted.enrichment.derived, fitted.rows, strict=True))
    cuts = {name: cut_points(known, confidence=name == CONFIDENCE) for name, known in values.items()}
    questions = ask(found.schema, cuts, fitted.enrichment.derived, fitted.enrichment.asked)
    counted = _Counted(questions, fitted.enrichment.asked, found)
    for batch, rejected in _batches(read(paths, LONGEST_LINE, progress), found):
        counted.add(fitted.apply(batch, counted.seen), rejected)
    _check_lines(counted)
    draft = _conclude(paths, found, fitted, cuts, counted)
    draft = msgspec.structs.replace(draft, unproven=unproven, audit=audit)
    return msgspec.structs.replace(draft, sha256=digest(draft))


def _check_lines(counted: _Counted) -> None:
    """Refuse a reference of a log whose lines could mostly not be used: what is left of it is not what its model does.

    Raises:
        BaselineError: with the most frequent reason.
    """
    lost = sum(counted.rejected.values())
    if counted.seen >= FEWEST_RECORDS and lost <= MOST_REJECTED * (counted.seen + lost):
        return
    reason = max(counted.rejected, key=lambda one: counted.rejected[one])
    msg = (
        f"{lost} of {counted.seen + lost} lines were rejected, most as {reason}: a reference must be of what the model "
        "usually does; docs/records.md says what a line needs, and `--config` how another format is said"
    )
    raise BaselineError(msg)


def _batches(read: Iterator[tuple[bytes, dict[str, int]]], found: Inference) -> Iterator[tuple[Batch, dict[str, int]]]:
    """The reference in columns, with the lines that were lost by reason."""
    reader = JsonlPredictions({found.schema.model or "": found.schema}, LONGEST_LINE, timed=False)
    for block, lost in read:
        decoded = reader.decode(block)
        # A shared log: the other model's records are no defect of this one's.
        rejected = {reason: lines for reason, lines in decoded.rejected.items() if reason != "other_model"}
        for batch in decoded.batches:
            yield batch, dict(Counter(rejected) + Counter(lost))


class _Counted:
    """Counts over the whole reference, by time where it has times, and of its labels."""

    def __init__(self, questions: Questions, marks: tuple[str, ...], found: Inference) -> None:
        self.questions = questions
        self._flipped = marks.index(FLIPPED) if FLIPPED in marks else None
        self.errors = ask_errors(found.schema, flips=self._flipped is not None)
        self.tally = Tally(questions.size, found.first, found.last) if found.timed == found.records else None
        self.total = np.zeros(questions.size, np.int64)
        self.labelled = np.zeros(self.errors.size, np.int64)
        self.rejected: dict[str, int] = {}
        self.seen = 0
        self._rows = list(sliced_rows(found.schema))
        self._outcome = found.schema.outcome
        self._codes = class_codes(self._outcome)
        classes = len(self._outcome.values) + 2
        self.confusion = np.zeros((classes, classes), np.int64)

    def add(self, batch: Batch, rejected: dict[str, int]) -> None:
        """Count a batch."""
        for reason, lines in rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + lines
        self.seen += batch.time.size
        if self.tally is None:
            self.total += self.questions.count(batch.numbers, batch.codes, batch.marks)
        else:
            slots = self.tally.slots(batch.time)
            for slot in np.unique(slots).tolist():
                of = np.flatnonzero(slots == slot)
                profile = self.questions.count(batch.numbers[:, of], batch.codes[:, of], batch.marks[:, of])
                self.tally.add(slot, profile)
                self.total += profile
        of = np.flatnonzero(batch.labels != "")
        if of.size and self._codes:
            unseen = unseen_code(self._outcome)
            labels = np.fromiter((self._codes.get(label, unseen) for label in batch.labels[of]), np.int64, of.size)
            wrong = labels != batch.codes[0, of]
            np.add.at(self.confusion, (batch.codes[0, of] - 1, labels - 1), 1)
            facts = batch.codes[self._rows][:, of]
            marks = wrong[None]
            if self._flipped is not None:
                flipped = batch.marks[self._flipped, of]
                marks = np.stack((wrong, wrong & flipped, flipped))
            self.labelled += self.errors.count(np.empty((0, of.size)), facts, marks)


def _conclude(
    paths: Sequence[Path], found: Inference, fitted: Fitted, cuts: dict[str, tuple[float, ...]], counts: _Counted
) -> Reference:
    questions, total = counts.questions, counts.total
    for row, column in enumerate(questions.code_columns):
        if column.kind == "categorical":
            codes = total[questions.code_place(row)]
            counted = codes.copy()
            _without_luck(codes, column, found.kept[column.name])
            _leave_one_out(codes, column, *found.singletons[column.name])
            for mark in range(len(questions.marks)):
                # The rate among those with a code is no luck: it stays what it was, of fewer records.
                marked = total[questions.marked_place(mark, row)]
                marked[:] = np.rint(marked * np.minimum(codes / np.maximum(counted, 1), 1.0))
    lost = sum(counts.rejected.values())
    lines = np.array([total[0] + lost, lost], np.int64)
    timed = counts.tally is not None
    outcome = (
        describe(questions, total, total[None], total[None])
        if counts.tally is None
        else describe_history(questions, counts.tally.history(), total)
    )
    return Reference(
        format=FORMAT,
        origins=[_origin(path) for path in paths],
        records=int(total[0]),
        rejected=counts.rejected,
        timed=timed,
        first=found.first if timed else None,
        last=found.last if timed else None,
        labels=found.labels,
        versions=found.versions,
        ignored_features=found.ignored_features,
        schema=found.schema,
        cuts=cuts,
        fitted=fitted.file(None if fitted.odd is None else Mining.learn(found.schema, cuts, fitted.odd).file()),
        quality=fitted.quality,
        blind=fitted.blind
        | ({} if found.labels else {"errors": "the reference has no labels to know the error rate by"}),
        unproven=False,
        audit=None,
        outcome=measured(outcome),
        errors=measured(describe_errors(counts.errors, counts.labelled)),
        confusion=counts.confusion.tolist(),
        lines=measured(describe(ask_lines(), lines, lines[None], lines[None])),
        volume=measured_volume(
            None if counts.tally is None else describe_volume(counts.tally.volume, counts.tally.start)
        ),
    )


def load_or_build(
    path: Path, model: str | None = None, progress: Callable[[int], None] | None = None, read: Read = native
) -> Reference:
    """Read a built reference, or learn one from a log: whichever the file is.

    Raises:
        BaselineError: when it is neither.
    """
    with open_log(path) as file:
        start = file.read(64)
    built = b"".join(start.split()).startswith(b'{"format":')
    return load(path) if built else build([path], model, progress, read=read)


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


def _lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line.strip()]


def _origin(path: Path) -> Origin:
    with path.open("rb") as file:
        return Origin(name=path.name, bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
