"""Golden replays: a version that errs on verified inputs is told, a changed model too, and a replay without news is no evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from poisonwatch import checkpoint
from poisonwatch.judge.budget import SHARES
from poisonwatch.monitor.golden import Golden, GoldenAnswers
from poisonwatch.profile.indicators import GOLDEN, GOLDEN_CHANGE
from poisonwatch.types import Answer, Column, Evidence, Schema
from tests.monitor.small import DETECTION, MONTH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA = Schema(
    model="mail",
    outcome=Column(name="prediction", kind="categorical", values=("ham", "spam"), strings=True),
    features=(Column(name="text", kind="text"),),
    layout="none",
    confidence=True,
)
CONFUSION = np.array([[950, 40], [50, 960]])
"""Of 1,000 labels of each class in the reference five and four in a hundred are wrong."""

SETTINGS = DETECTION._replace(period=MONTH, shares=SHARES, label_floor=0.4, drift_label_floor=0.8)
START, HOUR = 1_760_000_000.0, 3600.0
LABELS = ("ham", "spam") * 100
AT_ONCE = 32


def _golden(confusion: Any = CONFUSION) -> Golden:
    return Golden("mail", SCHEMA, confusion, SETTINGS)


def _answers(wrong: set[int], sure: float = 0.9) -> list[Answer]:
    """The right class but for some, each with a confidence of its own."""
    other = {"ham": "spam", "spam": "ham"}
    return [
        Answer(other[label] if number in wrong else label, sure - number * 1e-4, None)
        for number, label in enumerate(LABELS)
    ]


def _replay(
    golden: Golden, version: str, answers: list[Answer], time: float, stable: str | None = None, at_once: int = AT_ONCE
) -> None:
    for first in range(0, len(LABELS), at_once):
        some = range(first, min(first + at_once, len(LABELS)))
        labels = tuple(LABELS[n] for n in some)
        told = GoldenAnswers(time + first, version, tuple(some), labels, tuple(answers[n] for n in some))
        golden.take(told, stable, 0.5)


def _of(golden: Golden, version: str, group: str, stable: str | None = None) -> Evidence:
    (found,) = [e for e in golden.evidence(version, stable) if e.group == group]
    return found


def _some(count: int, of: str | None = None, seed: int = 1) -> set[int]:
    places = [n for n, label in enumerate(LABELS) if of in {None, label}]
    return {int(n) for n in np.random.default_rng(seed).choice(places, count, replace=False)}


def test_a_first_version_is_held_against_the_reference() -> None:
    """As many errors as the reference has are no evidence; half of one class wrong is, and the class is named."""
    golden = _golden()
    _replay(golden, "good", _answers(_some(10)), START)
    _replay(golden, "bad", _answers(_some(50, "spam")), START)
    assert _of(golden, "good", GOLDEN).log_e < 0
    found = _of(golden, "bad", GOLDEN)
    assert found.log_e >= 0
    assert "golden input wrong where label = spam" in {subject.indicator for subject in found.subjects}
    assert not any("ham" in subject.indicator for subject in found.subjects)


def test_a_later_version_is_held_against_the_stable_one_on_the_same_inputs() -> None:
    """A golden set that is hard for both versions is nobody's fault; errors that only one makes are its own."""
    hard = _some(60)
    golden = _golden()
    _replay(golden, "v1", _answers(hard), START, "v1")
    _replay(golden, "v2", _answers(hard - set(sorted(hard)[:8]) | _some(8, seed=2)), START, "v1")
    _replay(golden, "v3", _answers(hard | _some(60, seed=3)), START, "v1")
    assert _of(golden, "v2", GOLDEN, "v1").log_e < 0
    found = _of(golden, "v3", GOLDEN, "v1")
    assert found.log_e >= 0
    assert found.compared_with == "v1"
    assert found.n == len(_some(60, seed=3) - hard)


def test_without_labels_in_the_reference_nothing_is_held_against_it() -> None:
    """Half of the answers wrong is no evidence where nobody knows how many should be."""
    golden = _golden(np.zeros((2, 2), np.int64))
    _replay(golden, "v1", _answers(_some(100)), START)
    assert _of(golden, "v1", GOLDEN).log_e < -100


@pytest.mark.parametrize("wrong", [20, 30])
def test_a_replay_without_news_is_no_new_evidence(wrong: int) -> None:
    """A day of replays that say the same as the first one leaves the evidence as it was."""
    golden = _golden()
    answers = _answers(_some(wrong))
    _replay(golden, "v1", answers, START)
    once = _of(golden, "v1", GOLDEN)
    for hour in range(1, 25):
        _replay(golden, "v1", answers, START + hour * HOUR)
    again = _of(golden, "v1", GOLDEN)
    assert (again.log_e, again.n) == (once.log_e, once.n)
    assert _of(golden, "v1", GOLDEN_CHANGE).log_e < 0


def test_a_changed_answer_counts_again() -> None:
    """What was right and is wrong now is one more error among one more answer, no more."""
    golden, other = _golden(), _golden()
    before, after = _answers(set()), _answers(_some(40))
    for one in (golden, other):
        _replay(one, "v1", before, START)
    _replay(golden, "v1", after, START + HOUR)
    assert _of(golden, "v1", GOLDEN).log_e > _of(other, "v1", GOLDEN).log_e
    view = golden.view("v1")
    assert sum(view.answered.values()) - sum(view.right.values()) == 40


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _, answer: answer, False),
        # Six in a hundred answers: what a silent retraining changes.
        (lambda number, answer: answer._replace(label="?", confidence=0.7) if number % 16 == 0 else answer, True),
        # Not one label, but all confidences: another model all the same.
        (lambda _, answer: answer._replace(confidence=answer.confidence - 0.02), True),
        # Arithmetic that is not exact.
        (lambda _, answer: answer._replace(confidence=answer.confidence - 0.001), False),
    ],
)
def test_a_model_that_changes_behind_its_name_is_told(change: Callable[[int, Answer], Answer], told: bool) -> None:
    """After a day of equal replays one is different: evidence beyond the budget when the model changed, and only then."""
    golden = _golden()
    answers = _answers(_some(10))
    for hour in range(24):
        _replay(golden, "v1", answers, START + hour * HOUR)
    after = [change(number, answer) for number, answer in enumerate(answers)]
    _replay(golden, "v1", after, START + 24 * HOUR)
    assert (_of(golden, "v1", GOLDEN_CHANGE).log_e >= 0) is told


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 1.0])
def test_a_server_that_is_never_exact_is_no_changed_model(rate: float) -> None:
    """Answers that flap at one rate all the time, with or without their confidences, page nobody in two weeks of replays."""
    golden, rng = _golden(), np.random.default_rng(4)
    answers = _answers(set(), 0.99)
    for hour in range(14 * 24):
        moved = rng.random(len(LABELS)) < rate
        flapped = [
            answer._replace(label="?" if rate < 1 else answer.label, confidence=float(rng.uniform(0.6, 0.9)))
            if moved[number]
            else answer
            for number, answer in enumerate(answers)
        ]
        _replay(golden, "v1", flapped, START + hour * HOUR)
        assert _of(golden, "v1", GOLDEN_CHANGE).log_e < 0


def test_an_answer_on_the_border_is_excused() -> None:
    """A label that changes while its confidence stays near a half is no change of the model; one that was sure is."""
    swapped = {"border": 0.51, "sure": 0.9}
    found = {}
    for name, confidence in swapped.items():
        golden = _golden()
        one = [Answer("ham", confidence, None)] * len(LABELS)
        for hour in range(24):
            _replay(golden, "v1", one, START + hour * HOUR)
        _replay(golden, "v1", [Answer("spam", confidence, None)] * len(LABELS), START + 24 * HOUR)
        found[name] = _of(golden, "v1", GOLDEN_CHANGE).log_e
    assert found["border"] < 0 <= found["sure"]


def test_state_survives_a_restart(tmp_path: Path) -> None:
    """Interrupted after any replay and taken up from a checkpoint, the evidence is the same to the last bit."""
    whole, parts = _golden(), _golden()
    for step in range(6):
        answers = _answers(_some(10 + 5 * (step // 3)), 0.9 - 0.01 * (step // 4))
        for version in ("v1", "v2"):
            _replay(whole, version, answers, START + step * HOUR, "v1")
            _replay(parts, version, answers, START + step * HOUR, "v1")
        checkpoint.save(tmp_path / "state", parts.state(), {})
        state = checkpoint.load(tmp_path / "state", {})
        assert state is not None
        parts = _golden()
        parts.restore(state)
        for version in ("v1", "v2"):
            assert parts.evidence(version, "v1") == whole.evidence(version, "v1")
            assert parts.view(version) == whole.view(version)


def test_what_is_shown_is_counted_by_class() -> None:
    """The view has inputs, right answers and mean confidence of each verified class; of a version that is gone nothing."""
    golden = _golden()
    answers = _answers(_some(7, "spam"))
    _replay(golden, "v1", answers, START)
    view = golden.view("v1")
    assert view.answered == {"ham": 100, "spam": 100}
    assert view.right == {"ham": 100, "spam": 93}
    ham = [answer.confidence or math.nan for answer, label in zip(answers, LABELS, strict=True) if label == "ham"]
    assert view.confidence["ham"] == pytest.approx(sum(ham) / 100)
    golden.forget("v1")
    assert golden.view("v1") == ({}, {}, {})
    assert golden.evidence("v1", None) == []


def test_the_budget_holds_for_honest_versions() -> None:
    """Of 200 first versions that err as the reference does, replayed for a day, hardly one is told.

    Their share of the budget in a day is .02 x .5 / 30 = .0003 false alarms each, .07 in all: two or more have a probability of .002.
    """
    rng, told = np.random.default_rng(6), 0
    for _ in range(200):
        golden = _golden()
        wrong = {n for n in range(len(LABELS)) if rng.random() < 0.045}
        for hour in (0, 24):
            _replay(golden, "v1", _answers(wrong), START + hour * HOUR)
        told += _of(golden, "v1", GOLDEN).log_e >= 0
    assert told <= 1
