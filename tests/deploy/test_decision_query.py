"""The one query of the manifests always gives exactly one of 0, 1, 2: asked of promtool for each way to be silent."""

from __future__ import annotations

import json
import random
import re
import subprocess
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.sinks.prometheus import CATALOGUE
from poisonwatch.types import Action
from tests.deploy.manifests import manifests
from tests.system.programs import tool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

KEEP, HOLD, ROLLBACK = 0, 1, 2
STEP = 15
"""Seconds between two scrapes."""

NOW = 600
SCRAPES = NOW // STEP
"""Second at which the query is asked."""

Series = dict[str, str]
"""Series in promtool's notation to their values, one every STEP seconds from second 0."""


def _queries() -> dict[str, str]:
    """The query of every manifest that has one, with the placeholders of its controller put back to `$name`."""
    found = {}
    for name, document in manifests().items():
        spec = document["spec"]
        providers = [metric["provider"] for metric in spec.get("metrics", [])]
        texts = [provider["prometheus"]["query"] for provider in providers if "prometheus" in provider]
        for text in [*texts, *([spec["query"]] if "query" in spec else [])]:
            plain = re.sub(
                r"\{\{\s*(?:args|variables)\.([a-z_-]+)\s*\}\}", lambda m: "$" + m[1].replace("-", "_"), text
            )
            found[name] = " ".join(plain.split())
    return found


QUERIES = _queries()
QUERY = next(iter(QUERIES.values())).replace("$model_version", "v2").replace("$model", "spam")


def test_there_is_one_copy_of_the_query() -> None:
    """Every manifest asks the same, and for names that the agent exports."""
    assert len(QUERIES) == 3
    assert len(set(QUERIES.values())) == 1
    assert "#" not in QUERY, "Flagger puts the query on one line: a comment would swallow the rest"
    assert set(re.findall(r"poisonwatch_\w+", QUERY)) <= set(CATALOGUE)
    assert set(re.findall(r'decision!?="(\w+)"', QUERY)) <= set(Action)
    assert set(re.findall(r"(\w+)!?=", QUERY)) == {*CATALOGUE["poisonwatch_decision"].labels}


def word(
    decision: str, values: dict[str, str] | None = None, *, target: str = 'job="pw", instance="a"', version: str = "v2"
) -> Series:
    """The three series of a version on one target; `values` replaces those of a decision."""
    return {
        f'poisonwatch_decision{{model="spam", model_version="{version}", decision="{one}", {target}}}': (
            values or {}
        ).get(one, f"{int(one == decision)}x{SCRAPES}")
        for one in ("keep", "hold", "rollback")
    }


def beat(values: str = f"0+{STEP}x{SCRAPES}", *, target: str = 'job="pw", instance="a"') -> Series:
    """The heartbeat of one target, by default on time."""
    return {f"poisonwatch_heartbeat_timestamp_seconds{{{target}}}": values}


B = 'job="pw", instance="b"'
NAN, INFINITY = (" ".join([value] * SCRAPES) for value in ("NaN", "Inf"))
STUCK = f"0+{STEP}x10 {10 * STEP}x{SCRAPES}"
"""A heartbeat that stops after 150 seconds while the HTTP thread goes on answering."""
ENDS = f"0+{STEP}x10 stale"

CASES: dict[str, tuple[Series, int]] = {
    "keep": (word("keep") | beat(), KEEP),
    "hold": (word("hold") | beat(), HOLD),
    "rollback": (word("rollback") | beat(), ROLLBACK),
    "nothing at all": ({}, HOLD),
    "an agent that does not know the version": (beat(), HOLD),
    "another version only": (word("keep", version="v1") | beat(), HOLD),
    "another version's rollback is not this one's": (word("rollback", version="v1") | word("keep") | beat(), KEEP),
    "another model only": ({k.replace("spam", "fraud"): v for k, v in word("keep").items()} | beat(), HOLD),
    "stuck on keep": (word("keep") | beat(STUCK), HOLD),
    "stuck on hold": (word("hold") | beat(STUCK), HOLD),
    "stuck on rollback": (word("rollback") | beat(STUCK), HOLD),
    "keep and rollback": (word("keep") | beat() | word("rollback", target=B) | beat(target=B), ROLLBACK),
    "hold and rollback": (word("hold") | beat() | word("rollback", target=B) | beat(target=B), ROLLBACK),
    "keep and hold": (word("keep") | beat() | word("hold", target=B) | beat(target=B), HOLD),
    "keep twice": (word("keep") | beat() | word("keep", target=B) | beat(target=B), KEEP),
    "keep and a stuck keep": (word("keep") | beat() | word("keep", target=B) | beat(STUCK, target=B), HOLD),
    "keep and a stuck rollback": (word("keep") | beat() | word("rollback", target=B) | beat(STUCK, target=B), HOLD),
    "rollback and a stuck keep": (word("rollback") | beat() | word("keep", target=B) | beat(STUCK, target=B), ROLLBACK),
    "keep and a silent rollback": (word("keep") | beat() | word("rollback", target=B), HOLD),
    "keep and an agent that does not know the version": (word("keep") | beat() | beat(target=B), KEEP),
    "a restart: the series end": ({k: f"{v[0]}x10 stale" for k, v in word("keep").items()} | beat(ENDS), HOLD),
    "a restart that is over": (
        {k: f"{v[0]}x5 stale _x10 {v[0]}x{SCRAPES}" for k, v in word("keep").items()}
        | beat(f"0+{STEP}x5 stale _x10 {17 * STEP}+{STEP}x{SCRAPES}"),
        KEEP,
    ),
    "the agent is gone": ({k: f"{v[0]}x10 stale" for k, v in word("rollback").items()} | beat(ENDS), HOLD),
    "one agent of two is gone": (
        {k: f"{v[0]}x10 stale" for k, v in word("rollback").items()}
        | beat(ENDS)
        | word("keep", target=B)
        | beat(target=B),
        KEEP,
    ),
    "an old sample without a mark that it ended": (
        {k: f"{v[0]}x28" for k, v in word("keep").items()} | beat(f"0+{STEP}x28"),
        HOLD,
    ),
    "NaN in the keep": (word("keep", {"keep": NAN}) | beat(), HOLD),
    "NaN in the rollback": (word("keep", {"rollback": NAN}) | beat(), HOLD),
    "NaN everywhere": (word("keep", dict.fromkeys(("keep", "hold", "rollback"), NAN)) | beat(), HOLD),
    "NaN for a heartbeat": (word("keep") | beat(NAN), HOLD),
    "infinity": (word("keep", {"hold": INFINITY}) | beat(INFINITY), HOLD),
    "none of the three is 1": (word("none") | beat(), HOLD),
    "keep and hold at once": (word("keep", {"hold": f"1x{SCRAPES}"}) | beat(), HOLD),
    "only part of the three": (dict([*word("hold", {"hold": f"0x{SCRAPES}"}).items()][1:]) | beat(), HOLD),
    "the same agent in two jobs": (
        word("keep")
        | beat()
        | word("keep", target='job="federate", instance="a"')
        | beat(target='job="federate", instance="a"'),
        KEEP,
    ),
    "the same agent in two jobs, one of them stuck": (
        word("keep")
        | beat()
        | word("keep", target='job="federate", instance="a"')
        | beat(STUCK, target='job="federate", instance="a"'),
        HOLD,
    ),
    "two agents under one address: federation without honor_labels": (
        word("keep", target='job="f", instance="f", exported_instance="a"')
        | beat(target='job="f", instance="f", exported_instance="a"')
        | word("keep", target='job="f", instance="f", exported_instance="b"')
        | beat(STUCK, target='job="f", instance="f", exported_instance="b"'),
        HOLD,
    ),
    "two Prometheus of one pair": (
        word("rollback", target='job="pw", instance="a", replica="0"')
        | beat(target='job="pw", instance="a", replica="0"')
        | word("rollback", target='job="pw", instance="a", replica="1"')
        | beat(target='job="pw", instance="a", replica="1"'),
        ROLLBACK,
    ),
    "decision without a heartbeat": (word("keep"), HOLD),
    "rollback without a heartbeat": (word("rollback"), HOLD),
    "a clock that is a minute ahead": (word("keep") | beat(f"60+{STEP}x{SCRAPES}"), KEEP),
    "a clock that is an hour ahead": (word("keep") | beat(f"3600+{STEP}x{SCRAPES}"), HOLD),
    "a clock that is an hour behind": (word("rollback") | beat(f"-3600+{STEP}x{SCRAPES}"), HOLD),
}


def ask(cases: list[tuple[str, Series, int]], folder: Path, query: str = QUERY) -> list[str]:
    """Names of the cases for which promtool does not get one value only, and the expected one.

    All are asked of one storage, each with names of models and jobs of its own.
    """
    inputs: list[Series] = []
    asked: list[dict[str, Any]] = []
    for number, (_, given, expected) in enumerate(cases):
        for series, values in given.items():
            name = series.replace('model="spam"', f'model="spam{number}"').replace('job="', f'job="{number}-')
            inputs.append({"series": name, "values": values})
        expression = query.replace('model="spam"', f'model="spam{number}"')
        asked.append({"expr": expression, "eval_time": f"{NOW}s", "exp_samples": [{"labels": "{}", "value": expected}]})
    test = {"interval": f"{STEP}s", "input_series": inputs, "promql_expr_test": asked}
    file = folder / "query.yaml"
    file.write_text(json.dumps({"rule_files": [], "tests": [test]}))
    done = subprocess.run([tool("promtool"), "test", "rules", file], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    failed = [name for number, (name, _, _) in enumerate(cases) if re.search(rf"\bspam{number}\b", said)]
    assert bool(failed) == ("FAILED" in said) == (done.returncode != 0), said
    return failed


def test_every_way_to_be_silent(tmp_path: Path) -> None:
    """Each case of the table has its one value."""
    assert ask([(name, given, expected) for name, (given, expected) in CASES.items()], tmp_path) == []


@dataclass(frozen=True)
class Agent:
    """What one agent exports of the version: a decision or none, and a heartbeat of this age in seconds or none."""

    decision: str | None
    age: int | None
    target: str

    def series(self) -> Series:
        """As promtool takes them."""
        told = {} if self.decision is None else word(self.decision, target=self.target)
        return told if self.age is None else told | beat(f"{-self.age}+{STEP}x{SCRAPES}", target=self.target)


def expected_of(agents: list[Agent]) -> int:
    """The rule in words of Python: a live rollback, else anything but keeps of the living, else keep."""
    knowing = [agent for agent in agents if agent.decision is not None]
    living = [agent for agent in knowing if agent.age is not None and abs(agent.age) < 120]
    if any(agent.decision == "rollback" for agent in living):
        return ROLLBACK
    return (
        KEEP if knowing and len(living) == len(knowing) and {agent.decision for agent in living} == {"keep"} else HOLD
    )


def test_any_set_of_agents(tmp_path: Path) -> None:
    """Random sets of up to five agents, by the same rule."""
    kinds = list(product((None, "keep", "hold", "rollback", "nonsense"), (None, 0, 119, -119, 120, -120, 4000)))
    rng = random.Random(6)
    met = set()
    for _ in range(8):
        cases = []
        for _ in range(25):
            places = range(rng.randrange(1, 6))
            agents = [Agent(*rng.choice(kinds), f'job="pw", instance="{place}"') for place in places]
            given = {name: values for agent in agents for name, values in agent.series().items()}
            cases.append((str(agents), given, expected_of(agents)))
        met |= {expected for _, _, expected in cases}
        assert ask(cases, tmp_path) == []
    assert met == {KEEP, HOLD, ROLLBACK}


@pytest.mark.parametrize(
    "part",
    [
        "== 1)",
        "and on (job, instance) (abs(time() - poisonwatch_heartbeat_timestamp_seconds) < 120)",
        'or (poisonwatch_decision{model="spam", model_version="v2", decision!="keep"} != 0)',
        'unless on (job, instance) poisonwatch_decision{model="spam", model_version="v2", decision="keep"}',
        "unless on (job, instance) (abs(time() - poisonwatch_heartbeat_timestamp_seconds) < 120)",
        "and on (job, instance) (abs(time() - poisonwatch_heartbeat_timestamp_seconds) >= 120)",
        "or vector(1)",
        "abs",
    ],
)
def test_no_part_of_the_query_is_idle(part: str, tmp_path: Path) -> None:
    """Without any part of it some case comes out wrong."""
    assert part in QUERY
    cases = [(name, given, expected) for name, (given, expected) in CASES.items()]
    assert ask(cases, tmp_path, QUERY.replace(part, ")" if part == "== 1)" else ""))
