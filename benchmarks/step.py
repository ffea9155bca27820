"""What one closed window costs: the step of `Shift` and the evidence of it, by number of signals, with hourly seasons.

`python -m benchmarks.step` prints milliseconds (median, and the least of the repeats: the machine is shared) and the bytes
that one version's memory takes.
"""

from __future__ import annotations

import time
from dataclasses import fields

import numpy as np

from benchmarks.detection.ours import Watch
from benchmarks.detection.streams import SLOT, WORLDS, Normal
from poisonwatch.detect.evidence import collect
from poisonwatch.profile.baseline import cut_points

SIGNALS = (125, 250, 500, 1000)
DAYS = 3
REPEATS = 300
WINDOW = 60
TARGET_SIGNALS, TARGET_MS = 500, 2.0


def main() -> None:
    """Measure and print."""
    print(
        "| signals | indicators | step, ms | least | with evidence, ms | least | memory of a version | per indicator |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for signals in SIGNALS:
        print(_row(signals))
    print(f"\nTarget: the step with {TARGET_SIGNALS} signals and 5,000 indicators under {TARGET_MS} ms, memory linear.")


def _row(signals: int) -> str:
    rng = np.random.default_rng(1)
    normal = Normal(WORLDS[1], signals, rng)
    cuts = cut_points(normal.sample(20_000))
    watch = Watch(signals, cuts, apart=False)
    slots = range(0, DAYS * 86_400, SLOT)
    watch.learn((watch.profile(SLOT, normal.at_most(cuts, start, SLOT)) for start in slots), DAYS)
    texts = tuple(indicator.text for indicator in watch.questions.indicators)
    step, both = [], []
    for number in range(REPEATS):
        start = DAYS * 86_400 + number * WINDOW
        profile = watch.profile(WINDOW, normal.at_most(cuts, start, WINDOW))
        began = time.perf_counter()
        watch.shift.step(watch.memory, profile, 1e-5, float(start))
        stepped = time.perf_counter()
        collect("m", "v", watch.memory, watch.shift.bets, texts, watch.baseline.rate, watch.shift.floor)
        step.append(1000 * (stepped - began))
        both.append(1000 * (time.perf_counter() - began))
    size = sum(getattr(watch.memory, field.name).nbytes for field in fields(watch.memory))
    indicators = len(watch.questions.indicators)
    cells = (f"{np.median(times):.2f} | {min(times):.2f}" for times in (step, both))
    return f"| {signals} | {indicators:,} | {' | '.join(cells)} | {size / 1e6:.1f} MB | {size / indicators:.0f} B |"


if __name__ == "__main__":
    main()
