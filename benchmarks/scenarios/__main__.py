"""`python -m benchmarks.scenarios`: the scenario table; leaves with 1 when an attack is missed or peace is broken."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.scenarios.data import NoDataError, folder
from benchmarks.scenarios.rows import ROWS
from benchmarks.scenarios.run import failed, run


def main() -> None:
    """Run the chosen rows and print the table."""
    options = _options()
    # The scenes run side by side: libraries that start threads of their own only get in each other's way.
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        folder()
    except NoDataError as error:
        sys.exit(str(error))
    results = []
    with ProcessPoolExecutor(options.jobs) as pool:
        names = options.rows or list(ROWS)
        running = {pool.submit(run, name, seed, options.rate): (name, seed) for name in names for seed in options.seeds}
        for done in as_completed(running):
            problem = done.exception()
            name, seed = running[done]
            # One scene that cannot be made must not cost the others.
            result = done.result() if problem is None else {"row": name, "seed": seed, "error": repr(problem)}
            result.setdefault("verdict", "CRASH")
            results.append(result)
            print(_line(result), file=sys.stderr, flush=True)
            results.sort(key=lambda result: (list(ROWS).index(result["row"]), result["seed"]))
            if options.json is not None:
                # After every scene: what an hour has found must not be lost with the last of it.
                options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    sys.exit(1 if any(failed(result["verdict"]) for result in results) else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scenarios", description=__doc__)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), help="Which rows; all by default.")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)), help="Which seeds; 0 to 4 by default.")
    parser.add_argument("--rate", choices=["sparse", "dense"], default="sparse", help="2.5 a minute, or 50 a second.")
    parser.add_argument("--jobs", type=int, default=2, help="Scenes at once.")
    parser.add_argument("--json", type=Path, help="Where to write everything that was found.")
    return parser.parse_args()


def _line(result: dict[str, Any]) -> str:
    """One scene, as it ends."""
    pages = [f"{p['model_version']} {p['cause']} ({p['group']})" for p in result.get("pages", [])]
    parts = [f"{result['row']} {result['seed']}: {result['verdict']}"]
    parts += [f"pages {', '.join(pages)}"] if pages else []
    parts += [f"tickets {', '.join(result['tickets'])}"] if result.get("tickets") else []
    parts += [f"margin {result['margin']:.1f}"] if "margin" in result else []
    parts += [f"{result['delay']['hours']} h"] if "delay" in result else []
    parts += [result["named"]] if result.get("named") else []
    parts += [result["error"].strip().splitlines()[-1]] if result.get("error") else []
    parts += [f"made in {result.get('made_s', '-')} s, replayed in {result.get('replayed_s', '-')} s"]
    return "; ".join(parts)


def table(results: list[dict[str, Any]]) -> str:
    """The table, in Markdown: one line a row over its seeds.

    The margin is that of `margin`: 64 means that no evidence would change the verdict, because an effect or a mark is wanting.
    The last column is the most that a group of signals reached which can page, whatever its effect was.
    """
    heads = ["row", "seeds", "expected", "verdicts", "pages", "tickets", "median delay (h; predictions; labels)"]
    heads += ["rollback", "least margin (nats)", "most evidence (nats)"]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|---|---|---|---|---|---|--:|--:|"]
    for name, row in ROWS.items():
        own = [result for result in results if result["row"] == name]
        if not own:
            continue
        expected = f"{' or '.join(sorted(row.causes))} ({row.pages})" if row.causes else "no page"
        delays = [result["delay"] for result in own if "delay" in result]
        delay = "; ".join(f"{median(d[key] for d in delays):.4g}" for key in delays[0]) if delays else ""
        pages = Counter(page["cause"] for result in own for page in result.get("pages", []))
        tickets = Counter(cause for result in own for cause in result.get("tickets", []))
        rollbacks = Counter(
            f"{back['model_version']} to {back['target']}" for result in own for back in result.get("rollbacks", [])
        )
        margins = [result["margin"] for result in own if "margin" in result]
        cells = [name, str(len(own)), expected, _counted(Counter(result["verdict"] for result in own))]
        cells += [_counted(pages), _counted(tickets), delay, _counted(rollbacks)]
        cells += [f"{min(margins):.1f}" if margins else ""]
        highest = [result["highest"] for result in own if result.get("highest") is not None]
        cells += [f"{max(highest):.1f}" if highest else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


if __name__ == "__main__":
    main()
