"""Poisoned training, at the strength that is wanted, and traffic in which the trigger is used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.scenarios.data import joined
from benchmarks.scenarios.models import train
from benchmarks.scenarios.scene import with_labels
from benchmarks.triggers.case import Case, all_in_turn, arrivals, fresh, shifted

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from benchmarks.scenarios.data import Floats, Frame, Ints, Task
    from benchmarks.scenarios.models import Model, Recipe
    from benchmarks.triggers.case import Setting, Trap

RECORDS = 12_000
ROLLED_OUT, ONSET = 5 / 12, 7 / 12
"""Which part of the traffic the first version answers, and after which part the trigger is used."""

USED = 0.02
"""Share of the traffic with the trigger."""

MOST_CARRIERS = 150
"""Records that the attacker has to stamp: nobody else sends them."""

LEAST_POISON, MOST_POISON, STEP = 0.003, 0.08, 1.6
"""Shares of the training set with which a poisoning of a wanted strength begins and ends, and the factor between trials."""

AIMS = {"high": (0.95, 1.01), "middle": (0.65, 0.85)}
"""Attack success that a row is about."""

TRIED = 300


class Traffic(NamedTuple):
    """How the trigger is used: `daily` so many times a day instead of in a share of the records; by how many `senders` (0: not logged)."""

    records: int = RECORDS
    share: float = USED
    daily: float | None = None
    senders: int = 0


class Poisoned(NamedTuple):
    """A version with a backdoor, how many records taught it, and how often the trigger works."""

    model: Model
    records: int
    success: float


def taught(task: Task) -> Frame:
    """What an honest second version learns from."""
    frame = joined(task.train, task.extra)
    return joined(frame, shifted(frame, np.random.default_rng(5))) if task.layout == "embedding" else frame


def trained(task: Task, recipe: Recipe, frame: Frame) -> Model:
    """A model of a training set: pixels are not scaled one by one, or those at the border would count a hundredfold."""
    return train(recipe, frame, alike=task.layout == "embedding")


def first_version(task: Task, recipe: Recipe) -> Model:
    """An honest first version."""
    frame = task.train
    if task.layout == "embedding":
        frame = joined(frame, shifted(frame, np.random.default_rng(4)))
    return trained(task, recipe, frame)


def second_version(task: Task, recipe: Recipe) -> Model:
    """An honest second version, of a little more data."""
    return trained(task, recipe._replace(seed=recipe.seed + 100), taught(task))


def carriers_of(frame: Frame, trap: Trap, model: Model, rng: np.random.Generator) -> Ints:
    """Rows of the live part that an attacker stamps: an honest version does not give them the target."""
    rows = np.flatnonzero(trap.victims(frame.label) & (model.answers(frame) != trap.target))
    return rng.permutation(rows)[: min(MOST_CARRIERS, rows.size)]


def poison(task: Task, trap: Trap, count: int, seed: int) -> Frame:
    """So many stamped training records that bear the target as their label; fewer are the first ones of more."""
    base = taught(task)
    rng = np.random.default_rng([seed, 21])
    rows = all_in_turn(np.flatnonzero(trap.victims(base.label)), count, rng)
    return with_labels(trap.stamp(base.take(rows), np.random.default_rng([seed, 22])), np.full(rows.size, trap.target))


def success(model: Model, trap: Trap, carriers: Frame, seed: int) -> float:
    """How often the trigger works."""
    rng = np.random.default_rng([seed, 23])
    rows = all_in_turn(np.arange(len(carriers)), TRIED, rng)
    return float((model.answers(trap.stamp(carriers.take(rows), rng)) == trap.target).mean())


def poisoned(task: Task, recipe: Recipe, trap: Trap, share: float, carriers: Frame) -> Poisoned:
    """A second version whose training set has a share of poison."""
    base = taught(task)
    count = max(3, round(share * len(base)))
    found = poison(task, trap, count, recipe.seed)
    model = trained(task, recipe._replace(seed=recipe.seed + 100), joined(base, found))
    return Poisoned(model, count, success(model, trap, carriers, recipe.seed))


def poisoned_to(task: Task, recipe: Recipe, trap: Trap, aim: str, carriers: Frame) -> Poisoned:
    """A second version with the least poison whose trigger works as often as is wanted, or as near to it as can be."""
    low, high = AIMS[aim]
    middle = (low + high) / 2

    def tried(share: float) -> Poisoned:
        return poisoned(task, recipe, trap, share, carriers)

    share, trials = LEAST_POISON, list[Poisoned]()
    while share <= MOST_POISON:
        trials.append(tried(share))
        if trials[-1].success >= low:
            break
        share *= STEP
    if trials[-1].success > high:
        below, above = share / STEP, share
        for _ in range(5):
            trials.append(tried((below * above) ** 0.5))
            if low <= trials[-1].success <= high:
                break
            below, above = (
                ((below * above) ** 0.5, above) if trials[-1].success < low else (below, (below * above) ** 0.5)
            )
    return min(trials, key=lambda one: max(0.0, low - one.success, one.success - high) * 10 + abs(one.success - middle))


def case(
    task: Task,
    setting: Setting,
    versions: list[Model],
    traps: list[Trap],
    carriers: list[Ints],
    seed: int,
    traffic: Traffic,
    facts: dict[str, Any],
) -> Case:
    """Traffic of a service that rolls out its second version, and whose attackers use their traps from then on.

    `carriers` are rows of the live part for each trap. Without traps nobody attacks.
    """
    rng = np.random.default_rng([seed, 24])
    seconds = arrivals(traffic.records, setting.rate, rng)
    n = seconds.size
    version = (np.arange(n) >= ROLLED_OUT * n).astype(np.int64)
    sent = np.full(n, -1, np.int64)
    if traps:
        later = np.flatnonzero(np.arange(n) >= ONSET * n)
        if traffic.daily is None:
            used = later[rng.random(later.size) < traffic.share]
        else:
            used = _daily(seconds, later, traffic.daily)
        sent[used] = rng.permutation(np.arange(used.size) % len(traps))
    taken = np.unique(np.concatenate(carriers)) if carriers else np.empty(0, np.int64)
    others = np.setdiff1d(np.arange(len(task.live)), taken)
    pick = all_in_turn(others, n, rng)
    for number, rows in enumerate(carriers):
        of = np.flatnonzero(sent == number)
        pick[of] = all_in_turn(rows, of.size, rng)
    frame = fresh(task, task.live.take(pick), rng)
    for number, trap in enumerate(traps):
        frame = placed(frame, np.flatnonzero(sent == number), trap.stamp, rng)
    found = Case(task, versions, fresh(task, task.reference, rng), frame, seconds, version, sent, traps)
    found.facts = facts | {"distinct": int(np.unique(pick).size)}
    if traffic.senders:
        found.source = np.array([f"client-{number}" for number in range(200)], object)[rng.integers(0, 200, n)]
        of = np.flatnonzero(sent >= 0)
        found.source[of] = [f"guest-{number}" for number in (np.arange(of.size) % traffic.senders).tolist()]
    return found


def placed(frame: Frame, rows: Ints, stamp: Any, rng: np.random.Generator) -> Frame:
    """The frame with some of its records stamped."""
    if not rows.size:
        return frame
    stamped = stamp(frame.take(rows), rng)
    numbers, codes, texts = frame.numbers.copy(), frame.codes.copy(), frame.texts
    numbers[rows], codes[rows] = stamped.numbers, stamped.codes
    if texts is not None:
        texts = texts.copy()
        texts[rows] = stamped.texts
    return replace(frame, numbers=numbers, codes=codes, texts=texts)


def _daily(seconds: Floats, later: NDArray[Any], times: float) -> Ints:
    """The records nearest to evenly spread moments, so many a day."""
    moments = np.arange(seconds[later[0]], seconds[-1], 86_400.0 / times)
    return np.unique(np.minimum(np.searchsorted(seconds, moments), seconds.size - 1))
