"""Runs the real command line, and writes down what its detectors told its judge.

    python -m benchmarks.scenarios.overheard EVIDENCE SECONDS replay --reference ...

Nothing is changed: each report of a closed window is passed on as it is. EVIDENCE gets one report every SECONDS of event
time (the versions that retired in between are carried over to it), and a last line with the most that each group of signals
of each version ever reached.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch import agent, cli
from poisonwatch.judge.standing import judge

if TYPE_CHECKING:
    from poisonwatch.judge.standing import Standing
    from poisonwatch.types import Report


class Ear:
    """Stands between detectors and judge."""

    def __init__(self, path: Path, every: float) -> None:
        self._every = every
        self._file = path.open("wb")
        self._due = float("-inf")
        self._retired: tuple[str, ...] = ()
        self._most: dict[tuple[str, str], dict[str, Any]] = {}

    def __call__(self, standing: Standing, report: Report, fewest: int) -> Any:
        """Judge, as if nobody listened."""
        for found in report.evidence:
            key = (found.model_version or "", found.group)
            if key not in self._most or found.log_e > self._most[key]["log_e"]:
                subject = found.subjects[0].indicator if found.subjects else ""
                self._most[key] = {
                    "model_version": found.model_version,
                    "group": found.group,
                    "log_e": found.log_e,
                    "large": abs(found.effect) >= found.floor,
                    "subject": subject,
                    "time": report.time,
                }
        self._retired += report.retired
        if report.time >= self._due:
            kept = msgspec.structs.replace(report, retired=self._retired)
            self._file.write(msgspec.json.encode(kept) + b"\n")
            self._due, self._retired = report.time + self._every, ()
        return judge(standing, report, fewest)

    def close(self) -> None:
        """Write down what was the most."""
        self._file.write(msgspec.json.encode({"most": list(self._most.values())}) + b"\n")
        self._file.close()


def main() -> None:
    """Take the first two arguments, and leave the others to the command line."""
    ear = Ear(Path(sys.argv[1]), float(sys.argv[2]))
    agent.judge = ear  # type: ignore[attr-defined]
    sys.argv[1:] = sys.argv[3:]
    try:
        cli.main()
    finally:
        ear.close()


if __name__ == "__main__":
    main()
