"""KServe's protocol v1, which is TensorFlow Serving's REST API: rows under `instances`, answers under `predictions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poisonwatch.errors import ProbeError
from poisonwatch.probe.client import Client
from poisonwatch.probe.template import filled, mentions, pointed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.config.endpoint import KserveV1Config
    from poisonwatch.types import Answer, Question


class KserveV1:
    """Asks all questions in one request, an instance each."""

    def __init__(self, config: KserveV1Config, model: str) -> None:
        self._config = config
        self._model = model
        self._client = Client(config, model, names_version=mentions(config.instance, "{{model_version}}"))

    def ask(self, questions: Sequence[Question], model_version: str) -> list[Answer]:
        """The answers of a version, in the order of the questions.

        Raises:
            ProbeError: when a question cannot be asked here, or the server gave anything but good answers.
        """
        if not questions:
            return []
        rows = [filled(self._config.instance, question, self._model, model_version) for question in questions]
        answer = self._client.post({"instances": rows}, model_version)
        predictions = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(predictions, list) or len(predictions) != len(questions):
            found = f"{len(predictions)} predictions" if isinstance(predictions, list) else "no list of predictions"
            msg = f"the endpoint answered {found} to {len(questions)} questions"
            raise ProbeError(msg)
        version = self._client.answered(model_version, None)
        return [pointed(prediction, self._config, version) for prediction in predictions]

    def close(self) -> None:
        """Ask nothing any more."""
        self._client.close()
