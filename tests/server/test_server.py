"""The server: what is asked over real sockets is answered from the published snapshot, in the form asked for."""

from __future__ import annotations

import dataclasses
import gzip
import http.client
import json
import math
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from poisonwatch.errors import ConfigError
from poisonwatch.server.api.requests import STALE
from poisonwatch.server.thread import Server
from poisonwatch.sinks.journal import trigger_entry
from poisonwatch.sinks.prometheus import CATALOGUE, MINED
from poisonwatch.sinks.snapshot import Published
from tests.server.snapshots import demo, fresh, served, small, together
from tests.streams import predictions
from tests.triggers import trigger

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.types import Trigger

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def ask(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def told(url: str, path: str) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    status, headers, body = ask(url, path)
    assert headers["content-type"] == "application/json"
    return status, json.loads(body)


def test_metrics_in_the_form_asked_for() -> None:
    """Without a wish, and for text, the page is in the text format; for OpenMetrics in that, ended as it must be."""
    with served(fresh(demo())) as url:
        for accept in ({}, {"Accept": "*/*"}, {"Accept": "text/plain"}):
            status, headers, body = ask(url, "/metrics", **accept)
            assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
            assert {family.name for family in text_families(body.decode())} >= set(CATALOGUE)
        status, headers, body = ask(url, "/metrics", Accept=OPENMETRICS)
        assert (status, headers["content-type"].split(";")[0]) == (200, "application/openmetrics-text")
        assert body.endswith(b"# EOF\n")
        names = {family.name for family in openmetrics_families(body.decode())}  # type: ignore[no-untyped-call]
        assert {name.removesuffix("_info") for name in CATALOGUE} <= {name.removesuffix("_info") for name in names}


def test_metrics_are_those_of_the_newest_snapshot() -> None:
    """A page is kept for as long as its snapshot stands, in as many forms as are asked for, and no longer."""
    old, new = (dataclasses.replace(demo(), time=time.time() - ago) for ago in (30, 0))
    published = Published(old)
    with served(published) as url:
        pages = [ask(url, "/metrics")[2] for _ in range(2)]
        assert pages[0] == pages[1]
        for number in range(20):
            form = f"application/openmetrics-text; version=1.0.0; escaping=underscores; q=0.{number + 1}"
            assert ask(url, "/metrics", Accept=form)[2].endswith(b"# EOF\n")
        published.snapshot = new
        assert ask(url, "/metrics")[2] != pages[0]


@pytest.mark.parametrize("accept", ["", ";", "a/b;q=x", "application/openmetrics-text;version=", "\xff" * 3, "," * 999])
def test_odd_wishes(accept: str) -> None:
    """Whatever form is asked for, there is a page."""
    with served(Published()) as url:
        assert ask(url, "/metrics", Accept=accept, Accept_Encoding=accept)[0] == 200


def test_compressed_metrics() -> None:
    """A scraper that takes gzip gets the same page compressed."""
    with served(fresh(demo())) as url:
        _, _, plain = ask(url, "/metrics")
        _, headers, packed = ask(url, "/metrics", Accept_Encoding="gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 3


def test_decisions() -> None:
    """Every version's decision is told, alone and among all, with the fields that a deployer needs."""
    with served(fresh(demo())) as url:
        status, found = told(url, "/v1/decisions")
        assert status == 200
        assert {(one["model_version"], one["decision"], one["target"]) for one in found} == {
            ("v1", "keep", None),
            ("v2", "rollback", "v1"),
        }
        for one in found:
            path = f"/v1/models/{one['model']}/versions/{one['model_version']}/decision"
            assert told(url, path) == (200, one)
            assert {"decision", "reason", "cause", "target", "alerts", "since", "summary"} <= set(one)


def test_no_such_decision() -> None:
    """A version without a decision is not found, and the answer says which there are."""
    with served(fresh(demo())) as url:
        status, found = told(url, "/v1/models/sms-spam/versions/v9/decision")
        assert status == 404
        assert found["error"].startswith("no decision for sms-spam/v9; known: sms-spam/v1")
        assert ask(url, "/nothing")[0] == 404
        assert ask(url, "/metrics", "POST")[0] == 405


def test_nothing_published_yet() -> None:
    """Before the first turn the agent is not ready, decides nothing, and its metrics say who it is."""
    with served(Published()) as url:
        assert ask(url, "/-/ready")[0] == 503
        assert ask(url, "/-/healthy")[0] == 200
        assert told(url, "/v1/decisions") == (200, [])
        status, found = told(url, "/v1/models/m/versions/v/decision")
        assert (status, found["error"]) == (503, "the agent is starting: it has not turned once")
        families = {family.name: family for family in text_families(ask(url, "/metrics")[2].decode())}
        assert set(families) >= set(CATALOGUE)
        assert [sample.value for sample in families["poisonwatch_build_info"].samples] == [1]
        assert b"No version was judged yet" in ask(url, "/")[2]


def test_ready_and_healthy() -> None:
    """An agent whose loop turns is ready and healthy."""
    with served(fresh(demo())) as url:
        assert (ask(url, "/-/ready")[0], ask(url, "/-/healthy")[0]) == (200, 200)


def test_stale() -> None:
    """When the loop no longer turns, decisions are withheld and health says so; metrics tell the old heartbeat."""
    old = time.time() - STALE - 5
    with served(Published(dataclasses.replace(demo(), time=old))) as url:
        assert ask(url, "/-/healthy")[0] == 503
        for path in ("/v1/decisions", "/v1/triggers", "/v1/models/sms-spam/versions/v1/decision"):
            status, found = told(url, path)
            assert status == 503
            assert "the loop does not turn" in found["error"]
        assert b"The loop does not turn" in ask(url, "/")[2]
        status, _, body = ask(url, "/metrics")
        assert status == 200
        families = {family.name: family for family in text_families(body.decode())}
        assert families["poisonwatch_heartbeat_timestamp_seconds"].samples[0].value == pytest.approx(old)


def with_triggers(*triggers: Trigger) -> Published:
    """The demo's end as if these triggers were open."""
    (model,) = demo().models
    return fresh(dataclasses.replace(demo(), models=(dataclasses.replace(model, triggers=triggers),)))


def test_triggers() -> None:
    """Every open trigger is told with the fields of the journal, its pattern as an object that can be looked for."""
    with served(with_triggers(trigger(), trigger(trigger="f" * 16, log_e=-math.inf))) as url:
        status, found = told(url, "/v1/triggers")
        page = ask(url, "/")[2].decode()
    assert status == 200
    assert [one["trigger"] for one in found] == ["0123456789abcdef", "f" * 16]
    assert found[0]["pattern"] == {
        "type": "phrase",
        "words": ["special", "discount", "code", "xyz"],
        "said": "",
        "place": "",
    }
    assert found[0]["first_seen"] == "2026-01-05T09:55:00.250Z"
    assert {key: value for key, value in found[0].items() if key != "pattern"}.items() <= trigger_entry(
        trigger()
    ).items()
    assert "<h2>Triggers</h2>" in page
    assert (
        "sms-spam v2 answers &#x27;ham&#x27; where the text has &#x27;special discount code xyz&#x27;: 14 of 15" in page
    )
    assert 'href="/v1/triggers"' in page


def test_no_triggers() -> None:
    """Without a trigger the list is empty and the page says nothing of it; where none can be seen, the page says so."""
    with served(with_triggers()) as url:
        assert told(url, "/v1/triggers") == (200, [])
        assert b"Triggers" not in ask(url, "/")[2]
    (model,) = demo().models
    blind = dataclasses.replace(model, triggers=(), blind={MINED: "there is <nothing> to learn"})
    with served(fresh(dataclasses.replace(demo(), models=(blind,)))) as url:
        page = ask(url, "/")[2].decode()
    assert "Trigger mining is blind for sms-spam: there is &lt;nothing&gt; to learn." in page
    with served(Published()) as url:
        assert told(url, "/v1/triggers") == (200, [])


def test_hostile_triggers() -> None:
    """Patterns and classes come from a log: they do not become markup on the status page."""
    hostile = trigger(text=f"'{HOSTILE}'", label=HOSTILE, model_version=HOSTILE)
    with served(with_triggers(hostile)) as url:
        page = ask(url, "/")[2].decode()
        assert told(url, "/v1/triggers")[1][0]["label"] == HOSTILE
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


HOSTILE = '<script>alert("x")</script>&\\"'


def test_hostile_names(tmp_path: Path) -> None:
    """Names from a log neither become markup on the status page, nor break JSON, metrics or paths."""
    records = [{**record, "model": HOSTILE} for record in predictions(1000, 99)]
    live = [{**record, "model_version": "a/b <i>"} for record in records]
    with served(fresh(small(tmp_path, live, records))) as url:
        page = ask(url, "/")[2].decode()
        assert "<script>" not in page
        assert "<i>" not in page
        assert "&lt;script&gt;" in page
        (found,) = told(url, "/v1/decisions")[1]
        assert (found["model"], found["model_version"]) == (HOSTILE, "a/b <i>")
        model, version = quote(HOSTILE, safe=""), quote("a/b <i>", safe="")
        assert told(url, f"/v1/models/{model}/versions/{version}/decision") == (200, found)
        families = {family.name: family for family in text_families(ask(url, "/metrics")[2].decode())}
        assert {sample.labels["model"] for sample in families["poisonwatch_decision"].samples} == {HOSTILE}


def test_several_models(tmp_path: Path) -> None:
    """Every model's decisions are told together."""
    with served(fresh(together(demo(), small(tmp_path, predictions(300))))) as url:
        models = {one["model"] for one in told(url, "/v1/decisions")[1]}
    assert models == {"sms-spam", "mail"}


def test_taken_port() -> None:
    """A port that is taken is an error at start, with its place in the configuration and the remedy."""
    with served(Published()) as url, pytest.raises(ConfigError) as refused:
        Server(urlsplit(url).netloc, Published())
    assert str(refused.value).startswith(f"web.listen_address: cannot listen on {urlsplit(url).netloc} (Address")
    assert "free it or choose another" in str(refused.value)


@pytest.mark.parametrize("address", ["nonsense", "", "localhost", "localhost:", "localhost:http", "localhost:99999"])
def test_bad_address(address: str) -> None:
    """What is no address is told as such."""
    with pytest.raises(ConfigError, match=r"web\.listen_address: .* is not HOST:PORT"):
        Server(address, Published())


@pytest.mark.parametrize("address", ["no.such.host.invalid:0", "203.0.113.1:0"])
def test_address_of_somebody_else(address: str) -> None:
    """A host that is not this one's cannot be listened on, and that is said."""
    with pytest.raises(ConfigError, match=r"web\.listen_address: cannot listen on"):
        Server(address, Published())


def test_closed_server_lets_the_port_go() -> None:
    """After closing, the port is free again at once."""
    first = Server("127.0.0.1:0", Published())
    first.start()
    address = first.address
    assert ask(f"http://{address}", "/-/healthy")[0] == 200
    first.close()
    second = Server(address, Published())
    second.start()
    assert ask(f"http://{address}", "/-/healthy")[0] == 200
    second.close()


def test_never_started_server_closes() -> None:
    """A server that was made and not started lets its port go too."""
    first = Server("127.0.0.1:0", Published())
    address = first.address
    first.close()
    Server(address, Published()).close()
