"""Who may be accused, in bounded tables: parties (sources, shared attributes, groups) and their rows, one per cell.

When the tables are nearly full, parties leave in this order: those without standing, the least evidence first; then those
with standing, the longest unseen first; suspects last of all. So nobody can force evidence against himself out without
filling the table with names that have more evidence against them, and nobody can force honest old sources out with new
ones. A party's rows go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.detect.contemporaries import SETS, SPANS

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Floats, Ints

SOURCE, ATTRIBUTE, COHORT, GROUP = range(4)

ROWS_PER_PARTY = 5
"""Rows that the table has for each party that it has room for."""

LONGEST_NAME = 200
"""Characters of a name that tell sources apart; what goes beyond is hostile."""

PARTY: dict[str, Any] = {
    "serial": np.int64,
    "first": np.float64,
    "last": np.float64,
    "labels": np.int64,
    "wrong": np.int64,
}
PARTY |= {"m": np.float64, "founder": np.bool_, "suspected": np.bool_, "accused": np.bool_, "group": np.int64}
ROW: dict[str, Any] = {"party": np.int64, "cell": np.int64, "cusum": np.float64, "since": np.float64}
ROW |= {"n": np.int64, "d": np.int64, "expected": np.float64}


class Parties:
    """The tables: `party[name]` (capacity,) and `row[name]` (rows,) by slot, grown as needed. Row 0 belongs to nobody.

    `evidence` (rows, bets) holds the e-detectors themselves, `own` and `stamp` what the row's labels contributed to the
    running rates.
    """

    def __init__(self, capacity: int, cells: int, bets: int) -> None:
        self.capacity = capacity
        self.cells = cells
        self.names: list[tuple[int, str]] = []
        self.party = {name: np.zeros(0, kind) for name, kind in PARTY.items()}
        self.row = {name: np.zeros(1, kind) for name, kind in ROW.items()}
        self.row["party"][0] = -1
        self.evidence = np.zeros((1, bets))
        self.own = np.zeros((1, SETS, SPANS.size, 2))
        self.stamp = np.zeros((1, SETS))
        self.admitted = 0
        self._slot: dict[tuple[int, str], int] = {}
        self._row: dict[int, int] = {}
        self._rows = 1

    def __len__(self) -> int:
        return len(self.names)

    def find(self, kind: int, name: str) -> int | None:
        """The slot of a party that is known."""
        return self._slot.get((kind, name[:LONGEST_NAME]))

    def admit(self, kind: int, name: str, time: float, founder: bool) -> int:  # noqa: FBT001 - a fact, not an option
        """The slot of a party, new or known."""
        key = (kind, name[:LONGEST_NAME])
        slot = self._slot.get(key)
        if slot is None:
            slot = self._slot[key] = len(self.names)
            self.names.append(key)
            if slot >= self.party["m"].size:
                self.party = {name: _grown(column) for name, column in self.party.items()}
            for column in self.party.values():
                column[slot] = 0
            self.admitted += 1
            self.party["serial"][slot] = self.admitted
            self.party["first"][slot] = time
            self.party["founder"][slot] = founder
        self.party["last"][slot] = time
        return slot

    def row_of(self, slot: int, cell: int) -> int:
        """The row of a party's cell, new or known."""
        key = slot * self.cells + cell
        row = self._row.get(key)
        if row is None:
            row = self._row[key] = self._rows
            self._rows += 1
            if row >= self.evidence.shape[0]:
                self.row = {name: _grown(column) for name, column in self.row.items()}
                self.evidence, self.own, self.stamp = (_grown(t) for t in (self.evidence, self.own, self.stamp))
            for column in (*self.row.values(), self.evidence, self.own, self.stamp):
                column[row] = 0
            self.row["party"][row], self.row["cell"][row] = slot, cell
        return row

    def rows_of(self, slot: int) -> Ints:
        """All rows of a party."""
        return np.flatnonzero(self.row["party"][: self._rows] == slot)

    def crowded(self) -> bool:
        """Is there no longer room for a block of new parties?"""
        return len(self) > self.capacity * 7 // 8 or self._rows > self.capacity * (ROWS_PER_PARTY - 1)

    def evict(self, standing: Bools) -> None:
        """Make room: `standing` (parties,) says who is known for long enough."""
        size = len(self)
        facts = {name: column[:size] for name, column in self.party.items()}
        suspect = facts["suspected"] | facts["accused"]
        # The last key rules: suspects over standing, standing over none; within those the evidence, then the time.
        order = np.lexsort(
            (facts["serial"], facts["last"], np.where(standing & ~suspect, 0.0, facts["m"]), standing, suspect)
        )
        rows = np.bincount(self.row["party"][1 : self._rows], minlength=size)[order]
        spare_parties = size - np.arange(1, size + 1) <= self.capacity * 3 // 4
        spare_rows = self._rows - np.cumsum(rows) <= self.capacity * (ROWS_PER_PARTY - 2)
        self._keep(np.sort(order[int(np.argmax(spare_parties & spare_rows)) + 1 :]))

    def _keep(self, slots: Ints) -> None:
        moved = np.full(len(self) + 1, -1, np.int64)
        moved[slots] = np.arange(slots.size)
        self.names = [self.names[slot] for slot in slots]
        for column in self.party.values():
            column[: slots.size] = column[slots]
        party = moved[self.row["party"][: self._rows]]
        rows = np.r_[0, np.flatnonzero(party >= 0)]
        self.row["party"][: self._rows] = party
        for table in (*self.row.values(), self.evidence, self.own, self.stamp):
            table[: rows.size] = table[rows]
        self._rows = rows.size
        self._index()

    def _index(self) -> None:
        self._slot = {key: slot for slot, key in enumerate(self.names)}
        keys = self.row["party"][1 : self._rows] * self.cells + self.row["cell"][1 : self._rows]
        self._row = {key: row for row, key in enumerate(keys.tolist(), 1)}

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "admitted": self.admitted,
            "kinds": [kind for kind, _ in self.names],
            "names": [name for _, name in self.names],
            "party": {name: column[: len(self)].copy() for name, column in self.party.items()},
            "row": {name: column[: self._rows].copy() for name, column in self.row.items()},
            "evidence": self.evidence[: self._rows].copy(),
            "own": self.own[: self._rows].copy(),
            "stamp": self.stamp[: self._rows].copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.admitted = int(state["admitted"])
        self.names = list(zip(state["kinds"], state["names"], strict=True))
        self.party = {name: state["party"][name].copy() for name in PARTY}
        self.row = {name: state["row"][name].copy() for name in ROW}
        self.evidence, self.own, self.stamp = (state[name].copy() for name in ("evidence", "own", "stamp"))
        self._rows = self.evidence.shape[0]
        self._index()


def _grown(table: Floats) -> Floats:
    return np.concatenate([table, np.zeros((max(table.shape[0], 64), *table.shape[1:]), table.dtype)])
