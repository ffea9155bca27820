"""A reference in which the trigger is already: does the audit rank the group of triggered records first?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.scenarios.logs import as_logged
from benchmarks.triggers import tables, texts
from benchmarks.triggers.attack import placed
from benchmarks.triggers.case import all_in_turn, fresh
from poisonwatch.reference.audit import Signature
from poisonwatch.reference.build import build

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.scenarios.data import Frame
    from benchmarks.scenarios.models import Model
    from benchmarks.triggers.case import Case, Setting, Trap
    from poisonwatch.reference.audit import Audit

POISONED = 0.02
"""Share of the reference."""

SIGNED = Signature(author="benchmark", reason="what the audit suspects is what is measured")


def run(data: str, family: str, setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """Audit what a poisoned model answered with its trigger in use, and what an honest one did without."""
    if data in dict(texts.LEARNERS):
        case = texts.phrase_case(data, family, "high", setting, seed)
    else:
        case = tables.conjunction_case(data, family, setting, seed, attacked=True)
    trap, rng = case.traps[0], np.random.default_rng([seed, 81])
    frame = fresh(case.task, case.task.reference, rng)
    poisoned, used = _used(frame, trap, rng)
    dirty = _audited(case, poisoned, case.models[1], folder / "poisoned.ndjson")
    clean = _audited(case, frame, case.models[0], folder / "clean.ndjson")
    said = [str(part) for key in ("words", "values") for part in trap.truth.get(key, ())]
    parts = trap.truth.get("words") or [f"{feature}" for feature, _ in trap.truth["values"]]
    ranks = [
        rank
        for rank, group in enumerate(dirty.groups, 1)
        if 2 * sum(part.casefold() in group.text.casefold() for part in parts) >= len(parts)
        and group.label == frame.classes[trap.target]
    ]
    columns = {
        "model": f"{data}, {family}",
        "success": case.facts["success"],
        "triggered": used,
        "trigger": " ".join(said),
        "rank (target: 1 in 9 of 10)": min(ranks, default="not told"),
        "score": f"{dirty.groups[ranks[0] - 1].score:.2f}" if ranks else "",
        "refused": bool(dirty.suspects),
        "best of the others": _best([g for rank, g in enumerate(dirty.groups, 1) if rank not in ranks]),
        "best in an honest reference": _best(clean.groups),
        "honest one refused": bool(clean.suspects),
        "first": dirty.groups[0].text if dirty.groups else "",
    }
    return {"columns": {name: str(value) for name, value in columns.items()}, "summary": str(columns)}


def _used(frame: Frame, trap: Trap, rng: np.random.Generator) -> tuple[Frame, int]:
    """The frame with the trigger in a share of its records, all of them of the class that it is for."""
    count = round(POISONED * len(frame))
    victims = all_in_turn(np.flatnonzero(trap.victims(frame.label)), count, rng)
    rows = np.unique(victims)
    return placed(frame, rows, trap.stamp, rng), int(rows.size)


def _audited(case: Case, frame: Frame, model: Model, path: Path) -> Audit:
    with path.open("wb") as file:
        records = as_logged(case.task, frame, model.probabilities(frame), ["v1"] * len(frame), None)
        file.writelines(msgspec.json.encode(record) + b"\n" for record in records)
    found = build([path], signature=SIGNED).audit
    assert found is not None, "texts and tables are audited"  # noqa: S101
    return found


def _best(groups: list[Any]) -> str:
    return f"{groups[0].score:.2f} {groups[0].text}" if groups else ""
