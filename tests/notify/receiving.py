"""A real receiver on loopback that answers as it is told: it can hang, refuse, lie, die and come back."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.system.programs import wait_for

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def status(code: int, *headers: str) -> bytes:
    """An answer of this status."""
    return "\r\n".join([f"HTTP/1.1 {code} So", "Content-Length: 0", *headers, "", ""]).encode()


class Came(NamedTuple):
    """A message: when it came (monotonic seconds), where to, and what it was."""

    at: float
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """Answers every message with the bytes that `answer` gives for it; None hangs until the end."""

    answer: Callable[[Came], bytes | None] = lambda _: OK
    tls: ssl.SSLContext | None = None
    port: int = 0
    came: list[Came] = field(default_factory=list)

    def __enter__(self) -> Self:
        receiver, over = self, threading.Event()

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                message = Came(time.monotonic(), self.path, headers, body)
                receiver.came.append(message)
                answer = receiver.answer(message)
                if answer is None:
                    over.wait(60)
                else:
                    # A sender that has gone away is what some tests are about.
                    with suppress(OSError):
                        self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing on stderr."""

        class House(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing on stderr."""

        self._server = House(("127.0.0.1", self.port), Door)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._over = over
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def has(self, count: int) -> list[Came]:
        """Wait until so many messages came."""
        wait_for(f"{count} messages", lambda: len(self.came) >= count, lambda: str(self.came))
        return list(self.came)
