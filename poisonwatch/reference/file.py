"""The reference: the baseline that only a command changes, as one file that says what it was learned from.

The file is JSON, so that a person can read it, and carries the SHA-256 of its own content, which is checked when it is
read: the monitor's own baseline is worth poisoning.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from poisonwatch.errors import BaselineError
from poisonwatch.profile.baseline import Baseline
from poisonwatch.profile.indicators import ask, ask_lines
from poisonwatch.sinks.journal import rfc3339
from poisonwatch.types import Schema

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Ints

FORMAT = 2


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
    if digest(reference) != reference.sha256:
        msg = f"{path}: the content does not match its SHA-256: it was damaged or changed, build it again"
        raise BaselineError(msg)
    return reference


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


def measured(baseline: Baseline) -> Measured:
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


def digest(reference: Reference) -> str:
    """SHA-256 of the content, as hexadecimal digits."""
    content: Any = msgspec.json.encode(msgspec.structs.replace(reference, sha256=""))
    return hashlib.sha256(content).hexdigest()
