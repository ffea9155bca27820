"""Read a topic of Kafka as a member of a consumer group: every message counts once, in one agent or another.

Why that holds. A message is claimed before it is given: the group's committed offset goes beyond it, by a commit that the
broker takes only from a member of the present generation, and the metadata of that commit says who claimed what
(`kafka_claims.py`). Nothing is claimed twice, since whoever gets a partition goes on at the committed offset; so nothing is
counted twice, whichever agent dies when. What an agent claimed stays its own, also when the partition has moved on: after a
restart, or a commit whose answer got lost, it reads again what the metadata says it claimed and its checkpoint does not
have (its debts), then goes on at the committed offset. So nothing is lost, either. Neither the checkpoint nor the broker's
offset need to be written first: the checkpoint alone says what is counted, the group's offset alone says what is taken.
An agent whose state is gone for good takes what it had counted with it.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from poisonwatch.sources.kafka_claims import Claim, beyond, decode, encode, extended
from poisonwatch.sources.kafka_client import (
    OFFSET_BEGINNING,
    QUERY_SECONDS,
    KafkaError,
    KafkaException,
    Tap,
    TopicPartition,
    consumer,
    read_secrets,
)
from poisonwatch.sources.kafka_partition import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka import Consumer

    from poisonwatch.config.sources import KafkaSourceConfig

log = structlog.get_logger()

HELD = 12 << 20
LEAST_HELD, MOST_HELD = 1 << 14, 4 << 20
"""Bytes that are fetched ahead: of all partitions together, and of one."""

CLAIM_SECONDS = 0.02
"""How often messages are claimed at most."""

JOIN_SECONDS = 15.0
"""After this time without a share of the group, debts are looked for all the same."""

ASK_AGAIN = 5.0
"""Seconds until a question that the broker did not answer is asked again."""

STATISTICS_MS = 1000

GONE = "gone_from_broker"
"""Messages that the broker had deleted before they were read."""

UNREACHABLE = frozenset([KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE])  # noqa: SLF001
NO_TOPIC = frozenset([KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC])  # noqa: SLF001


class _Broker(msgspec.Struct):
    state: str = ""


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker] = {}


_statistics = msgspec.json.Decoder(_Statistics)


class KafkaSource:
    """A topic of Kafka; each partition that the group gives us is a stream. See the module on why counts are exact.

    `position` must be saved once before the first poll: it says who we are.

    Raises:
        ConfigError: when a secret cannot be read, or librdkafka does not take the settings.
    """

    def __init__(self, config: KafkaSourceConfig) -> None:
        self._config = config
        self._topic = config.topic
        self._secrets = read_secrets(config)
        self._holder = uuid.uuid4().hex[:12]
        self._partitions: dict[int, Partition] = {}
        self._unsettled: set[int] = set()
        self._asked: dict[int, int] = {}  # claims on their way
        self._lost: Counter[str] = Counter()
        self._said: set[int] = set()
        self._up = self._missing = self._was_up = False
        self._resumed = self._look_at_all = self._joined = False
        self._started: float | None = None
        self._claim_at = self._ask_at = 0.0
        self._consumer: Consumer = consumer(
            config,
            self._secrets,
            **{
                "on_commit": self._on_commit,
                "error_cb": self._on_error,
                "stats_cb": self._on_statistics,
                "statistics.interval.ms": STATISTICS_MS,
            },
        )
        self._tap = Tap(self._consumer, self._topic)
        self._debt_tap: Tap | None = None

    @property
    def found(self) -> bool:
        """Is a broker there, and the topic?"""
        return self._up and not self._missing

    def streams(self) -> list[Partition]:
        """The partitions that are ours now, or have something left to give. Fetches and claims as a side effect."""
        now = time.monotonic()
        if self._started is None:
            self._started = now
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
        self._fetch(now)
        self._settle(now)
        self._pay(now)
        self._begin()
        self._claim(now)
        return [partition for _, partition in sorted(self._partitions.items()) if partition.alive]

    def lag(self) -> int:
        """Messages that are at the broker, as far as was last heard, and were not given yet."""
        lag = 0
        for number, partition in self._partitions.items():
            if number in self._tap.open:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
                lag += max(0, high - max(low, partition.given))
            else:
                lag += sum(end - start for start, end in partition.debts)
        return lag

    def lost(self) -> Mapping[str, int]:
        """Messages that were deleted before they were read."""
        return self._lost

    def position(self) -> dict[str, Any]:
        """Who we are, and the offset after what was given, by partition."""
        return {
            "topic": self._topic,
            "holder": self._holder,
            "next": {str(number): part.given for number, part in self._partitions.items() if part.given >= 0},
        }

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Be who we were; what we claimed since is found out when the broker can be asked."""
        if position["topic"] != self._topic:
            return [
                f"the checkpoint is of the topic {position['topic']}: {self._topic} is read as the group's offsets say"
            ]
        self._holder = position["holder"]
        for name, offset in position["next"].items():
            partition = self._partition(int(name))
            partition.given = partition.claimed = partition.durable = offset
        self._resumed = self._look_at_all = True
        return []

    def commit(self, position: dict[str, Any]) -> None:
        """What stands before this position need not be among our claims any more."""
        for name, offset in position["next"].items():
            self._partition(int(name)).durable = offset

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()
        if self._debt_tap is not None:
            self._debt_tap.consumer.close()

    def _partition(self, number: int) -> Partition:
        if number not in self._partitions:
            self._partitions[number] = Partition(self._topic, number)
        return self._partitions[number]

    def _fetch(self, now: float) -> None:
        found, _ = self._tap.take()
        if found:
            self._reached(up=True)
        for number, messages in found.items():
            self._partitions[number].add(messages, self._topic)
        self._hold_back(self._tap)
        self._tap.find(now, self._skipped)
        for error in self._tap.errors:
            self._on_error(error)
        self._tap.errors.clear()

    def _hold_back(self, tap: Tap) -> None:
        """Fetch no more of partitions that have enough waiting."""
        most = min(max(HELD // (len(tap.open) or 1), LEAST_HELD), MOST_HELD)
        for number in tap.open:
            size = self._partitions[number].size
            if size >= most or size <= most // 2:
                tap.hold(number, back=size >= most)

    def _skipped(self, number: int, wanted: int, earliest: int) -> None:
        """The offset to go on at is not there."""
        if earliest > wanted:
            self._lost[GONE] += earliest - wanted
            log.warning(
                "messages_gone",
                source=self._config.name,
                partition=number,
                messages=earliest - wanted,
                remedy="keep messages longer than the agent may be away (retention.ms of the topic)",
            )
            return
        log.warning("topic_begun_anew", source=self._config.name, partition=number, expected=wanted, found=earliest)
        self._partitions[number].forget_unclaimed()
        self._partitions[number].begin_anew(earliest)

    def _settle(self, now: float) -> None:
        """Ask what is claimed by whom, of partitions that came, went in doubt, or were ours before a restart."""
        waited = self._joined or now - (self._started or now) >= JOIN_SECONDS
        if now < self._ask_at or not waited or not (self._look_at_all or self._unsettled - self._asked.keys()):
            return
        self._ask_at = now + ASK_AGAIN
        try:
            if self._look_at_all:
                topic = self._consumer.list_topics(self._topic, timeout=QUERY_SECONDS).topics[self._topic]
                if topic.error is not None:
                    return
                for number in topic.partitions:
                    self._partition(number)
                self._unsettled |= self._partitions.keys()
                self._look_at_all = False
            wanted = [TopicPartition(self._topic, number) for number in self._unsettled - self._asked.keys()]
            for answer in self._consumer.committed(wanted, timeout=QUERY_SECONDS):
                if answer.error is None:
                    self._take_up(self._partitions[answer.partition], answer.offset, decode(answer.metadata))
                    self._unsettled.discard(answer.partition)
        except KafkaException as error:
            self._on_error(error.args[0])
            return
        if not self._unsettled:
            self._ask_at = now

    def _take_up(self, partition: Partition, offset: int, claims: tuple[Claim, ...] | None) -> None:
        """Where to go on, and what we owe."""
        reach = partition.reach
        partition.doubtful = False
        if self._debt_tap is not None:
            self._debt_tap.stop([partition.number])
        partition.debts.clear()
        partition.others, partition.runs = (), ()
        if offset < 0:
            # Nobody has claimed anything here, or so long ago that the broker forgot it.
            begin = reach if reach >= 0 else self._beginning(partition)
        elif claims is None:
            begin = offset
            if offset != partition.given:
                log.warning("offsets_set_by_others", source=self._config.name, partition=partition.number, to=offset)
                partition.begin_anew(offset)
        else:
            partition.others = tuple(claim for claim in claims if claim.holder != self._holder)
            partition.runs = next((claim.runs for claim in claims if claim.holder == self._holder), ())
            partition.debts.extend(beyond(partition.runs, max(reach, 0)))
            begin = max(reach, offset) if claims[-1].holder == self._holder else offset
            partition.claimed = max(reach, partition.runs[-1][1] if partition.runs else -1)
        partition.next = begin if partition.ours else None

    def _beginning(self, partition: Partition) -> int:
        """Where to begin a partition that nobody has read; one that is new since the checkpoint is read whole."""
        if self._config.start == "earliest" or self._resumed:
            return OFFSET_BEGINNING
        place = TopicPartition(self._topic, partition.number)
        _, high = self._consumer.get_watermark_offsets(place, timeout=QUERY_SECONDS)
        # Said to the group at once: what comes from now on is to be read, also after a crash.
        partition.announce = True
        return int(high)

    def _pay(self, now: float) -> None:
        """Read again what we claimed and did not take in, in an order of its own, without the group."""
        owing = {number for number, partition in self._partitions.items() if partition.debts}
        if not owing:
            if self._debt_tap is not None:
                self._debt_tap.consumer.close()
                self._debt_tap = None
            return
        if self._debt_tap is None:
            more = {"enable.partition.eof": True, "queued.max.messages.kbytes": 2 << 10}
            self._debt_tap = Tap(consumer(self._config, self._secrets, error_cb=self._on_error, **more), self._topic)
        tap = self._debt_tap
        for number in owing - tap.open:
            tap.start(number, self._partitions[number].debts[0][0])
        found, ended = tap.take()
        for number, messages in found.items():
            partition = self._partitions[number]
            start, end = partition.debts[0]
            mine = [message for message in messages if start <= (message.offset() or 0) < end]
            if mine:
                partition.add(mine, self._topic)
                partition.debts[0] = (partition.reach, end)
            if (messages[-1].offset() or 0) + 1 >= end:
                self._paid(tap, number)
        for number in ended:
            if number in tap.open:
                self._paid(tap, number)
        self._hold_back(tap)
        tap.find(now, self._skipped_debt)

    def _paid(self, tap: Tap, number: int) -> None:
        self._partitions[number].debts.popleft()
        tap.stop([number])

    def _skipped_debt(self, number: int, wanted: int, earliest: int) -> None:
        """Messages that we owe are gone."""
        partition = self._partitions[number]
        end = partition.debts[0][1]
        self._skipped(number, wanted, min(earliest, end) if earliest > wanted else end)
        if wanted < earliest < end:
            partition.debts[0] = (earliest, end)
        elif self._debt_tap is not None:
            self._paid(self._debt_tap, number)

    def _begin(self) -> None:
        """Read partitions of which nothing is owed any more."""
        for number, partition in self._partitions.items():
            if partition.next is None or partition.debts or partition.chunks:
                continue
            self._tap.start(number, partition.next)
            partition.claimed = max(partition.next, -1)
            partition.next = None

    def _claim(self, now: float) -> None:
        """Say to the group that what was fetched is ours; the answer comes by `_on_commit`."""
        if self._asked or now < self._claim_at:
            return
        offsets = []
        for number in self._tap.open:
            partition = self._partitions[number]
            end = max(partition.reach, partition.claimed)
            if end <= partition.claimed and not partition.announce:
                continue
            runs = beyond(partition.runs, partition.durable)
            if end > partition.claimed:
                start = partition.claimed
                if start < 0:
                    start = partition.chunks[0].start
                runs = extended(runs, start, end)
            partition.asking = runs
            self._asked[number] = end
            metadata = encode((*partition.others, Claim(self._holder, runs)))
            offsets.append(TopicPartition(self._topic, number, end, metadata))
        if offsets:
            self._claim_at = now + CLAIM_SECONDS
            try:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                self._on_commit(error.args[0], offsets)

    def _on_commit(self, error: KafkaError | None, offsets: Iterable[TopicPartition]) -> None:
        for offset in offsets:
            end = self._asked.pop(offset.partition, None)
            if end is None:
                continue
            partition = self._partitions[offset.partition]
            if error is None and offset.error is None:
                partition.claimed, partition.runs = end, partition.asking
                partition.announce = partition.doubtful = False
            else:
                partition.doubtful = True
            if offset.partition not in self._tap.open:
                self._let_go(partition)

    def _let_go(self, partition: Partition) -> None:
        """What is not claimed is another's; what may have been claimed is to be asked for."""
        partition.forget_unclaimed()
        if partition.doubtful:
            self._unsettled.add(partition.number)

    def _on_assign(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        self._joined = True
        # Nothing is fetched before we know where to go on and what we owe.
        self._consumer.incremental_assign([])
        for place in assigned:
            self._missing = False
            partition = self._partition(place.partition)
            partition.ours, partition.next = True, None
            self._unsettled.add(place.partition)
            self._ask_at = 0.0

    def _on_revoke(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        self._tap.stop([place.partition for place in revoked])
        for place in revoked:
            partition = self._partition(place.partition)
            partition.ours, partition.next = False, None
            if place.partition not in self._asked:
                self._let_go(partition)

    def _on_error(self, error: KafkaError) -> None:
        """Say what is wrong once, until all is well again."""
        if error.code() in UNREACHABLE:
            if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - so librdkafka calls it
                self._reached(up=False)
            return
        if error.code() in NO_TOPIC:
            self._missing = True
        if error.code() not in self._said:
            self._said.add(error.code())
            log.warning("kafka_error", source=self._config.name, error=error.name(), problem=error.str())

    def _on_statistics(self, told: str) -> None:
        self._reached(up=any(broker.state == "UP" for broker in _statistics.decode(told).brokers.values()))

    def _reached(self, *, up: bool) -> None:
        if up == self._up:
            return
        self._up = up
        if up:
            self._said.clear()
            if self._was_up:
                log.info("kafka_reachable", source=self._config.name)
            self._was_up = True
        else:
            log.warning(
                "kafka_unreachable",
                source=self._config.name,
                remedy="none needed once a broker answers: it is asked on",
            )
