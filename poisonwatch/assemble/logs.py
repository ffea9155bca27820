"""From how the configuration says that logs are written to what reads them."""

from __future__ import annotations

import re
import sys
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from poisonwatch.config.formats import (
    PLAIN,
    AzureConfig,
    BentomlConfig,
    KserveConfig,
    MlflowConfig,
    NativeConfig,
    OpenInferenceLogConfig,
    SagemakerConfig,
    SeldonConfig,
)
from poisonwatch.config.sources import FileSourceConfig, HttpSourceConfig, KafkaSourceConfig, StdinSourceConfig
from poisonwatch.errors import ConfigError
from poisonwatch.formats.azure import Azure
from poisonwatch.formats.bentoml import Bentoml
from poisonwatch.formats.decoding import Foreign, Native
from poisonwatch.formats.events import Block
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.jsonl import JsonlFeedback, JsonlPredictions
from poisonwatch.formats.kserve import Kserve
from poisonwatch.formats.mapping import Mapped
from poisonwatch.formats.mlflow import Mlflow
from poisonwatch.formats.open_inference import OpenInference
from poisonwatch.formats.sagemaker import Sagemaker
from poisonwatch.formats.seldon import Seldon
from poisonwatch.reference.logs import native
from poisonwatch.server.ingest import Door, Token
from poisonwatch.sources.files import FilesSource
from poisonwatch.sources.intake import Feed
from poisonwatch.sources.log import blocks
from poisonwatch.sources.spool import Spool
from poisonwatch.sources.stdin import StdinSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from poisonwatch.config import Config, LimitsConfig
    from poisonwatch.config.formats import FormatConfig
    from poisonwatch.config.sources import AnySource
    from poisonwatch.formats.foreign import Format
    from poisonwatch.reference.logs import Read
    from poisonwatch.sources.intake import BlockDecoder
    from poisonwatch.types import Schema


class Opened(NamedTuple):
    """The configured sources, ready to be read, and the doors through which what is pushed comes in."""

    feeds: list[Feed]
    doors: list[Door]


def open_sources(config: Config, schemas: dict[str, Schema]) -> Opened:
    """Everything that records come from.

    Raises:
        ConfigError: when a token cannot be read.
        StateError: when another agent has a spool.
        MissingExtraError: when a kind of source needs a package that is not installed.
    """
    feeds, doors = [], []
    for source in config.sources:
        decoder = decoder_of(source.format, source.content, schemas, config.limits, _most_bytes(source, config.limits))
        match source:
            case FileSourceConfig():
                feeds.append(Feed(source.name, FilesSource(source.path, config.limits.line_bytes), decoder))
            case HttpSourceConfig():
                token = _token(source.token_file) if source.token_file is not None else None
                spool = _spool(config, source.name)
                doors.append(Door(source.path, spool, token, source.body_bytes))
                feeds.append(Feed(source.name, spool, decoder))
            case StdinSourceConfig():
                feeds.append(
                    Feed(
                        source.name,
                        StdinSource(_spool(config, source.name), sys.stdin.buffer, config.limits.line_bytes),
                        decoder,
                    )
                )
            case KafkaSourceConfig():
                from poisonwatch.sources.kafka import KafkaSource  # noqa: PLC0415 - an extra

                feeds.append(Feed(source.name, KafkaSource(source), decoder))
            case _:
                assert_never(source)
    return Opened(feeds, doors)


def written_in(config: Config) -> FormatConfig:
    """The one format in which the configuration's logs of predictions are written.

    Raises:
        ConfigError: when there are several.
    """
    first, *others = (source.format for source in config.sources if source.content == "predictions")
    if any(other != first for other in others):
        msg = "sources: their predictions are written in several formats: give a configuration with one, or --format"
        raise ConfigError(msg)
    return first


def _most_bytes(source: AnySource, limits: LimitsConfig) -> int:
    """Of a body when it is unpacked."""
    return source.body_bytes if isinstance(source, HttpSourceConfig) else limits.line_bytes


def _token(path: Path) -> Token:
    try:
        empty = not path.read_bytes().strip()
    except OSError as error:
        msg = f"sources: token_file: {path} cannot be read ({error.strerror}): nobody could push anything"
        raise ConfigError(msg) from None
    if empty:
        msg = f"sources: token_file: {path} is empty: nobody could push anything"
        raise ConfigError(msg)
    return Token(path)


def _spool(config: Config, name: str) -> Spool:
    if config.state.spool is None:
        msg = f"sources: {name} needs `state.spool`"
        raise ConfigError(msg)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    # Different paths may read the same without their punctuation.
    folder = config.state.spool / f"{readable}-{zlib.crc32(name.encode()):08x}"
    return Spool(folder, config.limits.spool_bytes, name=name)


def decoder_of(
    written: FormatConfig, content: str, schemas: dict[str, Schema], limits: LimitsConfig, most_bytes: int
) -> BlockDecoder:
    """What reads a log that is written so."""
    predictions, labels = JsonlPredictions(schemas, limits.line_bytes), JsonlFeedback(limits.line_bytes)
    format_ = _format(written, content, limits, most_bytes)
    if format_ is None:
        return Native(labels if content == "feedback" else predictions, most_bytes)
    return Foreign(Translator(format_), predictions, labels)


def reader_of(written: FormatConfig, limits: LimitsConfig) -> Read:
    """How finished logs that are written so are read for a reference."""
    if _format(written, "predictions", limits, limits.line_bytes) is None:
        return native

    def read(
        paths: Sequence[Path], longest: int, progress: Callable[[int], None] | None, /
    ) -> Iterator[tuple[bytes, dict[str, int]]]:
        format_ = _format(written, "predictions", limits, limits.line_bytes)
        assert format_ is not None  # noqa: S101 - it was none a line above
        translator = Translator(format_)
        for path in paths:
            for block in finite(path, written, longest, progress):
                told = translator.translate(block)
                yield told.records, dict(told.lost.rejected)
        told = translator.flush()
        yield told.records, dict(told.lost.rejected)

    return read


PAIRED: dict[type, Callable[[Any, int, int], Format]] = {
    KserveConfig: Kserve,
    SeldonConfig: Seldon,
    OpenInferenceLogConfig: OpenInference,
    AzureConfig: Azure,
}
"""Formats in which the halves of a prediction come apart."""

WHOLE: dict[type, Callable[[Any, int], Format]] = {
    SagemakerConfig: Sagemaker,
    BentomlConfig: Bentoml,
    MlflowConfig: Mlflow,
}
"""Formats in which a prediction is told at once."""


def finite(path: Path, written: FormatConfig, longest: int, progress: Callable[[int], None] | None) -> Iterator[Block]:
    """The blocks of a finished log that is written so."""
    # A mapping says where fields are, a format of its own has columns of its own; only native tables have native columns.
    native_columns = isinstance(written, NativeConfig) and not written.fields
    for lines in blocks(path, longest, progress, native=native_columns):
        yield Block(lines, origin=str(path))


def _format(written: FormatConfig, content: str, limits: LimitsConfig, most_bytes: int) -> Format | None:
    """The format, or None for native lines as they are."""
    if isinstance(written, NativeConfig):
        if written == PLAIN:
            return None
        named = {"model": written.model, "model_version": written.model_version}
        return Mapped(written.fields, written.timezone, most_bytes, **named, feedback=content == "feedback")
    if type(written) in PAIRED:
        return PAIRED[type(written)](written, most_bytes, limits.waiting_bytes)
    return WHOLE[type(written)](written, most_bytes)
