"""Cutting, joining and sorting pieces: every record keeps all of its columns, and no rejected line is lost."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.pieces import alike, cut, join, sorted_batch, without
from poisonwatch.types import Batch, Feedback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.profile.pieces import Piece

VERSIONS = ("v1", "v2", "v3")


def texts(values: Iterable[object]) -> Any:
    """Values as an array of objects."""
    found = list(values)
    array = np.empty(len(found), np.object_)
    array[:] = found
    return array


def batch(numbers: Iterable[int], rejected_at: Iterable[int] = (), model: str = "m") -> Batch:
    """Predictions that say their number in every column."""
    own = list(numbers)
    met = list(dict.fromkeys(VERSIONS[n % 3] for n in own))
    tags = np.array(own, np.int64)
    return Batch(
        model=model,
        time=tags.astype(np.float64),
        version=np.array([met.index(VERSIONS[n % 3]) for n in own], np.int32),
        versions=tuple(met),
        numbers=np.array([tags, tags * 10], np.float64),
        codes=np.array([tags, tags * 2, tags * 3], np.int32),
        ids=texts(f"p{n}" for n in own),
        labels=texts(f"l{n}" for n in own),
        sources=texts(f"s{n}" for n in own),
        texts=np.array([[f"t{n}" for n in own], [f"u{n}" for n in own]], np.object_).reshape(2, -1),
        embeddings=np.array([tags, tags + 0.5], np.float32),
        marks=np.array([tags % 2 == 0], np.bool_),
        rejected_at=np.array(sorted(rejected_at), np.int64),
    )


def labels(numbers: Iterable[int]) -> Feedback:
    """Labels that say their number in every column."""
    own = list(numbers)
    return Feedback(
        time=np.array(own, np.float64),
        ids=texts(f"p{n}" for n in own),
        labels=texts(f"l{n}" for n in own),
        sources=texts(f"s{n}" for n in own),
        attributes=texts((f"a={n}",) for n in own),
    )


def said(piece: Piece) -> list[int | None]:
    """The numbers of a piece's records, None for a rejected line; every column of a record must say the same number."""
    own = [int(time) for time in piece.time]
    if isinstance(piece, Feedback):
        assert [found.tolist() for found in (piece.ids, piece.labels, piece.sources, piece.attributes)] == [
            [f"p{n}" for n in own],
            [f"l{n}" for n in own],
            [f"s{n}" for n in own],
            [(f"a={n}",) for n in own],
        ]
        return list(own)
    expected = batch(own)
    for name in ("numbers", "codes", "ids", "labels", "texts", "embeddings", "marks", "version"):
        assert getattr(piece, name).tolist() == getattr(expected, name).tolist(), name
        assert getattr(piece, name).dtype == getattr(expected, name).dtype, name
    assert piece.versions == expected.versions
    at = piece.rejected_at.tolist()
    assert at == sorted(at)
    assert all(0 <= place <= len(own) for place in at)
    told: list[int | None] = []
    for place in range(len(own) + 1):
        told += [*[None] * at.count(place), *own[place : place + 1]]
    return told


RECORDS = st.lists(st.integers(0, 99), max_size=20, unique=True)
REJECTED = st.lists(st.integers(0, 20), max_size=6)
CUTS = st.lists(st.integers(0, 20), max_size=6)


def chopped(piece: Piece, cuts: list[int]) -> list[Piece]:
    """The piece cut at some places, none of the parts empty."""
    edges = sorted({0, piece.time.size, *(min(at, piece.time.size) for at in cuts)})
    return [cut(piece, start, stop) for start, stop in pairwise(edges)] or [cut(piece, 0, 0)]


@given(records=RECORDS, rejected=REJECTED, cuts=CUTS, of_labels=st.booleans())
def test_cut_and_joined_again_is_the_whole(
    records: list[int], rejected: list[int], cuts: list[int], *, of_labels: bool
) -> None:
    """Cut anywhere, nothing is lost and no column moves; joined again it is what it was."""
    whole: Piece = labels(records) if of_labels else batch(records, [min(at, len(records)) for at in rejected])
    pieces = chopped(whole, cuts)
    joined = pieces[0]
    for piece in pieces[1:]:
        assert alike(joined, piece)
        joined = join(joined, piece)
    assert said(joined) == said(whole)
    kept = [n for piece in pieces for n in said(piece) if n is not None]
    assert kept == records


@given(records=RECORDS, rejected=REJECTED, drops=st.sets(st.integers(0, 19)))
def test_what_is_not_kept_becomes_a_rejected_line(records: list[int], rejected: list[int], drops: set[int]) -> None:
    """Records that are dropped leave a rejected line at their place; of labels they leave nothing."""
    whole = batch(records, [min(at, len(records)) for at in rejected])
    keep = np.array([place not in drops for place in range(len(records))], np.bool_)
    kept = {n for n, keeps in zip(records, keep.tolist(), strict=True) if keeps}
    assert said(without(whole, keep)) == [n if n in kept else None for n in said(whole)]
    assert said(without(labels(records), keep)) == [n for n in records if n in kept]


@given(lanes=st.lists(st.tuples(RECORDS, REJECTED), min_size=1, max_size=4), data=st.data())
def test_sorting_is_sorting_records_by_their_clocks(
    lanes: list[tuple[list[int], list[int]]], data: st.DataObject
) -> None:
    """Lanes come out as a stable sort of their records; a rejected line stands before the record that it stood before."""
    pieces: list[tuple[Piece, Any]] = []
    expected: list[tuple[float, int]] = []
    one_after_the_other: list[int | None] = []
    for lane, (numbers, rejected) in enumerate(lanes):
        own = [n + 100 * lane for n in numbers]
        ticks = sorted(data.draw(st.lists(st.integers(0, 9), min_size=len(own), max_size=len(own))))
        pieces.append((batch(own, [min(at, len(own)) for at in rejected]), np.array(ticks, np.float64)))
        expected += zip(map(float, ticks), own, strict=True)
        one_after_the_other += said(pieces[-1][0])
    expected.sort(key=lambda record: record[0])
    found, clocks = sorted_batch(pieces)
    assert [n for n in said(found) if n is not None] == [n for _, n in expected]
    assert clocks.tolist() == [clock for clock, _ in expected]
    assert rejected_before(said(found)) == rejected_before(one_after_the_other)


def rejected_before(told: list[int | None]) -> Counter[int | None]:
    """How many rejected lines stand right before each record; None for the end."""
    found: Counter[int | None] = Counter()
    waiting = 0
    for n in [*told, None]:
        if n is None:
            waiting += 1
        else:
            found[n], waiting = waiting, 0
    found[None] = waiting - 1
    return +found


def test_models_are_not_alike() -> None:
    """Predictions of two models are never joined, whatever their columns; labels always may be."""
    assert alike(batch([1]), batch([2]))
    assert not alike(batch([1]), batch([2], model="other"))
    assert not alike(batch([1]), labels([2]))
    assert alike(labels([1]), labels([2]))
