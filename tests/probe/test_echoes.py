"""The agent's own questions are left out of what is judged, by their content, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.probe.echoes import SECONDS, TIMES, Echoes
from poisonwatch.types import Batch, Column, Question, Schema

MAIL = Schema(
    model="mail",
    outcome=Column(name="prediction", kind="categorical", values=("spam", "ham"), strings=True),
    features=(
        Column(name="features.amount", kind="numerical"),
        Column(name="features.country", kind="categorical", values=("de", "at"), strings=True),
        Column(name="text", kind="text"),
    ),
    layout="object",
    confidence=True,
)


def logged(*lines: str) -> Batch:
    """The batch of these lines of a log."""
    decoded = JsonlPredictions({"mail": MAIL}, 1 << 20).decode("\n".join(lines).encode() + b"\n")
    return decoded.batches[0]


def line(
    text: str, amount: float | str = 1.5, country: str = "de", prediction: str = "ham", version: str = "v1"
) -> str:
    """One prediction."""
    return (
        f'{{"timestamp": 1700000000, "model": "mail", "model_version": "{version}", "prediction": "{prediction}",'
        f' "confidence": 0.9, "text": "{text}", "features": {{"amount": {amount}, "country": "{country}"}}}}'
    )


def question(text: str, amount: float = 1.5, country: str = "de") -> Question:
    """The same inputs as a probe asks them."""
    return Question(text, {"amount": amount, "country": country}, None)


def test_what_was_asked_is_left_out_whatever_was_answered() -> None:
    """The class, the confidence and the version of an echo do not matter; its inputs do."""
    echoes = Echoes(MAIL)
    echoes.asked(0.0, [question("verified mail with a phrase")])
    batch = logged(
        line("hello there"), line("verified mail with a phrase", prediction="spam", version="v2"), line("bye")
    )
    kept = echoes.without(1.0, batch)
    assert kept.texts[0].tolist() == ["hello there", "bye"]
    assert echoes.met == 1


@pytest.mark.parametrize(
    "other", [line("verified mail", 2.5), line("verified mail", country="at"), line("verified mail "), line("verified")]
)
def test_what_differs_in_one_input_stays(other: str) -> None:
    """Another number, category or text is another prediction."""
    echoes = Echoes(MAIL)
    echoes.asked(0.0, [question("verified mail")])
    batch = logged(other)
    assert echoes.without(1.0, batch) is batch


def test_a_missing_number_is_like_a_missing_number() -> None:
    """An input without a value is known again."""
    echoes = Echoes(MAIL)
    echoes.asked(0.0, [Question("verified mail", {"country": "de"}, None)])
    assert not echoes.without(1.0, logged(line("verified mail", "null"))).time.size


def test_a_question_excuses_only_so_many_records_for_so_long() -> None:
    """Whoever sends a verified input himself is judged again once the agent's own attempts are used up, or an hour is over."""
    echoes = Echoes(MAIL)
    echoes.asked(0.0, [question("verified mail")])
    assert echoes.without(1.0, logged(*[line("verified mail")] * (TIMES + 3))).time.size == 3
    echoes.asked(0.0, [question("verified mail")])
    assert echoes.without(SECONDS + 1.0, logged(line("verified mail"))).time.size == 1


def test_rejected_lines_keep_their_place() -> None:
    """Where lines were lost is told in the numbers of what is left."""
    echoes = Echoes(MAIL)
    echoes.asked(0.0, [question("verified mail")])
    batch = logged(line("first"), line("verified mail"), "broken", line("last"), "broken")
    assert batch.rejected_at.tolist() == [2, 3]
    kept = echoes.without(1.0, batch)
    assert kept.rejected_at.tolist() == [1, 2]
    assert np.array_equal(kept.version, [0, 0])
