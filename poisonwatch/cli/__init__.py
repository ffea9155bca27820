"""The command line: thin, every command a few lines over the library.

Exit codes: 0 done; 64 the command was used wrongly; 65 a file given to it is wrong; 70 a defect of poisonwatch.
`decision` answers 0 keep, 1 hold, 2 rollback; commands that ask an agent leave with 3 where none answers.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from poisonwatch import __version__
from poisonwatch.cli.deciding import decision
from poisonwatch.cli.explaining import explain
from poisonwatch.cli.options import (
    DATA,
    DEFAULT_ADDRESS,
    FILE,
    WRITTEN,
    check_output,
    checked_address,
    checked_signature,
    format_of,
    progress,
)
from poisonwatch.cli.overriding import override
from poisonwatch.cli.triggers import triggers
from poisonwatch.errors import PoisonwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poisonwatch.config.formats import FormatConfig
    from poisonwatch.reference.audit import Signature

USAGE, SOFTWARE, INTERRUPTED = 64, 70, 130
COMPLETE = "_POISONWATCH_COMPLETE"
"""The variable by which a shell asks for completions."""
# A sidecar leaves the cores to the model: matrix products are small here, and threads that wait for a busy core make them
# slower. Whoever sets it otherwise is obeyed; NumPy reads it when a command first imports it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = cli.main(standalone_mode=False, prog_name="poisonwatch", complete_var=COMPLETE)
    except click.UsageError as error:
        error.show()
        code = USAGE
    except click.Abort:
        code = INTERRUPTED
    except PoisonwatchError as error:
        click.echo(str(error), err=True)
        code = DATA
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        click.echo(f"{error.filename or 'poisonwatch'}: {error.strerror or error}", err=True)
        code = DATA
    except Exception:  # noqa: BLE001 - a crash must not leave with a code that means `hold`
        traceback.print_exc()
        code = SOFTWARE
    sys.exit(code if isinstance(code, int) else 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="poisonwatch %(version)s")
def cli() -> None:
    """Watch the predictions of a model in production for signs of poisoning.

    poisonwatch reads a model's prediction log, compares it with a trusted reference, and says `keep`, `hold` or
    `rollback` for each model version, under one budget of false pages.
    """


@cli.command()
@click.option("--config", "config_path", type=FILE, required=True, help="The YAML configuration.")
@click.option(
    "--web.listen-address",
    "address",
    metavar="HOST:PORT",
    callback=checked_address,
    help="Overrides web.listen_address.",
)
@click.option(
    "--web.config.file",
    "web_file",
    type=FILE,
    help="TLS and passwords, in the format of Prometheus' exporter-toolkit; overrides web.config_file.",
)
@click.option(
    "--log.level",
    "level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least severity that is logged.",
)
@click.option(
    "--log.format",
    "log_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How a log line is written.",
)
def run(config_path: Path, address: str | None, web_file: Path | None, level: str, log_format: str) -> None:
    """Watch the configured logs until stopped (the sidecar)."""
    from poisonwatch.agent import run as run_loop
    from poisonwatch.agent.clocks import WallClock
    from poisonwatch.assemble import sidecar
    from poisonwatch.config import load
    from poisonwatch.server.access import check_exposure, tokened
    from poisonwatch.server.ingest import routes
    from poisonwatch.server.thread import Server
    from poisonwatch.sinks.supervisor import Supervisor

    log = _log(level, log_format)
    supervisor = Supervisor()
    config = load(config_path)
    address = address or config.web.listen_address
    web_file = web_file or config.web.config_file
    check_exposure(address, config.sources, web_file)
    app, doors = sidecar(config, lambda entry: log.info(entry["kind"], **_short(entry)))
    server = Server(
        address,
        app.published,
        routes=routes(doors),
        web_file=web_file,
        tokened=tokened(config.sources),
        orders=app.orders,
    )
    stop = _stop_on_signals()

    def stopped() -> bool:
        supervisor.turned()
        return stop()

    server.start()
    log.info("listening", address=server.address)
    try:
        run_loop(app, WallClock(), stopped)
    finally:
        supervisor.stopping()
        server.close()
    log.info("stopped")


@cli.command()
@click.argument("predictions", nargs=-1, required=True, type=FILE)
@click.option("--reference", required=True, type=FILE, help="A trusted log to learn from, or a built reference.")
@click.option("--feedback", multiple=True, type=FILE, help="Labels that came back later; may be given repeatedly.")
@click.option("--journal", type=FILE, help="Write alerts and decisions to this file, one JSON object a line.")
@click.option("--report", type=click.Path(path_type=str), help="Write a JSON report to this file, or - for stdout.")
@click.option("--model", help="The model to watch, where the reference holds several.")
@WRITTEN
@click.option(
    "--config", "config_path", type=FILE, help="Take `detection` and the format of the logs from this configuration."
)
def replay(
    predictions: tuple[Path, ...],
    reference: Path,
    feedback: tuple[Path, ...],
    journal: Path | None,
    report: str | None,
    model: str | None,
    written: FormatConfig | None,
    config_path: Path | None,
) -> None:
    """Play finished logs through the agent, by their own time, and say what it would have said.

    The schema is learned from the reference; no configuration is needed. Logs are lines of JSON or of a server's own format,
    CSV (.csv) or Parquet (.parquet); lines and CSV may be compressed (.gz, .zst).
    """
    from poisonwatch import offline
    from poisonwatch.assemble import learn
    from poisonwatch.config import DetectionConfig, load
    from poisonwatch.sinks.report import in_words

    _log("warning", "text")
    out = None if report in {None, "-"} else Path(str(report))
    inputs = [*predictions, *feedback, reference, *([config_path] if config_path else [])]
    check_output("--journal", journal, inputs)
    check_output("--report", out, [*inputs, *([journal] if journal else [])])
    config = load(config_path) if config_path else None
    format_ = format_of(written, config)
    with progress("reference", [reference]) as advance:
        learned = learn([reference], model, advance, written=format_)
    _say_blind(learned.blind)
    with progress("replay", [*predictions, *feedback]) as advance:
        found = offline.replay(
            predictions,
            reference=learned,
            feedback=feedback,
            format=format_,
            detection=config.detection if config else DetectionConfig(),
            journal=journal,
            progress=advance,
        )
    if report == "-":
        click.echo(json.dumps(found.report))
    else:
        if out is not None:
            out.write_text(json.dumps(found.report) + "\n")
        click.echo(in_words(found.report))


@cli.group()
def reference() -> None:
    """Learn a reference from a trusted log, or look at one."""


@reference.command("build")
@click.argument("logs", nargs=-1, required=True, type=FILE)
@click.option("--out", required=True, type=FILE, help="Where to write the reference.")
@click.option("--model", help="The model to learn, where the logs hold several.")
@click.option(
    "--from-live", is_flag=True, help="The logs are live traffic that nobody has looked at: mark it as unproven."
)
@click.option(
    "--accept-suspect",
    "signature",
    metavar="NAME: REASON",
    callback=checked_signature,
    help="Accept what the audit calls suspect; who did, and why, is kept in the reference.",
)
@WRITTEN
@click.option("--config", "config_path", type=FILE, help="Take the format of the logs from this configuration.")
def reference_build(
    logs: tuple[Path, ...],
    out: Path,
    model: str | None,
    from_live: bool,  # noqa: FBT001
    signature: Signature | None,
    written: FormatConfig | None,
    config_path: Path | None,
) -> None:
    """Learn what normal predictions look like from LOGS that are known to be clean.

    Before it is written the reference is audited for a trigger that is in it already: a suspect one is refused (exit 65).
    """
    from poisonwatch import offline
    from poisonwatch.config import load

    check_output("--out", out, logs)
    format_ = format_of(written, load(config_path) if config_path else None)
    with progress("reference", [*logs, *logs, *logs]) as advance:
        learned = offline.build_reference(
            logs,
            model=model,
            format=format_,
            unproven=from_live,
            signature=signature,
            progress=advance,
        )
    offline.save_reference(learned, out)
    click.echo(f"{out}: learned from {learned.records} predictions, SHA-256 {learned.sha256}")
    for group in learned.audit.notable if learned.audit is not None else []:
        click.echo(f"warning: worth a look: {group.in_words()}", err=True)
    _say_blind(learned.blind)


def _say_blind(blind: dict[str, str]) -> None:
    """What a reference gives no ground to watch must not look like silence."""
    for what, why in sorted(blind.items()):
        click.echo(f"warning: blind to {what}: {why}", err=True)


@reference.command("show")
@click.argument("file", type=FILE)
def reference_show(file: Path) -> None:
    """Say what a reference FILE holds."""
    from poisonwatch.reference.file import in_words, load

    click.echo(in_words(load(file)))


@cli.command()
@click.option("--config", "config_path", type=FILE, required=True, help="The YAML configuration.")
def check(config_path: Path) -> None:
    """Validate a configuration, its references and golden sets, and print what would hold.

    Exit 65 with the place of every mistake and its remedy.
    """
    from poisonwatch.assemble import golden_of, references_of
    from poisonwatch.config import dump, load
    from poisonwatch.server.access import check_exposure
    from poisonwatch.server.web_config import Files

    config = load(config_path)
    check_exposure(config.web.listen_address, config.sources, config.web.config_file)
    Files(config.web.config_file)
    references = references_of(config)
    for model in config.models:
        golden = golden_of(model, references[model.name])
        for label, count in sorted(golden.thin.items() if golden is not None else ()):
            click.echo(f"warning: {model.name}: the golden set has only {count} inputs of {label!r}", err=True)
    click.echo(dump(config), nl=False)


cli.add_command(decision)
cli.add_command(explain)
cli.add_command(override)
cli.add_command(triggers)


@cli.group()
def journal() -> None:
    """Look after a journal."""


@journal.command("verify")
@click.argument("file", type=FILE)
def journal_verify(file: Path) -> None:
    """Check the hash chain of a journal FILE; exit 65 and name the first line that breaks it."""
    from poisonwatch.sinks.journal import read

    if not file.exists():
        msg = f"{file}: there is no such journal"
        raise PoisonwatchError(msg)
    count = sum(1 for _ in read(file))
    click.echo(f"{file}: {count} entries, the chain holds")


@cli.command()
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 100_000),
    default=60.0,
    show_default=True,
    help="Seconds of traffic per second.",
)
@click.option(
    "--web.listen-address",
    "address",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT",
    callback=checked_address,
    help="Where the demo's agent answers.",
)
@click.option("--exit-at-end", is_flag=True, help="Stop when the log has ended instead of serving on.")
def demo(speed: float, address: str, exit_at_end: bool) -> None:  # noqa: FBT001
    """Watch a real spam filter being poisoned: two hours of traffic in two minutes."""
    from poisonwatch.demo import play

    _log("warning", "text")
    play(speed, address, _stop_on_signals(), exit_at_end=exit_at_end)


@cli.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    from poisonwatch.config import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options with Tab in SHELL.

    bash: put `eval "$(poisonwatch completion bash)"` into ~/.bashrc; zsh likewise, after compinit, into ~/.zshrc; fish: `poisonwatch
    completion fish >~/.config/fish/completions/poisonwatch.fish`.
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    if script is not None:
        click.echo(script(cli, {}, "poisonwatch", COMPLETE).source())


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"poisonwatch {__version__}")


def _stop_on_signals() -> Callable[[], bool]:
    """A question that is answered yes once SIGTERM or SIGINT has come."""
    stopped = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return lambda: stopped


def _log(level: str, log_format: str) -> Any:
    import structlog

    renderer: Any = structlog.processors.JSONRenderer()
    if log_format == "text":
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Printer(),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger()


class _Printer:
    """Prints log lines to standard error. That may be a file on a full disk: then they are lost, and the agent goes on."""

    def msg(self, message: str) -> None:
        """Print a line."""
        with suppress(OSError, ValueError):
            print(message, file=sys.stderr, flush=True)  # noqa: T201 - this is what logs

    debug = info = warning = error = critical = msg


def _short(entry: dict[str, Any]) -> dict[str, Any]:
    """What a log line says of a journal entry."""
    names = ("model", "model_version", "state", "severity", "cause", "decision", "reason", "target", "summary")
    return {name: entry[name] for name in names if entry.get(name) is not None}
