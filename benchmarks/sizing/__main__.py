"""What the agent takes while it watches: CPU, memory and disk, by rate, features, classes, text and embeddings.

The real agent follows a real file to which records are appended ten times a second, at the time of day. First it is given what the
last minutes would have been, so that windows close; then a minute is measured, in which one does. CPU is the agent's own, as the kernel counts it; so a
busy machine makes it a little larger, never smaller.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.sizing.traffic import DISTINCT, MODEL, Kind, bodies, lines, write_reference
from tests.system.programs import Program, fetch, free_port, poisonwatch, series_of, wait_for

HISTORY, MEASURED, EVERY = 150.0, 60.0, 0.1
TICKS = os.sysconf("SC_CLK_TCK")

POINTS: tuple[tuple[str, float, Kind], ...] = (
    ("nothing", 0, Kind()),
    ("20 features, 3 classes", 10, Kind()),
    ("20 features, 3 classes", 100, Kind()),
    ("20 features, 3 classes", 1000, Kind()),
    ("20 features, 3 classes", 5000, Kind()),
    ("5 features", 1000, Kind(features=5)),
    ("50 features", 1000, Kind(features=50)),
    ("200 features", 1000, Kind(features=200)),
    ("100 classes", 1000, Kind(classes=100)),
    ("1,000 classes", 1000, Kind(classes=1000)),
    ("a text of 80 characters", 1000, Kind(features=0, text=True)),
    ("an embedding of 384 numbers", 100, Kind(features=0, embedding=384)),
    ("two versions at once", 1000, Kind(versions=2)),
)
"""What is watched, and how many records a second."""


def cpu(process: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(process: int, name: str = "VmRSS") -> float:
    """Memory of a process that is in use, or was at most (`VmHWM`), in MB."""
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")


def measured(folder: Path, rate: float, kind: Kind) -> dict[str, float]:
    """One point: the share of a core, MB of memory and of disk."""
    now = time.time()
    write_reference(folder / "trusted.ndjson", kind, now - 3600)
    made = poisonwatch("reference", "build", str(folder / "trusted.ndjson"), "--out", str(folder / "reference.json"))
    subprocess.run(made, check=True, capture_output=True)
    address = f"127.0.0.1:{free_port()}"
    told = {
        "models": [{"name": MODEL, "reference": "reference.json"}],
        "sources": [{"path": "predictions.ndjson"}],
        "state": {"checkpoint": "agent.checkpoint", "journal": "agent.journal"},
        "web": {"listen_address": address},
    }
    (folder / "config.yaml").write_text(json.dumps(told))
    log = folder / "predictions.ndjson"
    given = bodies(kind, DISTINCT, seed=2)
    past = int(rate * HISTORY)
    now = time.time()
    log.write_bytes(b"".join(lines(given, 0, (now - HISTORY + n / rate for n in range(past)))))
    program = Program(poisonwatch("run", "--config", "config.yaml"), folder)
    program.start()
    try:
        program.said(r"listening.*\baddress=(\S+)")
        process = program.process.pid

        def has_read(count: float) -> bool:
            series = series_of(fetch(f"http://{address}/metrics"))
            read = sum(number for (name, _), number in series.items() if name == "poisonwatch_records_total")
            return bool(series) and read >= count

        wait_for("the history read", lambda: has_read(past))
        written, began = past, now
        with log.open("ab", buffering=0) as file:

            def feed(until: float) -> None:
                nonlocal written
                while (at := time.time()) < until:
                    fresh = max(int((at - began) * rate) + past - written, 0)
                    if fresh:
                        file.write(b"".join(lines(given, written, (at - (fresh - n) / rate for n in range(fresh)))))
                        written += fresh
                    time.sleep(EVERY)

            # What was missed while the history was read is not measured.
            feed(time.time() + 5)
            start, used = time.time(), cpu(process)
            feed(start + MEASURED)
            took = time.time() - start
            cores = (cpu(process) - used) / took
        kept_up = has_read(written - 3 * rate)
        return {
            "cores": cores,
            "memory": memory(process),
            "peak": memory(process, "VmHWM"),
            "checkpoint": (folder / "agent.checkpoint").stat().st_size / 1e6,
            "kept_up": float(kept_up),
        }
    finally:
        program.close()


def main() -> None:
    """Print the table, a line as soon as it is measured."""
    print("| records/s | of what | CPU, % of a core | memory MB | at most | checkpoint MB |")
    print("|---|---|---|---|---|---|")
    for what, rate, kind in POINTS:
        with TemporaryDirectory() as name:
            found = measured(Path(name), rate, kind)
        behind = "" if found["kept_up"] else " (fell behind)"
        cells = (
            f"{rate:,.0f}",
            what,
            f"{100 * found['cores']:.1f}{behind}",
            f"{found['memory']:.0f}",
            f"{found['peak']:.0f}",
        )
        print(f"| {' | '.join(cells)} | {found['checkpoint']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
