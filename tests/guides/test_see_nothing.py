"""What the quickstarts for BentoML, SageMaker and Databricks say under "If you see nothing" is what is then seen.

Each row of these tables is tried with the page's own configuration: something is broken as the row says, and the agent's metrics show
what the row says, which they do not when nothing is broken.
"""

from __future__ import annotations

import json
import random
import re
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from prometheus_client.exposition import generate_latest

from poisonwatch.assemble import sidecar
from poisonwatch.config import load
from poisonwatch.offline import build_reference
from poisonwatch.reference.file import save
from poisonwatch.sinks.prometheus import registry_of
from tests.folders import work
from tests.guides.adult_captures import asked, data_capture, first_table_row
from tests.system.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES = ROOT / "docs" / "quickstarts"
COUNT = 300
Row = dict[str, Any]


def _tumour(number: int, at: float) -> Row:
    """A row of BentoML's monitor, as `docs/quickstarts/bentoml.md` makes them."""
    rng = random.Random(number)
    radius = rng.gauss(14, 3.5)
    benign = 1 / (1 + 2.7 ** (radius - 14))
    return {
        "radius": radius,
        "texture": rng.gauss(19, 4),
        "perimeter": radius * 6.5,
        "area": 3.1 * radius**2,
        "smoothness": rng.gauss(0.096, 0.014),
        "compactness": abs(rng.gauss(0.1, 0.05)),
        "prediction": "benign" if benign > 0.5 else "malignant",
        "confidence": max(benign, 1 - benign),
        "timestamp": datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(),
        "request_id": str(number),
    }


def _rows(page: str, seed: int, last: float) -> list[Row]:
    """Rows (300,) of the log of a page's server, the last of them at `last`."""
    rng = random.Random(seed)
    first = last - 1800
    if page == "bentoml":
        return [_tumour(seed + number, first + 6 * number) for number in range(COUNT)]
    found = asked(COUNT, seed, first, last)
    if page == "sagemaker":
        return [json.loads(data_capture(one, rng)) for one in found]
    return [first_table_row(one, rng) for one in found]


LOGS = {
    "bentoml": "monitoring/tumours/data/data.1.log",
    "sagemaker": "capture/income-endpoint/AllTraffic/2026/03/02/14/32-10-0.jsonl",
    "mlflow": "live/part-00000-c000.json",
}


def _config(page: str) -> str:
    found = re.search(r"cat >poisonwatch.yaml <<'END'\n(.*?)^END$", _text(page), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def _text(page: str) -> str:
    return (PAGES / f"{page}.md").read_text("utf-8")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a page with its configuration and its reference."""
    folders: dict[str, Path] = {}

    def folder_of(page: str) -> Path:
        if page not in folders:
            folder = folders[page] = tmp_path_factory.mktemp(page)
            (folder / "poisonwatch.yaml").write_text(_config(page))
            config = load(folder / "poisonwatch.yaml")
            trusted = folder / LOGS[page].replace("capture/", "trusted/").replace("live/", "trusted/")
            _write(trusted, _rows(page, 1, time.time() - 86400))
            save(build_reference(trusted, format=config.sources[0].format), config.models[0].reference)
            trusted.unlink()
        return folders[page]

    return folder_of


def _write(log: Path, rows: list[Row]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _without(*keys: str) -> Callable[[Row], None]:
    """Take something out of a row, by a path of keys."""

    def changed(row: Row) -> None:
        for key in keys[:-1]:
            row = row[key]
        del row[keys[-1]]

    return changed


def _with(**values: object) -> Callable[[Row], None]:
    return lambda row: row.update(values)


def _same(row: Row) -> None:
    """Change nothing."""


def _neither(row: Row) -> None:
    del row["request"], row["response"]


def _east(row: Row) -> None:
    row["timestamp"] = (datetime.fromisoformat(row["timestamp"]) + timedelta(hours=5.5)).isoformat()


def _verdict(row: Row) -> None:
    row["verdict"] = row.pop("prediction")


class Broken(NamedTuple):
    """Something that can be wrong, and the series that shows it."""

    page: str
    shows: str
    """Regular expression of a series with its value, which the page names."""
    said: str
    """How the page names it."""
    change: Callable[[Row], None] = _same
    """What is done to each row of the log."""
    config: tuple[str, str] | None = None
    """What is replaced in the configuration."""
    log: str | None = None
    """Where the log is instead; empty for nowhere."""


ALL = f"{COUNT}.0"
BROKEN = [
    Broken("bentoml", r"source_found\{.*\} 0.0", "`poisonwatch_source_found` is 0", log=""),
    Broken(
        "bentoml",
        rf'records_rejected_total\{{reason="future_timestamp",.*\}} {ALL}',
        'reason="future_timestamp"',
        _east,
    ),
    Broken("bentoml", rf'predictions_total\{{class="\(unseen\)",.*\}} {ALL}', 'class="(unseen)"', _verdict),
    Broken("sagemaker", r"source_found\{.*\} 0.0", "`poisonwatch_source_found` is 0", log=""),
    Broken(
        "sagemaker",
        rf'records_rejected_total\{{reason="unpaired_request",.*\}} {ALL}',
        'reason="unpaired_request"',
        _without("captureData", "endpointOutput"),
    ),
    Broken(
        "sagemaker",
        rf'records_rejected_total\{{reason="other_model",.*\}} {ALL}',
        'reason="other_model"',
        log=LOGS["sagemaker"].replace("income-endpoint", "other-endpoint"),
    ),
    Broken(
        "sagemaker",
        rf'faults_total\{{reason="features_wrong_length",.*\}} {ALL}',
        'reason="features_wrong_length"',
        config=("features: [age, workclass,", "features: [no, age, workclass,"),
    ),
    Broken("mlflow", r"source_found\{.*\} 0.0", "`poisonwatch_source_found` is 0", log=""),
    Broken(
        "mlflow",
        rf'records_rejected_total\{{reason="error_response",.*\}} {ALL}',
        'reason="error_response"',
        _with(status_code=500),
    ),
    Broken(
        "mlflow",
        rf'records_rejected_total\{{reason="other_model",.*\}} {ALL}',
        'reason="other_model"',
        config=("model: adult-income, ", ""),
        change=_with(request_metadata={"model_name": "another"}),
    ),
    Broken(
        "mlflow",
        rf'records_rejected_total\{{reason="unknown_event",.*\}} {ALL}',
        'reason="unknown_event"',
        _neither,
    ),
    Broken(
        "mlflow",
        rf'faults_total\{{reason="unreadable_request",.*\}} {ALL}',
        "`unreadable_request`",
        _with(request=None),
    ),
    Broken(
        "mlflow",
        rf'records_rejected_total\{{reason="missing_response",.*\}} {ALL}',
        "`missing_response`",
        _with(response=None),
    ),
]


def _metrics(learned: Path, folder: Path, log: str, rows: list[Row], config: tuple[str, str] | None = None) -> str:
    """What the agent's metrics are when it has read rows from a log, in a folder of its own."""
    text = (learned / "poisonwatch.yaml").read_text()
    if config is not None:
        assert config[0] in text
        text = text.replace(*config)
    folder.mkdir()
    (folder / "poisonwatch.yaml").write_text(text)
    (reference,) = learned.glob("*.reference.json")
    (folder / reference.name).write_bytes(reference.read_bytes())
    if log:
        _write(folder / log, rows)
    app = sidecar(load(folder / "poisonwatch.yaml"), lambda _: None).app
    now = time.time()
    app.start(now)
    try:
        work(app, now)
        # A long silence, after which the last window is judged.
        app.idle(now + 86400)
        app.publish(now + 86400)
        series = generate_latest(registry_of(app.published)).decode().splitlines()
        return "\n".join(line for line in series if not line.startswith("#"))
    finally:
        app.close(now + 86400)


@cache
def _well(learned: Path, page: str) -> str:
    """The metrics where nothing is wrong."""
    return _metrics(learned, learned / "well", LOGS[page], _rows(page, 2, time.time()))


@pytest.mark.parametrize("broken", BROKEN, ids=[f"{one.page}, {one.said}" for one in BROKEN])
def test_what_is_wrong_shows_as_the_page_says(broken: Broken, learned: Callable[[str], Path], tmp_path: Path) -> None:
    """In that series, which the page names; and not where nothing is wrong."""
    page, usual = broken.page, LOGS[broken.page]
    assert broken.said in _text(page).split("## 5.")[1]
    well = _well(learned(page), page)
    assert not re.search(f"^poisonwatch_{broken.shows}$", well, re.MULTILINE), well
    assert re.search(rf"^poisonwatch_records_total.* {ALL}$", well, re.MULTILINE), well
    rows = _rows(page, 2, time.time())
    for row in rows:
        broken.change(row)
    log = usual if broken.log is None else broken.log
    ill = _metrics(learned(page), tmp_path / "ill", log, rows, broken.config)
    assert re.search(f"^poisonwatch_{broken.shows}$", ill, re.MULTILINE), ill
