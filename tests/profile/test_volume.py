"""Volume as indicators: limits of every hour, slots from windows, and what fires under the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.detect.kernel import log_evidence
from poisonwatch.detect.shift import Shift
from poisonwatch.profile.indicators import VOLUME
from poisonwatch.profile.season import DAY, SLOT
from poisonwatch.profile.volume import FAR, LONGEST_GAP, UsualVolume, Volume, describe_volume

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

MIDNIGHT = 1_767_571_200.0
"""2026-01-05, a Monday."""

SLOTS_A_DAY = 144


def traffic(rng: np.random.Generator, days: int, rate: float = 1.0, noise: float = 0.1) -> Ints:
    """Predictions in every slot of so many days: `rate` a second, a daily cycle, quiet weekends, days and hours vary."""
    slot = np.arange(days * SLOTS_A_DAY)
    day = slot // SLOTS_A_DAY
    log = 0.8 * np.sin(2 * np.pi * slot / SLOTS_A_DAY) - 0.7 * (day % 7 >= 5)
    log += rng.normal(0, noise, days)[day] + np.repeat(rng.normal(0, noise, days * 12), 12)
    return rng.poisson(600 * rate * np.exp(log))


def learned(counts: Ints) -> UsualVolume:
    """The usual volume of whole slots from midnight on."""
    usual = describe_volume(np.concatenate(([3], counts, [2])), MIDNIGHT - SLOT)
    assert usual is not None
    return usual


def slots_until_alarm(usual: UsualVolume, counts: Ints, start: float) -> int | None:
    """After how many slots of live traffic the evidence is worth a hundredth of a budget of 30 days, if ever."""
    shift = Shift(usual.baseline, 0.1 + 3.5 * usual.baseline.day_noise, {VOLUME: 0.01})
    memory, volume = shift.begin(), Volume(usual)
    for number, count in enumerate(counts.tolist()):
        for at, profile in volume.note(start + SLOT * number, count):
            shift.step(memory, profile, usual.slot / DAY / 30, at)
            if log_evidence(memory, shift.bets)[0] >= 0:
                return number
    return None


@pytest.mark.parametrize("rate", [1.0, 0.025])
def test_limits_are_quantiles_of_their_hour(rate: float) -> None:
    """On whole weeks, each limit is passed by about its share of its own hour's slots, and the far ones by none."""
    counts = traffic(np.random.default_rng(1), 28, rate)
    usual = learned(counts)
    assert usual.limits.shape == (48, 6)
    width = round(usual.slot / SLOT)
    assert width == (1 if rate == 1.0 else 2)
    pooled = counts.reshape(-1, width).sum(axis=1)
    hour = np.arange(pooled.size) * width // 6 % 24
    weekend = np.arange(pooled.size) * width // SLOTS_A_DAY % 7 >= 5
    for cell in range(48):
        mine = pooled[(hour == cell % 24) & (weekend == (cell >= 24))]
        few, fewest, far_few, many, most, far_many = usual.limits[cell]
        assert far_few == mine.min() / FAR
        assert far_many == mine.max() * FAR
        assert (mine < few).mean() <= 0.05 + 1 / mine.size
        assert (mine < fewest).mean() <= 0.01 + 1 / mine.size
        assert (mine > many).mean() <= 0.05 + 1 / mine.size
        assert (mine > most).mean() <= 0.01 + 1 / mine.size
        assert fewest <= few < many <= most


def test_rates_are_those_of_days_that_made_no_limit() -> None:
    """The learned rates come near to how often live days pass the limits, where the limits' own days pass them less."""
    rng = np.random.default_rng(2)
    rates: list[Floats] = []
    live: list[Floats] = []
    fitted: list[Floats] = []
    for _ in range(8):
        counts = traffic(rng, 7)
        usual = learned(counts)
        rates.append(usual.baseline.rate)
        for days, into in ((counts, fitted), (traffic(rng, 5), live)):
            cells = np.arange(days.size) // 6 % 24
            into.append(np.mean([usual.answers(int(c), int(n))[1:] for c, n in zip(cells, days, strict=True)], axis=0))
    learned_rate, live_rate, fitted_rate = (np.mean(arrays, axis=0)[[0, 1, 3, 4]] for arrays in (rates, live, fitted))
    # The live days are working days, the limits' days are not all.
    assert (fitted_rate < 0.75 * learned_rate).all()
    assert (live_rate < 2 * learned_rate).all()


def test_no_times_no_volume() -> None:
    """A reference of less than three whole days says nothing of volume."""
    assert describe_volume(np.full(3 * SLOTS_A_DAY - 12, 60), MIDNIGHT) is None
    assert describe_volume(np.full(3 * SLOTS_A_DAY + 2, 60), MIDNIGHT - SLOT) is not None
    assert describe_volume(np.array([400]), MIDNIGHT) is None


@pytest.mark.slow
def test_a_month_of_the_same_is_quiet() -> None:
    """Four months of traffic with noisy days, each after a reference of two weeks, raise nothing.

    The budget expects at most a twenty-fifth of an alarm over all of them: a hundredth of the budget, four times.
    """
    for seed in range(4):
        rng = np.random.default_rng((3, seed))
        usual = learned(traffic(rng, 14))
        assert slots_until_alarm(usual, traffic(rng, 28), MIDNIGHT + 14 * DAY) is None


@pytest.mark.parametrize("factor", [0.0, 0.1, 8.0])
def test_silence_and_floods_are_found_within_hours(factor: float) -> None:
    """Traffic that stops, or that a customer multiplies, is told after at most three hours."""
    rng = np.random.default_rng(4)
    usual = learned(traffic(rng, 14))
    live = np.rint(traffic(rng, 2) * factor).astype(np.int64)
    found = slots_until_alarm(usual, live, MIDNIGHT + 14 * DAY)
    assert found is not None
    assert 2 <= found <= 18


CONSTANT = learned(np.full(4 * SLOTS_A_DAY, 60))
"""Sixty predictions in every slot of four days."""


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.integers(0, 2000), min_size=1, max_size=60),
    cut=st.integers(0, 60),
)
def test_slots_are_what_the_windows_add_up_to(seed: int, steps: list[int], cut: int) -> None:
    """Slots hold the windows that began in them, empty ones too, wherever the process was restarted."""
    rng = np.random.default_rng(seed)
    minutes = np.cumsum(steps)
    counts = rng.integers(0, 200, minutes.size)
    volume = Volume(CONSTANT)
    closed = []
    for number, (minute, count) in enumerate(zip(minutes.tolist(), counts.tolist(), strict=True)):
        if number == cut:
            state = volume.state()
            volume = Volume(CONSTANT)
            volume.restore(state)
        closed += volume.note(MIDNIGHT + 60.0 * minute, count)
    first, last = int(minutes[0]) // 10, int(minutes[-1]) // 10
    expected = []
    for slot in range(first + 1, last):
        before = max(int(m) for m in minutes if m // 10 <= slot) // 10
        after = min(int(m) for m in minutes if m // 10 > slot) // 10
        if before == slot or slot >= after - LONGEST_GAP:
            n = int(counts[minutes // 10 == slot].sum())
            expected.append((MIDNIGHT + 600.0 * slot, [1, n < 60, n < 60, n < 30, n > 60, n > 60, n > 120]))
    assert [(start, profile.tolist()) for start, profile in closed] == expected


def test_windows_must_make_whole_slots() -> None:
    """A minute fits into ten, seven minutes and an hour do not."""
    assert Volume.fits(CONSTANT, 60.0)
    assert Volume.fits(CONSTANT, 600.0)
    assert not Volume.fits(CONSTANT, 420.0)
    assert not Volume.fits(CONSTANT, 3600.0)
