"""The client of one endpoint: which URL is asked about a version, whose answer counts, what token is sent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.config.endpoint import TemplateConfig
from poisonwatch.errors import ProbeError
from poisonwatch.probe.client import Client
from poisonwatch.types import UNVERSIONED
from tests.probe.answering import Listening, answering, listening, until_gone

if TYPE_CHECKING:
    from pathlib import Path


def client(url: str | None = None, model: str = "mail", **keys: Any) -> Client:
    """The client of an endpoint that is configured so."""
    names_version = keys.pop("names_version", False)
    config = TemplateConfig(kind="template", url=url, request="{{text}}", label="", **keys)
    return Client(config, model, names_version=names_version)


def target(server: Listening) -> str:
    """Path and query of the last request."""
    return server.requests[-1].split(b" ")[1].decode()


def test_placeholders_are_filled_and_versions_have_their_own_urls() -> None:
    """A version of its own goes to its own URL, every other to the common one; model and version are put in, once, quoted."""
    with answering({"x": 1}) as server:
        asked = client(
            f"{server.url}/{{model}}/{{model_version}}?v={{model_version}}",
            "a b/{model_version}",
            versions={"v2": f"{server.url}/canary/{{model}}"},
        )
        assert asked.post([], "v1:3~rc+1@x") == {"x": 1}
        assert target(server) == "/a%20b%2F%7Bmodel_version%7D/v1%3A3~rc%2B1%40x?v=v1%3A3~rc%2B1%40x"
        asked.post([], "v2")
        assert target(server) == "/canary/a%20b%2F%7Bmodel_version%7D"
        assert server.bodies() == [[], []]


@pytest.mark.parametrize("version", ["..", ".", "", "a/b", "..%2f", "a\\b", "a b", "v\u00e9", "x" * 129, "a?b", "v1\n"])
def test_a_version_from_the_log_leads_nowhere_else(version: str) -> None:
    """What a log calls a version is not trusted to be part of a path; under `versions` it may be called anything."""
    with answering({}) as server:
        with pytest.raises(ProbeError, match="cannot go into a URL"):
            client(f"{server.url}/{{model_version}}/infer").post({}, version)
        assert server.requests == []
        client(f"{server.url}/{{model_version}}", versions={version: f"{server.url}/fine"}).post({}, version)
        assert target(server) == "/fine"


def test_a_version_without_url() -> None:
    """Where there is no common URL, only the named versions can be asked."""
    with pytest.raises(ProbeError, match="version v1 has no endpoint: give it a URL under `versions`"):
        client(versions={"v2": "http://localhost/"}).post({}, "v1")


def test_whose_answer_counts() -> None:
    """An answer counts when the configuration or the server vouches that the asked version gave it, and in no other case."""
    common = client("http://localhost/")
    by_place = client("http://localhost/{model_version}")
    by_body = client("http://localhost/", names_version=True)
    own = client("http://localhost/", versions={"v1": "http://localhost/v1"})
    for one in (common, by_place, by_body, own):
        assert one.answered("v1", "v1") == "v1"
        assert one.answered(UNVERSIONED, "7") == "7"
        assert one.answered(UNVERSIONED, "") is None
    for one in (common, by_place, by_body):
        with pytest.raises(ProbeError, match="version 2 answered where v1 was asked"):
            one.answered("v1", "2")
    # Where a version has its own URL the server may call it what it likes.
    assert own.answered("v1", "2") == "2"
    for silent in (None, ""):
        for one in (by_place, by_body, own):
            assert one.answered("v1", silent) is None
        with pytest.raises(ProbeError, match="nothing says which version answered"):
            common.answered("v1", silent)


def test_the_token_is_read_for_each_request(tmp_path: Path) -> None:
    """A token that was rotated is used at once; without a file none is sent."""
    path = tmp_path / "token"
    with answering({}) as server:
        asked = client(server.url, bearer_token_file=path)
        for token in (b"first\n", b"second"):
            path.write_bytes(token)
            asked.post({}, "v1")
            assert b"\r\nAuthorization: Bearer %s\r\n" % token.strip() in server.requests[-1]
        client(server.url).post({}, "v1")
        assert b"uthorization" not in server.requests[-1]


@pytest.mark.parametrize("token", [b"", b"two words", b"two\r\nX-Header: lines", b"\xff", b"\x00"])
def test_a_token_that_is_none_is_not_sent(tmp_path: Path, token: bytes) -> None:
    """A file that holds no token, or cannot be read, is an error that does not quote it; nothing is sent."""
    path = tmp_path / "token"
    path.write_bytes(token)
    with answering({}) as server:
        with pytest.raises(ProbeError, match="one line of printable ASCII") as raised:
            client(server.url, bearer_token_file=path).post({}, "v1")
        assert "words" not in str(raised.value)
        path.unlink()
        with pytest.raises(ProbeError, match="the token cannot be read"):
            client(server.url, bearer_token_file=path).post({}, "v1")
        assert server.requests == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b'{"a": NaN}', b"[1e999]", b"\xff", b'"\xff"', b"[" * 100_000, b"{} {}"]
)
def test_what_is_no_json_is_an_error(body: bytes) -> None:
    """An answer that is no JSON, or has numbers that JSON has not, is told as that."""
    with answering(body) as server, pytest.raises(ProbeError, match="version v1 did not answer with JSON"):
        client(server.url).post({}, "v1")


def test_a_closed_client_asks_nothing() -> None:
    """Closing ends what is under way in another thread, and nothing is sent afterwards."""
    with listening(until_gone) as server:
        asked = client(server.url, timeout_seconds=60)
        timer = threading.Timer(0.3, asked.close)
        timer.start()
        with pytest.raises(ProbeError, match="could not be asked"):
            asked.post({}, "v1")
        timer.join()
        sent = len(server.requests)
        with pytest.raises(ProbeError, match="the endpoint is closed"):
            asked.post({}, "v1")
        assert len(server.requests) == sent == 1
