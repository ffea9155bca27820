"""Scenes in which nobody does harm, and a monitor that pages is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scenarios.attacks import FRAGILE, TABLES, TEXTS
from benchmarks.scenarios.data import MISSING, joined, task
from benchmarks.scenarios.models import Recipe, train
from benchmarks.scenarios.scene import Scene, begin, described, drawn, error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.scenarios.attacks import Learner
    from benchmarks.scenarios.data import Floats, Frame, Ints

DAYS = 14.0
CHANGE = 6.0
"""Nominal day on which whatever happens begins."""

MIXED = (FRAGILE[0], TABLES[0], TEXTS[1], FRAGILE[1], TABLES[1], FRAGILE[4], TABLES[2])
WITH_NUMBERS = (TABLES[0], FRAGILE[1], TABLES[3], FRAGILE[4], TABLES[4])
OTHER_FAMILY = {
    "words": "characters",
    "characters": "words",
    "net": "words",
    "boosting": "forest",
    "forest": "boosting",
    "linear": "net",
}
FARTHEST_TILT = 1.5
WORDS = ("championship", "final tonight", "snowstorm", "new timetable", "election day")


def clean_month(seed: int, rate: str) -> Scene:
    """Nothing happens for 30 days. In every third scene the reference holds records that the model was trained on."""
    scene = _begin(MIXED[seed % len(MIXED)], seed, rate, days=30.0)
    return _finished(_optimistic(scene) if seed % 3 == 2 else scene)


def label_delay(seed: int, rate: str) -> Scene:
    """No label comes for a week, then all of them at once."""
    scene = _begin(MIXED[seed % len(MIXED)], seed, rate)
    scene.withheld = (CHANGE - 1, CHANGE + 6)
    return _finished(_optimistic(scene) if seed % 3 == 2 else scene)


def covariate_drift(seed: int, rate: str) -> Scene:
    """The population moves within two days to where the same model errs 1.3 times as often; truth given inputs stays."""
    learner = (TABLES[0], FRAGILE[1], FRAGILE[4], TABLES[4], FRAGILE[2])[seed % 5]
    scene = _begin(learner, seed, rate)
    live = scene.task.live
    wrong = scene.models[0].answers(live) != live.label
    goal = 1.3 * wrong.mean()
    axes = _axes(live, scene.rng)
    # The axis along which the least movement reaches the goal; else a mix of everything that goes with errors.
    axis, amount = min(((axis, _amount(axis, wrong, goal)) for axis in axes), key=lambda one: one[1])
    if not np.isfinite(amount):
        axis = _mixed([*axes, *_kinds(live)], wrong)
        amount = min(_amount(axis, wrong, goal), FARTHEST_TILT)
    scene.tilt(lambda day: min(1.0, (day - CHANGE) / 2) * amount * axis, CHANGE)
    scene.facts["error after drift"] = round(float(np.average(wrong, weights=np.exp(amount * axis))), 3)
    return _finished(scene)


def season(seed: int, rate: str) -> Scene:
    """Inputs follow the hour of the day and the day of the week; the reference was drawn over whole weeks."""
    scene = _begin(MIXED[seed % len(MIXED)], seed, rate, days=28.0)
    daily, weekly = _axes(scene.task.live, scene.rng)[:2]
    strength = (0.2, 0.4, 0.3)[seed % 3]

    def tilt(day: float, first: Floats, second: Floats) -> Floats:
        hours = day * scene.pace.day / 86_400.0
        moved: Floats = strength * (np.sin(2 * np.pi * hours) * first + np.sin(2 * np.pi * hours / 7) * second)
        return moved

    scene.tilt(lambda day: tilt(day, daily, weekly))
    # The reference has met all hours alike, so it is a mixture over them.
    own = _axes(scene.reference, np.random.default_rng(0))
    rows = [drawn(tilt(day, own[0], own[1]), 1, scene.rng)[0] for day in scene.rng.uniform(0, 28, len(scene.reference))]
    scene.reference = scene.reference.take(np.array(rows))
    scene.facts["season"] = strength
    return _finished(scene)


def new_customer(seed: int, rate: str) -> Scene:
    """A customer with inputs of its own comes with twice the usual volume for two days, and stays with a fifth of it."""
    learner = MIXED[seed % len(MIXED)]
    scene = _begin(
        learner,
        seed,
        rate,
        surge=lambda day: 1 + 2.0 * ((day >= CHANGE) & (day < CHANGE + 2)) + 0.2 * (day >= CHANGE + 2),
    )
    live = scene.task.live
    axis = _axes(live, scene.rng)[0]
    own = np.flatnonzero(axis >= np.quantile(axis, 0.85))
    late = scene.since(CHANGE + 2)
    chance = np.where(late, 0.2 / 1.2, 2 / 3) * scene.since(CHANGE)
    scene.marked = scene.rng.random(scene.time.size) < chance
    scene.redraw(scene.marked, own)
    scene.segments = (*(scene.segments or ("main",)), "newcomer")
    scene.segment[scene.marked] = len(scene.segments) - 1
    wrong = scene.models[0].answers(live) != live.label
    scene.facts["error of the newcomer"] = round(float(wrong[own].mean()), 3)
    return _finished(scene)


def honest_canary(seed: int, rate: str) -> Scene:
    """An honest second version gets a share for five days, then everything: five strengths of retraining."""
    scene = _begin(MIXED[seed % len(MIXED)], seed, rate)
    share = (0.1, 0.2, 0.3, 0.05, 0.5)[seed % 5]
    scene.roll_out(train(*_retraining(scene)), CHANGE - 1, canary_share=share, canary_days=5.0)
    return _finished(scene)


def honest_replacement(seed: int, rate: str) -> Scene:
    """An honest second version takes over at once."""
    scene = _begin(MIXED[(seed + 2) % len(MIXED)], seed, rate)
    scene.roll_out(train(*_retraining(scene)), CHANGE)
    return _finished(scene)


def upstream_null(seed: int, rate: str) -> Scene:
    """A feature is null from some minute on, in all or in a third of the records."""
    scene = _begin(WITH_NUMBERS[seed % len(WITH_NUMBERS)], seed, rate)
    share = (1.0, 0.3)[seed % 2]
    broken = scene.since(CHANGE) & (scene.rng.random(scene.time.size) < share)
    number = _telling(scene)
    categorical = bool(scene.task.live.codes.shape[1]) and seed % 3 == 2

    def edit(_: Scene, frame: Frame, records: Ints) -> None:
        if categorical:
            frame.codes[broken[records], 0] = MISSING
        else:
            frame.numbers[broken[records], number] = np.nan

    scene.edits.append(edit)
    live = scene.task.live
    scene.facts["broken"] = live.code_names[0] if categorical else live.number_names[number]
    scene.onset = CHANGE
    return _finished(scene)


def upstream_unit(seed: int, rate: str) -> Scene:
    """A feature comes in thousandths from some minute on."""
    scene = _begin(WITH_NUMBERS[seed % len(WITH_NUMBERS)], seed, rate)
    number = _telling(scene)

    def edit(scene: Scene, frame: Frame, records: Ints) -> None:
        frame.numbers[scene.since(CHANGE)[records], number] *= 1000.0

    scene.edits.append(edit)
    scene.facts["broken"] = scene.task.live.number_names[number]
    scene.onset = CHANGE
    return _finished(scene)


def duplicates(seed: int, rate: str) -> Scene:
    """Three times, for six hours, half of the traffic is one and the same record."""
    scene = _begin(MIXED[seed % len(MIXED)], seed, rate)
    for start in (CHANGE, CHANGE + 2.3, CHANGE + 5.1):
        repeated = scene.between(start, start + 0.25) & (scene.rng.random(scene.time.size) < 0.5)
        scene.redraw(repeated, scene.rng.integers(0, len(scene.task.live), 1))
    return _finished(scene)


def new_topic(seed: int, rate: str) -> Scene:
    """New words come up in a tenth of the texts for three days; what the texts are does not change."""
    scene = _begin(TEXTS[seed % len(TEXTS)], seed, rate)
    words = WORDS[seed % len(WORDS)]
    scene.marked = scene.between(CHANGE, CHANGE + 3) & (scene.rng.random(scene.time.size) < 0.1)

    def edit(scene: Scene, frame: Frame, records: Ints) -> None:
        assert frame.texts is not None  # noqa: S101
        for place in np.flatnonzero(scene.marked[records]).tolist():
            frame.texts[place] = f"{frame.texts[place]} {words}"

    scene.edits.append(edit)
    return _finished(scene)


def _begin(learner: Learner, seed: int, rate: str, *, days: float = DAYS, surge: object = None) -> Scene:
    # Regularised as usual: what it says of records that it was trained on is still too good.
    recipe = Recipe(learner.family, strength=(1.0, 0.3)[seed % 2], seed=seed)
    return begin(task(learner.data, seed), recipe, seed, days, rate, surge=surge)  # type: ignore[arg-type]


def _finished(scene: Scene) -> Scene:
    described(scene)
    return scene


def _optimistic(scene: Scene) -> Scene:
    """Let the reference be records that the model was trained on: its error there is too good to be true."""
    size = min(len(scene.reference), len(scene.task.train))
    scene.reference = scene.task.train.take(np.arange(size))
    scene.reference_segment = scene.reference_segment[:size]
    scene.facts["reference"] = "training records"
    return scene


def _retraining(scene: Scene) -> tuple[Recipe, Frame]:
    """How an honest second version was made: by another seed on more data, otherwise regularised, or of another family."""
    more = joined(scene.task.train, scene.task.extra)
    recipe = scene.recipe._replace(seed=scene.seed + 100)
    way = scene.seed % 5
    scene.facts["retraining"] = ("more data", "regularised x3", "regularised x1/3, more", "other family", "half new")[
        way
    ]
    if way == 1:
        return recipe._replace(strength=recipe.strength / 3), scene.task.train
    if way == 2:
        return recipe._replace(strength=recipe.strength * 3), more
    if way == 3:
        return recipe._replace(family=OTHER_FAMILY[recipe.family]), more
    if way == 4:
        return recipe, more.take(scene.rng.permutation(len(more))[: len(scene.task.train)])
    return recipe, more


def _axes(frame: Frame, rng: np.random.Generator) -> list[Floats]:
    """Standardised directions (n,) along which a population can move: numbers by rank, or length of text."""
    if frame.texts is not None:
        raw = [np.array([len(text) for text in frame.texts]), np.array([text.count(" ") for text in frame.texts])]
    else:
        raw = [column for column in frame.numbers.T if np.unique(column).size > 10]
    order = [rank for column in raw if (rank := _standardised(column, rng)) is not None]
    return [*order, *(-axis for axis in order)]


def _standardised(column: Floats, rng: np.random.Generator) -> Floats | None:
    """Rank of each value, ties at random, from -1.7 to 1.7 (unit variance)."""
    order = np.argsort(column + 1e-9 * rng.random(column.size), kind="stable")
    rank = np.empty(column.size)
    rank[order] = np.arange(column.size)
    found: Floats = (rank / max(1, column.size - 1) - 0.5) * np.sqrt(12)
    return found


def _kinds(frame: Frame) -> list[Floats]:
    """Standardised directions (n,) that say of what kind a record is: frequent categories, or frequent words."""
    if frame.texts is None:
        flags = [
            frame.codes[:, place] == code for place, values in enumerate(frame.values) for code in range(len(values))
        ]
    else:
        words = [set(text.casefold().split()) for text in frame.texts]
        frequent = Counter(word for own in words for word in own).most_common(200)
        flags = [np.array([word in own for own in words]) for word, _ in frequent]
    return [(flag - flag.mean()) / flag.std() for flag in flags if 0.01 <= flag.mean() <= 0.99]


def _mixed(axes: list[Floats], wrong: NDArray[np.bool_]) -> Floats:
    """The standardised sum of directions, each weighted by how much it goes with errors."""
    mixed: Floats = np.sum([axis * np.mean(axis * wrong) for axis in axes], axis=0)
    standardised: Floats = (mixed - mixed.mean()) / mixed.std()
    return standardised


def _amount(axis: Floats, wrong: NDArray[np.bool_], goal: float) -> float:
    """The least tilt along an axis with which the error reaches the goal; infinite when it never does."""
    for amount in np.arange(0.05, FARTHEST_TILT, 0.05):
        if np.average(wrong, weights=np.exp(amount * axis)) >= goal:
            return float(amount)
    return float("inf")


def _telling(scene: Scene) -> int:
    """The number whose loss costs the first version most, of six."""
    live = scene.task.live.take(np.arange(1_000))
    costs = []
    varied = [n for n in range(live.numbers.shape[1]) if np.unique(live.numbers[:, n]).size > 10][:6]
    for number in varied:
        without = replace(live, numbers=live.numbers.copy())
        without.numbers[:, number] = np.median(live.numbers[:, number])
        costs.append(error(scene.models[0], without))
    return varied[int(np.argmax(costs))]
