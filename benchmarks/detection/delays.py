"""One confidence stream: false alarms in a million records and records until a change is found, of ours and the usual ones.

Budget: one alarm in a million records. Every detector sees the same records; ours reads them in windows of 60.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.detection.ours import Watch, count_at_most
from benchmarks.detection.peers import SLOW, as_users_run_them, calibrated
from benchmarks.detection.streams import (
    CHANGES,
    DAY,
    HOUR,
    SLOT,
    Autoregressive,
    Change,
    bernoulli_nats,
    confidences,
    daily,
)
from poisonwatch.profile.baseline import cut_points

if TYPE_CHECKING:
    from benchmarks.detection.peers import Detector
    from poisonwatch.types import Floats

OURS = "poisonwatch"
BUDGET = 1_000_000
"""Records in which one false alarm is allowed."""

WINDOW = 60
REFERENCE_DAYS = 14
RUNS = 20
BEFORE, AFTER = 9_480, 24_000
SLOW_RUNS = 2
SLOW_BEFORE, SLOW_AFTER = 600, 1_200
QUIET = 400_000
SLOW_QUIET = 3_000
MANY = 60
"""Streams side by side in which ours is watched for false alarms."""

AR_REFERENCE_DAYS = 7
AR_DAYS = 6
RHO = 0.9


@dataclass
class Found:
    """By detector: false alarms and records watched, by kind of stream; and by change, the delays in records."""

    alarms: dict[str, dict[str, int]] = field(default_factory=dict)
    records: dict[str, dict[str, int]] = field(default_factory=dict)
    delays: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def quiet(self, detector: str, stream: str, alarms: int, records: int) -> None:
        """Note the false alarms of one detector."""
        self.alarms.setdefault(detector, {})[stream] = alarms
        self.records.setdefault(detector, {})[stream] = records


def run(seed: int) -> Found:
    """One seed."""
    found = Found()
    rng = np.random.default_rng((seed, 1))
    peers = {**as_users_run_them(seed), **calibrated(seed)}
    autoregressive = Autoregressive(1, RHO, rng)
    for stream, values in (
        ("independent", confidences(rng, (QUIET,))),
        ("AR(0.9)", autoregressive.draw(QUIET)[0]),
        ("daily cycle", daily(rng, QUIET)),
    ):
        for name, detector in peers.items():
            few = values[:SLOW_QUIET] if SLOW in name else values
            found.quiet(name, stream, len(detector(few)), few.size)
    found.quiet(OURS, "AR(0.9)", *_autoregressive(seed))
    cuts, watch = learned(seed, RUNS)
    for change in CHANGES:
        before = confidences(rng, (RUNS, BEFORE))
        after = change.of(confidences(rng, (RUNS, AFTER)), rng)
        values = np.concatenate([before, after], axis=1)
        found.delays.setdefault(OURS, {})[change.name] = _our_delays(watch, cuts, values)
        for name, detector in peers.items():
            found.delays.setdefault(name, {})[change.name] = _their_delays(name, detector, values)
    return found


def learned(seed: int, streams: int) -> tuple[tuple[float, ...], Watch]:
    """Streams of independent confidences with a reference of 14 days at one record a second."""
    rng = np.random.default_rng((seed, 2))
    cuts = cut_points(confidences(rng, (20_000,)), confidence=True)
    watch = Watch(streams, cuts, apart=True)
    shares = np.diff(Change("none").below(np.array(cuts)), prepend=0.0, append=1.0)
    counts = np.cumsum(rng.multinomial(SLOT, shares, (REFERENCE_DAYS * DAY // SLOT, streams)), axis=2)[:, :, :-1]
    watch.learn((watch.profile(SLOT, slot) for slot in counts), REFERENCE_DAYS)
    return cuts, watch


def _our_delays(watch: Watch, cuts: tuple[float, ...], values: Floats) -> list[float]:
    watch.memory = watch.shift.begin()
    delays = np.full(RUNS, np.inf)
    for number, at_most in enumerate(count_at_most(values, cuts, WINDOW)):
        end = (number + 1) * WINDOW
        share = WINDOW / BUDGET * RUNS
        for page in watch.step(watch.profile(WINDOW, at_most), share, float(end - WINDOW)):
            if end > BEFORE:
                delays[page.group] = min(delays[page.group], end - BEFORE)
        if np.isfinite(delays).all():
            break
    return delays.tolist()


def _their_delays(name: str, detector: Detector, values: Floats) -> list[float]:
    slow = SLOW in name
    before, after = (SLOW_BEFORE, SLOW_AFTER) if slow else (BEFORE, AFTER)
    delays = []
    for row in values[: SLOW_RUNS if slow else RUNS, BEFORE - before : BEFORE + after]:
        late = [number - before for number in detector(row) if number > before]
        delays.append(float(late[0]) if late else np.inf)
    return delays


def _autoregressive(seed: int) -> tuple[int, int]:
    """False alarms of ours on streams that are correlated in time, and how many records there were."""
    rng = np.random.default_rng((seed, 3))
    stream = Autoregressive(MANY, RHO, rng)
    cuts = cut_points(stream.draw(20_000)[0], confidence=True)
    watch = Watch(MANY, cuts, apart=True)
    slots = (count_at_most(stream.draw(SLOT), cuts, SLOT)[0] for _ in range(AR_REFERENCE_DAYS * DAY // SLOT))
    watch.learn((watch.profile(SLOT, slot) for slot in slots), AR_REFERENCE_DAYS)
    alarms = 0
    for hour in range(AR_DAYS * 24):
        for minute, at_most in enumerate(count_at_most(stream.draw(HOUR), cuts, WINDOW)):
            profile = watch.profile(WINDOW, at_most)
            alarms += len(watch.step(profile, WINDOW / BUDGET * MANY, float(hour * HOUR + minute * WINDOW)))
    return alarms, MANY * AR_DAYS * DAY


def independent(seed: int, days: int = 30) -> tuple[int, int]:
    """False alarms of ours on independent streams, drawn as counts, and how many records there were."""
    rng = np.random.default_rng((seed, 4))
    cuts, watch = learned(seed, MANY)
    shares = np.diff(Change("none").below(np.array(cuts)), prepend=0.0, append=1.0)
    alarms = 0
    for start in range(0, days * DAY, WINDOW):
        at_most = np.cumsum(rng.multinomial(WINDOW, shares, MANY), axis=1)[:, :-1]
        alarms += len(watch.step(watch.profile(WINDOW, at_most), WINDOW / BUDGET * MANY, float(start)))
    return alarms, MANY * days * DAY


@dataclass(frozen=True)
class Bound:
    """Records that are needed at least: knowing both laws; and betting on one question, beyond the floor or without it."""

    change: str
    both_known: float
    one_question: float
    beyond_floor: float


def bounds() -> list[Bound]:
    """log(10^6) over the divergence of each change, in nats a record."""
    cuts, watch = learned(0, 1)
    low, high = watch.boundaries()
    nats = float(np.log(BUDGET))
    unchanged = Change("none").below(np.array(cuts))
    found = []
    for change in CHANGES:
        rates = change.below(np.array(cuts))
        nearest = np.clip(rates, low, high)
        beyond = np.where(nearest == rates, 0.0, bernoulli_nats(rates, nearest)).max()
        single = bernoulli_nats(rates, unchanged).max()
        found.append(Bound(change.name, nats / change.nats(), nats / single, nats / beyond))
    return found
