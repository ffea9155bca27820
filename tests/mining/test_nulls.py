"""Bounds follow the reference and the version's own past, and never the predictions that they are for."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.mining.nulls import LARGEST, LEAST, PRIOR, Nulls
from tests.mining.blocks import block

REFERENCE = np.array([[0.02, 0.05], [0.001, 0.03]])


def bounds(nulls: Nulls, version: int, label: int) -> list[float]:
    """Bounds for surprising and flipped."""
    return [float(x) for x in nulls.of(np.array([version]), np.array([label]))[:, 0]]


def test_a_new_version_has_the_bounds_of_the_reference() -> None:
    """Twice the reference's rates, and not less than the least; an unknown class has the least."""
    nulls = Nulls(REFERENCE)
    assert np.allclose(bounds(nulls, 0, 0), [0.06, 0.02])
    assert np.allclose(bounds(nulls, 0, 1), [0.10, 0.06])
    assert np.allclose(bounds(nulls, 7, -1), LEAST)


def test_a_version_that_differs_gets_bounds_of_its_own() -> None:
    """Twice the version's own rate, once it has shown it; another version's bounds stay."""
    nulls = Nulls(REFERENCE)
    nulls.add(block(["x"] * 400, 0, surprising=[True] * 80 + [False] * 320, flipped=[True] * 40 + [False] * 360))
    own = [(80 + PRIOR * 0.02) / (400 + PRIOR), (40 + PRIOR * 0.001) / (400 + PRIOR)]
    assert np.allclose(bounds(nulls, 0, 0), [2 * own[0], 2 * own[1]])
    assert np.allclose(bounds(nulls, 1, 0), [0.06, 0.02])
    nulls.forget(0)
    assert np.allclose(bounds(nulls, 0, 0), [0.06, 0.02])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(-1, 1)), max_size=50))
def test_bounds_stay_within_their_limits_and_survive_a_restart(told: list[tuple[bool, bool, bool, int]]) -> None:
    """Whatever was seen, a bound lies between the least and the largest, and a restart changes nothing."""
    surprising, flipped, fresh, label = zip(*told, strict=True) if told else ((), (), (), ())
    nulls, again = Nulls(REFERENCE), Nulls(REFERENCE)
    nulls.add(block(["x"] * len(told), label, surprising=surprising, flipped=flipped, fresh=fresh))
    again.restore(nulls.state())
    for of in (0, 1):
        found = bounds(nulls, 0, of)
        assert (np.array(found) >= LEAST).all()
        assert (np.array(found) <= LARGEST).all()
        assert found == bounds(again, 0, of)


def test_near_duplicates_do_not_move_the_bounds() -> None:
    """A message sent a thousand times is one prediction here too."""
    nulls = Nulls(REFERENCE)
    nulls.add(block(["x"] * 1000, 0, flipped=True, fresh=False))
    assert np.allclose(bounds(nulls, 0, 0), [0.06, 0.02])
