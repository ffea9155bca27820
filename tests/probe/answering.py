"""Small real servers for the tests of the clients: they do to a connection what they are told, good or hostile."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Listening:
    """A server on the loopback, and what it was sent: one whole request each."""

    url: str
    requests: list[bytes] = field(default_factory=list)

    def bodies(self) -> list[Any]:
        """The JSON of the requests."""
        return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.requests]


@contextmanager
def listening(act: Callable[[socket.socket], None], *, reads: bool = True) -> Iterator[Listening]:
    """A server that reads a request, if it `reads`, and then does `act` to the connection, for as long as the block lasts."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        found = Listening(f"http://127.0.0.1:{door.getsockname()[1]}")

        def serve() -> None:
            while True:
                try:
                    connection, _ = door.accept()
                except OSError:
                    return
                # A client that has gone away is what some tests are about.
                with connection, suppress(OSError):
                    connection.settimeout(20)
                    if reads:
                        found.requests.append(_request(connection))
                    act(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield found
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < lengths[0]:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def until_gone(connection: socket.socket) -> None:
    """Say nothing until the client goes."""
    connection.recv(1)


def page(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def answering(document: object, *, status: str = "200 OK") -> Iterator[Listening]:
    """A server that answers every request with the same JSON, or with these very bytes."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with listening(lambda connection: connection.sendall(page(body, status))) as found:
        yield found
