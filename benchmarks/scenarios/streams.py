"""Streams that nobody made up, through the real command without configuration: what fired, and when.

    python -m benchmarks.scenarios.streams [--only NAME ...] [--json FILE]

Two are prediction logs already (car_loan, california_housing: predictions as published). For the others a model is trained on
the first part of the stream, the next part is the reference, all that follows is live; every label comes back after a
delay. What has no clock of its own gets an even one, which each function states. Files in Parquet need pyarrow.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.scenarios import margin
from benchmarks.scenarios.data import Frame, NoDataError, folder, read_csv
from benchmarks.scenarios.logs import Logs, rfc3339
from benchmarks.scenarios.models import Recipe, train
from benchmarks.scenarios.run import replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.scenarios.data import Floats

DAY = 86_400.0
PARTS = 10
"""The true error is told for so many equal parts of the live stream."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Records in their order: `features` by name (n,), `time` (n,) seconds, answers and the truth.

    The first `reference` records are the reference, with their times when `timed`. Labels come `delay` seconds later.
    """

    features: dict[str, NDArray[Any]]
    time: Floats
    prediction: NDArray[np.object_]
    confidence: Floats
    label: NDArray[np.object_]
    reference: int
    delay: float
    timed: bool = True


def elec2() -> Stream:
    """Half hours of an electricity market; will the price rise? Trained on 125 days, reference 125 days.

    They began on a Tuesday in May 1996. A log is not believed to be older than 2000, so it begins six years later.
    """
    rows = read_csv("elec2/elec2.csv.gz")
    names = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
    numbers = np.array([[float(row[name]) for name in names] for row in rows])
    time = 1_020_729_600.0 + 1_800.0 * np.arange(len(rows), dtype=np.float64)
    return _answered(names, numbers, np.array([row["class"] for row in rows]), time, 6_000, 6_000, delay=DAY)


def gas_sensor() -> Stream:
    """Six gases by 128 drifting features over 30 months, batch after batch, spread evenly over the months of each.

    Batches 1 and 2 (ten months) are for training and, in turns, for the reference, which therefore has no times.
    """
    columns = _parquet("gas_sensor/gas_sensor.parquet")
    names = tuple(name for name in columns if name not in {"gas", "concentration_ppmv", "batch"})
    batch = columns["batch"].astype(np.int64)
    months = {1: (0, 2), 2: (2, 10), 3: (10, 13), 4: (13, 15), 5: (15, 16), 6: (16, 20), 8: (21, 23), 9: (23, 30)}
    rng = np.random.default_rng(0)
    # Within a batch the gases were recorded one after another, which is how it was measured and no order of traffic.
    early, late = rng.permutation(np.flatnonzero(batch <= 2)), []
    time = []
    for number in sorted(set(batch[batch > 2].tolist())):
        members = rng.permutation(np.flatnonzero(batch == number))
        first, last = months[number]
        late.append(members)
        time.append(np.linspace(first, last, members.size, endpoint=False) * 30 * DAY)
    order = np.concatenate([early, *late])
    numbers = np.stack([columns[name][order] for name in names], axis=1).astype(np.float64)
    half = early.size // 2
    clock = 1_199_145_600.0 + np.concatenate([np.linspace(0, 300 * DAY, early.size), *time])
    label = columns["gas"][order].astype(str)
    return _answered(names, numbers, label, clock, half, early.size - half, delay=DAY, timed=False)


def kdd99_http() -> Stream:
    """Connections to a web server with bursts of attacks, one a second.

    Nearly none is attacked before record 311,000: trained on the first 320,000, reference the next 10,000.
    """
    columns = _parquet("kdd99_http/kdd99_http.parquet")
    names = ("duration", "src_bytes", "dst_bytes")
    numbers = np.stack([columns[name] for name in names], axis=1).astype(np.float64).round(4)
    label = np.where(columns["attack"].astype(np.int64) > 0, "attack", "normal")
    time = 1_245_628_800.0 + np.arange(label.size, dtype=np.float64)
    return _answered(names, numbers, label, time, 320_000, 10_000, delay=600.0)


def car_loan() -> Stream:
    """A published log of loan decisions, nine minutes apart; the first 10,000 are the reference, labels after a week.

    Its publishers changed it somewhere in the second half; nothing is changed before record 50,000.
    """
    before = _parquet("car_loan/car_loan_reference.parquet")
    after = _parquet("car_loan/car_loan_analysis.parquet")
    after["repaid"] = _parquet("car_loan/car_loan_analysis_target.parquet")["repaid"]
    columns = {name: np.concatenate([before[name], after[name]]) for name in before}
    names = ["car_value", "salary_range", "debt_to_income_ratio", "loan_length"]
    names += ["repaid_loan_on_prev_car", "size_of_downpayment", "driver_tenure"]
    return _published({name: columns[name] for name in names}, columns, "repaid", 10_000, 7 * DAY)


def california_housing() -> Stream:
    """A published log, hourly: is the median house of a block expensive? The published reference, labels after a week.

    The rows are sorted by place, so that the live part is another region.
    """
    stem = "california_housing/california_housing"
    before, after = read_csv(f"{stem}_reference.csv.gz"), read_csv(f"{stem}_analysis.csv.gz")
    truth = {row["id"]: row["clf_target"] for row in read_csv(f"{stem}_analysis_gt.csv.gz")}
    rows = before + [row | {"clf_target": truth[row["id"]]} for row in after]
    columns = {name: np.array([row[name] for row in rows], object) for name in before[0]}
    names = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
    features = {name: columns[name].astype(np.float64).round(4) for name in names}
    return _published(features, columns, "clf_target", len(before), 7 * DAY)


STREAMS: dict[str, Callable[[], Stream]] = {
    "elec2": elec2,
    "gas_sensor": gas_sensor,
    "kdd99_http": kdd99_http,
    "car_loan": car_loan,
    "california_housing": california_housing,
}


def main() -> None:
    """Replay the streams and print what fired."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scenarios.streams")
    parser.add_argument("--only", nargs="*", choices=list(STREAMS), default=list(STREAMS), help="Which streams.")
    parser.add_argument("--json", type=Path, help="Where to write everything that was found.")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results = []
    for name in options.only:
        try:
            result = run(name)
        except NoDataError as error:
            print(f"## {name}\n\nnot run: {error}\n", flush=True)
            continue
        results.append(result)
        print(in_words(result), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0 if len(results) == len(options.only) else 1)


def run(name: str) -> dict[str, Any]:
    """Replay one stream.

    Raises:
        NoDataError: when its data, or what reads them, is not there.
    """
    stream = STREAMS[name]()
    live = slice(stream.reference, None)
    wrong = stream.prediction != stream.label
    parts = [round(float(part.mean()), 3) for part in np.array_split(wrong[live], PARTS)]
    result: dict[str, Any] = {
        "stream": name,
        "live": int(stream.time.size - stream.reference),
        "reference": stream.reference,
        "from": rfc3339(stream.time[live])[0],
        "to": rfc3339(stream.time[-1:])[0],
        "reference_error": round(float(wrong[: stream.reference].mean()), 3),
        "error_by_part": parts,
    }
    with tempfile.TemporaryDirectory(prefix="stream-") as place:
        path = Path(place)
        told = replay(write(stream, path), path, float(stream.time[-1] - stream.time[stream.reference]) / 1_000)
        if told is not None:
            return result | {"error": told}
        report = json.loads((path / "report.json").read_text())
        _, most = margin.read(path / "evidence.ndjson")
        entries = [json.loads(line) for line in (path / "journal.ndjson").read_text().splitlines()]
        fired = [e for e in entries if e["kind"] == "alert" and e["state"] == "firing"]
        return result | {"report": report, "most": most, "fired": fired}


def write(stream: Stream, path: Path) -> Logs:
    """Write a stream as logs in the native format."""
    reference, predictions, feedback = (path / f"{name}.ndjson" for name in ("reference", "predictions", "feedback"))
    stamps, due = rfc3339(stream.time), rfc3339(stream.time + stream.delay)
    rows = zip(*(column.tolist() for column in stream.features.values()), strict=True)
    with reference.open("wb") as first, predictions.open("wb") as live, feedback.open("wb") as labels:
        for place, row in enumerate(rows):
            record: dict[str, Any] = {"prediction_id": f"p{place:07d}", "model_version": "v1"}
            record |= {"features": dict(zip(stream.features, row, strict=True))}
            record |= {"prediction": stream.prediction[place], "confidence": round(float(stream.confidence[place]), 4)}
            if place >= stream.reference:
                live.write(msgspec.json.encode({"timestamp": stamps[place]} | record) + b"\n")
                label = {
                    "timestamp": due[place],
                    "prediction_id": record["prediction_id"],
                    "label": stream.label[place],
                }
                labels.write(msgspec.json.encode(label) + b"\n")
                continue
            if stream.timed:
                record["timestamp"] = stamps[place]
            first.write(msgspec.json.encode(record | {"label": stream.label[place]}) + b"\n")
    came = stream.time[stream.reference :] + stream.delay
    return Logs(reference, predictions, feedback, came, int(came.size))


def in_words(result: dict[str, Any]) -> str:
    """A stream's result, for a person who argues whether it was right."""
    lines = [f"## {result['stream']}", ""]
    lines += [f"{result['live']} records from {result['from']} to {result['to']}; reference {result['reference']}."]
    told = ", ".join(f"{error:.3f}" for error in result["error_by_part"])
    lines += [f"True error: reference {result['reference_error']:.3f}; live, by tenths: {told}.", ""]
    if "error" in result:
        return "\n".join([*lines, f"failed: {result['error'].strip().splitlines()[-1]}", ""])
    lines += [
        f"- {alert['time']} {alert['severity']} {alert['cause']} ({alert['group']}): {alert['summary']}"
        for alert in result["fired"][:40]
    ] or ["- nothing fired"]
    lines += [f"- and {len(result['fired']) - 40} more"] if len(result["fired"]) > 40 else []
    decisions = [f"{d['model_version']} {d['decision']} ({d['reason']})" for d in result["report"]["decisions"]]
    lines += ["", f"At the end: {', '.join(decisions)}. Replayed in {result['report']['wall_s']} s.", ""]
    return "\n".join(lines)


def _answered(
    names: tuple[str, ...],
    numbers: Floats,
    label: NDArray[Any],
    time: Floats,
    learned: int,
    reference: int,
    *,
    delay: float,
    timed: bool = True,
) -> Stream:
    """Train on the first records, and answer all others."""
    classes = tuple(sorted(set(label.tolist())))
    codes = np.searchsorted(np.array(classes), label)
    frame = Frame(names, numbers, (), np.empty((label.size, 0), np.int64), (), None, classes, codes)
    model = train(Recipe("boosting"), frame.take(np.arange(learned)))
    rest = np.arange(learned, label.size)
    told = model.probabilities(frame.take(rest))
    named = np.array(classes, object)
    return Stream(
        {name: numbers[rest, place] for place, name in enumerate(names)},
        time[rest],
        named[told.argmax(axis=1)],
        told.max(axis=1),
        named[codes[rest]],
        reference,
        delay,
        timed,
    )


def _published(
    features: dict[str, NDArray[Any]], columns: dict[str, NDArray[Any]], truth: str, reference: int, delay: float
) -> Stream:
    """A log that came with predictions of class 1 and their probabilities."""
    probability = columns["y_pred_proba"].astype(np.float64)
    time = columns["timestamp"].astype("datetime64[ms]").astype(np.int64) / 1000
    return Stream(
        features,
        time,
        columns["y_pred"].astype(np.int64).astype(str).astype(object),
        # The published class follows a threshold of its own; the confidence is that of the class that was told.
        np.where(columns["y_pred"].astype(np.int64) == 1, probability, 1 - probability),
        columns[truth].astype(np.float64).astype(np.int64).astype(str).astype(object),
        reference,
        delay,
    )


def _parquet(name: str) -> dict[str, NDArray[Any]]:
    """The columns of a Parquet file under the data folder.

    Raises:
        NoDataError: when it, or pyarrow, is not there.
    """
    path = folder() / name
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        msg = f"{name} is in Parquet: install pyarrow"
        raise NoDataError(msg) from error
    if not path.is_file():
        msg = f"{path}: this data set is not here"
        raise NoDataError(msg)
    table = parquet.read_table(path)
    return {column: np.array(table[column].to_numpy(zero_copy_only=False)) for column in table.column_names}


if __name__ == "__main__":
    main()
