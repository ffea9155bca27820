"""What the agent said of a case, beside what was true of it: told from the written result alone, so that it can be told again."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING, Any

from poisonwatch.profile.indicators import FEATURE

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMED = ("surfaced", "convicted", "confirmed", "refuted")
CONVICTED = ("convicted", "confirmed")
BLINDING = ("triggers", "flips")
"""What must not be blind when triggers are to be found."""

EXACT, PART, OTHER = "exact", "part", "other"


def judged(result: dict[str, Any]) -> dict[str, Any]:
    """The verdict on one run.

    `result` has `attacks` (each with the class `target`, the `truth`, the ascending times `triggered` of what was sent with the
    trigger and got its class), `sent` (id of a prediction: number of its attack), `guilty` (a version) and what was `told`.
    """
    told = result["told"]
    found = _by_trigger(told["entries"])
    whose = {name: _whose(entries, result) for name, entries in found.items()}
    pages = [e for e in told["entries"] if e["kind"] == "alert" and _is_page(e)]
    attacks = []
    for number, attack in enumerate(result["attacks"]):
        mine = [entries for name, entries in found.items() if whose[name] == number]
        attacks.append(_attack(attack, mine, [p["time"] for p in pages if p["model_version"] == result["guilty"]]))
    false = [entries for name, entries in found.items() if whose[name] is None]
    return {
        "blind": [name for name in BLINDING if name in told.get("blind", {})],
        "failed": told.get("crashed") or told.get("refused"),
        "attacks": attacks,
        "false": [_short(entries) for entries in false],
        "false_convicted": sum(any(e["state"] in CONVICTED for e in entries) for entries in false),
        "false_pages": len(pages)
        if not result["attacks"]
        else sum(p["model_version"] != result["guilty"] for p in pages),
        "rollbacks": sorted(
            {e["model_version"] for e in told["entries"] if e["kind"] == "decision" and e["decision"] == "rollback"}
        ),
    }


def missed(verdict: dict[str, Any]) -> bool:
    """Blind, broken, or an attack with enough triggered records of which nothing was told."""
    return bool(verdict["blind"] or verdict["failed"]) or any(a["surfaced_after"] is None for a in verdict["attacks"])


def overlap(told: Sequence[int], true: Sequence[int]) -> float:
    """Intersection over union of two rectangles, each as row, column, height, width."""
    sides = []
    for axis in (0, 1):
        first, last = max(told[axis], true[axis]), min(told[axis] + told[axis + 2], true[axis] + true[axis + 2])
        sides.append(max(0, last - first))
    both = sides[0] * sides[1]
    return both / (told[2] * told[3] + true[2] * true[3] - both)


def _by_trigger(entries: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["kind"] == "trigger":
            found.setdefault(entry["trigger"], []).append(entry)
    return found


def _whose(entries: list[dict[str, Any]], result: dict[str, Any]) -> int | None:
    """The attack that most of a trigger's example predictions come from, if it is half of them; else by its name."""
    examples = [name for entry in entries for name in entry.get("examples", ())]
    counts = Counter(result["sent"].get(name, -1) for name in dict.fromkeys(examples))
    labels = {entry["label"] for entry in entries}
    for number, attack in enumerate(result["attacks"]):
        if attack["target"] not in labels:
            continue
        by_name = not examples and any(_named(e["pattern"], attack["truth"])[0] != OTHER for e in entries)
        if by_name or (examples and 2 * counts[number] >= sum(counts.values())):
            return number
    return None


def _attack(attack: dict[str, Any], mine: list[list[dict[str, Any]]], pages: list[float]) -> dict[str, Any]:
    triggered = attack["triggered"]

    def after(times: list[float]) -> int | None:
        return bisect_right(triggered, min(times)) if times else None

    entries = sorted((e for one in mine for e in one), key=lambda e: float(e["time"]))
    names = [_named(one[-1]["pattern"], attack["truth"]) for one in mine]
    first = [e["time"] for e in entries if e["state"] in NAMED]
    best = max(names, key=lambda n: ((OTHER, PART, EXACT).index(n[0]), n[1]), default=(None, 0.0))
    return {
        "triggered": len(triggered),
        "success": round(len(triggered) / max(1, attack["used"]), 3),
        "surfaced_after": after(first),
        "convicted_after": after([e["time"] for e in entries if e["state"] in CONVICTED]),
        "paged_after": after([time for time in pages if triggered and time >= triggered[0]]),
        "hours": round((min(first) - triggered[0]) / 3600, 2) if first and triggered else None,
        "named": best[0],
        "iou": round(best[1], 3),
        "incidents": len(mine),
        "as": sorted({one[-1]["text"] for one in mine}),
    }


def _named(pattern: dict[str, Any], truth: dict[str, Any]) -> tuple[str, float]:
    """How well a pattern names the truth; for rectangles with their intersection over union."""
    if "words" in truth and "words" in pattern:
        said, true = pattern["words"], [word.casefold() for word in truth["words"]]
        return (EXACT if said == true else PART if set(said) & set(true) else OTHER), 0.0
    if "values" in truth and "items" in pattern:
        fitting = {
            feature for feature, value in truth["values"] for item in pattern["items"] if _holds(item, feature, value)
        }
        whole = len(fitting) == len(truth["values"]) == len(pattern["items"])
        return (EXACT if whole else PART if fitting else OTHER), 0.0
    if "patch" in truth and "height" in pattern:
        told = [pattern[name] for name in ("row", "column", "height", "width")]
        iou = overlap(told, truth["patch"])
        return (EXACT if told == truth["patch"] else PART if iou > 0 else OTHER), iou
    return OTHER, 0.0


def _holds(item: dict[str, Any], feature: str, value: str | float) -> bool:
    if item["feature"].removeprefix(FEATURE) != feature:
        return False
    if isinstance(value, str):
        return bool(item.get("value") == value)
    if item.get("value") is not None:
        return bool(item["value"] in {str(value), str(int(value))})
    low, high = item.get("low"), item.get("high")
    if low is None and high is None:
        return False
    above = low is None or low < value or low == high == value
    return above and (high is None or value <= high)


def _is_page(entry: dict[str, Any]) -> bool:
    return (entry["cause"], entry["state"], entry["severity"]) == ("backdoor", "firing", "page")


def _short(entries: list[dict[str, Any]]) -> dict[str, Any]:
    last = entries[-1]
    names = ("text", "label", "model_version", "state", "predictions", "log_e")
    return {name: last.get(name) for name in names} | {"states": [e["state"] for e in entries]}
