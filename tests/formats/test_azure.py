"""Azure's data collector: inputs and outputs find each other, and none hides behind an id, a size or a name."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import AzureConfig
from poisonwatch.formats.azure import Azure
from poisonwatch.formats.events import Event
from tests.formats.posted import block as framed
from tests.formats.posted import posted, tell, tell_in_pieces
from tests.formats.translating import adult, captured, counts_hold, json_values, lines, told

CONFIG = AzureConfig()
AT = 1_795_330_207.0
SOURCE = "/subscriptions/s/onlineEndpoints/ep/deployments/blue"


def post(side: str, data: Any, name: str = "r1", at: float = AT, **headers: str) -> Event:
    """What the collector posts."""
    said = {"ce-time": str(int(at)), "ce-type": f"azureml.inference.{side}", "ce-x-request-id": name}
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Event(body, {**said, "ce-model-version": "default", "content-type": "application/json"} | headers, at)


def line(side: str, data: Any, name: str = "r1", **changed: Any) -> dict[str, Any]:
    """A line of a blob."""
    return {
        "specversion": "1.0",
        "id": "x",
        "source": SOURCE,
        "type": f"azureml.inference.{side}",
        "time": "2026-11-22T06:50:07Z",
        "data": data,
        "correlationid": name,
        "modelversion": "default",
    } | changed


ROWS = [{"age": 40}, {"age": 50}]
ANSWERS = [{"label": "a", "probability": 0.75}, {"label": "b", "probability": 0.5}]


def test_posts_are_what_the_client_saw() -> None:
    """Every value of every record of the capture."""
    events = posted("azure_http.jsonl")
    found = tell(Azure(CONFIG), events)
    seen = adult()
    assert not found.rejected
    assert not found.faults
    assert len(found.records) == 20
    for record, event in zip(found.records, events[1::2], strict=True):
        client = seen[event.headers["ce-x-request-id"]]
        assert record == {
            "timestamp": float(event.headers["ce-time"]),
            "prediction_id": client["id"],
            "features": client["features"],
            "prediction": client["label"],
            "confidence": pytest.approx(client["probability"], abs=1e-9),
        }


@pytest.mark.parametrize("order", [1, -1])
def test_blobs_are_what_the_client_saw(order: int) -> None:
    """Inputs and outputs are in files of their own, whichever is read first; the deployment is the version."""
    file = "2026/03/02/14/instance-0.jsonl"
    blocks = captured("azure_blob", f"model_inputs/{file}", f"model_outputs/{file}")[::order]
    found = told(Azure(CONFIG), blocks)
    seen = adult()
    assert not found.rejected
    assert not found.faults
    assert len(found.records) == 20
    for record in found.records:
        client = seen[record["prediction_id"]]
        assert record == {
            "timestamp": record["timestamp"],
            "prediction_id": client["id"],
            "model": "income",
            "model_version": "blue",
            "features": client["features"],
            "prediction": client["label"],
            "confidence": pytest.approx(client["probability"], abs=1e-9),
        }


@pytest.mark.parametrize(
    ("inputs", "outputs"), [("model_inputs", "model_outputs"), ("request", "response"), ("inputs", "outputs")]
)
def test_one_id_may_have_many_rows(inputs: str, outputs: str) -> None:
    """In every kind of collection."""
    found = tell(Azure(CONFIG), [post(outputs, ANSWERS), post(inputs, ROWS)])
    assert [(r["prediction_id"], r["features"], r["prediction"], r["confidence"]) for r in found.records] == [
        ("r1#0", {"age": 40}, "a", 0.75),
        ("r1#1", {"age": 50}, "b", 0.5),
    ]


def test_collections_of_other_kinds_do_not_meet() -> None:
    """A request is not answered by the outputs of the model: both may be collected of the same request."""
    found = tell(Azure(CONFIG), [post("request", ROWS), post("model_outputs", ANSWERS)])
    assert [(r["prediction"], "features" in r) for r in found.records] == [("a", False), ("b", False)]
    assert (dict(found.rejected), found.faults["unpaired_response"]) == ({"unpaired_request": 1}, 1)


def test_requests_and_responses_have_bodies_of_their_own_shape() -> None:
    """As the scoring protocol of Azure writes them."""
    request = {"input_data": {"columns": ["age"], "index": [0, 1], "data": [[40], [50]]}}
    found = tell(Azure(CONFIG), [post("request", request), post("response", ["a", "b"])])
    assert [(r["features"], r["prediction"]) for r in found.records] == [({"age": 40}, "a"), ({"age": 50}, "b")]
    found = tell(Azure(CONFIG), [post("request", {"input_data": {"data": [[40]]}}), post("response", ["a"])])
    assert [(r["features"], r["prediction"]) for r in found.records] == [([40], "a")]
    found = tell(Azure(CONFIG), [post("request", [40, 2.5]), post("response", ["a"])])
    assert [(r["features"], r["prediction"]) for r in found.records] == [([40, 2.5], "a")]
    found = tell(Azure(CONFIG), [post("request", {"data": [[40], [50]]}), post("response", json.dumps(["a", "b"]))])
    assert [(r["features"], r["prediction"]) for r in found.records] == [([40], "a"), ([50], "b")]


def test_who_names_the_version() -> None:
    """What the event says, then the configuration, then the deployment; `default` says nothing."""
    of = {
        "v7": (CONFIG, "v7"),
        "default": (CONFIG, "blue"),
        "": (AzureConfig(model_version="v0"), "v0"),
        "v8": (AzureConfig(model_version="v0"), "v8"),
    }
    for version, (config, expected) in of.items():
        block = lines(line("inputs", [1]), line("outputs", [1], modelversion=version))
        (record,) = told(Azure(config), [block]).records
        assert (record["model"], record["model_version"]) == ("ep", expected)


def test_collections_of_the_users_own_are_left_alone() -> None:
    """And counted, as no loss."""
    found = tell(Azure(CONFIG), [post("my_features", ROWS)])
    assert (found.records, dict(found.rejected), dict(found.faults)) == ([], {}, {"other_collection": 1})


@pytest.mark.parametrize("pointer", [{"datainblob": "true"}, {"datainblob": True}, {"dataref": "https://blob"}])
def test_too_large_a_request_does_not_hide_its_prediction(pointer: dict[str, Any]) -> None:
    """Its data is elsewhere, what was answered counts; an answer that is elsewhere is one loss, not two."""
    large = line("model_inputs", "https://blob", **pointer)
    found = told(Azure(CONFIG), [lines(large, line("model_outputs", ANSWERS))])
    assert [(r["prediction"], "features" in r) for r in found.records] == [("a", False), ("b", False)]
    assert (dict(found.rejected), dict(found.faults)) == ({}, {"data_in_blob": 1})
    answer = line("model_outputs", "https://blob", **pointer)
    found = told(Azure(CONFIG), [lines(line("model_inputs", ROWS), answer)])
    assert (found.records, dict(found.rejected)) == ([], {"data_in_blob": 1})


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, gzip.compress(b"[1]")[:-4], b" " * 2000])
def test_a_request_that_cannot_be_read_hides_no_prediction(body: bytes) -> None:
    """Broken, too deep, badly compressed or too large."""
    found = tell(Azure(CONFIG, 1000), [post("model_inputs", body), post("model_outputs", ANSWERS)])
    assert [r["prediction"] for r in found.records] == ["a", "b"]
    assert found.faults == {"unreadable_request": 1}


def test_compressed_bodies_are_opened() -> None:
    """Whether a header says so or not."""
    found = tell(Azure(CONFIG), [post("model_inputs", gzip.compress(b'[{"age":1}]')), post("model_outputs", ["a"])])
    assert [(r["features"], r["prediction"]) for r in found.records] == [({"age": 1}, "a")]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (post("model_outputs", ANSWERS, name=""), "missing_id"),
        (Event(b'{"data":[1]}'), "unknown_type"),
        (Event(b"{"), "malformed"),
        (post("model_outputs", gzip.compress(b"[1]")[:-4]), "bad_compression"),
    ],
)
def test_what_is_no_half_is_counted(event: Event, reason: str) -> None:
    """By its reason, and what comes after it is read."""
    found = tell(Azure(CONFIG), [event, post("model_inputs", ROWS, "r2"), post("model_outputs", ANSWERS, "r2")])
    assert (len(found.records), dict(found.rejected)) == (2, {reason: 1})


def test_an_id_that_comes_again_hides_nothing() -> None:
    """Both predictions count; which inputs were whose is not known."""
    events = [post("model_inputs", [{"age": n}]) for n in (1, 2)] + [post("model_outputs", [c]) for c in "ab"]
    found = tell(Azure(CONFIG), events)
    assert [(r.get("features"), r["prediction"]) for r in found.records] == [(None, "a"), (None, "b")]
    assert found.faults == {"id_reused": 1, "ambiguous_pair": 2, "unreadable_request": 2}


HALVES = st.lists(
    st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.sampled_from(["inputs", "outputs"]), st.integers(0, 400)),
    max_size=14,
)


@given(HALVES, st.lists(st.integers(0, 14), max_size=4), st.booleans())
def test_what_is_paired_depends_on_the_events_alone(
    halves: list[tuple[str, str, int]], cuts: list[int], restarts: bool
) -> None:
    """Not on how the stream was chopped, nor on restarts; every half is in a record or counted."""
    events = [post(side, [n], name, AT + seconds) for n, (name, side, seconds) in enumerate(halves)]
    whole = tell(Azure(CONFIG), events)
    with tempfile.TemporaryDirectory() as folder:
        cuts = [cut for cut in cuts if cut <= len(events)]
        assert tell_in_pieces(lambda: Azure(CONFIG), events, cuts, restarts, Path(folder)) == whole
    alone = whole.faults["unpaired_response"]
    assert 2 * len(whole.records) - alone + whole.rejected.total() == len(events)


NAMES = [*line("", None), "dataref", "datainblob", "predictions", "input_data", "columns", "label"]
TEXTS = ["azureml.inference.model_inputs", "azureml.inference.response", "r1", "true", "default", SOURCE]


@given(st.lists(json_values(NAMES, TEXTS), max_size=4))
def test_whatever_the_values_are_nothing_is_raised(values: list[Any]) -> None:
    """Any structure, as lines, in the place of each of their fields, and as bodies."""
    odd = [line(side, ROWS) | {name: v} for v in values for name in line("", 1) for side in ("inputs", "outputs")]
    posts = [post(side, v) for v in values for side in ("inputs", "outputs", "request", "response")]
    sample = told(Azure(CONFIG), [lines(line("inputs", ROWS), line("outputs", ANSWERS))]).records
    blocks = [lines(*values, *odd), framed(posts), framed([Event(json.dumps(v).encode()) for v in values])]
    counts_hold(lambda: Azure(CONFIG), blocks, sample)
