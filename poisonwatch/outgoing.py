"""One GET or POST over HTTP/1.1 with hard bounds: a total deadline, a largest answer, no redirects, no proxies.

The standard library suffices and no client package would do more here: none has a deadline for the whole exchange (httpx and
requests bound each read, so that a server which sends a byte a second holds them for ever), and most must be told not to read
proxies from the environment. Resolving a host's name is the system's and has the system's bounds.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import time
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from poisonwatch.errors import ProbeError, StatusError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from _typeshed import WriteableBuffer

LARGEST_ANSWER = 1 << 20
"""Bytes of an answer's body; a larger one is no answer."""

LARGEST_PAGE = 1 << 25
"""Bytes of a page of metrics: a server with very many models has tens of thousands of series."""

LONGEST_TOKEN = 1 << 16

READ_OF_AN_ERROR = 1000
"""Bytes that are read of the body of an error; the first words of it are told."""

LONGEST_TOLD = 128
"""Characters of what a server said that are told."""


class _Incoming(io.RawIOBase):
    """What comes in on a socket until the deadline."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._call.within().recv_into(buffer)


class _Wire:
    """As much of a socket as `http.client` uses; every operation ends at the deadline."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def sendall(self, data: bytes) -> None:
        self._call.within().sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._call))

    def close(self) -> None:
        """The exchange closes its socket when it is done."""


class _Connection(HTTPConnection):
    """An `http.client` connection over a wire."""

    def __init__(self, call: Call, host: str, port: int, scheme: str) -> None:
        super().__init__(host, port)
        self.default_port = 443 if scheme == "https" else 80
        self.sock = cast("socket.socket", _Wire(call))


class Call:
    """One request and its answer; `abort` ends it from another thread. `context` says whom to believe over TLS, by default whom the system believes."""

    def __init__(self, timeout: float, context: ssl.SSLContext | None = None) -> None:
        self._deadline = time.monotonic() + timeout
        self._context = context
        self._socket: socket.socket | None = None
        self._aborted = False

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The body of the answer to a POST.

        Raises:
            StatusError: when it has another status than 200.
            ProbeError: when there is none within the deadline and `LARGEST_ANSWER`.
        """
        return self._ask("POST", url, body, headers, LARGEST_ANSWER)

    def get(self, url: str, headers: Mapping[str, str]) -> bytes:
        """The body of the answer to a GET.

        Raises:
            StatusError: when it has another status than 200.
            ProbeError: when there is none within the deadline and `LARGEST_PAGE`.
        """
        return self._ask("GET", url, None, headers, LARGEST_PAGE)

    def _ask(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], largest: int) -> bytes:
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc}{parts.path}"
        try:
            return self._answer(method, url, body, headers, largest)
        except TimeoutError:
            msg = f"{place} did not answer in time"
            raise ProbeError(msg) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            msg = f"{place} could not be asked: {_told(reason)}"
            raise ProbeError(msg) from None
        finally:
            if self._socket is not None:
                self._socket.close()

    def _answer(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], largest: int) -> bytes:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._connect(host, port, tls=parts.scheme == "https")
        connection = _Connection(self, host, port, parts.scheme)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, {**headers, "Connection": "close"})
        with connection.getresponse() as response:
            place = f"{parts.scheme}://{parts.netloc}{parts.path}"
            if 300 <= response.status < 400:
                msg = f"{place} redirects ({response.status}): redirects are not followed, configure where it leads"
                raise StatusError(msg, response.status)
            if response.status != 200:
                said = _told(response.read(READ_OF_AN_ERROR).decode("utf-8", "replace"), headers.get("Authorization"))
                msg = f"{place} answered {response.status}: {said}"
                raise StatusError(msg, response.status, response.headers.get("Retry-After"))
            answer = response.read(largest + 1)
            if len(answer) > largest:
                msg = f"{place} answered with more than {largest:,} bytes"
                raise ProbeError(msg)
            if response.length:
                msg = f"{place} ended before its answer did"
                raise ProbeError(msg)
            return answer

    def _connect(self, host: str, port: int, *, tls: bool) -> None:
        trouble: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            self._socket = socket.socket(family, kind, protocol)
            try:
                self.within().connect(address)
            except TimeoutError:
                raise
            except OSError as error:
                self._socket.close()
                trouble = error
                continue
            if tls:
                context = self._context or ssl.create_default_context()
                # The handshake needs a connected socket, and its time counts too.
                self._socket = context.wrap_socket(self.within(), server_hostname=host)
            return
        raise trouble or OSError("the host has no address")

    def within(self) -> socket.socket:
        """The socket, for one operation that ends at the deadline.

        Raises:
            TimeoutError: when the deadline has passed.
            OSError: when the exchange was aborted.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._socket is None or self._aborted:
            msg = "the call was ended"
            raise OSError(msg)
        self._socket.settimeout(left)
        return self._socket

    def abort(self) -> None:
        """End it now, from another thread; whoever waits for the answer gets an error."""
        self._aborted = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It was not connected yet, or is closed already.
                return


def authorization(path: Path | None) -> dict[str, str]:
    """The header with the token of a file, none where there is no file.

    Raises:
        ProbeError: when it cannot be read, or is no token.
    """
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            token = file.read(LONGEST_TOKEN).strip()
    except OSError as error:
        msg = f"{path}: the token cannot be read ({error.strerror})"
        raise ProbeError(msg) from None
    if not re.fullmatch(rb"[!-~]+", token):
        msg = f"{path}: a token is one line of printable ASCII characters"
        raise ProbeError(msg)
    return {"Authorization": f"Bearer {token.decode()}"}


def _told(text: str, secret: str | None = None) -> str:
    """A text from outside as one short printable line; a server that echoes our token is not quoted with it."""
    if secret is not None:
        text = text.replace(secret, "...").replace(secret.rpartition(" ")[2], "...")
    told = " ".join(text.split())[:LONGEST_TOLD]
    return "".join(c if c.isprintable() else "\ufffd" for c in told)
