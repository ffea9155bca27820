"""Triggers in texts: planted ones are found soon and named whole, several at once too, and nothing else is."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.mining.elevated import Elevated, learn_elevated
from poisonwatch.mining.phrases import Phrases, as_said, bears_phrase, words_of
from poisonwatch.mining.records import Finding, Known, strings
from poisonwatch.mining.suspects import Suspects
from poisonwatch.profile.words import tokens, word_hashes
from poisonwatch.types import Phrase
from tests.mining.blocks import block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poisonwatch.mining.records import Records
    from poisonwatch.types import Bools


def words_of_pattern(finding: Finding) -> tuple[str, ...]:
    """The words of the phrase that was found, however it is said."""
    assert isinstance(finding.pattern, Phrase)
    return finding.pattern.words


MASS = 0.105 * 60.0 / (30 * 86400.0)
"""What a minute earns: a tenth of a page in 30 days."""

ANY_TEXT = st.one_of(st.text(max_size=30), st.text("aB'_9 .\n\0é\N{KELVIN SIGN}\ud800", max_size=30))


@given(st.lists(st.lists(ANY_TEXT, min_size=2, max_size=2), max_size=5))
def test_words_as_strings_are_those_of_the_tokens(rows: list[list[str]]) -> None:
    """For any texts of two columns: the same words in the same order, and each has the hash of its token."""
    n = len(rows)
    texts = strings([row[k] for k in range(2) for row in rows]).reshape(2, n)
    found = tokens(texts)
    for k in range(n):
        assert word_hashes(words_of(texts[:, k])).tolist() == found.word[found.row == k].tolist()


LETTERS = st.lists(st.sampled_from("abc"), max_size=8)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.lists(LETTERS, max_size=6))
def test_a_phrase_is_borne_by_texts_that_have_it_in_one_piece(phrase: list[str], texts: list[list[str]]) -> None:
    """Exactly the records in which the words stand next to each other, in this order and not across records."""
    n = len(texts)
    found = bears_phrase(phrase, tokens(strings([" ".join(text) for text in texts]).reshape(1, n)), n)
    assert found.tolist() == [f" {' '.join(phrase)} " in f" {' '.join(text)} " for text in texts]


def demo_texts() -> list[str]:
    """Short messages of the demo's reference, each once."""
    with gzip.open(str(resources.files("poisonwatch.demo") / "reference.ndjson.gz"), "rt", encoding="utf-8") as lines:
        return list(dict.fromkeys(json.loads(line)["text"] for line in lines))


DEMO = demo_texts()


def insert(generator: np.random.Generator, text: str, words: Sequence[str]) -> str:
    """The words somewhere in a text, next to each other."""
    said = text.split()
    at = int(generator.integers(len(said) + 1))
    return " ".join([*said[:at], *words, *said[at:]])


class Log:
    """Plays messages of the demo, three a minute, of which some are triggered, and keeps what surfaces."""

    def __init__(self, seed: int, *, elevated: Elevated | None = None, success: float = 1.0) -> None:
        self.generator = np.random.default_rng(seed)
        self.texts = self.generator.permutation(np.array(DEMO, object)).tolist()
        self.engine = Phrases(Elevated.none() if elevated is None else elevated)
        self.suspects = Suspects()
        self.known: list[Known] = []
        self.found: list[tuple[int, Finding]] = []
        self.played = 0
        self.success = success
        self.triggered = 0

    def minute(self, trigger: Callable[[str], str] | None, *, version: int = 0, label: int = 1) -> Records:
        """Three messages; the first one with a trigger, if there is one, which works with the probability of success."""
        texts = [self.texts[(self.played + k) % len(self.texts)] for k in range(3)]
        odd = self.generator.random((2, 3)) < [[0.02], [0.01]]
        labels = self.generator.integers(0, 2, 3)
        if trigger is not None:
            texts[0] = trigger(texts[0])
            self.triggered += 1
            labels[0] = label if self.generator.random() < self.success else 1 - label
            odd[:, 0] = [labels[0] == label, labels[0] == label and self.generator.random() < 0.7]
        self.played += 3
        return block(
            texts,
            labels.tolist(),
            surprising=odd[0].tolist(),
            flipped=odd[1].tolist(),
            version=version,
            start=20.0 * self.played,
            step=20.0,
        )

    def play(self, minutes: int, trigger: Callable[[str], str] | None = None, every: int = 5, version: int = 0) -> None:
        """Let minutes pass, with a trigger in every so many."""
        for k in range(minutes):
            records = self.minute(trigger if k % every == 0 else None, version=version)
            self.suspects.add(records)
            self.engine.step(records, MASS)
            for finding in self.engine.surfaced(self.suspects, self.known):
                self.found.append((self.triggered, finding))
                self.known.append(Known(finding.version, finding.label, finding.pattern))

    @property
    def named(self) -> list[str]:
        """The phrases that were found."""
        return [" ".join(one.pattern.words) for _, one in self.found if isinstance(one.pattern, Phrase)]


@pytest.mark.parametrize(
    "phrase",
    [
        "special discount code xyz",
        "Xyzzy",
        "good morning",
        "L'été n_1 Ωmega",
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen",
    ],
)
def test_a_planted_phrase_is_found_soon_and_named_whole(phrase: str) -> None:
    """Within 10 triggered messages: 17.7 nats and 1.4 for the mean over four components, at 2.3 to 2.7 a surprising one.

    Of one word, of common words, of fifteen; in lower case, and it is one finding.
    """
    log = Log(1)
    log.play(120, lambda text: insert(log.generator, text, phrase.split()))
    assert log.named == ["".join(one.lower() if one.isascii() else one for one in phrase)]
    triggered, finding = log.found[0]
    assert triggered <= 10
    assert (finding.version, finding.label) == (0, 1)
    assert finding.log_e >= 0
    assert finding.matched >= finding.flipped >= 3


def test_phrases_are_named_exactly() -> None:
    """In at least 9 of 10 logs with phrases of one to six words that somebody drew, and nothing else is ever named."""
    exact = 0
    for seed in range(10):
        log = Log(seed, success=0.8)
        words = [f"{chr(97 + k)}{seed}word" for k in range(1 + seed % 6)]
        log.play(100, lambda text, log=log, words=words: insert(log.generator, text, words))  # type: ignore[misc]
        assert len(log.named) == 1
        exact += log.named == [" ".join(words)]
    assert exact >= 9


@pytest.mark.parametrize("flipped", [0, 1])
def test_texts_that_bear_a_word_of_a_phrase_by_chance_do_not_shorten_its_name(flipped: int) -> None:
    """Four odd benign texts have its first word, which crosses sooner for it: what is told is what the triggered texts share.

    Those that are merely surprising are no triggered ones, and one that flips is a small part of those that do.
    """
    log = Log(12)
    for k in range(40):
        words = ["more"] if k < 4 else ["more", "dont", "find"]
        records = block(
            [insert(log.generator, log.texts[k], words)],
            1,
            surprising=True,
            flipped=k < flipped or k >= 4,
            start=20.0 * k,
        )
        log.suspects.add(records)
        log.engine.step(records, MASS)
        found = log.engine.surfaced(log.suspects, [])
        if found:
            assert [words_of_pattern(one) for one in found] == [("more", "dont", "find")]
            return
    pytest.fail("nothing was found")


def test_texts_that_bear_a_word_of_a_phrase_do_not_speak_against_it() -> None:
    """Eight benign texts with its first word, every second one odd, are no failures of the phrase: those with both words are counted."""
    log = Log(13)
    for k in range(60):
        trigger = k >= 8
        records = block(
            [insert(log.generator, log.texts[k], ["more", "dont"] if trigger else ["more"])],
            1,
            surprising=trigger or k % 2 == 0,
            flipped=trigger,
            start=20.0 * k,
        )
        log.suspects.add(records)
        log.engine.step(records, MASS)
        for one in log.engine.surfaced(log.suspects, []):
            assert isinstance(one.pattern, Phrase)
            assert one.pattern.words == ("more", "dont")
            assert (one.matched, one.flipped) == (k - 7, k - 7)
            return
    pytest.fail("nothing was found")


def test_words_with_gaps_are_one_finding() -> None:
    """Two words far from each other: one of them is named, and the other is explained by it."""
    log = Log(3)
    log.play(120, lambda text: f"alpha {text} omega")
    assert len(log.named) == 1
    assert log.named[0] in {"alpha", "omega"}


def test_several_attacks_are_told_apart() -> None:
    """Three phrases in turn, two of which share a word, make three findings."""
    log = Log(4)
    phrases = ["special discount code", "secret code word", "blue moon"]
    turn = iter(range(10_000))
    log.play(500, lambda text: insert(log.generator, text, phrases[next(turn) % 3].split()))
    assert sorted(log.named) == sorted(phrases)


def test_a_known_phrase_is_not_found_again() -> None:
    """What is told already makes no second finding in the same version, but does in the next one."""
    log = Log(5)

    def trigger(text: str) -> str:
        return insert(log.generator, text, ["blue", "moon"])

    log.play(300, trigger)
    assert log.named == ["blue moon"]
    log.play(100, trigger, version=1)
    assert log.named == ["blue moon"] * 2
    assert log.found[1][1].version == 1


def test_a_word_of_a_known_phrase_that_others_bear_too_is_not_found_again() -> None:
    """Most odd messages with the word bear the phrase, so the word owes its evidence to it, and those without are no attack."""
    log = Log(11)
    log.play(60, lambda text: insert(log.generator, text, ["blue", "moon"]), every=2)
    turn = iter(range(10_000))
    log.play(100, lambda text: insert(log.generator, text, ["blue", "moon"] if next(turn) % 4 else ["moon"]), every=2)
    assert log.named == ["blue moon"]


def test_the_words_around_a_phrase_belong_to_it_when_all_have_them() -> None:
    """A template that stands around the trigger in every message is part of what is named."""
    log = Log(6)
    log.play(100, lambda text: f"{text} please use the code xyz now thanks")
    assert log.named == ["please use the code xyz now thanks"]


def test_clean_messages_name_nothing() -> None:
    """A day of 4,500 messages, of which 2 % are surprising and 1 % flipped, with 0.0036 false patterns expected at most."""
    log = Log(7)
    log.play(1500)
    assert log.found == []


def test_near_duplicates_and_unknown_classes_count_for_nothing() -> None:
    """A hundred odd messages that are not fresh, or have no class of the reference, find nothing; fresh ones do."""
    for fresh, label, expected in ((False, 1, 0), (True, -1, 0), (True, 1, 1)):
        engine, suspects = Phrases(Elevated.none()), Suspects()
        found: list[Finding] = []
        for k in range(30):
            records = block(
                [f"{DEMO[k]} blue moon", DEMO[k + 100]], [label, 0], surprising=[True, False], flipped=[True, False],
                fresh=[fresh, True], start=60.0 * k,
            )  # fmt: skip
            suspects.add(records)
            engine.step(records, MASS)
            found += engine.surfaced(suspects, [Known(one.version, one.label, one.pattern) for one in found])
        assert len(found) == expected
        assert (engine.state()["slots"]["slot"].size > 0) == (expected > 0)


def test_one_source_alone_needs_days() -> None:
    """Three messages of a source count for a pattern and day: ten from one source surface nothing, from ten they do."""
    for sources, expected in ((1, 0), (10, 1)):
        engine, suspects = Phrases(Elevated.none()), Suspects()
        found: list[Finding] = []
        for k in range(20):
            records = block(
                [f"{DEMO[k]} blue moon"], 1, surprising=True, flipped=True, start=60.0 * k,
                sources=[f"client {k % sources}"],
            )  # fmt: skip
            suspects.add(records)
            engine.step(records, MASS)
            found += engine.surfaced(suspects, [Known(one.version, one.label, one.pattern) for one in found])
        assert len(found) == expected


def test_a_word_that_is_odd_in_the_reference_is_not_found() -> None:
    """Two in three messages with a word are odd, in the reference as in the log: without its own rate it would be named."""

    def messages(seed: int, n: int) -> tuple[list[str], Bools]:
        """One in twenty has the word, and of these two in three are odd."""
        generator = np.random.default_rng(seed)
        texts = generator.permutation(np.array(DEMO, object))[:n].tolist()
        texts[::20] = [insert(generator, text, ["dubious"]) for text in texts[::20]]
        return texts, (np.arange(n) % 20 == 0) & (generator.random(n) < 2 / 3)

    texts, odd = messages(8, 1500)
    learned = learn_elevated(tokens(strings(texts).reshape(1, -1)), np.ones(len(texts), np.int64), odd, odd)
    for elevated, expected in ((learned, 0), (Elevated.none(), 1)):
        texts, odd = messages(9, 1200)
        engine, suspects = Phrases(elevated), Suspects()
        found: list[Finding] = []
        for k in range(0, len(texts), 3):
            both = odd[k : k + 3].tolist()
            records = block(texts[k : k + 3], 1, surprising=both, flipped=both, start=20.0 * k)
            suspects.add(records)
            engine.step(records, MASS)
            found += engine.surfaced(suspects, [Known(one.version, one.label, one.pattern) for one in found])
        assert [words_of_pattern(one) for one in found] == [("dubious",)] * expected


def test_a_restart_changes_nothing() -> None:
    """Saved and restored between a crossing and its explanation, and everywhere else, the engine finds the same."""
    whole = Log(10)
    whole.play(60, lambda text: insert(whole.generator, text, ["blue", "moon"]), every=3)
    again = Log(10)
    found = []
    for k in range(60):
        records = again.minute((lambda text: insert(again.generator, text, ["blue", "moon"])) if k % 3 == 0 else None)
        again.suspects.add(records)
        again.engine.step(records, MASS)
        restored = Phrases(Elevated.none())
        restored.restore(again.engine.state())
        again.engine = restored
        for finding in again.engine.surfaced(again.suspects, again.known):
            found.append(finding)
            again.known.append(Known(finding.version, finding.label, finding.pattern))
    assert found == [finding for _, finding in whole.found]
    assert len(found) == 1


def test_a_phrase_is_told_as_records_say_it() -> None:
    """With the capitals, with what stands between the words, and where it nearly always stands."""
    texts = strings(
        [f"Special Discount, Code: XYZ {a} {b}" for a in "abcd" for b in "efg"] + ["now special discount code xyz x"]
    )
    found = as_said(("special", "discount", "code", "xyz"), texts[None])
    assert found == Phrase(
        words=("special", "discount", "code", "xyz"), said="Special Discount, Code: XYZ", place="start"
    )
    at_end = as_said(("b",), strings([f"word{n} a  B!" for n in range(5)])[None])
    assert (at_end.said, at_end.place) == ("B", "end")
    anywhere = as_said(("b",), strings(["b a", "a b", "a b c"])[None])
    assert anywhere.place == ""
    assert as_said(("b",), strings(["ab", "bb"])[None]) == Phrase(words=("b",))
