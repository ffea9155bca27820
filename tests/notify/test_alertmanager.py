"""The real Alertmanager: it takes our alerts, routes them as it does those of Prometheus, and says `resolved` only when we do."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from poisonwatch.config.notify import AlertmanagerConfig
from poisonwatch.notify.notices import closed, notices_of
from poisonwatch.notify.notifier import Notifier
from poisonwatch.types import Action, Alert, AlertState, Cause, Severity
from tests.notify.standing import alert, decision, model
from tests.system.paging import Alertmanager, Receiver
from tests.system.programs import fetch, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.notify.notices import Notice

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def hook() -> Iterator[Receiver]:
    """Whom Alertmanager tells."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory, hook: Receiver) -> Iterator[Alertmanager]:
    """The real one, with the shipped configuration in a hurry."""
    started = Alertmanager(tmp_path_factory.mktemp("alertmanager"), hook.url, 60)
    yield started
    started.close()


def shown(manager: Alertmanager, version: str) -> dict[str, dict[str, Any]]:
    """What Alertmanager takes for firing of a version, by the alert's name."""
    alerts = json.loads(fetch(f"http://{manager.address}/api/v2/alerts"))
    return {one["labels"]["alertname"]: one for one in alerts if one["labels"].get("model_version") == version}


def pushing(manager: Alertmanager) -> Notifier:
    """A notifier of this Alertmanager."""
    config = AlertmanagerConfig(
        kind="alertmanager",
        url=f"http://{manager.address}",
        resend_seconds=1.0,
        runbooks_url="https://runbooks.example.com",
        dashboards_url="https://grafana.example.com",
    )
    return Notifier([config])


def drift(version: str, now: float) -> Alert:
    """Inputs that moved an hour ago."""
    return alert(Cause.INPUT_DRIFT, version=version, severity=Severity.TICKET, group="inputs", time=now - 3600)


def test_a_page_goes_the_whole_way(manager: Alertmanager, hook: Receiver) -> None:
    """A rollback reaches the pager through the shipped routes and is updated in place; its end is told when the traffic left, and not when the agent stops."""
    now = time.time()
    notifier = pushing(manager)
    standing = [model([alert(version="v7", time=now - 60)], [decision(version="v7", time=now - 30)])]
    notifier.notify(now, notices_of(now, 0.0, standing))
    wait_for("the page", lambda: hook.alerts("PoisonwatchRollbackRecommended"))
    ((_, told),) = hook.alerts("PoisonwatchRollbackRecommended")[:1]
    assert told["labels"] == {
        "alertname": "PoisonwatchRollbackRecommended",
        "model": "mail",
        "model_version": "v7",
        "severity": "critical",
        "fingerprint": notices_of(now, 0.0, standing)[-1].fingerprint,
    }
    assert told["annotations"]["summary"] == "Roll back mail v7 to v1: backdoor."
    assert told["annotations"]["runbook_url"].endswith("/PoisonwatchRollbackRecommended.md")
    assert told["generatorURL"] == told["annotations"]["dashboard_url"]
    assert _seconds(told["startsAt"]) == pytest.approx(now - 30, abs=0.01)
    # Another target: the same alert with other words.
    other = [model([], [decision(version="v7", target=None, time=now)])]
    notifier.notify(now + 1, notices_of(now + 1, 0.0, other))
    wait_for(
        "the other words",
        lambda: (
            shown(manager, "v7")["PoisonwatchRollbackRecommended"]["annotations"]["summary"]
            == "Roll back mail v7: backdoor."
        ),
    )
    notifier.close()
    again = shown(manager, "v7")["PoisonwatchRollbackRecommended"]
    assert _seconds(again["endsAt"]) > time.time() + 86000
    assert _seconds(again["startsAt"]) == pytest.approx(now - 30, abs=0.01)
    # The agent comes back, says it again, and then that it is over.
    notifier = pushing(manager)
    notifier.notify(now + 2, notices_of(now + 2, 0.0, other))
    wait_for("taken", lambda: notifier.counts()[0].sent)
    kept = [model([], [decision(Action.HOLD, version="v7", time=now + 3, summary="bob holds v7: we look at it.")])]
    notifier.notify(now + 3, notices_of(now + 3, 0.0, kept))
    wait_for("the end", lambda: hook.alerts("PoisonwatchRollbackRecommended", "resolved"))
    ((_, end),) = hook.alerts("PoisonwatchRollbackRecommended", "resolved")[:1]
    assert end["annotations"]["description"] == "bob holds v7: we look at it."
    assert not shown(manager, "v7")
    notifier.close()


def test_each_thing_that_ends_ends_alone(manager: Alertmanager) -> None:
    """Of two alerts of a version the resolved one goes, and the other stays; one whose cause changed is another one."""
    now = time.time()
    notifier = pushing(manager)
    broken = alert(Cause.DATA_QUALITY, version="v8", severity=Severity.TICKET, group="quality", time=now - 3600)
    notifier.notify(now, notices_of(now, 0.0, [model([drift("v8", now), broken])]))
    wait_for("both", lambda: set(shown(manager, "v8")) == {"PoisonwatchInputDrift", "PoisonwatchDataQuality"})
    over = msgspec.structs.replace(drift("v8", now), state=AlertState.RESOLVED, time=now)
    notifier.notify(now + 1, notices_of(now + 1, 0.0, [model([broken])], [over]))
    wait_for("one", lambda: set(shown(manager, "v8")) == {"PoisonwatchDataQuality"})
    worse = alert(Cause.DEGRADATION, version="v8", group="quality", time=now - 3600)
    notifier.notify(now + 2, notices_of(now + 2, 0.0, [model([worse])]))
    wait_for("the other", lambda: set(shown(manager, "v8")) == {"PoisonwatchHarm"})
    assert notifier.counts()[0].failed == 0
    notifier.close()


def test_what_ended_in_the_future_has_ended(manager: Alertmanager) -> None:
    """Event time may run ahead of the clock: what is said to begin or end in a minute does so now, and is not refused."""
    now = time.time()
    notifier = pushing(manager)
    ahead: list[Notice] = notices_of(now, 0.0, [model([drift("v9", now + 3660)])])
    notifier.notify(now, ahead)
    wait_for("taken", lambda: shown(manager, "v9"))
    notifier.notify(now, [closed(ahead[0], now + 120)])
    wait_for("ended", lambda: not shown(manager, "v9"))
    assert notifier.counts()[0].failed == 0
    notifier.close()


def _seconds(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()
