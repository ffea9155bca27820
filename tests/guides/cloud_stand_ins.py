"""What stands in for the clouds of the quickstarts: folders for their stores, and programs that copy from them.

The commands of the pages are run as they stand, with an `aws` and a `databricks` in front on PATH that know just the commands which
the pages use, and refuse all others.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from tests.guides.adult_captures import CAPTURES, asked, collected, data_capture, first_table_row, gateway_table_row

if TYPE_CHECKING:
    from pathlib import Path

TRUSTED = (datetime(2026, 3, 2, tzinfo=UTC).timestamp(), datetime(2026, 3, 2, 14, tzinfo=UTC).timestamp())
"""When the trusted traffic was, in Unix seconds: before the real captures of the same day."""

LEARNED, LIVE = 2000, 1000
"""Predictions that are made for the reference, and for the agent."""

MINUTES = 40
"""For so long until now the live traffic came."""


def aws(text: str, folder: Path) -> str:
    """The same commands, with S3 and CloudWatch of an endpoint `income-endpoint` that captures its data."""
    cloud = folder.parent / "cloud"
    store = cloud / "s3" / "example-bucket" / "datacapture"
    if not store.exists():
        variant = store / "income-endpoint" / "AllTraffic"
        shutil.copytree(CAPTURES / "sagemaker", store)
        rng = random.Random(1)
        _capture(variant, 2, LEARNED, 3600.0, TRUSTED, rng)
        now = time.time()
        # Two instances, each of which writes a file every five minutes: their times overlap.
        for instance in range(2):
            _capture(variant, 10 + instance, LIVE // 2, 300.0, (now - MINUTES * 60, now - 1), rng)
        # The second one is behind: its last files come when the reader has fetched once.
        for file in store.rglob("*-instance-11.jsonl"):
            if file.stat().st_mtime > now - 300:
                late = cloud / "late" / file.relative_to(store)
                late.parent.mkdir(parents=True, exist_ok=True)
                file.rename(late)
    elif (folder / "capture").is_dir() and any((folder / "capture").rglob("*.jsonl")):
        shutil.copytree(cloud / "late", store, dirs_exist_ok=True)
    return _with("aws", text, cloud)


def _capture(variant: Path, seed: int, count: int, every: float, span: tuple[float, float], rng: random.Random) -> None:
    """Write captures of one instance into a file for each `every` seconds, in the folder of its hour, dated when it ended."""
    files: dict[float, list[str]] = {}
    for one in asked(count, seed, *span):
        files.setdefault(one.at // every * every, []).append(data_capture(one, rng))
    for start, lines in files.items():
        begins = datetime.fromtimestamp(start, UTC)
        file = variant / f"{begins:%Y/%m/%d/%H}" / f"{begins:%M-%S}-000-instance-{seed}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), "utf-8")
        ends = min(start + every, span[1])
        os.utime(file, (ends, ends))


def az(text: str, folder: Path) -> str:
    """The same commands, with the blobs of an endpoint `income` that collects its inputs and outputs."""
    cloud = folder.parent / "cloud"
    deployment = cloud / "blobs" / "azureml" / "modelDataCollector" / "income" / "blue"
    if not deployment.exists():
        shutil.copytree(CAPTURES / "azure_blob", deployment)
        rng = random.Random(1)
        now = time.time()
        for seed, count, span in ((2, LEARNED, TRUSTED), (3, LIVE, (now - MINUTES * 60, now - 1))):
            for one in asked(count, seed, *span):
                hour = f"{datetime.fromtimestamp(one.at, UTC):%Y/%m/%d/%H}"
                for name, line in zip(("model_inputs", "model_outputs"), collected(one, rng), strict=True):
                    blob = deployment / name / hour / f"instance-{seed}.jsonl"
                    blob.parent.mkdir(parents=True, exist_ok=True)
                    with blob.open("a", encoding="utf-8") as file:
                        file.write(line)
    return _with("az", text, cloud)


def databricks(text: str, folder: Path) -> str:
    """The same commands, with a volume that has the exports of an inference table."""
    cloud = folder.parent / "cloud"
    volume = cloud / "volumes" / "ml" / "monitoring" / "exports"
    if not volume.exists():
        volume.mkdir(parents=True)
        rng = random.Random(1)
        real = [json.loads(line) for line in (CAPTURES / "mlflow.jsonl").read_text("utf-8").splitlines()]
        rows = [*real, *(first_table_row(one, rng) for one in asked(LEARNED, 2, *TRUSTED))]
        # In the table they are a map, which Parquet has as pairs.
        pairs = pa.array([list(row["request_metadata"].items()) for row in rows], pa.map_(pa.string(), pa.string()))
        table = pa.Table.from_pylist([{**row, "request_metadata": None} for row in rows])
        place = table.schema.get_field_index("request_metadata")
        trusted = volume / "income_trusted"
        trusted.mkdir()
        pq.write_table(table.set_column(place, "request_metadata", pairs), trusted / "part-00000-c000.snappy.parquet")
        live = volume / "income_live"
        live.mkdir()
        now = time.time()
        made = [gateway_table_row(one, rng) for one in asked(LIVE, 3, now - MINUTES * 60, now - 1)]
        for part in range(4):
            lines = [json.dumps(row) + "\n" for row in made[part * LIVE // 4 : (part + 1) * LIVE // 4]]
            (live / f"part-{part:05}-c000.json").write_text("".join(lines), "utf-8")
    return _with("databricks", text, cloud)


def _with(program: str, text: str, cloud: Path) -> str:
    """Commands that have our program of that name in front on PATH."""
    programs = cloud / "programs"
    programs.mkdir(exist_ok=True)
    script = programs / program
    start = f"from tests.guides.cloud_programs import {program}; {program}()"
    root = CAPTURES.parents[2]
    script.write_text(
        f'#!/bin/sh\nCLOUD={quote(str(cloud))} PYTHONPATH={quote(str(root))} exec {quote(sys.executable)} -c "{start}" "$@"\n',
        "utf-8",
    )
    script.chmod(0o755)
    return f'PATH={quote(str(programs))}:"$PATH"\n{text}'
