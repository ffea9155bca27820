"""Learn the schema of a prediction log from a trusted part of it, so that nobody has to write one."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.errors import BaselineError
from poisonwatch.formats.lenient import Rejected, load_object, timestamp_of, version_of
from poisonwatch.formats.records import OWN, fits_struct, name_of
from poisonwatch.profile.indicators import CONFIDENCE, EMBEDDING, FEATURE, OUTCOME, SEGMENT, TEXT
from poisonwatch.types import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.types import Floats

SAMPLE = 100_000
"""Values of a column that are kept for its cut points: a uniform sample, drawn with a fixed seed."""

MOST_CLASSES = 50
MOST_CATEGORIES = 20
"""Classes and categories with an indicator of their own; the others share one."""

MOST_SEGMENTS = 200
"""Segments with an indicator of their own: errors are watched in each."""

MOST_KNOWN = 1_000
"""Categories that count as seen before. A feature with more is no category; of more classes the rest counts as unseen."""

MOST_MET_ONCE = 0.1
"""A feature with a larger share of values that were met exactly once is no category either."""

MOST_FEATURES = 500
TEXT_WORDS = 3.0
"""A string feature with more words than this on average is text, not a category."""

WIDEST = 4096
"""Numbers of an embedding; of a wider one only the presence is watched."""

MOST_VERSIONS = 16
"""Model versions that are told, the most frequent ones."""

MOST_NUMERIC_CLASSES = 20
"""Whole numbers with at most this many different values are classes; with more, the model predicts a number."""


@dataclass(slots=True)
class _Seen:
    """What was met in one place of the records."""

    kinds: Counter[str] = field(default_factory=Counter)
    numbers: array[float] = field(default_factory=lambda: array("d"))
    met: int = 0
    names: Counter[str] = field(default_factory=Counter)
    half: Counter[str] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    words: int = 0
    whole: bool = True

    def note(self, value: object, rng: random.Random) -> None:
        """Take one value into account."""
        if isinstance(value, bool):
            self._name(value, "bool", rng)
        elif isinstance(value, int | float):
            self._number(value, rng)
        elif isinstance(value, str):
            self._name(value, "string", rng)
            self.words += len(value.split())
        elif isinstance(value, list):
            vector = 0 < len(value) <= WIDEST and all(isinstance(v, float | int) for v in value)
            self.kinds["vector" if vector else "list"] += 1
            if vector:
                self.widths[len(value)] += 1
        elif value is not None:
            self.kinds["object"] += 1

    def _number(self, value: float, rng: random.Random) -> None:
        try:
            number = float(value)
        except OverflowError:
            return
        if not math.isfinite(number):
            return
        self.kinds["number"] += 1
        self.whole = self.whole and number.is_integer()
        self.met += 1
        if len(self.numbers) < SAMPLE:
            self.numbers.append(number)
        elif (slot := rng.randrange(self.met)) < SAMPLE:
            self.numbers[slot] = number
        self._count(number, rng)

    def _name(self, value: object, kind: str, rng: random.Random) -> None:
        self.kinds[kind] += 1
        self._count(value, rng)

    def _count(self, value: object, rng: random.Random) -> None:
        name = name_of(value)
        if name in self.names or len(self.names) < 10 * MOST_KNOWN:
            self.names[name] += 1
            self.half[name] += rng.getrandbits(1)

    def met_once(self, values: tuple[str, ...]) -> list[int]:
        """Which of these values, by place, were met exactly once."""
        return [place for place, value in enumerate(values) if self.names[value] == 1]

    def kept(self, column: Column) -> float:
        """Which share of the counts of a column's own values is no luck of those that were chosen for being frequent.

        Either half of the records, drawn at random, chooses and the other counts. Where every value has a code of its own, none was chosen.
        """
        if not column.folded:
            return 1.0
        others = self.names - self.half
        counted = 0
        for choosing, counting in ((self.half, others), (others, self.half)):
            chosen = sorted(choosing, key=lambda value: (-choosing[value], value))[: len(column.values)]
            counted += sum(counting[value] for value in chosen)
        return min(1.0, counted / sum(self.names[value] for value in column.values))

    def column(self, name: str, most: int) -> Column:
        """The column that these values make."""
        total = self.kinds.total()
        if self.kinds["vector"] and self.kinds["vector"] == total and len(self.widths) == 1 and name == EMBEDDING:
            return Column(name=name, kind="embedding", values=("present",), width=next(iter(self.widths)))
        if not total or self.kinds["vector"] or self.kinds["list"] or self.kinds["object"] == total:
            # Null throughout too: the field is known, and that it is filled one day is worth telling.
            return Column(name=name, kind="opaque", values=("present",))
        if self.kinds["number"] == total:
            return Column(name=name, kind="numerical")
        strings = self.kinds["string"] == total
        if strings and self.words / total > TEXT_WORDS:
            return Column(name=name, kind="text", values=("present",))
        if len(self.names) > MOST_KNOWN or sum(count == 1 for count in self.names.values()) > MOST_MET_ONCE * total:
            return Column(name=name, kind="opaque", values=("present",))
        return self.categories(name, most)

    def own_column(self, name: str) -> Column:
        """The column of a field of the record itself: a segment is a category whatever it looks like, a text is text."""
        if name == SEGMENT and not (self.kinds["list"] or self.kinds["vector"] or self.kinds["object"]):
            return self.categories(name, MOST_SEGMENTS)
        if name == TEXT and self.kinds["string"] == self.kinds.total():
            return Column(name=name, kind="text", values=("present",))
        found = self.column(name, MOST_CATEGORIES)
        return found if found.kind == "embedding" else Column(name=name, kind="opaque", values=("present",))

    def categories(self, name: str, most: int) -> Column:
        """A categorical column: the most frequent values with codes of their own, the rest folded."""
        ranked = [value for value, _ in sorted(self.names.items(), key=lambda item: (-item[1], item[0]))]
        return Column(
            name=name,
            kind="categorical",
            values=tuple(ranked[:most]),
            folded=tuple(ranked[most:MOST_KNOWN]),
            strings=self.kinds["string"] == self.kinds.total(),
        )


@dataclass(slots=True)
class Inference:
    """What a pass over the reference found: the schema, a sample of every numerical column, the span of time.

    `singletons` has, by categorical column, which of its values and of its folded values were met exactly once;
    `kept` which share of the counts of its values is no luck of having been chosen.
    `versions` has, by model version as the decoder names it, how many records carried it, the most frequent first.
    """

    schema: Schema
    samples: dict[str, Floats]
    singletons: dict[str, tuple[list[int], list[int]]]
    kept: dict[str, float]
    first: float
    last: float
    records: int
    timed: int
    ignored_features: int
    labels: dict[str, tuple[int, int]]
    versions: dict[str, int]


class _Inspector:
    """Collects what `Inference` needs, record by record."""

    def __init__(self) -> None:
        self._rng = random.Random(0)  # noqa: S311 - a reproducible sample, no secret
        self.models: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.outcome, self.confidence = _Seen(), _Seen()
        self.features: dict[str, _Seen] = {}
        self.widths: Counter[int] = Counter()
        self.listed: list[_Seen] = []
        self.own: dict[str, _Seen] = {}
        self.records = self.timed = self.ignored = 0
        self.first, self.last = math.inf, -math.inf
        self.labelled: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def note(self, record: dict[str, Any]) -> None:
        """Take one record into account; records without a prediction are left to the decoder to reject."""
        prediction = record.get("prediction")
        if prediction is None or isinstance(prediction, list | dict):
            return
        self.records += 1
        try:
            time = timestamp_of(record)
        except Rejected:
            time = None
        if time is not None:
            self.timed += 1
            self.first, self.last = min(self.first, time), max(self.last, time)
        if isinstance(record.get("model"), str):
            self.models[record["model"]] += 1
        version = _version(record.get("model_version"))
        if version and (version in self.versions or len(self.versions) < 10 * MOST_KNOWN):
            self.versions[version] += 1
        self.outcome.note(prediction, self._rng)
        self.confidence.note(_confidence(record), self._rng)
        for name in OWN:
            if record.get(name) is not None:
                self.own.setdefault(name, _Seen()).note(record[name], self._rng)
        self._note_features(record.get("features"))
        label = record.get("label")
        if label is not None and not isinstance(label, list | dict):
            name = name_of(prediction)
            self.labelled[name] += 1
            self.wrong[name] += name_of(label) != name

    def _note_features(self, features: object) -> None:
        if isinstance(features, dict):
            for name, value in features.items():
                if name in self.features or (len(self.features) < MOST_FEATURES and fits_struct(name)):
                    self.features.setdefault(name, _Seen()).note(value, self._rng)
                else:
                    self.ignored += 1
        elif isinstance(features, list):
            self.widths[len(features)] += 1
            while len(self.listed) < min(len(features), MOST_FEATURES):
                self.listed.append(_Seen())
            for seen, value in zip(self.listed, features, strict=False):
                seen.note(value, self._rng)


def _version(value: object) -> str:
    """The name under which the decoder counts a model version; empty where it takes the record for unversioned."""
    version = version_of(value, Counter())
    return "" if version is None else name_of(version)


def _confidence(record: dict[str, Any]) -> object:
    stated = record.get("confidence")
    if stated is not None:
        return stated
    found = record.get("probabilities")
    found = record.get("scores") if found is None else found
    members = list(found.values()) if isinstance(found, dict) else found
    if isinstance(members, list) and members and all(isinstance(p, int | float) for p in members):
        return max(members)
    return None


def infer(lines: Iterable[bytes], model: str | None = None) -> Inference:
    """Look at every line of a reference. With `model`, only records of that model or of none count.

    Raises:
        BaselineError: when the log holds several models and none was chosen, or no usable record.
    """
    inspector = _Inspector()
    other: Counter[str] = Counter()
    for line in lines:
        try:
            record = load_object(line)
        except Rejected:
            continue
        named = record.get("model")
        if model is not None and named not in {None, model}:
            other[str(named)[:80]] += 1
            continue
        inspector.note(record)
    if not inspector.records:
        found = f"; it holds records of {', '.join(sorted(other)[:5])}" if other else ""
        what = f"no record of the model {model!r}" if model is not None else "no record with a prediction"
        msg = f"the reference has {what}{found}"
        raise BaselineError(msg)
    if len(inspector.models) > 1:
        names = ", ".join(sorted(inspector.models)[:5])
        msg = f"the reference holds several models ({names}): choose one with --model"
        raise BaselineError(msg)
    return _conclude(inspector, model)


def _conclude(found: _Inspector, model: str | None) -> Inference:
    seen_by_name: dict[str, _Seen] = {}
    if found.listed and found.features:
        msg = "the reference's `features` are sometimes an object and sometimes a list: use one shape"
        raise BaselineError(msg)
    if len(found.widths) > 1:
        sizes = ", ".join(str(width) for width in sorted(found.widths)[:5])
        msg = f"the reference's `features` lists have different lengths ({sizes}): every list must have the same"
        raise BaselineError(msg)
    features = []
    if found.listed:
        for number, seen in enumerate(found.listed):
            features.append(Column(name=f"features[{number}]", kind="numerical"))
            seen_by_name[features[-1].name] = seen
    for name, seen in found.features.items():
        features.append(seen.column(FEATURE + name, MOST_CATEGORIES))
        seen_by_name[features[-1].name] = seen
    for name in OWN:
        if name in found.own:
            features.append(found.own[name].own_column(name))
            seen_by_name[name] = found.own[name]
    outcome = _outcome(found.outcome)
    seen_by_name[OUTCOME] = found.outcome
    confidence = found.confidence.kinds["number"] > 0
    columns = (outcome, *features)
    samples = {c.name: np.array(seen_by_name[c.name].numbers) for c in columns if c.kind == "numerical"}
    singletons = {
        c.name: (seen_by_name[c.name].met_once(c.values), seen_by_name[c.name].met_once(c.folded))
        for c in columns
        if c.kind == "categorical"
    }
    kept = {c.name: seen_by_name[c.name].kept(c) for c in columns if c.kind == "categorical"}
    if confidence:
        samples[CONFIDENCE] = np.array(found.confidence.numbers)
    schema = Schema(
        model=model if model is not None else next(iter(found.models), None),
        outcome=outcome,
        features=tuple(features),
        layout="list" if found.listed else "object" if found.features else "none",
        confidence=confidence,
    )
    return Inference(
        schema=schema,
        samples=samples,
        singletons=singletons,
        kept=kept,
        first=found.first,
        last=found.last,
        records=found.records,
        timed=found.timed,
        ignored_features=found.ignored,
        labels=_labels(found, outcome),
        versions=_most_frequent(found.versions),
    )


def _most_frequent(versions: Counter[str]) -> dict[str, int]:
    return dict(sorted(versions.items(), key=lambda item: (-item[1], item[0]))[:MOST_VERSIONS])


def _labels(found: _Inspector, outcome: Column) -> dict[str, tuple[int, int]]:
    """How many predictions of each class had a label, and how many of these labels said otherwise."""
    classes = outcome.values if outcome.kind == "categorical" else ()
    return {name: (found.labelled[name], found.wrong[name]) for name in classes if found.labelled[name]}


def _outcome(seen: _Seen) -> Column:
    numeric = seen.kinds["number"] == seen.kinds.total()
    if numeric and not (seen.whole and len(seen.names) <= MOST_NUMERIC_CLASSES):
        return Column(name=OUTCOME, kind="numerical")
    return seen.categories(OUTCOME, MOST_CLASSES)
