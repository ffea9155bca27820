"""Predictions that are kept in full, a bounded number: suspicious ones, and unsuspicious ones to compare them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.mining.records import Records, restored, saved, strings

if TYPE_CHECKING:
    from poisonwatch.mining.records import Columns
    from poisonwatch.types import Bools, Ints

MOST_SUSPICIOUS = 300
"""Suspicious predictions that are kept of one version and class: the last ones, those that flip before all others."""

MOST_USUAL = 300
"""Unsuspicious predictions that are kept of one class: the last ones."""

MOST_AT_ONCE = 20
"""Unsuspicious predictions of one class that are taken from one block."""

MOST_IN_ALL = 3000
"""Predictions of either sort that are kept, whatever the number of versions and classes."""

HEAD, TAIL = 4096, 4096
"""Characters of a longer text that are kept from its beginning, and from its end."""

MOST_CHARACTERS = 2_000_000
"""Characters that are kept of either sort in all: their words are looked for anew when they are asked for."""


class Suspects:
    """Fresh predictions that are surprising or flipped, and a few that are neither."""

    def __init__(self) -> None:
        self._suspicious: Columns = {}
        self._usual: Columns = {}

    def add(self, records: Records) -> None:
        """Take what is worth keeping from a block."""
        odd = records.surprising | records.flipped
        wanted = np.flatnonzero(records.fresh & odd & (records.label >= 0))
        if wanted.size:
            kept = _added(self._suspicious, records, wanted)
            # What flips stays longest; in the order of the log among its like.
            rank = _rank_from_last(kept["version"] * (1 << 32) + kept["label"], kept["flipped"])
            self._suspicious = _bounded(kept, rank < MOST_SUSPICIOUS)
        others = np.flatnonzero(records.fresh & ~odd & (records.label >= 0))
        none = np.zeros(others.size, np.bool_)
        others = others[_rank_from_last(records.label[others], none) < MOST_AT_ONCE]
        if others.size:
            kept = _added(self._usual, records, others)
            rank = _rank_from_last(kept["label"], np.zeros(kept["label"].size, np.bool_))
            self._usual = _bounded(kept, rank < MOST_USUAL)

    def suspicious(self, version: int, label: int) -> Records | None:
        """Those of a version and class, oldest first; None where nothing was met yet."""
        kept = self._suspicious
        return Records.of(_chosen(kept, (kept["version"] == version) & (kept["label"] == label))) if kept else None

    def usual(self, label: int) -> Records | None:
        """Unsuspicious ones of a class, of all versions, oldest first; None where nothing was met yet."""
        kept = self._usual
        return Records.of(_chosen(kept, kept["label"] == label)) if kept else None

    def everything(self) -> Records | None:
        """All of them, of whatever version and class; None where nothing was met yet."""
        both = [kept for kept in (self._suspicious, self._usual) if kept]
        if not both:
            return None
        return Records.of({key: np.concatenate([kept[key] for kept in both], axis=-1) for key in both[0]})

    def forget(self, version: int) -> None:
        """A version is gone."""
        if self._suspicious:
            self._suspicious = _chosen(self._suspicious, self._suspicious["version"] != version)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart: strings as lists."""
        return {"suspicious": saved(self._suspicious), "usual": saved(self._usual)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._suspicious, self._usual = restored(state["suspicious"]), restored(state["usual"])


def _added(kept: Columns, records: Records, wanted: Ints) -> Columns:
    more = records.columns(wanted)
    if more["texts"].size:
        shape = more["texts"].shape
        more["texts"] = strings(list(map(_ends, more["texts"].ravel().tolist()))).reshape(shape)
    return {key: np.concatenate((kept[key], column), axis=-1) for key, column in more.items()} if kept else more


def _chosen(kept: Columns, which: Bools | Ints) -> Columns:
    return {key: column[..., which] for key, column in kept.items()}


def _rank_from_last(key: Ints, first: Bools) -> Ints:
    """How many of the same key come before each record (n,) when those that are `first` lead and then the last ones do."""
    n = key.size
    order = np.lexsort((-np.arange(n), ~first, key))
    start = np.flatnonzero(np.diff(key[order], prepend=key[order][:1] - 1)) if n else np.empty(0, np.int64)
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.repeat(start, np.diff(np.append(start, n)))
    return rank


def _ends(text: str) -> str:
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} {text[-TAIL:]}"


def _bounded(kept: Columns, wanted: Bools) -> Columns:
    """The wanted ones, the last ones of them if they are too many or too long."""
    chosen = np.flatnonzero(wanted)[-MOST_IN_ALL:]
    texts = kept["texts"][:, chosen]
    long = np.fromiter(map(len, texts.T.ravel().tolist()), np.int64, texts.size).reshape(chosen.size, -1).sum(axis=1)
    fits = np.cumsum(long[::-1])[::-1] <= MOST_CHARACTERS
    return _chosen(kept, chosen[fits])
