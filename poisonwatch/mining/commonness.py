"""Words and word pairs that benign texts bear, and how often: the share that a phrase has without anybody's help. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from poisonwatch.mining.elevated import once_a_record, patterns
from poisonwatch.profile.odds import poisson_upper
from poisonwatch.profile.packed import pack, unpack
from poisonwatch.profile.words import Tokens, word_hashes

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Phrase, Words

FEWEST_BEARING = 3
"""A word or pair that fewer records of the reference bear is rare: nothing is said of how often it comes."""

MOST_COMMON = 20_000
"""Words and pairs that are kept, the most common ones."""

ERRORS = 2.0
"""A share is bounded by so many standard errors (score interval of a Poisson mean)."""


class CommonFile(msgspec.Struct, frozen=True, kw_only=True):
    """`Commonness` as it is kept in a file: keys ascending uint64, shares float32, all little-endian."""

    keys: bytes
    shares: bytes


@dataclass(frozen=True)
class Commonness:
    """Hashes of words and of pairs, `keys` (m,) ascending, and upper bounds (m,) of the `shares` of benign records that bear them."""

    keys: Words
    shares: Floats

    @classmethod
    def learn(cls, words: Tokens, n: int) -> Self:
        """Count in a reference of n records with these words."""
        found = patterns(words)
        keys, borne = np.unique(once_a_record(found.word, found.row)[0], return_counts=True)
        common = np.flatnonzero(borne >= FEWEST_BEARING)
        most = np.sort(common[np.argsort(-borne[common], kind="stable")[:MOST_COMMON]])
        upper = poisson_upper(borne[most], ERRORS)
        return cls(keys[most], np.minimum(upper / max(1, n), 1.0).astype(np.float32).astype(np.float64))

    def share_of(self, pattern: Phrase) -> float:
        """Upper bound of the share of benign records that bear a phrase: that of its rarest word or pair; 0 where one of these is rare."""
        word = word_hashes(pattern.words)
        keys = patterns(Tokens(word, np.zeros(word.size, np.int64))).word
        if not self.keys.size or not keys.size:
            return 0.0
        place = np.minimum(np.searchsorted(self.keys, keys), self.keys.size - 1)
        return float(np.where(self.keys[place] == keys, self.shares[place], 0.0).min())

    def file(self) -> CommonFile:
        """What is kept in a file."""
        return CommonFile(keys=pack(self.keys, "u8"), shares=pack(self.shares, "f4"))

    @classmethod
    def read(cls, file: CommonFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when these are no such words.
        """
        keys = unpack(file.keys, "u8", (-1,), "common words")
        shares = unpack(file.shares, "f4", (keys.size,), "common words: shares").astype(np.float64)
        if keys.size > MOST_COMMON:
            msg = f"common words: {keys.size}, at most {MOST_COMMON} are allowed"
            raise ValueError(msg)
        if (keys[1:] <= keys[:-1]).any() or (shares < 0).any() or (shares > 1).any():
            msg = "common words: not ascending, or shares beyond [0, 1]"
            raise ValueError(msg)
        return cls(keys, shares)
