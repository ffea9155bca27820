"""How often benign predictions are surprising or flipped: bounds per version and predicted class, from what came before. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.mining.records import Records
    from poisonwatch.types import Floats, Ints

LEAST = np.array([0.06, 0.02])
"""Bounds for surprising and for flipped are never below: three times the rate that surprises have by construction, and a few per cent."""

TIMES = 2.0
"""A bound is this many times the class's rate in the reference, and in the version's own traffic so far.

A pattern's predictions differ from the average: they may be so much more often surprising before that says anything. Patterns
that the reference shows to be odder than that have bounds of their own in the engines.
"""

LARGEST = 0.6
"""A bound beyond this leaves nothing to find: evidence against it would need thousands of predictions."""

PRIOR = 50.0
"""Predictions with the reference's rates that a version's own are added to."""


class Nulls:
    """Bounds, kept by counts. `reference` (2, classes) are the out-of-fold rates of the reference by predicted class."""

    def __init__(self, reference: Floats) -> None:
        self._reference = reference
        self._counts: dict[int, Ints] = {}

    def of(self, version: Ints, label: Ints) -> Floats:
        """Bounds (2, n) for predictions of versions (n,) and classes (n,); they do not depend on these predictions."""
        bounds = np.broadcast_to(LEAST[:, None], (2, version.size)).copy()
        known = label >= 0
        for number in np.unique(version).tolist():
            chosen = known & (version == number)
            bounds[:, chosen] = self._bounds(number)[:, label[chosen]]
        return bounds

    def _bounds(self, version: int) -> Floats:
        counts = self._counts.get(version)
        own = self._reference if counts is None else (counts[1:] + PRIOR * self._reference) / (counts[0] + PRIOR)
        return np.clip(TIMES * np.maximum(self._reference, own), LEAST[:, None], LARGEST)

    def add(self, records: Records) -> None:
        """Count a block, after it was judged."""
        classes = self._reference.shape[1]
        known = (records.label >= 0) & records.fresh
        for number in np.unique(records.version[known]).tolist():
            chosen = known & (records.version == number)
            label = records.label[chosen]
            counts = np.stack(
                [
                    np.bincount(label, minlength=classes),
                    np.bincount(label, records.surprising[chosen], classes).astype(np.int64),
                    np.bincount(label, records.flipped[chosen], classes).astype(np.int64),
                ]
            )
            self._counts[number] = counts + self._counts[number] if number in self._counts else counts

    def forget(self, version: int) -> None:
        """A version is gone."""
        self._counts.pop(version, None)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"versions": list(self._counts), "counts": np.array(list(self._counts.values()), np.int64)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._counts = dict(zip(state["versions"], state["counts"], strict=True))
