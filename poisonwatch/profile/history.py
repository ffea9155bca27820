"""The whole life of a version in bounded memory: profiles of stretches of time that grow as it grows older."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

SLOTS = 256
"""Stretches that are told apart at most; at least half of them once as many windows have closed."""


class History:
    """Profiles (size,) summed over stretches of equally many windows, oldest first.

    When all slots are taken, neighbours are merged and each holds twice as many windows: the resolution is at any time
    at least 2/`slots` of the life so far. `slots` is even.
    """

    def __init__(self, size: int, slots: int = SLOTS) -> None:
        if slots < 2 or slots % 2:
            raise ValueError("neighbours are merged in pairs: give an even number of slots, at least 2")
        # Zeroed pages cost no memory before they are written.
        self._start = np.zeros(slots)
        self._sums = np.zeros((slots, size), np.int64)
        self._used = 0
        self._windows_a_slot = 1
        self._windows_in_last = 1

    def append(self, start: float, profile: Ints) -> None:
        """Take the profile (size,) of the window that began at `start`; windows come in order."""
        if self._windows_in_last < self._windows_a_slot:
            self._sums[self._used - 1] += profile
            self._windows_in_last += 1
            return
        if self._used == self._start.size:
            # Only full slots are merged, so every slot holds the same number of windows.
            self._used //= 2
            self._start[: self._used] = self._start[::2].copy()
            self._sums[: self._used] = self._sums[::2] + self._sums[1::2]
            self._windows_a_slot *= 2
        self._start[self._used] = start
        self._sums[self._used] = profile
        self._used += 1
        self._windows_in_last = 1

    def series(self, asked: int, yes: int) -> tuple[Floats, Ints, Ints]:
        """Starts (k,) of the stretches, and how often a question was asked and answered yes in each, by its two places."""
        used = slice(self._used)
        return self._start[used].copy(), self._sums[used, asked].copy(), self._sums[used, yes].copy()

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "start": self._start[: self._used].copy(),
            "sums": self._sums[: self._used].copy(),
            "windows_a_slot": self._windows_a_slot,
            "windows_in_last": self._windows_in_last,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state saved by a history of the same size and slots."""
        self._used = state["start"].size
        self._start[: self._used] = state["start"]
        self._sums[: self._used] = state["sums"]
        self._windows_a_slot = state["windows_a_slot"]
        self._windows_in_last = state["windows_in_last"]
