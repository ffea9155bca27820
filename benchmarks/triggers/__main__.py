"""`make bench-triggers`: plays every row, seed by seed, keeps each result as a file, and prints the tables.

What was played is not played again (`--again` plays it anew), but for what broke. `--rows phrase/high conjunction`
takes the rows whose names begin so, `--list` names them all, `--tables` only prints what is there. The figures of single inputs (STRIP) are
`python -m benchmarks.triggers.strip`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.scenarios.data import NoDataError
from benchmarks.triggers import report
from benchmarks.triggers.case import NARROW, WIDE, Setting
from benchmarks.triggers.rows import rows

SEEDS = (0, 1, 2, 3, 4)
FOLDER = Path("build/triggers")


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.triggers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="*", default=[""], help="beginnings of the names of rows; all by default")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument(
        "--reference", type=int, help=f"records of the reference ({WIDE.reference} and {NARROW.reference})"
    )
    parser.add_argument("--rate", type=float, help=f"predictions a minute ({WIDE.rate:g} and {NARROW.rate:g})")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results are kept")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="play what was played before, too")
    parser.add_argument("--tables", action="store_true", help="play nothing, print what is there")
    parser.add_argument("--list", action="store_true", help="name the rows")
    arguments = parser.parse_args()
    known = rows()
    wanted = [name for name in known if any(name.startswith(given) for given in arguments.rows)]
    if arguments.list:
        print("\n".join(wanted))
        return
    if not arguments.tables:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        work = []
        for seed in arguments.seeds:
            for name in wanted:
                settings = known[name].settings
                if arguments.reference or arguments.rate:
                    settings = (Setting(arguments.reference or NARROW.reference, arguments.rate or NARROW.rate),)
                work += [(name, setting, seed) for setting in settings]
        play_all(work, arguments.folder, arguments.workers, again=arguments.again)
    print(report.tables(arguments.folder, arguments.rows))


def play_all(work: list[tuple[str, Setting, int]], folder: Path, workers: int, *, again: bool) -> None:
    """Play what has no result yet."""
    due = [one for one in work if again or not _done(place(folder, *one))]
    if workers == 1:
        for number, one in enumerate(due):
            print(f"{number + 1}/{len(due)} {play_one(*one, folder)}", flush=True)
        return
    with ProcessPoolExecutor(workers, max_tasks_per_child=1) as pool:
        running = [pool.submit(play_one, *one, folder) for one in due]
        for number, done in enumerate(as_completed(running)):
            print(f"{number + 1}/{len(due)} {done.result()}", flush=True)


def play_one(name: str, setting: Setting, seed: int, folder: Path) -> str:
    """Play one run and keep its result; what happened, in a line."""
    began = time.perf_counter()
    result: dict[str, object] = {"row": name, "setting": str(setting), "seed": seed}
    try:
        with tempfile.TemporaryDirectory(prefix="triggers-") as scratch:
            result |= rows()[name].run(setting, seed, Path(scratch))
    except NoDataError:
        raise
    except Exception:  # noqa: BLE001 - one run that breaks must not end a night of them
        result["broken"] = traceback.format_exc()
    result["seconds"] = round(time.perf_counter() - began, 1)
    path = place(folder, name, setting, seed)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(result))
    draft.replace(path)
    return f"{name} {setting} seed {seed}: {result['seconds']} s, {report.in_a_line(result)}"


def _done(path: Path) -> bool:
    """Is there a result? One that broke is none."""
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    return "broken" not in result and "crashed" not in result.get("told", {})


def place(folder: Path, name: str, setting: Setting, seed: int) -> Path:
    """Where a result is kept."""
    return folder / f"{name.replace('/', '--').replace(' ', '_')}--{setting}--{seed}.json"


if __name__ == "__main__":
    main()
