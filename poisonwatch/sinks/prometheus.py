"""The metric catalogue, and the one collector that renders a snapshot by it.

Every family of the catalogue is always there, those whose labels are known from the start with a value of zero. Label values
come from logs: their number is bounded by the schema and the caps on versions, and the client escapes them.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from poisonwatch import __version__
from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.profile.indicators import CONFIDENCE, FLIPPED, OUTCOME
from poisonwatch.types import Action, AlertState, Severity, TriggerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from poisonwatch.monitor.machine import VersionView
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.sinks.snapshot import ModelSnapshot, Published, Snapshot

MOST_TOLD = 32
"""Open alerts of a model that are told in words, the gravest first; all of them are counted."""

LONGEST_TOLD = 600
"""Characters of a summary in a label. It may hold text from the log, for people to read."""

MOST_DISTANT = 20
"""Columns whose distances are exported: those that moved most."""

MINED = "triggers"
"""How a reference says in `blind` that it gives no ground to look for triggers."""

NEEDS = "needs"
"""The measure of a surrogate's quality that is a number of records."""

UNMATCHED = ("unknown_prediction", "outside_sample")
"""Reasons why a label met no prediction that every model exports from the start."""

PROBE_FAILURES = ("endpoint", "incomplete", "defect")
"""Reasons of failed requests that every model exports from the start."""

REASONS = ("malformed", "not_an_object", "wrong_type", "missing_timestamp", "missing_prediction", "too_long")
"""Reasons of rejection that every source exports from the start."""


class Described(NamedTuple):
    """One line of the catalogue."""

    kind: Callable[..., Any]
    help: str
    labels: tuple[str, ...] = ()


G, C, H = GaugeMetricFamily, CounterMetricFamily, HistogramMetricFamily
VERSION = ("model", "model_version")

CATALOGUE: dict[str, Described] = {
    "poisonwatch_decision": Described(G, "Recommendation for a model version: 1 for the one that holds.", (*VERSION, "decision")),
    "poisonwatch_decision_timestamp_seconds": Described(G, "Event time at which the decision was last changed.", VERSION),
    "poisonwatch_decision_info": Described(G, "The decision for a model version in words: why, and where a rollback leads.", (*VERSION, "decision", "reason", "cause", "target", "summary")),
    "poisonwatch_override_info": Described(G, "A person's decision that stands instead of the agent's.", (*VERSION, "decision", "author")),
    "poisonwatch_override_expiry_timestamp_seconds": Described(G, "Wall-clock time at which a person's decision ends.", VERSION),
    "poisonwatch_rollback": Described(G, "How far a rollback has come: 1 for the state that holds. `receiver` is the version that took the traffic, empty until one did.", (*VERSION, "target", "receiver", "state")),
    "poisonwatch_rollback_traffic_ratio": Described(G, "Share of the model's recent predictions that a version still gets from which to roll back.", VERSION),
    "poisonwatch_alerts": Described(G, "Open alerts by severity and state.", (*VERSION, "severity", "state")),
    "poisonwatch_alert_info": Described(G, "An open alert in words.", (*VERSION, "fingerprint", "cause", "severity", "state", "group", "summary")),
    "poisonwatch_alert_onset_timestamp_seconds": Described(G, "Event time at which what an open alert tells of began.", (*VERSION, "fingerprint")),
    "poisonwatch_alert_affected_ratio": Described(G, "Share of the version's predictions since the onset that are touched. Absent where it cannot be said.", (*VERSION, "fingerprint")),
    "poisonwatch_evidence_log": Described(G, "Evidence of a group of signals in nats: at 0 the false-page budget allows an alert.", (*VERSION, "group")),
    "poisonwatch_effect_log_odds": Described(G, "Size of the departure of a group's strongest indicator; 0 while its evidence is negligible.", (*VERSION, "group")),
    "poisonwatch_distance": Described(G, "Distance of recent predictions from the reference, for people to read; it raises no alert.", (*VERSION, "column", "distance")),
    "poisonwatch_predictions": Described(C, "Predictions that were judged, by predicted class.", (*VERSION, "class")),
    "poisonwatch_prediction_confidence_ratio": Described(H, "Confidence of the predictions, cut at the reference's quantiles.", VERSION),
    "poisonwatch_flips": Described(C, "Predictions of which the surrogate says another class.", VERSION),
    "poisonwatch_triggers": Described(G, "Open triggers by the version in which they surfaced and how far the evidence goes.", (*VERSION, "state")),
    "poisonwatch_triggered_predictions": Described(C, "Predictions that bear a trigger and got its class.", VERSION),
    "poisonwatch_trigger_mining_blind": Described(G, "Whether the reference gives no ground to look for triggers.", ("model",)),
    "poisonwatch_trigger_mining_saturated": Described(G, "Whether more triggers were found than are kept apart.", ("model",)),
    "poisonwatch_probes": Described(C, "Questions that the inference endpoint answered.", ("model",)),
    "poisonwatch_probe_failures": Described(C, "Requests to the inference endpoint that failed, by reason.", ("model", "reason")),
    "poisonwatch_probe_echoes": Described(C, "Predictions of the log that were the agent's own questions, and are left out of what is judged.", ("model",)),
    "poisonwatch_golden_accuracy_ratio": Described(G, "Accuracy on the verified inputs of the golden set, as last replayed.", VERSION),
    "poisonwatch_labels": Described(C, "Labels that came back and counted, by whether they agree with the prediction.", (*VERSION, "verdict")),
    "poisonwatch_feedback_unmatched": Described(C, "Labels that met no prediction, by reason.", ("model", "reason")),
    "poisonwatch_feedback_matched": Described(C, "Labels that met their prediction.", ("model",)),
    "poisonwatch_feedback_accused_sources": Described(G, "Sources of labels, and what they share, that are accused now.", ("model",)),
    "poisonwatch_feedback_agreement_ratio": Described(G, "Fleiss' kappa between the sources of labels, over predictions with several.", ("model",)),
    "poisonwatch_feedback_waiting_ratio": Described(G, "Share of the predictions that can meet their label: beyond the store's size they are sampled.", ("model",)),
    "poisonwatch_surrogate_quality_ratio": Described(G, "Quality of the surrogate on predictions that it was not fitted on.", ("model", "measure")),
    "poisonwatch_trigger_needs_records": Described(G, "Triggered records that a simulated trigger takes to surface. Absent where no number would do.", ("model",)),
    "poisonwatch_blind_info": Described(G, "What the reference gives no ground to watch.", ("model", "what")),
    "poisonwatch_baseline_displacement_log_odds": Described(G, "How far the rolling baseline has moved from the reference.", ("model",)),
    "poisonwatch_reference_unproven": Described(G, "Whether the reference was learned from live traffic.", ("model",)),
    "poisonwatch_reference_unfit": Described(G, "Whether the first labels refuted the reference's error rate.", ("model",)),
    "poisonwatch_last_prediction_timestamp_seconds": Described(G, "Largest event time of a version's predictions.", VERSION),
    "poisonwatch_reference_predictions": Described(G, "Predictions that the model's reference rests on.", ("model",)),
    "poisonwatch_reference_info": Described(G, "Identity of the model's reference.", ("model", "sha256")),
    "poisonwatch_predictions_late": Described(C, "Predictions that came after their window was judged; they are not in any profile.", ("model",)),
    "poisonwatch_coverage_ratio": Described(G, "Share of a model's predictions that entered a profile: of those its server counted lately, where it is asked; else of the lines read. Absent while unknown.", ("model",)),
    "poisonwatch_served": Described(C, "What the server says it served, where it is asked, since it was first asked. Of all versions where it does not name them.", VERSION),
    "poisonwatch_served_unseen": Described(C, "Of what was served, what no profile had when its delay was over.", VERSION),
    "poisonwatch_served_up": Described(G, "Whether the server's own count could be read and used the last time. Absent where none is asked.", ("model",)),
    "poisonwatch_served_learned": Described(G, "Whether it is known what share of the server's count is usual. Absent where none is asked.", ("model",)),
    "poisonwatch_duplicates": Described(C, "Predictions that came again and were counted once.", ("model",)),
    "poisonwatch_lines": Described(C, "Lines read from a source.", ("source",)),
    "poisonwatch_records": Described(C, "Predictions accepted from a source.", ("source",)),
    "poisonwatch_feedback": Described(C, "Labels accepted from a source.", ("source",)),
    "poisonwatch_records_rejected": Described(C, "Lines rejected, by reason.", ("source", "reason")),
    "poisonwatch_records_refused": Described(C, "What a source refused, or lost before it could be read, by reason.", ("source", "reason")),
    "poisonwatch_source_waiting": Described(G, "Requests or responses that wait for their other half.", ("source",)),
    "poisonwatch_faults": Described(C, "Values that were wrong or unknown in records that were accepted all the same.", ("source", "reason")),
    "poisonwatch_source_found": Described(G, "Whether the source's file is there.", ("source",)),
    "poisonwatch_source_lag_bytes": Described(G, "Bytes of the source that were not read yet.", ("source",)),
    "poisonwatch_source_last_record_timestamp_seconds": Described(G, "Largest event time that the source gave; 0 before the first record.", ("source",)),
    "poisonwatch_heartbeat_timestamp_seconds": Described(G, "Wall-clock time of the agent's last turn: stale means that nobody watches.", ()),
    "poisonwatch_start_timestamp_seconds": Described(G, "Wall-clock time at which the agent started.", ()),
    "poisonwatch_checkpoint_timestamp_seconds": Described(G, "Wall-clock time of the last checkpoint; 0 when there is none.", ()),
    "poisonwatch_checkpoint_failures": Described(C, "Checkpoints that could not be written.", ()),
    "poisonwatch_journal_failures": Described(C, "Writes to the journal that the disk refused.", ()),
    "poisonwatch_journal_unwritten": Described(G, "Entries of the journal that wait for the disk.", ()),
    "poisonwatch_dead_letters_lost": Described(C, "Samples of rejected lines that the disk refused.", ()),
    "poisonwatch_notifications": Described(C, "Messages that a receiver took from the agent itself.", ("receiver",)),
    "poisonwatch_notification_failures": Described(C, "Tries to tell a receiver that failed; most are tried again.", ("receiver",)),
    "poisonwatch_notifications_dropped": Described(C, "What a receiver was not told in the end: it refused it, or too much waited.", ("receiver",)),
    "poisonwatch_notifications_waiting": Described(G, "What waits for a receiver.", ("receiver",)),
    "poisonwatch_build_info": Described(G, "Version of poisonwatch and of Python.", ("version", "python_version")),
}  # fmt: skip


def registry_of(published: Published) -> CollectorRegistry:
    """A registry of its own, never the global one, with the collector over the published snapshot."""
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(published))
    return registry


class _SnapshotCollector(Collector):
    def __init__(self, published: Published) -> None:
        self._published = published

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not render."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family of the catalogue, in its order."""
        families = {name: _family(name, described) for name, described in CATALOGUE.items()}
        _add(families, "poisonwatch_build_info", (__version__, platform.python_version()), 1)
        snapshot = self._published.snapshot
        if snapshot is not None:
            _add_agent(families, snapshot)
            for model in snapshot.models:
                _add_model(families, model)
        yield from families.values()


def _family(name: str, described: Described) -> Any:
    return described.kind(name, described.help, labels=described.labels)


def _add(families: dict[str, Any], name: str, labels: tuple[str, ...], value: float) -> None:
    families[name].add_metric(labels, value)


def _add_agent(families: dict[str, Any], snapshot: Snapshot) -> None:
    counters = snapshot.counters
    _add(families, "poisonwatch_heartbeat_timestamp_seconds", (), snapshot.time)
    _add(families, "poisonwatch_start_timestamp_seconds", (), snapshot.started)
    _add(families, "poisonwatch_checkpoint_timestamp_seconds", (), snapshot.checkpoint or 0.0)
    _add(families, "poisonwatch_checkpoint_failures", (), snapshot.checkpoint_failures)
    _add(families, "poisonwatch_journal_failures", (), snapshot.journal_failures)
    _add(families, "poisonwatch_journal_unwritten", (), snapshot.journal_unwritten)
    _add(families, "poisonwatch_dead_letters_lost", (), snapshot.dead_letters_lost)
    for receiver in snapshot.receivers:
        _add(families, "poisonwatch_notifications", (receiver.name,), receiver.sent)
        _add(families, "poisonwatch_notification_failures", (receiver.name,), receiver.failed)
        _add(families, "poisonwatch_notifications_dropped", (receiver.name,), receiver.dropped)
        _add(families, "poisonwatch_notifications_waiting", (receiver.name,), receiver.waiting)
    for model in snapshot.models:
        _add(families, "poisonwatch_duplicates", (model.model,), counters.duplicates[model.model])
    for source in snapshot.sources:
        name = (source.name,)
        _add(families, "poisonwatch_lines", name, counters.lines[source.name])
        _add(families, "poisonwatch_records", name, counters.predictions[source.name])
        _add(families, "poisonwatch_feedback", name, counters.feedback[source.name])
        _add(families, "poisonwatch_source_found", name, float(source.found))
        _add(families, "poisonwatch_source_lag_bytes", name, source.lag_bytes)
        _add(families, "poisonwatch_source_waiting", name, counters.waiting[source.name])
        newest = source.newest if math.isfinite(source.newest) else 0.0
        _add(families, "poisonwatch_source_last_record_timestamp_seconds", name, newest)
        reasons = dict.fromkeys((*REASONS, *(reason for of, reason in counters.rejected if of == source.name)))
        for reason in reasons:
            count = counters.rejected[source.name, reason]
            _add(families, "poisonwatch_records_rejected", (source.name, reason), count)
    for (of, reason), count in counters.refused.items():
        _add(families, "poisonwatch_records_refused", (of, reason), count)
    for (of, reason), count in counters.faults.items():
        _add(families, "poisonwatch_faults", (of, reason), count)


def _add_model(families: dict[str, Any], model: ModelSnapshot) -> None:
    _add(families, "poisonwatch_reference_predictions", (model.model,), model.reference_predictions)
    _add(families, "poisonwatch_reference_info", (model.model, model.reference), 1)
    _add(families, "poisonwatch_predictions_late", (model.model,), model.late)
    _add_coverage(families, model)
    _add_feedback(families, model)
    _add_mining(families, model)
    for decision in model.decisions:
        version = (model.model, decision.model_version)
        for action in Action:
            _add(families, "poisonwatch_decision", (*version, action.value), float(action is decision.decision))
        _add(families, "poisonwatch_decision_timestamp_seconds", version, decision.time)
        cause = "" if decision.cause is None else decision.cause.value
        told = (decision.decision.value, decision.reason.value, cause, decision.target or "", _short(decision.summary))
        _add(families, "poisonwatch_decision_info", (*version, *told), 1)
    _add_alerts(families, model)
    _add_interventions(families, model)
    for name, view in model.versions.items():
        _add_version(families, model, name, view)
    for evidence in model.lines:
        _add_evidence(
            families, (model.model, evidence.model_version or ""), evidence.group, evidence.log_e, evidence.effect
        )


def _add_alerts(families: dict[str, Any], model: ModelSnapshot) -> None:
    for name in (*model.versions, ""):
        mine = [alert for alert in model.alerts if (alert.model_version or "") == name]
        for severity in Severity:
            for state in (AlertState.PENDING, AlertState.FIRING):
                count = sum(alert.severity is severity and alert.state is state for alert in mine)
                _add(families, "poisonwatch_alerts", (model.model, name, severity.value, state.value), count)
    gravest = sorted(
        model.alerts, key=lambda a: (a.severity is not Severity.PAGE, a.state is not AlertState.FIRING, a.fingerprint)
    )
    for alert in gravest[:MOST_TOLD]:
        version = (model.model, alert.model_version or "")
        told = (alert.cause.value, alert.severity.value, alert.state.value, alert.group, _short(alert.summary))
        _add(families, "poisonwatch_alert_info", (*version, alert.fingerprint, *told), 1)
        _add(families, "poisonwatch_alert_onset_timestamp_seconds", (*version, alert.fingerprint), alert.onset)
        if alert.affected is not None:
            _add(families, "poisonwatch_alert_affected_ratio", (*version, alert.fingerprint), alert.affected)


def _add_interventions(families: dict[str, Any], model: ModelSnapshot) -> None:
    """What people decided, and what became of rollbacks."""
    for override in model.overrides:
        version = (model.model, override.model_version)
        _add(families, "poisonwatch_override_info", (*version, override.decision.value, _short(override.author)), 1)
        _add(families, "poisonwatch_override_expiry_timestamp_seconds", version, override.expires)
    for rollback in model.rollbacks:
        version = (model.model, rollback.model_version)
        leads = (rollback.target or "", rollback.receiver or "")
        for state in RollbackState:
            _add(families, "poisonwatch_rollback", (*version, *leads, state.value), float(state is rollback.state))
        _add(families, "poisonwatch_rollback_traffic_ratio", version, rollback.traffic)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TOLD else text[: LONGEST_TOLD - 3] + "..."


def _add_coverage(families: dict[str, Any], model: ModelSnapshot) -> None:
    name, of = (model.model,), model.coverage
    if of is None:
        entered, lost = model.read
        _add(families, "poisonwatch_coverage_ratio", name, entered / (entered + lost) if entered + lost else 1.0)
        return
    if of.usable and of.ratio is not None:
        _add(families, "poisonwatch_coverage_ratio", name, of.ratio)
    _add(families, "poisonwatch_served_up", name, float(of.usable))
    _add(families, "poisonwatch_served_learned", name, float(of.ready))
    for version, counted in of.versions.items():
        _add(families, "poisonwatch_served", (model.model, version), counted.served)
        _add(families, "poisonwatch_served_unseen", (model.model, version), counted.missing)


def _add_feedback(families: dict[str, Any], model: ModelSnapshot) -> None:
    name, of = (model.model,), model.feedback
    _add(families, "poisonwatch_feedback_matched", name, of.matched)
    for reason in dict.fromkeys((*UNMATCHED, *of.unmatched)):
        _add(families, "poisonwatch_feedback_unmatched", (model.model, reason), of.unmatched.get(reason, 0))
    _add(families, "poisonwatch_feedback_accused_sources", name, of.accused)
    if of.agreement is not None:
        _add(families, "poisonwatch_feedback_agreement_ratio", name, of.agreement)
    _add(families, "poisonwatch_feedback_waiting_ratio", name, of.waiting_share)
    for measure, value in model.quality.items():
        if measure == NEEDS:
            _add(families, "poisonwatch_trigger_needs_records", (model.model,), value)
        else:
            _add(families, "poisonwatch_surrogate_quality_ratio", (model.model, measure), value)
    for what in model.blind:
        _add(families, "poisonwatch_blind_info", (model.model, what), 1)
    _add(families, "poisonwatch_baseline_displacement_log_odds", name, model.displacement)
    _add(families, "poisonwatch_reference_unproven", name, float(model.unproven))
    _add(families, "poisonwatch_reference_unfit", name, float(of.unfit))


def _add_mining(families: dict[str, Any], model: ModelSnapshot) -> None:
    """Counts only: what a trigger consists of is text from the log, and would be a label without bounds."""
    name, of = (model.model,), model.mining
    _add(families, "poisonwatch_trigger_mining_blind", name, float(MINED in model.blind))
    _add(families, "poisonwatch_trigger_mining_saturated", name, float(of.saturated))
    _add(families, "poisonwatch_probes", name, of.probes)
    _add(families, "poisonwatch_probe_echoes", name, of.echoes)
    for reason in dict.fromkeys((*PROBE_FAILURES, *of.probe_failures)):
        _add(families, "poisonwatch_probe_failures", (model.model, reason), of.probe_failures.get(reason, 0))
    states = [state for state in TriggerState if state is not TriggerState.ENDED]
    for version in dict.fromkeys((*model.versions, *(trigger.model_version for trigger in model.triggers))):
        found = Counter(trigger.state for trigger in model.triggers if trigger.model_version == version)
        for state in states:
            _add(families, "poisonwatch_triggers", (model.model, version, state.value), found[state])
        triggered = of.triggered.get(version, 0)
        _add(families, "poisonwatch_triggered_predictions", (model.model, version), triggered)
    for version, accuracy in of.golden.items():
        _add(families, "poisonwatch_golden_accuracy_ratio", (model.model, version), accuracy)


def _add_evidence(families: dict[str, Any], version: tuple[str, str], group: str, log_e: float, effect: float) -> None:
    _add(families, "poisonwatch_evidence_log", (*version, group), log_e)
    _add(families, "poisonwatch_effect_log_odds", (*version, group), effect)


def _add_classes(families: dict[str, Any], version: tuple[str, str], questions: Questions, view: VersionView) -> None:
    for row, column in enumerate(questions.code_columns):
        if column.name == OUTCOME:
            counts = view.totals[questions.code_place(row)]
            names = (*column.values, "(rare)", "(unseen)")
            by_class: Counter[str] = Counter()  # a class may itself be called `(rare)`
            for value, count in zip(names, counts[1:].tolist(), strict=True):
                by_class[value] += count
            for value, count in by_class.items():
                _add(families, "poisonwatch_predictions", (*version, value), count)
    if OUTCOME in questions.numbers:
        _add(families, "poisonwatch_predictions", (*version, "(number)"), int(view.totals[0]))


def _add_version(families: dict[str, Any], model: ModelSnapshot, name: str, view: VersionView) -> None:
    version = (model.model, name)
    _add(families, "poisonwatch_last_prediction_timestamp_seconds", version, view.facts.last_seen)
    for evidence in view.evidence:
        _add_evidence(families, version, evidence.group, evidence.log_e, evidence.effect)
    questions = model.questions
    labels, wrong = view.labels
    for verdict, count in (("right", labels - wrong), ("wrong", wrong)):
        _add(families, "poisonwatch_labels", (*version, verdict), count)
    flips = next((one for one in questions.indicators if one.signal.name == FLIPPED), None)
    if flips is not None:
        _add(families, "poisonwatch_flips", version, int(view.totals[flips.yes]))
    _add_classes(families, version, questions, view)
    if CONFIDENCE in questions.numbers:
        row = questions.numbers.index(CONFIDENCE)
        cuts = questions.cuts[row][np.isfinite(questions.cuts[row])]
        counts = view.totals[questions.cut_place(row)].tolist()
        total = int(view.totals[questions.present_place(row)])
        buckets = [*((repr(float(cut)), float(n)) for cut, n in zip(cuts, counts, strict=True)), ("+Inf", float(total))]
        families["poisonwatch_prediction_confidence_ratio"].add_metric(version, buckets, sum_value=None)
    ranked = sorted(view.distances.items(), key=lambda item: -item[1]["psi"])[:MOST_DISTANT]
    for column_name, found in ranked:
        for kind, distance in found.items():
            _add(families, "poisonwatch_distance", (*version, column_name, kind), distance)
