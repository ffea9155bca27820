"""False pages over 500 streams in 30 days, beside hourly tests on the same counts; and how soon one moved stream is found."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmarks.detection.ours import Watch
from benchmarks.detection.peers import Hourly
from benchmarks.detection.streams import DAY, HOUR, SLOT, Normal, World
from poisonwatch.config import DetectionConfig, budget_seconds
from poisonwatch.profile.baseline import cut_points

STREAMS = 500
DAYS = 30
REFERENCE_DAYS = 14
WINDOW = 300
"""Seconds; the product's default is 60, which only looks more often at the same evidence and costs five times as much."""

MOVES = (0.5, 0.25, 0.1)
REPLICAS = 40
WARM_UP = 6 * HOUR
HORIZON = 10 * DAY
FINE = DAY // 2
"""For so long after the change the windows are those of the product, 60 seconds."""
PERIOD = budget_seconds(DetectionConfig().budget)


@dataclass
class Found:
    """False pages by detector, and minutes until each replica of a moved stream paged (infinite: not in ten days)."""

    false: dict[str, int] = field(default_factory=dict)
    minutes: dict[float, list[float]] = field(default_factory=dict)
    nothing_moved: int = 0


def run(world: World, seed: int, *, delays: bool = True) -> Found:
    """One seed of one world."""
    found = Found()
    rng = np.random.default_rng((seed, 500))
    cuts = cut_points(Normal(world, 1, rng).sample(20_000))
    _false_pages(world, cuts, rng, found)
    if delays:
        for move in MOVES:
            found.minutes[move] = _delays(world, cuts, move, np.random.default_rng((seed, int(move * 100))), found)
    return found


def _learned(
    world: World, cuts: tuple[float, ...], streams: int, rng: np.random.Generator, *, apart: bool
) -> tuple[Normal, Watch]:
    normal = Normal(world, streams, rng)
    watch = Watch(streams, cuts, apart=apart)
    slots = range(0, REFERENCE_DAYS * DAY, SLOT)
    watch.learn((watch.profile(SLOT, normal.at_most(cuts, start, SLOT)) for start in slots), REFERENCE_DAYS)
    return normal, watch


def _false_pages(world: World, cuts: tuple[float, ...], rng: np.random.Generator, found: Found) -> None:
    normal, watch = _learned(world, cuts, STREAMS, rng, apart=False)
    counts = watch.baseline.counts
    hourly = Hourly(counts[watch.cut_places], int(counts[0]))
    pages = 0
    in_hour = np.zeros((STREAMS, len(cuts)), np.int64)
    first = REFERENCE_DAYS * DAY
    for start in range(first, first + DAYS * DAY, WINDOW):
        at_most = normal.at_most(cuts, start, WINDOW)
        pages += len(watch.step(watch.profile(WINDOW, at_most), WINDOW / PERIOD, float(start)))
        in_hour += at_most
        if (start + WINDOW) % HOUR == 0:
            hourly.test(in_hour, HOUR)
            in_hour[:] = 0
    found.false = {"poisonwatch": pages, **hourly.alarms}


def _delays(world: World, cuts: tuple[float, ...], move: float, rng: np.random.Generator, found: Found) -> list[float]:
    """Replicas of one stream that holds 1/500 of the budget; it moves after six quiet hours."""
    normal, watch = _learned(world, cuts, REPLICAS, rng, apart=True)
    begin = REFERENCE_DAYS * DAY
    change = begin + WARM_UP
    minutes = np.full(REPLICAS, np.inf)
    start = begin
    while start < change + HORIZON and not np.isfinite(minutes).all():
        width = 60 if start < change + FINE else WINDOW
        at_most = normal.at_most(cuts, start, width, move if start >= change else 0.0)
        for page in watch.step(watch.profile(width, at_most), width / PERIOD * REPLICAS / STREAMS, float(start)):
            if start < change:
                found.nothing_moved += 1
            else:
                minutes[page.group] = min(minutes[page.group], (start + width - change) / 60)
        start += width
    return minutes.tolist()
