"""What a receiver was told, and what waits for it. The newest state of a thing takes the place of an older one that was not told yet.

So a receiver that is slow, or was away, gets no stale news, and what waits for it has a bound. No clock and no thread here: `at` are monotonic
seconds that the caller reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.notify.notices import Notice, closed, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 1000
"""Things that a receiver is told of at once; beyond them only what is critical finds room, in the place of what is not."""

MOST_TRIES = 30
"""Tries to tell that something ended. What still stands is told for as long as it stands."""

Key = tuple[str, str, str]


@dataclass(slots=True)
class _Entry:
    """One thing in its newest state. From `not_before` on it may be told (again)."""

    notice: Notice
    told: bool = False
    tries: int = 0
    not_before: float = 0.0


class Board:
    """Of one receiver. With `resend` seconds everything is told together, again and again while it stands; without, each state once.

    `dropped` counts what found no room, and ends that were given up.
    """

    def __init__(self, resend: float | None = None, most: int = MOST) -> None:
        self.dropped = 0
        self._resend = resend
        self._most = most
        self._entries: dict[Key, _Entry] = {}
        self._beyond: frozenset[str] = frozenset()
        self._again = 0.0

    def post(self, now: float, notices: Iterable[Notice]) -> bool:
        """Everything that stands at `now` (Unix seconds), and what just ended: True when there is something new to tell.

        What was firing and is not mentioned has ended, too. What ended is only told where its beginning was accepted.
        """
        news = False
        mentioned = set()
        beyond = set()
        for notice in sorted(notices, key=lambda one: one.severity != "critical"):
            key = key_of(notice)
            mentioned.add(key)
            entry = self._entries.get(key)
            if entry is not None and entry.notice.id == notice.id:
                entry.notice = notice
            elif notice.ended is not None:
                if entry is not None and entry.notice.ended is None:
                    self._renew(key, msgspec.structs.replace(notice, began=entry.notice.began))
                    news = True
            elif entry is not None or self._has_room(notice):
                self._renew(key, notice)
                news = True
            else:
                beyond.add(notice.id)
        for key, entry in list(self._entries.items()):
            if entry.notice.ended is None and key not in mentioned:
                self._renew(key, closed(entry.notice, now))
                news = True
        self.dropped += len(beyond - self._beyond)
        self._beyond = frozenset(beyond)
        return news

    def due(self, at: float) -> list[Notice]:
        """What is to be told now, in one message."""
        ready = [entry for entry in self._entries.values() if not entry.told and entry.not_before <= at]
        if self._resend is None:
            return [min(ready, key=lambda entry: entry.notice.severity != "critical").notice] if ready else []
        if ready or (self._entries and at >= self._again):
            return [entry.notice for entry in self._entries.values()]
        return []

    def next_due(self) -> float | None:
        """When there will be something to tell; None until something new is posted."""
        times = [entry.not_before for entry in self._entries.values() if not entry.told]
        if self._resend is not None and self._entries:
            times.append(self._again)
        return min(times, default=None)

    def waiting(self) -> int:
        """How many states were not told yet."""
        return sum(not entry.told for entry in self._entries.values())

    def took(self, notices: Iterable[Notice], at: float) -> None:
        """The receiver has accepted these; a state that came meanwhile still waits."""
        for notice in notices:
            entry = self._entries.get(key_of(notice))
            if entry is None or entry.notice.id != notice.id:
                continue
            if notice.ended is None:
                entry.told = True
            else:
                del self._entries[key_of(notice)]
        self._again = at + (self._resend or 0.0)

    def kept(self, notices: Iterable[Notice], not_before: float) -> None:
        """The receiver has not accepted these: they wait behind the others. That something ended is given up after `MOST_TRIES`."""
        for notice in notices:
            key = key_of(notice)
            entry = self._entries.get(key)
            if entry is None or entry.notice.id != notice.id or entry.told:
                continue
            entry.tries += 1
            if entry.tries >= MOST_TRIES and notice.ended is not None:
                del self._entries[key]
                self.dropped += 1
                continue
            entry.not_before = not_before
            self._entries[key] = self._entries.pop(key)
        self._again = not_before

    def _renew(self, key: Key, notice: Notice) -> None:
        """A new state goes behind all that waits."""
        self._entries.pop(key, None)
        self._entries[key] = _Entry(notice)

    def _has_room(self, notice: Notice) -> bool:
        if len(self._entries) < self._most:
            return True
        if notice.severity != "critical":
            return False
        for key, entry in reversed(self._entries.items()):
            if entry.notice.severity != "critical":
                del self._entries[key]
                self.dropped += 1
                # It may stand, and be mentioned again: that is not to be counted twice.
                self._beyond |= {entry.notice.id}
                return True
        return False
