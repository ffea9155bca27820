"""Notices as Alertmanager's API v2 takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.notify.links import dashboard_url, runbook_url
from poisonwatch.sinks.journal import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.config.notify import AlertmanagerConfig
    from poisonwatch.notify.notices import Notice

PLACE = "/api/v2/alerts"

CRITICAL_LASTS = 86400.0
"""Seconds for which a page outlives an agent that is silent. Alertmanager says `resolved` when an alert is not told any more, and a dead agent must
not look like recovery; whoever was called has a day to act or to start it again."""

LASTS = 300.0
"""Seconds, at least, for which anything else does: nobody acts because a ticket ended."""

MISSED = 4.0
"""Tellings that may get lost before an alert ends by itself: as many as Prometheus allows."""


def body(config: AlertmanagerConfig, notices: Iterable[Notice], now: float) -> bytes:
    """What is posted to say of all notices how they stand at `now`, in Unix seconds."""
    return msgspec.json.encode([_alert(config, notice, now) for notice in notices])


def _alert(config: AlertmanagerConfig, notice: Notice, now: float) -> dict[str, Any]:
    labels = {
        **config.labels,
        "alertname": notice.name,
        "model": notice.model,
        "model_version": notice.model_version,
        "cause": notice.cause,
        "severity": notice.severity,
        "fingerprint": notice.fingerprint,
    }
    link = dashboard_url(config.dashboards_url, notice)
    annotations = {
        "summary": notice.summary,
        "description": notice.description,
        "runbook_url": runbook_url(config.runbooks_url, notice),
        "dashboard_url": link,
    }
    lasts = CRITICAL_LASTS if notice.severity == "critical" else max(LASTS, MISSED * config.resend_seconds)
    ends = now + lasts if notice.ended is None else min(notice.ended, now)
    told: dict[str, Any] = {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        # When it fired, as Prometheus does: the onset is an estimate that moves, and is told in words.
        "startsAt": rfc3339(min(notice.began, ends)),
        "endsAt": rfc3339(ends),
    }
    return told | ({"generatorURL": link} if link is not None else {})
