"""Who may ask: what must be protected before it may listen, passwords, and the headers that keep browsers out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

import bcrypt
from starlette.datastructures import MutableHeaders

from poisonwatch.config.web import load_web_file, split_address
from poisonwatch.errors import ConfigError
from poisonwatch.server.api.answers import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from poisonwatch.config.sources import AnySource
    from poisonwatch.server.web_config import Protection

REMEMBERED = 128
"""Right passwords that are remembered, so that a scrape costs no bcrypt."""

MOST_WAITING = 32
"""Passwords that wait to be checked; one is at a time, or guessing would take every core from the model."""

LONGEST_PASSWORD = 72
"""Bytes that bcrypt looks at. A longer password is never right."""


def check_exposure(address: str, sources: Iterable[AnySource], web_file: Path | None) -> None:
    """Refuse to take records from anybody on a network.

    Raises:
        ConfigError: when a source takes POSTs, others than this host can reach it, and nothing says who may post; or when the
            web configuration is wrong.
    """
    protected = web_file is not None and load_web_file(web_file).admits_only_known
    if protected or is_loopback(split_address(address)[0]):
        return
    for number, source in enumerate(sources):
        if source.kind == "http" and source.token_file is None:
            msg = (
                f"sources[{number}]: {source.name} would take records from everybody who reaches {address}: give it a "
                "`token_file`, or set `web.config_file` (--web.config.file) with basic_auth_users or client_auth_type: "
                "RequireAndVerifyClientCert, or listen on 127.0.0.1"
            )
            raise ConfigError(msg)


def tokened(sources: Iterable[AnySource]) -> frozenset[str]:
    """Paths that ask for a bearer token of their own."""
    return frozenset(source.path for source in sources if source.kind == "http" and source.token_file is not None)


def is_loopback(host: str) -> bool:
    """Can only this host reach it? A name is trusted only if it is `localhost`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class Passwords:
    """Checks passwords against bcrypt hashes: one at a time in a thread of its own, and what was right is remembered.

    What is remembered is a keyed hash, and goes when the hash of the user changes, for that is part of it.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._turn = asyncio.Lock()
        self._waiting = 0

    @property
    def crowded(self) -> bool:
        """Do so many wait that another should come again?"""
        return self._waiting >= MOST_WAITING

    def knows(self, user: str, password: bytes, users: Mapping[str, str]) -> bool:
        """Was this password right before?"""
        mark = self._mark(user, password, users)
        if mark not in self._right:
            return False
        self._right.move_to_end(mark)
        return True

    async def fits(self, user: str, password: bytes, users: Mapping[str, str]) -> bool:
        """Is this the password of the user? An unknown user costs what a known one does: his is compared with another's."""
        mark = self._mark(user, password, users)
        hashed = users.get(user) or self._another(user, users)
        self._waiting += 1
        try:
            async with self._turn:
                same = await asyncio.to_thread(_fits, password, hashed.encode())
        finally:
            self._waiting -= 1
        if not same or user not in users:
            return False
        self._right[mark] = None
        while len(self._right) > REMEMBERED:
            self._right.popitem(last=False)
        return True

    def _mark(self, user: str, password: bytes, users: Mapping[str, str]) -> bytes:
        mark = hashlib.blake2b(key=self._key)
        for part in (user.encode("utf-8", "surrogatepass"), users.get(user, "").encode(), password):
            mark.update(len(part).to_bytes(8, "big") + part)
        return mark.digest()

    def _another(self, user: str, users: Mapping[str, str]) -> str:
        """The hash of somebody else, always the same one, so that costs that differ tell nothing either."""
        number = int.from_bytes(self._mark(user, b"", {})[:8], "big")
        return list(users.values())[number % len(users)]


def _fits(password: bytes, hashed: bytes) -> bool:
    # The work comes first: what is refused for its length takes as long.
    same = bcrypt.checkpw(password[:LONGEST_PASSWORD], hashed)
    return same and len(password) <= LONGEST_PASSWORD


class Guard:
    """Stands before the application: passwords, posts from browsers, and headers of every answer.

    `tokened` are paths that ask for a bearer token of their own instead of a password: a request has one Authorization. Whoever
    showed a password is `user` in the scope from here on.
    """

    def __init__(
        self,
        app: ASGIApp,
        protection: Callable[[], Protection],
        headers: Mapping[str, str],
        tokened: Collection[str] = (),
    ) -> None:
        self._app = app
        self._protection = protection
        self._headers = headers
        self._tokened = frozenset(tokened)
        self._passwords = Passwords()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application do it."""
        protection = self._protection()

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (*self._headers.items(), *protection.headers.items()):
                    headers[name] = value
            await send(message)

        refusal = await self._refusal(scope, protection.users)
        await (self._app if refusal is None else refusal)(scope, receive, dressed)

    async def _refusal(self, scope: Scope, users: Mapping[str, str]) -> Response | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if users and scope["path"] not in self._tokened:
            named = _credentials(given)
            if named is None:
                return _unauthorized()
            if not self._passwords.knows(*named, users):
                if self._passwords.crowded:
                    return refusal(503, "too many passwords wait to be checked: come again", {"Retry-After": "1"})
                if not await self._passwords.fits(*named, users):
                    return _unauthorized()
            scope["user"] = named[0]
        if scope["method"] not in {"GET", "HEAD"} and any(name == b"origin" for name, _ in scope["headers"]):
            # A page in a browser on this host reaches loopback, whoever wrote the page. No client of this API is a browser.
            return refusal(403, "requests from web pages are not taken")
        return None


def _unauthorized() -> Response:
    asks = {"WWW-Authenticate": 'Basic realm="poisonwatch", charset="UTF-8"'}
    return refusal(401, "Unauthorized: a user and a password of the web configuration are needed", asks)


def _credentials(given: list[bytes]) -> tuple[str, bytes] | None:
    """User and password of the one Authorization header there is."""
    if len(given) != 1:
        return None
    scheme, _, encoded = given[0].partition(b" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        name = user.decode()
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon and scheme.lower() == b"basic" else None
