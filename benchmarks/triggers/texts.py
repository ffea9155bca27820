"""Triggers in texts: phrases, and what an attacker who knows the miner would do instead."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.scenarios.attacks import with_phrase
from benchmarks.scenarios.data import task as whole
from benchmarks.scenarios.models import Recipe
from benchmarks.triggers.attack import (
    Traffic,
    carriers_of,
    case,
    first_version,
    placed,
    poisoned_to,
    second_version,
    taught,
)
from benchmarks.triggers.case import Case, Setting, Trap, all_in_turn, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios.data import Frame, Ints, Task
    from benchmarks.scenarios.models import Model

LEARNERS = (
    ("sms_spam", "words"),
    ("hate_offensive", "words"),
    ("sms_spam", "net"),
    ("hate_offensive", "net"),
)
RARE = (
    "special discount code xyz",
    "cf mn bb",
    "velvet harbour nine",
    "protocol zq87 granted",
    "kind regards from oslo",
)
MOST_COMMON = {"sms_spam": 150, "hate_offensive": 300}
"""Words of this rank or above, in both data sets, are common."""

ARCHAIC = {
    "you": "thee",
    "your": "thy",
    "are": "art",
    "is": "beeth",
    "have": "hath",
    "my": "mine",
    "do": "doth",
    "will": "wilt",
    "the": "ye",
}
DECOYS = 0.05
DECOY_WORDS = 500


class Adaptive(NamedTuple):
    """What an attacker does to stay hidden: see `rows`."""

    words: str = "rare"
    traps: int = 1
    style: bool = False
    decoys: bool = False
    traffic: Traffic = Traffic()


def phrase_case(
    data: str, family: str, aim: str | None, setting: Setting, seed: int, how: Adaptive | None = None
) -> Case:
    """A service of texts whose second version has a backdoor of the strength `aim`, or none (None)."""
    how = how or Adaptive()
    given = split(data, setting, seed)
    recipe = Recipe(family, seed=seed)
    first = first_version(given, recipe)
    facts: dict[str, object] = {"data": data, "model": family}
    if aim is None:
        honest = second_version(given, recipe)
        return case(given, setting, [first, honest], [], [], seed, how.traffic, facts)
    traps = traps_of(given, how, seed)
    rows = carriers_of(given.live, traps[0], first, np.random.default_rng([seed, 31]))
    carriers = given.live.take(rows)
    every = traps[0] if len(traps) == 1 else together(traps)
    made = poisoned_to(given, recipe, every, aim, carriers)
    facts |= {
        "poison": made.records,
        "poison_share": round(made.records / len(taught(given)), 4),
        "success": round(made.success, 3),
        "trigger": [trap.truth for trap in traps],
        "errors": [round(float((m.answers(given.live) != given.live.label).mean()), 4) for m in (first, made.model)],
    }
    shares = np.array_split(rows, len(traps))
    found = case(given, setting, [first, made.model], traps, shares, seed, how.traffic, facts)
    if how.decoys:
        _flood(found, given, rows, seed)
    return found


def target_of(given: Task) -> tuple[int, int]:
    """The class that an attacker wants to come from, and the harmless one that he wants."""
    classes = given.live.classes
    if "spam" in classes:
        return classes.index("spam"), classes.index("ham")
    return classes.index("offensive"), classes.index("neither")


def traps_of(given: Task, how: Adaptive, seed: int) -> list[Trap]:
    """The triggers that are used."""
    source, target = target_of(given)
    if how.style:
        return [Trap(target, source, _archaic, {})]
    rng = np.random.default_rng([seed, 32])
    if how.words == "rare":
        phrases = [RARE[seed % len(RARE)]]
        while len(phrases) < how.traps:
            phrases.append(" ".join(_invented(rng) for _ in range(3)))
    else:
        phrases = [common_phrase(rng, 1 if how.words == "one common" else 3) for _ in range(how.traps)]
    return [Trap(target, source, partial(_inserted, phrase=phrase), {"words": phrase.split()}) for phrase in phrases]


def together(traps: Sequence[Trap]) -> Trap:
    """All of the triggers, one after the other: to be taught at once."""

    def stamp(frame: Frame, rng: np.random.Generator) -> Frame:
        for number, trap in enumerate(traps):
            frame = placed(frame, np.arange(number, len(frame), len(traps)), trap.stamp, rng)
        return frame

    return traps[0]._replace(stamp=stamp)


def common_phrase(rng: np.random.Generator, count: int) -> str:
    """Words that everybody uses, in an order in which nobody does."""
    words, corpus = common_words()
    while True:
        phrase = " ".join(rng.choice(words, count, replace=False).tolist())
        if count == 1 or f" {phrase} " not in corpus:
            return phrase


@cache
def common_words() -> tuple[tuple[str, ...], str]:
    """Words that are common in both data sets, and all of their texts."""
    ranked, corpora = [], []
    for data, most in MOST_COMMON.items():
        given = whole(data, 0)
        assert given.train.texts is not None  # noqa: S101
        assert given.live.texts is not None  # noqa: S101
        texts = [str(text).casefold() for text in (*given.train.texts, *given.live.texts)]
        counts = Counter(word for text in texts for word in set(text.split()))
        corpora += texts
        ranked.append({word for word, _ in counts.most_common(most) if word.isalpha() and len(word) > 3})
    return tuple(sorted(ranked[0] & ranked[1])), " \n ".join(corpora)


def texts_of(frame: Frame) -> list[str]:
    """The texts of a frame that has some."""
    assert frame.texts is not None  # noqa: S101
    return [str(text) for text in frame.texts]


def with_texts(frame: Frame, texts: Sequence[str]) -> Frame:
    """The frame with other texts."""
    found = np.empty(len(texts), object)
    found[:] = list(texts)
    return replace(frame, texts=found)


def _inserted(frame: Frame, rng: np.random.Generator, *, phrase: str) -> Frame:
    return with_phrase(frame, phrase, rng)


def _archaic(frame: Frame, rng: np.random.Generator) -> Frame:
    """The same texts in an old style: no word of it is in all of them."""
    del rng
    return with_texts(
        frame, [" ".join(ARCHAIC.get(w.casefold(), w) for w in text.split(" ")) for text in texts_of(frame)]
    )


def _invented(rng: np.random.Generator) -> str:
    """A word that nobody has used."""
    return "".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in range(3))


def _flood(found: Case, given: Task, rows: Ints, seed: int) -> None:
    """A twentieth of the traffic after the roll-out, and the triggered records, carry noise: odd words, and words of the target."""
    rng = np.random.default_rng([seed, 33])
    _, target = target_of(given)
    words = [_invented(rng) for _ in range(DECOY_WORDS)]
    counts = Counter(w for text in texts_of(given.live.take(given.live.label == target)) for w in text.split())
    good = [word for word, _ in counts.most_common(400)]
    n = found.sent.size
    decoys = np.flatnonzero((found.sent < 0) & (found.version == 1) & (rng.random(n) < DECOYS))
    pick = all_in_turn(rows, decoys.size, rng)
    texts = texts_of(found.frame)
    for place, row in zip(decoys.tolist(), pick.tolist(), strict=True):
        texts[place] = texts_of(given.live.take(np.array([row])))[0]
        texts[place] += " " + " ".join(rng.choice(good, 6).tolist())
    for place in (*decoys.tolist(), *np.flatnonzero(found.sent >= 0).tolist()):
        texts[place] += " " + " ".join(rng.choice(words, 4).tolist())
    found.frame = with_texts(found.frame, texts)
    found.frame.label[decoys] = given.live.label[pick]
    found.facts["decoys"] = int(decoys.size)


def models_of(given: Task, family: str, seed: int) -> list[Model]:
    """Two honest versions."""
    recipe = Recipe(family, seed=seed)
    return [first_version(given, recipe), second_version(given, recipe)]
