"""The wine model behind Azure's inference server with its data collector; run as a program, it is that server on the loopback."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from wine import Wine


class Scorer:
    """The model and the collectors of what goes in and what comes out."""

    def __init__(self) -> None:
        from azureml.ai.monitoring import Collector  # noqa: PLC0415 - it starts a thread, which the master shall not have

        self._model = Wine()
        self._inputs = Collector(name="model_inputs")
        self._outputs = Collector(name="model_outputs")

    def answer(self, rows: list[list[float]]) -> list[dict[str, Any]]:
        """Class and probability of each row, of which each call makes one event of inputs and one of outputs."""
        frame = pd.DataFrame(rows, columns=self._model.features)
        context = self._inputs.collect(frame)
        labels, probabilities = self._model.answer(frame.to_numpy())
        answered = pd.DataFrame({"label": labels, "probability": probabilities.max(axis=1)})
        self._outputs.collect(answered, context)
        found: list[dict[str, Any]] = answered.to_dict(orient="records")
        return found


scorers: list[Scorer] = []


def init() -> None:
    """What Azure's server calls before it answers."""
    scorers.append(Scorer())


def run(data: str) -> list[dict[str, Any]]:
    """What Azure's server calls with the body of each request."""
    return scorers[0].answer(json.loads(data)["data"])


def main() -> None:
    """Serve on the loopback, at a port that the system chooses; the server's own command would listen everywhere."""
    from azureml_inference_server_http import amlserver_linux  # noqa: PLC0415 - only where this is the program
    from azureml_inference_server_http.constants import PACKAGE_ROOT  # noqa: PLC0415 - as above
    from azureml_inference_server_http.log_config import load_logging_config  # noqa: PLC0415 - as above

    load_logging_config(PACKAGE_ROOT)
    os.environ |= {"AZUREML_ENTRY_SCRIPT": __file__, "AML_APP_ROOT": str(Path.cwd())}
    amlserver_linux.run("127.0.0.1", 0, 1)


if __name__ == "__main__":
    main()
