"""What a client can do to be left out of a log that a monitor reads: each trick by name, and none hides a prediction."""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from tests.fuzz.formats import LONGEST, accounted, formats

if TYPE_CHECKING:
    from collections.abc import Callable

    from poisonwatch.formats.events import Event

PAIRED = ("kserve_v1", "kserve_v2", "seldon", "open_inference", "azure")
CLOUD = ("kserve_v1", "kserve_v2", "seldon", "azure")
PREDICTIONS = 4


def of_request(name: str, trick: Callable[[Event], Event]) -> list[Event]:
    """Four predictions, of the second of which the client shaped the request."""
    written = formats()[name]
    events = list(written.events[: PREDICTIONS * written.halves])
    events[written.halves] = trick(events[written.halves])
    return events


def nothing_is_hidden(name: str, events: list[Event]) -> None:
    """All four are records."""
    found = accounted(formats()[name].make, events)
    assert found.records.count(b"\n") == PREDICTIONS, found
    assert not found.rejected


def with_field(event: Event, **fields: Any) -> Event:
    """The body with more fields."""
    return event._replace(body=json.dumps({**json.loads(event.body), **fields}).encode())


@pytest.mark.parametrize("name", ["kserve_v1", "kserve_v2", "seldon", "open_inference"])
@pytest.mark.parametrize(
    "fields",
    [
        {"meta": {"puid": "x", "tags": {"a": 1}}},
        {"meta": None, "status": {"status": "FAILURE"}},
        {"error": "none of your business"},
        {"parameters": {"headers": {"ce-id": "y"}, "content_type": "nonsense"}},
        {"binData": "AAAA", "strData": "", "jsonData": {}},
        {"predictions": [], "outputs": [], "model_name": "another", "model_version": "another"},
        {"specversion": "1.0", "type": "x", "data": []},
        {"x" * 300: "\ud800"},
        {"signature_name": "\u0000"},
    ],
    ids=["meta", "status", "error", "parameters", "binary data", "a response", "an event", "odd name", "signature"],
)
def test_a_field_is_added_to_the_request(name: str, fields: dict[str, Any]) -> None:
    """Seldon Core logged no request with a `meta` of its own (SeldonIO/seldon-core#3620)."""
    nothing_is_hidden(name, of_request(name, lambda event: with_field(event, **fields)))


@pytest.mark.parametrize("name", CLOUD)
@pytest.mark.parametrize(
    "headers",
    [
        {"ce-statuscode": "500"},
        {"ce-metadata": "no JSON"},
        {"ce-annotations": "[" * 2000},
        {"ce-traceparent": "\xff\xfe"},
        {"ce-datacontenttype": "text/plain"},
        {"ce-dataschema": "%ff%00"},
        {"x-request-id": "", "traceparent": "x"},
        {"inference-header-content-length": "3"},
        {"inference-header-content-length": "-1"},
        {"content-encoding": "gzip"},
        {"content-encoding": "br, nonsense"},
    ],
    ids=lambda headers: " ".join(f"{name}={value[:12]!r}" for name, value in headers.items()),
)
def test_an_odd_header_is_sent_with_the_request(name: str, headers: dict[str, str]) -> None:
    """KServe's logger passes on headers that the client chose, and says the request's content type of the response."""
    nothing_is_hidden(name, of_request(name, lambda event: event._replace(headers={**event.headers, **headers})))


@pytest.mark.parametrize("name", CLOUD)
@pytest.mark.parametrize(
    "content_type",
    ["text/csv", "application/octet-stream", "", "application/x-ndjson", "multipart/form-data; boundary=x"],
)
def test_the_content_type_lies_of_request_and_response(name: str, content_type: str) -> None:
    """The client's own content type stands with both."""
    events = list(formats()[name].events[: 2 * PREDICTIONS])
    events = [event._replace(headers={**event.headers, "content-type": content_type}) for event in events]
    nothing_is_hidden(name, events)


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_the_body_is_compressed_and_nothing_says_so(name: str, pack: Callable[[bytes], bytes]) -> None:
    """Behind Knative the header is stripped."""
    events = list(formats()[name].events[: 2 * PREDICTIONS])
    nothing_is_hidden(name, [event._replace(body=pack(event.body)) for event in events])


@pytest.mark.parametrize("name", ["kserve_v1", "kserve_v2", "seldon"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"[" * 5000,
        b'"',
        b"null",
        b"[]",
        gzip.compress(bytes(1 << 20)),
        gzip.compress(b"x")[:-4],
        b"x" * (LONGEST + 1),
    ],
    ids=["none", "NUL", "deep", "broken", "null", "empty list", "bomb", "cut gzip", "too large"],
)
def test_a_request_that_cannot_be_read(name: str, body: bytes) -> None:
    """What was answered is counted all the same."""
    nothing_is_hidden(name, of_request(name, lambda event: event._replace(body=body)))


@pytest.mark.parametrize("name", ["kserve_v1", "kserve_v2", "seldon"])
@pytest.mark.parametrize("chosen", ["mine", "", "\u202e", "x" * 4000, "%00", "../../etc", "r#1"], ids=repr)
def test_the_client_chooses_the_id_and_says_it_again(name: str, chosen: str) -> None:
    """Four requests under one id, answered in their order, are four predictions; an empty one is nobody's choice."""
    events = []
    for event in formats()[name].events[: 2 * PREDICTIONS]:
        own = {key: chosen for key in ("ce-id", "ce-requestid") if key in event.headers}
        events.append(event._replace(headers={**event.headers, **own}))
    found = accounted(formats()[name].make, events)
    lost = found.rejected.total()
    assert found.records.count(b"\n") + lost // 2 == PREDICTIONS
    assert set(found.rejected) <= {"missing_id"}
    assert bool(lost) == (chosen == "")


def test_an_id_of_a_megabyte() -> None:
    """In the body of protocol v2: the request's own is in both halves."""
    events = list(formats()["open_inference"].events[: 2 * PREDICTIONS])
    events[2:4] = [with_field(event, id="x" * (LONGEST // 4)) for event in events[2:4]]
    nothing_is_hidden("open_inference", events)


@pytest.mark.parametrize("name", ["sagemaker_csv", "sagemaker_json"])
def test_base64_that_nobody_declared(name: str) -> None:
    """SageMaker captures what it does not know as BASE64 (aws/sagemaker-python-sdk#2629)."""

    def trick(event: Event) -> Event:
        loaded = json.loads(event.body)
        for side in ("endpointInput", "endpointOutput"):
            part = loaded["captureData"][side]
            part |= {"data": base64.b64encode(part["data"].encode()).decode(), "encoding": "BASE64"}
            part["observedContentType"] = None
        return event._replace(body=json.dumps(loaded).encode())

    counted(name, trick)


@pytest.mark.parametrize("name", ["sagemaker_csv", "sagemaker_json", "sagemaker_base64"])
@pytest.mark.parametrize(
    "changed",
    [
        {"data": "\0"},
        {"data": None},
        {"data": "[" * 5000},
        {"data": "", "encoding": "NONSENSE"},
        {"observedContentType": "multipart/mixed"},
        {"encoding": "JSON", "data": "{}"},
    ],
    ids=str,
)
def test_the_captured_input_is_shaped_by_the_client(name: str, changed: dict[str, Any]) -> None:
    """What was answered is counted all the same."""

    def trick(event: Event) -> Event:
        loaded = json.loads(event.body)
        loaded["captureData"]["endpointInput"] |= changed
        loaded["eventMetadata"] |= {"inferenceId": "mine", "customAttributes": ["a" * 1000, None, 1]}
        return event._replace(body=json.dumps(loaded).encode())

    counted(name, trick)


@pytest.mark.parametrize(
    "request_",
    ["", "[" * 5000, "{}", "null", '{"inputs": 1}', '{"dataframe_split": {"columns": 1}}', '{"a": "\\ud800"}', 7, None],
    ids=repr,
)
def test_the_request_in_an_inference_table_is_shaped_by_the_client(request_: Any) -> None:
    """What was answered is counted all the same, under an id of the client's own choice."""

    def trick(event: Event) -> Event:
        loaded = {**json.loads(event.body), "request": request_, "client_request_id": "mine"}
        return event._replace(body=json.dumps(loaded).encode())

    counted("mlflow", trick)


@pytest.mark.parametrize(
    "text", [None, 1, "", "\ud800", ["a"], {"a": 1}, "x" * 10_000], ids=lambda text: repr(text)[:20]
)
def test_the_text_in_a_monitors_log_is_any_value(text: Any) -> None:
    """BentoML writes what the client sent."""

    def trick(event: Event) -> Event:
        loaded = {**json.loads(event.body), "text": text, "extra": text}
        return event._replace(body=json.dumps(loaded).encode())

    counted("bentoml", trick)


def counted(name: str, trick: Callable[[Event], Event]) -> None:
    """As many predictions as without the trick."""
    written = formats()[name]
    events = list(written.events)
    usual = accounted(written.make, events).records.count(b"\n")
    found = accounted(written.make, [events[0], trick(events[1]), *events[2:]])
    assert found.records.count(b"\n") == usual, found.rejected
