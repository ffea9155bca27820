"""The two kinds of models score what their slow, obvious definitions score, come back from a file, and refuse damage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from poisonwatch.profile.packed import pack
from poisonwatch.profile.scorer import (
    FARTHEST,
    LEAVES,
    Inputs,
    Linear,
    LinearFile,
    Splits,
    Trees,
    TreesFile,
    buckets,
)
from poisonwatch.profile.words import Tokens, tokens

if TYPE_CHECKING:
    from poisonwatch.types import Floats

NUMBERS = 3
CODES = (5, 2)
TEXTS = ("free prize now", "", "see you at home", "free free free", "Ω ünïcode free", "now", "home prize home now")

Tree = float | tuple[int, float, bool, Any, Any]
"""A leaf's value, or column, threshold, whether missing goes left, and both sides."""


def grow(generator: np.random.Generator, leaves: int) -> Tree:
    """A random tree with so many leaves."""
    if leaves == 1:
        return float(generator.normal())
    left = int(generator.integers(1, leaves))
    column = int(generator.integers(NUMBERS + len(CODES)))
    threshold = float(generator.integers(-2, 3)) / 2
    return column, threshold, bool(generator.integers(2)), grow(generator, left), grow(generator, leaves - left)


def walk(tree: Tree, values: list[float]) -> float:
    """What a tree says of one record, found as one would by hand; NaN is missing."""
    if isinstance(tree, float):
        return tree
    column, threshold, missing_left, left, right = tree
    goes_left = missing_left if math.isnan(values[column]) else values[column] <= threshold
    return walk(left if goes_left else right, values)


def flatten(forest: list[Tree]) -> tuple[Floats, Splits]:
    """A forest as `Trees` holds it."""
    values, splits = np.zeros((len(forest), LEAVES)), []

    def below(number: int, tree: Tree, met: list[float]) -> int:
        if isinstance(tree, float):
            met.append(tree)
            return 1 << (len(met) - 1)
        column, threshold, missing_left, left, right = tree
        sides = below(number, left, met), below(number, right, met)
        splits.append((number, column, threshold, missing_left, *sides))
        return sides[0] | sides[1]

    for number, tree in enumerate(forest):
        met: list[float] = []
        below(number, tree, met)
        values[number, : len(met)] = met
    kinds = (np.int32, np.int32, np.float64, np.uint8, np.uint8, np.uint8)
    return values, Splits(*(np.array(c, kind) for c, kind in zip(zip(*splits, strict=True), kinds, strict=True)))


def forest(seed: int, scores: int = 2, each: int = 20) -> tuple[Trees, list[Tree]]:
    """Random trees of one to eight leaves, and the same as nested tuples."""
    generator = np.random.default_rng(seed)
    grown = [grow(generator, 1 + k % LEAVES) for k in range(scores * each)]
    values, splits = flatten(grown)
    encoding = tuple(generator.integers(-2, 3, (scores, count)) / 2 for count in CODES)
    encoded = tuple(generator.random((scores, count)) < 0.8 for count in CODES)
    return Trees(NUMBERS, CODES, generator.normal(size=scores), values, splits, encoding, encoded), grown


def records(seed: int, n: int = 300) -> Inputs:
    """Numbers that meet the thresholds exactly or are missing, and codes of which some are too large or negative."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(-3, 4, (NUMBERS, n)) / 2.0
    numbers[generator.random(numbers.shape) < 0.2] = np.nan
    codes = np.stack([generator.integers(-1, count + 2, n) for count in CODES])
    return Inputs(numbers, codes, tokens(generator.choice(np.array(TEXTS, object), (1, n))))


def linear(seed: int, scores: int = 3, bits: int = 6) -> Linear:
    """A random model of words, numbers and codes."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(scores, 1 << bits)).astype(np.float32)
    weight[:, ::3] = 0
    return Linear(
        CODES,
        bits,
        generator.normal(size=scores),
        weight,
        generator.normal(size=NUMBERS),
        np.full(NUMBERS, 0.3),
        generator.normal(size=(scores, NUMBERS)),
        generator.normal(size=(scores, sum(CODES))),
    )


@pytest.mark.parametrize("seed", range(5))
def test_trees_say_what_walking_them_says(seed: int) -> None:
    """For every record and score the sum over its trees, with missing numbers, unseen codes and values on a threshold."""
    trees, grown = forest(seed)
    inputs = records(seed)
    expected = np.repeat(trees.start[:, None], inputs.n, axis=1)
    for score in range(2):
        for n in range(inputs.n):
            values = inputs.numbers[:, n].tolist()
            for row, code in enumerate(inputs.codes[:, n].tolist()):
                seen = 0 <= code < CODES[row] and bool(trees.encoded[row][score, code])
                values.append(float(trees.encoding[row][score, code]) if seen else math.nan)
            expected[score, n] += sum(walk(tree, values) for tree in grown[score * 20 : score * 20 + 20])
    np.testing.assert_allclose(trees.scores(inputs), expected, rtol=0, atol=1e-12)


def test_a_linear_model_says_what_its_definition_says() -> None:
    """Word by word, number by number, code by code; records without text, numbers or known codes included."""
    model, inputs = linear(0), records(1, 50)
    assert inputs.tokens is not None
    expected = np.zeros((3, inputs.n))
    for score in range(3):
        for n in range(inputs.n):
            total = float(model.start[score])
            words = inputs.tokens.word[inputs.tokens.row == n]
            for word in words.tolist():
                total += float(model.weight[score, word >> 58]) / math.sqrt(len(words))
            for d in range(NUMBERS):
                x = (float(inputs.numbers[d, n]) - float(model.centre[d])) / float(model.scale[d])
                total += 0.0 if math.isnan(x) else float(model.slope[score, d]) * min(max(x, -FARTHEST), FARTHEST)
            for row, code in enumerate(inputs.codes[:, n].tolist()):
                total += float(model.of_code[score, sum(CODES[:row]) + code]) if 0 <= code < CODES[row] else 0.0
            expected[score, n] = total
    np.testing.assert_allclose(model.scores(inputs), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", [forest(3)[0], linear(3)])
def test_a_record_is_scored_the_same_in_any_company(model: Trees | Linear) -> None:
    """Scores do not depend on the order of the records, nor on which others are in the batch, also beyond one block."""
    inputs = records(4, 9000)
    assert inputs.tokens is not None
    together = model.scores(inputs)
    order = np.random.default_rng(0).permutation(inputs.n)[:500]
    words = [inputs.tokens.word[inputs.tokens.row == n] for n in order.tolist()]
    row = np.repeat(np.arange(order.size), [len(mine) for mine in words])
    some = Inputs(inputs.numbers[:, order], inputs.codes[:, order], Tokens(np.concatenate(words), row))
    np.testing.assert_allclose(model.scores(some), together[:, order], rtol=0, atol=1e-12)


def test_the_words_of_a_batch_without_words_weigh_nothing() -> None:
    """An empty batch and one without any token are scored."""
    model, inputs = linear(0), records(1, 4)
    bare = Inputs(inputs.numbers, inputs.codes)
    nothing = Tokens(np.empty(0, np.uint64), np.empty(0, np.int64))
    np.testing.assert_array_equal(model.scores(bare), model.scores(Inputs(*bare[:2], nothing)))
    for each in (model, forest(0)[0]):
        assert each.scores(Inputs(np.empty((NUMBERS, 0)), np.empty((2, 0), np.int32))).shape[1] == 0


def test_buckets_are_the_highest_bits() -> None:
    """Every bucket is reached and none outside."""
    assert buckets(np.array([0, 2**63, 2**64 - 1], np.uint64), 4).tolist() == [0, 8, 15]


@pytest.mark.parametrize("model", [forest(3)[0], linear(3)])
def test_a_model_comes_back_from_its_file(model: Trees | Linear) -> None:
    """Through JSON and back a model says the same of everything."""
    read: Trees | Linear
    if isinstance(model, Trees):
        read = Trees.read(msgspec.json.decode(msgspec.json.encode(model.file()), type=TreesFile))
    else:
        read = Linear.read(msgspec.json.decode(msgspec.json.encode(model.file()), type=LinearFile))
    np.testing.assert_array_equal(read.scores(records(5)), model.scores(records(5)))


def test_other_columns_are_refused() -> None:
    """A batch with more or fewer columns than the reference had is a defect of the caller, not something to score."""
    inputs = records(0)
    for model in (forest(0)[0], linear(0)):
        for bad in (Inputs(inputs.numbers[1:], inputs.codes), Inputs(inputs.numbers, inputs.codes[1:])):
            with pytest.raises(ValueError, match="the surrogate sees 3 numbers and 2 categories"):
                model.scores(bad)


M = len(forest(0)[0].splits.tree)


@pytest.mark.parametrize(
    "change",
    [
        {"start": b""},
        {"start": pack(np.zeros(3), "f8")},
        {"start": pack(np.array([np.nan, 0]), "f8")},
        {"values": pack(np.zeros((4097 * 2, LEAVES)), "f8")},
        {"values": b"\0" * 8},
        {"tree": pack(np.full(M, 40), "i4")},
        {"tree": pack(np.full(M, -1), "i4")},
        {"tree": pack(np.zeros(M - 1), "i4")},
        {"column": pack(np.full(M, 5), "i4")},
        {"column": pack(np.full(M, -1), "i4")},
        {"threshold": pack(np.full(M, np.inf), "f8")},
        {"left": pack(np.full(M, 255), "u1")},
        {"missing_left": b"\0"},
        {"codes": [5, 3]},
        {"codes": [0, 7]},
        {"codes": [5, 10**9]},
        {"numbers": -1},
        {"encoding": b""},
        {"encoded": b"\0"},
    ],
)
def test_damaged_trees_are_refused(change: dict[str, Any]) -> None:
    """Sizes that do not fit, places that are not there, numbers that are none, and sizes that would eat the memory."""
    file = forest(0)[0].file()
    Trees.read(file)
    with pytest.raises(ValueError, match="surrogate"):
        Trees.read(msgspec.structs.replace(file, **change))


def test_more_thresholds_than_bins_are_refused() -> None:
    """A table of a column has as many rows as thresholds: their number is bounded."""
    m = 255
    splits = Splits(
        np.zeros(m, np.int32),
        np.zeros(m, np.int32),
        np.arange(m, dtype=float),
        np.zeros(m, np.uint8),
        np.full(m, 1, np.uint8),
        np.full(m, 2, np.uint8),
    )
    trees = Trees(1, (), np.zeros(1), np.zeros((1, LEAVES)), splits, (), ())
    with pytest.raises(ValueError, match="too many thresholds"):
        Trees.read(trees.file())
    fewer = Splits(*[part[1:] for part in splits])  # type: ignore[arg-type]
    assert len(Trees.read(Trees(1, (), np.zeros(1), np.zeros((1, LEAVES)), fewer, (), ()).file()).splits.tree) == m - 1


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 40},
        {"bits": 0},
        {"bits": 5},
        {"start": b""},
        {"bucket": pack(np.array([2, 1]), "i4")},
        {"bucket": pack(np.array([-1]), "i4")},
        {"weight": b"\0\0\0\0"},
        {"scale": pack(np.zeros(NUMBERS), "f8")},
        {"centre": b""},
        {"slope": b""},
        {"of_code": b""},
        {"codes": [5]},
        {"numbers": 10**9},
    ],
)
def test_a_damaged_linear_model_is_refused(change: dict[str, Any]) -> None:
    """Sizes that do not fit, buckets in disorder, a division by zero, and sizes that would eat the memory."""
    file = linear(0).file()
    Linear.read(file)
    with pytest.raises(ValueError, match="surrogate"):
        Linear.read(msgspec.structs.replace(file, **change))
