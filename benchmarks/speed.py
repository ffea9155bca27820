"""Speed and memory of a replay, beside decoding alone and beside a peer; each in a process of its own.

The log: predictions with 20 features (12 numbers, 2 numbers with nulls, 6 categories), about 500 bytes a line, 100 a second
of event time. `decode` runs the product's decoder over it and stops at columns; `replay` is the product's own command with
everything on; `river` is what a user of that library would write: one ADWIN per numerical feature and confidence.
`whylogs` and `evidently` (`benchmarks.frames`) judge windows of 10,000; neither works with the newest pandas, so each gets an
environment of its own under `.tools`, pinned, made at the first run.
"""

from __future__ import annotations

import json
import os
import shutil
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
ROUNDS = 3

FRAMES = {
    "whylogs": ("whylogs[viz]==1.6.4", "pandas==2.3.3", "numpy==2.4.6"),
    "evidently": ("evidently==0.7.23", "pandas==2.3.3", "numpy==2.4.6"),
}
"""Peers on data frames, and what their environments hold."""

ENVIRONMENTS = Path(__file__).parents[1] / ".tools" / "peers"


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


def environment(name: str) -> Path | None:
    """The Python of a peer's own environment, made when it is not there; None where the peer cannot be installed."""
    home, wanted = ENVIRONMENTS / name, "\n".join((sys.version, *FRAMES[name]))
    python, made_from = home / "bin" / "python", home / "made-from"
    if not made_from.exists() or made_from.read_text() != wanted:
        print(f"making {home} with {', '.join(FRAMES[name])}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "--quiet", "--python", str(python), "install"]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
            subprocess.run([*pip, *FRAMES[name]], check=True)
        except subprocess.CalledProcessError:
            print(f"{name} is left out: it cannot be installed with this Python", file=sys.stderr)
            return None
        made_from.write_text(wanted)
    return python


def _framed(name: str, python: Path, trusted: Path, log: Path) -> dict[str, Any]:
    return _last_line([str(python), "benchmarks/frames.py", name, str(trusted), str(log)])


def _last_line(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Generate the log, measure, print the table. `POISONWATCH_BENCH_RECORDS` makes a shorter log."""
    records = int(os.environ.get("POISONWATCH_BENCH_RECORDS", str(RECORDS)))
    pythons = {name: python for name in FRAMES if (python := environment(name)) is not None}
    with tempfile.TemporaryDirectory(prefix="poisonwatch-bench-") as folder:
        trusted, log, short, few = (Path(folder) / f"{name}.ndjson" for name in ("trusted", "log", "short", "few"))
        generate(trusted, REFERENCE, 1, START - 86400.0)
        generate(log, records, 2, START)
        generate(short, records // 10, 3, START)
        generate(few, 3 * CHUNK, 4, START)
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
                **{name: _framed(name, python, trusted, few) for name, python in pythons.items()},
            }
            for _ in range(ROUNDS)
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
        ("whylogs", "whylogs, profile and drift"),
        ("evidently", "Evidently, drift and summary"),
    ):
        if name not in rates:
            continue
        peak = max(found[name]["peak_rss_mb"] for found in rounds)
        print(f"{label:34}{np.median(rates[name]):12,.0f}{peak:14.0f}")
    of_decode = np.median([a / b for a, b in zip(rates["replay"], rates["decode"], strict=True)])
    of_peers = {
        name: np.median([a / b for a, b in zip(rates["replay"], rates[name], strict=True)])
        for name in ("river", *FRAMES)
        if name in rates
    }
    peak = max(found["replay"]["peak_rss_mb"] for found in rounds)
    alerts = sum(len(found["replay"]["alerts"]) for found in rounds)
    print(f"replay / decode alone  {of_decode:6.2f}   (target: at least 0.60)")
    print(f"replay / river         {of_peers['river']:6.2f}   (target: at least 4)")
    for name in FRAMES.keys() & of_peers.keys():
        print(f"replay / {name:13}{of_peers[name]:7.1f}")
    print(f"peak RSS above imports {peak - bare['peak_rss_mb']:6.0f} MB of {peak:.0f} (target: at most 60 of 200)")
    print(f"  with a tenth of the records: {shorter['peak_rss_mb']:.0f} MB")
    others = {name: sum(int(found[name]["alarms"]) for found in rounds) for name in of_peers}
    told = ", ".join(f"{name} {number}" for name, number in others.items())
    print(f"alerts on this clean log in {len(rounds)} rounds {alerts}; alarms of the others: {told}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"decode": decode, "imports": imports, "river": river}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
