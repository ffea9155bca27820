"""Versions beside the stable one: compared on the traffic that both answer, and on the labels that both got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from poisonwatch.detect.canary import Canary, Pair, concurrent, confinement
from poisonwatch.detect.evidence import collect
from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_CONFIDENCE,
    CANARY_ERRORS,
    CANARY_FLIPS,
    CANARY_INPUTS,
)
from poisonwatch.types import Sign

if TYPE_CHECKING:
    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.types import Evidence, Ints

LONGEST = 3600.0
"""Seconds of traffic that one block may span."""

FLIPS_FLOOR, CONFIDENCE_FLOOR, ERRORS_FLOOR = 1.5, 1.5, 0.3
"""What honest retrainings of real models stayed below, in log-odds: they flip more than the version that the surrogate was
learned from, and their confidence moves more than attacks move it. Those of classes are settings.
"""

LABELS_LONGEST = 86400.0
FEWEST_LABELS = 10
"""Labels that both versions must have in a block, and seconds that it may span."""


@dataclass(slots=True)
class _Beside:
    """A version and the stable one. A version spends its budget once, whichever version it is compared with."""

    traffic: Pair
    labels: Pair


class Pairs:
    """All comparisons of two versions. `errors` is the baseline of error rates that `labels.Labels` counts."""

    def __init__(self, baseline: Baseline, errors: Baseline, settings: Settings) -> None:
        floor, clear = settings.canary_floor, settings.canary_page_floor
        floors = {
            CANARY_CLASS: (floor, clear),
            CANARY_CONFIDENCE: (CONFIDENCE_FLOOR,),
            CANARY_FLIPS: (FLIPS_FLOOR,),
            CANARY_INPUTS: (floor,),
            CANARY_ERRORS: (ERRORS_FLOOR,),
        }
        self._period = settings.period
        self._floor, self._clear = floor, clear
        watched, asked = concurrent(baseline.questions), concurrent(errors.questions)
        self._traffic = Canary(baseline, watched, floors, settings.shares, settings.smallest_arm, LONGEST)
        self._labels = Canary(errors, asked, floors, settings.shares, FEWEST_LABELS, LABELS_LONGEST)
        self._flips = CANARY_FLIPS in watched.values()
        self._kinds = tuple(
            (
                canary,
                tuple(base.questions.indicators[of].text for of in canary.indicators),
                base.rate[canary.indicators],
            )
            for canary, base in ((self._traffic, baseline), (self._labels, errors))
        )
        self._pairs: dict[tuple[str, str], _Beside] = {}
        self._spent: dict[str, tuple[float, float]] = {}

    def add_traffic(
        self, canary: str, stable: str, profiles: dict[str, Ints], span: tuple[float, float], share: float
    ) -> None:
        """Take a window in which both answered into account; `share` is the canary version's part of the budget."""
        beside, (traffic, labels) = self._of(canary, stable), self._spent.get(canary, (span[0], span[0]))
        rate = share / self._period
        traffic = self._traffic.add(beside.traffic, profiles[canary], profiles[stable], *span, traffic, rate)
        self._spent[canary] = traffic, labels

    def add_labels(
        self, canary: str, stable: str, profiles: dict[str, Ints], span: tuple[float, float], share: float
    ) -> None:
        """Take labels that came back for either in the same window into account."""
        beside, (traffic, labels) = self._of(canary, stable), self._spent.get(canary, (span[0], span[0]))
        none = np.zeros_like(next(iter(profiles.values())))
        arms = profiles.get(canary, none), profiles.get(stable, none)
        labels = self._labels.add(beside.labels, *arms, *span, labels, share / self._period)
        self._spent[canary] = traffic, labels

    def _of(self, canary: str, stable: str) -> _Beside:
        beside = self._pairs.get((canary, stable))
        if beside is None:
            beside = self._pairs[canary, stable] = _Beside(self._traffic.begin(), self._labels.begin())
        return beside

    def forget(self, version: str) -> None:
        """A version is gone."""
        self._pairs = {names: beside for names, beside in self._pairs.items() if version not in names}
        self._spent.pop(version, None)

    def evidence(self, model: str, name: str, stable: str | None) -> list[Evidence]:
        """What the comparison of a version with the stable one has shown."""
        if stable is None or not any(canary == name for canary, _ in self._pairs):
            return []
        if name == stable:
            # It took the place of the version that it was compared with: what was found then can neither grow nor fade.
            return self._told(model, name, None, _Beside(self._traffic.begin(), self._labels.begin()), ())
        beside = self._pairs.get((name, stable))
        if beside is None:
            return []
        return self._told(model, name, stable, beside, self._signs(beside.traffic))

    def _told(
        self, model: str, name: str, against: str | None, beside: _Beside, signs: tuple[Sign, ...]
    ) -> list[Evidence]:
        found: list[Evidence] = []
        for (canary, texts, rates), pair in zip(self._kinds, (beside.traffic, beside.labels), strict=True):
            if against is None or pair.memory.asked.any():
                found += collect(model, name, pair.memory, canary.bets, texts, rates, canary.floor, against)
        return [msgspec.structs.replace(e, signs=signs) if signs and e.group == CANARY_CLASS else e for e in found]

    def _signs(self, pair: Pair) -> tuple[Sign, ...]:
        """What the judge must know of a difference of classes."""
        if self._traffic.lower_bounds(pair).get(CANARY_CLASS, 0.0) < self._clear:
            return ()
        explained = confinement(pair)
        # An honest retraining moves the other classes too, by as much as the floor.
        confined = explained is not None and explained.rest <= self._floor
        unwatched = () if self._flips else (Sign.UNWATCHED,)
        return (Sign.CLEAR, *((Sign.CONFINED,) if confined else ()), *unwatched)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "spent": {name: list(spent) for name, spent in self._spent.items()},
            "pairs": [
                {"canary": canary, "stable": stable, "traffic": beside.traffic.state(), "labels": beside.labels.state()}
                for (canary, stable), beside in self._pairs.items()
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._spent = {name: (spent[0], spent[1]) for name, spent in state["spent"].items()}
        self._pairs = {
            (saved["canary"], saved["stable"]): _Beside(Pair.restored(saved["traffic"]), Pair.restored(saved["labels"]))
            for saved in state["pairs"]
        }
