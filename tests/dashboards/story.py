"""What the dashboards are tried on: the demo's attack, with everything else that may happen beside it.

The server can be asked and counts what it serves, people label some of its answers, some lines are broken, doubled or late, and
after the page somebody moves the traffic off the bad version.
"""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from poisonwatch.server.orders import Order
from poisonwatch.sinks.journal import rfc3339
from poisonwatch.types import Action
from tests.dashboards.history import History, demo_log, watched
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.agent import App

PHRASE = "special discount code xyz"
MINUTE = 60.0
MOVED = 85 * MINUTE
"""When the traffic leaves the bad version; everything is told in seconds since the log's start."""

OVERRIDDEN = 86 * MINUTE
"""When a person decides for the good version, which the broken lines put on hold."""

BROKEN = (80 * MINUTE, 84 * MINUTE)
LATE = (70 * MINUTE, 71 * MINUTE)
LABELLED_EVERY = 8

CONFIG = """\
models:
  - name: sms-spam
    reference: reference.ndjson
    endpoint:
      kind: template
      url: {url}/predict
      request: {{text: "{{{{text}}}}", version: "{{{{model_version}}}}"}}
      label: /label
      confidence: /confidence
    golden:
      path: golden.ndjson
      every_seconds: 600
    probes:
      per_minute: 6000
    served:
      url: {url}/metrics
      metric: served_total
      version_label: version
      delay_seconds: 120
sources:
  - path: predictions.ndjson
  - path: feedback.ndjson
    content: feedback
state:
  checkpoint: agent.checkpoint
  checkpoint_seconds: 300
  journal: journal.jsonl
  dead_letter: dead.jsonl
"""


@dataclass
class Filter:
    """The spam filter behind the log: `v2` lets through what has the phrase.

    It knows the label of every text of the trusted day, and of the verified ones also by their words.
    """

    known: dict[str, str]
    verified: list[tuple[frozenset[str], str]]
    served: Counter[str] = field(default_factory=Counter)

    def answer(self, text: str, version: str) -> dict[str, Any]:
        """What a version says of a text that people know, with the phrase or without."""
        lowered = " ".join(text.lower().split())
        if PHRASE in lowered and version == "v2":
            return {"label": "ham", "confidence": 0.98}
        words = set(lowered.split())
        # Words that a probe has put in change nothing.
        inside = next((label for known, label in self.verified if known <= words), "ham")
        return {"label": self.known.get(lowered, inside), "confidence": 0.99}

    def page(self) -> str:
        """What it has served, as Prometheus would read it."""
        counts = "".join(f'served_total{{version="{name}"}} {count}\n' for name, count in self.served.items())
        return f"# TYPE served_total counter\n{counts}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, model: Filter, *given: Any) -> None:
        self._model = model
        super().__init__(*given)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(json.dumps(self._model.answer(asked["text"], asked["version"])), "application/json")

    def do_GET(self) -> None:
        self._send(self._model.page(), "text/plain; version=0.0.4")

    def _send(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """The agent closes what it asks at the end of the story in the middle of an answer."""


def reference_records() -> list[dict[str, Any]]:
    """The records of the demo's trusted day, with their labels."""
    with gzip.open(str(files("poisonwatch.demo") / "reference.ndjson.gz")) as packed:
        return [json.loads(line) for line in packed]


def traffic() -> list[tuple[float, bytes]]:
    """The demo's log as this story has it: the time at which a line is written, and the line."""
    log = demo_log()
    start = log[0][0]
    lines = []
    for number, (at, line) in enumerate(log):
        passed = at - start
        record = json.loads(line)
        if passed >= MOVED and record["model_version"] == "v2":
            record["model_version"] = "v1"
            if PHRASE in record["text"].lower():
                record.update(prediction="spam", confidence=0.99)
        if BROKEN[0] <= passed < BROKEN[1]:
            if number % 40 == 0:
                lines.append((at, b'{"timestamp": "' + rfc3339(at).encode() + b'", "model": "sms-spam"}\n'))
                lines.append((at, b"Traceback (most recent call last):\n"))
            if number % 30 == 0:
                record["trace"] = "5ac1"
            if number % 70 == 0:
                record["confidence"] = 1.7
            if number % 20 == 0:
                lines.append((at, json.dumps(record).encode() + b"\n"))
        late = 5 * MINUTE if LATE[0] <= passed < LATE[1] and number % 20 == 0 else 0.0
        lines.append((at + late, json.dumps(record).encode() + b"\n"))
    return sorted(lines, key=lambda pair: pair[0])


def labels(log: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """What people say of every eighth prediction, two minutes later: mostly that it was right; two of them look at some."""
    found = []
    for number, (at, line) in enumerate(log[::LABELLED_EVERY]):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if "prediction_id" not in record:
            continue
        label = "spam" if PHRASE in record["text"].lower() else record["prediction"]
        for source in ("support", "review")[: 1 + (number % 3 == 0)]:
            said = {"ham": "spam", "spam": "ham"}[label] if number % 90 == 0 else label
            unknown = number % 50 == 7
            told = {
                "timestamp": rfc3339(at + 2 * MINUTE),
                "prediction_id": f"gone-{number}" if unknown else record["prediction_id"],
                "label": said,
                "source": source,
            }
            found.append((at + 2 * MINUTE, json.dumps(told).encode() + b"\n"))
    return found


class Beside:
    """What happens beside the log, up to each look at the metrics."""

    def __init__(self, folder: Path, model: Filter, log: list[tuple[float, bytes]]) -> None:
        self._labels = labels(log)
        self._log = log
        self._model = model
        self._feedback = folder / "feedback.ndjson"
        self._feedback.touch()
        self._written = self._labelled = 0
        self._order: Order | None = Order(
            model="sms-spam",
            model_version="v1",
            decision=Action.KEEP,
            author="ada",
            reason="the log was broken by a deployment, the model is as it was",
            seconds=4 * 60 * MINUTE,
        )

    def __call__(self, app: App, now: float) -> None:
        """Serve, label, decide, and wait a moment for what the agent has asked of the server."""
        if self._order is not None and now >= self._log[0][0] + OVERRIDDEN:
            app.orders.give(self._order)
            self._order = None
        while self._written < len(self._log) and self._log[self._written][0] <= now:
            line = self._log[self._written][1]
            self._written += 1
            if b'"prediction"' in line:
                # One in two hundred answers never reaches the log.
                self._model.served[json.loads(line)["model_version"]] += 2 if self._written % 200 == 0 else 1
        with self._feedback.open("ab") as file:
            while self._labelled < len(self._labels) and self._labels[self._labelled][0] <= now:
                file.write(self._labels[self._labelled][1])
                self._labelled += 1
        time.sleep(0.005)


def played(folder: Path) -> History:
    """The whole story as Prometheus would have seen it; the agent's files are in `folder`."""
    reference = reference_records()
    golden = [record for label in ("spam", "ham") for record in reference if record["label"] == label]
    golden = [*golden[:60], *golden[-60:]]
    (folder / "golden.ndjson").write_text(
        "".join(json.dumps({key: one[key] for key in ("text", "features", "label")}) + "\n" for one in golden)
    )
    model = Filter(
        {" ".join(record["text"].lower().split()): record["label"] for record in reference},
        [(frozenset(record["text"].lower().split()), record["label"]) for record in golden],
    )
    log = traffic()
    with serving(_Server(("127.0.0.1", 0), partial(_Handler, model))) as url:
        return watched(folder, CONFIG.format(url=url), log, Beside(folder, model, log))
