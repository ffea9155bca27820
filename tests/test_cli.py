"""The command line: what a person types, what they read, and the exit code that a script acts on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import click
import pytest
from prometheus_client.exposition import generate_latest
from ruamel.yaml import YAML

from poisonwatch import __version__
from poisonwatch.cli import cli, main
from poisonwatch.cli.options import DEFAULT_ADDRESS
from poisonwatch.config.web import WebConfig
from poisonwatch.demo import CONFIG
from poisonwatch.reference.file import load
from poisonwatch.server.api.requests import STALE
from poisonwatch.sinks.journal import Journal, read
from poisonwatch.sinks.prometheus import registry_of
from poisonwatch.sinks.snapshot import Published
from tests.server.snapshots import DEMO, demo, fresh, served, small, snapshot_of, together
from tests.streams import START, lines, predictions, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

KEEP, HOLD, ROLLBACK, UNREACHABLE, USAGE, DATA = 0, 1, 2, 3, 64, 65


BLIND = (
    "warning: blind to audit: the inputs do not tell the answers: nothing can be said of those that others do not explain\n"
    "warning: blind to errors: the reference has no labels to know the error rate by\n"
    "warning: blind to flips: the surrogate could not learn what the model answers to\n"
    "warning: blind to triggers: trigger mining blind: a trigger would never surface, 100 are the most\n"
)
"""What is said of `predictions` as a reference: no labels, and answers that do not depend on the inputs."""


def poisonwatch(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output in pipes."""
    return subprocess.run(
        [sys.executable, "-m", "poisonwatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "error"},
    )


def assert_told(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """The command failed with this code, in words on stderr, with nothing on stdout and no traceback."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr


# Help and usage


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group, with what is typed to reach it."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = list(commands(cli))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) or "poisonwatch" for path, _ in COMMANDS])
def test_help(path: tuple[str, ...], command: click.Command) -> None:
    """Every command says in sentences what it does, and of every option what it is for."""
    done = poisonwatch(*path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: poisonwatch {' '.join(path)}".strip() in done.stdout
    assert command.help
    assert command.help.strip().split("\n\n")[0].endswith(".")
    assert poisonwatch(*path, "-h").stdout == done.stdout
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.help.endswith(".")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run"],
        ["run", "--nonsense"],
        ["check"],
        ["replay"],
        ["replay", "--reference", "a"],
        ["replay", "log"],
        ["reference"],
        ["reference", "build", "a"],
        ["reference", "show"],
        ["journal"],
        ["journal", "verify", "a", "b"],
        ["decision", "--url", "file:///etc/passwd"],
        ["decision", "--url", "localhost:9787"],
        ["demo", "--speed", "0"],
        ["run", "--config", "c", "--log.level", "loud"],
        ["run", "--config", "c", "--web.listen-address", "nonsense"],
        ["run", "--config", "c", "--web.listen-address", "localhost:65536"],
        ["demo", "--web.listen-address", "9787"],
        ["demo", "--web.listen-address", "localhost:"],
    ],
    ids=" ".join,
)
def test_usage(arguments: list[str]) -> None:
    """A command that is typed wrongly leaves with 64, never with a code that means a decision."""
    done = poisonwatch(*arguments)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "Usage: poisonwatch" in done.stderr


def test_no_command_shows_the_help() -> None:
    """Without a command the help is shown, and the code is that of a usage error."""
    done = poisonwatch()
    assert done.returncode == USAGE
    assert "Watch the predictions of a model" in done.stdout + done.stderr


def test_version() -> None:
    """The version is told by command and by option, through the module and the installed script."""
    assert poisonwatch("version").stdout == poisonwatch("--version").stdout == f"poisonwatch {__version__}\n"
    (script,) = entry_points(group="console_scripts", name="poisonwatch")
    assert script.load() is main


# Configuration


def config(folder: Path, text: str | None = None) -> Path:
    """A configuration in a folder with a reference."""
    (folder / "reference.ndjson").write_bytes(lines(predictions(200, 99)))
    (folder / "config.yaml").write_text(
        text or "models: [{name: mail, reference: reference.ndjson}]\nsources: [{path: log.ndjson}]\n"
    )
    return folder / "config.yaml"


def test_check(tmp_path: Path) -> None:
    """A configuration that holds is printed as it takes effect, and that says the same again."""
    first = poisonwatch("check", "--config", config(tmp_path))
    assert (first.returncode, first.stderr) == (0, "")
    assert YAML(typ="safe").load(first.stdout)["detection"]["budget"] == "one page per 30 days"
    (tmp_path / "effective.yaml").write_text(first.stdout)
    assert poisonwatch("check", "--config", tmp_path / "effective.yaml").stdout == first.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: [{name: mail}]\nsources: [{path: a}]\n", "config.yaml: models[0].reference: this key is required"),
        (
            "models: [{name: mail, reference: none}]\nsources: [{path: a}]\n",
            "models[0].reference: {folder}/none: the log cannot be read (No such file or directory)",
        ),
        (
            "models: [{name: other, reference: reference.ndjson}]\nsources: [{path: a}]\n",
            "reference.ndjson: the reference has no record of the model 'other'; it holds records of mail: give a log with",
        ),
        (
            "models: [{name: mail, reference: config.yaml}]\nsources: [{path: a}]\n",
            "models[0].reference: {folder}/config.yaml: the reference has no record of the model 'mail': give a log with",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_mistake_in_the_configuration(tmp_path: Path, command: str, text: str, told: str) -> None:
    """A mistake leaves with 65, its place and its remedy, before anything starts."""
    done = poisonwatch(command, "--config", config(tmp_path, text))
    assert_told(done, DATA, told.replace("{folder}", str(tmp_path)))


def test_reference_of_another_model(tmp_path: Path) -> None:
    """A built reference of another model is refused with both names."""
    path = config(tmp_path, "models: [{name: tax, reference: r.json}]\nsources: [{path: a}]\n")
    poisonwatch("reference", "build", tmp_path / "reference.ndjson", "--out", tmp_path / "r.json")
    assert_told(poisonwatch("check", "--config", path), DATA, "is the reference of the model 'mail', not of 'tax'")


def test_taken_port(tmp_path: Path) -> None:
    """An address that is taken leaves with 65 and the remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        done = poisonwatch("run", "--config", config(tmp_path), "--web.listen-address", address)
    assert_told(done, DATA, f"web.listen_address: cannot listen on {address}", "free it or choose another")


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Does a JSON schema accept a value? As much of the standard as the configuration's schema uses."""
    known = {"title", "description", "discriminator", "default", "format", "maxLength", "minLength"}
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "integer": int,
        "boolean": bool,
        "null": type(None),
    }
    checks: dict[str, Any] = {
        "$ref": lambda at: accepts(root["$defs"][at.removeprefix("#/$defs/")], value, root),
        "oneOf": lambda of: sum(accepts(one, value, root) for one in of) == 1,
        "exclusiveMinimum": lambda of: value > of,
        "anyOf": lambda of: any(accepts(one, value, root) for one in of),
        "const": lambda of: value == of,
        "enum": lambda of: value in of,
        "type": lambda of: isinstance(value, types[of]),
        "required": lambda of: all(key in value for key in of),
        "properties": lambda of: all(accepts(of[key], value[key], root) for key in value if key in of),
        "additionalProperties": lambda of: of or all(key in schema.get("properties", {}) for key in value),
        "items": lambda of: all(accepts(of, one, root) for one in value),
        "minItems": lambda of: len(value) >= of,
        "maxItems": lambda of: len(value) <= of,
        "minimum": lambda of: value >= of,
        "maximum": lambda of: value <= of,
        "pattern": lambda of: re.search(of, value) is not None,
        "$defs": lambda _: True,
    }
    assert set(schema) <= known | set(checks), set(schema) - known - set(checks)
    # The type first: what follows relies on it.
    return all(checks[key](schema[key]) for key in sorted(schema, key=lambda key: key != "type") if key in checks)


def test_schema(tmp_path: Path) -> None:
    """The JSON schema accepts the demo's configuration and the effective one, and refuses mistakes."""
    done = poisonwatch("schema")
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    demo_config = YAML(typ="safe").load(CONFIG)
    assert accepts(schema, demo_config, schema)
    effective = YAML(typ="safe").load(poisonwatch("check", "--config", config(tmp_path)).stdout)
    assert accepts(schema, effective, schema)
    for wrong in (
        {},
        {**demo_config, "web": {"port": 1}},
        {**demo_config, "models": []},
        {**demo_config, "models": "mail"},
        {**demo_config, "detection": {"window_seconds": 0}},
        {**demo_config, "sources": [{"path": "a", "content": "labels"}]},
        {**demo_config, "models": [{"name": "m", "reference": "r", "reference_sha256": "f" * 63}]},
    ):
        assert not accepts(schema, wrong, schema)


# Replay, reference, journal


def test_replay_of_the_demo(tmp_path: Path) -> None:
    """A replay needs no configuration; its report is one line of JSON, and its journal a chain that holds."""
    done = poisonwatch(
        "replay",
        *("--reference", DEMO / "reference.ndjson.gz"),
        *("--journal", tmp_path / "journal"),
        *("--report", "-"),
        DEMO / "predictions.ndjson.gz",
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout.splitlines()[-1])
    assert {
        *("records", "rejected", "late", "wall_s", "cpu_s", "peak_rss_mb", "alerts", "decisions"),
    } <= set(report)
    assert {(one["model_version"], one["decision"]) for one in report["decisions"]} == {
        ("v1", "keep"),
        ("v2", "rollback"),
    }
    found = list(read(tmp_path / "journal"))
    assert [entry["kind"] for entry in (found[0], found[1], found[-1])] == ["start", "reference", "stop"]
    fired = {entry["fingerprint"] for entry in found if entry["kind"] == "alert" and entry["state"] == "firing"}
    assert {alert["fingerprint"] for alert in report["alerts"]} == fired


def test_replay_in_words_and_in_a_file(tmp_path: Path) -> None:
    """Without a report a person reads sentences; a report in a file is what it would be on stdout."""
    log, learned = write(tmp_path / "log", predictions(600)), write(tmp_path / "reference", predictions(1000, 99))
    feedback = write(tmp_path / "labels", [{"timestamp": START + 5, "prediction_id": "p0-1", "label": "ham"}])
    done = poisonwatch(
        "replay", "--reference", learned, "--feedback", feedback, "--report", tmp_path / "report.json", log
    )
    assert (done.returncode, done.stderr) == (0, BLIND)
    assert done.stdout.startswith("600 predictions and 1 labels, 0 lines rejected, 0 late, in ")
    assert "No alert fired." in done.stdout
    assert "mail v1: keep" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["records"], report["feedback"], report["rejected"], report["late"]) == (600, 1, 0, 0)


def test_replay_from_log_and_from_reference(tmp_path: Path) -> None:
    """A log as reference and the reference built of it give the same journal, byte for byte."""
    built = poisonwatch("reference", "build", DEMO / "reference.ndjson.gz", "--out", tmp_path / "r.json")
    assert (built.returncode, built.stderr) == (0, "")
    learned = load(tmp_path / "r.json")
    told = f"learned from {learned.records} predictions, SHA-256 {learned.sha256}"
    assert built.stdout == f"{tmp_path / 'r.json'}: {told}\n"
    journals = []
    for number, given in enumerate((DEMO / "reference.ndjson.gz", tmp_path / "r.json")):
        journal = tmp_path / f"journal-{number}"
        poisonwatch("replay", "--reference", given, "--journal", journal, DEMO / "predictions.ndjson.gz")
        journals.append(journal.read_bytes())
    assert journals[0] == journals[1] != b""


def test_what_a_reference_is_blind_to(tmp_path: Path) -> None:
    """`build` and `replay` warn of what cannot be watched and why, from a log and from the file; `show` says it too."""
    labelled = [{**one, "label": one["prediction"]} for one in predictions(1000, 99)]
    audit, _, flips, triggers = BLIND.splitlines(keepends=True)
    both = flips + triggers
    for number, (records, told) in enumerate(((predictions(1000, 99), BLIND), (labelled, audit + both))):
        learned, built = write(tmp_path / f"log{number}", records), tmp_path / f"r{number}.json"
        log = write(tmp_path / "log", predictions(300))
        done = poisonwatch("reference", "build", learned, "--out", built)
        assert (done.returncode, done.stderr) == (0, told)
        for given in (learned, built):
            assert poisonwatch("replay", "--reference", given, log).stderr == told
        shown = poisonwatch("reference", "show", built).stdout
        for line in told.splitlines():
            what, why = line.removeprefix("warning: blind to ").split(": ", 1)
            assert re.search(rf"^blind +{what}: {why}$", shown, re.MULTILINE), shown


def test_reference_from_live_traffic(tmp_path: Path) -> None:
    """`--from-live` marks a reference as unproven, wherever it shows: in the file, in words, journal and metrics."""
    log = write(tmp_path / "log", predictions(1000, 99))
    hashes = set()
    for name, options, unproven in (("proven", [], False), ("live", ["--from-live"], True)):
        built, journal = tmp_path / f"{name}.json", tmp_path / f"{name}.journal"
        assert poisonwatch("reference", "build", *options, log, "--out", built).returncode == 0
        learned = load(built)
        assert learned.unproven is unproven
        hashes.add(learned.sha256)
        assert ("unproven" in poisonwatch("reference", "show", built).stdout) is unproven
        assert poisonwatch("replay", "--reference", built, "--journal", journal, log).returncode == 0
        (entry,) = [entry for entry in read(journal) if entry["kind"] == "reference"]
        assert entry["unproven"] is unproven
        page = generate_latest(registry_of(Published(snapshot_of(built, [log])))).decode()
        assert f'poisonwatch_reference_unproven{{model="mail"}} {float(unproven)}' in page.splitlines()
    assert len(hashes) == 2


def test_pinned_reference(tmp_path: Path) -> None:
    """A reference with the pinned SHA-256 is accepted; another one is refused with its place, both facts and the remedy."""
    path = config(tmp_path)
    poisonwatch("reference", "build", tmp_path / "reference.ndjson", "--out", tmp_path / "r.json")
    pin = load(tmp_path / "r.json").sha256
    text = "models: [{name: mail, reference: r.json, reference_sha256: %s}]\nsources: [{path: a}]\n"
    path.write_text(text % pin)
    assert poisonwatch("check", "--config", path).returncode == 0
    other = "ab" * 32
    path.write_text(text % other)
    for command in ("check", "run"):
        assert_told(
            poisonwatch(command, "--config", path),
            DATA,
            f"models[0].reference: {tmp_path / 'r.json'} has the SHA-256 {pin}, not the one in reference_sha256: ",
            "put the right reference back, or pin this one after looking at it with `poisonwatch reference show`",
        )


def test_reference_show(tmp_path: Path) -> None:
    """A built reference is told in words; a log, a missing or a changed file is refused."""
    log = write(tmp_path / "log", predictions(300))
    poisonwatch("reference", "build", log, "--out", tmp_path / "r.json")
    done = poisonwatch("reference", "show", tmp_path / "r.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "mail" in done.stdout
    assert "prediction = spam" in done.stdout
    assert_told(poisonwatch("reference", "show", log), DATA, "this is no reference", "poisonwatch reference build")
    assert_told(poisonwatch("reference", "show", tmp_path / "none"), DATA, "none: the reference cannot be read")
    changed = (tmp_path / "r.json").read_text().replace('"records": 300', '"records": 301')
    (tmp_path / "r.json").write_text(changed)
    assert_told(poisonwatch("reference", "show", tmp_path / "r.json"), DATA, "does not match its SHA-256")


def test_what_cannot_be_learned(tmp_path: Path) -> None:
    """A log that makes no reference leaves with 65, the reason and the remedy, and nothing is written."""
    few = write(tmp_path / "few", predictions(99))
    both = write(tmp_path / "both", [*predictions(200), *({**one, "model": "tax"} for one in predictions(200))])
    out = tmp_path / "r.json"
    told = f"{few}: the reference has only 99 usable predictions: at least 100 are needed"
    assert_told(poisonwatch("reference", "build", few, "--out", out), DATA, told)
    done = poisonwatch("reference", "build", both, "--out", out)
    assert_told(done, DATA, f"{both}: the reference holds several models (mail, tax): choose one with --model")
    assert_told(poisonwatch("reference", "build", few, both, "--out", out), DATA, f"{few}, {both}: the reference holds")
    assert_told(poisonwatch("replay", "--reference", few, few), DATA, told)
    none = poisonwatch("replay", "--reference", both, "--model", "x", few)
    assert_told(none, DATA, f"{both}: the reference has no record of the model 'x'", ": give a log with predictions")
    missing = poisonwatch("reference", "build", tmp_path / "none", "--out", out)
    assert_told(missing, DATA, f"{tmp_path / 'none'}: the log cannot be read")
    assert missing.stderr.count("none") == 1
    assert not out.exists()
    assert poisonwatch("reference", "build", both, "--model", "tax", "--out", out).returncode == 0
    assert load(out).schema.model == "tax"


def test_missing_log(tmp_path: Path) -> None:
    """A log that is not there leaves with 65 and its name."""
    learned = write(tmp_path / "reference", predictions(200))
    done = poisonwatch("replay", "--reference", learned, tmp_path / "none")
    assert_told(done, DATA, f"{tmp_path / 'none'}: the log cannot be read")


def test_journal_is_not_overwritten(tmp_path: Path) -> None:
    """A replay does not write into a journal that is there."""
    learned = write(tmp_path / "reference", predictions(200))
    (tmp_path / "journal").write_text("something\n")
    done = poisonwatch("replay", "--reference", learned, "--journal", tmp_path / "journal", learned)
    assert_told(done, DATA, "journal: this file is not empty")
    assert (tmp_path / "journal").read_text() == "something\n"


@pytest.mark.parametrize("option", ["--journal", "--report"])
def test_output_that_cannot_be_written(tmp_path: Path, option: str) -> None:
    """A place that cannot be written to leaves with 65, the place and the remedy, before any log is read."""
    out = tmp_path / "none" / "out"
    # The logs are not there either: who looked at them first would say so.
    done = poisonwatch("replay", "--reference", tmp_path / "r", option, out, tmp_path / "log")
    assert_told(done, DATA, f"{option} {out}: there is no folder {out.parent}: make it")


def test_report_that_is_a_folder(tmp_path: Path) -> None:
    """A folder in place of the report's file is told before any log is read."""
    done = poisonwatch("replay", "--reference", tmp_path / "r", "--report", tmp_path, tmp_path / "log")
    assert_told(done, DATA, f"--report {tmp_path}: this is a folder: name a file in it")


def test_reference_that_cannot_be_written(tmp_path: Path) -> None:
    """A reference that cannot be written leaves with 65 before the log is read, without a traceback."""
    out = tmp_path / "none" / "r.json"
    done = poisonwatch("reference", "build", tmp_path / "log", "--out", out)
    assert_told(done, DATA, f"--out {out}: there is no folder {out.parent}: make it")


def other_names(path: Path) -> list[Path]:
    """The same file, said in other ways."""
    symbolic, hard = path.with_name("symbolic"), path.with_name("hard")
    symbolic.symlink_to(path)
    hard.hardlink_to(path)
    (path.parent / "folder").mkdir()
    return [path, path.parent / "folder" / ".." / path.name, symbolic, hard]


def test_input_is_not_overwritten(tmp_path: Path) -> None:
    """An output that is one of the inputs, whatever it is called, is a usage error, and the input stays as it was."""
    log, second = write(tmp_path / "log", predictions(200)), write(tmp_path / "second", predictions(200, 1))
    before = log.read_bytes()
    for name in other_names(log):  # the last of them is tried with the other command, too
        done = poisonwatch("reference", "build", second, log, "--out", name)
        assert_told(done, USAGE, f"--out {name} would overwrite {log}: name another file")
    for option, given in (
        ("--report", ("--reference", second, second, log)),
        ("--journal", ("--reference", log, second)),
        ("--journal", ("--reference", second, "--feedback", log, second)),
    ):
        assert_told(poisonwatch("replay", option, name, *given), USAGE, f"{option} {name} would overwrite {log}")
    assert log.read_bytes() == before
    new = tmp_path / "new"
    done = poisonwatch("replay", "--report", new, "--journal", new, "--reference", second, second)
    assert_told(done, USAGE, f"--report {new} would overwrite {new}")


HOSTILE = "v1\nmail v1: keep (healthy)\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u2066\x85\x9b31m"


def test_names_forge_no_terminal_lines(tmp_path: Path) -> None:
    """Versions, classes, models and features in a log end no line and hide nothing where a person reads about them."""
    model = f"mail{HOSTILE}"

    def hostile(records: list[dict[str, Any]], version: str) -> list[dict[str, Any]]:
        return [
            {
                **one,
                "model": model,
                "model_version": version,
                "prediction": {"spam": f"spam{HOSTILE}"}.get(one["prediction"], one["prediction"]),
                "features": {**one["features"], f"f{HOSTILE}": one["features"]["country"] + HOSTILE},
            }
            for one in records
        ]

    learned = hostile(predictions(1000, 99, start=START - 86400.0), HOSTILE)
    log = hostile(predictions(1500, rate=1.0, spam=0.9), HOSTILE)
    files: list[str | Path] = ["--reference", write(tmp_path / "reference", learned), write(tmp_path / "log", log)]
    done = poisonwatch("replay", "--journal", tmp_path / "journal", *files)
    assert (done.returncode, done.stderr) == (0, BLIND)
    versions = {entry["model_version"] for entry in read(tmp_path / "journal")} - {None}
    assert len(versions) == 1
    assert all(version.isprintable() for version in versions)
    told = done.stdout.splitlines()
    assert all(line.isprintable() for line in told), told
    assert any(" output_change: " in line for line in told)
    assert sum(line.endswith(")") and "\ufffd" in line for line in told) == 1
    assert not any(line.startswith("mail v1: keep") for line in told)
    with served(fresh(small(tmp_path, log, learned))) as url:
        done = poisonwatch("decision", "--url", url)
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.removesuffix("\n").isprintable()
    assert "v1\u25a1mail v1: keep (healthy)\u25a1[2J" in done.stdout


def test_peak_memory_is_that_of_the_replay(tmp_path: Path) -> None:
    """The peak that a report tells is the replay's own, not that of the big program that started it."""
    log = write(tmp_path / "log", predictions(200))
    big = (
        "import subprocess, sys; held = b'x' * (500 << 20); "
        "sys.exit(subprocess.run([sys.executable, '-m', 'poisonwatch', *sys.argv[1:]]).returncode)"
    )
    arguments = ["replay", "--reference", str(log), "--report", "-", str(log)]
    done = subprocess.run(
        [sys.executable, "-c", big, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert 20 < json.loads(done.stdout)["peak_rss_mb"] < 400


def test_journal_verify(tmp_path: Path) -> None:
    """A chain that holds leaves with 0, one that does not with 65 and the first broken line."""
    path = tmp_path / "journal"
    journal = Journal(path)
    for _ in range(3):
        journal.append(START, {"kind": "start"})
    journal.close()
    done = poisonwatch("journal", "verify", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: 3 entries, the chain holds\n")
    path.write_bytes(path.read_bytes().replace(b'"seq":2', b'"seq":5'))
    assert_told(poisonwatch("journal", "verify", path), DATA, f"{path}: line 2 breaks the chain")
    assert_told(poisonwatch("journal", "verify", tmp_path / "none"), DATA, "none: there is no such journal")


# Decision


def decide(url: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the command."""
    done = poisonwatch("decision", "--url", url, *arguments)
    return done.returncode, done.stdout


def test_decision(tmp_path: Path) -> None:
    """Of several models and versions the worst counts, unless one is chosen; each is told in a line."""
    kept = small(tmp_path, predictions(600))
    with served(fresh(together(demo(), kept))) as url:
        code, text = decide(url)
        assert code == ROLLBACK
        assert [line.split(":")[0] for line in text.splitlines()] == ["sms-spam v1", "sms-spam v2", "mail v1"]
        assert "sms-spam v2: rollback to v1 (" in text
        assert decide(url, "--model", "mail")[0] == KEEP
        assert decide(url, "--model", "sms-spam")[0] == ROLLBACK
        assert decide(url, "--model", "sms-spam", "--model-version", "v1")[0] == KEEP
        assert decide(url, "--model-version", "v1")[0] == KEEP
        assert decide(f"{url}/", "--model-version", "v2")[0] == ROLLBACK
        code, text = decide(url, "--json", "--model-version", "v2")
        assert (code, [one["decision"] for one in json.loads(text)]) == (ROLLBACK, ["rollback"])


def test_decision_with_too_little_data(tmp_path: Path) -> None:
    """A version that was hardly seen is on hold, and holds back the whole, but less than a rollback."""
    short = small(tmp_path, predictions(50))
    with served(fresh(short)) as url:
        code, text = decide(url)
    assert code == HOLD
    assert "mail v1: hold (insufficient_data)" in text


@pytest.mark.parametrize("arguments", [["--model", "other"], ["--model-version", "v9"]])
def test_no_such_version(arguments: list[str]) -> None:
    """What has no decision is on hold: an unknown version is never taken for a healthy one."""
    with served(fresh(demo())) as url:
        done = poisonwatch("decision", "--url", url, *arguments)
        assert_told(done, HOLD, "hold: the agent has no decision for this yet")
        assert decide(url, "--json", *arguments) == (HOLD, "[]\n")


def test_agent_without_decisions() -> None:
    """An agent that has seen nothing yet decides hold."""
    with served(Published()) as url:
        assert decide(url)[0] == HOLD


def test_stale_agent() -> None:
    """An agent whose loop hangs is as good as unreachable: its old decisions are not taken."""
    with served(Published(dataclasses.replace(demo(), time=time.time() - STALE - 5))) as url:
        assert_told(poisonwatch("decision", "--url", url), UNREACHABLE, "do not read this as healthy")


def test_dead_agent() -> None:
    """Where nobody listens the code is 3."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = "http://{}:{}".format(*free.getsockname())
    assert_told(poisonwatch("decision", "--url", url), UNREACHABLE, url, "do not read this as healthy")


ANSWERS = [
    b"SSH-2.0-server\r\n",
    b"[]]",
    b"<html>",
    b"\xff",
    b'{"error": "x"}',
    b"[1]",
    b"null",
    b'[{"decision": "keep"}]',
    b'[{"model": "m"}]',
]


@pytest.mark.parametrize("body", ANSWERS, ids=repr)
def test_somebody_else_answers(body: bytes) -> None:
    """What answers and is no agent is as good as unreachable: no code that means a decision, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        url = "http://{}:{}".format(*server.getsockname())
        asking = subprocess.Popen(
            [sys.executable, "-m", "poisonwatch", "decision", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(body if body.startswith(b"SSH") else head + body)
        told, error = asking.communicate(timeout=60)
    assert (asking.returncode, told) == (UNREACHABLE, "")
    assert "Traceback" not in error
    assert "do not read this as healthy" in error


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http:///", "http://:9787", "http://[", "http://127.0.0.1:99999", "http://127.0.0.1:x"),
        *("http://127.0.0.1:0", "http://a b/", "http://a\nb/", "ftp://a/", ""),
    ],
)
def test_url_that_is_none(url: str) -> None:
    """A URL that cannot be asked is a usage error, and no decision."""
    done = poisonwatch("decision", "--url", url)
    assert_told(done, USAGE, "Invalid value for '--url'", "say it like http://127.0.0.1:9787")


def test_default_addresses_agree() -> None:
    """`decision` asks where `run` listens when nobody says anything."""
    assert WebConfig().listen_address == DEFAULT_ADDRESS
    (url,) = (option for option in cli.commands["decision"].params if option.name == "url")
    assert url.default == f"http://{DEFAULT_ADDRESS}"


# In a pipe


def test_quiet_in_a_pipe(tmp_path: Path) -> None:
    """No bar, no colour and no log lines reach a pipe, only what the reference is blind to; a reader may go away."""
    log = write(tmp_path / "log", predictions(500))
    for arguments in (
        ["reference", "build", str(log), "--out", str(tmp_path / "r.json")],
        ["replay", "--reference", str(log), str(log)],
    ):
        done = poisonwatch(*arguments)
        assert (done.returncode, done.stderr) == (0, BLIND)
        assert "\x1b" not in done.stdout
        assert "\r" not in done.stdout
    with subprocess.Popen(
        [sys.executable, "-m", "poisonwatch", "reference", "show", str(tmp_path / "r.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as done_early:
        assert done_early.stdout is not None
        assert done_early.stderr is not None
        done_early.stdout.close()
        assert b"Traceback" not in done_early.stderr.read()
