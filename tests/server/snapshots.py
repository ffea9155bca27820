"""Snapshots to serve: of a real replay of the shipped demo log, and of small logs with hostile names."""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from poisonwatch.agent import run
from poisonwatch.agent.clocks import EventClock
from poisonwatch.assemble import replay
from poisonwatch.config import DetectionConfig
from poisonwatch.reference.build import load_or_build
from poisonwatch.server.thread import Server
from poisonwatch.sinks.snapshot import Published
from tests.streams import START, predictions, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from poisonwatch.sinks.snapshot import Snapshot
    from tests.streams import Record

DEMO = Path(str(files("poisonwatch.demo")))


def snapshot_of(reference: Path, logs: Sequence[Path], feedback: Sequence[Path] = ()) -> Snapshot:
    """What stands at the end of a replay, from a trusted log or a built reference."""
    learned = load_or_build(reference)
    app = replay(learned, logs, feedback, detection=DetectionConfig(), journal=None, tell=lambda _: None)
    run(app, EventClock(app.intake), lambda: False)
    assert app.published.snapshot is not None
    return app.published.snapshot


@cache
def demo() -> Snapshot:
    """The demo's end: v1 is kept, v2 is to be rolled back."""
    return snapshot_of(DEMO / "reference.ndjson.gz", [DEMO / "predictions.ndjson.gz"])


def small(folder: Path, logs: Sequence[Record], reference: Sequence[Record] | None = None) -> Snapshot:
    """The end of a small log."""
    learned = reference or predictions(1000, 99, start=START - 86400.0)
    return snapshot_of(write(folder / "reference", learned), [write(folder / "log", logs)])


def together(*snapshots: Snapshot) -> Snapshot:
    """Several snapshots as one agent's that watches all their models."""
    return dataclasses.replace(snapshots[0], models=tuple(model for one in snapshots for model in one.models))


def fresh(snapshot: Snapshot) -> Published:
    """The snapshot as published just now."""
    return Published(dataclasses.replace(snapshot, time=time.time()))


@contextmanager
def served(published: Published) -> Iterator[str]:
    """The address of a real server over what is published."""
    server = Server("127.0.0.1:0", published)
    server.start()
    try:
        yield f"http://{server.address}"
    finally:
        server.close()
