"""A peer that works on data frames, as its user would write it: profile and drift of a log in windows of 10,000 records.

Run by a Python of its own, in which poisonwatch is not installed (`benchmarks.speed` makes the environments):

    python benchmarks/frames.py whylogs|evidently REFERENCE LOG

It prints one line of JSON: records, CPU seconds without the imports and the reference, peak memory, columns said to drift.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW = 10_000


def windows(log: Path) -> Iterator[Any]:
    """Frames of consecutive records: the features, the prediction and the confidence."""
    with log.open("rb") as file:
        while lines := list(islice(file, WINDOW)):
            records = [json.loads(line) for line in lines]
            rows = [
                {**record["features"], "prediction": record["prediction"], "confidence": record["confidence"]}
                for record in records
            ]
            yield pd.DataFrame(rows)


def whylogs(reference: Any) -> Callable[[Any], int]:
    """Profile each window, and whylogs' own drift scores (KS and chi-square) against the reference's profile."""
    import whylogs as why
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    trusted = why.log(reference).view()

    def judge(window: Any) -> int:
        scores = calculate_drift_scores(why.log(window).view(), trusted, with_thresholds=True)
        return sum(bool(score) and score["drift_category"] == "DRIFT" for score in scores.values())

    return judge


def evidently(reference: Any) -> Callable[[Any], int]:
    """Evidently's presets for drift and summary."""
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    trusted = Dataset.from_pandas(reference)

    def judge(window: Any) -> int:
        report = Report([DataDriftPreset(), DataSummaryPreset()])
        found = report.run(Dataset.from_pandas(window), trusted).dict()["metrics"]
        return int(next(m["value"]["count"] for m in found if m["metric_name"].startswith("DriftedColumnsCount")))

    return judge


def main() -> None:
    """Measure one peer."""
    name, reference, log = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    judge = {"whylogs": whylogs, "evidently": evidently}[name](next(windows(reference)))
    started = time.process_time()
    records = alarms = 0
    for window in windows(log):
        alarms += judge(window)
        records += len(window)
    cpu = time.process_time() - started
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))
    print(json.dumps({"records": records, "cpu_s": cpu, "peak_rss_mb": peak, "alarms": alarms}))


if __name__ == "__main__":
    main()
