"""Logs to test with: drawn from a seeded generator, as a server would write them."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.assemble import watch
from poisonwatch.config import DetectionConfig, LimitsConfig
from poisonwatch.formats.jsonl import JsonlPredictions
from poisonwatch.profile.baseline import Baseline
from poisonwatch.profile.indicators import ask, code_count
from poisonwatch.profile.odds import logit
from poisonwatch.reference.build import build
from poisonwatch.types import Batch, Column, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.agent.watched import Watched
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.reference.file import Reference
    from poisonwatch.types import Floats, Ints

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


SAID = {
    "ham": ["meeting", "tomorrow", "lunch", "thanks", "report", "agenda", "notes", "team", "project", "review"],
    "spam": ["winner", "prize", "claim", "cash", "free", "urgent", "offer", "click", "bonus", "credit"],
}
"""Words of the two classes of `rich_predictions`."""


def rich_predictions(
    count: int, seed: int = 0, *, start: float = START, rate: float = 1.0, version: str = "v1"
) -> list[Record]:
    """Predictions of a model that answers to its inputs: numbers, a category, a segment, a text and an embedding.

    One answer in 50 is not what the inputs ask for. Every second prediction has its label, wrong in 3 % of `eu` and 12 % of
    `us`.
    """
    rng = np.random.default_rng(seed)
    times = start + np.cumsum(rng.exponential(1.0 / rate, count))
    made = []
    for number in range(count):
        asks = "spam" if rng.random() < 0.3 else "ham"
        says = asks if rng.random() > 0.02 else "ham" if asks == "spam" else "spam"
        segment = "eu" if rng.random() < 0.6 else "us"
        words = [*rng.choice(SAID[asks], 6), *rng.choice(SAID["ham"], 2), f"n{rng.zipf(1.5) % 5000}"]
        centre = 1.0 if asks == "spam" else -1.0
        record: Record = {
            "timestamp": round(float(times[number]), 3),
            "prediction_id": f"r{seed}-{number}",
            "model": "rich",
            "model_version": version,
            "features": {
                "amount": round(float(rng.normal(centre, 1.0)), 4),
                "age": int(rng.integers(18, 90)),
                "country": str(rng.choice(["de", "fr", "it"], p=[0.6, 0.3, 0.1])),
            },
            "segment": segment,
            "text": " ".join(words),
            "embedding": [round(float(value), 4) for value in rng.normal(centre, 1.0, 4)],
            "prediction": says,
            "confidence": round(float(1.0 / (1.0 + np.exp(-rng.normal(2.5, 0.8)))), 4),
        }
        if number % 2:
            wrong = rng.random() < (0.03 if segment == "eu" else 0.12)
            record["label"] = {"ham": "spam", "spam": "ham"}[says] if wrong else says
        made.append(record)
    return made


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


@cache
def usual_reference() -> Reference:
    """The reference of 3,000 predictions that tests share: learning one takes seconds."""
    with TemporaryDirectory() as folder:
        return reference(Path(folder))


@cache
def rich_reference() -> Reference:
    """The reference of 1,500 `rich_predictions`, with everything fitted that can be."""
    with TemporaryDirectory() as folder:
        return build([write(Path(folder) / "rich.ndjson", rich_predictions(1500, 99, start=START - 86400.0))])


def watched(learned: Reference, **detection: Any) -> Watched:
    """The machine of the model of a reference, with these settings of detection."""
    return watch(
        learned.schema.model or "default",
        learned,
        DetectionConfig(**detection),
        LimitsConfig(),
        1,
        None,
        confirms=False,
    )


def batch(learned: Reference, records: Iterable[Record]) -> Batch:
    """Records decoded into one batch."""
    name = learned.schema.model or "default"
    (decoded,) = JsonlPredictions({name: learned.schema}, 1 << 20).decode(lines(records)).batches
    return decoded


SMALL = Schema(
    model="mail",
    outcome=Column(name="prediction", kind="categorical", values=("ham", "spam")),
    features=(
        Column(name="features.amount", kind="numerical"),
        Column(name="features.country", kind="categorical", values=("de", "fr"), folded=("it", "nl")),
        Column(name="text", kind="text", values=("present",)),
    ),
    layout="object",
    confidence=True,
)
"""One column of every kind."""


def small_questions() -> Questions:
    """The questions about `SMALL`, with cuts on a grid that values can hit exactly."""
    return ask(SMALL, {"confidence": (0.25, 0.5, 0.75), "features.amount": (-1.0, 0.0, 0.5, 1.0)})


def small_batch(
    time: Iterable[float],
    rng: np.random.Generator,
    versions: tuple[str, ...] = ("v1",),
    rejected_at: Iterable[int] = (),
) -> Batch:
    """Predictions of `SMALL` at these times: values on the grid of the cuts, a tenth of them missing, all codes."""
    times = np.array(list(time), np.float64)
    n = times.size
    numbers = np.stack([rng.integers(0, 5, n) / 4, rng.integers(-4, 6, n) / 2])
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    columns = (SMALL.outcome, *SMALL.features[1:])
    codes = np.stack([rng.integers(0, code_count(column), n) for column in columns]).astype(np.int32)
    version = rng.integers(0, len(versions), n).astype(np.int32)
    return Batch(
        model="mail",
        time=times,
        version=version,
        versions=versions,
        numbers=numbers,
        codes=codes,
        ids=np.array([f"p{number}" for number in rng.integers(0, 1 << 40, n)], np.object_),
        labels=np.full(n, "", np.object_),
        sources=np.full(n, "", np.object_),
        texts=np.full((1, n), "one two three four", np.object_),
        embeddings=np.empty((0, n), np.float32),
        marks=np.empty((0, n), np.bool_),
        rejected_at=np.array(sorted(rejected_at), np.int64),
    )


def chopped(whole: Batch, cuts: Iterable[int]) -> list[Batch]:
    """A batch in pieces, cut at places in the order of its lines, rejected ones included.

    Every piece knows only the versions that it holds, in the order in which it meets them, as a format would say it.
    """
    place = np.arange(whole.time.size) + np.searchsorted(whole.rejected_at, np.arange(whole.time.size), side="right")
    place_of_rejected = whole.rejected_at + np.arange(whole.rejected_at.size)
    total = whole.time.size + whole.rejected_at.size
    edges = sorted({0, total, *(min(max(cut, 0), total) for cut in cuts)})
    pieces = []
    for start, stop in pairwise(edges):
        first, last = (int(np.searchsorted(place, edge)) for edge in (start, stop))
        rejected = whole.rejected_at[(place_of_rejected >= start) & (place_of_rejected < stop)] - first
        pieces.append(_part(whole, np.arange(first, last), rejected))
    return pieces


def _part(whole: Batch, of: Ints, rejected_at: Ints) -> Batch:
    met = list(dict.fromkeys(whole.version[of].tolist()))
    columns = ("numbers", "codes", "ids", "labels", "texts", "embeddings", "marks")
    return dataclasses.replace(
        whole,
        time=whole.time[of],
        version=np.array([met.index(code) for code in whole.version[of].tolist()], np.int32),
        versions=tuple(whole.versions[code] for code in met),
        rejected_at=rejected_at,
        **{name: getattr(whole, name)[..., of] for name in columns},
    )


def shuffled(times: Floats, rng: np.random.Generator, spread: float) -> Floats:
    """Times in the order in which they are logged when each is delayed by up to `spread` seconds."""
    return times[np.argsort(times + rng.uniform(0, spread, times.size), kind="stable")]


def sharp(questions: Questions, rate: Floats, design_effect: float = 1.0, day_noise: float = 0.0) -> Baseline:
    """A baseline that knows its rates (j,) exactly, as if from an endless reference."""
    return Baseline(
        questions=questions,
        counts=np.zeros(questions.size, np.int64),
        rate=rate,
        low=logit(rate),
        high=logit(rate),
        design_effect=np.full(rate.size, design_effect),
        day_noise=np.full(rate.size, day_noise),
    )
