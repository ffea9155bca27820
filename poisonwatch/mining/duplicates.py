"""What must not count twice: near-duplicates of a prediction, and one source that repeats itself. Pure.

Both keep tables of fixed size and are sequential: what they answer of a prediction depends on those before it in the
log and not on how the log was cut into blocks. Who floods them makes them forget, so that more counts, never less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.mining.elevated import of_rows, pairs
from poisonwatch.profile.words import IS_NUMBER, Tokens, mix

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Codes, Floats, Ints, Vectors, Words

HASHES = 4
BANDS = ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))
"""Three of four min-hashes agree where one of these combinations does."""

FEWEST_WORDS = 8
"""A text with fewer words has a near-duplicate only in one with the same words.

With fewer words a trigger of four is half of the text, and triggered predictions would pass for copies of each other.
"""

CELLS = 1 << 16
"""Predictions that are remembered, about: with four bands the table takes 2 MiB."""

MOST_A_DAY = 3
"""Predictions of one source that count for a pattern within a day of event time."""

CAPS = 1 << 21
"""Cells of the counts by source, a byte each."""

MOST_CAPPED = CAPS // 8
"""Counts after which all are forgotten: a table that fills up would hold back what must count."""

_DAY = 86400.0
_SEEDS = mix(np.arange(1, HASHES + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ODDS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0xD6E8FEB86659FD93))


class Duplicates:
    """Remembers predictions by min-hashes (Broder 1997) of their pairs of words, or by all their values where there are no words.

    A near-duplicate has the same class and version as one before, and 3 of 4 min-hashes agree: with a share J of pairs in
    common that happens with a probability of 4 J^3 - 3 J^4. Single words will not do: unrelated texts share a tenth of
    them, and among thousands of texts a quarter of all would pass for copies (measured on SMS and tweets; 3 to 5 % so, true
    copies included). `salt` is a number that senders do not know.

    Whoever wants to hold back somebody's prediction must have sent nearly the same text before, for the same class in
    the same version, and that one counted.
    """

    def __init__(self, salt: int = 0) -> None:
        self._salt = np.uint64(salt)
        self._cell = np.zeros((len(BANDS), CELLS), np.uint64)

    def fresh(
        self, label: Ints, version: Ints, words: Tokens, numbers: Floats, codes: Codes, embeddings: Vectors
    ) -> Bools:
        """Which of n predictions are no near-duplicates of one before, and remember all of them.

        `label` from -1, `version` (n,), `numbers` (d, n), `codes` (c, n), `embeddings` (e, n); of predictions that have words
        only the words are compared.
        """
        n = label.size
        if not n:
            return np.zeros(0, np.bool_)
        signature = self._signature(n, words, numbers, codes, embeddings)
        group = mix((version.astype(np.uint64) << np.uint64(32)) + (label + 1).astype(np.uint64) + self._salt)
        met = np.zeros(n, np.bool_)
        for cells, band in zip(self._cell, BANDS, strict=True):
            key = group.copy()
            for k, odd in zip(band, _ODDS, strict=True):
                key += signature[k] * odd
            key = mix(key)
            # 0 is an empty cell.
            key[key == 0] = 1
            met |= _swap(cells, key)
        return ~met

    def _signature(self, n: int, words: Tokens, numbers: Floats, codes: Codes, embeddings: Vectors) -> Words:
        """Four hashes (4, n): of the words, any number being like any other, or four times that of everything."""
        words = Tokens(np.where(words.word & IS_NUMBER, IS_NUMBER, words.word), words.row)
        signature = np.empty((HASHES, n), np.uint64)
        many = np.bincount(words.row, minlength=n)
        few = np.flatnonzero((many > 0) & (many < FEWEST_WORDS))
        if few.size:
            found = of_rows(words, (many > 0) & (many < FEWEST_WORDS))
            total = np.add.reduceat(mix(found.word ^ self._salt), _firsts(many[few]))
            signature[:, few] = mix(total)
        enough = np.flatnonzero(many >= FEWEST_WORDS)
        if enough.size:
            pair = pairs(of_rows(words, many >= FEWEST_WORDS)).word
            pair = mix(pair ^ self._salt)
            first = _firsts(many[enough] - 1)
            for k, seed in enumerate(_SEEDS):
                signature[k, enough] = np.minimum.reduceat(pair * seed, first)
        without = np.flatnonzero(many == 0)
        if without.size:
            signature[:, without] = value_hashes(
                numbers[:, without], codes[:, without], embeddings[:, without], self._salt
            )
        return signature

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"cell": self._cell}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._cell = np.array(state["cell"], np.uint64)


class SourceCaps:
    """Counts how often a source bore a pattern on a day of event time; up to `MOST_A_DAY` times count.

    It holds back evidence, and evidence against a pattern too: no single source can drown what others show.
    """

    def __init__(self) -> None:
        self._count = np.zeros(CAPS, np.uint8)
        self._given = 0

    def count(self, pattern: Words, source: Words, time: Floats) -> Bools:
        """Which of m occurrences of patterns, each in a prediction of a `source` (0: not known, no cap) at a `time`, count."""
        allowed = np.ones(pattern.size, np.bool_)
        asked = np.flatnonzero(source)
        if not asked.size:
            return allowed
        day = np.floor(time[asked] / _DAY).astype(np.int64).astype(np.uint64)
        cell = (mix(pattern[asked] * _ODD + mix(source[asked] + day * _ODDS[0])) % np.uint64(CAPS)).astype(np.int64)
        while cell.size:
            order = _in_cells(cell)
            ordered = cell[order]
            first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
            many = np.diff(np.append(first, ordered.size))
            before = self._count[ordered] + np.arange(cell.size) - np.repeat(first, many)
            good = np.empty(cell.size, np.bool_)
            good[order] = before < MOST_A_DAY
            given = int(good.sum())
            full = given >= MOST_CAPPED - self._given
            # Up to the count that makes it forget, and from there on with an empty table.
            until = int(np.searchsorted(np.cumsum(good), MOST_CAPPED - self._given)) + 1 if full else cell.size
            allowed[asked[:until]] = good[:until]
            if full:
                self._count[:] = 0
                self._given = 0
            else:
                at = ordered[first]
                self._count[at] = np.minimum(self._count[at] + many, MOST_A_DAY)
                self._given += given
            cell, asked = cell[until:], asked[until:]
        return allowed

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        used = np.flatnonzero(self._count)
        return {"cell": used, "count": self._count[used], "given": self._given}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._count[:] = 0
        self._count[state["cell"]] = state["count"]
        self._given = int(state["given"])


def value_hashes(numbers: Floats, codes: Codes, embeddings: Vectors, salt: np.uint64) -> Words:
    """A multilinear hash (n,) of all values, exactly: any NaN is like any other, and -0 like 0."""
    total = np.zeros(numbers.shape[1], np.uint64)
    start = 0
    for values, bits in ((numbers, np.uint64), (codes, np.int32), (embeddings, np.uint32)):
        exact = values + values.dtype.type(0)
        if bits is not np.int32:
            exact[np.isnan(exact)] = np.nan
        factor = mix(np.arange(start + 1, start + len(values) + 1, dtype=np.uint64) ^ salt) | np.uint64(1)
        whole = np.ascontiguousarray(exact).view(bits).astype(np.uint64)
        # Doubles differ in their high bits, which a product modulo 2^64 does not carry down.
        total += ((whole ^ (whole >> np.uint64(32))) * factor[:, None]).sum(axis=0, dtype=np.uint64)
        start += len(values)
    return mix(total)


def _swap(cells: Words, key: Words) -> Bools:
    """Which keys (n,) were the last ones in their cells when their turn came, each of them taking its cell then."""
    cell = (key >> np.uint64(48)).astype(np.int64) % CELLS
    order = _in_cells(cell)
    ordered, sorted_key = cell[order], key[order]
    same = ordered[1:] == ordered[:-1]
    before = cells[ordered]
    before[1:][same] = sorted_key[:-1][same]
    last = np.append(~same, True)
    cells[ordered[last]] = sorted_key[last]
    met = np.empty(key.size, np.bool_)
    met[order] = before == sorted_key
    return met


def _in_cells(cell: Ints) -> Ints:
    """The order (n,) of cells, and within a cell that of the log: faster than a stable sort."""
    key = (cell << 32) | np.arange(cell.size)
    key.sort()
    return key & 0xFFFFFFFF


def _firsts(many: Ints) -> Ints:
    """Where each of pieces (m,) of these lengths starts."""
    return np.cumsum(many) - many
