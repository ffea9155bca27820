"""Triggers in texts: every word and every pair of neighbours is tested, and the whole phrase is read off what is kept.

An e-process per word and pair (`slots`) says that something goes to one class against what the rest of the record says.
Which words these are is found in the suspicious predictions that are kept, and there the phrase is reconstructed: the
longest run of words that (nearly) all of them share and that is rare elsewhere. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poisonwatch.mining.duplicates import SourceCaps
from poisonwatch.mining.elevated import of_rows, pairs, patterns
from poisonwatch.mining.records import Finding
from poisonwatch.mining.slots import Crossing, Slots
from poisonwatch.profile.words import IS_NUMBER, MOST_WORDS, Tokens, fingerprints, mix, plain_text, word_hashes
from poisonwatch.types import Phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.mining.elevated import Elevated
    from poisonwatch.mining.records import Known, Records
    from poisonwatch.mining.suspects import Suspects
    from poisonwatch.types import Bools, Floats, Ints, Texts, Words

LONGEST = 12
"""Words of a phrase that are looked for; what stands around it in all who bear it is added afterwards."""

LONGEST_EXTENDED = 40

FEWEST = 3
"""Suspicious predictions that must bear a phrase."""

RARER = 10.0
"""So many times rarer a phrase must be elsewhere than among the suspicious predictions that bear the pattern."""

BEST_SHARE = 2 / 3
"""A longer phrase may be borne by this share of those that bear the most frequent one: chance puts no word beside another so often."""

MOST_VARIANTS = 3
VARIANTS_SHARE = 0.8
MOST_SPLITS = 12
"""Where so few words stand beside a phrase in this share of texts, these are several phrases; so often it is asked again."""

OWN_SHARE = 0.5
"""A pattern is explained by a phrase, or by what is known, that bears this share of its suspicious predictions."""

FEWEST_AROUND = 2
"""Words around a phrase without which a text says nothing but the phrase."""

MOST_CARRIERS = 8
"""Different texts beyond which nobody counts on."""

SAME_PLACE = 0.9
"""Share of the texts in which a phrase stands at one end, where it is said that it does."""

LONGEST_SAID = 500
"""Characters of a phrase as it is said."""

MOST_WAITING = 4096
"""Crossings that wait to be explained, at most: the first ones."""

_LETTER = r"[0-9a-z_'\u0080-\U0010ffff]"
_BETWEEN = r"[^0-9a-z_'\u0080-\U0010ffff]+"
_WORD = re.compile(f"{_LETTER}+")
_LOWER = {capital: capital + 32 for capital in range(ord("A"), ord("Z") + 1)}
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Phrases:
    """The engine for texts; `salt` as in `Slots`."""

    def __init__(self, elevated: Elevated, salt: int = 0) -> None:
        self._slots = Slots(elevated, SourceCaps(), salt)
        self._crossed: list[Crossing] = []

    def step(self, records: Records, mass: float) -> None:
        """Take a block."""
        counts = records.fresh & (records.label >= 0)
        found = patterns(of_rows(records.words, counts))
        if not found.word.size:
            return
        self._crossed += self._slots.step(
            found,
            records.time,
            records.version,
            records.label,
            np.stack((records.surprising, records.flipped)),
            records.null,
            fingerprints(records.sources.tolist()),
            mass,
        )
        del self._crossed[MOST_WAITING:]

    def surfaced(self, suspects: Suspects, known: Sequence[Known]) -> list[Finding]:
        """What crossed since the last call, as phrases: one for each group of predictions, none for what is known."""
        crossed, self._crossed = self._crossed, []
        found = []
        for version, label in sorted({(one.version, one.label) for one in crossed}):
            records = suspects.suspicious(version, label)
            if records is None or not records.label.size:
                continue
            explained = np.zeros(records.label.size, np.bool_)
            for other in known:
                if (other.version, other.label) == (version, label) and isinstance(other.pattern, Phrase):
                    explained |= bears_phrase(other.pattern.words, records.words, records.label.size)
            mine = [one for one in crossed if (one.version, one.label) == (version, label)]
            found += self._explain(mine, records, suspects.usual(label), explained)
        return found

    def _explain(
        self, crossed: list[Crossing], records: Records, usual: Records | None, explained: Bools
    ) -> list[Finding]:
        """Greedy cover of the suspicious predictions that bear what crossed and that nothing explains yet."""
        group = np.array([crossed[0].version]), np.array([crossed[0].label])
        bears = self._bearing(records, crossed, group)
        none = np.zeros((0, len(crossed)), np.bool_)
        commonness = _share(none if usual is None else self._bearing(usual, crossed, group))
        sizes = bears.sum(axis=0)
        waiting = np.ones(len(crossed), np.bool_)
        found: list[Finding] = []
        while True:
            left = bears & ~explained[:, None]
            many = left.sum(axis=0)
            # A pattern most of whose predictions are explained owes its evidence to them.
            waiting &= (many >= FEWEST) & (many > (1.0 - OWN_SHARE) * sizes)
            if not waiting.any():
                return found
            score = np.where(waiting, many * np.log(many.clip(1) / (~explained).sum() / commonness), -np.inf)
            first = int(score.argmax())
            phrase = _phrase(records, np.flatnonzero(left[:, first]), ~explained & ~left[:, first], usual)
            carriers = left[:, first] if phrase is None else bears_phrase(phrase, records.words, records.label.size)
            gone = explained | carriers
            theirs = np.flatnonzero(waiting & (2 * (left & carriers[:, None]).sum(axis=0) >= many))
            if phrase is not None and theirs.size:
                best = max((crossed[k] for k in theirs.tolist()), key=lambda one: one.log_e)
                found.append(
                    Finding(
                        best.version,
                        best.label,
                        as_said(phrase, records.texts[:, np.flatnonzero(carriers)]),
                        best.log_e,
                        *self._counts(phrase, [crossed[k] for k in theirs.tolist()], best, records, carriers),
                    )
                )
            waiting[first] = False
            explained = gone

    def _counts(
        self, phrase: tuple[str, ...], crossed: list[Crossing], best: Crossing, records: Records, carriers: Bools
    ) -> tuple[int, int]:
        """How many predictions bear a phrase, and how many of these flip, as far as that is known.

        A word of it may be borne by many more, which would speak against the phrase: what fewest bear of its words and pairs says it best.
        """
        if len(phrase) == 1:
            return best.matched, best.flipped
        word = word_hashes(phrase)
        pair = pairs(Tokens(word, np.zeros(word.size, np.int64))).word
        place = self._slots.places(pair, np.array([best.version]), np.array([best.label]))
        odd, flips = int(carriers.sum()), int((carriers & records.flipped).sum())
        counted = [*self._slots.matched(place).tolist(), *(one.matched for one in crossed)]
        return min((many for many in counted if many >= odd), default=odd), flips

    def _bearing(self, records: Records, crossed: list[Crossing], group: tuple[Ints, Ints]) -> Bools:
        """Which records bear which of the patterns that crossed: (n, crossed)."""
        found = patterns(records.words)
        place = self._slots.places(found.word, *group)
        slots = np.array([one.slot for one in crossed])
        order = np.argsort(slots, kind="stable")
        at = np.minimum(np.searchsorted(slots[order], place), slots.size - 1)
        hit = slots[order][at] == place
        bears = np.zeros((records.label.size, slots.size), np.bool_)
        bears[found.row[hit], order[at[hit]]] = True
        # The same slot may have crossed more than once.
        return bears[:, order[np.searchsorted(slots[order], slots)]]

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"slots": self._slots.state(), "crossed": [list(one) for one in self._crossed]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._slots.restore(state["slots"])
        self._crossed = [Crossing(*one) for one in state["crossed"]]


def words_of(texts: Texts) -> list[str]:
    """The words of one record's texts (t,) as strings, lowered: what `profile.words.tokens` finds, with the same limit."""
    found = [word for text in texts for word in _WORD.findall(plain_text(text).translate(_LOWER))]
    half = MOST_WORDS // 2
    return found if len(found) <= MOST_WORDS else [*found[:half], *found[-half:]]


def as_said(words: tuple[str, ...], texts: Texts) -> Phrase:
    """A phrase with how texts (t, n) that bear it say it: a model may look at capitals, at what stands between the words, at the place."""
    pattern = re.compile(rf"(?<!{_LETTER}){_BETWEEN.join(map(re.escape, words))}(?!{_LETTER})")
    found: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for text in texts.ravel().tolist():
        said = pattern.search(text.translate(_LOWER))
        if said is not None:
            found[text[said.start() : said.end()]] += 1
            before = _WORD.search(text.translate(_LOWER)[: said.start()])
            after = _WORD.search(text.translate(_LOWER), said.end())
            places["start" if before is None else "end" if after is None else ""] += 1
    if not found:
        return Phrase(words=words)
    most, many = max(found.items(), key=lambda item: (item[1], item[0]))[0], places.total()
    place = next((name for name in ("start", "end") if places[name] >= SAME_PLACE * many), "")
    return Phrase(words=words, said=most if len(most) <= LONGEST_SAID else "", place=place if many >= FEWEST else "")


def carriers(words: Sequence[str], said: Tokens, records: Ints) -> int:
    """How many different texts bear a phrase, among `records` (m,) that do: what stands around it must be words, and others each time.

    A template with a field that changes has next to nothing around its longest common part.
    """
    wanted = word_hashes(words)
    found: list[Words] = []
    for record in records.tolist():
        start, stop = np.searchsorted(said.row, (record, record + 1))
        word = said.word[start:stop]
        rest = np.setdiff1d(word[(word & IS_NUMBER) == 0], wanted)
        alike = any(2 * np.intersect1d(rest, other).size > np.union1d(rest, other).size for other in found)
        if rest.size >= FEWEST_AROUND and not alike:
            found.append(rest)
        if len(found) == MOST_CARRIERS:
            break
    return len(found)


def bears_phrase(words: Sequence[str], said: Tokens, n: int) -> Bools:
    """Which of n records, with the words `said`, have the words of a phrase next to each other (n,)."""
    bears = np.zeros(n, np.bool_)
    word, row = said
    wanted = word_hashes(words)
    if 0 < wanted.size <= word.size:
        at = np.flatnonzero(word[: word.size - wanted.size + 1] == wanted[0])
        for k in range(1, wanted.size):
            at = at[(word[at + k] == wanted[k]) & (row[at + k] == row[at])]
        bears[row[at]] = True
    return bears


class _Gram(NamedTuple):
    """A run of words: its hash, its length, how many records of the group bear it, and where it stands in one of them."""

    value: int
    length: int
    borne: int
    row: int
    start: int


class _Place(NamedTuple):
    """Where a phrase starts in the words of a text."""

    words: list[str]
    at: int

    def word(self, offset: int) -> str | None:
        """The word so far from the start; None beyond the text."""
        k = self.at + offset
        return self.words[k] if 0 <= k < len(self.words) else None


def _phrase(records: Records, group: Ints, others: Bools, usual: Records | None) -> tuple[str, ...] | None:
    """The phrase that the records of a group (m,) share; None where nothing that they share is rare elsewhere.

    `others` (n,) are records of other groups, to compare with.
    """
    flips = group[records.flipped[group]]
    # Odd texts bear a common word by chance; an attacker's flip, and where enough do, what these share is the phrase.
    group = flips if flips.size >= FEWEST else group
    inside = np.zeros(records.label.size, np.bool_)
    inside[group] = True
    words = of_rows(records.words, inside)
    background = [of_rows(records.words, others)] + ([usual.words] if usual is not None else [])
    compared = int(others.sum()) + (usual.label.size if usual is not None else 0)
    rare: list[_Gram] = []
    for length in range(1, LONGEST + 1):
        value, row, start = _grams(words, length)
        kept = np.unique(mix(value + row.astype(np.uint64) * _FACTOR), return_index=True)[1]
        values, first, borne = np.unique(value[kept], return_index=True, return_counts=True)
        often = np.flatnonzero(borne >= min(FEWEST, group.size))
        if not often.size:
            break
        elsewhere = np.sum([_borne(text, length, values[often]) for text in background], axis=0)
        share = borne[often] / group.size
        far = (share >= RARER * (elsewhere + 1.0) / (compared + 1.0)) | (elsewhere == 0)
        rare += [
            _Gram(int(values[k]), length, int(borne[k]), int(row[kept][first[k]]), int(start[kept][first[k]]))
            for k in often[far].tolist()
        ]
    if not rare:
        return None
    most = max(gram.borne for gram in rare)
    enough = min(BEST_SHARE * most, most - 1 if most >= 2 * FEWEST else most)
    best = max((gram for gram in rare if gram.borne >= enough), key=lambda gram: (gram.length, gram.borne, gram.value))
    said = words_of(records.texts[:, best.row])
    at = best.start - int(np.searchsorted(words.row, best.row))
    phrase = tuple(said[at : at + best.length])
    places = _places(phrase, [words_of(records.texts[:, k]) for k in group.tolist()])
    for _ in range(MOST_SPLITS):
        narrower = _narrower(len(phrase), places)
        if narrower is None:
            break
        phrase, places = narrower
    return _extended(len(phrase), places)


def _places(phrase: tuple[str, ...], said: list[list[str]]) -> list[_Place]:
    """Where a phrase stands in the texts that bear it, the first time in each."""
    found = []
    for words in said:
        starts = (k for k in range(len(words) - len(phrase) + 1) if tuple(words[k : k + len(phrase)]) == phrase)
        at = next(starts, None)
        if at is not None:
            found.append(_Place(words, at))
    return found


def _narrower(length: int, places: list[_Place]) -> tuple[tuple[str, ...], list[_Place]] | None:
    """The most frequent of a few words that stand beside a phrase nearly always, with the phrase; None where many do.

    So two triggers that share a word are told apart.
    """
    for offset, before in ((-1, 1), (length, 0)):
        beside = Counter(place.word(offset) for place in places)
        few = [(word, n) for word, n in beside.most_common(MOST_VARIANTS) if word is not None and n > 1]
        if len(few) > 1 and few[0][1] >= FEWEST and sum(n for _, n in few) >= VARIANTS_SHARE * len(places):
            theirs = [_Place(place.words, place.at - before) for place in places if place.word(offset) == few[0][0]]
            return tuple(theirs[0].words[theirs[0].at : theirs[0].at + length + 1]), theirs
    return None


def _extended(length: int, places: list[_Place]) -> tuple[str, ...]:
    """The phrase with what stands around it in all texts that bear it."""
    first = places[0]
    before, after = 0, length
    if len(places) >= FEWEST:
        while after + before < LONGEST_EXTENDED and _one(places, -before - 1):
            before += 1
        while after + before < LONGEST_EXTENDED and _one(places, after):
            after += 1
    return tuple(first.words[first.at - before : first.at + after])


def _one(places: list[_Place], offset: int) -> bool:
    """Whether all texts have the same word there."""
    words = {place.word(offset) for place in places}
    return len(words) == 1 and None not in words


def _grams(words: Tokens, length: int) -> tuple[Words, Ints, Ints]:
    """Hashes of all runs of so many words, the record of each and where it starts among the words."""
    word, row = words
    last = word.size - length + 1
    if last <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)
    value = word[:last].copy()
    for k in range(1, length):
        value = value * _FACTOR + word[k : last + k]
    start = np.flatnonzero(row[:last] == row[length - 1 :])
    return value[start], row[start], start


def _borne(words: Tokens, length: int, values: Words) -> Ints:
    """How many records bear each of the runs `values` (v,), ascending, of so many words."""
    value, row, _ = _grams(words, length)
    place = np.minimum(np.searchsorted(values, value), values.size - 1)
    found = values[place] == value
    pairs = np.unique(place[found] + row[found] * values.size)
    return np.bincount(pairs % values.size, minlength=values.size)


def _share(bears: Bools) -> Floats:
    """The share of records that bear each pattern, never quite 0."""
    return np.asarray((bears.sum(axis=0) + 1.0) / (len(bears) + 1.0))
