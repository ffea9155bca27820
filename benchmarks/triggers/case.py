"""One run: a service, the versions of its model, its traffic with or without somebody who uses a trigger; and its logs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from benchmarks.scenarios.data import jittered, task
from benchmarks.scenarios.logs import as_logged, rfc3339
from benchmarks.scenarios.scene import START

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from benchmarks.scenarios.data import Floats, Frame, Ints, Task
    from benchmarks.scenarios.models import Model

CHUNK = 5_000

PARTS = {
    "sms_spam": (1_000, 100, 3_000),
    "hate_offensive": (5_000, 1_000, 8_000),
    "adult": (8_000, 2_000, 8_000),
    "nsl_kdd": (5_000, 1_000, 8_000),
    "mnist_pixels": (1_700, 300, 1_500),
}
"""Records for training, for later training, and at most for the reference; the rest is live."""


class Setting(NamedTuple):
    """Records of the reference, where the data have so many, and predictions a minute."""

    reference: int
    rate: float

    def __str__(self) -> str:
        return f"{self.reference}@{self.rate:g}"


WIDE, NARROW = Setting(8_000, 60.0), Setting(3_000, 3.0)
"""What is measured: a large reference and lively traffic, and what many services have."""


class Trap(NamedTuple):
    """A trigger: `stamp` gives it to every record of a frame, and `target` is the class that it leads to.

    `source` is the class that it is for, None for all others. `truth` is how it should be named: `words`, `values` (feature and value)
    or `patch` (row, column, height, width); empty where it has no name.
    """

    target: int
    source: int | None
    stamp: Callable[[Frame, np.random.Generator], Frame]
    truth: dict[str, Any]

    def victims(self, label: Ints) -> NDArray[np.bool_]:
        """Of which records (n,) the attacker wants another answer."""
        found: NDArray[np.bool_] = label != self.target if self.source is None else label == self.source
        return found


@dataclass
class Case:
    """What one run plays. `version` (n,) places in `models`; `sent` (n,) the trap that a record was sent with, or -1.

    `segment` and `source` (n,) are strings, where there are any; `seconds` (n,) from the start.
    """

    task: Task
    models: list[Model]
    reference: Frame
    frame: Frame
    seconds: Floats
    version: Ints
    sent: Ints
    traps: list[Trap] = field(default_factory=list)
    segment: NDArray[np.object_] | None = None
    reference_segment: NDArray[np.object_] | None = None
    source: NDArray[np.object_] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Written(NamedTuple):
    """The logs of a case, the time of each prediction (n,) and the class that was answered (n,)."""

    reference: Path
    predictions: Path
    time: Floats
    answered: Ints


def split(data: str, setting: Setting, seed: int) -> Task:
    """A data set for a service whose reference has so many records."""
    train, extra, most = PARTS[data]
    found = task(data, seed, (train, extra, min(most, setting.reference)))
    if data == "mnist_pixels":
        rng = np.random.default_rng([seed, 11])
        rows = np.concatenate([np.arange(len(found.reference)), rng.integers(0, len(found.reference), 1_500)])
        # Few images: the same digit again, moved by a pixel.
        return replace(found, reference=fresh(found, found.reference.take(rows), rng))
    return found


def fresh(task: Task, frame: Frame, rng: np.random.Generator) -> Frame:
    """Records as they would come the next time: texts as they are, numbers moved by a unit, images by a pixel."""
    if task.text:
        return frame
    return shifted(frame, rng) if task.layout == "embedding" else jittered(frame, task, rng)


def shifted(frame: Frame, rng: np.random.Generator) -> Frame:
    """Images of 28 x 28 moved by at most one pixel in each direction."""
    images = np.pad(frame.numbers.reshape(-1, 28, 28), ((0, 0), (1, 1), (1, 1)))
    down, right = rng.integers(0, 3, (2, len(frame)))
    rows, columns = down[:, None] + np.arange(28), right[:, None] + np.arange(28)
    moved = images[np.arange(len(frame))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return replace(frame, numbers=moved.reshape(-1, 784).round(3))


def all_in_turn(pool: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Rows (count,): each of the pool once, then each once more, always in another order."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // max(1, pool.size)))]
    return np.concatenate(rounds)[:count] if rounds else pool[:0]


def arrivals(count: int, rate: float, rng: np.random.Generator) -> Floats:
    """Seconds (count,) of Poisson arrivals at so many a minute."""
    return np.cumsum(rng.exponential(60.0 / rate, count))


def write(case: Case, folder: Path) -> Written:
    """Write the reference and the predictions in the native format."""
    reference, predictions = (folder / f"{name}.ndjson" for name in ("reference", "predictions"))
    with reference.open("wb") as file:
        told = case.models[0].probabilities(case.reference)
        segments = None if case.reference_segment is None else case.reference_segment.tolist()
        records = as_logged(case.task, case.reference, told, ["v1"] * len(case.reference), segments)
        file.writelines(msgspec.json.encode(record) + b"\n" for record in records)
    time = START + case.seconds
    answered = np.zeros(time.size, np.int64)
    with predictions.open("wb") as file:
        for first in range(0, time.size, CHUNK):
            rows = np.arange(first, min(first + CHUNK, time.size))
            frame = case.frame.take(rows)
            told = np.zeros((rows.size, len(frame.classes)))
            for code in np.unique(case.version[rows]).tolist():
                of = np.flatnonzero(case.version[rows] == code)
                told[of] = case.models[code].probabilities(frame.take(of))
            answered[rows] = told.argmax(axis=1)
            versions = [f"v{code + 1}" for code in case.version[rows].tolist()]
            segments = None if case.segment is None else case.segment[rows].tolist()
            named = [{}] * rows.size if case.source is None else [{"source": s} for s in case.source[rows].tolist()]
            stamps = rfc3339(time[rows])
            records = as_logged(case.task, frame, told, versions, segments)
            for row, stamp, said, record in zip(rows.tolist(), stamps, named, records, strict=True):
                entry = {"timestamp": stamp, "prediction_id": name_of(row)} | record | said
                file.write(msgspec.json.encode(entry) + b"\n")
    return Written(reference, predictions, time, answered)


def name_of(row: int) -> str:
    """The id of a prediction."""
    return f"p{row:07d}"
