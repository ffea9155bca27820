"""Twenty sources of labels that turn one class into another, among two thousand honest ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.streams import DAY
from poisonwatch.config import DetectionConfig, budget_seconds
from poisonwatch.detect.sources import Sources, Votes

HONEST, COLLUDERS = 2000, 20
LABELS = 75_000
A_DAY = 4_000
BEGIN = 15_000
"""The label from which on the colluders take part."""

PART = 0.01
"""Of all labels, theirs."""

TURNED = 0.9
MODEL_ERROR = 0.05
SHARE = 0.10
"""Of the budget."""

STEP = 100
"""Labels between two looks at the accusations."""


@dataclass
class Colluders:
    """Labels that each colluder gave until it was named (infinite: never), honest sources named, other parties named."""

    items: list[float]
    honest: int
    others: int


def colluders(seed: int) -> Colluders:
    """Honest sources label by Zipf's law and err in 1 to 10 % of the cases; class 1 is what the others turn into 0."""
    rng = np.random.default_rng((seed, 60))
    activity = 1 / (1 + np.arange(HONEST)) ** 0.9
    source = rng.choice(HONEST, LABELS, p=activity / activity.sum())
    theirs = (np.arange(LABELS) >= BEGIN) & (rng.random(LABELS) < PART)
    source[theirs] = HONEST + rng.integers(0, COLLUDERS, int(theirs.sum()))
    truth = np.where(theirs, 1, rng.random(LABELS) < 0.4).astype(np.int64)
    error = rng.beta(4, 96, HONEST + COLLUDERS)
    predicted = np.where(rng.random(LABELS) < MODEL_ERROR, 1 - truth, truth)
    turned = rng.random(LABELS) < np.where(theirs, TURNED, error[source])
    votes = Votes(
        time=np.arange(LABELS, dtype=np.float64) * (DAY / A_DAY),
        source=np.array([f"user-{number}" for number in source], object),
        attributes=_each(()),
        prediction_id=np.array([f"p{number}" for number in range(LABELS)], object),
        item=np.arange(LABELS, dtype=np.uint64),
        predicted=predicted,
        label=np.where(turned, 1 - truth, truth),
    )
    confusion = np.array([[1710, 90], [60, 1140]])
    sources = Sources(confusion, SHARE, budget_seconds(DetectionConfig().budget))
    named: dict[int, float] = {}
    others: set[str] = set()
    given = np.zeros(HONEST + COLLUDERS, np.int64)
    for first in range(0, LABELS, STEP):
        sources.step(_part(votes, slice(first, first + STEP)))
        np.add.at(given, source[first : first + STEP], 1)
        for accusation in sources.accusations():
            guilty = accusation.members or ((accusation.source,) if accusation.kind == "source" else ())
            for name in guilty:
                number = int(name.removeprefix("user-"))
                named.setdefault(number, float(given[number]))
            if not guilty:
                others.add(accusation.source)
    items = [named.get(HONEST + number, np.inf) for number in range(COLLUDERS)]
    return Colluders(items, sum(number < HONEST for number in named), len(others))


def _each(value: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    values = np.empty(LABELS, object)
    values.fill(value)
    return values


def _part(votes: Votes, part: slice) -> Votes:
    return Votes(
        votes.time[part],
        votes.source[part],
        votes.attributes[part],
        votes.prediction_id[part],
        votes.item[part],
        votes.predicted[part],
        votes.label[part],
    )
