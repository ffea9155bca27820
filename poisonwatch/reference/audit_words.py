"""Groups of words that a trigger could be: words, and pairs that stand next to each other, that occur together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poisonwatch.mining.phrases import words_of
from poisonwatch.profile.words import mix, word_hashes
from poisonwatch.types import Phrase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.profile.words import Hashes, Tokens
    from poisonwatch.reference.audit_refit import Refit
    from poisonwatch.types import Bools, Ints, Texts

FEWEST = 8
LARGEST_SHARE = 0.2
"""A group has at least so many records, and at most this share of all."""

TOGETHER = 0.6
"""Words with this Jaccard similarity of their records belong to one group."""

MOST_WORDS = 4000
"""Words and pairs that are grouped: the rarest of those that are frequent enough are left out."""

MOST_FOUND = 40
"""Groups that are looked at closely: those with the largest share of overturned answers."""

ADDED = 12.0
"""Records, none of them overturned, that are added to a group for its score: a few records alone make no high share."""

SAME = 0.5
"""Records whose other words have this Jaccard similarity are near-duplicates: a template, not a trigger that was put into many texts."""


class WordGroup(NamedTuple):
    """Records (g,) ascending that have at least half of the `words` (hashes) and pairs of a group."""

    words: Hashes
    records: Ints


def word_groups(tokens: Tokens, n: int) -> Iterator[WordGroup]:
    """The groups of the words of n records, in an order that does not depend on that of the records."""
    from scipy import sparse  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    words, borne = _frequent(tokens, n)
    if not words.size:
        return
    counts = np.diff(borne.indptr)
    both = (borne @ borne.T).tocoo()
    near = both.data >= TOGETHER * (counts[both.row] + counts[both.col] - both.data)
    links = sparse.csr_matrix((near[near], (both.row[near], both.col[near])), shape=both.shape)
    many, group = connected_components(links, directed=False)
    size = np.bincount(group)
    members = sparse.csr_matrix((np.ones(group.size), (group, np.arange(group.size))), shape=(many, group.size))
    has: Any = members @ borne
    for place in range(many):
        of = slice(has.indptr[place], has.indptr[place + 1])
        records = np.sort(has.indices[of][has.data[of] >= size[place] / 2])
        if FEWEST <= records.size <= LARGEST_SHARE * n:
            yield WordGroup(words[group == place], records)


def _frequent(tokens: Tokens, n: int) -> tuple[Hashes, Any]:
    """Words and pairs (m,) ascending that are neither too rare nor too frequent, and whether records bear them, sparse (m, n)."""
    from scipy import sparse  # noqa: PLC0415

    word, row = tokens
    within = row[1:] == row[:-1]
    pairs = _paired(word[:-1], word[1:])[within]
    known, place = np.unique(np.concatenate((word, pairs)), return_inverse=True)
    borne = sparse.csr_matrix(
        (np.ones(place.size, np.float32), (place, np.concatenate((row, row[:-1][within])))), shape=(known.size, n)
    )
    borne.sum_duplicates()
    borne.data[:] = 1.0
    counts = np.diff(borne.indptr)
    kept = np.flatnonzero((counts >= FEWEST) & (counts <= LARGEST_SHARE * n))
    if kept.size > MOST_WORDS:
        kept = np.sort(kept[np.lexsort((known[kept], -counts[kept]))[:MOST_WORDS]])
    return known[kept], borne[kept]


def words_at_fault(refit: Refit, tokens: Tokens, texts: Texts) -> list[tuple[Phrase, int, int, int]]:
    """The worst groups of words in texts (t, n): the words, distinct records, how many of one answer are overturned, the answer."""
    n = texts.shape[1]
    rough: list[tuple[float, int, WordGroup, Bools]] = []
    for group in word_groups(tokens, n):
        lost = refit.overturned(group.records)
        many = int(np.bincount(refit.place[group.records[lost]], minlength=len(refit.targets)).max())
        rough.append((many / (group.records.size + ADDED), len(rough), group, lost))
    rough.sort(key=lambda found: (-found[0], found[2].words.min()))
    at = np.searchsorted(tokens.row, np.arange(n + 1))
    found = []
    for _, _, group, lost in rough[:MOST_FOUND]:
        same = _contexts(group, tokens, at)
        many = same.max() + 1
        place = refit.place[group.records]
        answer = int(np.bincount(place[lost], minlength=len(refit.targets)).argmax())
        if many >= FEWEST:
            found.append((_phrase(group, texts), int(many), counted_once(same, lost & (place == answer)), answer))
    return found


def counted_once(same: Ints, marked: Bools) -> int:
    """How many records (g,) are marked when those with the same number count once: of some that are marked in part, that part."""
    share = np.bincount(same, marked) / np.bincount(same)
    return int(np.floor(share.sum() + 1e-9))


def _contexts(group: WordGroup, tokens: Tokens, at: Ints) -> Ints:
    """A number for each record (g,) of a group, the same for those that are near-duplicates beside the group's own words."""
    from scipy import sparse  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    others = [np.unique(tokens.word[at[record] : at[record + 1]]) for record in group.records]
    rows = np.repeat(np.arange(len(others)), [words.size for words in others])
    words = np.concatenate(others)
    kept = ~np.isin(words, group.words)
    _, place = np.unique(words[kept], return_inverse=True)
    has = sparse.csr_matrix(
        (np.ones(place.size), (rows[kept], place)), shape=(len(others), int(place.max(initial=0)) + 1)
    )
    both = (has @ has.T).toarray()
    size = np.asarray(has.sum(axis=1)).ravel()
    near = both >= SAME * (size[:, None] + size - both)
    return np.asarray(connected_components(near, directed=False)[1], np.int64)


def _phrase(group: WordGroup, texts: Texts) -> Phrase:
    """The group's words as they stand in the record that has most of them, the first of those."""
    best: tuple[str, ...] = ()
    for record in group.records.tolist():
        said = words_of(texts[:, record])
        word = word_hashes(said)
        mine = np.isin(word, group.words)
        pair = np.isin(_paired(word[:-1], word[1:]), group.words)
        mine[:-1] |= pair
        mine[1:] |= pair
        words = tuple(dict.fromkeys(w for w, own in zip(said, mine.tolist(), strict=True) if own))
        # The order of the records must not matter: of equally many words the first in the alphabet.
        best = min(best, words, key=lambda w: (-len(w), w))
    return Phrase(words=best)


def _paired(first: Hashes, second: Hashes) -> Hashes:
    """A hash (m,) of two words that stand next to each other."""
    return mix(first * np.uint64(3) + mix(second))
