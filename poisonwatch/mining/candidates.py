"""A conjunction under test, and how its bearers are found. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.mining.promotion import LONGEST

if TYPE_CHECKING:
    from poisonwatch.mining.items import Condition, Items
    from poisonwatch.types import Floats, Ints

STAKES = np.array([0.285, 0.57, 0.855])
"""Rates that are bet on: so far of the way from the null to one."""


FEWEST_FLIPS = 2
LEAST_FLIPPED = 0.15
"""A pattern is told when so many of its records flip at least: a rare value is always surprising, and does no harm."""

BY_CHANCE = 1e-4
HORIZON = 10_000.0
"""A pattern is told when it comes more often than the reference allows, but for this probability, in about so many records.

Who attacks brings a trigger along. Of what honest predictions are made of some is flipped nearly always: a rare value that the
model learned by heart and the surrogate did not see. It comes as often as ever.
"""


class Plan(NamedTuple):
    """How to find the bearers of the candidates of one version and class.

    `rows` (m,) of the candidates; `columns` (k,) to be made; the j distinct conditions as places in the columns, codes and
    numbers (NaN for none); `parts` (m, 3) of each candidate, j for none.
    """

    rows: Ints
    columns: Ints
    place: Ints
    code: Ints
    value: Floats
    parts: Ints


@dataclass(slots=True, eq=False)
class Candidate:
    """A conjunction under test.

    `bound` (2,) is its own in the reference, and `usual` the share of records that bear it there; `lately` are its occurrences and
    all records of the version, of about the last `HORIZON`; `mass` (2, stakes) the e-processes; of `matched` occurrences `hits` (2,) were
    surprising and flipped; `sources` counts occurrences of the day by slot.
    """

    version: int
    label: int
    conditions: tuple[Condition, ...]
    bound: Floats
    usual: float
    mass: Floats
    hits: Ints
    lately: Floats
    matched: int = 0
    sources: dict[int, int] = field(default_factory=dict)

    @property
    def evidence(self) -> float:
        """Evidence that its records are odd too often, 1 being where it may be told."""
        return float(self.mass.mean())

    @property
    def worth(self) -> float:
        """Its evidence while it comes more often than in the reference."""
        return self.evidence if self.lately[0] > self.usual * self.lately[1] else 0.0

    @property
    def ripe(self) -> bool:
        """Whether it is to be told: evident, flipped often enough to matter, and met more often than in the reference."""
        from scipy.special import pdtrc  # noqa: PLC0415 - only who has something to judge pays for SciPy

        came, met = self.lately.tolist()
        flips = int(self.hits[1])
        return (
            self.evidence >= 1
            and flips >= FEWEST_FLIPS
            and flips >= LEAST_FLIPPED * self.matched
            and bool(pdtrc(came - 1, met * self.usual) < BY_CHANCE)
        )

    @property
    def mark(self) -> int:
        """What speaks against it: 0 that its records are surprising, 1 that they flip."""
        return int(self.mass.mean(axis=1).argmax())

    @property
    def purity(self) -> float:
        """Share of its records that are odd."""
        return (float(self.hits[self.mark]) + 0.5) / (self.matched + 1.0)

    def kind(self, items: Items) -> int:
        """Kind of its items."""
        return int(items.kinds[self.conditions[0].column])


def planned(rows: list[int], conjunctions: list[tuple[Condition, ...]]) -> Plan:
    """How to find the bearers of conjunctions; `rows` are their candidates'."""
    distinct = list(dict.fromkeys(condition for conditions in conjunctions for condition in conditions))
    number = {condition: place for place, condition in enumerate(distinct)}
    columns = np.unique([condition.column for condition in distinct])
    parts = np.full((len(rows), LONGEST), len(distinct))
    for row, conditions in enumerate(conjunctions):
        parts[row, : len(conditions)] = [number[condition] for condition in conditions]
    return Plan(
        np.array(rows),
        columns,
        np.searchsorted(columns, [condition.column for condition in distinct]),
        np.array([condition.code for condition in distinct]),
        np.array([np.nan if condition.value is None else condition.value for condition in distinct]),
        parts,
    )
