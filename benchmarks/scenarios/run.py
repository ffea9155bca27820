"""Replays one scene through the real command, without any configuration, and says whether the verdict was right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scenarios import logs, margin
from benchmarks.scenarios.rows import MAY, MUST, NEVER, ROWS
from benchmarks.scenarios.scene import START, Scene
from poisonwatch.judge.cause import RULES
from poisonwatch.types import Severity

if TYPE_CHECKING:
    from benchmarks.scenarios.logs import Logs
    from benchmarks.scenarios.rows import Row

PAGING = frozenset(rule.group for rule in RULES if rule.severity is Severity.PAGE)
"""Groups of signals whose evidence pages, alone or beside other marks."""

LONGEST = 1_200.0
"""Seconds that a replay may take."""

KEPT_REPORTS = 1_500


def run(name: str, seed: int, rate: str) -> dict[str, Any]:
    """Build the scene of a row and a seed, replay it, judge the verdict. What went wrong is told as a verdict, too."""
    started = time.perf_counter()
    result: dict[str, Any] = {"row": name, "seed": seed, "rate": rate}
    with tempfile.TemporaryDirectory(prefix="scenario-") as place:
        folder = Path(place)
        scene = ROWS[name].make(seed, rate)
        written = logs.write(scene, folder)
        result |= {"facts": scene.facts, "records": written.records, "labels": int(written.labels.size)}
        result["made_s"] = round(time.perf_counter() - started, 1)
        step = scene.days * scene.pace.day / KEPT_REPORTS
        try:
            told = replay(written, folder, step)
        except subprocess.TimeoutExpired:
            return result | {"verdict": "TIMEOUT"}
        result["replayed_s"] = round(time.perf_counter() - started - result["made_s"], 1)
        if told is not None:
            return result | {"verdict": "CRASH", "error": told}
        entries = [json.loads(line) for line in (folder / "journal.ndjson").read_text().splitlines()]
        reports, most = margin.read(folder / "evidence.ndjson")
        loudest = [found["log_e"] for found in most if found["group"] in PAGING]
        result |= {
            "most": most,
            "highest": max(loudest, default=None),
            "report": json.loads((folder / "report.json").read_text()),
        }
        return result | judged(ROWS[name], scene, written, entries, reports)


def replay(written: Logs, folder: Path, step: float) -> str | None:
    """Run `poisonwatch replay`; what it said when it failed, else None.

    Raises:
        subprocess.TimeoutExpired: when it takes too long.
    """
    command = [sys.executable, "-m", "benchmarks.scenarios.overheard", folder / "evidence.ndjson", str(step), "replay"]
    command += [written.predictions, "--reference", written.reference, "--feedback", written.feedback]
    command += ["--journal", folder / "journal.ndjson", "--report", folder / "report.json"]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return None if done.returncode == 0 else (done.stderr or done.stdout)[-2_000:]


def judged(row: Row, scene: Scene, written: Logs, entries: list[dict[str, Any]], reports: list[Any]) -> dict[str, Any]:
    """What the journal says, beside what it should say."""
    alerts = [entry for entry in entries if entry["kind"] == "alert"]
    pages = _risen(alerts, "page")
    tickets = sorted({entry["cause"] for entry in alerts if entry["state"] == "firing"} - {p["cause"] for p in pages})
    rollbacks = [e for e in entries if e["kind"] == "decision" and e["decision"] == "rollback"]
    onset = None if scene.onset is None else START + scene.onset * scene.pace.day
    right = [p for p in pages if _fits(row, scene, p) and _seconds(p["time"]) >= (onset or 0)]
    wrong = [p for p in pages if p not in right]
    false_rollbacks = [r for r in rollbacks if r["model_version"] not in scene.guilty]
    told: dict[str, Any] = {
        "verdict": _verdict(row, right, wrong, rollbacks, false_rollbacks, tickets),
        "pages": [_short(p, onset) for p in pages],
        "tickets": tickets,
        "ticket_alerts": [_short(t, onset) for t in _risen(alerts, "ticket")],
        "rollbacks": [
            {"model_version": r["model_version"], "target": r["target"], "time": r["time"]} for r in rollbacks
        ],
        "named": _named(scene, [e for e in entries if e["kind"] == "accusation" or e.get("state") == "firing"]),
    }
    if right and onset is not None:
        told["delay"] = _delay(scene, written, onset, _seconds(right[0]["time"]))
    if row.pages == NEVER or (row.pages == MAY and not right):
        told["margin"] = margin.nearest_page(reports)
    else:
        told["margin"] = margin.nearest_miss(
            reports, lambda alert: _fits(row, scene, {"cause": alert.cause.value, "model_version": alert.model_version})
        )
    return told


def _risen(alerts: list[dict[str, Any]], severity: str) -> list[dict[str, Any]]:
    """The entries with which an alert became a firing one of this severity."""
    firing: dict[str, bool] = {}
    found = []
    for entry in alerts:
        now = entry["state"] == "firing" and entry["severity"] == severity
        if now and not firing.get(entry["fingerprint"], False):
            found.append(entry)
        firing[entry["fingerprint"]] = now
    return found


def _fits(row: Row, scene: Scene, page: dict[str, Any]) -> bool:
    """Is this the right cause, said of a guilty version (or of none, where the feedback is to blame)?"""
    return page["cause"] in row.causes and (not scene.guilty or page["model_version"] in scene.guilty)


def _verdict(
    row: Row,
    right: list[dict[str, Any]],
    wrong: list[dict[str, Any]],
    rollbacks: list[dict[str, Any]],
    false_rollbacks: list[dict[str, Any]],
    tickets: list[str],
) -> str:
    if false_rollbacks:
        return "FALSE ROLLBACK"
    if wrong:
        return "FALSE PAGE" if row.pages == NEVER or not right else "FALSE PAGE TOO"
    if row.pages == MUST and not right:
        return "MISS"
    if right and row.rollback and not rollbacks:
        return "NO ROLLBACK"
    if row.pages == MAY and not right:
        return "missed"
    if row.ticket_due and not set(tickets) & row.tickets:
        return "no ticket"
    if row.pages == NEVER and set(tickets) - row.tickets:
        return "odd ticket"
    return "ok"


def failed(verdict: str) -> bool:
    """Is this verdict against the rules? What is said in small letters is only told."""
    return verdict == verdict.upper()


def _seconds(time_text: str) -> float:
    return datetime.fromisoformat(time_text).timestamp()


def _short(entry: dict[str, Any], onset: float | None) -> dict[str, Any]:
    hours = None if onset is None else round((_seconds(entry["time"]) - onset) / 3600, 2)
    names = ("model_version", "cause", "group", "log_e", "effect", "n", "time", "onset", "summary")
    return {name: entry.get(name) for name in names} | {"hours": hours, "subjects": entry.get("subjects", [])[:5]}


def _delay(scene: Scene, written: Logs, onset: float, page: float) -> dict[str, float]:
    """From the true onset to the page."""
    at = START + scene.time * scene.pace.day
    concerned = (at >= onset) & (at < page)
    if scene.guilty:
        guilty = [scene.versions.index(version) for version in scene.guilty]
        concerned &= np.isin(scene.version, guilty)
    labels = int(np.searchsorted(written.labels, page) - np.searchsorted(written.labels, onset))
    return {"hours": round((page - onset) / 3600, 2), "predictions": int(concerned.sum()), "labels": labels}


def _named(scene: Scene, entries: list[dict[str, Any]]) -> str:
    """Whether the slice was named, or how many of the colluders and of the honest sources."""
    told = json.dumps(entries)
    if "slice" in scene.facts:
        value = str(scene.facts["slice"]).split("=")[1]
        firing = json.dumps([e.get("subjects") for e in entries if e.get("cause") == "slice_degradation"])
        return "slice named" if value in firing else "slice not named"
    if scene.campaign is None:
        return ""
    sources = {f"reviewer-{number:03d}" for number in range(scene.sources) if f"reviewer-{number:03d}" in told}
    guilty = {f"reviewer-{number:03d}" for number in range(scene.campaign.sources)}
    return f"{len(sources & guilty)} of {len(guilty)} colluders, {len(sources - guilty)} honest"
