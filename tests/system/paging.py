"""How a page reaches a person: the shipped rules in the real Prometheus, the real Alertmanager, and a receiver on loopback."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.system.programs import ROOT, Program, fetch, free_port, tool, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULES = ROOT / "deploy" / "prometheus"
CONFIG = ROOT / "deploy" / "alertmanager"

UNPACKED = ROOT / ".tools" / "debian" / "usr" / "share" / "prometheus" / "alertmanager"
"""Alertmanager's own templates, which the one that `.ci/debian-tools` unpacked looks for in the folder where it is started."""

DURATION = re.compile(
    r"^(\s*(?:- )?(?:for|keep_firing_for|group_wait|group_interval|repeat_interval): )(\d+)([smhd])$", re.MULTILINE
)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hurried(text: str, times: float) -> str:
    """Rules, or a configuration of Alertmanager, in which all that waits does so `times` as short: a minute is a second at 60.

    Expressions and the ranges in them stay as they are shipped.
    """

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, round(1000 * int(found[2]) * SECONDS[found[3]] / times))}ms"

    return DURATION.sub(shorter, text)


def with_rules(folder: Path, alertmanager: str, times: float = 1) -> str:
    """What a configuration of Prometheus needs beyond a target: the shipped rules, and where alerts go (`host:port`)."""
    for path in RULES.glob("*.rules.yml"):
        (folder / path.name).write_text(hurried(path.read_text(), times))
    return (
        f"rule_files: [{folder}/*.rules.yml]\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\n"
    )


class Received(NamedTuple):
    """What came to a receiver: when (of the wall clock), to which path, and its JSON."""

    time: float
    path: str
    body: dict[str, Any]


def _nothing(_: Received) -> None:
    """Do nothing with what came."""


@dataclass
class Receiver:
    """What takes webhooks on loopback, keeps them in the order in which they came, and tells somebody of each."""

    tell: Callable[[Received], None] = _nothing
    received: list[Received] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        receiver = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                came = Received(time.time(), self.path, body)
                receiver.received.append(came)
                receiver.tell(came)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Say nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def alerts(self, name: str, status: str = "firing", path: str = "/pager") -> list[tuple[Received, dict[str, Any]]]:
        """Every alert of this name and status that came, with what it came in."""
        return [
            (came, alert)
            for came in list(self.received)
            if came.path == path
            for alert in came.body["alerts"]
            if alert["labels"]["alertname"] == name and alert["status"] == status
        ]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Alertmanager:
    """The real Alertmanager with the shipped configuration, whose receivers are paths of `receiver`."""

    folder: Path
    receiver: str
    times: float = 1

    def __post_init__(self) -> None:
        """Start it and wait until it is ready."""
        text = hurried((CONFIG / "alertmanager.yml").read_text(), self.times)
        for name in ("pager", "chat", "tickets"):
            text = text.replace(f"https://{name}.example.com/hook", f"{self.receiver}/{name}")
        assert "example.com" not in text
        (self.folder / "alertmanager.yml").write_text(text)
        (self.folder / "poisonwatch.tmpl").write_text((CONFIG / "poisonwatch.tmpl").read_text())
        for template in UNPACKED.glob("*.tmpl"):
            shutil.copy(template, self.folder)
        self.address = f"127.0.0.1:{free_port()}"
        self.program = Program(
            [
                tool("prometheus-alertmanager"),
                f"--config.file={self.folder / 'alertmanager.yml'}",
                f"--storage.path={self.folder / 'alertmanager'}",
                f"--web.listen-address={self.address}",
                f"--web.external-url=http://{self.address}",
                "--cluster.listen-address=",
            ],
            self.folder,
        )
        self.program.start()
        self.program.said("Listening on")
        wait_for("Alertmanager ready", lambda: fetch(f"http://{self.address}/-/ready"))

    def active(self, name: str) -> list[dict[str, Any]]:
        """Alerts of this name that it takes for firing now."""
        alerts = json.loads(fetch(f"http://{self.address}/api/v2/alerts"))
        return [alert for alert in alerts if alert["labels"]["alertname"] == name]

    def close(self) -> None:
        """Make sure that it is gone."""
        self.program.close()
