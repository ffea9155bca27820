"""Merging: several logs as one stream, each record in its turn."""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.formats.jsonl import JsonlFeedback, JsonlPredictions
from poisonwatch.formats.records import LATEST
from poisonwatch.sources.merge import CONFIRMATIONS, JUMP, TIME_JUMP, Lane, Merge
from poisonwatch.types import Batch, Column, Schema
from tests.streams import START, lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.sources.merge import Decoder

SCHEMA = Schema(
    model="m",
    outcome=Column(name="prediction", kind="numerical"),
    features=(Column(name="features.n", kind="numerical"),),
    layout="object",
    confidence=False,
)
OTHER = msgspec.structs.replace(SCHEMA, model="other", features=(), layout="none")
BAD = None
"""Stands in a log for a line that is rejected."""

Entry = float | None


def log(entries: Sequence[Entry], *, name: str, labels: bool = False) -> list[bytes]:
    """Lines of a log: a record at each time, after START, or a bad line. A record says its number."""
    records: list[Any] = [
        {"timestamp": START + at, "prediction_id": f"{name}{n}", "label": "x"}
        if labels
        else {"timestamp": START + at, "prediction": n, "model_version": name, "features": {"n": n}}
        for n, at in enumerate(entries)
        if at is not BAD
    ]
    whole = iter(lines(records).splitlines())
    return [b"bad\n" if at is BAD else next(whole) + b"\n" for at in entries]


def lane(
    name: str, content: list[bytes], cuts: Sequence[int] = (), *, labels: bool = False, confirm: bool
) -> Lane[bytes]:
    """A lane over a log that is given in blocks, cut at these lines."""
    edges = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
    blocks = iter([b"".join(content[a:b]) for a, b in pairwise(edges)])
    decoder: Decoder[bytes] = JsonlFeedback(1 << 16) if labels else JsonlPredictions({"m": SCHEMA}, 1 << 16)
    return Lane(name, lambda: next(blocks, b""), decoder, confirm=confirm)


def told(merge: Merge) -> list[tuple[str, float]]:
    """The whole stream as (which record, time after START); rejected lines as ("rejected", nan)."""
    found: list[tuple[str, float]] = []
    quiet = 0
    while quiet < 2:
        pieces = merge.step()
        quiet = 0 if pieces else quiet + 1
        for piece in pieces:
            at = [] if not isinstance(piece, Batch) else piece.rejected_at.tolist()
            for n in range(piece.time.size + 1):
                found += [("rejected", math.nan)] * at.count(n)
                if n < piece.time.size:
                    found.append((identity(piece, n), float(piece.time[n]) - START))
    return found


def identity(piece: Any, n: int) -> str:
    """Which record is it?"""
    if isinstance(piece, Batch):
        return f"{piece.versions[piece.version[n]]}{int(piece.numbers[0, n])}"
    return str(piece.ids[n])


def names(merge: Merge) -> list[str]:
    """The whole stream by name."""
    return [name for name, _ in told(merge)]


def rejected(merge: Merge) -> dict[str, int]:
    """Rejected lines by reason over all lanes."""
    found: dict[str, int] = {}
    for of in merge.lanes:
        for counts in of.counts:
            for reason, count in counts.rejected.items():
                found[reason] = found.get(reason, 0) + count
    return found


GRAIN = 1.0
"""Times here are whole seconds: predictions and labels change places at any of them."""

TIMES = st.lists(st.integers(0, 40).map(float), max_size=12)
CUTS = st.lists(st.integers(0, 12), max_size=4)


@given(first=TIMES, second=TIMES, labels=TIMES, cuts=st.tuples(CUTS, CUTS, CUTS))
def test_merging_is_sorting_by_running_clocks(
    first: list[float], second: list[float], labels: list[float], cuts: tuple[list[int], list[int], list[int]]
) -> None:
    """Logs come out as if sorted by each record's largest time so far in its own log, with the earlier log first at ties."""
    merge = Merge(
        [
            lane("a", log(first, name="a"), cuts[0], confirm=True),
            lane("b", log(second, name="b"), cuts[1], confirm=True),
            lane("l", log(labels, name="l", labels=True), cuts[2], labels=True, confirm=True),
        ],
        GRAIN,
    )
    keyed = [
        (max(times[: n + 1]), place, n, f"{name}{n}")
        for place, (name, times) in enumerate((("a", first), ("b", second), ("l", labels)))
        for n in range(len(times))
    ]
    assert names(merge) == [name for *_, name in sorted(keyed)]
    assert not any(of.holding for of in merge.lanes)


@given(first=TIMES, second=TIMES, cuts=st.tuples(CUTS, CUTS), grain=st.sampled_from([2.0, 5.0, 60.0]))
def test_logs_of_predictions_are_sorted_within_a_span_too(
    first: list[float], second: list[float], cuts: tuple[list[int], list[int]], grain: float
) -> None:
    """Predictions do not change places however long the spans are, and where one log ends within a span."""
    logs = [("a", first), ("b", second)]
    merge = Merge([lane(n, log(t, name=n), of, confirm=True) for (n, t), of in zip(logs, cuts, strict=True)], grain)
    keyed = [
        (max(times[: n + 1]), place, n, f"{name}{n}")
        for place, (name, times) in enumerate(logs)
        for n in range(len(times))
    ]
    assert names(merge) == [name for *_, name in sorted(keyed)]


MODELS = st.lists(st.tuples(st.integers(0, 40).map(float), st.sampled_from(["m", "other"])), max_size=14)


@given(first=MODELS, second=MODELS, labels=TIMES, cuts=st.tuples(CUTS, CUTS, CUTS))
def test_logs_that_models_share(
    first: list[tuple[float, str]],
    second: list[tuple[float, str]],
    labels: list[float],
    cuts: tuple[list[int], list[int], list[int]],
) -> None:
    """Of logs that each hold two models nothing is lost, no piece holds two models, and each log keeps its order by model."""
    schemas = {"m": SCHEMA, "other": OTHER}
    lanes = [lane("l", log(labels, name="l", labels=True), cuts[2], labels=True, confirm=False)]
    given_by: dict[tuple[str, str], list[float]] = {}
    for name, entries, places in (("a", first, cuts[0]), ("b", second, cuts[1])):
        records = [
            {"timestamp": START + at, "prediction": n, "model": model, "model_version": name, "features": {"n": n}}
            for n, (at, model) in enumerate(entries)
        ]
        edges = sorted({0, len(records), *(min(place, len(records)) for place in places)})
        blocks = iter([lines(records[start:stop]) for start, stop in pairwise(edges)])
        lanes.append(
            Lane(name, functools.partial(next, blocks, b""), JsonlPredictions(schemas, 1 << 16), confirm=False)
        )
        for model in schemas:
            given_by[name, model] = [at for at, of in entries if of == model]
    merge = Merge(lanes, GRAIN)
    found: dict[tuple[str, str], list[float]] = {place: [] for place in given_by}
    labelled, quiet = 0, 0
    while quiet < 2:
        pieces = merge.step()
        quiet = 0 if pieces else quiet + 1
        for piece in pieces:
            if not isinstance(piece, Batch):
                labelled += piece.time.size
                continue
            assert piece.numbers.shape[0] == (2 if piece.model == "m" else 1)
            for n, at in enumerate(piece.time.tolist()):
                found[piece.versions[piece.version[n]], piece.model].append(at - START)
    assert (found, labelled) == (given_by, len(labels))
    assert not any(of.holding for of in merge.lanes)


@given(predictions=TIMES, labels=TIMES, cuts=st.tuples(CUTS, CUTS))
def test_label_never_acts_before_its_time(
    predictions: list[float], labels: list[float], cuts: tuple[list[int], list[int]]
) -> None:
    """When a label is given, every prediction that the log had before the label's time was given."""
    merge = Merge(
        [
            lane("p", log(sorted(predictions), name="p"), cuts[0], confirm=True),
            lane("l", log(sorted(labels), name="l", labels=True), cuts[1], labels=True, confirm=True),
        ],
        GRAIN,
    )
    given_before: list[float] = []
    for name, at in told(merge):
        if name.startswith("p"):
            given_before.append(at)
        else:
            assert sorted(given_before) == [time for time in sorted(predictions) if time <= at]


@given(
    entries=st.lists(st.none() | st.integers(0, 40).map(float), max_size=14),
    other=TIMES,
    cuts=st.tuples(CUTS, CUTS),
)
def test_rejected_lines_keep_their_place(
    entries: list[Entry], other: list[float], cuts: tuple[list[int], list[int]]
) -> None:
    """A rejected line comes out between the same two records of its log, however the log was cut."""
    alone = names(Merge([lane("a", log(entries, name="a"), cuts[0], confirm=True)], GRAIN))
    assert alone == ["rejected" if at is BAD else f"a{n}" for n, at in enumerate(entries)]
    merged = names(
        Merge(
            [
                lane("a", log(entries, name="a"), cuts[0], confirm=True),
                lane("b", log(other, name="b"), cuts[1], confirm=True),
            ],
            GRAIN,
        )
    )
    assert merged.count("rejected") == entries.count(BAD)
    assert [name for name in merged if name.startswith("a")] == [name for name in alone if name != "rejected"]


@given(predictions=TIMES, labels=TIMES, cuts=st.tuples(CUTS, CUTS), grain=st.sampled_from([2.0, 5.0, 60.0]))
def test_labels_come_at_the_end_of_their_span(
    predictions: list[float], labels: list[float], cuts: tuple[list[int], list[int]], grain: float
) -> None:
    """Of finite logs each span gives its predictions, then its labels, whatever the blocks; nothing is lost."""
    merge = Merge(
        [
            lane("p", log(sorted(predictions), name="p"), cuts[0], confirm=True),
            lane("l", log(sorted(labels), name="l", labels=True), cuts[1], labels=True, confirm=True),
        ],
        grain,
    )
    keyed = [
        (math.floor((START + at) / grain), of_labels, n, f"{name}{n}")
        for of_labels, (name, times) in enumerate((("p", sorted(predictions)), ("l", sorted(labels))))
        for n, at in enumerate(times)
    ]
    found = names(merge)
    assert sorted(found) == sorted(name for *_, name in keyed)
    whole = [name for *_, name in sorted(keyed)]
    last = max(
        (
            math.floor((START + min(max(one), max(other))) / grain)
            for one, other in [(predictions, labels)]
            if one and other
        ),
        default=0,
    )
    before = [name for span, _, _, name in sorted(keyed) if span < last]
    assert found[: len(before)] == before == whole[: len(before)]


def test_equal_times() -> None:
    """At equal times the log that was named first goes first, and predictions before labels that were named after them."""
    merge = Merge(
        [
            lane("a", log([1, 1, 2], name="a"), confirm=True),
            lane("b", log([1, 2, 2], name="b"), confirm=True),
            lane("l", log([1, 2], name="l", labels=True), labels=True, confirm=True),
        ],
        GRAIN,
    )
    assert names(merge) == ["a0", "a1", "b0", "l0", "a2", "b1", "b2", "l1"]


def test_quiet_log_holds_nobody_back() -> None:
    """A live log that has nothing now does not stop the others; what it gives later still comes."""
    waiting: list[bytes] = []
    quiet = Lane(
        "q", lambda: waiting.pop() if waiting else b"", JsonlPredictions({"m": SCHEMA}, 1 << 16), confirm=False
    )
    merge = Merge([quiet, lane("a", log([1, 2], name="a"), confirm=False)], GRAIN)
    assert names(merge) == ["a0", "a1"]
    waiting.append(b"".join(log([1.5], name="q")))
    assert names(merge) == ["q0"]
    assert not any(of.holding for of in merge.lanes)


def test_holding() -> None:
    """What was decoded and not passed on is held, and said to be."""
    merge = Merge(
        [lane("a", log([1, 5], name="a"), confirm=False), lane("b", log([2, 9], name="b"), confirm=False)], GRAIN
    )
    assert not any(of.holding for of in merge.lanes)
    assert merge.step()
    assert any(of.holding for of in merge.lanes)
    told(merge)
    assert not any(of.holding for of in merge.lanes)


def test_live_log_refuses_the_future() -> None:
    """A live record after the latest time allowed is rejected and does not move the clock."""
    live = lane("a", log([1, 90, 2], name="a"), confirm=False)
    merge = Merge([live], GRAIN)
    (batch,) = merge.step(START + 60)
    assert (batch.time - START).tolist() == [1, 2]
    assert live.clock == START + 2
    assert rejected(merge) == {"future_timestamp": 1}


# The jump rule

HOUR = 3600.0


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),  # no jump
        ([0, 1, HOUR, 2, 3], [0, 1, 3, 4]),  # one forged time in the middle
        ([0, 1, HOUR, HOUR + 1, HOUR + 2], [0, 1, 2, 3, 4]),  # a pause of an hour: those that follow agree
        ([0, 1, HOUR, HOUR + 1, 2, 3], [0, 1, 4, 5]),  # two forged times: neither has two that agree
        ([HOUR, 0, 1, 2], [1, 2, 3]),  # forged at the start
        ([0, 1, 2, HOUR], [0, 1, 2]),  # forged at the end: nobody agrees
        ([0, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR], [0, 1, 2, 3, 4]),  # sparse: each gap is a jump, the last like others
        (
            [0, HOUR, 2 * HOUR, 3 * HOUR, 9 * HOUR],
            [0, 1, 2, 3],
        ),  # sparse, and the last is ahead of all that it was before
        ([7 * HOUR], [0]),  # a log of one record
        ([0, 600, 1200], [0, 1, 2]),  # just no jump
        ([0, 1, 603.5, 2, 3], [0, 1, 3, 4]),  # just a jump, from before it and from after it
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_jump(times: list[float], kept: list[int], size: int) -> None:
    """A time far ahead counts when the two records after it agree; alone it is rejected and moves no clock."""
    content = log(times, name="a")
    merge = Merge([lane("a", content, range(0, len(times), size), confirm=True)], GRAIN)
    found = names(merge)
    assert [name for name in found if name != "rejected"] == [f"a{n}" for n in kept]
    assert rejected(merge).get(TIME_JUMP, 0) == found.count("rejected") == len(times) - len(kept)


def reference_jumps(times: Sequence[float]) -> list[int]:
    """The rule as it is told: which records of a finite log are kept."""
    kept, clock, pace = [], -math.inf, JUMP
    for n, at in enumerate(times):
        witnesses = times[n + 1 : n + 1 + CONFIRMATIONS]
        agreed = bool(witnesses) and all(witness >= at - JUMP for witness in witnesses)
        only_record = not witnesses and clock == -math.inf
        if agreed and JUMP < at - clock < math.inf:
            pace = max(pace, at - clock)
        if at <= clock + (JUMP if witnesses else pace) or agreed or only_record:
            kept.append(n)
            clock = max(clock, at)
    return kept


@given(
    times=st.lists(st.sampled_from([0.0, 5.0, 300.0, 700.0, 2000.0, 90_000.0]), max_size=14),
    cuts=CUTS,
    bad=st.sets(st.integers(0, 13), max_size=4),
)
def test_jumps_do_not_depend_on_blocks(times: list[float], cuts: list[int], bad: set[int]) -> None:
    """Wherever the log was cut, and whatever bad lines stand between, the same records are kept, at the same places."""
    entries: list[Entry] = []
    for n, at in enumerate(times):
        entries += [BAD, at] if n in bad else [at]
    kept = set(reference_jumps(times))
    merge = Merge([lane("a", log(entries, name="a"), cuts, confirm=True)], GRAIN)
    found = told(merge)
    expected: list[float] = []
    place = 0
    for entry in entries:
        if entry is None:
            expected.append(math.nan)
            continue
        expected.append(entry if place in kept else math.nan)
        place += 1
    assert np.array_equal([at for _, at in found], expected, equal_nan=True)
    assert rejected(merge).get(TIME_JUMP, 0) == len(times) - len(kept)
    counts = [counts for of in merge.lanes for counts in of.counts]
    assert sum(count.predictions for count in counts) == len(kept)
    assert sum(count.lines for count in counts) == len(entries)


def test_forged_label_time() -> None:
    """A label that claims a far future is rejected alone; those after it still act."""
    merge = Merge([lane("l", log([1, 2, HOUR, 3, 4], name="l", labels=True), labels=True, confirm=True)], GRAIN)
    assert names(merge) == ["l0", "l1", "l3", "l4"]
    assert rejected(merge) == {TIME_JUMP: 1}
    assert sum(counts.labels for counts in merge.lanes[0].counts) == 4


def test_far_future_is_refused_at_the_latest_time() -> None:
    """Also a confirmed jump ends at the last time that makes sense."""
    far = LATEST - START + 10
    merge = Merge([lane("a", log([1, far, far, far], name="a"), confirm=True)], GRAIN)
    assert names(merge)[0] == "a0"
    assert rejected(merge) == {"absurd_timestamp": 3}
