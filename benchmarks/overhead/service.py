"""The server that is measured: a small scikit-learn model behind BentoML in two workers, which writes each prediction as a line of JSON."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import time
import uuid

import bentoml
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CLASSES = ("malignant", "benign")

log = logging.getLogger("predictions")
log.setLevel("INFO")
log.propagate = False
log.addHandler(logging.handlers.WatchedFileHandler(os.environ["PREDICTION_LOG"]))


@bentoml.service(workers=2)
class Tumours:
    """Thirty features, two classes."""

    def __init__(self) -> None:
        data = load_breast_cancer()
        self._names = [str(name).replace(" ", "_") for name in data.feature_names]
        self._model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)

    @bentoml.api  # type: ignore[untyped-decorator]  # only BentoML's own environment has it
    def predict(self, row: list[float]) -> dict[str, float | str]:
        """The class of a row (30,) and its probability."""
        scores = self._model.predict_proba([row])[0].tolist()
        answer = {"prediction": CLASSES[scores.index(max(scores))], "confidence": max(scores)}
        now = time.time()
        record = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z",
            "prediction_id": str(uuid.uuid4()),
            "model": "tumours",
            "model_version": "v1",
            "features": dict(zip(self._names, row, strict=True)),
            **answer,
        }
        log.info(json.dumps(record))
        return answer
