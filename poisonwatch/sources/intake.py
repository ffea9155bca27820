"""All that comes in: the sources' streams, each a lane of the merge, decoded, put in order, and counted once."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from operator import is_not
from typing import TYPE_CHECKING, Any, Protocol

from poisonwatch.sinks.snapshot import Counters, SourceSnapshot
from poisonwatch.sources.distinct import Distinct
from poisonwatch.sources.merge import Lane, Merge, held_by
from poisonwatch.types import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from poisonwatch.formats.events import Block
    from poisonwatch.profile.pieces import Piece
    from poisonwatch.sinks.deadletter import DeadLetters
    from poisonwatch.sources.source import Source
    from poisonwatch.types import Decoded


class BlockDecoder(Protocol):
    """What turns the blocks of one source into columns, also where one block holds only half of what it takes."""

    @property
    def waiting(self) -> int:
        """Halves of predictions that wait for the other."""
        ...

    def decode(self, block: Block, latest: float) -> Decoded:
        """Columns of a block."""
        ...

    def flush(self) -> Decoded:
        """What is left when the log has ended."""
        ...

    def state(self) -> dict[str, Any] | None:
        """Everything that must survive a restart."""
        ...

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take up a saved state."""
        ...


@dataclass(frozen=True, slots=True)
class Feed:
    """One configured source, and how what it gives is read."""

    name: str
    source: Source
    decoder: BlockDecoder


MOMENT = 1 << 16
"""Bytes (of a broker: messages) that a loop which keeps up may find waiting: those of a tenth of a second at a thousand records a second."""


class Intake:
    """Owns the sources. `grain` is the span in which predictions and labels need not change places, in seconds.

    `lanes` are those of finite logs, which have no source behind them, with the decoders to flush at their end.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        models: Sequence[str],
        grain: float,
        *,
        lanes: Sequence[Lane[Any]] = (),
        decoders: Mapping[str, BlockDecoder] | None = None,
        dead_letters: DeadLetters | None = None,
        salt: int = 0,
    ) -> None:
        self.feeds = {feed.name: feed for feed in feeds}
        self.merge = Merge(list(lanes), grain)
        self.counters = Counters()
        self._decoders = dict(decoders or {}) | {feed.name: feed.decoder for feed in feeds}
        self._place = {feed.name: number for number, feed in enumerate(feeds)}
        self._streams: dict[tuple[str, str], Lane[Any]] = {}
        self._distinct = {model: Distinct(salt) for model in models}
        self._dead_letters = dead_letters
        self._newest: dict[str, float] = dict.fromkeys((*(lane.name for lane in lanes), *self.feeds), -math.inf)
        self._lost_before: dict[str, Counter[str]] = {}
        self._absent: dict[str, Any] = {}

    @property
    def live(self) -> bool:
        """Do the logs go on?"""
        return bool(self.feeds)

    @property
    def behind(self) -> bool:
        """Do the sources know of more than a moment's worth that was not read yet?"""
        return sum(feed.source.lag() for feed in self.feeds.values()) > MOMENT

    def step(self, latest: float) -> tuple[list[Piece], bool]:
        """The next pieces in their order, and whether anything was read at all. Live records after `latest` are rejected."""
        if self.feeds:
            self._attend()
        pieces = self.merge.step(latest)
        read = self._count()
        return [self._once(piece) for piece in pieces], read or bool(pieces)

    def end(self) -> None:
        """The logs have ended: halves that still wait have no other half."""
        for name, decoder in self._decoders.items():
            self._add(name, decoder.flush())

    def snapshots(self) -> tuple[SourceSnapshot, ...]:
        """How each source does."""
        if not self.live:
            return tuple(SourceSnapshot(name, True, 0, newest) for name, newest in self._newest.items())
        return tuple(
            SourceSnapshot(name, feed.source.found, feed.source.lag(), self._newest[name])
            for name, feed in self.feeds.items()
        )

    def counted(self) -> Counters:
        """All counts as they stand now."""
        counters = self.counters.copy()
        counters.refused = Counter(
            {(name, reason): count for name, lost in self._lost().items() for reason, count in lost.items()}
        )
        counters.duplicates = Counter({model: seen.dropped for model, seen in self._distinct.items()})
        counters.waiting = Counter({name: decoder.waiting for name, decoder in self._decoders.items()})
        return counters

    @property
    def dead_letters_lost(self) -> int:
        """Samples of rejected lines that the disk refused."""
        return 0 if self._dead_letters is None else self._dead_letters.lost

    def positions(self) -> dict[str, Any]:
        """What each source has given so far."""
        return {name: feed.source.position() for name, feed in self.feeds.items()}

    def commit(self, positions: Mapping[str, Any]) -> None:
        """A checkpoint with these positions is safe."""
        for name, feed in self.feeds.items():
            feed.source.commit(positions[name])

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart: also what was read and not passed on yet."""
        return {
            "positions": {**self._absent, **self.positions()},
            "lanes": [[*key, lane.state()] for key, lane in self._streams.items()],
            "decoders": {name: feed.decoder.state() for name, feed in self.feeds.items()},
            "distinct": {model: seen.state() for model, seen in self._distinct.items()},
            "newest": self._newest,
            "counters": self.counters.state(),
            "lost": {name: dict(lost) for name, lost in self._lost().items()},
        }

    def restore(self, state: Mapping[str, Any], *, held: bool) -> Iterator[tuple[str, str]]:
        """Take up a saved state; says of which source something is lost, or could not be found again.

        Without `held` the columns have changed since, and what was read and not passed on yet cannot be.
        """
        self.counters = Counters.restored(state["counters"])
        self._absent = {name: at for name, at in state["positions"].items() if name not in self.feeds}
        for name in self._absent:
            yield name, "it is not configured any more: what it has not given is not read; put back, it goes on there"
        for name, stream, saved in state["lanes"]:
            if held and name in self.feeds:
                self._lane(name, stream).restore(saved)
            elif count := held_by(saved):
                self.counters.rejected[name, "columns_changed"] += count
                yield name, f"{count} records that were read and not judged yet are of other models or references"
        for name, feed in self.feeds.items():
            feed.decoder.restore(state["decoders"].get(name))
            if name in state["positions"]:
                yield from ((name, problem) for problem in feed.source.resume(state["positions"][name]))
        for model, seen in self._distinct.items():
            if held and model in state["distinct"]:
                seen.restore(state["distinct"][model])
        self._newest |= {name: newest for name, newest in state["newest"].items() if name in self._newest}
        self._lost_before = {name: Counter(lost) for name, lost in state["lost"].items()}

    def close(self) -> None:
        """Let go of files and connections."""
        for feed in self.feeds.values():
            feed.source.close()

    def _attend(self) -> None:
        """A lane for every stream that there is, in an order that does not depend on when they came."""
        there = {(name, stream.name): stream for name, feed in self.feeds.items() for stream in feed.source.streams()}
        for key, lane in list(self._streams.items()):
            if key not in there:
                lane.attach(None)
                if not lane.holding:
                    del self._streams[key]
        for key, stream in there.items():
            self._lane(*key).attach(stream.poll)
        if len(self.merge.lanes) != len(self._streams) or any(map(is_not, self.merge.lanes, self._streams.values())):
            order = sorted(self._streams, key=lambda key: (self._place[key[0]], key[1]))
            self._streams = {key: self._streams[key] for key in order}
            self.merge.lanes = list(self._streams.values())

    def _lane(self, name: str, stream: str) -> Lane[Any]:
        key = (name, stream)
        if key not in self._streams:
            self._streams[key] = Lane(name, None, self.feeds[name].decoder, confirm=False)
        return self._streams[key]

    def _once(self, piece: Piece) -> Piece:
        return self._distinct[piece.model].once(piece) if isinstance(piece, Batch) else piece

    def _count(self) -> bool:
        """Add what was decoded to the counters; False when nothing was."""
        counted = False
        for lane in self.merge.lanes:
            for decoded in lane.counts:
                counted = True
                self._add(lane.name, decoded)
            lane.counts.clear()
            self._newest[lane.name] = max(self._newest[lane.name], lane.clock)
        return counted

    def _add(self, name: str, decoded: Decoded) -> None:
        self.counters.lines[name] += decoded.lines
        self.counters.predictions[name] += decoded.predictions
        self.counters.feedback[name] += decoded.labels
        for reason, count in decoded.rejected.items():
            self.counters.rejected[name, reason] += count
        for reason, count in decoded.faults.items():
            self.counters.faults[name, reason] += count
        if self._dead_letters is not None:
            self._dead_letters.write(name, decoded.samples)

    def _lost(self) -> dict[str, Counter[str]]:
        """What each source refused or lost before it could be read, by reason, restarts included."""
        return {
            name: self._lost_before.get(name, Counter()) + Counter(feed.source.lost())
            for name, feed in self.feeds.items()
        }
