"""Seasons: which cell a time falls to, and a timed reference counted by cells, days and blocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.season import (
    DAY,
    DAYS_FOR_HOURS,
    DAYS_FOR_WEEKENDS,
    MOST_BLOCKS,
    MOST_DAYS,
    SLOT,
    Tally,
    cell_of,
    cells_over,
)

START = datetime(2026, 1, 5, 8, tzinfo=UTC).timestamp()


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds are naive
def test_cells_are_the_calendars_hours(moment: datetime) -> None:
    """The cell of a time is its hour in UTC, with a second set of hours for Saturday and Sunday, as the calendar says."""
    hours = cell_of(moment.timestamp(), 24)
    both = cell_of(moment.timestamp(), 48)
    assert hours == moment.hour
    assert both == moment.hour + (24 if moment.isoweekday() >= 6 else 0)
    assert cell_of(moment.timestamp(), 1) == 0


@pytest.mark.parametrize(
    ("days", "cells"),
    [(DAYS_FOR_HOURS - 0.05, 1), (DAYS_FOR_HOURS, 24), (DAYS_FOR_WEEKENDS - 0.05, 24), (DAYS_FOR_WEEKENDS, 48)],
)
def test_cells_need_days(days: float, cells: int) -> None:
    """Hours need three whole days, weekends of their own fourteen."""
    assert cells_over(START, START + days * DAY) == cells


@given(
    seed=st.integers(0, 2**32 - 1),
    days=st.floats(0.1, 20),
    start=st.floats(0, 10 * DAY),
)
def test_everything_is_counted_in_its_place(seed: int, days: float, start: float) -> None:
    """Cells, days, slots and hours hold what counting one record at a time gives, and each adds up to the whole."""
    rng = np.random.default_rng(seed)
    first, last = START + start, START + start + days * DAY
    times = np.sort(rng.uniform(first, last, 60))
    yes = rng.random(60) < 0.3
    tally = Tally(2, first, last)
    slots = tally.slots(times)
    for slot in np.unique(slots).tolist():
        tally.add(slot, np.array([(slots == slot).sum(), yes[slots == slot].sum()]))
    history = tally.history()
    cells = history.cells.shape[0]
    plain = np.zeros((cells, 2), np.int64)
    by_day: dict[str, list[int]] = {}
    for time, answer in zip(times.tolist(), yes.tolist(), strict=True):
        plain[cell_of(time, cells)] += (1, answer)
        day = by_day.setdefault(f"{datetime.fromtimestamp(time, UTC):%F}", [0, 0])
        day[0] += 1
        day[1] += answer
    assert history.cells.tolist() == plain.tolist()
    assert [day for day in history.days.tolist() if day[0]] == list(by_day.values())
    assert history.mix.sum(axis=1).tolist() == history.days[:, 0].tolist()
    assert history.mix.sum(axis=0).tolist() == history.cells[:, 0].tolist()
    assert tally.total.tolist() == [60, int(yes.sum())]
    expected = np.bincount(((times - tally.start) // SLOT).astype(np.int64), minlength=tally.volume.size)
    assert tally.volume.tolist() == expected.tolist()
    hours = history.scales[1]
    assert hours.counts[:, 0].sum() == 60
    assert [cell for cell, n in zip(hours.cell, hours.counts[:, 0], strict=True) for _ in range(n)] == [
        cell_of(float(time), cells) for time in times
    ]
    slot_blocks = history.scales[0]
    if slot_blocks.counts.shape[0] >= tally.volume.size:
        assert slot_blocks.counts.sum(axis=0).tolist() == tally.total.tolist()
        assert sorted(slot_blocks.counts[:, 0].tolist())[-5:] == sorted(expected.tolist())[-5:]


def test_memory_is_bounded_over_years() -> None:
    """Three years give no more blocks and days than the caps; blocks meet every hour of the week, days are the last ones."""
    last = START + timedelta(days=3 * 365).total_seconds()
    tally = Tally(1, START, last)
    for hour in range(int(START // 3600), int(last // 3600)):
        tally.add(6 * hour + hour % 6, np.array([1]))
    history = tally.history()
    assert history.cells.sum() == int(last // 3600) - int(START // 3600)
    assert history.days.shape[0] == MOST_DAYS
    assert (history.days[1:-1] == 24).all()
    for scale in history.scales:
        assert MOST_BLOCKS / 2 < scale.counts.shape[0] <= MOST_BLOCKS + 6
        assert set(scale.cell.tolist()) == set(range(48))
        assert (scale.day >= 0).all()
        assert (scale.day < MOST_DAYS).all()
        # Of each hour one slot was filled, and the last hour is not whole.
        assert scale.counts.sum() * (6 if scale is history.scales[0] else 1) in (
            scale.counts.shape[0],
            scale.counts.shape[0] - 1,
            scale.counts.shape[0] - 6,
        )
