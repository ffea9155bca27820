"""The history: nothing is lost of what was counted, memory is bounded, resolution keeps pace with the life."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.history import History

if TYPE_CHECKING:
    from poisonwatch.types import Ints


def windows(seed: int, n: int) -> tuple[list[float], Ints]:
    """Seeded profiles (n, 3) of windows with gaps between their starts."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.integers(1, 5, n) * 60.0).tolist(), rng.integers(0, 50, (n, 3))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 300), slots=st.sampled_from([2, 4, 16]))
def test_it_is_the_sum_over_stretches_of_equally_many_windows(seed: int, n: int, slots: int) -> None:
    """Stretches of the smallest power of two of windows that fits into the slots, each with its first window's start."""
    starts, profiles = windows(seed, n)
    history = History(3, slots)
    for start, profile in zip(starts, profiles, strict=True):
        history.append(start, profile)
    span = 1
    while -(-n // span) > slots:
        span *= 2
    expected = [profiles[first : first + span].sum(axis=0) for first in range(0, n, span)]
    begun, asked, yes = history.series(0, 2)
    assert begun.tolist() == starts[::span]
    assert asked.tolist() == [int(piece[0]) for piece in expected]
    assert yes.tolist() == [int(piece[2]) for piece in expected]
    assert asked.sum() == profiles[:, 0].sum()
    assert begun.size <= slots
    assert n <= slots or begun.size > slots // 2


@given(seed=st.integers(0, 2**32 - 1), stop=st.integers(0, 100))
def test_a_restart_changes_nothing(seed: int, stop: int) -> None:
    """Saved and restored anywhere, it goes on as what was never interrupted; the saved state does not change any more."""
    starts, profiles = windows(seed, 100)
    whole, before, after = History(3, 8), History(3, 8), History(3, 8)
    for start, profile in zip(starts, profiles, strict=True):
        whole.append(start, profile)
    for n in range(stop):
        before.append(starts[n], profiles[n])
    saved = before.state()
    after.restore(saved)
    copy = {name: np.array(value) for name, value in saved.items()}
    for n in range(stop, 100):
        after.append(starts[n], profiles[n])
    assert all(np.array_equal(saved[name], copy[name]) for name in saved)
    assert all(np.array_equal(value, after.state()[name]) for name, value in whole.state().items())


def test_profiles_are_not_shared() -> None:
    """What the caller does with a profile afterwards, or with a series, does not reach the history."""
    history, profile = History(2), np.array([5, 3])
    history.append(0.0, profile)
    profile += 100
    history.series(0, 1)[1][0] = 77
    assert history.series(0, 1)[1].tolist() == [5]


@pytest.mark.parametrize("slots", [0, 1, 7])
def test_an_odd_number_of_slots_is_refused(slots: int) -> None:
    """Neighbours could not be merged in pairs."""
    with pytest.raises(ValueError, match="even"):
        History(1, slots)
