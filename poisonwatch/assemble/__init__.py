"""From a configuration, or from nothing but logs, to an agent that can run."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poisonwatch.agent import App
from poisonwatch.agent.watched import Watched
from poisonwatch.assemble.logs import decoder_of, finite, open_sources, reader_of
from poisonwatch.config import DetectionConfig, LimitsConfig, budget_seconds
from poisonwatch.config.formats import PLAIN
from poisonwatch.errors import BaselineError, PoisonwatchError
from poisonwatch.judge.budget import SHARES, period_of_model
from poisonwatch.monitor.machine import Learned, Monitor
from poisonwatch.monitor.settings import ServedSettings, Settings
from poisonwatch.notify.notifier import Notifier
from poisonwatch.probe.echoes import Echoes
from poisonwatch.probe.endpoint import endpoint_of
from poisonwatch.probe.golden_set import read as read_golden
from poisonwatch.probe.prober import Prober
from poisonwatch.probe.probing import Probing
from poisonwatch.probe.served import ServedCount
from poisonwatch.reference.build import build, load_or_build
from poisonwatch.sinks.deadletter import DeadLetters
from poisonwatch.sinks.journal import Journal
from poisonwatch.sinks.lock import Lock
from poisonwatch.sinks.redaction import key_of, redactor
from poisonwatch.sources.intake import Intake
from poisonwatch.sources.merge import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from poisonwatch.config import Config, ModelConfig
    from poisonwatch.config.formats import FormatConfig
    from poisonwatch.config.served import ServedConfig
    from poisonwatch.probe.golden_set import GoldenSet
    from poisonwatch.reference.audit import Signature
    from poisonwatch.reference.file import Reference
    from poisonwatch.server.ingest import Door

UNNAMED = "default"
"""Name of a model that its log does not name."""


class Sidecar(NamedTuple):
    """The agent, and the doors that its server opens."""

    app: App
    doors: list[Door]


def sidecar(config: Config, tell: Callable[[dict[str, Any]], None]) -> Sidecar:
    """The agent that reads the configured sources.

    Raises:
        BaselineError: when a reference cannot be used.
        StateError: when another agent writes to the same state.
    """
    references = references_of(config)
    given = {model.name: model for model in config.models}
    models = {
        name: watch(
            name,
            reference,
            config.detection,
            config.limits,
            len(references),
            given[name].stable,
            confirms=given[name].endpoint is not None,
            served=given[name].served,
        )
        for name, reference in references.items()
    }
    golden = {name: golden_of(given[name], reference) for name, reference in references.items()}
    schemas = {name: reference.schema for name, reference in references.items()}
    for path in (config.state.checkpoint, config.state.journal, config.state.dead_letter):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        lock = Lock(config.state.checkpoint) if config.state.checkpoint else None
        if lock is not None:
            opened.callback(lock.close)
        journal = Journal(config.state.journal)
        opened.callback(journal.close)
        sources = open_sources(config, schemas)
        # All is there: from now on the agent closes what it was given.
        opened.pop_all()
    for name, watched in models.items():
        watched.probing = _probing(given[name], watched.reference, golden[name])
        served = given[name].served
        watched.served = ServedCount(served) if served is not None else None
        if given[name].redact:
            watched.redacted = redactor(key_of(config.state.journal))
    app = App(
        models,
        Intake(
            sources.feeds,
            list(models),
            config.detection.window_seconds,
            dead_letters=DeadLetters(config.state.dead_letter) if config.state.dead_letter else None,
            salt=secrets.randbits(64),
        ),
        journal,
        config.detection,
        checkpoint_path=config.state.checkpoint,
        checkpoint_seconds=config.state.checkpoint_seconds,
        lock=lock,
        skew_seconds=config.limits.skew_seconds,
        notifier=Notifier(config.notify),
        tell=tell,
    )
    return Sidecar(app, sources.doors)


def golden_of(model: ModelConfig, reference: Reference) -> GoldenSet | None:
    """The golden set of a model, where it has one.

    Raises:
        GoldenError: when it cannot be used.
    """
    outcome = reference.schema.outcome
    return None if model.golden is None else read_golden(model.golden.path, (*outcome.values, *outcome.folded))


def _probing(model: ModelConfig, reference: Reference, golden: GoldenSet | None) -> Probing | None:
    """Who asks the model's endpoint, where it has one."""
    if model.endpoint is None or model.golden is None or golden is None:
        return None
    prober = Prober(endpoint_of(model.endpoint, model.name), model.probes.per_minute)
    return Probing(golden, model.golden.every_seconds, model.probes, prober, Echoes(reference.schema))


def references_of(config: Config) -> dict[str, Reference]:
    """The reference of every configured model.

    Raises:
        BaselineError: when one cannot be used, with its place in the configuration.
    """
    found = {}
    formats = {
        source.format.model_dump_json(): source.format for source in config.sources if source.content == "predictions"
    }
    # Where all logs are written alike, so is the trusted part of one.
    written = next(iter(formats.values())) if len(formats) == 1 else PLAIN
    for number, model in enumerate(config.models):
        place = f"models[{number}].reference"
        try:
            reference = learn([model.reference], model.name, written=written)
        except PoisonwatchError as error:
            as_what = f" (read as {written.kind}, as the sources are)" if written != PLAIN else ""
            msg = f"{place}: {error}{as_what}"
            raise BaselineError(msg) from None
        if model.reference_sha256 is not None and reference.sha256 != model.reference_sha256:
            msg = (
                f"{place}: {model.reference} has the SHA-256 {reference.sha256}, not the one in reference_sha256: put the "
                "right reference back, or pin this one after looking at it with `poisonwatch reference show`"
            )
            raise BaselineError(msg)
        named = reference.schema.model
        if named not in {None, model.name}:
            msg = f"{place}: {model.reference} is the reference of the model {named!r}, not of {model.name!r}"
            raise BaselineError(msg)
        found[model.name] = reference
    return found


def learn(
    paths: Sequence[Path],
    model: str | None,
    progress: Callable[[int], None] | None = None,
    *,
    always: bool = False,
    unproven: bool = False,
    signature: Signature | None = None,
    written: FormatConfig = PLAIN,
) -> Reference:
    """Read a built reference, or learn one from logs (`always`, or when there are several) in the format `written`; see `reference.build`.

    Raises:
        BaselineError: when they make none; begins with their names.
    """
    read = reader_of(written, LimitsConfig())
    try:
        if always or len(paths) > 1:
            return build(paths, model, progress, unproven=unproven, signature=signature, read=read)
        return load_or_build(paths[0], model, progress, read)
    except BaselineError as error:
        told, names = str(error), ", ".join(map(str, paths))
        msg = told if any(told.startswith(f"{path}: ") for path in paths) else f"{names}: {told}{_remedy(told)}"
        raise BaselineError(msg) from None


def _remedy(told: str) -> str:
    """What to do about a log that has nothing to learn from; other problems say it themselves."""
    if "the reference has no record" in told:
        return ": give a log with predictions of this model, and its name as the records' `model` says it"
    return ""


def replay(
    reference: Reference,
    predictions: Sequence[Path],
    feedback: Sequence[Path],
    *,
    detection: DetectionConfig,
    journal: Path | None,
    tell: Callable[[dict[str, Any]], None],
    progress: Callable[[int], None] | None = None,
    written: FormatConfig = PLAIN,
) -> App:
    """The agent over finite logs of one model; `written` is the format of the predictions."""
    limits = LimitsConfig()
    name = reference.schema.model or UNNAMED
    schemas = {name: reference.schema}
    # One decoder for all logs of a kind: the halves of a prediction may lie in different files.
    decoders = {
        "predictions": decoder_of(written, "predictions", schemas, limits, limits.line_bytes),
        "feedback": decoder_of(PLAIN, "feedback", schemas, limits, limits.line_bytes),
    }
    lanes = []
    for content, paths in (("predictions", predictions), ("feedback", feedback)):
        for path in paths:
            found = finite(path, written if content == "predictions" else PLAIN, limits.line_bytes, progress)
            lanes.append(Lane(str(path), partial(next, found, None), decoders[content], confirm=True))
    models = {name: watch(name, reference, detection, limits, 1, None, confirms=False)}
    intake = Intake([], [name], detection.window_seconds, lanes=lanes, decoders=decoders)
    return App(models, intake, Journal(journal), detection, tell=tell)


def watch(
    name: str,
    reference: Reference,
    detection: DetectionConfig,
    limits: LimitsConfig,
    models: int,
    stable: str | None,
    *,
    confirms: bool,
    served: ServedConfig | None = None,
) -> Watched:
    """The machine of one model among `models`; `confirms` says that its endpoint will be asked, `served` where its server counts."""
    settings = Settings(
        window=detection.window_seconds,
        lateness=detection.lateness_seconds,
        period=period_of_model(budget_seconds(detection.budget), models),
        shares=SHARES,
        effect_floor=detection.effect_floor,
        retrain_floor=detection.retrain_floor,
        flip_floor=detection.flip_floor,
        canary_floor=detection.canary_floor,
        canary_page_floor=detection.canary_page_floor,
        label_floor=detection.label_floor,
        drift_label_floor=detection.drift_label_floor,
        smallest_arm=detection.canary_predictions,
        most_versions=limits.versions,
        stable=stable,
        known=frozenset(reference.versions),
        confirms=confirms,
        served=None
        if served is None
        else ServedSettings(
            tolerated=served.tolerated_ratio,
            delay=served.delay_seconds,
            by_version=served.version_label is not None,
            learns=served.counts == "requests",
        ),
    )
    learned = Learned(
        baseline=reference.baseline(),
        errors=reference.errors_baseline(),
        confusion=np.array(reference.confusion, np.int64),
        lines=reference.lines_baseline(),
        volume=reference.usual_volume(),
        with_labels=bool(reference.labels),
        enrichment=reference.enrichment(),
        mining=reference.mining(),
    )
    return Watched(reference, Monitor(name, learned, settings))
