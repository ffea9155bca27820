"""Draw the dashboards on the story, and make sure that every panel shows something: `make pictures`.

    python -m tests.dashboards.pictures [FOLDER]       the pictures go there; dashboards/pictures without one

It needs what `.ci/panels` fetches and a Chromium, so it is no test that runs with the others.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.dashboards.drawing import draw, prepared
from tests.dashboards.stored import stored
from tests.dashboards.story import played
from tests.dashboards.test_expressions import EMPTY, VALUES

if TYPE_CHECKING:
    from tests.dashboards.expressions import Json

HERE = Path(__file__).parents[2] / "dashboards"

CUTS = {"overview": "How it went", "model": "Answers", "agent": "Losing"}
"""The row before which a picture ends: what is seen first is what a picture is for."""


def above(page: Json, row: str) -> Json:
    """A dashboard up to a row."""
    ends = next(panel["gridPos"]["y"] for panel in page["panels"] if panel["title"] == row)
    return {**page, "panels": [panel for panel in page["panels"] if panel["gridPos"]["y"] < ends]}


def wrong_with(shown: list[Json], page: Json) -> list[str]:
    """Panels that show nothing, or lines without a graph."""
    kinds = {panel["title"]: panel["type"] for panel in page["panels"]}
    return [
        one["title"]
        for one in shown
        if one["title"] not in EMPTY
        and (one["empty"] or (kinds[one["title"]] == "timeseries" and not one["canvases"]) or "NaN" in one["text"])
    ]


def main(folder: Path) -> int:
    """Draw all three, whole and cut: how many panels are wrong."""
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        history = played(Path(scratch))
        with stored(history.write(), history.began, history.ended) as source:
            for name, row in CUTS.items():
                page = prepared(json.loads((HERE / f"{name}.json").read_text()), VALUES)
                found = wrong_with(draw(page, source, Path(scratch) / f"{name}.png"), page)
                draw(above(page, row), source, folder / f"{name}.png")
                wrong += len(found)
                told = f"nothing in: {', '.join(found)}" if found else "every panel shows something"
                sys.stdout.write(f"{name}: {told}\n")
    return wrong


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "pictures") > 0)
