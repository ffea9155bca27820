"""The reference: the baseline that only a command changes, as one file that says what it was learned from.

The file is JSON, so that a person can read it, and carries the SHA-256 of its own content, which is checked when it is
read: the monitor's own baseline is worth poisoning.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from poisonwatch.errors import BaselineError
from poisonwatch.formats.infer import Inference, infer
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.profile.baseline import Baseline, cut_points, describe
from poisonwatch.profile.indicators import CONFIDENCE, Questions, ask, ask_lines, folded_code, unseen_code
from poisonwatch.sinks.journal import rfc3339
from poisonwatch.sources.log import blocks, open_log
from poisonwatch.types import Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from poisonwatch.types import Column, Ints

FORMAT = 1
FEWEST_RECORDS = 100
"""Fewer predictions than this say nothing that could be compared with."""

LONGEST_LINE = 1 << 20

BLOCKS = 1000
SHORTEST_BLOCK = 600.0
"""Time is cut into about this many blocks, none shorter than this many seconds, to measure the design effect."""

DAY = 86400.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline's numbers, in the order of its questions; see `profile.baseline.Baseline`."""

    counts: list[int]
    low: list[float]
    high: list[float]
    design_effect: list[float]
    day_noise: list[float]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One log that the reference was learned from."""

    name: str
    bytes: int
    sha256: str


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds. `labels` has, by predicted class, how many labels were known and how many disagreed.

    `versions` has, by model version, how many predictions carried it: at most 16, the most frequent first.
    `first` and `last` are event times; without times (`timed` false) records were taken as exchangeable.
    """

    format: int
    origins: list[Origin]
    records: int
    rejected: dict[str, int]
    timed: bool
    first: float | None
    last: float | None
    labels: dict[str, tuple[int, int]]
    versions: dict[str, int]
    ignored_features: int
    schema: Schema
    cuts: dict[str, tuple[float, ...]]
    outcome: Measured
    lines: Measured
    sha256: str = ""

    def baselines(self) -> tuple[Baseline, Baseline]:
        """The baseline over all indicators, and the one over the share of rejected lines."""
        return _restore(ask(self.schema, self.cuts), self.outcome), _restore(ask_lines(), self.lines)


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
        outcome=_measured(describe(questions, counted.total, counted.blocks, counted.days)),
        lines=_measured(describe(ask_lines(), lines, lines[None], lines[None])),
    )
    return msgspec.structs.replace(draft, sha256=_digest(draft))


def save(reference: Reference, path: Path) -> None:
    """Write a reference, whole or not at all."""
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(reference), indent=1) + b"\n")
    draft.replace(path)


def load(path: Path) -> Reference:
    """Read a reference that `save` wrote.

    Raises:
        BaselineError: when it is missing, damaged, changed by hand, or of another format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path}: the reference cannot be read ({error.strerror}): build one with `poisonwatch reference build`"
        raise BaselineError(msg) from None
    try:
        reference = msgspec.json.decode(content, type=Reference)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: this is no reference ({error}): build one with `poisonwatch reference build`"
        raise BaselineError(msg) from None
    if reference.format != FORMAT:
        msg = f"{path}: reference of format {reference.format}, this agent reads {FORMAT}: build it again"
        raise BaselineError(msg)
    if _digest(reference) != reference.sha256:
        msg = f"{path}: the content does not match its SHA-256: it was damaged or changed, build it again"
        raise BaselineError(msg)
    return reference


def load_or_build(path: Path, model: str | None = None, progress: Callable[[int], None] | None = None) -> Reference:
    """Read a built reference, or learn one from a log: whichever the file is.

    Raises:
        BaselineError: when it is neither.
    """
    with open_log(path) as file:
        start = file.read(64)
    built = b"".join(start.split()).startswith(b'{"format":')
    return load(path) if built else build([path], model, progress)


def in_words(reference: Reference) -> str:
    """What a reference holds, for a person."""
    baseline, _ = reference.baselines()
    span = "no times: records taken as exchangeable, day-level noise assumed"
    if reference.first is not None and reference.last is not None:
        span = f"{rfc3339(reference.first)} to {rfc3339(reference.last)}"
    lines = [
        f"model           {reference.schema.model or '(not named)'}",
        f"sha256          {reference.sha256}",
        f"learned from    {', '.join(origin.name for origin in reference.origins)}",
        f"predictions     {reference.records} ({sum(reference.rejected.values())} lines rejected)",
        f"time            {span}",
        f"model versions  {', '.join(f'{name} ({n})' for name, n in reference.versions.items()) or '(none named)'}",
        f"design effect   {float(np.median(baseline.design_effect)):.2f} (median of the indicators)",
        f"day-level noise {float(np.median(baseline.day_noise)):.3f} log-odds (median)",
    ]
    if reference.ignored_features:
        lines.append(
            f"ignored         {reference.ignored_features} values of features beyond the cap or with quotes in the name"
        )
    if reference.labels:
        told = ", ".join(f"{name} {wrong}/{known}" for name, (known, wrong) in reference.labels.items())
        lines.append(f"wrong/labelled  {told}")
    lines.append("indicators")
    lines += [
        f"  {indicator.text:<50} {rate:8.3%}"
        for indicator, rate in zip(baseline.questions.indicators, baseline.rate, strict=True)
    ]
    return "\n".join(lines)


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
                    profile = questions.count(batch.numbers[:, of], batch.codes[:, of])
                    counted.total += profile
                    counted.blocks[number] += profile
                    counted.days[min(int(number * width / DAY), counted.days.shape[0] - 1)] += profile
    return counted


def _lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line.strip()]


def _origin(path: Path) -> Origin:
    with path.open("rb") as file:
        return Origin(name=path.name, bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _measured(baseline: Baseline) -> Measured:
    """Rounded: processors differ in the last bit of a logarithm, and the same log must give the same SHA-256 on all."""
    return Measured(
        counts=baseline.counts.tolist(),
        low=baseline.low.round(9).tolist(),
        high=baseline.high.round(9).tolist(),
        design_effect=baseline.design_effect.round(9).tolist(),
        day_noise=baseline.day_noise.round(9).tolist(),
    )


def _restore(questions: Questions, measured: Measured) -> Baseline:
    counts: Ints = np.array(measured.counts, np.int64)
    asked, yes = counts[questions.asked], counts[questions.yes]
    return Baseline(
        questions=questions,
        counts=counts,
        rate=(yes + 0.5) / (asked + 1.0),
        low=np.array(measured.low),
        high=np.array(measured.high),
        design_effect=np.array(measured.design_effect),
        day_noise=np.array(measured.day_noise),
    )


def _digest(reference: Reference) -> str:
    content: Any = msgspec.json.encode(msgspec.structs.replace(reference, sha256=""))
    return hashlib.sha256(content).hexdigest()
