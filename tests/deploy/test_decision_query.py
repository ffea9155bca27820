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
    from collections.abc import Callable
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
ANY = ".*"
"""What a user puts who has no such label, or wants all."""


def query_of(*, namespace: str = ANY, cluster: str = ANY) -> str:
    """The query for one version, where the words of these environments count."""
    text = next(iter(QUERIES.values()))
    values = {"$model_version": "v2", "$model": "spam", "$namespace": namespace, "$cluster": cluster}
    for name, value in values.items():
        text = text.replace(name, value)
    return text


QUERY = query_of()


def test_there_is_one_copy_of_the_query() -> None:
    """Every manifest asks the same, and for names that the agent exports."""
    assert len(QUERIES) == 3
    assert len(set(QUERIES.values())) == 1
    assert "#" not in QUERY, "Flagger puts the query on one line: a comment would swallow the rest"
    assert set(re.findall(r"poisonwatch_\w+", QUERY)) <= set(CATALOGUE)
    assert set(re.findall(r'decision!?="(\w+)"', QUERY)) <= set(Action)
    labels = {*CATALOGUE["poisonwatch_decision"].labels, "cluster", "namespace"}
    assert set(re.findall(r"(\w+)!?=", QUERY)) == labels
    narrowed = r'poisonwatch_decision\{model="spam", model_version="v2", cluster=~"\.\*", namespace=~"\.\*"[,}]'
    assert len(re.findall(narrowed, QUERY)) == QUERY.count("poisonwatch_decision")
    assert "$" not in QUERY


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


def at(place: str, decision: str, heartbeat: str = f"0+{STEP}x{SCRAPES}") -> Series:
    """What one agent says that has further labels; job and address are the same everywhere."""
    target = f'job="pw", instance="10.0.0.5:9787", {place}'
    return (word(decision, target=target) if decision else {}) | beat(heartbeat, target=target)


STAGING, PROD = 'namespace="staging"', 'namespace="prod"'
EAST, WEST = 'cluster="east", namespace="prod"', 'cluster="west", namespace="prod"'
ALL, OF_PROD, OF_WEST = query_of(), query_of(namespace="prod"), query_of(namespace="prod", cluster="west")

PLACES: dict[str, tuple[Series, dict[str, int]]] = {
    "staging keeps, the agent of production is dead": (
        at(STAGING, "keep") | {f'up{{job="pw", {PROD}}}': f"0x{SCRAPES}"},
        {OF_PROD: HOLD, ALL: KEEP},
    ),
    "staging keeps, the agent of production does not know the version": (
        at(STAGING, "keep") | at(PROD, ""),
        {OF_PROD: HOLD, ALL: KEEP},
    ),
    "staging rolls back, production keeps": (
        at(STAGING, "rollback") | at(PROD, "keep"),
        {OF_PROD: KEEP, ALL: ROLLBACK},
    ),
    "production rolls back, staging keeps": (
        at(STAGING, "keep") | at(PROD, "rollback"),
        {OF_PROD: ROLLBACK, OF_WEST: HOLD},
    ),
    "staging is stuck on rollback, production keeps at the same address": (
        at(STAGING, "rollback", STUCK) | at(PROD, "keep"),
        {OF_PROD: KEEP, ALL: HOLD},
    ),
    "the east is stuck on rollback, the west keeps at the same address": (
        at(EAST, "rollback", STUCK) | at(WEST, "keep"),
        {ALL: HOLD, OF_PROD: HOLD, OF_WEST: KEEP},
    ),
    "the east is stuck on rollback, the west lives at the same address and does not know the version": (
        at(EAST, "rollback", STUCK) | at(WEST, ""),
        {ALL: HOLD, OF_PROD: HOLD, OF_WEST: HOLD},
    ),
    "the east is stuck on keep, the west lives at the same address and does not know the version": (
        at(EAST, "keep", STUCK) | at(WEST, ""),
        {ALL: HOLD, OF_PROD: HOLD, OF_WEST: HOLD},
    ),
    "the east rolls back, the west keeps": (
        at(EAST, "rollback") | at(WEST, "keep"),
        {ALL: ROLLBACK, OF_PROD: ROLLBACK, OF_WEST: KEEP},
    ),
    "an agent without such labels": (word("keep") | beat(), {ALL: KEEP, OF_PROD: HOLD, OF_WEST: HOLD}),
    "a namespace whose name only begins so": (
        at('namespace="prod-like"', "keep"),
        {ALL: KEEP, OF_PROD: HOLD},
    ),
}
"""Agents in several environments to what each query makes of them."""


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


def wrong_places(folder: Path, change: Callable[[str], str] = str) -> list[str]:
    """Names of the cases of several environments that come out wrong where the queries are changed so."""
    wrong = []
    for query in (ALL, OF_PROD, OF_WEST):
        cases = [(name, given, expected[query]) for name, (given, expected) in PLACES.items() if query in expected]
        wrong += ask(cases, folder, change(query))
    return wrong


def test_no_environment_speaks_for_another(tmp_path: Path) -> None:
    """Only the agents of the named environment count, and a heartbeat only for its own agent."""
    assert wrong_places(tmp_path) == []


@pytest.mark.parametrize("part", ["cluster, ", "namespace, ", r'cluster=~"[^"]*", ', r', namespace=~"[^"]*"'])
def test_an_environment_is_told_by_each_of_its_labels(part: str, tmp_path: Path) -> None:
    """Without one of them in the joins, or in the selectors, another environment's word is taken."""
    assert wrong_places(tmp_path, lambda query: re.sub(part, "", query))


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
    """Random sets of up to five agents in one or several environments, by the same rule."""
    kinds = list(product((None, "keep", "hold", "rollback", "nonsense"), (None, 0, 119, -119, 120, -120, 4000)))
    rng = random.Random(6)
    met = set()
    environments = list(product(("", "prod", "staging"), ("", "east", "west")))
    everywhere = [(instance, *environment) for instance in range(3) for environment in environments]
    for named in (*[("", "")] * 4, ("prod", ""), ("", "west"), ("prod", "west"), ("staging", "east")):
        cases = []
        for _ in range(25):
            agents, counting = [], []
            # Each is one of few, so that two often share an address, or an environment.
            for instance, *environment in rng.sample(everywhere, rng.randrange(1, 6)):
                labels = "".join(
                    f', {label}="{value}"'
                    for label, value in zip(("namespace", "cluster"), environment, strict=True)
                    if value
                )
                agents.append(Agent(*rng.choice(kinds), f'job="pw", instance="{instance}"{labels}'))
                if all(name in ("", value) for name, value in zip(named, environment, strict=True)):
                    counting.append(agents[-1])
            given = {name: values for agent in agents for name, values in agent.series().items()}
            cases.append((str(agents), given, expected_of(counting)))
        met |= {expected for _, _, expected in cases}
        assert ask(cases, tmp_path, query_of(namespace=named[0] or ANY, cluster=named[1] or ANY)) == []
    assert met == {KEEP, HOLD, ROLLBACK}


SAME_AGENT = "on (cluster, namespace, job, instance)"
VERSION = 'poisonwatch_decision{model="spam", model_version="v2", cluster=~".*", namespace=~".*"'


@pytest.mark.parametrize(
    "part",
    [
        "== 1)",
        f"and {SAME_AGENT} (abs(time() - poisonwatch_heartbeat_timestamp_seconds) < 120)",
        f'or ({VERSION}, decision!="keep"}} != 0)',
        f'unless {SAME_AGENT} {VERSION}, decision="keep"}}',
        f"unless {SAME_AGENT} (abs(time() - poisonwatch_heartbeat_timestamp_seconds) < 120)",
        f"and {SAME_AGENT} (abs(time() - poisonwatch_heartbeat_timestamp_seconds) >= 120)",
        "or vector(1)",
        "abs",
    ],
)
def test_no_part_of_the_query_is_idle(part: str, tmp_path: Path) -> None:
    """Without any part of it some case comes out wrong."""
    assert part in QUERY
    cases = [(name, given, expected) for name, (given, expected) in CASES.items()]
    assert ask(cases, tmp_path, QUERY.replace(part, ")" if part == "== 1)" else ""))
