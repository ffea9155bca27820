"""Slices by their labels, a canary beside the stable version, creep of a class: what detection of harm costs and finds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.detection.streams import DAY, HOUR, SLOT
from poisonwatch.config import DetectionConfig, budget_seconds
from poisonwatch.detect.canary import Canary, concurrent
from poisonwatch.detect.evidence import collect
from poisonwatch.detect.shift import Shift
from poisonwatch.profile.baseline import describe, describe_errors, describe_history
from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_CONFIDENCE,
    CANARY_INPUTS,
    ERRORS,
    OUTCOME,
    OUTPUTS,
    QUALITY,
    SLICE_ERRORS,
    ask,
    ask_errors,
)
from poisonwatch.profile.odds import expit, logit
from poisonwatch.profile.season import Tally
from poisonwatch.types import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Bools, Evidence, Floats, Ints

PERIOD = budget_seconds(DetectionConfig().budget)
NOTHING = 1e-12
"""Share of the budget for groups that are not looked at."""


def _page(evidence: Evidence) -> bool:
    """The product's rule: the whole budget, and an effect beyond the floor."""
    return evidence.log_e >= 0 and abs(evidence.effect) >= evidence.floor


# Slices by labels

SLICES = 200
LABELS_A_DAY = 60
REFERENCE_LABELS = 2000
SLICE_RUNS = 4
QUIET_DAYS = 30
SLICE_FLOORS = (0.4, 0.2)
ERROR_THETAS = (0.4, 0.8, 1.4, 2.2)
"""The product's steps for error rates."""


@dataclass
class Slices:
    """Labels of the bad slice until its page by floor, and false pages of how many days."""

    labels: dict[float, list[float]] = field(default_factory=dict)
    false: dict[float, int] = field(default_factory=dict)
    days: int = 0


def slices(seed: int) -> Slices:
    """Accuracy 0.95 falls to 0.80 in one slice of 200 after 30 quiet days; labels come at 60 a day and slice."""
    found = Slices(days=SLICE_RUNS * QUIET_DAYS)
    names = tuple(f"s{number:03d}" for number in range(SLICES))
    questions = ask_errors(_schema(("yes",), (Column(name="segment", kind="categorical", values=names),)), flips=False)
    for run in range(SLICE_RUNS):
        rng = np.random.default_rng((seed, 30, run))
        error = 1 - np.clip(rng.normal(0.95, 0.015, SLICES), 0.85, 0.995)
        error[0] = 0.05
        every = np.repeat(np.arange(SLICES), REFERENCE_LABELS)
        reference = _labelled(questions, every, rng.random(every.size) < error[every])
        baseline = describe_errors(questions, reference)
        shares = {ERRORS: NOTHING, SLICE_ERRORS: 1.0}
        for floor in SLICE_FLOORS:
            shift = Shift(baseline, np.full(len(questions.indicators), floor), shares, thetas=ERROR_THETAS)
            false, labels = _watch_slices(shift, error, np.random.default_rng((seed, 31, run)))
            found.false[floor] = found.false.get(floor, 0) + false
            found.labels.setdefault(floor, []).append(labels)
    return found


def _watch_slices(shift: Shift, error: Floats, rng: np.random.Generator) -> tuple[int, float]:
    questions = shift.baseline.questions
    texts = tuple(indicator.text for indicator in questions.indicators)
    memory, false, labels = shift.begin(), 0, 0
    bad = error.copy()
    bad[0] = 0.20
    for hour in range((QUIET_DAYS + 60) * 24):
        changed = hour >= QUIET_DAYS * 24
        of = rng.integers(0, SLICES, rng.poisson(SLICES * LABELS_A_DAY / 24))
        labels += int((of == 0).sum()) if changed else 0
        wrong = rng.random(of.size) < (bad if changed else error)[of]
        shift.step(memory, _labelled(questions, of, wrong), HOUR / PERIOD, float(hour * HOUR))
        if memory.log_m.max() < -np.log(memory.log_m.size):
            continue
        for evidence in collect("bench", "v", memory, shift.bets, texts, shift.baseline.rate, shift.floor):
            if evidence.group != SLICE_ERRORS or not _page(evidence):
                continue
            if changed and evidence.subjects[0].indicator.endswith("= s000"):
                return false, float(labels)
            false += 1
            memory = shift.begin()
    return false, np.inf


def _labelled(questions: Questions, of: Ints, wrong: Bools) -> Ints:
    codes = np.stack([np.ones(of.size, np.int32), (1 + of).astype(np.int32)])
    return questions.count(np.empty((0, of.size)), codes, wrong[None])


def _schema(classes: tuple[str, ...], features: tuple[Column, ...] = ()) -> Schema:
    outcome = Column(name=OUTCOME, kind="categorical", values=classes)
    return Schema(model="bench", outcome=outcome, features=features, layout="object", confidence=False)


# A canary beside the stable version

CLASSES = 20
MOVED = 5
CANARY_SHARE = 0.1
RISE = 0.05
CANARY_RECORDS = 40_000
CANARY_RUNS = 10
NULL_RUNS = 60
CANARY_FLOORS = tuple(dict.fromkeys((DetectionConfig().canary_floor, 0.3, 0.2, 0.0)))
BURST = 200
CANARY_WINDOW = 60
CANARY_BUDGET = 0.05
"""Of the whole budget: what the second version of a model gets of the class comparison (0.30 / 6)."""


@dataclass
class Canaries:
    """Canary records until the page by floor and design effect (infinite: not among 4,000), and false pages in null runs.

    `design_effect` is what the product measures on the reference of this traffic and divides the evidence by.
    """

    records: dict[tuple[float, bool], list[float]] = field(default_factory=dict)
    false: dict[bool, int] = field(default_factory=dict)
    null_runs: int = 0
    design_effect: float = 1.0


def canary(seed: int) -> Canaries:
    """A class rises from 5 % to 9.5 % on a canary with a tenth of drifting and bursty traffic, one record a second."""
    found = Canaries(null_runs=NULL_RUNS)
    questions = ask(_schema(tuple(f"c{number:02d}" for number in range(CLASSES))), {})
    rng = np.random.default_rng((seed, 40))
    days = 7
    tally = Tally(questions.size, 0.0, days * DAY - 1.0)
    shares = _class_shares(days * DAY, rng)
    counts = rng.multinomial(BURST, shares).reshape(-1, SLOT // BURST, CLASSES).sum(axis=1)
    for slot, of_classes in enumerate(counts):
        tally.add(slot, _predicted(questions, of_classes))
    baseline = describe_history(questions, tally.history())
    texts = tuple(indicator.text for indicator in questions.indicators)
    moved = next(n for n, text in enumerate(texts) if text.endswith(f"= c{MOVED:02d}"))
    found.design_effect = float(baseline.design_effect[moved])
    budget = {CANARY_CLASS: CANARY_BUDGET, CANARY_CONFIDENCE: NOTHING, CANARY_INPUTS: NOTHING}
    untempered = replace(baseline, design_effect=np.ones_like(baseline.design_effect))
    for floor in CANARY_FLOORS:
        for tempered, base in ((True, baseline), (False, untempered)):
            floors = dict.fromkeys(budget, (floor,))
            smallest = DetectionConfig().canary_predictions
            detector = Canary(base, concurrent(questions), floors, budget, smallest, 3600.0)
            found.records[floor, tempered] = [
                _watch_canary(detector, questions, texts, RISE, np.random.default_rng((seed, 41, run)))
                for run in range(CANARY_RUNS)
            ]
            if floor == DetectionConfig().canary_floor:
                nulls = (np.random.default_rng((seed, 42, run)) for run in range(NULL_RUNS))
                pages = [_watch_canary(detector, questions, texts, 0.0, null) for null in nulls]
                found.false[tempered] = int(np.isfinite(pages).sum())
    return found


def _class_shares(records: int, rng: np.random.Generator) -> Floats:
    """Shares of the classes in every burst of traffic: (records / burst, classes). They drift, and some come in bursts."""
    at = np.arange(0, records, BURST)
    shares = np.tile(1.0 / (1 + np.arange(CLASSES)) ** 0.8, (at.size, 1))
    shares[:, 0] *= 1 + 0.8 * np.sin(2 * np.pi * at / 8000)
    shares[:, 3] *= np.exp(rng.normal(0, 0.7, at.size))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _predicted(questions: Questions, of_classes: Ints) -> Ints:
    profile = np.zeros(questions.size, np.int64)
    profile[questions.code_place(0)][1 : 1 + CLASSES] = of_classes
    profile[0] = profile[questions.indicators[0].asked] = of_classes.sum()
    return profile


def _watch_canary(
    detector: Canary, questions: Questions, texts: tuple[str, ...], rise: float, rng: np.random.Generator
) -> float:
    """Canary records until the page; infinite when there is none."""
    pair, spent, seen = detector.begin(), 0.0, 0
    own = tuple(texts[of] for of in detector.indicators)
    expected = np.full(len(own), 1 / CLASSES)
    for number, shares in enumerate(_class_shares(CANARY_RECORDS, rng)):
        canary_shares = shares.copy()
        canary_shares[MOVED] += rise
        n = int(rng.binomial(BURST, CANARY_SHARE))
        of_canary = rng.multinomial(n, canary_shares / canary_shares.sum())
        of_stable = rng.multinomial(BURST - n, shares)
        start = float(number * BURST)
        profiles = _predicted(questions, of_canary), _predicted(questions, of_stable)
        before, spent = spent, detector.add(pair, *profiles, start, start + BURST, spent, 1 / PERIOD)
        seen += n
        if spent == before:
            continue
        found = collect("bench", "v2", pair.memory, detector.bets, own, expected, detector.floor, "v1")
        if any(_page(evidence) for evidence in found if evidence.group == CANARY_CLASS):
            return float(seen)
    return np.inf


# Creep

CREEP = 0.01
"""Log-odds a day."""

A_DAY = 24_000
SLOT_PREDICTIONS = A_DAY // 144
CREEP_RUNS = 10
CREEP_DAYS = 60
TIMED, NO_SEASONS, UNTIMED = "14 days, by the hour", "14 days, seasons left out", "3,000 records without times"


def creep(seed: int) -> dict[str, list[float]]:
    """Days until a class that is answered in 5 % of the cases and creeps up is found, by kind of reference."""
    questions = ask(_schema(("usual", "wanted")), {})
    found: dict[str, list[float]] = {TIMED: [], NO_SEASONS: [], UNTIMED: []}
    for run in range(CREEP_RUNS):
        rng = np.random.default_rng((seed, 50, run))
        for name, found_on in found.items():
            found_on.append(_watch_creep(_creep_reference(questions, name, rng), rng))
    return found


def _creep_reference(questions: Questions, kind: str, rng: np.random.Generator) -> Shift:
    if kind == UNTIMED:
        counts = _two_classes(questions, 3000, int(rng.binomial(3000, 0.05)))
        baseline = describe(questions, counts, counts[None], counts[None])
    else:
        slots = [
            _two_classes(questions, SLOT_PREDICTIONS, int(yes))
            for yes in rng.binomial(SLOT_PREDICTIONS, 0.05, 14 * 144)
        ]
        if kind == TIMED:
            tally = Tally(questions.size, 0.0, 14 * DAY - 1.0)
            for slot, profile in enumerate(slots):
                tally.add(slot, profile)
            baseline = describe_history(questions, tally.history())
        else:
            hours = np.array(slots).reshape(14 * 24, 6, -1).sum(axis=1)
            baseline = describe(questions, hours.sum(axis=0), hours, hours.reshape(14, 24, -1).sum(axis=1))
    floor = DetectionConfig().effect_floor + 3.5 * baseline.day_noise
    return Shift(baseline, floor, {OUTPUTS: 0.5, QUALITY: NOTHING})


def _two_classes(questions: Questions, n: int, wanted: int) -> Ints:
    profile = np.zeros(questions.size, np.int64)
    profile[questions.code_place(0)][1:3] = (n - wanted, wanted)
    profile[0] = profile[questions.indicators[0].asked] = n
    return profile


def _watch_creep(shift: Shift, rng: np.random.Generator) -> float:
    questions, memory = shift.baseline.questions, shift.begin()
    texts = tuple(indicator.text for indicator in questions.indicators)
    for hour, profile in _creeping(questions, rng):
        shift.step(memory, profile, HOUR / PERIOD, float(hour * HOUR))
        for evidence in collect("bench", "v", memory, shift.bets, texts, shift.baseline.rate, shift.floor):
            if evidence.group == OUTPUTS and _page(evidence):
                return (hour + 1) / 24
    return np.inf


def _creeping(questions: Questions, rng: np.random.Generator) -> Iterator[tuple[int, Ints]]:
    for hour in range(CREEP_DAYS * 24):
        rate = float(expit(logit(np.array(0.05)) + CREEP * hour / 24))
        yield hour, _two_classes(questions, A_DAY // 24, int(rng.binomial(A_DAY // 24, rate)))
