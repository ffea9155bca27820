"""What scores records from their inputs alone, in a few NumPy calls per batch: surrogate models of tables and texts. Pure.

`Trees` for tables are boosted trees of at most eight leaves. As in QuickScorer (Lucchese et al. 2015) a tree is not
walked: every split rules out the leaves on its other side, and what a column's value rules out in all trees at once is
one row of a table. `Linear` for texts is a linear model of hashed words, and of the features beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec
import numpy as np

from poisonwatch.profile.packed import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from poisonwatch.profile.words import Hashes, Tokens
    from poisonwatch.types import Floats, Ints

    Flags = NDArray[np.bool_]

LEAVES = 8
"""A tree has at most this many leaves, so that a set of them is one byte."""

MOST_EDGES = 254
"""Distinct thresholds of one number over all trees."""

MOST_TREES = 4096
MOST_COLUMNS = 100_000
LARGEST_BITS = 18

FARTHEST = 4.0
"""Standard deviations within which a number beside a text is kept."""

_BLOCK = 1 << 18
"""Bytes of leaf sets that are worked on at once: what fits into a core's cache."""


class Inputs(NamedTuple):
    """What the surrogate sees of records: feature rows `numbers` (d, n), NaN for missing, and `codes` (c, n), and words.

    `tokens` is None for models without text, `embeddings` (e, n) for those without. A code beyond those of the reference is
    treated as missing there.
    """

    numbers: Floats
    codes: NDArray[np.integer]
    tokens: Tokens | None = None
    embeddings: NDArray[np.float32] | None = None

    @property
    def n(self) -> int:
        """How many records."""
        return int(self.numbers.shape[1])


class TreesFile(msgspec.Struct, frozen=True, kw_only=True, tag="trees"):
    """`Trees` as they are kept in a file; `codes` are the code counts, all arrays little-endian."""

    numbers: int
    codes: list[int]
    start: bytes
    values: bytes
    tree: bytes
    column: bytes
    threshold: bytes
    missing_left: bytes
    left: bytes
    right: bytes
    encoding: bytes
    encoded: bytes


class LinearFile(msgspec.Struct, frozen=True, kw_only=True, tag="linear"):
    """`Linear` as it is kept in a file; `codes` are the code counts, all arrays little-endian."""

    bits: int
    numbers: int
    codes: list[int]
    start: bytes
    bucket: bytes
    weight: bytes
    centre: bytes
    scale: bytes
    slope: bytes
    of_code: bytes


class Splits(NamedTuple):
    """The splits of all trees, arrays (m,): a record with `column` <= `threshold` goes left, else right.

    `column` counts the numbers first, then the codes, whose thresholds are on their encoding. `missing_left` says where
    missing values go. `left` and `right` are the sets of leaves below each side, as bits.
    """

    tree: NDArray[np.int32]
    column: NDArray[np.int32]
    threshold: Floats
    missing_left: NDArray[np.uint8]
    left: NDArray[np.uint8]
    right: NDArray[np.uint8]


@dataclass(frozen=True)
class Trees:
    """Boosted regression trees, equally many for each of s scores.

    `start` (s,) is where the sums begin; `values` (T, LEAVES), the trees of a score next to each other. `encoding` has
    for each column of codes the numbers (s, code count) that stand for the codes, with `encoded` (same shape) false
    where a code was not seen.
    """

    number_count: int
    code_counts: tuple[int, ...]
    start: Floats
    values: Floats
    splits: Splits
    encoding: tuple[Floats, ...]
    encoded: tuple[Flags, ...]

    def scores(self, inputs: Inputs) -> Floats:
        """The sums (s, n) of what the trees say of records."""
        _check_shapes(inputs, self.number_count, self.code_counts)
        trees, outputs = self.values.shape[0], self.start.size
        edges, tables, all_leaves, by_leaf = self._tables
        offset = np.arange(trees) * 256
        found = np.empty((outputs, inputs.n))
        block = max(64, _BLOCK // max(1, trees))
        for first in range(0, inputs.n, block):
            part = slice(first, min(first + block, inputs.n))
            leaves = np.tile(all_leaves, (part.stop - first, 1))
            allowed = np.empty_like(leaves)
            for column, table in tables.items():
                if column < self.number_count:
                    x = inputs.numbers[column, part]
                    place = np.searchsorted(edges[column], x)
                    place[np.isnan(x)] = edges[column].size + 1
                else:
                    code = inputs.codes[column - self.number_count, part].astype(np.intp)
                    place = np.where((code >= 0) & (code < table.shape[0] - 1), code, table.shape[0] - 1)
                np.take(table, place, axis=0, out=allowed, mode="clip")
                np.bitwise_and(leaves, allowed, out=leaves)
            at = np.add(leaves, offset, dtype=np.intp)
            found[:, part] = by_leaf.take(at).reshape(-1, outputs, trees // outputs).sum(axis=2).T
        return found + self.start[:, None]

    @cached_property
    def _tables(self) -> tuple[dict[int, Floats], dict[int, NDArray[np.uint8]], NDArray[np.uint8], Floats]:
        """Edges by number, leaves that are left (bins, T) by column, all leaves (T,), values (T * 256,) by set of leaves."""
        s, trees = self.splits, self.values.shape[0]
        per_score = trees // self.start.size
        edges: dict[int, Floats] = {}
        tables: dict[int, NDArray[np.uint8]] = {}
        for column in np.unique(s.column).tolist():
            mine = np.flatnonzero(s.column == column)
            if column < self.number_count:
                edges[column] = np.unique(s.threshold[mine])
                size = edges[column].size + 2
                # A value in bin b has b edges below it; the last bin is for missing values.
                goes = np.arange(size) <= np.searchsorted(edges[column], s.threshold[mine])[:, None]
            else:
                of_codes = column - self.number_count
                score = s.tree[mine] // per_score
                size = self.code_counts[of_codes] + 1
                known = np.zeros((mine.size, size), np.bool_)
                known[:, :-1] = self.encoded[of_codes][score]
                goes = np.zeros((mine.size, size), np.bool_)
                goes[:, :-1] = self.encoding[of_codes][score] <= s.threshold[mine, None]
                goes = np.where(known, goes, s.missing_left[mine, None] != 0)
            goes[:, -1] = s.missing_left[mine] != 0
            table = np.full((size, trees), 255, np.uint8)
            kept = ~np.where(goes, s.right[mine, None], s.left[mine, None])
            np.bitwise_and.at(table.T, s.tree[mine], kept)
            tables[column] = table
        all_leaves = np.zeros(trees, np.uint8)
        np.bitwise_or.at(all_leaves, s.tree, s.left | s.right)
        all_leaves[all_leaves == 0] = 1
        # In the end one leaf is left of a tree.
        by_leaf = np.zeros((trees, 256))
        by_leaf[:, 1 << np.arange(LEAVES)] = self.values
        return edges, tables, all_leaves, by_leaf.ravel()

    def file(self) -> TreesFile:
        """What is kept in a file."""
        s = self.splits
        return TreesFile(
            numbers=self.number_count,
            codes=list(self.code_counts),
            start=pack(self.start, "f8"),
            values=pack(self.values, "f8"),
            tree=pack(s.tree, "i4"),
            column=pack(s.column, "i4"),
            threshold=pack(s.threshold, "f8"),
            missing_left=pack(s.missing_left, "u1"),
            left=pack(s.left, "u1"),
            right=pack(s.right, "u1"),
            encoding=pack(np.concatenate([np.empty(0), *(e.ravel() for e in self.encoding)]), "f8"),
            encoded=pack(np.concatenate([np.empty(0, np.bool_), *(e.ravel() for e in self.encoded)]), "u1"),
        )

    @classmethod
    def read(cls, file: TreesFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when the arrays do not fit together.
        """
        numbers, codes = _counts(file.numbers, file.codes)
        start = unpack(file.start, "f8", (-1,), "surrogate: start")
        values = unpack(file.values, "f8", (-1, LEAVES), "surrogate: values")
        tree = unpack(file.tree, "i4", (-1,), "surrogate: tree")
        one_each = tree.shape
        splits = Splits(
            tree,
            unpack(file.column, "i4", one_each, "surrogate: column"),
            unpack(file.threshold, "f8", one_each, "surrogate: threshold"),
            unpack(file.missing_left, "u1", one_each, "surrogate: missing_left"),
            unpack(file.left, "u1", one_each, "surrogate: left"),
            unpack(file.right, "u1", one_each, "surrogate: right"),
        )
        whole = (start.size * sum(codes),)
        encoding = unpack(file.encoding, "f8", whole, "surrogate: encoding")
        encoded = unpack(file.encoded, "u1", whole, "surrogate: encoded") != 0
        ends = np.cumsum([start.size * count for count in codes])[:-1]
        trees = len(values)
        require(start.size > 0 and 0 < trees <= MOST_TREES and trees % start.size == 0, "the number of trees")
        require(((tree >= 0) & (tree < trees)).all(), "a split of a tree that is not there")
        require(((splits.column >= 0) & (splits.column < numbers + len(codes))).all(), "a split of an unknown column")
        require(((splits.left & splits.right) == 0).all(), "a split with a leaf on both sides")
        of_numbers = splits.column < numbers
        pairs = np.unique(np.stack((splits.column[of_numbers], splits.threshold[of_numbers])), axis=1)
        require(np.bincount(pairs[0].astype(np.int64), minlength=1).max() <= MOST_EDGES, "too many thresholds")
        shapes = [(start.size, count) for count in codes]
        return cls(
            numbers,
            codes,
            start,
            values,
            splits,
            tuple(e.reshape(shape) for e, shape in zip(np.split(encoding, ends), shapes, strict=False)),
            tuple(e.reshape(shape) for e, shape in zip(np.split(encoded, ends), shapes, strict=False)),
        )


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear model of hashed words and of the features beside them, for s scores.

    A word falls into one of 2^bits buckets, `weight` (s, 2^bits); the sum of its words' weights is divided by the
    root of their number. Numbers are standardised by `centre` and `scale` (d,), kept within `FARTHEST` and 0 when
    missing, and weighted by `slope` (s, d). `of_code` (s, sum of code counts) has a weight for every code.
    """

    code_counts: tuple[int, ...]
    bits: int
    start: Floats
    weight: NDArray[np.float32]
    centre: Floats
    scale: Floats
    slope: Floats
    of_code: Floats

    def scores(self, inputs: Inputs) -> Floats:
        """What the model says of records: (s, n)."""
        _check_shapes(inputs, self.centre.size, self.code_counts)
        found = self.slope @ standardised(inputs.numbers, self.centre, self.scale) + self.start[:, None]
        first = 0
        for row, count in zip(inputs.codes, self.code_counts, strict=True):
            known = (row >= 0) & (row < count)
            found += np.where(known, self.of_code[:, first + np.where(known, row, 0)], 0.0)
            first += count
        if inputs.tokens is not None:
            word, row = inputs.tokens
            share = 1.0 / np.sqrt(np.maximum(1, np.bincount(row, minlength=inputs.n)))
            place = buckets(word, self.bits)
            for k, weight in enumerate(self.weight):
                found[k] += np.bincount(row, weight[place], inputs.n) * share
        return found

    def file(self) -> LinearFile:
        """What is kept in a file: of the buckets only those that hold something."""
        used = np.flatnonzero(self.weight.any(axis=0))
        return LinearFile(
            bits=self.bits,
            numbers=self.centre.size,
            codes=list(self.code_counts),
            start=pack(self.start, "f8"),
            bucket=pack(used, "i4"),
            weight=pack(self.weight[:, used], "f4"),
            centre=pack(self.centre, "f8"),
            scale=pack(self.scale, "f8"),
            slope=pack(self.slope, "f8"),
            of_code=pack(self.of_code, "f8"),
        )

    @classmethod
    def read(cls, file: LinearFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when the arrays do not fit together.
        """
        numbers, codes = _counts(file.numbers, file.codes)
        require(1 <= file.bits <= LARGEST_BITS, "the number of buckets")
        start = unpack(file.start, "f8", (-1,), "surrogate: start")
        require(0 < start.size <= 256, "the number of scores")
        used = unpack(file.bucket, "i4", (-1,), "surrogate: bucket")
        require((np.diff(used, prepend=-1) > 0).all() and (used < 1 << file.bits).all(), "buckets in disorder")
        weight = np.zeros((start.size, 1 << file.bits), np.float32)
        weight[:, used] = unpack(file.weight, "f4", (start.size, used.size), "surrogate: weight")
        scale = unpack(file.scale, "f8", (numbers,), "surrogate: scale")
        require((scale > 0).all(), "a scale that is not positive")
        return cls(
            codes,
            file.bits,
            start,
            weight,
            unpack(file.centre, "f8", (numbers,), "surrogate: centre"),
            scale,
            unpack(file.slope, "f8", (start.size, numbers), "surrogate: slope"),
            unpack(file.of_code, "f8", (start.size, sum(codes)), "surrogate: of_code"),
        )


def buckets(word: Hashes, bits: int) -> Ints:
    """Which of 2^bits buckets each word (T,) falls into: the highest bits of its hash."""
    return (word >> np.uint64(64 - bits)).astype(np.int64)


def standardised(numbers: Floats, centre: Floats, scale: Floats) -> Floats:
    """Numbers (d, n) in standard deviations from the centre, within `FARTHEST`, 0 for missing ones."""
    return np.nan_to_num(np.clip((numbers - centre[:, None]) / scale[:, None], -FARTHEST, FARTHEST))


def _check_shapes(inputs: Inputs, numbers: int, codes: Sequence[int]) -> None:
    if inputs.numbers.shape[0] != numbers or inputs.codes.shape[0] != len(codes):
        msg = (
            f"the surrogate sees {numbers} numbers and {len(codes)} categories, "
            f"not {inputs.numbers.shape[0]} and {inputs.codes.shape[0]}"
        )
        raise ValueError(msg)


def _counts(numbers: int, codes: list[int]) -> tuple[int, tuple[int, ...]]:
    """Column counts of a file, refused where nothing sensible has them."""
    require(0 <= numbers <= MOST_COLUMNS and len(codes) <= MOST_COLUMNS, "the number of columns")
    require(all(1 <= count <= MOST_COLUMNS for count in codes), "the number of codes")
    return numbers, tuple(codes)


def require(condition: object, what: str) -> None:
    """Refuse a damaged file."""
    if not condition:
        msg = f"surrogate: damaged ({what})"
        raise ValueError(msg)
