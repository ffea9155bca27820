"""Words and word pairs that are odd by themselves: how often each hits in the reference. Pure.

An e-process tests a pattern against a rate at which benign predictions hit. Where the surrogate is weak on a word, all
predictions that bear it hit more often than others, without any attack; what the reference shows of that is the null of
this word. Rates are kept as levels of a short logarithmic scale, rounded up, so that what is valid for a rate stays so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from poisonwatch.profile.packed import pack, unpack
from poisonwatch.profile.words import Tokens, mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.types import Bools, Floats, Ints, Words

    Levels = NDArray[np.uint8]

LEVELS = 32
LOWEST_RATE = 0.02
STEPS_PER_FACTOR_OF_3 = 9
"""The scale of nulls: from 2 % in steps of 13 %, so that 6 % is on it. At the last level nothing can be said any more."""

SILENT = LEVELS - 1

LOWEST_NULLS = (0.06, 0.02)
"""Below these rates of surprising and of flipped predictions no pattern is elevated."""

FEWEST_HITS = 2
"""A pattern with fewer hits in the reference is not elevated: most patterns are rare, and once may be chance."""

BOUND = 0.95
"""The level of the one-sided bound of a rate (Clopper and Pearson 1934)."""

MOST_ELEVATED = 20_000
"""Patterns that are kept, those with the most hits first."""

_OF_PAIR = np.uint64(0xD6E8FEB86659FD93)
_OF_CLASS = np.uint64(0xA0761D6478BD642F)
_FILTER_BITS = 16


class ElevatedFile(msgspec.Struct, frozen=True, kw_only=True):
    """`Elevated` as it is kept in a file: keys ascending uint64, rates float32, all little-endian."""

    keys: bytes
    rates: bytes


@dataclass(frozen=True)
class Elevated:
    """Patterns with a rate of their own: `keys` (m,) ascending, of pattern and class; `rates` (2, m) upper bounds.

    Row 0 of the rates is of surprising predictions, row 1 of flipped ones.
    """

    keys: Words
    rates: Floats

    @classmethod
    def none(cls) -> Self:
        """No pattern has a rate of its own."""
        return cls(np.empty(0, np.uint64), np.empty((2, 0)))

    @cached_property
    def _tables(self) -> tuple[Bools, Words]:
        """Which first bits of keys there are at all, and what `levels` gives for each key."""
        met = np.zeros(1 << _FILTER_BITS, np.bool_)
        met[_first_bits(self.keys)] = True
        surprising, flipped = levels(self.rates).astype(np.uint64)
        return met, surprising * np.uint64(LEVELS) + flipped

    def levels(self, pattern: Words, label: Ints) -> Words:
        """The levels of the nulls that patterns (m,) have of their own in predictions of classes (m,), 0 for most.

        That of surprising predictions, times `LEVELS`, and that of flipped ones.
        """
        found = np.zeros(pattern.size, np.uint64)
        if self.keys.size:
            met, own = self._tables
            key = _keys(pattern, label)
            may = np.flatnonzero(met[_first_bits(key)])
            place = np.minimum(np.searchsorted(self.keys, key[may]), self.keys.size - 1)
            right = self.keys[place] == key[may]
            found[may[right]] = own[place[right]]
        return found

    def file(self) -> ElevatedFile:
        """What is kept in a file."""
        return ElevatedFile(keys=pack(self.keys, "u8"), rates=pack(self.rates, "f4"))

    @classmethod
    def read(cls, file: ElevatedFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when these are no such patterns.
        """
        keys = unpack(file.keys, "u8", (-1,), "elevated patterns")
        rates = unpack(file.rates, "f4", (2, keys.size), "elevated patterns: rates").astype(np.float64)
        if keys.size > MOST_ELEVATED:
            msg = f"elevated patterns: {keys.size}, at most {MOST_ELEVATED} are allowed"
            raise ValueError(msg)
        if (keys[1:] <= keys[:-1]).any() or (rates < 0).any() or (rates > 1).any():
            msg = "elevated patterns: not ascending, or rates beyond [0, 1]"
            raise ValueError(msg)
        return cls(keys, rates)


def learn_elevated(words: Tokens, label: Ints, surprising: Bools, flipped: Bools) -> Elevated:
    """The elevated words and word pairs of a reference, each in predictions of one class.

    `label` (n,) are the predicted classes, -1 for none; `surprising` and `flipped` (n,) what a surrogate said that was
    fitted without the record.
    """
    from scipy.special import betaincinv  # noqa: PLC0415 - only who learns a reference pays for SciPy

    found = patterns(of_rows(words, label >= 0))
    key = _keys(found.word, label[found.row])
    key, row = once_a_record(key, found.row)
    keys, first, n = np.unique(key, return_index=True, return_counts=True)
    if not keys.size:
        return Elevated.none()
    hits = np.stack([np.add.reduceat(odd[row].astype(np.int64), first) for odd in (surprising, flipped)])
    usual = np.array(LOWEST_NULLS)[:, None]
    above = (hits >= FEWEST_HITS) & (hits > usual * n)
    rates = np.where(above, betaincinv(hits + 1.0, np.maximum(n - hits, 1e-9), BOUND), 0.0)
    rates[above & (hits == n)] = 1.0
    candidates = np.flatnonzero(above.any(axis=0))
    most = candidates[np.argsort(-hits[:, candidates].max(axis=0), kind="stable")[:MOST_ELEVATED]]
    most.sort()
    return Elevated(keys[most], rates[:, most].astype(np.float32).astype(np.float64))


def once_a_record(key: Words, row: Ints) -> tuple[Words, Ints]:
    """Keys (m,) and the records that they are met in, each key once a record: in ascending order of the keys."""
    order = np.lexsort((row, key))
    key, row = key[order], row[order]
    once = np.ones(key.size, np.bool_)
    once[1:] = (key[1:] != key[:-1]) | (row[1:] != row[:-1])
    return key[once], row[once]


def patterns(words: Tokens) -> Tokens:
    """The words of records, and their pairs of neighbours after them."""
    pair = pairs(words)
    return Tokens(np.concatenate((words.word, pair.word)), np.concatenate((words.row, pair.row)))


def pairs(words: Tokens) -> Tokens:
    """The pairs of neighbours among the words of each record; a pair does not reach from one record to the next."""
    word, row = words
    paired = row[1:] == row[:-1]
    return Tokens((word[:-1] * _OF_PAIR + word[1:])[paired], row[:-1][paired])


def of_rows(words: Tokens, which: Bools) -> Tokens:
    """The words of the chosen records (n,), under the numbers that the records have."""
    kept = which[words.row]
    return words if kept.all() else Tokens(words.word[kept], words.row[kept])


def levels(rates: Floats) -> Levels:
    """Levels of rates, in any shape: that of the next rate on the scale that is no smaller."""
    with np.errstate(divide="ignore"):
        steps = np.log(np.asarray(rates) / LOWEST_RATE) * (STEPS_PER_FACTOR_OF_3 / np.log(3.0))
    # A rate that is on the scale must not go up by its last bit.
    return np.asarray(np.clip(np.ceil(steps - 1e-6), 0, SILENT).astype(np.uint8))


def rates_of_levels() -> Floats:
    """The rates (LEVELS,) of the levels, 1 for the last."""
    return np.append(LOWEST_RATE * 3.0 ** (np.arange(SILENT) / STEPS_PER_FACTOR_OF_3), 1.0)


def _keys(pattern: Words, label: Ints) -> Words:
    return mix(pattern ^ ((label.astype(np.uint64) + np.uint64(1)) * _OF_CLASS))


def _first_bits(key: Words) -> Words:
    return key >> np.uint64(64 - _FILTER_BITS)
