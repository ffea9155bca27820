"""A real history of /metrics: the agent works through the demo log, and what it exports is written down as time goes by.

The clock is the log's own, so two hours of traffic with an attack take seconds, and every run writes the same history.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from prometheus_client.openmetrics.exposition import generate_latest

from poisonwatch.assemble import sidecar
from poisonwatch.config import load
from poisonwatch.sinks.prometheus import registry_of
from tests.system.programs import tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from poisonwatch.agent import App

JOB = "poisonwatch"
INSTANCE = "sms-spam-0:9787"
SHOWN = "/var/log/model"
SCRAPE = 30.0
"""Seconds between two looks at the metrics."""

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
TARGET = f'job="{JOB}",instance="{INSTANCE}"'
FOREIGN = 'job="node",instance="database-0:9100"'
"""A target of the same Prometheus that is down all along and none of ours."""


def demo_log() -> list[tuple[float, bytes]]:
    """The shipped log: time of a record and its line."""
    with gzip.open(str(files("poisonwatch.demo") / "predictions.ndjson.gz")) as packed:
        lines = packed.read().splitlines(keepends=True)
    return [(datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp(), line) for line in lines]


@dataclass
class History:
    """Samples by family, in the order in which they were seen; what names `folder` says `SHOWN` instead."""

    folder: Path
    heads: dict[str, list[str]] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0

    def look(self, app: App, now: float) -> None:
        """Write down the metrics as a scrape at `now` would have found them."""
        app.publish(now)
        self.began = self.began or now
        self.ended = now
        family = ""
        # The folder of a test is another one each time.
        metrics: str = generate_latest(registry_of(app.published)).decode()  # type: ignore[no-untyped-call]
        for line in metrics.replace(str(self.folder), SHOWN).splitlines():
            if line.startswith("# EOF"):
                continue
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                head = self.heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
                continue
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, labels, value = found.groups()
            target = f"{labels},{TARGET}" if labels else TARGET
            self.samples.setdefault(family, []).append(f"{name}{{{target}}} {value} {now:.3f}")
        ups = self.samples.setdefault("up", [])
        ups += [f"up{{{TARGET}}} 1 {now:.3f}", f"up{{{FOREIGN}}} 0 {now:.3f}"]
        self.heads.setdefault("up", ["# TYPE up gauge"])

    def write(self) -> Path:
        """Make the storage of a Prometheus from it: its folder. A minute after the last look the agent is out of reach."""
        self.samples["up"].append(f"up{{{TARGET}}} 0 {self.ended + 60:.3f}")
        text = self.folder / "history.txt"
        with text.open("w") as file:
            for family, samples in self.samples.items():
                # Series one after the other, as the format asks.
                ordered = sorted(samples, key=lambda sample: sample.rsplit(" ", 2)[0])
                file.writelines(f"{line}\n" for line in (*self.heads[family], *ordered))
            file.write("# EOF\n")
        storage = self.folder / "tsdb"
        shutil.rmtree(storage, ignore_errors=True)
        subprocess.run(
            [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(text), str(storage)],
            check=True,
            capture_output=True,
        )
        return storage


def lay_out(folder: Path, config: str) -> None:
    """The demo's reference and a configuration."""
    with gzip.open(str(files("poisonwatch.demo") / "reference.ndjson.gz")) as packed:
        (folder / "reference.ndjson").write_bytes(packed.read())
    (folder / "config.yaml").write_text(config)


def settle(app: App, now: float) -> None:
    """One round of the loop, until nothing is left to read."""
    app.obey(now)
    while app.turn(now):
        pass
    app.probe(now)
    app.count_served(now)
    app.idle(now)
    app.save(now, at_once=False)


def watched(folder: Path, config: str, log: list[tuple[float, bytes]], act: Callable[[App, float], Any]) -> History:
    """What the metrics say while the log is written and the agent reads it; `act` is called before every look."""
    lay_out(folder, config)
    path = folder / "predictions.ndjson"
    path.touch()
    app, _ = sidecar(load(folder / "config.yaml"), lambda _: None)
    history = History(folder)
    start = log[0][0]
    app.start(start)
    with path.open("ab", buffering=0) as file:
        for now, lines in ticks(log):
            file.write(b"".join(lines))
            act(app, now)
            settle(app, now)
            history.look(app, now)
    app.close(history.ended)
    return history


def ticks(log: list[tuple[float, bytes]]) -> Iterator[tuple[float, list[bytes]]]:
    """The log in pieces of one scrape: the time at the end of a piece, and its lines."""
    start, end = log[0][0], log[-1][0]
    place = 0
    for number in range(1, int((end - start) // SCRAPE) + 2):
        now = start + number * SCRAPE
        lines = []
        while place < len(log) and log[place][0] <= now:
            lines.append(log[place][1])
            place += 1
        yield now, lines
