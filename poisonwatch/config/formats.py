"""In which format a log is written, as the configuration says it; `kind` chooses."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from poisonwatch.config.part import Part

Names = tuple[Annotated[str, Field(min_length=1, max_length=256)], ...]


NATIVE = (
    *("timestamp", "prediction", "prediction_id", "request_id", "inference_id", "model", "model_version"),
    *("features", "text", "embedding", "confidence", "probabilities", "scores", "segment", "label", "source"),
    *("latency_ms", "attributes"),
)
"""Fields that a log of another shape may have elsewhere."""

_PATH = re.compile(r"(?:[^.\\]|\\.)+(?:\.(?:[^.\\]|\\.)+)*", re.DOTALL)


def _zone(name: str) -> str:
    try:
        if name != "UTC":
            ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"{name!r} is no time zone that is known here: write one such as Europe/Berlin, or install the package tzdata"
        raise ValueError(msg) from None
    return name


Zone = Annotated[str, AfterValidator(_zone)]


class _FormatPart(Part):
    kind: str
    model: str | None = Field(
        None, min_length=1, max_length=128, description="Model of all records, where the log names none, or another."
    )
    model_version: str | None = Field(
        None, min_length=1, max_length=128, description="Version of the records for which the log names none."
    )


class NativeConfig(_FormatPart):
    """JSON lines; with `fields`, of any shape."""

    kind: Literal["native"] = "native"
    fields: dict[str, str] = Field(
        {},
        description="Where a native field is in the log, as a dotted path: `prediction: response.class`. Keys of one feature are "
        "written like `features.age`. Fields that are not named keep their native place.",
    )
    timezone: Zone = Field(
        "UTC",
        description="IANA zone of timestamps that name none; in a plain native log (no `fields`, UTC) these are rejected.",
    )

    @field_validator("fields")
    @classmethod
    def _known(cls, fields: dict[str, str]) -> dict[str, str]:
        for field, path in fields.items():
            if field not in NATIVE and not (field.startswith("features.") and field != "features."):
                msg = f"{field!r} is no field of a native record: choose among {', '.join(NATIVE)} and features.NAME"
                raise ValueError(msg)
            if not _PATH.fullmatch(path):
                msg = f"{field}: {path!r} is no dotted path such as `response.outputs.0.label`; a dot in a key is written `\\.`"
                raise ValueError(msg)
        return fields


PLAIN = NativeConfig()
"""How a log is written where nothing else is said."""


class _RowsPart(_FormatPart):
    """Formats whose inputs and outputs are rows that the model's author shaped."""

    features: Names = Field((), description="Names of the features, in order, where the log gives them by position.")
    text: str | None = Field(None, description="Name of the input that is the text.")
    embedding: str | None = Field(None, description="Name of the input that is the embedding.")
    classes: Names = Field(
        (), description="Classes in the order of the model's probabilities, or of the numbers that it answers."
    )
    prediction: str | None = Field(
        None, description="Name of the output that is the class; by default the usual names are tried."
    )
    confidence: str | None = Field(None, description="Name of the output that is the confidence.")
    probabilities: str | None = Field(None, description="Name of the output that is the probabilities.")

    @model_validator(mode="after")
    def _distinct(self) -> _RowsPart:
        for name in ("features", "classes"):
            given = getattr(self, name)
            if len(set(given)) != len(given):
                msg = f"{name}: one is named twice"
                raise ValueError(msg)
        return self


class _PairedPart(_RowsPart):
    """Formats in which request and response arrive apart."""

    pair_seconds: float = Field(
        300.0, ge=1, le=86400, description="How long one half of a prediction waits for the other."
    )


class KserveConfig(_PairedPart):
    """KServe's payload logger: CloudEvents with v1 or v2 bodies, over HTTP or as its store writes them."""

    kind: Literal["kserve"] = "kserve"
    version_annotation: str | None = Field(
        None, description="Annotation of the inference service that names the model's version."
    )
    version_from_endpoint: bool = Field(
        False,
        description="Whether the event's `endpoint` (default, canary) is the version where nothing else names one.",
    )


class OpenInferenceLogConfig(_PairedPart):
    """Requests and responses of the Open Inference Protocol (v2), apart or as `request` and `response` of one object."""

    kind: Literal["open_inference"] = "open_inference"


class SagemakerConfig(_RowsPart):
    """SageMaker data capture; the variant in the path is the version."""

    kind: Literal["sagemaker"] = "sagemaker"


class AzureConfig(_PairedPart):
    """Azure ML data collector: what it posts, or the blobs that it writes."""

    kind: Literal["azure"] = "azure"


class BentomlConfig(_RowsPart):
    """BentoML monitoring logs."""

    kind: Literal["bentoml"] = "bentoml"
    timezone: Zone = Field("UTC", description="IANA zone of the server's clock: its files name none.")
    prediction_id: str | None = Field(
        None,
        description="Name of the column that is the prediction's own id; without, it is that of the request, numbered from its second row on.",
    )


class MlflowConfig(_RowsPart):
    """Inference tables of MLflow and Databricks: requests and responses as JSON text."""

    kind: Literal["mlflow"] = "mlflow"


class SeldonConfig(_PairedPart):
    """Seldon Core's request logger: request, response and feedback as CloudEvents."""

    kind: Literal["seldon"] = "seldon"


def _named(value: Any) -> Any:
    """`format: kserve` is short for `format: {kind: kserve}`; a mapping without a kind is native."""
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "native", **value} if isinstance(value, dict) else value


FormatConfig = Annotated[
    Annotated[
        NativeConfig
        | KserveConfig
        | OpenInferenceLogConfig
        | SagemakerConfig
        | AzureConfig
        | BentomlConfig
        | MlflowConfig
        | SeldonConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_named),
]
"""How a log is written."""
