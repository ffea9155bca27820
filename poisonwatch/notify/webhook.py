"""A notice as a signed message, after the Standard Webhooks specification.

Its libraries would be a dependency for the ten lines of `signatures`; receivers can check with any of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch import __version__
from poisonwatch.config.http_client import secret_in
from poisonwatch.errors import ConfigError
from poisonwatch.notify.links import dashboard_url, runbook_url
from poisonwatch.sinks.journal import alert_entry, decision_entry, rfc3339, rollback_entry

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.config.notify import WebhookConfig
    from poisonwatch.notify.notices import Notice

PREFIX = "whsec_"
MOST_SECRETS = 2


def message(config: WebhookConfig, notice: Notice) -> bytes:
    """The body that tells of a notice."""
    state = "firing" if notice.ended is None else "resolved"
    return msgspec.json.encode(
        {
            "version": 1,
            "id": notice.id,
            "type": f"alert.{state}",
            "timestamp": rfc3339(notice.began if notice.ended is None else notice.ended),
            "data": {
                "name": notice.name,
                "state": state,
                "fingerprint": notice.fingerprint,
                "severity": notice.severity,
                "model": notice.model,
                "model_version": notice.model_version,
                "cause": notice.cause or (notice.decision.cause if notice.decision is not None else None),
                "labels": config.labels,
                "began": rfc3339(notice.began),
                "ended": None if notice.ended is None else rfc3339(notice.ended),
                "summary": notice.summary,
                "description": notice.description,
                "runbook_url": runbook_url(config.runbooks_url, notice),
                "dashboard_url": dashboard_url(config.dashboards_url, notice),
                "alert": None if notice.alert is None else _told(alert_entry(notice.alert), notice.alert.time),
                "decision": _decision(notice),
                "rollback": None
                if notice.rollback is None
                else _told(rollback_entry(notice.rollback), notice.rollback.time),
            },
            "agent": {"version": __version__},
        }
    )


def _decision(notice: Notice) -> dict[str, Any] | None:
    if notice.decision is None or notice.story is None:
        return None
    return _told(decision_entry(notice.decision, notice.story), notice.decision.time)


def _told(entry: dict[str, Any], time: float) -> dict[str, Any]:
    """What the journal says of it."""
    return {name: value for name, value in entry.items() if name != "kind"} | {"time": rfc3339(time)}


def headers(config: WebhookConfig, notice: Notice, body: bytes, now: float) -> dict[str, str]:
    """What says who sent a body, when, and that nobody changed it.

    Raises:
        ConfigError: when the secret cannot be read, or is none.
    """
    at = str(int(now))
    return {
        "webhook-id": notice.id,
        "webhook-timestamp": at,
        "webhook-signature": signatures(secrets_of(config.secret_file), notice.id, at, body),
    }


def signatures(secrets: list[bytes], identity: str, timestamp: str, body: bytes) -> str:
    """A signature by each secret, as the header has them."""
    signed = b".".join((identity.encode(), timestamp.encode(), body))
    return " ".join(
        f"v1,{base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()}" for secret in secrets
    )


def secrets_of(path: Path) -> list[bytes]:
    """The secrets of a file, one or two.

    Raises:
        ConfigError: when it cannot be read, or has anything else in it.
    """
    lines = secret_in(path).split()
    try:
        secrets = [base64.b64decode(line.removeprefix(PREFIX), validate=True) for line in lines]
    except ValueError:
        secrets = []
    good = all(line.startswith(PREFIX) for line in lines) and all(24 <= len(secret) <= 64 for secret in secrets)
    if not good or not 1 <= len(secrets) <= MOST_SECRETS:
        msg = f"{path}: a secret is {PREFIX} and base64 of 24 to 64 random bytes, one a line and at most {MOST_SECRETS}: make one anew"
        raise ConfigError(msg)
    return secrets
