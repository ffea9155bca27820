"""What is posted to the agent goes to a spool as it came, and is acknowledged when it is safe on disk.

Nothing is unpacked or parsed here: KServe's logger has no retry and piles up behind a slow sink, and a body that cannot be
read is counted where it is read. 200 is the only answer that it takes for delivery.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.errors import SpoolFullError
from poisonwatch.formats.events import Event

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from starlette.requests import Request

BODY_SECONDS = 30.0
"""How long a whole body may take."""

MOST_IN_FLIGHT = 64 << 20
"""Bytes of bodies that are held at once, over all connections; the copies on their way to the disk come on top."""

RETRY_SECONDS = 5
"""When to come again after trouble with the disk."""

KEPT = frozenset(["content-type", "content-encoding", "inference-header-content-length", "traceparent", "x-request-id"])
"""Headers that formats read, beside those of CloudEvents."""

KEPT_PREFIX = "ce-"
MOST_HEADERS = 64
LONGEST_NAME = 128
LONGEST_VALUE = 4096
LONGEST_CUT = 256
"""Headers of CloudEvents that are kept, and characters of each; of a longer value so many are kept, with a hash of all.
KServe's annotations are among them, as JSON."""

_WRITERS = 32
"""Threads that wait for the disk; those that wait at the same time go to disk together."""


class Store(Protocol):
    """Where events are kept: a spool. The loop reads why bodies were `refused`, and what was at fault in those that were not."""

    refused: Counter[str]
    faults: Counter[str]

    def append(self, events: Sequence[Event]) -> None:
        """Put events on disk; they are safe when this returns.

        Raises:
            SpoolFullError: when there is no room.
            OSError: when the disk refuses.
        """
        ...


class Token:
    """A bearer token that a request must bring, from a file that is read anew when it changes.

    While the file cannot be read, or is empty, nobody is let in: that is how a token is withdrawn.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[int, int, int] | None = None
        self._secret = b""

    def fits(self, authorization: str) -> bool:
        """Is the value of an Authorization header this token? Compared in constant time."""
        self._renew()
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._secret)
        return same and scheme.lower() == "bearer" and bool(self._secret)

    def _renew(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - once a request
            now = (status.st_mtime_ns, status.st_ino, status.st_size)
            if now != self._known:
                self._secret = self._path.read_bytes().strip()
                self._known = now
        except OSError:
            self._secret, self._known = b"", None


@dataclass(frozen=True, slots=True)
class Door:
    """A path that takes POSTs, and what it asks of them."""

    path: str
    spool: Store
    token: Token | None
    body_bytes: int


class _Refused(Exception):  # noqa: N818 - an answer, no error
    """A body that is not stored: how it is counted and answered."""

    def __init__(self, reason: str, status: int, error: str, **headers: str) -> None:
        self.reason, self.status, self.error, self.headers = reason, status, error, headers


class _InFlight:
    """Bytes of all bodies that are held; only the server's thread counts them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def share(self) -> Iterator[_Share]:
        """What one body holds, given back at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self._held -= share.size

    def take(self, count: int) -> bool:
        """May `count` more bytes be held?"""
        if self._held + count > self._most:
            return False
        self._held += count
        return True


class _Share:
    def __init__(self, all_: _InFlight) -> None:
        self._all = all_
        self.size = 0

    def take(self, count: int) -> None:
        """Hold `count` more bytes.

        Raises:
            _Refused: when others hold too many.
        """
        if not self._all.take(count):
            raise _Refused(
                "too_many_in_flight",
                503,
                "too many bodies are under way: come again",
                **{"Retry-After": "1", "Connection": "close"},
            )
        self.size += count


def routes(
    doors: Sequence[Door], most_in_flight: int = MOST_IN_FLIGHT, body_seconds: float = BODY_SECONDS
) -> list[Route]:
    """A route for each door. Bodies of all of them together hold at most `most_in_flight` bytes."""
    in_flight = _InFlight(max(most_in_flight, *(2 * door.body_bytes for door in doors), 0))
    writers = ThreadPoolExecutor(_WRITERS, "poisonwatch-spool")
    return [_route(door, in_flight, writers, body_seconds) for door in doors]


def _route(door: Door, in_flight: _InFlight, writers: ThreadPoolExecutor, body_seconds: float) -> Route:
    async def post(request: Request) -> Response:
        try:
            _admit(door, request)
            with in_flight.share() as share:
                event = await _received(door, request, share, body_seconds)
                await _stored(door, event, writers)
        except _Refused as refused:
            door.spool.refused[refused.reason] += 1
            return _json({"error": refused.error}, refused.status, refused.headers)
        return _json({"stored": len(event.body)})

    return Route(door.path, post, methods=["POST"])


def _admit(door: Door, request: Request) -> None:
    """Who is it, and how much does he bring?

    Raises:
        _Refused: before a byte of the body is read.
    """
    if door.token is not None and not door.token.fits(request.headers.get("authorization", "")):
        raise _Refused(
            "unauthorized", 401, "a bearer token is needed", **{"WWW-Authenticate": "Bearer", "Connection": "close"}
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > door.body_bytes:
        raise _too_large(door)


def _too_large(door: Door) -> _Refused:
    return _Refused(
        "body_too_large", 413, f"bodies may have {door.body_bytes} bytes: send smaller batches", Connection="close"
    )


async def _received(door: Door, request: Request, share: _Share, body_seconds: float) -> Event:
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(body_seconds):
            async for part in request.stream():
                share.take(len(part))
                if share.size > door.body_bytes:
                    raise _too_large(door)
                parts.append(part)
    except TimeoutError:
        raise _Refused(
            "body_too_slow", 408, f"the body took longer than {body_seconds:g} seconds", Connection="close"
        ) from None
    except ClientDisconnect:
        raise _Refused("disconnected", 400, "the body was not sent to its end") from None
    body = b"".join(parts)
    if not body:
        raise _Refused("empty_body", 400, "the body is empty")
    return Event(body, _headers(door, request), time.time(), door.path)


def _headers(door: Door, request: Request) -> dict[str, str]:
    """What formats need of the headers. What is odd about one costs that one, not the body: else it would be a way to hide."""
    kept: dict[str, str] = {}
    crowd = 0
    for name, value in request.headers.items():
        if name not in KEPT and not name.startswith(KEPT_PREFIX):
            continue
        crowd += name not in KEPT
        crowded_out = crowd > MOST_HEADERS and name not in KEPT
        if name in kept or crowded_out or len(name) > LONGEST_NAME:
            door.spool.faults["header_dropped"] += 1
            continue
        kept[name] = value if len(value) <= LONGEST_VALUE else _cut(value)
    return kept


def _cut(value: str) -> str:
    """The beginning of a long value, and a hash of all of it: an id that is long on purpose still joins what belongs together."""
    return f"{value[:LONGEST_CUT]}~{hashlib.blake2b(value.encode(), digest_size=8).hexdigest()}"


async def _stored(door: Door, event: Event, writers: ThreadPoolExecutor) -> None:
    """Return when the event is safe.

    Raises:
        _Refused: when it is not stored at all.
    """
    try:
        await asyncio.get_running_loop().run_in_executor(writers, door.spool.append, [event])
    except SpoolFullError as full:
        raise _Refused("spool_full", 429, str(full), **{"Retry-After": str(full.retry_after)}) from None
    except OSError as error:
        raise _Refused(
            "spool_failed",
            503,
            f"the disk refuses ({error.strerror}): come again",
            **{"Retry-After": str(RETRY_SECONDS)},
        ) from None


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")
