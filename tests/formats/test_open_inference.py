"""Requests and responses of v2, however they are logged: by ids, by Kafka's keys and topics, or in one object."""

from __future__ import annotations

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import OpenInferenceLogConfig
from poisonwatch.formats.events import Block, Event
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.open_inference import OpenInference
from tests.formats.posted import JSON, Told, assert_one_end, gathered, posted, tell, tell_in_pieces
from tests.streams import START

SMS = OpenInferenceLogConfig(classes=("ham", "spam"))
POSTS = [Event(event.body, {}, event.at, "/") for event in posted("kserve_v2_text.jsonl")]
"""Bodies of a real server, without what a logger says of them."""

ASKED = {"id": "r1", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2.5]}]}
ANSWERED = {
    "model_name": "m",
    "model_version": "7",
    "id": "r1",
    "outputs": [
        {"name": "predict", "shape": [1, 1], "datatype": "INT64", "parameters": {"content_type": "np"}, "data": [1]}
    ],
}


def event(body: Any, at: float = START, origin: str = "/", **headers: str) -> Event:
    """A message with headers, whose names have `_` for `-` and for `:`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Event(
        data, {name.replace("_", "-").replace("-key", ":key"): value for name, value in headers.items()}, at, origin
    )


def told_of(*events: Event, **config: Any) -> Told:
    """What becomes of events."""
    return tell(OpenInference(OpenInferenceLogConfig(**config)), events)


def only(told: Told) -> dict[str, Any]:
    """The one record, when there is no more to tell."""
    (record,) = told.records
    assert not told.rejected + told.faults
    return record


def test_the_bodies_of_the_capture() -> None:
    """Each text, prediction and probability, joined by the ids of the bodies."""
    told = tell(OpenInference(SMS), POSTS)
    assert not told.rejected + told.faults
    assert len(told.records) == 20
    for record, request, response in zip(told.records, POSTS[::2], POSTS[1::2], strict=True):
        asked, answered = json.loads(request.body), json.loads(response.body)
        label, shares = (tensor["data"] for tensor in answered["outputs"])
        assert record == {
            "timestamp": response.at,
            "prediction_id": asked["id"],
            "model": "sms-spam",
            "text": asked["inputs"][0]["data"][0],
            "prediction": label[0],
            "confidence": max(shares),
            "probabilities": dict(zip(("ham", "spam"), shares, strict=True)),
        }


def test_both_in_one_object() -> None:
    """As objects or as their text, one a line, in a file or in one post: the same records."""
    plain = []
    texts = []
    for request, response in zip(POSTS[::2], POSTS[1::2], strict=True):
        plain.append(
            {"timestamp": response.at, "request": json.loads(request.body), "response": json.loads(response.body)}
        )
        texts.append({"time": str(response.at), "request": request.body.decode(), "response": response.body.decode()})
    expected = tell(OpenInference(SMS), POSTS)
    for objects in (plain, texts):
        lines = b"".join(json.dumps(one).encode() + b"\n" for one in objects)
        assert gathered([Translator(OpenInference(SMS)).translate(Block(lines))]) == expected
        assert tell(OpenInference(SMS), [Event(lines)]) == expected
    pretty = json.dumps(plain[0], indent=1).encode()
    assert tell(OpenInference(SMS), [Event(pretty)]).records == expected.records[:1]


def test_a_wrapped_half() -> None:
    """Request and response in objects of their own, the id beside them or within."""
    request, response = {"id": "r1", "request": {"inputs": ASKED["inputs"]}}, {"response": ANSWERED}
    record = only(told_of(event(request), event(response)))
    assert (record["prediction_id"], record["prediction"], record["features"]) == ("r1", 1, [1.5, 2.5])


def test_messages_of_kafka() -> None:
    """The key wins over the body's id; headers name model and version, unless the response itself does."""
    said: dict[str, Any] = {"_key": "k", "mlserver_model": "iris", "mlserver_version": "3"}
    record = only(told_of(event(ASKED, **said), event({**ANSWERED, "id": "other"}, **said)))
    assert (record["prediction_id"], record["model"], record["model_version"]) == ("k", "iris", "7")
    without = {name: value for name, value in ANSWERED.items() if name not in {"model_version", "model_name"}}
    assert only(told_of(event(ASKED, **said), event(without, _key="k")))["model_version"] == "3"
    assert only(told_of(event(ASKED, **said), event(without, _key="k")))["model"] == "iris"
    assert only(told_of(event(ASKED), event(without), model="mine", model_version="9"))["model_version"] == "9"


def test_topics_of_seldon_core_2() -> None:
    """The topic says the side and the model; one id goes through several models and mixes nothing up."""
    answered = {name: value for name, value in ANSWERED.items() if name != "model_name"}
    events = [
        event(ASKED, origin=f"seldon.default.model.{model}.{side}", _key="k") if side == "inputs"
        else event(answered, origin=f"seldon.default.model.{model}.{side}", _key="k")
        for side in ("inputs", "outputs")
        for model in ("one", "two")
    ]  # fmt: skip
    told = told_of(*events)
    assert [record["model"] for record in told.records] == ["one", "two"]
    assert not told.rejected + told.faults


@pytest.mark.parametrize("request_", [b"", b"\xff", b"[" * 100_000, b'{"inputs": 7}', b"\x1f\x8b\x08 no gzip"])
def test_no_request_hides_what_was_answered(request_: bytes) -> None:
    """Where a key names it, a message that nobody can read was a request."""
    told = told_of(event(request_, _key="k"), event(ANSWERED, _key="k"))
    assert [record["prediction"] for record in told.records] == [1]
    assert told.faults == {"unreadable_request": 1}
    assert not told.rejected


def test_added_fields_hide_nothing() -> None:
    """Outputs that are asked for, members that look like a wrapped log, parameters of any kind."""
    tricks = {
        "outputs": [{"name": "predict"}],
        "response": {},
        "request": {},
        "error": "x",
        "parameters": {"headers": {}},
    }
    assert only(told_of(event({**ASKED, **tricks}), event(ANSWERED)))["features"] == [1.5, 2.5]


def test_binary_bodies_are_no_lines() -> None:
    """A text of ten bytes begins with a line break, one of 31,498 looks like a line of JSON."""
    for length in (10, 31_498):
        head = (
            b'{"id":"r1","inputs":[{"name":"t","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}'
        )
        body = head % (length + 4) + length.to_bytes(4, "little") + b"x" * length
        assert only(told_of(event(body), event(ANSWERED)))["text"] == "x" * length


def test_a_request_that_never_comes_hides_no_answer() -> None:
    """What was answered counts without inputs."""
    told = told_of(event(ANSWERED))
    assert [(record["prediction_id"], "text" in record) for record in told.records] == [("r1", False)]
    assert (told.rejected, told.faults) == ({}, {"unpaired_response": 1, "unreadable_request": 1})


def test_what_is_lost_has_a_reason() -> None:
    """Errors, bodies without ids, and what is neither request nor response."""
    for events, reasons in (
        ([event(ASKED), event({"id": "r1", "error": "no"})], {"error_response": 1}),
        ([event(ASKED), event({"error": "no"})], {"missing_id": 1, "unpaired_request": 1}),
        ([event({"id": "r1"})], {"unknown_event": 1}),
        ([event({"request": None})], {"unknown_event": 1}),
        ([event(b"7")], {"not_an_object": 1}),
        ([event(b"{")], {"malformed": 1}),
        ([event(json.dumps(ASKED).encode() + b"\n{")], {"malformed": 1, "unpaired_request": 1}),
    ):
        told = told_of(*events)
        assert told.rejected == reasons
        assert told.records == []


@given(order=st.permutations(range(20)), cuts=st.sets(st.integers(0, 20)), restarts=st.booleans())
def test_no_order_cut_or_restart_changes_anything(order: list[int], cuts: set[int], restarts: bool) -> None:
    """Whatever comes first, however the stream is chopped, wherever the agent is killed."""
    shuffled = [POSTS[number] for number in order]
    with TemporaryDirectory() as folder:
        told = tell_in_pieces(lambda: OpenInference(SMS), shuffled, cuts, restarts, Path(folder))
    assert told == tell(OpenInference(SMS), shuffled)
    expected = tell(OpenInference(SMS), POSTS[:20]).records
    assert sorted(told.records, key=lambda r: str(r["prediction_id"])) == sorted(
        expected, key=lambda r: str(r["prediction_id"])
    )


@given(
    events=st.lists(
        st.builds(
            Event,
            st.binary(max_size=30)
            | JSON.map(lambda loaded: json.dumps(loaded).encode())
            | st.dictionaries(
                st.sampled_from(["id", "inputs", "outputs", "request", "response", "error", "model_name", "timestamp"]),
                JSON | st.sampled_from([ASKED["inputs"], ANSWERED["outputs"], ASKED, ANSWERED, "r1"]),
            ).map(lambda loaded: json.dumps(loaded).encode()),
            st.dictionaries(
                st.sampled_from([":key", "ce-time", "mlserver-model", "x-request-id"]), st.text(max_size=4)
            ),
            st.sampled_from([START, START - 400, math.nan]),
            st.sampled_from(["/", "a.inputs", "a.outputs", ".", ""]),
        ),
        max_size=8,
    )
)
def test_every_event_has_one_end(events: list[Event]) -> None:
    """Any headers and any bytes: nothing raises, and each event is rejected, paired, or waits."""
    made = OpenInference(SMS.model_copy(update={"pair_seconds": 86400}))
    assert_one_end(made, made.pairing, events)
    tell(OpenInference(SMS), [one._replace(headers={}) for one in events])
