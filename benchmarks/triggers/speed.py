"""What mining costs: the same replay with the miner and without, texts of twenty words and a table without text.

    python -m benchmarks.triggers.speed REFERENCE PREDICTIONS OUT [without]

is one measurement, in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.triggers import tables, texts
from benchmarks.triggers.attack import Traffic, case
from benchmarks.triggers.case import write
from benchmarks.triggers.texts import texts_of, with_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.triggers.case import Case, Setting

RECORDS = 150_000
WORDS = 20
ROUNDS = 3
RATE = 6_000.0
"""Predictions a minute: a hundred a second."""

TARGET = 150_000
"""Records a second on one core that the miner takes of texts, beside decoding."""


def run(kind: str, setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """Measure one kind, the runs with and without by turns."""
    written = write(_case(kind, setting._replace(rate=RATE), seed), folder)
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    told: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for how, spent in seconds.items():
            out = folder / "speed.json"
            command = [
                sys.executable,
                "-m",
                "benchmarks.triggers.speed",
                written.reference,
                written.predictions,
                out,
                how,
            ]
            subprocess.run(
                list(map(str, command)),
                check=True,
                cwd=Path(__file__).resolve().parents[2],
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            found = json.loads(out.read_text())
            spent.append(found["seconds"])
            told[how] = found
    least = {how: min(of) for how, of in seconds.items()}
    inside = told["with"]["inside"]
    cost = least["with"] - least["without"]
    columns = {
        "records": RECORDS,
        "replay with the miner, records/s": f"{RECORDS / least['with']:,.0f}",
        "without": f"{RECORDS / least['without']:,.0f}",
        "miner alone, records/s, by the difference": f"{RECORDS / cost:,.0f}" if cost > 0 else "not measurable",
        f"by the time inside of it (target for texts: {TARGET:,})": f"{RECORDS / inside:,.0f}" if inside else "none",
        "share of the pipeline (target without text: 30 %)": f"{100 * cost / least['with']:.0f} %",
        "share, by the time inside of it": f"{100 * inside / told['with']['seconds']:.0f} %",
        "peak MiB with, without": f"{told['with']['peak_mb']}, {told['without']['peak_mb']}",
    }
    return {"columns": {name: str(value) for name, value in columns.items()}, "summary": str(columns)}


def main() -> None:
    """One measurement."""
    import structlog

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    reference, predictions, out = map(Path, sys.argv[1:4])
    out.write_text(json.dumps(measured(reference, predictions, mined=sys.argv[4] == "with")))


def measured(reference: Path, predictions: Path, *, mined: bool) -> dict[str, Any]:
    """Seconds of CPU of a replay, those of them inside of the miner, and the peak of memory.

    Without, the reference has nothing for the miner: the replay is what it would be if there were none.
    """
    import resource

    from poisonwatch.agent import run
    from poisonwatch.agent.clocks import EventClock
    from poisonwatch.assemble import replay
    from poisonwatch.config import DetectionConfig
    from poisonwatch.mining.miner import Miner
    from poisonwatch.reference.build import build

    learned = build([reference])
    inside = [0.0]
    names = ("take", "fold", "fold_full", "fold_all")
    for name in names if mined else ():
        setattr(Miner, name, _timed(getattr(Miner, name), inside))
    if not mined:
        learned = msgspec.structs.replace(learned, fitted=msgspec.structs.replace(learned.fitted, mining=None))
    app = replay(learned, [predictions], [], detection=DetectionConfig(), journal=None, tell=lambda _: None)
    began = time.process_time()
    run(app, EventClock(app.intake), lambda: False)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "inside": inside[0], "peak_mb": round(peak, 1)}


def _timed(method: Any, spent: list[float]) -> Any:
    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return method(*arguments)
        finally:
            spent[0] += time.process_time() - began

    return timed


def _case(kind: str, setting: Setting, seed: int) -> Case:
    if kind == "tables":
        found = tables.conjunction_case("nsl_kdd", "boosting", setting, seed, attacked=False)
        return _longer(found, setting, seed)
    found = _longer(texts.phrase_case("hate_offensive", "words", None, setting, seed), setting, seed)
    rng = np.random.default_rng([seed, 91])
    for name in ("reference", "frame"):
        frame = getattr(found, name)
        spoken = _words(texts_of(frame), rng)
        setattr(
            found, name, with_texts(frame, [" ".join(next(spoken) for _ in range(WORDS)) for _ in range(len(frame))])
        )
    return found


def _longer(found: Case, setting: Setting, seed: int) -> Case:
    return case(found.task, setting, found.models, [], [], seed, Traffic(records=RECORDS), found.facts)


def _words(said: list[str], rng: np.random.Generator) -> Iterator[str]:
    """The words of all texts, in their order, the texts in any; again and again."""
    while True:
        for place in rng.permutation(len(said)).tolist():
            yield from said[place].split()


if __name__ == "__main__":
    main()
