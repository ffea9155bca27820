"""Commands about triggers: what was found, and which records bear it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from poisonwatch.cli.options import FILE, HTTP_FILE, UNREACHABLE, URL, check_output, progress
from poisonwatch.errors import PoisonwatchError
from poisonwatch.types import PROVEN, Pattern, TriggerState

if TYPE_CHECKING:
    from pathlib import Path


class Told(msgspec.Struct):
    """What is needed of a trigger as the journal and the agent tell it. `proven` says that it was convicted, and not refuted since."""

    trigger: str
    model: str
    model_version: str
    state: TriggerState
    label: str
    pattern: Pattern
    summary: str
    proven: bool = False
    entry: dict[str, Any] = msgspec.field(default_factory=dict)


JOURNAL = click.option("--journal", type=FILE, help="Take the triggers from this journal instead of from an agent.")


@click.group(invoke_without_command=True)
@URL
@HTTP_FILE
@JOURNAL
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def triggers(
    context: click.Context,
    url: str,
    http_file: Path | None,
    journal: Path | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    """List the triggers that are open, or all that a journal tells of in their last state.

    Exit 0, also where there are none; 3 when no agent answers.
    """
    from poisonwatch.sinks.report import printable

    if context.invoked_subcommand is not None:
        if given := _given(context):
            msg = f"{given} belongs behind {context.invoked_subcommand}"
            raise click.UsageError(msg, context)
        return 0
    found = _found(context, url, http_file, journal)
    if found is None:
        return UNREACHABLE
    if as_json:
        click.echo(json.dumps([one.entry for one in found]))
        return 0
    for one in found:
        click.echo(printable(f"{one.trigger} {one.state.value}: {one.summary}"))
    if not found:
        click.echo(f"{journal}: the journal tells of no trigger" if journal else "No trigger is open.")
    return 0


@triggers.command("export")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=FILE)
@click.option(
    "--reference", required=True, type=FILE, help="The model's reference, or the trusted log it is learned from."
)
@click.option("--out", required=True, type=FILE, help="Where to write the records, one JSON object a line.")
@URL
@HTTP_FILE
@JOURNAL
@click.option("--trigger", help="Only this trigger, by its name; without it, all that were convicted and not refuted.")
@click.option("--model", help="The model, where the reference holds several.")
@click.option("--all-classes", is_flag=True, help="Also records that bear the pattern and got another class.")
@click.pass_context
def export(
    context: click.Context,
    logs: tuple[Path, ...],
    reference: Path,
    out: Path,
    url: str,
    http_file: Path | None,
    journal: Path | None,
    trigger: str | None,
    model: str | None,
    all_classes: bool,  # noqa: FBT001
) -> int:
    """Write the records of LOG... that bear a trigger, as they stand in the log, for removal from what is trained on.

    Each line is {"trigger": NAME, "record": RECORD}. How many there are of each version is told on stderr. Exit 3 when no agent answers.
    """
    from collections import Counter

    from poisonwatch.assemble import UNNAMED, learn
    from poisonwatch.config import LimitsConfig
    from poisonwatch.sinks.report import printable
    from poisonwatch.sources.suspected import Wanted, suspected

    check_output("--out", out, [*logs, reference, *([journal] if journal else [])])
    found = _found(context, url, http_file, journal)
    if found is None:
        return UNREACHABLE
    learned = learn([reference], model)
    name = model or learned.schema.model or UNNAMED
    chosen = _chosen(found, name, trigger)
    wanted = [Wanted(one.trigger, one.pattern, None if all_classes else one.label) for one in chosen]
    counts: Counter[tuple[str, str]] = Counter()
    part = out.with_name(out.name + ".part")
    with progress("export", logs) as advance, part.open("wb") as file:
        for path in logs:
            for one in suspected(path, name, learned.schema, wanted, LimitsConfig().line_bytes, advance):
                counts[one.trigger, one.model_version] += 1
                file.write(b'{"trigger":"%b","record":%b}\n' % (one.trigger.encode(), one.line))
    part.replace(out)
    for each in chosen:
        of = {version: count for (which, version), count in sorted(counts.items()) if which == each.trigger}
        told = ", ".join(f"{count} of {version}" for version, count in of.items()) or "none"
        click.echo(printable(f"{each.trigger}: {told}"), err=True)
    return 0


def _chosen(found: list[Told], model: str, trigger: str | None) -> list[Told]:
    """The triggers to export records of.

    Raises:
        PoisonwatchError: when there are none, with those that are known.
    """
    mine = [one for one in found if one.model == model]
    chosen = [one for one in mine if one.trigger == trigger or (trigger is None and one.proven)]
    if not chosen:
        what = "trigger was convicted" if trigger is None else f"trigger is called {trigger}"
        known = ", ".join(f"{one.trigger} ({one.state.value})" for one in mine) or "none"
        msg = f"no {what} for the model {model!r}; known: {known}; name one with --trigger"
        raise PoisonwatchError(msg)
    return chosen


def _given(context: click.Context) -> str:
    """The first option that somebody typed, or nothing."""
    typed = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    return next(iter(typed), "")


def _found(context: click.Context, url: str, http_file: Path | None, journal: Path | None) -> list[Told] | None:
    """What the journal or the agent tells; None, said on stderr, when no agent answers."""
    if journal is not None:
        if context.get_parameter_source("url") is ParameterSource.COMMANDLINE:
            msg = "--journal and --url are two sources of the same: give one of them"
            raise click.UsageError(msg, context)
        return _of_journal(journal)
    return _of_agent(url, http_file)


def _of_journal(path: Path) -> list[Told]:
    """Every trigger in its last state, in the order in which they were first told."""
    from poisonwatch.sinks.journal import read

    found: dict[str, Told] = {}
    for entry in read(path):
        if entry["kind"] == "trigger":
            content = {key: value for key, value in entry.items() if key not in {"seq", "prev", "hash", "kind"}}
            try:
                told = _told(content)
            except msgspec.ValidationError as error:
                msg = f"{path}: entry {entry['seq']} is no trigger as this version of poisonwatch tells it ({error})"
                raise PoisonwatchError(msg) from None
            before = found.get(told.trigger)
            ended = told.state is TriggerState.ENDED and before is not None and before.proven
            told.proven = told.state in PROVEN or ended
            found[told.trigger] = told
    return list(found.values())


def _of_agent(url: str, http_file: Path | None) -> list[Told] | None:
    from poisonwatch.cli.asking import asked

    found = asked(url, "triggers", _as_told, http_file)
    for told in found or []:
        told.proven = told.state in PROVEN
    return found


def _as_told(answer: bytes) -> list[Told]:
    """What an agent tells.

    Raises:
        MsgspecError, ValueError: when something else answered.
    """
    entries = msgspec.json.decode(answer, type=list[dict[str, Any]])
    return [_told({key: value for key, value in entry.items() if key != "kind"}) for entry in entries]


def _told(content: dict[str, Any]) -> Told:
    """A trigger as it is told.

    Raises:
        ValidationError: when it is none.
    """
    fields = {key: content[key] for key in Told.__struct_fields__ if key in content and key not in {"entry", "proven"}}
    told = msgspec.convert(fields, Told)
    told.entry = content
    return told
