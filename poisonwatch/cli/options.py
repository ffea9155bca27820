"""What commands share: how an address, a URL and a file are given, and how progress is shown."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from poisonwatch.errors import PoisonwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from poisonwatch.reference.audit import Signature

T = TypeVar("T")

UNREACHABLE = 3
"""Exit code where no agent answers."""

DEFAULT_ADDRESS = "127.0.0.1:9787"

FILE = click.Path(path_type=Path, dir_okay=False)


def asked(url: str, what: str, read: Callable[[bytes], T]) -> T | None:
    """What an agent answers on `/v1/{what}`, as `read` takes it; None, said on stderr, where no agent answers."""
    from http.client import HTTPException
    from urllib.request import urlopen

    from msgspec import MsgspecError

    try:
        with urlopen(f"{url.rstrip('/')}/v1/{what}", timeout=10) as answer:  # noqa: S310 - checked with the option
            return read(answer.read())
    except (HTTPException, OSError, ValueError, MsgspecError) as error:
        click.echo(f"{url}: no answer from the agent ({error}); do not read this as healthy", err=True)
        return None


def checked_address(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """HOST:PORT as it was given; anything else is used wrongly."""
    from poisonwatch.config import split_address
    from poisonwatch.errors import ConfigError

    try:
        if value is not None:
            split_address(value)
    except ConfigError:
        msg = f"{value!r} is not HOST:PORT"
        raise click.BadParameter(msg) from None
    return value


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
    except ValueError:
        good = False
    if not good or not value.isprintable() or " " in value:
        msg = f"{value!r} is no URL of an agent: say it like http://{DEFAULT_ADDRESS}"
        raise click.BadParameter(msg)
    return value


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
