"""A topic is counted exactly, whoever reads it, dies, comes back or takes over; each test is named for one fault."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from poisonwatch.config.sources import KafkaSourceConfig
from poisonwatch.errors import ConfigError
from poisonwatch.formats.events import Event, events
from poisonwatch.sources.kafka import GONE, HELD, KafkaSource
from poisonwatch.sources.kafka_claims import MOST_BYTES, Claim, beyond, decode, encode, extended
from tests.kafka_brokers import OFFSET_COMMIT, PARTITIONS, Brokers, brokers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 240.0
"""Seconds after which what was waited for is called missing: a bound on a hang, not a measure of speed."""

QUICK = {
    "session.timeout.ms": "1000",
    "heartbeat.interval.ms": "100",
    "reconnect.backoff.max.ms": "200",
    "topic.metadata.refresh.interval.ms": "200",
}
"""Settings with which a lost member is missed soon."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Brokers]:
    """One broker for all tests that do it no harm; each has a topic of its own."""
    with brokers() as running:
        yield running


@pytest.fixture
def topic(cluster: Brokers, request: pytest.FixtureRequest) -> str:
    """A new topic."""
    name = str(request.node.name).partition("[")[0]
    cluster.topic(name)
    return name


class Load:
    """A producer of numbered messages."""

    def __init__(self, cluster: Brokers, topic: str) -> None:
        self._producer = Producer({"bootstrap.servers": ",".join(cluster.addresses), "log_level": 0})
        self._topic = topic
        self.sent = 0

    def numbers(self, count: int) -> None:
        """Send the next numbers, and wait until they are there."""
        for number in range(self.sent, self.sent + count):
            self._producer.produce(self._topic, b"%d" % number, partition=number % PARTITIONS)
        self.sent += count
        assert self._producer.flush(PATIENCE) == 0

    def message(self, value: bytes | None, **more: Any) -> None:
        """Send one message to partition 0."""
        self._producer.produce(self._topic, value, partition=0, **more)
        assert self._producer.flush(PATIENCE) == 0


def config(cluster: Brokers, topic: str, **more: Any) -> KafkaSourceConfig:
    """A source that reads a topic; the group is called like it."""
    return KafkaSourceConfig.model_validate(
        {"kind": "kafka", "brokers": cluster.addresses, "topic": topic, "group": topic, "options": QUICK, **more}
    )


def pump(sources: list[KafkaSource], until: Callable[[list[Event]], bool], seconds: float = PATIENCE) -> list[Event]:
    """Everything that the sources give until it is enough, or time is over."""
    found: list[Event] = []
    deadline = time.monotonic() + seconds
    while not until(found) and time.monotonic() < deadline:
        before = len(found)
        for source in sources:
            for stream in source.streams():
                while (block := stream.poll()) is not None:
                    assert block.framed
                    found += events(block)
        if len(found) == before:
            time.sleep(0.002)
    return found


def counted(found: list[Event]) -> list[int]:
    """Numbers of messages in ascending order."""
    return sorted(int(event.body) for event in found)


def read(source: KafkaSource, count: int) -> list[int]:
    """So many numbers of messages, and whatever comes with them."""
    return counted(pump([source], lambda found: len(found) >= count))


def test_every_message_in_the_order_of_its_partition(cluster: Brokers, topic: str) -> None:
    """All messages are given once; lag and position say what was given; streams are named for their partitions."""
    load = Load(cluster, topic)
    load.numbers(3000)
    source = KafkaSource(config(cluster, topic))
    found = pump([source], lambda found: len(found) >= 3000)
    assert counted(found) == list(range(3000))
    for partition in range(PARTITIONS):
        mine = [int(event.body) for event in found if int(event.body) % PARTITIONS == partition]
        assert mine == sorted(mine)
    assert [stream.name for stream in source.streams()] == [f"{topic}/{number}" for number in range(PARTITIONS)]
    assert source.position()["next"] == dict.fromkeys(map(str, range(PARTITIONS)), 750)
    assert (source.found, source.lag(), dict(source.lost())) == (True, 0, {})
    source.close()


def test_what_a_message_carries(cluster: Brokers, topic: str) -> None:
    """Headers come with lower-case names, bounded and without our own marks; the key, time and topic come along."""
    load = Load(cluster, topic)
    load.message(
        b"{}",
        key=b"k\xff",
        timestamp=1_700_000_000_500,
        headers=[("Content-Type", b"application/json"), ("ce_id", b"7"), (":key", b"forged"), (":origin", b"forged")],
    )
    load.message(b"{}", timestamp=95_000_000_000_000, headers=[(f"h{n}", b"v" * 9000) for n in range(100)])
    load.message(b"{}", headers=[("twice", b"first"), ("Twice", b"second"), ("none", None)])
    source = KafkaSource(config(cluster, topic))
    first, second, third = pump([source], lambda found: len(found) >= 3)
    assert first == Event(
        b"{}",
        {"content-type": "application/json", "ce-id": "7", ":key": "k\N{REPLACEMENT CHARACTER}"},
        1_700_000_000.5,
        topic,
    )
    assert len(second.headers) == 64
    assert max(map(len, second.headers.values())) == 4096
    # A time that has not come yet is not when a message was received.
    assert abs(second.at - time.time()) < PATIENCE
    assert third.headers == {"twice": "first", "none": ""}
    source.close()


def test_tombstones_and_blank_messages(cluster: Brokers, topic: str) -> None:
    """A message without a value, or with a blank one, is given as `null`: formats reject and count it."""
    load = Load(cluster, topic)
    for value in (None, b"", b" \n\t"):
        load.message(value)
    source = KafkaSource(config(cluster, topic))
    assert [event.body for event in pump([source], lambda found: len(found) >= 3)] == [b"null"] * 3
    source.close()


def test_debts_are_paid(cluster: Brokers, topic: str) -> None:
    """An agent that lost what it counted since its checkpoint counts that again, and nothing that another counted since."""
    load = Load(cluster, topic)
    source = KafkaSource(config(cluster, topic))
    born = source.position()
    load.numbers(400)
    first = read(source, 400)
    source.close()
    load.numbers(400)
    other = KafkaSource(config(cluster, topic))
    assert read(other, 400) == list(range(400, 800))
    load.numbers(400)
    again = KafkaSource(config(cluster, topic))
    assert again.resume(born) == []
    found = pump([other, again], lambda found: len(found) >= 800)
    assert counted(found) == [*first, *range(800, 1200)]
    assert pump([other, again], lambda _: False, 1.0) == []
    other.close()
    again.close()


def test_nothing_is_read_twice_after_a_checkpoint(cluster: Brokers, topic: str) -> None:
    """What a checkpoint has is not given again, and what came after it is, in its order, before what is new."""
    load = Load(cluster, topic)
    load.numbers(200)
    source = KafkaSource(config(cluster, topic))
    assert read(source, 200) == list(range(200))
    saved = json.loads(json.dumps(source.position()))
    source.commit(saved)
    load.numbers(200)
    assert read(source, 200) == list(range(200, 400))
    source.close()
    load.numbers(200)
    source = KafkaSource(config(cluster, topic))
    assert source.resume(saved) == []
    found = pump([source], lambda found: len(found) >= 400)
    assert counted(found) == list(range(200, 600))
    mine = [int(event.body) for event in found if int(event.body) % PARTITIONS == 0]
    assert mine == sorted(mine)
    source.close()


def test_commits_refused(cluster: Brokers, topic: str) -> None:
    """Claims that the broker refuses are made again; nothing is given before one holds."""
    load = Load(cluster, topic)
    source = KafkaSource(config(cluster, topic))
    load.numbers(100)
    assert read(source, 100) == list(range(100))
    # Coordinator loading, rebalance in progress, unknown server error, group authorization failed.
    cluster.refuse_commits(14, 27, -1, 30)
    load.numbers(100)
    assert read(source, 100) == list(range(100, 200))
    source.close()


def test_nothing_is_given_before_it_is_claimed(cluster: Brokers, topic: str) -> None:
    """What one agent fetched and could not claim is counted by another alone."""
    load = Load(cluster, topic)
    source = KafkaSource(config(cluster, topic))
    load.numbers(100)
    assert read(source, 100) == list(range(100))
    cluster.refuse_commits(*[27] * 1000)
    load.numbers(100)
    assert pump([source], lambda _: source.lag() < 100, 1.0) == []
    source.close()
    cluster.do("clear_request_errors", OFFSET_COMMIT)
    other = KafkaSource(config(cluster, topic))
    assert read(other, 100) == list(range(100, 200))
    other.close()


def test_records_deleted_before_they_were_read(cluster: Brokers, topic: str) -> None:
    """Messages that retention took are counted as lost, and reading goes on with the earliest that is left."""
    load = Load(cluster, topic)
    load.numbers(400)
    source = KafkaSource(config(cluster, topic))
    assert read(source, 400) == list(range(400))
    saved = source.position()
    source.close()
    load.numbers(400)
    for partition in range(PARTITIONS):
        assert cluster.do("partition_delete_records", topic, partition, 150) == 0
    source = KafkaSource(config(cluster, topic))
    source.resume(saved)
    assert read(source, 200) == list(range(600, 800))
    assert source.lost() == {GONE: 200}
    source.close()


def test_debts_deleted_before_they_were_paid(cluster: Brokers, topic: str) -> None:
    """What we owe and the broker does not have any more is counted as lost, part by part."""
    load = Load(cluster, topic)
    source = KafkaSource(config(cluster, topic))
    born = source.position()
    load.numbers(400)
    assert read(source, 400) == list(range(400))
    source.close()
    for partition, before in enumerate((30, 100, 0, 99)):
        assert cluster.do("partition_delete_records", topic, partition, before) == 0
    source = KafkaSource(config(cluster, topic))
    source.resume(born)
    load.numbers(40)
    found = pump([source], lambda found: len(found) >= 171 + 40)
    assert source.lost() == {GONE: 229}
    assert Counter(number % PARTITIONS for number in counted(found)) == {0: 80, 1: 10, 2: 110, 3: 11}
    source.close()


def test_topic_appears_later(cluster: Brokers) -> None:
    """A topic that is not there yet is no error: it is not found, then it is."""
    source = KafkaSource(config(cluster, "later"))
    assert pump([source], lambda _: False, 2.0) == []
    assert not source.found
    cluster.topic("later")
    load = Load(cluster, "later")
    load.numbers(40)
    assert read(source, 40) == list(range(40))
    assert source.found
    source.close()


def test_offsets_set_by_others(cluster: Brokers, topic: str) -> None:
    """Where somebody set the offsets of the group, reading goes on there."""
    load = Load(cluster, topic)
    load.numbers(400)
    source = KafkaSource(config(cluster, topic))
    assert read(source, 400) == list(range(400))
    saved = source.position()
    source.close()
    tool = Consumer({"bootstrap.servers": ",".join(cluster.addresses), "group.id": topic, "log_level": 0, **QUICK})
    tool.subscribe([topic])
    while not tool.assignment():
        tool.poll(0.1)
    tool.commit(offsets=[TopicPartition(topic, number, 90) for number in range(PARTITIONS)], asynchronous=False)
    tool.close()
    source = KafkaSource(config(cluster, topic))
    source.resume(saved)
    assert read(source, 40) == list(range(360, 400))
    source.close()


def test_start_at_the_latest(cluster: Brokers, topic: str) -> None:
    """With `start: latest` what was there before is left, and what comes after the first start is not, restart or no."""
    load = Load(cluster, topic)
    load.numbers(100)
    source = KafkaSource(config(cluster, topic, start="latest"))
    born = source.position()
    group = Consumer({"bootstrap.servers": ",".join(cluster.addresses), "group.id": topic, "log_level": 0})
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]

    def told(_: list[Event]) -> bool:
        """Whether the group knows of every partition where the first start was."""
        return all(place.offset >= 0 for place in group.committed(places, timeout=PATIENCE))

    assert pump([source], told) == []
    assert told([])
    group.close()
    source.close()
    load.numbers(100)
    source = KafkaSource(config(cluster, topic, start="latest"))
    source.resume(born)
    assert read(source, 100) == list(range(100, 200))
    source.close()


def test_what_is_fetched_ahead_is_bounded(cluster: Brokers, topic: str) -> None:
    """While nobody takes messages, no more of them are held than a bound, and afterwards all are given once."""
    load = Load(cluster, topic)
    source = KafkaSource(config(cluster, topic))
    for number in range(64):
        load.message(b"%d" % number + b" " * 70_000)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        source.streams()
        time.sleep(0.002)
    held = sum(partition.size for partition in source.streams())
    assert 0 < held <= HELD + (1 << 20)
    assert read(source, 64) == list(range(64))
    assert sum(partition.size for partition in source.streams()) == 0
    source.close()


def test_broker_gone_and_back() -> None:
    """Without brokers nothing is found and nothing raised; when they are back, all is counted once."""
    with brokers(2) as cluster:
        cluster.topic("t")
        load = Load(cluster, "t")
        load.numbers(200)
        source = KafkaSource(config(cluster, "t"))
        assert read(source, 200) == list(range(200))
        for _ in range(3):
            cluster.down()
            assert pump([source], lambda _: not source.found) == []
            assert not source.found
            cluster.up()
            load.numbers(200)
            assert read(source, 200) == list(range(load.sent - 200, load.sent))
            assert pump([source], lambda _: source.found) == []
            assert source.found
        source.close()


def test_topic_deleted_and_made_anew() -> None:
    """A topic that was deleted is not found; one of the same name is read from its beginning."""
    with brokers() as cluster:
        cluster.topic("t")
        load = Load(cluster, "t")
        load.numbers(200)
        source = KafkaSource(config(cluster, "t"))
        assert read(source, 200) == list(range(200))
        assert cluster.do("topic_delete", "t") == 0
        pump([source], lambda _: not source.found, 10.0)
        assert not source.found
        source.close()


class Agents:
    """Small agents as processes, each with a state of its own."""

    def __init__(self, folder: Path, settings: KafkaSourceConfig) -> None:
        self._folder = folder
        self._settings = settings.model_dump_json()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0

    def start(self, name: str) -> None:
        """Start an agent, from its last checkpoint where it has one."""
        self._started += 1
        command = [
            sys.executable,
            "-m",
            "tests.kafka_agent",
            str(self._folder / name),
            self._settings,
            str(self._started),
        ]
        with (self._folder / f"{name}.err").open("ab") as told:
            self._running[name] = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=told)

    def stop(self, name: str, number: signal.Signals) -> None:
        """End an agent by a signal."""
        process = self._running.pop(name)
        process.send_signal(number)
        code = process.wait(PATIENCE)
        # Asked to go before it listens, it dies of that.
        assert code == -number or (number == signal.SIGTERM and code == 0), (self._folder / f"{name}.err").read_text()

    def is_running(self, name: str) -> bool:
        """Was it started, and not ended?"""
        return name in self._running

    def counted(self, names: list[str]) -> Counter[int]:
        """What all of them have counted, by their checkpoints."""
        total: Counter[int] = Counter()
        for name in names:
            if (self._folder / name).exists():
                total.update(json.loads((self._folder / name).read_text())["counted"])
        return total

    def close(self) -> None:
        """End all."""
        for process in self._running.values():
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize(("names", "kills", "seed"), [(["a"], 30, 1), (["a", "b"], 20, 2), (["a", "b", "c"], 20, 3)])
def test_killed_at_random_moments(tmp_path: Path, names: list[str], kills: int, seed: int) -> None:
    """Agents join, leave and are killed under load; in the end each message was counted once by one of them."""
    chance = random.Random(seed)
    with brokers(2) as cluster:
        cluster.topic("t")
        load = Load(cluster, "t")
        agents = Agents(tmp_path, config(cluster, "t"))
        try:
            ended = 0
            while ended < kills:
                name = chance.choice(names)
                if agents.is_running(name):
                    # Most die without a word, some are asked to go.
                    agents.stop(name, signal.SIGKILL if chance.random() < 0.8 else signal.SIGTERM)
                    ended += 1
                else:
                    agents.start(name)
                until = time.monotonic() + chance.random() * 2
                while time.monotonic() < until:
                    load.numbers(chance.randrange(200))
                    time.sleep(0.01)
            for name in names:
                if not agents.is_running(name):
                    agents.start(name)
            deadline = time.monotonic() + PATIENCE
            while len(agents.counted(names)) < load.sent and time.monotonic() < deadline:
                time.sleep(0.2)
            time.sleep(1)
            for name in names:
                agents.stop(name, signal.SIGTERM)
        finally:
            agents.close()
        total = agents.counted(names)
        lost = [number for number in range(load.sent) if number not in total]
        double = [number for number, count in total.items() if count > 1]
        assert (len(lost), len(double), total.total()) == (0, 0, load.sent)
        print(f"{len(names)} agents, {kills} ends, {load.sent} messages: none lost, none double")  # noqa: T201


def test_settings_that_librdkafka_does_not_take(cluster: Brokers, tmp_path: Path) -> None:
    """A setting that does not exist is told by its name; a secret is never told."""
    with pytest.raises(ConfigError, match=r"no\.such\.setting.*options"):
        KafkaSource(config(cluster, "t", options={"no.such.setting": "1"}))
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    with pytest.raises(ConfigError) as told:
        KafkaSource(config(cluster, "t", secrets={"security.protocol": secret}))
    assert "hunter2" not in str(told.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        KafkaSource(config(cluster, "t", secrets={"sasl.password": tmp_path / "none"}))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("sasl.password", "under secrets"),
        ("sasl.oauthbearer.client.secret", "under secrets"),
        ("enable.auto.commit", "not to be set"),
        ("plugin.library.paths", "runs code"),
    ],
)
def test_options_that_are_refused(name: str, remedy: str) -> None:
    """Secrets, settings that exact counts hang on, and what would run code are refused with a remedy."""
    with pytest.raises(ValidationError, match=remedy):
        KafkaSourceConfig.model_validate({"kind": "kafka", "brokers": ["x:1"], "topic": "t", "options": {name: "x"}})


def test_another_topic_in_the_checkpoint(cluster: Brokers) -> None:
    """A position of another topic is not gone on from, and that is said."""
    source = KafkaSource(config(cluster, "t"))
    (problem,) = source.resume({"topic": "other", "holder": "h", "next": {"0": 7}})
    assert "other" in problem
    assert source.position()["next"] == {}
    source.close()


def test_without_the_extra() -> None:
    """Where confluent-kafka is not installed, what to install is said."""
    code = "import sys; sys.modules['confluent_kafka'] = None; import poisonwatch.sources.kafka"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        'MissingExtraError: reading from Kafka needs confluent-kafka: `pip install "poisonwatch[kafka]"`' in done.stderr
    )


RUNS = st.lists(st.integers(1, 50), max_size=8).map(
    lambda steps: tuple((sum(steps[:n]), sum(steps[: n + 1])) for n in range(0, len(steps), 2))
)


def inside(runs: tuple[tuple[int, int], ...]) -> set[int]:
    """Every offset of the runs."""
    return {offset for start, end in runs for offset in range(start, end)}


@given(RUNS, st.integers(0, 500), st.integers(0, 9), st.integers(1, 20))
def test_runs(runs: tuple[tuple[int, int], ...], offset: int, gap: int, length: int) -> None:
    """Cutting and extending runs does to their offsets what it says."""
    assert inside(beyond(runs, offset)) == {other for other in inside(runs) if other >= offset}
    start = (runs[-1][1] if runs else 0) + gap
    more = extended(runs, start, start + length)
    assert inside(more) == inside(runs) | set(range(start, start + length))
    assert len(more) == len(runs) + (gap > 0 or not runs)


@given(st.lists(st.tuples(st.text("abcdef0123456789", min_size=12, max_size=12), RUNS), min_size=1, max_size=200))
def test_claims_as_metadata(written: list[tuple[str, tuple[tuple[int, int], ...]]]) -> None:
    """Claims come back as they were written; of too many, the last ones do."""
    claims = tuple(Claim(*claim) for claim in written)
    text = encode(claims)
    assert len(text) <= MOST_BYTES
    found = decode(text)
    assert found
    assert found == claims[-len(found) :]
    assert len(found) == len(claims) or len(claims) > 20


@pytest.mark.parametrize("metadata", [None, "", "{}", "x", "[]", '{"poisonwatch":[["h",[[1]]]]}', "\ud800", "[" * 5000])
def test_metadata_of_others(metadata: str | None) -> None:
    """What somebody else wrote is not taken for claims."""
    assert decode(metadata) is None
