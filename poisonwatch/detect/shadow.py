"""Do two versions that answered the same predictions differ more, and more to one side, than retraining explains?

Both versions answered every pair, so nothing but the versions differs. Of each question (class c, or a mark such as
flipped or wrong) three counts matter: yes by the candidate only, by the stable version only, by both. The null says that
the candidate answers yes at most `ratio` times as often, given the past of the stream: E[C - ratio * S] <= 0 for the two answers C
and S. A bet of a fraction on that difference,

    L = 1 + stake * (C - ratio * S),    0 < stake < 1 / ratio

has conditional mean at most 1 under every such law, however the two answers depend on each other and on the past
(testing by betting: Waudby-Smith, Ramdas, JRSS B 2024; the exchangeable null of McNemar's test is the special case of ratio 1).
Its logarithm adds up over the three counts. The share of pairs with different answers is held against a bound in the
usual way, by the likelihood ratio of rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.detect.kernel import Memory, advance, lay_bets
from poisonwatch.profile.indicators import SHADOW
from poisonwatch.profile.odds import expit, logit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.types import Bools, Codes, Ints

RISE, FALL = 1.3, 2.2
"""How many times as often, or as seldom, an honest retraining may give a class.

Measured over 12 splits of four data sets and 9 retrainings of each (other seed, bootstrap, half the data, newer data, other
regularisation, other family): up to 1.15 times as often; as seldom as 1 / 1.55, with stronger regularisation 1 / 2.05 for a
class of 3 %. 20 % flipped labels: 1.65 to 3.6 times as often where the family is not robust against them.
"""

DISAGREEMENT = 0.15
"""Share of pairs in which an honest retraining may answer otherwise.

Same measurement: at most .125 within a family (seven classes, half the data), .24 with a family that also errs twice as often.
Per class no bound separates: a class of 3 % honestly changes in 61 % of its pairs, attacks change 39 to 78 %.
"""


class Shadow:
    """Compares the answers of two versions to the same predictions. Configuration only; what it learns is in `Memory`.

    `classes` are the values of the predicted class, in the order of their codes from 1 on. `marks` maps the names of the
    marks, in the order of their rows, to the ratio that an honest retraining may make; only a rise of a mark counts.
    `share` is the budget's share. `texts`, `rate` and `floor` (j,) are what evidence is told with.
    """

    def __init__(self, classes: tuple[str, ...], marks: Mapping[str, float], share: float) -> None:
        k, m = len(classes), len(marks)
        named = tuple(f"prediction = {value}" for value in classes)
        self.texts = (*named, *named, *marks, "another class than the stable version's")
        self.ratio = np.array([*[RISE] * k, *[FALL] * k, *marks.values(), 1.0])
        self.floor = np.log(self.ratio)
        # No rate is known beforehand that would make one subject rarer than another.
        self.rate = np.full(self.ratio.size, 0.5)
        self._of_count = np.concatenate((np.arange(k), np.arange(k), np.arange(k, k + m)))
        sides = np.zeros((2 * k + m + 1, 2), np.bool_)
        sides[:, 0] = True
        sides[k : 2 * k] = (False, True)
        signals = tuple((name, SHADOW) for name in ("class", *marks, "disagreement"))
        signal_of = np.array([*[0] * (2 * k), *range(1, m + 2)], np.int64)
        self.bets = lay_bets(signal_of, sides, signals, {SHADOW: share})
        self._classes = np.arange(1, k + 1)
        self._lay_gains()

    def _lay_gains(self) -> None:
        """What each of the counts (candidate only, stable only, both, neither) is worth to each component: (c, 4)."""
        of, sign, theta = self.bets.indicator, self.bets.sign, self.bets.theta
        ratio = self.ratio[of]
        # A yes of the wrong side alone multiplies by exp(-theta).
        stake = -np.expm1(-theta) / ratio
        right, wrong, both = np.log1p(stake), -theta, np.log1p(-stake * (ratio - 1))
        gains = np.stack([np.where(sign > 0, right, wrong), np.where(sign > 0, wrong, right), both], axis=1)
        self._gains = np.hstack([gains, np.zeros((of.size, 1))])
        last = of == self.ratio.size - 1
        bound = float(logit(np.array([DISAGREEMENT]))[0])
        alternative = expit(bound + theta[last])
        self._gains[last, 0] = np.log(alternative / DISAGREEMENT)
        self._gains[last, 1:] = np.log((1 - alternative) / (1 - DISAGREEMENT))[:, None]

    def begin(self) -> Memory:
        """Nothing seen yet."""
        return Memory.fresh(self.bets, self.ratio.size, arms=2)

    def count(self, stable: Codes, candidate: Codes, stable_marks: Bools, candidate_marks: Bools) -> Ints:
        """Answers of both versions to the same n predictions, codes (n,) and marks (m, n), to one vector.

        It holds the number of pairs, of those with different classes, and by question the three counts: it adds up over pieces.
        """
        said = np.vstack([self._classes[:, None] == candidate, candidate_marks])
        before = np.vstack([self._classes[:, None] == stable, stable_marks])
        three = [(said & ~before).sum(axis=1), (before & ~said).sum(axis=1), (said & before).sum(axis=1)]
        first = np.array([stable.size, np.count_nonzero(stable != candidate)])
        return np.concatenate((first, *three)).astype(np.int64)

    def step(self, memory: Memory, counts: Ints, share_of_time: float, start: float) -> None:
        """Take the pairs of one window that began at `start` into account."""
        pairs, different = int(counts[0]), int(counts[1])
        three = counts[2:].reshape(3, -1)[:, self._of_count]
        table = np.vstack([three, pairs - three.sum(axis=0)])
        table = np.hstack([table, np.array([[different], [0], [0], [pairs - different]])])
        log_l = (self._gains * table.T[self.bets.indicator]).sum(axis=1)
        yes = np.stack([table[0] + table[2], table[1] + table[2]]).astype(np.float64)
        # The stable version never disagrees with itself; what is expected there is the bound.
        yes[1, -1] = pairs * DISAGREEMENT
        advance(memory, self.bets, log_l, share_of_time, np.full_like(yes, pairs), yes, start)
