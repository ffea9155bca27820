"""What must not count twice: the same answers however the log is cut, and nothing that a sender can use to hide others."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.mining.duplicates import MOST_A_DAY, MOST_CAPPED, Duplicates, SourceCaps
from poisonwatch.mining.records import strings
from poisonwatch.profile.words import mix, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.types import Bools, Words

WORDS = np.random.default_rng(0).permutation([f"w{k}" for k in range(3000)])
DAY = 86400.0


def fresh(
    duplicates: Duplicates, texts: Sequence[str], label: int | Sequence[int] = 0, version: int = 0, numbers: Any = None
) -> list[bool]:
    """Which of some texts are fresh."""
    n = len(texts)
    words = tokens(strings(list(texts)).reshape(1, n))
    found = duplicates.fresh(
        np.broadcast_to(np.asarray(label, np.int64), n),
        np.full(n, version),
        words,
        np.empty((0, n)) if numbers is None else np.asarray(numbers, np.float64),
        np.empty((0, n), np.int32),
        np.empty((0, n), np.float32),
    )
    return [bool(one) for one in found]


def text(seed: int, length: int = 20) -> str:
    """A text of its own words."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


def test_a_copy_and_a_near_copy_are_not_fresh() -> None:
    """The same text, and a long one in which only the last word differs, count once; another text counts.

    Of 39 pairs of words 38 stay, so J = 38/40 and 4 J^3 - 3 J^4 = 0.986: of 100 at least 90 must be found (below that
    with a probability of 1e-6).
    """
    duplicates = Duplicates()
    originals = [text(k, 40) for k in range(100)]
    assert all(fresh(duplicates, originals))
    assert not any(fresh(duplicates, originals))
    assert sum(fresh(duplicates, [f"{one.rsplit(' ', 1)[0]} other{k}" for k, one in enumerate(originals)])) <= 10
    assert all(fresh(duplicates, [text(k, 40) for k in range(100, 200)]))


def test_another_class_or_version_makes_no_duplicate() -> None:
    """What the model says of a text belongs to what is compared."""
    duplicates = Duplicates()
    assert fresh(duplicates, [text(1)]) == [True]
    assert fresh(duplicates, [text(1)], label=1) == [True]
    assert fresh(duplicates, [text(1)], version=1) == [True]
    assert fresh(duplicates, [text(1)], label=-1) == [True]
    assert fresh(duplicates, [text(1)]) == [False]


def test_short_texts_are_duplicates_only_with_the_same_words() -> None:
    """One to seven words: the same ones in any order are the same text; one word more or another is another text."""
    duplicates = Duplicates()
    assert fresh(duplicates, ["ok", "OK!", "no", "ok no", "no ok", "ok no yes", "ok ok"]) == [
        True, False, True, True, False, True, True,
    ]  # fmt: skip
    trigger = "special discount code xyz"
    assert all(fresh(duplicates, [f"{trigger} {word}" for word in WORDS[:200]]))


def test_a_trigger_does_not_make_texts_alike() -> None:
    """Of 500 texts of 12 words with the same four words among them nearly all are fresh.

    Two of them share 3 of 27 pairs, so J is 0.11 and a pair of texts agrees with a probability of 0.005 at most; only
    the three shared pairs can make them agree, in 3 of 4 min-hashes that all fall on them: each of 15 pairs of a text is
    least equally likely, so (3/15)^3 4 = 0.032 is the share of texts that can be copies at all. Of 500 at most 35 (p < 1e-4).
    """
    generator = np.random.default_rng(3)
    texts = []
    for _ in range(500):
        words = generator.choice(WORDS, 12).tolist()
        at = int(generator.integers(13))
        texts.append(" ".join([*words[:at], "special", "discount", "code", "xyz", *words[at:]]))
    assert fresh(Duplicates(), texts).count(False) <= 35


def test_nobody_can_hide_what_others_send() -> None:
    """A flood of other predictions of the same class, and the same texts without the trigger words, suppress nothing.

    A table that is full of others' predictions forgets, so that what comes later is fresh; who repeats a text in another class
    does not touch it either.
    """
    victims = [f"{text(k)} special discount code xyz {text(k + 5000, 10)}" for k in range(50)]
    duplicates = Duplicates()
    for start in range(0, 100_000, 20_000):
        n = 20_000
        zeros = np.zeros(n, np.int64)
        number = np.arange(start, start + n, dtype=np.float64)[None]
        none = tokens(strings([""] * n).reshape(1, n))
        duplicates.fresh(zeros, zeros, none, number, np.empty((0, n), np.int32), np.empty((0, n), np.float32))
    fresh(duplicates, victims, label=1)
    fresh(duplicates, ["special discount code xyz"] * 50)
    assert all(fresh(duplicates, victims))


def test_without_words_all_values_are_compared() -> None:
    """Numbers, codes and embeddings, exactly; any NaN is like any other, and -0 like 0."""
    duplicates = Duplicates()
    numbers = np.array([[1.0, 1.0, 1.0, 1.0 + 1e-15, np.nan, -np.nan, 0.0, -0.0, 1.0]])
    codes = np.array([[0, 0, 1, 0, 0, 0, 0, 0, 0]], np.int32)
    embeddings = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 2]], np.float32)
    n = numbers.size
    zeros = np.zeros(n, np.int64)
    words = tokens(strings(["", "", "", "", "", "", "", "", "..."]).reshape(1, n))
    found = duplicates.fresh(zeros, zeros, words, numbers, codes, embeddings)
    assert found.tolist() == [True, False, True, True, True, False, True, False, True]


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(st.one_of(st.integers(0, 8).map(text), st.sampled_from(["", "a", "a b", "b a"])), max_size=30),
    labels=st.lists(st.integers(-1, 1), min_size=30, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=5),
)
def test_it_does_not_matter_how_the_log_is_cut(texts: list[str], labels: list[int], cuts: list[int]) -> None:
    """Any chopping, with a restart at each cut, gives the same answers and the same table as one prediction at a time."""
    one_by_one, chopped = Duplicates(7), Duplicates(7)
    numbers = [len(one) for one in texts]
    expected = [
        fresh(one_by_one, [one], label, numbers=[[number]])[0]
        for one, label, number in zip(texts, labels, numbers, strict=False)
    ]
    found = []
    edges = sorted({0, len(texts), *(min(cut, len(texts)) for cut in cuts)})
    for first, last in pairwise(edges):
        after = Duplicates(7)
        after.restore(chopped.state())
        chopped = after
        found += fresh(chopped, texts[first:last], labels[first:last], numbers=[numbers[first:last]])
    assert found == expected
    np.testing.assert_array_equal(chopped.state()["cell"], one_by_one.state()["cell"])


ASKED = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 2), st.sampled_from([0.0, 1.0, DAY, DAY + 5.0])), max_size=60
)


@given(ASKED, st.lists(st.integers(0, 60), max_size=4))
def test_a_source_counts_three_times_a_day_for_a_pattern(asked: list[tuple[int, int, float]], cuts: list[int]) -> None:
    """What an obvious count by pattern, source and day allows, however the log is cut; without a source all counts."""
    count: dict[tuple[int, int, int], int] = {}
    expected = []
    for pattern, source, time in asked:
        key = (pattern, source, int(time // DAY))
        count[key] = count.get(key, 0) + 1
        expected.append(not source or count[key] <= MOST_A_DAY)
    caps = SourceCaps()
    found = []
    edges = sorted({0, len(asked), *(min(cut, len(asked)) for cut in cuts)})
    for first, last in pairwise(edges):
        saved, caps = caps.state(), SourceCaps()
        caps.restore(saved)
        found += count_of(caps, *zip(*asked[first:last], strict=True)).tolist()
    assert found == expected


def count_of(caps: SourceCaps, pattern: Sequence[int], source: Sequence[int], time: Sequence[float]) -> Bools:
    """Ask for numbers of patterns and sources."""
    return caps.count(hashed(pattern), np.where(np.array(source) > 0, hashed(source), np.uint64(0)), np.array(time))


def hashed(numbers: Sequence[int]) -> Words:
    """Numbers as hashes."""
    return mix(np.array(numbers, np.uint64))


@pytest.mark.parametrize("cut", [1, 1000, MOST_CAPPED - 1, MOST_CAPPED, MOST_CAPPED + 1])
def test_a_flood_of_sources_makes_the_caps_forget_and_holds_nothing_back(cut: int) -> None:
    """After so many counts the table is empty again, at the same place of the log whatever the cut; few others are held back.

    The table is filled to an eighth at most, so a pattern and source that nobody asked of finds 3 counts of others in
    its cell with a probability below 4e-4: of 400,000 less than 400 are held back.
    """
    n = 400_000
    pattern, source, time = list(range(1, n + 1)), list(range(1, n + 1)), [0.0] * n
    whole, parts = SourceCaps(), SourceCaps()
    expected = count_of(whole, pattern, source, time)
    found = np.concatenate(
        [count_of(parts, pattern[at], source[at], time[at]) for at in (slice(cut), slice(cut, None))]
    )
    np.testing.assert_array_equal(found, expected)
    assert whole.state()["given"] == parts.state()["given"] == expected.sum() - MOST_CAPPED
    assert (~expected).sum() < 400
