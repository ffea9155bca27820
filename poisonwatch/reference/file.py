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
from poisonwatch.mining.learned import Mining, MiningFile
from poisonwatch.profile.baseline import Baseline
from poisonwatch.profile.embedding import Centroids, CentroidsFile
from poisonwatch.profile.enrich import Enrichment
from poisonwatch.profile.indicators import (
    ask,
    ask_errors,
    ask_lines,
    code_rows,
    embedding_width,
    number_rows,
    text_rows,
)
from poisonwatch.profile.outlier import Forest, ForestFile
from poisonwatch.profile.season import HOURS_A_DAY, Season
from poisonwatch.profile.surrogate import Surrogate, SurrogateFile
from poisonwatch.profile.volume import UsualVolume, ask_volume
from poisonwatch.profile.words import Vocabulary, VocabularyFile
from poisonwatch.reference.audit import Audit
from poisonwatch.reference.fit_surrogate import Quality
from poisonwatch.sinks.journal import rfc3339
from poisonwatch.types import Batch, Schema

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Floats, Ints

FORMAT = 3


class MeasuredSeason(msgspec.Struct, frozen=True, kw_only=True):
    """Rates and bounds by cell; see `profile.season.Season`."""

    rate: list[list[float]]
    low: list[list[float]]
    high: list[list[float]]


class FittedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted, as arrays; see `profile.enrich.Enrichment`."""

    surrogate: SurrogateFile | None = None
    vocabulary: VocabularyFile | None = None
    centroids: CentroidsFile | None = None
    forest: ForestFile | None = None
    unsure: float | None = None
    mining: MiningFile | None = None
    counts_flips: bool = False


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline's numbers, in the order of its questions; see `profile.baseline.Baseline`."""

    counts: list[int]
    rate: list[float]
    low: list[float]
    high: list[float]
    design_effect: list[float]
    day_noise: list[float]
    season: MeasuredSeason | None = None


class MeasuredVolume(msgspec.Struct, frozen=True, kw_only=True):
    """The volume of a timed reference; see `profile.volume.UsualVolume`."""

    slot: float
    limits: list[list[float]]
    baseline: Measured


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One log that the reference was learned from."""

    name: str
    bytes: int
    sha256: str


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds. `labels` has, by predicted class, how many labels were known and how many disagreed.

    `versions` has, by model version, how many predictions carried it: at most 16, the most frequent first.
    `first` and `last` are event times; without times (`timed` false) records were taken as exchangeable.
    `confusion` counts labels by predicted and labelled class, with one more each for rare and for unseen classes.
    `quality` is the surrogate's; `blind` says what cannot be watched, and why; `unproven` that it was learned from live
    traffic, which nobody has looked at; `audit` is what speaks for a trigger in it, and who accepted that.
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
    fitted: FittedFile
    quality: Quality | None
    blind: dict[str, str]
    unproven: bool
    audit: Audit | None
    outcome: Measured
    errors: Measured
    confusion: list[list[int]]
    lines: Measured
    volume: MeasuredVolume | None
    sha256: str = ""

    def measures(self) -> dict[str, float]:
        """The surrogate's quality by measure; empty where there is none, without `needs` where no number would do."""
        of = self.quality
        if of is None:
            return {}
        return {
            "agreement": of.agreement,
            "sees": of.sees,
            "flip_rate": of.flip_rate,
            "correlation": of.correlation,
        } | ({} if of.needs is None else {"needs": float(of.needs)})

    def enrichment(self) -> Enrichment:
        """What is asked of live predictions beyond what they say.

        Raises:
            ValueError: when an array does not have the shape that it must have.
        """
        fitted = self.fitted
        return Enrichment(
            self.schema,
            None if fitted.surrogate is None else Surrogate.read(fitted.surrogate),
            None if fitted.vocabulary is None else Vocabulary.read(fitted.vocabulary),
            None if fitted.centroids is None else Centroids.read(fitted.centroids),
            None if fitted.forest is None else Forest.read(fitted.forest),
            fitted.unsure,
            fitted.counts_flips,
        )

    def mining(self) -> Mining | None:
        """What triggers are mined with; None where nothing says what is odd.

        Raises:
            ValueError: when its parts do not fit together.
        """
        of = self.fitted.mining
        return None if of is None else Mining.read(of, self.schema, self.cuts)

    def baseline(self) -> Baseline:
        """The baseline over all indicators.

        Raises:
            ValueError: when its numbers are those of other questions; likewise the other baselines.
        """
        found = self.enrichment()
        return _restore(ask(self.schema, self.cuts, found.derived, found.asked), self.outcome)

    @property
    def _counts_flips(self) -> bool:
        return self.fitted.surrogate is not None and self.fitted.counts_flips

    def errors_baseline(self) -> Baseline:
        """The baseline over error rates; without any label behind it where the reference had none."""
        return _restore(ask_errors(self.schema, flips=self._counts_flips), self.errors)

    def lines_baseline(self) -> Baseline:
        """The baseline over the share of lost lines."""
        return _restore(ask_lines(), self.lines)

    def usual_volume(self) -> UsualVolume | None:
        """The volume of a timed reference."""
        if self.volume is None:
            return None
        baseline = _restore(ask_volume(), self.volume.baseline)
        cells = HOURS_A_DAY * (1 + (len(self.volume.limits) > HOURS_A_DAY))
        limits = _finite(self.volume.limits, (cells, baseline.questions.asked.size))
        if not self.volume.slot > 0:
            raise ValueError("slots without length")
        return UsualVolume(self.volume.slot, limits, baseline)


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
    try:
        _check(reference)
    except (ValueError, LookupError, OverflowError) as error:
        msg = f"{path}: the parts of this reference do not fit together ({error}): build it again"
        raise BaselineError(msg) from None
    return reference


def _check(reference: Reference) -> None:
    """Everything can be taken up, and asked of a prediction.

    Raises:
        ValueError, LookupError, OverflowError: when it cannot.
    """
    schema = reference.schema
    rows, codes = len(number_rows(schema)), len(code_rows(schema))
    nothing = Batch(
        model="",
        time=np.empty(0),
        version=np.empty(0, np.int32),
        versions=(),
        numbers=np.empty((rows, 0)),
        codes=np.empty((codes, 0), np.int32),
        ids=np.empty(0, np.object_),
        labels=np.empty(0, np.object_),
        sources=np.empty(0, np.object_),
        texts=np.empty((len(text_rows(schema)), 0), np.object_),
        embeddings=np.empty((embedding_width(schema), 0), np.float32),
        marks=np.empty((0, 0), np.bool_),
        rejected_at=np.empty(0, np.int64),
    )
    asked = reference.enrichment().apply(nothing, np.empty(0, np.bool_))
    questions = reference.baseline().questions
    questions.count(asked.numbers, asked.codes, asked.marks)
    reference.errors_baseline()
    reference.lines_baseline()
    reference.usual_volume()
    reference.mining()
    classes = len(schema.outcome.values) + 2
    confusion = np.array(reference.confusion, np.int64)
    if confusion.shape != (classes, classes) or confusion.min() < 0:
        raise ValueError("labels are counted by other classes")


def in_words(reference: Reference) -> str:
    """What a reference holds, for a person."""
    baseline = reference.baseline()
    span = "no times: records taken as exchangeable, day-level noise assumed"
    if reference.first is not None and reference.last is not None:
        span = f"{rfc3339(reference.first)} to {rfc3339(reference.last)}"
    lines = [
        f"model           {reference.schema.model or '(not named)'}",
        f"sha256          {reference.sha256}",
        f"learned from    {', '.join(origin.name for origin in reference.origins)}"
        + (" (live traffic: unproven)" if reference.unproven else ""),
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
    if reference.quality is not None:
        of = reference.quality
        lines.append(
            f"surrogate       {of.kind}: makes {of.agreement:.1%} of the predictions, sees {of.sees:.1%} of wrong ones, "
            f"calls {of.flip_rate:.2%} of the reference wrong; a trigger would "
            + ("not surface" if of.needs is None else f"surface after {of.needs} records")
        )
    if reference.audit is not None:
        verdict, *groups = reference.audit.in_words()
        lines += [f"audit           {verdict}", *groups]
    lines += [f"blind           {what}: {why}" for what, why in sorted(reference.blind.items())]
    if reference.labels:
        told = ", ".join(f"{name} {wrong}/{known}" for name, (known, wrong) in reference.labels.items())
        lines.append(f"wrong/labelled  {told}")
    lines.append("indicators")
    lines += [
        f"  {indicator.text:<50} {rate:8.3%}"
        for indicator, rate in zip(baseline.questions.indicators, baseline.rate, strict=True)
    ]
    return "\n".join(lines)


def measured_volume(usual: UsualVolume | None) -> MeasuredVolume | None:
    """A reference's volume as the file holds it."""
    if usual is None:
        return None
    return MeasuredVolume(slot=usual.slot, limits=usual.limits.round(9).tolist(), baseline=measured(usual.baseline))


def measured(baseline: Baseline) -> Measured:
    """Rounded: processors differ in the last bit of a logarithm, and the same log must give the same SHA-256 on all."""
    season = baseline.season
    return Measured(
        counts=baseline.counts.tolist(),
        rate=baseline.rate.round(9).tolist(),
        low=baseline.low.round(9).tolist(),
        high=baseline.high.round(9).tolist(),
        design_effect=baseline.design_effect.round(9).tolist(),
        day_noise=baseline.day_noise.round(9).tolist(),
        season=None
        if season is None
        else MeasuredSeason(
            rate=season.rate.round(9).tolist(), low=season.low.round(9).tolist(), high=season.high.round(9).tolist()
        ),
    )


def _restore(questions: Questions, measured: Measured) -> Baseline:
    counts: Ints = np.array(measured.counts, np.int64)
    if counts.shape != (questions.size,) or counts.min() < 0:
        raise ValueError("counts of other questions")
    of = (measured.rate, measured.low, measured.high, measured.design_effect, measured.day_noise)
    rate, low, high, effect, noise = _finite(of, (len(of), questions.asked.size))
    season = None
    if measured.season is not None:
        by_cell = (measured.season.rate, measured.season.low, measured.season.high)
        cells = HOURS_A_DAY * (1 + (len(measured.season.rate) > HOURS_A_DAY))
        season = Season(*_finite(by_cell, (len(by_cell), cells, questions.asked.size)))
    return Baseline(questions, counts, rate, low, high, effect, noise, season)


def _finite(values: object, shape: tuple[int, ...]) -> Floats:
    found = np.array(values, np.float64)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError("measures of other questions")
    return found


def digest(reference: Reference) -> str:
    """SHA-256 of the content, as hexadecimal digits."""
    content: Any = msgspec.json.encode(msgspec.structs.replace(reference, sha256=""))
    return hashlib.sha256(content).hexdigest()
