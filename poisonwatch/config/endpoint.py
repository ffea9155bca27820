"""Where and how a model can be asked, as the configuration says it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, model_validator

from poisonwatch.config.part import Part

URL_PLACEHOLDERS = frozenset(["{model}", "{model_version}"])


def _check_url(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        msg = "a URL has printable ASCII characters only: percent-encode the others"
        raise ValueError(msg)
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or (parts.port is not None and not parts.port):
        msg = "say it as http://HOST/PATH or https://HOST/PATH"
        raise ValueError(msg)
    if "@" in parts.netloc:
        msg = "no credentials in a URL: put a token into a file and name it as bearer_token_file"
        raise ValueError(msg)
    if parts.fragment or set(re.findall(r"\{[^}]*\}?|\}", parts.path + parts.query)) - URL_PLACEHOLDERS:
        msg = "a URL has no `#`, and of braces only {model} and {model_version}, in its path or query"
        raise ValueError(msg)
    if {"{", "}"} & set(parts.netloc):
        msg = "the host of a URL is fixed: {model} and {model_version} are for its path or query"
        raise ValueError(msg)
    return text


Url = Annotated[str, AfterValidator(_check_url)]


def _check_pointer(text: str) -> str:
    if not re.fullmatch(r"(/([^~/]|~[01])*)*", text):
        msg = 'say it as a JSON pointer (RFC 6901): "" for the whole, or like /predictions/0/label'
        raise ValueError(msg)
    return text


Pointer = Annotated[str, AfterValidator(_check_pointer)]

REQUEST_PLACEHOLDER = re.compile(
    r"\{\{(text|embedding|model|model_version|features(?:\.(?P<feature>.+))?)\}\}", re.DOTALL
)
"""A value of a JSON template that is replaced as a whole; `features.NAME` is one feature."""

INPUT_PLACEHOLDERS = ("{{text", "{{features", "{{embedding")


def strings_of(template: JsonValue) -> list[str]:
    """Every string value of a JSON template.

    Raises:
        ValueError: when braces stand anywhere but around a whole value that is known.
    """
    if isinstance(template, str):
        if "{{" in template and not REQUEST_PLACEHOLDER.fullmatch(template):
            msg = (
                f"{template!r} is no placeholder: a whole value may be {{{{text}}}}, {{{{features}}}}, "
                "{{features.NAME}}, {{embedding}}, {{model}} or {{model_version}}"
            )
            raise ValueError(msg)
        return [template]
    if isinstance(template, dict):
        if any("{{" in key for key in template):
            msg = "placeholders are for values, not for keys"
            raise ValueError(msg)
        return [text for value in template.values() for text in strings_of(value)]
    return [text for value in template for text in strings_of(value)] if isinstance(template, list) else []


def _check_template(template: JsonValue) -> JsonValue:
    if not any(text.startswith(INPUT_PLACEHOLDERS) for text in strings_of(template)):
        msg = 'nothing of the question is in it: put "{{text}}", "{{features}}" or "{{embedding}}" where the input goes'
        raise ValueError(msg)
    return template


Template = Annotated[JsonValue, AfterValidator(_check_template)]


class _EndpointPart(Part):
    kind: str
    url: Url | None = Field(
        None,
        description="The whole URL to post to. Where it says {model_version}, or the server's answers do, it serves "
        "every version.",
    )
    versions: dict[str, Url] = Field({}, description="The URL of each version that has one of its own.")
    timeout_seconds: float = Field(
        2.0, ge=0.05, le=60, description="For one request, from the connection to the last byte."
    )
    bearer_token_file: Path | None = Field(
        None, description="A file with a token to send; it is read anew for every request."
    )
    classes: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="The classes in the order of the server's probabilities, or of the numbers that it answers.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> _EndpointPart:
        if self.url is None and not self.versions:
            msg = "say where it is: `url` for all versions, or `versions` with a URL each"
            raise ValueError(msg)
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            msg = "classes: a class is named twice"
            raise ValueError(msg)
        return self


class TensorsConfig(Part):
    """How a question is laid out in tensors of the Open Inference Protocol."""

    text: str | None = Field(None, min_length=1, description="Name of the BYTES tensor that takes the text.")
    features: str | None = Field(None, min_length=1, description="Name of the one tensor that takes all features.")
    order: tuple[str, ...] | None = Field(
        None, min_length=1, description="The server's order of the features in that tensor, where a log names them."
    )
    tensor_per_feature: bool = Field(False, description="Each feature is a tensor of its own, named as it.")
    embedding: str | None = Field(None, min_length=1, description="Name of the tensor that takes the embedding.")
    numbers: Literal["FP32", "FP64"] = Field("FP64", description="Datatype of numbers.")

    @model_validator(mode="after")
    def _consistent(self) -> TensorsConfig:
        if self.features is not None and self.tensor_per_feature:
            msg = "features go into one tensor (`features`) or into one each (`tensor_per_feature`), not both"
            raise ValueError(msg)
        if self.order is not None and self.features is None:
            msg = "`order` is for the one tensor that `features` names"
            raise ValueError(msg)
        if not (self.text or self.features or self.tensor_per_feature or self.embedding):
            msg = "name at least one tensor: `text`, `features` or `embedding`, or say `tensor_per_feature: true`"
            raise ValueError(msg)
        return self


class OpenInferenceConfig(_EndpointPart):
    """A server of the Open Inference Protocol (v2) over REST; of MLServer, which wants content types beside."""

    kind: Literal["open_inference", "mlserver"] = Field(
        description="`open_inference`: Open Inference Protocol (v2) over REST; `mlserver`: the same with content types."
    )
    inputs: TensorsConfig = Field(description="How a question is laid out in tensors.")
    label: str | None = Field(None, min_length=1, description="Output tensor that names the class.")
    probabilities: str | None = Field(None, min_length=1, description="Output tensor of the probabilities.")

    @model_validator(mode="after")
    def _readable(self) -> OpenInferenceConfig:
        if self.label is None and self.probabilities is None:
            msg = "say which output tensor is the answer: `label`, `probabilities`, or both"
            raise ValueError(msg)
        if self.probabilities is not None and self.classes is None:
            msg = "`probabilities` needs `classes`: the classes in the order of the probabilities"
            raise ValueError(msg)
        return self


class _PointedPart(_EndpointPart):
    label: Pointer | None = Field(
        None, description='JSON pointer to the class in the answer to one question; "" is all of it.'
    )
    probabilities: Pointer | None = Field(
        None, description="JSON pointer to the probabilities: a list, or an object by class."
    )
    confidence: Pointer | None = Field(None, description="JSON pointer to the probability of the answered class.")

    @model_validator(mode="after")
    def _readable(self) -> _PointedPart:
        if self.label is None and self.probabilities is None:
            msg = "say where the answer is: `label`, `probabilities`, or both"
            raise ValueError(msg)
        if self.probabilities is not None and self.confidence is not None:
            msg = "the confidence is that of the probabilities: leave out `confidence`"
            raise ValueError(msg)
        return self


class KserveV1Config(_PointedPart):
    """A server of KServe's protocol v1, which is that of TensorFlow Serving: `instances` there, `predictions` back."""

    kind: Literal["kserve_v1"] = Field(description="`kserve_v1`: protocol v1 of KServe and TensorFlow Serving.")
    instance: Template = Field("{{features}}", description="JSON template of one instance.")


class TemplateConfig(_PointedPart):
    """Any other server that takes one question as JSON and answers with JSON."""

    kind: Literal["template"] = Field(description="`template`: any other server that takes one question as JSON.")
    request: Template = Field(description="JSON template of the body, for one question.")


EndpointConfig = Annotated[OpenInferenceConfig | KserveV1Config | TemplateConfig, Field(discriminator="kind")]
"""Where a model can be asked; `kind` says in which protocol."""
