"""KServe's payload logger: every prediction of the captures, in any order, and no trick of a client hides one."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import KserveConfig
from poisonwatch.formats.events import Block, Event
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.kserve import Kserve
from tests.formats.posted import CAPTURES, JSON, Told, assert_one_end, gathered, posted, tell, tell_in_pieces
from tests.streams import START

ADULT = ("age", "workclass", "education", "years", "marital", "job", "relation", "race", "sex", "gain", "loss", "hours", "country")  # fmt: skip
INCOME = KserveConfig(features=ADULT, classes=("<=50K", ">50K"))
SMS = KserveConfig(classes=("ham", "spam"))
V1 = posted("kserve_v1_json.jsonl")
V2 = posted("kserve_v2_text.jsonl")
REQUEST, RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"


def truth(name: str) -> list[str]:
    """Ids in the order of the requests."""
    return [json.loads(line)["id"] for line in (CAPTURES / name).read_text("utf-8").splitlines()]


def half(kind: str, body: Any, *, at: float = START, **attributes: Any) -> Event:
    """One event of the logger in binary mode; attributes that are empty are left out."""
    said = {
        "specversion": "1.0",
        "type": kind,
        "id": "r1",
        "time": "2026-01-05T08:00:00.25Z",
        "inferenceservicename": "income",
        "namespace": "default",
        "component": "predictor",
        "endpoint": "",
        **attributes,
    }
    headers = {f"ce-{name}": value for name, value in said.items() if value != "-"}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Event(data, {**headers, "content-type": "application/json"}, at, "/")


def exchange(request: Any, response: Any, config: KserveConfig = INCOME, **attributes: Any) -> Told:
    """What becomes of one request and its response."""
    return tell(Kserve(config), [half(REQUEST, request, **attributes), half(RESPONSE, response, **attributes)])


def only(told: Told) -> dict[str, Any]:
    """The one record, when there is no more to tell."""
    (record,) = told.records
    assert not told.rejected
    return record


ASKED = {"instances": [[41, "DE"]]}
ANSWERED = {"predictions": [">50K"]}
SHORT = KserveConfig(features=("age", "country"), classes=("<=50K", ">50K"))


def test_the_capture_of_v1() -> None:
    """Each prediction, confidence and feature is what the server was asked and what it answered."""
    told = tell(Kserve(INCOME), V1)
    assert not told.rejected + told.faults
    assert [record["prediction_id"] for record in told.records] == truth("kserve_v1_json.truth.jsonl")
    for record, request, response in zip(told.records, V1[::2], V1[1::2], strict=True):
        (row,) = json.loads(request.body)["instances"]
        (answer,) = json.loads(response.body)["predictions"]
        assert record["features"] == dict(zip(ADULT, row, strict=True))
        assert record["prediction"] == answer["label"]
        assert record["confidence"] == answer["scores"][answer["label"]]
        assert record["probabilities"] == answer["scores"]
        assert record["model"] == "adult-income"
        assert 0 <= response.at - record["timestamp"] < 0.1
        assert "model_version" not in record


def test_the_capture_of_v2() -> None:
    """The same with tensors: a text, a label and probabilities."""
    told = tell(Kserve(SMS), V2)
    assert not told.rejected + told.faults
    assert [record["prediction_id"] for record in told.records] == truth("kserve_v2_text.truth.jsonl")
    for record, request, response in zip(told.records, V2[::2], V2[1::2], strict=True):
        label, shares = (tensor["data"] for tensor in json.loads(response.body)["outputs"])
        assert record["text"] == json.loads(request.body)["inputs"][0]["data"][0]
        assert [record["prediction"]] == label
        assert record["probabilities"] == dict(zip(("ham", "spam"), shares, strict=True))
        assert record["confidence"] == max(shares)
        assert "features" not in record


def test_what_is_written_to_a_store() -> None:
    """A whole array, an object a line, and the columns of a table say the same; only a table says no time."""
    array = (CAPTURES / "kserve_store.json").read_bytes()
    objects = json.loads(array)
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in objects)
    short = json.dumps([{**one, "reqType": one["reqType"].rpartition(".")[2]} for one in objects]).encode()
    with (CAPTURES / "kserve_store.csv").open(encoding="utf-8") as table:
        rows = b"".join(json.dumps(row).encode() + b"\n" for row in csv.DictReader(table))
    told, *others = (
        gathered([Translator(Kserve(INCOME)).translate(Block(data))]) for data in (array, lines, short, rows)
    )
    assert len(told.records) == 20
    assert others[0] == others[1] == told
    assert not told.rejected + told.faults
    for stored, record, columns in zip(objects[1::2], told.records, others[2].records, strict=True):
        (shares,) = json.loads(base64.b64decode(stored["bytes"]))["predictions"]
        assert record["probabilities"] == dict(zip(("<=50K", ">50K"), shares, strict=True))
        assert record["model"] == "income"
        assert {**record, "timestamp": None} == columns
        assert record["timestamp"] == pytest.approx(START, abs=1e8)


def as_structured(event: Event, data: str) -> dict[str, Any]:
    """The same event with its attributes in the body."""
    said: dict[str, Any] = {name[3:]: value for name, value in event.headers.items() if name.startswith("ce-")}
    match data:
        case "json":
            return {**said, "data": json.loads(event.body)}
        case "text":
            return {**said, "data": event.body.decode()}
    return {**said, "data_base64": base64.b64encode(gzip.compress(event.body)).decode()}


@pytest.mark.parametrize("data", ["json", "text", "base64"])
def test_brokers_may_change_the_mode(data: str) -> None:
    """Structured, in a batch, as lines of a file or of a post: the records are the same."""
    expected = tell(Kserve(INCOME), V1)
    bodies = [as_structured(event, data) for event in V1]
    content = "application/cloudevents+json"
    one_by_one = [
        Event(json.dumps(body).encode(), {"content-type": content}, event.at)
        for body, event in zip(bodies, V1, strict=True)
    ]
    batch = Event(json.dumps(bodies).encode(), {"content-type": "application/cloudevents-batch+json"}, V1[-1].at)
    lines = b"".join(json.dumps(body).encode() + b"\n" for body in bodies)
    for events in (one_by_one, [batch], [Event(lines, {}, V1[-1].at)]):
        assert tell(Kserve(INCOME), events) == expected
    assert gathered([Translator(Kserve(INCOME)).translate(Block(lines))]) == expected


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_bodies(pack: Any) -> None:
    """With the header stripped, as behind Knative."""
    assert tell(Kserve(INCOME), [event._replace(body=pack(event.body)) for event in V1]) == tell(Kserve(INCOME), V1)


@given(
    order=st.permutations(range(24)), cuts=st.sets(st.integers(0, 24)), restarts=st.booleans(), v2=st.booleans()
)  # fmt: skip
def test_no_order_cut_or_restart_changes_anything(order: list[int], cuts: set[int], restarts: bool, v2: bool) -> None:
    """Whatever comes first, however the stream is chopped, wherever the agent is killed."""
    events, config = (V2, SMS) if v2 else (V1, INCOME)
    shuffled = [events[number] for number in order]

    def key(record: dict[str, Any]) -> Any:
        return record["timestamp"]

    with TemporaryDirectory() as folder:
        told = tell_in_pieces(lambda: Kserve(config), shuffled, cuts, restarts, Path(folder))
    assert told == tell(Kserve(config), shuffled)
    assert sorted(told.records, key=key) == sorted(tell(Kserve(config), events[:24]).records, key=key)


def test_the_version() -> None:
    """An annotation wins over the response, that over the endpoint, that over the configuration."""
    named: dict[str, Any] = {"annotations": '{"example.com/Model-Version":"v7"}'}
    v2 = {
        "model_name": "m",
        "model_version": "2",
        "outputs": [{"name": "o", "shape": [1], "datatype": "BYTES", "data": ["x"]}],
    }
    config = KserveConfig(version_annotation="example.com/model-version", version_from_endpoint=True, model_version="c")
    assert only(exchange(ASKED, v2, config, endpoint="canary", **named))["model_version"] == "v7"
    assert only(exchange(ASKED, v2, config, endpoint="canary"))["model_version"] == "2"
    assert only(exchange(ASKED, ANSWERED, config, endpoint="canary"))["model_version"] == "canary"
    assert only(exchange(ASKED, ANSWERED, config))["model_version"] == "default"
    assert only(exchange(ASKED, ANSWERED, KserveConfig(model_version="c"), **named))["model_version"] == "c"
    assert "model_version" not in only(exchange(ASKED, ANSWERED, **named))
    for broken in ("{", "[]", "7", '{"example.com/model-version":7}'):
        assert only(exchange(ASKED, ANSWERED, config, annotations=broken))["model_version"] == "default"


def test_the_model() -> None:
    """The configuration's, else the service's, else what a v2 response says."""
    v2 = {"model_name": "m", "outputs": [{"name": "o", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}
    assert only(exchange(ASKED, v2, KserveConfig(model="mine")))["model"] == "mine"
    assert only(exchange(ASKED, v2))["model"] == "income"
    assert only(exchange(ASKED, v2, inferenceservicename="-"))["model"] == "m"


@pytest.mark.parametrize("part", ["namespace", "inferenceservicename", "component", "endpoint"])
def test_an_id_counts_within_its_service_only(part: str) -> None:
    """A client that sends one id to two services mixes nothing up."""
    events = [half(REQUEST, ASKED), half(RESPONSE, ANSWERED, **dict[str, Any]({part: "other"}))]
    told = tell(Kserve(SHORT), events)
    assert not any({"features", "text"} & record.keys() for record in told.records)
    assert (len(told.records), told.rejected) == (1, {"unpaired_request": 1})
    assert told.faults == {"unpaired_response": 1, "unreadable_request": 1}


@pytest.mark.parametrize("known", [True, False])
def test_a_request_that_never_comes_hides_no_answer(known: bool) -> None:
    """Too large for the door, or lost: what was answered counts without inputs, when it has waited long enough or the log ends."""
    later = [half(REQUEST, ASKED, id="r2", at=START + 1000)] if known else []
    told = tell(Kserve(SHORT), [half(RESPONSE, ANSWERED), half(RESPONSE, {"predictions": [0, 1]}, id="r3"), *later])
    assert [(record["prediction_id"], record["prediction"], record["timestamp"]) for record in told.records] == [
        ("r1", ">50K", START + 0.25),
        ("r3#0", "<=50K", START + 0.25),
        ("r3#1", ">50K", START + 0.25),
    ]
    assert not any(record.get("features") for record in told.records)
    assert told.faults == {"unpaired_response": 2, "unreadable_request": 2}
    assert told.rejected == ({"unpaired_request": 1} if known else {})
    # One that says nothing is one loss.
    assert tell(Kserve(SHORT), [half(RESPONSE, b"<html>")]).rejected == {"malformed": 1}
    assert tell(Kserve(SHORT), [half(RESPONSE, ANSWERED, statuscode="500")]).rejected == {"error_response": 1}


def test_an_answer_that_is_crowded_out_counts() -> None:
    """Who sends more than there is room for hides no answers with it."""
    answers = [half(RESPONSE, ANSWERED, id=str(number)) for number in range(20)]
    told = tell(Kserve(SHORT, waiting_bytes=10_000), answers)
    assert sorted(int(record["prediction_id"]) for record in told.records) == list(range(20))
    assert told.faults["crowded_out"] + told.faults["unpaired_response"] == 20
    assert told.faults["crowded_out"] >= 10
    assert told.rejected == {}


def test_a_client_that_chooses_one_id_for_all_its_requests() -> None:
    """Every one of its predictions counts, and the reuse shows; whose inputs they had is not known, and not chosen by the client."""
    requests = [half(REQUEST, {"instances": [[n, "DE"]]}) for n in range(5)]
    told = tell(Kserve(SHORT), [*requests, *[half(RESPONSE, {"predictions": [n % 2]}) for n in range(5)]])
    assert [record["prediction"] for record in told.records] == ["<=50K", ">50K", "<=50K", ">50K", "<=50K"]
    assert not any(record.get("features") for record in told.records)
    assert told.faults == {"id_reused": 4, "ambiguous_pair": 5, "unreadable_request": 5}
    assert not told.rejected


def test_the_older_sample_without_new_attributes() -> None:
    """No component, no metadata, no annotations, no endpoint; an id that is percent-encoded; no specversion."""
    bare: dict[str, Any] = {"component": "-", "endpoint": "-", "namespace": "-", "specversion": "-", "id": "a%20b"}
    told = exchange(ASKED, ANSWERED, **bare)
    assert only(told)["prediction_id"] == "a b"
    assert told.faults == {"no_specversion": 2, "features_wrong_length": 1}


def test_the_time_is_that_of_the_response() -> None:
    """The event's own; where it has none that can be, that of its receipt; where nobody knows, none."""
    request = half(REQUEST, ASKED, time="2026-01-05T07:59:59Z")
    for said, at, expected in (
        ("2026-01-05T08:00:00.123456789Z", START + 9, START + 0.123456),
        ("yesterday", START + 9, START + 9),
        ("-", START + 9, START + 9),
        ("-", math.nan, None),
    ):
        told = tell(Kserve(SHORT), [request, half(RESPONSE, ANSWERED, time=said, at=at)])
        assert only(told)["timestamp"] == expected


@pytest.mark.parametrize(("code", "reason"), [("500", "error_response"), ("404", "error_response"), ("200", None)])
def test_other_answers_are_counted(code: str, reason: str | None) -> None:
    """A request that got no prediction was served all the same; the pair is one loss, not two."""
    told = exchange(ASKED, ANSWERED, SHORT, statuscode=code)
    assert told.rejected == ({} if reason is None else {reason: 1})
    assert len(told.records) == (reason is None)


def test_error_bodies_are_counted() -> None:
    """As v2 and many v1 servers write them."""
    assert exchange(ASKED, {"error": "no such model"}).rejected == {"error_response": 1}
    assert exchange(ASKED, {"hello": 1}).rejected == {"unknown_response": 1}
    assert exchange(ASKED, b"<html>").rejected == {"malformed": 1}


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\xff\xfe rubbish",
        b"[" * 100_000,
        b'{"instances": 7}',
        b'{"other": [[1, 2]]}',
        b"\x1f\x8b\x08 no gzip",
        gzip.compress(bytes(100 << 20)),
        b'{"inputs": [{"name": "x", "shape": [1000000000, 1000000000], "datatype": "FP32", "data": [1]}]}',
    ],
)
def test_no_request_hides_what_was_answered(request_: bytes) -> None:
    """However odd, deep, broken or large it is: the prediction counts, and the fault shows."""
    told = exchange(request_, ANSWERED)
    record = only(told)
    assert record["prediction"] == ">50K"
    assert "features" not in record
    assert told.faults == {"unreadable_request": 1}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ASKED).encode("utf-16"),
        json.dumps(ASKED).encode("utf-8-sig"),
        b'{"instances": [[1, "XX"]], "instances": [[41, "DE"]]}',
        b'{"meta": {"x": [1e999, "\\ud800"]}, "signature_name": "s", "instances": [{"age": 41, "country": "DE"}]}',
        b'{"instances": [[{"age": 41, "country": "DE"}]]}',
        b'{"instances": [{"age": [41], "country": ["DE"]}]}',
        b'{"instances": [{"features": [41, "DE"]}]}',
        b'{"inputs": [[41, "DE"]]}',
        b'{"inputs": {"age": [41], "country": ["DE"]}}',
    ],
)
def test_other_ways_to_write_a_request(text: bytes) -> None:
    """What servers read, the monitor reads: the same features."""
    told = exchange(text, ANSWERED, SHORT)
    assert only(told)["features"] == {"age": 41, "country": "DE"}
    assert not told.faults


def test_both_roots_at_once() -> None:
    """The server reads `inputs`; the other is there to be read by a monitor."""
    told = exchange({"instances": [[1, "XX"]], "inputs": [[41, "DE"]]}, ANSWERED, SHORT)
    assert only(told)["features"] == {"age": 41, "country": "DE"}
    assert told.faults == {"ambiguous_request": 1}


def test_batches_and_columns_of_outputs() -> None:
    """Several rows of one request are predictions of their own."""
    rows = {"instances": [[1, "DE"], [2, "FR"], [3, "IT"]]}
    told = exchange(rows, {"predictions": [0, 1, 0]}, SHORT)
    assert [record["prediction_id"] for record in told.records] == ["r1#0", "r1#1", "r1#2"]
    assert [record["prediction"] for record in told.records] == ["<=50K", ">50K", "<=50K"]
    columns = {"outputs": {"label": ["a", "b", "c"], "score": [0.5, 0.6, 0.7]}}
    assert [record["confidence"] for record in exchange(rows, columns, SHORT).records] == [0.5, 0.6, 0.7]
    short = exchange(rows, {"predictions": [0, 1]}, SHORT)
    assert len(short.records) == 2
    assert short.rejected == {"rows_do_not_match": 1}


@pytest.mark.parametrize("told_by", ["nobody", "header", "metadata", "wrong"])
def test_binary_tensors(told_by: str) -> None:
    """The logger forwards the bytes and seldom the header that says where the JSON ends; when it does, beside both halves."""
    values = np.array([[41.0, 2.5], [1.0, -1.0]], "<f4").tobytes()
    head = b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}}]}'
    labels = b"\x04\0\0\0>50K\x05\0\0\0<=50K"
    answer = b'{"model_name":"m","outputs":[{"name":"y","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":17}}]}'
    length = str(len(head) + (5 if told_by == "wrong" else 0))
    events = [half(REQUEST, head + values), half(RESPONSE, answer + labels)]
    if told_by in {"header", "wrong"}:
        events = [
            event._replace(headers={**event.headers, "inference-header-content-length": length}) for event in events
        ]
    if told_by == "metadata":
        said = json.dumps({"Inference-Header-Content-Length": [length]})
        events = [event._replace(headers={**event.headers, "ce-metadata": said}) for event in events]
    told = tell(Kserve(SHORT), events)
    assert not told.rejected + told.faults
    assert [record["features"] for record in told.records] == [{"age": 41, "country": 2.5}, {"age": 1, "country": -1}]
    assert [record["prediction"] for record in told.records] == [">50K", "<=50K"]


def test_what_is_no_event_of_the_logger() -> None:
    """Each has its reason."""
    for event, reason in (
        (half("dev.knative.heartbeat", ASKED), "unknown_type"),
        (half(REQUEST, ASKED, id="-"), "missing_id"),
        (half(RESPONSE, b"\x1f\x8b\x08 no gzip"), "bad_compression"),
        (Event(b"7"), "not_an_object"),
        (Event(b"{"), "malformed"),
        (Event(b'{"prediction": "ham"}'), "unknown_type"),
        (Event(b'{"reqType": "response", "id": "1", "bytes": "?"}'), "bad_base64"),
    ):
        assert tell(Kserve(INCOME), [event]).rejected == {reason: 1}


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from([REQUEST, RESPONSE, "x.request", "other", ""]),
            st.sampled_from(["a", "b", ""]),
            st.binary(max_size=30)
            | JSON.map(lambda loaded: json.dumps(loaded).encode())
            | st.builds(
                lambda name, rows: json.dumps({name: rows}).encode(),
                st.sampled_from(["instances", "inputs", "predictions", "outputs", "error"]),
                JSON,
            ),
            st.dictionaries(
                st.sampled_from(["ce-time", "ce-metadata", "ce-annotations", "ce-statuscode", "ce-endpoint", "content-type", "inference-header-content-length"]),
                st.text(st.characters(blacklist_categories=["Cs"]), max_size=8) | st.sampled_from(["application/cloudevents+json", "{}", "1e999", "%ff"]),
            ),
            st.sampled_from([START, START - 400, math.nan]),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_every_event_has_one_end(events: list[tuple[str, str, bytes, dict[str, str], float]]) -> None:
    """Any headers and any bytes: nothing raises, and each event is rejected, paired, or waits."""
    framed = [
        Event(body, {"ce-type": kind, "ce-id": name, **odd}, at, "/")
        for kind, name, body, odd, at in events
        # A structured body may hold several events, or none: it is counted by the tests of CloudEvents.
        if not odd.get("content-type", "").startswith("application/cloudevents")
    ]
    made = Kserve(KserveConfig(classes=("a", "b"), version_annotation="x", pair_seconds=86400))
    assert_one_end(made, made.pairing, framed)
    plain = Kserve(INCOME)
    tell(plain, [Event(body, odd, at) for _, _, body, odd, at in events])


@given(
    loaded=JSON,
    name=st.sampled_from(["bytes", "id", "reqType", "metadata", "annotations", "occurrenceTime", "namespace"]),
)
def test_no_object_of_a_store_raises(loaded: Any, name: str) -> None:
    """Each of its fields may hold anything; one that is odd costs no other."""
    (good, answer) = json.loads((CAPTURES / "kserve_store.json").read_bytes())[:2]
    odd = {**good, name: loaded}
    events = [Event(json.dumps([odd, loaded]).encode()), Event(json.dumps([good, answer]).encode())]
    told = tell(Kserve(KserveConfig(version_annotation="x")), events)
    assert len(told.records) >= 1
    assert len(told.records) + told.rejected.total() >= 2
