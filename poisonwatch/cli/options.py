"""What commands share: how an address, a URL and a file are given, and how progress is shown."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poisonwatch.errors import PoisonwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from poisonwatch.config import Config
    from poisonwatch.config.formats import FormatConfig
    from poisonwatch.reference.audit import Signature

UNREACHABLE = 3
"""Exit code where no agent answers."""

DEFAULT_ADDRESS = "127.0.0.1:9787"

DATA = 65
"""Exit code where what was given to a command is wrong."""

FILE = click.Path(path_type=Path, dir_okay=False)

HTTP_FILE = click.option(
    "--http.config.file",
    "http_file",
    type=FILE,
    envvar="POISONWATCH_HTTP_CONFIG_FILE",
    help="How to ask a protected agent: CA, certificate, password or token, in the format of `promtool --http.config.file`.",
)


def checked_address(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """HOST:PORT as it was given; anything else is used wrongly."""
    from poisonwatch.config.web import split_address
    from poisonwatch.errors import ConfigError

    try:
        if value is not None:
            split_address(value)
    except ConfigError:
        msg = f"{value!r} is not HOST:PORT"
        raise click.BadParameter(msg) from None
    return value


WRITTEN = click.option(
    "--format",
    "written",
    metavar="NAME",
    callback=lambda _context, _option, value: checked_format(value),
    help="How the logs are written: native (as the default), kserve, open_inference, sagemaker, azure, bentoml, mlflow, seldon. "
    "Where a format needs more said, say it in a configuration and give --config.",
)
"""The option for logs that are no native ones."""


def checked_format(value: str | None) -> FormatConfig | None:
    """A format by its name alone; anything else is used wrongly."""
    from pydantic import TypeAdapter, ValidationError

    from poisonwatch.config.formats import FormatConfig

    try:
        return None if value is None else TypeAdapter[FormatConfig](FormatConfig).validate_python(value)
    except ValidationError:
        msg = f"{value!r} is no format of a log"
        raise click.BadParameter(msg) from None


def format_of(written: FormatConfig | None, config: Config | None) -> FormatConfig:
    """The format of logs: by its name, or that of the configuration's own logs of predictions."""
    from poisonwatch.assemble.logs import written_in
    from poisonwatch.config.formats import PLAIN

    if written is not None and config is not None:
        msg = "--format and --config both say how the logs are written: give one"
        raise click.UsageError(msg)
    return written or (PLAIN if config is None else written_in(config))


def checked_signature(_context: click.Context, _option: click.Parameter, value: str | None) -> Signature | None:
    """Who accepts a suspect reference, and why, as `NAME: REASON`."""
    from poisonwatch.reference.audit import Signature

    try:
        return None if value is None else Signature.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def checked_url(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """The URL of an agent as it was given; anything else is used wrongly."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        told = "@" in parts.netloc
    except ValueError:
        good = told = False
    if told:
        msg = "no credentials in a URL: put them into a file and name it with --http.config.file"
        raise click.BadParameter(msg)
    if not good or not value.isprintable() or " " in value:
        msg = f"{value!r} is no URL of an agent: say it like http://{DEFAULT_ADDRESS}"
        raise click.BadParameter(msg)
    return value


URL = click.option(
    "--url",
    default=f"http://{DEFAULT_ADDRESS}",
    show_default=True,
    callback=checked_url,
    help="Where the agent listens.",
)
"""The option for the agent that is asked."""


def check_output(option: str, path: Path | None, inputs: Sequence[Path]) -> None:
    """Refuse, before the work, an output that would overwrite an input or could not be written after it."""
    if path is None:
        return
    taken = next((given for given in inputs if _same_file(path, given)), None)
    if taken is not None:
        msg = f"{option} {path} would overwrite {taken}: name another file"
        raise click.UsageError(msg)
    if path.is_dir():
        problem = "this is a folder: name a file in it"
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}: make it, or name a file elsewhere"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        problem = "this cannot be written: allow it, or name a file elsewhere"
    else:
        return
    msg = f"{option} {path}: {problem}"
    raise PoisonwatchError(msg)


def _same_file(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


@contextmanager
def progress(label: str, files: Sequence[Path]) -> Iterator[Callable[[int], None] | None]:
    """A bar over the bytes of the files, on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    length = sum(file.stat().st_size for file in files if file.is_file())
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update
