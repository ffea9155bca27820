"""Who says that the model errs? Would the errors still be there without the few sources that claim the most?

A model that got worse is contradicted by all sources alike; a campaign is carried by a few. It raises the error rate before
the labels of any one of them suffice to accuse him, so no page may rest on errors that few sources claim. Up to
`COLLUDING` of the sources are taken to lie, whichever these are: those are left out without whom the error rate is lowest.
So what is left never errs more than the honest labels alone, whatever the others say: leaving out the liars is one of the
choices. That costs some labels of delay where sources are many and labels few, and nothing where they are not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Codes, Floats, Ints, Texts

HELD = 8192
"""Labels that are remembered, the newest."""

COLLUDING = 0.05
"""Share of the sources that may act together."""

FEWEST_SOURCES = 4
"""Of fewer sources none is left out: it would be too much of what is known."""

Z = 2.0


def lowest_rate(yes: int, asked: int) -> float:
    """Lower bound of a rate at two standard errors (Wilson 1927)."""
    if not asked:
        return 0.0
    rate, z2 = yes / asked, Z * Z
    spread = Z * math.sqrt(rate * (1 - rate) / asked + z2 / (4 * asked * asked))
    return max(0.0, (rate + z2 / (2 * asked) - spread) / (1 + z2 / asked))


class Claims:
    """The newest labels that counted: their sources, and what was predicted.

    `facts` is the number of facts of each: codes, and last whether it was flipped.
    """

    def __init__(self, facts: int) -> None:
        self._added = 0
        self._time = np.zeros(HELD)
        self._version = np.zeros(HELD, np.int32)
        self._facts = np.zeros((facts, HELD), np.int32)
        self._wrong = np.zeros(HELD, np.bool_)
        self._source = np.full(HELD, "", np.object_)

    def note(self, time: Floats, version: Codes, facts: Codes, wrong: Bools, source: Texts) -> None:
        """Remember labels in their order: all (m,), facts (f, m); a source may be empty."""
        kept = slice(-HELD, None)
        number = wrong[kept].size
        self._added += wrong.size
        at = np.arange(self._added - number, self._added) % HELD
        self._time[at], self._version[at], self._facts[:, at] = time[kept], version[kept], facts[:, kept]
        self._wrong[at], self._source[at] = wrong[kept], source[kept]

    def without_most_claiming(
        self, version: int, since: float, row: int, code: int, *, flipped: bool
    ) -> tuple[int, int]:
        """Labels of a version since a time, and how many of them were wrong, without the sources that claim the most.

        With `flipped` only those are wrong whose last fact says so, too. Only predictions with this code in this row of facts
        are looked at; all of them where `row` is negative. Labels without a source are one source where most labels have one;
        else they are nobody's claim and are never left out.
        """
        held = min(self._added, HELD)
        chosen = (self._version[:held] == version) & (self._time[:held] >= since)
        if row >= 0:
            chosen &= self._facts[row, :held] == code
        claims = self._wrong[:held] & (self._facts[-1, :held] > 0) if flipped else self._wrong[:held]
        number = {"": 0}
        source = np.array([number.setdefault(name, len(number)) for name in self._source[:held].tolist()], np.int64)
        labels, wrong = (np.bincount(source[which], minlength=len(number)) for which in (chosen, chosen & claims))
        everybody = len(number) - 1
        liars = math.ceil(COLLUDING * everybody) if everybody >= FEWEST_SOURCES else 0
        if liars and 2 * labels[0] < labels.sum():
            # Where most labels name their source, those that do not are one that does not want to be known.
            out = _most_claiming(labels, wrong, liars, 0, 0)
        else:
            out = 1 + _most_claiming(labels[1:], wrong[1:], liars, int(labels[0]), int(wrong[0]))
        return int(labels.sum() - labels[out].sum()), int(wrong.sum() - wrong[out].sum())

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        held = min(self._added, HELD)
        return {
            "added": self._added,
            "time": self._time[:held].copy(),
            "version": self._version[:held].copy(),
            "facts": self._facts[:, :held].copy(),
            "wrong": self._wrong[:held].copy(),
            "source": self._source[:held].tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._added = state["added"]
        held = min(self._added, HELD)
        self._time[:held], self._version[:held] = state["time"], state["version"]
        self._facts[:, :held], self._wrong[:held] = state["facts"], state["wrong"]
        self._source[:held] = state["source"]


def _most_claiming(labels: Ints, wrong: Ints, number: int, more: int, more_wrong: int) -> Ints:
    """Which `number` sources, of all with labels (s,) and wrong ones (s,), leave the lowest rate when they are left out.

    `more` labels and `more_wrong` are nobody's. Dinkelbach 1967: leave out who errs most beyond the lowest rate found so
    far, until that rate falls no further; an exact minimum, after a few steps.
    """
    given = np.flatnonzero(labels)
    lowest = 1.0
    best = np.zeros(0, np.int64)
    while True:
        out = given[np.lexsort((labels[given], lowest * labels[given] - wrong[given]))[:number]]
        left = more + int(labels.sum() - labels[out].sum())
        rate = (more_wrong + int(wrong.sum() - wrong[out].sum())) / left if left else 0.0
        if best.size and rate >= lowest:
            return best
        best, lowest = out, rate
        if not (out.size and left):
            return best
