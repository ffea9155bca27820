"""Where predictions and labels come from, as the configuration says it; `kind` chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from poisonwatch.config.formats import PLAIN, FormatConfig
from poisonwatch.config.part import Part


class _SourcePart(Part):
    content: Literal["predictions", "feedback"] = Field(
        "predictions", description="Whether its records are predictions, or labels that came back."
    )
    format: FormatConfig = Field(PLAIN, description="How the log is written; a name alone, or with options.")


class FileSourceConfig(_SourcePart):
    """Log files that a server goes on writing; they are followed across rotation."""

    kind: Literal["file"] = "file"
    path: Path = Field(
        description="The file, or a glob such as logs/*.jsonl (`**` for folders); relative to the configuration file."
    )

    @property
    def name(self) -> str:
        """What the source is called in metrics and logs."""
        return str(self.path)


class StdinSourceConfig(_SourcePart):
    """Standard input, line by line."""

    kind: Literal["stdin"]

    @property
    def name(self) -> str:
        """What the source is called in metrics and logs."""
        return "stdin"


class HttpSourceConfig(_SourcePart):
    """What is posted to the agent: NDJSON, JSON or CloudEvents, plain or compressed by gzip or zstd."""

    kind: Literal["http"]
    path: str = Field(
        "/v1/predictions",
        pattern=r"^/[A-Za-z0-9._~/-]*$",
        description="Path that takes the POSTs; by convention /v1/predictions and /v1/feedback.",
    )
    token_file: Path | None = Field(
        None, description="A file with the bearer token that a POST must bring; it is read anew when it changes."
    )
    body_bytes: int = Field(
        4 << 20, ge=1024, le=1 << 28, description="Larger bodies are refused with 413, compressed or not."
    )

    @property
    def name(self) -> str:
        """What the source is called in metrics and logs."""
        return self.path

    @field_validator("path")
    @classmethod
    def _free(cls, path: str) -> str:
        if path == "/" or path.startswith(("/metrics", "/-/", "/v1/decisions", "/v1/triggers", "/v1/models")):
            msg = "this path is the agent's own: choose one like /v1/predictions"
            raise ValueError(msg)
        return path


class KafkaSourceConfig(_SourcePart):
    """A topic of Apache Kafka, or of what speaks its protocol; needs the extra `kafka`."""

    kind: Literal["kafka"]
    brokers: tuple[str, ...] = Field(min_length=1, description="HOST:PORT of brokers to begin with.")
    topic: str = Field(min_length=1, max_length=249)
    group: str = Field("poisonwatch", min_length=1, max_length=255, description="Consumer group.")
    start: Literal["earliest", "latest"] = Field("earliest", description="Where to begin without a checkpoint.")
    options: dict[str, str] = Field(
        {},
        description="Further settings of librdkafka (security.protocol, ssl.ca.location, ...), but no secrets: for these `secrets`.",
    )
    secrets: dict[str, Path] = Field(
        {}, description="Settings whose values are in files: sasl.password, ssl.key.password."
    )

    @property
    def name(self) -> str:
        """What the source is called in metrics and logs."""
        return f"kafka:{self.topic}"


def _kind(value: Any) -> Any:
    """A source without a kind is a file."""
    return {"kind": "file", **value} if isinstance(value, dict) else value


AnySource = Annotated[
    Annotated[FileSourceConfig | StdinSourceConfig | HttpSourceConfig | KafkaSourceConfig, Field(discriminator="kind")],
    BeforeValidator(_kind),
]
"""Every kind of source."""
