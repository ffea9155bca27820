"""The page to look at first: what the decision is now, for whom, since when, why, and whether the watcher is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders.dashboard import Row

from dashboards.build.looks import (
    DECISION_NAMES,
    DECISIONS,
    GREEN,
    HEALTHY_FROM_ZERO,
    MODEL_PAGE,
    RED,
    ROLLBACK_STATES,
    SEVERITIES,
    YELLOW,
    Column,
    Target,
    lines,
    rows,
    tiles,
)
from dashboards.build.page import chosen, new_page
from dashboards.build.queries import DEEP, SAME, STALE, decision, of, out_of_reach, rate, with_the_log

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

MODELS = "=~$model"
BY_VERSION = "{{model}} {{model_version}}"
SINCE = "dateTimeAsIsoNoDateIfToday"


def page() -> Dashboard:
    """The dashboard with the uid `poisonwatch-overview`."""
    page = new_page(
        "poisonwatch / Overview",
        "poisonwatch-overview",
        "What to do with every watched model version now, and why. Start here when you were paged.",
    ).with_variable(
        chosen(
            "model",
            "Model",
            'poisonwatch_decision{job=~"$job", instance=~"$instance"}',
            several=True,
            description="Models that are watched.",
        )
    )
    page = _now(page)
    page = _alerts(page)
    page = _course(page)
    return _people(page)


def _now(page: Dashboard) -> Dashboard:
    heartbeat = of("poisonwatch_heartbeat_timestamp_seconds")
    return (
        page.with_row(Row("Now"))
        .with_panel(
            tiles(
                "Decision",
                "What to do with each version now. KEEP: nothing speaks against it. HOLD: promote nothing, look. ROLLBACK: send its "
                f"traffic to the target below. STALE: the agent's loop has not turned for {STALE} s, so nobody knows. Empty: no agent "
                "answers, which never means that all is well.",
                Target(f"sort_desc({decision(model=MODELS)})", BY_VERSION),
                unit="none",
                width=12,
                height=6,
                mappings=DECISIONS,
                named=True,
                no_value="NOBODY WATCHES",
            )
        )
        .with_panel(
            tiles(
                "Pages firing",
                "Alerts that are worth waking somebody: the evidence is beyond the budget of false pages.",
                Target(f"sum({of('poisonwatch_alerts', model=MODELS, severity='page', state='firing')})"),
                width=3,
                height=6,
                thresholds=HEALTHY_FROM_ZERO,
                no_value="NO DATA",
            )
        )
        .with_panel(
            tiles(
                "Tickets firing",
                "Alerts that can wait for the morning.",
                Target(f"sum({of('poisonwatch_alerts', model=MODELS, severity='ticket', state='firing')})"),
                width=3,
                height=6,
                thresholds=((None, GREEN), (1.0, YELLOW)),
                no_value="NO DATA",
            )
        )
        .with_panel(
            tiles(
                "Heartbeat",
                f"Seconds since the loop of the slowest agent last turned. Beyond {STALE} s its decisions are old. Empty: no agent "
                "answers.",
                Target(f"max(time() - {heartbeat})"),
                unit="s",
                width=3,
                height=6,
                decimals=0,
                thresholds=((None, GREEN), (30.0, YELLOW), (float(STALE), RED)),
                no_value="NO AGENT",
            )
        )
        .with_panel(
            tiles(
                "Out of reach",
                "Agents that Prometheus could not scrape the last time, and could within the last day.",
                Target(out_of_reach()),
                width=3,
                height=6,
                thresholds=HEALTHY_FROM_ZERO,
            )
        )
        .with_panel(
            rows(
                "Why, since when, and where to",
                "The decision for every version with its reason. `Since` is the time of the predictions, in your time zone. The target is "
                "the version to send the traffic to.",
                Target(
                    "max by (model, model_version, decision, reason, cause, target, summary) ("
                    f"{of('poisonwatch_decision_info', model=MODELS)} * on ({SAME}) group_left () "
                    f"{of('poisonwatch_decision_timestamp_seconds', model=MODELS)}) * 1000"
                ),
                columns=(
                    Column("model", "Model", width=110, link=MODEL_PAGE),
                    Column("model_version", "Version", width=70),
                    Column("decision", "Decision", width=105, mappings=DECISION_NAMES),
                    Column("target", "Target", width=70),
                    Column("Value", "Since", width=165, unit=SINCE),
                    Column("reason", "Reason", width=150),
                    Column("cause", "Cause", width=105),
                    Column("summary", "In words", wraps=True),
                ),
                height=8,
                no_value="No agent answers: nobody watches.",
                sorted_by=(("Since", True),),
            )
        )
    )


def _alerts(page: Dashboard) -> Dashboard:
    labels = "model, model_version, severity, state, cause, group, fingerprint, summary"
    told, key = of("poisonwatch_alert_info", model=MODELS), f"on ({SAME}, fingerprint) group_left ()"
    return page.with_row(Row("Open alerts")).with_panel(
        rows(
            "Open alerts, with their story",
            "What happened, since when, to how many predictions, and what to do. `poisonwatch explain FINGERPRINT` tells more. An empty "
            "version: it concerns the log as a whole.",
            Target(
                f"max by ({labels}) ({told} * {key} {of('poisonwatch_alert_onset_timestamp_seconds', model=MODELS)}) * 1000"
            ),
            Target(f"max by ({labels}) ({told} * {key} {of('poisonwatch_alert_affected_ratio', model=MODELS)})"),
            columns=(
                Column("severity", "Severity", width=75, mappings=SEVERITIES),
                Column("state", "State", width=75),
                Column("model", "Model", width=110, link=MODEL_PAGE),
                Column("model_version", "Version", width=70),
                Column("cause", "Cause", width=120),
                Column("Value #A", "Began", width=165, unit=SINCE),
                Column("Value #B", "Touched", width=80, unit="percentunit", decimals=1, no_value="unknown"),
                Column("fingerprint", "Fingerprint", width=148),
                Column("summary", "In words", wraps=True),
            ),
            hidden=("group",),
            height=13,
            no_value="No alert is open.",
            sorted_by=(("Severity", False), ("Began", False)),
        )
    )


def _course(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("How it went"))
        .with_panel(
            lines(
                "Decision over time",
                "0 keep, 1 hold, 2 rollback, 3 stale.",
                Target(decision(model=MODELS), BY_VERSION),
                unit="none",
                mappings=DECISIONS,
                least=0,
                most=3,
                decimals=0,
                stepped=True,
            )
        )
        .with_panel(
            lines(
                "Strongest evidence of each version",
                "The strongest group of signals, in nats: at 0 (red from there on) the budget of false pages allows an alert; -2.3 is a "
                "tenth of the way. The page of the model tells the groups apart.",
                Target(
                    with_the_log(f"max by (model, model_version) ({of('poisonwatch_evidence_log', model=MODELS)})"),
                    BY_VERSION,
                ),
                unit="none",
                decimals=1,
                line_at=(0.0, RED),
                least=DEEP,
                axis="nats",
            )
        )
        .with_panel(
            lines(
                "Predictions per second",
                "Predictions that were judged. Windows are judged as a whole, so this lags behind by about two minutes. A rollback shows "
                "here as traffic that moves.",
                Target(
                    f"sum by (model, model_version) ({rate('poisonwatch_predictions_total', model=MODELS)})", BY_VERSION
                ),
                unit="reqps",
                least=0,
                stacked=True,
            ).interval("2m")
        )
        .with_panel(
            lines(
                "Predictions touched by open alerts",
                "Share of the version's predictions since the onset that an alert concerns: the strongest alert of each version.",
                Target(
                    f"max by (model, model_version) ({of('poisonwatch_alert_affected_ratio', model=MODELS)})",
                    BY_VERSION,
                ),
                unit="percentunit",
                least=0,
            )
        )
    )


def _people(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Rollbacks and overrides"))
        .with_panel(
            rows(
                "Rollbacks",
                "What became of each rollback that was decided. Awaited: traffic still goes to the bad version. Moved: it left, the symptom "
                "is still watched. Verified: the version that took it is healthy. Failed: the symptom went on in that version, so the one "
                "that was rolled back was not the cause, or not the only one.",
                Target(
                    "max by (model, model_version, target, receiver, state) ("
                    f"({of('poisonwatch_rollback', model=MODELS)} == 1) * on ({SAME}) group_left () "
                    f"{of('poisonwatch_rollback_traffic_ratio', model=MODELS)})"
                ),
                columns=(
                    Column("model", "Model", width=120, link=MODEL_PAGE),
                    Column("model_version", "From", width=90),
                    Column("target", "To", width=90),
                    Column("receiver", "Taken by", width=90),
                    Column("state", "State", width=120, mappings=ROLLBACK_STATES),
                    Column("Value", "Traffic still there", unit="percentunit", decimals=1),
                ),
                width=12,
                no_value="No rollback is being watched.",
            )
        )
        .with_panel(
            rows(
                "Overrides by people",
                "Decisions that a person made in the agent's place, until when. The journal has their reasons.",
                Target(
                    "max by (model, model_version, decision, author) ("
                    f"{of('poisonwatch_override_info', model=MODELS)} * on ({SAME}) group_left () "
                    f"{of('poisonwatch_override_expiry_timestamp_seconds', model=MODELS)}) * 1000"
                ),
                columns=(
                    Column("model", "Model", width=120, link=MODEL_PAGE),
                    Column("model_version", "Version", width=90),
                    Column("decision", "Decision", width=105, mappings=DECISION_NAMES),
                    Column("author", "Author", width=140),
                    Column("Value", "Ends", unit=SINCE),
                ),
                width=12,
                no_value="No override stands.",
            )
        )
        .with_panel(
            lines(
                "Traffic that a version to be rolled back still gets",
                "Share of the model's recent predictions. It falls to zero when the rollback has been done.",
                Target(
                    f"max by (model, model_version) ({of('poisonwatch_rollback_traffic_ratio', model=MODELS)})",
                    BY_VERSION,
                ),
                unit="percentunit",
                least=0,
                width=24,
                height=6,
            )
        )
    )
