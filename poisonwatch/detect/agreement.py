"""Do the sources of labels agree with each other? Votes per item, Fleiss' kappa, and Dawid and Skene's estimates.

Items stand in a table of fixed size, each at the place that its fingerprint says; a newer item takes an older one's
place. Forcing an item out costs a label on another prediction and hides nothing but who outvoted whom on that item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Floats, Ints, Words

MOST_VOTES = 8
"""Votes kept per item, the newest."""

HALF_LIFE = 500
"""Votes after which an item counts half for kappa."""

WINDOW = 4000
"""Votes that an item may lie back and still be looked at."""

FEWEST_ITEMS = 20
"""Items with several votes that kappa needs."""

ROUNDS = 30
"""Steps of expectation-maximisation: what moves after that is not shown."""


class Agreement:
    """The last votes on the last items. `items` is the size of the table, `classes` the number of class codes."""

    def __init__(self, classes: int, items: int = 1 << 14) -> None:
        self.classes = classes
        self._votes = 0
        self._item = np.zeros(items, np.uint64)
        self._given = np.zeros(items, np.int64)
        self._when = np.zeros(items, np.int64)
        self._voter = np.full((items, MOST_VOTES), -1, np.int64)
        self._vote = np.zeros((items, MOST_VOTES), np.int64)
        self._trusted = np.zeros((items, MOST_VOTES), np.bool_)

    def add(self, item: Words, voter: Ints, vote: Ints, trusted: Bools) -> Ints:
        """Take votes (m,) in order; the class (m,) that the earlier trusted votes of others on the item prefer, else -1.

        At least two others must have voted, and more than half of them alike. A second vote of a voter replaces the first.
        """
        place = (item % np.uint64(self._item.size)).astype(np.int64)
        verdict = np.full(item.size, -1, np.int64)
        for one in rounds(place):
            at, who, what = place[one], voter[one], vote[one]
            fresh = self._item[at] != item[one]
            self._voter[at[fresh]] = -1
            self._given[at[fresh]] = 0
            self._item[at] = item[one]
            others = (self._voter[at] >= 0) & (self._voter[at] != who[:, None]) & self._trusted[at]
            tally = np.zeros((at.size, self.classes), np.int64)
            row, column = np.nonzero(others)
            np.add.at(tally, (row, self._vote[at][row, column]), 1)
            total, best = others.sum(axis=1), tally.argmax(axis=1)
            clear = (total >= 2) & (2 * tally.max(axis=1) > total)
            verdict[one] = np.where(clear, best, -1)
            before = self._voter[at] == who[:, None]
            column = np.where(before.any(axis=1), before.argmax(axis=1), self._given[at] % MOST_VOTES)
            self._given[at] += ~before.any(axis=1)
            self._voter[at, column], self._vote[at, column] = who, what
            self._trusted[at, column] = trusted[one]
            self._when[at] = self._votes + 1 + one
        self._votes += item.size
        return verdict

    def kappa(self) -> float | None:
        """Fleiss' kappa over items with several votes, older ones counting less; None below 20 items.

        Fleiss 1971, with a number of votes that may differ between items (each item's pairs that agree, averaged).
        """
        rows = self._several()
        if rows.size < FEWEST_ITEMS:
            return None
        row, column = np.nonzero(self._voter[rows] >= 0)
        counts = np.zeros((rows.size, self.classes))
        np.add.at(counts, (row, self._vote[rows][row, column]), 1)
        age = self._votes - self._when[rows]
        return fleiss_kappa(counts, np.exp2(-age / HALF_LIFE))

    def sensitivities(self) -> dict[int, Floats]:
        """Per voter in the window: how often (classes,) it names each class where that is the estimated truth."""
        rows = self._several()
        if not rows.size:
            return {}
        row, column = np.nonzero(self._voter[rows] >= 0)
        voters, of = np.unique(self._voter[rows][row, column], return_inverse=True)
        _, confusion = dawid_skene(row, of, self._vote[rows][row, column], rows.size, voters.size, self.classes)
        return {int(voter): np.diagonal(confusion[n]).copy() for n, voter in enumerate(voters)}

    def _several(self) -> Ints:
        """The table's items with several votes, in the window."""
        recent = self._votes - self._when < WINDOW
        return np.flatnonzero(recent & ((self._voter >= 0).sum(axis=1) > 1))

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        used = np.flatnonzero(self._voter[:, 0] >= 0)
        tables = {"item": self._item, "given": self._given, "when": self._when}
        votes = {"voter": self._voter, "vote": self._vote, "trusted": self._trusted}
        return {"votes": self._votes, "used": used, **{name: t[used] for name, t in (tables | votes).items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._votes, used = int(state["votes"]), state["used"]
        self._voter[:] = -1
        self._given[:] = 0
        self._item[used], self._given[used], self._when[used] = state["item"], state["given"], state["when"]
        self._voter[used], self._vote[used], self._trusted[used] = state["voter"], state["vote"], state["trusted"]


def rounds(key: Ints) -> list[Ints]:
    """Positions (m,) split so that no part has a key twice, and equal keys keep their order from part to part."""
    order = np.argsort(key, kind="stable")
    lined = key[order]
    again = lined[1:] == lined[:-1]
    if not again.any():
        return [np.arange(key.size)] if key.size else []
    first = np.flatnonzero(np.r_[True, ~again])
    rank = np.empty(key.size, np.int64)
    rank[order] = np.arange(key.size) - np.repeat(first, np.diff(np.r_[first, key.size]))
    by_rank = np.argsort(rank, kind="stable")
    return np.split(by_rank, np.cumsum(np.bincount(rank))[:-1])


def fleiss_kappa(counts: Floats, weight: Floats) -> float:
    """Kappa of votes (items, classes), each item with at least two, with weights (items,). 1 where all name one class."""
    n = counts.sum(axis=1)
    alike = (counts * (counts - 1)).sum(axis=1) / (n * (n - 1))
    share = weight @ counts / (weight @ n)
    expected = float(share @ share)
    observed = float(weight @ alike / weight.sum())
    return 1.0 if expected >= 1 else (observed - expected) / (1 - expected)


def dawid_skene(item: Ints, voter: Ints, vote: Ints, items: int, voters: int, classes: int) -> tuple[Floats, Floats]:
    """Truth (items, classes) and confusion (voters, true, named) by expectation-maximisation from votes (v,).

    Dawid and Skene 1979. Each voter starts with two made-up right votes and half a wrong one per class, so that who
    said little is believed to be ordinary; the first guess of the truth is the share of the votes.
    """
    truth = np.zeros((items, classes))
    np.add.at(truth, (item, vote), 1.0)
    truth /= np.maximum(truth.sum(axis=1, keepdims=True), 1.0)
    prior = 2.0 * np.eye(classes) + 0.5 / classes
    confusion = np.zeros((voters, classes, classes))
    for _ in range(ROUNDS):
        confusion[:] = prior
        np.add.at(confusion.transpose(0, 2, 1), (voter, vote), truth[item])
        confusion /= confusion.sum(axis=2, keepdims=True)
        log_truth = np.tile(np.log(truth.mean(axis=0) + 1e-12), (items, 1))
        np.add.at(log_truth, item, np.log(confusion[voter, :, vote]))
        truth = np.exp(log_truth - log_truth.max(axis=1, keepdims=True))
        truth /= truth.sum(axis=1, keepdims=True)
    return truth, confusion
