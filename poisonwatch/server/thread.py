"""Runs the HTTP application beside the loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

from poisonwatch.config.web import split_address
from poisonwatch.errors import ConfigError
from poisonwatch.server.access import Guard, is_loopback
from poisonwatch.server.app import SECURITY_HEADERS, build
from poisonwatch.server.connections import Connections
from poisonwatch.server.exchange import Patience
from poisonwatch.server.web_config import Files

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from starlette.routing import Route

    from poisonwatch.server.orders import Orders
    from poisonwatch.sinks.snapshot import Published

BACKLOG = 1024
"""Connections that may wait to be accepted: a burst of them does not make a scrape wait for its second try."""

STOP_SECONDS = 8.0


class Server:
    """Listens from the moment it is made, so that a taken port is an error at start, not later.

    `routes` come beside the agent's own. `web_file` is a web configuration; `tokened` are paths whose routes ask for a bearer
    token, and so for no password. `orders` are where overrides go: without them none is taken. On an address that others
    reach they are taken only while the web configuration admits nobody unknown.

    Raises:
        ConfigError: when the address cannot be listened on, or the web configuration cannot be used.
    """

    def __init__(
        self,
        address: str,
        published: Published,
        *,
        routes: Sequence[Route] = (),
        web_file: Path | None = None,
        tokened: Collection[str] = (),
        orders: Orders | None = None,
        patience: Patience | None = None,
    ) -> None:
        host, port = split_address(address)
        self._files = Files(web_file)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
            # Its connections inherit it. Without, an answer's body waits for the client to acknowledge its head: 40 ms.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            msg = f"web.listen_address: cannot listen on {address} ({error.strerror}): free it or choose another"
            raise ConfigError(msg) from None
        alone = is_loopback(host)
        self._app = build(
            published, routes, orders=orders, trusts=lambda: alone or self._files.current.admits_only_known
        )
        self._tokened = tokened
        self._patience = patience or Patience()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poisonwatch-http", daemon=True)

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on, also where the port was left to the system."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """Answer what is under way, then stop."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        guard = Guard(self._app, lambda: self._files.current, SECURITY_HEADERS, self._tokened)
        self._started.set()
        await Connections(self._socket, guard, self._files, self._patience).serve(self._stop)
