"""Has a version moved from the reference? Odds-tilt bets on every indicator, against a composite null."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.detect.kernel import THETAS, Memory, advance, lay_bets
from poisonwatch.profile.odds import expit

if TYPE_CHECKING:
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.types import Floats, Ints


class Shift:
    """Compares the profiles of one version with a baseline. Configuration only; what it learns is in `Memory`.

    The null says that the log-odds of an indicator lie, in every window, within `floor` of the interval in which the
    baseline's finite size leaves the true rate at that time of the day and week. `floor` (j,) is the effect that does not
    matter; exponents are divided by the design effect measured on the baseline, so that correlated records do not count as
    independent ones. `thetas` are the steps of the alternatives.
    """

    def __init__(
        self, baseline: Baseline, floor: Floats, shares: dict[str, float], thetas: tuple[float, ...] = THETAS
    ) -> None:
        questions = baseline.questions
        self.baseline = baseline
        self.floor = floor
        self.bets = lay_bets(questions.signal_of, questions.sides, questions.signals, shares, thetas)
        # Windows come in the order of time, so one cell's table at a time is enough.
        self._cell = -1
        self._gain_yes = self._gain_asked = self._rate = np.empty(0)

    def begin(self) -> Memory:
        """Nothing seen yet."""
        # With seasons, what was expected since the onset depends on the hours since then: it is counted like a second arm.
        arms = 1 if self.baseline.season is None else 2
        return Memory.fresh(self.bets, len(self.baseline.questions.indicators), arms)

    def step(self, memory: Memory, profile: Ints, share_of_time: float, start: float) -> None:
        """Take the profile of one closed window that began at `start` into account."""
        self._enter(self.baseline.cell_of(start))
        asked = profile[self.baseline.questions.asked].astype(np.float64)
        yes = profile[self.baseline.questions.yes].astype(np.float64)
        log_l = yes[self.bets.indicator]
        log_l *= self._gain_yes
        log_l += asked[self.bets.indicator] * self._gain_asked
        if self.baseline.season is None:
            advance(memory, self.bets, log_l, share_of_time, asked[None], yes[None], start)
        else:
            both = np.stack([yes, asked * self._rate])
            advance(memory, self.bets, log_l, share_of_time, np.stack([asked, asked]), both, start)

    def _enter(self, cell: int) -> None:
        """Make the gains (c,) of a cell's bets, per yes and per question asked."""
        if cell == self._cell:
            return
        of, sign = self.bets.indicator, self.bets.sign
        low, high = self.baseline.bounds_in(cell)
        boundary = np.where(sign > 0, high[of], low[of]) + sign * self.floor[of]
        null, alternative = expit(boundary), expit(boundary + sign * self.bets.theta)
        self._gain_asked = np.log((1 - alternative) / (1 - null)) / self.baseline.design_effect[of]
        self._gain_yes = np.log(alternative / null) / self.baseline.design_effect[of] - self._gain_asked
        self._rate = self.baseline.rate_in(cell)
        self._cell = cell
