"""The API keeps the promises of its own OpenAPI document, whatever is asked: schemathesis, with all its checks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.server.clients import get, listening
from tests.server.loops import turning
from tests.server.snapshots import demo, fresh
from tests.server.stories import told_in_full

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = 8
"""Of each operation and phase."""

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def with_examples(document: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The document with a name of each kind that is really there: drawn names are hardly ever."""
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if parameter["name"] in names:
                    parameter["example"] = names[parameter["name"]]
    return document


def answered(har: Path, document: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    """Method, path of the document and status of all that was answered."""
    found = set()
    for entry in json.loads(har.read_text())["log"]["entries"]:
        path = urlsplit(entry["request"]["url"]).path.split("/")
        for template in document["paths"]:
            parts = template.split("/")
            if len(parts) == len(path) and all(
                part.startswith("{") or part == given for part, given in zip(parts, path, strict=True)
            ):
                found.add((entry["request"]["method"], template, entry["response"]["status"]))
    return found


@pytest.mark.slow
@pytest.mark.system
def test_schemathesis(tmp_path: Path) -> None:
    """No answer breaks the document, wrong data are refused and right ones taken, and every operation was answered well once."""
    published = fresh(told_in_full(demo()))
    with turning(published) as orders, listening(published, orders=orders) as address:
        document = json.loads(get(address, "/v1/openapi.json")[2])
        (alert, *_) = json.loads(get(address, "/v1/alerts")[2])
        names = {
            "model": "sms-spam",
            "version": "v2",
            "model_version": "v2",
            "fingerprint": alert["fingerprint"],
            "author": "ann",
        }
        (tmp_path / "openapi.json").write_text(json.dumps(with_examples(document, names)))
        done = subprocess.run(
            [
                *(SCHEMATHESIS, "run", "openapi.json", "--url", f"http://{address}", "--checks", "all"),
                *("--seed", "1", "--max-examples", str(EXAMPLES), "--generation-database", "none"),
                *("--continue-on-failure", "--no-color", "--report", "har", "--report-har-path", "asked.har"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout
    found = answered(tmp_path / "asked.har", document)
    operations = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {(method, path) for method, path, status in found if status == 200} == operations
    assert {status for *_, status in found} >= {200, 400, 404, 405, 409, 415}
