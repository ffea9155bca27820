"""All receivers: what the loop knows of notifying."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from poisonwatch.notify.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.config.notify import AnyReceiver
    from poisonwatch.notify.notices import Notice
    from poisonwatch.sinks.snapshot import ReceiverSnapshot

LEAVE_SECONDS = 5.0
"""How long closing goes on telling what waits."""


class Notifier:
    """Tells every receiver, each in a thread of its own."""

    def __init__(self, receivers: Sequence[AnyReceiver] = ()) -> None:
        self._senders = [Sender(receiver) for receiver in receivers]

    def notify(self, now: float, notices: Sequence[Notice]) -> None:
        """All that stands at `now` (Unix seconds), and what ended since the last call; does no I/O and never waits."""
        for sender in self._senders:
            sender.post(now, notices)

    def counts(self) -> tuple[ReceiverSnapshot, ...]:
        """How it goes, by receiver."""
        return tuple(sender.counts() for sender in self._senders)

    def close(self, seconds: float = LEAVE_SECONDS) -> None:
        """Tell what waits, within so many seconds, and nothing any more. That the agent stops is never told as the end of an alert."""
        deadline = time.monotonic() + seconds
        for sender in self._senders:
            sender.leave(deadline)
        for sender in self._senders:
            sender.join()
