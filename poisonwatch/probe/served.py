"""Asks a model's server how much it served: one page of metrics at a time, in a thread of its own.

The loop says when; it never waits. Whatever the server does comes back as a reason in words.
"""

from __future__ import annotations

import math
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from poisonwatch import __version__
from poisonwatch.errors import ProbeError
from poisonwatch.formats.records import name_of
from poisonwatch.monitor.coverage import ALL, MOST_SERIES, Series
from poisonwatch.outgoing import Call, authorization
from poisonwatch.types import UNVERSIONED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.config.served import ServedConfig

LEAVE_SECONDS = 5.0
"""How long closing waits for a reading that is under way."""

LONGEST_LINE = 1 << 14
"""Bytes of one series; a longer line is none."""

LARGEST_COUNT = 2.0**53
"""Up to which a float counts one by one."""


class Reading(NamedTuple):
    """What came of asking: the series that count, or None and why in words."""

    series: tuple[Series, ...] | None
    problem: str | None = None


class ServedCount:
    """Reads one server's counter. At most one reading is under way."""

    def __init__(self, config: ServedConfig) -> None:
        self._config = config
        self._asked_at = -math.inf
        self._under_way = False
        self._call: Call | None = None
        self._closed = False
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._readings: SimpleQueue[Reading] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="served", daemon=True)
        self._thread.start()

    def ask(self, now: float) -> bool:
        """Have the server asked when it is due; True when it is asked now. Never waits."""
        if self._under_way or self._closed or 0 <= now - self._asked_at < self._config.every_seconds:
            return False
        self._asked_at = now
        self._under_way = True
        self._wanted.put(True)
        return True

    def reading(self) -> Reading | None:
        """What came of the last asking, told once; None while there is nothing new. Never waits."""
        try:
            reading = self._readings.get_nowait()
        except Empty:
            return None
        self._under_way = False
        return reading

    def close(self) -> None:
        """Ask nothing any more; what is under way is given up."""
        self._closed = True
        if self._call is not None:
            self._call.abort()
        self._wanted.put(False)
        self._thread.join(LEAVE_SECONDS)

    def _work(self) -> None:
        while self._wanted.get() and not self._closed:
            try:
                reading = Reading(self._read())
            except ProbeError as error:
                reading = Reading(None, str(error))
            except Exception as error:  # noqa: BLE001 - a defect here must not end this thread: nobody would ask any more
                reading = Reading(None, f"{type(error).__name__}: {error}")
            self._readings.put(reading)

    def _read(self) -> tuple[Series, ...]:
        config = self._config
        headers = {
            "Accept": "text/plain;version=0.0.4",
            "User-Agent": f"poisonwatch/{__version__}",
            **authorization(config.bearer_token_file),
        }
        self._call = call = Call(config.timeout_seconds)
        return matching(call.get(config.url, headers), config)


def matching(page: bytes, config: ServedConfig) -> tuple[Series, ...]:
    """The series of a page that count.

    Raises:
        ProbeError: when there are too many, one is no counter, or the page does not even name the metric.
    """
    found: dict[str, Series] = {}
    name = config.metric.encode()
    named = False
    for line in page.splitlines():
        if not line.startswith(name):
            # A counter without series yet has its TYPE; OpenMetrics leaves `_total` out of it.
            named = named or (
                line.startswith(b"# TYPE ") and line.split(b" ")[2] in {name, name.removesuffix(b"_total")}
            )
            continue
        if line[len(name) : len(name) + 1] not in {b"{", b" ", b"\t"} or len(line) > LONGEST_LINE:
            continue
        named = True
        labels, value = _sample(line)
        if not _fits(labels, config.labels):
            continue
        if not 0 <= value <= LARGEST_COUNT:
            msg = f"{config.url}: {config.metric} has the value {value:g}, which is no count: name a counter"
            raise ProbeError(msg)
        key = ",".join(f"{label}={text!r}" for label, text in sorted(labels.items()))
        found[key] = Series(key, _version(labels, config), value)
        if len(found) > MOST_SERIES:
            msg = f"{config.url}: more than {MOST_SERIES:,} series of {config.metric} match: narrow `labels`"
            raise ProbeError(msg)
    if not named:
        msg = f"{config.url} has no metric {config.metric}: name the counter as the page has it, with its suffix"
        raise ProbeError(msg)
    return tuple(found.values())


def _sample(line: bytes) -> tuple[dict[str, str], float]:
    try:
        (family,) = text_string_to_metric_families(line.decode("utf-8", "replace") + "\n")
        (sample,) = family.samples
    except (ValueError, IndexError, KeyError):
        msg = f"this is no sample in the text format of Prometheus: {name_of(repr(line[:200]))}"
        raise ProbeError(msg) from None
    return sample.labels, sample.value


def _fits(labels: Mapping[str, str], wanted: Mapping[str, str | tuple[str, ...]]) -> bool:
    return all(labels.get(name, "") in ((text,) if isinstance(text, str) else text) for name, text in wanted.items())


def _version(labels: Mapping[str, str], config: ServedConfig) -> str:
    if config.version_label is None:
        return ALL
    return name_of(labels.get(config.version_label, "")) or UNVERSIONED
