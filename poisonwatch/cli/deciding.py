"""The command that a script asks: what is the decision?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from poisonwatch.cli.options import HTTP_FILE, UNREACHABLE, URL

if TYPE_CHECKING:
    from pathlib import Path

ADVICE = ("keep", "hold", "rollback")
"""By exit code."""


@click.command()
@URL
@click.option("--model", help="Only this model.")
@click.option("--model-version", help="Only this version.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@HTTP_FILE
def decision(
    url: str,
    model: str | None,
    model_version: str | None,
    as_json: bool,  # noqa: FBT001
    http_file: Path | None,
) -> int:
    """Print the current decision of a running agent.

    Exit 0 keep, 1 hold, 2 rollback, 3 unreachable. Of several models and versions the worst counts. What has no
    decision yet counts as hold.
    """
    from poisonwatch.cli.asking import asked
    from poisonwatch.sinks.report import printable

    found = asked(url, "decisions", advice, http_file)
    if found is None:
        return UNREACHABLE
    chosen = [d for d in found if model in {None, d["model"]} and model_version in {None, d["model_version"]}]
    if as_json:
        click.echo(json.dumps(chosen))
    for one in [] if as_json else chosen:
        target = f" to {one['target']}" if one["target"] else ""
        told = f"{one['model']} {one['model_version']}: {one['decision']}{target} ({one['reason']}). {one['summary']}"
        click.echo(printable(told))
    if not chosen:
        click.echo("hold: the agent has no decision for this yet", err=True)
        return 1
    return max(ADVICE.index(one["decision"]) for one in chosen)


def advice(answer: bytes) -> list[dict[str, Any]]:
    """Decisions as an agent tells them.

    Raises:
        ValueError: when something else answered.
    """
    found = json.loads(answer)
    needed = {"model", "model_version", "decision", "target", "reason", "summary"}
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and needed <= set(one) and one["decision"] in ADVICE for one in found
    ):
        msg = "what answers there is no poisonwatch"
        raise ValueError(msg)
    return found
