"""The spam filter as models of KServe's own server, protocols v1 and v2: `on_kserve.py NAME VERSION TRAINING LOG ...`; and `wine`."""

from __future__ import annotations

import socket
import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.protocol.rest.server import RESTServer
from spam_filter import SpamFilter
from wine import Wine


class Runtime(Model):  # type: ignore[misc]  # KServe is typed, but only its own environment has it
    """One version under a name of its own, as a canary of KServe is a service of its own."""

    def __init__(self, name: str, version: str, training: str, log: str) -> None:
        super().__init__(name)
        self._filter = SpamFilter("sms-spam", version, training, log)
        self.ready = True

    def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Answer: by class in protocol v1, in two tensors in v2."""
        rows = payload["instances"] if isinstance(payload, dict) else payload.inputs[0].data
        source = (headers or {}).get("user-agent", "unknown")
        labels, probabilities = self._filter.answer(rows, source, None)
        if isinstance(payload, dict):
            scores = [dict(zip(self._filter.classes, row.tolist(), strict=True)) for row in probabilities]
            pairs = zip(labels, scores, strict=True)
            return {"predictions": [{"label": label, "scores": by_class} for label, by_class in pairs]}
        named = InferOutput("label", [len(labels)], "BYTES", data=labels)
        weighed = InferOutput("probabilities", [*probabilities.shape], "FP64", data=probabilities.ravel().tolist())
        return InferResponse(response_id="1", model_name=self.name, infer_outputs=[named, weighed])


class Table(Model):  # type: ignore[misc]  # as above
    """The wine model by protocol v1: rows of numbers in, their classes with the scores of all out."""

    def __init__(self) -> None:
        super().__init__("wine")
        self._model = Wine()
        self.ready = True

    def predict(self, payload: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:  # noqa: ARG002 - KServe's
        """Answer; what is no row of numbers is an error 500 of the server."""
        labels, probabilities = self._model.answer(payload["instances"])
        scores = [dict(zip(self._model.classes, row.tolist(), strict=True)) for row in probabilities]
        pairs = zip(labels, scores, strict=True)
        return {"predictions": [{"label": label, "scores": by_class} for label, by_class in pairs]}


def main(arguments: list[str]) -> None:
    """Serve on the loopback, at a port that the system chooses; `ModelServer` itself would listen everywhere."""
    server = ModelServer(http_port=0, enable_grpc=False)
    for place in range(0, len(arguments), 4):
        server.register_model(Runtime(*arguments[place : place + 4]))
    server.register_model(Table())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        print(f"KServe running on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)  # noqa: T201 - the test reads it
        RESTServer("kserve.model_server:app", server.dataplane, server.model_repository_extension, http_port=0).run(
            sockets=[listening]
        )


if __name__ == "__main__":
    main(sys.argv[1:])
