"""The intake: streams come and go, and what is held of them is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.formats.decoding import Native
from poisonwatch.formats.events import Block
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.sources.intake import Feed, Intake
from poisonwatch.types import Batch, Column, Schema
from tests.streams import START, lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = Schema(
    model="m",
    outcome=Column(name="prediction", kind="numerical"),
    features=(),
    layout="none",
    confidence=False,
)


class Queue:
    """A stream that gives what was put into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.blocks: list[bytes] = []

    def poll(self) -> Block | None:
        """The next block."""
        return Block(self.blocks.pop(0)) if self.blocks else None


class Queues:
    """A source whose streams the test adds and takes away; its position is how much it gave in all."""

    found = True

    def __init__(self) -> None:
        self.there: dict[str, Queue] = {}
        self.committed: list[dict[str, Any]] = []
        self.refused: dict[str, int] = {}

    def streams(self) -> Sequence[Queue]:
        """The streams that there are now."""
        return list(self.there.values())

    def put(self, name: str, *seconds: float) -> None:
        """A block of predictions at these seconds, numbered by them."""
        records = [{"timestamp": START + at, "prediction": at, "prediction_id": f"{name}{at}"} for at in seconds]
        self.there.setdefault(name, Queue(name)).blocks.append(lines(records))

    def lag(self) -> int:
        """Blocks that were not given."""
        return sum(len(queue.blocks) for queue in self.there.values())

    def lost(self) -> Mapping[str, int]:
        """What the test says was refused."""
        return self.refused

    def position(self) -> dict[str, Any]:
        """What is left."""
        return {name: len(queue.blocks) for name, queue in self.there.items()}

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Everything is where it was."""
        return [f"{name} is gone" for name in position if name not in self.there]

    def commit(self, position: dict[str, Any]) -> None:
        """Remember what is safe."""
        self.committed.append(position)

    def close(self) -> None:
        """Nothing is open."""


def intake_of(source: Queues) -> Intake:
    """An intake over one source."""
    decoder = Native(JsonlPredictions({"m": SCHEMA}, 1 << 16), 1 << 16)
    return Intake([Feed("queues", source, decoder)], ["m"], 60.0)


def taken(intake: Intake) -> list[float]:
    """All predictions that come out now."""
    found: list[float] = []
    busy = True
    while busy:
        pieces, busy = intake.step(START + 1e6)
        found += [float(n) for piece in pieces if isinstance(piece, Batch) for n in piece.numbers[0]]
    return found


def test_streams_come_and_go() -> None:
    """A stream that appears is read in time order with the others; one that goes is drained first."""
    source = Queues()
    intake = intake_of(source)
    source.put("b", 1, 4)
    source.put("a", 2, 3)
    assert taken(intake) == [1, 2, 3, 4]
    source.put("c", 7, 9)
    source.put("a", 8)
    pieces, _ = intake.step(START + 1e6)
    del source.there["c"]
    rest = taken(intake)
    assert sorted([float(n) for p in pieces if isinstance(p, Batch) for n in p.numbers[0]] + rest) == [7, 8, 9]
    assert [lane.name for lane in intake.merge.lanes] == ["queues"] * 2
    assert intake.counters.predictions == {"queues": 7}


def test_gone_streams_are_told() -> None:
    """What could not be found again after a restart is said with the source's name."""
    source = Queues()
    source.put("a", 1)
    first = intake_of(source)
    taken(first)
    state = first.state()
    assert list(intake_of(Queues()).restore(state, held=True)) == [("queues", "a is gone")]


def test_refusals_add_up_over_restarts() -> None:
    """What a source refused is counted since the first start, not since the last."""
    source = Queues()
    first = intake_of(source)
    source.refused = {"spool_full": 3}
    state = first.state()
    second = intake_of(source)
    source.refused = {"spool_full": 2, "unauthorized": 1}
    assert list(second.restore(state, held=True)) == []
    assert second.counted().refused == {("queues", "spool_full"): 5, ("queues", "unauthorized"): 1}


def test_a_source_that_is_configured_no_more() -> None:
    """That it is read no more is said, and kept: put back, it goes on where it was, and nothing counts twice."""
    source = Queues()
    source.put("a", 1, 2)
    first = intake_of(source)
    taken(first)
    decoder = Native(JsonlPredictions({"m": SCHEMA}, 1 << 16), 1 << 16)
    without = Intake([Feed("other", Queues(), decoder)], ["m"], 60.0)
    (told,) = without.restore(first.state(), held=True)
    assert told[0] == "queues"
    back = intake_of(source)
    positions = without.state()["positions"]
    assert positions == {"queues": {"a": 0}, "other": {}}
    assert [name for name, _ in back.restore(without.state(), held=True)] == ["other"]
    source.put("a", 3)
    assert taken(back) == [3]
    assert back.counters.predictions["queues"] == 3


def test_held_records_of_other_columns() -> None:
    """What was read for other columns cannot be judged any more: it is counted, and told."""
    source = Queues()
    source.put("a", 1, 5)
    source.put("b", 2)
    first = intake_of(source)
    first.step(START + 1e6)
    state = first.state()
    second = intake_of(source)
    assert [(name, told.split()[0]) for name, told in second.restore(state, held=False)] == [("queues", "1")] * 2
    assert second.counters.rejected == {("queues", "columns_changed"): 2}
    assert taken(second) == []


@given(
    blocks=st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 50), max_size=4)), max_size=8),
    stops=st.sets(st.integers(0, 12)),
)
def test_restart_anywhere(blocks: list[tuple[str, list[int]]], stops: set[int]) -> None:
    """Saved between any two steps and restored, the same predictions come out in the same order."""
    calm, stopped = Queues(), Queues()
    for source in (calm, stopped):
        for name, seconds in blocks:
            source.put(name, *map(float, seconds))
    expected = taken(intake_of(calm))
    intake, found = intake_of(stopped), list[float]()
    for number in range(40):
        pieces, busy = intake.step(START + 1e6)
        found += [float(n) for piece in pieces if isinstance(piece, Batch) for n in piece.numbers[0]]
        if number in stops:
            state = intake.state()
            intake.commit(state["positions"])
            intake = intake_of(stopped)
            assert list(intake.restore(state, held=True)) == []
        if not busy:
            break
    assert found == expected
    assert stopped.lag() == 0
