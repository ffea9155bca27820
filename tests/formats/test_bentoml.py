"""BentoML's monitoring logs: flat rows, local time, batches that share an id."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import BentomlConfig
from poisonwatch.formats.bentoml import MOST_REQUESTS, Bentoml
from poisonwatch.formats.events import Block, Event
from poisonwatch.formats.foreign import Translator
from tests.formats.posted import block as framed
from tests.formats.posted import gathered
from tests.formats.translating import captured, counts_hold, json_values, lines, told

CONFIG = BentomlConfig(text="text", classes=("ham", "spam"), prediction_id="client_request_id")
PLAIN = BentomlConfig()
ROW = {
    "sepal length": 5.9,
    "colour": "red",
    "pred": "virginica",
    "timestamp": "2023-12-26T11:10:16.112687",
    "request_id": "r1",
    "trace_id": "t1",
}


def test_the_capture_is_what_was_logged() -> None:
    """Every value of every record; the line of the schema is none."""
    schema, data = captured("bentoml", "schema/schema.1.log", "data/data.1.log")
    found = told(Bentoml(CONFIG), [schema, data])
    logged = [json.loads(line) for line in data.data.splitlines()]
    assert not found.rejected
    assert not found.faults
    assert len(found.records) == len(logged) == 20
    for record, row in zip(found.records, logged, strict=True):
        at = row["timestamp"]
        assert record == {
            "timestamp": pytest.approx(
                1795305600 + int(at[11:13]) * 3600 + int(at[14:16]) * 60 + float(at[17:]), abs=1e-6
            ),
            "prediction_id": row["client_request_id"],
            "text": row["text"],
            "prediction": row["prediction"],
            "confidence": row["confidence"],
            "probabilities": dict(zip(CONFIG.classes, row["scores"], strict=True)),
        }


def test_every_column_that_is_nothing_else_is_a_feature() -> None:
    """And the time is that of the server's zone."""
    (record,) = told(
        Bentoml(BentomlConfig(timezone="Asia/Tokyo", model="iris", model_version="v1")), [lines(ROW)]
    ).records
    assert record == {
        "timestamp": pytest.approx(1703556616.112687, abs=1e-6),
        "prediction_id": "r1",
        "model": "iris",
        "model_version": "v1",
        "features": {"sepal length": 5.9, "colour": "red"},
        "prediction": "virginica",
    }


def test_over_otlp_the_time_is_in_seconds() -> None:
    """In any zone of the configuration."""
    (record,) = told(Bentoml(BentomlConfig(timezone="Asia/Tokyo")), [lines(ROW | {"timestamp": 1703556616.25})]).records
    assert record["timestamp"] == 1703556616.25


def test_the_configuration_names_the_outputs() -> None:
    """What is then not an output is a feature, whatever it is called."""
    config = BentomlConfig(prediction="y", confidence="sure")
    row = {"y": 1, "sure": 0.5, "label": "a", "score": 3, "timestamp": 1703556616}
    (record,) = told(Bentoml(config), [lines(row)]).records
    assert record == {
        "timestamp": 1703556616,
        "features": {"label": "a", "score": 3},
        "prediction": 1,
        "confidence": 0.5,
    }


@given(
    st.lists(st.sampled_from(["r1", "r2", "r3"]), max_size=12), st.lists(st.integers(0, 12), max_size=4), st.booleans()
)
def test_rows_of_one_request_have_ids_of_their_own(requests: list[str], cuts: list[int], restarted: bool) -> None:
    """However the log is chopped and the reader restarted."""
    expected, met = [], dict.fromkeys(requests, -1)
    for request in requests:
        met[request] += 1
        expected.append(f"{request}#{met[request]}" if met[request] else request)
    edges = sorted({0, *(cut for cut in cuts if cut < len(requests)), len(requests)})
    translator = Translator(Bentoml(PLAIN))
    parts = []
    for start, end in pairwise(edges):
        parts.append(translator.translate(lines(*(ROW | {"request_id": request} for request in requests[start:end]))))
        if restarted:
            state = json.loads(json.dumps(translator.state()))
            translator = Translator(Bentoml(PLAIN))
            translator.restore(state)
    assert [record["prediction_id"] for record in gathered([*parts, translator.flush()]).records] == expected


def test_what_is_remembered_of_requests_is_bounded() -> None:
    """Clients choose no ids here, but there are many."""
    reader = Translator(Bentoml(PLAIN))
    reader.translate(lines(*(ROW | {"request_id": str(number)} for number in range(3 * MOST_REQUESTS))))
    assert len((reader.state() or {})["rows"]) == MOST_REQUESTS


def test_what_is_no_prediction_is_counted() -> None:
    """By its reason, and the row after it is read."""
    without = {name: value for name, value in ROW.items() if name != "pred"}
    found = told(Bentoml(PLAIN), [lines(without, [7], ROW), Block(b"{\n")])
    assert len(found.records) == 1
    assert found.rejected == {"missing_prediction": 1, "not_an_object": 1, "malformed": 1}


@given(
    st.lists(
        json_values([*ROW, "prediction", "scores", "meta_data", "columns", "confidence"], ["r1", "virginica"]),
        max_size=4,
    )
)
def test_whatever_the_values_are_nothing_is_raised(values: list[Any]) -> None:
    """Any structure, as rows and in the place of each of their columns."""
    odd = [ROW | {name: value} for value in values for name in (*ROW, "prediction", "scores", "confidence")]
    posts = framed([Event(json.dumps(v).encode()) for v in values])
    counts_hold(lambda: Bentoml(PLAIN), [lines(*values, *odd), posts], told(Bentoml(PLAIN), [lines(ROW)]).records)
