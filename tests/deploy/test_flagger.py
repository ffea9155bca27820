"""Flagger with the shipped Canaries, and the two endpoints that it asks: never promoted, never rolled back by silence."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from poisonwatch.sinks.snapshot import Published
from poisonwatch.types import Action
from tests.deploy.controllers import Answers, End, Flagger
from tests.deploy.manifests import DEPLOY, documents
from tests.deploy.situations import STORIES, S, State, world
from tests.server.snapshots import served, small
from tests.streams import predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.deploy.controllers import Outcome

LONG = 500
[HOOKS] = documents(DEPLOY / "flagger" / "canary.yaml")
[METRIC] = documents(DEPLOY / "flagger" / "canary-metric.yaml")
ASKED = 10
"""Checks before the gate is asked for the first time."""

THRESHOLD = METRIC["spec"]["analysis"]["threshold"]


def recorded(canary: dict[str, object], story: Callable[[int], State]) -> tuple[Outcome, list[Answers]]:
    """How it ends, and what was answered at each check."""
    answers, heard = world(story), []

    def hearing(check: int, weight: int) -> Answers:
        heard.append(answers(check, weight))
        return heard[-1]

    return Flagger(canary).play(hearing, LONG), heard


def check_hooks(story: Callable[[int], State]) -> None:
    """By the hooks alone: promoted by a yes of the gate, rolled back by a yes of the rollback endpoint, and else it waits."""
    outcome, heard = recorded(HOOKS, story)
    no_yes = [one.rollback != 200 for one in heard]
    match outcome.end:
        case End.PROMOTED:
            assert heard[-1].gate == 200
            assert outcome.checks > ASKED
            assert all(no_yes)
        case End.ABORTED:
            assert not no_yes[-1]
            assert all(no_yes[:-1])
        case _:
            assert all(no_yes)
            assert all(one.gate != 200 for one in heard[ASKED:])
            assert outcome.weight == 10, "it never gets more than this"


def check_metric(story: Callable[[int], State]) -> None:
    """By the metric: promoted by ten keeps, rolled back by as many checks without one as the threshold says."""
    outcome, heard = recorded(METRIC, story)
    keeps = sum(one.query == [0.0] for one in heard[1:])
    others = len(heard) - 1 - keeps
    if outcome.end is End.PROMOTED:
        assert keeps == 10
        assert others < THRESHOLD
    else:
        assert outcome.end is End.ABORTED
        # The check at which it is rolled back finds the threshold reached, and is none itself.
        assert others in {THRESHOLD, THRESHOLD + 1}


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """Each story, by the hooks and by the metric."""
    check_hooks(STORIES[name])
    check_metric(STORIES[name])


@given(states=st.lists(st.sampled_from([state for state in State if state is not S.TWO]), min_size=1))
def test_any_course_of_states(states: list[State]) -> None:
    """Whatever happens in whatever order, for ever."""
    check_hooks(lambda check: states[check % len(states)])
    check_metric(lambda check: states[check % len(states)])


def test_rollback_reaches_flagger_at_the_next_check() -> None:
    """By the hook at once; by the metric only when the threshold is used up."""
    at_once = STORIES["rollback at once"]
    assert (recorded(HOOKS, at_once)[0].end, recorded(HOOKS, at_once)[0].checks) == (End.ABORTED, 2)
    assert recorded(METRIC, at_once)[0].checks == THRESHOLD + 2


def test_a_gate_before_the_first_traffic_would_never_open() -> None:
    """Why the gate is a confirm-promotion hook: asked at weight 0, about a version that nobody can have judged, it waits."""
    canary = copy.deepcopy(HOOKS)
    canary["spec"]["analysis"]["webhooks"][0]["type"] = "confirm-traffic-increase"
    outcome, _ = recorded(canary, STORIES["keep throughout"])
    assert (outcome.end, outcome.weight) == (End.WAITING, 0)


def test_without_the_gate_silence_promotes() -> None:
    """What the gate is there for: the rollback hook alone lets everything through that nobody objects to."""
    canary = copy.deepcopy(HOOKS)
    del canary["spec"]["analysis"]["webhooks"][0]
    assert recorded(canary, STORIES["the agent is dead from the start"])[0].end is End.PROMOTED


def test_hooks_and_metric_together_roll_back_without_prometheus() -> None:
    """Why canary.yaml has no metric: Flagger counts a Prometheus that is down as failed checks."""
    canary = copy.deepcopy(HOOKS)
    canary["spec"]["analysis"]["metrics"] = copy.deepcopy(METRIC["spec"]["analysis"]["metrics"])
    story = STORIES["keep, then neither Prometheus nor the agent answers"]
    assert recorded(canary, lambda check: S.HOLD if check < 5 else story(check + 10))[0].end is End.ABORTED


def test_statuses_that_flagger_takes_for_a_yes() -> None:
    """200 to 202; not 204, not an error, not silence."""
    for status, yes in ((200, True), (202, True), (204, False), (409, False), (500, False), (None, False)):
        answers = Answers(None, None, None, status)
        outcome = Flagger(HOOKS).play(partial(_always, answers), 1)
        assert (outcome.end is End.ABORTED) == yes


def _always(answers: Answers, _check: int, _weight: int) -> Answers:
    return answers


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses of real servers: one that lives, one whose loop is stuck, one that starts."""
    now = small(tmp_path_factory.mktemp("log"), predictions(200, seed=1))
    [model] = now.models
    [decision] = model.decisions
    decisions = tuple(
        structs.replace(decision, model="spam", model_version=action.value, decision=action) for action in Action
    )
    snapshot = dataclasses.replace(now, models=(dataclasses.replace(model, model="spam", decisions=decisions),))
    stuck = Published(dataclasses.replace(snapshot, time=time.time() - 3600))
    living = Published(dataclasses.replace(snapshot, time=time.time() + 3600))
    with served(living) as alive, served(stuck) as hangs, served(Published()) as starts:
        yield {"alive": alive, "stuck": hangs, "starting": starts}


def post(address: str, path: str, version: str) -> int:
    """The status of a webhook as Flagger sends it, with the body that it has."""
    body = {
        "name": "spam-filter",
        "namespace": "models",
        "phase": "Progressing",
        "checksum": "85d557f47b",
        "type": "rollback",
        "failedChecks": 0,
        "canaryWeight": 10,
        "iterations": 0,
        "remainingTime": 0,
        "metadata": {"model": "spam", "model_version": version},
    }
    request = Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback only
            status: int = answer.status
            return status
    except HTTPError as error:
        # Flagger shows the body as the reason.
        return error.code if error.read() else 0


def decided(address: str, version: str) -> tuple[int, str]:
    """What Argo's web provider gets."""
    try:
        with urlopen(f"{address}/v1/models/spam/versions/{version}/decision", timeout=30) as answer:  # noqa: S310
            return answer.status, json.load(answer)["decision"]
    except HTTPError as error:
        return error.code, ""


@pytest.mark.parametrize(
    ("agent", "version", "state"),
    [
        ("alive", "keep", S.KEEP),
        ("alive", "hold", S.HOLD),
        ("alive", "rollback", S.ROLLBACK),
        ("alive", "other", S.UNKNOWN),
        ("stuck", "keep", S.STUCK),
        ("stuck", "rollback", S.STUCK),
    ],
)
def test_the_agent_answers_as_it_is_played(agents: dict[str, str], agent: str, version: str, state: State) -> None:
    """The real server in each state, asked as the manifests ask."""
    address = agents[agent]
    paths = {hook["name"]: hook["url"].partition(":9787")[2] for hook in HOOKS["spec"]["analysis"]["webhooks"]}
    assert decided(address, version) == state.value.decision
    assert post(address, paths["poisonwatch-gate"], version) == state.value.gate
    assert post(address, paths["poisonwatch-rollback"], version) == state.value.rollback


def test_an_agent_that_starts_says_neither(agents: dict[str, str]) -> None:
    """Before its first turn it knows nothing: nobody is promoted, nobody rolled back, and Argo waits."""
    for path in ("/flagger/gate", "/flagger/rollback"):
        assert post(agents["starting"], path, "rollback") == 409
    assert decided(agents["starting"], "keep")[0] in {404, 503}
