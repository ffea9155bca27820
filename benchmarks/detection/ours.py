"""The product's own detectors over counts of many streams: `ask`, `describe`, `Shift` and `collect`, nothing of our own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.config import DetectionConfig
from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import log_sum
from poisonwatch.detect.shift import Shift
from poisonwatch.profile.baseline import describe_history
from poisonwatch.profile.indicators import INPUTS, Signal, ask
from poisonwatch.profile.odds import LOG_ZERO, expit
from poisonwatch.profile.season import DAY, Tally
from poisonwatch.types import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Floats, Ints

EFFECT_FLOOR = DetectionConfig().effect_floor
"""The product's own default, in log-odds."""

DAY_NOISES = 3.5
"""How many standard deviations of day-level noise the monitor adds to the floor."""

NOTHING = 1e-12
"""Share of the budget for groups that a stream has and this benchmark does not look at."""


class Page(NamedTuple):
    """A page by the product's rule: evidence of the whole budget, and an effect beyond the floor."""

    group: int
    signal: str
    effect: float


class Watch:
    """`Shift` over `streams` numerical columns with the same cut points, under one budget that they share equally.

    `apart`: every stream pages for itself (with its own part of the budget), so that one run measures as many delays as
    there are streams. Else their evidence is one group and is summed, as a model's inputs are.
    """

    def __init__(self, streams: int, cuts: tuple[float, ...], *, apart: bool) -> None:
        self.streams = streams
        self.cuts = cuts
        names = [f"features.s{number:04d}" for number in range(streams)]
        schema = Schema(
            model="bench",
            outcome=Column(name="prediction", kind="categorical"),
            features=tuple(Column(name=name, kind="numerical") for name in names),
            layout="object",
            confidence=False,
        )
        questions = ask(schema, dict.fromkeys(names, cuts))
        if apart:
            own = tuple(Signal(s.name, s.name if s.group == INPUTS else s.group) for s in questions.signals)
            questions = replace(questions, signals=own)
        self.questions: Questions = questions
        groups = dict.fromkeys(signal.group for signal in questions.signals)
        of_streams = names if apart else [INPUTS]
        self.shares = {group: 1 / len(of_streams) if group in of_streams else NOTHING for group in groups}
        self.cut_places = np.array([np.arange(questions.size)[questions.cut_place(row)] for row in range(streams)])

    def profile(self, n: int, at_most: Ints) -> Ints:
        """The product's vector for `n` records of every stream, `at_most` (streams, cuts) of them at most each cut."""
        counts = np.zeros(self.questions.size, np.int64)
        counts[0] = n
        counts[1 : 1 + self.streams] = n
        counts[self.cut_places] = at_most
        return counts

    def learn(self, slots: Iterable[Ints], days: int, floor: float = EFFECT_FLOOR) -> None:
        """Learn the baseline from profiles of consecutive slots of ten minutes, `days` of them from midnight on; forget the rest."""
        tally = Tally(self.questions.size, 0.0, days * DAY - 1.0)
        for slot, profile in enumerate(slots):
            tally.add(slot, profile)
        self.baseline: Baseline = describe_history(self.questions, tally.history())
        self.shift = Shift(self.baseline, floor + DAY_NOISES * self.baseline.day_noise, self.shares)
        self.memory = self.shift.begin()
        self._texts = tuple(indicator.text for indicator in self.questions.indicators)

    def step(self, profile: Ints, share_of_time: float, start: float) -> list[Page]:
        """One window; the pages that it brings. What paged starts anew, so that every alarm is counted."""
        self.shift.step(self.memory, profile, share_of_time, start)
        bets = self.shift.bets
        if not (log_sum(self.memory.log_m, bets.group, len(bets.groups)) >= 0).any():
            return []
        found = collect("bench", None, self.memory, bets, self._texts, self.baseline.rate, self.shift.floor)
        pages = []
        for group, evidence in enumerate(found):
            if evidence.log_e >= 0 and abs(evidence.effect) >= evidence.floor:
                pages.append(Page(group, evidence.signal, evidence.effect))
                self.memory.log_m[bets.of_group(group)] = LOG_ZERO
                self.memory.cusum[bets.of_group(group)] = 0.0
        return pages

    def boundaries(self) -> tuple[Floats, Floats]:
        """Rates at which the null of the first stream's cuts ends at midnight, below and above: (cuts,) each."""
        of = slice(0, len(self.cuts))
        low, high = self.baseline.bounds_in(self.baseline.cell_of(0.0))
        floor = self.shift.floor[of]
        return expit(low[of] - floor), expit(high[of] + floor)


def count_at_most(values: Floats, cuts: tuple[float, ...], block: int) -> Ints:
    """How many values (streams, n) of every block were at most each cut: (n / block, streams, cuts)."""
    streams, n = values.shape
    pieces = values.reshape(streams, n // block, block)
    return np.stack([(pieces <= cut).sum(axis=2) for cut in cuts], axis=2).transpose(1, 0, 2).astype(np.int64)
