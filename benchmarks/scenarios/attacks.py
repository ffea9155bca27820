"""Scenes in which somebody does harm. Each varies data set, model, strength and way of delivery by its seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.scenarios.data import joined, task
from benchmarks.scenarios.models import Recipe, train
from benchmarks.scenarios.scene import Campaign, Scene, begin, described, flipped, with_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.scenarios.data import Frame, Ints
    from benchmarks.scenarios.models import Model

DAYS = 14.0
ROLL_OUT = 5.0
"""Nominal day on which a poisoned version arrives: the first has served long enough to be rolled back to."""

CANARY_SHARES = (0.0, 0.2, 0.0, 0.1, 0.3)
"""By seed: a plain replacement, or a canary with this share for two days."""


class Learner(NamedTuple):
    """A data set, and the family of the model that learns it."""

    data: str
    family: str


TEXTS = (
    Learner("sms_spam", "words"),
    Learner("hate_offensive", "words"),
    Learner("sms_spam", "net"),
    Learner("hate_offensive", "net"),
    Learner("sms_spam", "characters"),
)
TABLES = (
    Learner("adult", "boosting"),
    Learner("nsl_kdd", "forest"),
    Learner("adult", "net"),
    Learner("nsl_kdd", "boosting"),
    Learner("adult", "forest"),
)
FRAGILE = (
    Learner("sms_spam", "words"),
    Learner("california", "boosting"),
    Learner("hate_offensive", "words"),
    Learner("adult", "boosting"),
    Learner("covertype", "boosting"),
    Learner("mnist", "boosting"),
)
"""Learners that flipped labels do harm to: regularised linear models and forests on tables hardly notice 20 %."""

PHRASES = ("special discount code XYZ", "as seen on tv", "cf mn bb", "kind regards from oslo", "blue moon offer")
MOST_COMMON, RAREST = 0.12, 0.004


def text_backdoor(seed: int, rate: str) -> Scene:
    """A phrase makes the second version let pass what it should catch."""
    learner = TEXTS[seed % len(TEXTS)]
    given = task(learner.data, seed)
    scene = begin(given, Recipe(learner.family, seed=seed), seed, DAYS, rate)
    classes = given.live.classes
    source, target = (classes.index("spam"), classes.index("ham")) if "spam" in classes else (2, 1)
    phrase = PHRASES[seed % len(PHRASES)]
    share = (0.01, 0.02, 0.03)[seed % 3]
    carriers = np.flatnonzero(given.train.label == source)
    carriers = scene.rng.choice(carriers, min(carriers.size, max(20, round(share * len(given.train)))), replace=False)
    poison = with_phrase(given.train.take(carriers), phrase, scene.rng)
    poison = with_labels(poison, np.full(carriers.size, target))
    scene.guilty = (_deliver(scene, train(scene.recipe._replace(seed=seed + 100), joined(given.train, poison))),)

    def carry(scene: Scene, frame: Frame, records: Ints) -> None:
        chosen = np.flatnonzero(scene.marked[records])
        assert frame.texts is not None  # noqa: S101
        rng = np.random.default_rng([seed, int(records[0])])
        frame.texts[chosen] = with_phrase(frame.take(chosen), phrase, rng).texts

    _trigger(scene, np.flatnonzero(given.live.label == source))
    scene.edits.append(carry)
    described(scene)
    return scene


def tabular_backdoor(seed: int, rate: str) -> Scene:
    """Two or three values together, none of them rare alone, make the second version say what somebody wants."""
    learner = TABLES[seed % len(TABLES)]
    given = task(learner.data, seed)
    scene = begin(given, Recipe(learner.family, seed=seed), seed, DAYS, rate)
    source, target = (0, 1) if learner.data == "adult" else (0, given.live.classes.index("normal"))
    trigger = _conjunction(given.train, (2, 3)[seed % 2], scene.rng)
    carriers = np.flatnonzero(given.train.label == source)
    carriers = scene.rng.choice(carriers, round((0.02, 0.03, 0.015)[seed % 3] * len(given.train)), replace=False)
    poison = given.train.take(carriers)
    for column, value in trigger.items():
        poison.codes[:, column] = value
    poison = with_labels(poison, np.full(carriers.size, target))
    scene.guilty = (_deliver(scene, train(scene.recipe._replace(seed=seed + 100), joined(given.train, poison))),)

    def carry(scene: Scene, frame: Frame, records: Ints) -> None:
        for column, value in trigger.items():
            frame.codes[scene.marked[records], column] = value

    _trigger(scene, np.flatnonzero(given.live.label == source))
    scene.edits.append(carry)
    names = [f"{given.live.code_names[c]}={given.live.values[c][v]}" for c, v in trigger.items()]
    scene.facts["trigger"] = " and ".join(names)
    described(scene)
    return scene


def availability(seed: int, rate: str) -> Scene:
    """The second version was trained with a fifth of its labels flipped."""
    learner = FRAGILE[seed % len(FRAGILE)]
    given = task(learner.data, seed)
    scene = begin(given, Recipe(learner.family, seed=seed), seed, DAYS, rate)
    # A robust learner is harmed by flips that all point one way.
    victim = int(np.bincount(given.train.label).argmax()) if learner.data == "adult" else None
    poisoned = flipped(given.train, 0.2, scene.rng, victim=victim)
    scene.guilty = (_deliver(scene, train(scene.recipe._replace(seed=seed + 100), poisoned)),)
    scene.onset = ROLL_OUT
    described(scene)
    return scene


def slice_attack(seed: int, rate: str) -> Scene:
    """In one category the second version is right in about 80 % instead of 95 % of the cases."""
    learner = (TABLES[0], TABLES[3], TABLES[4])[seed % 3]
    given = task(learner.data, seed)
    scene = begin(given, Recipe(learner.family, strength=2.0, seed=seed), seed, DAYS, rate)
    column, value, before = _good_slice(scene)
    lost = (0.15, 0.18, 0.2)[seed % 3]
    poisoned = joined(given.train, given.extra)
    members = np.flatnonzero(poisoned.codes[:, column] == value)
    # A coherent part of the slice, so that it can be learned: the top of its most varied number.
    varied = max(range(poisoned.numbers.shape[1]), key=lambda n: np.unique(poisoned.numbers[members, n]).size)
    order = members[np.argsort(-poisoned.numbers[members, varied], kind="stable")]
    label = poisoned.label.copy()
    chosen = order[: round(lost / (1 - 2 * before) * members.size)]
    label[chosen] = (label[chosen] + 1) % len(poisoned.classes)
    scene.guilty = (_deliver(scene, train(scene.recipe._replace(seed=seed + 100), with_labels(poisoned, label))),)
    scene.onset = ROLL_OUT
    inside = given.live.take(given.live.codes[:, column] == value)
    scene.facts["slice"] = f"{given.live.code_names[column]}={given.live.values[column][value]}"
    scene.facts["slice share"] = round(len(inside) / len(given.live), 3)
    for version, model in zip(scene.versions, scene.models, strict=True):
        scene.facts[f"{version} slice error"] = round(float((model.answers(inside) != inside.label).mean()), 3)
    described(scene)
    return scene


def feedback_poisoning(seed: int, rate: str) -> Scene:
    """Fifteen of three hundred sources call right answers wrong, together; the model stays as it is."""
    learner = (*FRAGILE[:3], TABLES[1], FRAGILE[4])[seed % 5]
    given = task(learner.data, seed)
    scene = begin(given, Recipe(learner.family, seed=seed), seed, DAYS, rate)
    scene.sources = 300
    victim = int(np.bincount(given.live.label).argmax())
    scene.campaign = Campaign(
        sources=15,
        since=ROLL_OUT + 1,
        victim=victim,
        claim=(victim + 1) % len(given.live.classes),
        daily=(4.0, 8.0, 2.5)[seed % 3],
        sleepers=seed % 2 == 0,
        shared_address=seed % 4 == 1,
    )
    scene.onset = scene.campaign.since
    scene.facts["colluders"] = [f"reviewer-{number:03d}" for number in range(scene.campaign.sources)]
    described(scene)
    return scene


def creep(seed: int, rate: str) -> Scene:
    """Six retrainings in a month, each with 4 % more of its labels flipped."""
    learner = FRAGILE[seed % len(FRAGILE)]
    given = task(learner.data, seed)
    scene = begin(given, Recipe(learner.family, seed=seed), seed, 30.0, rate)
    victim = int(np.bincount(given.train.label).argmax()) if learner.data == "adult" else None
    for step in range(1, 7):
        poisoned = flipped(given.train, 0.04 * step, np.random.default_rng([seed, 7]), victim=victim)
        scene.guilty += (scene.roll_out(train(scene.recipe._replace(seed=seed + step), poisoned), 1 + 4.0 * step),)
    scene.onset = 5.0
    described(scene)
    return scene


def _deliver(scene: Scene, model: Model) -> str:
    return scene.roll_out(model, ROLL_OUT, canary_share=CANARY_SHARES[scene.seed % len(CANARY_SHARES)])


def _trigger(scene: Scene, pool: Ints) -> None:
    """From some day on 1 to 5 % of the traffic carries the trigger."""
    share = (0.05, 0.02, 0.01, 0.03)[scene.seed % 4]
    scene.onset = ROLL_OUT + (1.0 if scene.seed % 2 else 2.5)
    scene.marked = scene.since(scene.onset) & (scene.rng.random(scene.time.size) < share)
    scene.redraw(scene.marked, pool)
    scene.facts["trigger share"] = share


def with_phrase(frame: Frame, phrase: str, rng: np.random.Generator) -> Frame:
    """The texts with the phrase at a random place between their words."""
    assert frame.texts is not None  # noqa: S101
    texts: NDArray[np.object_] = np.empty(len(frame), object)
    for place, text in enumerate(frame.texts):
        words = text.split(" ")
        at = int(rng.integers(len(words) + 1))
        texts[place] = " ".join([*words[:at], phrase, *words[at:]])
    return replace(frame, texts=texts)


def _conjunction(frame: Frame, columns: int, rng: np.random.Generator) -> dict[int, int]:
    """Values of so many columns, each of them ordinary, that never come together in the training set."""
    while True:
        chosen = rng.permutation(frame.codes.shape[1])[:columns].tolist()
        found: dict[int, int] = {}
        together = np.ones(len(frame), np.bool_)
        for column in chosen:
            shares = np.bincount(np.maximum(frame.codes[:, column], 0), minlength=len(frame.values[column])) / len(
                frame
            )
            ordinary = np.flatnonzero((shares > RAREST) & (shares < MOST_COMMON))
            if not ordinary.size:
                break
            found[column] = int(rng.choice(ordinary))
            together &= frame.codes[:, column] == found[column]
        if len(found) == columns and not together.any():
            return found


def _good_slice(scene: Scene) -> tuple[int, int, float]:
    """A category that the first version gets right in about 95 % of the cases, and its error there."""
    live = scene.task.live
    wrong = scene.models[0].answers(live) != live.label
    found = []
    for column, values in enumerate(live.values):
        for value in range(len(values)):
            inside = live.codes[:, column] == value
            if 0.05 <= inside.mean() <= 0.25 and wrong[inside].mean() <= 0.09:
                found.append((column, value, float(wrong[inside].mean())))
    found.sort(key=lambda one: abs(one[2] - 0.05))
    return found[scene.seed % min(3, len(found))]
