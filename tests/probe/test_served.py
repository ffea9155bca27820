"""What the server says it served, read from real servers, and from those that do what they should not."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from pydantic import ValidationError

from poisonwatch.config.served import ServedConfig
from poisonwatch.errors import ProbeError
from poisonwatch.monitor.coverage import ALL, MOST_SERIES
from poisonwatch.probe.served import Reading, ServedCount, matching
from poisonwatch.types import UNVERSIONED
from tests.probe.answering import listening, page

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 20.0


def served(url: str = "http://h/metrics", **keys: Any) -> ServedConfig:
    """Where a counter called `requests_total` is."""
    return ServedConfig(**{"url": url, "metric": "requests_total", **keys})


def first_reading(config: ServedConfig) -> Reading:
    """What comes of asking once."""
    count = ServedCount(config)
    try:
        assert count.ask(0.0)
        return awaited(count)
    finally:
        count.close()


def awaited(count: ServedCount) -> Reading:
    """What came of the last asking, once it did."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        reading = count.reading()
        if reading is not None:
            return reading
        time.sleep(0.005)
    raise AssertionError("no reading came")


@pytest.fixture
def exported() -> Iterator[tuple[str, Counter]]:
    """A real page of metrics, and its counter by model, version and status."""
    registry = CollectorRegistry()
    counter = Counter("requests", "What was served.", ("model", "version", "code"), registry=registry)
    Gauge("requests_total_ratio", "Another whose name begins alike.", registry=registry).set(77)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics", counter
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_real_page_is_read(exported: tuple[str, Counter]) -> None:
    """Series that have the labels count, each by itself, under the version that its label names."""
    url, counter = exported
    config = served(url, labels={"model": "mail", "code": ("200", "201")}, version_label="version")
    assert first_reading(config) == Reading(())
    counter.labels("mail", "v1", "200").inc(5)
    counter.labels("mail", "v1", "201").inc(2)
    counter.labels("mail", 'v"2\n', "200").inc(3)
    counter.labels("mail", "", "200").inc(4)
    counter.labels("mail", "v1", "500").inc(100)
    counter.labels("other", "v1", "200").inc(1000)
    found = first_reading(config)
    assert found.problem is None
    assert found.series is not None
    assert len({series.name for series in found.series}) == 4
    assert sorted((series.version, series.value) for series in found.series) == [
        (UNVERSIONED, 4),
        ('v"2\u25a1', 3),
        ("v1", 2),
        ("v1", 5),
    ]
    every = first_reading(served(url))
    assert every.series is not None
    assert sum(series.value for series in every.series) == 1114
    assert {series.version for series in every.series} == {ALL}


def test_it_is_asked_when_it_is_due_and_never_twice_at_once(exported: tuple[str, Counter]) -> None:
    """Every `every_seconds` of the loop's clock, also after the clock was set back; a reading is told once."""
    count = ServedCount(served(exported[0], every_seconds=10))
    try:
        assert count.reading() is None
        assert count.ask(100.0)
        assert not count.ask(200.0)
        awaited(count)
        assert count.reading() is None
        assert not count.ask(109.9)
        assert count.ask(110.0)
        awaited(count)
        assert count.ask(50.0)
        awaited(count)
    finally:
        count.close()
    assert not count.ask(1000.0)


def test_a_token_is_sent_and_read_anew(tmp_path: Path) -> None:
    """As for endpoints; where the file is not there, that is the problem."""
    heads: list[bytes] = []

    def act(connection: socket.socket) -> None:
        heads.append(connection.recv(65536))
        connection.sendall(page(b"# TYPE requests_total counter\nrequests_total 1\n"))

    token = tmp_path / "token"
    with listening(act, reads=False) as server:
        config = served(server.url, bearer_token_file=token)
        problem = first_reading(config).problem
        assert problem is not None
        assert "the token cannot be read" in problem
        for secret in ("one", "two"):
            token.write_text(f"{secret}\n")
            assert first_reading(config).series is not None
    assert [secret in head for secret, head in zip((b"Bearer one", b"Bearer two"), heads, strict=True)] == [True, True]
    assert heads[0].startswith(b"GET / HTTP/1.1\r\n")


def silent(connection: socket.socket) -> None:
    """Say nothing until the client goes."""
    while connection.recv(65536):
        pass


def slowly(connection: socket.socket) -> None:
    """A byte now and then: no read ever times out by itself."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"#")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    """A page without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"# more\n" * 100_000)


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (silent, "did not answer in time"),
        (slowly, "did not answer in time"),
        (endless, "answered with more than|did not answer in time"),
        (lambda connection: connection.sendall(page(b"no", "503 Unavailable")), "answered 503"),
        (lambda connection: connection.sendall(page(b"", "302 Found", "Location: http://elsewhere/")), "redirects"),
        (lambda connection: connection.sendall(b"\x00\xff" * 100), "could not be asked"),
        (lambda connection: connection.sendall(page(b"\xff\x00" * 500)), "has no metric requests_total"),
    ],
)
def test_whatever_a_server_does_comes_back_as_a_reason(act: Any, problem: str) -> None:
    """Within the deadline, in words, and the loop never waited."""

    def both(connection: socket.socket) -> None:
        if act is not silent:
            connection.recv(65536)
        act(connection)

    with listening(both, reads=False) as server:
        begun = time.monotonic()
        found = first_reading(served(server.url, timeout_seconds=1.0))
        assert time.monotonic() - begun < PATIENCE
    assert found.series is None
    assert found.problem is not None
    assert re.search(problem, found.problem)


def test_closing_gives_up_what_is_under_way() -> None:
    """At once, although the server would let it wait."""
    with listening(silent, reads=False) as server:
        count = ServedCount(served(server.url, timeout_seconds=60))
        assert count.ask(0.0)
        time.sleep(0.2)
        begun = time.monotonic()
        count.close()
        assert time.monotonic() - begun < PATIENCE


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "has no metric"),
        (b"requests_totals 5\n", "has no metric"),
        (b"requests 5\n", "has no metric"),
        (b"requests_total NaN\n", "no count"),
        (b"requests_total -1\n", "no count"),
        (b"requests_total +Inf\n", "no count"),
        (b"requests_total 1e300\n", "no count"),
        (b"requests_total\n", "has no metric"),
        (b"requests_total five\n", "no sample"),
        (b'requests_total{a="b" 5\n', "no sample"),
        (b"".join(b'requests_total{a="%d"} 1\n' % n for n in range(MOST_SERIES + 1)), "narrow `labels`"),
    ],
)
def test_a_page_that_says_nothing_of_use_is_told(body: bytes, problem: str) -> None:
    """With what to do about it."""
    with pytest.raises(ProbeError, match=problem):
        matching(body, served())


def test_a_counter_without_series_has_served_nothing() -> None:
    """A server that has just begun; OpenMetrics names the family without its suffix."""
    for body in (b"# TYPE requests_total counter\n", b"# HELP requests x\n# TYPE requests counter\n# EOF\n"):
        assert matching(body, served()) == ()
    assert matching(b"requests_total 5\n", served(labels={"model": "mail"})) == ()
    (series,) = matching(b"requests_total{} 5 1700000000000\r\n", served())
    assert series.value == 5


@given(st.binary(max_size=400), st.sampled_from([b"", b"requests_total", b"requests_total{", b'requests_total{a="']))
def test_no_page_breaks_it(noise: bytes, before: bytes) -> None:
    """Series that are counts, or a reason."""
    try:
        found = matching(before + noise, served())
    except ProbeError:
        return
    assert all(math.isfinite(series.value) and series.value >= 0 for series in found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "a b"},
        {"metric": "sum(x)"},
        {"labels": {"a-b": "c"}},
        {"url": "http://h/{model}"},
        {"url": "http://user:secret@h/"},
        {"counts": "requests", "version_label": "version"},
        {"tolerated_ratio": 0},
        {"every_seconds": 0.1},
        {"every_seconds": 200},
        {"every_seconds": 5, "delay_seconds": 9},
    ],
)
def test_mistakes_in_the_configuration_are_told(wrong: dict[str, Any]) -> None:
    """Nothing that cannot work is accepted."""
    with pytest.raises(ValidationError):
        ServedConfig(**{"url": "http://h/metrics", "metric": "requests_total", **wrong})
