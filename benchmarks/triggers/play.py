"""Plays logs through the agent, in a process of its own, and writes down what it said.

    python -m benchmarks.triggers.play REFERENCE PREDICTIONS OUT

OUT gets one JSON object: what the reference is worth, every entry on a trigger, every alert that fires and every decision, seconds of CPU
and the peak of memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

KINDS = frozenset(["trigger", "alert", "decision"])
LONGEST = 3_600.0


def main() -> None:
    """Learn the reference, replay the predictions."""
    import structlog

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    reference, predictions, out = map(Path, sys.argv[1:4])
    out.write_text(json.dumps(play(reference, predictions)))


def play(reference: Path, predictions: Path) -> dict[str, Any]:
    """What the agent says of these logs. What it does not take is told as `refused`."""
    from poisonwatch.agent import run
    from poisonwatch.agent.clocks import EventClock
    from poisonwatch.assemble import replay
    from poisonwatch.config import DetectionConfig
    from poisonwatch.errors import PoisonwatchError
    from poisonwatch.reference.build import build

    told: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    began = time.process_time()
    try:
        learned = build([reference])
    except PoisonwatchError as error:
        return {"refused": str(error), "entries": []}
    told["learned_s"] = round(time.process_time() - began, 2)
    told["learned_mb"] = _peak()
    told["quality"] = msgspec.to_builtins(learned.quality)
    told["blind"] = dict(learned.blind)
    told["audit"] = msgspec.to_builtins(getattr(learned, "audit", None))

    def hear(entry: dict[str, Any]) -> None:
        if entry["kind"] in KINDS:
            entries.append(entry)

    began = time.process_time()
    app = replay(learned, [predictions], [], detection=DetectionConfig(), journal=None, tell=hear)
    run(app, EventClock(app.intake), lambda: False)
    told["replayed_s"] = round(time.process_time() - began, 2)
    told["peak_mb"] = _peak()
    told["predictions"] = sum(app.intake.counters.predictions.values())
    told["entries"] = json.loads(msgspec.json.encode(entries))
    return told


def apart(reference: Path, predictions: Path, out: Path) -> dict[str, Any]:
    """What `play` says in a process of its own, or how that ended."""
    command = [sys.executable, "-m", "benchmarks.triggers.play", str(reference), str(predictions), str(out)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return {"crashed": f"took longer than {LONGEST:.0f} s", "entries": []}
    if done.returncode != 0:
        return {"crashed": (done.stderr or done.stdout)[-3_000:], "entries": []}
    told: dict[str, Any] = json.loads(out.read_text())
    return told


def _peak() -> float:
    """Largest resident set so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    main()
