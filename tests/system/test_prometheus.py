"""The real agent on a growing log, scraped by the real Prometheus, killed and started again."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.errors import JournalError
from poisonwatch.sinks.journal import read, rfc3339
from tests.system.programs import (
    Prometheus,
    Series,
    Sidecar,
    demo_lines,
    free_port,
    obstruct,
    poisonwatch,
    promtool_check,
    total,
    value,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.slow]

MODEL = "sms-spam"
BURST = 2000
"""Lines that the server writes at a time."""

ROLLBACK = {"model": MODEL, "model_version": "v2", "decision": "rollback"}
FIRING = {"model": MODEL, "model_version": "v2", "severity": "page", "state": "firing"}

Finding = dict[str, Any]


@pytest.fixture(scope="module")
def log() -> list[bytes]:
    """The shipped log as if it had ended five minutes ago, and one more prediction, which closes its last window."""
    lines = demo_lines(time.time() - 300)
    last = json.loads(lines[-1])
    at = datetime.fromisoformat(last["timestamp"]).timestamp()
    closing = {**last, "prediction_id": "closing", "model_version": "v1", "timestamp": rfc3339(at + 240)}
    return [*lines, json.dumps(closing).encode() + b"\n"]


@pytest.fixture(scope="module")
def replayed(log: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """What `poisonwatch replay` finds in the same log: what every run of the agent must find, however it went."""
    folder = tmp_path_factory.mktemp("replayed")
    sidecar = Sidecar(folder)
    sidecar.append(log)
    sidecar.journal.parent.mkdir()
    subprocess.run(
        poisonwatch(
            *("replay", "--config", "config.yaml", "--reference", "reference.json", "--journal"),
            *(str(sidecar.journal), "predictions.ndjson"),
        ),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return sidecar.findings()


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    """An agent that is not started yet and is gone after the test; its port stays its own from start to start."""
    made = Sidecar(tmp_path, port=free_port(), checkpoint=0.5)
    yield made
    made.close()


def one_firing(findings: list[Finding]) -> Finding:
    """The one page of the log that fired; tickets may fire beside it."""
    fired = [found for found in findings if found["kind"] == "alert" and found["state"] == "firing"]
    (page,) = [alert for alert in fired if alert["severity"] == "page"]
    return page


def lines_before(log: list[bytes], moment: str) -> int:
    """How many records of the log are older than an instant."""
    return sum(json.loads(line)["timestamp"] < moment for line in log)


def assert_one_decision_always(prometheus: Prometheus) -> None:
    """In every scrape that Prometheus made, each version has its three series, exactly one at 1, and rollback latches."""
    scrapes: dict[tuple[str, float], dict[str, float]] = {}
    for labels, samples in prometheus.history("poisonwatch_decision").items():
        told = dict(labels)
        for at, number in samples:
            scrapes.setdefault((told["model_version"], at), {})[told["decision"]] = number
    latched: set[str] = set()
    for (version, at), states in sorted(scrapes.items(), key=lambda item: item[0][1]):
        assert sorted(states) == ["hold", "keep", "rollback"], (version, at, states)
        assert sorted(states.values()) == [0.0, 0.0, 1.0], (version, at, states)
        assert states["rollback"] == 1.0 or version not in latched, f"rollback of {version} was taken back at {at}"
        if states["rollback"]:
            latched.add(version)
    assert latched == {"v2"}


def assert_complete(sidecar: Sidecar, log: list[bytes], replayed: list[Finding]) -> None:
    """Every line counted once, every finding written once, the chain holds: as if nothing had happened."""
    series = sidecar.has_read(len(log))
    assert total(series, "poisonwatch_lines_total") == len(log)
    assert total(series, "poisonwatch_records_total") == len(log)
    assert total(series, "poisonwatch_records_rejected_total") == 0
    assert total(series, "poisonwatch_predictions_late_total") == 0
    # All but the prediction that closed the last window by opening another.
    wait_for("all windows judged", lambda: judged(sidecar.series()) == len(log) - 1, sidecar.told)
    assert value(sidecar.series(), "poisonwatch_decision", **ROLLBACK) == 1
    assert sidecar.findings() == replayed
    assert sum(1 for _ in read(sidecar.journal)) == len(sidecar.entries())


def judged(series: Series) -> float:
    """Predictions in judged windows, over all versions and classes."""
    return total(series, "poisonwatch_predictions_total")


def test_prometheus_sees_the_alert_and_the_decision(
    sidecar: Sidecar, log: list[bytes], replayed: list[Finding], tmp_path: Path
) -> None:
    """Prometheus sees every count, the firing page and the rollback, and never two decisions or none for a version.

    promtool finds nothing to say about the page during the attack and after it; SIGTERM ends the agent in order.
    """
    with ExitStack() as stack:
        prometheus = Prometheus(tmp_path, sidecar.start())
        stack.callback(prometheus.close)
        attacked = lines_before(log, one_firing(replayed)["onset"])
        for start in range(0, len(log), BURST):
            sidecar.append(log[start : start + BURST])
            sidecar.has_read(min(start + BURST, len(log)))
            if start <= attacked < start + BURST:
                assert promtool_check(sidecar.page()) == (0, "")
        assert_complete(sidecar, log, replayed)
        assert promtool_check(sidecar.page()) == (0, "")

        def seen(expression: str) -> float:
            return prometheus.scalar(expression)

        wait_for(
            "the rollback in Prometheus",
            lambda: seen('poisonwatch_decision{model_version="v2",decision="rollback"} == 1') == 1,
        )
        wait_for(
            "the page in Prometheus",
            lambda: seen('poisonwatch_alerts{model_version="v2",severity="page",state="firing"}') == 1,
        )
        wait_for("all predictions in Prometheus", lambda: seen("sum(poisonwatch_predictions_total)") == len(log) - 1)
        records = [json.loads(line) for line in log[:-1]]
        for version in ("v1", "v2"):
            for answer in ("ham", "spam"):
                written = sum((r["model_version"], r["prediction"]) == (version, answer) for r in records)
                assert seen(f'poisonwatch_predictions_total{{model_version="{version}",class="{answer}"}}') == written
        assert seen('poisonwatch_decision{model_version="v1",decision="keep"}') == 1
        assert seen('poisonwatch_alerts{model_version="v1",severity="page",state="firing"}') == 0
        assert seen("poisonwatch_coverage_ratio") == 1
        assert_one_decision_always(prometheus)

    alert = one_firing(sidecar.findings())
    assert (alert["model_version"], alert["severity"], alert["cause"]) == ("v2", "page", "backdoor")
    decision = [found for found in sidecar.findings() if found.get("decision") == "rollback"]
    assert [(d["model_version"], d["target"], d["alerts"]) for d in decision] == [("v2", "v1", [alert["fingerprint"]])]

    assert sidecar.stop(signal.SIGTERM) == 0
    assert sidecar.entries()[-1]["kind"] == "stop"
    before = sidecar.entries()
    sidecar.start()
    assert any("checkpoint_restored" in line for line in sidecar.outputs[-1])
    assert_complete(sidecar, log, replayed)
    assert [entry["kind"] for entry in sidecar.entries()[len(before) :]] == ["start"]
    assert sidecar.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("seed", range(3))
def test_kills_change_nothing(
    sidecar: Sidecar, log: list[bytes], replayed: list[Finding], tmp_path: Path, seed: int
) -> None:
    """Killed at random moments before and after the alert, the agent counts every line once and finds the same.

    A moment is a place in the log and how far the agent has come with it: just written, read, or saved. Prometheus never
    sees a rollback taken back.
    """
    rng = random.Random(seed)
    alert_at = lines_before(log, one_firing(replayed)["time"])
    # Before the alert, about where it is written, after it.
    places = [rng.randrange(1, alert_at), alert_at + rng.randrange(500), rng.randrange(alert_at + 500, len(log))]
    with ExitStack() as stack:
        prometheus = Prometheus(tmp_path, sidecar.start())
        stack.callback(prometheus.close)
        written = 0
        for place in places:
            while written < place:
                count = min(rng.randrange(1, BURST // 2), place - written)
                saved = sidecar.checkpoint_file.stat().st_mtime_ns
                sidecar.append(log[written : written + count])
                written += count
                moment = rng.choice(["written", "read", "saved"])
                if moment == "read":
                    sidecar.has_read(written)
                elif moment == "saved":
                    sidecar.has_saved_since(saved)
            assert sidecar.stop(signal.SIGKILL) == -signal.SIGKILL
            sidecar.start()
            assert any("checkpoint_restored" in line for line in sidecar.outputs[-1])
            started = value(sidecar.series(), "poisonwatch_start_timestamp_seconds")

            def is_seen(now: float = started) -> bool:
                return prometheus.scalar("poisonwatch_start_timestamp_seconds") == now

            wait_for("a scrape of this life", is_seen)
        sidecar.append(log[written:])
        assert_complete(sidecar, log, replayed)
        rollback = 'poisonwatch_decision{model_version="v2",decision="rollback"} == 1'
        wait_for("the rollback in Prometheus", lambda: prometheus.scalar(rollback) == 1)
        assert_one_decision_always(prometheus)
    assert [entry["kind"] for entry in sidecar.entries()].count("start") == len(places) + 1
    assert sidecar.stop(signal.SIGTERM) == 0


def test_repeats_no_finding_that_no_checkpoint_covers(
    sidecar: Sidecar, log: list[bytes], replayed: list[Finding]
) -> None:
    """While the disk refuses checkpoints the agent goes on and counts the failures; a crash then repeats and loses nothing.

    The journal is then ahead of the checkpoint by every finding: what is said again word for word is not written again.
    """
    sidecar.start()
    draft = sidecar.checkpoint_file.with_name(sidecar.checkpoint_file.name + ".part")
    obstruct(draft)
    saved = sidecar.checkpoint_file.read_bytes()
    half = lines_before(log, one_firing(replayed)["time"]) + 500
    sidecar.append(log[:half])
    wait_for("the rollback", lambda: any(f.get("decision") == "rollback" for f in sidecar.findings()), sidecar.told)
    wait_for("a failure", lambda: total(sidecar.series(), "poisonwatch_checkpoint_failures_total") > 0, sidecar.told)
    assert sidecar.stop(signal.SIGKILL) == -signal.SIGKILL
    assert sidecar.checkpoint_file.read_bytes() == saved
    draft.rmdir()
    sidecar.append(log[half:])
    sidecar.start()
    assert_complete(sidecar, log, replayed)
    assert sidecar.stop(signal.SIGTERM) == 0


def test_shown_rollback_is_never_taken_back(sidecar: Sidecar, log: list[bytes]) -> None:
    """Whoever saw the rollback sees it again in the first page after a crash, however seldom checkpoints are due."""
    sidecar.checkpoint = 3600
    sidecar.configure()
    sidecar.start()
    sidecar.append(log)
    wait_for("the rollback", lambda: value(sidecar.series(), "poisonwatch_decision", **ROLLBACK) == 1, sidecar.told)
    assert sidecar.stop(signal.SIGKILL) == -signal.SIGKILL
    # What would be read again is gone: only what was saved can tell.
    sidecar.log.unlink()
    sidecar.start()
    first = sidecar.series()
    assert value(first, "poisonwatch_decision", **ROLLBACK) == 1
    assert value(first, "poisonwatch_alerts", **FIRING) == 1
    assert sidecar.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("how", ["rename", "copytruncate"])
def test_rotation_loses_nothing(sidecar: Sidecar, log: list[bytes], replayed: list[Finding], how: str) -> None:
    """The log is rotated several times under the running agent: every line is counted once."""
    sidecar.start()
    rng = random.Random(7)
    places = [0, *sorted(rng.sample(range(1, len(log)), 4)), len(log)]
    for number, (first, last) in enumerate(pairwise(places)):
        aside = sidecar.log.with_name(f"predictions.ndjson.{number}")
        middle = (first + last) // 2
        sidecar.append(log[first:middle])
        if how == "rename":
            sidecar.has_read(first + 1)
            sidecar.log.rename(aside)
            # The server goes on in the renamed file until it reopens: nothing of that may be lost either.
            with aside.open("ab") as file:
                file.write(b"".join(log[middle:last]))
        else:
            sidecar.append(log[middle:last])
            sidecar.has_read(last)
            shutil.copyfile(sidecar.log, aside)
            with sidecar.log.open("r+b") as file:
                file.truncate()
    assert_complete(sidecar, log, replayed)
    assert sidecar.stop(signal.SIGTERM) == 0


def test_tampered_journal_does_not_end_detection(sidecar: Sidecar, log: list[bytes], replayed: list[Finding]) -> None:
    """An agent whose journal was changed keeps it aside, says so in a new one and as an error, and finds what is to find."""
    sidecar.start()
    sidecar.append(log[:2000])
    wait_for("findings", lambda: len(sidecar.findings()) >= 2, sidecar.told)
    before = sidecar.findings()
    sidecar.stop(signal.SIGTERM)
    lines = sidecar.journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"keep"', b'"hold"')
    sidecar.journal.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="line 4 breaks the chain"):
        list(read(sidecar.journal))
    sidecar.append(log[2000:])
    sidecar.start()
    wait_for("all findings", lambda: len(before + sidecar.findings()) >= len(replayed), sidecar.told)
    first = sidecar.entries()[0]
    assert (first["kind"], first["file"]) == ("journal_set_aside", "journal.jsonl.broken-1")
    assert "line 4 breaks the chain" in first["problem"]
    assert sidecar.journal.with_name(first["file"]).read_bytes() == b"".join(lines)
    assert re.search(r"level=error event=journal_set_aside .*line 4 breaks the chain", "\n".join(sidecar.outputs[-1]))
    assert sidecar.stop(signal.SIGTERM) == 0
    # Its successor holds, and is known to the checkpoint: nothing is set aside a second time.
    sidecar.start()
    assert sidecar.stop(signal.SIGTERM) == 0
    assert [entry["kind"] for entry in read(sidecar.journal)].count("journal_set_aside") == 1
    assert not sidecar.journal.with_name("journal.jsonl.broken-2").exists()
    assert before + sidecar.findings() == replayed


def test_cut_journal_is_noticed(sidecar: Sidecar, log: list[bytes]) -> None:
    """Whoever cuts even the last line off the journal between two runs is found out by the checkpoint; so is who removes it."""
    sidecar.start()
    sidecar.append(log[:2000])
    wait_for("findings", lambda: len(sidecar.findings()) >= 2, sidecar.told)
    sidecar.stop(signal.SIGTERM)
    lines = sidecar.journal.read_bytes().splitlines(keepends=True)
    sidecar.journal.write_bytes(b"".join(lines[:-1]))
    sidecar.start()
    sidecar.stop(signal.SIGTERM)
    first = next(read(sidecar.journal))
    assert f"it has {len(lines) - 1} and the checkpoint knows {len(lines)}" in first["problem"]
    sidecar.journal.unlink()
    sidecar.start()
    sidecar.stop(signal.SIGTERM)
    first = next(read(sidecar.journal))
    assert (first["kind"], first["file"]) == ("journal_set_aside", None)
    assert "the journal was removed or emptied" in first["problem"]


@pytest.mark.parametrize("shared", ["journal", "checkpoint"])
def test_two_agents_on_one_state(sidecar: Sidecar, shared: str) -> None:
    """A second agent on the same journal or checkpoint is refused with the file and the remedy; the first goes on."""
    sidecar.start()
    config = (sidecar.folder / "config.yaml").read_text()
    for name in {"journal", "checkpoint"} - {shared}:
        config = re.sub(f"(?m)^  {name}: .*$", f"  {name}: other/{name}", config)
    (sidecar.folder / "second.yaml").write_text(config)
    before = sidecar.journal.read_bytes()
    done = subprocess.run(
        poisonwatch("run", "--config", "second.yaml"),
        cwd=sidecar.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 65
    taken = sidecar.journal if shared == "journal" else sidecar.checkpoint_file
    assert f"{taken}: another agent writes to it: stop that agent" in done.stderr
    assert sidecar.journal.read_bytes() == before
    assert sidecar.stop(signal.SIGTERM) == 0
    assert [entry["kind"] for entry in read(sidecar.journal)][-1] == "stop"
