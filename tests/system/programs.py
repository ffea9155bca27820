"""The real programs that the system tests start: the agent, Prometheus, promtool; and the shipped log to feed them."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from poisonwatch.sinks.journal import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
"""Seconds after which a thing that was waited for is called missing: a bound on a hang, not a measure of speed."""

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def wait_for(what: str, thing: Callable[[], Any], but: Callable[[], str] = str) -> Any:
    """Poll until `thing` answers with something true, and return that; `but` says what to tell when it never does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = thing()
        if found:
            return found
        time.sleep(0.02)
    msg = f"{what}: not within {PATIENCE:.0f} s\n{but()}"
    raise AssertionError(msg)


def obstruct(draft: Path) -> None:
    """Put a folder where an agent writes its drafts, which refuses even root; between two drafts, as one may be there."""

    def made() -> bool:
        try:
            draft.mkdir()
        except FileExistsError:
            return False
        return True

    wait_for("no draft", made)


def tool(name: str) -> str:
    """Path of a program: on PATH, else where `.ci/debian-tools` unpacked it. Never a reason to skip."""
    unpacked = ROOT / ".tools" / "debian" / "usr" / "bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    assert found, f"{name} is neither on PATH nor in {unpacked.parent}: run .ci/debian-tools"
    return found


_reserved: list[socket.socket] = []
"""What keeps the ports of this process from others, for as long as it lives."""


def free_port() -> int:
    """A port that nothing listens on, below those that the system gives to outgoing connections.

    No other process that asks here is given it either, be it before a server listens or while one is down: the UDP port of
    the same number, which no server wants, is kept as a sign of that.
    """
    for port in range(21_000, 32_000):
        sign = socket.socket(type=socket.SOCK_DGRAM)
        try:
            sign.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            sign.close()
            continue
        _reserved.append(sign)
        return port
    msg = "no port is free"
    raise AssertionError(msg)


@dataclass
class Program:
    """A process whose output is collected line by line while it runs."""

    command: list[str]
    folder: Path
    output: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start it, in its folder."""
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[str]) -> None:
        self.output.extend(line.rstrip("\n") for line in pipe)
        pipe.close()

    def said(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the output matches."""

        def look() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            if ended:
                self._reader.join()
            found = next((m for line in list(self.output) if (m := re.search(pattern, line))), None)
            assert found or not ended, f"{self.command[0]} ended with {self.process.poll()}:\n" + "\n".join(self.output)
            return found

        match: re.Match[str] = wait_for(f"{self.command} says {pattern!r}", look, lambda: "\n".join(self.output))
        return match

    def ends(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if any, and wait for the end: the exit code, negative for a signal."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.ends(signal.SIGKILL)


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[Program]:
    """A program for as long as the block lasts."""
    program = Program(command, folder)
    program.start()
    try:
        yield program
    finally:
        program.close()


def poisonwatch(*arguments: str) -> list[str]:
    """The command line of poisonwatch, as its users have it."""
    return [sys.executable, "-m", "poisonwatch", *arguments]


def fetch(url: str) -> str:
    """The body of a page."""
    with urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback only
        text: str = answer.read().decode()
    return text


def series_of(page: str) -> Series:
    """Every series of a metrics page: name and labels to value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def total(series: Series, name: str) -> float:
    """Sum of a metric over all its labels."""
    return sum(value for (of, _), value in series.items() if of == name)


def value(series: Series, name: str, **labels: str) -> float:
    """The one series of this name and these labels, or minus one."""
    return series.get((name, frozenset(labels.items())), -1.0)


def demo_lines(ends: float, *, name: str = "predictions") -> list[bytes]:
    """The shipped log with its times moved so that its last record lies at `ends`, in whole minutes.

    Whole minutes keep every record in its window, so that every run judges the same windows.
    """
    with gzip.open(str(files("poisonwatch.demo") / f"{name}.ndjson.gz")) as packed:
        records = [json.loads(line) for line in packed]
    times = [datetime.fromisoformat(record["timestamp"]).timestamp() for record in records]
    shift = (ends - times[-1]) // 60 * 60
    return [
        json.dumps({**record, "timestamp": rfc3339(at + shift)}).encode() + b"\n"
        for record, at in zip(records, times, strict=True)
    ]


@cache
def shipped_reference() -> bytes:
    """The reference of the shipped log, built once as its users do: an agent that is given the log learns it at every start."""
    with TemporaryDirectory() as folder:
        built = Path(folder) / "reference.json"
        log = str(files("poisonwatch.demo") / "reference.ndjson.gz")
        subprocess.run(
            poisonwatch("reference", "build", log, "--out", str(built)), check=True, capture_output=True, cwd=folder
        )
        return built.read_bytes()


CONFIG = """\
models:
  - name: sms-spam
    reference: reference.json
sources:
  - path: predictions.ndjson
detection:
  lateness_seconds: {lateness}
state:
  checkpoint: state/agent.checkpoint
  checkpoint_seconds: {checkpoint}
  journal: state/journal.jsonl
  dead_letter: state/dead.jsonl
web:
  listen_address: 127.0.0.1:{port}
"""


@dataclass
class Sidecar:
    """The real agent beside a server that appends to `predictions.ndjson` in `folder`.

    It can be killed and started again: state, port and log stay. Lateness is generous, because event time runs on with the
    clock while the test is slow to write; it changes when a window is judged, not what is found.
    """

    folder: Path
    port: int = 0
    checkpoint: float = 10.0
    lateness: float = 120.0
    program: Program | None = None
    outputs: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Lay out the folder."""
        (self.folder / "reference.json").write_bytes(shipped_reference())
        self.configure()
        self.log = self.folder / "predictions.ndjson"
        self.journal = self.folder / "state" / "journal.jsonl"
        self.checkpoint_file = self.folder / "state" / "agent.checkpoint"

    def configure(self) -> None:
        """Write the configuration."""
        config = CONFIG.format(port=self.port, checkpoint=self.checkpoint, lateness=self.lateness)
        (self.folder / "config.yaml").write_text(config)

    def start(self) -> str:
        """Start it and wait until it listens: its address."""
        self.program = Program(poisonwatch("run", "--config", "config.yaml"), self.folder)
        self.program.start()
        self.outputs.append(self.program.output)
        self.address = self.program.said(r"listening.*\baddress=(\S+)")[1]
        wait_for("ready", lambda: self.series(ready=False), self.told)
        return self.address

    def stop(self, number: signal.Signals) -> int:
        """End it by a signal: the exit code."""
        assert self.program is not None
        return self.program.ends(number)

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.program is not None:
            self.program.close()

    def page(self) -> str:
        """The metrics page as it stands."""
        return fetch(f"http://{self.address}/metrics")

    def series(self, *, ready: bool = True) -> Series:
        """The metrics as they stand; with `ready` once the loop has published any."""
        found = series_of(self.page())
        published = ("poisonwatch_heartbeat_timestamp_seconds", frozenset[tuple[str, str]]()) in found
        assert published or not ready
        return found if published else {}

    def append(self, lines: list[bytes]) -> None:
        """Write as a server would: appended, in one go."""
        with self.log.open("ab") as file:
            file.write(b"".join(lines))

    def has_read(self, count: int) -> Series:
        """Wait until the metrics tell of at least `count` lines."""

        def look() -> Series | None:
            found = self.series()
            return found if total(found, "poisonwatch_lines_total") >= count else None

        found: Series = wait_for(f"{count} lines read", look, self.told)
        return found

    def has_saved_since(self, before: int) -> None:
        """Wait until the checkpoint is newer than one of modification time `before`."""
        wait_for("a checkpoint", lambda: self.checkpoint_file.stat().st_mtime_ns > before, self.told)

    def entries(self) -> list[dict[str, Any]]:
        """The journal, every line."""
        if not self.journal.exists():
            return []
        whole, _, _ = self.journal.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def findings(self) -> list[dict[str, Any]]:
        """Alerts and decisions of the journal, without their place in the chain."""
        return [
            {key: said for key, said in entry.items() if key not in {"seq", "prev", "hash"}}
            for entry in self.entries()
            if entry["kind"] in {"alert", "decision"}
        ]

    def told(self) -> str:
        """What every run of the agent has written, for a failing test."""
        return "\n--\n".join("\n".join(lines) for lines in self.outputs)


PROMETHEUS = """\
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
scrape_configs:
  - job_name: poisonwatch
    static_configs:
      - targets: ["{target}"]
"""


@dataclass
class Prometheus:
    """The real Prometheus that scrapes one target every second; `more` is put at the end of its configuration."""

    folder: Path
    target: str
    more: str = ""

    def __post_init__(self) -> None:
        """Start it and wait until it is ready."""
        config = self.folder / "prometheus.yaml"
        config.write_text(PROMETHEUS.format(target=self.target) + self.more)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.program = Program(
            [
                tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={self.folder / 'tsdb'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--web.enable-lifecycle",
            ],
            self.folder,
        )
        self.program.start()
        self.began = time.time()
        self.program.said("Server is ready to receive web requests")

    def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """What an expression is now: labels to value."""
        answer = json.loads(fetch(f"{self.url}/api/v1/query?{urlencode({'query': expression})}"))
        assert answer["status"] == "success", answer
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in answer["data"]["result"]}

    def scalar(self, expression: str) -> float:
        """The one value of an expression, or minus one when it has none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return next(iter(found.values()), -1.0)

    def history(self, selector: str) -> dict[frozenset[tuple[str, str]], list[tuple[float, float]]]:
        """Every sample that was ever scraped of the selected series: labels to (time, value) in order."""
        seconds = int(time.time() - self.began) + 60
        answer = json.loads(fetch(f"{self.url}/api/v1/query?{urlencode({'query': f'{selector}[{seconds}s]'})}"))
        assert answer["status"] == "success", answer
        return {
            frozenset(one["metric"].items()): [(float(at), float(number)) for at, number in one["values"]]
            for one in answer["data"]["result"]
        }

    def close(self) -> None:
        """Make sure that it is gone."""
        self.program.close()


def promtool_check(page: str) -> tuple[int, str]:
    """Exit code and output of `promtool check metrics` on a page."""
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr
