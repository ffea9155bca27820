"""The real Prometheus on a history that was written down, asked as Grafana asks."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from tests.system.programs import fetch, free_port, running, tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Stored:
    """Where it answers, and the time that its history spans."""

    url: str
    began: float
    ended: float

    def now(self, expression: str) -> dict[str, Any]:
        """What an expression is at the end of the history."""
        return self.at(expression, self.ended)

    def at(self, expression: str, when: float) -> dict[str, Any]:
        """What an expression is at a time."""
        return self._ask("query", query=expression, time=when)

    def over_time(self, expression: str, step: float) -> dict[str, Any]:
        """What an expression was all along."""
        return self._ask("query_range", query=expression, start=self.began, end=self.ended, step=step)

    def _ask(self, what: str, **parameters: object) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(fetch(f"{self.url}/api/v1/{what}?{urlencode(parameters)}"))
        except HTTPError as error:
            answer = json.loads(error.read())
        return answer


@contextmanager
def stored(storage: Path, began: float, ended: float) -> Iterator[Stored]:
    """A Prometheus over a storage, that scrapes nothing."""
    config = storage.parent / "empty.yaml"
    config.write_text("global: {}\n")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={storage}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with running(command, storage.parent) as program:
        program.said("Server is ready to receive web requests")
        yield Stored(url, began, ended)
