"""The agent's loop over real files, with a clock that the test sets."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from poisonwatch import checkpoint
from poisonwatch.agent import FULL, App, run
from poisonwatch.agent.clocks import EventClock
from poisonwatch.assemble import replay, watch
from poisonwatch.config import DetectionConfig, LimitsConfig
from poisonwatch.reference.file import load, save
from poisonwatch.sinks.journal import Journal, read
from poisonwatch.sources.intake import MOMENT, Intake
from tests.folders import Folder, append, monitor, seen, work
from tests.streams import START, Record, lines, merged, predictions, reference, usual_reference, write

if TYPE_CHECKING:
    from pathlib import Path


class SetClock:
    """The time that the test says; resting lets as much of it pass."""

    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.time += seconds


def same(first: Any, second: Any) -> bool:
    """Are two states the same, bit for bit?"""
    if isinstance(first, np.ndarray):
        return isinstance(second, np.ndarray) and first.dtype == second.dtype and first.tobytes() == second.tobytes()
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second) or (first != first and second != second)  # noqa: PLR0124 - NaN is not itself


def state(app: App) -> dict[str, Any]:
    """Everything that the agent holds of its model."""
    watched = app.models["mail"]
    return {
        "monitor": watched.monitor.state(),
        "standing": msgspec.to_builtins(watched.standing),
        "counters": [sorted(app.intake.counters.lines.values()), sorted(app.intake.counters.predictions.values())],
    }


def story() -> list[Record]:
    """A log in which a version moves so far that it is found out."""
    return merged(
        predictions(1500, 1, rate=0.5),
        predictions(1200, 2, start=START + 600, rate=0.5, version="v2", spam=0.6, confidence=1.5),
    )


# Turns


def test_counts_are_exact(tmp_path: Path) -> None:
    """Every line is counted where it belongs: accepted, rejected by reason, faulty; and rejected ones are sampled."""
    folder = Folder(tmp_path / "a", feedback=True)
    good = predictions(300)
    label = {"timestamp": START + 9, "prediction_id": "p0-1", "label": "spam"}
    append(
        folder.log, lines(good[:100]) + b"bad\n\n{}\n" + lines([{**good[100], "zz": 1, "confidence": 9}, *good[101:]])
    )
    append(folder.labels, lines([label, label]) + b"{}\n")
    app = folder.app()
    app.start(START + 400)
    work(app, START + 400)
    app.publish(START + 400)
    log, labels = str(folder.log), str(folder.labels)
    assert app.intake.counters.lines == {log: 302, labels: 3}
    assert (app.intake.counters.predictions[log], app.intake.counters.feedback[labels]) == (300, 2)
    assert +app.intake.counters.rejected == {
        (log, "malformed"): 1,
        (log, "missing_timestamp"): 1,
        (labels, "missing_timestamp"): 1,
    }
    assert app.intake.counters.faults == {(log, "unknown_field"): 1, (log, "confidence_out_of_range"): 1}
    app.close(START + 400)
    assert sorted(msgspec.json.decode(line)["reason"] for line in folder.rejected.read_bytes().splitlines()) == [
        "malformed",
        "missing_timestamp",
        "missing_timestamp",
    ]


def test_published_counters_stand_still(tmp_path: Path) -> None:
    """A published snapshot does not change with the agent."""
    folder = Folder(tmp_path / "a")
    append(folder.log, lines(predictions(100)))
    app = folder.app()
    app.start(START + 400)
    before = app.published.snapshot
    work(app, START + 400)
    assert before is not None
    assert before.counters.lines.total() == 0
    app.publish(START + 400)
    assert app.published.snapshot is not None
    assert app.published.snapshot.counters.lines.total() == 100
    app.close(START + 400)


def test_future_is_rejected(tmp_path: Path) -> None:
    """A record that claims to be more than the allowed skew ahead of the clock is rejected and moves no window."""
    folder = Folder(tmp_path / "a")
    now = START + 400
    records = predictions(100)
    ahead = [{**records[0], "timestamp": now + skew} for skew in (59.0, 61.0, 86400.0, 1e9)]
    append(folder.log, lines([*records, *ahead]))
    app = folder.app()
    app.start(now)
    work(app, now)
    assert app.intake.counters.predictions.total() == 101
    assert app.intake.counters.rejected[str(folder.log), "future_timestamp"] == 3
    assert monitor(app).newest == now + 59
    app.close(now)


def test_long_quiet_closes_windows(tmp_path: Path) -> None:
    """When all logs have been quiet for long, what is open is judged; the clock does not make later data late."""
    folder = Folder(tmp_path / "a", lateness_seconds=30, quiet_seconds=300)
    records = [{**record, "timestamp": START + n} for n, record in enumerate(predictions(50))]
    append(folder.log, lines(records))
    now = START + 100
    app = folder.app()
    app.start(now)
    work(app, now)
    assert seen(app) == 0
    app.idle(now + 299.9)
    assert seen(app) == 0
    app.idle(now + 300)
    assert seen(app) == 50
    # A server that buffers its log writes what happened right after the last record only now.
    append(folder.log, lines([{**records[0], "timestamp": START + 61}, {**records[0], "timestamp": START + 59}]))
    work(app, now + 342)
    assert monitor(app).late == 1
    app.idle(now + 642)
    assert seen(app) == 51
    app.close(now + 642)


def test_a_log_that_becomes_unreadable_is_held(tmp_path: Path) -> None:
    """Lines that nothing can be made of are judged after a while, though no prediction moves the time on: then hold."""
    folder = Folder(tmp_path / "a", quiet_seconds=60)
    now = START + 700
    append(folder.log, lines(predictions(600)))
    app = folder.app()
    app.start(now)
    work(app, now)
    unreadable = lines({"pred": "ham", **record} for record in predictions(50) if record.pop("prediction"))
    for second in range(200):
        append(folder.log, unreadable)
        work(app, now + second)
        app.idle(now + second)
    standing = app.models["mail"].standing
    assert [alert.cause.value for alert in standing.alerts.values() if alert.state.value == "firing"] == ["blind"]
    assert standing.decisions["v1"].decision.value == "hold"
    app.close(now)


def test_unreadable_lines_before_any_data_do_not_make_it_late(tmp_path: Path) -> None:
    """They are judged by the clock; predictions of an earlier time that come afterwards are all counted."""
    folder = Folder(tmp_path / "a", quiet_seconds=60)
    now = START + 86400
    append(folder.log, b"{]\n" * 500)
    app = folder.app()
    app.start(now)
    work(app, now)
    app.idle(now + 60)
    assert [alert.cause.value for alert in app.models["mail"].standing.alerts.values()] == ["blind"]
    append(folder.log, lines(predictions(300)))
    work(app, now + 61)
    app.idle(now + 121)
    assert (seen(app), monitor(app).late) == (300, 0)
    app.close(now)


def test_idle_before_any_data(tmp_path: Path) -> None:
    """Waiting for a file that does not exist yet judges nothing, however long it takes."""
    folder = Folder(tmp_path / "a")
    app = folder.app()
    app.start(START)
    assert not app.turn(START)
    app.idle(START + 1e6)
    assert (seen(app), monitor(app).newest) == (0, -math.inf)
    append(folder.log, lines(predictions(10, start=START + 1e6)))
    work(app, START + 1e6 + 60)
    assert app.intake.counters.predictions.total() == 10
    assert monitor(app).late == 0
    app.close(START + 1e6)


def test_backwards_clock(tmp_path: Path) -> None:
    """A clock that is set back neither stops the loop nor un-judges anything."""
    folder = Folder(tmp_path / "a")
    append(folder.log, lines(predictions(300)))
    app = folder.app()
    app.start(START + 1000)
    work(app, START + 1000)
    before = state(app)
    app.idle(START - 5000)
    app.publish(START - 5000, at_once=False)
    app.save(START - 5000, at_once=False)
    assert same(state(app), before)
    assert app.published.snapshot is not None
    assert app.published.snapshot.time == START - 5000
    app.close(START)


def test_run_until_told_to_stop(tmp_path: Path) -> None:
    """The loop goes on over silence until it is told to stop, then publishes, saves and says goodbye."""
    folder = Folder(tmp_path / "a")
    append(folder.log, lines(predictions(300)))
    clock = SetClock(START + 400)
    app = folder.app()
    run(app, clock, lambda: clock.time > START + 1100)
    assert seen(app) == 300
    assert folder.checkpoint.exists()
    kinds = [entry["kind"] for entry in read(folder.journal)]
    assert (kinds[:2], kinds[-1]) == (["start", "reference"], "stop")
    assert "decision" in kinds


def test_replay_judges_what_is_open(tmp_path: Path) -> None:
    """A finite log ends with its last window judged, and is not saved."""
    app = replay(
        usual_reference(),
        [write(tmp_path / "log", predictions(300))],
        [],
        detection=DetectionConfig(),
        journal=None,
        tell=lambda _: None,
    )
    run(app, EventClock(app.intake), lambda: False)
    assert (app.exhausted, seen(app)) == (True, 300)


def test_logs_of_two_versions_are_one_stream(tmp_path: Path) -> None:
    """Versions that write logs of their own are judged as if they had written one, bit for bit.

    No two records have the same time: there the log that was named first goes first.
    """
    learned = usual_reference()
    v1, v2 = predictions(1500, 1, rate=0.5), predictions(1200, 2, start=START + 600, rate=0.5, version="v2", spam=0.5)
    v2 = [{**record, "timestamp": record["timestamp"] + 0.0005} for record in v2]
    ends = []
    for logs in (
        [write(tmp_path / "one", merged(v1, v2))],
        [write(tmp_path / "a", v1), write(tmp_path / "b", v2)],
        [write(tmp_path / "b", v2), write(tmp_path / "a", v1)],
    ):
        app = replay(learned, logs, [], detection=DetectionConfig(), journal=None, tell=lambda _: None)
        run(app, EventClock(app.intake), lambda: False)
        ends.append({**state(app), "counters": app.intake.counters.predictions.total()})
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])
    assert ends[0]["standing"]["alerts"]


# Checkpoints


def parts(content: bytes, count: int) -> list[bytes]:
    """A log in as many writes, cut anywhere: also in the middle of lines."""
    edges = np.linspace(0, len(content), count + 1).astype(int).tolist()
    return [content[a:b] for a, b in itertools.pairwise(edges)]


def uninterrupted(path: Path, writes: list[bytes], now: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """State and findings of an agent that was never stopped."""
    folder = Folder(path)
    app = folder.app()
    app.start(now)
    for content in writes:
        append(folder.log, content)
        work(app, now)
        app.save(now)
    end = state(app)
    app.close(now)
    return end, folder.findings()


NOW = START + 10_000


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What an agent that was never stopped makes of the story."""
    return uninterrupted(tmp_path_factory.mktemp("whole") / "a", parts(lines(story()), 12), NOW)


def test_story_is_one(expected: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """The log of these tests has something to lose: alerts that fire and a decision that changes."""
    end, findings = expected
    assert {entry["state"] for entry in findings if entry["kind"] == "alert"} >= {"firing"}
    assert len({entry["decision"] for entry in findings if entry["kind"] == "decision"}) >= 2
    assert end["standing"]["decisions"]


# Not shrunk: an example is a second of work, and the sets are small as they are.
@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.slow
@given(stops=st.sets(st.integers(0, 11), min_size=1, max_size=4), saved=st.sets(st.integers(0, 11)))
def test_stopped_anywhere(
    tmp_path_factory: pytest.TempPathFactory,
    expected: tuple[dict[str, Any], list[dict[str, Any]]],
    stops: set[int],
    saved: set[int],
) -> None:
    """Killed after any turn and started again, from however old a checkpoint, it ends in the same state, bit for bit.

    The journal says the same findings, each once, in one chain.
    """
    folder = Folder(tmp_path_factory.mktemp("stopped") / "a")
    app = folder.app()
    app.start(NOW)
    for number, content in enumerate(parts(lines(story()), 12)):
        append(folder.log, content)
        work(app, NOW)
        if number in saved:
            app.save(NOW)
        if number in stops:
            # A kill: nothing is said or saved, only the descriptors go.
            release(app)
            app = folder.app()
            app.start(NOW)
    work(app, NOW)
    end = state(app)
    app.close(NOW)
    assert same(end, expected[0])
    assert folder.findings() == expected[1]


def release(app: App) -> None:
    """Let go of the files of an agent that was killed, as the system does."""
    app._journal.close()  # noqa: SLF001 - a killed process has no method to call
    if app._lock is not None:  # noqa: SLF001
        app._lock.close()  # noqa: SLF001
    app.intake.close()


def test_stopped_properly(tmp_path: Path, expected: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """Stopped and started as an operator does, nothing is lost, and the journal says when."""
    folder = Folder(tmp_path / "a")
    end: dict[str, Any] = {}
    for content in parts(lines(story()), 12):
        append(folder.log, content)
        app = folder.app()
        app.start(NOW)
        work(app, NOW)
        app.save(NOW)
        end = state(app)
        app.close(NOW)
    assert same(end, expected[0])
    assert folder.findings() == expected[1]
    kinds = [entry["kind"] for entry in read(folder.journal)]
    assert (kinds.count("start"), kinds.count("stop"), kinds.count("reference")) == (12, 12, 1)


def test_restored_is_what_was_saved(tmp_path: Path) -> None:
    """A restored agent holds and shows what the saved one did, without having read a line."""
    folder = Folder(tmp_path / "a")
    append(folder.log, lines(story()))
    first = folder.app()
    first.start(NOW)
    work(first, NOW)
    first.save(NOW)
    first.publish(NOW)
    before, shown = state(first), first.published.snapshot
    first.close(NOW)
    second = folder.app()
    second.start(NOW)
    assert same(state(second), before)
    again = second.published.snapshot
    assert shown is not None
    assert again is not None
    assert again.models[0].alerts == shown.models[0].alerts
    assert again.models[0].decisions == shown.models[0].decisions
    for name, view in shown.models[0].versions.items():
        assert again.models[0].versions[name].evidence == view.evidence
        assert again.models[0].versions[name].distances == view.distances
    assert not second.turn(NOW)
    second.close(NOW)


def test_rotated_while_stopped(tmp_path: Path, expected: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """A log that was rotated while the agent was down is read to its end first."""
    folder = Folder(tmp_path / "a")
    content = parts(lines(story()), 3)
    append(folder.log, content[0])
    first = folder.app()
    first.start(NOW)
    work(first, NOW)
    first.save(NOW)
    first.close(NOW)
    whole = content[1] + content[2]
    middle = whole.rindex(b"\n", 0, len(whole) // 2) + 1
    append(folder.log, whole[:middle])
    folder.log.rename(folder.log.with_name("log.1"))
    append(folder.log, whole[middle:])
    second = folder.app()
    second.start(NOW)
    for _ in range(20):
        second.turn(NOW)
    assert same({**state(second), "counters": 0}, {**expected[0], "counters": 0})
    assert second.intake.counters.lines.total() == len(story())
    second.close(NOW)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    """An agent whose checkpoint is damaged starts anew, says its reference again, and works."""
    folder = Folder(tmp_path / "a")
    folder.checkpoint.write_bytes(content)
    append(folder.log, lines(predictions(300)))
    app = folder.app()
    app.start(NOW)
    work(app, NOW)
    app.save(NOW)
    assert app.intake.counters.predictions.total() == 300
    app.close(NOW)
    assert [entry["kind"] for entry in read(folder.journal)][:2] == ["start", "reference"]


def test_checkpoint_of_another_reference(tmp_path: Path) -> None:
    """The monitors start anew, since their numbers meant something else; the sources go on where they were."""
    folder = Folder(tmp_path / "a")
    append(folder.log, lines(predictions(300)))
    first = folder.app()
    first.start(NOW)
    work(first, NOW)
    first.save(NOW)
    first.close(NOW)
    save(reference(tmp_path, 300, 98), tmp_path / "a" / "r.json")
    second = folder.app()
    second.start(NOW)
    append(folder.log, lines(predictions(400)[300:]))
    work(second, NOW)
    assert second.intake.counters.predictions.total() == 400
    assert monitor(second).newest > START
    second.finish(NOW)
    assert seen(second) == 100
    second.close(NOW)


def test_failed_checkpoint_is_counted(tmp_path: Path) -> None:
    """An agent that cannot save goes on watching, and shows that it could not."""
    folder = Folder(tmp_path / "a")
    app = folder.app()
    folder.checkpoint.with_name("checkpoint.part").mkdir()
    append(folder.log, lines(predictions(300)))
    app.start(NOW)
    work(app, NOW)
    app.save(NOW)
    app.publish(NOW)
    snapshot = app.published.snapshot
    assert snapshot is not None
    assert snapshot.checkpoint is None
    assert snapshot.checkpoint_failures >= 1
    assert snapshot.counters.predictions.total() == 300
    app.close(NOW)


def test_due_checkpoints(tmp_path: Path) -> None:
    """A checkpoint is written when it is due, not at every turn."""
    folder = Folder(tmp_path / "a")
    app = folder.app()
    app.start(NOW)
    append(folder.log, lines(predictions(100)))
    work(app, NOW)
    folder.checkpoint.unlink()
    app.save(NOW + 9.9, at_once=False)
    assert not folder.checkpoint.exists()
    app.save(NOW + 10, at_once=False)
    assert folder.checkpoint.exists()
    app.close(NOW)


def test_checkpoint_while_records_are_held(tmp_path: Path) -> None:
    """What the merge holds when a checkpoint is written is in it: after a kill nothing is lost and nothing counts twice."""
    folder = Folder(tmp_path / "a", feedback=True)
    labels = [{"timestamp": START + at, "prediction_id": f"p0-{at}", "label": "ham"} for at in (10, 2000)]
    append(folder.log, lines(predictions(300)))
    append(folder.labels, lines(labels))
    whole = folder.app()
    whole.start(NOW)
    work(whole, NOW)
    expected = state(whole)
    release(whole)
    folder.checkpoint.unlink()
    folder.journal.unlink()
    app = folder.app()
    app.start(NOW)
    assert app.turn(NOW)
    assert any(lane.holding for lane in app.intake.merge.lanes)
    app.save(NOW)
    release(app)
    second = folder.app()
    second.start(NOW)
    work(second, NOW)
    assert same(state(second), expected)
    second.close(NOW)


def test_positions_and_counts_agree(tmp_path: Path) -> None:
    """In a checkpoint the counters cover exactly what the position covers: nothing counts twice after a restart."""
    folder = Folder(tmp_path / "a")
    content = lines(predictions(300))
    append(folder.log, content + b'{"half')
    app = folder.app()
    app.start(NOW)
    work(app, NOW)
    app.save(NOW)
    app.close(NOW)
    identity = {
        "models": {"mail": load(folder.config.models[0].reference).sha256},
        "window_seconds": folder.config.detection.window_seconds,
    }
    saved = checkpoint.load(folder.checkpoint, identity)
    assert saved is not None
    assert saved["intake"]["counters"]["lines"] == {str(folder.log): 300}
    second = folder.app()
    second.start(NOW)
    append(folder.log, b'": 1}\n')
    work(second, NOW)
    assert second.intake.counters.lines == {str(folder.log): 301}
    second.close(NOW)


def test_agent_without_files(tmp_path: Path) -> None:
    """Without a checkpoint, journal or dead letters configured, nothing is written and all else works."""
    learned = usual_reference()
    app = App(
        {"mail": watch("mail", learned, DetectionConfig(), LimitsConfig(), 1, None, confirms=False)},
        Intake([], ["mail"], 60.0),
        Journal(None),
        DetectionConfig(),
    )
    before = sorted(tmp_path.iterdir())
    app.start(START)
    assert not app.turn(START)
    app.save(START)
    app.close(START)
    assert sorted(tmp_path.iterdir()) == before


def test_snapshot_cannot_be_changed(tmp_path: Path) -> None:
    """What is published is frozen."""
    folder = Folder(tmp_path / "a")
    app = folder.app()
    app.start(NOW)
    snapshot = app.published.snapshot
    assert snapshot is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.time = 0.0  # type: ignore[misc]
    app.close(NOW)


def test_a_backlog_is_read_without_a_rest(tmp_path: Path) -> None:
    """While much is there to read the loop does not rest, and once it keeps up every turn ends with a rest."""
    folder = Folder(tmp_path)
    write(folder.log, predictions(5_000, 2))
    assert folder.log.stat().st_size > 10 * MOMENT
    app = folder.app()
    clock = SetClock(START + 5_000)
    began: list[float] = []

    def stop() -> bool:
        began.append(clock.time)
        return len(began) > 30

    run(app, clock, stop)
    assert app.intake.counted().predictions.total() == 5_000
    rests = np.diff(began)
    first = int(np.flatnonzero(rests)[0])
    assert 1 <= first <= 5_000 // FULL
    assert (rests[first:] > 0).all()
