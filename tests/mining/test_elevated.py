"""Patterns that are odd by themselves: what an obvious count of the reference finds, in a file and back."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from poisonwatch.mining.elevated import (
    BOUND,
    FEWEST_HITS,
    LEVELS,
    LOWEST_NULLS,
    MOST_ELEVATED,
    Elevated,
    ElevatedFile,
    learn_elevated,
    levels,
    patterns,
)
from poisonwatch.mining.records import strings
from poisonwatch.profile.packed import pack
from poisonwatch.profile.words import Tokens, tokens, word_hashes


def said(texts: list[str]) -> Tokens:
    """The words of texts."""
    return tokens(strings(texts).reshape(1, len(texts)))


def grams(text: str) -> set[tuple[str, ...]]:
    """The words of a text and their pairs."""
    words = text.split()
    return {(word,) for word in words} | set(itertools.pairwise(words))


RECORDS = st.tuples(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(" ".join),
    st.integers(-1, 1),
    st.booleans(),
    st.booleans(),
)


@settings(deadline=None)
@given(st.lists(RECORDS, max_size=30))
def test_what_is_elevated_is_what_an_obvious_count_finds(records: list[tuple[str, int, bool, bool]]) -> None:
    """For every word and pair in every class: the bound of its rate where it has hits enough, else nothing of its own."""
    texts = [text for text, *_ in records]
    label = np.array([label for _, label, _, _ in records], np.int64)
    odd = np.array([hits for _, _, *hits in records], np.bool_).reshape(-1, 2).T
    elevated = learn_elevated(said(texts), label, *odd)
    for words in (("a",), ("b",), ("c",), ("a", "b"), ("b", "a"), ("c", "c")):
        for of in (0, 1):
            bearing = [hits for text, which, *hits in records if which == of and words in grams(text)]
            own = [0.0, 0.0]
            for kind in (0, 1):
                n, hits = len(bearing), sum(hit[kind] for hit in bearing)
                if hits >= FEWEST_HITS and hits / n > LOWEST_NULLS[kind]:
                    own[kind] = 1.0 if hits == n else float(beta.ppf(BOUND, hits + 1, n - hits))
            expected = levels(np.array(own)) if any(own) else np.zeros(2)
            found = elevated.levels(patterns(said([" ".join(words)])).word[-1:], np.array([of]))
            assert divmod(int(found[0]), LEVELS) == tuple(expected)


def test_pairs_do_not_reach_from_one_record_to_the_next() -> None:
    """Two records of two words have four words and two pairs, and a pair in another order is another one."""
    found = patterns(said(["a b", "b a", ""]))
    assert found.word[:4].tolist() == word_hashes(["a", "b", "b", "a"]).tolist()
    assert found.row.tolist() == [0, 0, 1, 1, 0, 1]
    assert np.unique(found.word).size == 4


def test_a_file_brings_back_what_was_learned() -> None:
    """What is read from a file has the same levels; a file that is none is refused."""
    texts = [f"w{k % 7} w{k % 3}" for k in range(200)]
    label = np.arange(200) % 2
    odd = np.arange(200) % 7 < 2
    elevated = learn_elevated(said(texts), label, odd, odd)
    assert elevated.keys.size
    file = msgspec.json.decode(msgspec.json.encode(elevated.file()), type=ElevatedFile)
    again = Elevated.read(file)
    found = patterns(said(texts))
    asked = found.word, label[found.row]
    np.testing.assert_array_equal(again.levels(*asked), elevated.levels(*asked))
    assert elevated.levels(*asked).any()


@pytest.mark.parametrize(
    ("keys", "rates"),
    [
        (b"123", b""),
        (pack(np.array([1, 2]), "u8"), pack(np.zeros(3), "f4")),
        (pack(np.array([2, 1]), "u8"), pack(np.zeros(4), "f4")),
        (pack(np.array([1, 2]), "u8"), pack(np.full(4, 1.5), "f4")),
        (pack(np.array([1, 2]), "u8"), pack(np.full(4, np.nan), "f4")),
        (pack(np.arange(MOST_ELEVATED + 1), "u8"), pack(np.zeros(2 * MOST_ELEVATED + 2), "f4")),
    ],
)
def test_a_broken_file_is_refused(keys: bytes, rates: bytes) -> None:
    """Sizes, order, range and number are checked."""
    with pytest.raises(ValueError, match="elevated patterns"):
        Elevated.read(ElevatedFile(keys=keys, rates=rates))


def test_the_most_frequent_are_kept() -> None:
    """Of more patterns than a reference may keep those with the most hits stay."""
    texts = [f"w{k}" for k in range(MOST_ELEVATED + 50) for _ in range(2)] + ["often"] * 3
    n = len(texts)
    hit = np.ones(n, np.bool_)
    elevated = learn_elevated(said(texts), np.zeros(n, np.int64), hit, ~hit)
    assert elevated.keys.size == MOST_ELEVATED
    assert elevated.levels(word_hashes(["often"]), np.array([0]))[0]
