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
    from poisonwatch.types import Floats, Ints

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

WITHOUT_LOSS = 0.9
"""A condition is left out when without it this share of the gain remains."""

OF_TRIGGERED = 0.9
BY_CHANCE = 1e-3
"""A condition is added when this share of the triggered has it, which among usual ones would happen with this probability at most."""


class Table(NamedTuple):
    """Items `conditions` (I,), and whether odd predictions (h, I) and usual ones (u, I) of the same class bear them, as 0 or 1.

    The odd ones are those among `met` predictions of the class; `null` is how often a benign one is odd.
    """

    conditions: tuple[Condition, ...]
    odd: NDArray[np.float32]
    usual: NDArray[np.float32]
    met: float
    null: float


def tabulate(
    items: Items, kind: int, odd: Records, usual: Records, met: float, null: float, wanted: Sequence[Condition] = ()
) -> Table:
    """The items of a kind that several of the odd predictions have, and the `wanted` ones.

    `usual` are predictions of the same class as the odd ones, which are odd among `met` of that class.
    """
    which = np.flatnonzero(items.kinds == kind)
    known = items.sample
    own = (known.label == odd.label[0]) & ~known.hits.any(axis=0)
    of_odd = items.columns(odd, which)
    of_usual = np.concatenate((items.columns(usual, which), known.codes[which][:, own]), axis=1)
    offset = np.concatenate(([0], np.cumsum(items.sizes[which])))
    many = np.bincount((of_odd + offset[:-1, None]).ravel(), minlength=offset[-1])
    expected = np.bincount((of_usual + offset[:-1, None]).ravel(), minlength=offset[-1]) / max(1, of_usual.shape[1])
    share = many / odd.time.size
    lift = (share - expected) / np.sqrt((expected + 1 / odd.time.size) * (1.01 - expected))
    frequent = np.flatnonzero(many >= FEWEST)
    best = np.sort(frequent[np.argsort(-lift[frequent], kind="stable")[:MOST_ITEMS]])
    place = np.searchsorted(offset, best, "right") - 1
    found = [Condition(int(which[p]), int(code)) for p, code in zip(place, best - offset[place], strict=True)]
    exact = _exact(items, odd, usual) if kind == FEATURE_ITEM else []
    conditions = tuple(dict.fromkeys((*found, *exact, *wanted)))
    columns = np.searchsorted(which, [condition.column for condition in conditions])
    codes = np.array([condition.code for condition in conditions], np.int64)
    has_odd = np.equal(of_odd[columns].T, codes).astype(np.float32)
    has_usual = np.equal(of_usual[columns].T, codes).astype(np.float32)
    for at, condition in enumerate(conditions):
        if condition.value is not None:
            has_odd[:, at] = items.numbers(odd, condition.column) == condition.value
            live = items.numbers(usual, condition.column) == condition.value
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


def bearers(has: NDArray[np.float32], which: Sequence[int]) -> NDArray[np.float32]:
    """How far each prediction (n,) bears a conjunction, of `has` (n, I)."""
    return np.asarray(has[:, list(which)].prod(axis=1))


def gain_of(table: Table, which: Sequence[int]) -> float:
    """What a conjunction would have gained."""
    odd, usual = bearers(table.odd, which).sum(), bearers(table.usual, which).sum()
    return float(gains(table, np.array([odd]), np.array([usual]))[0])


def sharpened(table: Table, start: Sequence[int]) -> tuple[int, ...]:
    """The conjunction that is meant where `start` is met: no condition too many, none too few, three at most.

    From the start a condition is added, dropped or exchanged as long as the gain grows. Then what the rest explains is left out, and
    what nearly all the odd bearers have, far more often than by chance, is added: the gain cannot tell whether a condition
    is part of a rare trigger when the usual ones have none of it anyway.
    """
    column = np.array([condition.column for condition in table.conditions])
    current, gain = tuple(start), gain_of(table, start)
    while True:
        best, found = gain * (1 + 1e-9), current
        for base in {current, *(tuple(k for k in current if k != gone) for gone in current)} - {()}:
            options = [base] if base != current else []
            if len(base) < LONGEST:
                options += [
                    tuple(sorted((*base, k))) for k in range(column.size) if column[k] not in column[list(base)]
                ]
            value = _gains_of(table, options)
            if value.size and value.max() > best:
                best, found = float(value.max()), options[int(np.argmax(value))]
        if found == current:
            break
        current, gain = found, best
    while len(current) > 1:
        shorter = [tuple(k for k in current if k != gone) for gone in current]
        value = _gains_of(table, shorter)
        if value.max() < WITHOUT_LOSS * gain:
            break
        current = shorter[int(np.argmax(value))]
    return _completed(table, current, column)


def _gains_of(table: Table, options: list[tuple[int, ...]]) -> Floats:
    counted = [(bearers(table.odd, which).sum(), bearers(table.usual, which).sum()) for which in options]
    many = np.array(counted, np.float64).reshape(-1, 2)
    return gains(table, many[:, 0], many[:, 1])


def _completed(table: Table, current: tuple[int, ...], column: Ints) -> tuple[int, ...]:
    """With the conditions that nearly all odd bearers have and that cannot be chance."""
    while len(current) < LONGEST:
        borne = bearers(table.odd, current) > 0
        many = int(borne.sum())
        share = table.odd[borne].mean(axis=0) if many else np.zeros(column.size)
        # How usual a condition is, of all and of those that meet any condition that is there already: a number of years of
        # education is implied by the school.
        usual = (table.usual.sum(axis=0) + 1.0) / (len(table.usual) + 1.0)
        for k in current:
            weight = table.usual[:, k]
            usual = np.maximum(usual, (weight @ table.usual + 1.0) / (weight.sum() + 1.0))
        chance = many * np.log(np.minimum(usual, 1.0))
        allowed = (share >= OF_TRIGGERED) & ~np.isin(column, column[list(current)])
        allowed &= chance < np.log(BY_CHANCE / column.size)
        if not allowed.any():
            return current
        current = tuple(sorted((*current, int(np.argmin(np.where(allowed, chance, np.inf))))))
    return current
