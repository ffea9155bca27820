"""Data capture: every encoding says the same, the path says the version, labels find their predictions."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import SagemakerConfig
from poisonwatch.formats.events import Event
from poisonwatch.formats.sagemaker import Sagemaker
from tests.formats.posted import block as framed
from tests.formats.translating import adult, captured, counts_hold, json_values, lines, told

FEATURES = tuple(next(iter(adult().values()))["features"])
CONFIG = SagemakerConfig(features=FEATURES, classes=("<=50K", ">50K"))
SMALL = SagemakerConfig(features=("age", "job"), classes=("<=50K", ">50K"))
ORIGIN = "capture/ep/blue/2026/03/02/14/32-10-0.jsonl"
PATH = "income-endpoint/AllTraffic/2026/03/02"
CSV = {"observedContentType": "text/csv", "mode": "INPUT", "data": "40,clerk\n50,cook\n", "encoding": "CSV"}
ANSWER = {"observedContentType": "text/csv", "mode": "OUTPUT", "data": "<=50K,0.75\n>50K,0.5\n", "encoding": "CSV"}


def event(given_: Any = CSV, answered: Any = ANSWER, **metadata: Any) -> dict[str, Any]:
    """A captured event with two rows."""
    return {
        "captureData": {"endpointInput": given_, "endpointOutput": answered},
        "eventMetadata": {"eventId": "e1", "inferenceTime": "2026-03-02T14:32:14Z"} | metadata,
        "eventVersion": "0",
    }


def part(data: Any, encoding: str | None, content: str | None = None) -> dict[str, Any]:
    """A captured input or output."""
    if encoding == "BASE64":
        data = base64.b64encode(data.encode()).decode()
    return {"observedContentType": content, "data": data, "encoding": encoding}


@pytest.mark.parametrize("file", ["14/32-10-0-csv.jsonl", "14/32-10-1-json.jsonl", "15/32-10-2-base64.jsonl"])
def test_the_capture_is_what_the_client_saw(file: str) -> None:
    """Every value of every record, in each encoding."""
    (block,) = captured("sagemaker", f"{PATH}/{file}")
    found = told(Sagemaker(CONFIG), [block])
    seen = adult()
    logged = [json.loads(line)["eventMetadata"] for line in block.data.splitlines()]
    assert not found.rejected
    assert not found.faults
    assert len(found.records) == len(logged) >= 6
    for record, metadata in zip(found.records, logged, strict=True):
        client = seen[metadata["inferenceId"]]
        probabilities = (
            {} if "csv" in file else {"probabilities": dict(zip(CONFIG.classes, client["probabilities"], strict=True))}
        )
        assert (
            record
            == {
                "timestamp": record["timestamp"],
                "prediction_id": client["id"],
                "model": "income-endpoint",
                "model_version": "AllTraffic",
                "features": client["features"],
                "prediction": client["label"],
                "confidence": client["probability"],
            }
            | probabilities
        )
        assert 1772461934 <= record["timestamp"] < 1772461934 + 2 * 3600


ROWS = [{"age": 40, "job": "clerk"}, {"age": 50, "job": "cook"}]


@pytest.mark.parametrize(
    "given_",
    [
        CSV,
        part("40,clerk\r\n50,cook", "BASE64", "text/csv; charset=utf-8"),
        part("40,clerk\n50,cook", "BASE64"),
        part('"40","clerk"\n50,cook\n\n', "CSV"),
        part('{"instances":[{"features":[40,"clerk"]},{"features":[50,"cook"]}]}', "JSON"),
        part('{"instances":[[40,"clerk"],[50,"cook"]]}', "BASE64", "application/json"),
        part('{"instances":[[40,"clerk"],[50,"cook"]]}', "BASE64"),
        part('{"features":[40,"clerk"]}\n{"features":[50,"cook"]}', "JSON", "application/jsonlines"),
        part('{"data":{"features":{"values":[40,"clerk"]}}}\n{"data":{"features":{"values":[50,"cook"]}}}', "JSON"),
        part("40, clerk\n50 ,cook ", "CSV"),
        part('[[40,"clerk"],[50,"cook"]]', None),
        part({"instances": [[40, "clerk"], [50, "cook"]]}, "JSON"),
        part('{"dataframe_split":{"columns":["age","job"],"data":[[40,"clerk"],[50,"cook"]]}}', "JSON"),
    ],
)
def test_every_way_to_write_rows_says_the_same(given_: dict[str, Any]) -> None:
    """Also where nobody said what it is."""
    found = told(Sagemaker(SMALL), [lines(event(given_))])
    assert [r["features"] for r in found.records] == ROWS
    assert not found.faults


@pytest.mark.parametrize(
    "answered",
    [
        ANSWER,
        part(
            '{"predictions":[{"predicted_label":"<=50K","probability":0.75},{"predicted_label":">50K","probability":0.5}]}',
            "JSON",
        ),
        part('{"predicted_label":"<=50K","score":0.75}\n{"predicted_label":">50K","score":0.5}', "JSON"),
        part("<=50K,0.75\n>50K,0.5", "BASE64"),
    ],
)
def test_every_way_to_answer_says_the_same(answered: dict[str, Any]) -> None:
    """Classes and their confidence."""
    found = told(Sagemaker(SMALL), [lines(event(answered=answered))])
    assert [(r["prediction"], r["confidence"]) for r in found.records] == [("<=50K", 0.75), (">50K", 0.5)]


def test_one_line_of_numbers_answers_all_rows() -> None:
    """As built-in algorithms write it: the probability of the second class, one per row."""
    found = told(Sagemaker(SMALL), [lines(event(answered=part("0.25,0.875\n", "CSV")))])
    assert [(r["prediction"], r["confidence"]) for r in found.records] == [("<=50K", 0.75), (">50K", 0.875)]
    assert not found.rejected


def test_ids_version_and_model() -> None:
    """The id of the inference comes before that of the event, the configuration before the path."""
    one = part("40,clerk", "CSV"), part("<=50K", "CSV")
    block = lines(event(), event(inferenceId="i1"), event(*one, inferenceId="i2"), origin=ORIGIN)
    records = told(Sagemaker(SMALL), [block]).records
    assert [r["prediction_id"] for r in records] == ["e1#0", "e1#1", "i1#0", "i1#1", "i2"]
    assert {(r["model"], r["model_version"]) for r in records} == {("ep", "blue")}
    config = SagemakerConfig(model="m", model_version="v")
    records = told(Sagemaker(config), [block]).records
    assert {(r["model"], r["model_version"]) for r in records} == {("m", "v")}
    (record, *_) = told(Sagemaker(SMALL), [lines(event(), origin="capture/32-10-0.jsonl")]).records
    assert record.keys().isdisjoint({"model", "model_version"})


def truth(name: str, data: str, encoding: str = "CSV") -> dict[str, Any]:
    """A line of a file of ground truth."""
    return {
        "groundTruthData": {"data": data, "encoding": encoding},
        "eventMetadata": {"eventId": name},
        "eventVersion": "0",
    }


def test_ground_truth_becomes_labels() -> None:
    """Named as the predictions are; of the last second of the hour that it is filed under, where nothing says when."""
    block = lines(
        truth("i1", "1"),
        truth("i2", ">50K"),
        truth("i3", "0\n1"),
        truth("i4", '"<=50K"', "JSON"),
        origin="truth/2026/03/02/14/x.jsonl",
    )
    found = told(Sagemaker(SMALL), [block])
    assert [(label["prediction_id"], label["label"]) for label in found.labels] == [
        ("i1", ">50K"),
        ("i2", ">50K"),
        ("i3#0", "<=50K"),
        ("i3#1", ">50K"),
        ("i4", "<=50K"),
    ]
    assert {label["timestamp"] for label in found.labels} == {1772463599.0}
    posted = framed([Event(json.dumps(truth("i1", "1")).encode(), at=1772463000.5)])
    assert told(Sagemaker(SMALL), [posted]).labels[0]["timestamp"] == 1772463000.5


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"captureData": {"endpointInput": CSV}}, "unpaired_request"),
        ({"captureData": None}, "unknown_event"),
        ({"captureData": {"endpointOutput": part("{", "JSON")}}, "malformed"),
        ({"captureData": {"endpointOutput": {"data": "?", "encoding": "BASE64"}}}, "bad_base64"),
        ({"captureData": {"endpointOutput": {"data": "/w==", "encoding": "BASE64"}}}, "unknown_encoding"),
        ({"captureData": {"endpointOutput": part('"a\nb', "CSV")}}, "malformed"),
        ({"captureData": {"endpointOutput": part("[" * 100_000, "JSON")}}, "too_deep"),
        ({"captureData": {"endpointInput": CSV, "endpointOutput": part("", "CSV")}}, "rows_do_not_match"),
    ],
)
def test_what_is_no_prediction_is_counted(changed: dict[str, Any], reason: str) -> None:
    """By its reason, and the event after it is read."""
    found = told(Sagemaker(SMALL), [lines(event() | changed, event())])
    assert len(found.records) == 2
    assert set(found.rejected) == {reason}


@pytest.mark.parametrize(
    "given_", [None, 7, part("{", "JSON"), part("?", "CSV") | {"encoding": "BASE64"}, part('"', "CSV")]
)
def test_a_request_that_cannot_be_read_hides_no_prediction(given_: Any) -> None:
    """They are counted without their inputs."""
    found = told(Sagemaker(SMALL), [lines(event(given_))])
    assert [r["prediction"] for r in found.records] == ["<=50K", ">50K"]
    assert found.faults == {"unreadable_request": 1}


NAMES = ["captureData", "groundTruthData", "eventMetadata", "endpointInput", "endpointOutput", "data", "encoding"]
NAMES += [
    "observedContentType",
    "eventId",
    "inferenceTime",
    "instances",
    "predictions",
    "features",
    "columns",
    "inputs",
]
TEXTS = ["CSV", "JSON", "BASE64", "text/csv", "1,2\n3,4", "e30=", json.dumps({"instances": [[1]]})]


@given(st.lists(json_values(NAMES, TEXTS), max_size=4))
def test_whatever_the_values_are_nothing_is_raised(values: list[Any]) -> None:
    """Any structure, as events and in the place of each of their parts."""
    odd = [
        changed
        for v in values
        for changed in (event(v), event(answered=v), event(inferenceId=v), event(part(v, "JSON"), part(v, "CSV")))
    ]
    odd += [event(inferenceTime=v) for v in values] + [{"groundTruthData": v, "eventMetadata": v} for v in values]
    sample = told(Sagemaker(SMALL), [lines(event(), origin=ORIGIN)]).records
    posts = framed([Event(json.dumps(v).encode()) for v in values])
    counts_hold(lambda: Sagemaker(SMALL), [lines(*values, *odd, origin=ORIGIN), posts], sample)
