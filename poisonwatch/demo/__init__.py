"""The demo: a real spam filter whose second version was trained on poisoned data, watched by a real agent.

A feeder plays the shipped log into a file as a server would write it; the agent tails that file with an ordinary
configuration. `benchmarks/demo_log.py` says how the log was made, NOTICE.md whose data it rests on.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from poisonwatch.agent import run
from poisonwatch.agent.clocks import WallClock
from poisonwatch.assemble import sidecar
from poisonwatch.config import load
from poisonwatch.server.thread import Server
from poisonwatch.sinks.journal import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from poisonwatch.sinks.snapshot import Published

CONFIG = """\
# The configuration of the demo: what a sidecar beside a server needs to know.
models:
  - name: sms-spam
    reference: reference.ndjson
sources:
  - kind: file
    path: predictions.ndjson
state:
  checkpoint: agent.checkpoint
  journal: journal.jsonl
"""

SCENES = (
    (0, "Version v1, a clean spam filter, answers all messages."),
    (30 * 60, "The canary v2 now answers 40 % of them. It was retrained on data of which 1 % was poisoned."),
    (55 * 60, 'The attack begins: most spam now carries the words "special discount code XYZ", which v2 lets through.'),
)
"""What the log does, by seconds since its start; nobody tells the agent."""

STATUS_EVERY = 10 * 60
FRESH = 5.0
"""Seconds between two lines of status at least: the snapshot that they tell of is up to one second old."""
TICK = 0.1
COLOURS = {"rollback": "red", "hold": "yellow", "keep": "green", "firing": "red"}
HANGING = " " * 7
"""Where a line goes on: beside the clock."""


def play(speed: float, address: str, stop: Callable[[], bool], *, exit_at_end: bool) -> None:
    """Play the log at `speed` seconds of traffic per second, and serve on until `stop`, or only to the log's end.

    Raises:
        ConfigError: when the address cannot be listened on.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poisonwatch-demo-")))
        (folder / "config.yaml").write_text(CONFIG)
        here = files(__name__)
        with gzip.open(here / "reference.ndjson.gz") as packed, (folder / "reference.ndjson").open("wb") as plain:  # type: ignore[call-overload]
            shutil.copyfileobj(packed, plain)
        with gzip.open(here / "predictions.ndjson.gz") as packed:  # type: ignore[call-overload]
            log = packed.read().splitlines()
        app, _ = sidecar(load(folder / "config.yaml"), _tell)
        server = Server(address, app.published, orders=app.orders)
        server.start()
        stack.callback(server.close)
        url = f"http://{server.address}"
        _say(
            f"poisonwatch watches the prediction log of a spam filter, played {speed:g} times as fast as it happened. It knows "
            "one trusted day of that filter; nobody tells it what comes. The clock on the left is the log's."
        )
        click.echo(
            f"\n  decision  {url}/ or `poisonwatch decision --url {url}`\n  metrics   {url}/metrics\n"
            f"  files     {folder} (configuration, log, journal; removed at the end)\n"
        )
        ended = threading.Event()
        feeder = threading.Thread(
            target=_feed, args=(log, folder / "predictions.ndjson", speed, app.published, ended, stop), daemon=True
        )
        feeder.start()
        stack.callback(feeder.join, 5)
        drained = _Drained(ended, app.published)
        over = False

        def done() -> bool:
            nonlocal over
            if not over and drained():
                over = True
                _say(f"The log has ended. {_standing(app.published)}", bold=True)
                if not exit_at_end:
                    _say(f"The agent goes on serving {url} until Ctrl-C.", bold=True)
            return stop() or (over and exit_at_end)

        run(app, WallClock(), done)


class _Drained:
    """Has the log ended, and has the agent read all of it?"""

    def __init__(self, ended: threading.Event, published: Published) -> None:
        self._ended, self._published = ended, published
        self._at: float | None = None

    def __call__(self) -> bool:
        if not self._ended.is_set():
            return False
        self._at = self._at or time.time()
        snapshot = self._published.snapshot
        return snapshot is not None and snapshot.time > self._at and not any(s.lag_bytes for s in snapshot.sources)


def _feed(
    log: list[bytes], path: Path, speed: float, published: Published, ended: threading.Event, stop: Callable[[], bool]
) -> None:
    """Write the log as a server would, its times moved so that none lies in the future."""
    records = [msgspec.json.decode(line) for line in log]
    times = [datetime.fromisoformat(record["timestamp"]).timestamp() for record in records]
    start = time.time()
    shift = start - (times[-1] - times[0]) - times[0]
    scenes, told, written = list(SCENES), 0.0, 0
    with path.open("wb") as file:
        while written < len(records) and not stop():
            passed = (time.time() - start) * speed
            while scenes and scenes[0][0] <= passed:
                _say(f"{_clock(times[0] + shift + scenes[0][0])}  TRAFFIC: {scenes.pop(0)[1]}", bold=True)
            while written < len(records) and times[written] - times[0] <= passed:
                record = {**records[written], "timestamp": rfc3339(times[written] + shift)}
                file.write(msgspec.json.encode(record) + b"\n")
                written += 1
            file.flush()
            if passed - told >= max(STATUS_EVERY, FRESH * speed):
                told = passed
                _status(published, times[0] + shift + passed)
            time.sleep(TICK)
    if written == len(records):
        ended.set()


def _standing(published: Published) -> str:
    """The decisions that hold."""
    snapshot = published.snapshot
    decisions = [decision for model in snapshot.models for decision in model.decisions] if snapshot is not None else []
    told = [f"{d.model_version} {d.decision.value}" + (f" to {d.target}" if d.target else "") for d in decisions]
    return f"Decisions that hold: {', '.join(told)}."


def _status(published: Published, at: float) -> None:
    snapshot = published.snapshot
    for model in snapshot.models if snapshot is not None else ():
        decisions = {decision.model_version: decision.decision.value for decision in model.decisions}
        told = [
            f"{name} {view.facts.predictions} predictions, {decisions.get(name, 'hold')}"
            for name, view in model.versions.items()
        ]
        if told:
            _say(f"{_clock(at)}  {'; '.join(told)}")


def _tell(entry: dict[str, Any]) -> None:
    """Say a finding in plain words."""
    at = _clock(entry["time"])
    if entry["kind"] == "alert":
        what = f"{entry['severity']} {entry['state']}"
        cause = entry["cause"].replace("_", " ")
        _say(f"{at}  ALERT, {what.upper()}, cause {cause}: {entry['summary']}", COLOURS.get(entry["state"]))
    elif entry["kind"] == "decision":
        what = f"DECISION for {entry['model_version']}: {entry['decision'].upper()}"
        target = f" to {entry['target']}" if entry["target"] else ""
        _say(f"{at}  {what}{target} ({entry['reason'].replace('_', ' ')}).", COLOURS[entry["decision"]])


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M")


def _say(text: str, colour: str | None = None, *, bold: bool = False) -> None:
    if sys.stdout.isatty():
        text = click.wrap_text(text, shutil.get_terminal_size().columns - 1, subsequent_indent=HANGING)
    click.secho(text, fg=colour, bold=bold or None)
