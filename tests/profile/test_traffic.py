"""Which version is the stable one: not who wrote first, not a straggler, and not by a silent weekend."""

from __future__ import annotations

from poisonwatch.profile.traffic import ESTABLISHED, RETIRED, Traffic
from poisonwatch.types import OTHER_VERSIONS

MINUTE, HOUR = 60.0, 3600.0


def after(traffic: Traffic, start: float, minutes: int, **counts: int) -> float:
    """Each minute the same predictions by version, from `start` on; the end of the last minute."""
    for number in range(1, minutes + 1):
        traffic.note(start + number * MINUTE, counts)
    return start + minutes * MINUTE


def fresh(configured: str | None = None, *known: str) -> Traffic:
    """Nothing seen yet."""
    return Traffic(configured, frozenset(known))


def test_a_canary_that_writes_first_is_not_stable() -> None:
    """The version with most of the traffic takes the place before anybody is compared."""
    traffic = fresh()
    traffic.note(MINUTE, {"v2": 1})
    assert not traffic.comparable("v1")
    after(traffic, MINUTE, 60, v1=18, v2=2)
    assert traffic.stable == "v1"
    assert traffic.comparable("v2")
    # Both were there from the start: which of them is the older is a guess, and no target.
    assert traffic.elders("v2") == ()


def test_the_version_of_the_reference_is_stable_and_trusted() -> None:
    """However little it answers, as long as it is no straggler; a version that the reference lacks is younger."""
    traffic = fresh(None, "v1")
    after(traffic, 0.0, 10, v1=2, v2=8)
    assert traffic.stable == "v1"
    assert traffic.comparable("v2")
    assert traffic.elders("v2") == ("v1",)
    assert traffic.elders("v1") == ()


def test_the_configured_version_is_stable_while_it_runs() -> None:
    """By decree, at once and at any share; an hour of the other's traffic later the other takes its place."""
    traffic = fresh("v1", "v2")
    now = after(traffic, 0.0, 1, v1=1, v2=99)
    assert traffic.stable == "v1"
    assert traffic.elders("v2") == ("v1",)
    assert traffic.elders("v1") == ()
    after(traffic, now, 62, v2=99)
    assert traffic.stable == "v2"


def test_who_is_established_stays_while_a_newer_version_grows() -> None:
    """A roll-out from 5 to 90 % does not turn the comparison round; at the end the newer takes over, unaccused."""
    traffic = fresh()
    now = after(traffic, 0.0, 60, v1=20)
    for share in (1, 5, 10, 18):
        now = after(traffic, now, 120, v1=20 - share, v2=share)
        assert traffic.stable == "v1"
        assert traffic.comparable("v2")
        assert traffic.elders("v2") == ("v1",)
    after(traffic, now, 300, v1=0, v2=200)
    assert traffic.stable == "v2"
    assert not traffic.comparable("v1")
    assert traffic.elders("v1") == ()


def test_a_straggler_is_no_yardstick() -> None:
    """A version that once was stable and now answers 1 % is not what a canary is compared with."""
    traffic = fresh()
    now = after(traffic, 0.0, 60, v0=100)
    now = after(traffic, now, 600, v0=1, v1=99)
    after(traffic, now, 60, v0=1, v1=70, v2=29)
    assert traffic.stable == "v1"
    assert traffic.comparable("v2")
    assert not traffic.comparable("v0")


def test_a_silent_weekend_changes_nothing() -> None:
    """A gap of all traffic retires nobody and leaves the stable version in its place, whoever writes first."""
    traffic = fresh()
    now = after(traffic, 0.0, 60, v1=20)
    now = after(traffic, now, 60, v1=18, v2=2)
    assert traffic.note(now + 3 * 24 * HOUR, {"v2": 1}) == []
    assert traffic.stable == "v1"


def test_a_version_is_gone_after_a_day_of_the_others_traffic() -> None:
    """It is told once, and forgotten; coming back it is new."""
    traffic = fresh()
    now = after(traffic, 0.0, 1, v1=ESTABLISHED, v2=10)
    gone = [name for n in range(30) for name in traffic.note(now + (n + 1) * HOUR, {"v1": 10})]
    assert gone == ["v2"]
    assert RETIRED == 24 * HOUR
    traffic.note(now + 31 * HOUR, {"v1": 10, "v2": 1})
    assert traffic.elders("v2") == ("v1",)


def test_elders_are_told_the_most_recent_first_and_go_on_when_they_are_gone() -> None:
    """Three versions replace each other within days: the last knows both, and `other` knows and is nobody's elder."""
    traffic, now = fresh(), 0.0
    for name in ("v1", "v2", "v3"):
        for _ in range(30):
            now += HOUR
            traffic.note(now, {name: 100, OTHER_VERSIONS: 1})
    assert traffic.stable == "v3"
    assert traffic.elders("v3") == ("v2", "v1")
    assert traffic.elders(OTHER_VERSIONS) == ()


def test_state_survives() -> None:
    """What was saved and restored goes on as what was not."""
    one = fresh()
    now = after(one, 0.0, 60, v1=20)
    now = after(one, now, 60, v1=15, v2=5)
    other = fresh()
    other.restore(one.state())
    after(one, now, 200, v2=7)
    after(other, now, 200, v2=7)
    assert one.state() == other.state()
    assert one.stable == other.stable == "v2"
