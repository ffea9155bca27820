"""How many predictions a server usually logs for one request that it counts, learned from the first day.

A request may be a batch, or a check that is never logged. The ratio is learned once and then fixed: one that followed the
log would follow whoever hides in it little by little.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

HOUR = 3600.0

HOURS = 24
"""Hours with records to learn from: a whole day, since clients differ by the time of the day."""

FEWEST = 20
"""Requests that an hour must have to be one; with fewer it goes on."""

UPPER = 1.73
"""What the variance of so many hours is multiplied by, for its upper 95 % bound."""

MOST_CLUSTER = 100.0
"""Beyond this, requests and records have too little to do with each other."""


class UsualRatio:
    """Learns from hours. `ratio` is predictions a request, `cluster` how many requests count as one, for what hours differ."""

    def __init__(self, tolerated: float) -> None:
        self.ratio = 1.0
        self.cluster = 1.0
        self._tolerated = tolerated
        self._hours: list[tuple[float, float]] = []
        self._silent = 0
        self._start = math.inf
        self._served = 0.0
        self._seen = 0.0

    @property
    def ready(self) -> bool:
        """Is the ratio known?"""
        return len(self._hours) >= HOURS

    @property
    def steady(self) -> bool:
        """Is the ratio known, and steady enough to hold single requests against it?"""
        return self.ready and self.cluster <= MOST_CLUSTER

    def note(self, now: float, served: float, seen: float) -> tuple[float, float] | None:
        """Take counts since the last call; at the end of an hour, how much was served, and all of it as missing if nothing was seen.

        Also None where the first day had hours of requests without any record.
        """
        if self.steady:
            return None
        self._start = min(self._start, now)
        self._served += served
        self._seen += seen
        if now - self._start < HOUR or self._served < FEWEST:
            return None
        served, seen = self._served, self._seen
        self._start, self._served, self._seen = now, 0.0, 0.0
        if not self.ready:
            if seen:
                self._hours.append((served, seen))
            elif self._hours:
                self._silent += 1
            if self.ready:
                self._learn()
        elif self._silent:
            return None
        return served, 0.0 if seen else served

    def _learn(self) -> None:
        hours = np.array(self._hours)
        served, seen = hours[:, 0], hours[:, 1]
        self.ratio = float(seen.sum() / served.sum())
        excess = (seen / self.ratio - served) ** 2 / (served * self._tolerated * (1 - self._tolerated))
        self.cluster = max(1.0, UPPER * float(excess.mean()))

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "hours": [list(hour) for hour in self._hours],
            "silent": self._silent,
            "start": self._start,
            "served": self._served,
            "seen": self._seen,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._hours = [(served, seen) for served, seen in state["hours"]]
        self._silent = state["silent"]
        self._start, self._served, self._seen = state["start"], state["served"], state["seen"]
        if self.ready:
            self._learn()
