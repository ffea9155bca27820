"""Does the canary answer otherwise than the stable version on the same traffic?

Given how many predictions each version answered in a block, and how many of them were answered yes, the number that fell
to the canary is hypergeometric when the two do not differ, and Fisher's noncentral hypergeometric when their odds
differ by a factor. The ratio of two such probabilities is a likelihood ratio that needs neither the share of traffic
routed to the canary nor the rate of the indicator: both may drift, as long as within a block the routing does not
depend on the input. It is monotone in the odds ratio, so a boundary stands for the whole composite null beyond it.
(Conditional likelihood: Cornfield 1956; conditional tests as e-values: Turner, Ly, Gruenwald, arXiv 2106.02693.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.detect.kernel import Memory, advance, lay_bets
from poisonwatch.profile.indicators import CANARY_CLASS, CANARY_CONFIDENCE, CONFIDENCE

if TYPE_CHECKING:
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.types import Floats, Ints

SUPPORT_SPREAD = 12.0
"""Terms of the normaliser further than this many standard deviations from every mode are left out."""


class Canary:
    """Compares two versions over their concurrent traffic: class rates, and the cuts of the confidence.

    `floor` in log-odds is the difference that an honest retraining may make. `smallest_arm` is how many predictions
    both versions must have before a block is judged: until then windows are pooled.
    """

    def __init__(self, baseline: Baseline, floor: float, shares: dict[str, float], smallest_arm: int) -> None:
        questions = baseline.questions
        names = {"class": CANARY_CLASS, "prediction": CANARY_CLASS, CONFIDENCE: CANARY_CONFIDENCE}
        watched = np.array([names.get(indicator.signal.name, "") for indicator in questions.indicators], dtype=object)
        self.indicators = np.flatnonzero(watched != "")
        kept = tuple(dict.fromkeys(watched[self.indicators].tolist()))
        signal_of = np.array([kept.index(name) for name in watched[self.indicators]], np.int64)
        self.baseline = baseline
        self.floor = floor
        self.smallest_arm = smallest_arm
        self.bets = lay_bets(
            signal_of,
            np.ones((self.indicators.size, 2), np.bool_),
            tuple((name, name) for name in kept),
            shares,
        )
        self._asked = questions.asked[self.indicators]
        self._yes = questions.yes[self.indicators]
        self._temper = baseline.design_effect[self.indicators]

    def begin(self) -> Memory:
        """Nothing seen yet."""
        return Memory.fresh(self.bets, self.indicators.size, arms=2)

    def ready(self, canary: Ints, stable: Ints) -> bool:
        """Do both versions have enough predictions for a block?"""
        return min(int(canary[0]), int(stable[0])) >= self.smallest_arm

    def step(self, memory: Memory, canary: Ints, stable: Ints, share_of_time: float, start: float) -> None:
        """Take one block into account: the two versions' profiles over the same interval."""
        asked = np.stack([canary[self._asked], stable[self._asked]])
        yes = np.stack([canary[self._yes], stable[self._yes]])
        of, sign, theta = self.bets.indicator, self.bets.sign, self.bets.theta
        null, alternative = sign * self.floor, sign * (self.floor + theta)
        table = _Tables(asked[0], asked[1], yes.sum(axis=0))
        log_l = (alternative - null) * yes[0, of] - (table.log_norm(of, alternative) - table.log_norm(of, null))
        # Shown is what the stable version would have answered, had it had the canary's traffic block by block: pooled rates
        # would mistake a changing share of the traffic, while the inputs change too, for a difference (Simpson 1951).
        answered = np.stack([asked[0], asked[0]]).astype(np.float64)
        as_stable = asked[0] * yes[1] / np.maximum(asked[1], 1)
        advance(
            memory, self.bets, log_l / self._temper[of], share_of_time, answered, np.stack([yes[0], as_stable]), start
        )


class _Tables:
    """Two-by-two tables with fixed margins, one per indicator: the normalisers of their conditional distributions."""

    def __init__(self, canary: Ints, stable: Ints, yes: Ints) -> None:
        self._canary, self._stable, self._yes = canary, stable, yes
        self._low = np.maximum(0, yes - stable)
        self._high = np.minimum(canary, yes)
        counts = np.arange(1, int((canary + stable).max(initial=0)) + 2)
        self._log_factorial = np.concatenate(([0.0], np.cumsum(np.log(counts))))

    def log_norm(self, of: Ints, log_odds: Floats) -> Floats:
        """Logarithm of sum over x of C(canary, x) C(stable, yes - x) exp(x * log_odds), per component (c,)."""
        low, high = self._low[of], self._high[of]
        mode = self._mode(of, log_odds)
        spread = SUPPORT_SPREAD * np.sqrt(1.0 + (high - low)) / 2 + 8
        first = np.maximum(low, np.floor(mode - spread)).astype(np.int64)
        last = np.minimum(high, np.ceil(mode + spread)).astype(np.int64)
        x = first[:, None] + np.arange(int((last - first).max(initial=0)) + 1)
        inside = x <= last[:, None]
        x = np.where(inside, x, first[:, None])
        terms = self._log_weight(of[:, None], x) + x * log_odds[:, None]
        terms = np.where(inside, terms, -np.inf)
        top = terms.max(axis=1)
        return np.asarray(top + np.log(np.exp(terms - top[:, None]).sum(axis=1)))

    def _log_weight(self, of: Ints, x: Ints) -> Floats:
        """Logarithm of C(canary, x) * C(stable, yes - x)."""
        f, canary, stable, rest = self._log_factorial, self._canary[of], self._stable[of], self._yes[of] - x
        return np.asarray(f[canary] - f[x] - f[canary - x] + f[stable] - f[rest] - f[stable - rest])

    def _mode(self, of: Ints, log_odds: Floats) -> Floats:
        """Where the conditional distribution is largest (Liao and Rosen 2001)."""
        canary, stable, yes = self._canary[of], self._stable[of], self._yes[of]
        psi = np.exp(log_odds)
        a = psi - 1.0
        b = (canary + yes + 2) * psi + stable - yes
        c = psi * (canary + 1.0) * (yes + 1.0)
        # The stable form of the smaller root of a x^2 - b x + c = 0, which also holds for a = 0.
        root = np.sqrt(np.maximum(b * b - 4 * a * c, 0.0))
        return np.asarray(2 * c / (b + root))
