"""A prediction counts once, and nobody hides behind the id of another."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.profile.pieces import cut
from poisonwatch.sources import distinct
from poisonwatch.sources.distinct import HORIZON, Distinct
from poisonwatch.types import Batch, Column, Schema
from tests.streams import START, lines

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = Schema(
    model="m",
    outcome=Column(name="prediction", kind="categorical", values=("a", "b"), strings=True),
    features=(Column(name="features.n", kind="numerical"), Column(name="text", kind="text", values=("present",))),
    layout="object",
    confidence=True,
)
RECORD = {
    "timestamp": START,
    "prediction_id": "1",
    "model_version": "v1",
    "prediction": "a",
    "confidence": 0.5,
    "features": {"n": 1.5},
    "text": "hello",
}


def batch(records: Sequence[dict[str, Any]]) -> Batch:
    """Records as they are decoded."""
    (found,) = JsonlPredictions({"m": SCHEMA}, 1 << 16).decode(lines(records)).batches
    return found


def test_same_record_counts_once() -> None:
    """The same record again, in the same batch or in a later one, is left out, and counted."""
    seen = Distinct(7)
    assert seen.once(batch([RECORD, RECORD, {**RECORD, "prediction_id": "2"}])).ids.tolist() == ["1", "2"]
    assert seen.once(batch([{**RECORD, "prediction_id": "3"}, RECORD])).ids.tolist() == ["3"]
    assert seen.dropped == 2


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": START + 1e-6},
        {"model_version": "v2"},
        {"prediction": "b"},
        {"confidence": 0.25},
        {"features": {"n": -1.5}},
        {"features": {}},
        {"text": "hello "},
        {"text": None},
    ],
)
def test_nobody_hides_behind_an_id(change: dict[str, Any]) -> None:
    """Whoever repeats an id with anything else in the record is counted."""
    assert Distinct(0).once(batch([RECORD, {**RECORD, **change}])).time.size == 2


def test_without_an_id_all_count() -> None:
    """Records without an id may be alike by right."""
    plain = {**RECORD, "prediction_id": None}
    seen = Distinct(0)
    assert seen.once(batch([plain, plain])).time.size == 2
    assert seen.dropped == 0


def numbered(numbers: Sequence[int]) -> Batch:
    """Records that differ in their ids alone."""
    one = batch([RECORD])
    ids = np.array([str(n) for n in numbers], np.object_)
    places = np.zeros(ids.size, np.int64)
    columns: dict[str, Any] = {
        field.name: value[..., places]
        for field in dataclasses.fields(one)
        if isinstance(value := getattr(one, field.name), np.ndarray) and field.name != "rejected_at"
    }
    return dataclasses.replace(one, **{**columns, "ids": ids})


def test_horizon() -> None:
    """As many predictions as the horizon says are remembered; what came before twice as many is forgotten."""
    seen = Distinct(3)
    assert seen.once(numbered(range(HORIZON))).time.size == HORIZON
    assert seen.once(numbered([0, HORIZON - 1])).time.size == 0
    seen.once(numbered(range(HORIZON, 2 * HORIZON)))
    assert seen.once(numbered(range(HORIZON, 2 * HORIZON))).time.size == 0
    assert seen.once(numbered([0])).time.size == 1
    assert seen.state()["older"].size + seen.state()["newer"].size + seen.state()["run"].size <= 2 * HORIZON


@given(
    numbers=st.lists(st.integers(0, 30), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    restart=st.booleans(),
)
def test_does_not_depend_on_batches(numbers: list[int], cuts: list[int], restart: bool) -> None:
    """However the stream is chopped, and restarted between two batches, the same records are left."""
    whole = numbered(numbers)
    expected = list(dict.fromkeys(str(n) for n in numbers))
    seen = Distinct(5)
    found: list[str] = []
    edges = sorted({0, len(numbers), *(min(one, len(numbers)) for one in cuts)})
    for first, last in pairwise(edges):
        piece = cut(whole, first, last)
        assert isinstance(piece, Batch)
        found += seen.once(piece).ids.tolist()
        if restart:
            state, seen = seen.state(), Distinct(99)
            seen.restore(state)
    assert found == expected
    assert seen.dropped == len(numbers) - len(expected)


@pytest.mark.parametrize("seed", range(3))
def test_runs_change_nothing(seed: int) -> None:
    """What is put together in runs is found again, whatever the order in which it came."""
    order = np.random.default_rng(seed).permutation(2 * distinct.RUN + 3).tolist()
    seen = Distinct(1)
    half = len(order) // 2
    assert seen.once(numbered(order[:half])).time.size == half
    assert seen.once(numbered(order)).ids.tolist() == [str(n) for n in order[half:]]


def test_rejected_lines_keep_their_places() -> None:
    """A duplicate that is left out is no rejected line, and moves the others as one fewer record."""
    seen = Distinct(0)
    lined = lines([RECORD, RECORD]) + b"bad\n" + lines([{**RECORD, "prediction_id": "2"}])
    (decoded,) = JsonlPredictions({"m": SCHEMA}, 1 << 16).decode(lined).batches
    assert decoded.rejected_at.tolist() == [2]
    assert seen.once(decoded).rejected_at.tolist() == [1]
