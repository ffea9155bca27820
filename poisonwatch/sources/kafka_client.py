"""What is asked of librdkafka: its settings, its log, bounded fetching, and messages as frames."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import structlog

from poisonwatch.errors import ConfigError, MissingExtraError
from poisonwatch.formats.events import Event, frame

try:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
except ImportError as missing:
    message = 'reading from Kafka needs confluent-kafka: `pip install "poisonwatch[kafka]"`'
    raise MissingExtraError(message) from missing

# Taken from here by `kafka`, so that the extra is looked for in one place.
__all__ = [
    "OFFSET_BEGINNING",
    "QUERY_SECONDS",
    "Consumer",
    "KafkaError",
    "KafkaException",
    "Tap",
    "TopicPartition",
    "consumer",
    "read_secrets",
]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import Message

    from poisonwatch.config.sources import KafkaSourceConfig

log = structlog.get_logger()

MOST_HEADERS = 64
LONGEST_HEADER = 4096
"""Headers of a message that are read, and bytes of a name, a value, or the key."""

LONGEST_SECRET = 1 << 16

TOGETHER = 2000
"""Messages that are taken from librdkafka in one go."""

QUERY_SECONDS = 1.0
"""How long a question to the broker may hold the loop; questions are asked only when partitions come or go."""

EMPTY = b"null"
"""What stands for a message without a value: it must be counted, and an empty line would not be."""

OUT_OF_RANGE = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - so librdkafka calls the errors of its own
END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001 - same


class _Log:
    """Takes what librdkafka logs. It repeats itself while a broker is away, so all of it is for debugging only."""

    def log(self, level: int, text: str, *parts: Any) -> None:
        log.debug("librdkafka", message=text % parts if parts else text, level=level)


def consumer(config: KafkaSourceConfig, secrets: Mapping[str, str], **more: Any) -> Consumer:
    """A consumer that has not joined its group yet.

    Raises:
        ConfigError: when librdkafka does not take the settings.
    """
    settings = {
        # Together with what partitions hold (kafka.py) below 32 MiB.
        "queued.max.messages.kbytes": 8 << 10,
        "fetch.max.bytes": 4 << 20,
        "max.partition.fetch.bytes": 1 << 20,
        "topic.metadata.refresh.interval.ms": 30_000,
        "log.connection.close": False,
        # After a crash the partitions wait for as long as the dead member is believed to live.
        "session.timeout.ms": 10_000,
        **config.options,
        **secrets,
        "bootstrap.servers": ",".join(config.brokers),
        "group.id": config.group,
        "allow.auto.create.topics": False,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # An offset that is gone must be counted, not passed over.
        "auto.offset.reset": "error",
        "group.protocol": "classic",
        # Only partitions that move stop; eager assignors stop all of them whenever an agent comes or goes.
        "partition.assignment.strategy": "cooperative-sticky",
        **more,
    }
    try:
        return Consumer(settings, logger=_Log())
    except (KafkaException, TypeError, ValueError) as error:
        told = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        for secret in secrets.values():
            told = told.replace(secret, "...")
        msg = f"{config.name}: {told}: see options and secrets of this source"
        raise ConfigError(msg) from None


def read_secrets(config: KafkaSourceConfig) -> dict[str, str]:
    """The values of settings that are kept in files.

    Raises:
        ConfigError: when one cannot be read.
    """
    found = {}
    for name, path in config.secrets.items():
        try:
            with path.open("rb") as file:
                found[name] = file.read(LONGEST_SECRET).decode().strip()
        except OSError as error:
            msg = f"{config.name}: secrets.{name}: {path} cannot be read ({error.strerror})"
            raise ConfigError(msg) from None
        except UnicodeDecodeError:
            msg = f"{config.name}: secrets.{name}: {path} is not text"
            raise ConfigError(msg) from None
    return found


def framed(message: Message, topic: str) -> bytes:
    """A message as a frame, whatever is in it.

    The time of its producer is not believed beyond now: nothing is received before it arrives.
    """
    kind, milliseconds = message.timestamp()
    at = min(milliseconds / 1000, time.time()) if kind and milliseconds >= 0 else math.nan
    value = message.value()
    body = EMPTY if not value or value.isspace() else bytes(value)
    return frame(Event(body, _headers(message), at, topic))


def _headers(message: Message) -> dict[str, str]:
    """Lower-case names; of a name that comes twice, the first counts. `ce_` of CloudEvents over Kafka is `ce-` here."""
    found: dict[str, str] = {}
    try:
        pairs: list[tuple[str, Any]] = list(dict(message.headers() or ()).items())
    except UnicodeDecodeError:
        pairs = []
    for name, value in pairs:
        lower = name[:LONGEST_HEADER].lower()
        if lower.startswith(":") or len(found) >= MOST_HEADERS:
            continue
        lower = f"ce-{lower[3:]}" if lower.startswith("ce_") else lower
        found.setdefault(_text(lower), _text(value))
    key = message.key()
    if key is not None:
        found[":key"] = _text(key)
    return found


def _text(value: Any) -> str:
    raw = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "replace")
    return raw[:LONGEST_HEADER].decode("utf-8", "replace")


class Tap:
    """Takes messages of the partitions that were opened, each from its offset on, none twice and none out of order."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self.consumer = consumer
        self._topic = topic
        self._next: dict[int, int] = {}
        self._paused: set[int] = set()
        self._astray: dict[int, float] = {}  # offset out of range: when to look again
        self.errors: list[KafkaError] = []

    @property
    def open(self) -> frozenset[int]:
        """Partitions that are being read."""
        return frozenset(self._next)

    def start(self, partition: int, offset: int) -> None:
        """Read a partition from an offset on, or from its beginning (`OFFSET_BEGINNING`)."""
        if partition in self._next:
            self.stop([partition])
        self.consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])
        self._next[partition] = offset

    def stop(self, partitions: Iterable[int]) -> None:
        """Read these no more. Within a rebalance this is also the answer that librdkafka waits for."""
        mine = [partition for partition in partitions if partition in self._next]
        self.consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in mine])
        for partition in mine:
            del self._next[partition]
            self._paused.discard(partition)
            self._astray.pop(partition, None)

    def hold(self, partition: int, *, back: bool) -> None:
        """Fetch no more of a partition for now, or go on with it."""
        if partition in self._next and back != (partition in self._paused):
            change = self.consumer.pause if back else self.consumer.resume
            change([TopicPartition(self._topic, partition)])
            (self._paused.add if back else self._paused.discard)(partition)

    def take(self) -> tuple[dict[int, list[Message]], list[int]]:
        """Messages that are here, by partition, and partitions whose end was reached. Runs callbacks; never waits."""
        found: dict[int, list[Message]] = {}
        ended: list[int] = []
        for message in self.consumer.consume(TOGETHER, 0):
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None:
                if error.code() == END_OF_PARTITION and partition in self._next:
                    ended.append(int(partition or 0))
                elif error.code() == OUT_OF_RANGE and partition in self._next:
                    self._astray[int(partition or 0)] = -math.inf
                elif error.code() not in {END_OF_PARTITION, OUT_OF_RANGE}:
                    self.errors.append(error)
            elif partition is not None and offset is not None and offset >= self._next.get(partition, offset + 1):
                self._next[partition] = offset + 1
                found.setdefault(partition, []).append(message)
        return found, ended

    def find(self, now: float, told: Callable[[int, int, int], None]) -> None:
        """Go on at the beginning of partitions whose offset is out of range; `told` hears which, wanted and earliest."""
        for partition, due in list(self._astray.items()):
            if now < due:
                continue
            try:
                low, high = self.consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), timeout=QUERY_SECONDS
                )
            except KafkaException:
                self._astray[partition] = now + 5 * QUERY_SECONDS
                continue
            wanted = self._next[partition]
            within = low <= wanted <= high
            self.start(partition, wanted if within else low)
            if not within:
                told(partition, wanted, low)
