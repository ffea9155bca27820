"""Writes a scene as logs in the native format: a reference without times, predictions, feedback that comes days later."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from benchmarks.scenarios.data import MISSING, jittered
from benchmarks.scenarios.scene import COLLUDING_SHARE, LABELLED, START, Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from benchmarks.scenarios.data import Floats, Frame, Ints, Task
    from benchmarks.scenarios.scene import Campaign

CHUNK = 20_000
MEDIAN_LAG = 2.0
LAG_SPREAD = 0.4
"""Log-normal lag of labels in nominal days: nine in ten come after 1 to 4 days."""

SECOND_OPINIONS = 0.1
"""Share of the labelled records that are labelled once more, by whoever it may be."""

CAMPAIGN_LAG = (0.02, 0.5)
"""Colluders are quick: nominal days between a prediction and their word on it."""


class Logs(NamedTuple):
    """The files, and when each label came (seconds, ascending)."""

    reference: Path
    predictions: Path
    feedback: Path
    labels: Floats
    records: int


class _Label(NamedTuple):
    """One label on its way: when it comes (nominal day), about which record, what it says, who says so."""

    at: float
    record: int
    code: int
    source: int


def write(scene: Scene, folder: Path) -> Logs:
    """Write the three logs."""
    task, classes = scene.task, scene.task.live.classes
    reference, predictions, feedback = (folder / f"{name}.ndjson" for name in ("reference", "predictions", "feedback"))
    rng = np.random.default_rng([scene.seed, 3])
    with reference.open("wb") as file:
        frame = jittered(scene.reference, task, rng)
        told = scene.models[0].probabilities(frame)
        segments = [scene.segments[code] for code in scene.reference_segment] if scene.segments else None
        records = as_logged(task, frame, told, ["v1"] * len(frame), segments)
        for record, label in zip(records, frame.label.tolist(), strict=True):
            file.write(msgspec.json.encode(record | {"label": classes[label]}) + b"\n")
    seconds = START + scene.time * scene.pace.day
    truth = np.zeros(scene.time.size, np.int64)
    answered = np.zeros(scene.time.size, np.int64)
    with predictions.open("wb") as file:
        for first in range(0, scene.time.size, CHUNK):
            rows = np.arange(first, min(first + CHUNK, scene.time.size))
            frame = scene.frame(rows, rng)
            told = _answers(scene, frame, rows)
            truth[rows], answered[rows] = frame.label, told.argmax(axis=1)
            versions = [scene.versions[code] for code in scene.version[rows]]
            segments = [scene.segments[code] for code in scene.segment[rows]] if scene.segments else None
            stamps = rfc3339(seconds[rows])
            for row, stamp, record in zip(
                rows.tolist(), stamps, as_logged(task, frame, told, versions, segments), strict=True
            ):
                file.write(msgspec.json.encode({"timestamp": stamp, "prediction_id": _id(row)} | record) + b"\n")
    labels = _labels(scene, truth, rng)
    with feedback.open("wb") as file:
        stamps = rfc3339(START + np.array([label.at for label in labels]) * scene.pace.day)
        for stamp, label in zip(stamps, labels, strict=True):
            said: dict[str, Any] = {
                "timestamp": stamp,
                "prediction_id": _id(label.record),
                "label": classes[label.code],
                "source": f"reviewer-{label.source:03d}",
            }
            if scene.campaign is not None and scene.campaign.shared_address:
                colluding = label.source < scene.campaign.sources
                said["attributes"] = {"address": f"10.{7 if colluding else label.source % 200 + 20}.0.0/16"}
            file.write(msgspec.json.encode(said) + b"\n")
    _note_live_errors(scene, truth, answered)
    times = START + np.array([label.at for label in labels]) * scene.pace.day
    return Logs(reference, predictions, feedback, times, int(scene.time.size))


def _id(row: int) -> str:
    return f"p{row:07d}"


def rfc3339(seconds: NDArray[Any]) -> list[str]:
    """Timestamps, to the millisecond."""
    stamps = np.datetime_as_string((seconds * 1000).astype(np.int64).astype("datetime64[ms]"), timezone="UTC")
    found: list[str] = stamps.tolist()
    return found


def _answers(scene: Scene, frame: Frame, rows: Ints) -> Floats:
    told = np.zeros((rows.size, len(frame.classes)))
    for code in np.unique(scene.version[rows]).tolist():
        of = np.flatnonzero(scene.version[rows] == code)
        told[of] = scene.models[code].probabilities(frame.take(of))
    return told


def as_logged(
    task: Task, frame: Frame, told: Floats, versions: list[str], segments: list[str] | None
) -> Iterator[dict[str, Any]]:
    """What a service logs of its predictions, but for the time and the id."""
    best = told.argmax(axis=1)
    confidence = told.max(axis=1).round(4).tolist()
    inputs: list[dict[str, Any]]
    if frame.texts is not None:
        inputs = [{"text": text} for text in frame.texts]
    else:
        columns = [_numbers(frame.numbers[:, place], task.unit[place]) for place in range(frame.numbers.shape[1])]
        for place, values in enumerate(frame.values):
            columns.append([values[code] if code != MISSING else None for code in frame.codes[:, place].tolist()])
        if task.layout in {"list", "embedding"}:
            field = "features" if task.layout == "list" else "embedding"
            inputs = [{field: list(row)} for row in zip(*columns, strict=True)]
        else:
            names = (*frame.number_names, *frame.code_names)
            inputs = [{"features": dict(zip(names, row, strict=True))} for row in zip(*columns, strict=True)]
    for place, given in enumerate(inputs):
        record = {"model": task.name, "model_version": versions[place], **given}
        if segments is not None:
            record["segment"] = segments[place]
        record |= {"prediction": frame.classes[best[place]], "confidence": confidence[place]}
        yield record


def _numbers(column: Floats, unit: float) -> list[float | int | None]:
    """Whole numbers stay whole, NaN becomes null."""
    whole = unit >= 1
    return [None if value != value else (int(value) if whole else round(value, 6)) for value in column.tolist()]  # noqa: PLR0124 - NaN alone differs from itself


def _labels(scene: Scene, truth: Ints, rng: np.random.Generator) -> list[_Label]:
    """A tenth of the predictions come back, by sources that err a little, as they come in time."""
    classes = len(scene.task.live.classes)
    honest_from = scene.campaign.sources if scene.campaign is not None else 0
    chosen = np.flatnonzero(rng.random(truth.size) < LABELLED)
    chosen = np.concatenate([chosen, chosen[rng.random(chosen.size) < SECOND_OPINIONS]])
    busy = rng.pareto(2.5, scene.sources) + 0.3
    careless = rng.uniform(0.01, 0.05, scene.sources)
    if scene.campaign is not None and not scene.campaign.sleepers:
        busy[:honest_from] = 0.0
    source = rng.choice(scene.sources, chosen.size, p=busy / busy.sum())
    code = truth[chosen].copy()
    slips = rng.random(chosen.size) < careless[source]
    code[slips] = (code[slips] + rng.integers(1, classes, int(slips.sum()))) % classes
    at = scene.time[chosen] + MEDIAN_LAG * np.exp(LAG_SPREAD * rng.normal(size=chosen.size))
    if scene.withheld is not None:
        first, last = scene.withheld
        # Held back, then delivered in one go of about an hour.
        at = np.where((at >= first) & (at < last), last + (at - first) / (last - first) / 24, at)
    labels = [_Label(*one) for one in zip(at.tolist(), chosen.tolist(), code.tolist(), source.tolist(), strict=True)]
    if scene.campaign is not None:
        labels += _campaign(scene, scene.campaign, truth, rng)
    return sorted(label for label in labels if label.at < scene.days)


def _campaign(scene: Scene, campaign: Campaign, truth: Ints, rng: np.random.Generator) -> list[_Label]:
    """What the colluders say: they pick records of one class, two or three of them the same, and call most of them wrong."""
    span = scene.days - campaign.since - CAMPAIGN_LAG[1]
    count = int(campaign.sources * campaign.daily * span / 2.5)
    victims = np.flatnonzero((truth == campaign.victim) & scene.between(campaign.since, scene.days - CAMPAIGN_LAG[1]))
    items = np.sort(rng.choice(victims, min(count, victims.size), replace=False))
    labels = []
    for record in items.tolist():
        crew = rng.choice(campaign.sources, int(rng.integers(2, 4)), replace=False)
        code = campaign.claim if rng.random() < COLLUDING_SHARE else campaign.victim
        start = scene.time[record] + rng.uniform(*CAMPAIGN_LAG)
        labels += [_Label(start + float(rng.exponential(0.01)), record, code, source) for source in crew.tolist()]
    return labels


def _note_live_errors(scene: Scene, truth: Ints, answered: Ints) -> None:
    """Note the true error of each version on the traffic that it had, and the rates of the classes."""
    for code, version in enumerate(scene.versions):
        of = scene.version == code
        if of.any():
            scene.facts[f"{version} live error"] = round(float((answered[of] != truth[of]).mean()), 4)
    if scene.marked.any() and scene.guilty:
        newest = scene.version == len(scene.versions) - 1
        of = scene.marked & newest
        scene.facts["attack success"] = round(float((answered[of] != truth[of]).mean()), 3)
        scene.facts["attack share"] = round(float(of.sum() / newest.sum()), 4)
