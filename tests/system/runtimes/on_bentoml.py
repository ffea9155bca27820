"""The spam filter as a service of BentoML with its monitor: one text a call, or several."""

from __future__ import annotations

import os
from typing import Any

import bentoml
from spam_filter import SpamFilter

FILES = {"log_path": "monitoring", "log_config_file": os.environ["SPAM_MONITOR"]}


@bentoml.service(workers=2, monitoring={"enabled": True, "type": "default", "options": FILES})
class Spam:
    """Two workers, and so two files."""

    def __init__(self) -> None:
        self._filter = SpamFilter("sms-spam", "v1", os.environ["SPAM_TRAINING"], os.environ["SPAM_LOG"])

    @bentoml.api  # type: ignore[untyped-decorator]  # only BentoML's own environment has it
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Class and probabilities of each text; the monitor gets a row of each."""
        labels, probabilities = self._filter.answer(texts, "bentoml", None)
        with bentoml.monitor("spam") as monitor:
            for text, label, row in zip(texts, labels, probabilities.tolist(), strict=True):
                monitor.log(text, "text", "feature", "categorical")
                monitor.log(label, "prediction", "prediction", "categorical")
                monitor.log(max(row), "confidence", "prediction", "numerical")
                monitor.log(row, "scores", "prediction", "numerical_sequence")
        return [
            {"label": label, "confidence": max(row)} for label, row in zip(labels, probabilities.tolist(), strict=True)
        ]
