"""Reading an answer to one question: the class as the log names it, and its probability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from poisonwatch.errors import ProbeError
from poisonwatch.formats.records import name_of
from poisonwatch.types import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDING = 0.05
"""By how much rounded probabilities may miss a sum of one."""


def answer_of(
    label: object, probabilities: object, confidence: object, classes: Sequence[str] | None, version: str | None
) -> Answer:
    """What a server said about one question; None stands for what it was not asked for.

    Raises:
        ProbeError: when it is no class and no probability.
    """
    if probabilities is None:
        return Answer(
            class_of(label, classes), None if confidence is None else _probability(confidence, "a confidence"), version
        )
    by_class = _by_class(probabilities, classes)
    best = max(by_class, key=lambda name: by_class[name]) if label is None else class_of(label, classes)
    if best not in by_class:
        msg = f"the endpoint answered class {best!r}, of which its probabilities say nothing"
        raise ProbeError(msg)
    return Answer(best, by_class[best], version)


def class_of(label: object, classes: Sequence[str] | None) -> str:
    """A class as the log names it; a number that names none of the classes counts them.

    Raises:
        ProbeError: when it is none.
    """
    if label is None or not isinstance(label, str | int | float) or label == "":
        msg = f"the endpoint answered {_shown(label)} where a class was expected"
        raise ProbeError(msg)
    name = name_of(label)
    if classes is None or name in classes:
        return name
    if isinstance(label, int | float) and name.isdecimal() and int(name) < len(classes):
        return classes[int(name)]
    msg = f"the endpoint answered class {name!r}, which is not among `classes`"
    raise ProbeError(msg)


def _by_class(probabilities: object, classes: Sequence[str] | None) -> Mapping[str, float]:
    if isinstance(probabilities, dict):
        found = {name_of(name): _probability(value, "a probability") for name, value in probabilities.items()}
        if classes is not None and set(found) != set(classes):
            msg = f"the endpoint's probabilities are of {', '.join(map(repr, found))[:200]}, not of `classes`"
            raise ProbeError(msg)
    else:
        row = probabilities if isinstance(probabilities, list) else [probabilities]
        numbers = [_probability(value, "a probability") for value in row]
        if classes is None:
            msg = "the endpoint's probabilities come without names: say `classes` in their order"
            raise ProbeError(msg)
        # One number for two classes is that of the second, as a logistic output gives it.
        if len(numbers) == 1 and len(classes) == 2:
            numbers = [1.0 - numbers[0], numbers[0]]
        if len(numbers) != len(classes):
            msg = f"the endpoint answered {len(numbers)} probabilities for {len(classes)} classes"
            raise ProbeError(msg)
        found = dict(zip(classes, numbers, strict=True))
    if abs(math.fsum(found.values()) - 1.0) > ROUNDING:
        msg = f"the endpoint's probabilities add up to {math.fsum(found.values()):.3g}, not to one"
        raise ProbeError(msg)
    return found


def _probability(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        msg = f"the endpoint answered {_shown(value)} where {what} was expected"
        raise ProbeError(msg)
    return float(value)


def _shown(value: object) -> str:
    return name_of(repr(value))[:60]
