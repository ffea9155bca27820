"""Finished logs, from Python: learn a reference, replay a log, read what was found. For a notebook, or a gate in CI.

The commands `reference build` and `replay` do their work here, so both find the same. The demo's logs come with the package: a
spam filter whose version v2 was trained on poisoned data.

>>> from importlib.resources import files
>>> from pathlib import Path
>>> from poisonwatch.offline import build_reference, replay
>>> logs = Path(str(files("poisonwatch.demo")))
>>> reference = build_reference(logs / "reference.ndjson.gz")
>>> found = replay(logs / "predictions.ndjson.gz", reference=reference)
>>> {version: str(told.decision) for version, told in found.decisions.items()}
{'v1': 'keep', 'v2': 'rollback'}
>>> found.decisions["v2"].target
'v1'
>>> for trigger in found.triggers:
...     print(trigger["text"], "->", trigger["label"])
'special discount code xyz' -> ham
>>> found.code  # of the worst decision: 0 keep, 1 hold, 2 rollback
2
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from poisonwatch import assemble
from poisonwatch.agent import run
from poisonwatch.agent.clocks import EventClock
from poisonwatch.config import DetectionConfig
from poisonwatch.config.formats import PLAIN, FormatConfig
from poisonwatch.config.part import Part
from poisonwatch.config.reading import checked
from poisonwatch.errors import PoisonwatchError
from poisonwatch.reference.audit import Signature
from poisonwatch.reference.file import Reference, load, save
from poisonwatch.server.api.telling import CODES, evidence_of, told_decision, told_trigger
from poisonwatch.sinks.report import Meter, in_words
from poisonwatch.types import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from poisonwatch.server.api.answers import DecisionAnswer, EvidenceAnswer

__all__ = ["Reference", "Replay", "Signature", "build_reference", "load_reference", "replay", "save_reference"]

Log = str | PathLike[str]
"""Path of a log: JSON lines or lines of a server's own format, CSV (.csv) or Parquet (.parquet); .gz and .zst are unpacked."""


class Replay(NamedTuple):
    """What a replay found.

    `decisions` stand at the end of the log, by model version, with the story behind each as the HTTP API tells it; `alerts` are
    all that fired, each in its last state; `evidence` is what the detectors measured up to the end, `triggers` those still open;
    the fields of `alerts` and `triggers` are the journal's. `predictions` and `labels` were counted, lines were `rejected` by reason.
    `report` is all of it that `poisonwatch replay --report` writes.
    """

    predictions: int
    labels: int
    rejected: Mapping[str, int]
    decisions: Mapping[str, DecisionAnswer]
    alerts: Sequence[Mapping[str, Any]]
    triggers: Sequence[Mapping[str, Any]]
    evidence: Sequence[EvidenceAnswer]
    report: dict[str, Any]

    @property
    def code(self) -> int:
        """The worst decision as a number, 0 keep, 1 hold, 2 rollback. Without any version there is nothing to keep, and it is 1."""
        return max((told.code for told in self.decisions.values()), default=CODES[Action.HOLD])

    def __str__(self) -> str:
        """The same in words, a line for each alert and each decision."""
        return in_words(self.report)


class Told(Part):
    """What is said of logs by the words of a configuration."""

    format: FormatConfig = PLAIN
    detection: DetectionConfig = DetectionConfig()


def build_reference(
    logs: Log | Iterable[Log],
    *,
    model: str | None = None,
    format: str | Mapping[str, Any] | FormatConfig = PLAIN,  # noqa: A002 - the word of the configuration
    unproven: bool = False,
    signature: Signature | None = None,
    progress: Callable[[int], None] | None = None,
) -> Reference:
    """Learn what normal predictions look like from logs that are known to be clean.

    Args:
        logs: One log or several; some thousand predictions.
        model: The model to learn, where the logs hold several.
        format: How they are written, as `sources[].format` says it in a configuration.
        unproven: The logs are live traffic that nobody has looked at; it is kept in the reference.
        signature: Who accepts what the audit calls suspect, and why; it is kept in the reference.
        progress: Told how many bytes were read.

    Raises:
        BaselineError: when the logs make no reference, or a trigger seems to be in it already.
        ConfigError: when `format` says something that there is not.
        LogError: when a log cannot be read.
        MissingExtraError: when a package is not installed that the logs need.
    """
    told = _told("build_reference", format=format)
    return assemble.learn(
        _paths(logs), model, progress, always=True, unproven=unproven, signature=signature, written=told.format
    )


def save_reference(reference: Reference, path: Log) -> None:
    """Write a reference to a file, whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    save(reference, Path(path))


def load_reference(path: Log) -> Reference:
    """Read a reference that was saved, or that `poisonwatch reference build` wrote.

    Raises:
        BaselineError: when it is missing, damaged, changed by hand, or of another format.
    """
    return load(Path(path))


def replay(
    predictions: Log | Iterable[Log],
    *,
    reference: Reference | Log,
    feedback: Log | Iterable[Log] = (),
    format: str | Mapping[str, Any] | FormatConfig = PLAIN,  # noqa: A002 - the word of the configuration
    detection: Mapping[str, Any] | DetectionConfig | None = None,
    journal: Log | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Play finished logs through the agent, by their own time: what would it have said?

    Args:
        predictions: One log or several, of one model.
        reference: What is normal: a reference, or the file of one.
        feedback: Logs of labels that came back later.
        format: How `predictions` are written, as `sources[].format` says it in a configuration.
        detection: Settings of `detection` in a configuration that differ from the defaults.
        journal: A file to write alerts and decisions to, one JSON object a line; new or empty.
        progress: Told how many bytes were read.

    Raises:
        BaselineError: when the reference cannot be used.
        ConfigError: when `format` or `detection` says something that there is not.
        LogError: when a log cannot be read.
        MissingExtraError: when a package is not installed that the logs need.
        PoisonwatchError: when there is a journal already.
    """
    told = _told("replay", format=format, detection={} if detection is None else detection)
    kept = None if journal is None else Path(journal)
    if kept is not None and kept.exists() and kept.stat().st_size:
        msg = f"{kept}: this file is not empty: a replay begins a journal of its own, name another or remove it"
        raise PoisonwatchError(msg)
    meter = Meter()
    app = assemble.replay(
        reference if isinstance(reference, Reference) else load_reference(reference),
        _paths(predictions),
        _paths(feedback),
        detection=told.detection,
        journal=kept,
        tell=meter.hear,
        progress=progress,
        written=told.format,
    )
    run(app, EventClock(app.intake), lambda: False)
    report = meter.report(app.published)
    published = [app.published.snapshot] if app.published.snapshot is not None else []
    told_at = [(snapshot, model) for snapshot in published for model in snapshot.models]
    return Replay(
        predictions=report["records"],
        labels=report["feedback"],
        rejected=report["rejected_by_reason"],
        decisions={
            one.model_version: told_decision(snapshot, model, one)
            for snapshot, model in told_at
            for one in model.decisions
        },
        alerts=report["alerts"],
        triggers=[told_trigger(trigger) for _, model in told_at for trigger in model.triggers],
        evidence=[found for _, model in told_at for found in evidence_of(model)],
        report=report,
    )


def _told(name: str, **said: Any) -> Told:
    return checked(said, Told, name)


def _paths(logs: Log | Iterable[Log]) -> list[Path]:
    return [Path(logs)] if isinstance(logs, str | PathLike) else [Path(log) for log in logs]
