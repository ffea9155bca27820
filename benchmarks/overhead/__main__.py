"""What the agent costs the server beside it: the same server, on the same cores, alone and with the agent at its log.

Rounds alternate, each with the ways in another order, so that what else the machine does falls on all of them. The table has the median of
the rounds, and of each round's difference from `alone` the mean with a 95 % interval (bootstrap over rounds).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from tests.system.programs import Program, fetch, free_port, poisonwatch, wait_for
from tests.system.servers import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS, SECONDS = 8, 8.0
RATES = (100.0, 1000.0)
"""Requests a second; those that the server does not reach are left out, and as many as it answers are asked as well."""
WAYS = {"alone": None, "with the agent": (), "with the agent, nice 5": ("nice", "-n", "5")}
LEARNED = 3000
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(process: int) -> float:
    """CPU seconds of a process and of all below it."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(stat.parent.name)
        parents[number], used[number] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS

    def is_ours(number: int) -> bool:
        return number == process or (number in parents and is_ours(parents[number]))

    return sum(seconds for number, seconds in used.items() if is_ours(number))


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[tuple[int, int]]:
    """BentoML with the model: its port and its process."""
    port = free_port()
    start = "from bentoml_cli.cli import cli; cli()"
    command = [
        environment("bentoml"),
        "-c",
        start,
        "serve",
        "service:Tumours",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    told = {"PREDICTION_LOG": str(log), "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder / "bentoml")}
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    variables = [f"{name}={value}" for name, value in {**kept, **told}.items()]
    program = Program(["env", "-i", *variables, *command], Path(__file__).parent)
    program.start()
    try:
        for worker in (1, 2):
            program.said(rf":{worker}\] Service Tumours initialized")
        yield port, program.process.pid
    finally:
        program.process.terminate()
        program.ends()


@contextmanager
def watching(folder: Path, nice: tuple[str, ...]) -> Iterator[int]:
    """The agent at the log, from nothing: its process."""
    for state in folder.glob("agent.*"):
        state.unlink()
    program = Program([*nice, *poisonwatch("run", "--config", "config.yaml")], folder)
    program.start()
    try:
        address = program.said(r"listening.*\baddress=(\S+)")[1]
        wait_for("a scrape", lambda: "poisonwatch_heartbeat" in fetch(f"http://{address}/metrics"))
        yield program.process.pid
    finally:
        program.close()


def loaded(port: int, rate: float, seconds: float) -> dict[str, float]:
    """Ask the server from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.overhead.load", str(port), str(rate), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def configured(folder: Path, log: Path) -> None:
    """A reference from what the server answered until now, and a configuration beside it."""
    trusted = folder / "trusted.ndjson"
    trusted.write_bytes(log.read_bytes())
    made = poisonwatch("reference", "build", str(trusted), "--out", str(folder / "reference.json"))
    subprocess.run(made, check=True, capture_output=True)
    told = {
        "models": [{"name": "tumours", "reference": "reference.json"}],
        "sources": [{"path": str(log)}],
        "state": {"checkpoint": "agent.checkpoint", "journal": "agent.journal"},
        "web": {"listen_address": f"127.0.0.1:{free_port()}"},
    }
    (folder / "config.yaml").write_text(json.dumps(told))


def measured(
    folder: Path, log: Path, server: tuple[int, int], rate: float, nice: tuple[str, ...] | None
) -> dict[str, float]:
    """One way for some seconds: what `loaded` says, and the share of a core that the server and the agent took."""
    port, process = server
    # The server goes on writing at the end of an empty file; no agent runs that could take it for another.
    os.truncate(log, 0)
    with nullcontext() if nice is None else watching(folder, nice) as agent:
        loaded(port, rate, 1.0)
        began, of_server, of_agent = time.monotonic(), cpu(process), cpu(agent) if agent else 0.0
        found = loaded(port, rate, SECONDS)
        took = time.monotonic() - began
        found["server_cores"] = (cpu(process) - of_server) / took
        found["agent_cores"] = ((cpu(agent) if agent else 0.0) - of_agent) / took
    return found


def interval(differences: list[float]) -> str:
    """Mean of paired differences, with the 95 % interval of its bootstrap."""
    drawn = np.random.default_rng(1).choice(differences, (10_000, len(differences))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{statistics.mean(differences):+.1%} ({low:+.1%} to {high:+.1%})"


def rows(found: dict[str, list[dict[str, float]]], rate: float) -> Iterator[str]:
    """The lines of the table for one rate."""
    alone = found["alone"]
    for way, rounds in found.items():
        middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        cells = [f"{rate:.0f}/s" if rate else "most", way, f"{middle['per_second']:.0f}"]
        cells += [f"{middle[name]:.1f}" for name in ("p50_ms", "p99_ms")]
        cells += [f"{middle['server_cores']:.2f}", f"{middle['agent_cores']:.3f}"]
        for name in ("per_second", "p99_ms"):
            paired = [one[name] / other[name] - 1 for one, other in zip(rounds, alone, strict=True)]
            cells.append("" if way == "alone" else interval(paired))
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "predictions.ndjson"
        with serving(folder, log) as server:
            # The first seconds of a server are not its usual ones.
            loaded(server[0], 0, 3.0)
            os.truncate(log, 0)
            while log.read_bytes().count(b"\n") < LEARNED:
                loaded(server[0], 0, 2.0)
            configured(folder, log)
            print("| asked | | answered/s | p50 ms | p99 ms | server, cores | agent, cores | throughput | p99 |")
            print("|---|---|---|---|---|---|---|---|---|")
            most = loaded(server[0], 0, 5.0)["per_second"]
            for rate in [*(rate for rate in RATES if rate < 0.9 * most), 0.0]:
                found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
                for number in range(ROUNDS):
                    ways = [*WAYS][number % len(WAYS) :] + [*WAYS][: number % len(WAYS)]
                    for way in ways if number % 2 else reversed(ways):
                        found[way].append(measured(folder, log, server, rate, WAYS[way]))
                print("\n".join(rows(found, rate)), flush=True)


if __name__ == "__main__":
    main()
