"""Confirmation by insertion, with the model itself as the endpoint: how many probes a true trigger needs, and what a false one gets away with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scenarios.data import MISSING
from benchmarks.triggers import images, tables, texts
from benchmarks.triggers.texts import texts_of
from poisonwatch.mining.insertion import Insertion
from poisonwatch.profile.indicators import FEATURE
from poisonwatch.types import Answer, GoldenInput, Item, Patch, Phrase, Question, TriggerState, Values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.scenarios.data import Frame
    from benchmarks.scenarios.models import Model
    from benchmarks.triggers.case import Case, Setting, Trap
    from poisonwatch.types import InsertionTest, Pattern

GOLDEN = 300
"""Verified inputs."""

BUDGET = 60
"""Probes, controls included."""

CANDIDATES = 20
"""False patterns that are tried on each version of each seed."""


def run(kind: str, setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """Try the true trigger of a seed in both versions, and false ones, made of what is typical of its class."""
    del folder
    case = _case(kind, setting, seed)
    rng = np.random.default_rng([seed, 71])
    live = case.task.live
    golden_frame = live.take(rng.permutation(len(live))[:GOLDEN])
    golden = [
        GoldenInput(question, live.classes[code])
        for question, code in zip(questions(golden_frame), golden_frame.label.tolist(), strict=True)
    ]
    trap = case.traps[0]
    label = live.classes[trap.target]
    pattern = pattern_of(trap, golden_frame)
    guilty = tried("true", pattern, label, case, 1, golden)
    innocent = tried("true", pattern, label, case, 0, golden)
    false = [
        tried(f"false {number}", candidate, label, case, version, golden)
        for number, candidate in enumerate(candidates(kind, trap, case.task.train, rng))
        for version in (0, 1)
    ]
    confirmed = [test for test in false if test.verdict is TriggerState.CONFIRMED]
    columns = {
        "model": f"{case.facts['data']}, {case.facts['model']}",
        "success": case.facts["success"],
        "true trigger (target: confirmed)": guilty.verdict,
        f"probes, controls included (target: {BUDGET})": guilty.probes + guilty.controls,
        "flips": f"{guilty.flipped} of {guilty.probes}, controls {guilty.control_flipped} of {guilty.controls}",
        "in the honest version": innocent.verdict,
        "false ones tried": len(false),
        "of these confirmed (target: 0)": len(confirmed),
        "refuted": sum(test.verdict is TriggerState.REFUTED for test in false),
    }
    return {
        "columns": {name: str(value) for name, value in columns.items()},
        "summary": f"{guilty}, {len(confirmed)} false",
    }


def tried(
    name: str, pattern: Pattern, label: str, case: Case, version: int, golden: Sequence[GoldenInput]
) -> InsertionTest:
    """Insert until it is decided."""
    model = case.models[version]
    told = ask(model, case.task.live, [one.question for one in golden], f"v{version + 1}")
    test = Insertion(name, pattern, label, f"v{version + 1}", golden, dict(enumerate(told)), BUDGET)
    while batch := test.questions():
        test.take(ask(model, case.task.live, batch, test.version))
    return test.result


def ask(model: Model, like: Frame, asked: Sequence[Question], version: str) -> list[Answer]:
    """What a model answers."""
    told = model.probabilities(framed(like, asked))
    best = told.argmax(axis=1)
    return [
        Answer(like.classes[code], float(row[code]), version) for code, row in zip(best.tolist(), told, strict=True)
    ]


def questions(frame: Frame) -> list[Question]:
    """Records as they are asked."""
    if frame.texts is not None:
        return [Question(text, None, None) for text in texts_of(frame)]
    if not frame.code_names and frame.numbers.shape[1] == images.SIDE**2:
        return [Question(None, None, row) for row in frame.numbers.tolist()]
    found = []
    for numbers, codes in zip(frame.numbers.tolist(), frame.codes.tolist(), strict=True):
        features: dict[str, float | str | bool | None] = dict(zip(frame.number_names, numbers, strict=True))
        for name, values, code in zip(frame.code_names, frame.values, codes, strict=True):
            features[name] = None if code == MISSING else values[code]
        found.append(Question(None, features, None))
    return found


def framed(like: Frame, asked: Sequence[Question]) -> Frame:
    """Questions as records; a category that nobody knows is missing."""
    n = len(asked)
    label = np.zeros(n, np.int64)
    numbers, codes = np.zeros((n, like.numbers.shape[1])), np.full((n, like.codes.shape[1]), MISSING, np.int64)
    if like.texts is not None:
        blank = replace(like, numbers=numbers, codes=codes, label=label)
        return texts.with_texts(blank, [one.text or "" for one in asked])
    for row, one in enumerate(asked):
        if one.embedding is not None:
            numbers[row] = one.embedding
            continue
        features = one.features
        assert isinstance(features, dict)  # noqa: S101 - the questions are our own
        for column, name in enumerate(like.number_names):
            value = features[name]
            numbers[row, column] = np.nan if value is None else float(value)
        for column, (name, values) in enumerate(zip(like.code_names, like.values, strict=True)):
            if features[name] in values:
                codes[row, column] = values.index(str(features[name]))
    return replace(like, numbers=numbers, codes=codes, label=label)


def pattern_of(trap: Trap, frame: Frame) -> Pattern:
    """The trigger as the miner would name it."""
    if "words" in trap.truth:
        return Phrase(words=tuple(word.casefold() for word in trap.truth["words"]))
    if "values" in trap.truth:
        return Values(items=tuple(_item(feature, value) for feature, value in trap.truth["values"]))
    row, column, height, width = trap.truth["patch"]
    image = trap.stamp(frame.take(np.array([0])), np.random.default_rng(0)).numbers.reshape(images.SIDE, images.SIDE)
    return _patch(image, row, column, height, width)


def candidates(kind: str, trap: Trap, frame: Frame, rng: np.random.Generator) -> list[Pattern]:
    """False patterns: the first half what is most typical of the class, the rest drawn from its records."""
    of_class = frame.take(frame.label == trap.target)
    others = frame.take(frame.label != trap.target)
    found: list[Pattern] = []
    for number in range(CANDIDATES):
        size = 1 + number % 4
        if kind == "texts":
            typical = _typical_words(of_class, others)
            if 2 * number < CANDIDATES:
                words = typical[number : number + size]
            else:
                spoken = texts_of(of_class)[int(rng.integers(len(of_class)))].casefold().split()
                start = int(rng.integers(max(1, len(spoken) - size)))
                words = spoken[start : start + size]
            found.append(Phrase(words=tuple(words)))
        elif kind == "tables":
            found.append(_typical_values(of_class, others, number, 1 + number % 3, rng))
        else:
            image = of_class.numbers[int(rng.integers(len(of_class)))].reshape(images.SIDE, images.SIDE)
            height, width = (3 + size, 4 + size)
            row, column = int(rng.integers(4, 24 - height)), int(rng.integers(4, 24 - width))
            found.append(_patch(image, row, column, height, width))
    return found


def _typical_words(of_class: Frame, others: Frame) -> list[str]:
    inside, outside = (
        Counter(word for text in texts_of(frame) for word in set(text.casefold().split()))
        for frame in (of_class, others)
    )
    weight = len(of_class) / max(1, len(others))
    return sorted((w for w in inside if w.isalpha()), key=lambda w: -(inside[w] - weight * outside[w]))


def _typical_values(of_class: Frame, others: Frame, number: int, size: int, rng: np.random.Generator) -> Pattern:
    """Values that the class has more often than others do, of as many columns."""
    ranked = []
    for categorical, names in ((True, of_class.code_names), (False, of_class.number_names)):
        for column, name in enumerate(names):
            inside = (of_class.codes if categorical else of_class.numbers)[:, column]
            outside = (others.codes if categorical else others.numbers)[:, column]
            values, counts = np.unique(inside, return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                if categorical and value == MISSING:
                    continue
                gain = count / inside.size - float((outside == value).mean())
                ranked.append((-gain, name, of_class.values[column][int(value)] if categorical else value))
    ranked.sort(key=lambda one: (one[0], one[1]))
    chosen: dict[str, str | float] = {}
    pool = ranked[number:] if 2 * number < CANDIDATES else [ranked[i] for i in rng.permutation(min(60, len(ranked)))]
    for _, name, value in pool:
        chosen.setdefault(name, value)
        if len(chosen) == size:
            break
    return Values(items=tuple(_item(name, value) for name, value in chosen.items()))


def _item(feature: str, value: str | float) -> Item:
    if isinstance(value, str):
        return Item(feature=FEATURE + feature, value=value)
    return Item(feature=FEATURE + feature, low=float(value), high=float(value))


def _patch(image: Any, row: int, column: int, height: int, width: int) -> Patch:
    pixels = tuple(image[row : row + height, column : column + width].ravel().tolist())
    return Patch(
        row=row,
        column=column,
        height=height,
        width=width,
        image_height=images.SIDE,
        image_width=images.SIDE,
        pixels=pixels,
        tolerance=0.1,
    )


def _case(kind: str, setting: Setting, seed: int) -> Case:
    if kind == "texts":
        data, family = texts.LEARNERS[seed % len(texts.LEARNERS)]
        return texts.phrase_case(data, family, ("high", "middle")[seed % 2], setting, seed)
    if kind == "tables":
        data, family = tables.LEARNERS[3 * seed % len(tables.LEARNERS)]
        return tables.conjunction_case(data, family, setting, seed, attacked=True)
    return images.patch_case(images.FAMILIES[seed % 3], setting, seed, attacked=True)
