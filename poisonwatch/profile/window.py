"""Event time: cutting the stream into windows, so that the result does not depend on how it was chopped.

The watermark is the largest event time seen, minus the allowed lateness, and is moved record by record: whether a
prediction is late depends on the predictions before it, never on which batch brought it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Batch, Bools, Floats, Ints


@dataclass(slots=True)
class Window:
    """One interval [start, end): a profile per model version, and how many lines were lost meanwhile: rejected, or late.

    `closed_by` is the place, in the batch that closed it, of the prediction that moved the watermark past its end; -1 where none did.
    """

    start: float
    end: float
    profiles: dict[str, Ints] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    last_seen: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    closed_by: int = -1

    def add(self, version: str, profile: Ints, first_seen: float, last_seen: float) -> None:
        """Count one piece of this window."""
        known = self.profiles.get(version)
        self.profiles[version] = profile if known is None else known + profile
        self.first_seen[version] = min(first_seen, self.first_seen.get(version, math.inf))
        self.last_seen[version] = max(last_seen, self.last_seen.get(version, -math.inf))

    def by_age(self) -> list[str]:
        """The versions, earliest prediction first: an order that does not depend on how the log was chopped."""
        return sorted(self.profiles, key=lambda version: (self.first_seen[version], version))


class Windows:
    """The open windows of one model.

    `width` and `lateness` in seconds. `late` counts predictions that came after their window was judged.
    """

    def __init__(self, questions: Questions, width: float, lateness: float) -> None:
        self._questions = questions
        self._width = width
        self._lateness = lateness
        self._open: dict[int, Window] = {}
        self._newest = -math.inf
        self._lost_before_any = 0
        self.late = 0

    @property
    def newest(self) -> float:
        """The largest event time seen, or minus infinity."""
        return self._newest

    def in_time(self, time: Floats) -> Bools:
        """Which of the next predictions, at `time` (n,), come before their window is judged: the watermark passed its end."""
        newest = np.maximum.accumulate(np.concatenate(([self._newest], time)))[:-1]
        in_time: Bools = (np.floor(time / self._width) + 1) * self._width > newest - self._lateness
        return in_time

    def absorb(self, batch: Batch) -> Iterator[Window]:
        """Count a batch; yield the windows that it closes, oldest first."""
        newest = np.maximum.accumulate(np.concatenate(([self._newest], batch.time)))
        number = np.floor(batch.time / self._width).astype(np.int64)
        in_time = self.in_time(batch.time)
        self.late += int(batch.time.size - in_time.sum())
        self._count_lost(newest[batch.rejected_at])
        self._count_lost(newest[:-1][~in_time])
        if self._lost_before_any and number.size:
            self._window(int(number[0])).lost += self._lost_before_any
            self._lost_before_any = 0
        self._count(batch, number, None if in_time.all() else np.flatnonzero(in_time))
        self._newest = float(newest[-1])
        for window in self._close():
            window.closed_by = int(np.searchsorted(newest - self._lateness, window.end)) - 1
            yield window

    def flush(self, now: float) -> Iterator[Window]:
        """Close everything: nothing more comes for now. What comes later for later windows is in time.

        Lost lines that no prediction told the time of are counted at `now`; they move the time of the log nowhere.
        """
        if self._lost_before_any:
            which, lost = int(now // self._width), self._lost_before_any
            self._lost_before_any = 0
            yield Window(which * self._width, (which + 1) * self._width, lost=lost)
        if self._open:
            self._newest = max(self._newest, (max(self._open) + 1) * self._width + self._lateness)
            yield from self._close()

    def _count(self, batch: Batch, number: Ints, keep: Ints | None) -> None:
        time, version = batch.time, batch.version
        numbers, codes, marks = batch.numbers, batch.codes, batch.marks
        if keep is not None:
            time, version, number = time[keep], version[keep], number[keep]
            numbers, codes, marks = numbers[:, keep], codes[:, keep], marks[:, keep]
        if not time.size:
            return
        key = number * len(batch.versions) + version
        if (np.diff(key) < 0).any():
            order = np.argsort(key, kind="stable")
            key, time = key[order], time[order]
            numbers, codes, marks = numbers[:, order], codes[:, order], marks[:, order]
        edges = np.flatnonzero(np.diff(key)) + 1
        for first, last in zip((0, *edges.tolist()), (*edges.tolist(), key.size), strict=True):
            which, of_version = divmod(int(key[first]), len(batch.versions))
            profile = self._questions.count(numbers[:, first:last], codes[:, first:last], marks[:, first:last])
            seen = time[first:last]
            self._window(which).add(batch.versions[of_version], profile, float(seen.min()), float(seen.max()))

    def _count_lost(self, newest: Floats) -> None:
        """Count each lost line in the window that was the newest when it came."""
        known = newest[np.isfinite(newest)]
        self._lost_before_any += newest.size - known.size
        for which, lines in zip(*np.unique(np.floor(known / self._width), return_counts=True), strict=True):
            self._window(int(which)).lost += int(lines)

    def _window(self, which: int) -> Window:
        if which not in self._open:
            self._open[which] = Window(which * self._width, (which + 1) * self._width)
        return self._open[which]

    def _close(self) -> Iterator[Window]:
        watermark = self._newest - self._lateness
        for which in sorted(self._open):
            if self._open[which].end > watermark:
                return
            yield self._open.pop(which)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "newest": self._newest,
            "lost_before_any": self._lost_before_any,
            "late": self.late,
            "open": [
                {
                    "which": which,
                    "lost": window.lost,
                    "versions": versions,
                    "first_seen": [window.first_seen[version] for version in versions],
                    "last_seen": [window.last_seen[version] for version in versions],
                    "profiles": np.array([window.profiles[version] for version in versions], np.int64).reshape(
                        -1, self._questions.size
                    ),
                }
                for which, window in sorted(self._open.items())
                for versions in [window.by_age()]
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._newest = state["newest"]
        self._lost_before_any = state["lost_before_any"]
        self.late = state["late"]
        self._open = {}
        for saved in state["open"]:
            window = self._window(saved["which"])
            window.lost = saved["lost"]
            for version, first_seen, last_seen, profile in zip(
                saved["versions"], saved["first_seen"], saved["last_seen"], saved["profiles"], strict=True
            ):
                window.add(version, profile, first_seen, last_seen)
