"""Hostile clients: silent, slow, numerous, verbose. The server bounds each, and a scrape is answered meanwhile."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from poisonwatch.server.connections import MOST_CONNECTIONS
from poisonwatch.server.exchange import MOST_HEAD, MOST_HEADERS, Patience
from poisonwatch.server.thread import Server
from poisonwatch.sinks.snapshot import Published
from tests.server.clients import (
    dial,
    files_allowed,
    get,
    lay_out,
    listening,
    resident,
    rest,
    scrape_seconds,
    status,
    trusting,
    web_file,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from starlette.requests import Request

HASTY = Patience(handshake=0.5, head=0.5, answer=1.5, keep_alive=0.5, linger=0.3, goodbye=0.3)
"""Short, so that the tests are; every bound is still reached in its own time."""

LASTING = Patience(head=600, linger=30)
"""Long, so that nothing ends because its time is over."""

GET = b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n"
TLS = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}"


async def _echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def _ignore(_: Request) -> Response:
    return PlainTextResponse("too large", 413)


async def _endless(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (1 << 20)

    return StreamingResponse(parts())


def _defect(_: Request) -> Response:
    msg = "a defect"
    raise ZeroDivisionError(msg)


ROUTES = (
    Route("/echo", _echo, methods=["POST"]),
    Route("/ignore", _ignore, methods=["POST"]),
    Route("/endless", _endless),
    Route("/defect", _defect),
)


@pytest.fixture(scope="module")
def hasty() -> Iterator[str]:
    """A server of little patience."""
    with listening(routes=ROUTES, patience=HASTY) as address:
        yield address


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (GET + b"\r\n", 200),
        (GET + b"X: " + b"a" * MOST_HEAD + b"\r\n\r\n", 431),
        (GET + b"a:\r\n" * (MOST_HEADERS + 1) + b"\r\n", 431),
        (GET + b"a:\r\n" * 1_000_000, 431),
        (b"GET /" + b"a" * MOST_HEAD + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"a" * (4 << 20), 414),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /%ff%00%0a HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET http://other/metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"CONNECT other:443 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /defect HTTP/1.1\r\nHost: a\r\n\r\n", 500),
        (b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_strange_requests(hasty: str, request_: bytes, expected: int) -> None:
    """Each gets its status, however large it is, and the connection comes to an end; the next client is served."""
    with dial(hasty) as client:
        with_patience = threading.Thread(target=_pour, args=(client, request_))
        with_patience.start()
        answer = rest(client)
        with_patience.join()
    assert status(answer) == expected
    assert get(hasty, "/-/healthy")[0] == 200


def _pour(client: socket.socket, data: bytes) -> None:
    try:
        client.sendall(data)
    except OSError:
        # The server has heard enough.
        return


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [
                    GET,
                    b"\r\n",
                    b"POST /echo HTTP/1.1\r\n",
                    b"Host: a\r\n",
                    b"Content-Length: 5\r\n",
                    b"Accept: ",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Expect: 100-continue\r\n",
                    b"5\r\nabcde\r\n",
                    b"0\r\n\r\n",
                    b"Authorization: Basic ",
                    b"GET /metrics HTTP/1.1\r\n",
                    b"\x00\xff",
                ]
            ),
            max_size=12,
        ).map(b"".join),
    )
)
def test_junk_never_hurts(hasty: str, junk: bytes) -> None:
    """Whatever bytes come: an answer of HTTP or none, and an end."""
    with dial(hasty) as client:
        _pour(client, junk)
        client.shutdown(socket.SHUT_WR)
        answer = rest(client)
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert get(hasty, "/-/healthy")[0] == 200


def test_slow_handshakes(tmp_path: Path) -> None:
    """A handshake that is not begun, or comes byte by byte, is given up in its time, while others are answered."""
    lay_out(tmp_path)
    with listening(web_file=web_file(tmp_path, TLS), patience=HASTY) as address:
        for hello in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)):
            with dial(address) as client:
                began = time.monotonic()
                trickle = threading.Thread(target=_trickle, args=(client, hello))
                trickle.start()
                assert get(address, tls=trusting(tmp_path))[0] == 200
                assert not rest(client).startswith(b"HTTP")
                assert time.monotonic() - began >= HASTY.handshake
                trickle.join()


def test_slow_heads(hasty: str) -> None:
    """A head that comes byte by byte is cut off in its time with 408, also as the second one of a connection."""
    for before in (b"", GET + b"\r\n"):
        with dial(hasty) as client:
            began = time.monotonic()
            client.sendall(before)
            trickle = threading.Thread(
                target=_trickle, args=(client, GET + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
            )
            trickle.start()
            answer = rest(client)
            trickle.join()
        assert b"HTTP/1.1 408 " in answer
        assert time.monotonic() - began >= HASTY.head


def _trickle(client: socket.socket, data: bytes) -> None:
    for byte in data:
        time.sleep(0.05)
        try:
            client.sendall(bytes([byte]))
        except OSError:
            return


def test_silence(hasty: str) -> None:
    """Who says nothing is let go, before the first request and after it."""
    with dial(hasty) as client:
        assert rest(client) == b""
    with dial(hasty) as client:
        client.sendall(GET + b"\r\n")
        answer = rest(client)
        assert answer.count(b"HTTP/1.1 200") == 1


def test_slow_bodies(hasty: str) -> None:
    """A body that never ends is given up in its time; the application hears that the client is gone, and no more."""
    with dial(hasty) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        began = time.monotonic()
        trickle = threading.Thread(target=_trickle, args=(client, b"a" * 60))
        trickle.start()
        assert status(rest(client)) in {0, 400}
        trickle.join()
        assert time.monotonic() - began >= HASTY.answer


def test_many_requests_on_one_connection(hasty: str) -> None:
    """Requests that come at once are answered in their order, bodies and all; HTTP/1.0 ends after one."""
    post = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
    with dial(hasty) as client:
        client.sendall((GET + b"\r\n" + post) * 20)
        answer = rest(client)
    assert answer.count(b"HTTP/1.1 200 ") == 40
    assert answer.count(b"\r\n\r\n5") == 20
    with dial(hasty) as client:
        client.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        assert status(rest(client)) == 200


def test_bodies_nobody_wants(hasty: str) -> None:
    """An answer that comes before the body was read reaches the client, and the connection goes on after a moderate one."""
    for size, on in ((4 << 20, True), (64 << 20, False)):
        with dial(hasty) as client:
            head = b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
            pour = threading.Thread(target=_pour, args=(client, head + b"a" * size + GET + b"\r\n"))
            pour.start()
            answer = rest(client)
            pour.join()
        assert status(answer) == 413
        assert (b"healthy" in answer) == on


def test_expect_continue(hasty: str) -> None:
    """Who asks before it sends a body is told to go on only where the body is wanted."""
    for path, expected in (("/echo", b"HTTP/1.1 100 Continue"), ("/ignore", b"HTTP/1.1 413 ")):
        with dial(hasty) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            client.sendall(head.encode())
            assert client.recv(1 << 16).startswith(expected)


def test_head_has_no_body(hasty: str) -> None:
    """HEAD says what GET would, without the body."""
    code, headers, body = get(hasty, "/-/healthy", method="HEAD")
    assert (code, body) == (200, b"")
    assert int(headers["content-length"]) == len(get(hasty, "/-/healthy")[2])


@pytest.mark.slow
def test_clients_that_do_not_read(hasty: str) -> None:
    """Clients that ask for an endless answer and read none of it hold a bounded memory, and are let go in their time."""
    with ExitStack() as opened:
        before = resident()
        clients = [opened.enter_context(dial(hasty)) for _ in range(100)]
        for client in clients:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.7)
        seconds = scrape_seconds(hasty, 5)
        grown = resident() - before
        deadline = time.monotonic() + 30
        for client in clients:
            client.settimeout(max(0.1, deadline - time.monotonic()))
            rest(client)
    print(f"100 clients that do not read: +{grown:.0f} MB, slowest of 5 scrapes {seconds[-1] * 1e3:.0f} ms")  # noqa: T201
    assert grown < 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "silent before TLS", "half a hello", "idle after TLS"])
def test_two_thousand_connections(tmp_path: Path, kind: str) -> None:
    """With 2,000 connections opened and never closed every scrape succeeds, and the memory and the table stay bounded."""
    lay_out(tmp_path)
    secured = kind != "plain"
    tls = trusting(tmp_path) if secured else None
    web = web_file(tmp_path, TLS) if secured else None
    with files_allowed(6_000), listening(web_file=web) as address, ExitStack() as opened:
        before, peak, seconds = resident(), 0.0, []
        for number in range(2_000):
            client = opened.enter_context(dial(address))
            if kind == "half a hello":
                _pour(client, b"\x16\x03\x01\x02\x00\x01")
            elif kind == "idle after TLS":
                assert tls is not None
                client = opened.enter_context(tls.wrap_socket(client, server_hostname="127.0.0.1"))
            elif number % 2:
                _pour(client, GET)
            if number % 100 == 99:
                seconds += scrape_seconds(address, 1, tls)
                peak = max(peak, resident() - before)
        seconds += scrape_seconds(address, 20, tls)
    seconds.sort()
    print(  # noqa: T201
        f"2,000 connections, {kind}: +{peak:.0f} MB, scrape median {seconds[20] * 1e3:.0f} ms, worst {seconds[-1] * 1e3:.0f} ms"
    )
    assert peak < 250


def test_who_goes_when_the_table_is_full() -> None:
    """An answer that is under way is finished while idle connections of the same client are let go, the oldest first."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: Request) -> Response:
        begun.set()
        go_on.wait(30)
        return PlainTextResponse("done")

    with listening(routes=[Route("/wait", wait)], patience=LASTING) as address, ExitStack() as opened:
        oldest = opened.enter_context(dial(address))
        busy = opened.enter_context(dial(address))
        busy.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert begun.wait(30)
        newest = [opened.enter_context(dial(address)) for _ in range(MOST_CONNECTIONS + 5)][-1]
        assert rest(oldest) == b""
        go_on.set()
        assert rest(busy).endswith(b"done")
        newest.sendall(GET + b"Connection: close\r\n\r\n")
        assert status(rest(newest)) == 200


def test_the_crowd_pays_for_itself() -> None:
    """Who opens one connection keeps it, though another client opens hundreds, whose own oldest go."""
    with listening(patience=LASTING) as address, ExitStack() as opened:
        port = int(address.rpartition(":")[2])
        modest = opened.enter_context(
            socket.create_connection(("127.0.0.1", port), timeout=30, source_address=("127.0.0.2", 0))
        )
        modest.sendall(GET + b"\r\n")
        assert status(modest.recv(1 << 16)) == 200
        crowd = [opened.enter_context(dial(address)) for _ in range(MOST_CONNECTIONS * 2)]
        for gone in crowd[:MOST_CONNECTIONS]:
            assert rest(gone) == b""
        modest.sendall(GET + b"Connection: close\r\n\r\n")
        assert status(rest(modest)) == 200


def test_who_is_refused_may_finish() -> None:
    """Who sends far too much can send it to its end and is told why, instead of finding the connection reset."""
    with listening(patience=LASTING) as address, dial(address) as client:
        client.sendall(GET + b"a:\r\n" * 8_000_000)
        client.shutdown(socket.SHUT_WR)
        assert status(rest(client)) == 431


def test_stopping_finishes_what_is_under_way() -> None:
    """A server that stops answers what it has begun to, and lets the idle go at once."""
    begun = threading.Event()

    def slow(_: Request) -> Response:
        begun.set()
        time.sleep(0.5)
        return PlainTextResponse("done")

    with ExitStack() as opened:
        with listening(routes=[Route("/slow", slow)]) as address:
            idle, busy = opened.enter_context(dial(address)), opened.enter_context(dial(address))
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            assert begun.wait(30)
        assert rest(busy).endswith(b"done")
        assert rest(idle) == b""


def test_ipv6() -> None:
    """An IPv6 address is listened on and told in brackets."""
    server = Server("[::1]:0", Published())
    server.start()
    try:
        assert server.address.startswith("[::1]:")
        assert get(server.address, "/-/healthy")[0] == 200
    finally:
        server.close()


def test_tls_on_a_plain_port_and_plain_on_a_tls_port(tmp_path: Path, hasty: str) -> None:
    """Either is refused at once, and the next client is served."""
    lay_out(tmp_path)
    context = trusting(tmp_path)
    with pytest.raises(ssl.SSLError):
        get(hasty, tls=context)
    with listening(web_file=web_file(tmp_path, TLS), patience=HASTY) as address:
        with dial(address) as client:
            client.sendall(GET + b"\r\n")
            assert not rest(client).startswith(b"HTTP")
        assert get(address, "/-/healthy", tls=context)[0] == 200
