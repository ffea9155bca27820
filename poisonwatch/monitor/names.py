"""Names of versions that a log may bring: so many are kept apart, and all beyond them are one.

Everything that is counted by version is counted in memory, so nobody who writes names must choose how much of it. Which names
are kept depends on the predictions in their order, never on how the log was chopped.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.types import OTHER_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.types import Batch

SPAN = 3600.0
"""Seconds of event time after which a name that was not met again gives up its place; up to twice as long."""


class Names:
    """Keeps `most` names apart, the first that come, and those that are `known` in any case.

    A name that is met in every span of time keeps its place, whoever floods the log with others.
    """

    def __init__(self, most: int, known: frozenset[str]) -> None:
        self._most, self._known = most, known
        self._span = -1
        self._now: dict[str, None] = {}
        self._before: dict[str, None] = {}

    def keep(self, batch: Batch) -> Batch:
        """The batch with names that have no place called `other`."""
        if not batch.time.size:
            return batch
        spans = np.floor(np.maximum.accumulate(batch.time) / SPAN).astype(np.int64)
        spans = np.maximum(spans, self._span)
        edges = [0, *(np.flatnonzero(np.diff(spans)) + 1).tolist(), spans.size]
        codes = np.empty_like(batch.version)
        versions: dict[str, int] = {}
        for first, last in pairwise(edges):
            self._turn(int(spans[first]))
            met, place, back = np.unique(batch.version[first:last], return_index=True, return_inverse=True)
            here = np.empty(met.size, batch.version.dtype)
            for index in np.argsort(place, kind="stable").tolist():
                name = self._kept(batch.versions[int(met[index])])
                here[index] = versions.setdefault(name, len(versions))
            codes[first:last] = here[back]
        return dataclasses.replace(batch, version=codes, versions=tuple(versions))

    def _turn(self, span: int) -> None:
        if span > self._span:
            self._before = self._now if span == self._span + 1 else {}
            self._now = {}
            self._span = span

    def _kept(self, name: str) -> str:
        if name in self._known or name in self._now:
            return name
        if name not in self._before and len(self._now.keys() | self._before.keys()) >= self._most:
            return OTHER_VERSIONS
        self._now[name] = None
        return name

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"span": self._span, "now": list(self._now), "before": list(self._before)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self._span = state["span"]
        self._now, self._before = dict.fromkeys(state["now"]), dict.fromkeys(state["before"])
