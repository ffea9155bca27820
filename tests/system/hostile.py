"""An agent under hostile input: what it takes of memory, disk and series, and whether it still answers."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from tests.streams import lines, predictions
from tests.system.programs import Program, Series, poisonwatch, series_of, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

CEILING = 512 << 20
"""Bytes of memory that the agent may ever take."""

MOST_SERIES = 2000
MOST_ON_DISK = 96 << 20
"""Bytes of a checkpoint: the default for halves that wait is two thirds of it."""

SCRAPE_SECONDS = 10.0
"""How long Prometheus waits for a page by default."""

HONEST = 1000
"""Honest predictions beside every hostile input, one a second of event time."""

SERVICE = "org.kubeflow.serving.inference"


@dataclass
class Peak:
    """What a hostile input cost."""

    memory: int = 0
    checkpoint: int = 0
    series: int = 0
    scrapes: int = 0
    slowest: float = 0.0


@dataclass
class Besieged:
    """`poisonwatch run` in `folder` with these models and sources; its metrics are scraped all the time."""

    folder: Path
    references: Mapping[str, Path]
    sources: Iterable[dict[str, Any]]
    quiet: float = 2.0
    peak: Peak = field(default_factory=Peak)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        config = {
            "models": [{"name": name, "reference": str(path)} for name, path in self.references.items()],
            "sources": list(self.sources),
            "detection": {"lateness_seconds": 300, "quiet_seconds": self.quiet},
            "state": {
                "spool": "spool",
                "checkpoint": "agent.checkpoint",
                "checkpoint_seconds": 1,
                "journal": "journal.jsonl",
                "dead_letter": "dead.jsonl",
            },
            "web": {"listen_address": "127.0.0.1:0"},
        }
        (self.folder / "config.yaml").write_text(json.dumps(config))
        self._program = Program(poisonwatch("run", "--config", "config.yaml"), self.folder)
        self._program.start()
        try:
            self.address = self._program.said(r"listening.*\baddress=(\S+)")[1]
        except BaseException:
            self._program.close()
            raise
        self._over = threading.Event()
        self._scraper = threading.Thread(target=self._scrape)
        self._scraper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._scraper.join()
        self._program.close()

    def _scrape(self) -> None:
        while not self._over.wait(0.2):
            began = time.monotonic()
            try:
                with urlopen(f"http://{self.address}/metrics", timeout=SCRAPE_SECONDS) as answer:
                    page = answer.read().decode()
            except OSError as error:
                self.failures.append(repr(error))
                continue
            self.peak.scrapes += 1
            self.peak.slowest = max(self.peak.slowest, time.monotonic() - began)
            self.peak.series = max(self.peak.series, sum(not line.startswith("#") for line in page.splitlines()))

    def series(self) -> Series:
        """The metrics as they stand."""
        with urlopen(f"http://{self.address}/metrics", timeout=SCRAPE_SECONDS) as answer:
            return series_of(answer.read().decode())

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Post a body: the status."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request("POST", path, body, dict(headers or {}))
            return connection.getresponse().status
        finally:
            connection.close()

    def of(self, name: str, label: str = "reason", **labels: str) -> Counter[str]:
        """A metric by one of its labels, of the series that have these labels."""
        return by_label(self.series(), name, label, **labels)

    def told(self) -> str:
        """What it said and counted, for a failing test."""
        kept = {key: number for key, number in self.series().items() if "_total" in key[0] and number}
        return "\n".join([*self._program.output[-20:], *map(str, sorted(kept.items(), key=str))])

    def has_read(self, count: int) -> Series:
        """Wait until so many lines are counted or wait for another, and what is honest has been judged: the metrics then."""

        def look() -> Series | None:
            found = self.series()
            read = by_label(found, "poisonwatch_lines_total", "source")
            read += by_label(found, "poisonwatch_source_waiting", "source")
            judged = by_label(found, "poisonwatch_predictions_total", "class", model_version="v1")
            return found if read.total() >= count and judged.total() >= HONEST else None

        found: Series = wait_for(f"{count} lines read", look, self.told)
        return found

    def stop(self) -> Peak:
        """End it as an operator does: what it took at most."""
        status = Path(f"/proc/{self._program.process.pid}/status").read_text()
        self.peak.memory = 1024 * int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])
        self._over.set()
        self._scraper.join()
        assert self._program.ends(signal.SIGTERM) == 0, self._program.output[-20:]
        self.peak.checkpoint = (self.folder / "agent.checkpoint").stat().st_size
        return self.peak

    def bounded(self) -> Peak:
        """End it, and hold what it took to the bounds."""
        peak = self.stop()
        assert peak.memory < CEILING
        assert peak.checkpoint < MOST_ON_DISK
        assert peak.series < MOST_SERIES
        assert peak.scrapes
        assert not self.failures
        return peak


def by_label(series: Series, name: str, label: str, **labels: str) -> Counter[str]:
    """A metric by one of its labels; nothing that is zero."""
    found: Counter[str] = Counter()
    for (of, said), number in series.items():
        if of == name and number and labels.items() <= dict(said).items():
            found[dict(said)[label]] += int(number)
    return found


def reference(folder: Path, model: str) -> Path:
    """What a model usually says, built as a user would."""
    log = folder / f"{model}.ndjson"
    log.write_bytes(lines({**record, "model": model} for record in predictions(3000, 99)))
    built = log.with_suffix(".reference")
    command = poisonwatch("reference", "build", str(log), "--out", str(built))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return built


def honest(start: float) -> list[bytes]:
    """What the model really answered."""
    return [lines([record]) for record in predictions(HONEST, 5, start=start)]


def honest_classes() -> Counter[str]:
    """How often it answered what."""
    return Counter(str(record["prediction"]) for record in predictions(HONEST, 5))


def mixed(path: Path, start: float, hostile: Iterable[bytes], count: int) -> None:
    """Write a log of `count` hostile lines with the honest ones among them at equal distances."""
    good = honest(start)
    every = max(count // len(good), 1)
    written = 0
    with path.open("wb") as file:
        for number, line in enumerate(hostile):
            if number % every == 0 and written < len(good):
                file.write(good[written])
                written += 1
            file.write(line)
        file.writelines(good[written:])
