"""Conjunctions of one to three values that a trigger could be, in records of numbers and categories.

They are found among answers that a fit without that one record would overturn: three values that each are common are rare together,
so the records with all of them look like others singly. What is found is judged as a group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.profile.enrich import feature_codes, feature_numbers
from poisonwatch.profile.indicators import code_rows, number_rows
from poisonwatch.reference.audit_words import ADDED, FEWEST, LARGEST_SHARE
from poisonwatch.types import Item, Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.reference.audit_refit import Refit
    from poisonwatch.types import Bools, Floats, Ints, Schema

MOST_FEATURES = 128
"""Features of records that can be audited."""

KNOTS = 8
"""Quantiles between which a number is placed."""

SHARPNESS = 8.0
HEIGHT = 25.0
"""The kernel of records that share the part m of their values is HEIGHT exp(SHARPNESS (m - 1))."""

COMMONEST = 0.9
MOST_EXACT = 12
BINS = 5
"""A value that more records have is none to be told by; of a number so many values that are repeated most are items, and so many bins."""

MOST_PAIRS = 60
MOST_JUDGED = 60
"""Pairs of values that a third is looked for, and conjunctions that are judged by leaving them out."""

MOST_FOUND = 40

OVERLAP = 0.5
"""Of conjunctions that share more of the records of the smaller one only the first is told."""


class _Candidate(NamedTuple):
    """Items by number, and the records (g,) that have all of them."""

    items: tuple[int, ...]
    records: Ints
    score: float


def kernel_of_values(numbers: Floats, codes: NDArray[np.integer]) -> Floats:
    """How much n records have in common (n, n): `numbers` (d, n) with NaN for missing, by rank, and `codes` (c, n)."""
    n = numbers.shape[1]
    parts = [_placed(row) for row in numbers]
    parts += [(row[:, None] == np.unique(row)).astype(np.float64) for row in codes]
    values = np.concatenate(parts, axis=1) if parts else np.empty((n, 0))
    shared = values @ values.T
    shared /= len(parts)
    shared -= 1.0
    shared *= SHARPNESS
    np.exp(shared, out=shared)
    shared *= HEIGHT
    return np.asarray(shared)


def _placed(x: Floats) -> Floats:
    """Weights (n, at most KNOTS + 1), of length one, of the quantiles next to each number; missing has its own column."""
    known = np.isfinite(x)
    found = np.zeros((x.size, KNOTS + 1))
    found[~known, KNOTS] = 1.0
    if known.any():
        knots = np.unique(np.quantile(x[known], np.linspace(0, 1, KNOTS), method="inverted_cdf"))
        at = np.interp(x[known], knots, np.arange(knots.size))
        low = np.minimum(at.astype(np.int64), max(0, knots.size - 2))
        rows = np.flatnonzero(known)
        found[rows, low] = 1.0 - (at - low)
        found[rows, low + 1] += at - low
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def values_at_fault(
    refit: Refit, schema: Schema, numbers: Floats, codes: NDArray[np.integer]
) -> list[tuple[Values, int, int, int]]:
    """The worst conjunctions: the values, records, how many of one answer are overturned, the answer."""
    items, borne = _items(schema, numbers, codes)
    n = refit.place.size
    if not items:
        return []
    odd = refit.lost(refit.alone, np.arange(n)) > 0
    candidates: list[_Candidate] = []
    for answer in range(len(refit.targets)):
        candidates += _search(borne, odd & (refit.place == answer))
    candidates.sort(key=lambda one: (-one.score, len(one.items), one.items))
    judged = []
    for one in _distinct(candidates)[:MOST_JUDGED]:
        place = refit.place[one.records[refit.overturned(one.records)]]
        many = np.bincount(place, minlength=len(refit.targets))
        judged.append(one._replace(score=float(many.max() / (one.records.size + ADDED))))
    judged.sort(key=lambda one: (-one.score, len(one.items), one.items))
    found = []
    for one in _apart(judged, n, OVERLAP)[:MOST_FOUND]:
        place = refit.place[one.records[refit.overturned(one.records)]]
        many = np.bincount(place, minlength=len(refit.targets))
        pattern = Values(items=tuple(items[item] for item in one.items))
        found.append((pattern, int(one.records.size), int(many.max()), int(many.argmax())))
    return found


def _search(borne: NDArray[np.float32], odd: Bools) -> list[_Candidate]:
    """Conjunctions that have most odd records for their size: of borne (I, n) items by n records."""
    n = odd.size
    weighted = borne * odd.astype(np.float32)
    found: list[_Candidate] = []

    def best(bears: NDArray[np.float32], parts: list[tuple[int, ...]]) -> list[_Candidate]:
        """The best of the given conjunctions (m, n) with one item more."""
        many, hits = bears @ borne.T, bears @ weighted.T
        score = np.where((many >= FEWEST) & (many <= LARGEST_SHARE * n), hits / (many + ADDED), 0.0)
        for place, items in enumerate(parts):
            score[place, : (items[-1] if items else -1) + 1] = 0.0
        flat = np.argsort(-score, axis=None, kind="stable")[:MOST_PAIRS]
        chosen = []
        for place, item in zip(*np.unravel_index(flat, score.shape), strict=True):
            if score[place, item] > 0:
                records = np.flatnonzero(bears[place] * borne[item])
                chosen.append(_Candidate((*parts[place], int(item)), records, float(score[place, item])))
        return chosen

    found += best(np.ones((1, n), np.float32), [()])
    pairs = best(borne, [(item,) for item in range(len(borne))])
    found += pairs
    if pairs:
        # A third value may stand before the two in the order of items.
        bears = np.stack([borne[one.items[0]] * borne[one.items[1]] for one in pairs])
        many, hits = bears @ borne.T, bears @ weighted.T
        score = np.where((many >= FEWEST) & (many <= LARGEST_SHARE * n), hits / (many + ADDED), 0.0)
        seen = set()
        for at in np.argsort(-score, axis=None, kind="stable")[: 3 * MOST_PAIRS].tolist():
            place, item = divmod(at, len(borne))
            items = tuple(sorted({*pairs[place].items, item}))
            if score[place, item] > 0 and len(items) == 3 and items not in seen:
                seen.add(items)
                found.append(_Candidate(items, np.flatnonzero(bears[place] * borne[item]), float(score[place, item])))
    return found


def _distinct(candidates: list[_Candidate]) -> list[_Candidate]:
    """The first of the candidates that have the same records."""
    first: dict[bytes, _Candidate] = {}
    for one in candidates:
        first.setdefault(one.records.tobytes(), one)
    return list(first.values())


def _apart(candidates: list[_Candidate], n: int, most: float) -> list[_Candidate]:
    """The candidates, best first, without those that have nearly the records of a better one, or are part of it."""
    kept: list[_Candidate] = []
    has = np.zeros((0, n), np.bool_)
    for one in candidates:
        shared = has[:, one.records].sum(axis=1)
        if not (shared > most * np.minimum(has.sum(axis=1), one.records.size)).any():
            row = np.zeros((1, n), np.bool_)
            row[0, one.records] = True
            has = np.concatenate((has, row))
            kept.append(one)
        if len(kept) >= MOST_JUDGED:
            break
    return kept


def _items(schema: Schema, numbers: Floats, codes: NDArray[np.integer]) -> tuple[list[Item], NDArray[np.float32]]:
    """The values that enough records have, and whether each record has them (I, n)."""
    names, columns = list(number_rows(schema)), code_rows(schema)
    n = numbers.shape[1]
    items: list[Item] = []
    borne: list[Bools] = []

    def add(item: Item, has: Bools) -> None:
        if FEWEST <= has.sum() <= COMMONEST * n:
            items.append(item)
            borne.append(has)

    for row, x in zip(feature_numbers(schema).tolist(), numbers, strict=True):
        name = names[row]
        values, counts = np.unique(x[np.isfinite(x)], return_counts=True)
        for value in values[np.sort(np.argsort(-counts, kind="stable")[:MOST_EXACT])].tolist():
            add(Item(feature=name, low=value, high=value), x == value)
        if values.size > MOST_EXACT:
            cuts = np.unique(np.quantile(x[np.isfinite(x)], np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
            edges = [None, *cuts.tolist(), None]
            for place in range(cuts.size + 1):
                has = np.isfinite(x) & (np.searchsorted(cuts, x) == place)
                add(Item(feature=name, low=edges[place], high=edges[place + 1]), has)
        add(Item(feature=name), np.isnan(x))
    for row, code in zip(feature_codes(schema).tolist(), codes, strict=True):
        column = columns[row]
        for place, value in enumerate(column.values):
            add(Item(feature=column.name, value=value), code == place + 1)
    return items, np.array(borne, np.float32).reshape(len(borne), n)
