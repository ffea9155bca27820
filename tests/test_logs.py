"""Finished logs in any format: read for a replay and for a reference, each with the path that it came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.agent import run
from poisonwatch.agent.clocks import EventClock
from poisonwatch.assemble import learn, replay
from poisonwatch.assemble.logs import open_sources, written_in
from poisonwatch.config import Config, DetectionConfig
from poisonwatch.config.formats import KserveConfig, MlflowConfig, SagemakerConfig
from poisonwatch.errors import BaselineError, ConfigError
from poisonwatch.sinks.journal import rfc3339
from tests.streams import predictions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.streams import Record

NAMES = ("amount", "age", "country")
SAGEMAKER = SagemakerConfig(features=NAMES, model="mail")


def captured(record: Record) -> bytes:
    """A prediction as SageMaker captures it."""
    cells = ",".join(str(record["features"][name]) for name in NAMES)
    answer = json.dumps({"predictions": [{"predicted_label": record["prediction"], "score": record["confidence"]}]})
    told = {
        "captureData": {
            "endpointInput": {"observedContentType": "text/csv", "mode": "INPUT", "data": cells, "encoding": "CSV"},
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": answer,
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": record["prediction_id"], "inferenceTime": rfc3339(record["timestamp"])},
        "eventVersion": "0",
    }
    return json.dumps(told).encode() + b"\n"


def log(folder: Path, variant: str, seed: int) -> Path:
    """A captured log of a variant, in the folder that SageMaker would put it into."""
    path = folder / "mail-endpoint" / variant / "2026" / "01" / "05" / "08" / "32-10.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(map(captured, predictions(400, seed))))
    return path


def test_each_log_keeps_its_own_path(tmp_path: Path) -> None:
    """Of several logs in one replay, each has the version that its own path names."""
    logs = [log(tmp_path, "blue", 1), log(tmp_path, "green", 2)]
    learned = learn(logs, "mail", always=True, written=SAGEMAKER)
    assert learned.versions == {"blue": 400, "green": 400}
    app = replay(learned, logs, [], detection=DetectionConfig(), journal=None, tell=lambda _: None, written=SAGEMAKER)
    run(app, EventClock(app.intake), lambda: False)
    seen = {name: view.facts.predictions for name, view in app.models["mail"].monitor.view().items()}
    assert seen == {"blue": 400, "green": 400}
    assert app.intake.counters.rejected.total() == 0


def test_halves_in_different_logs(tmp_path: Path) -> None:
    """Requests in one log and responses in another are joined; what has no other half is counted at the end."""
    halves: dict[str, list[bytes]] = {"request": [], "response": []}
    for record in predictions(300):
        bodies = {
            "request": {"instances": [[record["features"][name] for name in NAMES]]},
            "response": {"predictions": [record["prediction"]]},
        }
        for side, body in bodies.items():
            event = {
                "specversion": "1.0",
                "id": record["prediction_id"],
                "type": f"org.kubeflow.serving.inference.{side}",
                "time": rfc3339(record["timestamp"]),
                "inferenceservicename": "mail",
                "data": body,
            }
            halves[side].append(json.dumps(event).encode() + b"\n")
    paths = []
    for side, events in halves.items():
        paths.append(tmp_path / f"{side}.jsonl")
        paths[-1].write_bytes(b"".join(events if side == "request" else events[:-7]))
    written = KserveConfig(features=NAMES, pair_seconds=86400)
    learned = learn(paths, "mail", always=True, written=written)
    assert (learned.records, learned.rejected) == (293, {"unpaired_request": 7})
    app = replay(learned, paths, [], detection=DetectionConfig(), journal=None, tell=lambda _: None, written=written)
    run(app, EventClock(app.intake), lambda: False)
    counters = app.intake.counters
    assert counters.predictions.total() == 293
    assert {reason: n for (_, reason), n in counters.rejected.items()} == {"unpaired_request": 7}


def test_table_of_a_foreign_format(tmp_path: Path) -> None:
    """A table of a format of its own keeps its own columns: requests and responses as text in cells."""
    lines = ["databricks_request_id,timestamp_ms,status_code,request,response"]
    for record in predictions(200):
        request = json.dumps({"dataframe_records": [record["features"]]}).replace('"', '""')
        response = json.dumps({"predictions": [record["prediction"]]}).replace('"', '""')
        at = int(record["timestamp"] * 1000)
        lines.append(f'{record["prediction_id"]},{at},200,"{request}","{response}"')
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    learned = learn([table], "mail", always=True, written=MlflowConfig(model="mail"))
    assert learned.records == 200
    assert {column.name for column in learned.schema.features} == {f"features.{name}" for name in NAMES}


def test_reference_in_another_format_says_how_it_was_read(tmp_path: Path) -> None:
    """A log that makes no reference is told with the format in which it was tried."""
    plain = tmp_path / "native.ndjson"
    plain.write_text(json.dumps({"prediction": "a"}) + "\n")
    with pytest.raises(BaselineError, match="no record"):
        learn([plain], "mail", written=SAGEMAKER)


@pytest.mark.parametrize("formats", [["native"], ["kserve", "kserve"]])
def test_format_of_a_configuration(formats: list[str]) -> None:
    """The format of all logs of predictions, labels aside."""
    assert written_in(config(formats)).kind == formats[0]


def test_several_formats_are_ambiguous() -> None:
    """Which of several formats a finished log has, nobody knows."""
    with pytest.raises(ConfigError, match="several formats"):
        written_in(config(["native", "kserve"]))


def test_spools_of_paths_that_read_alike(tmp_path: Path) -> None:
    """Each path has a folder of its own."""
    paths = ["/v1/a-b", "/v1/a/b"]
    told = Config.model_validate(
        {
            "models": [{"name": "m", "reference": "r"}],
            "sources": [{"kind": "http", "path": path} for path in paths],
            "state": {"spool": tmp_path, "checkpoint": tmp_path / "c"},
        }
    )
    feeds, doors = open_sources(told, {})
    assert [door.path for door in doors] == paths
    assert len(list(tmp_path.iterdir())) == 2
    for feed in feeds:
        feed.source.close()


@pytest.mark.parametrize("content", [None, b" \n"])
def test_token_that_lets_nobody_in(tmp_path: Path, content: bytes | None) -> None:
    """A token file that is missing or empty is a mistake at start, not a silence later."""
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    told = Config.model_validate(
        {
            "models": [{"name": "m", "reference": "r"}],
            "sources": [{"kind": "http", "token_file": token}],
            "state": {"spool": tmp_path / "s", "checkpoint": tmp_path / "c"},
        }
    )
    with pytest.raises(ConfigError, match=r"token_file: .*nobody could push"):
        open_sources(told, {})


def config(formats: list[str]) -> Config:
    """A configuration with logs in these formats, and one of labels."""
    sources: list[dict[str, Any]] = [{"path": f"/log{n}", "format": name} for n, name in enumerate(formats)]
    sources.append({"path": "/labels", "content": "feedback"})
    return Config.model_validate({"models": [{"name": "m", "reference": "r"}], "sources": sources})
