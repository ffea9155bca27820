"""What is read of the published snapshot: models, versions, decisions, alerts, evidence, triggers, overrides, the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from poisonwatch.server.api.answers import (
    AlertAnswer,
    AlertStory,
    DecisionAnswer,
    EvidenceAnswer,
    JournalEntry,
    ModelAnswer,
    OverrideAnswer,
    TriggerAnswer,
    VersionAnswer,
)
from poisonwatch.server.api.operation import Operation
from poisonwatch.server.api.requests import Parameter, Refused
from poisonwatch.server.api.telling import (
    alert_story,
    evidence_of,
    told_alert,
    told_decision,
    told_model,
    told_override,
    told_trigger,
    told_version,
)
from poisonwatch.types import AlertState, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.server.api.requests import Asked
    from poisonwatch.sinks.snapshot import ModelSnapshot, Snapshot

MOST_ENTRIES = 256
"""Entries of the journal at a time: so many are at hand."""

USUAL_ENTRIES = 64

MODEL = Parameter("model", str, "Only this model.")
VERSION = Parameter("model_version", str, "Only this version.")
STATE = Parameter("state", AlertState, "Only alerts in this state.")
SEVERITY = Parameter("severity", Severity, "Only alerts of this severity.")
LIMIT = Parameter(
    "limit", Annotated[int, Meta(ge=1, le=MOST_ENTRIES)], f"The last so many; {USUAL_ENTRIES} by default."
)
KIND = Parameter("kind", Annotated[str, Meta(pattern="^[a-z_]+$", max_length=64)], "Only entries of this kind.")

VERSION_PATH = "/v1/models/{model}/versions/{version}"


def operations() -> list[Operation]:
    """What can be read."""
    by_version = (MODEL, VERSION)
    one, many = (404,), ()
    return [
        _get("/v1/models", "models", "All models that are watched.", list[ModelAnswer], _models, refusals=many),
        _get("/v1/models/{model}", "model", "One model.", ModelAnswer, _model, refusals=one),
        _get(
            "/v1/models/{model}/versions",
            "versions",
            "The versions of a model that have been seen.",
            list[VersionAnswer],
            _versions,
            refusals=one,
        ),
        _get(VERSION_PATH, "version", "One version.", VersionAnswer, _version, refusals=one),
        _get(
            f"{VERSION_PATH}/decision",
            "decision",
            "What to do with a version, and why.",
            DecisionAnswer,
            _decision,
            refusals=one,
        ),
        _get(
            "/v1/decisions",
            "decisions",
            "All decisions. What has none yet is on hold.",
            list[DecisionAnswer],
            _decisions,
            by_version,
            one,
        ),
        _get(
            "/v1/alerts",
            "alerts",
            "Alerts that are open.",
            list[AlertAnswer],
            _alerts,
            (*by_version, STATE, SEVERITY),
            one,
        ),
        _get(
            "/v1/alerts/{fingerprint}", "alert", "The whole story of one open alert.", AlertStory, _alert, refusals=one
        ),
        _get("/v1/evidence", "evidence", "All that was measured.", list[EvidenceAnswer], _evidence, by_version, one),
        _get("/v1/triggers", "triggers", "Triggers that are open.", list[TriggerAnswer], _triggers, by_version, one),
        _get(
            "/v1/overrides",
            "overrides",
            "What people decided, as long as it stands.",
            list[OverrideAnswer],
            _overrides,
            by_version,
            one,
        ),
        _get(
            "/v1/journal",
            "journal",
            "The end of the journal, the newest entry last.",
            list[JournalEntry],
            _journal,
            (LIMIT, KIND),
        ),
    ]


def _get(
    path: str,
    name: str,
    summary: str,
    answer: Any,
    read: Any,
    parameters: tuple[Parameter, ...] = (),
    refusals: tuple[int, ...] = (),
) -> Operation:
    async def act(asked: Asked) -> Any:
        return read(asked)

    return Operation("GET", path, name, summary, answer, act, parameters, refusals=refusals)


def model_of(snapshot: Snapshot | None, name: str) -> tuple[Snapshot, ModelSnapshot]:
    """A model that is watched, and the snapshot that it is of.

    Raises:
        Refused: when it is not.
    """
    snapshot = _turned(snapshot)
    for model in snapshot.models:
        if model.model == name:
            return snapshot, model
    known = ", ".join(model.model for model in snapshot.models) or "none"
    raise Refused(404, f"no model is called {name}; known: {known}")


def _turned(snapshot: Snapshot | None) -> Snapshot:
    """What was found, once anything was.

    Raises:
        Refused: before the first turn of the loop.
    """
    if snapshot is None:
        raise Refused(503, "the agent is starting: it has not turned once", **{"Retry-After": "1"})
    return snapshot


def decision_for(snapshot: Snapshot | None, model: str, version: str) -> DecisionAnswer:
    """The decision for a version.

    Raises:
        Refused: when there is none.
    """
    snapshot, found = model_of(snapshot, model)
    for decision in found.decisions:
        if decision.model_version == version:
            return told_decision(snapshot, found, decision)
    known = ", ".join(f"{model}/{decision.model_version}" for decision in found.decisions) or "none yet"
    raise Refused(404, f"no decision for {model}/{version}; known: {known}")


def _models(asked: Asked) -> list[ModelAnswer]:
    return [told_model(model) for model in _all(asked)]


def _model(asked: Asked) -> ModelAnswer:
    return told_model(model_of(asked.snapshot, asked.names["model"])[1])


def _versions(asked: Asked) -> list[VersionAnswer]:
    _, model = model_of(asked.snapshot, asked.names["model"])
    return [told_version(model, version) for version in model.versions]


def _version(asked: Asked) -> VersionAnswer:
    _, model = model_of(asked.snapshot, asked.names["model"])
    return told_version(model, _known_version(model, asked.names["version"]))


def _decision(asked: Asked) -> DecisionAnswer:
    return decision_for(asked.snapshot, asked.names["model"], asked.names["version"])


def _decisions(asked: Asked) -> list[DecisionAnswer]:
    snapshot, version = asked.snapshot, asked.parameters["model_version"]
    return [
        told_decision(snapshot, model, decision)
        for model in _chosen(asked)
        for decision in model.decisions
        if snapshot is not None and version in {None, decision.model_version}
    ]


def _alerts(asked: Asked) -> list[AlertAnswer]:
    wanted = asked.parameters
    return [
        told_alert(model, alert)
        for model in _chosen(asked)
        for alert in model.alerts
        if wanted["model_version"] in {None, alert.model_version}
        and wanted["state"] in {None, alert.state}
        and wanted["severity"] in {None, alert.severity}
    ]


def _alert(asked: Asked) -> AlertStory:
    wanted, snapshot = asked.names["fingerprint"], _turned(asked.snapshot)
    open_ = {alert.fingerprint: (model, alert) for model in snapshot.models for alert in model.alerts}
    if wanted not in open_:
        raise Refused(404, f"no open alert has the fingerprint {wanted}; open: {', '.join(open_) or 'none'}")
    return alert_story(snapshot, *open_[wanted])


def _evidence(asked: Asked) -> list[EvidenceAnswer]:
    version = asked.parameters["model_version"]
    return [found for model in _chosen(asked) for found in evidence_of(model) if version in {None, found.model_version}]


def _triggers(asked: Asked) -> list[dict[str, Any]]:
    version = asked.parameters["model_version"]
    return [
        told_trigger(trigger)
        for model in _chosen(asked)
        for trigger in model.triggers
        if version in {None, trigger.model_version}
    ]


def _overrides(asked: Asked) -> list[OverrideAnswer]:
    version = asked.parameters["model_version"]
    return [
        told_override(override)
        for model in _chosen(asked)
        for override in model.overrides
        if version in {None, override.model_version}
    ]


def _journal(asked: Asked) -> list[Mapping[str, Any]]:
    limit, kind = asked.parameters["limit"] or USUAL_ENTRIES, asked.parameters["kind"]
    entries = () if asked.snapshot is None else asked.snapshot.journal
    return [entry for entry in entries if kind in {None, entry["kind"]}][-limit:]


def _all(asked: Asked) -> tuple[ModelSnapshot, ...]:
    return () if asked.snapshot is None else asked.snapshot.models


def _chosen(asked: Asked) -> tuple[ModelSnapshot, ...]:
    """The models that the query is about: all where it names none, and those that have the version that it names.

    Raises:
        Refused: when it names one that is not there: what is misspelt must not look healthy.
    """
    name, version = asked.parameters["model"], asked.parameters["model_version"]
    models = _all(asked) if name is None else (model_of(asked.snapshot, name)[1],)
    if version is None:
        return models
    having = tuple(model for model in models if _has(model, version))
    if models and not having:
        _known_version(models[0], version)
    return having


def _has(model: ModelSnapshot, version: str) -> bool:
    """Was the version seen, or decided on?"""
    return version in model.versions or any(decision.model_version == version for decision in model.decisions)


def _known_version(model: ModelSnapshot, version: str) -> str:
    if version not in model.versions:
        known = ", ".join(model.versions) or "none yet"
        raise Refused(404, f"no version of {model.model} is called {version}; known: {known}")
    return version
