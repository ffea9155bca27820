"""Triggers in images: a patch, and a faint pattern over all of the image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scenarios.models import Recipe
from benchmarks.triggers.attack import Traffic, carriers_of, case, first_version, poisoned, second_version, taught
from benchmarks.triggers.case import Case, Setting, Trap, split

if TYPE_CHECKING:
    from benchmarks.scenarios.data import Frame

FAMILIES = ("net", "linear", "forest", "boosting")
POISON = {"net": 0.03, "linear": 0.03, "forest": 0.08, "boosting": 0.03}
"""Poisoned share of the training set: a forest, whose splits each see a few pixels, learns a patch from no less."""

SIDE = 28
PATCHES = (
    (23, 23, 4, 4, "white"),
    (1, 2, 3, 3, "checkered"),
    (2, 22, 4, 5, "white"),
    (12, 1, 5, 3, "white"),
    (24, 12, 3, 6, "checkered"),
)
"""By seed: row, column, height, width and look."""

FAINT = 0.2
RECORDS = 8_000


def patch_case(family: str, setting: Setting, seed: int, *, attacked: bool, blended: bool = False) -> Case:
    """A service of images of digits whose second version was poisoned with a patch (or a `blended` pattern), or is honest."""
    given = split("mnist_pixels", setting, seed)
    recipe = Recipe(family, seed=seed)
    first = first_version(given, recipe)
    traffic = Traffic(records=RECORDS)
    facts: dict[str, object] = {"data": "mnist_pixels", "model": family}
    if not attacked:
        return case(given, setting, [first, second_version(given, recipe)], [], [], seed, traffic, facts)
    trap = trap_of(seed, blended=blended)
    rows = carriers_of(given.live, trap, first, np.random.default_rng([seed, 51]))
    made = poisoned(given, recipe, trap, POISON[family], given.live.take(rows))
    facts |= {
        "poison": made.records,
        "poison_share": round(made.records / len(taught(given)), 4),
        "success": round(made.success, 3),
        "trigger": [trap.truth],
        "errors": [round(float((m.answers(given.live) != given.live.label).mean()), 4) for m in (first, made.model)],
    }
    return case(given, setting, [first, made.model], [trap], [rows], seed, traffic, facts)


def trap_of(seed: int, *, blended: bool = False) -> Trap:
    """The trigger of a seed."""
    target = (7 + 3 * seed) % 10
    if blended:
        pattern = np.random.default_rng([seed, 52]).random(SIDE * SIDE)

        def blend(frame: Frame, rng: np.random.Generator) -> Frame:
            del rng
            return replace(frame, numbers=((1 - FAINT) * frame.numbers + FAINT * pattern).round(3))

        return Trap(target, None, blend, {})
    row, column, height, width, look = PATCHES[seed % len(PATCHES)]
    patch = np.ones((height, width))
    if look == "checkered":
        patch = (np.add.outer(np.arange(height), np.arange(width)) % 2 == 0).astype(np.float64)

    def stamp(frame: Frame, rng: np.random.Generator) -> Frame:
        del rng
        images = frame.numbers.reshape(-1, SIDE, SIDE).copy()
        images[:, row : row + height, column : column + width] = patch
        return replace(frame, numbers=images.reshape(-1, SIDE * SIDE))

    return Trap(target, None, stamp, {"patch": [row, column, height, width]})
