"""What stands in for a cluster whose servers post what they are asked and answer: their posts, made with the envelopes that they have."""

from __future__ import annotations

import http.client
import json
import random
import re
import sys
import time
import uuid
from shlex import quote
from typing import TYPE_CHECKING

from poisonwatch.sinks.journal import rfc3339
from tests.guides.adult_captures import CAPTURES, CLASSES, Asked, asked

if TYPE_CHECKING:
    from pathlib import Path

LEARNED, LIVE = 2000, 600
"""Predictions that are recorded for the reference, and posted to the agent."""

SINKS = {
    "http://poisonwatch.models:9787/v1/kserve": (9787, "/v1/kserve", LIVE),
    "http://sink.models:8081/": (8081, "/", LEARNED),
    "http://poisonwatch.models:9787/v1/seldon": (9787, "/v1/seldon", LIVE),
}
"""Where a URL of the cluster is on the reader's machine, and how much goes there."""


def seldon(text: str, _folder: Path) -> str:
    """Instead of patching a deployment: its executor's posts to the URL that it is patched with."""
    return _posts("seldon", text)


def kserve(text: str, _folder: Path) -> str:
    """Instead of patching an inference service: its logger's posts to the URL that it is patched with."""
    return _posts("kserve", text)


def _posts(sender: str, text: str) -> str:
    (url,) = re.findall(r'"value": "([^"]+)"', text)
    port, path, count = SINKS[url]
    start = f"from tests.guides.push_stand_ins import post; post({sender!r}, {port}, {path!r}, {count})"
    return f"PYTHONPATH={quote(str(CAPTURES.parents[2]))} {quote(sys.executable)} -c {quote(start)}\n"


def post(sender: str, port: int, path: str, count: int) -> None:
    """Post so many pairs as a sender does: CloudEvents of their own for the request and for the response."""
    rng = random.Random(count)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    live = count == LIVE
    now = time.time()
    for one in asked(count, count, now - 7200, now - 3600):
        at = time.time() if live else one.at
        request = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        for kind, body in _exchange(sender, one):
            headers = {"Content-Type": "application/json", "CE-SpecVersion": "1.0", "CE-Time": rfc3339(at)}
            headers |= {"CE-Inferenceservicename": "income", "CE-Namespace": "models"}
            if sender == "seldon":
                headers |= {"CE-Type": f"io.seldon.serving.inference.{kind}", "CE-Id": f"{request}-{kind}"}
                headers |= {"CE-Source": "http://:8000/", "CE-Requestid": request, "CE-Modelid": "classifier"}
                headers |= {"CE-Endpoint": "default"}
            else:
                headers |= {
                    "CE-Type": f"org.kubeflow.serving.inference.{kind}",
                    "CE-Id": request,
                    "CE-Component": "predictor",
                }
                headers |= {"CE-Source": "http://localhost:9081/", "CE-Endpoint": "", "CE-Metadata": "{}"}
                headers |= {"CE-Annotations": json.dumps({"example.com/model-version": "v1"})}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        if live:
            time.sleep(0.01)


def _exchange(sender: str, one: Asked) -> tuple[tuple[str, object], tuple[str, object]]:
    """What is asked and answered, in Seldon's own protocol or in v1 of KServe."""
    if sender == "seldon":
        return (
            ("request", {"data": {"names": [*one.row], "ndarray": [[*one.row.values()]]}}),
            ("response", {"data": {"names": [*CLASSES], "ndarray": [[*one.probabilities]]}, "meta": {}}),
        )
    return (
        ("request", {"instances": [[*one.row.values()]]}),
        ("response", {"predictions": [[*one.probabilities]]}),
    )
