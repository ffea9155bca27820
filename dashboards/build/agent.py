"""The page of the agent itself: whether it lives, keeps up, loses something, and can write what it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders.dashboard import Row

from dashboards.build.looks import (
    GREEN,
    HEALTHY_FROM_ZERO,
    LEARNED,
    RED,
    UP,
    YELLOW,
    Column,
    Target,
    lines,
    rows,
    tiles,
)
from dashboards.build.page import new_page
from dashboards.build.queries import STALE, increase, of, rate

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

INSTANCE = "{{instance}}"


def page() -> Dashboard:
    """The dashboard with the uid `poisonwatch-agent`."""
    page = new_page(
        "poisonwatch / Agent",
        "poisonwatch-agent",
        "The watcher: is it alive, does it keep up with its logs, what does it reject, and can it write and notify.",
    )
    for add in (_alive, _reading, _losing, _writing, _asking):
        page = add(page)
    return page


def _alive(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Alive"))
        .with_panel(
            tiles(
                "Heartbeat",
                f"Time since the loop last turned. Beyond {STALE} s the decisions are old, also while the agent goes on answering. Empty: no "
                "agent answers.",
                Target(f"time() - {of('poisonwatch_heartbeat_timestamp_seconds')}", INSTANCE),
                unit="s",
                decimals=0,
                thresholds=((None, GREEN), (30.0, YELLOW), (float(STALE), RED)),
                no_value="NO AGENT",
                named=True,
            )
        )
        .with_panel(
            tiles(
                "Running for",
                "Time since the agent started. Small again and again: it is being restarted.",
                Target(f"time() - {of('poisonwatch_start_timestamp_seconds')}", INSTANCE),
                unit="dtdurations",
                decimals=0,
                thresholds=((None, YELLOW), (300.0, GREEN)),
                no_value="NO AGENT",
            )
        )
        .with_panel(
            tiles(
                "Checkpoint",
                "Time since the last checkpoint. What came after it is read again after a crash. Decades: there is none.",
                Target(f"time() - {of('poisonwatch_checkpoint_timestamp_seconds')}", INSTANCE),
                unit="s",
                decimals=0,
                thresholds=((None, GREEN), (300.0, YELLOW), (900.0, RED)),
            )
        )
        .with_panel(
            rows(
                "Versions",
                "What is running where.",
                Target(f"max by (instance, version, python_version) ({of('poisonwatch_build_info')})"),
                columns=(
                    Column("instance", "Instance"),
                    Column("version", "poisonwatch", width=100),
                    Column("python_version", "Python", width=75),
                ),
                hidden=("Value",),
                width=6,
                height=4,
            )
        )
        .with_panel(
            lines(
                "Heartbeat over time",
                f"Time since the loop last turned. The line is where the agent calls itself unhealthy: {STALE} s.",
                Target(f"time() - {of('poisonwatch_heartbeat_timestamp_seconds')}", INSTANCE),
                unit="s",
                least=0,
                line_at=(float(STALE), RED),
            )
        )
        .with_panel(
            lines(
                "Age of the checkpoint",
                "Time since the last checkpoint.",
                Target(f"time() - {of('poisonwatch_checkpoint_timestamp_seconds')}", INSTANCE),
                unit="s",
                least=0,
            )
        )
    )


def _reading(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Reading"))
        .with_panel(
            lines(
                "Lines",
                "Lines read per second, and what was accepted of them: predictions and labels.",
                Target(f"sum by (source) ({rate('poisonwatch_lines_total')})", "{{source}} lines"),
                Target(f"sum by (source) ({rate('poisonwatch_records_total')})", "{{source}} predictions"),
                Target(f"sum by (source) ({rate('poisonwatch_feedback_total')})", "{{source}} labels"),
                unit="cps",
                least=0,
            )
        )
        .with_panel(
            lines(
                "Not read yet",
                "Bytes of each source that wait to be read. Growing: the agent does not keep up.",
                Target(f"max by (instance, source) ({of('poisonwatch_source_lag_bytes')})", "{{source}}"),
                unit="bytes",
                least=0,
            )
        )
        .with_panel(
            tiles(
                "Sources",
                "Whether the file of each source is there.",
                Target(f"min by (source) ({of('poisonwatch_source_found')})", "{{source}}"),
                unit="none",
                mappings=UP,
                width=12,
                height=6,
                named=True,
            )
        )
        .with_panel(
            lines(
                "Age of the newest record",
                "Time between now and the largest event time that a source gave. Growing while there is traffic: the server does not log, or "
                "the agent does not keep up.",
                Target(
                    f"time() - max by (source) ({of('poisonwatch_source_last_record_timestamp_seconds')} > 0)",
                    "{{source}}",
                ),
                unit="s",
                least=0,
                height=6,
            )
        )
    )


def _losing(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Losing"))
        .with_panel(
            lines(
                "Rejected lines",
                "Lines that could not be used, by reason. The dead letters have samples.",
                Target(
                    f"sum by (source, reason) ({rate('poisonwatch_records_rejected_total')}) > 0",
                    "{{source}} {{reason}}",
                ),
                Target(
                    f"sum by (source, reason) ({rate('poisonwatch_records_refused_total')}) > 0",
                    "{{source}} refused: {{reason}}",
                ),
                unit="cps",
                least=0,
            )
        )
        .with_panel(
            lines(
                "Faults in records that were kept",
                "Values that were wrong or unknown, by reason: counted as missing.",
                Target(f"sum by (source, reason) ({rate('poisonwatch_faults_total')}) > 0", "{{source}} {{reason}}"),
                unit="cps",
                least=0,
            )
        )
        .with_panel(
            lines(
                "Late and doubled",
                "Predictions that came after their window was judged, which are in no profile, and those that came again, which count once.",
                Target(f"sum by (model) ({rate('poisonwatch_predictions_late_total')})", "{{model}} late"),
                Target(f"sum by (model) ({rate('poisonwatch_duplicates_total')})", "{{model}} doubled"),
                unit="cps",
                least=0,
            )
        )
        .with_panel(
            lines(
                "Halves that wait",
                "Requests or responses that wait for their other half.",
                Target(f"sum by (source) ({of('poisonwatch_source_waiting')})", "{{source}}"),
                unit="short",
                least=0,
            )
        )
    )


def _writing(page: Dashboard) -> Dashboard:
    receivers = "{{receiver}}"
    failed = (
        ("Checkpoints failed", "poisonwatch_checkpoint_failures_total", "Checkpoints that could not be written."),
        (
            "Journal writes refused",
            "poisonwatch_journal_failures_total",
            "Writes to the journal that the disk refused.",
        ),
        (
            "Dead letters lost",
            "poisonwatch_dead_letters_lost_total",
            "Samples of rejected lines that the disk refused.",
        ),
    )
    page = page.with_row(Row("Writing and telling"))
    for title, metric, description in failed:
        page = page.with_panel(
            tiles(
                title,
                f"{description} In the time range above.",
                Target(f"sum({increase(metric)})"),
                thresholds=HEALTHY_FROM_ZERO,
                decimals=0,
                width=6,
            )
        )
    return (
        page.with_panel(
            tiles(
                "Journal entries that wait",
                "Entries that wait for a disk that refuses them.",
                Target(f"sum({of('poisonwatch_journal_unwritten')})"),
                thresholds=HEALTHY_FROM_ZERO,
                width=6,
            )
        )
        .with_panel(
            lines(
                "Notifications",
                "What was delivered, what failed (and is tried again), and what was given up, per second. Empty where the agent "
                "notifies nobody itself.",
                Target(f"sum by (receiver) ({rate('poisonwatch_notifications_total')})", f"{receivers} delivered"),
                Target(f"sum by (receiver) ({rate('poisonwatch_notification_failures_total')})", f"{receivers} failed"),
                Target(
                    f"sum by (receiver) ({rate('poisonwatch_notifications_dropped_total')})", f"{receivers} given up"
                ),
                unit="cps",
                least=0,
            )
        )
        .with_panel(
            lines(
                "Notifications that wait",
                "What waits to be delivered. Growing: the receiver is down.",
                Target(f"sum by (receiver) ({of('poisonwatch_notifications_waiting')})", receivers),
                unit="short",
                least=0,
            )
        )
    )


def _asking(page: Dashboard) -> Dashboard:
    return (
        page.with_row(Row("Asking the servers"))
        .with_panel(
            lines(
                "Probes",
                "Questions to the inference endpoint that were answered, requests that failed, and predictions of the log that were the "
                "agent's own questions.",
                Target(f"sum by (model) ({rate('poisonwatch_probes_total')})", "{{model}} answered"),
                Target(
                    f"sum by (model, reason) ({rate('poisonwatch_probe_failures_total')})",
                    "{{model}} failed: {{reason}}",
                ),
                Target(f"sum by (model) ({rate('poisonwatch_probe_echoes_total')})", "{{model}} seen in the log"),
                unit="cps",
                least=0,
            )
        )
        .with_panel(
            tiles(
                "Server's own count",
                "Whether the count of the server could be read and used the last time. Empty where none is asked.",
                Target(f"min by (model) ({of('poisonwatch_served_up')})", "{{model}}"),
                unit="none",
                mappings=UP,
                no_value="not asked",
                height=8,
                width=6,
                named=True,
            )
        )
        .with_panel(
            tiles(
                "Usual share is known",
                "Whether it is known what share of the server's count is usual. Empty where none is asked.",
                Target(f"min by (model) ({of('poisonwatch_served_learned')})", "{{model}}"),
                unit="none",
                mappings=LEARNED,
                no_value="not asked",
                height=8,
                width=6,
                named=True,
            )
        )
    )
