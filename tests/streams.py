"""Logs to test with: drawn from a seeded generator, as a server would write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.assemble import watch
from poisonwatch.config import DetectionConfig, LimitsConfig
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.reference import build

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from poisonwatch.agent import Watched
    from poisonwatch.reference import Reference
    from poisonwatch.types import Batch

START = 1_767_600_000.0
"""2026-01-05T08:00:00Z."""

Record = dict[str, Any]


def predictions(
    count: int,
    seed: int = 0,
    *,
    start: float = START,
    rate: float = 1.0,
    version: str = "v1",
    spam: float = 0.2,
    shift: float = 0.0,
    confidence: float = 0.0,
) -> list[Record]:
    """Independent predictions of a two-class model, `rate` a second.

    `spam` is the share of that class, `shift` moves the feature `amount` by so many standard deviations, `confidence` the
    log-odds of the confidences.
    """
    rng = np.random.default_rng(seed)
    times = start + np.cumsum(rng.exponential(1.0 / rate, count))
    amount, age = rng.normal(shift, 1.0, count), rng.integers(18, 90, count)
    country = rng.choice(["de", "fr", "it", "nl"], count, p=[0.5, 0.3, 0.15, 0.05])
    is_spam = rng.random(count) < spam
    sure = 1.0 / (1.0 + np.exp(-rng.normal(2.5 + confidence, 1.0, count)))
    return [
        {
            "timestamp": round(float(times[i]), 3),
            "prediction_id": f"p{seed}-{i}",
            "model": "mail",
            "model_version": version,
            "features": {"amount": round(float(amount[i]), 4), "age": int(age[i]), "country": str(country[i])},
            "prediction": "spam" if is_spam[i] else "ham",
            "confidence": round(float(sure[i]), 4),
        }
        for i in range(count)
    ]


def merged(*logs: Iterable[Record]) -> list[Record]:
    """Several logs as one, by time."""
    return sorted((record for log in logs for record in log), key=lambda record: float(record["timestamp"]))


def lines(records: Iterable[Record]) -> bytes:
    """Records as JSON lines."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def write(path: Path, records: Iterable[Record]) -> Path:
    """Write records as JSON lines to a file."""
    path.write_bytes(lines(records))
    return path


def reference(tmp_path: Path, count: int = 3000, seed: int = 99, **how: Any) -> Reference:
    """A reference learned from `count` predictions of the day before."""
    records = predictions(count, seed, start=START - 86400.0, **how)
    return build([write(tmp_path / f"reference-{seed}-{count}.ndjson", records)])


def watched(learned: Reference, **detection: Any) -> Watched:
    """The machine of the model of a reference, with these settings of detection."""
    return watch(learned.schema.model or "default", learned, DetectionConfig(**detection), LimitsConfig(), 1, None)


def batch(learned: Reference, records: Iterable[Record]) -> Batch:
    """Records decoded into one batch."""
    name = learned.schema.model or "default"
    (decoded,) = JsonlPredictions({name: learned.schema}, 1 << 20).decode(lines(records)).batches
    return decoded
