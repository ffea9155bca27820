"""A scene: live traffic of one service, put together from the real records of a task and versions of its model.

Arrivals are Poisson, with a mild daily rhythm in their rate. Records are drawn from the live part of the data set with
replacement; numbers are moved by at most one unit of recording (see `data.jittered`), texts are kept as they are. The class
mix has day-level noise of `seed % 3` times 0.025 log-odds. Nominal days are 86,400 s; at the dense rate the same scene is
pressed into `DENSE_SECONDS`, label delays with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.scenarios.models import Model, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from benchmarks.scenarios.data import Floats, Frame, Ints, Task
    from benchmarks.scenarios.models import Recipe

    Edit = Callable[["Scene", Frame, Ints], None]
    Tilt = Callable[[float], Floats]

DAY = 86_400.0
START = 1_772_409_600.0
"""2026-03-02T00:00:00Z, a Monday."""

SPARSE_RATE = 2.5 / 60
DENSE_RATE = 50.0
DENSE_SECONDS = 9_000.0
BUCKETS_A_DAY = 24
TENANTS = {"north": 0.5, "south": 0.3, "web": 0.2}
LABELLED = 0.1
SOURCES = 60
COLLUDING_SHARE = 0.7
"""How many of the records that the colluders pick they call wrong; on the others they hide."""


class Pace(NamedTuple):
    """How fast a scene of so many nominal days plays: predictions a second, seconds a nominal day."""

    rate: float
    day: float
    dense: bool


def pace_of(name: str, days: float) -> Pace:
    """`sparse`: 2.5 predictions a minute; `dense`: 50 a second."""
    if name == "sparse":
        return Pace(SPARSE_RATE, DAY, dense=False)
    return Pace(DENSE_RATE, DENSE_SECONDS / days, dense=True)


class Campaign(NamedTuple):
    """Colluding sources: how many, from which nominal day on, against which class, how many labels each a day."""

    sources: int
    since: float
    victim: int
    claim: int
    daily: float
    sleepers: bool
    shared_address: bool


@dataclass
class Scene:
    """One service over some nominal days; times are nominal days from its start, until it is written.

    `pick` (n,) are rows of `task.live`, `version` (n,) places in `versions`, `marked` (n,) the records that an attacker or
    a newcomer sent, `segment` (n,) places in `segments`. `edits` change drawn records, in order, before a version answers.
    """

    task: Task
    seed: int
    days: float
    pace: Pace
    recipe: Recipe
    rng: np.random.Generator
    time: Floats
    pick: Ints
    version: Ints
    marked: NDArray[np.bool_]
    segments: tuple[str, ...]
    segment: Ints
    reference: Frame
    reference_segment: Ints
    versions: list[str] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    guilty: tuple[str, ...] = ()
    onset: float | None = None
    sources: int = SOURCES
    campaign: Campaign | None = None
    withheld: tuple[float, float] | None = None
    facts: dict[str, object] = field(default_factory=dict)

    def since(self, day: float) -> NDArray[np.bool_]:
        """Which records come after a nominal day (n,)."""
        return self.time >= day

    def between(self, first: float, last: float) -> NDArray[np.bool_]:
        """Which records come between two nominal days (n,)."""
        return (self.time >= first) & (self.time < last)

    def roll_out(self, model: Model, day: float, *, canary_share: float = 0.0, canary_days: float = 2.0) -> str:
        """Let a new version answer from a nominal day on: at once all, or first a random share for some days."""
        self.versions.append(f"v{len(self.versions) + 1}")
        self.models.append(model)
        new = len(self.models) - 1
        if canary_share:
            arm = self.between(day, day + canary_days) & (self.rng.random(self.time.size) < canary_share)
            self.version[arm] = new
            day += canary_days
        self.version[self.since(day)] = new
        return self.versions[new]

    def redraw(self, which: NDArray[np.bool_], pool: Ints) -> None:
        """Let some records come from some rows of the live part only."""
        self.pick[which] = self.rng.choice(pool, int(which.sum()))

    def tilt(self, tilt: Tilt, since: float = 0.0) -> None:
        """Draw anew from a nominal day on, rows weighted by exp(tilt(day)), where the tilt is (rows,) log-weights."""
        bucket = np.floor(self.time * BUCKETS_A_DAY).astype(np.int64)
        for number in np.unique(bucket[self.since(since)]).tolist():
            members = np.flatnonzero((bucket == number) & self.since(since))
            self.pick[members] = drawn(tilt((number + 0.5) / BUCKETS_A_DAY), members.size, self.rng)

    def frame(self, records: Ints, rng: np.random.Generator) -> Frame:
        """The records as the service met them."""
        from benchmarks.scenarios.data import jittered

        met = jittered(self.task.live.take(self.pick[records]), self.task, rng)
        for edit in self.edits:
            edit(self, met, records)
        return met


def begin(
    task: Task, recipe: Recipe, seed: int, days: float, rate: str, *, surge: Callable[[Floats], Floats] | None = None
) -> Scene:
    """A scene in which the first version, honestly trained, answers everything.

    `surge` multiplies the rate of arrivals at nominal days, by at most 3.
    """
    rng = np.random.default_rng([seed, 2])
    pace = pace_of(rate, days)
    most = 4.5
    time = np.sort(rng.random(rng.poisson(most * pace.rate * pace.day * days)) * days)
    rhythm = 1.0 + 0.3 * np.sin(2 * np.pi * (time * pace.day / DAY - 0.25))
    kept = rng.random(time.size) * most < rhythm * (surge(time) if surge is not None else 1.0)
    time = time[kept]
    reference = task.reference
    segments = tuple(TENANTS) if seed % 2 else ()
    shares = list(TENANTS.values())
    scene = Scene(
        task=task,
        seed=seed,
        days=days,
        pace=pace,
        recipe=recipe,
        rng=rng,
        time=time,
        pick=np.zeros(time.size, np.int64),
        version=np.zeros(time.size, np.int64),
        marked=np.zeros(time.size, np.bool_),
        segments=segments,
        segment=rng.choice(len(segments), time.size, p=shares) if segments else np.zeros(time.size, np.int64),
        reference=reference,
        reference_segment=(
            rng.choice(len(segments), len(reference), p=shares) if segments else np.zeros(len(reference), np.int64)
        ),
    )
    noise = 0.0 if pace.dense else 0.025 * (seed % 3)
    daily = noise * rng.normal(size=(int(days) + 1, len(task.live.classes)))
    scene.tilt(lambda day: daily[int(day)][task.live.label])
    scene.versions.append("v1")
    scene.models.append(train(recipe, task.train))
    scene.facts |= {"data": task.name, "model": recipe.family, "day noise": noise}
    return scene


def drawn(log_weights: Floats, count: int, rng: np.random.Generator) -> Ints:
    """Rows (count,) drawn with replacement."""
    up_to = np.cumsum(np.exp(log_weights - log_weights.max()))
    rows: Ints = np.searchsorted(up_to, rng.random(count) * up_to[-1], side="right")
    return rows


def with_labels(frame: Frame, label: Ints) -> Frame:
    """The same records, labelled otherwise."""
    return replace(frame, label=label)


def flipped(frame: Frame, share: float, rng: np.random.Generator, *, victim: int | None = None) -> Frame:
    """A training set with so many of all labels changed: any label to any other, or only those of one class, all alike."""
    label = frame.label.copy()
    if victim is None:
        chosen = rng.random(label.size) < share
        label[chosen] = (label[chosen] + rng.integers(1, len(frame.classes), int(chosen.sum()))) % len(frame.classes)
    else:
        members = np.flatnonzero(label == victim)
        chosen_rows = rng.permutation(members)[: min(members.size, round(share * label.size))]
        label[chosen_rows] = (victim + 1) % len(frame.classes)
    return with_labels(frame, label)


def error(model: Model, frame: Frame) -> float:
    """Share of wrong answers."""
    return float((model.answers(frame) != frame.label).mean())


def described(scene: Scene, names: Sequence[str] = ()) -> None:
    """Note the true errors of the versions on the live part, and how often later ones contradict the first."""
    rng = np.random.default_rng(scene.seed)
    live = scene.task.live.take(rng.permutation(len(scene.task.live))[:4_000])
    first = scene.models[0].answers(live)
    for version, model in zip(scene.versions, scene.models, strict=True):
        if names and version not in names:
            continue
        answers = model.answers(live)
        scene.facts[f"{version} error"] = round(float((answers != live.label).mean()), 3)
        if version != "v1":
            scene.facts[f"{version} against v1"] = round(float((answers != first).mean()), 3)
    scene.facts["reference error"] = round(error(scene.models[0], scene.reference), 3)
