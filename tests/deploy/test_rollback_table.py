"""The table of docs/rollback.md is what the plays give.

After a change of a manifest, write it anew with `POISONWATCH_REWRITE_DOCS=1 .venv/bin/pytest tests/deploy/test_rollback_table.py`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from tests.deploy.controllers import Argo, End, Flagger
from tests.deploy.manifests import DEPLOY, documents
from tests.deploy.situations import STORIES, world

if TYPE_CHECKING:
    from tests.deploy.controllers import Answers, Outcome

PAGE = DEPLOY.parent / "docs" / "rollback.md"
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)
LONG = 500


def _time(seconds: int) -> str:
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if n)


def _told(outcome: Outcome) -> str:
    if outcome.end is End.WAITING:
        return f"waits at {outcome.weight} %"
    told = outcome.end.value if outcome.end is End.PAUSED else f"**{outcome.end.value}**"
    return f"{told} after {_time(outcome.seconds)}"


def _argo(kind: str, name: str) -> str:
    templates = documents(DEPLOY / "argo-rollouts" / f"analysis-{kind}.yaml")
    [rollout] = documents(DEPLOY / "argo-rollouts" / f"rollout-{kind}.yaml")
    by_name = {template["metadata"]["name"]: template for template in templates}
    return _told(Argo(rollout, by_name).play(world(STORIES[name]), LONG))


def _flagger(file: str, name: str) -> str:
    [canary] = documents(DEPLOY / "flagger" / file)
    return _told(Flagger(canary).play(world(STORIES[name]), LONG))


def _answered(answers: Answers) -> str:
    """Query, decision API, gate and rollback in a few signs."""
    query = "error" if answers.query is None else ", ".join(f"{value:g}" for value in answers.query) or "nothing"
    statuses = (answers.decision and answers.decision[0], answers.gate, answers.rollback)
    return " / ".join([query.replace("nan", "NaN"), *(str(status or "none") for status in statuses)])


def _row(name: str) -> str:
    answered = list(dict.fromkeys(_answered(STORIES[name](check).value) for check in range(LONG)))
    outcomes = [
        _argo("prometheus", name),
        _argo("web", name),
        _flagger("canary.yaml", name),
        _flagger("canary-metric.yaml", name),
    ]
    return f"| {name} | {' or '.join(answered)} | {' | '.join(outcomes)} |"


def test_the_table_is_what_controllers_do() -> None:
    """Each situation with our answers and what becomes of the rollout."""
    head = "| situation | query / decision / gate / rollback | Argo, Prometheus | Argo, web | Flagger, hooks | Flagger, metric |"
    table = "\n".join([head, "|---|---|---|---|---|---|", *map(_row, STORIES)]) + "\n"
    text = PAGE.read_text()
    assert TABLE.search(text), f"{PAGE.name} has no table"
    expected = TABLE.sub(lambda _: table, text)
    if os.environ.get("POISONWATCH_REWRITE_DOCS"):
        PAGE.write_text(expected)
    assert PAGE.read_text() == expected
