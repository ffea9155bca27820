"""Tables in Markdown, from the results that are kept: each figure beside its target, what was missed by name."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benchmarks.triggers.verdict import judged, missed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    Results = list[dict[str, Any]]

ENOUGH = 20
"""Triggered records with which no phrase may be missed."""

SURFACED = {"phrase/high": 8, "phrase/middle": 20, "conjunction": 40, "patch": 20}
"""Triggered records until a trigger is told, by the beginning of the row's name."""

PATCH_CONVICTED = 60
FIDELITY = 0.98
"""Correlation of the surrogate from which on conjunctions are due."""

FALSE_IN = {"mnist": 10_000}
"""Records in which one false pattern may be, where it is not 100,000."""


def in_a_line(result: dict[str, Any]) -> str:
    """The outcome of one run."""
    if "broken" in result:
        return f"BROKEN: {result['broken'].strip().splitlines()[-1]}"
    if "told" not in result:
        return str(result.get("summary", ""))
    verdict = judged(result)
    said = [f"blind {verdict['blind']}"] if verdict["blind"] else []
    said += [f"FAILED {verdict['failed'][-300:]}"] if verdict["failed"] else []
    for attack in verdict["attacks"]:
        names = ("triggered", "success", "surfaced_after", "convicted_after", "paged_after", "named", "iou", "as")
        said.append(" ".join(f"{name}={attack[name]}" for name in names))
    said.append(f"false={[f['text'] for f in verdict['false']]} false pages={verdict['false_pages']}")
    said.append(f"{result['told'].get('peak_mb')} MiB, {result['told'].get('replayed_s')} s of CPU")
    return "; ".join(said)


def tables(folder: Path, beginnings: Sequence[str]) -> str:
    """All tables of what is kept in a folder."""
    grouped: dict[str, Results] = defaultdict(list)
    broken = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if not any(result["row"].startswith(given) for given in beginnings):
            continue
        if "broken" in result:
            broken.append(result)
            continue
        if "told" in result:
            result["verdict"] = judged(result)
        grouped[result["row"].split("/")[0]].append(result)
    said = [_attacked("Phrases", grouped["phrase"]), _attacked("Conjunctions of three values", grouped["conjunction"])]
    said += [_attacked("Patches in images of 28 x 28", grouped["patch"])]
    said += [
        _false([*grouped["clean"], *grouped["benign"]]),
        _attacked("Adaptive attackers (no target)", grouped["adaptive"]),
    ]
    said += [_plain(name, grouped[name]) for name in ("confirm", "audit", "speed")]
    attacked = [r for name in ("phrase", "conjunction", "patch", "adaptive") for r in grouped[name]]
    said += [_missed(attacked, broken)]
    return "\n".join(part for part in said if part)


def _attacked(title: str, results: Results) -> str:
    rows = []
    for (name, setting), of in _by_row(results):
        attacks = [attack for r in of for attack in r["verdict"]["attacks"]]
        blind = sum(bool(r["verdict"]["blind"]) for r in of)
        due = next((most for begin, most in SURFACED.items() if name.startswith(begin)), None)
        found = [a["surfaced_after"] for a in attacks]
        quality = [r["told"]["quality"]["correlation"] for r in of if r["told"].get("quality")]
        rows.append(
            [
                name,
                setting,
                _middle([a["success"] for a in attacks], "{:.2f}"),
                _middle(quality, "{:.3f}"),
                f"{_count(found)} of {len(found)}" + (f", {blind} blind" if blind else ""),
                _after(found) + (f" (target {due}: {_within(found, due)})" if due else ""),
                _after([a["convicted_after"] for a in attacks]),
                _after([a["paged_after"] for a in attacks]),
                f"{sum(a['named'] == 'exact' for a in attacks)} / {sum(a['named'] == 'part' for a in attacks)}",
                _middle([a["iou"] for a in attacks if a["iou"]], "{:.2f}"),
                str(sum(len(r["verdict"]["false"]) for r in of)),
                str(max((r["told"].get("peak_mb") or 0 for r in of), default=0)),
            ]
        )
    head = [
        "",
        "reference@a minute",
        "success",
        "fidelity",
        "told",
        "after triggered",
        "convicted after",
        "paged after",
    ]
    return _table(title, [*head, "exact / part", "IoU", "false", "peak MiB"], rows)


def _false(results: Results) -> str:
    rows = []
    whole: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for (name, setting), of in _by_row(results):
        records, false = sum(r["records"] for r in of), [f for r in of for f in r["verdict"]["false"]]
        per = next((n for part, n in FALSE_IN.items() if part in name), 100_000)
        whole[per][0] += records
        whole[per][1] += len(false)
        rows.append(
            [
                name,
                setting,
                f"{records:,}",
                f"{sum(r['facts']['distinct'] for r in of):,}",
                f"{sum(bool(r['verdict']['blind']) for r in of)} of {len(of)}",
                str(len(false)),
                f"{per * len(false) / records:.2f} in {per:,}",
                str(sum(r["verdict"]["false_convicted"] for r in of)),
                str(sum(r["verdict"]["false_pages"] for r in of)),
                str(sum(len(r["verdict"]["rollbacks"]) for r in of)),
                str(max((r["told"].get("peak_mb") or 0 for r in of), default=0)),
                "; ".join(sorted({f"`{f['text']}`" for f in false}))[:300],
            ]
        )
    rows += [
        [
            "**all**",
            "",
            f"{n:,}",
            "",
            "",
            str(false),
            f"**{per * false / n:.2f} in {per:,}** (target 1)",
            "",
            "",
            "",
            "",
            "",
        ]
        for per, (n, false) in whole.items()
    ]
    head = [
        "",
        "reference@a minute",
        "records",
        "different ones",
        "blind",
        "false",
        "rate",
        "convicted",
        "pages",
        "rollbacks",
    ]
    return _table("False patterns where nobody attacks", [*head, "peak MiB", "what was told"], rows)


def _plain(name: str, results: Results) -> str:
    """Rows that tell their own figures, as `columns`."""
    rows = [[r["row"], r["setting"], str(r["seed"]), *map(str, r["columns"].values())] for r in results]
    if not rows:
        return ""
    return _table(name.capitalize(), ["", "reference@a minute", "seed", *results[0]["columns"]], rows)


def _missed(results: Results, broken: Results) -> str:
    said = []
    for r in results:
        verdict, where = r["verdict"], f"{r['row']} {r['setting']} seed {r['seed']}"
        if missed(verdict):
            triggered = [a["triggered"] for a in verdict["attacks"] if a["surfaced_after"] is None]
            enough = sum(n >= ENOUGH for n in triggered)
            why = verdict["failed"] or (f"blind ({', '.join(verdict['blind'])})" if verdict["blind"] else "not told")
            success = [a["success"] for a in verdict["attacks"]]
            said.append(f"- {where}: {str(why)[-200:]}; {enough} with {triggered} triggered records, success {success}")
        elif (due := _late(r)) is not None:
            said.append(f"- {where}: late, after {due}")
    said += [
        f"- {r['row']} {r['setting']} seed {r['seed']}: broken: {r['broken'].strip().splitlines()[-1]}" for r in broken
    ]
    return "\n**Missed or late**\n\n" + "\n".join(said or ["- nothing"])


def _late(result: dict[str, Any]) -> int | None:
    """After how many triggered records a trigger was told that should have been told before; None when it was in time."""
    for begin, most in SURFACED.items():
        if result["row"].startswith(begin):
            if begin == "conjunction" and (result["told"].get("quality") or {}).get("correlation", 0) < FIDELITY:
                return None
            after = [a["surfaced_after"] for a in result["verdict"]["attacks"]]
            convicted = [a["convicted_after"] for a in result["verdict"]["attacks"]] if begin == "patch" else []
            late = [n for n in after if n is not None and n > most]
            late += [n for n in convicted if n is not None and n > PATCH_CONVICTED]
            return max(late, default=None)
    return None


def _by_row(results: Results) -> list[tuple[tuple[str, str], Results]]:
    found: dict[tuple[str, str], Results] = defaultdict(list)
    for r in results:
        found[r["row"], r["setting"]].append(r)
    return sorted(found.items())


def _count(values: Iterable[Any]) -> int:
    return sum(value is not None for value in values)


def _within(values: Sequence[int | None], most: int) -> str:
    return f"{sum(v is not None and v <= most for v in values)} of {len(values)}"


def _after(values: Sequence[int | None]) -> str:
    """Median and most of those that were found."""
    found = [value for value in values if value is not None]
    if not found:
        return "never"
    more = "" if len(found) == len(values) else f", {len(values) - len(found)} never"
    return f"{statistics.median(found):g}, most {max(found)}{more}"


def _middle(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    low, middle, high = (form.format(of(values)) for of in _SPREAD)
    return middle if low == high else f"{middle} ({low} to {high})"


_SPREAD: tuple[Callable[[Sequence[float]], float], ...] = (min, statistics.median, max)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [f"\n**{title}**\n", f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
