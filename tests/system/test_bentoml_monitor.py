"""BentoML with its monitor, whose files the agent follows: what the agent counts is what the client saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.agent import Agent, Tally, spam_reference
from tests.system.servers import asked, messages, start_bentoml

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.slow]


def test_thousands_of_predictions_are_counted_as_the_client_saw_them(tmp_path: Path) -> None:
    """Two workers with a file each, which appear when the agent already runs and rotate; calls of one text and of several."""
    told = {
        "kind": "bentoml",
        "model": "sms-spam",
        "model_version": "v1",
        "timezone": "Asia/Kolkata",
        "text": "text",
        "classes": ["ham", "spam"],
        "prediction": "prediction",
        "confidence": "confidence",
        "probabilities": "scores",
    }
    source = {"path": "monitoring/spam/data/data.*.log", "format": told}
    agent = Agent(tmp_path, {"sms-spam": spam_reference(tmp_path)}, [source]).start()
    try:
        server = start_bentoml(tmp_path)
        try:
            texts = [message.text for message in [*messages().verified, *messages().training]]
            calls = [[text] for text in texts[:1000]]
            calls += [texts[first : first + 5] for first in range(1000, len(texts), 5)]
            tally = Tally()
            for (status, answer), call in zip(
                asked(f"{server.url}/predict", [{"texts": call} for call in calls]), calls, strict=True
            ):
                assert status == 200, answer
                assert len(answer) == len(call)
                for one in answer:
                    tally.add(one["label"], one["confidence"])
            files = sorted((tmp_path / "monitoring" / "spam" / "data").iterdir())
            assert {"data.1.log", "data.2.log"} < {file.name for file in files}
            assert sum(len(file.read_bytes().splitlines()) for file in files) == tally.count == len(texts)
            agent.agrees("sms-spam", "v1", tally)
        finally:
            server.stop()
    finally:
        agent.close()
