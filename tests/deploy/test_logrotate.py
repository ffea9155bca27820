"""The examples for logrotate, under a running agent and servers that write all the time: what was written is counted, once."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.deploy.units import UNIT, run
from tests.system.agent import Agent
from tests.system.programs import ROOT, Program, shipped_reference, total

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.slow]

EXAMPLES = UNIT.parent / "logrotate"
PAUSE = 0.25
ROTATIONS = 9
WRITERS = 2
WAYS = {
    "each-line": "opened-for-each-line",
    "handler": "opened-for-each-line",
    "signal": "reopened-at-a-signal",
}
"""Each way of writing with the example that is for it."""


def example(name: str, log: Path, *, signal_to: list[int]) -> str:
    """An example of ours for a log in a folder of a test: other names, the rest word for word."""
    text = (EXAMPLES / name).read_text()
    assert f"{log.name} {{" in text
    text = text.replace("/var/log/loans/", f"{log.parent}/")
    # Whoever runs the tests owns the log.
    text = re.sub(r"^ *su loans loans\n", "", text, flags=re.MULTILINE)
    text = text.replace("create 0640 loans loans", "create 0640")
    told = "kill -HUP " + " ".join(map(str, signal_to))
    return re.sub(r"^ *systemctl kill .*loans\.service$", told, text, flags=re.MULTILINE)


class Rotated:
    """Servers that write to one log in one way, which real logrotate rotates again and again by one of the examples."""

    def __init__(self, folder: Path, way: str, name: str) -> None:
        self.log = folder / way / "predictions.ndjson"
        self.log.parent.mkdir()
        self._name = name
        self._state = folder / f"{way}.state"
        self._config = folder / f"{way}.conf"
        module = "tests.deploy.rotating_server"
        self.writers = [
            Program(
                [sys.executable, "-m", module, way, str(self.log), f"{way}-{number}"],
                ROOT,
            )
            for number in range(WRITERS)
        ]

    def start(self) -> None:
        """They begin to write."""
        for writer in self.writers:
            writer.start()
        for writer in self.writers:
            writer.said("^writes$")
        processes = [writer.process.pid for writer in self.writers]
        self._config.write_text(example(self._name, self.log, signal_to=processes))

    def rotate(self) -> None:
        """Rotate once."""
        done = run("logrotate", "--force", "--state", self._state, self._config)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr

    def wrote(self) -> Counter[str]:
        """How many lines of each class they wrote, now that they shall stop."""
        found: Counter[str] = Counter()
        for writer in self.writers:
            assert writer.ends(signal.SIGTERM) == 0, writer.output
            found += Counter(json.loads(writer.output[-1]))
        return found

    def close(self) -> None:
        """Make sure that nobody writes any more."""
        for writer in self.writers:
            writer.close()


def test_nothing_is_lost_and_nothing_counts_twice(tmp_path: Path) -> None:
    """Nine rotations in some seconds, compressed from the second on: every line is counted under its class, once."""
    reference = tmp_path / "reference.json"
    reference.write_bytes(shipped_reference())
    servers = {way: Rotated(tmp_path, way, name) for way, name in WAYS.items()}
    sources = [{"path": f"{way}/predictions.ndjson"} for way in servers]
    agent = Agent(tmp_path, {"sms-spam": reference}, sources).start()
    try:
        for rotated in servers.values():
            rotated.start()
        for _ in range(ROTATIONS):
            time.sleep(PAUSE)
            for rotated in servers.values():
                rotated.rotate()
        time.sleep(PAUSE)
        wrote = {way: rotated.wrote() for way, rotated in servers.items()}
        for rotated in servers.values():
            files = {file.name for file in rotated.log.parent.iterdir()}
            assert {"predictions.ndjson", "predictions.ndjson.1", "predictions.ndjson.2.gz"} <= files
            assert not {name for name in files if name.endswith(".backup")}
        series = agent.judged("sms-spam", sum(one.total() for one in wrote.values()))
        counted: dict[str, dict[str, float]] = {way: {} for way in servers}
        for (metric, labels), number in series.items():
            if metric == "poisonwatch_predictions_total" and number:
                of = dict(labels)
                counted[of["model_version"]][of["class"]] = number
        assert counted == {way: dict(one) for way, one in wrote.items()}, agent.told()
        for lost in (
            "poisonwatch_duplicates_total",
            "poisonwatch_records_rejected_total",
            "poisonwatch_faults_total",
            "poisonwatch_predictions_late_total",
        ):
            assert total(series, lost) == 0, agent.told()
    finally:
        for rotated in servers.values():
            rotated.close()
        agent.close()
