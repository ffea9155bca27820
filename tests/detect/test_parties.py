"""Parties: when the tables are full, those leave first whom nobody needs, and their rows with them."""

from __future__ import annotations

import numpy as np
import pytest

from poisonwatch.detect.parties import LONGEST_NAME, ROWS_PER_PARTY, SOURCE, Parties
from tests.detect.votes import same

CELLS = 6


def crowd(seed: int, capacity: int, of_each: int) -> tuple[Parties, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """As many parties and rows as make the tables crowded, with facts drawn at random; who has standing."""
    rng = np.random.default_rng(seed)
    parties = Parties(capacity, CELLS, 4)
    while not parties.crowded():
        slot = parties.admit(SOURCE, f"s{len(parties)}", float(rng.integers(20)), founder=False)
        for cell in rng.permutation(CELLS)[:of_each].tolist():
            row = parties.row_of(slot, cell)
            parties.evidence[row] = slot
            parties.own[row] = cell
        parties.party["m"][slot] = rng.integers(20) / 10
        parties.party["suspected"][slot] = rng.random() < (0.2, 0.75)[seed % 2]
        parties.party["accused"][slot] = rng.random() < 0.1
    return parties, rng.random(len(parties)) < (0.5, 0.9)[seed % 2]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("of_each", [1, 6])
def test_parties_leave_in_the_order_of_the_book(seed: int, of_each: int) -> None:
    """First without standing, by evidence; then the longest unseen; suspects last, in the same order; only as many as must."""
    parties, standing = crowd(seed, 60, of_each)
    size = len(parties)
    facts = {name: column[:size].tolist() for name, column in parties.party.items()}

    def key(slot: int) -> tuple[bool, bool, float, float, int]:
        suspect = facts["suspected"][slot] or facts["accused"][slot]
        evidence = 0.0 if standing[slot] and not suspect else facts["m"][slot]
        return suspect, bool(standing[slot]), evidence, facts["last"][slot], facts["serial"][slot]

    left = sorted(range(size), key=key)
    while len(left) > 45 or 1 + of_each * len(left) > 60 * (ROWS_PER_PARTY - 2):
        left.pop(0)
    parties.evict(standing)
    assert [name for _, name in parties.names] == [f"s{slot}" for slot in sorted(left)]
    assert not parties.crowded()
    for new, old in enumerate(sorted(left)):
        assert parties.find(SOURCE, f"s{old}") == new
        assert parties.party["serial"][new] == facts["serial"][old]
        rows = parties.rows_of(new)
        assert rows.size == of_each
        assert (parties.evidence[rows] == old).all()
        assert (parties.own[rows] == parties.row["cell"][rows, None, None, None]).all()
        assert [parties.row_of(new, int(cell)) for cell in parties.row["cell"][rows]] == rows.tolist()


def test_who_comes_back_starts_anew_and_a_restart_keeps_everything() -> None:
    """A slot that is used again has nothing of who had it before, and goes on after a restart as if there had been none."""
    parties, standing = crowd(7, 60, 3)
    names = {name for _, name in parties.names}
    parties.evict(standing)
    gone = min(names - {name for _, name in parties.names})
    again = Parties(60, CELLS, 4)
    again.restore(parties.state())
    for one in (parties, again):
        slot = one.admit(SOURCE, gone, 99.0, founder=True)
        row = one.row_of(slot, 2)
        assert one.party["m"][slot] == one.party["labels"][slot] == 0
        assert one.party["first"][slot] == one.party["last"][slot] == 99.0
        assert one.party["serial"][slot] == one.admitted == len(names) + 1
        assert not one.evidence[row].any()
        assert not one.own[row].any()
    assert same(parties.state(), again.state())


def test_names_are_told_apart_by_what_is_not_hostile() -> None:
    """Names as long as anyone needs differ; what goes on beyond that is the same party, however it is spelled."""
    parties = Parties(60, CELLS, 4)
    long = "x" * LONGEST_NAME
    assert parties.admit(SOURCE, long, 0.0, founder=True) == parties.admit(SOURCE, long + "y", 1.0, founder=True)
    assert parties.find(SOURCE, long + "z") == 0
    assert parties.admit(SOURCE, long[1:], 1.0, founder=True) == 1
