"""Pictures of the dashboards: Grafana's own drawing code in a headless Chromium, on what a real Prometheus answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.dashboards.expressions import Json, filled
from tests.serving import serving

if TYPE_CHECKING:
    from tests.dashboards.stored import Stored

PANELS = Path(__file__).parents[2] / ".tools" / "panels"
"""Where `.ci/panels` puts the bundle."""

WIDTH = 1400
CELL = 38
"""Pixels of a row of Grafana's grid, with the gap below it."""


def chromium() -> str | None:
    """A Chromium on PATH, or the one that `$CHROMIUM` names."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def prepared(page: Json, values: dict[str, str]) -> Json:
    """A dashboard with its variables filled in, as Grafana would before it asks."""
    found: Json = json.loads(json.dumps(page))
    for panel in found["panels"]:
        for target in panel.get("targets", []):
            target["expr"] = filled(target["expr"], values)
    return found


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing."""


def draw(page: Json, source: Stored, picture: Path, *, light: bool = False) -> list[Json]:
    """Draw a prepared dashboard into a PNG: what every panel shows, as `title`, `text`, `empty`, and its number of `canvases`.

    Raises:
        AssertionError: when anything went wrong in the browser.
    """
    browser = chromium()
    assert browser, "there is no Chromium: install it, or name it as CHROMIUM"
    assert (PANELS / "out" / "main.js").exists(), "nothing to draw with: run .ci/panels"
    out = PANELS / "out"
    task = {
        "page": page,
        "prometheus": source.url,
        "from": source.began,
        "to": source.ended,
        "width": WIDTH,
        "light": light,
    }
    (out / "draw.js").write_text(f"window.DRAW = {json.dumps(task)};")
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in page["panels"]) * CELL
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(out)))) as address:
        done = subprocess.run(
            ["node", "shot.mjs", browser, f"{address}/index.html", str(WIDTH), str(height), str(picture.resolve())],
            cwd=PANELS,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    shown: list[Json] = json.loads(done.stdout)["shown"]
    return shown
