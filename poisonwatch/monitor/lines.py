"""The model's log itself: how many of its lines were lost, and how much traffic there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory
from poisonwatch.detect.shift import Shift
from poisonwatch.monitor.signs import mostly_lost
from poisonwatch.profile.indicators import QUALITY, REJECTED

if TYPE_CHECKING:
    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.profile.window import Window
    from poisonwatch.types import Evidence


class Lines:
    """Watches the share of lines that were rejected or late; `evidence` is what it shows."""

    def __init__(self, model: str, baseline: Baseline, settings: Settings) -> None:
        self.evidence: list[Evidence] = []
        self._model = model
        self._settings = settings
        floor = settings.effect_floor + 3.5 * baseline.day_noise
        self._shift = Shift(baseline, floor, {QUALITY: settings.shares[REJECTED]})
        self._memory = self._shift.begin()
        self._judged = -np.inf

    def judge(self, window: Window, kept: int) -> None:
        """Take a closed window into account, `kept` predictions of which were counted."""
        counts = np.array([kept + window.lost, window.lost], np.int64)
        # Lines lost before any prediction were judged at the clock's time, which may be later than the log's.
        since = window.end - self._judged
        elapsed = since if self._settings.window <= since < np.inf else self._settings.window
        self._shift.step(self._memory, counts, elapsed / self._settings.period, window.start)
        self._judged = window.end
        self.evidence = self._collect()

    def _collect(self) -> list[Evidence]:
        baseline = self._shift.baseline
        texts = tuple(indicator.text for indicator in baseline.questions.indicators)
        found = collect(self._model, None, self._memory, self._shift.bets, texts, baseline.rate, self._shift.floor)
        return [mostly_lost(evidence) for evidence in found]

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"memory": self._memory.state(), "judged": self._judged}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._memory = Memory(**state["memory"])
        self._judged = state["judged"]
        self.evidence = self._collect() if np.isfinite(self._judged) else []
