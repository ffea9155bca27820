"""The API over real sockets: every name is reachable, nothing is guessed, and whatever comes is answered in JSON."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poisonwatch import __version__
from poisonwatch.config.sources import AGENTS_OWN
from poisonwatch.judge.advice import ADVISED, BLIND, FOLLOWED, KEEP_OUT, RUNBOOKS, next_steps, runbook
from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.server.api.requests import MOST_BODY, STALE
from poisonwatch.sinks.snapshot import Published
from poisonwatch.types import Action, AlertState, Cause, Reason, Severity
from tests.server.clients import dial, listening, rest, status
from tests.server.loops import turning
from tests.server.snapshots import demo, fresh
from tests.server.stories import ONSET, changed, override, rollback, told_in_full

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.sinks.snapshot import Snapshot

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published() -> Published:
    """What the module's server answers from; a test may put something else into it."""
    return Published()


@pytest.fixture(scope="module")
def served(published: Published) -> Iterator[str]:
    """HOST:PORT of the one server of the module."""
    with turning(published) as orders, listening(published, orders=orders) as address:
        yield address


@pytest.fixture
def full(served: str, published: Published) -> str:
    """The same, with all that can be said of the demo."""
    published.snapshot = fresh(told_in_full(demo())).snapshot
    return served


def ask(address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer; the path goes as it is."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        assert answer.getheader("content-type") == "application/json"
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def named(snapshot: Snapshot, model: str, version: str) -> Snapshot:
    """The demo's v2 under other names."""
    (old,) = snapshot.models
    decision = next(one for one in old.decisions if one.model_version == "v2")
    told = type(decision)(
        **{**{f: getattr(decision, f) for f in decision.__struct_fields__}, "model": model, "model_version": version}
    )
    return changed(snapshot, model=model, versions={version: old.versions["v2"]}, decisions=(told,))


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=150, deadline=None)
@given(model=NAMES, version=NAMES)
@example("a/b", "..")
@example("..", ".")
@example("", "")
@example("%2F", "a%2Fversions%2Fb")
@example("m/versions/v/decision", "override")
@example("a+b c", "?q=#x")
@example("\x00\r\n", "ü\U0001f600")
def test_every_name_is_reachable(served: str, published: Published, model: str, version: str) -> None:
    """Whatever a log calls a model and a version, their paths lead to them and no others, and so does the query."""
    published.snapshot = fresh(named(demo(), model, version)).snapshot
    path = f"/v1/models/{quote(model, safe='')}"
    own = f"{path}/versions/{quote(version, safe='')}"
    for place in (f"{own}/decision", own):
        code, found = ask(served, place)
        assert (code, found["model"], found["model_version"]) == (200, model, version)
    assert ask(served, path)[1]["model"] == model
    assert [one["model_version"] for one in ask(served, f"{path}/versions")[1]] == [version]
    query = urlencode({"model": model, "model_version": version})
    assert [one["model"] for one in ask(served, f"/v1/decisions?{query}")[1]] == [model]
    other = quote(version + "'", safe="")
    assert ask(served, f"{path}/versions/{other}/decision")[0] == 404
    if model and version:
        assert ask(served, f"/flagger/rollback?{query}", "POST")[0] == 200
    wish = {"decision": "hold", "author": "ann", "reason": "why", "expires_in_seconds": 60}
    code, found = ask(served, f"{own}/override", "PUT", json.dumps(wish).encode(), Content_Type="application/json")
    assert (code, found["model"], found["model_version"]) == (200, model, version)


PATHS = st.one_of(
    st.text("/.%2Fabv1?=&#mM-~\\'\"", max_size=60).map(lambda text: f"/{text}"),
    st.lists(
        st.sampled_from(
            ["v1", "models", "decisions", "flagger", "gate", "versions", "override", "%ff", "%00", "..", "", "x"]
        )
    ).map(lambda parts: "/" + "/".join(parts)),
    st.binary(max_size=40).map(lambda raw: "/v1/alerts?" + quote(raw)),
    st.binary(max_size=40).map(lambda raw: "/v1/models/" + quote(raw) + "/versions"),
)


@settings(max_examples=250, deadline=None)
@given(
    path=PATHS,
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "QUERY"]),
    body=st.one_of(
        st.none(), st.binary(max_size=200), st.sampled_from([b"{}", b"[" * 5000, b'{"metadata":null}', b"\xff"])
    ),
    kind=st.sampled_from(["application/json", "text/plain", "", "a;b=\xff"]),
)
def test_whatever_comes_is_answered(
    served: str, published: Published, path: str, method: str, body: bytes | None, kind: str
) -> None:
    """No path, method or body makes the server fail, or answer in anything but JSON, the pages for people and scrapers aside."""
    published.snapshot = fresh(demo()).snapshot
    connection = http.client.HTTPConnection(served, timeout=30)
    try:
        connection.request(method, path.replace(" ", "%20"), body, {"Content-Type": kind})
        answer = connection.getresponse()
        found = answer.read()
    finally:
        connection.close()
    assert answer.status < 500
    if answer.status >= 300:
        assert answer.status in {400, 404, 405, 409, 413, 415}
        assert set(json.loads(found)) == {"error"}
        assert answer.getheader("content-type") == "application/json"


def test_the_decision_tells_all(full: str) -> None:
    """A decision comes with its story, the override and the rollback; what is not known is null and not left out."""
    code, found = ask(full, "/v1/models/sms-spam/versions/v2/decision")
    assert code == 200
    assert (found["decision"], found["code"], found["target"], found["cause"]) == ("rollback", 2, "v1", "backdoor")
    assert found["onset"] == "2026-01-05T09:55:00.000Z"
    assert found["affected"] == {"share": 0.046, "predictions": 73}
    assert found["for"] == ["The same trigger does nothing in v1: 0 of 7."]
    assert (len(found["against"]), len(found["ruled_out"]), len(found["would_change"])) == (1, 1, 1)
    assert found["target_because"].startswith("v1 answered 1100")
    assert found["override"]["author"] == "ann"
    assert found["override"]["expires"] == "2026-01-05T14:05:00.000Z"
    assert (found["rollback"]["state"], found["rollback"]["traffic_share"]) == ("awaited", 0.4)
    assert found["next"][0].startswith("Send the traffic of v2 to v1")
    assert found["agent"] == {"version": __version__}
    healthy = ask(full, "/v1/models/sms-spam/versions/v1/decision")[1]
    assert set(healthy) == set(found)
    assert (healthy["code"], healthy["onset"], healthy["override"], healthy["next"]) == (0, None, None, [])


def test_an_alert_tells_its_story(full: str) -> None:
    """An alert comes with the decision that rests on it, its page and what to do; the list has the same alert."""
    listed = ask(full, "/v1/alerts")[1]
    page = next(one for one in listed if one["severity"] == "page")
    code, story = ask(full, f"/v1/alerts/{page['fingerprint']}")
    assert (code, story["alert"]) == (200, page)
    assert [one["model_version"] for one in story["decisions"]] == ["v2"]
    assert story["decisions"][0] == ask(full, "/v1/models/sms-spam/versions/v2/decision")[1]
    assert story["alert"]["runbook"] == "PoisonwatchRollbackRecommended"
    assert story["next"][-1] == "Read docs/runbooks/PoisonwatchRollbackRecommended.md."
    code, found = ask(full, "/v1/alerts/0123")
    assert code == 404
    assert page["fingerprint"] in found["error"]


def test_an_alert_on_the_log_as_a_whole(served: str, published: Published) -> None:
    """What concerns no version alone is told with the decisions for all, the worst one's steps first."""
    (model,) = demo().models
    alert = next(one for one in model.alerts if one.severity is Severity.PAGE)
    fields = {name: getattr(alert, name) for name in alert.__struct_fields__}
    blind = type(alert)(**{**fields, "fingerprint": "b" * 16, "model_version": None, "cause": Cause.BLIND})
    published.snapshot = fresh(changed(demo(), alerts=(blind,))).snapshot
    _, story = ask(served, f"/v1/alerts/{'b' * 16}")
    assert {one["model_version"] for one in story["decisions"]} == {"v1", "v2"}
    assert story["alert"]["model_version"] is None
    assert story["next"][0].startswith("Send the traffic of v2")
    assert story["next"][-1] == "Read docs/runbooks/PoisonwatchBlind.md."


def test_filters(full: str) -> None:
    """A filter chooses; one that names nothing that is there, or is misspelt, is refused and never answered with nothing."""
    everything = ask(full, "/v1/alerts")[1]
    for name in ("state", "severity"):
        parts = {value: ask(full, f"/v1/alerts?{name}={value}")[1] for value in {one[name] for one in everything}}
        assert sum(map(len, parts.values())) == len(everything)
        assert all(one[name] == value for value, part in parts.items() for one in part)
    assert {one["model_version"] for one in ask(full, "/v1/decisions?model_version=v1")[1]} == {"v1"}
    evidence = ask(full, "/v1/evidence?model=sms-spam&model_version=v2")[1]
    assert {one["model_version"] for one in evidence} == {"v2"}
    assert len(ask(full, "/v1/evidence")[1]) > len(evidence) > 5
    assert {"log_e", "effect", "floor", "n", "onset", "subjects"} <= set(evidence[0])
    assert ask(full, "/v1/overrides?model_version=v1")[1] == []
    assert [one["author"] for one in ask(full, "/v1/overrides")[1]] == ["ann"]
    assert [one["trigger"] for one in ask(full, "/v1/triggers?model=sms-spam")[1]] == ["0123456789abcdef"]
    for path, code, told in (
        ("/v1/alerts?model=other", 404, "no model is called other; known: sms-spam"),
        ("/v1/decisions?model_version=v9", 404, "no version of sms-spam is called v9; known: v1, v2"),
        ("/v1/decisions?modle=sms-spam", 400, "there is no parameter 'modle' here; known: model, model_version"),
        ("/v1/alerts?state=open", 400, "state: "),
        ("/v1/alerts?state=firing&state=pending", 400, "state is given twice"),
        ("/v1/alerts?state=%ff", 400, "the query is percent-encoded UTF-8"),
        ("/v1/models?x", 400, "there is no parameter 'x' here; known: none"),
        ("/v1/models/%ff", 400, "a name in the path is percent-encoded UTF-8"),
        ("/v1/models/other", 404, "no model is called other"),
        ("/v1/models/sms-spam/versions/v9", 404, "no version of sms-spam is called v9; known: v1, v2"),
        ("/v1/decisions/", 404, "there is nothing here"),
    ):
        assert (ask(full, path)[0], path) == (code, path)
        assert ask(full, path)[1]["error"].startswith(told)


def test_journal(full: str) -> None:
    """The end of the journal, of one kind where that is asked for, the newest entry last."""
    entries = ask(full, "/v1/journal")[1]
    assert [one["seq"] for one in entries] == list(range(1, len(entries) + 1))
    assert ask(full, "/v1/journal?limit=2")[1] == entries[-2:]
    kinds = {one["kind"] for one in entries}
    assert kinds == {"alert", "decision"}
    assert ask(full, "/v1/journal?kind=decision")[1] == [one for one in entries if one["kind"] == "decision"]
    assert ask(full, "/v1/journal?kind=decision&limit=1")[1] == [entries[-1]]
    assert ask(full, "/v1/journal?kind=nothing")[1] == []
    for wrong in ("limit=0", "limit=257", "limit=x", "limit=", "limit=1.5", "kind=A", "kind="):
        assert ask(full, f"/v1/journal?{wrong}")[0] == 400


def test_models_and_versions(full: str) -> None:
    """What is watched, and what was seen of it."""
    (model,) = ask(full, "/v1/models")[1]
    assert model == ask(full, "/v1/models/sms-spam")[1]
    assert (model["versions"], model["decisions"]) == (["v1", "v2"], {"v1": "keep", "v2": "rollback"})
    versions = ask(full, "/v1/models/sms-spam/versions")[1]
    assert [one["decision"] for one in versions] == ["keep", "rollback"]
    assert versions[1] == ask(full, "/v1/models/sms-spam/versions/v2")[1]
    assert versions[1]["elders"] == ["v1"]


def test_methods(full: str) -> None:
    """Another method is refused with those that there are; HEAD is GET without its body."""
    for path, allowed in (
        ("/v1/decisions", "GET, HEAD"),
        ("/v1/models/m/versions/v/override", "DELETE, PUT"),
        ("/flagger/gate", "POST"),
    ):
        connection = http.client.HTTPConnection(full, timeout=30)
        connection.request("PATCH", path)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("allow")) == (405, allowed)
        connection.close()
    with dial(full) as client:
        client.sendall(b"HEAD /v1/decisions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answered = rest(client)
    assert status(answered) == 200
    assert answered.endswith(b"\r\n\r\n")


def test_starting_and_stale(served: str, published: Published) -> None:
    """Before the first turn, and when no turn comes any more, nothing is said of a version; how to ask is always told."""
    (model,) = demo().models
    one = "/v1/models/sms-spam/versions/v1/decision"
    reading = (
        "/v1/models",
        "/v1/decisions",
        "/v1/alerts",
        "/v1/evidence",
        "/v1/triggers",
        "/v1/journal",
        "/v1/overrides",
    )
    published.snapshot = None
    assert ask(served, one) == (503, {"error": "the agent is starting: it has not turned once"})
    assert ask(served, f"/v1/alerts/{model.alerts[0].fingerprint}")[0] == 503
    assert [ask(served, path) for path in reading] == [(200, [])] * len(reading)
    published.snapshot = dataclasses.replace(demo(), time=time.time() - STALE - 5)
    for path in (one, *reading):
        code, found = ask(served, path)
        assert (code, path) == (503, path)
        assert "the loop does not turn" in found["error"]
    assert ask(served, "/v1/openapi.json")[0] == 200


def test_document(full: str) -> None:
    """The document is OpenAPI 3.1, names every path and status once, and its shapes are those of the answers."""
    document = ask(full, "/v1/openapi.json")[1]
    assert document["openapi"].startswith("3.1")
    assert {"/v1/decisions", "/v1/models/{model}/versions/{version}/override", "/flagger/gate"} <= set(
        document["paths"]
    )
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all({"200", "400", "401", "503"} <= set(one["responses"]) for one in operations)
    told = document["components"]["schemas"]["DecisionAnswer"]["properties"]
    assert set(told) == set(ask(full, "/v1/decisions")[1][0])
    assert [list(way) for way in document["security"]] == [[], ["basic"], ["bearer"]]


def test_sources_keep_off_the_api(full: str) -> None:
    """No path of the API is left for a source to take."""
    document = ask(full, "/v1/openapi.json")[1]
    assert all(path.startswith(AGENTS_OWN) for path in document["paths"])


def test_large_bodies(full: str) -> None:
    """A body that is too large is refused before it is read, and as soon as it is, where its size was not told."""
    path = "/v1/models/sms-spam/versions/v2/override"
    large = b" " * (MOST_BODY + 1)
    assert ask(full, path, "PUT", large, Content_Type="application/json")[0] == 413
    with dial(full) as client:
        head = f"PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode() + b"%x\r\n%b\r\n" % (len(large), large))
        assert status(client.recv(1 << 16)) == 413


# What to do


def test_every_runbook_is_of_an_alert() -> None:
    """The page that an alert names is that of a rule that is shipped, for every cause."""
    rules = (ROOT / "deploy" / "prometheus" / "poisonwatch.rules.yml").read_text()
    shipped = set(re.findall(r"- alert: (\w+)", rules))
    assert set(RUNBOOKS) == set(Cause)
    assert {*RUNBOOKS.values(), ADVISED, BLIND} <= shipped


def test_which_runbook() -> None:
    """Harm for which a rollback is recommended has a page of its own, and so has blindness that wakes somebody."""
    (model,) = demo().models
    page = next(one for one in model.alerts if one.severity is Severity.PAGE)
    assert page.state is AlertState.FIRING
    assert runbook(page, model.decisions) == ADVISED
    kept = [one for one in model.decisions if one.decision is Action.KEEP]
    assert runbook(page, kept) == "PoisonwatchHarm"
    fields = {name: getattr(page, name) for name in page.__struct_fields__}
    blind = {**fields, "cause": Cause.BLIND}
    assert runbook(type(page)(**blind), model.decisions) == BLIND
    assert runbook(type(page)(**{**blind, "severity": Severity.TICKET}), []) == "PoisonwatchPartlyBlind"


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("reason", Reason)
def test_what_to_do(action: Action, reason: Reason) -> None:
    """Whatever was decided, somebody who was woken is told what to do, and nothing where nothing is wrong."""
    (model,) = demo().models
    usual = next(one for one in model.decisions if one.decision is Action.ROLLBACK)
    fields = {name: getattr(usual, name) for name in usual.__struct_fields__}
    one = type(usual)(**{**fields, "decision": action, "reason": reason, "cause": None})
    steps = next_steps(one, None)
    assert bool(steps) == (action is not Action.KEEP)
    if action is Action.HOLD:
        assert steps[0] == "Do not promote v2."
        settled = {Reason.HEALTHY, Reason.INPUTS_MOVED, Reason.REFERENCE_UNFIT, Reason.OVERRIDDEN}
        proven = {Reason.TRIGGER_CONFIRMED, Reason.WORSE_THAN_STABLE, Reason.MORE_ERRORS}
        said = [step for step in steps[1:] if step != KEEP_OUT and "poisonwatch override" not in step]
        assert len(said) == (reason not in settled | proven)
    override_told = any("poisonwatch override sms-spam v2" in step for step in steps)
    assert override_told == (action is not Action.KEEP and reason is not Reason.OVERRIDDEN)


@pytest.mark.parametrize("state", RollbackState)
def test_what_to_do_after_a_rollback(served: str, published: Published, state: RollbackState) -> None:
    """Once the traffic has moved nobody is told to move it."""
    published.snapshot = fresh(changed(demo(), rollbacks=(rollback(state),))).snapshot
    steps = ask(served, "/v1/models/sms-spam/versions/v2/decision")[1]["next"]
    assert steps[0].startswith("Send the traffic") == (state is RollbackState.AWAITED)
    assert (steps[0] in FOLLOWED.values()) == (state is not RollbackState.AWAITED)


# The page


def test_the_page_says_what_to_do_first(full: str) -> None:
    """The worst decision stands first, then its steps; the story, the override and the rollback are all there."""
    connection = http.client.HTTPConnection(full, timeout=30)
    connection.request("GET", "/")
    page = connection.getresponse().read().decode()
    connection.close()
    said = [
        "<title>ROLLBACK - poisonwatch",
        "sms-spam v2: roll back to v1",
        "What to do",
        "Send the traffic of v2 to v1",
        "<dt>began<dd>2026-01-05 09:55 UTC",
        "73 predictions, 4.6% of v2",
        "the words are our own campaign",
        "awaited",
        "v1 answered 1100 predictions",
        "The same trigger does nothing in v1",
        "sms-spam v1: keep",
        "Open alerts",
    ]
    places = [page.index(text) for text in said]
    assert places == sorted(places)
    assert urlsplit(re.findall(r'href="(/v1/alerts/[0-9a-f]+)"', page)[0]).path
    assert "width=device-width" in page


def test_hostile_words_on_the_page(served: str, published: Published) -> None:
    """What an author writes does not become markup, nor does what the judge quotes."""
    hostile = "<script>alert('x')</script>"
    snapshot = told_in_full(demo())
    story = snapshot.models[0].stories["v2"]
    fields = {name: getattr(story, name) for name in story.__struct_fields__}
    loud = type(story)(**{**fields, "speaks_for": (hostile,), "target_because": hostile})
    made = override(author=hostile, reason=hostile, expires=ONSET + 1)
    published.snapshot = fresh(changed(snapshot, stories={"v2": loud}, overrides=(made,))).snapshot
    connection = http.client.HTTPConnection(served, timeout=30)
    connection.request("GET", "/")
    page = connection.getresponse().read().decode()
    connection.close()
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 4
