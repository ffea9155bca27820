"""Kafka brokers in a process of their own: librdkafka's mock cluster, driven by lines on standard input.

It keeps everything in memory, speaks plain text only, and can do what no real cluster does on command: take brokers down,
delete records and topics, and refuse requests. `python -m tests.kafka_brokers 3` starts three brokers.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import confluent_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator

OFFSET_COMMIT = 8
"""Number of the request by which consumers commit."""

PARTITIONS = 4


def _library() -> ctypes.CDLL:
    """The librdkafka that confluent-kafka brought along."""
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    return library


def serve(count: int) -> None:
    """Run brokers until standard input ends; each line is a command, answered by the error it gave (0: none)."""
    library = _library()
    handle = library.rd_kafka_new(0, None, ctypes.create_string_buffer(512), ctypes.c_size_t(512))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(handle, count))
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, ctypes.c_int32(100))
    sys.stdout.write(library.rd_kafka_mock_cluster_bootstraps(cluster).decode() + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        name, *values = json.loads(line)
        arguments: list[Any] = [value.encode() if isinstance(value, str) else ctypes.c_int64(value) for value in values]
        if name == "push_request_errors_array":
            request, errors = values[0], values[1:]
            arguments = [
                ctypes.c_int16(request),
                ctypes.c_size_t(len(errors)),
                (ctypes.c_int * len(errors))(*errors),
            ]
        result = getattr(library, f"rd_kafka_mock_{name}")(cluster, *arguments)
        sys.stdout.write(f"{result}\n")
        sys.stdout.flush()


class Brokers:
    """A cluster in another process. `addresses` are HOST:PORT of its brokers."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self._process = process
        self._count = count
        assert process.stdout is not None
        self.addresses = tuple(process.stdout.readline().strip().split(","))

    def do(self, name: str, *values: str | int) -> int:
        """Call `rd_kafka_mock_NAME` of librdkafka; returns its error number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *values]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def topic(self, name: str, partitions: int = PARTITIONS) -> None:
        """Make a topic."""
        assert self.do("topic_create", name, partitions, 1) == 0

    def down(self) -> None:
        """Take all brokers away."""
        for number in range(1, self._count + 1):
            assert self.do("broker_set_down", number) == 0

    def up(self) -> None:
        """Bring all brokers back."""
        for number in range(1, self._count + 1):
            assert self.do("broker_set_up", number) == 0

    def refuse_commits(self, *errors: int) -> None:
        """Answer the next commits by these errors."""
        self.do("push_request_errors_array", OFFSET_COMMIT, *errors)


@contextmanager
def brokers(count: int = 1) -> Iterator[Brokers]:
    """Brokers for as long as the block runs."""
    command = [sys.executable, "-m", "tests.kafka_brokers", str(count)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        try:
            yield Brokers(process, count)
        finally:
            process.kill()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
