"""What a prober needs of an inference server, whatever protocol it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from poisonwatch.config.endpoint import KserveV1Config, OpenInferenceConfig
from poisonwatch.probe.kserve_v1 import KserveV1
from poisonwatch.probe.open_inference import OpenInference
from poisonwatch.probe.template import Template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.config.endpoint import EndpointConfig
    from poisonwatch.types import Answer, Question


class Endpoint(Protocol):
    """Where one model can be asked. One thread asks; another may close."""

    def ask(self, questions: Sequence[Question], model_version: str) -> list[Answer]:
        """The answers of a version, in the order of the questions; within the configured time for each request.

        Raises:
            ProbeError: on anything but good answers of that version to all questions.
        """

    def close(self) -> None:
        """End what is under way with an error, and ask nothing any more."""


def endpoint_of(config: EndpointConfig, model: str) -> Endpoint:
    """The client for a configured endpoint of a model, named as its records name it. Nothing is sent before it is asked."""
    if isinstance(config, OpenInferenceConfig):
        return OpenInference(config, model)
    return KserveV1(config, model) if isinstance(config, KserveV1Config) else Template(config, model)
