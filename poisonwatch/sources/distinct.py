"""A prediction that is delivered twice counts once.

Brokers, retries and copied files deliver at least once. What comes again is the same record: the same id, time, version and
content. A record that shares only the id is another prediction, and counts: clients choose ids, and whoever repeats one
must not hide behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.mining.duplicates import value_hashes
from poisonwatch.profile.pieces import left_out
from poisonwatch.profile.words import fingerprints, mix

if TYPE_CHECKING:
    from poisonwatch.types import Batch, Bools, Words

HORIZON = 1 << 18
"""Predictions with an id that are remembered for sure; up to twice as many are. Two megabytes each time."""

RUN = 1 << 12
"""Newly met ones that are kept apart, so that not every batch sorts all that are remembered."""


class Distinct:
    """Remembers the last predictions of one model; `salt` is a number that senders do not know.

    What it answers depends on the records in their order, never on how they were chopped into batches.
    """

    def __init__(self, salt: int) -> None:
        self._salt = np.uint64(salt)
        self._older = np.empty(0, np.uint64)
        self._newer = np.empty(0, np.uint64)
        self._run = np.empty(0, np.uint64)
        self.dropped = 0

    def once(self, batch: Batch) -> Batch:
        """The batch without predictions that were met before, in it or within the horizon."""
        known = np.flatnonzero(batch.ids != "")
        if not known.size:
            return batch
        keep = np.ones(batch.time.size, np.bool_)
        keep[known] = self._first(self._prints(batch)[known])
        if keep.all():
            return batch
        self.dropped += int(keep.size - keep.sum())
        return left_out(batch, keep)

    def _first(self, prints: Words) -> Bools:
        """For which prints (n,) this is the first time; they are remembered."""
        first = np.empty(prints.size, np.bool_)
        done = 0
        while done < prints.size:
            # What is remembered changes at counts of predictions met, wherever a batch ends.
            room = min(RUN - self._run.size, HORIZON - self._newer.size - self._run.size)
            here = prints[done : done + room]
            # In order, since looking up neighbours is several times faster than looking up at random.
            ordered, place = np.unique(here, return_index=True)
            fresh = np.ones(ordered.size, np.bool_)
            for met in (self._run, self._newer, self._older):
                fresh &= ~_within(ordered, met)
            first[done : done + here.size] = False
            first[done + place[fresh]] = True
            self._run = np.sort(np.concatenate((self._run, ordered[fresh])), kind="stable")
            done += here.size
            if self._newer.size + self._run.size >= HORIZON:
                self._older = np.sort(np.concatenate((self._newer, self._run)))
                self._newer = self._run = np.empty(0, np.uint64)
            elif self._run.size >= RUN:
                self._newer = np.sort(np.concatenate((self._newer, self._run)), kind="stable")
                self._run = np.empty(0, np.uint64)
        return first

    def _prints(self, batch: Batch) -> Words:
        """A hash (n,) of all that a record says."""
        total = value_hashes(batch.numbers, batch.codes, batch.embeddings, self._salt)
        total = mix(total + fingerprints(batch.versions)[batch.version])
        total = mix(total + np.ascontiguousarray(batch.time).view(np.uint64))
        for texts in (batch.ids, *batch.texts):
            total = mix(total + fingerprints(texts.tolist()))
        return total

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "salt": int(self._salt),
            "older": self._older,
            "newer": self._newer,
            "run": self._run,
            "dropped": self.dropped,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._salt = np.uint64(state["salt"])
        self._older, self._newer, self._run = state["older"], state["newer"], state["run"]
        self.dropped = state["dropped"]


def _within(prints: Words, among: Words) -> Bools:
    """Which prints (n,) of a sorted array are in another."""
    if not among.size:
        return np.zeros(prints.size, np.bool_)
    place = np.minimum(np.searchsorted(among, prints), among.size - 1)
    found: Bools = among[place] == prints
    return found
