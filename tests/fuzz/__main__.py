"""`make fuzz`: every target under atheris for FUZZ_SECONDS, each in a process of its own; or `python -m tests.fuzz TARGET`.

What breaks a target is left in `.fuzz/TARGET/`, and `python -m tests.fuzz TARGET FILE` runs it again.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

LONGEST_INPUT = 1 << 14
SLOWEST = 20
"""Seconds that one input may take on a busy machine: each is small."""

MEMORY = 768
"""Megabytes of a target: what the agent may take, and what atheris takes."""

FOLDER = Path(__file__).parents[2] / ".fuzz"


class Fuzzed(NamedTuple):
    """How a run of one target ended."""

    target: str
    code: int
    executions: int
    seconds: float
    coverage_at_first: int
    coverage: int
    corpus: int
    output: str


def fuzz(name: str, seconds: int, seed: int = 1, folder: Path = FOLDER) -> Fuzzed:
    """Run one target for so long. The corpus in `folder` grows from run to run."""
    home = folder / name
    corpus, found = home / "corpus", home / "found"
    for place in (corpus, found):
        place.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-seed={seed}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    # By way of a shell: the peak of memory outlives an exec, so a child of this process would begin with ours.
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "tests.fuzz", name, *options, str(corpus)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds + 300,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    coverage = [int(one) for one in re.findall(r"\bcov: (\d+)", done.stderr)]
    sizes = re.findall(r"\bcorp: (\d+)", done.stderr)
    ran = re.findall(r"Done (\d+) runs in (\d+) second", done.stderr)
    executions, took = ran[-1] if ran else ("0", "0")
    return Fuzzed(
        name,
        done.returncode,
        int(executions),
        float(took),
        coverage[0] if coverage else 0,
        coverage[-1] if coverage else 0,
        int(sizes[-1]) if sizes else 0,
        done.stdout + done.stderr,
    )


def _one(name: str, arguments: list[str]) -> None:
    """Be the process of one target."""
    import atheris  # noqa: PLC0415 - only this process is instrumented

    with atheris.instrument_imports(include=["poisonwatch"]):
        from tests.fuzz.mutation import mutated  # noqa: PLC0415 - what is imported here is instrumented
        from tests.fuzz.targets import target  # noqa: PLC0415 - same

        found = target(name)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        # Half of the time as atheris does it, byte by byte.
        if found.structured and seed % 2:
            return mutated(data, random.Random(seed))[:most]
        return bytes(atheris.Mutate(data, most))

    corpus = Path(arguments[-1])
    if corpus.is_dir():
        for number, seed in enumerate(found.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *arguments], found.run, custom_mutator=mutate)
    atheris.Fuzz()


def _all(seconds: int) -> int:
    from tests.fuzz.targets import NAMES  # noqa: PLC0415 - not for the process of one target

    print(f"{'target':18}{'runs/s':>10}{'runs':>10}{'coverage':>16}{'corpus':>8}")  # noqa: T201
    failed = 0
    for name in NAMES:
        done = fuzz(name, seconds)
        growth = f"{done.coverage_at_first} -> {done.coverage}"
        rate = done.executions / max(done.seconds, 1.0)
        print(f"{name:18}{rate:10,.0f}{done.executions:10,}{growth:>16}{done.corpus:8}", flush=True)  # noqa: T201
        if done.code:
            failed += 1
            print(done.output[-4000:])  # noqa: T201
    shutil.rmtree(FOLDER / "tmp", ignore_errors=True)
    return min(failed, 1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _one(sys.argv[1], sys.argv[2:])
    else:
        sys.exit(_all(int(os.environ.get("FUZZ_SECONDS", "60"))))
