"""Has a version moved from the reference? Odds-tilt bets on every indicator, against a composite null."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.detect.kernel import Memory, advance, lay_bets
from poisonwatch.profile.odds import expit

if TYPE_CHECKING:
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.types import Floats, Ints


class Shift:
    """Compares the profiles of one version with a baseline. Configuration only; what it learns is in `Memory`.

    The null says that the log-odds of an indicator lie, in every window, within `floor` of the interval in which the
    baseline's finite size leaves the true rate. `floor` (j,) is the effect that does not matter; exponents are divided
    by the design effect measured on the baseline, so that correlated records do not count as independent ones.
    """

    def __init__(self, baseline: Baseline, floor: Floats, shares: dict[str, float]) -> None:
        questions = baseline.questions
        self.baseline = baseline
        self.floor = floor
        self.bets = lay_bets(questions.signal_of, questions.sides, questions.signals, shares)
        of, sign = self.bets.indicator, self.bets.sign
        boundary = np.where(sign > 0, baseline.high[of], baseline.low[of]) + sign * floor[of]
        null = expit(boundary)
        alternative = expit(boundary + sign * self.bets.theta)
        self._gain_yes = np.log(alternative / null) / baseline.design_effect[of]
        self._gain_no = np.log((1 - alternative) / (1 - null)) / baseline.design_effect[of]

    def begin(self) -> Memory:
        """Nothing seen yet."""
        return Memory.fresh(self.bets, len(self.baseline.questions.indicators))

    def step(self, memory: Memory, profile: Ints, share_of_time: float, start: float) -> None:
        """Take the profile of one closed window into account."""
        asked = profile[self.baseline.questions.asked]
        yes = profile[self.baseline.questions.yes]
        of = self.bets.indicator
        log_l = yes[of] * self._gain_yes + (asked - yes)[of] * self._gain_no
        advance(memory, self.bets, log_l, share_of_time, asked[None], yes[None], start)
