"""What becomes of a rollback: measured on traffic, never on silence."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.judge.aftermath import INTERVAL, MOST_ROLLBACKS, Rollback, RollbackState
from poisonwatch.judge.standing import Standing, judge
from poisonwatch.profile.indicators import CANARY_ERRORS, COVERAGE, ERRORS, OUTPUTS
from poisonwatch.types import Evidence, Report, VersionFacts
from tests.judge.findings import FEWEST, GONE, PAGE, finding

AWAITED, MOVED, VERIFIED, FAILED = RollbackState
START = 10_000.0
BAD = finding(CANARY_ERRORS, PAGE)
STEP = INTERVAL
WATCHED = 1.0
"""Evidence of a ticket that fires."""


def seen(time: float, *evidence: Evidence, retired: tuple[str, ...] = (), triggered: str = "", **counts: int) -> Report:
    """A report at `time` after START of versions that have answered so many predictions since START - 1000."""
    elders = {"v1": ("v0",), "v2": ("v1", "v0")}
    versions = tuple(
        VersionFacts(
            model_version=name,
            predictions=n,
            first_seen=START - 1000.0,
            last_seen=START,
            stable=name == "v1",
            elders=elders.get(name, ()),
            triggered=name == triggered,
        )
        for name, n in counts.items()
    )
    return Report(model="mail", time=START + time, versions=versions, retired=retired, evidence=evidence)


ROLLED = seen(0, BAD, v1=1000, v2=1000)


def followed(*reports: Report) -> tuple[Rollback, list[RollbackState]]:
    """The rollback of v2 in the end, and what was told of it, from the report that decided it on."""
    standing, told = Standing(), []
    for one in (ROLLED, *reports):
        judged = judge(standing, one, FEWEST)
        standing = judged.standing
        told += [rollback.state for rollback in judged.rollbacks if rollback.model_version == "v2"]
    return standing.rollbacks["v2"], told


def test_a_rollback_is_watched_from_its_decision_on() -> None:
    """It is awaited, told once, and says how much traffic the version still gets."""
    rollback, told = followed()
    assert told == [AWAITED]
    assert (rollback.target, rollback.decided, rollback.traffic) == ("v1", START, 0.5)
    assert rollback.summary == "v2 still gets about 50 % of the predictions; v1 is to take them."
    rollback, told = followed(seen(STEP, BAD, v1=1700, v2=1300))
    assert (rollback.state, rollback.traffic, told) == (AWAITED, 0.3, [AWAITED])
    assert "still gets 30 %" in rollback.summary


GOOD_PATH = (
    seen(STEP, BAD, v1=1100, v2=1001),
    seen(STEP + 60, BAD, v1=1299, v2=1001),
    seen(STEP + 120, v1=1300, v2=1001),
)

FAILING = (GOOD_PATH[0], seen(STEP + 60, finding(ERRORS, PAGE, "v1"), v1=1900, v2=1001))

PATHS: list[tuple[tuple[Report, ...], list[RollbackState], str]] = [
    (GOOD_PATH[:1], [AWAITED, MOVED], "The traffic left v2 by 1970-01-01 02:56 UTC; v1 takes it."),
    (GOOD_PATH[:2], [AWAITED, MOVED], "v1 takes it"),
    (GOOD_PATH, [AWAITED, MOVED, VERIFIED], "v1 has answered 200 predictions since"),
    # Too soon, too few, and no traffic at all, however late: nothing has moved.
    ((seen(STEP - 1, v1=1900, v2=1000),), [AWAITED], "still gets"),
    ((seen(STEP, v1=1099, v2=1000),), [AWAITED], "still gets"),
    ((seen(10 * STEP, v1=1000, v2=1000), seen(99 * STEP, v1=1000, v2=1000)), [AWAITED], "still gets"),
    ((seen(STEP, v1=1098, v2=1002),), [AWAITED], "still gets 2 %"),
    # Retired: it left, and who answers instead is watched.
    ((seen(STEP, retired=("v2",), v1=1500),), [AWAITED, MOVED], "v1 takes it"),
    ((seen(STEP, retired=("v1", "v2"), v3=50),), [AWAITED, MOVED], "v3 takes it, and not v1"),
    ((seen(STEP, retired=("v1", "v2")),), [AWAITED], "still gets"),
    # Who answers most is watched where the target does not answer at all.
    ((seen(STEP, v0=900, v1=1001, v2=1000),), [AWAITED, MOVED], "; v1 takes it."),
    ((seen(STEP, v0=900, v1=1000, v2=1000, v3=100),), [AWAITED, MOVED], "; v0 takes it, and not v1."),
    # The symptom goes on: a page of the target, or the trigger; what is no harm is no symptom, and holds the verdict back.
    ((GOOD_PATH[0], seen(STEP + 60, finding(ERRORS, PAGE, "v1"), v1=1900, v2=1001)), [AWAITED, MOVED, FAILED], "not the cause"),
    ((GOOD_PATH[0], seen(STEP + 60, triggered="v1", v1=1900, v2=1001)), [AWAITED, MOVED, FAILED], "The trigger works in v1, too."),
    ((*GOOD_PATH, seen(2 * STEP, finding(ERRORS, PAGE, "v1"), v1=1900, v2=1001)), [AWAITED, MOVED, VERIFIED, FAILED], "not the cause"),
    ((GOOD_PATH[0], seen(STEP + 60, finding(OUTPUTS, PAGE, "v1"), v1=1900, v2=1001)), [AWAITED, MOVED], "v1 takes it"),
    ((GOOD_PATH[0], seen(STEP + 60, finding(COVERAGE, PAGE, None), v1=1900, v2=1001)), [AWAITED, MOVED], "v1 takes it"),
    # It is not over while the bad version answers again, even before that is measured.
    ((GOOD_PATH[0], seen(STEP + 60, v1=1300, v2=9000)), [AWAITED, MOVED], "v1 takes it"),
    # What is known not to arrive here is not known to have left.
    ((seen(STEP, BAD, finding(COVERAGE, WATCHED), v1=1900, v2=1000),), [AWAITED], "still gets"),
    ((seen(STEP, BAD, finding(COVERAGE, WATCHED, "v1"), v1=1900, v2=1000),), [AWAITED, MOVED], "v1 takes it"),
    # Somebody deploys it again.
    ((*GOOD_PATH, seen(3 * STEP, v1=1500, v2=1300)), [AWAITED, MOVED, VERIFIED, AWAITED], "v2 is back with"),
    ((GOOD_PATH[0], seen(3 * STEP, v1=1150, v2=1300)), [AWAITED, MOVED, AWAITED], "v2 is back with 86 %"),
    ((*GOOD_PATH, seen(3 * STEP, v1=1400, v2=1001), seen(5 * STEP, v1=1500, v2=1002)), [AWAITED, MOVED, VERIFIED], "nothing speaks against it"),
    (
        (seen(STEP, retired=("v2",), v1=1500), seen(2 * STEP, v1=1600), seen(4 * STEP, v1=1700, v2=50)),
        [AWAITED, MOVED, AWAITED],
        "v2 is back with 33 %",
    ),
    # What failed is watched anew when the symptom ends, or another one takes over; it stays so while neither happens.
    ((*FAILING, seen(STEP + 120, v1=2500, v2=1001)), [AWAITED, MOVED, FAILED], "not the cause"),
    ((*FAILING, seen(STEP + 120, finding(ERRORS, GONE, "v1"), v1=2500, v2=1001)), [AWAITED, MOVED, FAILED, MOVED], "is not seen in v1 any more"),
    (
        (*FAILING, seen(STEP + 120, finding(ERRORS, GONE, "v1"), v1=2500, v2=1001), seen(STEP + 180, v1=2699, v2=1001)),
        [AWAITED, MOVED, FAILED, MOVED],
        "is not seen in v1 any more",
    ),
    (
        (*FAILING, seen(STEP + 120, finding(ERRORS, GONE, "v1"), v1=2500, v2=1001), seen(STEP + 180, v1=2700, v2=1001)),
        [AWAITED, MOVED, FAILED, MOVED, VERIFIED],
        "v1 has answered 200 predictions since",
    ),
    ((*FAILING, seen(3 * STEP, retired=("v1",), v2=1001, v3=900)), [AWAITED, MOVED, FAILED, MOVED], "v3 takes it, and not v1"),
    # Another one takes over what the target had taken.
    ((GOOD_PATH[0], seen(2 * STEP, v0=500, v1=1100, v2=1001)), [AWAITED, MOVED, MOVED], "v0 takes it, and not v1"),
]  # fmt: skip


@pytest.mark.parametrize(("reports", "states", "says"), PATHS)
def test_every_way_that_a_rollback_goes(reports: tuple[Report, ...], states: list[RollbackState], says: str) -> None:
    """What was told of it in the end, and in which words."""
    rollback, told = followed(*reports)
    assert told == states
    assert says in rollback.summary
    assert rollback.state is states[-1]


def test_a_small_canary_has_left_only_when_it_gets_a_tenth_of_what_it_had() -> None:
    """One that got half a percent has not left with half a percent; and it takes a thousand predictions to tell."""
    begun = seen(0, BAD, v1=19_900, v2=100)

    def after(*reports: Report) -> RollbackState:
        standing = Standing()
        for one in (begun, *reports):
            standing = judge(standing, one, FEWEST).standing
        return standing.rollbacks["v2"].state

    assert after(seen(STEP, v1=20_700, v2=100)) is AWAITED
    assert after(seen(STEP, v1=23_900, v2=120)) is AWAITED
    assert after(seen(STEP, v1=23_900, v2=100)) is MOVED


def test_a_target_that_is_found_out_while_it_is_awaited_is_given_up() -> None:
    """The watched rollback follows the decision: another target, or none."""
    dirty = finding(ERRORS, PAGE, "v1")
    rollback, told = followed(seen(60, BAD, dirty, v1=1100, v2=1000))
    assert (rollback.target, told) == (None, [AWAITED, AWAITED])
    assert "no clean version is known" in rollback.summary
    rollback, _ = followed(seen(60, BAD, dirty, v0=500, v1=1100, v2=1000))
    assert (rollback.state, rollback.target) == (AWAITED, "v0")


def test_another_target_after_a_failure_is_watched_anew() -> None:
    """Once a clean version is known, the rollback that leads there begins from the start."""
    dirty = finding(ERRORS, PAGE, "v1")
    failed = (GOOD_PATH[0], seen(STEP + 60, dirty, v1=1900, v2=1001))
    rollback, told = followed(*failed, seen(STEP + 120, dirty, v0=500, v1=1900, v2=1001))
    assert (told, rollback.target, rollback.decided) == ([AWAITED, MOVED, FAILED, AWAITED], "v0", START + STEP + 120)
    assert rollback.summary == "v2 still gets about 0.99 % of the predictions; v0 is to take them."
    rollback, _ = followed(*failed, seen(STEP + 120, dirty, v1=1900, v2=1001))
    assert rollback.state is FAILED


def test_while_nothing_runs_nothing_is_said_of_the_traffic() -> None:
    """Versions that are all gone have moved nowhere."""
    rollback, _ = followed(seen(STEP, retired=("v1", "v2")))
    assert (rollback.state, rollback.traffic) == (AWAITED, 0.5)


def test_before_it_is_measured_traffic_is_that_of_who_answered_lately() -> None:
    """A version that fell silent long ago gets nothing; the others by how fast they answered."""
    now = seen(0, BAD, v1=1000, v2=1000)
    silent = [
        msgspec.structs.replace(one, last_seen=START - 3601.0) for one in now.versions if one.model_version == "v2"
    ]
    late = msgspec.structs.replace(now, versions=(now.versions[0], *silent))
    assert judge(Standing(), late, FEWEST).rollbacks[0].traffic == 0.0
    assert judge(Standing(), now, FEWEST).rollbacks[0].traffic == 0.5


def test_only_the_last_are_watched() -> None:
    """A bounded number, the last ones decided."""
    old = {
        f"w{n}": msgspec.structs.replace(
            followed()[0], model_version=f"w{n}", decided=float(n), state=VERIFIED, receiver="v1"
        )
        for n in range(MOST_ROLLBACKS + 1)
    }
    after = judge(Standing(rollbacks=old), ROLLED, FEWEST).standing
    assert len(after.rollbacks) == MOST_ROLLBACKS + 1
    assert "v2" in after.rollbacks
    assert "w0" not in after.rollbacks


def test_however_many_are_to_be_rolled_back_each_is_watched_from_its_decision_on() -> None:
    """None that is recommended makes room for another, and none is told anew."""
    names = [f"w{n}" for n in range(MOST_ROLLBACKS + 4)]
    versions = tuple(
        VersionFacts(
            model_version=name,
            predictions=1000,
            first_seen=START - 1000.0,
            last_seen=START,
            elders=("v1",),
            stable=False,
        )
        for name in names
    )
    stable = msgspec.structs.replace(ROLLED.versions[0], stable=True)
    one = msgspec.structs.replace(
        ROLLED, versions=(stable, *versions), evidence=tuple(finding(CANARY_ERRORS, PAGE, name) for name in names)
    )
    first = judge(Standing(), one, FEWEST)
    assert {rollback.model_version for rollback in first.rollbacks} == set(names)
    again = judge(first.standing, msgspec.structs.replace(one, time=one.time + 60), FEWEST)
    assert again.rollbacks == []
    assert set(again.standing.rollbacks) == set(names)


@given(st.lists(st.tuples(st.floats(0, 3000), st.integers(0, 300), st.integers(0, 300)), max_size=12))
def test_whatever_the_traffic_a_claim_rests_on_predictions(steps: list[tuple[float, int, int]]) -> None:
    """`moved` only after enough predictions over long enough of which hardly any were the bad version's; `verified` after enough of the target's."""
    standing = judge(Standing(), ROLLED, FEWEST).standing
    time, v1, v2 = 0.0, 1000, 1000
    counts = [(time, v1, v2)]
    for elapsed, more, bad in steps:
        time, v1, v2 = time + elapsed, v1 + more, v2 + bad
        counts.append((time, v1, v2))
        before = standing.rollbacks["v2"]
        judged = judge(standing, seen(time, finding(CANARY_ERRORS, GONE), v1=v1, v2=v2), FEWEST)
        standing = judged.standing
        after = standing.rollbacks["v2"]
        told = [r.state for r in judged.rollbacks]
        assert told == ([after.state] if after.state is not before.state else [])
        if before.state is AWAITED and after.state is not AWAITED:
            assert after.state is MOVED
            windows = [(time - t, (v1 - a) + (v2 - b), v2 - b) for t, a, b in counts[:-1] if time - t >= INTERVAL]
            assert any(n >= 100 and b <= n / 100 for _, n, b in windows)
        if after.state is VERIFIED and before.state is not VERIFIED:
            assert before.state is MOVED
            assert v1 - after.received >= FEWEST
        assert after.state is not FAILED
        assert standing.decisions["v2"].target == "v1"
