"""ADWIN's second opinion: jumps are placed, constant rates are left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import binom, norm

from poisonwatch.detect.onset import FEWEST_ASKED, second_opinion

if TYPE_CHECKING:
    from poisonwatch.types import Floats

HOUR = 3600.0
WINDOWS = 200


def hours(n: int = WINDOWS) -> Floats:
    """Starts of so many windows."""
    return np.arange(1e9, 1e9 + n * HOUR, HOUR)


def misplaced_at_most(sigmas: float, chance: float) -> int:
    """By how many windows a jump of so many standard deviations of a window's rate is misplaced but for a chance.

    To be off by k windows, the noise of k windows must sum to half of their jumps: chance 2 Phi(-sigmas sqrt(k) / 2), which
    is summed over all k from there on (the levels on both sides are known better by far, and the estimate counts them so).
    """
    k = np.arange(1, 1000)
    tail = np.cumsum((2 * norm.cdf(-0.9 * sigmas * np.sqrt(k) / 2))[::-1])[::-1]
    return int(k[np.argmax(tail < chance)])


@pytest.mark.parametrize(
    ("rate", "moved", "asked", "at"),
    [(0.05, 0.12, 540, 100), (0.05, 0.12, 540, 170), (0.3, 0.4, 540, 40), (0.3, 0.1, 200, 100)],
)
def test_a_jump_is_placed_to_the_window(rate: float, moved: float, asked: int, at: int) -> None:
    """In every one of 30 seeds, within what the noise of the rates allows at a chance of 1e-6 over all of them."""
    sigma = float(np.sqrt(max(rate * (1 - rate), moved * (1 - moved)) / asked))
    most = misplaced_at_most(abs(moved - rate) / sigma, 1e-6 / 30)
    for seed in range(30):
        rng = np.random.default_rng((seed, at))
        yes = np.concatenate([rng.binomial(asked, rate, at), rng.binomial(asked, moved, WINDOWS - at)])
        found = second_opinion(hours(), np.full(WINDOWS, asked), yes)
        assert found is not None
        assert abs(found - hours()[at]) <= (most - 1) * HOUR


def test_of_two_jumps_the_last_is_placed() -> None:
    """What counts is since when the rate is the present one."""
    rng = np.random.default_rng(5)
    rate = np.repeat([0.05, 0.25, 0.6], [80, 60, 60])
    found = second_opinion(hours(), np.full(WINDOWS, 300), rng.binomial(300, rate))
    assert found == hours()[140]


@pytest.mark.parametrize(("rate", "asked"), [(0.02, 40), (0.3, 540)])
def test_constant_rates_are_not_cut(rate: float, asked: int) -> None:
    """At most delta a step by ADWIN's theorem, hence steps x delta a series: the 1e-6 quantile of 60 series' count holds."""
    delta = 1e-4
    cut = 0
    for seed in range(60):
        yes = np.random.default_rng((7, seed)).binomial(asked, rate, WINDOWS)
        cut += second_opinion(hours(), np.full(WINDOWS, asked), yes, delta) is not None
    assert cut <= binom.ppf(1 - 1e-6, 60, WINDOWS * delta)


def test_sparse_windows_are_pooled() -> None:
    """Three answers a window are pooled by tens: a jump is placed at the start of one of the pools beside it."""
    assert FEWEST_ASKED == 30
    rng = np.random.default_rng(8)
    n, at = 3000, 1500
    yes = rng.binomial(3, np.repeat([0.05, 0.6], [at, n - at]))
    found = second_opinion(hours(n), np.full(n, 3), yes)
    assert found is not None
    assert abs(found - hours(n)[at]) <= 10 * HOUR
    assert (found - hours(n)[0]) % (10 * HOUR) == 0


@pytest.mark.parametrize("asked", [[], [0, 0], [10, 10], [100, 100, 100]])
def test_too_little_says_nothing(asked: list[int]) -> None:
    """No answers, not enough for a rate, or rates without any spread: no opinion, and no division by zero."""
    counts = np.array(asked, np.int64)
    assert second_opinion(hours(counts.size), counts, counts // 2) is None
