"""What a replay found and cost: for a CI gate as JSON, for a person in words."""

from __future__ import annotations

import re
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.sinks.journal import rfc3339

if TYPE_CHECKING:
    from poisonwatch.sinks.snapshot import Published


def peak_rss_mb() -> float:
    """Most memory that this program has held.

    The figure of getrusage outlives an exec: there, a program begins with the peak of the process that started it.
    """
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def printable(line: str) -> str:
    """A line as it may be shown on a terminal: names in it come from logs."""
    return line if line.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in line)


class Meter:
    """Listens to a replay from its beginning, and measures it."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._alerts: dict[tuple[str, str], dict[str, Any]] = {}

    def hear(self, entry: dict[str, Any]) -> None:
        """Keep every alert that fired, in its last state."""
        if entry["kind"] != "alert":
            return
        key = (entry["fingerprint"], entry["onset"])
        known = next((k for k, alert in self._alerts.items() if k[0] == key[0] and alert["state"] != "resolved"), None)
        if known is not None:
            before = self._alerts[known]
            # What is said of an alert that ended is that nothing is left of it: a reader wants to know what there was.
            summary = before["summary"] if entry["state"] == "resolved" else entry["summary"]
            self._alerts[known] = {
                **entry,
                "fired": before["fired"],
                "summary": summary,
                "time": rfc3339(entry["time"]),
            }
        elif entry["state"] == "firing":
            told = rfc3339(entry["time"])
            self._alerts[key] = {**entry, "fired": told, "time": told}

    def report(self, published: Published) -> dict[str, Any]:
        """The figures, the alerts that fired, the decisions that stand at the end."""
        snapshot = published.snapshot
        models = snapshot.models if snapshot is not None else ()
        counters = snapshot.counters if snapshot is not None else None
        decisions = [msgspec.to_builtins(decision) for model in models for decision in model.decisions]
        return {
            "records": counters.predictions.total() if counters else 0,
            "feedback": counters.feedback.total() if counters else 0,
            "rejected": counters.rejected.total() if counters else 0,
            "rejected_by_reason": _by_reason(counters.rejected) if counters else {},
            "faults": _by_reason(counters.faults) if counters else {},
            "late": sum(model.late for model in models),
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "cpu_s": round(time.process_time() - self._cpu, 3),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "alerts": list(self._alerts.values()),
            "decisions": [{**decision, "time": rfc3339(decision["time"])} for decision in decisions],
        }


def in_words(report: dict[str, Any]) -> str:
    """A report for a person."""
    counted = f"{report['records']} predictions and {report['feedback']} labels"
    lines = [f"{counted}, {report['rejected']} lines rejected, {report['late']} late, in {report['wall_s']} s"]
    if report["late"] > 0.1 * max(report["records"], 1):
        lines.append(
            "Many predictions came late: is the log sorted by time? Sort it, or raise detection.lateness_seconds."
        )
    lines += [f"  rejected: {count} x {reason}" for reason, count in report["rejected_by_reason"].items()]
    lines += [
        f"{alert['fired']} {alert['severity']} {alert['cause']}: {alert['summary']}"
        + (f" Resolved {alert['time']}." if alert["state"] == "resolved" else "")
        for alert in report["alerts"]
    ] or ["No alert fired."]
    lines += [
        f"{d['model']} {d['model_version']}: {d['decision']}"
        + (f" to {d['target']}" if d["target"] else "")
        + f" ({d['reason']})"
        for d in report["decisions"]
    ]
    return "\n".join(map(printable, lines))


def _by_reason(counts: dict[tuple[str, str], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (_, reason), count in sorted(counts.items()):
        found[reason] = found.get(reason, 0) + count
    return found
