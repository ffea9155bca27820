"""Speed and memory of a replay, beside decoding alone and beside a peer; each in a process of its own.

The log: predictions with 20 features (12 numbers, 2 numbers with nulls, 6 categories), about 500 bytes a line, 100 a second
of event time. `decode` runs the product's decoder over it and stops at columns; `replay` is the product's own command with
everything on; `river` is what a user of that library would write: one ADWIN per numerical feature and confidence.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RECORDS = 1_000_000
REFERENCE = 20_000
PER_SECOND = 100.0
START = 1_767_600_000.0
CHUNK = 10_000
NUMBERS, OPTIONAL, CATEGORIES = 12, 2, 6


def generate(path: Path, records: int, seed: int, start: float) -> None:
    """Write a log of independent records; the same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    names = np.array([f"v{number:02d}" for number in range(12)])
    with path.open("wb") as file:
        for first in range(0, records, CHUNK):
            count = min(CHUNK, records - first)
            numbers = rng.normal(np.arange(NUMBERS), 1 + np.arange(NUMBERS), (count, NUMBERS)).round(4)
            optional = rng.random((count, OPTIONAL)).round(4)
            absent = rng.random((count, OPTIONAL)) < 0.1
            categories = names[np.minimum(rng.geometric(0.3, (count, CATEGORIES)) - 1, names.size - 1)]
            classes = rng.choice(["approve", "review", "reject"], count, p=[0.7, 0.2, 0.1])
            confidence = (1 / (1 + np.exp(-rng.normal(2.5, 1, count)))).round(4)
            for row in range(count):
                features: dict[str, object] = {f"num_{n:02d}": float(numbers[row, n]) for n in range(NUMBERS)}
                features |= {f"opt_{n}": None if absent[row, n] else float(optional[row, n]) for n in range(OPTIONAL)}
                features |= {f"cat_{n}": str(categories[row, n]) for n in range(CATEGORIES)}
                record = {
                    "timestamp": _rfc3339(start + (first + row) / PER_SECOND),
                    "prediction_id": f"p{first + row:08d}",
                    "model": "loans",
                    "model_version": "v1",
                    "features": features,
                    "prediction": str(classes[row]),
                    "confidence": float(confidence[row]),
                    "source": f"client-{row % 50}",
                }
                file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")


def _rfc3339(at: float) -> str:
    return str(np.datetime64(int(at * 1000), "ms")) + "Z"


def decode(reference: Path, log: Path) -> None:
    """Decode to columns with the product's own code, and do nothing with them."""
    from poisonwatch.formats.jsonl import JsonlPredictions
    from poisonwatch.reference.file import load
    from poisonwatch.sources.log import blocks

    learned = load(reference)
    decoder = JsonlPredictions({"loans": learned.schema}, 1 << 20)
    started = time.process_time()
    count = sum(decoder.decode(block).predictions for block in blocks(log, 1 << 20))
    _say(count, started)


def imports(_reference: Path, _log: Path) -> None:
    """Only import what a replay imports."""
    import poisonwatch.agent
    import poisonwatch.assemble
    import poisonwatch.cli
    import poisonwatch.sinks.report  # noqa: F401

    _say(0, time.process_time())


def river(_reference: Path, log: Path) -> None:
    """ADWIN on every numerical feature and the confidence, as river's documentation has it."""
    from river import drift

    make: Any = drift.ADWIN  # river has no types
    names = [f"num_{n:02d}" for n in range(NUMBERS)] + [f"opt_{n}" for n in range(OPTIONAL)]
    detectors = {name: make() for name in [*names, "confidence"]}
    alarms = count = 0
    started = time.process_time()
    with log.open("rb") as file:
        for line in file:
            record = json.loads(line)
            values = {**record["features"], "confidence": record["confidence"]}
            for name, detector in detectors.items():
                if values[name] is not None:
                    detector.update(values[name])
                    alarms += detector.drift_detected
            count += 1
    _say(count, started, alarms)


def _say(count: int, started: float, alarms: int = 0) -> None:
    """Print what this process counted and cost."""
    cpu = time.process_time() - started
    from poisonwatch.sinks.report import peak_rss_mb

    print(json.dumps({"records": count, "cpu_s": cpu, "peak_rss_mb": peak_rss_mb(), "alarms": alarms}))


def _measured(what: str, reference: Path, log: Path) -> dict[str, Any]:
    """Run one of the functions above in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", what, str(reference), str(log)]
    return _last_line(command)


def _replayed(reference: Path, log: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "poisonwatch", "replay", "--reference", str(reference), "--report", "-", str(log)]
    return _last_line(command)


def _last_line(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Generate the log, measure, print the table. `POISONWATCH_BENCH_RECORDS` makes a shorter log."""
    records = int(os.environ.get("POISONWATCH_BENCH_RECORDS", str(RECORDS)))
    with tempfile.TemporaryDirectory(prefix="poisonwatch-bench-") as folder:
        trusted, log, short = (Path(folder) / name for name in ("trusted.ndjson", "log.ndjson", "short.ndjson"))
        generate(trusted, REFERENCE, 1, START - 86400.0)
        generate(log, records, 2, START)
        generate(short, records // 10, 3, START)
        reference = Path(folder) / "reference.json"
        build = [sys.executable, "-m", "poisonwatch", "reference", "build", str(trusted), "--out", str(reference)]
        subprocess.run(build, check=True, capture_output=True)
        bare = _measured("imports", reference, log)
        # In turn, so that a change of the machine's speed meets all of them.
        rounds = [
            {
                "decode": _measured("decode", reference, log),
                "replay": _replayed(reference, log),
                "river": _measured("river", reference, short),
            }
            for _ in range(3)
        ]
        shorter = _replayed(reference, short)
        size = log.stat().st_size / records
    _table(rounds, bare, shorter, records, size)


def _table(
    rounds: list[dict[str, dict[str, Any]]],
    bare: dict[str, Any],
    shorter: dict[str, Any],
    records: int,
    size: float,
) -> None:
    rates = {name: [found[name]["records"] / found[name]["cpu_s"] for found in rounds] for name in rounds[0]}
    print(f"{records} records of {size:.0f} bytes, 20 features; records per CPU second, median of {len(rounds)} rounds")
    print(f"{'':34}{'records/s':>12}{'peak RSS MB':>14}")
    for name, label in (
        ("decode", "decode to columns alone"),
        ("replay", "replay, all detection on"),
        ("river", "river, ADWIN per number"),
    ):
        peak = max(found[name]["peak_rss_mb"] for found in rounds)
        print(f"{label:34}{np.median(rates[name]):12,.0f}{peak:14.0f}")
    of_decode = np.median([a / b for a, b in zip(rates["replay"], rates["decode"], strict=True)])
    of_river = np.median([a / b for a, b in zip(rates["replay"], rates["river"], strict=True)])
    peak = max(found["replay"]["peak_rss_mb"] for found in rounds)
    alerts = sum(len(found["replay"]["alerts"]) for found in rounds)
    print(f"replay / decode alone  {of_decode:6.2f}   (target: at least 0.60)")
    print(f"replay / river         {of_river:6.2f}   (target: at least 4)")
    print(f"peak RSS above imports {peak - bare['peak_rss_mb']:6.0f} MB of {peak:.0f} (target: at most 60 of 200)")
    print(f"  with a tenth of the records: {shorter['peak_rss_mb']:.0f} MB")
    print(f"alerts on this clean log {alerts}; river's alarms {sum(int(f['river']['alarms']) for f in rounds)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"decode": decode, "imports": imports, "river": river}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
