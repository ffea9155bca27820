"""Rows of inputs and outputs that a model's author shaped, as fields of native records."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from poisonwatch.formats.records import name_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from poisonwatch.formats.foreign import Draft

MOST_ROWS = 10_000
"""Rows that are read of one event; the others are counted as `too_many_rows`."""

PREDICTION = ("prediction", "predicted_label", "label", "predicted_class", "class", "predict", "output")
CONFIDENCE = ("confidence", "probability", "score")
PROBABILITIES = ("probabilities", "scores", "predict_proba")
"""Usual names of outputs, the first one there counts."""

ROUNDING = 0.05
"""By how much rounded probabilities may miss a sum of one."""

DEEPEST = 4
"""How many wrappings of one output are taken off."""


class RowsConfig(Protocol):
    """What users say of the rows of their model."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in order, where the log gives them by position."""
        ...

    @property
    def text(self) -> str | None:
        """Name of the input that is the text."""
        ...

    @property
    def embedding(self) -> str | None:
        """Name of the input that is the embedding."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in the order of the model's probabilities."""
        ...

    @property
    def prediction(self) -> str | None:
        """Name of the output that is the class."""
        ...

    @property
    def confidence(self) -> str | None:
        """Name of the output that is the confidence."""
        ...

    @property
    def probabilities(self) -> str | None:
        """Name of the output that is the probabilities."""
        ...


class PairedConfig(RowsConfig, Protocol):
    """What users say of formats in which request and response arrive apart."""

    @property
    def model(self) -> str | None:
        """Model of all records, where the log names none, or another."""
        ...

    @property
    def model_version(self) -> str | None:
        """Version of the records for which the log names none."""
        ...

    @property
    def pair_seconds(self) -> float:
        """How long one half of a prediction waits for the other."""
        ...


class Rows:
    """Reads rows as a configuration says."""

    def __init__(self, config: RowsConfig) -> None:
        self._features = config.features
        self._text, self._embedding = config.text, config.embedding
        self._classes = config.classes
        self._known = frozenset(config.classes)
        self._prediction = (config.prediction,) if config.prediction is not None else PREDICTION
        self._confidence = (config.confidence,) if config.confidence is not None else CONFIDENCE
        self._probabilities = (config.probabilities,) if config.probabilities is not None else PROBABILITIES
        self._told = config.prediction is not None or config.probabilities is not None

    def records(
        self, inputs: Sequence[object], outputs: Sequence[object], common: dict[str, Any], draft: Draft, sample: bytes
    ) -> None:
        """Add the native records of the rows of one event to the draft.

        `common` holds the fields that all of them share; its `prediction_id` is that of the only row, or gets `#0`, `#1`, ...
        Rows without a partner are rejected as `rows_do_not_match`; `sample` is what then goes to the dead-letter file.
        """
        count = min(len(inputs), len(outputs))
        if not inputs and not outputs:
            draft.reject("no_rows", sample)
        if len(inputs) != len(outputs):
            draft.reject("rows_do_not_match", sample, abs(len(inputs) - len(outputs)))
        if count > MOST_ROWS:
            draft.reject("too_many_rows", sample, count - MOST_ROWS)
        name = common.get("prediction_id")
        single = len(inputs) == len(outputs) == 1
        for number, (given, answered) in enumerate(islice(zip(inputs, outputs, strict=False), MOST_ROWS)):
            record = {**common, **self.given(given, draft.faults), **self.answered(answered)}
            if name is not None and not single:
                record["prediction_id"] = f"{name}#{number}"
            draft.records.append(record)

    def given(self, row: object, faults: Counter[str]) -> dict[str, Any]:
        """Native fields of one row of input: `features`, `text`, `embedding`; None is a row of which nothing is known."""
        if row is None:
            return {}
        if isinstance(row, dict) and len(row) == 1 and isinstance(row.get("features"), list | dict):
            row = row["features"]
        if isinstance(row, dict):
            return self._parted(row)
        values = row if isinstance(row, list) else [row]
        if self._features:
            if len(values) != len(self._features):
                faults["features_wrong_length"] += 1
            return self._parted(dict(zip(self._features, values, strict=False)))
        if len(values) == 1 and isinstance(values[0], str):
            return {"text": values[0]}
        if all(value is None or _is_number(value) for value in values):
            return {"features" if self._embedding is None else "embedding": values}
        return self._parted({str(place): value for place, value in enumerate(values)})

    def _parted(self, features: dict[str, Any]) -> dict[str, Any]:
        """Features by name, without the text and the embedding, which are fields of their own."""
        found: dict[str, Any] = {}
        for name, field in ((self._text, "text"), (self._embedding, "embedding")):
            if name is not None and name in features:
                found[field] = features[name]
        if found:
            features = {k: value for k, value in features.items() if k not in {self._text, self._embedding}}
        return {**found, "features": features} if features else found

    def answered(self, row: object) -> dict[str, Any]:
        """Native fields of one row of output: `prediction`, `confidence`, `probabilities`, as far as it has them.

        What is no prediction in any known shape is given as it is: the native decoder says what is wrong with it.
        """
        return self._answered(row, DEEPEST)

    def _answered(self, row: object, depth: int) -> dict[str, Any]:
        if isinstance(row, dict):
            return self._named(row, depth)
        if not isinstance(row, list):
            return self._scalar(row)
        if len(row) == 1 and depth:
            return self._answered(row[0], depth - 1)
        if _are_numbers(row) and row:
            if self._classes and len(row) == len(self._classes) and all(map(_is_finite, row)):
                by_class = dict(zip(self._classes, row, strict=True))
                return _best(by_class) if all(0.0 <= p <= 1.0 for p in row) else {"prediction": _largest(by_class)}
            if _sum_to_one(row):
                best = max(range(len(row)), key=row.__getitem__)
                return {"prediction": best, "confidence": row[best], "probabilities": row}
        if len(row) == 2 and isinstance(row[0], str) and _is_number(row[1]):
            return {"prediction": self._class(row[0]), "confidence": row[1]}
        listed = [(m["label"], m.get("score")) for m in row if isinstance(m, dict) and isinstance(m.get("label"), str)]
        if row and len(listed) == len(row) and _are_numbers([score for _, score in listed]):
            return _best(dict(listed))
        return {"prediction": row}

    def _scalar(self, value: object) -> dict[str, Any]:
        """A class, its number among the classes, or the probability of the second of two."""
        if isinstance(value, float) and len(self._classes) == 2 and 0.0 < value < 1.0:
            return _best(dict(zip(self._classes, (1.0 - value, value), strict=True)))
        return {"prediction": self._class(value)}

    def _class(self, value: object) -> object:
        """A class as the log names it; a number that names none of the classes counts them."""
        if not self._classes or not isinstance(value, str | int | float):
            return value
        name = name_of(value)
        if name in self._known:
            return name
        if isinstance(value, bool) and len(self._classes) == 2:
            return self._classes[int(value)]
        if name.isascii() and name.isdecimal() and len(name) < 9 and int(name) < len(self._classes):
            return self._classes[int(name)]
        return value

    def _named(self, row: dict[str, Any], depth: int) -> dict[str, Any]:
        """Outputs by name."""
        label, sure, shares = (
            next((row[name] for name in names if row.get(name) is not None), None)
            for names in (self._prediction, self._confidence, self._probabilities)
        )
        if isinstance(sure, list | dict):
            shares, sure = (shares if shares is not None else sure), None
        if shares is not None and not isinstance(shares, list | dict):
            sure, shares = (sure if sure is not None else shares), None
        if isinstance(row.get("classes"), list) and isinstance(shares, list):
            shares = dict(zip(map(name_of, row["classes"]), shares, strict=False))
        if label is None and shares is None and not self._told:
            return self._unnamed(row, sure, depth)
        found = {} if label is None else self._answered(label, depth - 1) if depth else {"prediction": label}
        if shares is not None:
            read = self._shares(shares)
            same = label is None or found.get("prediction") == read.get("prediction")
            found = {**read, **found} if same else {**found, **_only(read)}
            prediction, probabilities = found.get("prediction"), found.get("probabilities")
            if isinstance(probabilities, dict) and isinstance(prediction, str | int | float):
                found["confidence"] = probabilities.get(name_of(prediction), found.get("confidence"))
        if sure is not None:
            found["confidence"] = sure
        return found

    def _shares(self, shares: list[Any] | dict[str, Any]) -> dict[str, Any]:
        """Probabilities that were named so."""
        if isinstance(shares, dict):
            return _best(shares)
        if len(shares) == 1 and isinstance(shares[0], list | dict):
            return self._shares(shares[0]) if isinstance(shares[0], dict) else self._answered(shares[0], 0)
        return self._answered(shares, 0)

    def _unnamed(self, row: dict[str, Any], sure: object, depth: int) -> dict[str, Any]:
        """Outputs none of which has a usual name: probabilities by class, one output, or a label beside probabilities."""
        values = list(row.values())
        if len(row) > 1 and _are_numbers(values) and (self._known == row.keys() or _sum_to_one(values)):
            return _best(row)
        if len(row) == 1 and depth:
            return self._answered(values[0], depth - 1)
        label = next((v for v in values if isinstance(v, str | int)), None)
        shares = next((v for v in values if isinstance(v, list) and _are_numbers(v) and len(v) > 1), None)
        if shares is not None:
            return self._named({self._prediction[0]: label, self._probabilities[0]: shares}, 1)
        found = self._scalar(label) if label is not None else {}
        return found if sure is None else {**found, "confidence": sure}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _are_numbers(values: list[Any]) -> bool:
    return all(map(_is_number, values))


def _sum_to_one(row: list[Any]) -> bool:
    return len(row) > 1 and all(0.0 <= p <= 1.0 for p in row) and abs(math.fsum(row) - 1.0) <= ROUNDING


def _largest(by_class: dict[str, Any]) -> str:
    return max(by_class, key=by_class.__getitem__)


def _best(by_class: dict[str, Any]) -> dict[str, Any]:
    """The class of the largest probability; where they are none, only they."""
    if not by_class or not _are_numbers(list(by_class.values())):
        return {"probabilities": by_class}
    best = _largest(by_class)
    return {"prediction": best, "confidence": by_class[best], "probabilities": by_class}


def _only(read: dict[str, Any]) -> dict[str, Any]:
    """The probabilities without what they say of a class: the model itself named another."""
    return {name: value for name, value in read.items() if name == "probabilities"}
