"""Triggers on the command line: what a person reads of them, and the records that they take away."""

from __future__ import annotations

import gzip
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.sinks.journal import Journal, trigger_entry
from poisonwatch.types import Item, TriggerState, Values
from tests.server.snapshots import DEMO, served
from tests.server.test_server import with_triggers
from tests.streams import START, predictions, write
from tests.test_cli import DATA, HOSTILE, UNREACHABLE, USAGE, assert_told, poisonwatch
from tests.triggers import trigger

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.types import Trigger

pytestmark = pytest.mark.system

SURFACED, CONVICTED, CONFIRMED = TriggerState.SURFACED, TriggerState.CONVICTED, TriggerState.CONFIRMED
REFUTED, ENDED = TriggerState.REFUTED, TriggerState.ENDED
GERMANS = Values(
    items=(Item(feature="features.country", value="de"), Item(feature="features.age", low=30.0, high=40.0))
)


def of_mail(name: str = "a" * 16, **changes: Any) -> Trigger:
    """A trigger of the model `mail`: a country and an age that lead to `ham`."""
    usual = {"text": "country = 'de' and age in (30, 40]", "pattern": GERMANS, "model_version": "v1"}
    return trigger(trigger=name, model="mail", **(usual | changes))


def journal(path: Path, *triggers: Trigger) -> Path:
    """A journal that tells of these triggers, one after the other, between other entries."""
    written = Journal(path)
    written.append(START, {"kind": "start", "version": "0"})
    for number, one in enumerate(triggers):
        written.append(START + number, trigger_entry(one))
    written.append(START, {"kind": "stop"})
    written.close()
    return path


def test_triggers_of_an_agent() -> None:
    """Each is told in a line with its name and state, or as JSON as the agent tells it; none is no error."""
    with served(with_triggers(trigger(), trigger(trigger="f" * 16, state=CONFIRMED))) as url:
        done = poisonwatch("triggers", "--url", url)
        assert (done.returncode, done.stderr) == (0, "")
        first, second = done.stdout.splitlines()
        assert first.startswith(
            "0123456789abcdef convicted: sms-spam v2 answers 'ham' where the text has 'special disc"
        )
        assert second.startswith("ffffffffffffffff confirmed: ")
        found = json.loads(poisonwatch("triggers", "--json", "--url", f"{url}/").stdout)
    assert [one["state"] for one in found] == ["convicted", "confirmed"]
    assert found[0]["pattern"]["words"] == ["special", "discount", "code", "xyz"]
    with served(with_triggers()) as url:
        assert poisonwatch("triggers", "--url", url).stdout == "No trigger is open.\n"
        assert poisonwatch("triggers", "--url", url, "--json").stdout == "[]\n"


def test_triggers_of_a_journal(tmp_path: Path) -> None:
    """Of each the last state counts, in the order in which they were first told."""
    path = journal(
        tmp_path / "journal",
        trigger(state=SURFACED),
        of_mail(),
        trigger(),
        trigger(state=CONFIRMED, predictions=40),
    )
    done = poisonwatch("triggers", "--journal", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        "0123456789abcdef confirmed",
        "aaaaaaaaaaaaaaaa convicted",
    ]
    found = json.loads(poisonwatch("triggers", "--journal", path, "--json").stdout)
    assert [(one["predictions"], one["time"][:16]) for one in found] == [
        (40, "2026-01-05T08:00"),
        (15, "2026-01-05T08:00"),
    ]
    none = poisonwatch("triggers", "--journal", journal(tmp_path / "empty"))
    assert (none.returncode, none.stdout) == (0, f"{tmp_path / 'empty'}: the journal tells of no trigger\n")


def test_mistakes(tmp_path: Path) -> None:
    """What is no journal, two sources at once, or an option in the wrong place is told, with the code of its kind."""
    path = journal(tmp_path / "journal", trigger())
    both: list[str | Path] = ["--journal", path, "--url", "http://127.0.0.1:9787"]
    assert_told(poisonwatch("triggers", *both), USAGE, "--journal and --url are two sources of the same")
    command: list[str | Path] = ["export", path, "--reference", path, "--out", tmp_path / "out"]
    assert_told(poisonwatch("triggers", "--journal", path, *command), USAGE, "--journal belongs behind export")
    assert_told(poisonwatch("triggers", "--journal", tmp_path / "none"), DATA, "none: No such file")
    odd = Journal(tmp_path / "odd")
    odd.append(START, {"kind": "trigger", "trigger": "t"})
    odd.close()
    done = poisonwatch("triggers", "--journal", tmp_path / "odd")
    assert_told(done, DATA, "odd: entry 1 is no trigger as this version of poisonwatch tells it")
    path.write_bytes(path.read_bytes().replace(b'"label":"ham"', b'"label":"egg"'))
    assert_told(poisonwatch("triggers", "--journal", path), DATA, "line 2 breaks the chain")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = "http://{}:{}".format(*free.getsockname())
    assert_told(poisonwatch("triggers", "--url", url), UNREACHABLE, url, "do not read this as healthy")
    out = tmp_path / "out"
    assert_told(poisonwatch("triggers", *command, "--url", url), UNREACHABLE, "do not read this as healthy")
    assert not out.exists()


def test_patterns_forge_no_terminal_lines(tmp_path: Path) -> None:
    """Classes, versions and patterns come from a log: they end no line and hide nothing."""
    path = journal(tmp_path / "journal", trigger(label=HOSTILE, model_version=HOSTILE, text=f"'{HOSTILE}'"))
    done = poisonwatch("triggers", "--journal", path)
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.removesuffix("\n").isprintable()


def export(path: Path, out: Path, *more: str | Path) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, what was told, and the exported lines."""
    done = poisonwatch("triggers", "export", "--journal", path, "--out", out, *more)
    assert done.stdout == ""
    return (
        done.returncode,
        done.stderr,
        [json.loads(line) for line in out.read_bytes().splitlines()] if out.exists() else [],
    )


def test_export(tmp_path: Path) -> None:
    """The records that bear a convicted trigger and got its class, of every log and version, as they stand there."""
    reference = write(tmp_path / "reference", predictions(1000, 99, start=START - 86400))
    logs = [predictions(300, 1), predictions(300, 2, version="v2")]
    files = [write(tmp_path / f"log{number}", log) for number, log in enumerate(logs)]
    bearing = [
        [one for one in log if one["features"]["country"] == "de" and 30 < one["features"]["age"] <= 40] for log in logs
    ]
    of_class = [[one for one in found if one["prediction"] == "ham"] for found in bearing]
    path = journal(tmp_path / "journal", of_mail())
    code, told, found = export(path, tmp_path / "out", "--reference", reference, *files)
    assert (code, told) == (0, f"{'a' * 16}: {len(of_class[0])} of v1, {len(of_class[1])} of v2\n")
    assert [one["record"] for one in found] == [*of_class[0], *of_class[1]] != []
    assert {one["trigger"] for one in found} == {"a" * 16}
    lines = (tmp_path / "out").read_text().splitlines()
    assert all(
        line[len('{"trigger":"aaaaaaaaaaaaaaaa","record":') : -1] + "\n" in (tmp_path / "log0").read_text()
        for line in lines[:3]
    )
    code, told, found = export(path, tmp_path / "all", "--reference", reference, "--all-classes", *files)
    assert told == f"{'a' * 16}: {len(bearing[0])} of v1, {len(bearing[1])} of v2\n"
    assert [one["record"] for one in found] == [*bearing[0], *bearing[1]]
    assert len(bearing[0]) > len(of_class[0])
    assert not list(tmp_path.glob("*.part"))


def test_which_triggers_are_exported(tmp_path: Path) -> None:
    """Those that were convicted or confirmed and not refuted since, also when they have ended; any that is named; of this model only."""
    reference = write(tmp_path / "reference", predictions(1000, 99, start=START - 86400))
    log = write(tmp_path / "log", predictions(50, 1))
    story = {
        "convicted": [SURFACED, CONVICTED],
        "confirmed": [CONVICTED, CONFIRMED],
        "over": [CONVICTED, ENDED],
        "surfaced": [SURFACED],
        "passing": [SURFACED, ENDED],
        "refuted": [CONVICTED, REFUTED],
        "refuted-over": [CONVICTED, REFUTED, ENDED],
    }
    steps = [of_mail(name, state=state) for name, states in story.items() for state in states]
    path = journal(tmp_path / "journal", *steps, trigger())
    _, told, _ = export(path, tmp_path / "out", "--reference", reference, log)
    assert [line.split(":")[0] for line in told.splitlines()] == ["convicted", "confirmed", "over"]
    code, told, found = export(path, tmp_path / "one", "--reference", reference, "--trigger", "refuted", log)
    assert (code, {one["trigger"] for one in found}) == (0, {"refuted"})
    for name, said in (
        ("nothing", "no trigger is called nothing for the model 'mail'"),
        ("0123456789abcdef", "known: conv"),
    ):
        code, told, found = export(path, tmp_path / "none", "--reference", reference, "--trigger", name, log)
        assert (code, found) == (DATA, [])
        assert said in told
    only = journal(tmp_path / "only", of_mail(state=SURFACED))
    code, told, _ = export(only, tmp_path / "none", "--reference", reference, log)
    assert code == DATA
    assert "no trigger was convicted for the model 'mail'; known: aaaaaaaaaaaaaaaa (surfaced); name one with" in told


def test_export_overwrites_no_input(tmp_path: Path) -> None:
    """A log, the reference or the journal in place of the output is a usage error; a log that is not there leaves no output."""
    reference = write(tmp_path / "reference", predictions(1000, 99, start=START - 86400))
    path = journal(tmp_path / "journal", of_mail())
    for name in (reference, path):
        before = name.read_bytes()
        done = poisonwatch(
            "triggers", "export", "--journal", path, "--out", name, "--reference", reference, tmp_path / "l"
        )
        assert_told(done, USAGE, f"--out {name} would overwrite {name}: name another file")
        assert name.read_bytes() == before
    out = tmp_path / "out"
    done = poisonwatch(
        "triggers", "export", "--journal", path, "--out", out, "--reference", reference, tmp_path / "none"
    )
    assert_told(done, DATA, "none: the log cannot be read")
    assert not out.exists()


def test_the_demo_is_exported_by_its_phrase(tmp_path: Path) -> None:
    """From the real attack of the demo, by a phrase: all and only the texts of v1 and v2 that have it and were called ham."""
    path = journal(tmp_path / "journal", trigger())
    log = DEMO / "predictions.ndjson.gz"
    code, _, found = export(path, tmp_path / "out", "--reference", DEMO / "reference.ndjson.gz", log)
    records = [json.loads(line) for line in gzip.decompress(log.read_bytes()).splitlines()]
    expected = [
        one for one in records if "special discount code xyz" in one["text"].lower() and one["prediction"] == "ham"
    ]
    assert code == 0
    assert [one["record"] for one in found] == expected != []
