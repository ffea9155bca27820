"""An agent whose state can be looked at from outside: beside others that were killed, or that met a fault."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch import checkpoint
from poisonwatch.assemble import sidecar
from poisonwatch.config import Config
from poisonwatch.reference.file import load, save
from poisonwatch.sinks.journal import read
from tests.streams import START, Record, lines, merged, predictions, usual_reference
from tests.system.programs import fetch, free_port, series_of, value

if TYPE_CHECKING:
    from pathlib import Path


def story() -> list[Record]:
    """A log in which a version is found out."""
    return merged(
        predictions(9_000, 1, rate=3.0),
        predictions(7_200, 2, start=START + 600, rate=3.0, version="v2", spam=0.6, confidence=1.5),
    )


class Agent:
    """A configured agent in a folder, and what it has saved."""

    def __init__(self, folder: Path, source: dict[str, Any]) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = free_port()
        save(usual_reference(), folder / "reference.json")
        self.config: dict[str, Any] = {
            "models": [{"name": "mail", "reference": str(folder / "reference.json")}],
            "sources": [source],
            "limits": {"skew_seconds": 86400},
            "state": {
                "checkpoint": str(folder / "checkpoint"),
                "checkpoint_seconds": 0.1,
                "journal": str(folder / "journal"),
                "spool": str(folder / "spool"),
            },
            "web": {"listen_address": f"127.0.0.1:{self.port}"},
        }
        (folder / "config.yaml").write_text(json.dumps(self.config))

    @property
    def arguments(self) -> list[str]:
        """What runs it."""
        return ["run", "--config", str(self.folder / "config.yaml"), "--log.level", "warning"]

    def saved(self) -> dict[str, Any]:
        """The last checkpoint, empty before the first."""
        identity = {"models": {"mail": load(self.folder / "reference.json").sha256}, "window_seconds": 60.0}
        return checkpoint.load(self.folder / "checkpoint", identity) or {}

    def counted(self) -> int:
        """Predictions that the last checkpoint has, each once."""
        saved = self.saved()
        if not saved:
            return 0
        intake = saved["intake"]
        found: int = sum(intake["counters"]["predictions"].values()) - intake["distinct"]["mail"]["dropped"]
        return found

    def listens(self) -> bool:
        """Whether it answers with what its loop has published."""
        try:
            found = series_of(fetch(f"http://127.0.0.1:{self.port}/metrics"))
        except OSError:
            return False
        return value(found, "poisonwatch_heartbeat_timestamp_seconds") > 0

    def findings(self) -> list[dict[str, Any]]:
        """Alerts and decisions of the journal, without what a restart changes."""
        return [
            {key: value for key, value in entry.items() if key not in {"seq", "prev", "hash"}}
            for entry in read(self.folder / "journal")
            if entry["kind"] in {"alert", "decision", "trigger"}
        ]


def in_peace(folder: Path, records: list[Record]) -> Agent:
    """An agent that reads all of it from one file, without a crash."""
    agent = Agent(folder, {"path": str(folder / "log")})
    (folder / "log").write_bytes(lines(records))
    app = sidecar(Config.model_validate(agent.config), lambda _: None).app
    now = time.time()
    app.start(now)
    while app.turn(now):
        pass
    app.close(now)
    return agent


def same(first: Any, second: Any) -> bool:
    """Are two states the same, bit for bit?"""
    if isinstance(first, np.ndarray):
        return isinstance(second, np.ndarray) and first.dtype == second.dtype and first.tobytes() == second.tobytes()
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second) or (first != first and second != second)  # noqa: PLR0124 - NaN is not itself
