"""`make bench-detection`: tables in Markdown, each figure beside its target.

`--quick` takes one seed instead of five; names of parts (pages, delays, harms, sources) run these alone.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.detection import colluders, delays, harms, pages
from benchmarks.detection.streams import CHANGES, WORLDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SEEDS = (1, 2, 3, 4, 5)
CORES = 2
TARGET_RECORDS = {"0.5 sd": 150, "0.25 sd": 300, "0.1 sd": 720, "3 % saturated": 1200}
TARGET_RATIO = 1.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parts = {"pages": _pages, "delays": _delays, "harms": _harms, "sources": _sources}
    parser.add_argument("part", nargs="*", choices=[*parts, []], help="what to measure; everything by default")
    arguments = parser.parse_args()
    seeds = SEEDS[:1] if arguments.quick else SEEDS
    print(f"Seeds: {', '.join(map(str, seeds))}.")
    with ProcessPoolExecutor(CORES) as pool:
        for name in arguments.part or parts:
            started = time.perf_counter()
            parts[name](pool, seeds)
            print(f"\n({name}: {time.perf_counter() - started:.0f} s)", flush=True)


def _pages(pool: ProcessPoolExecutor, seeds: Sequence[int]) -> None:
    runs = {world.name: [pool.submit(pages.run, world, seed) for seed in seeds] for world in WORLDS}
    found = {name: [run.result() for run in of_world] for name, of_world in runs.items()}
    tests = list(found[WORLDS[0].name][0].false)
    rows = [
        (test, *(_mean_and_most([one.false[test] for one in found[world.name]]) for world in WORLDS)) for test in tests
    ]
    _table(
        f"False pages, {pages.STREAMS} streams x {pages.DAYS} days at one record a second: mean over seeds (most). "
        "Target: at most 1",
        ("", *(world.name for world in WORLDS)),
        rows,
    )
    rows = []
    for move in pages.MOVES:
        cells = []
        for world in WORLDS:
            minutes = [value for one in found[world.name] for value in one.minutes[move]]
            cells.append(f"{_spread(minutes)} min, {_share(minutes)}")
        rows.append((f"{move} sd", *cells))
    quiet = sum(one.nothing_moved for of_world in found.values() for one in of_world)
    _table(
        f"The same, one stream moves: minutes to its page, median and 90th percentile, found in ten days (pages before: {quiet})",
        ("", *(world.name for world in WORLDS)),
        rows,
    )


def _delays(pool: ProcessPoolExecutor, seeds: Sequence[int]) -> None:
    running = [pool.submit(delays.run, seed) for seed in seeds]
    quiet = [pool.submit(delays.independent, seed) for seed in seeds]
    found = [run.result() for run in running]
    for one, (alarms, records) in zip(found, (run.result() for run in quiet), strict=True):
        one.quiet(delays.OURS, "independent", alarms, records)
    rows = []
    for name in sorted(found[0].delays, key=lambda name: name != delays.OURS):
        cells = [_per_million(found, name, stream) for stream in ("independent", "AR(0.9)", "daily cycle")]
        for change in CHANGES:
            waited = [value for one in found for value in one.delays[name][change.name]]
            cells.append(f"{_spread(waited)}{'' if _share(waited) == '100 %' else ', ' + _share(waited)}")
        rows.append((name, *cells))
    targets = ("target", "1", "1", "", *(f"{TARGET_RECORDS[change.name]}" for change in CHANGES))
    _table(
        "One stream, one alarm in a million records allowed: false alarms per million records, then records from the change "
        "to the alarm, median and 90th percentile (share found in 24,000)",
        ("", "independent", "AR(0.9)", "daily cycle", *(change.name for change in CHANGES)),
        [targets, *rows],
    )
    rows = []
    for bound in delays.bounds():
        own = [value for one in found for value in one.delays[delays.OURS][bound.change]]
        median = _quantile(own, 0.5)
        floors = (bound.both_known, bound.one_question, bound.beyond_floor)
        rows.append((bound.change, f"{median:.0f}", *(f"{of:.0f} ({median / of:.2f})" for of in floors)))
    _table(
        f"Records to the alarm beside log(10^6) / KL, and the ratio. Target of the ratio: {TARGET_RATIO}",
        ("", "median", "both laws known", "one cut, no floor", "one cut, beyond floor and reference error"),
        rows,
    )


def _harms(pool: ProcessPoolExecutor, seeds: Sequence[int]) -> None:
    slices = [pool.submit(harms.slices, seed) for seed in seeds]
    canaries = [pool.submit(harms.canary, seed) for seed in seeds]
    creeps = [pool.submit(harms.creep, seed) for seed in seeds]
    _slices([run.result() for run in slices])
    _canaries([run.result() for run in canaries])
    found = [run.result() for run in creeps]
    _table(
        f"Creep of {harms.CREEP} log-odds a day from 5 %, {harms.A_DAY:,} records a day: days until found. Target: 30",
        ("reference", "median", "90th percentile", f"found in {harms.CREEP_DAYS} days"),
        [_row(name, [value for one in found for value in one[name]]) for name in found[0]],
    )


def _sources(pool: ProcessPoolExecutor, seeds: Sequence[int]) -> None:
    found = [run.result() for run in [pool.submit(colluders.colluders, seed) for seed in seeds]]
    items = [value for one in found for value in one.items]
    honest, others = (sum(getattr(one, name) for one in found) for name in ("honest", "others"))
    _table(
        f"{colluders.COLLUDERS} coordinated sources among {colluders.HONEST:,} honest ones: labels that each gave until it was "
        "named. Target: all, 15; no honest one",
        ("", "median", "90th percentile", "found", "honest sources named", "cohorts and attributes named"),
        [(*_row("each colluder", items), str(honest), str(others))],
    )


def _slices(found: Sequence[harms.Slices]) -> None:
    days = sum(one.days for one in found)
    rows = []
    for floor in harms.SLICE_FLOORS:
        labels = [value for one in found for value in one.labels[floor]]
        false = sum(one.false[floor] for one in found)
        rows.append((f"floor {floor}", *_row("", labels)[1:], f"{false} in {days} days"))
    _table(
        f"One slice of {harms.SLICES} falls from 0.95 to 0.80: labels of that slice until its page. "
        "Target: median 150, 90th percentile 200, at most 1 false page in 30 days",
        ("", "median", "90th percentile", "found", "false pages"),
        rows,
    )


def _canaries(found: Sequence[harms.Canaries]) -> None:
    rows = []
    for floor, tempered in found[0].records:
        records = [value for one in found for value in one.records[floor, tempered]]
        name = f"floor {floor}, {'as the product' if tempered else 'design effect 1'}"
        rows.append(_row(name, records))
    effect = np.median([one.design_effect for one in found])
    runs = sum(one.null_runs for one in found)
    false = [sum(one.false[tempered] for one in found) for tempered in (True, False)]
    _table(
        f"A class from 5 % to 9.5 % on a canary with a tenth of drifting, bursty traffic: canary records until the page. "
        f"Target: 900. Design effect of that class on the reference: {effect:.1f}. False pages of the product's setting in {runs} "
        f"quiet runs of {harms.CANARY_RECORDS:,} records: {false[0]} (with design effect 1: {false[1]}; target: 0)",
        ("", "median", "90th percentile", "found in 4,000"),
        rows,
    )


def _row(name: str, values: Sequence[float]) -> tuple[str, ...]:
    return (name, _number(_quantile(values, 0.5)), _number(_quantile(values, 0.9)), _share(values))


def _per_million(found: Sequence[delays.Found], name: str, stream: str) -> str:
    if stream not in found[0].alarms[name]:
        return ""
    alarms = sum(one.alarms[name][stream] for one in found)
    records = sum(one.records[name][stream] for one in found) / 1e6
    return f"{alarms / records:,.4g} ({alarms} in {records:,.3g}M)"


def _mean_and_most(values: Sequence[int]) -> str:
    mean = float(np.mean(values))
    return f"{mean:,.0f} ({max(values):,})" if mean >= 100 else f"{mean:.3g} ({max(values):,})"


def _quantile(values: Iterable[float], q: float) -> float:
    """The smallest value that the share `q` does not exceed; infinite where too few were found."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "not found"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(values: Sequence[float]) -> str:
    return f"{_number(_quantile(values, 0.5))} / {_number(_quantile(values, 0.9))}"


def _share(values: Sequence[float]) -> str:
    return f"{np.isfinite(values).mean():.0%}".replace("%", " %")


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"\n**{title}**\n\n| {' | '.join(head)} |\n|---{'|--:' * (len(head) - 1)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
