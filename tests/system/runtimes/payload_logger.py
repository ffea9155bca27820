"""KServe's payload logger as a proxy before a server: `payload_logger.py SERVER SINK SERVICE VERSION`, URLs without a path.

In KServe this is a Go program beside the model (`logger: {mode: all}`). What it does is done here after its source: request and
response are two CloudEvents in HTTP's binary mode with one id, the client's `Ce-Id` if it sends one; a response is logged only
if its status is 200, under the request's content type; five workers post them, and since each event that waits is a goroutine,
which one comes next is chance; nothing is sent twice, and only 200 is delivered.
"""

from __future__ import annotations

import json
import random
import select
import sys
import threading
import uuid
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

WORKERS = 5
CROWD = 20
"""The oldest events race with each other: enough for many a response to come before its request, and none waits for long."""

SECONDS = 0.05
"""How long an event waits for others to race with."""

EVENT = "org.kubeflow.serving.inference."


def now() -> str:
    """The time as Go writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class Logger:
    """What waits to be posted, and what became of the rest."""

    def __init__(self, sink: str, source: str, service: str, version: str) -> None:
        parts = urlsplit(sink)
        self._sink, self._path = parts.netloc, parts.path or "/"
        self._told = {
            "Ce-Component": "predictor",
            "Ce-Endpoint": "",
            "Ce-Inferenceservicename": service,
            "Ce-Metadata": "{}",
            "Ce-Namespace": "default",
            "Ce-Annotations": json.dumps({"example.com/model-version": version}),
            "Ce-Source": source,
            "Ce-Specversion": "1.0",
        }
        self._chance = random.Random(20265)
        self._waiting: list[tuple[dict[str, str], bytes]] = []
        self._change = threading.Condition()
        self.counts = {"queued": 0, "delivered": 0, "lost": 0, "response_first": 0}
        self._requests: set[str] = set()
        for _ in range(WORKERS):
            threading.Thread(target=self._work, daemon=True).start()

    def add(self, kind: str, event: str, content_type: str | None, body: bytes) -> None:
        """Let an event race with those that wait."""
        headers = {**self._told, "Ce-Id": event, "Ce-Type": EVENT + kind, "Ce-Recordedtime": now()}
        if content_type is not None:
            headers["Content-Type"] = content_type
        with self._change:
            self._waiting.append((headers, body))
            self.counts["queued"] += 1
            self._change.notify()

    def _next(self) -> tuple[dict[str, str], bytes]:
        with self._change:
            self._change.wait_for(lambda: self._waiting)
            self._change.wait_for(lambda: len(self._waiting) >= CROWD, SECONDS)
            self._change.wait_for(lambda: self._waiting)
            headers, body = self._waiting.pop(self._chance.randrange(min(CROWD, len(self._waiting))))
            if headers["Ce-Type"] == EVENT + "request":
                self._requests.add(headers["Ce-Id"])
            elif headers["Ce-Id"] not in self._requests:
                self.counts["response_first"] += 1
            return headers, body

    def _work(self) -> None:
        connection = HTTPConnection(self._sink, timeout=30)
        while True:
            headers, body = self._next()
            status = self._posted(connection, headers, body)
            with self._change:
                self.counts["delivered" if status == 200 else "lost"] += 1

    def _posted(self, connection: HTTPConnection, headers: dict[str, str], body: bytes) -> int:
        """The status of the answer, or 0."""
        # As Go does: a connection that the sink has closed meanwhile is not used again.
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
        try:
            # Names in Go's order: its own first, then the sender's by name.
            connection.putrequest("POST", self._path, skip_accept_encoding=True)
            connection.putheader("User-Agent", "Go-http-client/1.1")
            connection.putheader("Content-Length", str(len(body)))
            for name, value in sorted({**headers, "Ce-Time": now()}.items()):
                connection.putheader(name, value.encode())
            connection.putheader("Accept-Encoding", "gzip")
            connection.endheaders(body)
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException):
            connection.close()
            return 0
        return answer.status


class Proxy(BaseHTTPRequestHandler):
    """Passes POSTs on to the server; GET answers with the logger's counts."""

    protocol_version = "HTTP/1.1"
    # Head and body leave in two writes: without this, each answer waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    logger: Logger
    server_netloc: str

    def setup(self) -> None:
        """A connection to the server for each of the client's."""
        super().setup()
        self._connection = HTTPConnection(self.server_netloc, timeout=60)

    def do_POST(self) -> None:
        """Log, ask, log, answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        event = self.headers.get("Ce-Id") or str(uuid.uuid4())
        content_type = self.headers.get("Content-Type")
        self.logger.add("request", event, content_type, body)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        self._connection.request("POST", self.path, body, kept)
        answer = self._connection.getresponse()
        answered = answer.read()
        if answer.status != 200:
            # KServe hangs up after an error.
            self._connection.close()
        self._answer(answer.status, answered)
        if answer.status == 200:
            self.logger.add("response", event, content_type, answered)

    def do_GET(self) -> None:
        """The counts so far."""
        self._answer(200, json.dumps(self.logger.counts).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""


def main(server: str, sink: str, service: str, version: str) -> None:
    """Serve on the loopback, at a port that the system chooses."""
    Proxy.logger = Logger(sink, server + "/", service, version)
    Proxy.server_netloc = urlsplit(server).netloc
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    print(f"payload logger running on http://127.0.0.1:{listening.server_port}", flush=True)  # noqa: T201 - the test reads it
    listening.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
