"""What is told of the models as they stand: the shipped rules' names and conditions, and words for whoever is woken."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.judge.override import Override
from poisonwatch.notify.notices import HARM_WAITS, ROLLBACK_WAITS, UNSAID, Notice, key_of, notices_of
from poisonwatch.types import Action, Alert, AlertState, Cause, Severity
from tests.notify.standing import NOW, alert, decision, model, rollback
from tests.streams import START

if TYPE_CHECKING:
    from poisonwatch.sinks.snapshot import ModelSnapshot

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "poisonwatch.rules.yml"
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
KEEPS = Override(
    model="mail",
    model_version="v2",
    decision=Action.KEEP,
    author="alice",
    reason="known",
    time=NOW,
    expires=NOW + 3600,
)


def told(*models: ModelSnapshot, at: float = NOW, resolved: tuple[Alert, ...] = ()) -> dict[str, Notice]:
    """The notices that fire, by name."""
    return {notice.name: notice for notice in notices_of(at, 0.0, models, resolved) if notice.ended is None}


def rules() -> dict[str, Any]:
    """The shipped rules that alert, by name."""
    document = YAML(typ="safe", pure=True).load(RULES)
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"] if "alert" in rule}


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("severity", Severity)
def test_each_cause_is_told_under_the_name_of_its_rule(cause: Cause, severity: Severity) -> None:
    """Name and severity are those of the shipped rule for this cause, which has a runbook; what has no rule is not told."""
    found = told(model([alert(cause, severity=severity)]))
    shipped = rules()
    if severity is Severity.TICKET and cause in {
        Cause.BACKDOOR,
        Cause.DEGRADATION,
        Cause.SLICE_DEGRADATION,
        Cause.BASELINE_CREEP,
        Cause.FEEDBACK_POISONING,
    }:
        assert found == {}
        return
    ((name, notice),) = found.items()
    assert shipped[name]["labels"]["severity"] == notice.severity
    assert cause.value in shipped[name]["expr"]
    assert (RUNBOOKS / f"{name}.md").exists()
    assert notice.fingerprint == alert(cause).fingerprint


def test_what_is_pending_is_not_told() -> None:
    """Evidence on its way wakes nobody."""
    assert told(model([alert(state=AlertState.PENDING)])) == {}


def test_the_waits_are_those_of_the_rules() -> None:
    """Harm waits for its proof, and a rollback for whoever carries it out, as long as Prometheus lets them."""
    shipped = rules()
    minutes = {
        name: int(shipped[name]["for"].removesuffix("m"))
        for name in shipped
        if "for" in shipped[name] and "h" not in shipped[name]["for"]
    }
    assert 60 * minutes["PoisonwatchHarm"] == HARM_WAITS
    assert 60 * minutes["PoisonwatchRollbackNotExecuted"] == ROLLBACK_WAITS
    harmed = model([alert(time=NOW)], [decision(Action.HOLD)])
    assert told(harmed, at=NOW + HARM_WAITS - 1) == {}
    assert set(told(harmed, at=NOW + HARM_WAITS)) == {"PoisonwatchHarm"}
    late = model([], [decision()], [rollback(RollbackState.AWAITED, decided=NOW)])
    assert set(told(late, at=NOW + ROLLBACK_WAITS - 1)) == {"PoisonwatchRollbackRecommended"}
    assert set(told(late, at=NOW + ROLLBACK_WAITS)) == {
        "PoisonwatchRollbackRecommended",
        "PoisonwatchRollbackNotExecuted",
    }


def test_what_is_found_in_an_old_log_waits_from_the_start_on() -> None:
    """An agent that reads what was logged while nobody watched calls once, not twice: nobody had half an hour to act."""
    late = model([alert(version="v3", time=NOW)], [decision()], [rollback(RollbackState.AWAITED, decided=NOW)])
    names = [
        {one.name for one in notices_of(NOW + 9000 + waited, NOW + 9000, [late]) if one.ended is None}
        for waited in (HARM_WAITS - 1, ROLLBACK_WAITS - 1, ROLLBACK_WAITS)
    ]
    assert names == [
        {"PoisonwatchRollbackRecommended"},
        {"PoisonwatchRollbackRecommended", "PoisonwatchHarm"},
        {"PoisonwatchRollbackRecommended", "PoisonwatchHarm", "PoisonwatchRollbackNotExecuted"},
    ]


def test_a_rollback_is_one_page() -> None:
    """Where a rollback is recommended the harm behind it is not told beside it; the page says to where, since when, how many and what to do."""
    found = told(model([alert()], [decision()], [rollback(RollbackState.AWAITED, decided=NOW)]))
    assert set(found) == {"PoisonwatchRollbackRecommended"}
    page = found["PoisonwatchRollbackRecommended"]
    assert page.summary == "Roll back mail v2 to v1: backdoor."
    lines = page.description.split("\n")
    assert lines[0] == decision().summary
    assert re.fullmatch(r"Since: \d{4}-\d\d-\d\d \d\d:\d\d UTC\.", lines[1])
    assert lines[2] == "Touched: 3.1 % of its predictions since then."
    assert lines[3] == "Target: v1 was healthy on 8,000 predictions."
    assert lines[4] == "Traffic: v2 still answers 42 % of the requests."
    assert lines[5].startswith("Do: Send the traffic of v2 to v1, with the tool that deploys it")
    assert page.alert == alert()


def test_a_page_on_harm_says_what_was_decided() -> None:
    """Where no rollback can be recommended the page says why not, and that nobody is protected by a hold."""
    page = told(model([alert()], [decision(Action.HOLD)]))["PoisonwatchHarm"]
    assert page.summary == "mail v2 does harm (backdoor), and a person must decide."
    assert "Decision: hold (proof missing), which does not protect anybody" in page.description
    assert "Touched: 3.1 % of its predictions since then." in page.description


def test_a_person_who_decided_is_not_called_again() -> None:
    """Harm under an override is told as ended, with who decided what; a rollback that a person overrode, too."""
    own = decision(Action.KEEP, summary="alice keeps v2: known.")
    found = notices_of(NOW, 0.0, [model([alert()], [own], overrides=[KEEPS])])
    assert {notice.name for notice in found} == {"PoisonwatchHarm", "PoisonwatchRollbackRecommended"}
    assert all(notice.ended is not None and notice.description == own.summary for notice in found)


@pytest.mark.parametrize("state", RollbackState)
def test_how_far_a_rollback_came(state: RollbackState) -> None:
    """The page ends when the traffic has left, and another one begins where that did not help."""
    came = rollback(state, decided=NOW, time=NOW)
    if state is not RollbackState.AWAITED:
        came = msgspec.structs.replace(came, receiver="v1")
    found = notices_of(NOW, 0.0, [model([], [decision()], [came])])
    firing = {notice.name for notice in found if notice.ended is None}
    assert (
        firing
        == {
            RollbackState.AWAITED: {"PoisonwatchRollbackRecommended"},
            RollbackState.MOVED: set(),
            RollbackState.VERIFIED: set(),
            RollbackState.FAILED: {"PoisonwatchRollbackFailed"},
        }[state]
    )
    ended = [notice for notice in found if notice.ended is not None]
    assert all(notice.description == f"The rollback is {state.value}." for notice in ended)
    assert len(ended) == (state is not RollbackState.AWAITED)
    if state is RollbackState.FAILED:
        (failed,) = (notice for notice in found if notice.ended is None)
        assert failed.summary == "mail was rolled back from v2 to v1, and the symptom is still there."
        assert failed.severity == "critical"
        assert "Do: take mail out of service" in failed.description


@pytest.mark.parametrize(
    ("target", "receiver", "summary"),
    [
        ("v1", "v3", "mail was rolled back from v2; v3 took the traffic, not v1, and shows the symptom."),
        (None, "v3", "mail was rolled back from v2; v3 took the traffic and shows the symptom."),
        ("v1", None, "mail was rolled back from v2, and the symptom is still there."),
    ],
)
def test_whoever_took_the_traffic_is_accused(target: str | None, receiver: str | None, summary: str) -> None:
    """A target that never took the traffic is not said to show the symptom: it is where to go, if it is still recommended."""
    failed = msgspec.structs.replace(rollback(RollbackState.FAILED), target=target, receiver=receiver)
    page = told(model([], [decision(target=target)], [failed]))["PoisonwatchRollbackFailed"]
    assert page.summary == summary
    elsewhere = "Do: move the traffic to v1 if `poisonwatch decision` still recommends it"
    assert (elsewhere in page.description) == (target is not None and receiver is not None)
    assert "take mail out of service" in page.description


def test_what_is_resolved_is_not_called_healthy() -> None:
    """The end of an alert is told in its own words, and with the warning that silence is no health; one that is open again has not ended."""
    over = alert(Cause.INPUT_DRIFT, severity=Severity.TICKET, state=AlertState.RESOLVED, time=NOW)
    (notice,) = notices_of(NOW, 0.0, [model()], [over])
    assert notice.ended == NOW
    assert notice.description == f"{over.summary}\n{UNSAID}"
    again = alert(Cause.INPUT_DRIFT, severity=Severity.TICKET, time=NOW)
    (notice,) = notices_of(NOW, 0.0, [model([again])], [over])
    assert notice.ended is None


def test_another_target_is_news() -> None:
    """A page whose target was found out is told again: whoever acts on it must not move the traffic there."""
    before = told(model([], [decision()]))["PoisonwatchRollbackRecommended"]
    after = told(model([], [decision(target=None)]))["PoisonwatchRollbackRecommended"]
    assert before.id != after.id
    assert key_of(before) == key_of(after)
    assert "to a version that you know to be clean" in after.description


@given(
    cause=st.sampled_from(Cause),
    other=st.sampled_from(Cause),
    times=st.lists(st.floats(START, NOW), min_size=2, max_size=2, unique=True),
)
def test_a_state_has_one_name(cause: Cause, other: Cause, times: list[float]) -> None:
    """The same state always has the same id, without dots, which separate what is signed; another time or cause has another."""
    kinds = list(product({cause, other}, times))
    found: dict[tuple[Cause, float], set[str]] = {}
    for kind, time in kinds:
        for _ in range(2):
            (notice,) = notices_of(NOW + HARM_WAITS, 0.0, [model([alert(kind, time=time)])])
            found.setdefault((kind, time), set()).add(notice.id)
    assert all(len(ids) == 1 for ids in found.values())
    assert len({min(ids) for ids in found.values()}) == len(kinds)
    assert all(re.fullmatch("pw_[0-9a-f]{32}", min(ids)) for ids in found.values())
