"""How many predictions of a version came since when, to within a share of what came before: a bounded memory. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.mining.records import Records

MOST_MARKS = 512
"""Times of one version at which its count is known; every second one is forgotten when there are as many."""


@dataclass(slots=True)
class _Marks:
    """Times and counts so far, `stride` blocks apart; `total` predictions in all, of `blocks` blocks."""

    times: list[float]
    counts: list[int]
    stride: int = 1
    blocks: int = 0
    total: int = 0


class Volume:
    """Counts of predictions at some times, by number of version."""

    def __init__(self) -> None:
        self._marks: dict[int, _Marks] = {}

    def add(self, records: Records) -> None:
        """Count a block; it stands for its oldest time."""
        oldest = float(records.time.min())
        for number, many in zip(*np.unique(records.version, return_counts=True), strict=True):
            marks = self._marks.setdefault(int(number), _Marks([], []))
            if marks.blocks % marks.stride == 0:
                marks.times.append(max(oldest, marks.times[-1]) if marks.times else oldest)
                marks.counts.append(marks.total)
            marks.blocks += 1
            marks.total += int(many)
            if len(marks.times) >= MOST_MARKS:
                del marks.times[1::2], marks.counts[1::2]
                marks.stride *= 2

    def since(self, version: int, time: float) -> int:
        """How many predictions of a version came from a time on, with those since the last known count before it."""
        marks = self._marks.get(version)
        return 0 if marks is None else marks.total - marks.counts[max(0, bisect_right(marks.times, time) - 1)]

    def forget(self, version: int) -> None:
        """A version is gone."""
        self._marks.pop(version, None)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"versions": list(self._marks), "marks": [asdict(marks) for marks in self._marks.values()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._marks = {number: _Marks(**saved) for number, saved in zip(state["versions"], state["marks"], strict=True)}
