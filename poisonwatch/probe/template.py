"""JSON templates: placeholders are whole values and are replaced as values, so that no input can change the request's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poisonwatch.config.endpoint import REQUEST_PLACEHOLDER
from poisonwatch.errors import ProbeError
from poisonwatch.probe.client import Client
from poisonwatch.probe.reading import answer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.config.endpoint import KserveV1Config, TemplateConfig
    from poisonwatch.types import Answer, Question


class Template:
    """Asks any server that takes JSON, one question a request."""

    def __init__(self, config: TemplateConfig, model: str) -> None:
        self._config = config
        self._model = model
        self._client = Client(config, model, names_version=mentions(config.request, "{{model_version}}"))

    def ask(self, questions: Sequence[Question], model_version: str) -> list[Answer]:
        """The answers of a version, in the order of the questions; each has the whole timeout.

        Raises:
            ProbeError: when a question cannot be asked here, or the server gave anything but good answers.
        """
        answers = []
        for question in questions:
            document = filled(self._config.request, question, self._model, model_version)
            answer = self._client.post(document, model_version)
            answers.append(pointed(answer, self._config, self._client.answered(model_version, None)))
        return answers

    def close(self) -> None:
        """Ask nothing any more."""
        self._client.close()


def mentions(template: Any, text: str) -> bool:
    """Whether a template has this string among its values."""
    if isinstance(template, dict):
        return any(mentions(value, text) for value in template.values())
    if isinstance(template, list):
        return any(mentions(value, text) for value in template)
    return bool(template == text)


def filled(template: Any, question: Question, model: str, model_version: str) -> Any:
    """A template with its placeholders replaced.

    Raises:
        ProbeError: when the question lacks what a placeholder stands for.
    """
    if isinstance(template, dict):
        return {key: filled(value, question, model, model_version) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(value, question, model, model_version) for value in template]
    found = REQUEST_PLACEHOLDER.fullmatch(template) if isinstance(template, str) else None
    if found is None:
        return template
    if (name := found["feature"]) is not None:
        features = question.features if isinstance(question.features, dict) else {}
        if name not in features:
            msg = f"a question has no feature {name!r}, for which the template asks"
            raise ProbeError(msg)
        return features[name]
    value = {
        "text": question.text,
        "features": question.features,
        "embedding": question.embedding,
        "model": model,
        "model_version": model_version,
    }[found[1]]
    if value is None:
        msg = f"a question has no {found[1]}, for which the template asks"
        raise ProbeError(msg)
    return value


def pointed(answer: Any, config: TemplateConfig | KserveV1Config, version: str | None) -> Answer:
    """What the pointers of a configuration find in the answer to one question.

    Raises:
        ProbeError: when they find no class and no probabilities.
    """
    label, probabilities, confidence = (
        None if pointer is None else at(answer, pointer)
        for pointer in (config.label, config.probabilities, config.confidence)
    )
    return answer_of(label, probabilities, confidence, config.classes, version)


def at(document: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points to.

    Raises:
        ProbeError: when there is nothing, or null.
    """
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isascii() and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        msg = f"the endpoint's answer has nothing at {pointer!r}"
        raise ProbeError(msg)
    return found
