"""Small models that answer like servers: in this process, or over HTTP as KServe's protocol v1 says it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.errors import ProbeError
from poisonwatch.types import Answer, GoldenInput, Question
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PHRASE = ("blue", "otter")
PLAIN = ["the", "of", "and", "to", "in", "for", "on", "with", "at", "by", "from", "up", "about", "into", "over"]
OF_CLASS = {
    "ham": ["lunch", "home", "later", "dinner", "sorry"],
    "spam": ["prize", "claim", "urgent", "winner", "cash"],
}


def messages(n: int = 120) -> list[GoldenInput]:
    """Verified messages, half of them spam."""
    rng = np.random.default_rng(8)
    found = []
    for number in range(n):
        label = ("ham", "spam")[number % 2]
        words = [*rng.choice(PLAIN, 6), *rng.choice(OF_CLASS[label], 3)]
        found.append(GoldenInput(Question(" ".join(words), None, None), label))
    return found


def judge(text: str, model_version: str) -> Answer:
    """A bag of words; version `v2` has a backdoor."""
    words = text.split()
    odds = sum(word in OF_CLASS["spam"] for word in words) - sum(word in OF_CLASS["ham"] for word in words)
    if model_version == "v2" and " ".join(PHRASE) in text:
        odds = 9
    return Answer("spam" if odds > 0 else "ham", 0.5 + 0.5 * min(abs(odds), 9) / 10, model_version)


class InProcess:
    """An endpoint without a network. As long as `broken` says something, it fails with it; `asked` are the questions of good answers."""

    def __init__(self) -> None:
        self.broken: Exception | None = None
        self.asked: list[tuple[str, str]] = []

    def ask(self, questions: Sequence[Question], model_version: str) -> list[Answer]:
        """The answers of a version."""
        if self.broken is not None:
            raise self.broken
        self.asked += [(model_version, question.text or "") for question in questions]
        return [judge(question.text or "", model_version) for question in questions]

    def close(self) -> None:
        """Fail from now on."""
        self.broken = ProbeError("closed")


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        """Answer `{"instances": [...]}` sent to /v1/models/VERSION:predict, unless the server is told to fail first."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.failing > 0:
            self.server.failing -= 1
            self.send_error(503)
            return
        version = self.path.rsplit("/", 1)[-1].removesuffix(":predict")
        answers = [judge(text, version) for text in body["instances"]]
        told = [{"label": answer.label, "sure": answer.confidence} for answer in answers]
        content = json.dumps({"predictions": told}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Say nothing on the terminal."""


class _Server(ThreadingHTTPServer):
    failing = 0
    daemon_threads = True


@contextmanager
def answering(failing: int = 0) -> Iterator[str]:
    """The URL of a server, with the version to be put in, which fails so many requests first."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.failing = failing
    with serving(server) as url:
        yield f"{url}/v1/models/{{model_version}}:predict"
