"""Text in columns: the words of a batch as 64-bit hashes, and what can be counted about a text. Pure.

No step loops over records, words or characters in Python. The texts of a batch are joined and encoded once; their places
come from their lengths, so no character is forbidden. A word is a run of ASCII letters, digits, underscores,
apostrophes and of whatever is not ASCII, in Unicode's NFKC; ASCII capitals are lowered.

The hash of a string is that of Karp and Rabin (1987) modulo 2^64 over its UTF-8 bytes, mixed by the finaliser of
SplitMix64 (Steele, Lea, Flood 2014). Equal strings have equal hashes on every machine. Of a million strings that nobody
chose for it two collide with a probability of 3e-8; it is no cryptographic hash, and who knows it can make collisions.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np

from poisonwatch.profile.packed import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from poisonwatch.types import Floats, Ints

    Hashes = NDArray[np.uint64]

TEXT_ROWS = ("text.words", "text.unseen", "text.digits", "text.capitals", "text.symbols")
"""Names of the rows that `text_rows` gives."""

MOST_WORDS = 2000
"""Words of one record that are looked at, half of them from its beginning and half from its end, so that one hostile text does not
cost the others their time."""

LARGEST_VOCABULARY = 50_000

FACTOR = 0x9E3779B97F4A7C15
INVERSE = pow(FACTOR, -1, 1 << 64)

IS_NUMBER = np.uint64(1)
"""The bit of a word's hash that says whether it is digits and nothing else: numbers change from one copy of a message to the next."""

_DIGITS = b"0123456789"
_ZERO, _NINE = _DIGITS[0], _DIGITS[-1]
_CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERS = _CAPITALS + _CAPITALS.lower()
_SPACES = b" \t\n\r\v\f"
_NOT_ASCII = bytes(range(128, 256))

# bytes.translate tables: the lowered bytes of words and 0 for all others; and the class of each byte.
_OF_WORDS = bytes(
    byte | 0x20 if byte in _CAPITALS else byte if byte in _LETTERS + _DIGITS + b"_'" + _NOT_ASCII else 0
    for byte in range(256)
)
_DIGIT, _CAPITAL, _SYMBOL = 1, 2, 3
_CLASS = bytes(
    _DIGIT
    if byte in _DIGITS
    else _CAPITAL
    if byte in _CAPITALS
    else 0
    if byte in _LETTERS + _SPACES + _NOT_ASCII
    else _SYMBOL
    for byte in range(256)
)


class Tokens(NamedTuple):
    """The words of a batch in the order of the records: `word` (T,) hashes, `row` (T,) the record of each, ascending."""

    word: Hashes
    row: Ints


class VocabularyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A vocabulary as it is kept in a file: ascending uint64, little-endian."""

    words: bytes


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Known words: ascending distinct hashes (v,), at most `LARGEST_VOCABULARY`."""

    words: Hashes

    def knows(self, word: Hashes) -> NDArray[np.bool_]:
        """For each word (T,) whether it is known."""
        if not self.words.size:
            return np.zeros(word.size, np.bool_)
        place = np.minimum(np.searchsorted(self.words, word), self.words.size - 1)
        return np.asarray(self.words[place] == word)

    def file(self) -> VocabularyFile:
        """What is kept in a file."""
        return VocabularyFile(words=pack(self.words, "u8"))

    @classmethod
    def read(cls, file: VocabularyFile) -> Self:
        """Take up what a file holds.

        Raises:
            ValueError: when it is no vocabulary.
        """
        words = unpack(file.words, "u8", (-1,), "vocabulary")
        if words.size > LARGEST_VOCABULARY:
            msg = f"vocabulary: {words.size} words, at most {LARGEST_VOCABULARY} are allowed"
            raise ValueError(msg)
        if (words[1:] <= words[:-1]).any():
            msg = "vocabulary: the words are not ascending"
            raise ValueError(msg)
        return cls(words)


def tokens(texts: NDArray[Any]) -> Tokens:
    """The words of texts (t, n), an object array of str: of each record those of all its rows, in order.

    Of a record with more than `MOST_WORDS` words the first and the last ones are given.
    """
    rows, n = texts.shape
    if not texts.size:
        return Tokens(np.empty(0, np.uint64), np.empty(0, np.int64))
    encoded, starts = _join(plain(texts))
    content = np.frombuffer(encoded.translate(_OF_WORDS), np.uint8)
    # Every text is preceded and followed by a separator, so that no word crosses from one text to the next.
    inside = content != 0
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    first, last = edges[::2], edges[1::2]
    until = np.searchsorted(first, starts[::rows])
    many = np.diff(until)
    row = np.repeat(np.arange(n), many)
    if many.max() > MOST_WORDS:
        place = np.arange(first.size) - until[row]
        kept = (place < MOST_WORDS // 2) | (place >= many[row] - MOST_WORDS // 2)
        first, last, row = first[kept], last[kept], row[kept]
    return Tokens(_of_words(content, first, last), row)


def plain(texts: NDArray[Any]) -> NDArray[Any]:
    """Texts (t, n) in one way of writing: compatibility forms composed (Unicode NFKC), what is invisible left out.

    Models do so before they look at a text; who writes in full-width letters, or with nothing between two letters, writes the same.
    """
    flat = texts.ravel().tolist()
    if all(map(str.isascii, flat)):
        return texts
    found = np.empty(len(flat), np.object_)
    found[:] = list(map(plain_text, flat))
    return found.reshape(texts.shape)


def plain_text(text: str) -> str:
    """One text as `plain` writes it."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_invisible())


@cache
def _invisible() -> dict[int, None]:
    """Format characters, to leave out; looked up once, when the first text needs it."""
    codes = (*range(0x10000), *range(0xE0000, 0xE0080))
    return dict.fromkeys(code for code in codes if unicodedata.category(chr(code)) == "Cf")


def fingerprints(texts: Sequence[str]) -> Hashes:
    """Hashes (n,) of whole strings; that of the empty string, and only that, is 0."""
    encoded, starts = _join(np.array([texts], object) if len(texts) else np.empty((1, 0), object))
    content = np.frombuffer(encoded, np.uint8)
    return np.where(starts[1:] - 1 > starts[:-1], _hash(content, starts[:-1], starts[1:] - 1), np.uint64(0))


def word_hashes(words: Sequence[str]) -> Hashes:
    """The hashes (n,) that words in lower case have in `Tokens`."""
    encoded, starts = _join(np.array([words], object) if len(words) else np.empty((1, 0), object))
    return _of_words(np.frombuffer(encoded, np.uint8), starts[:-1], starts[1:] - 1)


def text_rows(texts: NDArray[Any], tokens: Tokens, vocabulary: Vocabulary) -> Floats:
    """What is counted about texts (t, n): rows as `TEXT_ROWS` says, (5, n), NaN for a record without text.

    Number of words; share of words that the vocabulary does not have (NaN where there are no words); shares of digits,
    of capitals and of what is neither letter, digit nor space among the characters. What is not ASCII counts as letters.
    """
    rows, n = texts.shape
    if not texts.size:
        return np.full((len(TEXT_ROWS), n), np.nan)
    encoded, starts = _join(texts)
    classes = np.frombuffer(encoded.translate(_CLASS), np.uint8)
    characters = _lengths(texts).reshape(n, rows).sum(axis=1)
    words = np.bincount(tokens.row, minlength=n)
    unseen = np.bincount(tokens.row[~vocabulary.knows(tokens.word)], minlength=n)
    # No segment is empty, which `reduceat` would not bear: each has its separators, and they belong to no class.
    segments = starts[:-1:rows]
    of_class = [np.add.reduceat(classes == which, segments, dtype=np.int64) for which in (_DIGIT, _CAPITAL, _SYMBOL)]
    some = np.where(characters > 0, characters, np.nan)
    return np.stack(
        (
            np.where(characters > 0, words, np.nan),
            unseen / np.where(words > 0, words, np.nan),
            *(count / some for count in of_class),
        )
    )


def mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64: a bijection in which every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _lengths(texts: NDArray[Any]) -> Ints:
    """Characters of each text, those of a record next to each other."""
    return np.fromiter(map(len, texts.T.ravel().tolist()), np.int64, texts.size)


def _join(texts: NDArray[Any]) -> tuple[bytes, Ints]:
    """All texts in UTF-8, a space before, between and after them, and where each starts, with the end: (t*n + 1,).

    The texts of a record stand next to each other. Text k is `[starts[k], starts[k + 1] - 1)`: a text may hold whatever
    it likes, its place comes from its length.
    """
    joined = " ".join(["", *texts.T.ravel().tolist(), ""])
    encoded = joined.encode("utf-8", "surrogatepass")
    starts = np.concatenate(([1], 1 + np.cumsum(_lengths(texts) + 1)))
    if len(encoded) > len(joined):
        # From places of characters to places of bytes: all but the continuing bytes start a character.
        heads = np.flatnonzero((np.frombuffer(encoded, np.uint8) & 0xC0) != 0x80)
        starts = np.append(heads, len(encoded))[starts]
    return encoded, starts


def _hash(content: NDArray[np.uint8], first: Ints, last: Ints) -> Hashes:
    """Hashes of the pieces [first, last) of the content.

    With S(k) the sum of (byte j + 1) FACTOR^-j over j < k, a piece has (S(last) - S(first)) FACTOR^first, whatever
    stands around it: all modulo 2^64, where an odd factor has an inverse.
    """
    powers = np.empty((2, content.size + 1), np.uint64)
    powers[:, 0] = 1
    powers[0, 1:] = FACTOR
    powers[1, 1:] = INVERSE
    np.multiply.accumulate(powers, axis=1, out=powers)
    total = np.empty(content.size + 1, np.uint64)
    total[0] = 0
    np.cumsum((content.astype(np.uint64) + np.uint64(1)) * powers[1, :-1], out=total[1:])
    hashes = mix((total[last] - total[first]) * powers[0, first])
    # 0 stands for no string at all.
    return np.where(hashes == 0, np.uint64(1), hashes)


def _of_words(content: NDArray[np.uint8], first: Ints, last: Ints) -> Hashes:
    """Hashes of the words [first, last) of the content, that say which of them are numbers."""
    hashes = _hash(content, first, last) & ~IS_NUMBER
    digits = np.zeros(content.size + 1, np.int64)
    np.cumsum((content >= _ZERO) & (content <= _NINE), out=digits[1:])
    hashes |= (digits[last] - digits[first] == last - first).astype(np.uint64)
    return np.where(hashes == 0, np.uint64(2), hashes)
