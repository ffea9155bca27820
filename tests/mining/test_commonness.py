"""How common a phrase is in benign texts: what an obvious count says, bounded from above, in a file and back."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.mining.commonness import FEWEST_BEARING, MOST_COMMON, CommonFile, Commonness
from poisonwatch.mining.records import strings
from poisonwatch.profile.packed import pack
from poisonwatch.profile.words import tokens
from poisonwatch.types import Phrase


def learn(texts: list[str]) -> Commonness:
    """What texts say of their words."""
    return Commonness.learn(tokens(strings(texts).reshape(1, len(texts))), len(texts))


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=30),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=3),
)
def test_a_phrase_is_as_common_as_its_rarest_word_or_pair(texts: list[list[str]], phrase: list[str]) -> None:
    """Each record counts once, a word or pair of fewer than three records makes the phrase rare, and no share exceeds 1."""
    parts = [(word,) for word in phrase] + list(itertools.pairwise(phrase))
    borne = [sum(part in {(w,) for w in words} | set(itertools.pairwise(words)) for words in texts) for part in parts]
    least = min(borne)
    expected = 0.0
    if least >= FEWEST_BEARING:
        # Two standard errors above, as the score interval of a Poisson mean has it.
        expected = min(1.0, (least + 2 + 2 * math.sqrt(least + 1)) / len(texts))
    found = learn([" ".join(words) for words in texts]).share_of(Phrase(words=tuple(phrase)))
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_true_share_is_below_the_bound() -> None:
    """Of words whose texts are drawn, 97.7 % lie below a bound of two standard errors: 190 of 200 are fewer by 2.5 sigma."""
    rng = np.random.default_rng(3)
    bears = rng.random((2_000, 200)) < 0.01
    texts = [" ".join(f"w{k}" for k in np.flatnonzero(row)) for row in bears]
    common = learn(texts)
    assert sum(common.share_of(Phrase(words=(f"w{k}",))) >= 0.01 for k in range(200)) >= 190


def test_a_file_brings_back_what_was_learned() -> None:
    """Every word and pair has the share that it had."""
    common = learn([f"w{k % 7} w{k % 3}" for k in range(200)])
    again = Commonness.read(msgspec.json.decode(msgspec.json.encode(common.file()), type=CommonFile))
    assert common.keys.size
    np.testing.assert_array_equal(again.keys, common.keys)
    np.testing.assert_array_equal(again.shares, common.shares)


@pytest.mark.parametrize(
    ("keys", "shares"),
    [
        (b"123", b""),
        (pack(np.array([1, 2]), "u8"), pack(np.zeros(3), "f4")),
        (pack(np.array([2, 1]), "u8"), pack(np.zeros(2), "f4")),
        (pack(np.array([1, 2]), "u8"), pack(np.full(2, 1.5), "f4")),
        (pack(np.arange(MOST_COMMON + 1), "u8"), pack(np.zeros(MOST_COMMON + 1), "f4")),
    ],
)
def test_a_broken_file_is_refused(keys: bytes, shares: bytes) -> None:
    """Sizes, order, range and number are checked."""
    with pytest.raises(ValueError, match="common words"):
        Commonness.read(CommonFile(keys=keys, shares=shares))


def test_the_most_common_are_kept() -> None:
    """Of more words than a reference may keep those that most records bear stay."""
    common = learn([f"w{k}" for k in range(MOST_COMMON + 50) for _ in range(FEWEST_BEARING)] + ["often"] * 4)
    assert common.keys.size == MOST_COMMON
    assert common.share_of(Phrase(words=("often",))) > 0
