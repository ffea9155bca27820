"""From the published snapshot to what is answered."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from poisonwatch import __version__
from poisonwatch.judge.advice import next_steps, runbook
from poisonwatch.server.api.answers import (
    Affected,
    Agent,
    AlertAnswer,
    AlertStory,
    DecisionAnswer,
    EvidenceAnswer,
    ModelAnswer,
    OverrideAnswer,
    RollbackAnswer,
    VersionAnswer,
)
from poisonwatch.sinks.journal import rfc3339, trigger_entry
from poisonwatch.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.judge.aftermath import Rollback
    from poisonwatch.judge.override import Override
    from poisonwatch.sinks.snapshot import ModelSnapshot, Snapshot
    from poisonwatch.types import Alert, Decision, Evidence, Trigger

CODES = {Action.KEEP: 0, Action.HOLD: 1, Action.ROLLBACK: 2}
"""Decisions as numbers: the larger, the worse."""


def told_decision(snapshot: Snapshot, model: ModelSnapshot, decision: Decision) -> DecisionAnswer:
    """A decision with its story."""
    version = decision.model_version
    story = model.stories.get(version)
    override = next((one for one in model.overrides if one.model_version == version), None)
    rollback = next((one for one in model.rollbacks if one.model_version == version), None)
    return DecisionAnswer(
        model=decision.model,
        model_version=version,
        decision=decision.decision,
        code=CODES[decision.decision],
        reason=decision.reason,
        cause=decision.cause,
        since=rfc3339(decision.time),
        summary=decision.summary,
        onset=None if story is None else _instant(story.onset),
        affected=Affected(
            share=None if story is None else _finite(story.share),
            predictions=None if story is None else story.predictions,
        ),
        speaks_for=[] if story is None else list(story.speaks_for),
        against=[] if story is None else list(story.speaks_against),
        ruled_out=[] if story is None else list(story.ruled_out),
        would_change=[] if story is None else list(story.would_change),
        target=decision.target,
        target_because=None if story is None else story.target_because,
        alerts=list(decision.alerts),
        next=next_steps(decision, rollback),
        override=None if override is None else told_override(override),
        rollback=None if rollback is None else _told_rollback(rollback),
        evaluated_at=rfc3339(snapshot.time),
        agent=Agent(version=__version__),
    )


def told_override(override: Override) -> OverrideAnswer:
    """A person's decision."""
    return OverrideAnswer(
        model=override.model,
        model_version=override.model_version,
        decision=override.decision,
        author=override.author,
        reason=override.reason,
        made=rfc3339(override.time),
        expires=rfc3339(override.expires),
        target=override.target,
        user=override.user,
    )


def _told_rollback(rollback: Rollback) -> RollbackAnswer:
    return RollbackAnswer(
        state=rollback.state,
        target=rollback.target,
        receiver=rollback.receiver,
        decided=rfc3339(rollback.decided),
        since=rfc3339(rollback.time),
        traffic_share=rollback.traffic,
        summary=rollback.summary,
    )


def told_alert(model: ModelSnapshot, alert: Alert) -> AlertAnswer:
    """An open alert."""
    return AlertAnswer(
        fingerprint=alert.fingerprint,
        model=alert.model,
        model_version=alert.model_version,
        state=alert.state,
        severity=alert.severity,
        cause=alert.cause,
        group=alert.group,
        signal=alert.signal,
        subjects=list(alert.subjects),
        log_e=_finite(alert.log_e),
        effect=_finite(alert.effect),
        onset=rfc3339(alert.onset),
        second_onset=_instant(alert.second_onset),
        since=rfc3339(alert.time),
        predictions=alert.n,
        affected=_finite(alert.affected),
        summary=alert.summary,
        because=list(alert.because),
        against=list(alert.against),
        runbook=runbook(alert, model.decisions),
    )


def alert_story(snapshot: Snapshot, model: ModelSnapshot, alert: Alert) -> AlertStory:
    """An alert, what was decided on it, and what to do now: the steps of the worst decision first."""
    touched = [one for one in model.decisions if alert.model_version in {None, one.model_version}]
    decisions = [told_decision(snapshot, model, one) for one in touched]
    steps = [step for one in sorted(decisions, key=lambda one: -one.code) for step in one.next]
    told = told_alert(model, alert)
    read = f"Read docs/runbooks/{told.runbook}.md."
    return AlertStory(alert=told, decisions=decisions, next=[*dict.fromkeys([*steps, read])])


def told_version(model: ModelSnapshot, version: str) -> VersionAnswer:
    """What is known of a version that has been seen."""
    view = model.versions[version]
    facts = view.facts
    decision = next((one.decision for one in model.decisions if one.model_version == version), None)
    return VersionAnswer(
        model=model.model,
        model_version=version,
        decision=decision,
        predictions=facts.predictions,
        first_seen=rfc3339(facts.first_seen),
        last_seen=rfc3339(facts.last_seen),
        stable=facts.stable,
        elders=list(facts.elders),
        triggered=facts.triggered,
        labels=view.labels[0],
        contradicted=view.labels[1],
        distances={
            feature: {name: _finite(value) for name, value in of.items()} for feature, of in view.distances.items()
        },
    )


def told_model(model: ModelSnapshot) -> ModelAnswer:
    """What is known of a model."""
    return ModelAnswer(
        model=model.model,
        reference=model.reference,
        reference_predictions=model.reference_predictions,
        unproven=model.unproven,
        blind=dict(model.blind),
        versions=list(model.versions),
        decisions={one.model_version: one.decision for one in model.decisions},
        alerts=[alert.fingerprint for alert in model.alerts],
    )


def evidence_of(model: ModelSnapshot) -> Iterator[EvidenceAnswer]:
    """All evidence: of each version, then of the log as a whole."""
    for view in model.versions.values():
        yield from map(_told_evidence, view.evidence)
    yield from map(_told_evidence, model.lines)


def _told_evidence(evidence: Evidence) -> EvidenceAnswer:
    return EvidenceAnswer(
        model=evidence.model,
        model_version=evidence.model_version,
        group=evidence.group,
        signal=evidence.signal,
        log_e=_finite(evidence.log_e),
        effect=_finite(evidence.effect),
        floor=_finite(evidence.floor),
        n=evidence.n,
        onset=_instant(evidence.onset),
        second_onset=_instant(evidence.second_onset),
        subjects=list(evidence.subjects),
        compared_with=evidence.compared_with,
        signs=list(evidence.signs),
        told=evidence.told,
    )


def told_trigger(trigger: Trigger) -> dict[str, Any]:
    """An open trigger, with the fields of the journal."""
    return trigger_entry(trigger)


def _instant(time: float | None) -> str | None:
    return None if time is None or not math.isfinite(time) else rfc3339(time)


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number
