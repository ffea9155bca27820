"""The three lines of Python that docs/quickstarts/any-server.md gives to a server keep what it promises of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.guides.following import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "quickstarts" / "any-server.md"
WORKERS, LINES = 4, 120
SIZES = (40, 4000, 8150, 8192, 9000, 70_000, 1_000_000)
"""Characters of a text in a line: about the sizes of buffers, and far above."""


def _three_lines() -> list[str]:
    found = re.search(r"<!-- three lines -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def test_there_are_three_of_them_and_the_server_has_them() -> None:
    """As the page says; the server of the page is what a reader would make of them."""
    lines = _three_lines()
    assert len(lines) == 3
    for line in lines[1:]:
        assert PAGE.read_text().count(line) == 2


@pytest.mark.system
def test_several_processes_may_write_while_the_log_is_rotated(tmp_path: Path) -> None:
    """Each line is whole and there once, whatever its length, when four processes write and the log is moved away meanwhile."""
    begin, call = "\n".join(_three_lines()[:2]), _three_lines()[2]
    (tmp_path / "worker.py").write_text(
        f"import sys, time\n{begin}\nworker = int(sys.argv[1])\nfor number in range({LINES}):\n"
        f"    features = {{'text': 'abcdé'[worker] * {SIZES}[(number + worker) % {len(SIZES)}], 'worker': worker, 'number': number}}\n"
        f"    prediction, confidence = 'approve', 0.9\n    {call}\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "worker.py", str(number)], cwd=tmp_path, stderr=subprocess.PIPE)
        for number in range(WORKERS)
    ]
    log, moved = tmp_path / "predictions.ndjson", 0
    while any(worker.poll() is None for worker in workers):
        if log.exists() and log.stat().st_size > 20_000_000:
            moved += 1
            log.rename(tmp_path / f"predictions.ndjson.{moved}")
    for worker in workers:
        assert worker.communicate()[1] == b""
        assert worker.returncode == 0
    assert moved > 1
    seen = []
    for file in tmp_path.glob("predictions.ndjson*"):
        for line in file.read_text().splitlines():
            features = json.loads(line)["features"]
            assert len(set(features["text"])) == 1
            seen.append((features["worker"], features["number"]))
    assert sorted(seen) == [(worker, number) for worker in range(WORKERS) for number in range(LINES)]
