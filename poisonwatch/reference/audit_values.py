"""Conjunctions of one to three values that a trigger could be, in records of numbers and categories.

They are found among answers that are overturned without that one record, or without all that have one of the values: three values
that each are common are rare together, so that few others speak for such an answer. What is found is judged as a group of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.profile.enrich import feature_codes, feature_numbers
from poisonwatch.profile.indicators import code_rows, number_rows
from poisonwatch.reference.audit_kernel import weights
from poisonwatch.reference.audit_words import ADDED, FEWEST, LARGEST_SHARE, counted_once
from poisonwatch.types import Item, Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.profile.scorer import Inputs
    from poisonwatch.reference.audit_refit import Refit
    from poisonwatch.types import Bools, Floats, Ints, Schema

MOST_FEATURES = 128
"""Features of records that can be audited."""

COMMONEST = 0.9
MOST_EXACT = 12
BINS = 5
"""A value that more records have is none to be told by; of a number so many values that are repeated most are items, and so many bins."""

LEFT_OUT = 0.35
"""All records with a value are left out where they are no larger a share."""

MOST_PAIRS = 60
MOST_JUDGED = 60
"""Pairs of values that a third is looked for, and conjunctions that are judged by leaving them out."""

NEARLY_ALL = 0.9
"""A conjunction that has this share of the records of one of its values is that value: what the others add is said of all."""

MOST_FOUND = 40

SAME = 0.9
"""Records that share this part of their other values are near-duplicates: one kind of attack, which a model rightly knows."""

TOLERANCE = 1e-9
"""Inner products of the same values differ by so much at most."""

OVERLAP = 0.5
"""Of conjunctions that share more of the records of the smaller one only the first is told."""


class _Candidate(NamedTuple):
    """Items by number, and the records (g,) that have all of them; how many `distinct` ones of one answer, by place, are overturned."""

    items: tuple[int, ...]
    records: Ints
    score: float
    distinct: int = 0
    overturned: int = 0
    place: int = 0


def values_at_fault(refit: Refit, schema: Schema, inputs: Inputs) -> list[tuple[Values, int, int, int]]:
    """The worst conjunctions: the values, distinct records, how many of one answer are overturned, the answer."""
    items, borne = _items(schema, inputs.numbers, inputs.codes)
    if not items:
        return []
    features = [item.feature for item in items]
    again = np.array([[one == other for other in features] for one in features])
    candidates: list[_Candidate] = []
    # What is odd without a decisive value alone would take all places of what is odd by itself.
    for odd in (_odd_singly(refit, borne), _odd_without(refit, borne)):
        likely: list[_Candidate] = []
        for answer in range(len(refit.targets)):
            likely += _search(borne, odd * (refit.place == answer), again)
        likely.sort(key=lambda one: (-one.score, len(one.items), one.items))
        candidates += _distinct(likely)[:MOST_JUDGED]
    places = weights(inputs)
    judged = [_judged(refit, inputs, places, one) for one in _distinct(candidates)]
    judged = [one for one in judged if one.distinct >= FEWEST]
    judged.sort(key=lambda one: (-one.score, len(one.items), one.items))
    return [
        (Values(items=tuple(items[item] for item in one.items)), one.distinct, one.overturned, one.place)
        for one in _apart(judged, refit.place.size, OVERLAP)[:MOST_FOUND]
    ]


def _judged(refit: Refit, inputs: Inputs, places: Floats, one: _Candidate) -> _Candidate:
    """The candidate with its score as a group: how many distinct records of one answer are overturned without it."""
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    lost, answers = refit.overturned(one.records), refit.place[one.records]
    place = int(np.bincount(answers[lost], minlength=len(refit.targets)).argmax())
    mine = places[one.records]
    features = len(inputs.numbers) + len(inputs.codes)
    least = 1.0 - (1.0 - SAME) * (features - len(one.items)) / features - TOLERANCE
    same = connected_components(mine @ mine.T >= least, directed=False)[1].astype(np.int64)
    distinct = int(same.max()) + 1
    overturned = counted_once(same, lost & (answers == place))
    return one._replace(score=overturned / (distinct + ADDED), distinct=distinct, overturned=overturned, place=place)


def _odd_singly(refit: Refit, borne: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each of borne (I, n) items, which of its records (I, n) are overturned when they alone are left out."""
    alone = refit.lost(refit.alone, np.arange(refit.place.size)) > 0
    return borne * alone.astype(np.float32)


def _odd_without(refit: Refit, borne: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each of borne (I, n) items, which of its records (I, n) are overturned when all with the item are left out.

    Triggered records speak for each other, so that singly none may be odd; without all that have one of the trigger's values
    each is.
    """
    odd = np.zeros_like(borne)
    for place, has in enumerate(borne):
        group = np.flatnonzero(has)
        if group.size <= LEFT_OUT * refit.place.size:
            odd[place, group[refit.overturned(group)]] = 1.0
    return odd


def _search(borne: NDArray[np.float32], odd: NDArray[np.float32], again: Bools) -> list[_Candidate]:
    """Conjunctions that have most odd records for their size: of borne (I, n) items, of which each has odd (I, n) records.

    `again` (I, I) is whether items are of the same feature, of which a conjunction has one.
    """
    n = borne.shape[1]

    def best(bears: NDArray[np.float32], hits: NDArray[np.float32], barred: Bools) -> list[tuple[int, int, float]]:
        """The best of conjunctions (m, n) of which hits (m, n) are odd, with one item more: place, item, score."""
        many = bears @ borne.T
        usual = (many >= FEWEST) & (many <= LARGEST_SHARE * n) & ~barred
        score = np.where(usual, (hits @ borne.T) / (many + ADDED), 0.0)
        flat = np.argsort(-score, axis=None, kind="stable")[:MOST_PAIRS]
        rows, columns = np.unravel_index(flat, score.shape)
        chosen = zip(rows.tolist(), columns.tolist(), score.ravel()[flat].tolist(), strict=True)
        return [one for one in chosen if one[2] > 0]

    # Of an item with itself it is the item alone.
    pairs = best(borne, odd, again & ~np.eye(len(borne), dtype=np.bool_))
    found = {tuple(sorted({place, item})): score for place, item, score in reversed(pairs)}
    if pairs:
        bears = np.stack([borne[first] * borne[second] for first, second, _ in pairs])
        hits = np.stack([odd[first] * borne[second] for first, second, _ in pairs])
        barred = np.stack([again[first] | again[second] for first, second, _ in pairs])
        for place, item, score in reversed(best(bears, hits, barred)):
            found[tuple(sorted({*pairs[place][:2], item}))] = score
    return [_Candidate(*told_by_one(borne, items), score) for items, score in found.items()]


def told_by_one(borne: NDArray[np.float32], items: tuple[int, ...]) -> tuple[tuple[int, ...], Ints]:
    """Items and the records (g,) that have all of them, or the one item of which these are nearly all records."""
    records = np.flatnonzero(np.logical_and.reduce(borne[list(items)]))
    for item in items:
        every = np.flatnonzero(borne[item])
        if records.size >= NEARLY_ALL * every.size:
            return (item,), every
    return items, records


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
