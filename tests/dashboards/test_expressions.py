"""Every expression of every panel, asked of a real Prometheus that has seen an attack."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.expressions import Expression, Json, expressions, filled
from tests.dashboards.history import SCRAPE

if TYPE_CHECKING:
    from tests.dashboards.stored import Stored

pytestmark = [pytest.mark.system, pytest.mark.slow]

HERE = Path(__file__).parents[2] / "dashboards"
PAGES: dict[str, Json] = {
    name: json.loads((HERE / f"{name}.json").read_text()) for name in ("overview", "model", "agent")
}
ASKED = [one for page in PAGES.values() for one in expressions(page)]

VALUES = {
    "job": ".+",
    "instance": ".+",
    "model": "sms-spam",
    "model_version": "(v1|v2)",
    "__rate_interval": f"{4 * SCRAPE:.0f}s",
    "__range": "2h",
}
"""The variables as Grafana would fill them in; several values of one become such a pattern."""

_PUSHED = "only a source that is pushed to refuses anything; it is counted from its first refusal on"
_TOLD = "here Prometheus notifies, not the agent: it has no receivers"
NOT_HERE = {
    ("Rejected lines", "B"): _PUSHED,
    ("Notifications", "A"): _TOLD,
    ("Notifications", "B"): _TOLD,
    ("Notifications", "C"): _TOLD,
    ("Notifications that wait", "A"): _TOLD,
}
"""Panels (title, letter of the target) that this story leaves empty, and why; each is run all the same."""


EMPTY = frozenset(["Notifications", "Notifications that wait"])
"""Titles of panels in which nothing at all is seen in this story."""


def _id(one: Expression) -> str:
    return f"{one.page.removeprefix('poisonwatch-')}-{one.place}-{one.letter}"


@pytest.mark.parametrize("one", ASKED, ids=_id)
def test_has_an_answer(prometheus: Stored, one: Expression) -> None:
    """Prometheus answers without an error or a warning; there are values, all of them finite."""
    text = filled(one.text, VALUES)
    answer = prometheus.now(text) if one.instant else prometheus.over_time(text, SCRAPE)
    assert answer["status"] == "success", answer
    assert not answer.get("warnings"), answer
    assert not answer.get("infos"), answer
    found = answer["data"]["result"]
    assert bool(found) is ((one.place, one.letter) not in NOT_HERE), text
    values = [float(value) for series in found for _, value in series.get("values") or [series["value"]]]
    assert all(math.isfinite(value) for value in values), text
    # A panel with a few hundred series is none.
    assert len(found) <= 60, text


@pytest.mark.parametrize("one", ASKED, ids=_id)
def test_answers_nothing_for_another_model_or_agent(prometheus: Stored, one: Expression) -> None:
    """The variables above the dashboard select: a model or an agent that is not there shows nothing of one that is."""
    other = ("model" if "$model" in one.text else "instance") if one.place != "Out of reach" else None
    if other is not None:
        text = filled(one.text, {**VALUES, other: "another"})
        assert prometheus.now(text)["data"]["result"] == [], text


def tell(prometheus: Stored, page: str, title: str, letter: str = "A") -> dict[str, float]:
    """What a panel says at the end: value by the labels in order."""
    one = next(e for e in expressions(PAGES[page]) if (e.place, e.letter) == (title, letter))
    found: list[dict[str, Any]] = prometheus.now(filled(one.text, VALUES))["data"]["result"]
    return {" ".join(series["metric"].values()): float(series["value"][1]) for series in found}


def test_overview_says_what_happened(prometheus: Stored) -> None:
    """v1 is kept, v2 is to be rolled back, one page fires, and the watcher is alive."""
    assert tell(prometheus, "overview", "Decision") == {"sms-spam v1": 0, "sms-spam v2": 2}
    assert tell(prometheus, "overview", "Pages firing") == {"": 1}
    assert tell(prometheus, "overview", "Out of reach") == {"": 0}
    assert tell(prometheus, "overview", "Heartbeat")[""] < SCRAPE + 1


def test_only_an_agent_is_out_of_reach(prometheus: Stored) -> None:
    """A target of another job that is down all along is none of ours; an agent that does not answer any more is."""
    one = next(e for e in expressions(PAGES["overview"]) if e.place == "Out of reach")
    text = filled(one.text, VALUES)
    for when, count in ((prometheus.ended, 0), (prometheus.ended + 61, 1)):
        (found,) = prometheus.at(text, when)["data"]["result"]
        assert float(found["value"][1]) == count


def test_no_version_is_all_versions(prometheus: Stored) -> None:
    """A link that names no version shows what `All` shows, and what concerns no version; one that names a version shows no other."""
    for one in expressions(PAGES["model"]):
        if "$model_version" in one.text:
            of_all, of_none, of_v1 = (
                prometheus.now(filled(one.text, {**VALUES, "model_version": given}))["data"]["result"]
                for given in (".+", "", "v1")
            )
            # Prometheus promises no order of series.
            versions = [found for found in of_none if found["metric"].get("model_version")]
            assert sorted(versions, key=str) == sorted(of_all, key=str), one.text
            assert {found["metric"]["model_version"] for found in of_v1} <= {"v1", "(log)"}, one.text


def test_the_worst_decision_comes_first(prometheus: Stored) -> None:
    """Whoever was paged sees what has to be done before what has not."""
    for page in ("overview", "model"):
        assert list(tell(prometheus, page, "Decision").values()) == [2, 0]


def test_decision_is_stale_when_the_loop_does_not_turn(prometheus: Stored) -> None:
    """Long after the last turn, while the series are still there, the decision is told as stale (3), whatever it was."""
    one = next(e for e in expressions(PAGES["overview"]) if e.place == "Decision")
    late = prometheus.at(filled(one.text, VALUES), prometheus.ended + 100)["data"]["result"]
    assert {float(series["value"][1]) for series in late} == {3.0}
    gone = prometheus.at(filled(one.text, VALUES), prometheus.ended + 3600)["data"]["result"]
    assert gone == []
