"""The agent is killed hundreds of times under load, and counts as one that never was: for files, what is posted, and Kafka.

The end is compared with an agent that read the same log once, in peace: counters, and every number of every model's state.
"""

from __future__ import annotations

import gzip
import http.client
import random
import shutil
import threading
import time
from typing import TYPE_CHECKING

import confluent_kafka
import pytest

from tests.kafka_brokers import brokers
from tests.streams import Record, lines
from tests.system.nursery import Nursery
from tests.system.programs import wait_for
from tests.system.stateful import Agent, in_peace, same, story

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.system]

KILLS = 100
"""Of each test: together some hundreds."""

SECONDS = (0.02, 0.6)
"""How long an agent lives: from before it has read its checkpoint until it has written several."""


def killed(
    agent: Agent,
    rng: random.Random,
    load: threading.Thread,
    expected: int,
    kills: int = KILLS,
    seconds: tuple[float, float] = SECONDS,
) -> int:
    """Start it and kill it at random moments, as often as said and for as long as there is load; then let it end in peace.

    The load begins with the first checkpoint: what was rotated before an agent ever looked is not its to read.

    That is when it has as many predictions as expected, and some time for one too many. How many agents died of a kill.
    """
    with Nursery(agent.folder) as nursery:
        nursery.start(agent.arguments)
        wait_for("the first checkpoint", agent.saved)
        load.start()
        nursery.kill()
        while len(nursery.ends) < kills or load.is_alive():
            nursery.start(agent.arguments)
            time.sleep(rng.uniform(*seconds))
            nursery.kill()
        died = nursery.ends.count(-9)
        assert died == len(nursery.ends), (agent.folder / "agents.log").read_text()[-4000:]
        nursery.start(agent.arguments)
        wait_for("all are counted", lambda: agent.counted() >= expected, lambda: f"{agent.counted()} of {expected}")
        wait_for("the last agent listens", agent.listens)
        time.sleep(1.0)
        assert nursery.stop() == 0
    return died


def assert_as_in_peace(agent: Agent, calm: Agent, records: list[Record]) -> None:
    """All is counted, once, and every number is the same as without a crash."""
    found, expected = agent.saved(), calm.saved()
    counters = found["intake"]["counters"]
    lost, double = len(records) - agent.counted(), found["intake"]["distinct"]["mail"]["dropped"]
    print(f"{agent.folder.name}: {len(records)} records, {lost} lost, {double} delivered again and left out")  # noqa: T201 - the figures of the run
    assert lost == 0
    assert counters["rejected"] == []
    assert same(found["models"]["mail"], expected["models"]["mail"])
    assert agent.findings() == calm.findings() != []


class Rotating(threading.Thread):
    """Writes a log in pieces, some of them half lines, and rotates it in every manner while it does."""

    def __init__(self, path: Path, records: list[Record], seed: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self._path, self._content = path, lines(records)
        self._rng, self._seconds = random.Random(seed), seconds
        self._rotated = 0
        self.rotations: list[str] = []

    def run(self) -> None:
        """Write all of it, at an even pace."""
        started, done = time.monotonic(), 0
        while done < len(self._content):
            size = self._rng.randrange(1, 60_000)
            with self._path.open("ab") as log:
                log.write(self._content[done : done + size])
            done += size
            if self._rng.random() < 0.3:
                done = self._to_the_end_of_the_line(done)
                self._rotate()
            ahead = done / len(self._content) * self._seconds - (time.monotonic() - started)
            time.sleep(max(ahead, 0.0))

    def _to_the_end_of_the_line(self, done: int) -> int:
        """A server rotates between lines: within one the rotation itself would break the line in two."""
        end = self._content.find(b"\n", max(done - 1, 0)) + 1 or len(self._content)
        with self._path.open("ab") as log:
            log.write(self._content[done:end])
        return max(done, end)

    def _rotate(self) -> None:
        manner = self._rng.choice(["rename", "copytruncate", "compress"])
        self._rotated += 1
        rotated = self._path.with_name(f"{self._path.name}.{self._rotated}")
        if manner == "copytruncate":
            shutil.copy2(self._path, rotated)
            with self._path.open("r+b") as log:
                log.truncate(0)
        else:
            self._path.rename(rotated)
        if manner == "compress":
            self._compress()
        self.rotations.append(manner)

    def _compress(self) -> None:
        """Compress the rotated file before this one, as logrotate's delaycompress does."""
        before = self._path.with_name(f"{self._path.name}.{self._rotated - 1}")
        if not before.exists():
            return
        packed = before.with_name(before.name + ".gz")
        draft = before.with_name("." + packed.name)
        draft.write_bytes(gzip.compress(before.read_bytes(), 1))
        draft.rename(packed)
        before.unlink()


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_while_files_rotate(tmp_path: Path, seed: int) -> None:
    """A log that is renamed, copied and truncated, and compressed: after every kill it is read on where it was."""
    records = story()
    agent = Agent(tmp_path / f"files-{seed}", {"path": str(tmp_path / "logs" / "log")})
    (tmp_path / "logs").mkdir()
    writer = Rotating(tmp_path / "logs" / "log", records, seed, seconds=25)
    died = killed(agent, random.Random(seed), writer, len(records))
    print(f"{died} kills, {len(writer.rotations)} rotations: {sorted(set(writer.rotations))}")  # noqa: T201 - the figures of the run
    assert len(set(writer.rotations)) == 3
    assert_as_in_peace(agent, in_peace(tmp_path / "calm", records), records)


class Posting(threading.Thread):
    """Posts records until each was acknowledged: what was posted when the agent died is posted again."""

    def __init__(self, port: int, records: list[Record], seconds: float) -> None:
        super().__init__(daemon=True)
        self._port, self._records, self._pause = port, records, seconds / (len(records) / 100)
        self.again = 0

    def run(self) -> None:
        """Post all of it, a hundred records at a time, in order."""
        for start in range(0, len(self._records), 100):
            body = lines(self._records[start : start + 100])
            while not self._posted(body):
                self.again += 1
                time.sleep(0.02)
            time.sleep(self._pause)

    def _posted(self, body: bytes) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("POST", "/v1/predictions", body, {"Content-Type": "application/x-ndjson"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def test_killed_while_records_are_posted(tmp_path: Path) -> None:
    """What was acknowledged is counted; what was not is posted again; together each record counts once."""
    records = story()
    agent = Agent(tmp_path / "posts", {"kind": "http"})
    poster = Posting(agent.port, records, seconds=20)
    died = killed(agent, random.Random(3), poster, len(records))
    print(f"{died} kills, {poster.again} posts were not acknowledged")  # noqa: T201 - the figures of the run
    assert poster.again
    assert_as_in_peace(agent, in_peace(tmp_path / "calm", records), records)


def test_killed_while_messages_come(tmp_path: Path) -> None:
    """A topic's messages are counted once, whatever moment the agent dies in: offsets are part of its state.

    A group takes a second at least to notice that a member is dead, so these lives are longer and fewer.
    """
    records = story()
    with brokers(1) as cluster:
        cluster.topic("predictions", 1)
        quick = {"session.timeout.ms": "1000", "heartbeat.interval.ms": "100", "reconnect.backoff.max.ms": "200"}
        source = {"kind": "kafka", "brokers": list(cluster.addresses), "topic": "predictions", "options": quick}
        agent = Agent(tmp_path / "topic", source)
        producer = Producing(cluster.addresses, records, seconds=20)
        died = killed(agent, random.Random(4), producer, len(records), 15, (1.0, 5.0))
        print(f"{died} kills")  # noqa: T201 - the figures of the run
        assert_as_in_peace(agent, in_peace(tmp_path / "calm", records), records)


class Producing(threading.Thread):
    """Sends records to the topic at an even pace."""

    def __init__(self, addresses: tuple[str, ...], records: list[Record], seconds: float) -> None:
        super().__init__(daemon=True)
        self._producer = confluent_kafka.Producer({"bootstrap.servers": ",".join(addresses)})
        self._records, self._pause = records, seconds / (len(records) / 100)

    def run(self) -> None:
        """Send all of them, in order."""
        for start in range(0, len(self._records), 100):
            for record in self._records[start : start + 100]:
                self._producer.produce("predictions", lines([record]).rstrip())
            self._producer.flush(30)
            time.sleep(self._pause)
