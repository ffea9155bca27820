"""Codes of columns, what they stand for, and what the reference says of them."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given
from sklearn.datasets import load_digits

from poisonwatch.mining.grid import Grid
from poisonwatch.mining.items import Condition, Items, ItemsFile, bears_cell, bears_values
from poisonwatch.types import Column, Item, Schema, Values
from tests.mining.blocks import block

if TYPE_CHECKING:
    from poisonwatch.mining.records import Records

CUTS: dict[str, tuple[float, ...]] = {
    "confidence": (0.5,),
    "features.amount": (1.0, 2.5, 10.0),
    "features.flag": (0.0,),
}


def schema(width: int = 0) -> Schema:
    """Two numerical features, two categorical ones, and embeddings of a width."""
    embedding = (Column(name="embedding", kind="embedding", width=width),) if width else ()
    return Schema(
        model=None,
        outcome=Column(name="prediction", kind="categorical", values=("no", "yes")),
        features=(
            Column(name="features.amount", kind="numerical"),
            Column(name="features.flag", kind="numerical"),
            Column(name="features.country", kind="categorical", values=("ES", "FR"), folded=("IS", "LI")),
            Column(name="segment", kind="categorical", values=("a",)),
            *embedding,
        ),
        layout="object",
        confidence=True,
    )


def sample(n: int, seed: int = 0, width: int = 0, **of: Any) -> Records:
    """Records of that schema."""
    generator = np.random.default_rng(seed)
    amount = np.where(generator.random(n) < 0.1, np.nan, generator.choice([0.5, 1.0, 2.0, 2.5, 7.25, 99.0], n))
    numbers = np.stack((generator.random(n), amount, generator.integers(0, 2, n).astype(np.float64)))
    codes = np.stack((generator.integers(1, 3, n), generator.integers(0, 5, n), generator.integers(0, 4, n)))
    codes = np.concatenate((codes, np.ones((int(width > 0), n), np.int64)))
    embeddings = generator.normal(3.0, 1.0, (width, n))
    hit = {"surprising": generator.random(n) < 0.1, "flipped": generator.random(n) < 0.05}
    label = codes[0] - 1
    return block(
        [""] * n, label.tolist(), **({"numbers": numbers, "codes": codes, "embeddings": embeddings} | hit | of)
    )


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([1.0, 2.5, 10.0]), min_size=1))
def test_a_bin_is_what_people_read(values: list[float]) -> None:
    """The condition told of every code is met by exactly the records that have it."""
    n = len(values)
    records = sample(n, numbers=np.stack((np.zeros(n), np.array(values), np.zeros(n))))
    items = Items.learn(schema(), CUTS, sample(50))
    codes = items.columns(records, np.array([0]))[0]
    for code in range(int(items.sizes[0])):
        told = items.item(Condition(0, code))
        assert bears_values(Values(items=(told,)), records, items.schema).tolist() == (codes == code).tolist()


def test_categories_are_what_people_read() -> None:
    """So are those of categories, with names for what is missing, rare and new."""
    records, items = sample(300), Items.learn(schema(), CUTS, sample(50))
    codes = items.columns(records, np.array([2, 3]))
    told = [items.item(Condition(2, code)) for code in range(5)]
    assert [item.value for item in told] == ["(missing)", "ES", "FR", "(rare)", "(new)"]
    for code, item in enumerate(told):
        assert bears_values(Values(items=(item,)), records, items.schema).tolist() == (codes[0] == code).tolist()
    both = Values(items=(told[1], items.item(Condition(3, 1))))
    assert bears_values(both, records, items.schema).tolist() == ((codes[0] == 1) & (codes[1] == 1)).tolist()


def test_values_of_other_features_are_borne_by_none() -> None:
    """A pattern of a feature or category that the schema does not have is met nowhere."""
    for item in (Item(feature="features.weight", low=1.0), Item(feature="features.country", value="PT")):
        assert not bears_values(Values(items=(item,)), sample(50), schema()).any()


def test_an_exact_number_is_met_by_itself_alone() -> None:
    """Where both ends are equal the number is exactly that."""
    records, items = sample(300), Items.learn(schema(), CUTS, sample(50))
    told = items.item(Condition(0, 2, 7.25))
    assert (told.low, told.high) == (7.25, 7.25)
    assert bears_values(Values(items=(told,)), records, items.schema).tolist() == (records.numbers[1] == 7.25).tolist()


def test_a_region_is_what_its_signs_say() -> None:
    """A cell is borne by the records with its code, and carries all that it takes to tell."""
    items = Items.learn(schema(32), CUTS, sample(500, width=32))
    records = sample(200, seed=1, width=32)
    for table in range(8):
        codes = items.columns(records, np.array([4 + table]))[0]
        for code in np.unique(codes).tolist():
            cell = items.cell(Condition(4 + table, code))
            assert bears_cell(cell, records.embeddings).tolist() == (codes == code).tolist()
    missing = records.embeddings.copy()
    missing[:, 0], missing[3, 1] = 0.0, np.nan
    cell = items.cell(Condition(4, int(items.columns(records, np.array([4]))[0, 0])))
    assert not bears_cell(cell, missing)[:2].any()


def test_bits_are_balanced_wherever_the_embeddings_lie() -> None:
    """Each bit is set in about half of new records: within 5 standard errors of n = 2000 and of the median of 2000, sqrt(2) x 0.0112."""
    items = Items.learn(schema(32), CUTS, sample(2000, width=32))
    codes = items.columns(sample(2000, seed=1, width=32), np.arange(4, 12))
    share = (codes[:, :, None] >> np.arange(8) & 1).mean(axis=1)
    assert (np.abs(share - 0.5) < 5 * math.sqrt(2) * 0.5 / math.sqrt(2000)).all()


def test_only_what_is_asked_for_is_made() -> None:
    """Codes of some columns are the same as those of all, images included."""
    images = np.ascontiguousarray(load_digits().data[:300].T, np.float32)
    records = sample(300, width=64, embeddings=images)
    items = Items.learn(schema(64), CUTS, records)
    assert items.grid is not None
    every = items.columns(records, np.arange(items.width))
    assert (every < items.sizes[:, None]).all()
    for which in ([0], [1, 3], [2, 40], [5, 83], [83]):
        assert (items.columns(records, np.array(which)) == every[which]).all()


@pytest.mark.parametrize("width", [0, 32, 64])
def test_a_file_gives_back_the_same(width: int) -> None:
    """Through JSON and back, codes, bounds and shares are the same."""
    images = load_digits().data[:300].T if width == 64 else np.random.default_rng(0).normal(size=(width, 300))
    records = sample(300, width=width, embeddings=images.astype(np.float32))
    items = Items.learn(schema(width), CUTS, records)
    file = msgspec.json.decode(msgspec.json.encode(items.file()), type=ItemsFile)
    read = Items.read(file, schema(width), CUTS)
    assert (items.grid is not None) == (width == 64)
    everything = np.arange(items.width)
    assert (read.columns(records, everything) == items.columns(records, everything)).all()
    for conditions in ([Condition(0, 1)], [Condition(0, 2, 7.25), Condition(2, 1)], [Condition(0, 4), Condition(3, 0)]):
        assert (read.bound(conditions, 1) == items.bound(conditions, 1)).all()
        assert read.usual_share(conditions, 1) == items.usual_share(conditions, 1)


def test_a_damaged_file_is_refused() -> None:
    """Parts that do not fit together, or not to the schema, are errors."""
    items = Items.learn(schema(32), CUTS, sample(100, width=32))
    file = items.file()
    replace = msgspec.structs.replace
    for damaged in (
        replace(file, thresholds=file.thresholds[:32]),
        replace(file, thresholds=file.thresholds[:31]),
        replace(file, codes=b"\xff" * len(file.codes)),
        replace(file, codes=file.codes[:-4]),
        replace(file, values=file.values[:-4]),
        replace(file, values=np.full(200, np.inf, "<f4").tobytes()),
        replace(file, flipped=file.flipped[1:]),
        replace(file, grid=Grid(side=8, low=0.0, high=1.0)),
    ):
        with pytest.raises(ValueError, match=r"items|grid"):
            Items.read(damaged, schema(32), CUTS)
    with pytest.raises(ValueError, match="items"):
        Items.read(file, schema(), CUTS)


def test_a_bound_is_the_largest_of_all_parts() -> None:
    """The same as going through all parts and records one by one."""
    records = sample(400)
    items = Items.learn(schema(), CUTS, records)
    conditions = [Condition(0, 1), Condition(1, 1), Condition(2, 2)]
    codes = items.columns(records, np.arange(3))
    for label in (0, 1):
        of_class = [r for r in range(400) if records.label[r] == label]
        for mark, hit in enumerate((records.surprising, records.flipped)):
            rate = (sum(bool(hit[r]) for r in of_class) + 0.5) / (len(of_class) + 1.0)
            largest = 0.0
            for many in (1, 2, 3):
                for part in combinations(conditions, many):
                    bearers = [r for r in of_class if all(codes[c.column, r] == c.code for c in part)]
                    k = sum(bool(hit[r]) for r in bearers) + 30.0 * rate
                    largest = max(largest, (k + 2.0 + 2.0 * math.sqrt(k + 1.0)) / (len(bearers) + 30.0))
            assert items.bound(conditions, label)[mark] == pytest.approx(largest)
    assert (items.bound(conditions, 7) == 0).all()


def test_a_share_bounds_that_of_the_reference() -> None:
    """It counts exact numbers as they are, is above what was met, and not zero for what was not."""
    records = sample(1000)
    items = Items.learn(schema(), CUTS, records)
    for conditions, borne in (
        ([Condition(0, 2)], (records.numbers[1] > 2.5) & (records.numbers[1] <= 10)),
        ([Condition(0, 2, 7.25), Condition(2, 1)], (records.numbers[1] == 7.25) & (records.codes[1] == 1)),
        ([Condition(0, 2, 7.26)], np.zeros(1000, np.bool_)),
    ):
        met = int((borne & (records.label == 1)).sum())
        assert met / 1000 < items.usual_share(conditions, 1) <= (met + 2 + 2 * math.sqrt(met + 1)) / 1000 + 1e-12
