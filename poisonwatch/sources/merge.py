"""Several logs as one stream in the order of event time: predictions and feedback, each record in its turn.

A log is taken in its own order; its clock is the largest event time met in it so far. Logs that have records at hand are
merged by their clocks, so that a label never acts before its own time, and versions that write separate logs meet again,
also when the agent has to catch up with them. A log that has nothing to give at the moment holds nobody back.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from poisonwatch.formats.records import LATEST
from poisonwatch.profile.pieces import alike, cut, join, restored, saved, sorted_batch, without
from poisonwatch.types import Batch, Decoded, Feedback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poisonwatch.profile.pieces import Piece
    from poisonwatch.types import Floats

JUMP = 600.0
"""Seconds that a record may be ahead of all before it without being confirmed."""

CONFIRMATIONS = 2
"""Records that must follow a jump and agree with it: one forged time must not make all that follows late."""

TIME_JUMP = "unconfirmed_time_jump"


B = TypeVar("B")
C_contra = TypeVar("C_contra", contravariant=True)


class Decoder(Protocol[C_contra]):
    """What turns a block into columns."""

    def decode(self, block: C_contra, latest: float) -> Decoded:
        """Columns of a block."""
        ...


class Lane(Generic[B]):
    """One log. `poll` gives the next block, or nothing when there is none now; `counts` collects what was decoded.

    With `confirm` (a finite log, where no clock says what time it is) a record far ahead of all before it must be
    confirmed by those that follow. Without, records after `latest` are rejected.
    """

    def __init__(self, name: str, poll: Callable[[], B | None] | None, decoder: Decoder[B], *, confirm: bool) -> None:
        self.name = name
        self._poll = poll
        self._decoder = decoder
        self.finite = confirm
        self._ahead: deque[Piece] = deque()
        self._clock = -math.inf
        self._pace = JUMP
        self.counts: list[Decoded] = []
        self.stray: list[Piece] = []  # rejected lines with no record to go with
        self.piece: Piece | None = None
        self.clocks: Floats = np.empty(0)

    def attach(self, poll: Callable[[], B | None] | None) -> None:
        """Read on from here; from nowhere where the log is gone."""
        self._poll = poll

    @property
    def clock(self) -> float:
        """Largest event time met so far, or minus infinity."""
        return self._clock

    @property
    def holding(self) -> bool:
        """Is something decoded that was not passed on yet?"""
        return bool(self.clocks.size or self._ahead or self.stray)

    def state(self) -> dict[str, Any]:
        """What is held, and the clock: everything that must survive a restart."""
        held = [self.piece] if self.piece is not None and self.clocks.size else []
        return {
            "clock": self._clock,
            "held": [saved(piece) for piece in held],
            "clocks": self.clocks,
            "ahead": [saved(piece) for piece in self._ahead],
            "stray": [saved(piece) for piece in self.stray],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._clock = state["clock"]
        self.piece = next(map(restored, state["held"]), None)
        self.clocks = state["clocks"]
        self._ahead = deque(map(restored, state["ahead"]))
        self.stray = [*map(restored, state["stray"])]

    def fill(self, latest: float) -> bool:
        """Make sure that a record is at hand; False when there is none now."""
        while not self.clocks.size:
            self._look_ahead(latest)
            if not self._ahead:
                return False
            self.piece = self._admitted(self._ahead.popleft())
            if not self.clocks.size:
                self.stray.append(self.piece)
        return True

    def take(self, until: float) -> tuple[Piece, Floats] | None:
        """The records whose clock is before `until`, with their clocks, or None."""
        count = int(np.searchsorted(self.clocks, until, side="left"))
        if not count or self.piece is None:
            return None
        taken, clocks = cut(self.piece, 0, count), self.clocks[:count]
        self.piece, self.clocks = cut(self.piece, count, self.clocks.size), self.clocks[count:]
        return taken, clocks

    def extend(self, latest: float) -> bool:
        """Append the next records to those at hand; False when there are none now, or only another model's."""
        held, clocks = self.piece, self.clocks
        self._look_ahead(latest)
        while held is not None and self._ahead and alike(held, self._ahead[0]):
            piece = self._admitted(self._ahead.popleft())
            if self.clocks.size:
                self.piece, self.clocks = join(held, piece), np.concatenate((clocks, self.clocks))
                return True
            self.stray.append(piece)
            self._look_ahead(latest)
        self.clocks = clocks
        return False

    def _look_ahead(self, latest: float) -> None:
        """Hold what may have to confirm the end of the piece before it."""
        wanted = CONFIRMATIONS if self.finite else 0
        while not self._ahead or sum(piece.time.size for piece in list(self._ahead)[1:]) < wanted:
            block = self._poll() if self._poll is not None else None
            if not block:
                return
            decoded = self._decoder.decode(block, latest)
            self._ahead.extend(decoded.batches)
            if decoded.feedback is not None:
                self._ahead.append(decoded.feedback)
            self.counts.append(dataclasses.replace(decoded, batches=(), feedback=None))

    def _admitted(self, piece: Piece) -> Piece:
        """The piece without what is not confirmed; the clock goes on with it."""
        following = np.concatenate([np.empty(0), *(later.time for later in self._ahead)])[:CONFIRMATIONS]
        keep = self._confirmed(piece.time, following) if self.finite else None
        if keep is not None:
            jumped = int(keep.size - keep.sum())
            of_labels = isinstance(piece, Feedback)
            self.counts.append(
                Decoded(
                    predictions=0 if of_labels else -jumped,
                    labels=-jumped if of_labels else 0,
                    rejected={TIME_JUMP: jumped},
                )
            )
            piece = without(piece, keep)
        self.clocks = np.maximum.accumulate(np.concatenate(([self._clock], piece.time)))[1:]
        self._clock = float(self.clocks[-1]) if self.clocks.size else self._clock
        return piece

    def _confirmed(self, time: Floats, following: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
        """Which records to keep; None for all."""
        clock = np.maximum.accumulate(np.concatenate(([self._clock], time)))
        if not (time > clock[:-1] + JUMP).any():
            return None
        extended = np.concatenate((time, following)).tolist()
        keep = np.ones(time.size, np.bool_)
        now = self._clock
        for index, at in enumerate(time.tolist()):
            witnesses = extended[index + 1 : index + 1 + CONFIRMATIONS]
            agreed = bool(witnesses) and all(witness >= at - JUMP for witness in witnesses)
            if agreed and JUMP < at - now < math.inf:
                self._pace = max(self._pace, at - now)
            # Nothing follows the last record of a log: it may be as far ahead as others were that were confirmed.
            if at > now + (JUMP if witnesses else self._pace) and not agreed and (witnesses or now > -math.inf):
                keep[index] = False
            else:
                now = max(now, at)
        return None if keep.all() else keep


def held_by(state: dict[str, Any]) -> int:
    """How many records a lane held when it was saved."""
    return sum(piece["time"].size for piece in (*state["held"], *state["ahead"]))


class Merge:
    """Several logs as one stream of pieces in the order of event time.

    Predictions and labels change places at the bounds of spans of `grain` seconds only, predictions first: a label means the
    same anywhere in its window, and a piece for every label would cost more than all else. Of finite logs whole spans are
    given; live ones give what they have.
    """

    def __init__(self, lanes: list[Lane[Any]], grain: float) -> None:
        self.lanes = lanes
        self._grain = grain
        self._whole = bool(lanes) and all(lane.finite for lane in lanes)

    def step(self, latest: float = LATEST) -> list[Piece]:
        """The next pieces, or none when no log has anything now. Live records after `latest` are rejected."""
        lanes = [lane for lane in self.lanes if lane.fill(latest)]
        pieces = list(self._strays())
        if not lanes:
            return pieces
        # Up to the clock of the log that is behind, every log's records are at hand.
        until = math.inf if len(lanes) == 1 else self._bound(lanes)
        taken = [found for lane in lanes if (found := lane.take(until)) is not None]
        while not taken:
            behind = min(lanes, key=lambda lane: float(lane.clocks[-1]))
            if behind.extend(latest):
                until = self._bound(lanes)
                taken = [found for lane in lanes if (found := lane.take(until)) is not None]
            else:
                # It has no more: its last records go, with all that are older and those of earlier logs that are as old.
                last, place = float(behind.clocks[-1]), lanes.index(behind)
                upto = [math.nextafter(last, math.inf) if number <= place else last for number in range(len(lanes))]
                given = (lane.take(at) for lane, at in zip(lanes, upto, strict=True))
                taken = [found for found in given if found is not None]
        return pieces + list(_in_order(taken, self._grain))

    def _bound(self, lanes: list[Lane[Any]]) -> float:
        """Up to which clock every log's records are at hand."""
        until = min(float(lane.clocks[-1]) for lane in lanes)
        return math.floor(until / self._grain) * self._grain if self._whole else until

    def _strays(self) -> Iterator[Piece]:
        for lane in self.lanes:
            yield from lane.stray
            lane.stray.clear()


def _in_order(taken: list[tuple[Piece, Floats]], grain: float) -> Iterator[Piece]:
    """Pieces of several lanes in one order: span by span, predictions in one batch before labels."""
    if len(taken) == 1:
        yield taken[0][0]
        return
    by_model: dict[str, list[tuple[Piece, Floats]]] = {}
    for piece, clocks in taken:
        if isinstance(piece, Batch):
            by_model.setdefault(piece.model, []).append((piece, clocks))
    merged = [sorted_batch(batches) for batches in by_model.values()]
    taken = [*merged, *((piece, clocks) for piece, clocks in taken if not isinstance(piece, Batch))]
    lane = np.repeat(np.arange(len(taken)), [clocks.size for _, clocks in taken])
    place = np.concatenate([np.arange(clocks.size) for _, clocks in taken])
    order = np.argsort(np.floor(np.concatenate([clocks for _, clocks in taken]) / grain), kind="stable")
    lane, place = lane[order], place[order]
    edges = (0, *(np.flatnonzero(np.diff(lane)) + 1).tolist(), lane.size)
    for first, last in pairwise(edges):
        yield cut(taken[int(lane[first])][0], int(place[first]), int(place[last - 1]) + 1)
