"""How commands ask a running agent: over TLS and with credentials where it wants them."""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import click
import msgspec
from msgspec import MsgspecError

from poisonwatch.sinks.report import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


T = TypeVar("T")

LARGEST_ANSWER = 1 << 26


class _Stay(HTTPRedirectHandler):
    """An agent sends nobody elsewhere; what does is none, and is not given credentials to pass on."""

    def redirect_request(self, *_given: Any, **_named: Any) -> None:
        """No request follows."""


class Refusal(NamedTuple):
    """What an agent answers where it does not do what was ordered."""

    status: int
    error: str


def asked(url: str, what: str, read: Callable[[bytes], T], http_file: Path | None) -> T | None:
    """What an agent answers on `/v1/{what}`, as `read` takes it; None, said on stderr, where no agent answers.

    Raises:
        ConfigError: when the file that says how to ask cannot be used.
    """
    try:
        return read(_answer(Request(_place(url, what)), http_file, 10))  # noqa: S310 - checked with the option
    except (HTTPException, OSError, ValueError, MsgspecError) as error:
        _say(url, error, "do not read this as healthy")
        return None


def ordered(
    url: str, method: str, what: str, content: Mapping[str, object] | None, http_file: Path | None
) -> dict[str, Any] | Refusal | None:
    """What an agent answers to an order, or why it refuses; None, said on stderr, where no agent answers.

    Raises:
        ConfigError: when the file that says how to ask cannot be used.
    """
    body = None if content is None else msgspec.json.encode(content)
    headers = {} if content is None else {"Content-Type": "application/json"}
    request = Request(_place(url, what), body, headers, method=method)  # noqa: S310 - checked with the option
    try:
        # Longer than the agent itself waits for its loop.
        return msgspec.json.decode(_answer(request, http_file, 20), type=dict[str, Any])
    except HTTPError as error:
        if error.code != 401 and (told := _told(error)):
            return Refusal(error.code, told)
        _say(url, error, "nothing is known to have been changed: look at `poisonwatch decision`")
    except (HTTPException, OSError, ValueError, MsgspecError) as error:
        _say(url, error, "nothing is known to have been changed: look at `poisonwatch decision`")
    return None


def _place(url: str, what: str) -> str:
    return f"{url.rstrip('/')}/v1/{what}"


def _say(url: str, error: Exception, advice: str) -> None:
    hint = "; give --http.config.file with its user" if isinstance(error, HTTPError) and error.code == 401 else ""
    told = f": {why}" if isinstance(error, HTTPError) and error.code != 401 and (why := _told(error)) else ""
    click.echo(printable(f"{url}: no answer from the agent ({error}{told}{hint}); {advice}"), err=True)


def _told(error: HTTPError) -> str:
    """What an agent says of a refusal; nothing where it was no agent."""
    try:
        return str(msgspec.json.decode(error.read(LARGEST_ANSWER), type=dict[str, str]).get("error", ""))
    except (HTTPException, OSError, ValueError, MsgspecError):
        return ""


def _answer(request: Request, http_file: Path | None, seconds: float) -> bytes:
    handlers: list[Any] = [_Stay()]
    if http_file is not None:
        from poisonwatch.config.http_client import authorization_of, context_of, load_http_client

        client = load_http_client(http_file)
        # Unredirected: a proxy for plain HTTP sees it, nobody else.
        if authorization := authorization_of(client):
            request.add_unredirected_header("Authorization", authorization)
        handlers.append(HTTPSHandler(context=context_of(http_file, client)))
    with build_opener(*handlers).open(request, timeout=seconds) as answer:
        return bytes(answer.read(LARGEST_ANSWER))
