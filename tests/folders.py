"""A configured agent in a folder of its own, turned by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poisonwatch.assemble import sidecar
from poisonwatch.config import Config
from poisonwatch.reference.file import save
from poisonwatch.sinks.journal import read
from tests.streams import usual_reference

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.agent import App
    from poisonwatch.monitor.machine import Monitor


class Folder:
    """A configured agent in a folder: what it reads, what it writes."""

    def __init__(self, path: Path, *, feedback: bool = False, **detection: Any) -> None:
        path.mkdir(exist_ok=True)
        self.log, self.labels = path / "log", path / "labels"
        self.journal, self.checkpoint, self.rejected = path / "journal", path / "checkpoint", path / "rejected"
        if not (path / "r.json").exists():
            save(usual_reference(), path / "r.json")
        sources: list[dict[str, Any]] = [{"path": self.log}]
        if feedback:
            sources.append({"path": self.labels, "content": "feedback"})
        self.config = Config.model_validate(
            {
                "models": [{"name": "mail", "reference": path / "r.json"}],
                "sources": sources,
                "detection": detection,
                "state": {"checkpoint": self.checkpoint, "journal": self.journal, "dead_letter": self.rejected},
            }
        )

    def app(self) -> App:
        """A new process's agent."""
        return sidecar(self.config, lambda _: None).app

    def findings(self) -> list[dict[str, Any]]:
        """Alerts and decisions of the journal, without what a restart changes: their numbers and hashes."""
        return [
            {key: value for key, value in entry.items() if key not in {"seq", "prev", "hash"}}
            for entry in read(self.journal)
            if entry["kind"] in {"alert", "decision"}
        ]


def append(path: Path, content: bytes) -> None:
    """Write to the end of a file, as a server does."""
    with path.open("ab") as file:
        file.write(content)


def work(app: App, now: float) -> None:
    """Turn until there is nothing to do."""
    while app.turn(now):
        pass


def monitor(app: App) -> Monitor:
    """The machine of the one model."""
    return app.models["mail"].monitor


def seen(app: App) -> int:
    """Predictions that were judged."""
    return sum(view.facts.predictions for view in monitor(app).view().values())
