"""Inference tables: each row of a request is a prediction, and a request that is odd hides none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import MlflowConfig
from poisonwatch.formats.events import Event
from poisonwatch.formats.mlflow import Mlflow
from tests.formats.posted import block as framed
from tests.formats.translating import adult, captured, counts_hold, json_values, lines, told

CONFIG = MlflowConfig(classes=("<=50K", ">50K"))
REQUEST = {"dataframe_split": {"columns": ["age", "job"], "data": [[40, "clerk"], [50, "cook"]]}}
RESPONSE = {"predictions": [{"label": "<=50K", "probability": 0.75}, {"label": ">50K", "probability": 0.5}]}


def row(**changed: Any) -> dict[str, Any]:
    """A row of a table with two predictions."""
    return {
        "databricks_request_id": "d1",
        "timestamp_ms": 1795330178283,
        "status_code": 200,
        "request": json.dumps(REQUEST),
        "response": json.dumps(RESPONSE),
        "request_metadata": {"model_name": "income", "model_version": "3"},
    } | changed


def test_the_capture_is_what_the_client_saw() -> None:
    """Every value of every record."""
    (block,) = captured("", "mlflow.jsonl")
    rows = [json.loads(line) for line in block.data.splitlines()]
    found = told(Mlflow(CONFIG), [block])
    seen = adult()
    assert not found.rejected and not found.faults  # noqa: PT018 - both or none
    assert len(found.records) == len(rows) == 20
    for record, logged in zip(found.records, rows, strict=True):
        client = seen[logged["client_request_id"]]
        assert record == {
            "timestamp": logged["timestamp_ms"] / 1000,
            "prediction_id": client["id"],
            "model": "adult-income",
            "model_version": "1",
            "features": client["features"],
            "prediction": client["label"],
            "confidence": client["probability"],
            "probabilities": dict(zip(CONFIG.classes, client["probabilities"], strict=True)),
        }


def test_one_row_of_the_table_may_hold_many_predictions() -> None:
    """Their ids are numbered; all else they share."""
    found = told(Mlflow(CONFIG), [lines(row())])
    assert [(r["prediction_id"], r["features"], r["prediction"], r["confidence"]) for r in found.records] == [
        ("d1#0", {"age": 40, "job": "clerk"}, "<=50K", 0.75),
        ("d1#1", {"age": 50, "job": "cook"}, ">50K", 0.5),
    ]
    assert {(r["timestamp"], r["model"], r["model_version"]) for r in found.records} == {
        (1795330178.283, "income", "3")
    }


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        {"dataframe_records": [{"age": 40, "job": "clerk"}, {"age": 50, "job": "cook"}]},
        {"instances": [{"age": 40, "job": "clerk"}, {"age": 50, "job": "cook"}]},
        {"inputs": [{"age": 40, "job": "clerk"}, {"age": 50, "job": "cook"}]},
        {"inputs": {"age": [40, 50], "job": ["clerk", "cook"]}},
        [{"age": 40, "job": "clerk"}, {"age": 50, "job": "cook"}],
    ],
)
def test_every_shape_of_a_request_gives_the_same_features(request_: Any) -> None:
    """Split and records, rows and columns."""
    found = told(Mlflow(CONFIG), [lines(row(request=json.dumps(request_)))])
    assert [r["features"] for r in found.records] == [{"age": 40, "job": "clerk"}, {"age": 50, "job": "cook"}]


def test_newer_tables_have_other_columns() -> None:
    """`request_time` is RFC 3339, the entity that was served stands for the version, metadata may be text."""
    newer = row(
        request_time="2026-11-22T06:49:38.283Z", timestamp_ms=None, request_metadata=None, served_entity_id="e7"
    )
    (first, _) = told(Mlflow(CONFIG), [lines(newer)]).records
    assert (first["timestamp"], first["model_version"]) == (1795330178.283, "e7")
    as_text = row(request_metadata='{"model_name":"m","model_version":9}')
    (first, _) = told(Mlflow(CONFIG), [lines(as_text)]).records
    assert (first["model"], first["model_version"]) == ("m", "9")


def test_what_the_configuration_says() -> None:
    """The model is that of all rows, the version that of those without."""
    config = MlflowConfig(model="mine", model_version="v0")
    first = told(Mlflow(config), [lines(row(), row(request_metadata={}))]).records
    assert [(r["model"], r["model_version"]) for r in first] == [("mine", "3")] * 2 + [("mine", "v0")] * 2


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"status_code": 400}, "error_response"),
        ({"status_code": "500"}, "error_response"),
        ({"response": '{"error_code":"BAD_REQUEST"}'}, "error_response"),
        ({"response": None}, "missing_response"),
        ({"response": "{"}, "malformed"),
        ({"response": "[" * 100_000}, "too_deep"),
    ],
)
def test_what_is_no_prediction_is_counted(changed: dict[str, Any], reason: str) -> None:
    """By its reason, and the row after it is read."""
    found = told(Mlflow(CONFIG), [lines(row(**changed), row())])
    assert (len(found.records), dict(found.rejected)) == (2, {reason: 1})


@pytest.mark.parametrize("request_", [None, "{", "[" * 100_000, '{"instances":7}', '{"dataframe_split":{"columns":7}}'])
def test_a_request_that_cannot_be_read_hides_no_prediction(request_: str | None) -> None:
    """They are counted without their inputs, and the fault with them."""
    found = told(Mlflow(CONFIG), [lines(row(request=request_))])
    assert [r["prediction"] for r in found.records][:1] == ["<=50K"]
    assert len(found.records) + found.rejected.total() == 2


def test_a_row_of_another_width_shifts_no_value() -> None:
    """It keeps what it has in its place, and is counted."""
    request_ = {"dataframe_split": {"columns": ["age", "job"], "data": [[40], [50, "cook", 7]]}}
    found = told(Mlflow(CONFIG), [lines(row(request=json.dumps(request_)))])
    assert [r["features"] for r in found.records] == [{"age": 40}, {"age": 50, "job": "cook"}]
    assert found.faults == {"features_wrong_length": 2}


NAMES = [*row(), *REQUEST, *REQUEST["dataframe_split"], *RESPONSE, "instances", "inputs", "label", "client_request_id"]


@given(st.lists(json_values(NAMES, [json.dumps(REQUEST), json.dumps(RESPONSE), "200"]), max_size=4))
def test_whatever_the_values_are_nothing_is_raised(values: list[Any]) -> None:
    """Any structure, as rows and in the place of each of their columns."""
    odd = [row(**{name: value}) for value in values for name in row()]
    sample = told(Mlflow(CONFIG), [lines(row())]).records
    counts_hold(
        lambda: Mlflow(CONFIG), [lines(*values, *odd), framed([Event(json.dumps(v).encode()) for v in values])], sample
    )
