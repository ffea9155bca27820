"""The model's log: lost lines and volume are held against the reference's, and most lines lost is a sign of its own."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from poisonwatch.monitor.lines import Lines
from poisonwatch.profile.baseline import describe
from poisonwatch.profile.indicators import QUALITY, VOLUME, ask_lines
from poisonwatch.profile.season import SLOT
from poisonwatch.profile.volume import UsualVolume, describe_volume
from poisonwatch.profile.window import Window
from poisonwatch.types import Evidence, Sign
from tests.monitor.small import DAY, DETECTION, MONTH

SETTINGS = DETECTION._replace(period=MONTH, window=SLOT)
MONDAY = 1_767_571_200.0
"""2026-01-05T00:00:00Z: whole days follow."""


@cache
def usual_volume() -> UsualVolume:
    """Forty days of 100 predictions a slot, Poisson, twice as many by day as by night."""
    rng = np.random.default_rng(5)
    slots = int(40 * DAY / SLOT)
    hour = np.arange(slots) * SLOT % DAY / 3600
    volume = describe_volume(rng.poisson(np.where((hour >= 8) & (hour < 20), 100, 50)), MONDAY - 40 * DAY)
    assert volume is not None
    return volume


def watching(volume: UsualVolume | None = None) -> Lines:
    """Beside a reference of which 10 of 2,000 lines were lost."""
    counts = np.array([2000, 10], np.int64)
    return Lines("mail", describe(ask_lines(), counts, counts[None], counts[None]), volume, SETTINGS)


def window(number: int, lost: int = 0) -> Window:
    """One slot's window."""
    return Window(MONDAY + SLOT * number, MONDAY + SLOT * (number + 1), lost=lost)


def of_group(lines: Lines, group: str) -> Evidence:
    """The one piece of evidence of a group."""
    (found,) = (e for e in lines.evidence if e.group == group)
    assert found.model_version is None
    return found


@pytest.mark.parametrize(
    ("share", "fires", "signs"), [(0.005, False, ()), (0.2, True, ()), (0.6, True, (Sign.MOSTLY_LOST, Sign.LASTING))]
)
def test_lost_lines_are_evidence_and_most_of_them_a_sign(share: float, fires: bool, signs: tuple[Sign, ...]) -> None:
    """At the reference's rate nothing; a fifth of the lines is evidence; from a half on the log cannot be relied on."""
    rng = np.random.default_rng(6)
    lines = watching()
    for number in range(60):
        lost = int(rng.binomial(200, share))
        lines.judge(window(number, lost), 200 - lost)
    found = of_group(lines, QUALITY)
    assert (found.log_e >= 0) is fires
    assert found.signs == signs


def signs_after(lines: Lines, windows: int, lost: int, *, pause: float = 0.0) -> tuple[Sign, ...]:
    """The signs of the evidence after so many windows of 200 lines; `pause` is how far the clock is ahead of the log at the last."""
    for number in range(windows):
        now = window(number).end + pause if number == windows - 1 else -np.inf
        lines.judge(window(number, lost), 200 - lost, now)
    return of_group(lines, QUALITY).signs


def test_blind_for_an_hour_is_a_sign_of_its_own() -> None:
    """By the log's time, or by the clock's where the log stands still; a log that can be read again starts anew."""
    assert SLOT * 6 == 3600
    assert signs_after(watching(), 6, 150) == (Sign.MOSTLY_LOST,)
    assert signs_after(watching(), 7, 150) == (Sign.MOSTLY_LOST, Sign.LASTING)
    assert signs_after(watching(), 2, 150, pause=3600 - 2 * SLOT) == (Sign.MOSTLY_LOST,)
    assert signs_after(watching(), 2, 150, pause=3600 - SLOT) == (Sign.MOSTLY_LOST, Sign.LASTING)
    assert signs_after(watching(), 60, 60) == ()
    lines = watching()
    for number in range(509):
        # Some days in between: it takes as long until what was lost is no longer part of the same effect.
        blind = number < 5 or number >= 505
        lines.judge(window(number, 150 if blind else 0), 50 if blind else 200)
    assert of_group(lines, QUALITY).signs == (Sign.MOSTLY_LOST,)


@pytest.mark.parametrize(("factor", "fires"), [(1.0, False), (0.1, True), (5.0, True), (0.0, True)])
def test_volume_is_held_against_the_hours_own(factor: float, fires: bool) -> None:
    """The usual day and night is no evidence; a tenth, five times as much and silence are, within a day."""
    rng = np.random.default_rng(7)
    lines = watching(usual_volume())
    for number in range(int(DAY / SLOT)):
        usual = 100 if 8 <= number * SLOT / 3600 < 20 else 50
        lines.judge(window(number), int(rng.poisson(factor * usual)))
    assert (of_group(lines, VOLUME).log_e >= 0) is fires
    assert of_group(lines, QUALITY).log_e < 0


def test_nothing_is_said_of_volume_where_the_reference_or_the_window_cannot_tell() -> None:
    """A reference of a few hours has none, and windows that do not fill a slot would be counted into two."""
    baseline = watching()._shift.baseline  # noqa: SLF001 - the one that the others use
    odd = Lines("mail", baseline, usual_volume(), SETTINGS._replace(window=SLOT * 0.7))
    for lines in (watching(), odd):
        lines.judge(window(0), 100)
        assert {e.group for e in lines.evidence} == {QUALITY}


def test_a_restart_changes_no_evidence() -> None:
    """Between any two windows, also those with pauses between them."""
    rng = np.random.default_rng(8)
    steady, restarted = watching(usual_volume()), watching(usual_volume())
    assert restarted.evidence == []
    number = 0
    for _ in range(80):
        state = restarted.state()
        restarted = watching(usual_volume())
        restarted.restore(state)
        assert restarted.evidence == steady.evidence
        number += int(rng.choice([1, 1, 1, 5]))
        lost, kept = int(rng.integers(0, 30)), int(rng.integers(0, 60))
        for lines in (steady, restarted):
            lines.judge(window(number, lost), kept)
        assert restarted.evidence == steady.evidence
    assert of_group(steady, QUALITY).log_e > 0
    assert of_group(steady, VOLUME).log_e > -5
