"""What is fuzzed: functions of bytes that must not raise, each with inputs to begin with.

Bytes that stand for events: events are parted by `BETWEEN`, each is lines of `name: value`, an empty line, and the body.
"""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from poisonwatch.formats.cloudevents import cloud_events
from poisonwatch.formats.decoding import Foreign, Native
from poisonwatch.formats.events import Block, Event, events, frame
from poisonwatch.formats.foreign import Draft, Translator
from poisonwatch.formats.jsonl import JsonlFeedback, JsonlPredictions
from poisonwatch.formats.lenient import Rejected
from poisonwatch.formats.opening import opened
from poisonwatch.formats.pairing import OVERHEAD, Half, Pair, Pairing
from poisonwatch.sources.distinct import Distinct
from poisonwatch.sources.spool import Spool
from tests.fuzz.formats import LONGEST, Written, accounted, block, consistent, formats, schema_of
from tests.streams import START, lines, predictions, rich_predictions, rich_reference, usual_reference, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poisonwatch.types import Decoded

BETWEEN = b"\n\x01\n"
MOST_EVENTS = 16
MARK = b"0123456789abcdef"


@dataclass(frozen=True)
class Target:
    """A function of bytes, and bytes that it knows; `structured` says that these are events, or lines of JSON."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    structured: bool = False


def as_bytes(found: Sequence[Event]) -> bytes:
    """Events as an input."""
    return BETWEEN.join(
        "".join(f"{name}: {value}\n" for name, value in event.headers.items()).encode("latin-1", "replace")
        + b"\n"
        + event.body
        for event in found
    )


def as_events(data: bytes) -> list[Event]:
    """An input as events; a second passes between any two."""
    found = []
    for number, piece in enumerate(data.split(BETWEEN)[:MOST_EVENTS]):
        head, _, body = piece.partition(b"\n\n")
        if piece.startswith(b"\n"):
            head, body = b"", piece[1:]
        pairs = (line.partition(":")[::2] for line in head.decode("latin-1").split("\n"))
        headers = {name.lower(): value.strip() for name, value in pairs if name}
        found.append(Event(body, headers, START + number, "/"))
    return found


def _format(name: str) -> Target:
    written = formats()[name]
    schema = schema_of(name)
    decoders = _Decoders(lambda: JsonlPredictions({schema.model or "": schema}, LONGEST))

    def run(data: bytes) -> None:
        found = as_events(data)
        accounted(written.make, found)
        # The same bytes as lines of a file.
        for of in (block(found), Block(data.partition(b"\n\n")[2], origin="logs/a.jsonl")):
            decoder = Foreign(Translator(written.make()), decoders.next(), JsonlFeedback(LONGEST))
            consistent(decoder.decode(of))
            consistent(decoder.flush())

    return Target(run, _seeds(written), structured=True)


def _seeds(written: Written) -> tuple[bytes, ...]:
    whole = written.halves
    groups = [written.events[first : first + whole] for first in range(0, min(6 * whole, len(written.events)), whole)]
    turned = [written.events[1], written.events[0], *written.events[2:4]]
    packed = [event._replace(body=gzip.compress(event.body)) for event in groups[0]]
    return tuple(map(as_bytes, [*groups, turned, packed]))


class _Decoders:
    """A decoder that is used for many inputs, as in the agent, but not for all: it learns, and a finding must be found again."""

    def __init__(self, make: Callable[[], JsonlPredictions]) -> None:
        self._make = make
        self._used = 0
        self._decoder = make()

    def next(self) -> JsonlPredictions:
        """One for the next input."""
        self._used += 1
        if self._used % 256 == 0:
            self._decoder = self._make()
        return self._decoder


def _native() -> Target:
    """Lines of a file, for one model and for two; the same bytes as a body."""
    one, other = usual_reference().schema, rich_reference().schema
    single = _Decoders(lambda: JsonlPredictions({"mail": one}, LONGEST))
    double = _Decoders(lambda: JsonlPredictions({"mail": one, "other": other}, LONGEST))

    def run(data: bytes) -> None:
        count = sum(bool(line.strip()) for line in data.split(b"\n"))
        for decoders in (single, double):
            decoded = decoders.next().decode(data)
            consistent(decoded)
            assert decoded.lines == count
        consistent(Native(single.next(), LONGEST).decode(block([Event(data, {}, START, "/")])))

    seeds = [lines([record]) for record in predictions(3)] + [lines(rich_predictions(3, start=START, seed=1))]
    return Target(run, tuple(seeds), structured=True)


def _feedback() -> Target:
    """Labels, as lines and as a body."""
    decoder = JsonlFeedback(LONGEST)

    def run(data: bytes) -> None:
        decoded = decoder.decode(data)
        consistent(decoded)
        assert decoded.lines == sum(bool(line.strip()) for line in data.split(b"\n"))
        consistent(Native(decoder, LONGEST).decode(block(as_events(data))))

    label = {"timestamp": START, "prediction_id": "p1", "label": "spam", "source": "a", "attributes": {"ip": "1.2.3.4"}}
    return Target(run, (lines([label]), lines([label, {**label, "label": 1}])), structured=True)


def _bodies() -> Target:
    """What is posted to the door of native records: content types, lists, CloudEvents and compression."""
    schema = usual_reference().schema
    decoders = _Decoders(lambda: JsonlPredictions({"mail": schema}, LONGEST))

    def run(data: bytes) -> None:
        found = as_events(data)
        for one in found:
            decoded = Native(decoders.next(), LONGEST).decode(block([one]))
            consistent(decoded)
            assert decoded.lines or decoded.faults, one
        decoded = Native(decoders.next(), LONGEST).decode(block(found))
        consistent(decoded)

    records = predictions(3)
    plain = json.dumps(records[0]).encode()
    cloud = {"ce-specversion": "1.0", "ce-id": "1", "ce-time": "2026-01-05T08:00:00Z", "ce-type": "x"}
    structured = {"specversion": "1.0", "id": "1", "type": "x", "data": records[0]}
    bodies = [
        Event(plain, {"content-type": "application/json"}),
        Event(lines(records), {"content-type": "application/x-ndjson"}),
        Event(json.dumps(records, indent=1).encode(), {}),
        Event(gzip.compress(plain), {"content-encoding": "gzip"}),
        Event(zstandard.compress(plain), {}),
        Event(plain, cloud),
        Event(json.dumps([structured]).encode(), {"content-type": "application/cloudevents-batch+json"}),
    ]
    return Target(run, tuple(as_bytes([body]) for body in bodies), structured=True)


def _cloudevents() -> Target:
    """Headers and bodies that may be CloudEvents."""

    def run(data: bytes) -> None:
        for event in as_events(data):
            draft = Draft()
            try:
                found = cloud_events(event.headers, event.body, draft)
            except Rejected:
                continue
            for one in found or ():
                assert isinstance(one.data, bytes)
                assert all(isinstance(value, str) for value in one.attributes.values())

    return Target(run, _bodies().seeds[-2:], structured=True)


def _opening() -> Target:
    """Compressed bodies: never more than is allowed."""

    def run(data: bytes) -> None:
        for most in (64, LONGEST):
            try:
                body = opened(Event(data), most)
            except Rejected:
                continue
            assert len(body) <= most

    text = b"some text, some text" * 10
    packed = (gzip.compress(text), zstandard.compress(text))
    twice = (gzip.compress(packed[1]), zstandard.compress(packed[0]), packed[0] + packed[0], packed[1] + packed[1])
    return Target(run, (*packed, *twice, gzip.compress(bytes(1 << 17))))


def _pairing() -> Target:
    """Three bytes a half: its key and side, its size, and how far time moves."""
    most = 8 * OVERHEAD

    def run(data: bytes) -> None:
        alone: list[Pair] = []

        def waits() -> Pairing:
            return Pairing(10.0, most, lambda pair, _: alone.append(pair))

        pairing, draft = waits(), Draft()
        at = 0.0
        pairs = halves = 0
        for place in range(0, len(data) - 2, 3):
            what, size, step = data[place : place + 3]
            at += step - 100
            half = Half(bytes(size * 16), {"n": place})
            when = math.nan if step == 0 else at
            pairs += pairing.add(f"k{what & 7}", half, when, draft, response=bool(what & 8)) is not None
            halves += 1
            assert len(pairing) <= most // OVERHEAD
            assert halves == 2 * pairs + len(alone) + len(pairing) + draft.rejected.total()
            if what & 16:
                saved, pairing = pairing.state(), waits()
                pairing.restore(saved)
        pairing.flush(draft)
        assert not len(pairing)
        assert halves == 2 * pairs + len(alone) + draft.rejected.total()

    return Target(run, (bytes([0, 1, 101, 8, 1, 101]), bytes(range(1, 61)), bytes([16, 255, 100] * 20)))


def _frames() -> Target:
    """Bytes where frames should be, and the segment of a spool that holds them."""
    folder = Path(tempfile.mkdtemp(prefix="poisonwatch-fuzz-"))
    number = 0

    def run(data: bytes) -> None:
        nonlocal number
        for event in events(Block(data, framed=True)):
            assert next(events(Block(frame(event), framed=True))) == event
        number += 1
        home = folder / str(number)
        home.mkdir()
        segment = home / f"{0:012d}-{MARK.decode()}.frames"
        segment.write_bytes(data)
        spool = Spool(home, 1 << 20)
        spool.append([Event(b"honest", {}, START)])
        given = []
        for _ in range(1000):
            found = spool.poll()
            if found is None:
                break
            given += [event.body for event in events(found)]
        assert given[-1] == b"honest"
        spool.commit(spool.position())
        spool.close()
        for left in home.iterdir():
            left.unlink()
        home.rmdir()

    mark = bytes.fromhex(MARK.decode())
    whole = frame(Event(b"body", {"ce-id": "1"}, START, "/"))
    return Target(run, (mark + whole, whole, mark + whole + mark + whole, mark + whole[:-1] + mark + whole))


def _agent() -> Target:
    """Native lines all the way: decoded, counted once, judged, saved and taken up again."""
    learned = rich_reference()
    decoders = _Decoders(lambda: JsonlPredictions({"mail": learned.schema}, LONGEST))
    labels = JsonlFeedback(LONGEST)
    machine, used = watched(learned).monitor, 0

    def run(data: bytes) -> None:
        nonlocal machine, used
        used += 1
        if used % 1024 == 0:
            machine = watched(learned).monitor
        decoded: Decoded = decoders.next().decode(data)
        consistent(decoded)
        distinct = Distinct(7)
        for batch in decoded.batches:
            list(machine.absorb(distinct.once(batch)))
        feedback = labels.decode(data).feedback
        if feedback is not None:
            list(machine.learn(feedback))
        if used % 16 == 0:
            list(machine.flush(START + 1e6))
        if used % 256 == 0:
            # Rarely: what a machine's tables leave behind in the allocator would pass for growth.
            saved, machine = machine.state(), watched(learned).monitor
            machine.restore(saved)

    records = rich_predictions(200, start=START, seed=3)
    told = {"timestamp": START + 5, "prediction_id": records[0]["prediction_id"], "label": "spam", "source": "a"}
    return Target(run, (lines(records[:5]), lines(records), lines([*records[:2], told])), structured=True)


OTHERS: dict[str, Callable[[], Target]] = {
    "native": _native,
    "feedback": _feedback,
    "bodies": _bodies,
    "cloudevents": _cloudevents,
    "opening": _opening,
    "pairing": _pairing,
    "frames": _frames,
    "agent": _agent,
}

NAMES = (*formats(), *OTHERS)


EVERY = "every"
"""All targets but that of the agent in one: to be instrumented, each by itself would take ten seconds."""


def _every() -> Target:
    found = [target(name) for name in NAMES if name != "agent"]

    def run(data: bytes) -> None:
        if data:
            found[data[0] % len(found)].run(data[1:])

    seeds = tuple(bytes([number]) + seed for number, one in enumerate(found) for seed in one.seeds)
    return Target(run, seeds, structured=False)


def target(name: str) -> Target:
    """The target of this name."""
    if name == EVERY:
        return _every()
    return OTHERS[name]() if name in OTHERS else _format(name)
