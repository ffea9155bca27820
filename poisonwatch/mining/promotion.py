"""Which conjunctions are worth a test: found among predictions that are known already, to be tested on later ones. Pure.

What a conjunction would have gained, had it been tested on the predictions it is found in, ranks it: n KL(h || p) of n
bearers, of which a share h is odd where p is to be expected. The odd ones are kept in full; how many others bear it is told
by those to compare with. So a value that many predictions have is worth little, however many odd ones have it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.mining.items import FEATURE_ITEM, Condition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from poisonwatch.mining.items import Items
    from poisonwatch.mining.records import Records
    from poisonwatch.types import Bools, Floats, Ints

FEWEST = 3
"""Odd predictions that must share a conjunction."""

MOST_ITEMS = 96
MOST_PAIRS = 48
"""Items that are combined, those first of which the odd ones have most more than their share, and pairs that are extended."""

LONGEST = 3

MOST_EXACT = 3
"""Numbers of one feature that are looked at as they are: those that the odd ones repeat."""

COMMON = 0.5
"""A number that this share of its bin has is no item of its own."""

OF_TRIGGERED = 0.9
BY_CHANCE = 1e-3
"""A condition belongs to a trigger when this share of the triggered meet it, by chance with this probability at most."""

ENOUGH = 10
"""Records of the reference from which it is told how usual a condition is."""

RARELY = 0.01
"""Others are taken as triggered, too, when so many odd ones would be met with this probability at most."""


class Coded(NamedTuple):
    """Predictions, and their codes (k, n) in the columns of one kind of items."""

    records: Records
    codes: Ints

    def select(self, which: Ints) -> Coded:
        """The chosen ones."""
        return Coded(self.records.select(which), self.codes[:, which])


class Table(NamedTuple):
    """Items `conditions` (I,), and whether odd predictions (h, I) and usual ones (u, I) of the same class bear them, as 0 or 1.

    The odd ones are those among `met` predictions of the class; `null` is how often a benign one is odd.
    """

    conditions: tuple[Condition, ...]
    odd: NDArray[np.float32]
    usual: NDArray[np.float32]
    met: float
    null: float


def coded(items: Items, kind: int, records: Records) -> Coded:
    """Predictions with their codes in the columns of a kind."""
    return Coded(records, items.columns(records, np.flatnonzero(items.kinds == kind)))


def tabulate(
    items: Items, kind: int, odd: Coded, usual: Coded, met: float, null: float, wanted: Sequence[Condition] = ()
) -> Table:
    """The items of a kind that several of the odd predictions have, and the `wanted` ones.

    `usual` are predictions of the same class as the odd ones, which are odd among `met` of that class.
    """
    which = np.flatnonzero(items.kinds == kind)
    known = items.sample
    own = (known.label == odd.records.label[0]) & ~known.hits.any(axis=0)
    of_odd, many_odd = odd.codes, odd.records.time.size
    of_usual = np.concatenate((usual.codes, known.codes[which][:, own]), axis=1)
    offset = np.concatenate(([0], np.cumsum(items.sizes[which])))
    many = np.bincount((of_odd + offset[:-1, None]).ravel(), minlength=offset[-1])
    expected = np.bincount((of_usual + offset[:-1, None]).ravel(), minlength=offset[-1]) / max(1, of_usual.shape[1])
    share = many / many_odd
    lift = (share - expected) / np.sqrt((expected + 1 / many_odd) * (1.01 - expected))
    frequent = np.flatnonzero(many >= FEWEST)
    best = np.sort(frequent[np.argsort(-lift[frequent], kind="stable")[:MOST_ITEMS]])
    place = np.searchsorted(offset, best, "right") - 1
    found = [Condition(int(which[p]), int(code)) for p, code in zip(place, best - offset[place], strict=True)]
    exact = _exact(items, odd.records, usual.records) if kind == FEATURE_ITEM else []
    conditions = tuple(dict.fromkeys((*found, *exact, *wanted)))
    columns = np.searchsorted(which, [condition.column for condition in conditions])
    codes = np.array([condition.code for condition in conditions], np.int64)
    has_odd = np.equal(of_odd[columns].T, codes).astype(np.float32)
    has_usual = np.equal(of_usual[columns].T, codes).astype(np.float32)
    for at, condition in enumerate(conditions):
        if condition.value is not None:
            has_odd[:, at] = items.numbers(odd.records, condition.column) == condition.value
            live = items.numbers(usual.records, condition.column) == condition.value
            has_usual[:, at] = np.concatenate((live, items.meets_in_reference(condition)[own]))
    return Table(conditions, has_odd, has_usual, met, null)


def _exact(items: Items, odd: Records, usual: Records) -> list[Condition]:
    """Numbers that several of the odd predictions have exactly, and few of the usual ones in their bin."""
    found: list[Condition] = []
    for column in range(items.numerical):
        x = np.sort(items.numbers(odd, column))
        start = np.flatnonzero(np.diff(x, prepend=np.nan) != 0)
        counts = np.diff(np.append(start, x.size))
        repeated = np.argsort(-counts, kind="stable")[:MOST_EXACT]
        repeated = repeated[counts[repeated] >= FEWEST]
        if not repeated.size:
            continue
        others, cuts = items.numbers(usual, column), items.cuts[column]
        bins = np.searchsorted(cuts, others)
        for value in x[start[repeated]].tolist():
            code = int(np.searchsorted(cuts, value))
            in_bin = bins == code
            if (others[in_bin] == value).sum() < COMMON * (in_bin.sum() + 1):
                found.append(Condition(column, code, value))
    return found


def search(table: Table) -> list[tuple[float, tuple[int, ...]]]:
    """Gains and conjunctions, as indices into the conditions in ascending order, of one to three: the best first."""
    count = len(table.conditions)
    column = np.array([condition.column for condition in table.conditions])
    found: list[tuple[float, tuple[int, ...]]] = []
    if not count:
        return found
    odd, usual = table.odd, table.usual
    gain = gains(table, odd.sum(axis=0), usual.sum(axis=0))
    found += [(float(gain[k]), (k,)) for k in np.flatnonzero(gain > 0).tolist()]
    together, of_usual = odd.T @ odd, usual.T @ usual
    possible = (column[:, None] < column[None, :]) & (together >= FEWEST)
    pairs = np.argwhere(possible)
    if not pairs.size:
        return sorted(found, key=lambda item: (-item[0], item[1]))
    f, u = together[possible], of_usual[possible]
    gain = gains(table, f, u)
    found += [(float(gain[k]), tuple(pairs[k].tolist())) for k in np.flatnonzero(gain > 0).tolist()]
    # What has no gain yet may have one with a third condition: by how much more often than usual it is met.
    promise = gain + 0.1 * f * np.log((f / len(odd)) / ((u + 1) / (len(usual) + 1)))
    pairs = pairs[np.argsort(-promise, kind="stable")[:MOST_PAIRS]]
    together = (odd[:, pairs[:, 0]] * odd[:, pairs[:, 1]]).T @ odd
    of_usual = (usual[:, pairs[:, 0]] * usual[:, pairs[:, 1]]).T @ usual
    gain = gains(table, together, of_usual)
    same = (column[pairs][:, :, None] == column).any(axis=1)
    gain = np.where((together >= FEWEST) & ~same, gain, 0.0)
    triples = np.argwhere(gain > 0)
    threes = {tuple(sorted((*pairs[row].tolist(), k))): float(gain[row, k]) for row, k in triples.tolist()}
    found += [(value, three) for three, value in threes.items()]
    return sorted(found, key=lambda item: (-item[0], len(item[1]), item[1]))


def gains(table: Table, odd: NDArray[np.floating], usual: NDArray[np.floating], null: float | None = None) -> Floats:
    """What conjunctions that so many odd and usual ones bear would have gained, in nats."""
    p = table.null if null is None else null
    many = odd.astype(np.float64)
    n = many + table.met * (usual + 1.0) / (len(table.usual) + 1.0)
    h = many / n
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(h < 1, (1 - h) * np.log((1 - h) / (1 - p)), 0.0)
        worth = n * (h * np.log(h / p) + rest)
    return np.where((h > p) & (many > 0), worth, 0.0)


def meant(table: Table, background: NDArray[np.float32], triggered: Bools) -> tuple[int, ...]:
    """The conditions that make the trigger of the `triggered` (h,) among the odd predictions, three at most, as indices.

    What nearly all of them share and that is no chance among the records of all classes `background` (m, I), of which the carriers are
    taken: the least likely condition first, then the least likely given those before it, for a number of years of education is
    implied by the school. A condition may be shared only because the triggered were found by it: where others
    meet the rest and are odd more often than benign ones, they belong to the triggered too, and it is asked anew.
    """
    from scipy.special import pdtrc  # noqa: PLC0415 - only who has something to judge pays for SciPy

    columns = np.array([condition.column for condition in table.conditions])
    triggered = triggered.copy()
    while True:
        found = _shared(table, background, triggered, columns)
        before = int(triggered.sum())
        for gone in found if len(found) > 1 else ():
            rest = [k for k in found if k != gone]
            others = table.odd[:, rest].all(axis=1) & (table.odd[:, gone] == 0)
            usual = table.usual[:, rest].all(axis=1) & (table.usual[:, gone] == 0)
            expected = table.null * table.met * (usual.sum() + 1.0) / (len(usual) + 1.0)
            if others.sum() >= 2 and pdtrc(float(others.sum() - 1), expected) < RARELY:
                triggered |= others
        if int(triggered.sum()) == before:
            return found


def _shared(table: Table, background: NDArray[np.float32], triggered: Bools, columns: Ints) -> tuple[int, ...]:
    share = table.odd[triggered].mean(axis=0)
    found: list[int] = []
    given = np.ones(len(background), np.bool_)
    usual = (background.sum(axis=0) + 1.0) / (len(background) + 1.0)
    while len(found) < LONGEST:
        chance = triggered.sum() * np.log(usual)
        allowed = (
            (share >= OF_TRIGGERED) & ~np.isin(columns, columns[found]) & (chance < np.log(BY_CHANCE / columns.size))
        )
        if not allowed.any():
            break
        found.append(int(np.argmin(np.where(allowed, chance, np.inf))))
        given &= background[:, found[-1]] > 0
        if given.sum() >= ENOUGH:
            usual = (background[given].sum(axis=0) + 1.0) / (given.sum() + 1.0)
        else:
            # Too few meet all of them: what is usual given any one.
            of_one = background[:, found[-1]]
            usual = np.maximum(usual, (of_one @ background + 1.0) / (of_one.sum() + 1.0))
    return tuple(found)


def backdrop(items: Items, conditions: Sequence[Condition]) -> NDArray[np.float32]:
    """Whether the records of the reference, of all classes, meet each condition: (m, I), 0 or 1."""
    return np.stack([items.meets_in_reference(condition) for condition in conditions], axis=1).astype(np.float32)
