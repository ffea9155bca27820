"""Bodies over real sockets: acknowledged only when they are in the spool, refused with a reason that is counted."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poisonwatch.formats.events import events
from poisonwatch.server.ingest import LONGEST_CUT, LONGEST_VALUE, MOST_HEADERS, Door, Token, routes
from poisonwatch.sources.spool import Spool
from tests.server.clients import listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from poisonwatch.formats.events import Event

PATH = "/v1/predictions"
BODY = b'{"timestamp": 1700000000, "prediction": "spam"}'
ROOM = 1 << 22


@contextmanager
def served(*doors: Door, most_in_flight: int = 1 << 20, body_seconds: float = 30.0) -> Iterator[int]:
    """A server with these doors, on the port that is given."""
    with listening(routes=routes(doors, most_in_flight, body_seconds)) as address:
        yield int(address.rpartition(":")[2])


@contextmanager
def one_door(
    folder: Path, body_bytes: int = 1 << 16, *, room: int = ROOM, token: Token | None = None, body_seconds: float = 30.0
) -> Iterator[tuple[int, Spool]]:
    """A served spool."""
    spool = Spool(folder / "spool", room)
    try:
        with served(Door(PATH, spool, token, body_bytes), body_seconds=body_seconds) as port:
            yield port, spool
    finally:
        spool.close()


def post(
    port: int, body: object = BODY, path: str = PATH, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def stored(spool: Spool) -> list[Event]:
    """All events that are there now."""
    found: list[Event] = []
    while (block := spool.poll()) is not None:
        found += events(block)
    return found


def raw(port: int, sent: bytes) -> socket.socket:
    """A connection over which some bytes went."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(sent)
    return connection


def eventually(spool: Spool, reason: str, count: int) -> None:
    """Wait until so many were refused for this reason."""
    until = time.monotonic() + 20
    while spool.refused[reason] != count and time.monotonic() < until:
        time.sleep(0.01)
    assert spool.refused == {reason: count}


def test_stored_as_it_came(tmp_path: Path) -> None:
    """The body is stored byte by byte, with the headers that formats read, when and where it came; packed bodies stay so."""
    before = time.time()
    with one_door(tmp_path) as (port, spool):
        packed = gzip.compress(BODY)
        status, headers, answer = post(
            port, packed, Content_Type="application/json", Content_Encoding="gzip", CE_Id="7", X_Other="no", Cookie="no"
        )
        assert (status, headers["content-type"], json.loads(answer)) == (
            200,
            "application/json",
            {"stored": len(packed)},
        )
        (event,) = stored(spool)
        assert event.body == packed
        assert event.headers == {"content-type": "application/json", "content-encoding": "gzip", "ce-id": "7"}
        assert event.origin == PATH
        assert before <= event.at <= time.time()
        assert spool.refused == {}


def test_acknowledged_means_on_disk(tmp_path: Path) -> None:
    """When the answer is there, another reader of the folder finds the body, whatever becomes of the server."""
    with one_door(tmp_path) as (port, _):
        assert post(port)[0] == 200
        (path,) = (tmp_path / "spool").glob("*.frames")
        assert BODY in path.read_bytes()


def test_chunked_body(tmp_path: Path) -> None:
    """A body of unknown length is taken, and refused when it grows too large."""
    with one_door(tmp_path, 1024) as (port, spool):
        assert post(port, iter([b"a" * 500, b"b" * 500]))[0] == 200
        assert [event.body for event in stored(spool)] == [b"a" * 500 + b"b" * 500]
        assert post(port, iter([b"a" * 500, b"b" * 525]))[0] == 413
        assert (stored(spool), spool.refused) == ([], {"body_too_large": 1})


def test_oversized_body(tmp_path: Path) -> None:
    """It is refused by its length, before it is sent; one of just the allowed size is taken."""
    with one_door(tmp_path, 1024) as (port, spool):
        assert post(port, b"x" * 1024)[0] == 200
        assert len(stored(spool)) == 1
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {1 << 40}\r\nExpect: 100-continue\r\n\r\n"
        with raw(port, head.encode()) as connection:
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"send smaller batches" in answer
        assert (stored(spool), spool.refused) == ([], {"body_too_large": 1})


def test_empty_body(tmp_path: Path) -> None:
    """Nothing is nothing to store."""
    with one_door(tmp_path) as (port, spool):
        assert post(port, b"")[0] == 400
        assert (stored(spool), spool.refused) == ([], {"empty_body": 1})


def test_other_methods(tmp_path: Path) -> None:
    """Only POST is taken."""
    with one_door(tmp_path) as (port, spool):
        for method in ("GET", "PUT", "DELETE", "HEAD"):
            status, headers, _ = post(port, None, method=method)
            assert (status, headers["allow"]) == (405, "POST")
        assert post(port, path="/v1/nowhere")[0] == 404
        assert stored(spool) == []


def test_token(tmp_path: Path) -> None:
    """Only who brings the token is let in; a new token holds at once, and without one nobody is let in."""
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    with one_door(tmp_path, token=Token(secret)) as (port, spool):
        for wrong in (
            "",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3crets",
            "Basic s3cret",
            "s3cret",
            "Bearer \xe9",
        ):
            status, headers, _ = post(port, Authorization=wrong)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert post(port)[0] == 401
        assert (stored(spool), spool.refused) == ([], {"unauthorized": 9})
        assert post(port, Authorization="Bearer s3cret")[0] == 200
        assert post(port, authorization="bearer  s3cret")[0] == 200
        (tmp_path / "next").write_text("others")
        (tmp_path / "next").replace(secret)
        assert post(port, Authorization="Bearer s3cret")[0] == 401
        assert post(port, Authorization="Bearer others")[0] == 200
        secret.write_text("")
        assert [post(port, Authorization=known)[0] for known in ("Bearer others", "Bearer ", "Bearer")] == [401] * 3
        secret.unlink()
        assert post(port, Authorization="Bearer others")[0] == 401
        assert len(stored(spool)) == 3


def test_token_is_asked_for_first(tmp_path: Path) -> None:
    """Who has no token is told nothing else, and none of his body is read."""
    secret = tmp_path / "token"
    secret.write_text("s3cret")
    with one_door(tmp_path, 1024, token=Token(secret)) as (port, spool):
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        with raw(port, head.encode()) as connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")
        assert spool.refused == {"unauthorized": 1}


def test_odd_headers_never_hide_a_body(tmp_path: Path) -> None:
    """A header that is repeated or one of too many is dropped, a long one cut, known by a hash; the body is stored."""
    with one_door(tmp_path) as (port, spool):
        lines = [
            "ce-id: " + "x" * (LONGEST_VALUE + 1),
            "ce-" + "n" * 200 + ": v",
            "ce-type: first",
            "ce-type: second",
            *(f"ce-more{number}: v" for number in range(MOST_HEADERS)),
            "Content-Type: application/json",
            "ce-odd: \xff\x80",
        ]
        head = "\r\n".join(
            [f"POST {PATH} HTTP/1.1", "Host: a", "Content-Length: 4", "Connection: close", *lines, "", ""]
        )
        with raw(port, head.encode("latin-1") + b"body") as connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        (event,) = stored(spool)
        assert event.body == b"body"
        assert event.headers["content-type"] == "application/json"
        assert event.headers["ce-type"] == "first"
        assert len(event.headers["ce-id"]) == LONGEST_CUT + 17
        assert len(event.headers) <= MOST_HEADERS + 1
        assert sum(line.startswith("ce-") for line in lines) + 1 == len(event.headers) + spool.faults["header_dropped"]
        assert spool.refused == {}


def test_full_spool(tmp_path: Path) -> None:
    """It says so, with the time to come again, and takes more when the loop has caught up."""
    with one_door(tmp_path, 1024, room=4096) as (port, spool):
        answers = [post(port, b"x" * 1000) for _ in range(10)]
        assert [status for status, _, _ in answers] == [200] * 3 + [429] * 7
        assert int(answers[-1][1]["retry-after"]) > 0
        assert spool.refused == {"spool_full": 7}
        assert len(stored(spool)) == 3
        spool.commit(spool.position())
        assert post(port, b"x" * 1000)[0] == 200


def test_client_that_leaves(tmp_path: Path) -> None:
    """Half a body is nothing: it is not stored, and counted."""
    with one_door(tmp_path) as (port, spool):
        raw(port, f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf".encode()).close()
        eventually(spool, "disconnected", 1)
        assert stored(spool) == []


def test_slow_body(tmp_path: Path) -> None:
    """A body that drips in has a deadline as a whole."""
    with one_door(tmp_path, body_seconds=0.3) as (port, spool):
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
        with raw(port, head.encode()) as connection:
            for _ in range(5):
                time.sleep(0.04)
                connection.sendall(b"x")
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert (stored(spool), spool.refused) == ([], {"body_too_slow": 1})
        assert post(port)[0] == 200


def test_bodies_in_flight_are_bounded(tmp_path: Path) -> None:
    """Many slow bodies together may hold only so much; what they hold is given back, and others go on."""
    with one_door(tmp_path, 500_000) as (port, spool):  # the server holds a million bytes at once
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n"
        slow = [raw(port, head.encode() + b"x" * 400_000) for _ in range(2)]
        time.sleep(0.5)
        status, headers, _ = post(port, b"x" * 499_999)
        assert (status, headers["retry-after"]) == (503, "1")
        assert post(port)[0] == 200
        assert spool.refused == {"too_many_in_flight": 1}
        for connection in slow:
            connection.sendall(b"x" * 100_000)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            connection.close()
        for _ in range(4):
            assert post(port, b"x" * 499_999)[0] == 200


def test_many_clients(tmp_path: Path) -> None:
    """Everything that many clients were told is stored is there, once, and nothing else."""
    told: list[bytes] = []
    with one_door(tmp_path) as (port, spool):

        def client(name: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            for number in range(25):
                body = b"%d.%d" % (name, number)
                connection.request("POST", PATH, body)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    told.append(body)
            connection.close()

        clients = [threading.Thread(target=client, args=(name,)) for name in range(16)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert len(told) == 16 * 25
        assert sorted(event.body for event in stored(spool)) == sorted(told)


def test_two_doors(tmp_path: Path) -> None:
    """Each path has its own spool, token and size."""
    first, second = Spool(tmp_path / "p", ROOM), Spool(tmp_path / "f", ROOM)
    with served(Door(PATH, first, None, 1024), Door("/v1/feedback", second, None, 2048)) as port:
        assert post(port, b"x" * 1500)[0] == 413
        assert post(port, b"x" * 1500, "/v1/feedback")[0] == 200
    assert (stored(first), len(stored(second))) == ([], 1)
    first.close()
    second.close()


SICK_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from tests.server.test_ingest import one_door, post, stored
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with one_door(Path(sys.argv[1])) as (port, spool):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        answers = [post(port, b"x" * 20_000) for _ in range(5)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        answers.append(post(port, b"x" * 20_000))
        print([status for status, _, _ in answers], answers[2][1]["retry-after"], dict(spool.refused), len(stored(spool)))
"""


def test_sick_disk(tmp_path: Path) -> None:
    """A disk that refuses is answered by 503 and the time to come again; when it is well, all goes on."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SICK_DISK), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[200, 200, 503, 503, 503, 200] 5 {'spool_failed': 3} 3\n", done.stderr
