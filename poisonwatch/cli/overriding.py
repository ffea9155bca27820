"""The command with which a person decides instead of the agent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import click

from poisonwatch.cli.options import DATA, HTTP_FILE, UNREACHABLE, URL

if TYPE_CHECKING:
    from pathlib import Path

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
SHORTEST, LONGEST = "1m", "30d"


def seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """How long `30m`, `4h` or `2d` is; anything else is used wrongly."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})([mhd])", value, re.ASCII)
    given = int(found[1]) * UNITS[found[2]] if found else 0.0
    if not 60.0 <= given <= 30 * 86400.0:
        msg = f"{value!r} is no time between {SHORTEST} and {LONGEST}: say it like 30m, 4h or 2d"
        raise click.BadParameter(msg)
    return given


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--decision", type=click.Choice(["keep", "hold", "rollback"]), help="What holds instead.")
@click.option("--for", "for_seconds", metavar="TIME", callback=seconds, help="How long: 30m, 4h, 2d; 30d at most.")
@click.option("--author", required=True, help="Who says so: a person, for the journal.")
@click.option("--reason", required=True, help="Why, for the journal.")
@click.option(
    "--to", "target", metavar="VERSION", help="Where a rollback leads, where that is not what the agent says."
)
@click.option("--withdraw", is_flag=True, help="End the override that stands.")
@URL
@HTTP_FILE
def override(
    model: str,
    version: str,
    decision: str | None,
    for_seconds: float | None,
    author: str,
    reason: str,
    target: str | None,
    withdraw: bool,  # noqa: FBT001
    url: str,
    http_file: Path | None,
) -> int:
    """Decide for VERSION of MODEL instead of the agent, for a time; everybody sees who did, and why.

    The agent goes on watching. Exit 0 when it holds; 65 when the agent refuses; 3 where none answers.
    """
    from poisonwatch.cli.asking import Refusal, ordered
    from poisonwatch.sinks.report import printable

    if withdraw and (decision, for_seconds, target) != (None, None, None):
        msg = "--withdraw ends an override: it takes no --decision, --for and --to"
        raise click.UsageError(msg)
    if not withdraw and (decision is None or for_seconds is None):
        msg = "say what holds, and how long: --decision keep|hold|rollback --for 4h"
        raise click.UsageError(msg)
    place = f"models/{quote(model, safe='')}/versions/{quote(version, safe='')}/override"
    if withdraw:
        query = urlencode({"author": author, "reason": reason})
        found = ordered(url, "DELETE", f"{place}?{query}", None, http_file)
    else:
        wish = {"decision": decision, "author": author, "reason": reason, "expires_in_seconds": for_seconds}
        found = ordered(url, "PUT", place, wish | ({} if target is None else {"target": target}), http_file)
    if found is None:
        return UNREACHABLE
    if isinstance(found, Refusal):
        click.echo(printable(f"{url}: {found.error}"), err=True)
        return UNREACHABLE if found.status >= 500 else DATA
    if withdraw:
        click.echo(printable(f"{model} {version}: what the agent itself decides holds again"))
        return 0
    to = f" to {found['target']}" if found.get("target") else ""
    until = str(found.get("expires", ""))[:16].replace("T", " ")
    click.echo(printable(f"{model} {version}: {decision}{to} until {until} UTC, by {author}: {reason}"))
    return 0
