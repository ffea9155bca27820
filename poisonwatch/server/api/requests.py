"""A request to the API, and how it is refused."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from starlette.requests import ClientDisconnect, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope

    from poisonwatch.sinks.snapshot import Snapshot

STALE = 60.0
"""Seconds without a turn of the loop after which the agent calls itself unhealthy, and withholds what it said before."""

MOST_BODY = 64 << 10
"""Bytes of a body."""

BODY_SECONDS = 10.0
"""How long a whole body may take."""

MOST_PARAMETERS = 16


def stale(snapshot: Snapshot | None) -> bool:
    """Does the loop turn no more? Before its first turn nobody can tell."""
    return snapshot is not None and time.time() - snapshot.time > STALE


class Refused(Exception):  # noqa: N818 - an answer, no error
    """A request that is not answered: the status, and why."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers


@dataclass(frozen=True, slots=True)
class Parameter:
    """One that may stand in the query; its `type` is one that msgspec converts from text."""

    name: str
    type: Any
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: names from the path, checked parameters (None where absent), and the snapshot as it stood when it came."""

    names: dict[str, str]
    parameters: dict[str, Any]
    snapshot: Snapshot | None
    scope: Scope
    receive: Receive

    @property
    def user(self) -> str:
        """Whom the server knows; empty where it asks for no password."""
        return str(self.scope.get("user", ""))

    @property
    def content_type(self) -> str:
        """Media type of the body, without what comes behind it."""
        return Request(self.scope).headers.get("content-type", "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """All of the body.

        Raises:
            Refused: when it is too large, too slow, or broken off.
        """
        too_large = Refused(413, f"a body may have {MOST_BODY} bytes", Connection="close")
        length = Request(self.scope).headers.get("content-length", "")
        if length.isdecimal() and int(length) > MOST_BODY:
            raise too_large
        found = b""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in Request(self.scope, self.receive).stream():
                    found += part
                    if len(found) > MOST_BODY:
                        raise too_large
        except TimeoutError:
            raise Refused(408, f"the body took longer than {BODY_SECONDS:g} seconds", Connection="close") from None
        except ClientDisconnect:
            raise Refused(400, "the body was not sent to its end") from None
        return found


def name_of(segment: bytes) -> str:
    """A name, from one segment of a path as it came.

    Raises:
        Refused: when it is no UTF-8.
    """
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise Refused(400, "a name in the path is percent-encoded UTF-8, and this is none") from None


def checked(query: bytes, known: Sequence[Parameter]) -> dict[str, Any]:
    """The parameters of a query, each converted to its type; None where one is absent.

    Raises:
        Refused: when one is unknown, comes twice, or is wrong: a parameter that is misspelt must not look like none.
    """
    try:
        given = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
        )
    except ValueError:
        raise Refused(400, f"the query is percent-encoded UTF-8 of at most {MOST_PARAMETERS} parameters") from None
    found: dict[str, Any] = {parameter.name: None for parameter in known}
    types = {parameter.name: parameter.type for parameter in known}
    for name, value in given:
        if name not in types:
            takes = ", ".join(types) or "none"
            raise Refused(400, f"there is no parameter {name[:100]!r} here; known: {takes}")
        if found[name] is not None:
            raise Refused(400, f"{name} is given twice")
        try:
            found[name] = msgspec.convert(value, types[name], strict=False)
        except msgspec.ValidationError as error:
            raise Refused(400, f"{name}: {error}") from None
    for parameter in known:
        if parameter.required and found[parameter.name] is None:
            raise Refused(400, f"{parameter.name} is needed in the query")
    return found
