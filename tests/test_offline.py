"""The functions for notebooks and CI gates: what they find is what the commands and the agent find."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import msgspec
import pytest

import poisonwatch.offline
from poisonwatch.errors import BaselineError, ConfigError, LogError, PoisonwatchError
from poisonwatch.offline import Reference, Replay, build_reference, load_reference, replay, save_reference
from poisonwatch.sinks.journal import read
from tests.streams import lines, predictions, write
from tests.test_cli import poisonwatch as command

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
MEASURED = {"wall_s", "cpu_s", "peak_rss_mb"}


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log to learn from."""
    return write(tmp_path_factory.mktemp("trusted") / "trusted.ndjson", predictions(3000, 1))


@pytest.fixture(scope="module")
def reference(trusted: Path) -> Reference:
    """What was learned from it."""
    return build_reference(trusted)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log to replay, with one line that is none."""
    path = write(tmp_path_factory.mktemp("log") / "log.ndjson", predictions(1500, 2))
    with path.open("ab") as file:
        file.write(b"{\n")
    return path


@pytest.fixture(scope="module")
def found(reference: Reference, log: Path) -> Replay:
    """What there is in it."""
    return replay(log, reference=reference)


@pytest.mark.slow
def test_the_examples_are_true() -> None:
    """What the module's docstring shows is what comes out, and so is what the page shows, from its first line to its last."""
    tried = doctest.testmod(poisonwatch.offline)
    page = "\n".join(re.findall(r"^```pycon\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))
    shown = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(page, {}, PAGE.name, str(PAGE), 0))
    assert min(tried.attempted, shown.attempted) >= 8
    assert tried.failed == shown.failed == 0


def test_the_command_finds_the_same(reference: Reference, log: Path, found: Replay, tmp_path: Path) -> None:
    """`replay --report` writes the report, but for what it took; the words are those of the command."""
    save_reference(reference, tmp_path / "reference.json")
    told = json.loads(command("replay", "--reference", tmp_path / "reference.json", "--report", "-", log).stdout)
    assert {**told, **dict.fromkeys(MEASURED)} == {**json.loads(json.dumps(found.report)), **dict.fromkeys(MEASURED)}
    said = command("replay", "--reference", tmp_path / "reference.json", log).stdout.splitlines()
    assert said[1:] == str(found).splitlines()[1:]


def test_counts_and_decisions_are_named(found: Replay) -> None:
    """By version, with the story behind each; the code is that of the worst."""
    assert (found.predictions, found.labels, found.rejected) == (1500, 0, {"malformed": 1})
    assert found.decisions.keys() == {"v1"}
    told = found.decisions["v1"]
    assert found.code == told.code == {"keep": 0, "hold": 1, "rollback": 2}[told.decision]
    assert {one.model_version for one in found.evidence} <= {"v1", None}
    # All of it is JSON for whoever keeps it.
    assert json.loads(msgspec.json.encode([*found.decisions.values(), found.evidence, found.triggers, found.alerts]))


def test_an_empty_log_is_nothing_to_keep(reference: Reference, tmp_path: Path) -> None:
    """Silence does not pass a gate."""
    empty = tmp_path / "empty.ndjson"
    empty.touch()
    found = replay(empty, reference=reference)
    assert (found.predictions, dict(found.decisions), found.code) == (0, {}, 1)


def test_a_reference_that_was_saved_is_the_same(reference: Reference, tmp_path: Path) -> None:
    """To the bit, whichever way it went; the command's is no other."""
    save_reference(reference, str(tmp_path / "reference.json"))
    assert load_reference(tmp_path / "reference.json") == load_reference(str(tmp_path / "reference.json")) == reference


def test_several_logs_of_any_kind_of_path(trusted: Path, reference: Reference, log: Path, found: Replay) -> None:
    """One path or many, as text or as Path."""
    assert build_reference([str(trusted)]).sha256 == reference.sha256
    assert str(replay([str(log)], reference=reference).decisions) == str(found.decisions)


def test_labels_and_a_journal(reference: Reference, log: Path, tmp_path: Path) -> None:
    """Labels are counted, and the journal is whole; one that is there already is left alone."""
    labels = [
        {"timestamp": record["timestamp"], "prediction_id": record["prediction_id"], "label": "spam"}
        for record in predictions(700, 2)
    ]
    kept = tmp_path / "journal.jsonl"
    found = replay(log, reference=reference, feedback=write(tmp_path / "labels.ndjson", labels), journal=kept)
    assert found.labels == 700
    before = kept.read_bytes()
    assert [entry["kind"] for entry in read(kept)][-1] == "stop"
    with pytest.raises(PoisonwatchError, match=r"journal\.jsonl: this file is not empty: .* name another or remove it"):
        replay(log, reference=reference, journal=kept)
    assert kept.read_bytes() == before


def test_a_format_is_said_as_in_a_configuration(reference: Reference, tmp_path: Path) -> None:
    """By its options; a detection likewise."""
    records = [json.loads(line) for line in lines(predictions(1500, 2)).splitlines()]
    for record in records:
        record["answer"] = {"class": record.pop("prediction")}
    log = write(tmp_path / "log.ndjson", records)
    found = replay(
        log,
        reference=reference,
        format={"fields": {"prediction": "answer.class"}},
        detection={"budget": "one page per 90 days"},
    )
    assert found.predictions == 1500
    assert replay(log, reference=reference).rejected == {"missing_prediction": 1500}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"format": {"kind": "kserv"}}, r"replay: format: `kind` must be one of native, .*kserve"),
        ({"format": "kserv"}, r"replay: format: .*kserve"),
        ({"format": {"feilds": {}}}, r"replay: format\.feilds: unknown key; did you mean `fields`\?"),
        (
            {"detection": {"windw_seconds": 1}},
            r"replay: detection\.windw_seconds: unknown key; did you mean `window_seconds`\?",
        ),
        ({"detection": {"budget": "none"}}, r"replay: detection\.budget: "),
    ],
)
def test_mistakes_name_their_place(reference: Reference, log: Path, said: dict[str, object], told: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=told):
        replay(log, reference=reference, **said)  # type: ignore[arg-type]


def test_what_cannot_be_learned(tmp_path: Path) -> None:
    """A log that is not there, and one that says nothing: the file is named."""
    with pytest.raises(LogError, match=r"none\.ndjson: the log cannot be read"):
        build_reference(tmp_path / "none.ndjson")
    with pytest.raises(BaselineError, match=r"short\.ndjson: "):
        build_reference(write(tmp_path / "short.ndjson", []))
