"""What the answers to verified inputs say of versions: how often they are wrong, and whether the model behind a name changed.

A model answers the same input the same way each time, so that a replay without change is no new evidence: each input of a
version counts once, and again only when its answer changed. Errors are held against the stable version's on the same inputs,
where it was asked: of the inputs that exactly one of the two gets wrong no more than half, and the floor, should be the version's (McNemar 1947, as
a sequential bet). Without such a version they are held against the reference's error rates by labelled class, with a farther
floor: a golden set need not be as hard as the traffic.

A version that answers an input otherwise than before is another model. Some servers are not exact: how much moves by itself is learned
from the first replay that repeats answers, and held against twice the rate met so far, `FLAPPING` as long as little is known. Where an
answer came near the decision its label may change with next to no change of its confidence, and is excused.
Confidences tell of more changes than labels do.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory, advance, lay_bets
from poisonwatch.detect.shift import Shift
from poisonwatch.profile.baseline import Baseline, describe_errors
from poisonwatch.profile.indicators import GOLDEN, GOLDEN_CHANGE, Signal, ask_errors, class_codes, unseen_code
from poisonwatch.profile.odds import expit, logit
from poisonwatch.types import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.indicators import Indicator, Questions
    from poisonwatch.types import Evidence, Floats, Ints, Schema

FLAPPING = 0.01
"""Rate at which answers may change by themselves as long as nothing else is known."""

LEAST_FLAPPING = 0.001
"""The rate that no endpoint is trusted to stay below."""

PRIOR = 300.0
"""Repeated answers that `FLAPPING` weighs."""

EXCUSED = 0.05
"""A label that changes while the confidence moves by no more than this was on the border."""

MOVED = 0.005
"""How far a confidence must move to have changed."""

ERROR_THETAS = (0.4, 0.8, 1.4, 2.2)
CHANGE_THETAS = (1.0, 2.5, 4.0)

OTHERWISE, CONFIDENCE_MOVED = "golden input answered otherwise than before", "confidence for a golden input moved"


class GoldenAnswers(NamedTuple):
    """Answers of one version to golden inputs (k,): their numbers in the set, the verified labels, the answers; at `time`."""

    time: float
    model_version: str
    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    answers: tuple[Answer, ...]


class GoldenView(NamedTuple):
    """What is shown of a version, by verified class: inputs answered, those answered rightly, mean confidence (NaN where none is told)."""

    answered: dict[str, int]
    right: dict[str, int]
    confidence: dict[str, float]


@dataclass(slots=True)
class _Version:
    """The last answers by number with their verified labels, and what the detectors remember; `judged`: up to when budget was spent."""

    judged: float
    alone: Memory
    beside: Memory
    change: Memory
    repeated: Floats
    changed: Floats
    answers: dict[int, Answer] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)


class Golden:
    """Golden replays of one model. `confusion` (classes, classes) counts the reference's labels by predicted and labelled class."""

    def __init__(self, model: str, schema: Schema, confusion: Ints, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self._outcome = schema.outcome
        self._codes_of = class_codes(schema.outcome)
        self._questions = _questions(schema)
        self._texts = tuple(one.text for one in self._questions.indicators)
        share = {GOLDEN: settings.shares[GOLDEN] / 2}
        many = np.zeros(len(self._texts))
        self._judged = bool(confusion.sum())
        errors = describe_errors(self._questions, _counts(self._questions, confusion))
        self._alone = Shift(errors, many + settings.drift_label_floor, share, ERROR_THETAS)
        self._beside = Shift(_even(errors), many + settings.label_floor, share, ERROR_THETAS)
        signals = (("answer", GOLDEN_CHANGE), ("confidence", GOLDEN_CHANGE))
        up = np.array([[True, False], [True, False]])
        shares = {GOLDEN_CHANGE: settings.shares[GOLDEN_CHANGE]}
        self._change = lay_bets(np.arange(2), up, signals, shares, CHANGE_THETAS)
        self._versions: dict[str, _Version] = {}

    def take(self, told: GoldenAnswers, stable: str | None, share: float) -> None:
        """Take answers of one version, which has this share of the budget; `stable` is the version to compare with."""
        version = self._versions.get(told.model_version)
        if version is None:
            begin = self._alone.begin(), self._beside.begin(), Memory.fresh(self._change, 2)
            version = _Version(told.time - self._settings.window, *begin, np.zeros(2), np.zeros(2))
            self._versions[told.model_version] = version
        time = max(told.time, version.judged)
        spent = (time - version.judged) / self._settings.period * share
        self._step_change(version, told, spent, time)
        other = self._versions.get(stable) if stable not in {None, told.model_version} else None
        self._step_errors(version, other, told, spent, time)
        version.answers.update(zip(told.numbers, told.answers, strict=True))
        version.labels.update(zip(told.numbers, told.labels, strict=True))
        version.judged = time

    def _step_change(self, version: _Version, told: GoldenAnswers, spent: float, time: float) -> None:
        before = [version.answers.get(number) for number in told.numbers]
        pairs = [(old, new) for old, new in zip(before, told.answers, strict=True) if old is not None]
        moves = [
            abs(old.confidence - new.confidence)
            for old, new in pairs
            if old.confidence is not None and new.confidence is not None
        ]
        asked = np.array([len(pairs), len(moves)], np.float64)
        yes = np.array([sum(_otherwise(*pair) for pair in pairs), sum(move > MOVED for move in moves)], np.float64)
        # Twice what was met is beyond what chance adds to it; it is known before these answers.
        null = np.maximum((2 * version.changed + FLAPPING * PRIOR) / (version.repeated + PRIOR), LEAST_FLAPPING)
        tested = (null < 0.5) & (version.repeated >= len(version.answers))
        base = logit(np.minimum(null, 0.5))[self._change.indicator]
        rate, alternative = expit(base), expit(base + self._change.theta)
        of = self._change.indicator
        gains = yes[of] * np.log(alternative / rate) + (asked - yes)[of] * np.log((1 - alternative) / (1 - rate))
        if asked.any():
            held = np.where(tested, asked, 0.0)[None], np.where(tested, yes, 0.0)[None]
            advance(version.change, self._change, np.where(tested[of], gains, 0.0), spent, *held, time)
        version.repeated += asked
        version.changed += yes

    def _step_errors(
        self, version: _Version, other: _Version | None, told: GoldenAnswers, spent: float, time: float
    ) -> None:
        """Count what is new: errors of its own where no stable version was asked, else those of exactly one of the two."""
        alone: list[tuple[str, bool]] = []
        beside: list[tuple[str, bool]] = []
        for number, label, answer in zip(told.numbers, told.labels, told.answers, strict=True):
            old = version.answers.get(number)
            if old is not None and old.label == answer.label:
                continue
            wrong = answer.label != label
            theirs = other.answers.get(number) if other is not None else None
            if theirs is None:
                alone.append((label, wrong))
            elif wrong != (theirs.label != label):
                beside.append((label, wrong))
        if alone and self._judged:
            self._alone.step(version.alone, self._profile(alone), spent, time)
        if beside:
            self._beside.step(version.beside, self._profile(beside), spent, time)

    def _profile(self, found: Sequence[tuple[str, bool]]) -> Ints:
        unseen = unseen_code(self._outcome)
        codes = np.array([[self._codes_of.get(label, unseen) for label, _ in found]], np.int32)
        wrong = np.array([[yes for _, yes in found]], np.bool_)
        return self._questions.count(np.empty((0, len(found))), codes, wrong)

    def evidence(self, name: str, stable: str | None) -> list[Evidence]:
        """What replays said of a version: its errors, from the stronger of both comparisons, and its changes."""
        version = self._versions.get(name)
        if version is None:
            return []
        errors = [
            *collect(self._model, name, version.alone, self._alone.bets, self._texts, *_told_with(self._alone)),
            *collect(
                self._model, name, version.beside, self._beside.bets, self._texts, *_told_with(self._beside), stable
            ),
        ]
        texts, rate = (OTHERWISE, CONFIDENCE_MOVED), np.full(2, FLAPPING)
        changes = collect(self._model, name, version.change, self._change, texts, rate, np.zeros(2))
        return [max(errors, key=lambda e: e.log_e), *changes]

    def view(self, name: str) -> GoldenView:
        """What is shown of a version."""
        version = self._versions.get(name)
        view = GoldenView({}, {}, {})
        if version is None:
            return view
        for label in sorted(set(version.labels.values())):
            answers = [version.answers[number] for number, own in version.labels.items() if own == label]
            sure = [answer.confidence for answer in answers if answer.confidence is not None]
            view.answered[label] = len(answers)
            view.right[label] = sum(answer.label == label for answer in answers)
            view.confidence[label] = math.fsum(sure) / len(sure) if sure else math.nan
        return view

    def forget(self, version: str) -> None:
        """A version is gone."""
        self._versions.pop(version, None)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            name: {
                "judged": version.judged,
                "alone": version.alone.state(),
                "beside": version.beside.state(),
                "change": version.change.state(),
                "repeated": version.repeated.copy(),
                "changed": version.changed.copy(),
                "numbers": list(version.answers),
                "answers": [list(answer) for answer in version.answers.values()],
                "labels": [version.labels[number] for number in version.answers],
            }
            for name, version in self._versions.items()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._versions = {
            name: _Version(
                judged=saved["judged"],
                alone=Memory(**saved["alone"]),
                beside=Memory(**saved["beside"]),
                change=Memory(**saved["change"]),
                repeated=saved["repeated"].copy(),
                changed=saved["changed"].copy(),
                answers={number: Answer(*a) for number, a in zip(saved["numbers"], saved["answers"], strict=True)},
                labels=dict(zip(saved["numbers"], saved["labels"], strict=True)),
            )
            for name, saved in state.items()
        }


def _otherwise(old: Answer, new: Answer) -> bool:
    """Is the label another one, and was it not on the border?"""
    if old.label == new.label:
        return False
    # Near the decision both classes have about the same confidence: what moved is little.
    if old.confidence is None or new.confidence is None:
        return True
    return abs(old.confidence - (1 - new.confidence)) > EXCUSED


def _questions(schema: Schema) -> Questions:
    """Was it wrong: overall, and by verified class? Codes are those of the class, of the label instead of the prediction."""
    asked = ask_errors(msgspec.structs.replace(schema, features=()), flips=False)
    indicators = tuple(_renamed(one) for one in asked.indicators)
    signals = tuple(dict.fromkeys(one.signal for one in indicators))
    of = np.array([signals.index(one.signal) for one in indicators], np.int64)
    return dataclasses.replace(asked, indicators=indicators, signals=signals, signal_of=of)


def _renamed(one: Indicator) -> Indicator:
    text = one.text.replace("where prediction =", "where label =")
    return one._replace(text=f"golden input {text}", signal=Signal(one.signal.name.replace("wrong", "golden"), GOLDEN))


def _counts(questions: Questions, confusion: Ints) -> Ints:
    """The reference's labels as a profile (size,): by labelled class, wrong where another one was predicted."""
    predicted, label = np.nonzero(confusion)
    many = confusion[predicted, label]
    codes = np.repeat(label + 1, many).astype(np.int32)[None]
    return questions.count(np.empty((0, codes.size)), codes, np.repeat(predicted != label, many)[None])


def _even(errors: Baseline) -> Baseline:
    """Of inputs that exactly one of two versions gets wrong each gets half."""
    none = np.zeros(errors.rate.size)
    return dataclasses.replace(errors, rate=none + 0.5, low=none, high=none)


def _told_with(shift: Shift) -> tuple[Floats, Floats]:
    return shift.baseline.rate, shift.floor
