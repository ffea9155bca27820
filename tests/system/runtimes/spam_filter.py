"""A spam filter that a server serves: trained when it is loaded, and it logs what it answers as the records of poisonwatch."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence


class SpamFilter:
    """One version: what it has learned is in `training`, JSON pairs of a text and its class; `log` is what it appends to."""

    def __init__(self, model: str, version: str, training: str, log: str) -> None:
        self.model = model
        self.version = version
        self._log = log
        pairs = json.loads(Path(training).read_text("utf-8"))
        # The settings of the demo's filter (benchmarks/demo_log.py).
        self._pipeline = make_pipeline(
            TfidfVectorizer(lowercase=True, analyzer="word", ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            LogisticRegression(C=100, solver="lbfgs", tol=1e-6, max_iter=5000),
        )
        self._pipeline.fit([text for text, _ in pairs], [label for _, label in pairs])
        self.classes: list[str] = [str(name) for name in self._pipeline.classes_]

    def answer(self, texts: Sequence[str], source: str, timestamp: str | None) -> tuple[list[str], Any]:
        """Classes (n,) and probabilities (n, classes) of texts (n,), logged with who asked and when."""
        probabilities = self._pipeline.predict_proba(list(texts))
        labels = [self.classes[row.argmax()] for row in probabilities]
        at = timestamp or datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines = [
            json.dumps(
                {
                    "timestamp": at,
                    "prediction_id": str(uuid.uuid4()),
                    "model": self.model,
                    "model_version": self.version,
                    "text": text,
                    "prediction": label,
                    "confidence": round(float(row.max()), 4),
                    "probabilities": {
                        name: round(float(value), 4) for name, value in zip(self.classes, row, strict=True)
                    },
                    "source": source,
                }
            )
            for text, label, row in zip(texts, labels, probabilities, strict=True)
        ]
        # In one write to the end of the file, so that versions share a log and no line is torn.
        file = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, "".join(line + "\n" for line in lines).encode())
        finally:
            os.close(file)
        return labels, probabilities
