"""Traces of MLflow are read as the quickstart says: real ones, with the page's own source."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import generate_latest
from ruamel.yaml import YAML

from poisonwatch.assemble import sidecar
from poisonwatch.config import Config
from poisonwatch.offline import build_reference
from poisonwatch.reference.file import save
from poisonwatch.sinks.prometheus import registry_of
from tests.folders import work
from tests.guides.adult_captures import CAPTURES
from tests.system.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "quickstarts" / "mlflow.md"


def test_traces_are_read_as_the_page_says(tmp_path: Path) -> None:
    """Each with its input, class and confidence; the one that is exported twice counts once."""
    (told,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (source,) = YAML(typ="safe").load(told)["sources"]
    real = (CAPTURES / "mlflow_traces.jsonl").read_text("utf-8").splitlines(keepends=True)
    # A reference wants more of them: the same ones under other names.
    trusted = tmp_path / "trusted.jsonl"
    trusted.write_text("".join(line.replace('"tr-', f'"tr-{n}') for n in range(10) for line in real))
    save(build_reference(trusted, format=source["format"]), tmp_path / "reference.json")
    live = tmp_path / source["path"]
    live.parent.mkdir()
    live.write_text("".join([*real, real[-1]]))
    config: dict[str, Any] = {
        "models": [{"name": "adult-income", "reference": tmp_path / "reference.json"}],
        "sources": [source | {"path": live}],
    }
    app = sidecar(Config.model_validate(config), lambda _: None).app
    now = time.time()
    app.start(now)
    try:
        work(app, now)
        app.finish(now)
        app.publish(now)
        page = generate_latest(registry_of(app.published)).decode()
    finally:
        app.close(now)
    assert re.search(r'^poisonwatch_duplicates_total\{model="adult-income"\} 1.0$', page, re.MULTILINE)
    confident = r'^poisonwatch_prediction_confidence_ratio_bucket\{le="\+Inf",model="adult-income",.*\} 20.0$'
    assert re.search(confident, page, re.MULTILINE), page
    classes = re.findall(r'^poisonwatch_predictions_total\{class="([<>].*?)",.*\} (.*)$', page, re.MULTILINE)
    assert len(classes) == 2
    assert sum(float(count) for _, count in classes) == 20
    assert not re.search(r"^poisonwatch_(faults|records_rejected)_total\{.*\} [1-9]", page, re.MULTILINE), page
