"""Captures of a model of incomes in the shapes that clouds keep them in: more of them than are in `tests/formats/captures`.

Envelopes and shapes are those of the real captures there, which are too few to learn a reference from. Each value of an input is that
of a real row of Adult, drawn by itself; what answers is a formula.
"""

from __future__ import annotations

import json
import math
import random
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from poisonwatch.sinks.journal import rfc3339

CAPTURES = Path(__file__).parents[1] / "formats" / "captures"
CLASSES = ("<=50K", ">50K")


class Asked(NamedTuple):
    """One request and its answer: the row by names, the probabilities (2,) in the order of `CLASSES`, Unix seconds."""

    row: dict[str, Any]
    probabilities: tuple[float, float]
    at: float

    @property
    def answer(self) -> tuple[str, float]:
        """The class, and its probability."""
        best = max(self.probabilities)
        return CLASSES[self.probabilities.index(best)], best


def asked(count: int, seed: int, first: float, last: float) -> list[Asked]:
    """Requests (count,) evenly spread from `first` to `last`, in Unix seconds."""
    rng = random.Random(seed)
    rows = [json.loads(line)["features"] for line in (CAPTURES / "adult.jsonl").read_text("utf-8").splitlines()]
    pools = {name: [row[name] for row in rows] for name in rows[0]}
    found = []
    for number in range(count):
        row = {name: rng.choice(pool) for name, pool in pools.items()}
        married = row["marital-status"] == "Married-civ-spouse"
        log_odds = 0.04 * (row["age"] - 40) + 0.4 * (row["education-num"] - 11) + 0.03 * (row["hours-per-week"] - 40)
        rich = 1 / (1 + math.exp(-(log_odds + (1.5 if married else -2.0))))
        found.append(Asked(row, (1 - rich, rich), first + (last - first) * number / count))
    return found


def data_capture(one: Asked, rng: random.Random) -> str:
    """A line of SageMaker's data capture, as `32-10-1-json.jsonl` has them."""
    label, best = one.answer
    answer = {"predicted_label": label, "probability": best, "probabilities": list(one.probabilities)}
    document = {
        "captureData": {
            "endpointInput": _part("INPUT", {"instances": [{"features": list(one.row.values())}]}),
            "endpointOutput": _part("OUTPUT", {"predictions": [answer]}),
        },
        "eventMetadata": {"eventId": _id(rng), "inferenceId": _id(rng), "inferenceTime": rfc3339(one.at)},
        "eventVersion": "0",
    }
    return json.dumps(document) + "\n"


def _part(mode: str, data: object) -> dict[str, str]:
    return {"observedContentType": "application/json", "mode": mode, "data": json.dumps(data), "encoding": "JSON"}


def collected(one: Asked, rng: random.Random) -> tuple[str, str]:
    """Lines of Azure's data collector, of the inputs and of the outputs, as `azure_blob` has them."""
    label, best = one.answer
    ids = {"correlationid": (request := _id(rng)), "xrequestid": request}
    found = []
    for name, row in (("model_inputs", one.row), ("model_outputs", {"label": label, "probability": round(best, 10)})):
        document = {
            "specversion": "1.0",
            "id": _id(rng),
            "source": "/subscriptions/0/onlineEndpoints/income/deployments/blue",
            "type": f"azureml.inference.{name}",
            "datacontenttype": "application/json",
            "time": rfc3339(one.at),
            "data": [row],
            **ids,
            "modelversion": "default",
            "collectdatatype": "pandas.core.frame.DataFrame",
            "agent": "azureml-ai-monitoring/1.0.0",
        }
        found.append(json.dumps(document) + "\n")
    return found[0], found[1]


def first_table_row(one: Asked, rng: random.Random) -> dict[str, Any]:
    """A row of an inference table of Databricks as the first ones had them, and as `mlflow.jsonl` has them."""
    return {
        "client_request_id": _id(rng),
        "databricks_request_id": _id(rng),
        "date": rfc3339(one.at)[:10],
        "timestamp_ms": round(one.at * 1000),
        "status_code": 200,
        "execution_time_ms": rng.randint(15, 30),
        **_exchange(one),
        "sampling_fraction": 1.0,
        "request_metadata": {
            "endpoint_name": "adult-income-endpoint",
            "model_name": "adult-income",
            "model_version": "1",
        },
    }


def gateway_table_row(one: Asked, rng: random.Random) -> dict[str, Any]:
    """A row of an inference table of the AI gateway, as Spark writes it to JSON: what is null is left out."""
    return {
        "request_date": rfc3339(one.at)[:10],
        "databricks_request_id": _id(rng),
        "request_time": rfc3339(one.at),
        "status_code": 200,
        "sampling_fraction": 1.0,
        "execution_duration_ms": rng.randint(15, 30),
        **_exchange(one),
        "served_entity_id": "362c5dbb1cf448789afbb4ee6a687712",
        "logging_error_codes": [],
        "requester": "service@example.com",
    }


def _exchange(one: Asked) -> dict[str, str]:
    label, best = one.answer
    answer = {"label": label, "probability": best, "probabilities": list(one.probabilities)}
    asks = {"dataframe_split": {"columns": list(one.row), "data": [list(one.row.values())]}}
    return {"request": json.dumps(asks), "response": json.dumps({"predictions": [answer]})}


def _id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
