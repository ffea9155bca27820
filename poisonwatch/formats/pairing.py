"""Halves of predictions that wait for their other half: bounded in bytes and time, and nothing leaves uncounted."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from poisonwatch.formats.foreign import Draft

OVERHEAD = 1024
"""Bytes that a waiting half takes beside its body and its words."""


class Half(NamedTuple):
    """A request or a response. `about` holds JSON values that its format wants back with the body."""

    body: bytes
    about: dict[str, Any]


class Pair(NamedTuple):
    """What belongs together."""

    request: Half
    response: Half


class _Waiting(NamedTuple):
    key: str
    response: bool
    half: Half
    since: float
    size: int


class Pairing:
    """Joins requests and responses that have the same key, in whichever order they come.

    A half waits until the clock is `seconds` past its arrival, and all that wait take at most about `most_bytes`: the
    oldest are crowded out. The clock is the largest time of receipt met so far, so what is paired depends on the events and
    their order alone. Several halves with one key, which the choice of a client may be, are each the fault `id_reused`, and the first
    to come is the first to be paired. Which request a response answers is not known then, and who knows which requests are answered
    could choose it: such a pair is the fault `ambiguous_pair`, and the body of its request is left out.

    A request without a response is rejected. A response without a request is a prediction all the same, since whoever sent the request
    may have seen to it that nobody logs it: `alone` takes it as a pair whose request is empty.
    """

    def __init__(self, seconds: float, most_bytes: int, alone: Callable[[Pair, Draft], None]) -> None:
        self._seconds, self._most, self._alone = seconds, most_bytes, alone
        self._clear()

    def _clear(self) -> None:
        self._clock = -math.inf
        self._bytes = 0
        self._number = 0
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        # Halves of one key that wait at the same time are all of one side.
        self._by_key: dict[str, deque[int]] = {}
        # Keys under which several have waited at once, until none waits.
        self._mixed: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: str, half: Half, at: float, draft: Draft, *, response: bool) -> Pair | None:
        """Take a half that was received at `at` (Unix seconds; NaN where nobody knows); the pair that it completes, or None."""
        if at > self._clock:
            if math.isinf(self._clock):
                # What came before any time was known has waited no longer than this.
                self._waiting = OrderedDict((n, w._replace(since=at)) for n, w in self._waiting.items())
            self._clock = at
            self._expire(draft)
        waiting = self._by_key.get(key)
        if waiting:
            if self._waiting[waiting[0]].response != response:
                mixed = key in self._mixed
                other = self._remove(waiting[0]).half
                pair = Pair(other, half) if response else Pair(half, other)
                if not mixed:
                    return pair
                draft.faults["ambiguous_pair"] += 1
                return pair._replace(request=pair.request._replace(body=b""))
            draft.faults["id_reused"] += 1
            self._mixed.add(key)
        size = OVERHEAD + len(half.body) + len(key) + sum(len(str(value)) for value in half.about.values())
        self._put(_Waiting(key, response, half, self._clock, size))
        while self._bytes > self._most:
            self._give_up(draft, "crowded_out")
        return None

    def flush(self, draft: Draft) -> None:
        """Nothing more comes: what waits has no other half."""
        while self._waiting:
            self._give_up(draft)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        waiting = self._waiting.values()
        return {
            "clock": None if math.isinf(self._clock) else self._clock,
            "waiting": [
                [w.key, w.response, w.half.about, None if math.isinf(w.since) else w.since, w.size] for w in waiting
            ],
            "mixed": sorted(self._mixed),
            "lengths": np.array([len(w.half.body) for w in waiting], np.int64),
            "bodies": np.frombuffer(b"".join(w.half.body for w in waiting), np.uint8),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self._clear()
        self._clock = -math.inf if state["clock"] is None else state["clock"]
        self._mixed = set(state["mixed"])
        bodies = state["bodies"].tobytes()
        start = 0
        for (key, response, about, since, size), length in zip(
            state["waiting"], state["lengths"].tolist(), strict=True
        ):
            half = Half(bodies[start : start + length], about)
            self._put(_Waiting(key, response, half, -math.inf if since is None else since, size))
            start += length

    def _put(self, waiting: _Waiting) -> None:
        self._waiting[self._number] = waiting
        self._by_key.setdefault(waiting.key, deque()).append(self._number)
        self._number += 1
        self._bytes += waiting.size

    def _remove(self, number: int) -> _Waiting:
        """Take one out that is the first of its key; the oldest of all is, too."""
        found = self._waiting.pop(number)
        same = self._by_key[found.key]
        same.popleft()
        if not same:
            del self._by_key[found.key]
            self._mixed.discard(found.key)
        self._bytes -= found.size
        return found

    def _expire(self, draft: Draft) -> None:
        while self._waiting and self._waiting[next(iter(self._waiting))].since < self._clock - self._seconds:
            self._give_up(draft)

    def _give_up(self, draft: Draft, reason: str | None = None) -> None:
        """Let the oldest go. One event may end the waiting of all the others: what is told of each is written down at once."""
        lost = self._remove(next(iter(self._waiting)))
        if not lost.response:
            draft.reject(reason or "unpaired_request", lost.half.body)
            return
        draft.faults[reason or "unpaired_response"] += 1
        self._alone(Pair(Half(b"", {}), lost.half), draft)
        draft.settle()
