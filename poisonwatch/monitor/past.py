"""The past of a version: its whole life at a coarse resolution, and second opinions on when something began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poisonwatch.detect.onset import second_opinion
from poisonwatch.monitor.signs import FIRES
from poisonwatch.profile.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from poisonwatch.types import Evidence, Ints


class Past:
    """What a version answered in time. An opinion is formed once, when evidence first fires, and kept while it does."""

    def __init__(self, size: int) -> None:
        self._history = History(size)
        self._onsets: dict[str, float | None] = {}
        self._slow: dict[str, tuple[int, bool]] = {}

    def note(self, start: float, profile: Ints) -> None:
        """Take a closed window's profile (size,) into account."""
        self._history.append(start, profile)

    def onset(self, evidence: Evidence, places: Mapping[str, tuple[int, int]]) -> float | None:
        """When the evidence's first indicator began to move, by another method; `places` has its two places by its text."""
        if evidence.log_e < FIRES or not evidence.subjects:
            self._onsets.pop(evidence.group, None)
            return None
        if evidence.group not in self._onsets and evidence.subjects[0].indicator in places:
            series = self._history.series(*places[evidence.subjects[0].indicator])
            self._onsets[evidence.group] = second_opinion(*series)
        return self._onsets.get(evidence.group)

    def is_slow(self, evidence: Evidence, day: int, judge: Callable[[Evidence], bool]) -> bool:
        """Was the effect reached over days? `judge` is asked once a day while the evidence fires, until it says so."""
        if evidence.log_e < FIRES or not evidence.subjects:
            self._slow.pop(evidence.group, None)
            return False
        asked, slow = self._slow.get(evidence.group, (-1, False))
        if not slow and asked != day:
            self._slow[evidence.group] = asked, slow = day, judge(evidence)
        return slow

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "history": self._history.state(),
            "onsets": dict(self._onsets),
            "slow": {group: list(known) for group, known in self._slow.items()},
        }

    @classmethod
    def restored(cls, size: int, state: dict[str, Any]) -> Past:
        """The past of a saved state."""
        past = cls(size)
        past._history.restore(state["history"])
        past._onsets = dict(state["onsets"])
        past._slow = {group: (day, slow) for group, (day, slow) in state["slow"].items()}
        return past
