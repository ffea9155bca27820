"""A real agent with receivers: who comes to an old log is told what stands, once, and neither a receiver nor a stop changes what is true."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

import pytest

from poisonwatch.assemble import sidecar
from poisonwatch.config import load
from poisonwatch.notify.notices import ROLLBACK_WAITS
from tests.dashboards.history import demo_log, lay_out, settle
from tests.notify.receiving import Receiver
from tests.system.programs import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.agent import App
    from tests.notify.receiving import Came

CONFIG = """\
models: [{{name: sms-spam, reference: reference.ndjson}}]
sources: [{{path: predictions.ndjson}}]
state: {{journal: journal.jsonl, dead_letter: dead.jsonl}}
notify:
  - {{kind: webhook, name: on-call, url: "{url}", secret_file: secret}}
  - {{kind: alertmanager, name: hangs, url: "{hangs}"}}
"""

ADVISED, NOT_EXECUTED = "PoisonwatchRollbackRecommended", "PoisonwatchRollbackNotExecuted"


def pages(came: list[Came]) -> list[tuple[str, str]]:
    """What somebody was called for."""
    told = [message.json for message in came]
    return [(one["data"]["name"], one["type"]) for one in told if one["data"]["severity"] == "critical"]


def told(app: App, now: float) -> bool:
    """Does nothing wait for who is called?"""
    app.publish(now)
    assert app.published.snapshot is not None
    (waiting,) = (one.waiting for one in app.published.snapshot.receivers if one.name == "on-call")
    return not waiting


@pytest.mark.slow
def test_an_old_log_is_told_once_and_a_stop_is_no_end(tmp_path: Path) -> None:
    """The page comes, though another receiver hangs; half an hour counts from when the agent could tell; nothing is told as over."""
    (tmp_path / "secret").write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}\n")
    with Receiver() as receiver, Receiver(lambda _: None) as hanging:
        lay_out(tmp_path, CONFIG.format(url=f"{receiver.url}/hook", hangs=hanging.url))
        (tmp_path / "predictions.ndjson").write_bytes(b"".join(line for _, line in demo_log()))
        app, _ = sidecar(load(tmp_path / "config.yaml"), lambda _: None)
        began = time.time()
        app.start(began)
        settle(app, began)
        app.publish(began)
        first = receiver.has(1)[0].json
        assert hanging.has(1)
        assert (first["data"]["name"], first["type"], first["data"]["model_version"]) == (ADVISED, "alert.firing", "v2")
        assert "special discount code xyz" in first["data"]["description"]
        assert first["data"]["decision"]["target"] == "v1"
        wait_for("all to be told", lambda: told(app, began + ROLLBACK_WAITS - 1), lambda: str(receiver.came))
        assert pages(receiver.came) == [(ADVISED, "alert.firing")]
        app.publish(began + ROLLBACK_WAITS)
        app.close(began + ROLLBACK_WAITS)
        assert pages(receiver.came) == [(ADVISED, "alert.firing"), (NOT_EXECUTED, "alert.firing")]
        assert {message.json["type"] for message in receiver.came} == {"alert.firing"}
        ids = [message.headers["webhook-id"] for message in receiver.came]
        assert len(ids) == len(set(ids))
