"""The command for who was woken: what is wrong, how sure that is, and what to do."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from typing import TYPE_CHECKING

import click
import msgspec

from poisonwatch.cli.options import DATA, HTTP_FILE, UNREACHABLE, URL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from poisonwatch.server.api.answers import AlertAnswer, AlertStory, DecisionAnswer

WIDEST = 100
"""Columns: longer lines are hard to read."""

MARGIN = "  "

HANGS = re.compile(r"  (- |\d+\. |[a-z]+  +|)")
"""Below what a line goes on: a dash, a number, a key, or the margin."""


@click.command()
@click.argument("what", metavar="FINGERPRINT|MODEL|MODEL/VERSION")
@URL
@HTTP_FILE
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the alert's story, or a list of decisions.")
def explain(what: str, url: str, http_file: Path | None, as_json: bool) -> int:  # noqa: FBT001
    """Tell the story of an alert, a model or a version: what happens, why we think so, what to do.

    Exit 0; 65 where nothing is called so, with what there is; 3 where no agent answers.
    """
    from poisonwatch.cli.asking import asked
    from poisonwatch.server.api.answers import AlertAnswer, AlertStory, DecisionAnswer

    decisions = asked(
        url, "decisions", lambda answer: msgspec.json.decode(answer, type=list[DecisionAnswer]), http_file
    )
    if decisions is None:
        return UNREACHABLE
    alerts = asked(url, "alerts", lambda answer: msgspec.json.decode(answer, type=list[AlertAnswer]), http_file)
    if alerts is None:
        return UNREACHABLE
    if any(alert.fingerprint == what for alert in alerts):
        read = msgspec.json.Decoder(AlertStory).decode
        story = asked(url, f"alerts/{what}", read, http_file)
        if story is None:
            return UNREACHABLE
        _print(_of_alert(story)) if not as_json else click.echo(msgspec.json.encode(story))
        return 0
    # A name may hold a slash itself: all that may be meant is told.
    chosen = [one for one in decisions if what in {one.model, f"{one.model}/{one.model_version}"}]
    if not chosen:
        _print(_unknown(what, decisions, alerts), err=True)
        return DATA
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(chosen)))
        return 0
    for number, one in enumerate(sorted(chosen, key=lambda one: -one.code)):
        named = [
            alert for alert in alerts if alert.model == one.model and alert.model_version in {None, one.model_version}
        ]
        _print([*([""] if number else []), *_of_decision(one), *_of_alerts(named)])
    return 0


def _of_alert(story: AlertStory) -> Iterator[str]:
    """An alert, then the decision that rests on it."""
    yield from _of_alerts([story.alert])
    for one in story.decisions:
        yield ""
        yield from _of_decision(one)
    if not story.decisions:
        yield from _listed("What to do", story.next, numbered=True)


def _of_decision(one: DecisionAnswer) -> Iterator[str]:
    """What to do, what happens, since when, for how many; then why."""
    target = f" to {one.target}" if one.target else ""
    yield f"{one.model} {one.model_version}: {one.decision.value.upper()}{target} ({_words(one.reason.value)})"
    yield ""
    yield f"{MARGIN}{one.summary}"
    yield ""
    if one.onset is not None:
        yield f"{MARGIN}began     {_minute(one.onset)}"
    yield f"{MARGIN}decided   {_minute(one.since)}"
    if touched := _affected(one):
        yield f"{MARGIN}affected  {touched}"
    if one.rollback is not None:
        yield f"{MARGIN}rollback  {one.rollback.state.value}: {one.rollback.summary}"
    if one.override is not None:
        by = f"{one.override.author}, until {_minute(one.override.expires)}"
        yield f"{MARGIN}override  {one.override.decision.value} by {by}: {one.override.reason}"
    yield from _listed("What to do", one.next, numbered=True)
    yield from _listed("What speaks for it", one.speaks_for)
    yield from _listed("What speaks against it", one.against)
    yield from _listed("What was ruled out", one.ruled_out)
    if one.target_because:
        yield from _listed(f"Why {one.target}", [one.target_because])
    yield from _listed("What would change it", one.would_change)


def _of_alerts(alerts: Iterable[AlertAnswer]) -> Iterator[str]:
    told = [
        f"{alert.fingerprint}, {alert.severity.value} {alert.state.value}, cause {_words(alert.cause.value)}, since "
        f"{_minute(alert.onset)}: {alert.summary} Runbook: docs/runbooks/{alert.runbook}.md."
        for alert in alerts
    ]
    yield from _listed("Open alerts" if len(told) > 1 else "Open alert", told)


def _listed(head: str, said: Iterable[str], *, numbered: bool = False) -> Iterator[str]:
    said = list(said)
    if said:
        yield ""
        yield head
        yield from (f"{MARGIN}{f'{number}.' if numbered else '-'} {one}" for number, one in enumerate(said, 1))


def _affected(one: DecisionAnswer) -> str:
    share, count = one.affected.share, one.affected.predictions
    part = "" if share is None else f"{share:.1%} of its predictions since then"
    return ", ".join(told for told in (part, "" if count is None else f"{count} so far") if told)


def _unknown(what: str, decisions: list[DecisionAnswer], alerts: list[AlertAnswer]) -> Iterator[str]:
    yield f"{what}: no open alert, no model and no version that was judged is called so. There are:"
    for one in decisions:
        yield f"{MARGIN}{one.model}/{one.model_version}  {one.decision.value}"
    for alert in alerts:
        about = " ".join(filter(None, (alert.model, alert.model_version)))
        yield f"{MARGIN}{alert.fingerprint}  {alert.severity.value} {alert.state.value}: {about}, {_words(alert.cause.value)}"
    if not decisions and not alerts:
        yield f"{MARGIN}none yet: the first window is still open"


def _print(said: Iterable[str], *, err: bool = False) -> None:
    """Lines as wide as the terminal; what goes on stands below its beginning. Names in them come from logs."""
    from poisonwatch.sinks.report import printable

    width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    for line in said:
        text = printable(line)
        mark = HANGS.match(text)
        hanging = " " * (mark.end() if mark else 0)
        folded = textwrap.wrap(text, width, subsequent_indent=hanging, break_on_hyphens=False) or [""]
        for part in folded:
            click.echo(part, err=err)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _minute(instant: str) -> str:
    return f"{instant[:16].replace('T', ' ')} UTC"
