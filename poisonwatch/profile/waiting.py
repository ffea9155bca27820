"""Predictions that wait: for a label, or for the answer of a shadow version to the same `prediction_id`.

Labels come days late and traffic has no bound, so the store has: a table of sets with a few places each, in which the
prediction put longest ago makes room. Where traffic is too much for it, a sample by hash is kept instead: at level L the
predictions whose mixed id ends in L zero bits. It is the same sample for predictions and labels, blind to all that a
prediction says, and known for every id without having stored it (bottom-k and hash sampling: Cohen, Kaplan, PODC 2007).

All that happens depends on the records in their order, never on how they were chopped into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Codes, Floats, Ints, Words

HORIZON = 30 * 86400.0
"""Seconds after which a prediction waits no longer."""

CAPACITY = 1 << 18
"""Predictions that can wait at once, unless told otherwise."""

WAYS = 8
"""Places of a set: their ids fill one cache line."""

MOST_PUTS = 16
"""Puts that one set takes while as many ids are offered as there are sets.

Honest ids come to one a set, and to more than 16 once in 10^14 sets. A log that repeats one id for ever, or ids chosen to
meet in one set, would otherwise be worked off one by one.
"""

HIGHEST_LEVEL = 31
"""The low half of a mixed id is for sampling, the high half chooses the set."""

CROWDED = 1 / 16
"""Share of the puts that push out a prediction still waiting, above which the level rises."""

ROOMY = 1 / 4
"""Share of the places taken by predictions still waiting, below which the level falls: it doubles the share at most."""

FEWEST_PUTS = 256
"""Puts whose crowding is looked at together at least: of fewer, chance would decide."""

SETTLING = 1 / 30
"""Share of the horizon (a day of a month, with its night) that a level's pace is measured over before the level falls."""

LONG_AGO = -np.inf


@dataclass(frozen=True, slots=True)
class Pairs:
    """Predictions that met another version's answer to the same id, in the order of the log; arrays (p,).

    `record` is the place of the later prediction in its batch; `time` (p,), `version` (p,) and `facts` (f, p) are those of
    the earlier one.
    """

    record: Ints
    time: Floats
    version: Codes
    facts: Codes


class Waiting:
    """The bounded store. `capacity` is rounded up to a power of two, `horizon` is in seconds, `facts` a number of columns.

    `time` (r,), `version` (r,), `facts` (f, r) and `labelled` (r,) are to be read at rows that `find` gave, before anything
    else is put. `level` is that of the sample; `crowded_out` counts predictions that made room while they still waited.
    """

    def __init__(self, capacity: int, facts: int, horizon: float = HORIZON) -> None:
        self._sets = 1 << max((capacity - 1) // WAYS, 0).bit_length()
        rows = self._sets * WAYS
        self._horizon = horizon
        self._id = np.zeros(rows, np.uint64)
        self._put = np.full(rows, -1, np.int64)
        self.time = np.full(rows, LONG_AGO)
        self.version = np.zeros(rows, np.int32)
        self.facts = np.zeros((facts, rows), np.int32)
        self.labelled = np.zeros(rows, np.bool_)
        self.level = 0
        self.crowded_out = 0
        self._newest = LONG_AGO
        # Up to when each level was in force: what it left out is missing for a horizon more.
        self._last_in_force = np.full(HIGHEST_LEVEL + 1, LONG_AGO)
        self._puts_of_set = np.zeros(self._sets, np.uint8)
        self._offered = 0
        self._position = 0
        self._kept = 0
        self._crowded = 0
        self._level_since = LONG_AGO
        self._put_since = 0

    def put(self, ids: Words, time: Floats, version: Codes, facts: Codes, labelled: Bools | None = None) -> Pairs:
        """Let predictions wait: ids (n,), time (n,), version (n,), facts (f, n); an id of 0 is none.

        Those `labelled` (n,) have their first label already. The same id of the same version again replaces what waits, and keeps its label. Each pair of answers to one id is
        told once, for as long as the earlier one waits: with the newest of the other versions.
        """
        labelled = np.zeros(ids.size, np.bool_) if labelled is None else labelled
        known = np.flatnonzero(ids)
        mixed = mix(ids[known])
        newest = np.maximum.accumulate(np.concatenate(([self._newest], time)))[1:]
        found: list[Pairs] = []
        done = 0
        while done < known.size:
            # The level changes at places that the count of offered ids fixes.
            until = min(known.size, done + self._sets - self._offered)
            here = mixed[done:until]
            inside = np.flatnonzero(here & self._mask(self.level) == 0)
            found += self._store(known[done + inside], here[inside], ids, time, version, facts, labelled, newest)
            self._offered += until - done
            done = until
            self._newest = float(newest[known[done - 1]])
            self._last_in_force[self.level] = self._newest
            if self._offered == self._sets:
                self._end_round()
        if ids.size:
            self._newest = float(newest[-1])
            self._position += ids.size
        return _joined(found, facts.shape[0])

    def find(self, ids: Words, version: Codes | None = None) -> Ints:
        """Rows (m,) of the predictions with these ids (m,), of these versions (m,) or the newest put; -1 where none waits."""
        in_set = self._set_of(mix(ids))[:, None] * WAYS + np.arange(WAYS)
        match = (self._id[in_set] == ids[:, None]) & (self.time[in_set] > self._newest - self._horizon)
        if version is not None:
            match &= self.version[in_set] == version[:, None]
        best = np.where(match, self._put[in_set], -1).argmax(axis=1)
        each = np.arange(ids.size)
        return np.where(match[each, best] & (ids != 0), in_set[each, best], -1)

    def outside_sample(self, ids: Words) -> Bools:
        """Which of these ids (m,) may be missing because the sample left them out."""
        recent = np.flatnonzero(self._last_in_force > self._newest - self._horizon)
        left_out: Bools = mix(ids) & self._mask(int(recent.max(initial=0))) != 0
        return left_out

    def settle(self, rows: Ints) -> Bools:
        """Mark the predictions at rows (m,) as labelled: for which is this the first label? -1 is no row."""
        first = np.zeros(rows.size, np.bool_)
        places = np.unique(rows, return_index=True)[1]
        first[places] = True
        first &= (rows >= 0) & ~self.labelled[rows]
        self.labelled[rows[first]] = True
        return first

    def _store(
        self,
        of: Ints,
        mixed: Words,
        ids: Words,
        time: Floats,
        version: Codes,
        facts: Codes,
        labelled: Bools,
        newest: Floats,
    ) -> list[Pairs]:
        """Put the records `of`; sets do not meddle with each other, and within a set one record comes after the other."""
        if not of.size:
            return []
        to = self._set_of(mixed)
        order = np.argsort(to, kind="stable")
        of, to = of[order], to[order]
        starts = np.flatnonzero(np.concatenate(([True], np.diff(to) != 0)))
        lengths = np.diff(np.append(starts, to.size))
        rank = np.arange(to.size) - np.repeat(starts, lengths)
        fits = rank + self._puts_of_set[to] < MOST_PUTS
        self._puts_of_set[to[starts]] = np.minimum(self._puts_of_set[to[starts]] + lengths, MOST_PUTS)
        pairs = []
        for turn in range(min(int(rank.max()) + 1, MOST_PUTS)):
            now = np.flatnonzero(fits & (rank == turn)) if turn else starts[fits[starts]]
            if now.size:
                pairs.append(self._store_apart(of[now], to[now], ids, time, version, facts, labelled, newest))
        return pairs

    def _store_apart(
        self,
        of: Ints,
        to: Ints,
        ids: Words,
        time: Floats,
        version: Codes,
        facts: Codes,
        labelled: Bools,
        newest: Floats,
    ) -> Pairs:
        """Put records `of` into sets `to` of which no two are the same."""
        in_set = to[:, None] * WAYS + np.arange(WAYS)
        put = self._put[in_set]
        same_id = self._id[in_set] == ids[of, None]
        each, expired = np.arange(of.size), newest[of] - self._horizon
        again = held = np.zeros(of.size, np.bool_)
        place = put.argmin(axis=1)
        pairs = Pairs(of[:0], time[:0], version[:0], facts[:, :0])
        if same_id.any():
            same_id &= self.time[in_set] > expired[:, None]
            same = same_id & (self.version[in_set] == version[of, None])
            again = same.any(axis=1)
            place = np.where(again, same.argmax(axis=1), place)
            other = np.where(same_id & ~same, put, -1)
            partner = in_set[each, other.argmax(axis=1)]
            held = (other.max(axis=1) >= 0) & ~again
            at = partner[held]
            pairs = Pairs(of[held], self.time[at], self.version[at], self.facts[:, at])
        rows = in_set[each, place]
        # An empty place has a time long ago.
        crowded = int((~again & (self.time[rows] > expired)).sum())
        self._kept += of.size
        self._put_since += of.size
        self._crowded += crowded
        self.crowded_out += crowded
        self._id[rows] = ids[of]
        self._put[rows] = self._position + of
        self.time[rows] = time[of]
        self.version[rows] = version[of]
        self.facts[:, rows] = facts[:, of]
        self.labelled[rows] &= again
        self.labelled[rows] |= labelled[of]
        return pairs

    def _end_round(self) -> None:
        """As many ids were offered as there are sets: is the sample of the right size?"""
        self._offered = 0
        self._puts_of_set[:] = 0
        waiting = int((self.time > self._newest - self._horizon).sum())
        enough = self._kept >= max(self._sets * CROWDED, FEWEST_PUTS)
        if enough and self._crowded > CROWDED * self._kept and self.level < HIGHEST_LEVEL:
            self._change_level(self.level + 1)
            self._drop(np.flatnonzero(mix(self._id) & self._mask(self.level)))
        elif self.level and self._is_roomy(waiting):
            self._change_level(self.level - 1)
        if enough:
            self._kept = self._crowded = 0

    def _is_roomy(self, waiting: int) -> bool:
        """Few wait, and few will at this level's pace: what a lower level lets in is only felt a horizon later."""
        elapsed = self._newest - self._level_since
        if elapsed < SETTLING * self._horizon:
            return False
        return max(float(waiting), self._put_since * self._horizon / elapsed) < ROOMY * self._id.size

    def _change_level(self, level: int) -> None:
        self.level = level
        self._level_since = self._newest
        self._put_since = 0

    def _drop(self, rows: Ints) -> None:
        self._id[rows] = 0
        self._put[rows] = -1
        self.time[rows] = LONG_AGO
        self.labelled[rows] = False

    def _set_of(self, mixed: Words) -> Ints:
        return ((mixed >> np.uint64(32)) & np.uint64(self._sets - 1)).astype(np.int64)

    @staticmethod
    def _mask(level: int) -> np.uint64:
        return np.uint64((1 << level) - 1)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart; only the places that are taken."""
        rows = np.flatnonzero(self._id)
        return {
            "rows": rows,
            "id": self._id[rows],
            "put": self._put[rows],
            "time": self.time[rows],
            "version": self.version[rows],
            "facts": self.facts[:, rows],
            "labelled": self.labelled[rows],
            "level": self.level,
            "crowded_out": self.crowded_out,
            "newest": self._newest,
            "last_in_force": self._last_in_force.copy(),
            "puts_of_set": self._puts_of_set.copy(),
            "position": self._position,
            "offered": self._offered,
            "kept": self._kept,
            "crowded": self._crowded,
            "level_since": self._level_since,
            "put_since": self._put_since,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state saved by a store of the same capacity and facts."""
        self._drop(np.flatnonzero(self._id))
        rows = state["rows"]
        self._id[rows] = state["id"]
        self._put[rows] = state["put"]
        self.time[rows] = state["time"]
        self.version[rows] = state["version"]
        self.facts[:, rows] = state["facts"]
        self.labelled[rows] = state["labelled"]
        self.level = state["level"]
        self.crowded_out = state["crowded_out"]
        self._newest = state["newest"]
        self._last_in_force = state["last_in_force"].copy()
        self._puts_of_set = state["puts_of_set"].copy()
        self._position = state["position"]
        self._offered = state["offered"]
        self._kept = state["kept"]
        self._crowded = state["crowded"]
        self._level_since = state["level_since"]
        self._put_since = state["put_since"]


def mix(ids: Words) -> Words:
    """Ids (n,) with every bit depending on all of theirs (finaliser of SplitMix64: Steele, Lea, Flood, OOPSLA 2014)."""
    mixed = (ids ^ (ids >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _joined(found: list[Pairs], facts: int) -> Pairs:
    if not found:
        none = np.empty(0, np.int64)
        return Pairs(none, np.empty(0), np.empty(0, np.int32), np.empty((facts, 0), np.int32))
    record = np.concatenate([pairs.record for pairs in found])
    order = np.argsort(record)
    return Pairs(
        record=record[order],
        time=np.concatenate([pairs.time for pairs in found])[order],
        version=np.concatenate([pairs.version for pairs in found])[order],
        facts=np.concatenate([pairs.facts for pairs in found], axis=1)[:, order],
    )
