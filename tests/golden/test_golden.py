"""What `poisonwatch replay` says of two checked-in logs, compared with checked-in journals and reports.

A change that is meant is accepted by one command, and its diff read before it is committed:

    POISONWATCH_REWRITE_GOLDEN=1 .venv/bin/pytest tests/golden

Inputs are kept as they are; delete `tests/golden/small` to have those drawn anew.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import poisonwatch.demo
from poisonwatch import __version__
from tests.streams import START, Record, lines, merged, predictions

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
DEMO = Path(poisonwatch.demo.__file__).parent
SMALL = HERE / "small"
REWRITE = bool(os.environ.get("POISONWATCH_REWRITE_GOLDEN"))
MEASURED = ("wall_s", "cpu_s", "peak_rss_mb")
"""What a report says of the machine and not of the log."""


class Case(NamedTuple):
    """One replay: its inputs."""

    reference: Path
    predictions: tuple[Path, ...]
    feedback: tuple[Path, ...] = ()


CASES = {
    "demo": Case(DEMO / "reference.ndjson.gz", (DEMO / "predictions.ndjson.gz",)),
    "small": Case(
        SMALL / "reference.ndjson.gz",
        (SMALL / "v1.ndjson.gz", SMALL / "v2.ndjson.gz"),
        (SMALL / "feedback.ndjson.gz",),
    ),
}


def replay(case: Case, folder: Path, **environment: str) -> tuple[bytes, dict[str, Any]]:
    """The journal and the report, without what it measured, of the real command."""
    journal, report = folder / "journal.jsonl", folder / "report.json"
    command: list[str | Path] = [sys.executable, "-m", "poisonwatch", "replay", "--reference", case.reference]
    command += [part for path in case.feedback for part in ("--feedback", path)]
    command += ["--journal", journal, "--report", report, *case.predictions]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    told = json.loads(report.read_text())
    return journal.read_bytes(), {name: said for name, said in told.items() if name not in MEASURED}


def of_this_version(journal: bytes) -> bytes:
    """A golden journal as this version of poisonwatch must write it: its version in `start`, chained again as documented."""
    chained, prev = b"", "0" * 64
    for line in journal.splitlines():
        entry = json.loads(line)
        del entry["hash"]
        entry["prev"] = prev
        if entry["kind"] == "start":
            entry["version"] = __version__
        prev = hashlib.sha256(canonical(entry)).hexdigest()
        chained += canonical({**entry, "hash": prev}) + b"\n"
    return chained


def canonical(entry: dict[str, Any]) -> bytes:
    """The bytes of an entry that are hashed."""
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("name", CASES)
def test_says_what_it_said_before(name: str, tmp_path: Path) -> None:
    """The journal is the same, byte for byte, hashes included; so is the report, but for timings."""
    golden_journal, golden_report = HERE / f"{name}.journal.jsonl", HERE / f"{name}.report.json"
    if REWRITE:
        draw_small()
    journal, report = replay(CASES[name], tmp_path)
    if REWRITE:
        golden_journal.write_bytes(journal)
        golden_report.write_text(json.dumps(report, indent=2) + "\n")
    assert journal.splitlines() == of_this_version(golden_journal.read_bytes()).splitlines()
    assert journal.endswith(b"\n")
    assert report == json.loads(golden_report.read_text())


@pytest.mark.parametrize("name", CASES)
def test_says_the_same_on_another_processor(name: str, tmp_path: Path) -> None:
    """Without any vector instructions that NumPy could choose here, whose last bits differ, not a byte is different."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    assert found or os.uname().machine != "x86_64"
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    assert replay(CASES[name], tmp_path / "with") == replay(
        CASES[name], tmp_path / "without", NPY_DISABLE_CPU_FEATURES=" ".join(found)
    )


def test_small_log_holds_what_it_is_for() -> None:
    """The golden report of the small log tells of bad lines, faults, late records, labels, and a rollback."""
    report = json.loads((HERE / "small.report.json").read_text())
    assert {"malformed", "missing_prediction", "unconfirmed_time_jump"} <= report["rejected_by_reason"].keys()
    assert report["late"] > 0
    assert report["faults"]
    assert report["feedback"] > 0
    assert {alert["cause"] for alert in report["alerts"]} >= {"degradation", "data_quality"}
    assert [(d["model_version"], d["decision"], d["target"]) for d in report["decisions"]] == [
        ("v1", "hold", None),
        ("v2", "rollback", "v1"),
    ]


def draw_small() -> None:
    """Draw the small log where there is none: two versions in files of their own, labels, and things that go wrong.

    v1 runs for an hour; v2 joins after 20 minutes and calls nearly everything ham. In the last quarter of an hour `country` is
    missing from v1's log.
    """
    if SMALL.exists():
        return
    SMALL.mkdir()
    pack("reference", lines(predictions(2500, 1, start=START - 86400.0)))
    stable = predictions(3600, 2)
    for record in stable[2700:]:
        record["features"] = {**record["features"], "country": None}
    canary = predictions(2400, 3, start=START + 1200.0, version="v2", spam=0.03)
    late = {**stable[200], "prediction_id": "late", "timestamp": stable[900]["timestamp"] - 500.0}
    forged = {**stable[1500], "prediction_id": "forged", "timestamp": START + 400 * 86400.0}
    silent = {key: said for key, said in stable[40].items() if key != "prediction"}
    unsure = {**stable[60], "prediction_id": "unsure", "confidence": 7}
    odd: list[tuple[int, Record | bytes]] = [
        (50, silent),
        (61, unsure),
        (300, b'{"timestamp": 17\n'),
        (301, b"\xff\xfe not text\n"),
        (302, b"[1, 2]\n"),
        (901, late),
        (1501, forged),
        (1700, {**stable[1700], "prediction_id": "when", "timestamp": "yesterday"}),
    ]
    written = [lines([record]) for record in stable]
    for place, what in reversed(odd):
        written.insert(place, what if isinstance(what, bytes) else lines([what]))
    pack("v1", b"".join(written))
    pack("v2", lines(canary))
    rng = np.random.default_rng(4)
    labels = [
        {
            # Predictions say seconds, labels RFC 3339: a log may say either.
            "timestamp": datetime.fromtimestamp(float(record["timestamp"]) + 300.0, UTC).isoformat(),
            "prediction_id": record["prediction_id"],
            "label": record["prediction"],
            "source": "support",
        }
        for record in merged(stable, canary)
        if rng.random() < 0.1
    ]
    pack("feedback", lines(labels[:100]) + b"no label\n" + lines(labels[100:]))


def pack(name: str, content: bytes) -> None:
    """Write an input, compressed, the same bytes each time."""
    (SMALL / f"{name}.ndjson.gz").write_bytes(gzip.compress(content, mtime=0))
