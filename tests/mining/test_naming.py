"""What on-call reads of a pattern: its own words, without the insides of the miner."""

from __future__ import annotations

import math

import pytest

from poisonwatch.mining.naming import LONGEST, MOST_VERSIONS, in_a_sentence, in_words
from poisonwatch.types import Cell, InsertionTest, Item, Patch, Pattern, Phrase, TriggerState, Values
from tests.triggers import effect, insertion, trigger


def values(*items: Item) -> Values:
    """Conditions that hold together."""
    return Values(items=items)


def patch(row: int, column: int, height: int, width: int) -> Patch:
    """A rectangle in an image of 28 x 28 pixels."""
    return Patch(
        row=row,
        column=column,
        height=height,
        width=width,
        image_height=28,
        image_width=28,
        pixels=(1.0,) * (height * width),
        tolerance=0.1,
    )


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (Phrase(words=("special", "discount", "code", "xyz")), "'special discount code xyz'"),
        (Phrase(words=("don't",)), "'don't'"),
        (
            values(
                Item(feature="features.age", low=37.0, high=37.0),
                Item(feature="features.workclass", value="Private"),
                Item(feature="features.hours-per-week", low=40.0, high=45.0),
            ),
            "age = 37 and workclass = 'Private' and hours-per-week in (40, 45]",
        ),
        (values(Item(feature="segment", value="eu")), "segment = 'eu'"),
        (values(Item(feature="features.features.x", value="")), "features.x = ''"),
        (values(Item(feature="features.x")), "x is missing"),
        (values(Item(feature="features.x", low=0.0, high=0.0)), "x = 0"),
        (values(Item(feature="features.x", low=1234567.25, high=1234567.25)), "x = 1234567.25"),
        (values(Item(feature="features.x", low=-math.inf, high=0.5)), "x <= 0.5"),
        (values(Item(feature="features.x", high=0.5)), "x <= 0.5"),
        (values(Item(feature="features.x", low=0.5)), "x > 0.5"),
        (values(Item(feature="features.x", low=-2.5, high=math.inf)), "x > -2.5"),
        (patch(24, 24, 4, 4), "pixels rows 24-27, columns 24-27 of 28x28"),
        (patch(0, 27, 1, 1), "pixels row 0, column 27 of 28x28"),
        (Cell(table=3, signs=0x1A2B, thresholds=(0.0,) * 13), "embedding in cell 1a2b of projection 3"),
    ],
)
def test_patterns_in_words(pattern: Pattern, words: str) -> None:
    """Every kind of pattern is told in its own terms; both open ends of an interval are told the same way."""
    assert in_words(pattern) == words


def test_long_values_are_cut() -> None:
    """A hostile value or phrase does not fill the page: it is cut, and shows that it is."""
    long = "x" * 10_000
    for pattern in (Phrase(words=(long,)), Phrase(words=("ab",) * 5000), values(Item(feature="f", value=long))):
        told = in_words(pattern)
        assert len(told) < LONGEST + 20
        assert told.endswith("...'")
    assert in_words(Phrase(words=("x" * LONGEST,))) == f"'{'x' * LONGEST}'"


ACTS = (
    "sms-spam v2 answers 'ham' where the text has 'special discount code xyz': 14 of 15 such predictions (0.81 % of its "
    "traffic) from 2026-01-05 09:55 to 10:13 UTC would have been something else; v1 does not follow it (0 of 6). "
)


@pytest.mark.parametrize(
    ("tests", "awaited", "said"),
    [
        ((), None, ""),
        ((), False, "Not confirmed by insertion: no inference endpoint is configured."),
        ((), True, "Its confirmation by insertion is running."),
        ((insertion("v2", None),), True, "Its confirmation by insertion is running."),
        ((insertion("v2", None, flipped=0, probes=0),), False, "Not confirmed by insertion: it could not be tried."),
        (
            (insertion("v2", None, flipped=3),),
            False,
            (
                "Not confirmed by insertion, which did not decide it: 3 of 20 verified inputs got the class with it, "
                "0 of 20 with something else in its place."
            ),
        ),
        (
            (insertion("v2", TriggerState.CONFIRMED),),
            True,
            "Confirmed by insertion: 18 of 20 verified inputs got the class with it, 0 of 20 with something else in its place.",
        ),
        (
            (insertion("v2", TriggerState.REFUTED, flipped=1, control_flipped=1),),
            False,
            "Refuted by insertion: 1 of 20 verified inputs got the class with it, 1 of 20 with something else in its place.",
        ),
    ],
)
def test_the_sentence_says_what_the_trigger_does_and_how_sure_that_is(
    tests: tuple[InsertionTest, ...], awaited: bool | None, said: str
) -> None:
    """On-call reads version, class, pattern, counts, since when, which version does not follow, and what insertion said of this very version."""
    assert in_a_sentence(trigger(tests=tests), "v2", awaited=awaited) == (ACTS + said).rstrip()


@pytest.mark.parametrize(("verdict", "also"), [(TriggerState.REFUTED, ", by insertion 0 of 16"), (None, "")])
def test_what_insertion_said_of_other_versions(verdict: TriggerState | None, also: str) -> None:
    """Beside its traffic on-call reads what insertion decided in another version, which says nothing of this one's proof."""
    test = insertion("v1", verdict, flipped=0, probes=16)
    told = in_a_sentence(trigger(tests=(test,)), "v2", awaited=True)
    assert told == ACTS.replace("0 of 6", f"0 of 6{also}") + "Its confirmation by insertion is running."


def test_values_are_told_without_a_text() -> None:
    """Conditions stand by themselves; of a version in which it did not surface no share is told."""
    pattern = values(Item(feature="features.age", low=37.0, high=37.0))
    told = in_a_sentence(trigger(pattern=pattern, text=in_words(pattern)), "v1", awaited=False)
    assert told.startswith(
        "sms-spam v1 answers 'ham' where age = 37: 0 of 2 such predictions from 2026-01-05 09:55 to 10:13 UTC would"
    )
    assert "; v2 follows it, too (14 of 16). " in told


def test_versions_that_say_nothing_are_left_out_and_many_are_counted() -> None:
    """Of a version with too few predictions nothing is said; of many that do not follow the first are told, and how many more."""
    others = [effect(f"v{n}", 6, 0, works=False) for n in range(3, 3 + MOST_VERSIONS + 2)]
    told = in_a_sentence(trigger(versions=(effect("v1", 1, 1, works=None), *others)), "v2", awaited=False)
    assert "v1" not in told
    assert told.count("does not follow it") == MOST_VERSIONS
    assert "; 2 more as well. " in told
    assert " such predictions" not in told


@pytest.mark.parametrize(("share", "words"), [(0.0, "0 %"), (0.00812, "0.81 %"), (0.0999, "10 %"), (0.123, "12 %")])
def test_shares_have_two_digits_that_count(share: float, words: str) -> None:
    """A rare trigger is not told as 0 %."""
    assert f"({words} of its traffic)" in in_a_sentence(trigger(share=share), "v2", awaited=False)
