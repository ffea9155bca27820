"""What people order over HTTP goes to the loop, which owns all state, and its answer comes back."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from poisonwatch.errors import BusyError
from poisonwatch.judge.override import Override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.types import Action

MOST_WAITING = 64
"""Orders that wait for the loop: it takes them several times a second."""


class Order(NamedTuple):
    """Override the decision for a version for `seconds`; without a `decision`, withdraw the override that stands.

    `author` and `reason` are what the person says, `user` is whom the server knows, empty where it asks for no password.
    """

    model: str
    model_version: str
    decision: Action | None
    author: str
    reason: str
    seconds: float
    target: str | None = None
    user: str = ""

    def override(self, now: float) -> Override | None:
        """What the person decides from `now` (Unix seconds) on; None where they withdraw what they had decided."""
        if self.decision is None:
            return None
        return Override(
            model=self.model,
            model_version=self.model_version,
            decision=self.decision,
            author=self.author,
            reason=self.reason,
            time=now,
            expires=now + self.seconds,
            target=self.target,
            user=self.user,
        )


class Orders:
    """The bounded queue between the server's thread and the loop."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Order, Future[Override | None]]] = deque()

    def give(self, order: Order) -> Future[Override | None]:
        """Leave an order; what comes back is the override that stands afterwards, or an `OrderError`.

        Raises:
            BusyError: when too many wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            msg = "too many orders wait for the agent: try again"
            raise BusyError(msg)
        answer: Future[Override | None] = Future()
        self._waiting.append((order, answer))
        return answer

    def take(self) -> Iterator[tuple[Order, Future[Override | None]]]:
        """What was ordered since the last time. Whose client has given up is not carried out."""
        while self._waiting:
            order, answer = self._waiting.popleft()
            if answer.set_running_or_notify_cancel():
                yield order, answer
