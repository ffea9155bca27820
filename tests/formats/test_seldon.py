"""Seldon's request logger: each kind of data, by HTTP or Kafka, and labels from its feedback."""

from __future__ import annotations

import base64
import gzip
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import SeldonConfig
from poisonwatch.formats.events import Event
from poisonwatch.formats.seldon import Seldon
from tests.formats.posted import JSON, Told, assert_one_end, posted, tell, tell_in_pieces
from tests.streams import START

REQUEST, RESPONSE = "io.seldon.serving.inference.request", "io.seldon.serving.inference.response"
FEEDBACK = "io.seldon.serving.feedback"
ASKED = {"data": {"names": ["a", "b"], "ndarray": [[1.5, 2.5]]}}
ANSWERED = {"data": {"names": ["ham", "spam"], "ndarray": [[0.25, 0.75]]}, "meta": {"requestPath": {"classifier": "shop/mail:1.3"}}}  # fmt: skip
RECORD = {
    "timestamp": START + 0.25,
    "prediction_id": "463e96ad",
    "model": "mail",
    "model_version": "shop/mail:1.3",
    "features": {"a": 1.5, "b": 2.5},
    "prediction": "spam",
    "confidence": 0.75,
    "probabilities": {"ham": 0.25, "spam": 0.75},
}


def event(kind: str, body: Any, *, at: float = START, prefix: str = "ce-", **attributes: Any) -> Event:
    """One event of the logger; attributes that are `-` are left out."""
    said = {
        "specversion": "1.0",
        "type": kind,
        "id": "of the event",
        "time": "2026-01-05T08:00:00.25Z",
        "source": "http://executor/",
        "requestid": "463e96ad",
        "modelid": "classifier",
        "inferenceservicename": "mail",
        "namespace": "seldon",
        "endpoint": "default",
        "protocol": "seldon",
        **attributes,
    }
    headers = {f"{prefix}{name}": value for name, value in said.items() if value != "-"}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Event(data, {**headers, "content-type": "application/json"}, at, "/")


def exchange(request: Any, response: Any = ANSWERED, **config: Any) -> Told:
    """What becomes of one request and its response."""
    return tell(Seldon(SeldonConfig(**config)), [event(REQUEST, request), event(RESPONSE, response, id="another")])


def test_over_http() -> None:
    """Joined by the id of the request, not of the event; the image is the version, the response's names are the classes."""
    told = exchange(ASKED)
    assert told.records == [RECORD]
    assert not told.rejected + told.faults


def test_by_kafka() -> None:
    """The names of headers have no prefix then, and nobody says a version of the events."""
    sent = [event(REQUEST, ASKED, prefix="", specversion="-"), event(RESPONSE, ANSWERED, prefix="", specversion="-")]
    told = tell(Seldon(SeldonConfig()), sent)
    assert told.records == [RECORD]
    assert not told.rejected + told.faults


def test_structured_and_lines() -> None:
    """Brokers may change the mode, also to a batch."""
    bodies = [
        {
            **{name[3:]: value for name, value in one.headers.items() if name.startswith("ce-")},
            "data": json.loads(one.body),
        }
        for one in (event(REQUEST, ASKED), event(RESPONSE, ANSWERED))
    ]
    lines = b"".join(json.dumps(body).encode() + b"\n" for body in bodies)
    for sent in (json.dumps(bodies).encode(), lines):
        told = tell(Seldon(SeldonConfig()), [Event(sent, {"content-type": "application/json"}, START)])
        assert told.records == [RECORD]
        assert not told.rejected + told.faults


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"data": {"names": ["a", "b"], "tensor": {"shape": [1, 2], "values": [1.5, 2.5]}}}, {"features": {"a": 1.5, "b": 2.5}}),
        ({"data": {"ndarray": [[1.5, 2.5]]}}, {"features": [1.5, 2.5]}),
        ({"data": {"names": ["x"], "ndarray": ["hello"]}}, {"features": {"x": "hello"}}),
        ({"data": {"tensor": {"values": [1.5]}}}, {"features": [1.5]}),
        ({"strData": "hello"}, {"text": "hello"}),
        ({"jsonData": {"a": 1.5}}, {"features": {"a": 1.5}}),
        ({"jsonData": [1.5, 2.5]}, {"features": [1.5, 2.5]}),
        ({"jsonData": [[1.5, 2.5]]}, {"features": [1.5, 2.5]}),
        ({"jsonData": {"instances": [[1.5, 2.5]]}}, {"features": [1.5, 2.5]}),
        ({"binData": base64.b64encode(b"hello").decode()}, {"text": "hello"}),
        ({"instances": [[1.5, 2.5]]}, {"features": [1.5, 2.5]}),
        ({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.5, 2.5]}]}, {"features": [1.5, 2.5]}),
    ],
)  # fmt: skip
def test_kinds_of_requests(request_: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each kind of data of its own protocol, and the bodies of the other two."""
    told = exchange(request_)
    (record,) = told.records
    assert {name: record[name] for name in ("features", "text") if name in record} == expected
    assert record["prediction"] == "spam"
    assert not told.rejected + told.faults


@pytest.mark.parametrize("meta", [{"x": 1}, {"tags": {"a": [1, {"b": 2}]}, "puid": "mine"}, "x", [], 7, {"puid": 7}])
def test_a_meta_field_hides_no_request(meta: Any) -> None:
    """Any of it made the logger itself lose the request (seldon-core#3620)."""
    assert exchange({**ASKED, "meta": meta}).records == [RECORD]


@pytest.mark.parametrize(
    "request_",
    [b"", b"\xff", b"\x1f\x8b\x08 no", b'{"binData": "?"}', b'{"data": {"tftensor": {}}}', b'{"data": 7}', b'{"data": {"tensor": {"shape": [1000000000, 1000000000], "values": [1]}}}', b"[]", b"[" * 100_000, gzip.compress(bytes(50 << 20))],
)  # fmt: skip
def test_no_request_hides_what_was_answered(request_: bytes) -> None:
    """The prediction counts, and the fault shows."""
    told = exchange(request_)
    assert told.records == [{name: value for name, value in RECORD.items() if name != "features"}]
    assert told.faults == {"unreadable_request": 1}
    assert not told.rejected


def test_the_names_of_a_client_go_behind_those_of_the_configuration() -> None:
    """A client that renames the columns renames no feature; two kinds of data at once are a fault."""
    renamed = {"data": {"names": ["x", "a"], "ndarray": [[1.5, 2.5]]}, "strData": "look here"}
    told = exchange(renamed, features=("a", "b"))
    assert told.records == [RECORD]
    assert told.faults == {"ambiguous_request": 1}


def test_responses() -> None:
    """Names that say nothing, classes of the configuration, labels, v2 with its own version, and errors."""
    unnamed = {"data": {"names": ["t:0", "t:1"], "ndarray": [[0.25, 0.75]]}}
    assert exchange(ASKED, unnamed).records[0]["prediction"] == 1
    assert exchange(ASKED, unnamed, classes=("no", "yes")).records[0]["prediction"] == "yes"
    assert exchange(ASKED, ANSWERED, classes=("no", "yes")).records[0]["prediction"] == "yes"
    assert exchange(ASKED, {"data": {"names": ["label"], "ndarray": [["ham"]]}}).records[0]["prediction"] == "ham"
    assert exchange(ASKED, {"strData": "ham"}, model_version="c").records[0]["model_version"] == "c"
    v2 = {"model_version": "7", "outputs": [{"name": "o", "shape": [1], "datatype": "BYTES", "data": ["ham"]}]}
    assert exchange(ASKED, v2).records[0]["model_version"] == "7"
    failed = {"status": {"code": 500, "status": "FAILURE"}}
    assert exchange(ASKED, failed).rejected == {"error_response": 1}
    assert exchange(ASKED, b"<html>").rejected == {"malformed": 1}


def test_batches() -> None:
    """Rows of one request are predictions of their own."""
    rows = {"data": {"ndarray": [[1, 2], [3, 4]]}}
    answers = {"data": {"tensor": {"shape": [2, 2], "values": [0.25, 0.75, 0.75, 0.25]}}}
    told = exchange(rows, answers, classes=("ham", "spam"))
    assert [(r["prediction_id"], r["prediction"]) for r in told.records] == [
        ("463e96ad#0", "spam"),
        ("463e96ad#1", "ham"),
    ]


def test_feedback_is_labels() -> None:
    """The truth, by the id of the prediction that the client sends back, or the event's own."""
    truth = {"data": {"ndarray": [["spam"]]}}
    label = {"timestamp": START + 0.25, "prediction_id": "463e96ad", "label": "spam", "source": "http://executor/"}
    (sent,) = tell(Seldon(SeldonConfig()), [event(FEEDBACK, {"request": ASKED, "truth": truth})]).labels
    assert sent == label
    back = {"response": {**ANSWERED, "meta": {"puid": "p"}}, "truth": truth, "reward": 1.0}
    (sent,) = tell(Seldon(SeldonConfig()), [event(FEEDBACK, back, source="-")]).labels
    assert sent == {"timestamp": START + 0.25, "prediction_id": "p", "label": "spam"}
    several = {"truth": {"data": {"ndarray": [[1], [0]]}}}
    told = tell(Seldon(SeldonConfig(classes=("ham", "spam"))), [event(FEEDBACK, several)])
    assert [(one["prediction_id"], one["label"]) for one in told.labels] == [
        ("463e96ad#0", "spam"),
        ("463e96ad#1", "ham"),
    ]
    without: Any
    for without in ({"reward": 1.0}, {"truth": {}}, {"truth": {"data": {"ndarray": []}}}, 7):
        told = tell(Seldon(SeldonConfig()), [event(FEEDBACK, without)])
        assert told.rejected == {"missing_label": 1}
        assert told.labels == []


@pytest.mark.parametrize("part", ["namespace", "inferenceservicename", "endpoint", "modelid", "requestid"])
def test_an_id_counts_within_its_model_only(part: str) -> None:
    """The same id goes through every node of a graph."""
    other: dict[str, Any] = {part: "other"}
    told = tell(Seldon(SeldonConfig()), [event(REQUEST, ASKED), event(RESPONSE, ANSWERED, **other)])
    assert not any({"features", "text"} & record.keys() for record in told.records)
    assert (len(told.records), told.rejected) == (1, {"unpaired_request": 1})
    assert told.faults == {"unpaired_response": 1, "unreadable_request": 1}


def test_what_is_no_event_of_the_logger() -> None:
    """Each has its reason."""
    for sent, reason in (
        (event("org.kubeflow.serving.inference.request", ASKED), "unknown_type"),
        (event(REQUEST, ASKED, requestid="-", id="-"), "missing_id"),
        (event(RESPONSE, b"\x1f\x8b\x08 no gzip"), "bad_compression"),
        (event(FEEDBACK, b"{"), "malformed"),
        (Event(b"7"), "not_an_object"),
    ):
        assert tell(Seldon(SeldonConfig()), [sent]).rejected == {reason: 1}


@given(order=st.permutations(range(20)), cuts=st.sets(st.integers(0, 20)), restarts=st.booleans())
def test_no_order_cut_or_restart_changes_anything(order: list[int], cuts: set[int], restarts: bool) -> None:
    """Bodies of a real v2 server behind Seldon's logger, in any order and in any pieces."""
    posts = posted("kserve_v2_text.jsonl")[:20]
    sent = [
        event(RESPONSE if n % 2 else REQUEST, post.body, at=post.at, requestid=json.loads(post.body)["id"], time="-")
        for n, post in enumerate(posts)
    ]
    shuffled = [sent[number] for number in order]
    with TemporaryDirectory() as folder:
        told = tell_in_pieces(lambda: Seldon(SeldonConfig()), shuffled, cuts, restarts, Path(folder))
    assert told == tell(Seldon(SeldonConfig()), shuffled)
    assert len(told.records) == 10
    labels = {json.loads(post.body)["id"]: json.loads(post.body)["outputs"][0]["data"][0] for post in posts[1::2]}
    assert {record["prediction_id"]: record["prediction"] for record in told.records} == labels


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from([REQUEST, RESPONSE, FEEDBACK, ""]),
            st.sampled_from(["a", "b", "-"]),
            st.binary(max_size=20)
            | st.dictionaries(
                st.sampled_from(["data", "strData", "jsonData", "binData", "meta", "status", "truth", "response", "instances", "outputs"]),
                JSON
                | st.fixed_dictionaries({}, optional={"names": JSON, "ndarray": JSON, "tensor": st.fixed_dictionaries({}, optional={"shape": JSON | st.lists(st.integers(0, 3)), "values": JSON})}),
            ).map(lambda loaded: json.dumps(loaded).encode()),
            st.sampled_from([START, START - 400, math.nan]),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_every_event_has_one_end(events: list[tuple[str, str, bytes, float]]) -> None:
    """Any data: nothing raises, and each event is rejected, paired, or waits."""
    made = Seldon(SeldonConfig(classes=("a", "b"), pair_seconds=86400))
    sent = [event(kind, body, at=at, requestid=name) for kind, name, body, at in events]
    assert_one_end(made, made.pairing, sent)
    tell(Seldon(SeldonConfig()), [one._replace(headers={}) for one in sent])
