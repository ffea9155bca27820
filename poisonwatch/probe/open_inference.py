"""The Open Inference Protocol, version 2, over REST; MLServer speaks it with content types beside.

Sources: the protocol's specification (kserve/open-inference-protocol) and MLServer's documentation of content types.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from poisonwatch.errors import ProbeError
from poisonwatch.probe.client import Client
from poisonwatch.probe.reading import answer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from poisonwatch.config.endpoint import OpenInferenceConfig
    from poisonwatch.types import Answer, Question

DEEPEST = 8
"""Dimensions that the data of a tensor may be nested in."""


class OpenInference:
    """Asks all questions in one request, each a row of every tensor."""

    def __init__(self, config: OpenInferenceConfig, model: str) -> None:
        self._config = config
        self._typed = config.kind == "mlserver"
        self._client = Client(config, model)

    def ask(self, questions: Sequence[Question], model_version: str) -> list[Answer]:
        """The answers of a version, in the order of the questions.

        Raises:
            ProbeError: when a question cannot be asked here, or the server gave anything but good answers.
        """
        if not questions:
            return []
        answer = self._client.post(self.request(questions), model_version)
        said = answer.get("model_version") if isinstance(answer, dict) else None
        if not isinstance(answer, dict) or not isinstance(said, str | None):
            msg = "the endpoint's answer is none of the Open Inference Protocol"
            raise ProbeError(msg)
        version = self._client.answered(model_version, said)
        count = len(questions)
        labels = [None] * count if self._config.label is None else _rows(answer, self._config.label, count, single=True)
        probabilities = (
            [None] * count
            if self._config.probabilities is None
            else _rows(answer, self._config.probabilities, count, single=False)
        )
        return [
            answer_of(label, row, None, self._config.classes, version)
            for label, row in zip(labels, probabilities, strict=True)
        ]

    def request(self, questions: Sequence[Question]) -> dict[str, Any]:
        """The document that asks the questions (n,): tensors of shape [n, width].

        Raises:
            ProbeError: when a question lacks what a tensor needs.
        """
        inputs = self._config.inputs
        tensors = []
        if inputs.text is not None:
            tensors.append(self._tensor(inputs.text, [[_text(question)] for question in questions]))
        if inputs.features is not None:
            tensors.append(self._numbers(inputs.features, [_row(question, inputs.order) for question in questions]))
        if inputs.tensor_per_feature:
            tensors += self._by_feature(questions)
        if inputs.embedding is not None:
            tensors.append(self._numbers(inputs.embedding, [_embedding(question) for question in questions]))
        outputs = [name for name in (self._config.label, self._config.probabilities) if name is not None]
        document: dict[str, Any] = {"inputs": tensors, "outputs": [{"name": name} for name in outputs]}
        if self._typed and inputs.tensor_per_feature:
            document["parameters"] = {"content_type": "pd"}
        return document

    def close(self) -> None:
        """Ask nothing any more."""
        self._client.close()

    def _by_feature(self, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
        rows = [_named(question) for question in questions]
        if len({frozenset(row) for row in rows}) != 1:
            msg = "the questions have different features: they cannot be asked in one request"
            raise ProbeError(msg)
        for name in rows[0]:
            yield self._tensor(name, [[row[name]] for row in rows])

    def _numbers(self, name: str, rows: list[list[float | None]]) -> dict[str, Any]:
        if len({len(row) for row in rows}) != 1:
            msg = f"the questions give tensor {name!r} rows of different widths"
            raise ProbeError(msg)
        return self._tensor(name, rows)

    def _tensor(self, name: str, rows: Sequence[Sequence[float | str | bool | None]]) -> dict[str, Any]:
        data = [value for row in rows for value in row]
        datatype = self._datatype(name, data)
        tensor: dict[str, Any] = {"name": name, "shape": [len(rows), len(rows[0])], "datatype": datatype, "data": data}
        if self._typed:
            tensor["parameters"] = {"content_type": "str" if datatype == "BYTES" else "np"}
        return tensor

    def _datatype(self, name: str, data: Sequence[float | str | bool | None]) -> str:
        kinds = {_kind(value) for value in data if value is not None}
        if len(kinds) > 1:
            msg = f"tensor {name!r} would hold {' and '.join(sorted(kinds))}: a tensor has one datatype"
            raise ProbeError(msg)
        return {"text": "BYTES", "booleans": "BOOL"}.get(next(iter(kinds), "numbers"), self._config.inputs.numbers)


def _kind(value: float | str | bool) -> str:  # noqa: FBT001 - a value of JSON
    if isinstance(value, str):
        return "text"
    return "booleans" if isinstance(value, bool) else "numbers"


def _text(question: Question) -> str:
    if question.text is None:
        msg = "a question without text cannot be asked where the model takes text"
        raise ProbeError(msg)
    return question.text


def _embedding(question: Question) -> list[float | None]:
    if question.embedding is None:
        msg = "a question without embedding cannot be asked where the model takes one"
        raise ProbeError(msg)
    return [*question.embedding]


def _named(question: Question) -> dict[str, float | str | bool | None]:
    if not isinstance(question.features, dict) or not question.features:
        msg = "a question without named features cannot be asked where each feature is a tensor"
        raise ProbeError(msg)
    return question.features


def _row(question: Question, order: tuple[str, ...] | None) -> list[float | None]:
    """The features of a question as one row of numbers."""
    features = question.features
    if isinstance(features, dict):
        if order is None:
            msg = "the features have names: say the server's order of them under `inputs.order`"
            raise ProbeError(msg)
        if lacking := [name for name in order if name not in features]:
            msg = f"`inputs.order` names features that a question has not: {', '.join(lacking)[:200]}"
            raise ProbeError(msg)
        row = [features[name] for name in order]
        numbers = [value for value in row if value is None or isinstance(value, float | int)]
        if len(numbers) < len(row):
            msg = "features that are text do not fit into one tensor of numbers: say `tensor_per_feature: true`"
            raise ProbeError(msg)
        return numbers
    if features is None:
        msg = "a question without features cannot be asked where the model takes them"
        raise ProbeError(msg)
    return features


def _rows(answer: dict[str, Any], name: str, count: int, *, single: bool) -> list[Any]:
    """The rows (count,) of an output tensor: a single value each, or a list.

    Raises:
        ProbeError: when there is no such tensor, or it does not hold what its shape says.
    """
    outputs = answer.get("outputs")
    tensors = [one for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
    found = [one for one in tensors if one.get("name") == name]
    if len(found) != 1:
        has = ", ".join(repr(one.get("name")) for one in tensors)[:200] or "none"
        msg = f"the endpoint's answer has {len(found)} output tensors {name!r}; it has {has}"
        raise ProbeError(msg)
    shape, data = found[0].get("shape"), found[0].get("data")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape) or not shape:
        msg = f"the endpoint's tensor {name!r} has no shape"
        raise ProbeError(msg)
    flat = list(_flat(data, DEEPEST)) if isinstance(data, list) else []
    if shape[0] != count or len(flat) != math.prod(shape) or len(flat) % count or (single and len(flat) != count):
        msg = f"the endpoint's tensor {name!r} has shape {shape} and {len(flat)} values for {count} questions"
        raise ProbeError(msg)
    if single:
        return flat
    width = len(flat) // count
    return [flat[row * width : (row + 1) * width] for row in range(count)]


def _flat(data: list[Any], depth: int) -> Iterator[Any]:
    for value in data:
        if not isinstance(value, list):
            yield value
        elif depth:
            yield from _flat(value, depth - 1)
        else:
            msg = "the endpoint's tensor is nested too deeply"
            raise ProbeError(msg)
