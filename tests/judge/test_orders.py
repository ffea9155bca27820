"""What people order: overrides that hold, end and are refused with the remedy."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from poisonwatch.errors import OrderError, UnknownVersionError
from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.judge.orders import expired, order, withdraw
from poisonwatch.judge.override import Override, overridden
from poisonwatch.judge.standing import Standing, effective, judge
from poisonwatch.judge.wording import LONGEST
from poisonwatch.profile.indicators import CANARY_ERRORS, ERRORS, OUTPUTS
from poisonwatch.types import Action, Cause, Evidence, Reason
from tests.judge.findings import FEWEST, GONE, PAGE, V1, V2, facts, finding, report

KEEP, HOLD, ROLLBACK = Action.KEEP, Action.HOLD, Action.ROLLBACK
BAD = finding(CANARY_ERRORS, PAGE)
GOOD = finding(CANARY_ERRORS, GONE)


def override(
    decision: Action = HOLD, version: str = "v2", target: str | None = None, expires: float = 9000.0
) -> Override:
    """What ann decided at 1000."""
    return Override(
        model="mail",
        model_version=version,
        decision=decision,
        author="ann",
        reason="our own campaign",
        time=1000.0,
        expires=expires,
        target=target,
    )


def stands(*evidence: Evidence) -> Standing:
    """What stands after this evidence on v1 and v2."""
    return judge(Standing(), report(*evidence), FEWEST).standing


def test_an_override_holds_and_says_what_would_hold_without_it() -> None:
    """Decision and target are the person's, cause and alerts go on saying what we see; author, end and reason come first."""
    own = stands(BAD).decisions["v2"]
    told = overridden(own, override(KEEP), 1000.0)
    assert (told.decision, told.reason, told.target, told.time) == (KEEP, Reason.OVERRIDDEN, None, 1000.0)
    assert (told.cause, told.alerts) == (own.cause, own.alerts)
    assert told.summary.startswith(
        "ann keeps v2 until 1970-01-01 02:30 UTC: our own campaign. Without this: rollback to v1 ("
    )
    assert "worse_than_stable" in told.summary
    to_v0 = overridden(own, override(ROLLBACK, target="v0"), 1000.0)
    assert to_v0.target == "v0"
    assert to_v0.summary.startswith("ann rolls back v2 to v0 until ")
    long = msgspec.structs.replace(override(KEEP), author="a" * 200, reason="b " * 500)
    assert len(overridden(own, long, 0.0).summary) <= LONGEST
    assert "Without this: rollback" in overridden(own, long, 0.0).summary
    wordy = msgspec.structs.replace(own, summary="word " * 120)
    assert len(overridden(wordy, override(KEEP), 0.0).summary) <= LONGEST


def test_ours_and_theirs_are_told_apart_and_each_change_is_told_once() -> None:
    """From rollback over keep and back: what holds is told when it changes, our own decision goes on beneath."""
    standing = stands(BAD)
    ordered = order(standing, override(KEEP), (V1, V2), FEWEST)
    assert not ordered.latched
    assert not ordered.rollbacks
    judged = judge(ordered, report(BAD, time=660.0), FEWEST)
    assert [(d.decision, d.reason) for d in judged.decisions] == [(KEEP, Reason.OVERRIDDEN)]
    assert judged.standing.decisions["v2"].decision is ROLLBACK
    assert effective(judged.standing)["v2"] == judged.standing.told["v2"] == judged.decisions[0]
    again = judge(judged.standing, report(BAD, time=720.0), FEWEST)
    assert not again.decisions
    over = judge(withdraw(again.standing, "v2"), report(BAD, time=780.0), FEWEST)
    assert [(d.decision, d.target, d.time) for d in over.decisions] == [(ROLLBACK, "v1", 780.0)]
    assert effective(over.standing)["v2"] == over.decisions[0]


@pytest.mark.parametrize("said", [KEEP, HOLD])
def test_after_an_override_the_evidence_decides_anew(said: Action) -> None:
    """A rollback that was latched is let go by `keep` and by `hold`, and latches no more beneath them; a withdrawal alone unlatches nothing."""
    standing = order(stands(BAD), override(said), (V1, V2), FEWEST)
    for time, evidence in ((660.0, BAD), (720.0, GOOD)):
        standing = judge(standing, report(evidence, time=time), FEWEST).standing
    assert standing.decisions["v2"].reason is Reason.HEALTHY
    news = judge(withdraw(standing, "v2"), report(time=780.0), FEWEST).decisions
    assert [(d.decision, d.reason) for d in news] == [(KEEP, Reason.HEALTHY)]
    rolled = judge(order(stands(BAD), override(ROLLBACK), (V1, V2), FEWEST), report(GOOD, time=660.0), FEWEST).standing
    left = judge(withdraw(rolled, "v2"), report(time=720.0), FEWEST).standing
    assert left.decisions["v2"].decision is ROLLBACK


def test_a_persons_rollback_goes_where_the_judge_would_and_is_watched() -> None:
    """Without a target it takes the judge's choice; withdrawn before anybody moved the traffic, it is watched no more."""
    standing = order(stands(), override(ROLLBACK), (V1, V2), FEWEST)
    assert standing.overrides["v2"].target == "v1"
    judged = judge(standing, report(), FEWEST)
    assert [(d.decision, d.target) for d in judged.decisions] == [(ROLLBACK, "v1")]
    assert [(r.state, r.target) for r in judged.rollbacks] == [(RollbackState.AWAITED, "v1")]
    assert not withdraw(judged.standing, "v2").rollbacks
    moved = msgspec.structs.replace(judged.rollbacks[0], state=RollbackState.MOVED)
    on_its_way = Standing(
        decisions=judged.standing.decisions, overrides=judged.standing.overrides, rollbacks={"v2": moved}
    )
    assert withdraw(on_its_way, "v2").rollbacks == {"v2": moved}
    ours = judge(order(stands(BAD), override(ROLLBACK), (V1, V2), FEWEST), report(BAD), FEWEST).standing
    assert set(withdraw(ours, "v2").rollbacks) == {"v2"}


@pytest.mark.parametrize(
    ("evidence", "running", "wish", "says"),
    [
        ([], (V1, V2), override(ROLLBACK, target="v2"), "itself"),
        ([], (V1, V2), override(ROLLBACK, target="v7"), "neither runs nor is remembered as clean"),
        ([BAD], (V1, V2), override(ROLLBACK, "v1", target="v2"), "compromised"),
        ([finding(ERRORS, PAGE, "v1")], (V1, V2), override(ROLLBACK, target="v1"), "compromised"),
        ([], (facts("v1", triggered=True), V2), override(ROLLBACK, target="v1"), "compromised"),
        ([], (V1, facts("v2")), override(ROLLBACK), "name the target"),
        ([finding(OUTPUTS, PAGE, "v1")], (V1, V2), override(ROLLBACK), "name the target"),
        ([], (facts("v1", 10), V2), override(ROLLBACK), "name the target"),
        ([], (facts("v1", triggered=True), V2), override(ROLLBACK), "name the target"),
        ([], (V1, V2), override(KEEP, target="v1"), "only a rollback has a target"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(
    evidence: list[Evidence], running: tuple[object, ...], wish: Override, says: str
) -> None:
    """A rollback to nowhere, to a stranger, to what is compromised, or to itself; the text says what to name instead."""
    standing = judge(Standing(), report(*evidence, versions=running), FEWEST).standing  # type: ignore[arg-type]
    with pytest.raises(OrderError, match=says):
        order(standing, wish, running, FEWEST)  # type: ignore[arg-type]


def test_only_versions_with_a_decision_and_overrides_that_stand_are_known() -> None:
    """Anything else is named, with what there is."""
    with pytest.raises(UnknownVersionError, match="the versions are v1, v2"):
        order(stands(), override(KEEP, "v9"), (V1, V2), FEWEST)
    with pytest.raises(UnknownVersionError, match="no override stands"):
        withdraw(stands(), "v2")


def test_a_clean_version_that_is_gone_is_a_target_and_a_condemned_one_is_none() -> None:
    """What a person rolls back is no target of anybody, not even kept by somebody else's override."""
    gone = judge(stands(), report(versions=(facts("v2", 1000, "v1"),), retired=("v1",)), FEWEST).standing
    assert order(gone, override(ROLLBACK, target="v1"), (V2,), FEWEST).overrides["v2"].target == "v1"
    assert order(gone, override(ROLLBACK), (V2,), FEWEST).overrides["v2"].target == "v1"
    standing = judge(Standing(), report(versions=(facts("v0"), facts("v1", 1000, "v0"), V2)), FEWEST).standing
    ordered = order(standing, override(ROLLBACK, "v1", target="v0"), (facts("v0"), V1, V2), FEWEST)
    held = judge(ordered, report(BAD, versions=(facts("v0"), facts("v1", 1000, "v0"), V2)), FEWEST).standing
    assert held.decisions["v2"].reason is Reason.NO_CLEAN_TARGET
    with pytest.raises(OrderError, match="compromised"):
        order(held, override(ROLLBACK, target="v1"), (V1, V2), FEWEST)
    kept = order(stands(finding(ERRORS, PAGE, "v1")), override(KEEP, "v1"), (V1, V2), FEWEST)
    bad = judge(kept, report(finding(ERRORS, PAGE, "v1"), BAD), FEWEST).standing
    assert (effective(bad)["v1"].decision, bad.decisions["v2"].reason) == (KEEP, Reason.NO_CLEAN_TARGET)


def test_overrides_end_with_their_time_and_with_their_version() -> None:
    """What is over at an instant is told, the first first; a version that is gone takes its override with it."""
    standing = order(
        order(stands(), override(expires=3000.0), (V1, V2), FEWEST),
        override(version="v1", expires=2000.0),
        (V1, V2),
        FEWEST,
    )
    assert [o.model_version for o in expired(standing, 1999.9)] == []
    assert [o.model_version for o in expired(standing, 2000.0)] == ["v1"]
    assert [o.model_version for o in expired(standing, 3000.0)] == ["v1", "v2"]
    after = judge(standing, report(versions=(V1,), retired=("v2",)), FEWEST).standing
    assert set(after.overrides) == {"v1"}


def test_a_rollback_of_ours_that_a_person_redirects_keeps_its_cause() -> None:
    """The person's target holds; when it is withdrawn ours comes back, and the watched rollback follows."""
    three = (facts("v0"), facts("v1", 1000, "v0"), facts("v2", 1000, "v1", "v0"))
    standing = judge(Standing(), report(BAD, versions=three), FEWEST).standing
    ordered = judge(
        order(standing, override(ROLLBACK, target="v0"), three, FEWEST), report(BAD, versions=three), FEWEST
    )
    assert [(d.target, d.cause) for d in ordered.decisions] == [("v0", Cause.DEGRADATION)]
    assert [r.target for r in ordered.rollbacks] == ["v0"]
    back = judge(withdraw(ordered.standing, "v2"), report(BAD, versions=three), FEWEST)
    assert [d.target for d in back.decisions] == ["v1"]
    assert [r.target for r in back.rollbacks] == ["v1"]


def test_a_persons_target_that_is_found_out_is_none_any_more() -> None:
    """The version is held, and the person is told that their target does harm itself; a target that is only suspected stays."""
    standing = judge(order(stands(), override(ROLLBACK, target="v1"), (V1, V2), FEWEST), report(), FEWEST).standing
    suspected = judge(standing, report(finding(OUTPUTS, PAGE, "v1")), FEWEST)
    assert effective(suspected.standing)["v2"].target == "v1"
    found_out = judge(standing, report(finding(ERRORS, PAGE, "v1")), FEWEST)
    held = effective(found_out.standing)["v2"]
    assert (held.decision, held.reason, held.target) == (Action.HOLD, Reason.OVERRIDDEN, None)
    assert held.summary.startswith(
        "v1 does harm itself, as was found since: name another target. ann rolls back v2 to v1"
    )
    assert found_out.standing.rollbacks["v2"].target is None


def test_what_a_person_rolled_back_is_no_target_after_their_override_has_ended() -> None:
    """Its rollback was carried out and is remembered: who took it away had a reason."""
    three = (facts("v0"), facts("v1", 1000, "v0"), facts("v2", 1000, "v1", "v0"))
    standing = judge(Standing(), report(versions=three), FEWEST).standing
    ordered = judge(order(standing, override(ROLLBACK, "v1"), three, FEWEST), report(versions=three), FEWEST).standing
    carried_out = msgspec.structs.replace(ordered.rollbacks["v1"], state=RollbackState.VERIFIED)
    ended = withdraw(replace(ordered, rollbacks={"v1": carried_out}), "v1")
    decided = judge(ended, report(BAD, versions=three), FEWEST).standing.decisions
    assert (decided["v1"].decision, decided["v2"].target) == (KEEP, "v0")


def test_two_orders_at_once_know_of_each_other() -> None:
    """What one person rolls back is no longer where the judge would go, before it has judged again."""
    three = (facts("v0"), facts("v1", 1000, "v0"), facts("v2", 1000, "v1", "v0"))
    standing = judge(Standing(), report(BAD, versions=three), FEWEST).standing
    standing = order(standing, override(ROLLBACK, "v1"), three, FEWEST)
    assert order(standing, override(ROLLBACK, "v2"), three, FEWEST).overrides["v2"].target == "v0"
