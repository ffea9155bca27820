"""Many e-processes in little memory: one for every pattern, class and version, in a hashed table of fixed size. Pure.

Each is a Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo 2022) with a budget by occurrences: a block in which a
pattern occurs n times, of which k hit, takes M to (M + n c) times the likelihood ratio of the hits, and where the mean
over a few alternatives reaches 1 the pattern has crossed. As c sums to `mass` over all occurrences of a block, the
expected number of patterns that cross without any attack is at most the sum of all masses, whatever the vocabulary.

Nothing is written for a pattern that has no evidence and no hit in the block: leaving its start mass out only lowers M,
so clean traffic costs a look into one byte per occurrence. Patterns that share a slot share an e-process, which is
valid for both; nothing is ever evicted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poisonwatch.mining.elevated import LEVELS, SILENT, levels, rates_of_levels
from poisonwatch.profile.words import mix

if TYPE_CHECKING:
    from poisonwatch.mining.duplicates import SourceCaps
    from poisonwatch.mining.elevated import Elevated, Levels
    from poisonwatch.profile.words import Tokens
    from poisonwatch.types import Bools, Floats, Ints, Words

SLOT_BITS = 20
SLOTS = 1 << SLOT_BITS
"""Number of slots: with four components, two counts and a mark they take 21 MiB."""

COMPONENTS = ((0, 0.6), (0, 0.9), (1, 0.6), (1, 0.9))
"""Alternatives: the indicator (0 surprising, 1 flipped), and by which share of what is left above the null its rate is higher.

Of ten sets tried on phrases in SMS and tweets (logistic regression and MLP victims, references of 3,000, 3 predictions a
minute) this one needs the fewest triggered predictions where the attack succeeds: 7 to 8 (median of 300 orders; 90 %: 11) at success
0.95 and more, 10 to 19 at 0.65 to 0.85. One alternative of surprising and three of flipped predictions need one more.
"""

LARGEST_START = 1e-6
"""Start mass of one occurrence, at most: bounds what one prediction can add when hardly anything is predicted."""

FURTHEST = 500.0
"""Nats that one block adds or takes at most: far beyond all decisions, and no overflow."""

_SLOT_SHIFT = np.uint64(64 - SLOT_BITS)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ROW_BITS = 32
_LEVEL_BITS = 5


class Crossing(NamedTuple):
    """An e-process that crossed: `log_e` of its mean, and of `matched` predictions since it last had nothing `flipped` flip."""

    slot: int
    version: int
    label: int
    log_e: float
    matched: int
    flipped: int


class Slots:
    """The table. `salt` is a number that a sender of predictions does not know: it decides who shares a slot."""

    def __init__(self, elevated: Elevated, caps: SourceCaps, salt: int = 0) -> None:
        self._elevated = elevated
        self._caps = caps
        self._salt = np.uint64(salt)
        self._mass = np.zeros((SLOTS, len(COMPONENTS)), np.float32)
        self._count = np.zeros((SLOTS, 2), np.uint16)
        self._running = np.zeros(SLOTS, np.bool_)
        self._gain = _gains()

    def places(self, pattern: Words, version: Ints, label: Ints) -> Ints:
        """The slots (m,) of patterns (m,) in predictions of a version and class (m,), or of one (1,) for all."""
        return self._places(pattern, self._group(version, label))

    def matched(self, place: Ints) -> Ints:
        """How many predictions the e-processes in these slots (m,) have counted so far, since they last had nothing."""
        return np.asarray(self._count[place, 0], np.int64)

    def step(
        self,
        found: Tokens,
        time: Floats,
        version: Ints,
        label: Ints,
        hit: Bools,
        null: Floats,
        source: Words,
        mass: float,
    ) -> list[Crossing]:
        """Take a block: patterns `found` in n predictions, of which all count.

        `time`, `version`, `label` (n,); `hit` and `null` (2, n): surprising and flipped ones, and how often benign ones are;
        `source` (n,) hashes, 0 for none; `mass` as in `records.Engine.step`. A pattern counts once in a prediction.

        Returns:
            What crossed, by slot. It starts again from nothing.
        """
        if not found.word.size:
            return []
        start = min(mass / found.word.size, LARGEST_START)
        slot, row, gain = self._counted(found, time, version, label, hit, null, source)
        if not slot.size:
            return []
        first = np.flatnonzero(np.append(True, slot[1:] != slot[:-1]))
        n = np.diff(np.append(first, slot.size))
        of_slot = slot[first]
        total = np.clip(np.add.reduceat(gain, first, axis=1).T, -FURTHEST, FURTHEST)
        began = (n * start)[:, None]
        evidence = (self._mass[of_slot] + began) * np.exp(total)
        flips = np.add.reduceat(hit[1, row].astype(np.int64), first)
        count = self._count[of_slot] + np.stack((n, flips), axis=1)
        mean = evidence.mean(axis=1)
        crossed = np.flatnonzero(mean >= 1.0)
        # What is below its start in this block may as well start anew with the next hit.
        over = (mean >= 1.0) | (evidence <= began).all(axis=1)
        evidence[over] = 0.0
        last = np.append(first[1:], slot.size) - 1
        result = [
            Crossing(
                slot=int(of_slot[k]),
                version=int(version[row[last[k]]]),
                label=int(label[row[last[k]]]),
                log_e=float(np.log(mean[k])),
                matched=int(count[k, 0]),
                flipped=int(count[k, 1]),
            )
            for k in crossed.tolist()
        ]
        count[over] = 0
        self._mass[of_slot] = evidence
        self._count[of_slot] = np.minimum(count, np.iinfo(np.uint16).max)
        self._running[of_slot] = ~over
        return result

    def _counted(
        self, found: Tokens, time: Floats, version: Ints, label: Ints, hit: Bools, null: Floats, source: Words
    ) -> tuple[Ints, Ints, Floats]:
        """Slot, prediction (m,) and gains (components, m) of what counts, by slot and in the order of the log."""
        slot = self._places(found.word, self._group(version, label)[found.row])
        hot = slot[(hit[0] | hit[1])[found.row]]
        idle = hot[~self._running[hot]]
        self._running[hot] = True
        chosen = np.flatnonzero(self._running[slot])
        self._running[idle] = False
        row = found.row[chosen]
        raised = self._elevated.levels(found.word[chosen], label[row])
        # One number each, so that they are sorted at once: slot, prediction, levels of the nulls of its own.
        key = slot[chosen].astype(np.uint64) << np.uint64(_ROW_BITS + 2 * _LEVEL_BITS)
        key |= row.astype(np.uint64) << np.uint64(2 * _LEVEL_BITS)
        key |= raised
        key.sort()
        once = key >> np.uint64(2 * _LEVEL_BITS)
        # Of two patterns of one prediction in one slot the one with the higher null counts.
        key = key[np.append(once[1:] != once[:-1], True)] if key.size else key
        slot = (key >> np.uint64(_ROW_BITS + 2 * _LEVEL_BITS)).astype(np.int64)
        row = ((key >> np.uint64(2 * _LEVEL_BITS)) & np.uint64((1 << _ROW_BITS) - 1)).astype(np.int64)
        raised = key & np.uint64((1 << 2 * _LEVEL_BITS) - 1)
        allowed = self._caps.count(slot.astype(np.uint64), source[row], time[row])
        if not allowed.all():
            slot, row, raised = slot[allowed], row[allowed], raised[allowed]
        usual = levels(null)
        gain = self._gains_of(usual, hit)[:, row]
        own = np.flatnonzero(raised)
        both = np.stack((raised[own] >> np.uint64(_LEVEL_BITS), raised[own] & np.uint64(SILENT))).astype(np.uint8)
        gain[:, own] = self._gains_of(np.maximum(usual[:, row[own]], both), hit[:, row[own]])
        return slot, row, gain

    def _gains_of(self, level: Levels, hit: Bools) -> Floats:
        """What predictions (n,) with these levels (2, n) of their nulls and these hits (2, n) add: (components, n)."""
        return np.stack(
            [
                self._gain[k, level[indicator], hit[indicator].view(np.uint8)]
                for k, (indicator, _) in enumerate(COMPONENTS)
            ]
        )

    def _group(self, version: Ints, label: Ints) -> Words:
        return mix((version.astype(np.uint64) << np.uint64(32)) + label.astype(np.uint64) + self._salt)

    @staticmethod
    def _places(pattern: Words, group: Words) -> Ints:
        return (((pattern ^ group) * _ODD) >> _SLOT_SHIFT).astype(np.int64)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart: the slots that are in use."""
        used = np.flatnonzero(self._running)
        return {"slot": used, "mass": self._mass[used], "count": self._count[used], "caps": self._caps.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        used = state["slot"]
        for table, saved in ((self._mass, state["mass"]), (self._count, state["count"]), (self._running, True)):
            table[:] = 0
            table[used] = saved
        self._caps.restore(state["caps"])


def _gains() -> Floats:
    """Log-likelihood ratios (components, levels, 2) of a prediction that does not hit and of one that does."""
    p = rates_of_levels()[:SILENT]
    found = np.zeros((len(COMPONENTS), LEVELS, 2))
    for k, (_, share) in enumerate(COMPONENTS):
        q = p + (1.0 - p) * share
        found[k, :SILENT] = np.stack((np.log((1.0 - q) / (1.0 - p)), np.log(q / p)), axis=1)
    return found
