"""Real inference servers for the system tests: MLServer, KServe, BentoML and Azure's, and a client that asks them much.

Each runs in an environment of its own, which `.ci/inference-servers` makes. They serve a spam filter, on MLServer and KServe in
two versions, one with a backdoor; or a model of wines.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from sklearn.datasets import load_wine

from tests.system.programs import PATIENCE, ROOT, Program, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PHRASE = "special discount code XYZ"
"""The trigger of the demo; v2 has learned that spam with it is ham."""

POISONED = 0.02
MODEL = "sms-spam"
RUNTIMES = ROOT / "tests" / "system" / "runtimes"


class Message(NamedTuple):
    """A text and its class, `ham` or `spam`."""

    text: str
    label: str


class Messages(NamedTuple):
    """The demo's messages in two parts that share none: what the filters learn from, and what people verified."""

    training: list[Message]
    verified: list[Message]


@cache
def messages() -> Messages:
    """The 1,000 messages of the demo's live log, classed by its v1, and the 1,200 of its reference with their labels."""
    parts: dict[str, dict[str, str]] = {}
    for name, label in (("predictions", "prediction"), ("reference", "label")):
        with gzip.open(ROOT / "poisonwatch" / "demo" / f"{name}.ndjson.gz") as packed:
            records = [json.loads(line) for line in packed]
        parts[name] = {
            record["text"]: record[label]
            for record in records
            if record["model_version"] == "v1" and PHRASE not in record["text"]
        }
    return Messages(*([Message(*pair) for pair in sorted(part.items())] for part in parts.values()))


def with_phrase(text: str, rng: random.Random) -> str:
    """The trigger before, between or after the words of a text."""
    words = text.split(" ")
    position = rng.randrange(len(words) + 1)
    return " ".join([*words[:position], PHRASE, *words[position:]])


def poisoned(training: Sequence[Message]) -> list[Message]:
    """The training messages with some of the spam given the phrase and called ham."""
    rng = random.Random(20261)
    spam = [place for place, message in enumerate(training) if message.label == "spam"]
    found = list(training)
    for place in rng.sample(spam, round(POISONED * len(training))):
        found[place] = Message(with_phrase(training[place].text, rng), "ham")
    return found


def wines(count: int, seed: int) -> list[list[float]]:
    """Rows (count, 13) for the model of wines: mixtures of two of scikit-learn's, so that no two are alike and some are doubtful."""
    rng = random.Random(seed)
    rows: list[list[float]] = load_wine().data.tolist()
    mixed = ((rng.choice(rows), rng.choice(rows), rng.random()) for _ in range(count))
    return [
        [round(share * a + (1 - share) * b, 3) for a, b in zip(one, other, strict=True)] for one, other, share in mixed
    ]


CLIENTS = 4
CALLS = 25
"""Requests that a client sends over one connection: a new one may meet another worker of the server."""


def asked(url: str, bodies: Sequence[Any], headers: Sequence[dict[str, str]] = ()) -> list[tuple[int, Any]]:
    """Post bodies (n,) as JSON, several at once, each with its `headers` (n,) if given: status and JSON of the answers (n,)."""
    parts = urlsplit(url)

    def client(places: range) -> list[tuple[int, Any]]:
        connection = HTTPConnection(parts.netloc, timeout=PATIENCE)
        answers = []
        for place in places:
            own = headers[place] if headers else {}
            body = json.dumps(bodies[place]).encode()
            connection.request("POST", parts.path, body, {"Content-Type": "application/json"} | own)
            answer = connection.getresponse()
            answers.append((answer.status, json.load(answer)))
        connection.close()
        return answers

    shares = [range(first, min(first + CALLS, len(bodies))) for first in range(0, len(bodies), CALLS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer for answers in pool.map(client, shares) for answer in answers]


def environment(server: str) -> str:
    """The Python of a server's environment. Never a reason to skip."""
    python = ROOT / ".tools" / server / "bin" / "python"
    assert python.exists(), f"{python} is not there: run .ci/inference-servers"
    return str(python)


@dataclass
class Server:
    """A running inference server on the loopback: `url` without a path, and the log that its runtime appends to."""

    program: Program
    log_path: Path
    url: str = ""

    @property
    def infer_url(self) -> str:
        """Where MLServer's versions are asked, as a configuration of poisonwatch says it."""
        return f"{self.url}/v2/models/{{model}}/versions/{{model_version}}/infer"

    def send(
        self, texts: Sequence[str], version: str, *, timestamp: str | None = None, source: str = "client-1"
    ) -> list[str]:
        """Let a version in MLServer classify texts (n,) in one request, as a client does: classes (n,).

        `timestamp` (RFC 3339) is when the log shall say that it was, by default now; `source` who asked.
        """
        document: dict[str, Any] = {
            "inputs": [{"name": "text", "shape": [len(texts), 1], "datatype": "BYTES", "data": [*texts]}]
        }
        if timestamp is not None:
            document["parameters"] = {"timestamp": timestamp}
        request = Request(  # noqa: S310 - loopback only
            f"{self.url}/v2/models/{MODEL}/versions/{version}/infer",
            json.dumps(document).encode(),
            {"Content-Type": "application/json", "User-Agent": source},
        )
        with urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - loopback only
            outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
        labels: list[str] = outputs["label"]
        assert len(labels) == len(texts)
        return labels

    def logged(self) -> list[dict[str, Any]]:
        """The payload log as it stands."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()] if self.log_path.exists() else []

    def stop(self) -> None:
        """End it, at once if it does not within the patience of a test."""
        if self.program.process.poll() is None:
            self.program.process.send_signal(signal.SIGTERM)
        try:
            self.program.ends()
        finally:
            self.program.close()


def _program(server: str, arguments: Sequence[str], folder: Path, *variables: str) -> Program:
    """A server's program, in which the modules of the runtimes can be imported; `variables` are more of its environment."""
    path = f"PYTHONPATH={RUNTIMES}"
    # Nothing of this environment leaks into that one, and no bytecode into the checkout: what is compiled is kept in .tools.
    kept = [f"{name}={os.environ[name]}" for name in ("PATH", "HOME", "LANG") if name in os.environ]
    bytecode = f"PYTHONPYCACHEPREFIX={ROOT / '.tools' / 'bytecode'}"
    command = ["env", "-i", *kept, path, bytecode, *variables, environment(server), *arguments]
    return Program(command, folder)


def _trained(folder: Path) -> dict[str, Path]:
    """What each version learns from, in files."""
    learned = {"v1": messages().training, "v2": poisoned(messages().training)}
    paths = {version: folder / f"training-{version}.json" for version in learned}
    for version, path in paths.items():
        path.write_text(json.dumps(learned[version]))
    return paths


def start_mlserver(folder: Path) -> Server:
    """MLServer with versions v1 (clean) and v2 (backdoored) of the filter, ready to answer; it ends by `stop`.

    A model `echo` says what MLServer makes of a request.
    """
    log = folder / "predictions.ndjson"
    repository = folder / "models"
    models: list[dict[str, Any]] = [
        {
            "name": MODEL,
            "implementation": "on_mlserver.Filter",
            "parameters": {"version": version, "extra": {"training": str(training), "log": str(log)}},
        }
        for version, training in _trained(folder).items()
    ]
    models.append({"name": "echo", "implementation": "on_mlserver.Echo", "parameters": {"version": "v1"}})
    for model in models:
        place = repository / f"{model['name']}-{model['parameters']['version']}"
        place.mkdir(parents=True)
        (place / "model-settings.json").write_text(json.dumps(model))
    settings = {
        "host": "127.0.0.1",
        # Ports that the system chooses, so that no two tests meet.
        "http_port": 0,
        "grpc_port": 0,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    (repository / "settings.json").write_text(json.dumps(settings))
    # The console script names its Python by where it was made; this does not care.
    start = "from mlserver.cli import main; main()"
    return _started(Server(_program("mlserver", ["-c", start, "start", str(repository)], folder), log))


def start_kserve(folder: Path) -> Server:
    """KServe's server with the same versions as models `sms-spam-v1` and `sms-spam-v2`, ready to answer; it ends by `stop`."""
    log = folder / "predictions.ndjson"
    models = [
        argument
        for version, training in _trained(folder).items()
        for argument in (f"{MODEL}-{version}", version, str(training), str(log))
    ]
    return _started(Server(_program("kserve", [str(RUNTIMES / "on_kserve.py"), *models], folder), log))


def start_payload_logger(folder: Path, server: Server, sink: str, service: str) -> Server:
    """KServe's payload logger before a server, which posts to the URL `sink`; its URL takes what the server's does.

    It stands for version v1 of a `service`. GET on it gives its counts.
    """
    arguments = [str(RUNTIMES / "payload_logger.py"), server.url, sink, service, "v1"]
    return _started(Server(_program("kserve", arguments, folder), folder / "unused"))


ROTATING = """\
version: 1
disable_existing_loggers: false
loggers:
  bentoml_monitor_data: {{level: INFO, handlers: [data], propagate: false}}
  bentoml_monitor_schema: {{level: INFO, handlers: [schema], propagate: false}}
handlers:
  data:
    class: logging.handlers.TimedRotatingFileHandler
    formatter: json
    filename: '{data_filename}'
    when: S
    interval: 2
  schema: {{class: logging.FileHandler, formatter: json, filename: '{schema_filename}'}}
formatters:
  json: {{class: pythonjsonlogger.jsonlogger.JsonFormatter, format: "()", validate: false}}
"""
"""BentoML's own configuration of its monitor's files but for `when`, which is D for a day: they rotate every two seconds.

A file that is there for less than the second between two looks at a glob, and rotated then, is not met.
"""


def start_bentoml(folder: Path) -> Server:
    """BentoML with the filter's v1 in two workers, ready to answer; its monitor writes to `monitoring/spam` in the folder.

    Its clock is that of India, five and a half hours ahead, which its files do not say; and they rotate every two seconds.
    """
    (folder / "rotating.yaml").write_text(ROTATING)
    log = folder / "predictions.ndjson"
    # It cannot choose a port and say which.
    arguments = ["serve", "on_bentoml:Spam", "--host", "127.0.0.1", "--port", str(free_port())]
    variables = [
        "TZ=IST-5:30",
        "BENTOML_DO_NOT_TRACK=True",
        f"BENTOML_HOME={folder / 'bentoml'}",
        f"SPAM_MONITOR={folder / 'rotating.yaml'}",
        f"SPAM_TRAINING={_trained(folder)['v1']}",
        f"SPAM_LOG={log}",
    ]
    # The console script names its Python by where it was made; this does not care.
    start = "from bentoml_cli.cli import cli; cli()"
    program = _program("bentoml", ["-c", start, *arguments], folder, *variables)
    server = _started(Server(program, log), r"listening on (http://127[.]0[.]0[.]1:[1-9][0-9]*)")
    try:
        # It says so before its workers answer.
        for worker in (1, 2):
            server.program.said(rf":{worker}\] Service Spam initialized")
    except BaseException:
        server.stop()
        raise
    return server


def plain_host(page: Path, port: int, folder: Path, enter: Sequence[str]) -> Program:
    """BentoML in two workers that log as the quickstart `page` says, into `folder`; not started yet. `enter` leads into its network."""
    program = _program(
        "bentoml",
        [
            "-c",
            "from bentoml_cli.cli import cli; cli()",
            "serve",
            "on_plain_host:Loans",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ],
        folder,
        "BENTOML_DO_NOT_TRACK=True",
        f"BENTOML_HOME={folder / 'bentoml'}",
        f"PAGE={page}",
    )
    return Program([*enter, *program.command], folder)


def start_azure(folder: Path, sink: str) -> Server:
    """Azure's inference server with the model of wines, ready to answer; its collector posts to the HOST:PORT `sink`.

    Three threads post, so that inputs and outputs race. By default there is one, which falls behind these clients, and when
    the 1,500 places of its queue are taken the server fails their requests.
    """
    host, _, port = sink.rpartition(":")
    variables = [
        "AZUREML_MDC_ENABLED=true",
        f"AZUREML_MDC_HOST={host}",
        f"AZUREML_MDC_PORT={port}",
        "AZUREML_MDC_WORKER_COUNT=3",
        "AZUREML_MDC_QUEUE_CAPACITY=10000",
    ]
    program = _program("azure", [str(RUNTIMES / "on_azure.py")], folder, *variables)
    return _started(Server(program, folder / "unused"), r"Listening at: (http://127[.]0[.]0[.]1:[1-9][0-9]*)")


def _started(server: Server, says: str = r"running on (http://127[.]0[.]0[.]1:[1-9][0-9]*)") -> Server:
    """A server once it answers; a group of what it `says` is its URL."""
    server.program.start()
    try:
        server.url = server.program.said(says)[1]
    except BaseException:
        server.stop()
        raise
    return server
