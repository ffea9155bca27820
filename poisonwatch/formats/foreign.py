"""Logs that are not native: a format makes native records of events, and these go the way of all records.

One decoder for the columns means that one kind of hostile value is met in one place, whoever wrote the log.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from poisonwatch.formats.events import events
from poisonwatch.formats.jsonl import LONGEST_SAMPLE, MOST_SAMPLES
from poisonwatch.formats.lenient import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.formats.events import Block, Event

_encode = msgspec.json.Encoder().encode


class Draft:
    """What a format makes of events: native records and labels, and what was lost by reason."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.labels: list[dict[str, Any]] = []
        self.rejected: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.samples: list[tuple[str, bytes]] = []
        self._settled: list[bytes] = []

    def settle(self) -> None:
        """Write the records down: as objects they take several times the room."""
        self._settled.append(_written(self.records, self))

    def settled(self) -> bytes:
        """All records as lines, in their order."""
        self.settle()
        return b"".join(self._settled)

    def reject(self, reason: str, sample: bytes, count: int = 1) -> None:
        """Count predictions that were lost, with a sample for whoever looks."""
        self.rejected[reason] += count
        if len(self.samples) < MOST_SAMPLES:
            self.samples.append((reason, sample[:LONGEST_SAMPLE]))


class Memory(Protocol):
    """What a format keeps from event to event: halves of predictions that wait, as `Pairing` does, or counts."""

    def __len__(self) -> int:
        """Halves that wait for the other."""
        ...

    def flush(self, draft: Draft) -> None:
        """Nothing more comes: count what waits as lost."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        ...


class Format(Protocol):
    """Reads the events of one kind of log."""

    @property
    def pairing(self) -> Memory | None:
        """What it keeps from event to event; None where every event is whole."""
        ...

    def read(self, event: Event, draft: Draft) -> None:
        """Add what an event says to the draft.

        Raises:
            Rejected: when it is worthless; `args[0]` is the reason. Nothing else, whatever the bytes are.
        """
        ...


class Translated(NamedTuple):
    """Native records and native labels, one a line, and what was lost on the way."""

    records: bytes
    labels: bytes
    lost: Draft


class Translator:
    """Turns blocks of a foreign log into native lines."""

    def __init__(self, format_: Format) -> None:
        self._format = format_

    def translate(self, block: Block) -> Translated:
        """Native lines of a block; halves that wait for their other half are told with it."""
        draft = Draft()
        labels: list[bytes] = []
        for event in events(block):
            try:
                self._format.read(event, draft)
            except Rejected as rejected:
                draft.reject(rejected.args[0], event.body)
            # The objects of one event at a time, which is bounded.
            draft.settle()
            labels.append(_written(draft.labels, draft))
        return Translated(draft.settled(), b"".join(labels), draft)

    def flush(self) -> Translated:
        """The log has ended: what still waits has no other half."""
        draft = Draft()
        if self._format.pairing is not None:
            self._format.pairing.flush(draft)
        return Translated(draft.settled(), _written(draft.labels, draft), draft)

    @property
    def waiting(self) -> int:
        """Halves that wait for the other."""
        return 0 if self._format.pairing is None else len(self._format.pairing)

    def state(self) -> dict[str, Any] | None:
        """Everything that must survive a restart."""
        return None if self._format.pairing is None else self._format.pairing.state()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take up a saved state."""
        if self._format.pairing is not None and state is not None:
            self._format.pairing.restore(state)


def _written(records: list[dict[str, Any]], draft: Draft) -> bytes:
    """The records as lines; they are taken off the list."""
    try:
        lines = [_encode(record) + b"\n" for record in records]
    except (TypeError, ValueError, UnicodeEncodeError, OverflowError, RecursionError):
        lines = [_line(record, draft) for record in records]
    records.clear()
    return b"".join(lines)


def _line(record: dict[str, Any], draft: Draft) -> bytes:
    try:
        return _encode(record) + b"\n"
    except (TypeError, ValueError, UnicodeEncodeError, OverflowError, RecursionError):
        draft.reject("malformed", repr(record).encode("utf-8", "replace"))
        return b""
