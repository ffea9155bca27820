"""One partition of a topic: what was fetched and not given yet, what is claimed, what is owed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from poisonwatch.formats.events import Block
from poisonwatch.sources.kafka_client import framed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import Message

    from poisonwatch.sources.kafka_claims import Claim, Runs

BLOCK = 1 << 20
"""Bytes after which a block is full."""


class _Chunk(NamedTuple):
    """Frames of consecutive messages, and the offset after them."""

    data: bytes
    start: int
    end: int


class Partition:
    """One partition as a stream. All before `claimed` may be given; `given` is the offset after what was."""

    def __init__(self, topic: str, number: int) -> None:
        self.number = number
        self.name = f"{topic}/{number}"
        self.given = -1
        self.claimed = -1
        self.durable = -1  # the offset after what a checkpoint on disk has
        self.chunks: deque[_Chunk] = deque()
        self.size = 0
        self.ours = False  # by the group's present assignment
        self.next: int | None = None  # where to go on, once there are no debts
        self.debts: deque[tuple[int, int]] = deque()
        self.runs: Runs = ()  # what we claimed, as the metadata says it
        self.others: tuple[Claim, ...] = ()
        self.asking: Runs = ()
        self.doubtful = False  # was the last claim not confirmed?
        self.announce = False  # claim the very place to begin at

    @property
    def reach(self) -> int:
        """The offset after all that was given or is going to be."""
        return self.chunks[-1].end if self.chunks else self.given

    @property
    def alive(self) -> bool:
        """May it still give something?"""
        return self.ours or bool(self.chunks or self.debts)

    def poll(self) -> Block | None:
        """The next messages that were claimed."""
        taken: list[bytes] = []
        size = 0
        while self.chunks and self.chunks[0].end <= self.claimed and size < BLOCK:
            chunk = self.chunks.popleft()
            taken.append(chunk.data)
            size += len(chunk.data)
            self.given = chunk.end
        self.size -= size
        return Block(b"".join(taken), framed=True) if taken else None

    def add(self, messages: Sequence[Message], topic: str) -> None:
        """Keep messages, in chunks of not much more than a quarter of a block."""
        frames: list[bytes] = []
        size = 0
        start = messages[0].offset() or 0
        for message in messages:
            frames.append(framed(message, topic))
            size += len(frames[-1])
            if size >= BLOCK // 4 or message is messages[-1]:
                end = (message.offset() or 0) + 1
                self.chunks.append(_Chunk(b"".join(frames), start, end))
                self.size += size
                frames, size, start = [], 0, end

    def forget_unclaimed(self) -> None:
        """Drop what another may claim."""
        while self.chunks and self.chunks[-1].end > self.claimed:
            self.size -= len(self.chunks.pop().data)

    def begin_anew(self, offset: int) -> None:
        """Offsets mean something else now: the topic was made again, or somebody set the group's offsets."""
        self.given = self.claimed = offset
        self.durable = -1
        self.runs = ()
        self.debts.clear()
