"""Does the canary answer otherwise than the stable version on the same traffic?

Given how many predictions each version answered in a block, and how many of them were answered yes, the number that fell
to the canary is hypergeometric when the two do not differ, and Fisher's noncentral hypergeometric when their odds
differ by a factor. The ratio of two such probabilities is a likelihood ratio that needs neither the share of traffic
routed to the canary nor the rate of the indicator: both may drift, as long as within a block the routing does not
depend on the input. It is monotone in the odds ratio, so a boundary stands for the whole composite null beyond it.
(Conditional likelihood: Cornfield 1956; conditional tests as e-values: Turner, Ly, Gruenwald, arXiv 2106.02693.)

The same bets run at several floors. The log-likelihood is concave in the log odds ratio, so with steps of the same size
the evidence falls from floor to floor on every path: the largest floor at which it passes the budget is a lower bound of
the effect that holds at all times and at all floors together, and costs no further budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poisonwatch.detect.kernel import Memory, advance, lay_bets, log_sum
from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_CONFIDENCE,
    CANARY_ERRORS,
    CANARY_FLIPS,
    CANARY_INPUTS,
    CONFIDENCE,
    CONFIDENCE_FALL,
    ERRORS,
    FLIPS,
    INPUTS,
    OUTCOME,
    OUTPUTS,
)
from poisonwatch.profile.odds import LOG_CAP, LOG_ZERO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.profile.indicators import Questions, Signal
    from poisonwatch.types import Floats, Ints

SUPPORT_SPREAD = 9.0
"""Terms of the normaliser further than this many standard deviations from the mode are left out."""

MOST_INDICATORS = 100
"""Indicators of a group beyond these are thinned out evenly: each costs normalisers in every block."""

CLASS = "class"
"""The signal whose indicators exclude each other: of every prediction at most one is answered yes."""


class Confinement(NamedTuple):
    """Does one class explain what differs between the versions?

    `top` is the position of the class that moved most, among the classes; `effect` its movement in log-odds. `rest` is a lower
    bound of the largest movement among the others once the top class is set aside, in log-odds: 0 where they agree.
    """

    top: int
    effect: float
    rest: float


@dataclass(slots=True)
class Pair:
    """A canary beside the stable version: the block that is being filled, and what the blocks so far have shown.

    `canary` and `stable` (size,) are the profiles of the block between `start` and `end`. `beyond` (d,) is log M at the
    further floors; `score` (k,) and `variance` (k, k) compare the classes, all blocks together.
    """

    start: float
    end: float
    canary: Ints
    stable: Ints
    memory: Memory
    beyond: Floats
    score: Floats
    variance: Floats

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "start": self.start,
            "end": self.end,
            "canary": self.canary.copy(),
            "stable": self.stable.copy(),
            "memory": self.memory.state(),
            "beyond": self.beyond.copy(),
            "score": self.score.copy(),
            "variance": self.variance.copy(),
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Pair:
        """The pair of a saved state."""
        return cls(**{**state, "memory": Memory(**state["memory"])})


class Canary:
    """Compares two versions over their concurrent traffic. Configuration only; what it learns is in a `Pair`.

    `watched` says which signals are compared and in which of the canary's groups they are told (`concurrent` has the usual
    ones). `floors` has for each group the log-odds that an honest retraining may make, ascending: evidence is against the
    first, the others serve the lower bound. `shares` are the groups' shares of the budget. Windows are pooled into a block until both versions have `smallest_arm` predictions, or the block covers
    `longest` seconds: the result is exact at any size, but small blocks cost more time and long ones mix traffic.
    """

    def __init__(
        self,
        baseline: Baseline,
        watched: Mapping[Signal, str],
        floors: Mapping[str, tuple[float, ...]],
        shares: dict[str, float],
        smallest_arm: int,
        longest: float,
    ) -> None:
        questions = baseline.questions
        self.indicators, names = _choose(questions, watched)
        chosen = [questions.indicators[of].signal.name for of in self.indicators]
        signals = tuple(dict.fromkeys(zip(chosen, names, strict=True)))
        place = {signal: number for number, signal in enumerate(signals)}
        signal_of = np.array([place[signal] for signal in zip(chosen, names, strict=True)], np.int64)
        self.bets = lay_bets(signal_of, questions.sides[self.indicators], signals, shares)
        self.floor = np.array([floors[name][0] for name in names])
        self._size = questions.size
        self._smallest_arm = smallest_arm
        self._longest = longest
        self._asked = questions.asked[self.indicators]
        self._yes = questions.yes[self.indicators]
        self._temper = baseline.design_effect[self.indicators]
        self._classes = np.array([n for n, name in enumerate(chosen) if name == CLASS], np.int64)
        self._lay_points({name: floors[name] for name in dict.fromkeys(names)})

    def _lay_points(self, floors: Mapping[str, tuple[float, ...]]) -> None:
        """Every component at every floor of its group, and the points (indicator, log-odds) whose normalisers they need."""
        own = [floors[self.bets.groups[group]] for group in self.bets.group.tolist()]
        further = [(component, floor) for component, all_ in enumerate(own) for floor in all_[1:]]
        self._base = np.array([component for component, _ in further], np.int64)
        self._further = np.array([floor for _, floor in further], np.float64)
        component = np.concatenate((np.arange(len(own)), self._base))
        null = np.concatenate((np.array([all_[0] for all_ in own], np.float64), self._further))
        sign, theta = self.bets.sign[component], self.bets.theta[component]
        ends = np.concatenate((sign * null, sign * (null + theta)))
        of = np.tile(self.bets.indicator[component], 2)
        points, places = np.unique(np.stack((of, np.round(ends, 12))), axis=1, return_inverse=True)
        self._point_of, self._point = points[0].astype(np.int64), points[1]
        self._null_at, self._alternative_at = places.reshape(2, -1)
        self._of = self.bets.indicator[component]
        self._step = sign * theta

    def begin(self) -> Pair:
        """Nothing seen yet."""
        k = self._classes.size
        return Pair(
            start=math.nan,
            end=math.nan,
            canary=np.zeros(self._size, np.int64),
            stable=np.zeros(self._size, np.int64),
            memory=Memory.fresh(self.bets, self.indicators.size, arms=2),
            beyond=np.full(self._base.size, LOG_ZERO),
            score=np.zeros(k),
            variance=np.zeros((k, k)),
        )

    def add(self, pair: Pair, canary: Ints, stable: Ints, start: float, end: float, spent: float, rate: float) -> float:
        """Take a window with both versions' profiles into account; until when the budget is spent now.

        `spent` is until when it was spent before, `rate` the budget that a second earns: a version that is compared with
        one stable version after the other spends its budget once. What a block holds from hours ago is judged alone, not
        mixed with other hours' traffic: the share of the canary and the traffic may both have changed since.
        """
        if pair.canary[0] + pair.stable[0] and end - pair.start > self._longest:
            spent = self._judge(pair, spent, rate)
        if not pair.canary[0] + pair.stable[0]:
            pair.start = start
        pair.end = end
        pair.canary = pair.canary + canary
        pair.stable = pair.stable + stable
        if min(pair.canary[0], pair.stable[0]) >= self._smallest_arm or end - pair.start >= self._longest:
            spent = self._judge(pair, spent, rate)
        return spent

    def _judge(self, pair: Pair, spent: float, rate: float) -> float:
        """Close the block."""
        # Labels may tell an earlier time than the traffic from which on the budget is earned.
        self.step(pair, pair.canary, pair.stable, max(pair.end - spent, 0.0) * rate, pair.start)
        pair.canary, pair.stable = np.zeros(self._size, np.int64), np.zeros(self._size, np.int64)
        return max(pair.end, spent)

    def step(self, pair: Pair, canary: Ints, stable: Ints, share_of_time: float, start: float) -> None:
        """Take one block into account: the two versions' profiles over the same interval."""
        asked = np.stack([canary[self._asked], stable[self._asked]])
        yes = np.stack([canary[self._yes], stable[self._yes]])
        norm = _Tables(asked[0], asked[1], yes.sum(axis=0)).log_norm(self._point_of, self._point)
        log_l = self._step * yes[0, self._of] - (norm[self._alternative_at] - norm[self._null_at])
        log_l /= self._temper[self._of]
        components = self.bets.indicator.size
        # Shown is what the stable version would have answered, had it had the canary's traffic block by block: pooled rates
        # would mistake a changing share of the traffic, while the inputs change too, for a difference (Simpson 1951).
        answered = np.stack([asked[0], asked[0]]).astype(np.float64)
        as_stable = asked[0] * yes[1] / np.maximum(asked[1], 1)
        both = np.stack([yes[0], as_stable])
        advance(pair.memory, self.bets, log_l[:components], share_of_time, answered, both, start)
        with np.errstate(divide="ignore"):
            earned = np.log(self.bets.weight * share_of_time)[self._base]
        pair.beyond = np.clip(np.logaddexp(pair.beyond, earned) + log_l[components:], LOG_ZERO, LOG_CAP)
        self._compare_classes(pair, asked[:, self._classes], yes[:, self._classes])

    def _compare_classes(self, pair: Pair, asked: Ints, yes: Ints) -> None:
        """Sums of the conditional score and its variance: the generalised Cochran-Mantel-Haenszel test (Landis 1978)."""
        n = asked.sum(axis=0)
        if not n.size or n[0] < 2:
            return
        share = yes.sum(axis=0) / n
        pair.score = pair.score + yes[0] - asked[0] * share
        scale = float(asked[0, 0] * asked[1, 0] / (n[0] - 1))
        pair.variance = pair.variance + scale * (np.diag(share) - np.outer(share, share))

    def lower_bounds(self, pair: Pair) -> dict[str, float]:
        """By group, the effect in log-odds that the evidence exceeds: 0 below the first floor, else the largest floor passed.

        At any time, whatever made us look, some indicator of the group differed by more than this, but for the chance that the
        budget allows.
        """
        groups = len(self.bets.groups)
        passed = np.where(log_sum(pair.memory.log_m, self.bets.group, groups) >= 0, self._first_floors(), 0.0)
        for floor in np.unique(self._further):
            here = self._base[self._further == floor]
            log_e = log_sum(pair.beyond[self._further == floor], self.bets.group[here], groups)
            passed = np.where(log_e >= 0, np.maximum(passed, floor), passed)
        return dict(zip(self.bets.groups, passed.tolist(), strict=True))

    def _first_floors(self) -> Floats:
        _, first = np.unique(self.bets.group, return_index=True)
        return np.asarray(self.floor[self.bets.indicator[first]])


def concurrent(questions: Questions) -> dict[Signal, str]:
    """What is compared between two versions on the same traffic, by group of the canary.

    Classes, confidence, flips and errors say what a version does. The inputs cannot differ unless the routing depends on
    them, and then no other difference proves anything.
    """
    outputs = {"class": CANARY_CLASS, OUTCOME: CANARY_CLASS, CONFIDENCE: CANARY_CONFIDENCE}
    groups = {CONFIDENCE_FALL: CANARY_CONFIDENCE, FLIPS: CANARY_FLIPS, ERRORS: CANARY_ERRORS, INPUTS: CANARY_INPUTS}
    told = {s: outputs.get(s.name) if s.group == OUTPUTS else groups.get(s.group) for s in questions.signals}
    return {signal: group for signal, group in told.items() if group is not None}


def confinement(pair: Pair) -> Confinement | None:
    """Is what differs between the versions the doing of one class? None where no class varied.

    Of two classes one always explains the other. An honest retraining moves the others too, so `rest` is to be held against
    the floor, not against 0.

    When one class alone becomes more or less likely, the other classes' shares of the remainder stay as they were. Then
    the score of the others, less its regression on the top class's, has mean zero. What is left over variance is an
    estimate of their log odds ratios (one step from zero: Peto, Yusuf 1985), less a bound of its error for all
    of them together.
    """
    own = np.diagonal(pair.variance)
    seen = np.flatnonzero(own > 0)
    if not seen.size:
        return None
    top = int(seen[np.argmax(np.abs(pair.score[seen]) / np.sqrt(own[seen]))])
    others = seen[seen != top]
    slope = pair.variance[others, top] / own[top]
    left = pair.score[others] - slope * pair.score[top]
    variance = own[others] - slope * pair.variance[others, top]
    known = variance > 1e-9 * own[others]
    left, variance = left[known], variance[known]
    # Sub-Gaussian tail over all the others, two-sided: one in a thousand.
    error = math.sqrt(2 * math.log(2000 * max(left.size, 1))) / np.sqrt(variance)
    rest = float(np.max(np.abs(left) / variance - error, initial=0.0))
    return Confinement(top, float(pair.score[top] / own[top]), rest)


def _choose(questions: Questions, watched: Mapping[Signal, str]) -> tuple[Ints, list[str]]:
    """The indicators that are compared, those of a group and signal side by side, and the group of each."""
    by_group: dict[str, dict[str, list[int]]] = {}
    for number, indicator in enumerate(questions.indicators):
        signal = indicator.signal
        if signal in watched:
            by_group.setdefault(watched[signal], {}).setdefault(signal.name, []).append(number)
    chosen: list[int] = []
    names: list[str] = []
    for group, signals in sorted(by_group.items()):
        all_ = list(signals.values())
        kept = [all_[place] for place in _evenly(len(all_), MOST_INDICATORS)]
        each = MOST_INDICATORS // len(kept)
        of_group = [numbers[place] for numbers in kept for place in _evenly(len(numbers), each)]
        chosen += of_group
        names += [group] * len(of_group)
    return np.array(chosen, np.int64), names


def _evenly(count: int, most: int) -> list[int]:
    """At most so many places out of `count`, evenly spread."""
    return [(2 * place + 1) * count // (2 * most) for place in range(most)] if count > most else list(range(count))


class _Tables:
    """Two-by-two tables with fixed margins, one per indicator: the normalisers of their conditional distributions."""

    def __init__(self, canary: Ints, stable: Ints, yes: Ints) -> None:
        self._canary, self._stable, self._yes = canary, stable, yes
        self._low = np.maximum(0, yes - stable)
        self._high = np.minimum(canary, yes)
        counts = np.arange(1, int((canary + stable).max(initial=0)) + 2)
        self._log_factorial = np.concatenate(([0.0], np.cumsum(np.log(counts))))

    def log_norm(self, of: Ints, log_odds: Floats) -> Floats:
        """Logarithm of sum over x of C(canary, x) C(stable, yes - x) exp(x * log_odds), per point (p,); `of` ascends."""
        if not of.size:
            return np.empty(0)
        low, high = self._low[of], self._high[of]
        mode = self._mode(of, log_odds)
        spread = SUPPORT_SPREAD * np.sqrt(1.0 + (high - low)) / 2 + 8
        first = np.maximum(low, np.floor(mode - spread)).astype(np.int64)
        last = np.minimum(high, np.ceil(mode + spread)).astype(np.int64)
        # The points of an indicator overlap: its weights are computed once, from the first term to the last.
        begins = np.flatnonzero(np.diff(of, prepend=-1))
        reach = np.add.reduceat(np.ones_like(of), begins)
        least, most = np.minimum.reduceat(first, begins), np.maximum.reduceat(last, begins)
        indicator, x, starts = _ragged(least, most)
        weight = self._log_weight(of[begins][indicator], x)
        shift = np.repeat(starts - least, reach)
        point, x, starts = _ragged(first, last)
        terms = weight[x + shift[point]] + x * log_odds[point]
        top = np.maximum.reduceat(terms, starts)
        return np.asarray(top + np.log(np.add.reduceat(np.exp(terms - top[point]), starts)))

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


def _ragged(first: Ints, last: Ints) -> tuple[Ints, Ints, Ints]:
    """The whole numbers of every interval end to end: whose, which, and where each interval starts."""
    length = last - first + 1
    starts = np.cumsum(length) - length
    whose = np.repeat(np.arange(first.size), length)
    return whose, np.arange(whose.size) - starts[whose] + first[whose], starts
