"""The real agent beside real inference servers: what it was told, what it counted, and what a client saw."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.system.programs import ROOT, Program, Series, fetch, poisonwatch, series_of, total, wait_for
from tests.system.runtimes.wine import Wine
from tests.system.servers import wines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WINDOW = 5.0
QUIET = 5.0


@dataclass
class Tally:
    """What a client saw of one version: how often each class, and every confidence."""

    classes: Counter[str] = field(default_factory=Counter)
    confidences: list[float] = field(default_factory=list)

    def add(self, label: str, confidence: float) -> None:
        """Count an answer."""
        self.classes[label] += 1
        self.confidences.append(confidence)

    @property
    def count(self) -> int:
        """All answers."""
        return self.classes.total()


class Agent:
    """`poisonwatch run` with windows of seconds, which it judges when its sources have been silent for as long."""

    def __init__(self, folder: Path, models: dict[str, Path], sources: Iterable[dict[str, Any]], port: int = 0) -> None:
        config = {
            "models": [{"name": name, "reference": str(reference)} for name, reference in models.items()],
            "sources": [*sources],
            # Nothing is late here, however long a busy machine lets a record wait.
            "detection": {"window_seconds": WINDOW, "lateness_seconds": 300, "quiet_seconds": QUIET},
            "state": {
                "spool": "spool",
                "checkpoint": "agent.checkpoint",
                "checkpoint_seconds": 1,
                "journal": "journal.jsonl",
                "dead_letter": "dead.jsonl",
            },
            "web": {"listen_address": f"127.0.0.1:{port}"},
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        self._folder = folder
        self._program = Program(poisonwatch("run", "--config", "config.yaml"), folder)

    def start(self) -> Agent:
        """Start it and wait until it listens."""
        self._program.start()
        try:
            self.address = self._program.said(r"listening.*\baddress=(\S+)")[1]
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Make sure that it is gone."""
        self._program.close()

    def series(self) -> Series:
        """The metrics as they stand."""
        return series_of(fetch(f"http://{self.address}/metrics"))

    def told(self) -> str:
        """What it wrote, what it counted and what it rejected, for a failing test."""
        dead = self._folder / "dead.jsonl"
        page = [line for line in fetch(f"http://{self.address}/metrics").splitlines() if not line.startswith("#")]
        return "\n".join(
            [*self._program.output[-50:], *page, *(dead.read_text().splitlines()[-10:] if dead.exists() else [])]
        )

    def judged(self, model: str, count: int) -> Series:
        """Wait until so many predictions of a model have been judged, or more: the metrics then."""

        def look() -> Series | None:
            found = self.series()
            judged = sum(
                number
                for (name, labels), number in found.items()
                if name == "poisonwatch_predictions_total" and ("model", model) in labels
            )
            return found if judged >= count else None

        found: Series = wait_for(f"{count} predictions of {model} judged", look, self.told)
        return found

    def agrees(self, model: str, version: str, tally: Tally) -> Series:
        """Every class was counted as often as the client saw it, and as many confidences lie below each cut of the histogram."""
        series = self.judged(model, tally.count)
        counted: dict[str, float] = {}
        below: dict[float, float] = {}
        for (name, labels), number in series.items():
            if {("model", model), ("model_version", version)} <= labels:
                if name == "poisonwatch_predictions_total" and number:
                    counted[dict(labels)["class"]] = number
                elif name == "poisonwatch_prediction_confidence_ratio_bucket":
                    below[float(dict(labels)["le"])] = number
        assert counted == dict(tally.classes), self.told()
        assert len(below) > 3
        assert below == {cut: sum(one <= cut for one in tally.confidences) for cut in below}, self.told()
        for lost in ("poisonwatch_predictions_late_total", "poisonwatch_faults_total"):
            assert total(series, lost) == 0, self.told()
        return series


def wine_reference(folder: Path) -> Path:
    """What the model of wines answers, an hour of it: the file."""
    model = Wine()
    rows = wines(1500, seed=1)
    labels, probabilities = model.answer(rows)
    lines = [
        {
            "timestamp": f"2026-01-05T09:{place // 25:02d}:{place % 25 * 2:02d}Z",
            "prediction_id": f"reference-{place}",
            "model": "wine",
            "model_version": "v1",
            "features": dict(zip(model.features, row, strict=True)),
            "prediction": label,
            "confidence": float(scores.max()),
        }
        for place, (row, label, scores) in enumerate(zip(rows, labels, probabilities, strict=True))
    ]
    log = folder / "wine.ndjson"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return _reference(log)


def spam_reference(folder: Path) -> Path:
    """What the filter of the servers answers, from the demo's trusted log: the file."""
    log = folder / "sms-spam.ndjson"
    with gzip.open(ROOT / "poisonwatch" / "demo" / "reference.ndjson.gz") as packed:
        log.write_bytes(packed.read())
    return _reference(log)


def _reference(log: Path) -> Path:
    """The reference of a log in native lines; a log itself would be read in the format of the sources."""
    path = log.with_suffix(".reference")
    command = poisonwatch("reference", "build", str(log), "--out", str(path))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return path
