"""Event time: the windows, the late ones and the rejected lines do not depend on how the stream was chopped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from poisonwatch.profile.window import Windows
from tests.streams import chopped, shuffled, small_batch, small_questions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.profile.window import Window
    from poisonwatch.types import Batch

QUESTIONS = small_questions()


class Case(NamedTuple):
    """A stream, the windows it goes into, and where it is cut."""

    batch: Batch
    width: float
    lateness: float
    cuts: list[int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to 60 predictions of three versions out of order, lines rejected anywhere, cut anywhere."""
    near = st.one_of(st.floats(0, 300), st.integers(0, 30).map(lambda tens: tens * 10.0))
    times = draw(st.lists(near, max_size=60))
    if draw(st.booleans()):
        times.sort()
    rejected = draw(st.lists(st.integers(0, len(times)), max_size=10))
    batch = small_batch(times, np.random.default_rng(draw(st.integers(0, 99))), ("v2", "v1", "v3"), rejected)
    cuts = draw(st.one_of(st.just(list(range(100))), st.lists(st.integers(0, 70), max_size=8)))
    return Case(batch, draw(st.sampled_from([7.5, 10.0, 60.0])), draw(st.sampled_from([0.0, 5.0, 60.0])), cuts)


def plain(window: Window) -> dict[str, Any]:
    """A window as values that compare."""
    return {
        "start": window.start,
        "end": window.end,
        "profiles": [(version, profile.tolist()) for version, profile in sorted(window.profiles.items())],
        "last_seen": dict(window.last_seen),
        "lost": window.lost,
    }


def closed(windows: Windows, pieces: Iterable[Batch]) -> list[dict[str, Any]]:
    """What a stream in pieces closes, in its order."""
    return [plain(window) for piece in pieces for window in windows.absorb(piece)]


def by_hand(case: Case) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Windows closed by the stream, windows left open, and late predictions: one line at a time, as documented."""
    batch, width, lateness, _ = case
    newest, late, before_any = -math.inf, 0, 0
    members: dict[int, list[int]] = {}
    lost: dict[int, int] = {}
    order: list[int] = []
    lines = [(at, 0, None) for at in batch.rejected_at.tolist()] + [(i, 1, i) for i in range(batch.time.size)]
    for _, _, record in sorted(lines, key=lambda line: line[:2]):
        if record is None:
            if math.isinf(newest):
                before_any += 1
            else:
                which = math.floor(newest / width)
                lost[which] = lost.get(which, 0) + 1
                members.setdefault(which, [])
            continue
        time = float(batch.time[record])
        which = math.floor(time / width)
        if before_any:
            lost[which], before_any = before_any, 0
        if (which + 1) * width <= newest - lateness:
            late += 1
            lost[math.floor(newest / width)] = lost.get(math.floor(newest / width), 0) + 1
            members.setdefault(math.floor(newest / width), [])
        else:
            members.setdefault(which, []).append(record)
        newest = max(newest, time)
        order += [which for which in sorted(members) if (which + 1) * width <= newest - lateness and which not in order]
    if before_any:
        lost[0], members[0] = before_any, []
    left = [which for which in sorted(members) if which not in order]

    def window(which: int) -> dict[str, Any]:
        mine = members[which]
        of = {name: [i for i in mine if batch.versions[batch.version[i]] == name] for name in sorted(batch.versions)}
        return {
            "start": which * width,
            "end": (which + 1) * width,
            "profiles": [
                (name, QUESTIONS.count(batch.numbers[:, i], batch.codes[:, i]).tolist()) for name, i in of.items() if i
            ],
            "last_seen": {name: max(batch.time[i].tolist()) for name, i in of.items() if i},
            "lost": lost.get(which, 0),
        }

    return [window(which) for which in order], [window(which) for which in left], late


@given(cases())
@example(Case(small_batch([5.0, 100.0, 3.0], np.random.default_rng(0), ("v1",), [0, 0, 2, 3]), 10.0, 5.0, [1, 2, 4]))
def test_any_chopping_gives_the_windows_of_counting_line_by_line(case: Case) -> None:
    """Closed windows, profiles, late predictions and rejected lines are those of the plain definition."""
    expected, left, late = by_hand(case)
    windows = Windows(QUESTIONS, case.width, case.lateness)
    assert closed(windows, chopped(case.batch, case.cuts)) == expected
    assert windows.late == late
    assert windows.newest == max(case.batch.time.tolist(), default=-math.inf)
    assert [plain(window) for window in windows.flush(0.0)] == left
    assert not list(windows.flush(0.0))


@given(cases(), st.integers(0, 70))
def test_a_restart_between_any_two_batches_changes_nothing(case: Case, at: int) -> None:
    """From a restored state come the windows, the late count and the state that would have come anyway."""
    pieces = chopped(case.batch, case.cuts)
    at = min(at, len(pieces))
    one = Windows(QUESTIONS, case.width, case.lateness)
    closed(one, pieces[:at])
    saved = one.state()
    expected = closed(one, pieces[at:])
    other = Windows(QUESTIONS, case.width, case.lateness)
    other.restore(saved)
    assert closed(other, pieces[at:]) == expected
    assert other.late == one.late
    assert other.newest == one.newest
    assert [plain(window) for window in other.flush(0.0)] == [plain(window) for window in one.flush(0.0)]


@given(cases())
def test_nothing_is_lost(case: Case) -> None:
    """Every prediction is counted once, in a window or as late, and every rejected or late line as lost."""
    windows = Windows(QUESTIONS, case.width, case.lateness)
    found = closed(windows, chopped(case.batch, case.cuts)) + [plain(window) for window in windows.flush(0.0)]
    kept = sum(profile[0] for window in found for _, profile in window["profiles"])
    assert kept + windows.late == case.batch.time.size
    assert sum(window["lost"] for window in found) == case.batch.rejected_at.size + windows.late


@given(st.integers(0, 99), st.floats(0, 59.9))
def test_records_delayed_by_less_than_the_lateness_are_never_late(seed: int, spread: float) -> None:
    """Out of order within the allowed lateness, a log gives the windows of the ordered log."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 600, 200))
    windows = Windows(QUESTIONS, 30.0, 60.0)
    found = closed(windows, [small_batch(shuffled(times, rng, spread), rng)])
    found += [plain(window) for window in windows.flush(0.0)]
    assert windows.late == 0
    counts = [profile[0] for window in found for _, profile in window["profiles"]]
    assert counts == [int(n) for n in np.histogram(times, np.arange(0, 601, 30.0))[0] if n]


def test_flush_closes_what_is_open_and_nothing_later() -> None:
    """`flush` closes every open window; what comes for them afterwards is late, for later ones it is in time."""
    rng = np.random.default_rng(5)
    windows = Windows(QUESTIONS, 10.0, 20.0)
    assert not list(windows.flush(0.0))
    assert closed(windows, [small_batch([1.0, 11.0, 25.0], rng)]) == []
    assert [window.end for window in windows.flush(0.0)] == [10.0, 20.0, 30.0]
    assert closed(windows, [small_batch([29.9, 30.0], rng)]) == []
    assert windows.late == 1
    assert [(window.lost, {n: int(p[0]) for n, p in window.profiles.items()}) for window in windows.flush(0.0)] == [
        (0, {"v1": 1}),
        (1, {}),
    ]


def test_lines_rejected_after_a_flush_are_not_lost() -> None:
    """After `flush`, a rejected line belongs to a window that is still to come."""
    rng = np.random.default_rng(7)
    windows = Windows(QUESTIONS, 10.0, 0.0)
    closed(windows, [small_batch([5.0], rng)])
    list(windows.flush(0.0))
    closed(windows, [small_batch([], rng, rejected_at=[0, 0])])
    assert [(window.start, window.lost) for window in windows.flush(0.0)] == [(10.0, 2)]


def test_lines_lost_before_any_prediction_do_not_make_the_log_late() -> None:
    """They are judged at the clock's time; the log may tell of an earlier time and is in time all the same."""
    rng = np.random.default_rng(8)
    windows = Windows(QUESTIONS, 10.0, 0.0)
    closed(windows, [small_batch([], rng, rejected_at=[0, 0, 0])])
    assert [(window.start, window.lost) for window in windows.flush(1000.0)] == [(1000.0, 3)]
    closed(windows, [small_batch([5.0, 7.0], rng)])
    assert windows.late == 0
    assert [(window.start, window.lost) for window in windows.flush(1001.0)] == [(0.0, 0)]
