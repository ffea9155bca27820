"""One POST: whatever a server does, it ends in time, in memory, at the place that was asked."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.errors import ProbeError
from poisonwatch.outgoing import LARGEST_ANSWER, Call
from tests.probe.answering import answering, listening, page, until_gone

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

TIMEOUT = 0.5
BOUND = TIMEOUT + 4.0
"""A bound on a hang: every hostile server here would hold a client without a deadline for 20 s or for ever."""


def post(url: str, body: bytes = b"{}", timeout: float = 20.0, **headers: str) -> bytes:
    """What one exchange gives."""
    return Call(timeout).post(url, body, headers)


def test_what_is_sent_and_what_comes_back() -> None:
    """Path, query, headers and body arrive as given; nothing asks for compression; the body comes back as sent."""
    with answering(b"\x00\xffbytes") as server:
        assert post(f"{server.url}/a/b?c=d%20e", b'{"x": 1}', Authorization="Bearer t") == b"\x00\xffbytes"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a/b?c=d%20e HTTP/1.1"
    assert f"Host: {server.url.removeprefix('http://')}" in lines
    assert {"Authorization: Bearer t", "Accept-Encoding: identity", "Connection: close"} <= set(lines)
    assert body == b'{"x": 1}'


def test_chunked_and_unbounded_bodies_are_read() -> None:
    """A body in chunks and one that ends with the connection are as good as one with its length."""
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    until_closed = b"HTTP/1.0 200 OK\r\n\r\nabcde"
    for answer in (chunks, until_closed):
        with listening(lambda connection, answer=answer: connection.sendall(answer)) as server:  # type: ignore[misc]
            assert post(server.url) == b"abcde"


def test_an_answer_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    """The bound on an answer is exact, with and without a declared length."""
    with answering(b"x" * LARGEST_ANSWER) as server:
        assert len(post(server.url)) == LARGEST_ANSWER
    for head in (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LARGEST_ANSWER + 1), b"HTTP/1.0 200 OK\r\n\r\n"):
        answer = head + b"x" * (LARGEST_ANSWER + 1)
        with (
            listening(lambda connection, answer=answer: connection.sendall(answer)) as server,  # type: ignore[misc]
            pytest.raises(ProbeError, match="more than 1,048,576 bytes"),
        ):
            post(server.url)


def endlessly(first: bytes, again: bytes, pause: float) -> Callable[[socket.socket], None]:
    """Send something, then something else for 20 seconds: a client without a total deadline stays as long."""

    def act(connection: socket.socket) -> None:
        connection.sendall(first)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            connection.sendall(again)
            time.sleep(pause)

    return act


SLOW = {
    "silence": until_gone,
    "a status by drops": endlessly(b"", b"H", 0.05),
    "a header by drops": endlessly(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
    "many headers": endlessly(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05),
    "a body by drops": endlessly(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x", 0.05),
    "a body without end by drops": endlessly(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05),
    "chunks by drops": endlessly(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.05),
    "a chunk's size by drops": endlessly(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", 0.05),
    "provisional answers": endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
    "an error by drops": endlessly(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\n", b"x", 0.05),
}


@pytest.mark.parametrize("act", SLOW.values(), ids=SLOW.keys())
def test_a_slow_server_holds_nobody(act: Callable[[socket.socket], None]) -> None:
    """However a server spreads its bytes, the deadline is that of the whole exchange."""
    with listening(act) as server:
        began = time.monotonic()
        with pytest.raises(ProbeError, match="did not answer in time"):
            post(server.url, timeout=TIMEOUT)
        assert TIMEOUT - 0.05 <= time.monotonic() - began < BOUND


def test_a_server_that_does_not_read_holds_nobody() -> None:
    """A request larger than every buffer, to a server that reads none of it, ends at the deadline."""
    with listening(lambda _: time.sleep(3 * TIMEOUT), reads=False) as server:
        began = time.monotonic()
        with pytest.raises(ProbeError, match="did not answer in time"):
            post(server.url, b"x" * (1 << 26), timeout=TIMEOUT)
        assert time.monotonic() - began < BOUND


def test_a_handshake_that_never_comes_holds_nobody() -> None:
    """A TLS handshake counts towards the deadline."""
    with listening(lambda _: time.sleep(3 * TIMEOUT), reads=False) as server:
        began = time.monotonic()
        with pytest.raises(ProbeError, match="did not answer in time"):
            post(server.url.replace("http:", "https:"), timeout=TIMEOUT)
        assert time.monotonic() - began < BOUND


def test_a_plain_server_under_https_is_an_error() -> None:
    """Nothing is sent in the clear where https was configured."""
    with (
        listening(lambda connection: connection.sendall(page(b"{}")), reads=False) as server,
        pytest.raises(ProbeError, match=r"could not be asked: .*SSL"),
    ):
        post(server.url.replace("http:", "https:"))


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_are_not_followed(status: str) -> None:
    """Where a redirect leads nobody calls, and the error says what to do."""
    with answering({}) as elsewhere:
        answer = page(b"", status, f"Location: {elsewhere.url}/")
        with (
            listening(lambda connection: connection.sendall(answer)) as server,
            pytest.raises(ProbeError, match=rf"redirects \({status[:3]}\): .*configure where it leads"),
        ):
            post(server.url)
    assert elsewhere.requests == []


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the environment leads a request elsewhere."""
    with answering(b"proxy") as proxy, answering(b"server") as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert post(server.url) == b"server"
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (page(b'{"error": "no such model"}', "404 Not Found"), 'answered 404: {"error": "no such model"}'),
        (page(b"\x1b[31m\xff\r\nred", "500 Oh"), "answered 500: \ufffd[31m\ufffd red"),
        (page(b"", "204 No Content"), "answered 204: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "ended before its answer did"),
        (b"", "could not be asked: Remote end closed connection without response"),
        (b"SSH-2.0-OpenSSH\r\n", "could not be asked: SSH-2.0-OpenSSH"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "could not be asked: "),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200, "could not be asked: got more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "could not be asked: "),
    ],
)
def test_what_a_bad_answer_is_told_as(answer: bytes, told: str) -> None:
    """Every other answer is an error that names the place and what came, in one printable line."""
    with listening(lambda connection: connection.sendall(answer)) as server, pytest.raises(ProbeError) as raised:
        post(f"{server.url}/path?secret=1")
    text = str(raised.value)
    assert text.startswith(f"{server.url}/path {told}")
    assert text.isprintable()
    assert "secret" not in text
    assert len(text) < 300


def test_a_token_that_a_server_echoes_is_not_told() -> None:
    """An error quotes what a server said, but not our token."""
    with (
        answering(b"you sent Authorization: Bearer s3cret, and s3cret is wrong", status="401 No") as server,
        pytest.raises(ProbeError) as raised,
    ):
        post(server.url, Authorization="Bearer s3cret")
    assert "answered 401: you sent" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_what_cannot_be_reached_is_an_error() -> None:
    """A port where nothing listens, and a name that is none, are told as the system tells them."""
    with pytest.raises(ProbeError, match=r"http://127.0.0.1:1/ could not be asked: Connection refused"):
        post("http://127.0.0.1:1/")
    for host in ("a..b", "x" * 64 + ".invalid"):
        with pytest.raises(ProbeError, match="could not be asked"):
            post(f"http://{host}/")


def test_an_exchange_is_ended_from_another_thread() -> None:
    """`abort` ends an exchange that is under way, long before its deadline; it may come before anything was sent."""
    with listening(until_gone) as server:
        call = Call(60.0)
        timer = threading.Timer(0.3, call.abort)
        began = time.monotonic()
        timer.start()
        with pytest.raises(ProbeError, match="could not be asked"):
            call.post(server.url, b"{}", {})
        timer.join()
        assert time.monotonic() - began < 10
    early = Call(60.0)
    early.abort()
    with pytest.raises(ProbeError, match="the call was ended"):
        early.post(server.url, b"{}", {})


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """A server that answers with the bytes that it was sent as a body: its URL."""

    def act(connection: socket.socket) -> None:
        connection.sendall(found[0].requests[-1].partition(b"\r\n\r\n")[2])

    with listening(act) as server:
        found = [server]
        yield server.url


@given(
    garbage=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(b"HTTP/1.1 200 OK\r\n".__add__),
        st.binary(max_size=200).map(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".__add__),
    )
)
def test_garbage_never_gives_anything_but_bytes_or_an_error(echo: str, garbage: bytes) -> None:
    """Whatever bytes a server sends, no exception other than the documented one comes out."""
    with suppress(ProbeError):
        assert isinstance(post(echo, garbage), bytes)
