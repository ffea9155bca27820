"""Pieces of a stream: cutting, joining and sorting the columns of predictions and of labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from poisonwatch.types import Batch, Feedback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.types import Bools, Floats, Ints, Texts

Piece = Batch | Feedback
P = TypeVar("P", Batch, Feedback)


def alike(first: Piece, second: Piece) -> bool:
    """May they be joined? Predictions of different models have different columns."""
    if isinstance(first, Batch) and isinstance(second, Batch):
        return first.model == second.model
    return isinstance(first, Feedback) and isinstance(second, Feedback)


def _columns(piece: Piece) -> dict[str, Any]:
    """The columns of a piece, which are indexed by record on their last axis; not where rejected lines stood."""
    found = {field.name: getattr(piece, field.name) for field in dataclasses.fields(piece)}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray) and name != "rejected_at"}


def _select(piece: P, which: slice | Bools | Ints, **changes: Any) -> P:
    """The records chosen by an index, with the versions that they have, in the order in which these are met."""
    chosen: dict[str, Any] = {name: column[..., which] for name, column in _columns(piece).items()}
    if isinstance(piece, Batch):
        codes, first = np.unique(chosen["version"], return_index=True)
        met = codes[np.argsort(first)]
        recode = np.zeros(len(piece.versions), np.int32)
        recode[met] = np.arange(met.size)
        chosen["version"] = recode[chosen["version"]]
        changes["versions"] = tuple(piece.versions[code] for code in met.tolist())
    return dataclasses.replace(piece, **chosen, **changes)


def cut(piece: Piece, start: int, stop: int) -> Piece:
    """Records start to stop. Rejected lines go with the record that follows them, the last ones with the last cut."""
    if isinstance(piece, Feedback):
        return _select(piece, slice(start, stop))
    at = piece.rejected_at
    mine = at[(at >= start) & ((at < stop) | (stop == piece.time.size))]
    return _select(piece, slice(start, stop), rejected_at=mine - start)


def without(piece: Piece, keep: Bools) -> Piece:
    """The records to keep; the others become rejected lines."""
    if isinstance(piece, Feedback):
        return _select(piece, keep)
    place = np.concatenate(([0], np.cumsum(keep)))
    at = np.sort(np.concatenate((piece.rejected_at, np.flatnonzero(~keep))))
    return _select(piece, keep, rejected_at=place[at])


def left_out(batch: Batch, keep: Bools) -> Batch:
    """The predictions to keep; of the others nothing is left, and no line was lost."""
    place = np.concatenate(([0], np.cumsum(keep)))
    return _select(batch, keep, rejected_at=place[batch.rejected_at])


def join(first: Piece, second: Piece) -> Piece:
    """Two neighbouring pieces of one lane as one."""
    both: dict[str, Any] = {
        name: np.concatenate((column, _columns(second)[name]), axis=-1) for name, column in _columns(first).items()
    }
    if isinstance(first, Feedback):
        return dataclasses.replace(first, **both)
    assert isinstance(second, Batch)  # noqa: S101 - a lane holds one kind
    versions = tuple(dict.fromkeys((*first.versions, *second.versions)))
    recode = np.array([versions.index(name) for name in second.versions], np.int32)
    both["version"] = np.concatenate((first.version, recode[second.version] if recode.size else second.version))
    both["rejected_at"] = np.concatenate((first.rejected_at, second.rejected_at + first.time.size))
    return dataclasses.replace(first, **both, versions=versions)


def saved(piece: Piece) -> dict[str, Any]:
    """A piece as JSON values and arrays of numbers, for a checkpoint."""
    columns: dict[str, Any] = {
        field.name: value.tolist() if isinstance(value, np.ndarray) and value.dtype == np.object_ else value
        for field in dataclasses.fields(piece)
        for value in [getattr(piece, field.name)]
    }
    return columns | {"shape": list(piece.texts.shape)} if isinstance(piece, Batch) else columns


def restored(columns: dict[str, Any]) -> Piece:
    """The piece that was saved."""
    if "shape" not in columns:
        attributes = _objects([tuple(shared) for shared in columns["attributes"]])
        texts = {name: _objects(columns[name]) for name in ("ids", "labels", "sources")}
        return Feedback(time=columns["time"], **texts, attributes=attributes)
    shape = columns["shape"]
    found = {name: value for name, value in columns.items() if name != "shape"}
    found |= {name: _objects(columns[name]) for name in ("ids", "labels", "sources")}
    found["texts"] = _objects([text for row in columns["texts"] for text in row]).reshape(shape)
    return Batch(**{**found, "versions": tuple(columns["versions"])})


def _objects(values: Sequence[Any]) -> Texts:
    found = np.empty(len(values), np.object_)
    found[:] = values
    return found


def sorted_batch(batches: Sequence[tuple[Piece, Floats]]) -> tuple[Piece, Floats]:
    """Predictions of several lanes, each with its clocks, as one batch in the order of the clocks."""
    joined = batches[0][0]
    for piece, _ in batches[1:]:
        joined = join(joined, piece)
    assert isinstance(joined, Batch)  # noqa: S101 - only batches were given
    clocks = np.concatenate([clocks for _, clocks in batches])
    order = np.argsort(clocks, kind="stable")
    place = np.append(np.argsort(order, kind="stable"), order.size)
    return _select(joined, order, rejected_at=np.sort(place[joined.rejected_at])), clocks[order]
