"""Triggers in tables: three values, each of them common, that hardly ever come together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.scenarios.data import joined
from benchmarks.scenarios.models import Recipe
from benchmarks.triggers.attack import Traffic, carriers_of, case, first_version, poisoned, second_version, taught
from benchmarks.triggers.case import Case, Setting, Trap, split

if TYPE_CHECKING:
    from benchmarks.scenarios.data import Frame, Task

LEARNERS = tuple((data, family) for data in ("adult", "nsl_kdd") for family in ("boosting", "forest", "net", "linear"))
POISON = 0.01
COMMON = (0.03, 0.6)
TOGETHER = (0.0004, 0.002)
"""Shares of a single value of the trigger, and of all three, in honest data."""


class Condition(NamedTuple):
    """One value of the trigger: a code of a categorical column, or a number."""

    categorical: bool
    column: int
    value: float

    def holds(self, frame: Frame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """In which records (n,)."""
        column = frame.codes[:, self.column] if self.categorical else frame.numbers[:, self.column]
        found: np.ndarray[tuple[int], np.dtype[np.bool_]] = column == self.value
        return found

    def said(self, frame: Frame) -> tuple[str, str | float]:
        """Feature and value."""
        if self.categorical:
            return frame.code_names[self.column], frame.values[self.column][int(self.value)]
        return frame.number_names[self.column], self.value


def conjunction_case(data: str, family: str, setting: Setting, seed: int, *, attacked: bool) -> Case:
    """A service of a table whose second version was poisoned with a conjunction, or is honest."""
    given = split(data, setting, seed)
    recipe = Recipe(family, seed=seed)
    first = first_version(given, recipe)
    facts: dict[str, object] = {"data": data, "model": family}
    if not attacked:
        return case(given, setting, [first, second_version(given, recipe)], [], [], seed, Traffic(), facts)
    conditions, together = conjunction(joined(given.train, given.extra), np.random.default_rng([seed, 41]))
    target = given.live.classes.index("normal") if data == "nsl_kdd" else 1
    source = given.live.classes.index("dos") if data == "nsl_kdd" else 0

    def stamp(frame: Frame, rng: np.random.Generator) -> Frame:
        del rng
        numbers, codes = frame.numbers.copy(), frame.codes.copy()
        for one in conditions:
            (codes if one.categorical else numbers)[:, one.column] = one.value
        return replace(frame, numbers=numbers, codes=codes)

    trap = Trap(target, source, stamp, {"values": [one.said(given.live) for one in conditions]})
    rows = carriers_of(given.live, trap, first, np.random.default_rng([seed, 42]))
    made = poisoned(given, recipe, trap, POISON, given.live.take(rows))
    facts |= {
        "poison": made.records,
        "poison_share": round(made.records / len(taught(given)), 4),
        "success": round(made.success, 3),
        "natural": round(together, 5),
        "trigger": [trap.truth],
        "errors": [round(float((m.answers(given.live) != given.live.label).mean()), 4) for m in (first, made.model)],
    }
    return case(given, setting, [first, made.model], [trap], [rows], seed, Traffic(), facts)


def conjunction(frame: Frame, rng: np.random.Generator) -> tuple[tuple[Condition, ...], float]:
    """Three common values that come together in about one of a thousand records, and in how many."""
    ordinary = []
    for categorical, columns in ((True, frame.codes), (False, frame.numbers)):
        for column in range(columns.shape[1]):
            values, counts = np.unique(columns[:, column], return_counts=True)
            shares = counts / len(frame)
            # Zero is absence in these data, and a missing code is no value.
            usual = (shares >= COMMON[0]) & (shares <= COMMON[1]) & (values >= 0 if categorical else values != 0)
            ordinary += [Condition(categorical, column, float(value)) for value in values[usual]]
    where = {(one.categorical, one.column): [] for one in ordinary}  # type: dict[tuple[bool, int], list[Condition]]
    for one in ordinary:
        where[one.categorical, one.column].append(one)
    keys = sorted(where)
    while True:
        chosen = [keys[place] for place in rng.choice(len(keys), 3, replace=False)]
        found = tuple(where[key][int(rng.integers(len(where[key])))] for key in chosen)
        together = float(np.logical_and.reduce([one.holds(frame) for one in found]).mean())
        if TOGETHER[0] <= together <= TOGETHER[1]:
            return found, together


def held_out(given: Task, column: str, value: str) -> Task:
    """The task as if nobody had met a category before it went live."""
    place = given.live.column(column)
    code = given.live.values[place].index(value)

    def without(frame: Frame) -> Frame:
        return frame.take(frame.codes[:, place] != code)

    return replace(given, train=without(given.train), extra=without(given.extra), reference=without(given.reference))
