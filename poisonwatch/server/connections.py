"""Accepts connections and bounds them: however many come, the newest is served, and nobody's silence holds up another.

Every connection is a task of its own from the moment it is accepted, its TLS handshake too. Where the table is full, the one
goes that has got least far for longest: idle ones and those that have not finished a head, of whoever has most of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from poisonwatch.server.exchange import CHUNK, Exchange, Patience

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp

    from poisonwatch.server.web_config import Files, Protection

MOST_CONNECTIONS = 256
"""At once. A connection with TLS takes about 0.4 MB, and all of them must fit beside the models' state."""

GRACE_SECONDS = 3.0
"""At the end, for answers that are under way."""

WATCH_SECONDS = 1.0
"""Between two looks whether certificates or passwords have changed."""


@dataclass(eq=False)
class _Guest:
    """A connection: whose it is, and whether a request of it is being answered."""

    address: str
    busy: bool = False
    task: asyncio.Task[None] | None = None
    transports: list[asyncio.Transport] = field(default_factory=list)


class Connections:
    """The table of connections on one listening socket."""

    def __init__(self, listener: socket.socket, app: ASGIApp, files: Files, patience: Patience) -> None:
        self._listener, self._app, self._files, self._patience = listener, app, files, patience
        # In the order in which they last began to wait or to be answered.
        self._guests: OrderedDict[_Guest, None] = OrderedDict()
        self._of: Counter[str] = Counter()
        self._closing = False

    async def serve(self, stop: asyncio.Event) -> None:
        """Answer until `stop`; then what is under way."""
        self._listener.setblocking(False)
        works = [asyncio.create_task(self._accept()), asyncio.create_task(self._watch())]
        await stop.wait()
        self._closing = True
        for work in works:
            work.cancel()
        await asyncio.wait(works)
        tasks = [guest.task for guest in self._guests if guest.task is not None]
        for guest in [guest for guest in self._guests if not guest.busy]:
            self._end(guest)
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_SECONDS)
        for guest in list(self._guests):
            self._end(guest)
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_SECONDS)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await asyncio.to_thread(self._files.refresh)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except OSError:
                # No file descriptor is left, or the client is gone already.
                self._make_room(len(self._guests))
                await asyncio.sleep(0.05)
                continue
            self._make_room(MOST_CONNECTIONS)
            guest = _Guest(address[0])
            self._guests[guest] = None
            self._of[guest.address] += 1
            guest.task = asyncio.create_task(self._serve(guest, accepted))
            guest.task.add_done_callback(partial(self._gone, guest, accepted))
            # A flood of connections does not keep those that are there from being served.
            await asyncio.sleep(0)

    def _make_room(self, most: int) -> None:
        while self._guests and len(self._guests) >= most:
            self._end(self._least())

    def _least(self) -> _Guest:
        """Who goes first: of whoever has most connections the one that waits longest, or if none waits, is busy longest."""
        most = max(self._of.values())
        crowd = [guest for guest in self._guests if self._of[guest.address] == most]
        return next((guest for guest in crowd if not guest.busy), crowd[0])

    def _end(self, guest: _Guest) -> None:
        self._forget(guest)
        for transport in guest.transports:
            transport.abort()
        if guest.task is not None:
            guest.task.cancel()

    def _forget(self, guest: _Guest) -> None:
        if guest in self._guests:
            del self._guests[guest]
            self._of[guest.address] -= 1
            self._of += Counter()  # drops those at zero

    def _gone(self, guest: _Guest, accepted: socket.socket, _task: asyncio.Task[None]) -> None:
        self._forget(guest)
        if not guest.transports:
            accepted.close()
        # A task, its guest and the frames of its end would wait as a cycle for the collector, each with TLS's buffers.
        guest.task = None
        guest.transports.clear()

    def _moved(self, guest: _Guest, *, busy: bool) -> None:
        guest.busy = busy
        if guest in self._guests:
            self._guests.move_to_end(guest)

    async def _serve(self, guest: _Guest, accepted: socket.socket) -> None:
        protection = self._files.current
        # Whoever goes away, is too slow, has no certificate, or had to make room: there is nobody left to tell.
        with suppress(OSError, asyncio.CancelledError):
            reader, writer = await self._welcome(guest, accepted, protection)
            try:
                if protection.admits(writer.get_extra_info("peercert")):
                    await Exchange(
                        reader,
                        writer,
                        self._app,
                        busy=lambda busy: self._moved(guest, busy=busy),
                        last=lambda: self._closing or self._files.current is not protection,
                        patience=self._patience,
                    ).run()
                writer.close()
                async with asyncio.timeout(self._patience.goodbye):
                    await writer.wait_closed()
            finally:
                writer.transport.abort()

    async def _welcome(
        self, guest: _Guest, accepted: socket.socket, protection: Protection
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Streams over what was accepted, after the TLS handshake."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        times = (
            {}
            if protection.tls is None
            else {"ssl_handshake_timeout": self._patience.handshake, "ssl_shutdown_timeout": self._patience.goodbye}
        )
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=protection.tls, **times)
        guest.transports.append(transport)
        transport.set_write_buffer_limits(high=CHUNK)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
