"""Traffic of a made-up model, line by line, and a feeder that writes it as a server would."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISTINCT = 20_000
"""Records that differ; after these they come again, with other ids."""
REFERENCE = 5_000
MODEL = "loans"


@dataclass(frozen=True)
class Kind:
    """What a model is asked and answers: `features` (a third of them categories), `classes`, a text, an `embedding` of so many numbers."""

    features: int = 20
    classes: int = 3
    text: bool = False
    embedding: int = 0
    versions: int = 1


def bodies(kind: Kind, count: int, seed: int) -> list[bytes]:
    """Records (count,) as JSON without the brace, the timestamp and the id at their beginning."""
    rng = np.random.default_rng(seed)
    categories = kind.features // 3
    numbers = rng.normal(size=(count, kind.features - categories)).round(4)
    names = np.array([f"v{number:02d}" for number in range(20)])
    values = names[np.minimum(rng.geometric(0.3, (count, categories)) - 1, names.size - 1)]
    # Classes are as unequal as those of real traffic: the last are rare.
    shares = 1 / np.arange(1, kind.classes + 1)
    classes = rng.choice(kind.classes, count, p=shares / shares.sum())
    confidence = (1 / (1 + np.exp(-rng.normal(2.5, 1, count)))).round(4)
    embeddings = rng.normal(size=(count, kind.embedding)).round(3) if kind.embedding else None
    texts = _texts() if kind.text else []
    found = []
    for row in range(count):
        features: dict[str, object] = {f"num_{n}": float(value) for n, value in enumerate(numbers[row])}
        features |= {f"cat_{n}": str(value) for n, value in enumerate(values[row])}
        record: dict[str, object] = {
            "model": MODEL,
            "model_version": f"v{1 + row % kind.versions}",
            "prediction": f"class_{classes[row]}",
            "confidence": float(confidence[row]),
            "source": f"client-{row % 50}",
        }
        if features:
            record["features"] = features
        if texts:
            record["text"] = texts[row % len(texts)]
        if embeddings is not None:
            record["embedding"] = embeddings[row].tolist()
        found.append(json.dumps(record, separators=(",", ":")).encode()[1:] + b"\n")
    return found


def _texts() -> list[str]:
    """The messages of the demo."""
    with gzip.open(files("poisonwatch.demo") / "reference.ndjson.gz") as packed:  # type: ignore[call-overload]
        return [json.loads(line)["text"] for line in packed]


def lines(bodies: list[bytes], first: int, times: Iterator[float]) -> Iterator[bytes]:
    """Records at their `times` (Unix seconds), numbered from `first`, with the bodies in turn."""
    for number, at in enumerate(times, first):
        stamp = np.datetime64(int(at * 1000), "ms")
        yield (
            b'{"timestamp":"%sZ","prediction_id":"p%d",' % (str(stamp).encode(), number) + bodies[number % len(bodies)]
        )


def write_reference(path: Path, kind: Kind, until: float) -> None:
    """A trusted log: two hours and twenty minutes before `until`, a record about every two seconds."""
    made = bodies(kind, REFERENCE, seed=1)
    step = 8400 / REFERENCE
    path.write_bytes(b"".join(lines(made, 10**9, (until - 8400 + n * step for n in range(REFERENCE)))))
