"""Who says that the model errs? Would the errors still be there without the few sources that claim the most?

A model that got worse is contradicted by all sources alike; a campaign is carried by a few. It raises the error rate before
the labels of any one of them suffice to accuse him, so no page may rest on errors that few sources claim. Up to
`COLLUDING` of the sources are taken to lie, whichever these are: those that contradict the model most often are left out.
That costs some labels of delay where sources are many and labels few, and nothing where they are not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Codes, Floats, Texts

HELD = 8192
"""Labels that are remembered, the newest."""

COLLUDING = 0.05
"""Share of the sources that may act together."""

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
        at = (self._added + np.arange(number)) % HELD
        self._added += number
        self._time[at], self._version[at], self._facts[:, at] = time[kept], version[kept], facts[:, kept]
        self._wrong[at], self._source[at] = wrong[kept], source[kept]

    def without_most_claiming(
        self, version: int, since: float, row: int, code: int, *, flipped: bool
    ) -> tuple[int, int]:
        """Labels of a version since a time, and how many of them were wrong, without the sources that claim the most.

        With `flipped` only those are wrong whose last fact says so, too. Only predictions with this code in this row of facts are looked at; of all of them where `row` is negative. Labels without
        a source are nobody's claim and are never left out.
        """
        held = min(self._added, HELD)
        chosen = (self._version[:held] == version) & (self._time[:held] >= since)
        if row >= 0:
            chosen &= self._facts[row, :held] == code
        claims = self._wrong[:held] & (self._facts[-1, :held] > 0) if flipped else self._wrong[:held]
        labels, wrong = int(chosen.sum()), int(claims[chosen].sum())
        named = chosen & (self._source[:held] != "")
        everybody = len(set(self._source[:held].tolist()) - {""})
        if not named.any():
            return labels, wrong
        _, source = np.unique(self._source[:held][named].astype(str), return_inverse=True)
        of_source, said = np.bincount(source), np.bincount(source, claims[named])
        out = np.lexsort((of_source, -said))[: math.ceil(COLLUDING * everybody)]
        return labels - int(of_source[out].sum()), wrong - int(said[out].sum())

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
