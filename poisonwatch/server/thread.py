"""Runs the HTTP application beside the loop."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from poisonwatch.config import split_address
from poisonwatch.errors import ConfigError
from poisonwatch.server.app import build

if TYPE_CHECKING:
    from poisonwatch.sinks.snapshot import Published

MOST_CONNECTIONS = 100
IDLE_SECONDS = 5
STOP_SECONDS = 5


class Server:
    """Listens from the moment it is made, so that a taken port is an error at start, not later.

    Raises:
        ConfigError: when the address cannot be listened on.
    """

    def __init__(self, address: str, published: Published) -> None:
        host, port = split_address(address)
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            msg = f"web.listen_address: cannot listen on {address} ({error.strerror}): free it or choose another"
            raise ConfigError(msg) from None
        config = uvicorn.Config(
            build(published),
            access_log=False,
            log_config=None,
            lifespan="off",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="poisonwatch-http", daemon=True
        )

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on, also where the port was left to the system."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer what is under way, then stop."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self._socket.close()
