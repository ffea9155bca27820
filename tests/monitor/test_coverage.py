"""What the server says it served is held against what was seen: honest traffic is never blind, whoever hides is found in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.judge.standing import Standing, judge
from poisonwatch.monitor.coverage import (
    ALL,
    GONE_SECONDS,
    MOST_RESETS,
    MOST_SERIES,
    MOST_VERSIONS,
    RESETS_SECONDS,
    Coverage,
    Series,
)
from poisonwatch.monitor.settings import ServedSettings
from poisonwatch.monitor.signs import FIRES, LASTS_SECONDS, moved
from poisonwatch.monitor.usual_ratio import FEWEST, HOURS
from poisonwatch.profile.indicators import COVERAGE
from poisonwatch.types import OTHER_VERSIONS, Action, AlertState, Cause, Reason, Severity, Sign
from tests.monitor.small import DAY, DETECTION, MONTH, constant, reloaded, small_monitor
from tests.streams import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from poisonwatch.monitor.machine import Monitor

    Batches = Callable[[np.random.Generator, int], NDArray[np.int64]]

EVERY = 15.0
DELAY = 300.0
TOLERATED = 0.02
SETTINGS = DETECTION._replace(period=MONTH)
SERVED = ServedSettings(tolerated=TOLERATED, delay=DELAY, by_version=False, learns=False)
LEARNS = SERVED._replace(learns=True)


def watching(served: ServedSettings = SERVED) -> Coverage:
    """Beside a server of one model."""
    return Coverage("mail", served, SETTINGS)


def daily(now: float) -> float:
    """Traffic by the time of the day: nine times as much at its height as at its lowest."""
    return 1 + 0.8 * math.sin(2 * math.pi * now / DAY)


def at_once(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Delays of records that are logged as they are served: within the second."""
    return rng.random(count)


def slowly(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Delays of records on a way with buffers: 40 seconds, a few of them minutes; none takes longer than is allowed."""
    return np.minimum(rng.exponential(40, count), DELAY - 2 * EVERY)


@dataclass
class Server:
    """A server that is asked every 15 seconds: so many requests a second, `hidden` of them never logged.

    `lost` of the others are lost in clusters of five; `unlogged` requests a second are counted and never logged; `batch` says how many records
    each of the requests has.
    """

    rng: np.random.Generator
    rate: float
    rhythm: Callable[[float], float] = lambda _: 1.0
    delays: Callable[[np.random.Generator, int], NDArray[np.float64]] = slowly
    hidden: float = 0.0
    lost: float = 0.0
    unlogged: float = 0.0
    batch: Batches = lambda _, count: np.ones(count, np.int64)
    count: float = 0.0
    served: int = 0
    on_the_way: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))

    def go_on(self, now: float) -> int:
        """The records that arrive in the 15 seconds up to `now`."""
        count = int(self.rng.poisson(self.rate * EVERY * self.rhythm(now)))
        self.served += count
        self.count += count + int(self.rng.poisson(self.unlogged * EVERY))
        kept = count - int(self.rng.binomial(count, self.hidden))
        kept = max(0, kept - 5 * int(self.rng.binomial(kept, self.lost / 5)))
        records = int(self.batch(self.rng, kept).sum())
        steps = (self.delays(self.rng, records) / EVERY).astype(np.int64)
        self.on_the_way += np.bincount(steps, minlength=self.on_the_way.size)
        arrived = int(self.on_the_way[0])
        self.on_the_way = np.append(self.on_the_way[1:], 0)
        return arrived

    def page(self) -> list[Series]:
        """What it says."""
        return [Series("served", ALL, self.count)]


def times(days: float, start: float = 0.0) -> Iterator[float]:
    """When the server is asked."""
    return (start + EVERY * number for number in range(int(days * DAY / EVERY)))


def read(coverage: Coverage, server: Server, now: float) -> None:
    """One turn of the loop in which the server answers."""
    if arrived := server.go_on(now):
        coverage.note("v1", arrived)
    coverage.mark()
    coverage.take(now, server.page())


def fires(coverage: Coverage) -> bool:
    """May the evidence raise an alert?"""
    return bool(moved(coverage.evidence, FIRES))


def until_found(coverage: Coverage, server: Server, start: float, days: float) -> tuple[float, int]:
    """Seconds from `start`, and requests, until the evidence fires; infinite where it does not."""
    before = server.served
    for now in times(days, start):
        read(coverage, server, now)
        if fires(coverage):
            return now - start, server.served - before
    return math.inf, server.served - before


def settled(coverage: Coverage, server: Server, days: float = 0.25) -> float:
    """Watch honest traffic for a while; the time when it ends."""
    for now in times(days):
        read(coverage, server, now)
        assert not fires(coverage)
    return days * DAY


# Honest traffic


@pytest.mark.slow
@pytest.mark.parametrize("rate", [2.5 / 60, 1.0, 20.0])
@pytest.mark.parametrize(
    ("lost", "resets", "restarts"),
    [(0.0, math.inf, math.inf), (0.005, math.inf, math.inf), (0.012, math.inf, math.inf), (0.005, 6 * 3600, 5 * 3600)],
)
def test_honest_traffic_is_never_blind(rate: float, lost: float, resets: float, restarts: float) -> None:
    """Delays, the rhythm of days, losses below what is tolerated, restarts of the server and of the agent: nothing fires in three days."""
    server = Server(np.random.default_rng(11), rate, daily, lost=lost)
    coverage = watching()
    for now in times(3):
        if resets < math.inf and now % resets == 0:
            server.count = 0.0
        if restarts < math.inf and now and now % restarts == 0:
            state = coverage.state()
            coverage = watching()
            coverage.restore(state)
        read(coverage, server, now)
        assert not fires(coverage), now
        assert not coverage.tells
    ratio = coverage.view().ratio
    assert ratio is not None
    assert ratio >= 1 - lost - 0.02


@pytest.mark.slow
def test_the_budget_holds_at_the_edge_of_what_is_tolerated() -> None:
    """Of losses of just what is tolerated, each by itself, the evidence comes nowhere near a page in three weeks."""
    worst = -math.inf
    for seed in range(3):
        server = Server(np.random.default_rng(seed), 0.2, delays=at_once, hidden=TOLERATED)
        coverage = watching()
        for now in times(7):
            read(coverage, server, now)
            worst = max(worst, *(e.log_e for e in coverage.evidence)) if coverage.evidence else worst
    assert worst < math.log(0.1)


def test_a_log_that_comes_in_bursts_within_the_delay_is_seen() -> None:
    """A server that writes its log every four minutes; and one whose agent reads a day's log at once after a pause."""
    rng = np.random.default_rng(3)
    coverage = watching()
    held, count = 0, 0.0
    for number, now in enumerate(times(2)):
        served = int(rng.poisson(15))
        count += served
        held += served
        if number % 16 == 0:
            coverage.note("v1", held)
            held = 0
        coverage.mark()
        coverage.take(now, [Series("served", ALL, count)])
        assert not fires(coverage)
    state = coverage.state()
    coverage = watching()
    coverage.restore(state)
    count += 86_400
    for late, records in ((0.0, 0), (60.0, 40_000), (120.0, 46_400 + held)):
        if records:
            coverage.note("v1", records)
        coverage.mark()
        coverage.take(3 * DAY + late, [Series("served", ALL, count)])
    coverage.mark()
    coverage.take(3 * DAY + DELAY + 60, [Series("served", ALL, count)])
    assert not coverage.tells
    assert coverage.view().versions[ALL].missing == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.floats(0, 0.9)), max_size=60), st.data())
def test_nothing_is_missed_that_came_within_its_delay(
    steps: list[tuple[int, bool, float]], data: st.DataObject
) -> None:
    """However requests, failures of the reading and arrivals fall together: what comes at most 20 readings later is never missing."""
    coverage = watching()
    coverage.mark()
    coverage.take(-EVERY, [Series("served", ALL, 0.0)])
    due: list[int] = [0] * 200
    total = 0
    for number in range(len(steps) + 40):
        count, fails, _ = steps[number] if number < len(steps) else (0, False, 0.0)
        total += count
        if count:
            due[number + data.draw(st.integers(0, 19))] += count
        if due[number]:
            coverage.note("v1", due[number])
        if not fails:
            coverage.mark()
            coverage.take(number * EVERY, [Series("served", ALL, float(total))])
        else:
            coverage.fail(number * EVERY)
    assert coverage.view().versions.get(ALL, (0, 0))[1] == 0
    assert not coverage.tells


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=80),
    st.lists(st.integers(0, 79), max_size=5),
)
def test_a_restart_changes_nothing_but_the_delay(steps: list[tuple[int, int]], stops: list[int]) -> None:
    """What is counted as missing after a restart is at most what it would have been, and all of it once its delay is over."""
    steady, stopped = watching(), watching()
    total = 0
    for number in range(len(steps) + 25):
        served, seen = steps[number] if number < len(steps) else (0, 0)
        total += served
        if number in stops:
            state = stopped.state()
            stopped = watching()
            stopped.restore(state)
        for coverage in (steady, stopped):
            if seen:
                coverage.note("v1", seen)
            coverage.mark()
            coverage.take(number * EVERY, [Series("served", ALL, float(total))])
    missing = [coverage.view().versions[ALL].missing for coverage in (steady, stopped)]
    assert missing[1] <= missing[0] + 1e-9
    assert steady.view().versions[ALL].served == stopped.view().versions[ALL].served == total - steps[0][0]


# What is hidden


@pytest.mark.parametrize(
    ("rate", "hidden", "hours", "requests"),
    [
        (2.5 / 60, 0.05, 40.0, 6000),
        (2.5 / 60, 0.1, 6.0, 900),
        (2.5 / 60, 1.0, 0.3, 60),
        (1.0, 0.05, 4.0, 14_000),
        (1.0, 0.1, 1.5, 5_400),
        (1.0, 1.0, 0.11, 420),
        (20.0, 0.05, 3.5, 250_000),
        (20.0, 0.1, 1.3, 94_000),
        (20.0, 1.0, 0.11, 8_000),
    ],
)
def test_what_is_hidden_is_found(rate: float, hidden: float, hours: float, requests: int) -> None:
    """Of hidden requests a share beyond what is tolerated is found: first the delay's traffic must be missing, then a few hundred more."""
    for seed in range(3):
        server = Server(np.random.default_rng(seed), rate)
        coverage = watching()
        start = settled(coverage, server)
        server.hidden = hidden
        seconds, served = until_found(coverage, server, start, 3)
        assert seconds <= hours * 3600
        assert served <= requests
        # Nothing can be known before the delay's traffic is used up.
        assert seconds >= DELAY * 0.9 if hidden == 1 else served >= 0.5 * rate * DELAY / hidden
        (found,) = coverage.evidence
        (subject,) = found.subjects
        assert (found.group, found.model_version, subject.expected) == (COVERAGE, None, TOLERATED)
        assert subject.rate > TOLERATED


def test_what_is_hidden_again_and_again_is_told_as_a_rate() -> None:
    """The ratio that is shown, and the count of what was never seen, come near the truth."""
    server = Server(np.random.default_rng(5), 5.0)
    coverage = watching()
    settled(coverage, server)
    server.hidden = 0.1
    seen_at = coverage.view().versions[ALL]
    hidden = 0.1 * 5.0 * DAY
    for now in times(1, DAY / 4):
        read(coverage, server, now)
    shown = coverage.view()
    assert shown.ratio == pytest.approx(0.9, abs=0.02)
    # What waits at the end may still come.
    assert shown.versions[ALL].missing - seen_at.missing == pytest.approx(hidden, abs=5.0 * DELAY * 1.2)


def test_when_it_can_be_seen_again_the_alert_ends() -> None:
    """An hour of a dead log, then an honest day: a ticket, then a page, and both over."""
    server = Server(np.random.default_rng(7), 1.0)
    coverage = watching()
    start = settled(coverage, server)
    server.hidden = 1.0
    signs = []
    for now in times(1.5 / 24, start):
        read(coverage, server, now)
        signs.append(coverage.evidence[0].signs if fires(coverage) else None)
    first = next(number for number, found in enumerate(signs) if found is not None)
    assert all(found is not None for found in signs[first:])
    lasting = [number for number, found in enumerate(signs) if found == (Sign.LASTING,)]
    assert lasting[0] == first + LASTS_SECONDS / EVERY
    assert lasting == list(range(lasting[0], len(signs)))
    server.hidden = 0.0
    for now in times(0.5, start + DAY / 16):
        read(coverage, server, now)
    assert not coverage.tells


def test_a_failing_page_of_metrics_says_nothing() -> None:
    """Coverage is unknown then; what was served meanwhile is entered with the next reading, and what was hidden meanwhile is found."""
    for hidden in (0.0, 1.0):
        server = Server(np.random.default_rng(8), 1.0)
        coverage = watching()
        start = settled(coverage, server)
        server.hidden = hidden
        for now in times(0.25, start):
            if arrived := server.go_on(now):
                coverage.note("v1", arrived)
            coverage.fail(now)
            assert not coverage.tells
            assert not coverage.view().usable
        found, _ = until_found(coverage, server, start + DAY / 4, 0.1)
        assert (found <= DELAY + 2 * EVERY) is (hidden == 1.0)
        assert coverage.view().usable


def test_a_counter_that_jumps_is_not_used() -> None:
    """Two processes that answer in turn, one of which served more: a fall every other time is no restart."""
    coverage = watching()
    counts = [10_000.0, 4_000.0]
    for number, now in enumerate(times(0.5)):
        counts[number % 2] += 15
        coverage.note("v1", 15)
        coverage.mark()
        coverage.take(now, [Series("served", ALL, counts[number % 2])])
        assert not coverage.tells
        assert coverage.view().usable is (number <= 2 * MOST_RESETS)
    # With one process left it can be relied on again.
    for now in times(0.1, DAY / 2):
        counts[0] += 15
        coverage.note("v1", 15)
        coverage.mark()
        coverage.take(now, [Series("served", ALL, counts[0])])
        assert not coverage.tells
    assert coverage.view().usable
    assert RESETS_SECONDS < 0.1 * DAY


# Requests that are not predictions


def batches(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """One to ten records a request."""
    return rng.integers(1, 11, count)


def single(_: np.random.Generator, count: int) -> NDArray[np.int64]:
    """One record a request."""
    return np.ones(count, np.int64)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [2.5 / 60, 1.0])
@pytest.mark.parametrize(("batch", "unlogged"), [(batches, 0.0), (single, 0.05), (single, 0.5)])
def test_requests_are_counted_by_their_usual_ratio(rate: float, batch: Batches, unlogged: float) -> None:
    """Batches of all sizes, and checks that are counted and never logged: nothing fires in three days."""
    server = Server(np.random.default_rng(12), rate, daily, batch=batch, unlogged=unlogged * rate)
    coverage = watching(LEARNS)
    for now in times(3):
        read(coverage, server, now)
        assert not coverage.tells, now
        assert coverage.view().ready is (now >= HOURS * 3600) or now >= HOURS * 3600
    assert coverage.view().ready


@pytest.mark.parametrize(("batch", "hidden", "hours"), [(batches, 0.3, 3.0), (batches, 1.0, 0.5), (single, 0.1, 4.0)])
def test_what_is_hidden_of_requests_is_found_once_the_ratio_is_known(
    batch: Batches, hidden: float, hours: float
) -> None:
    """Later than of predictions: what hours differ by is no evidence."""
    server = Server(np.random.default_rng(13), 1.0, batch=batch, unlogged=0.05)
    coverage = watching(LEARNS)
    start = settled(coverage, server, 2)
    server.hidden = hidden
    seconds, _ = until_found(coverage, server, start, 3)
    assert seconds <= hours * 3600


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_dead_log_is_found_while_the_ratio_is_learned(*, from_the_start: bool) -> None:
    """In an hour, also when there was never a record."""
    server = Server(np.random.default_rng(14), 2.5 / 60, hidden=float(from_the_start))
    coverage = watching(LEARNS)
    start = 0.0 if from_the_start else settled(coverage, server)
    server.hidden = 1.0
    seconds, served = until_found(coverage, server, start, 1)
    assert seconds <= 2.2 * 3600
    assert served >= FEWEST


def test_a_restart_while_the_ratio_is_learned_changes_nothing() -> None:
    """Before, while and after it is known."""
    one, other = (Server(np.random.default_rng(15), 0.5, daily, batch=batches) for _ in range(2))
    steady, stopped = watching(LEARNS), watching(LEARNS)
    for number, now in enumerate(times(1.5)):
        if number % 1000 == 999:
            state = stopped.state()
            stopped = watching(LEARNS)
            stopped.restore(state)
        read(steady, one, now)
        read(stopped, other, now)
    assert steady.state()["usual"] == stopped.state()["usual"]
    assert steady.view().ready
    assert stopped.view().ready


# Versions, and what is hostile


def test_each_version_has_its_own_account() -> None:
    """A version whose log is dead is named, and no other; when it is gone, what is open of it ends."""
    coverage = watching(SERVED._replace(by_version=True))
    served = {"v1": 0, "v2": 0}
    for now in times(0.25):
        for version in served:
            served[version] += 15
            if version == "v1" or now < DAY / 8:
                coverage.note(version, 15)
        coverage.mark()
        coverage.take(now, [Series(name, name, float(count)) for name, count in served.items()])
    assert {e.model_version: bool(moved([e], FIRES)) for e in coverage.evidence} == {"v1": False, "v2": True}
    told = []
    for now in times(1.01, DAY / 4):
        served["v1"] += 15
        coverage.note("v1", 15)
        coverage.mark()
        coverage.take(now, [Series(name, name, float(count)) for name, count in served.items()])
        told.append({e.model_version: e.log_e < math.log(0.01) for e in coverage.evidence})
    assert GONE_SECONDS == DAY
    assert [shown for shown, _ in groupby(told)] == [{"v1": True, "v2": False}, {"v1": True, "v2": True}, {"v1": True}]


def test_memory_is_bounded() -> None:
    """A million series, versions in the page and versions in the log make no more than the caps allow."""
    coverage = watching(SERVED._replace(by_version=True))
    for turn in range(3):
        for number in range(10_000):
            coverage.note(f"x{number}", 1)
        coverage.mark()
        coverage.take(turn * EVERY, [Series(f"s{turn}-{n}", f"w{n}", float(turn)) for n in range(10_000)])
    state = coverage.state()
    assert len(state["values"]) <= MOST_SERIES
    assert len(state["ledgers"]) <= MOST_VERSIONS + 1
    assert len(state["seen"]) <= MOST_VERSIONS + 1
    assert OTHER_VERSIONS in state["seen"]


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e7), st.integers(0, 100), st.lists(st.floats(0, 2.0**53, allow_nan=False), max_size=4)
        ),
        max_size=30,
    )
)
def test_no_clock_and_no_count_breaks_it(steps: list[tuple[float, int, list[float]]]) -> None:
    """Whatever the clock and the counter do, evidence and counts are finite, and the state can be saved."""
    coverage = watching()
    for now, seen, values in steps:
        if seen:
            coverage.note("v1", seen)
        coverage.mark()
        coverage.take(now, [Series(f"s{number}", ALL, value) for number, value in enumerate(values)])
        assert all(math.isfinite(e.log_e) and math.isfinite(e.effect) for e in coverage.evidence)
        for one in coverage.view().versions.values():
            assert 0 <= one.missing <= one.served + 1e-6 < math.inf
    other = watching()
    other.restore(coverage.state())


# In the monitor


def monitor() -> Monitor:
    """A small monitor whose server is asked."""
    return small_monitor(served=SERVED, period=MONTH)


def test_a_dead_log_makes_a_ticket_then_a_page_and_no_version_is_kept() -> None:
    """Without a single record more: `hold` by `blind` within minutes, a page after an hour, the same decision."""
    watched, standing = monitor(), Standing()
    for report in (*watched.absorb(constant([START + n for n in range(600)])), *watched.flush(START + 700)):
        standing, *_ = judge(standing, report, 200)
    told: list[tuple[float, AlertState, Severity]] = []
    held = math.inf
    assert watched.coverage is not None
    begin = START + 700
    for number in range(500):
        now = begin + number * EVERY
        watched.coverage.mark()
        for report in watched.served(now, [Series("served", ALL, 1000.0 + 15 * number)]):
            assert report.time == now
            standing, alerts, *_ = judge(standing, report, 200)
            told += [(now - begin, a.state, a.severity) for a in alerts if a.group == COVERAGE]
        if {(d.decision, d.reason, d.cause) for d in standing.decisions.values()} == {
            (Action.HOLD, Reason.BLIND, Cause.BLIND)
        }:
            held = min(held, now - begin)
    assert held <= DELAY + 4 * EVERY
    assert told[-2:] == [
        (held, AlertState.FIRING, Severity.TICKET),
        (held + LASTS_SECONDS, AlertState.FIRING, Severity.PAGE),
    ]
    assert {(d.decision, d.reason) for d in standing.decisions.values()} == {(Action.HOLD, Reason.BLIND)}
    (alert,) = (a for a in standing.alerts.values() if a.group == COVERAGE)
    assert "never reached the monitor (2.0% are tolerated)" in alert.summary


def test_the_monitor_counts_what_enters_a_profile_and_saves_it(tmp_path: Path) -> None:
    """Late predictions were not seen; what was seen survives a restart; without a server nothing is asked."""
    watched = monitor()
    list(watched.absorb(constant([START + n for n in range(300)])))
    list(watched.absorb(constant([START + n for n in range(7)])))
    assert watched.late == 7
    watched = reloaded(watched, tmp_path / "state", monitor())
    assert watched.coverage is not None
    assert watched.coverage.state()["seen"] == {ALL: 300}
    list(watched.flush(START + 3600))
    assert watched.lines == (300, 7)
    assert reloaded(watched, tmp_path / "state", monitor()).lines == (300, 7)
    alone = small_monitor()
    assert alone.coverage is None
    assert list(alone.served(START, [Series("served", ALL, 5.0)])) == []
