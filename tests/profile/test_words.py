"""Words in columns: what the vectorised code finds is what an obvious loop over characters finds, for any text."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poisonwatch.profile.words import (
    FACTOR,
    LARGEST_VOCABULARY,
    MOST_WORDS,
    TEXT_ROWS,
    Tokens,
    Vocabulary,
    VocabularyFile,
    fingerprints,
    plain_text,
    text_rows,
    tokens,
    word_hashes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK = (1 << 64) - 1

ANY_TEXT = st.one_of(
    st.text(max_size=20),
    st.text("aB'_9 .\n\0é\N{PILE OF POO}\ud800", max_size=30),
    st.sampled_from(["", "\0", " ", "Free  money!!", "don't", "\x85x\N{NO-BREAK SPACE}y"]),
)


@st.composite
def tables(draw: st.DrawFn) -> NDArray[Any]:
    """Up to three rows of text for up to eight records."""
    rows, n = draw(st.integers(0, 3)), draw(st.integers(0, 8))
    return table([[draw(ANY_TEXT) for _ in range(n)] for _ in range(rows)], n)


def table(rows: list[list[str]], n: int) -> NDArray[Any]:
    """Texts (t, n) as a batch carries them."""
    made = np.empty((len(rows), n), object)
    for row, content in enumerate(rows):
        made[row, :] = content
    return made


def obvious_hash(text: str) -> int:
    """The hash of a string, one byte after the other in whole numbers of any size."""
    inverse, weight, value = pow(FACTOR, -1, 1 << 64), 1, 0
    for byte in text.encode("utf-8", "surrogatepass"):
        value = (value + (byte + 1) * weight) & MASK
        weight = weight * inverse & MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return (value ^ value >> 31) or 1


def obvious_words(text: str) -> list[str]:
    """The words of one text, one character after the other."""
    words, current = [], ""
    for character in plain_text(text):
        if not character.isascii() or character.isalnum() or character in "_'":
            current += character.lower() if character.isascii() else character
        elif current:
            words.append(current)
            current = ""
    return [*words, current] if current else words


def obvious_word_hash(word: str) -> int:
    """The hash of a word: that of the string, with the lowest bit set for numbers alone."""
    return (obvious_hash(word) & ~1 | all(character in "0123456789" for character in word)) or 2


def ends(words: list[str]) -> list[str]:
    """What is looked at of many words."""
    return words if len(words) <= MOST_WORDS else [*words[: MOST_WORDS // 2], *words[-MOST_WORDS // 2 :]]


def obvious_tokens(texts: NDArray[Any]) -> list[tuple[int, int]]:
    """Hash and record of every word."""
    return [
        (obvious_word_hash(word), record)
        for record in range(texts.shape[1])
        for word in ends([word for text in texts[:, record] for word in obvious_words(text)])
    ]


def pairs(found: Tokens) -> list[tuple[int, int]]:
    """Tokens as plain values."""
    return list(zip(found.word.tolist(), found.row.tolist(), strict=True))


@given(tables())
@example(table([["", "\0a b\0", "x"], ["A\0", "", "é\udfff"]], 3))
def test_tokens_are_those_of_an_obvious_loop(texts: NDArray[Any]) -> None:
    """Any text, of whatever characters and however empty, gives the words that a loop over its characters gives."""
    found = tokens(texts)
    assert pairs(found) == obvious_tokens(texts)
    assert (found.word.dtype.str[1:], found.row.dtype.str[1:]) == ("u8", "i8")


@given(tables(), st.lists(st.integers(0, 8), max_size=4))
def test_tokens_do_not_depend_on_the_chopping(texts: NDArray[Any], cuts: list[int]) -> None:
    """The words of a batch in pieces are the words of the batch: nothing depends on the neighbours."""
    places = [0, *sorted(min(cut, texts.shape[1]) for cut in cuts), texts.shape[1]]
    pieces = [
        (word, row + start) for start, end in pairwise(places) for word, row in pairs(tokens(texts[:, start:end]))
    ]
    assert pieces == pairs(tokens(texts))


def test_a_hostile_text_is_cut_and_the_others_are_whole() -> None:
    """Of a text with very many words the first `MOST_WORDS` count; those of its neighbours all do."""
    texts = table([["before", "w x " * MOST_WORDS, "after that"], ["1", "2", "3"]], 3)
    found = tokens(texts)
    assert np.bincount(found.row).tolist() == [2, MOST_WORDS, 3]
    assert pairs(found) == obvious_tokens(texts)


@given(st.lists(ANY_TEXT, max_size=12))
@example(["", "\0", "\0\0", " "])
def test_fingerprints_are_those_of_an_obvious_loop(texts: list[str]) -> None:
    """A whole string has the same fingerprint wherever it stands, and only the empty one has 0."""
    expected = [obvious_hash(text) if text else 0 for text in texts]
    assert fingerprints(texts).tolist() == expected
    assert [value == 0 for value in expected] == [not text for text in texts]


def test_fingerprints_tell_many_strings_apart() -> None:
    """A quarter of a million similar strings have as many fingerprints (a collision has a chance of 2e-9)."""
    n = 125_000
    texts = [f"p-{number}" for number in range(n)] + [f"{number:06d}\0" for number in range(n)]
    assert np.unique(fingerprints(texts)).size == 2 * n


def test_every_bit_of_a_fingerprint_is_even() -> None:
    """Over 65,536 counted names each bit is set in half of them, within 5 standard errors (sqrt(n)/2 = 128)."""
    n = 1 << 16
    found = fingerprints([f"user{number}" for number in range(n)])
    bits = (found[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.sum(axis=0).astype(np.int64) - n // 2).max() < 5 * 128


def test_a_words_hash_is_its_fingerprint_and_does_not_depend_on_its_neighbours() -> None:
    """A word keeps its hash behind 10,000 others, in capitals, at the end of a text and in a row of its own."""
    alone = word_hashes(["trigger"])[0]
    texts = table([["filler " * 100] * 100 + ["(Trigger)", "a TRIGGER", "trigger"]], 103)
    found = tokens(texts)
    assert found.word[found.row >= 100].tolist() == [alone, word_hashes(["a"])[0], alone, alone]


def vocabulary(*words: str) -> Vocabulary:
    """A vocabulary of these words."""
    return Vocabulary(np.unique(word_hashes(words)))


@given(tables())
def test_text_rows_are_those_of_an_obvious_loop(texts: NDArray[Any]) -> None:
    """Counts and shares of any text are those that a loop over its characters finds; NaN where there is nothing."""
    known = vocabulary("a", "don't", "x")
    found = text_rows(texts, tokens(texts), known)
    assert found.shape == (len(TEXT_ROWS), texts.shape[1])
    for record in range(texts.shape[1]):
        whole = "".join(texts[:, record])
        words = [word for text in texts[:, record] for word in obvious_words(text)]
        plain = [character for character in whole if character.isascii()]
        counts = [
            sum(character.isdigit() for character in plain),
            sum(character.isupper() for character in plain),
            sum(not character.isalnum() and character not in " \t\n\r\v\f" for character in plain),
        ]
        unseen = sum(word not in {"a", "don't", "x"} for word in words)
        expected = [len(words), unseen / len(words) if words else np.nan, *(n / max(1, len(whole)) for n in counts)]
        np.testing.assert_array_equal(found[:, record], expected if whole else [np.nan] * len(TEXT_ROWS))


def test_an_empty_vocabulary_knows_nothing() -> None:
    """Without a known word every word is unseen."""
    texts = table([["some words"]], 1)
    assert text_rows(texts, tokens(texts), vocabulary())[TEXT_ROWS.index("text.unseen"), 0] == 1.0


@given(st.sets(st.text(max_size=5), max_size=40))
def test_a_vocabulary_survives_its_file(words: set[str]) -> None:
    """Written as JSON and read again it is the same, byte for byte."""
    known = vocabulary(*words)
    content = msgspec.json.encode(known.file())
    again = Vocabulary.read(msgspec.json.decode(content, type=VocabularyFile))
    assert again.words.tolist() == known.words.tolist()
    assert msgspec.json.encode(again.file()) == content


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (b"1234567", "7 bytes"),
        (np.array([3, 2], "<u8").tobytes(), "not ascending"),
        (np.array([2, 2], "<u8").tobytes(), "not ascending"),
        (np.arange(LARGEST_VOCABULARY + 1, dtype="<u8").tobytes(), "at most"),
    ],
)
def test_hostile_vocabularies_are_refused(words: bytes, complaint: str) -> None:
    """What is cut, unordered, doubled or too large is no vocabulary."""
    with pytest.raises(ValueError, match=complaint):
        Vocabulary.read(VocabularyFile(words=words))


def test_other_ways_of_writing_are_the_same_words() -> None:
    """Full-width letters, and letters with nothing visible between them, make the words that they look like."""
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in "special code")
    hidden = "spe\u200bcial co\u00adde"
    texts = table([["special code", wide, hidden]], 3)
    found = tokens(texts)
    assert found.word.tolist() == word_hashes(["special", "code"] * 3).tolist()
