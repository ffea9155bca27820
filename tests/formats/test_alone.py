"""Answers that are alone when a log for a reference ends are read, and not forgotten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from poisonwatch.assemble.logs import reader_of
from poisonwatch.config import LimitsConfig
from poisonwatch.config.formats import OpenInferenceLogConfig

if TYPE_CHECKING:
    from pathlib import Path


def test_answers_without_requests(tmp_path: Path) -> None:
    """Each is a record; each request without an answer is a loss."""
    output = {"name": "o", "shape": [1], "datatype": "BYTES", "data": ["ham"]}
    log = tmp_path / "log.jsonl"
    bodies = [{"id": "1", "model_name": "m", "outputs": [output]}, {"id": "2", "inputs": [output]}]
    log.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    told = list(reader_of(OpenInferenceLogConfig(), LimitsConfig())([log], 1 << 20, None))
    lines = b"".join(records for records, _ in told).splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["ham"]
    assert [rejected for _, rejected in told if rejected] == [{"unpaired_request": 1}]
