"""Speaks HTTP/1.1 over one connection: requests go to an ASGI application, each step within a time and a size.

The parsing is h11's. What is here, and what servers for ASGI do not offer, is that nobody is waited for without an end: for the
head of a request, for a body that comes byte by byte, for a client that does not read.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import h11
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Scope

LOG = structlog.get_logger()

DISCARD_BYTES = 32 << 20
"""Of a body that nobody wanted, so that the connection can go on."""

MOST_HEAD = 16 << 10
"""Bytes of a request line and its headers."""

MOST_HEADERS = 100
CHUNK = 64 << 10


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for, in seconds.

    `handshake`: for all of TLS's. `head`: for a whole head, from the connection or from its first byte. `answer`: from the head
    of a request until its body was taken and its answer was read. `keep_alive`: between two requests; longer than scrapes are
    apart, for who is needed less goes when the table of connections is full. `linger`: for a client that is refused to stop
    sending, since closing earlier would reset the connection and lose it the answer. `goodbye`: for the last bytes.
    """

    handshake: float = 10.0
    head: float = 10.0
    answer: float = 60.0
    keep_alive: float = 120.0
    linger: float = 1.0
    goodbye: float = 1.0


class Exchange:
    """One connection. `busy` is told when a request begins (True) and ends; `last` says that no further one is wanted."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        app: ASGIApp,
        busy: Callable[[bool], None],
        last: Callable[[], bool],
        patience: Patience,
    ) -> None:
        self._patience = patience
        self._reader, self._writer, self._app, self._busy, self._last = reader, writer, app, busy, last
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
        self._over = asyncio.Event()
        self._broken = False
        self._begun: bytes | None = None

    async def run(self) -> None:
        """Answer until either side has enough.

        Raises:
            OSError: when the client is gone, or too slow.
        """
        wait = self._patience.head
        while (head := await self._head(wait)) is not None:
            self._busy(True)
            self._over.clear()
            async with asyncio.timeout(self._patience.answer):
                if not await self._answer(head) or not await self._finish():
                    return
            self._http.start_next_cycle()
            self._busy(False)
            wait = self._patience.keep_alive

    async def _head(self, wait: float) -> h11.Request | None:
        """The next request; None when there is none, or it was refused."""
        begun = bool(self._http.trailing_data[0])
        try:
            async with asyncio.timeout(self._patience.head if begun else wait) as limit:
                while (event := self._http.next_event()) is h11.NEED_DATA:
                    data = await self._reader.read(CHUNK)
                    if data and not begun:
                        begun = True
                        limit.reschedule(asyncio.get_running_loop().time() + self._patience.head)
                    self._http.receive_data(data)
        except TimeoutError:
            if begun:
                await self._refuse(HTTPStatus.REQUEST_TIMEOUT)
            return None
        except h11.RemoteProtocolError as error:
            await self._refuse(self._status_of(error))
            return None
        if not isinstance(event, h11.Request):
            return None
        # h11 measures heads that are not complete yet; one that came in a single piece is measured here.
        if len(event.target) > MOST_HEAD // 2:
            await self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
            return None
        if (
            len(event.headers) > MOST_HEADERS
            or sum(len(name) + len(value) for name, value in event.headers) > MOST_HEAD
        ):
            await self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        return event

    def _status_of(self, error: h11.RemoteProtocolError) -> HTTPStatus:
        if error.error_status_hint != HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return HTTPStatus.BAD_REQUEST
        in_the_first_line = b"\n" not in self._http.trailing_data[0]
        return HTTPStatus.REQUEST_URI_TOO_LONG if in_the_first_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

    async def _refuse(self, status: HTTPStatus) -> None:
        """Say why, and let the client read it."""
        body = f"{status.phrase}\n".encode()
        headers = [("content-type", "text/plain"), ("content-length", str(len(body))), ("connection", "close")]
        self._send(h11.Response(status_code=status, headers=headers, reason=status.phrase))
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        await self._linger()

    async def _linger(self) -> None:
        async with asyncio.timeout(self._patience.linger):
            await self._writer.drain()
            if self._writer.can_write_eof():
                self._writer.write_eof()
            while await self._reader.read(CHUNK):
                pass

    async def _answer(self, head: h11.Request) -> bool:
        """Let the application answer; False when it could not."""
        self._method = head.method
        try:
            await self._app(self._scope(head), self._receive, self._respond)
        except Exception:
            # Where the client is gone or sent no HTTP, that is why. Anything else is a defect, and not the end of the server.
            if not (self._broken or self._writer.is_closing()):
                LOG.exception("a request could not be answered", path=head.target.decode("ascii", "replace")[:200])
        finally:
            self._over.set()
        if self._http.our_state is h11.SEND_RESPONSE and not self._writer.is_closing():
            await self._refuse(HTTPStatus.BAD_REQUEST)
        return self._http.our_state in {h11.DONE, h11.MUST_CLOSE}

    def _scope(self, head: h11.Request) -> Scope:
        path, _, query = head.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.http_version.decode(),
            "server": cast("tuple[Any, ...]", self._writer.get_extra_info("sockname"))[:2],
            "client": cast("tuple[Any, ...]", self._writer.get_extra_info("peername"))[:2],
            "scheme": "http" if self._writer.get_extra_info("sslcontext") is None else "https",
            "method": head.method.decode(),
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": list(head.headers),
        }

    async def _receive(self) -> Message:
        """The next part of the body, for the application; after it, the end of the exchange."""
        if self._http.their_state is not h11.SEND_BODY:
            await self._over.wait()
            return {"type": "http.disconnect"}
        try:
            event = await self._next_of_body()
        except (OSError, h11.RemoteProtocolError):
            self._broken = True
            return {"type": "http.disconnect"}
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _next_of_body(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))
            self._http.receive_data(await self._reader.read(CHUNK))
        return cast("h11.Event", event)

    async def _respond(self, message: Message) -> None:
        """A part of the answer, from the application; returns when the client has taken most of it."""
        if message["type"] == "http.response.start":
            if self._broken and message["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
                msg = "it was the body that was no HTTP: answered as that"
                raise ConnectionError(msg)
            headers = [*message["headers"], (b"date", formatdate(usegmt=True).encode())]
            if self._last():
                headers.append((b"connection", b"close"))
            reason = HTTPStatus(message["status"]).phrase
            # It goes with the first piece of the body, in one packet.
            self._begun = self._http.send(h11.Response(status_code=message["status"], headers=headers, reason=reason))
            return
        body = b"" if self._method == b"HEAD" else memoryview(message.get("body", b""))
        for start in range(0, len(body), CHUNK):
            self._send(h11.Data(data=cast("bytes", body[start : start + CHUNK])))
            await self._writer.drain()
        if not message.get("more_body", False):
            self._send(h11.EndOfMessage())
            await self._writer.drain()

    async def _finish(self) -> bool:
        """Take what is left of the request; False when the connection must not go on."""
        left = DISCARD_BYTES
        # Who was told not to send its body may rightly send nothing more.
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(self._patience.linger):
                    while self._http.their_state is h11.SEND_BODY and left > 0:
                        event = await self._next_of_body()
                        left -= len(event.data) if isinstance(event, h11.Data) else 0
            except h11.RemoteProtocolError:
                return False
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            return True
        await self._linger()
        return False

    def _send(self, event: h11.Event) -> None:
        data, self._begun = (self._begun or b"") + (self._http.send(event) or b""), None
        if data:
            self._writer.write(data)
