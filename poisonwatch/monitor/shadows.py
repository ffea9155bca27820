"""Versions that answer the same predictions: a shadow beside the stable version, paired by `prediction_id`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory
from poisonwatch.detect.shadow import Shadow
from poisonwatch.profile.indicators import SHADOW

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.waiting import Pairs
    from poisonwatch.profile.window import Window
    from poisonwatch.types import Batch, Bools, Evidence, Ints


@dataclass(slots=True)
class _Beside:
    """A version whose answers were paired with the stable one's; `judged` is up to when its budget was spent."""

    judged: float
    memory: Memory


class Shadows:
    """Compares the answers of two versions to the same predictions."""

    def __init__(self, classes: tuple[str, ...], settings: Settings) -> None:
        self._settings = settings
        self._classes = classes
        self._shadow = Shadow(classes, {}, settings.shares[SHADOW])
        self._met: dict[tuple[int, str, str], Ints] = {}
        self._versions: dict[tuple[str, str], _Beside] = {}

    def add(self, batch: Batch, pairs: Pairs, in_time: Bools, name_of: Callable[[int], str]) -> None:
        """Take pairs into account: predictions of this batch that another version has answered before.

        Those that are not `in_time` (n,) are left out like everything else about them; of numbers there is nothing to compare.
        """
        kept = np.flatnonzero(in_time[pairs.record])
        if not kept.size or not self._classes:
            return
        record, version = pairs.record[kept], pairs.version[kept]
        number = np.floor(batch.time[record] / self._settings.window).astype(np.int64)
        own = batch.version[record]
        now, before = batch.codes[0, record], pairs.facts[0, kept]
        for key in np.unique(np.stack((number, own, version)), axis=1).T.tolist():
            of = np.flatnonzero((number == key[0]) & (own == key[1]) & (version == key[2]))
            names = key[0], batch.versions[key[1]], name_of(key[2])
            none = np.empty((0, of.size), np.bool_)
            # Either may turn out to be the stable one: counted are both ways round.
            for which, stable, candidate in (
                (names, before[of], now[of]),
                ((key[0], names[2], names[1]), now[of], before[of]),
            ):
                counts = self._shadow.count(stable, candidate, none, none)
                self._met[which] = self._met[which] + counts if which in self._met else counts

    def judge(self, window: Window, stable: str | None, shares: Mapping[str, float]) -> None:
        """Step the comparisons with the stable version by the pairs up to the end of a window."""
        last = round(window.start / self._settings.window)
        for which in sorted(which for which in self._met if which[0] <= last):
            counts = self._met.pop(which)
            _, candidate, against = which
            if against != stable or candidate not in shares:
                continue
            beside = self._versions.get((candidate, stable))
            if beside is None:
                beside = self._versions[candidate, stable] = _Beside(window.start, self._shadow.begin())
            share = max(window.end - beside.judged, 0.0) / self._settings.period * shares[candidate]
            self._shadow.step(beside.memory, counts, share, window.start)
            beside.judged = window.end

    def evidence(self, model: str, name: str, stable: str | None) -> list[Evidence]:
        """What the comparison of a version with the stable one has shown."""
        beside = self._versions.get((name, stable)) if stable is not None else None
        if beside is None:
            return []
        shadow = self._shadow
        return collect(model, name, beside.memory, shadow.bets, shadow.texts, shadow.rate, shadow.floor, stable)

    def forget(self, version: str) -> None:
        """A version is gone."""
        self._versions = {names: beside for names, beside in self._versions.items() if version not in names}

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "met": [{"which": list(which), "counts": counts} for which, counts in self._met.items()],
            "versions": [
                {"names": list(names), "judged": beside.judged, "memory": beside.memory.state()}
                for names, beside in self._versions.items()
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._met = {(w["which"][0], w["which"][1], w["which"][2]): w["counts"] for w in state["met"]}
        self._versions = {
            (saved["names"][0], saved["names"][1]): _Beside(saved["judged"], Memory(**saved["memory"]))
            for saved in state["versions"]
        }
