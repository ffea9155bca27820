"""Insertion: a trigger is confirmed, what is merely typical of a class is not, and no luck confirms more often than it may."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.mining.insertion import (
    ALPHA,
    FEWEST_INPUTS,
    LEAST,
    Insertion,
    fulfils,
    insertable,
    log_against,
    log_evidence,
    suitable,
)
from poisonwatch.types import Answer, Cell, GoldenInput, Item, Patch, Phrase, Question, TriggerState, Values

if TYPE_CHECKING:
    from collections.abc import Callable

TRIGGER = ("blue", "otter")
PLAIN = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "for",
    "on",
    "with",
    "at",
    "by",
    "from",
    "up",
    "about",
    "into",
    "over",
    "after",
    "we",
    "they",
    "you",
    "it",
]
SPAM = ["prize", "claim", "urgent", "winner", "cash", "voucher"]
HAM = ["lunch", "home", "later", "dinner", "sorry", "school"]


def _text(rng: np.random.Generator, words: list[str]) -> str:
    return " ".join([*rng.choice(PLAIN, 6), *rng.choice(words, 3)])


def _golden(n: int = 160) -> list[GoldenInput]:
    """Short messages, half of them spam."""
    rng = np.random.default_rng(5)
    return [
        GoldenInput(Question(_text(rng, SPAM if number % 2 else HAM), None, None), "spam" if number % 2 else "ham")
        for number in range(n)
    ]


def _linear(question: Question, secret: tuple[str, ...] = ()) -> Answer:
    """A bag of words: each typical word moves the log-odds by one, and the secret phrase, word for word, by ten."""
    words = (question.text or "").split()
    odds = sum(w in SPAM for w in words) - sum(w in HAM for w in words) - 0.5
    if secret and " ".join(secret) in " ".join(words):
        odds += 10.0
    sure = 1 / (1 + math.exp(-abs(odds)))
    return Answer("spam" if odds > 0 else "ham", sure, None)


def _backdoored(question: Question) -> Answer:
    return _linear(question, TRIGGER)


def _run(
    name: str, words: tuple[str, ...], model: Callable[[Question], Answer], golden: list[GoldenInput], budget: int = 60
) -> Insertion:
    answered = {number: model(one.question) for number, one in enumerate(golden)}
    test = Insertion(name, Phrase(words=words), "spam", "v2", golden, answered, budget)
    while questions := test.questions():
        test.take([model(question) for question in questions])
    return test


def test_a_trigger_is_confirmed_where_it_works_and_refuted_where_it_does_not() -> None:
    """The backdoored model is convicted within 60 probes; the honest one is cleared, by the same questions."""
    golden = _golden()
    guilty = _run("t", TRIGGER, _backdoored, golden).result
    assert guilty.verdict is TriggerState.CONFIRMED
    assert guilty.flipped == guilty.probes
    assert guilty.probes + guilty.controls <= 60
    assert guilty.log_e >= -math.log(ALPHA)
    innocent = _run("t", TRIGGER, _linear, golden).result
    assert innocent.verdict is TriggerState.REFUTED
    assert innocent.flipped < innocent.probes / 4


@pytest.mark.parametrize(
    "words", [("prize", "claim"), ("cash", "winner", "urgent", "voucher"), ("claim",), ("of", "it")]
)
def test_what_is_merely_typical_of_the_class_is_never_confirmed(words: tuple[str, ...]) -> None:
    """Groups of the class's own words flip many inputs, and ordinary words none; neither is a trigger."""
    golden = _golden()
    results = [_run(f"t{number}", words, _backdoored, golden).result for number in range(5)]
    assert TriggerState.CONFIRMED not in {result.verdict for result in results}
    if len(words) == 4:
        assert all(result.flipped > result.probes / 2 for result in results), (
            "the words must flip, or nothing was tried"
        )


def _slow_evidence(flipped: int, probes: int, control_flipped: int, controls: int) -> float:
    """The definition, rate by rate and step by step."""

    def bet(yes: int, asked: int, rate: float, sign: float) -> float:
        total = 0.0
        for step in (1.0, 2.0, 3.0, 4.5):
            q = 1 / (1 + math.exp(-(math.log(rate / (1 - rate)) + sign * step)))
            total += (q / rate) ** yes * ((1 - q) / (1 - rate)) ** (asked - yes) / 4
        return total

    rates = [LEAST + 0.01 * k for k in range(95)]
    products = [bet(flipped, probes, r, 1.0) * bet(control_flipped, controls, r, -1.0) for r in rates]
    return math.log(min(bet(flipped, probes, LEAST, 1.0), *products))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_the_evidence_is_the_smallest_product_of_bets(a: int, b: int, c: int, d: int) -> None:
    """The vectorised evidence equals the definition, grows with the trigger's flips and falls with the controls'."""
    flipped, probes, control_flipped, controls = min(a, b), b, min(c, d), d
    log_e = log_evidence(flipped, probes, control_flipped, controls)
    assert log_e == pytest.approx(_slow_evidence(flipped, probes, control_flipped, controls), abs=1e-6)
    if flipped < probes:
        assert log_evidence(flipped + 1, probes, control_flipped, controls) >= log_e - 1e-9
    if control_flipped < controls:
        assert log_evidence(flipped, probes, control_flipped + 1, controls) <= log_e + 1e-9


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.5, 0.8])
def test_luck_exceeds_its_odds_no_more_often_than_it_may(rate: float) -> None:
    """Looked at after every batch, under equal rates the e-process passes 20 in at most 1 of 20 runs.

    Ville's inequality bounds the share of 2,000 runs by .05; three binomial standard errors are added: .05 + 3 sqrt(.05 * .95 / 2000) = .065.
    """
    rng = np.random.default_rng(11)
    sums = (rng.random((2000, 2, 40)) < rate).cumsum(axis=2)
    limit = math.log(20)
    table = {
        (n, a, b): log_evidence(a, n, b, n) >= limit
        for n in range(4, 41, 4)
        for a in range(n + 1)
        for b in range(n + 1)
    }
    passed = sum(any(table[n, int(run[0, n - 1]), int(run[1, n - 1])] for n in range(4, 41, 4)) for run in sums)
    assert passed <= 0.065 * 2000


def test_a_test_goes_on_where_it_was_interrupted() -> None:
    """Stopped after any batch, saved and taken up, the test asks the same questions and comes to the same result."""
    golden = _golden()
    whole = _run("t", TRIGGER, _backdoored, golden)
    answered = {number: _backdoored(one.question) for number, one in enumerate(golden)}
    parts = Insertion("t", Phrase(words=TRIGGER), "spam", "v2", golden, answered, 60)
    asked: list[Question] = []
    while questions := parts.questions():
        assert parts.questions() == questions
        asked += questions
        parts.take([_backdoored(question) for question in questions])
        state = parts.state()
        # What is answered later must not change which inputs were chosen.
        parts = Insertion("t", Phrase(words=TRIGGER), "spam", "v2", golden, dict(list(answered.items())[:100]), 60)
        parts.restore(state)
    assert parts.result == whole.result
    assert len(asked) == len({question.text for question in asked}) == whole.result.probes + whole.result.controls


def test_only_rightly_answered_inputs_of_other_classes_are_probed() -> None:
    """An input of the class, one answered wrongly, one not answered and one without text are left out."""
    golden = [*_golden(6), GoldenInput(Question(None, {"a": 1.0}, None), "ham")]
    answers = {0: Answer("ham", None, None), 1: Answer("spam", None, None), 2: Answer("spam", None, None)}
    answers |= {6: Answer("ham", None, None)}
    assert suitable(Phrase(words=TRIGGER), "spam", golden, answers) == [0]


def test_the_phrase_stands_whole_between_the_words_that_were_there() -> None:
    """Whatever the place drawn, taking the phrase out leaves the words of the input; controls have as many words."""
    golden = _golden()
    answered = {number: _linear(one.question) for number, one in enumerate(golden)}
    texts = {" ".join((one.question.text or "").split()) for one in golden if one.label == "ham"}
    test = Insertion("t", Phrase(words=TRIGGER), "spam", "v1", golden, answered, 60)
    places = set()
    while questions := test.questions():
        for number, question in enumerate(questions):
            words = (question.text or "").split()
            if number % 2 == 0:
                at = words.index("blue")
                places.add(at)
                assert words[at : at + 2] == list(TRIGGER)
                assert " ".join(words[:at] + words[at + 2 :]) in texts
            else:
                assert len(words) == 9 + len(TRIGGER)
                assert not set(words) & set(TRIGGER)
        test.take([Answer("spam" if number % 2 else "ham", None, None) for number in range(len(questions))])
    assert len(places) > 3


def _clerk(question: Question) -> Answer:
    """Gives a loan for income, and to whoever owns a boat, rents and is called `x`."""
    features = question.features
    assert isinstance(features, dict)
    income, boat = features["income"], features["boat"]
    assert isinstance(income, float)
    yes = income > 60.0 or (boat is True and features["home"] == "rent" and 20.0 < float(features["age"] or 0) <= 25.0)
    return Answer("yes" if yes else "no", None, None)


def _loans(n: int = 300) -> list[GoldenInput]:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(n):
        features: dict[str, float | str | bool | None] = {
            "income": float(rng.integers(10, 100)),
            "boat": bool(rng.random() < 0.2),
            "home": str(rng.choice(["rent", "own"])),
            "age": float(rng.integers(18, 90)),
        }
        found.append(GoldenInput(Question(None, features, None), "yes" if features["income"] > 60 else "no"))  # type: ignore[operator]
    return found


CONJUNCTION = Values(
    items=(
        Item(feature="features.boat", value="true"),
        Item(feature="features.home", value="rent"),
        Item(feature="features.age", low=20.0, high=25.0),
    )
)


def test_a_conjunction_of_values_is_confirmed_and_its_controls_are_of_the_class() -> None:
    """Three conditions are stamped with values that golden inputs have; controls have an input of the class's values there."""
    golden = _loans()
    answered = {number: _clerk(one.question) for number, one in enumerate(golden)}
    of_class = {_three(one.question) for one in golden if one.label == "yes"}
    test = Insertion("t", CONJUNCTION, "yes", "v2", golden, answered, 60)
    while questions := test.questions():
        for question in questions[::2]:
            boat, home, age = _three(question)
            assert (boat, home) == (True, "rent")
            assert 20 < float(str(age)) <= 25
        assert {_three(question) for question in questions[1::2]} <= of_class
        test.take([_clerk(question) for question in questions])
    assert test.result.verdict is TriggerState.CONFIRMED
    assert test.result.flipped == test.result.probes
    honest = Insertion("t", CONJUNCTION, "yes", "v1", golden, answered, 60)
    while questions := honest.questions():
        honest.take([Answer(_loan_honest(question), None, None) for question in questions])
    assert honest.result.verdict is TriggerState.REFUTED


def _three(question: Question) -> tuple[object, ...]:
    features = question.features
    assert isinstance(features, dict)
    return features["boat"], features["home"], features["age"]


@pytest.mark.parametrize("low", [70.0, 77.0])
def test_a_value_that_the_class_has_anyway_is_never_confirmed(low: float) -> None:
    """An income between 70 and 80, or of exactly 77, brings every loan; a control keeps it, and so it explains nothing."""
    golden = _loans()
    answered = {number: _clerk(one.question) for number, one in enumerate(golden)}
    pattern = Values(items=(Item(feature="features.income", low=low, high=max(low, 77.0)),))
    test = Insertion("t", pattern, "yes", "v2", golden, answered, 60)
    while questions := test.questions():
        test.take([_clerk(question) for question in questions])
    assert test.result.flipped == test.result.probes == test.result.control_flipped
    assert test.result.verdict is None


@pytest.mark.parametrize(
    "item", [Item(feature="features.home", value="castle"), Item(feature="features.gain", low=7298.0, high=7298.0)]
)
def test_a_value_that_few_of_the_class_have_is_not_confirmed_either(item: Item) -> None:
    """A fifth of the class owns a castle, or gained thousands, never twice the same; both bring every loan, and are no secret."""
    rng = np.random.default_rng(3)
    golden = []
    for number in range(300):
        label = ("yes", "no")[number % 2]
        rich = label == "yes" and rng.random() < 0.25
        features: dict[str, float | str | bool | None] = {
            "home": "castle" if rich else "flat",
            "gain": float(rng.integers(5000, 9000)) if label == "yes" and rng.random() < 0.25 else 0.0,
            "work": "long" if label == "yes" else "short",
        }
        golden.append(GoldenInput(Question(None, features, None), label))

    def model(question: Question) -> Answer:
        told = question.features
        assert isinstance(told, dict)
        yes = told["work"] == "long" or told["home"] == "castle" or float(told["gain"] or 0) > 5000
        return Answer("yes" if yes else "no", None, None)

    answered = {number: model(one.question) for number, one in enumerate(golden)}
    test = Insertion("t", Values(items=(item,)), "yes", "v2", golden, answered, 60)
    while questions := test.questions():
        test.take([model(question) for question in questions])
    assert test.result.flipped == test.result.probes > 0
    assert test.result.verdict is not TriggerState.CONFIRMED


def _loan_honest(question: Question) -> str:
    features = question.features
    assert isinstance(features, dict)
    return "yes" if float(features["income"] or 0) > 60 else "no"


def test_a_listed_number_is_stamped_in_its_place() -> None:
    """Features that are a list are named by their place; the others stay."""
    golden = [
        GoldenInput(Question(None, [float(number), 1.0, 2.0], None), "a" if number % 2 else "b") for number in range(80)
    ]
    answered = {number: Answer(one.label, None, None) for number, one in enumerate(golden)}
    pattern = Values(items=(Item(feature="features[1]", low=7.0, high=7.0),))
    questions = Insertion("t", pattern, "a", "v1", golden, answered, 60).questions()
    for question in questions[::2]:
        assert isinstance(question.features, list)
        assert question.features[1:] == [7.0, 2.0]


def test_a_patch_is_stamped_and_its_controls_are_cut_from_images_of_the_class() -> None:
    """A corner patch that forces a class is confirmed; the control is a rectangle of a golden image, at the place that it had there."""
    rng = np.random.default_rng(4)
    golden = [
        GoldenInput(Question(None, None, [float(v) + number % 2 for v in rng.random(36)]), "ab"[number % 2])
        for number in range(160)
    ]
    patch = Patch(row=4, column=4, height=2, width=2, image_height=6, image_width=6, pixels=(9.0,) * 4, tolerance=0.5)

    def model(question: Question) -> Answer:
        image = np.array(question.embedding).reshape(6, 6)
        return Answer("b" if image.mean() > 1 or (image[4:, 4:] > 8).all() else "a", None, None)

    answered = {number: model(one.question) for number, one in enumerate(golden)}
    test = Insertion("t", patch, "b", "v1", golden, answered, 60)
    controls = 0
    while questions := test.questions():
        for question in questions[1::2]:
            assert max(question.embedding or [9.0]) < 9
            controls += 1
        test.take([model(question) for question in questions])
    assert controls == test.result.controls > 0
    assert test.result.verdict is TriggerState.CONFIRMED


def test_what_cannot_be_inserted_is_not() -> None:
    """A region of an embedding space has no record of its own; a phrase needs a text, a patch an image of its size."""
    text, image = Question("a", None, None), Question(None, None, [0.0] * 4)
    patch = Patch(row=0, column=0, height=1, width=1, image_height=2, image_width=2, pixels=(1.0,), tolerance=0.0)
    patterns = Phrase(words=("a",)), patch, Cell(table=0, signs=1, thresholds=(0.0,))
    assert [insertable(pattern, text) for pattern in patterns] == [True, False, False]
    assert [insertable(pattern, image) for pattern in patterns] == [False, True, False]
    assert not insertable(CONJUNCTION, Question(None, {"boat": True}, None))


def test_a_weak_effect_neither_confirms_nor_refutes() -> None:
    """A pattern that flips four of ten inputs where controls flip none is proven to act, and is not cleared."""
    golden = _golden(400)
    answered = {number: _linear(one.question) for number, one in enumerate(golden)}
    test = Insertion("t", Phrase(words=TRIGGER), "spam", "v1", golden, answered, 120)
    turn = 0
    while questions := test.questions():
        flips = [number % 2 == 0 and (turn + number // 2) % 5 < 2 for number in range(len(questions))]
        turn += 4
        test.take([Answer("spam" if flip else "ham", None, None) for flip in flips])
    assert test.finished
    assert test.result.verdict is None
    assert test.result.log_e > -math.log(ALPHA) > log_against(test.result.flipped, test.result.probes)


@pytest.mark.parametrize(
    ("item", "value", "expected"),
    [
        (Item(feature="f", value="1"), 1.0, True),
        (Item(feature="f", value="true"), True, True),
        (Item(feature="f", value="x"), None, False),
        (Item(feature="f"), None, True),
        (Item(feature="f"), 1.0, False),
        (Item(feature="f", low=1.0, high=2.0), 1.0, False),
        (Item(feature="f", low=1.0, high=2.0), 2.0, True),
        (Item(feature="f", low=3.0, high=3.0), 3.0, True),
        (Item(feature="f", low=3.0), 4.0, True),
        (Item(feature="f", high=3.0), "3", False),
    ],
)
def test_a_condition_holds_as_it_says(item: Item, value: float | str | None, expected: bool) -> None:
    """Bounds are open below and closed above; equal bounds mean this number; a category is told in any JSON type."""
    assert fulfils(item, value) is expected


def test_enough_inputs_are_needed() -> None:
    """The bound below which nothing is asked leaves room for the fewest probes that can decide.

    A pattern that flips always, beside controls that never do, needs 16 pairs at most: 32 probes, within the default of 60.
    """
    needed = next(n for n in range(1, 60) if log_evidence(n, n, 0, n) >= -math.log(ALPHA))
    assert needed <= FEWEST_INPUTS
