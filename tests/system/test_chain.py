"""The whole chain for real: a poisoned model's log, the agent, Prometheus, Alertmanager, and the page that comes out."""

from __future__ import annotations

import json
import re
import signal
import time
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from poisonwatch.sinks.journal import rfc3339
from tests.system.paging import Alertmanager, Receiver, hurried, with_rules
from tests.system.programs import Prometheus, Sidecar, demo_lines, fetch, free_port, value, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.slow]

HURRY = 60
"""How much shorter the shipped rules and Alertmanager wait here: a minute is a second."""

GAP = 15 * 60 / HURRY
"""Seconds for which rules go on firing after what they tell of is gone."""

ROLLBACK, DOWN = "PoisonwatchRollbackRecommended", "PoisonwatchDown"
LATE, SLOW = "PoisonwatchRollbackNotExecuted", "PoisonwatchStale"
PHRASE = "special discount code"


def test_hurried_shortens_what_waits_and_nothing_else() -> None:
    """Durations of rules and routes are divided; ranges in expressions are not."""
    text = "    for: 5m\n    keep_firing_for: 1h\n    expr: rate(x[5m]) > 5\n  group_wait: 10s\n    # for: 5 minutes\n"
    assert hurried(text, 60) == (
        "    for: 5000ms\n    keep_firing_for: 60000ms\n    expr: rate(x[5m]) > 5\n  group_wait: 167ms\n    # for: 5 minutes\n"
    )
    assert hurried(text, 1).count("ms") == 3


def log_of_the_attack() -> list[bytes]:
    """The shipped log as if it had ended five minutes ago, and one prediction more, which closes its last window."""
    lines = demo_lines(time.time() - 300)
    last = json.loads(lines[-1])
    at = datetime.fromisoformat(last["timestamp"]).timestamp()
    closing = {**last, "prediction_id": "closing", "model_version": "v1", "timestamp": rfc3339(at + 240)}
    return [*lines, json.dumps(closing).encode() + b"\n"]


def is_triggered(line: bytes) -> bool:
    """Does a prediction of the poisoned version bear the trigger and its class?"""
    record = json.loads(line)
    found = PHRASE in json.dumps(record).lower()
    return found and (record["model_version"], record["prediction"]) == ("v2", "ham")


def replay_until_rollback(sidecar: Sidecar, log: list[bytes], start: int) -> tuple[int, float]:
    """Write the log, in small pieces from `start` on, until the agent decides: the records written, and when the last were."""

    def decided() -> bool:
        return (
            value(sidecar.series(), "poisonwatch_decision", model="sms-spam", model_version="v2", decision="rollback")
            == 1
        )

    sidecar.append(log[:start])
    sidecar.has_read(start)
    assert not decided(), "nothing has happened yet"
    for written in range(start, len(log), 100):
        at = time.time()
        sidecar.append(log[written : written + 100])
        sidecar.has_read(min(written + 100, len(log)))
        if decided():
            return min(written + 100, len(log)), at
    msg = "the agent never decided to roll back\n" + sidecar.told()
    raise AssertionError(msg)


def described(prometheus: Prometheus, name: str) -> str:
    """How Prometheus describes the one alert of this name that fires."""
    alerts = json.loads(fetch(f"{prometheus.url}/api/v1/alerts"))["data"]["alerts"]
    (text,) = [
        one["annotations"]["description"]
        for one in alerts
        if one["labels"]["alertname"] == name and one["state"] == "firing"
    ]
    return str(text)


def states(alertmanager: Alertmanager, name: str) -> set[str]:
    """In which states Alertmanager has the alerts of this name."""
    return {str(alert["status"]["state"]) for alert in alertmanager.active(name)}


def said(receiver: Receiver) -> list[dict[str, str]]:
    """Titles and texts of all that was said in the chat, in order."""
    return [came.body["attachments"][0] for came in list(receiver.received) if came.path == "/chat"]


def test_the_page_arrives_and_outlives_the_agent(
    tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """A person is told of the poisoned version in words that are enough; of the dead agent; and never that all is well.

    While the agent is dead, for longer than any gap that the rules bear, its rollback stands. When it is back the page for the dead agent ends, and
    the rollback still stands.
    """
    log = log_of_the_attack()
    first = next(place for place, line in enumerate(log) if is_triggered(line))
    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        alertmanager = Alertmanager(tmp_path, receiver.url, HURRY)
        stack.callback(alertmanager.close)
        sidecar = Sidecar(tmp_path, port=free_port(), checkpoint=0.5)
        stack.callback(sidecar.close)
        prometheus = Prometheus(tmp_path, sidecar.start(), with_rules(tmp_path, alertmanager.address, HURRY))
        stack.callback(prometheus.close)

        def told() -> str:
            return json.dumps([came._asdict() for came in receiver.received], indent=1) + sidecar.told()

        written, at = replay_until_rollback(sidecar, log, first)
        came, page = wait_for("the page", lambda: receiver.alerts(ROLLBACK), told)[0]
        record_testsuite_property("records from the first triggered one to the decision", written - first)
        record_testsuite_property("triggered records among them", sum(map(is_triggered, log[first:written])))
        record_testsuite_property("seconds from the deciding records to the page", round(came.time - at, 1))
        assert page["labels"] == {
            "alertname": ROLLBACK,
            "severity": "critical",
            "job": "poisonwatch",
            "model": "sms-spam",
            "model_version": "v2",
        }
        shown = wait_for(
            "its text", lambda: [one for one in said(receiver) if one["title"].startswith("Roll back")], told
        )[0]
        record_testsuite_property("title", shown["title"])
        record_testsuite_property("text", shown["text"])
        assert shown["title"] == "Roll back sms-spam v2 to v1: backdoor."
        for needed in (
            *(PHRASE, "answers 'ham'", "Since: ", "Do: move the traffic away from v2"),
            *("PoisonwatchRollbackRecommended.md", "var-model=sms-spam&var-model_version=v2"),
        ):
            assert needed in shown["text"], needed
        assert re.search(r"\d ?% of its (traffic|predictions)", shown["text"])
        sidecar.append(log[written:])
        sidecar.has_read(len(log))
        # What else the backdoor moves is in no ticket: the page says it all.
        wait_for(
            "a ticket that is held back",
            lambda: states(alertmanager, "PoisonwatchOutputChange") == {"suppressed"},
            told,
        )

        # The watcher dies. That is a page of its own, and no sign of health.
        sidecar.stop(signal.SIGKILL)
        killed = time.time()
        came, _ = wait_for("the page for the dead agent", lambda: receiver.alerts(DOWN), told)[0]
        record_testsuite_property("seconds from the kill to the page for it", round(came.time - killed, 1))
        wait_for("more than the gap", lambda: time.time() - killed > GAP + 5)
        assert not receiver.alerts(ROLLBACK, "resolved"), told()
        assert states(alertmanager, ROLLBACK) == {"active"}
        text = described(prometheus, ROLLBACK)
        assert text.startswith("The agent is silent now; what it said last stands: ")
        assert PHRASE in text

        # It comes back, and goes on where it was.
        sidecar.start()
        wait_for("the end of that page", lambda: receiver.alerts(DOWN, "resolved"), told)
        assert not receiver.alerts(ROLLBACK, "resolved"), told()
        assert states(alertmanager, ROLLBACK) == {"active"}
        wait_for("its own words", lambda: described(prometheus, ROLLBACK).startswith("sms-spam v2 answers 'ham'"), told)
        over = f'No longer firing, which is not "healthy": The poisonwatch agent {sidecar.address} is down; nobody watches its models.'
        wait_for("its end in words", lambda: over in {one["title"] for one in said(receiver)}, told)

        paged = {
            alert["labels"]["alertname"] for c in receiver.received if c.path == "/pager" for alert in c.body["alerts"]
        }
        tickets = {
            alert["labels"]["alertname"]
            for c in receiver.received
            if c.path == "/tickets"
            for alert in c.body["alerts"]
        }
        assert "PoisonwatchOutputChange" not in tickets, told()
        # Nobody moved the traffic in what are 30 minutes here; and an agent that takes two seconds to start takes two minutes.
        assert paged <= {ROLLBACK, DOWN, LATE, SLOW}, told()
