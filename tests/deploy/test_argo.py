"""Argo Rollouts with the shipped templates: never promoted without keeps, never aborted because somebody was silent."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.deploy.controllers import Answers, Argo, ConditionError, End, Phase, condition, measured
from tests.deploy.manifests import DEPLOY, documents
from tests.deploy.situations import AFTER, STORIES, S, State, world

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.deploy.controllers import Outcome
    from tests.deploy.manifests import Document

KINDS = ("prometheus", "web")
LONG = 1000
KEEPS = 20
"""In a row, for one step."""


@cache
def shipped(kind: str) -> tuple[Document, dict[str, Document]]:
    """The Rollout and the templates of one provider."""
    templates = documents(DEPLOY / "argo-rollouts" / f"analysis-{kind}.yaml")
    [rollout] = documents(DEPLOY / "argo-rollouts" / f"rollout-{kind}.yaml")
    return rollout, {template["metadata"]["name"]: template for template in templates}


def played(kind: str, story: Callable[[int], State], *, unknown: tuple[str, ...] = ()) -> Outcome:
    """The shipped Rollout in a story."""
    return Argo(*shipped(kind), unknown).play(world(story), LONG)


def heard(kind: str, state: State) -> Any:
    """What a provider makes of a state: `keep`, `rollback` or anything else."""
    if kind == "prometheus":
        return {0.0: "keep", 2.0: "rollback"}.get((state.value.query or [math.nan])[0]) if state is not S.TWO else None
    return (state.value.decision or (0, ""))[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STORIES)
def test_stories(kind: str, name: str) -> None:
    """Promoted where enough keeps came, aborted where a rollback came; else it waits or asks a person."""
    said = [heard(kind, STORIES[name](check)) for check in range(LONG)]
    outcome = played(kind, STORIES[name])
    if "rollback" in said:
        assert (outcome.end, outcome.checks) == (End.ABORTED, said.index("rollback") + 1)
    elif said[-1] == "keep" and said[-2] == "keep":
        assert outcome.end is End.PROMOTED
        assert outcome.checks >= 2 * KEEPS
        assert set(said[outcome.checks - KEEPS : outcome.checks]) == {"keep"}
    else:
        assert outcome.end in {End.WAITING, End.PAUSED}
        assert outcome.weight == 10, "it never gets more than the first step"


@given(states=st.lists(st.sampled_from(State), min_size=1), kind=st.sampled_from(KINDS))
def test_any_course_of_states(states: list[State], kind: str) -> None:
    """Whatever happens in whatever order, for ever: promotion takes keeps, an abort takes a rollback."""

    def story(check: int) -> State:
        return states[check % len(states)]

    said = [heard(kind, story(check)) for check in range(LONG)]
    outcome = played(kind, story)
    if outcome.end is End.PROMOTED:
        assert said[: outcome.checks].count("keep") >= 2 * KEEPS
        assert set(said[outcome.checks - KEEPS : outcome.checks]) == {"keep"}
        assert "rollback" not in said[: outcome.checks]
    assert (outcome.end is End.ABORTED) == (said[outcome.checks - 1] == "rollback")


@pytest.mark.parametrize("kind", KINDS)
def test_what_argo_demands_of_a_template(kind: str) -> None:
    """One provider; for a step a count, with an interval; and no limit that is above the count but that of errors."""
    rollout, templates = shipped(kind)
    steps = {step["analysis"]["templates"][0]["templateName"] for step in _steps(rollout) if "analysis" in step}
    for name, template in templates.items():
        for metric in template["spec"]["metrics"]:
            assert len(metric["provider"]) == 1
            assert "interval" in metric
            assert ("count" in metric) == (name in steps)
            limits = ("failureLimit", "inconclusiveLimit", "consecutiveSuccessLimit")
            assert all(0 <= metric.get(limit, 0) <= metric.get("count", math.inf) for limit in limits)


def _steps(rollout: Document) -> list[Document]:
    steps: list[Document] = rollout["spec"]["strategy"]["canary"]["steps"]
    return steps


@pytest.mark.parametrize("kind", KINDS)
def test_no_run_reaches_its_count(kind: str) -> None:
    """The longest run: nineteen keeps, a hold, and so on. It ends with a question to a person, before its count."""
    outcome = Argo(*shipped(kind)).play(world(lambda check: S.HOLD if check % KEEPS == KEEPS - 1 else S.KEEP), 20_000)
    assert outcome.end is End.PAUSED
    [metric] = shipped(kind)[1][f"poisonwatch-gate{'-web' * (kind == 'web')}"]["spec"]["metrics"]
    assert outcome.checks < metric["count"]
    assert metric["count"] > (metric["inconclusiveLimit"] + 1) * metric["consecutiveSuccessLimit"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_argo_that_drops_the_limit_of_successes(kind: str) -> None:
    """Before 1.8 the field is unknown and is dropped: keeps promote, but it takes the count of them."""
    old = ("consecutiveSuccessLimit",)
    outcome = Argo(*shipped(kind), old).play(world(STORIES["keep throughout"]), 30_000)
    assert (outcome.end, outcome.checks) == (End.PROMOTED, 20_000)
    assert played(kind, STORIES["hold for ever"], unknown=old).end is End.PAUSED
    assert played(kind, STORIES["keep, then rollback"], unknown=old).end is End.ABORTED


@pytest.mark.parametrize(
    ("field", "value", "story", "end"),
    [
        ("count", 120, "keep and hold in turn", End.PROMOTED),
        ("consecutiveErrorLimit", 4, "keep, then neither Prometheus nor the agent answers", End.ABORTED),
        ("failureLimit", 2000, "rollback at once", End.WAITING),
        ("inconclusiveLimit", 0, "hold, then keep", End.PAUSED),
        ("failureCondition", None, "hold, then keep", End.ABORTED),
    ],
)
def test_the_limits_matter(field: str, value: Any, story: str, end: End) -> None:
    """Each limit, set otherwise, breaks what the stories show: the play reads the manifests."""
    rollout, templates = copy.deepcopy(shipped("prometheus"))
    [metric] = templates["poisonwatch-gate"]["spec"]["metrics"]
    if value is None:
        del metric[field]
    else:
        metric[field] = value
    templates["poisonwatch-guard"]["spec"]["metrics"][0]["failureLimit"] = LONG
    assert Argo(rollout, templates).play(world(STORIES[story]), LONG).end is end


@pytest.mark.parametrize("kind", KINDS)
def test_the_guard_ends_a_pause(kind: str) -> None:
    """A rollback during a pause between the steps aborts; without the guard nobody hears it before the pause is over."""
    rollout, templates = copy.deepcopy(shipped(kind))
    canary = rollout["spec"]["strategy"]["canary"]
    canary["steps"].insert(1, {"pause": {"duration": "1h"}})
    story = world(STORIES["keep, then rollback"])
    assert Argo(rollout, templates).play(story, LONG).checks == AFTER + 1
    del canary["analysis"]
    assert Argo(rollout, templates).play(world(STORIES["keep, then rollback"]), LONG).checks == 121


@pytest.mark.parametrize("kind", KINDS)
def test_a_background_analysis_alone_promotes_on_silence(kind: str) -> None:
    """Why the gate is a step: what only runs beside the steps is not waited for."""
    rollout, templates = copy.deepcopy(shipped(kind))
    canary = rollout["spec"]["strategy"]["canary"]
    canary["steps"] = [{"setWeight": 10}, {"pause": {"duration": "10m"}}]
    for name in (f"poisonwatch-gate{'-web' * (kind == 'web')}", canary["analysis"]["templates"][0]["templateName"]):
        canary["analysis"]["templates"][0]["templateName"] = name
        assert (
            Argo(rollout, templates).play(world(STORIES["the agent is dead from the start"]), 100).end is End.PROMOTED
        )


@pytest.mark.parametrize(
    ("text", "result", "value"),
    [
        ("len(result) == 1 && result[0] == 0", [0.0], True),
        ("len(result) == 1 && result[0] == 0", [], False),
        ("len(result) == 1 && result[0] == 0", [math.nan], False),
        ("len(result) == 0 || result[0] >= 2", [3.0], True),
        ("!(result[0] < 1) && result[0] != 2", [1.0], True),
        ("isNaN(result[0])", [math.nan], True),
        ('result == "keep"', "keep", True),
        ('result == "keep"', "hold", False),
    ],
)
def test_conditions(text: str, result: Any, value: bool) -> None:
    """The part of Argo's expressions that is played."""
    assert condition(text, result) is value


@pytest.mark.parametrize(
    ("text", "result"),
    [("result[0] == 0", []), ("result[0] == 0", ["0"]), ("result", 1.0), ("median(result) > 0", [1.0])],
)
def test_conditions_that_are_errors(text: str, result: Any) -> None:
    """No element, values of different kinds, no truth value, unknown functions."""
    with pytest.raises(ConditionError):
        condition(text, result)


@pytest.mark.parametrize(
    ("conditions", "query", "phase"),
    [
        ({}, [1.0], Phase.SUCCESSFUL),
        ({"successCondition": "result[0] == 0"}, [1.0], Phase.FAILED),
        ({"successCondition": "result[0] == 0"}, [math.nan], Phase.FAILED),
        ({"successCondition": "result[0] == 0"}, [], Phase.ERROR),
        ({"failureCondition": "result[0] == 2"}, [1.0], Phase.SUCCESSFUL),
        ({"successCondition": "result[0] == 0", "failureCondition": "result[0] == 2"}, [1.0], Phase.INCONCLUSIVE),
        ({"successCondition": "result[0] >= 0", "failureCondition": "result[0] == 2"}, [2.0], Phase.FAILED),
        ({"successCondition": "result[0] == 0"}, None, Phase.ERROR),
    ],
)
def test_measurements(conditions: dict[str, str], query: list[float] | None, phase: Phase) -> None:
    """What a measurement is called, by the conditions that are given."""
    assert measured({"provider": {"prometheus": {}}, **conditions}, Answers(query, None, None, None)) is phase
