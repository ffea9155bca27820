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


AGENTS_OWN = (
    *("/metrics", "/-/", "/flagger"),
    *(
        f"/v1/{name}"
        for name in ("alerts", "decisions", "evidence", "journal", "models", "openapi.json", "overrides", "triggers")
    ),
)
"""How paths begin that the agent answers itself."""


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
        if path == "/" or path.startswith(AGENTS_OWN):
            msg = "this path is the agent's own: choose one like /v1/predictions"
            raise ValueError(msg)
        return path


_OWN_SETTINGS = frozenset(
    [
        "allow.auto.create.topics",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "group.id",
        "group.protocol",
        "metadata.broker.list",
        "partition.assignment.strategy",
    ]
)
"""Settings of librdkafka that exact counts hang on, or that have a place of their own."""

_RUNS_CODE = frozenset(["plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers"])
_SECRET = ("password", "secret", "ssl.key.pem", "sasl.oauthbearer.config", "private.key.pem")


class KafkaSourceConfig(_SourcePart):
    """A topic of Apache Kafka, or of what speaks its protocol; needs the extra `kafka`."""

    kind: Literal["kafka"]
    brokers: tuple[str, ...] = Field(min_length=1, description="HOST:PORT of brokers to begin with.")
    topic: str = Field(
        min_length=1,
        max_length=249,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="The topic; each partition is read in its own order.",
    )
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

    @field_validator("options")
    @classmethod
    def _allowed(cls, options: dict[str, str]) -> dict[str, str]:
        for name in options:
            if any(part in name for part in _SECRET):
                msg = f"{name} is a secret: put it into a file and name that under secrets"
                raise ValueError(msg)
        return cls._harmless(options)

    @field_validator("secrets")
    @classmethod
    def _harmless(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name in settings:
            if name in _OWN_SETTINGS:
                msg = f"{name} is not to be set here: the agent needs it as it is, or has a key of its own for it"
                raise ValueError(msg)
            if name in _RUNS_CODE:
                msg = f"{name} runs code that a configuration must not bring along"
                raise ValueError(msg)
        return settings


def _kind(value: Any) -> Any:
    """A source without a kind is a file."""
    return {"kind": "file", **value} if isinstance(value, dict) else value


AnySource = Annotated[
    Annotated[FileSourceConfig | StdinSourceConfig | HttpSourceConfig | KafkaSourceConfig, Field(discriminator="kind")],
    BeforeValidator(_kind),
]
"""Every kind of source."""
