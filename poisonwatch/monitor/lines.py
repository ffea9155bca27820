"""The model's log itself: how many of its lines were lost, and how much traffic there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory
from poisonwatch.detect.shift import Shift
from poisonwatch.monitor.signs import Lasting, mostly_lost
from poisonwatch.profile.indicators import QUALITY, REJECTED, VOLUME
from poisonwatch.profile.volume import Volume
from poisonwatch.types import Sign

if TYPE_CHECKING:
    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.profile.volume import UsualVolume
    from poisonwatch.profile.window import Window
    from poisonwatch.types import Evidence


class _OfVolume:
    """Was there more or less traffic than such hours have?"""

    def __init__(self, usual: UsualVolume, settings: Settings) -> None:
        baseline = usual.baseline
        self._slot, self._period = usual.slot, settings.period
        self._volume = Volume(usual)
        floor = settings.effect_floor + 3.5 * baseline.day_noise
        self._shift = Shift(baseline, floor, {VOLUME: settings.shares[VOLUME]})
        self._memory = self._shift.begin()

    def judge(self, start: float, count: int) -> None:
        for slot, profile in self._volume.note(start, count):
            self._shift.step(self._memory, profile, self._slot / self._period, slot)

    def evidence(self, model: str) -> list[Evidence]:
        baseline, shift = self._shift.baseline, self._shift
        texts = tuple(indicator.text for indicator in baseline.questions.indicators)
        return collect(model, None, self._memory, shift.bets, texts, baseline.rate, shift.floor)

    def state(self) -> dict[str, Any]:
        return {"memory": self._memory.state(), "slots": self._volume.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self._memory = Memory(**state["memory"])
        self._volume.restore(state["slots"])


class Lines:
    """Watches the share of lines that were rejected or late, and the volume; `evidence` is what it shows.

    `usual` is the reference's volume, or None where it cannot tell. `kept` and `lost` are all lines so far.
    """

    def __init__(self, model: str, baseline: Baseline, usual: UsualVolume | None, settings: Settings) -> None:
        self.evidence: list[Evidence] = []
        self._volume = None
        if usual is not None and Volume.fits(usual, settings.window):
            self._volume = _OfVolume(usual, settings)
        self._model = model
        self._settings = settings
        floor = settings.effect_floor + 3.5 * baseline.day_noise
        self._shift = Shift(baseline, floor, {QUALITY: settings.shares[REJECTED]})
        self._memory = self._shift.begin()
        self._judged = -np.inf
        self._blind = Lasting()
        self._now = -np.inf
        self.kept = 0
        self.lost = 0

    def judge(self, window: Window, kept: int, now: float = -np.inf) -> None:
        """Take a closed window into account, `kept` predictions of which were counted; `now` is when it was, if later than it ended.

        Where nothing can be read, the log's own time stands nearly still.
        """
        self.kept += kept
        self.lost += window.lost
        counts = np.array([kept + window.lost, window.lost], np.int64)
        # Lines lost before any prediction were judged at the clock's time, which may be later than the log's.
        since = window.end - self._judged
        elapsed = since if self._settings.window <= since < np.inf else self._settings.window
        self._shift.step(self._memory, counts, elapsed / self._settings.period, window.start)
        self._judged = window.end
        self._now = max(self._now, window.end, now)
        if self._volume is not None:
            self._volume.judge(window.start, kept)
        self.evidence = self._collect()

    def _collect(self) -> list[Evidence]:
        baseline = self._shift.baseline
        texts = tuple(indicator.text for indicator in baseline.questions.indicators)
        found = collect(self._model, None, self._memory, self._shift.bets, texts, baseline.rate, self._shift.floor)
        of_volume = [] if self._volume is None else self._volume.evidence(self._model)
        signed = [mostly_lost(evidence) for evidence in found]
        return [*(self._blind.of(e, self._now, blind=Sign.MOSTLY_LOST in e.signs) for e in signed), *of_volume]

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        volume = None if self._volume is None else self._volume.state()
        return {
            "memory": self._memory.state(),
            "judged": self._judged,
            "volume": volume,
            "blind_since": self._blind.since,
            "now": self._now,
            "kept": self.kept,
            "lost": self.lost,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._memory = Memory(**state["memory"])
        self._judged = state["judged"]
        self._blind.since = state["blind_since"]
        self._now = state["now"]
        self.kept, self.lost = state["kept"], state["lost"]
        if self._volume is not None and state["volume"] is not None:
            self._volume.restore(state["volume"])
        self.evidence = self._collect() if np.isfinite(self._judged) else []
