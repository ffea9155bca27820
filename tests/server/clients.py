"""What talks to a server over real sockets, in good manners and bad ones, and certificates made for the occasion."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bcrypt
import trustme

from poisonwatch.server.thread import Server
from poisonwatch.sinks.snapshot import Published

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Answer = tuple[int, dict[str, str], bytes]

PASSWORD = "correct horse battery staple"
HASHED = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
"""Always the same salt: tests are named by what they are given, and every process must name them alike."""


@contextmanager
def listening(published: Published | None = None, **given: Any) -> Iterator[str]:
    """HOST:PORT of a real server."""
    server = Server("127.0.0.1:0", published or Published(), **given)
    server.start()
    try:
        yield server.address
    finally:
        server.close()


def get(
    address: str,
    path: str = "/metrics",
    *,
    tls: ssl.SSLContext | None = None,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Status, headers and body of an answer over a connection of its own."""
    connection = (
        HTTPConnection(address, timeout=30) if tls is None else HTTPSConnection(address, timeout=30, context=tls)
    )
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def dial(address: str) -> socket.socket:
    """A plain connection."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=30)


def rest(connection: socket.socket) -> bytes:
    """All that still comes until the server ends the connection."""
    found = b""
    try:
        while data := connection.recv(1 << 16):
            found += data
            assert len(found) < 1 << 28, "an answer without an end"
    except ConnectionError:
        pass
    return found


def status(answer: bytes) -> int:
    """Status of a raw answer, or 0 where there is none."""
    return int(answer.split()[1]) if answer else 0


def lay_out(folder: Path, *hosts: str) -> trustme.CA:
    """A certificate for the hosts in `folder`, with its key and its CA."""
    folder.mkdir(exist_ok=True)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.crt")
    issue(ca, folder, "tls", *(hosts or ("127.0.0.1", "::1", "localhost")))
    return ca


def issue(ca: trustme.CA, folder: Path, name: str, *hosts: str) -> None:
    """NAME.crt and NAME.key in `folder`, replaced in one step each, as a rotation does."""
    issued = ca.issue_cert(*hosts)
    for suffix, data in (
        ("crt", b"".join(pem.bytes() for pem in issued.cert_chain_pems)),
        ("key", issued.private_key_pem.bytes()),
    ):
        part = folder / f"{name}.part"
        part.write_bytes(data)
        part.replace(folder / f"{name}.{suffix}")


def trusting(folder: Path, certificate: str | None = None) -> ssl.SSLContext:
    """What a client believes: the CA in `folder`; and the certificate that it shows, if any."""
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    if certificate is not None:
        context.load_cert_chain(folder / f"{certificate}.crt", folder / f"{certificate}.key")
    return context


def web_file(folder: Path, text: str) -> Path:
    """A web configuration with this text."""
    path = folder / "web.yml"
    part = folder / "web.part"
    part.write_text(text)
    part.replace(path)
    return path


def scrape_seconds(address: str, times: int, tls: ssl.SSLContext | None = None) -> list[float]:
    """How long each of several scrapes took, each on a connection of its own; all must succeed."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        assert get(address, tls=tls)[0] == 200
        found.append(time.monotonic() - began)
    return sorted(found)


def resident() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@contextmanager
def files_allowed(count: int) -> Iterator[None]:
    """This many file descriptors for as long as the block lasts, where the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= count, f"this test needs {count} file descriptors: ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
