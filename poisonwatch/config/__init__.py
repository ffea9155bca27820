"""The configuration: one YAML file, checked before anything starts, with the place and the remedy of every mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from ruamel.yaml import YAML

from poisonwatch.config.endpoint import EndpointConfig
from poisonwatch.config.notify import Receivers, rooted
from poisonwatch.config.part import Part
from poisonwatch.config.probing import GoldenConfig, ProbesConfig
from poisonwatch.config.reading import read
from poisonwatch.config.served import ServedConfig
from poisonwatch.config.sources import AnySource, FileSourceConfig, HttpSourceConfig, KafkaSourceConfig
from poisonwatch.config.web import WebConfig

UNITS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}
BUDGET = re.compile(r"one page per (?:(?P<count>\d+(?:\.\d+)?) )?(?P<unit>minute|hour|day|week)s?")


def _check_budget(text: str) -> str:
    found = BUDGET.fullmatch(text)
    if found is None or float(found["count"] or 1) <= 0:
        msg = "say it like `one page per 30 days` (minutes, hours, days or weeks)"
        raise ValueError(msg)
    return text


Budget = Annotated[str, AfterValidator(_check_budget)]


def budget_seconds(text: str) -> float:
    """The period of a budget such as `one page per 30 days`."""
    found = BUDGET.fullmatch(text)
    if found is None:
        msg = f"not a budget: {text!r}"
        raise ValueError(msg)
    return float(found["count"] or 1) * UNITS[found["unit"]]


class ModelConfig(Part):
    """One model that is watched."""

    name: str = Field(min_length=1, max_length=128, description="As the records' `model` says it.")
    reference: Path = Field(description="A reference built by `poisonwatch reference build`, or a trusted log.")
    reference_sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 that the reference must have, as `reference build` says it; another one is refused.",
    )
    stable: str | None = Field(
        None, description="The version that others are compared with; by default the oldest that still runs."
    )
    endpoint: EndpointConfig | None = Field(
        None, description="Where the model can be asked to confirm a trigger; nothing else is ever called."
    )
    served: ServedConfig | None = Field(
        None, description="Where the model's server says how much it served: what the log lacks shows there."
    )
    golden: GoldenConfig | None = Field(
        None, description="Verified inputs: replayed to every version, and what triggers are inserted into."
    )
    probes: ProbesConfig = ProbesConfig()
    redact: bool = Field(
        False,
        description="Whether sources and example ids of triggers are told as keyed hashes; their patterns are told as they are.",
    )

    @model_validator(mode="after")
    def _askable(self) -> ModelConfig:
        if (self.endpoint is None) != (self.golden is None):
            there, missing = ("golden", "endpoint") if self.endpoint is None else ("endpoint", "golden")
            msg = f"`{there}` without `{missing}` does nothing: give both, or neither"
            raise ValueError(msg)
        return self


class DetectionConfig(Part):
    """What counts as a departure. The defaults suit most models; floors are differences in log-odds."""

    budget: Budget = Field(
        "one page per 30 days", description="Expected time between false pages over everything that is watched."
    )
    window_seconds: float = Field(60.0, ge=1, le=86400, description="Width of a window of event time.")
    lateness_seconds: float = Field(
        60.0, ge=0, le=86400, description="How long a window waits for predictions that are logged out of order."
    )
    quiet_seconds: float = Field(
        600.0, ge=1, le=86400, description="After how long a silence of all logs the last window is judged as it is."
    )
    effect_floor: float = Field(0.1, ge=0, le=3, description="Smaller departures from the reference do not matter.")
    retrain_floor: float = Field(
        0.3, ge=0, le=3, description="How much more the outputs of a later version may differ, as a retraining does."
    )
    canary_floor: float = Field(
        0.4, ge=0, le=3, description="How much the outputs of two versions on the same traffic may differ."
    )
    canary_page_floor: float = Field(
        0.75,
        ge=0,
        le=3,
        description="How much the classes of two versions may differ before it pages without a second sign of harm.",
    )
    flip_floor: float = Field(
        1.1, ge=0, le=5, description="How much more often than in the reference the surrogate may disagree."
    )
    label_floor: float = Field(0.4, ge=0, le=3, description="How much the error rate may rise above the reference's.")
    drift_label_floor: float = Field(
        0.8, ge=0, le=5, description="How much the error rate may rise while the inputs drift."
    )
    canary_predictions: int = Field(
        30, ge=1, le=100_000, description="Predictions that both versions need before they are compared once."
    )
    min_predictions: int = Field(
        200, ge=1, le=1_000_000, description="Predictions that a version needs before it can be called healthy."
    )

    @model_validator(mode="after")
    def _ascending(self) -> DetectionConfig:
        for lower, upper in (("canary_floor", "canary_page_floor"), ("label_floor", "drift_label_floor")):
            if getattr(self, upper) < getattr(self, lower):
                msg = f"{upper} must not be below {lower}: raise it, or lower the other"
                raise ValueError(msg)
        return self


class LimitsConfig(Part):
    """Bounds on what a log can make the agent do."""

    line_bytes: int = Field(1 << 20, ge=1024, le=1 << 28, description="Longer lines are rejected.")
    spool_bytes: int = Field(
        1 << 28,
        ge=1 << 20,
        le=1 << 40,
        description="Room for what was posted and not judged yet; a full spool answers 429.",
    )
    waiting_bytes: int = Field(
        1 << 26,
        ge=1 << 16,
        le=1 << 34,
        description="Room for halves of predictions that wait for the other, by source.",
    )
    versions: int = Field(16, ge=1, le=1000, description="Versions of a model at once; more count as `other`.")
    skew_seconds: float = Field(
        60.0, ge=0, le=86400, description="How far a timestamp may lie in the future before the record is rejected."
    )


class StateConfig(Part):
    """What the agent writes. Without a path a thing is not written."""

    checkpoint: Path | None = Field(None, description="State and positions; what makes a crash a pause.")
    checkpoint_seconds: float = Field(10.0, ge=0.1, le=3600, description="Time between two checkpoints.")
    journal: Path | None = Field(None, description="Append-only record of alerts and decisions.")
    dead_letter: Path | None = Field(None, description="A bounded sample of the rejected lines.")
    spool: Path | None = Field(
        None,
        description="Folder in which what was posted, or came by standard input, is kept until a checkpoint has it.",
    )


class Config(Part):
    """Everything that the agent is told."""

    models: tuple[ModelConfig, ...] = Field(min_length=1, max_length=100)
    sources: tuple[AnySource, ...] = Field(min_length=1, max_length=1000)
    detection: DetectionConfig = DetectionConfig()
    limits: LimitsConfig = LimitsConfig()
    state: StateConfig = StateConfig()
    web: WebConfig = WebConfig()
    notify: Receivers = Field((), description="Who is told of alerts by the agent itself, where no Prometheus does it.")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            msg = "models: two models have the same name: give each its own"
            raise ValueError(msg)
        given = [source.name for source in self.sources]
        twice = next((name for name in given if given.count(name) > 1), None)
        if twice is not None:
            msg = f"sources: two sources read {twice}: every record would count twice"
            raise ValueError(msg)
        spooled = next((source for source in self.sources if source.kind in {"http", "stdin"}), None)
        if spooled is not None and (self.state.spool is None or self.state.checkpoint is None):
            lacks = "spool" if self.state.spool is None else "checkpoint"
            msg = f"sources: {spooled.name} needs `state.{lacks}`: what it takes is kept there until it is judged"
            raise ValueError(msg)
        largest = max((source.body_bytes for source in self.sources if source.kind == "http"), default=0)
        if self.limits.spool_bytes < 8 * largest:
            msg = f"limits: spool_bytes must be at least eight times the body_bytes of each source, {8 * largest} here"
            raise ValueError(msg)
        if not any(source.content == "predictions" for source in self.sources):
            msg = "sources: none has `content: predictions`: there is nothing to watch"
            raise ValueError(msg)
        return self


def load(path: Path) -> Config:
    """Read a configuration. Relative paths in it start from its own folder.

    Raises:
        ConfigError: one line per mistake, with the YAML path and the remedy.
    """
    config = read(path, Config, "`models` and `sources`")
    return _rooted(config, path.resolve().parent)


def dump(config: Config) -> str:
    """The effective configuration as YAML."""
    from io import StringIO  # noqa: PLC0415

    text = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(config.model_dump(mode="json"), text)
    return text.getvalue()


def _rooted(config: Config, folder: Path) -> Config:
    """The same configuration with absolute paths."""
    state = {
        name: folder / path
        for name in ("checkpoint", "journal", "dead_letter", "spool")
        if (path := getattr(config.state, name))
    }
    return config.model_copy(
        update={
            "models": tuple(_rooted_model(model, folder) for model in config.models),
            "sources": tuple(_rooted_source(source, folder) for source in config.sources),
            "state": config.state.model_copy(update=state),
            "web": config.web.model_copy(update={"config_file": folder / config.web.config_file})
            if config.web.config_file
            else config.web,
            "notify": tuple(rooted(receiver, folder) for receiver in config.notify),
        }
    )


def _rooted_source(source: AnySource, folder: Path) -> AnySource:
    match source:
        case FileSourceConfig():
            return source.model_copy(update={"path": folder / source.path})
        case HttpSourceConfig() if source.token_file is not None:
            return source.model_copy(update={"token_file": folder / source.token_file})
        case KafkaSourceConfig():
            return source.model_copy(update={"secrets": {key: folder / path for key, path in source.secrets.items()}})
    return source


def _rooted_model(model: ModelConfig, folder: Path) -> ModelConfig:
    endpoint = model.endpoint
    if endpoint is not None and endpoint.bearer_token_file is not None:
        endpoint = endpoint.model_copy(update={"bearer_token_file": folder / endpoint.bearer_token_file})
    served = model.served
    if served is not None and served.bearer_token_file is not None:
        served = served.model_copy(update={"bearer_token_file": folder / served.bearer_token_file})
    golden = model.golden
    if golden is not None:
        golden = golden.model_copy(update={"path": folder / golden.path})
    changed = {"reference": folder / model.reference, "endpoint": endpoint, "golden": golden, "served": served}
    return model.model_copy(update=changed)
