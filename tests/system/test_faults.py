"""What fails around the agent: disks, clocks, files, processes and brokers. Each test is named after its fault.

After every fault the agent still watches, says what is wrong, and counts each record once: the end is compared with an
agent that read the same log in peace. A full disk is a limit on the size of the agent's files, which needs no rights.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import confluent_kafka
import numpy as np
import pytest

from poisonwatch import checkpoint
from poisonwatch.profile.indicators import OUTCOME
from poisonwatch.sinks.journal import read
from tests.folders import Folder, monitor, seen, work
from tests.kafka_brokers import brokers
from tests.streams import START, Record, lines, merged, predictions
from tests.system.nursery import Nursery
from tests.system.programs import PATIENCE, Series, fetch, obstruct, series_of, total, value, wait_for
from tests.system.stateful import Agent, in_peace, same

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.system]

FULL = 4096
"""Bytes that a file may have on a full disk: more than the first entries of a journal, less than any checkpoint."""


def story(times: int = 1) -> list[Record]:
    """A log in which a version is found out, with so many times as many records."""
    return merged(
        predictions(1500 * times, 1, rate=0.5 * times),
        predictions(1200 * times, 2, start=START + 600, rate=0.5 * times, version="v2", spam=0.6, confidence=1.5),
    )


def on_file(tmp_path: Path) -> tuple[Agent, Path]:
    """An agent that follows a file, and that file."""
    log = tmp_path / "log"
    log.touch()
    return Agent(tmp_path / "agent", {"path": str(log)}), log


def append(path: Path, records: list[Record]) -> None:
    """Write to the end of a file, as a server does."""
    with path.open("ab") as file:
        file.write(lines(records))


def metrics(agent: Agent) -> Series:
    """What the agent shows."""
    return series_of(fetch(f"http://127.0.0.1:{agent.port}/metrics"))


def shown(agent: Agent, what: str, **least: float) -> Series:
    """Wait until metrics, all labels together, have come to these values."""

    def look() -> Series | None:
        try:
            found = metrics(agent)
        except OSError:
            return None
        there = all(total(found, f"poisonwatch_{name}") >= count for name, count in least.items())
        return found if there else None

    found: Series = wait_for(what, look, lambda: (agent.folder / "agents.log").read_text()[-4000:])
    return found


def counts(agent: Agent, expected: int) -> None:
    """Wait until a checkpoint has as many predictions and the agent of now works, and some time for one too many."""
    wait_for("all are counted", lambda: agent.counted() >= expected, lambda: f"{agent.counted()} of {expected}")
    listening(agent)
    time.sleep(0.5)
    assert agent.counted() == expected


def as_in_peace(agent: Agent, tmp_path: Path, records: list[Record]) -> None:
    """Every number of the state and every finding is what an agent has that met no fault."""
    calm = in_peace(tmp_path / "calm", records)
    found, expected = agent.saved(), calm.saved()
    assert agent.counted() == len(records)
    assert found["intake"]["distinct"]["mail"]["dropped"] == 0
    assert same(found["models"]["mail"], expected["models"]["mail"])
    assert agent.findings() == calm.findings() != []


def said(agent: Agent, event: str) -> list[str]:
    """Lines of the agent's log of this name."""
    return [line for line in (agent.folder / "agents.log").read_text().splitlines() if f"event={event}" in line]


@contextmanager
def full_disk(process: int) -> Iterator[None]:
    """No file of the process may grow beyond a few KB."""
    soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE, (FULL, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it may have been ended
            resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))


def post(agent: Agent, records: list[Record]) -> tuple[int, str | None]:
    """Post records: the status, and when to come again."""
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=PATIENCE)
    try:
        connection.request("POST", "/v1/predictions", lines(records), {"Content-Type": "application/x-ndjson"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After")
    finally:
        connection.close()


def accepted(agent: Agent, records: list[Record]) -> bool:
    """Post records: were they acknowledged?"""
    return post(agent, records) == (200, None)


def listening(agent: Agent) -> None:
    """Wait until the agent answers: before it has begun, a signal ends it as any program."""
    wait_for("it listens", agent.listens, lambda: (agent.folder / "agents.log").read_text()[-4000:])


# Processes


def test_sigterm(tmp_path: Path) -> None:
    """Told to stop again and again in the middle of its work, it leaves with 0 and goes on where it was."""
    agent, log = on_file(tmp_path)
    records = story()
    with Nursery(agent.folder) as nursery:
        for part in range(9):
            nursery.start(agent.arguments)
            append(log, records[300 * part : 300 * (part + 1)])
            listening(agent)
            assert nursery.stop() == 0
        nursery.start(agent.arguments)
        counts(agent, len(records))
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)
    kinds = [entry["kind"] for entry in read(agent.folder / "journal")]
    assert (kinds.count("start"), kinds.count("stop")) == (10, 10)


def test_stopped_and_continued(tmp_path: Path) -> None:
    """A process that was frozen for seconds reads on; the silence was its own, no window is closed for it."""
    agent, log = on_file(tmp_path)
    records = story()
    with Nursery(agent.folder) as nursery:
        child = nursery.start(agent.arguments)
        append(log, records[:1000])
        counts(agent, 1000)
        os.kill(child, signal.SIGSTOP)
        append(log, records[1000:])
        time.sleep(5)
        os.kill(child, signal.SIGCONT)
        counts(agent, len(records))
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


def test_two_agents_on_one_state(tmp_path: Path) -> None:
    """The second leaves with 65 and says what to do; the first notices nothing."""
    agent, log = on_file(tmp_path)
    records = story()
    (tmp_path / "second").mkdir()
    with Nursery(agent.folder) as nursery, Nursery(tmp_path / "second") as other:
        nursery.start(agent.arguments)
        append(log, records[:1000])
        counts(agent, 1000)
        other.start(agent.arguments)
        assert other.ended() == 65
        assert "another agent writes to it: stop that agent, or give this one a `state` of its own" in "".join(
            other.told()
        )
        append(log, records[1000:])
        counts(agent, len(records))
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


# Disks


@pytest.mark.parametrize("end", ["room", "killed", "stopped"])
def test_disk_full_while_checkpointing(tmp_path: Path, end: str) -> None:
    """The agent watches on and says it; with room again, or after a crash or a stop, all is counted once.

    The journal is on the same disk: its entries wait and stand in it in their order.
    """
    agent, log = on_file(tmp_path)
    records = story()
    with Nursery(agent.folder) as nursery:
        child = nursery.start(agent.arguments)
        wait_for("the first checkpoint", agent.saved)
        with full_disk(child):
            append(log, records)
            found = shown(
                agent, "all is read", records_total=len(records), checkpoint_failures_total=3, journal_unwritten=3
            )
            assert total(found, "poisonwatch_alerts") >= 1
            assert total(found, "poisonwatch_journal_failures_total") >= 1
            assert agent.counted() == 0
            assert not (agent.folder / "checkpoint.part").exists()
            before = list(read(agent.folder / "journal"))
            (failed, *_) = said(agent, "checkpoint_failed")
            assert 'remedy="make room, or make it writable: it is tried again"' in failed
            if end == "killed":
                assert nursery.kill() == -9
            elif end == "stopped":
                assert nursery.stop() == 0
        if end != "room":
            nursery.start(agent.arguments)
        counts(agent, len(records))
        if end == "room":
            found = shown(
                agent, "a second has passed", records_total=len(records), heartbeat_timestamp_seconds=time.time()
            )
            assert total(found, "poisonwatch_journal_unwritten") == 0
            after = list(read(agent.folder / "journal"))
            assert after[: len(before)] == before != after
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


def test_disk_full_while_spooling(tmp_path: Path) -> None:
    """What cannot be kept is refused with 503 and when to come again, and counted; what was acknowledged is counted once."""
    agent = Agent(tmp_path / "agent", {"kind": "http"})
    records = story()
    parts = [records[start : start + 300] for start in range(0, len(records), 300)]
    with Nursery(agent.folder) as nursery:
        child = nursery.start(agent.arguments)
        listening(agent)
        assert post(agent, parts[0]) == (200, None)
        with full_disk(child):
            refused = [post(agent, part) for part in parts[1:]]
            assert refused == [(503, "5")] * len(refused)
            found = shown(agent, "what was refused", records_refused_total=len(refused))
            assert (
                value(found, "poisonwatch_records_refused_total", source="/v1/predictions", reason="spool_failed") == 8
            )
        assert [post(agent, part) for part in parts[1:]] == [(200, None)] * 8
        counts(agent, len(records))
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


def test_spool_full(tmp_path: Path) -> None:
    """While no checkpoint can be written nothing is deleted: a full spool answers 429, and takes posts when there is one."""
    agent = Agent(tmp_path / "agent", {"kind": "http", "body_bytes": 65536})
    agent.config["limits"]["spool_bytes"] = 1 << 20
    (agent.folder / "config.yaml").write_text(json.dumps(agent.config))
    records = story(4)
    parts = [records[start : start + 100] for start in range(0, len(records), 100)]
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        wait_for("the first checkpoint", agent.saved)
        obstruct(agent.folder / "checkpoint.part")
        done = 0
        while done < len(parts) and (answer := post(agent, parts[done])) == (200, None):
            done += 1
        assert 10 < done < len(parts)
        assert answer == (429, "5")
        found = shown(agent, "what was refused", records_refused_total=1, records_total=100 * done)
        assert value(found, "poisonwatch_records_refused_total", source="/v1/predictions", reason="spool_full") == 1
        (agent.folder / "checkpoint.part").rmdir()
        for part in parts[done:]:
            wait_for("room", partial(accepted, agent, part))
        counts(agent, len(records))
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


@pytest.mark.parametrize("killed", [False, True])
def test_read_only_disk(tmp_path: Path, *, killed: bool) -> None:
    """The agent watches on without a checkpoint, and says it; when it may write again nothing is lost or double."""
    agent, log = on_file(tmp_path)
    records = story()
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        wait_for("the first checkpoint", agent.saved)
        agent.folder.chmod(0o555)
        try:
            append(log, records)
            shown(agent, "all is read", records_total=len(records), checkpoint_failures_total=3)
            assert agent.counted() == 0
            assert 'error="Permission denied"' in said(agent, "checkpoint_failed")[0]
            if killed:
                nursery.kill()
                nursery.start(agent.arguments)
                shown(agent, "all is read again", records_total=len(records), checkpoint_failures_total=1)
        finally:
            agent.folder.chmod(0o755)
        counts(agent, len(records))
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


def test_read_only_journal_at_the_start(tmp_path: Path) -> None:
    """An agent that may not write its journal at all does not start: it leaves with 65 and says what to do."""
    agent, log = on_file(tmp_path)
    records = story()
    append(log, records)
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        counts(agent, len(records))
        assert nursery.stop() == 0
        (agent.folder / "journal").chmod(0o444)
        nursery.start(agent.arguments)
        assert nursery.ended() == 65
        assert any("make it writable, or choose another `state.journal`" in line for line in nursery.told())
        (agent.folder / "journal").chmod(0o644)
        nursery.start(agent.arguments)
        listening(agent)
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


def test_checkpoint_folder_removed(tmp_path: Path) -> None:
    """A folder that is taken away fails the checkpoints; when it is back they are written again."""
    agent, log = on_file(tmp_path)
    records = story()
    folder = agent.folder / "saved"
    agent.config["state"]["checkpoint"] = str(folder / "checkpoint")
    (agent.folder / "config.yaml").write_text(json.dumps(agent.config))
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        wait_for("the first checkpoint", (folder / "checkpoint").exists)
        folder.rename(agent.folder / "elsewhere")
        append(log, records)
        shown(agent, "all is read", records_total=len(records), checkpoint_failures_total=3)
        folder.mkdir()
        wait_for("the next checkpoint", (folder / "checkpoint").exists)
        assert nursery.kill() == -9
        (agent.folder / "checkpoint").symlink_to(folder / "checkpoint")
        nursery.start(agent.arguments)
        counts(agent, len(records))
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


# Checkpoints


def damage(agent: Agent, fault: str) -> None:
    """Do to a checkpoint what a fault would."""
    path = agent.folder / "checkpoint"
    content = path.read_bytes()
    if fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "bit_flipped":
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    else:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        manifest = json.loads(arrays["manifest"].tobytes())
        manifest["format"] = checkpoint.FORMAT - 1
        arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez(file, **arrays)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("truncated", "the checkpoint is damaged"),
        ("bit_flipped", "the checkpoint is damaged"),
        ("older_format", f"checkpoint of format {checkpoint.FORMAT - 1}, this agent reads {checkpoint.FORMAT}"),
    ],
)
def test_checkpoint_refused(tmp_path: Path, fault: str, told: str) -> None:
    """It is kept under another name, the agent says so and reads its log anew from the start: each record once."""
    agent, log = on_file(tmp_path)
    records = story()
    append(log, records[:2000])
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        counts(agent, 2000)
        assert nursery.stop() == 0
        damage(agent, fault)
        refused = (agent.folder / "checkpoint").read_bytes()
        append(log, records[2000:])
        nursery.start(agent.arguments)
        wait_for("it is refused", (agent.folder / "checkpoint.refused").exists)
        counts(agent, len(records))
        assert nursery.stop() == 0
    assert (agent.folder / "checkpoint.refused").read_bytes() == refused
    (line,) = said(agent, "checkpoint_refused")
    assert told in line
    assert 'remedy="starting anew"' in line
    calm = in_peace(tmp_path / "calm", records)
    assert same(agent.saved()["models"]["mail"], calm.saved()["models"]["mail"])
    # What was found before stands in the journal, and after it what the new state found, from the start.
    assert agent.findings()[-len(calm.findings()) :] == calm.findings()


def test_checkpoint_of_another_schema(tmp_path: Path) -> None:
    """It is kept under another name; the monitors start anew, and the log is read on where it was: each record once."""
    agent, log = on_file(tmp_path)
    records = story()
    append(log, records[:2000])
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        counts(agent, 2000)
        assert nursery.stop() == 0
        checkpoint.save(
            agent.folder / "checkpoint", agent.saved(), {"models": {"mail": "0" * 64}, "window_seconds": 60.0}
        )
        append(log, records[2000:])
        nursery.start(agent.arguments)
        wait_for("it is set aside", (agent.folder / "checkpoint.refused").exists)
        counts(agent, len(records))
        assert nursery.stop() == 0
    (line,) = said(agent, "monitors_start_anew")
    assert "the checkpoint belongs to other models, references or window settings" in line
    assert 'remedy="sources go on where they were"' in line
    later = in_peace(tmp_path / "later", records[2000:])
    assert same(
        agent.saved()["models"]["mail"]["monitor"]["versions"], later.saved()["models"]["mail"]["monitor"]["versions"]
    )


def test_crash_while_checkpointing(tmp_path: Path) -> None:
    """Half a checkpoint that a crash left behind is not read, and not left there."""
    agent, log = on_file(tmp_path)
    records = story()
    append(log, records[:2000])
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        counts(agent, 2000)
        nursery.kill()
        draft = agent.folder / "checkpoint.part"
        draft.write_bytes((agent.folder / "checkpoint").read_bytes()[:5000])
        append(log, records[2000:])
        nursery.start(agent.arguments)
        counts(agent, len(records))
        assert nursery.stop() == 0
        assert not draft.exists()
    as_in_peace(agent, tmp_path, records)


@pytest.mark.parametrize("fault", ["truncated", "removed"])
def test_checkpoint_newer_than_the_journal(tmp_path: Path, fault: str) -> None:
    """A journal that lacks what the checkpoint knows is set aside, and the new one begins by saying so; counts stay."""
    agent, log = on_file(tmp_path)
    records = story()
    append(log, records)
    journal = agent.folder / "journal"
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        counts(agent, len(records))
        assert nursery.stop() == 0
        whole = journal.read_bytes().splitlines(keepends=True)
        cut = b"".join(whole[:-3])
        if fault == "removed":
            journal.unlink()
        else:
            journal.write_bytes(cut)
        nursery.start(agent.arguments)
        listening(agent)
        assert nursery.stop() == 0
    assert agent.counted() == len(records)
    (first, *_) = read(journal)
    assert first["kind"] == "journal_set_aside"
    assert ("removed" if fault == "removed" else "cut off its end") in first["problem"]
    assert 'remedy="find out who did this"' in said(agent, "journal_set_aside")[0]
    if fault == "truncated":
        assert (agent.folder / "journal.broken-1").read_bytes() == cut


# Logs


def test_folder_of_the_log_removed(tmp_path: Path) -> None:
    """What was written before is counted; the log is found again when its folder is."""
    folder = tmp_path / "logs"
    folder.mkdir()
    agent = Agent(tmp_path / "agent", {"path": str(folder / "log")})
    records = story()
    append(folder / "log", records[:1000])
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        counts(agent, 1000)
        (folder / "log").unlink()
        folder.rmdir()
        wait_for("it is missed", lambda: not total(metrics(agent), "poisonwatch_source_found"))
        folder.mkdir()
        append(folder / "log", records[1000:])
        counts(agent, len(records))
        wait_for("it is found again", lambda: total(metrics(agent), "poisonwatch_source_found") == 1)
        assert nursery.stop() == 0
    as_in_peace(agent, tmp_path, records)


def test_duplicate_records(tmp_path: Path) -> None:
    """The same record, in a file, copied to another, posted, posted again, and after a restart, counts once.

    One with the same id and another content is another prediction: clients choose ids.
    """
    agent, log = on_file(tmp_path)
    copy = tmp_path / "copy"
    agent.config["sources"] = [{"path": str(log)}, {"path": str(copy)}, {"kind": "http"}]
    (agent.folder / "config.yaml").write_text(json.dumps(agent.config))
    records = story()
    append(log, records)
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        counts(agent, len(records))
        append(copy, records)
        assert post(agent, records[:300]) == (200, None)
        assert post(agent, records[:300]) == (200, None)
        shown(agent, "all is read", duplicates_total=len(records) + 600)
        counts(agent, len(records))
        nursery.kill()
        nursery.start(agent.arguments)
        listening(agent)
        assert post(agent, records[:300]) == (200, None)
        others = [{**record, "prediction_id": records[0]["prediction_id"]} for record in records[-50:]]
        assert post(agent, others) == (200, None)
        shown(agent, "all is read", duplicates_total=len(records) + 900)
        counts(agent, len(records) + 50)
        assert nursery.stop() == 0


def test_out_of_order_records(tmp_path: Path) -> None:
    """Records that come in another order within the allowed lateness are all counted where they belong."""
    rng = np.random.default_rng(5)
    records = story()
    times = np.array([record["timestamp"] for record in records])
    order = np.argsort(times + rng.uniform(0, 25, times.size))
    ends = []
    for name, given in (("sorted", records), ("shuffled", [records[place] for place in order.tolist()])):
        folder = Folder(tmp_path / name, lateness_seconds=30)
        folder.log.write_bytes(lines(given))
        app = folder.app()
        app.start(START + 10_000)
        work(app, START + 10_000)
        app.finish(START + 10_000)
        assert monitor(app).late == 0
        questions = monitor(app).questions
        row = next(row for row, column in enumerate(questions.code_columns) if column.name == OUTCOME)
        place = questions.code_place(row)
        ends.append({version: view.totals[place] for version, view in monitor(app).view().items()})
        app.close(START + 10_000)
    assert order.tolist() != sorted(order.tolist())
    assert same(ends[0], ends[1])
    assert sum(int(classes.sum()) for classes in ends[0].values()) == len(records)


# Clocks


@pytest.mark.parametrize("jumps", [(86_400.0, -86_400.0), (-86_400.0, 86_400.0), (20.0, -3600.0, 7 * 86_400.0)])
def test_clock_jumps(tmp_path: Path, jumps: tuple[float, ...]) -> None:
    """A clock that is set forward and back closes no window and makes no record late; checkpoints go on."""
    folder = Folder(tmp_path / "a", quiet_seconds=300)
    records = predictions(60, 3)  # within one window and the lateness behind it: nothing is judged yet
    app = folder.app()
    now = START + 120
    app.start(now)
    for number, jump in enumerate((0.0, *jumps)):
        now += jump
        # While the clock is behind, records are ahead of it: that is another test.
        if now >= START:
            with folder.log.open("ab") as log:
                log.write(lines(records[number * 5 : number * 5 + 5]))
        for _ in range(5):
            work(app, now)
            app.idle(now)
            folder.checkpoint.unlink(missing_ok=True)
            app.save(now, at_once=False)
            app.publish(now, at_once=False)
            now += 1
        assert seen(app) == 0
        if jump:
            folder.checkpoint.unlink(missing_ok=True)
            app.save(now + 10, at_once=False)
            assert folder.checkpoint.exists()
            snapshot = app.published.snapshot
            assert snapshot is not None
            assert now - 5 <= snapshot.time < now
    assert monitor(app).late == 0
    assert app.intake.counters.rejected.total() == 0
    # Silence is still noticed, whatever the clock was: counted from when the last record came.
    app.turn(now)
    for _ in range(30):
        now += 10
        app.turn(now)
        app.idle(now)
    assert seen(app) == app.intake.counters.predictions.total() > 0
    app.close(now)


def test_records_of_the_future(tmp_path: Path) -> None:
    """After the clock went back, what claims to be far ahead of it is rejected and counted; what is not is counted."""
    folder = Folder(tmp_path / "a")
    records = predictions(200)
    folder.log.write_bytes(lines(records[:100]))
    app = folder.app()
    app.start(START + 300)
    work(app, START + 300)
    with folder.log.open("ab") as log:
        log.write(lines(records[100:]))
    behind = records[150]["timestamp"] - 60
    work(app, behind)
    ahead = sum(record["timestamp"] > behind + folder.config.limits.skew_seconds for record in records[100:])
    assert 0 < ahead < 100
    assert app.intake.counters.rejected == {(str(folder.log), "future_timestamp"): ahead}
    assert app.intake.counters.predictions.total() == 200 - ahead
    app.close(START + 300)


# Brokers


def test_broker_gone_and_back(tmp_path: Path) -> None:
    """While no broker answers the agent waits and says so; what came before and what comes after counts once, restart included."""
    records = story()
    with brokers(1) as cluster:
        cluster.topic("predictions", 1)
        agent = Agent(tmp_path / "agent", {"kind": "kafka", "brokers": list(cluster.addresses), "topic": "predictions"})
        producer = confluent_kafka.Producer({"bootstrap.servers": ",".join(cluster.addresses)})

        def send(some: list[Record]) -> None:
            for record in some:
                producer.produce("predictions", lines([record]).rstrip())

        with Nursery(agent.folder) as nursery:
            nursery.start(agent.arguments)
            send(records[:1000])
            counts(agent, 1000)
            cluster.down()
            wait_for("it is missed", lambda: not total(metrics(agent), "poisonwatch_source_found"))
            send(records[1000:2000])
            nursery.kill()
            nursery.start(agent.arguments)
            listening(agent)
            assert agent.counted() == 1000
            cluster.up()
            counts(agent, 2000)
            send(records[2000:])
            counts(agent, len(records))
            assert total(metrics(agent), "poisonwatch_source_found") == 1
            assert nursery.stop() == 0
        producer.flush(30)
    as_in_peace(agent, tmp_path, records)
