"""How much of what the model's server says it served has been seen.

The server counts, and the log is read; both counts only grow. What is served waits in a queue for what is seen, oldest first:
what is still unmatched when its `delay` is over was never seen. So it does not matter when a record arrives within the delay,
nor in which order, nor that a reading fails; and what is hidden accumulates until it shows.

What is judged is a second queue in which the tolerated share of everything is forgiven at once. While no more than that is
lost it runs empty again and again, whatever the traffic does; a first queue that is full of tolerated losses would give them
all back when the traffic falls in the evening. What is left over in the second is bet on as any question is, by the clock's
budget. Times here are the clock's: a log that is dead tells none.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory, advance, lay_bets
from poisonwatch.monitor.signs import SUSPECTED, Lasting
from poisonwatch.monitor.usual_ratio import UsualRatio
from poisonwatch.profile.indicators import COVERAGE
from poisonwatch.profile.odds import expit, logit
from poisonwatch.types import OTHER_VERSIONS, Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poisonwatch.monitor.settings import ServedSettings, Settings
    from poisonwatch.types import Batch, Bools

THETAS = (0.5, 1.0, 2.5)
"""How far beyond the null the alternatives stand, in log-odds: excesses of 1.6 %, 2.7 % and 11 % where 2 % are tolerated."""

CLUSTER = 2.0
"""What is lost honestly is lost in clusters (a retry, the last second of a process): so many are as good as one."""

EXCESS = 0.5
"""The null: beyond what is tolerated, at most this part of it again is lost in any span."""

FLOOR = 0.25
"""Departures from the null, in log-odds, that do not matter."""

RECENT_SECONDS = 3600.0
"""Time constant of the ratio that is shown."""

FEWEST_CREDIT = 10.0
"""Predictions that may be seen before the server's count tells of them, at least."""

MOST_VERSIONS = 64
MOST_SERIES = 4096
MOST_RESETS = 4
RESETS_SECONDS = 3600.0
"""A counter that falls more often within this time is several processes' that answer in turn: nothing can be read off it."""

GONE_SECONDS = 86400.0
"""A version of which the server has served nothing for so long is forgotten."""

ALL = ""
"""The one version where no label names them."""

ASKED = "served and never seen"

SAVED = (
    "number", "seen", "judged", "active", "credit", "excess_credit", "served", "missing", "recent", "recent_missing"
)  # fmt: skip
"""What is saved of a ledger as it is."""


class Series(NamedTuple):
    """One series of the server's counter: its labels as one text, the version it is of (`ALL` where none is named), its value."""

    name: str
    version: str
    value: float


class VersionCoverage(NamedTuple):
    """Counts since the first reading, of one version: `served` by the server, of these `missing` when their delay was over."""

    served: float
    missing: float


class CoverageView(NamedTuple):
    """What is shown. `usable`: the last reading could be used; `ready`: what is usual is known.

    `ratio` is the share of what was served that was seen, over the last hour or so; None before the first delay is over.
    """

    usable: bool
    ready: bool
    ratio: float | None
    versions: dict[str, VersionCoverage]


@dataclass(slots=True)
class _Block:
    """What was served between two readings, how much of it is unmatched, and how much beyond what is tolerated; until when it may arrive."""

    served: float
    unmatched: float
    excess: float
    deadline: float


class _Due(NamedTuple):
    """What was served and is due, how much of it was never seen, and how much of that is beyond what is tolerated."""

    served: float = 0.0
    missing: float = 0.0
    excess: float = 0.0


@dataclass(slots=True)
class _Ledger:
    """The account of one version. `number` counts versions from 1 and sets its share of the budget."""

    number: int
    memory: Memory
    seen: float
    judged: float
    active: float
    credit: float = 0.0
    excess_credit: float = 0.0
    served: float = 0.0
    missing: float = 0.0
    recent: float = 0.0
    recent_missing: float = 0.0
    blind: Lasting = field(default_factory=Lasting)
    queue: deque[_Block] = field(default_factory=deque)

    @property
    def share(self) -> float:
        """Shares that add up to one over any number of versions."""
        return 1.0 / (self.number * (self.number + 1))

    def match(self, seen: float, most_credit: float) -> None:
        """Match what was seen with what was served, oldest first; what is over is kept for what will be counted soon."""
        credit, excess_credit = self.credit + seen, self.excess_credit + seen
        for block in self.queue:
            taken, excess_taken = min(block.unmatched, credit), min(block.excess, excess_credit)
            block.unmatched -= taken
            block.excess -= excess_taken
            credit -= taken
            excess_credit -= excess_taken
            if credit <= 0 and excess_credit <= 0:
                break
        self.credit, self.excess_credit = min(credit, most_credit), min(excess_credit, most_credit)

    def due(self, now: float) -> _Due:
        """What has had its delay; it leaves the queue."""
        blocks = []
        while self.queue and self.queue[0].deadline <= now:
            blocks.append(self.queue.popleft())
        return _Due(sum(b.served for b in blocks), sum(b.unmatched for b in blocks), sum(b.excess for b in blocks))


class Coverage:
    """Compares what the server of one model says it served with what was seen. Between readings it only counts."""

    def __init__(self, model: str, served: ServedSettings, settings: Settings) -> None:
        self.evidence: list[Evidence] = []
        self._model = model
        self._settings = served
        self._period = settings.period
        one = np.zeros(1, np.int64)
        self._bets = lay_bets(
            one, np.array([[True, False]]), ((COVERAGE, COVERAGE),), {COVERAGE: settings.shares[COVERAGE]}, THETAS
        )
        self._expected = np.array([served.tolerated * EXCESS])
        null = logit(self._expected)
        low, high = expit(null), expit(null + self._bets.theta)
        self._gain_asked = np.log((1 - high) / (1 - low))
        self._gain_yes = np.log(high / low) - self._gain_asked
        self._usual = UsualRatio(served.tolerated) if served.learns else None
        self._seen: Counter[str] = Counter()
        self._marked: Counter[str] = Counter()
        self._values: dict[str, float] = {}
        self._ledgers: dict[str, _Ledger] = {}
        self._resets: deque[float] = deque()
        self._number = 0
        self._read = -math.inf
        self._gap = 0.0
        self._grace = False
        self._usable = False

    def see(self, batch: Batch, in_time: Bools) -> None:
        """Count the predictions of a batch that enter a profile, `in_time` (n,); what comes too late was not seen."""
        counts = np.bincount(batch.version[in_time], minlength=len(batch.versions)).tolist()
        for name, count in zip(batch.versions, counts, strict=True):
            if count:
                self.note(name, count)

    def note(self, version: str, count: int) -> None:
        """Count predictions that were seen, also those that are ours and left out of what is judged."""
        if not self._settings.by_version:
            version = ALL
        elif version not in self._seen and version not in self._ledgers and len(self._seen) >= MOST_VERSIONS:
            version = OTHER_VERSIONS
        self._seen[version] += count

    def mark(self) -> None:
        """The server is asked now: its count will cover what was seen up to here, and hardly more."""
        self._marked = self._seen.copy()

    def take(self, now: float, series: Iterable[Series]) -> None:
        """Take up what the server said when it was asked at the last mark."""
        self._keep_time(now)
        increments, falls = self._increments(series)
        self._usable = self._steady(now, falls)
        if not self._usable:
            for name, ledger in self._ledgers.items():
                ledger.queue.clear()
                ledger.seen, ledger.credit, ledger.excess_credit = self._marked[name], 0.0, 0.0
        elif increments is not None:
            self._account(now, increments)
        gone = [name for name, ledger in self._ledgers.items() if now - ledger.active >= GONE_SECONDS]
        for name in gone:
            # Told once more, so that what is open of it ends.
            self._ledgers[name].memory = Memory.fresh(self._bets, 1)
        self._conclude(now)
        for name in gone:
            del self._ledgers[name]
            self._seen.pop(name, None)

    def fail(self, now: float) -> None:
        """The server did not say; nothing new is known, and nothing is lost: the next reading covers this one."""
        self._usable = False
        self._conclude(now)

    @property
    def tells(self) -> bool:
        """Is there evidence that is worth a report?"""
        return any(e.log_e >= SUSPECTED for e in self.evidence)

    def view(self) -> CoverageView:
        """What is shown."""
        recent = sum(ledger.recent for ledger in self._ledgers.values())
        missing = sum(ledger.recent_missing for ledger in self._ledgers.values())
        return CoverageView(
            usable=self._usable,
            ready=self._usual is None or self._usual.ready,
            ratio=1.0 - missing / recent if recent > 0 else None,
            versions={name: VersionCoverage(one.served, one.missing) for name, one in self._ledgers.items()},
        )

    def _keep_time(self, now: float) -> None:
        """After a pause of ours, or a jump of the clock, everything that waits may take its delay anew."""
        gap = now - self._read
        self._gap = max(0.0, gap) if math.isfinite(gap) else 0.0
        if self._grace or not 0 <= gap <= self._settings.delay:
            self._grace = False
            for ledger in self._ledgers.values():
                ledger.judged = min(ledger.judged, now)
                for block in ledger.queue:
                    block.deadline = now + self._settings.delay
        self._read = now

    def _increments(self, series: Iterable[Series]) -> tuple[dict[str, float] | None, int]:
        """By version, what was served since the last reading, None at the first; and how many series fell."""
        first = not self._values and not self._ledgers
        found: dict[str, float] = {}
        known = {*self._ledgers}
        falls = 0
        for one in series:
            before = self._values.get(one.name)
            if before is None and len(self._values) >= MOST_SERIES:
                continue
            fell = before is not None and one.value < before
            falls += fell
            if one.version not in known and len(known) < MOST_VERSIONS:
                known.add(one.version)
            version = one.version if one.version in known else OTHER_VERSIONS
            # A counter begins at zero: with its process, or with the first request that it is of.
            grown = one.value if before is None or fell else one.value - before
            found[version] = found.get(version, 0.0) + grown
            self._values[one.name] = one.value
        for name, grown in found.items():
            # A version that is gone stands on the page until its server ends.
            if name not in self._ledgers and (grown or first):
                self._number += 1
                seen = self._marked[name] if first else 0
                self._ledgers[name] = _Ledger(self._number, Memory.fresh(self._bets, 1), seen, self._read, self._read)
        return (None if first else {**found}), falls

    def _steady(self, now: float, falls: int) -> bool:
        """Can the counter be relied on? A fall of any number of series at once is one restart."""
        if falls:
            self._resets.append(now)
        while self._resets and not 0 <= now - self._resets[0] < RESETS_SECONDS:
            self._resets.popleft()
        while len(self._resets) > MOST_RESETS + 1:
            self._resets.popleft()
        return len(self._resets) <= MOST_RESETS

    def _account(self, now: float, increments: Mapping[str, float]) -> None:
        """Enter what was served and seen since the last reading, and judge what is due."""
        seen = {name: self._marked[name] - ledger.seen for name, ledger in self._ledgers.items()}
        fade = math.exp(-self._gap / RECENT_SECONDS)
        per_request, cluster = 1.0, CLUSTER
        if self._usual is not None:
            hour = self._usual.note(now, sum(increments.values()), sum(seen.values()))
            per_request, cluster = self._usual.ratio, max(CLUSTER, self._usual.cluster)
            if not self._usual.steady:
                # All that can be told is that nothing at all was seen for an hour.
                served, missing = hour or (0.0, 0.0)
                self._settle(ALL, now, _Due(served, missing, missing), 1.0)
        for name, ledger in self._ledgers.items():
            count = increments.get(name, 0.0)
            if count:
                ledger.active = now
                ledger.served += count
                ledger.queue.append(
                    _Block(count, count, count * (1 - self._settings.tolerated), now + self._settings.delay)
                )
            ledger.seen = self._marked[name]
            ledger.recent, ledger.recent_missing = ledger.recent * fade, ledger.recent_missing * fade
            if self._usual is None or self._usual.steady:
                ledger.match(seen[name] / per_request, max(count, FEWEST_CREDIT))
                self._settle(name, now, ledger.due(now), cluster)
            else:
                ledger.queue.clear()

    def _settle(self, name: str, now: float, due: _Due, cluster: float) -> None:
        """Bet on what is due."""
        ledger = self._ledgers.get(name)
        if ledger is None or not due.served:
            return
        ledger.missing += due.missing
        ledger.recent += due.served
        ledger.recent_missing += due.missing
        log_l = (due.excess * self._gain_yes + due.served * self._gain_asked) / cluster
        elapsed = max(0.0, now - ledger.judged) / self._period
        counts = np.array([[due.served]]), np.array([[due.excess]])
        advance(ledger.memory, self._bets, log_l, elapsed * ledger.share, *counts, now)
        ledger.judged = now

    def _conclude(self, now: float) -> None:
        """Form the evidence, and note since when the monitor is blind."""
        self.evidence = []
        for name, ledger in self._ledgers.items():
            version = name if self._settings.by_version else None
            (found,) = collect(
                self._model, version, ledger.memory, self._bets, (ASKED,), self._expected, np.array([FLOOR])
            )
            told = [
                msgspec.structs.replace(
                    one, rate=min(1.0, one.rate + self._settings.tolerated), expected=self._settings.tolerated
                )
                for one in found.subjects
            ]
            self.evidence.append(ledger.blind.of(msgspec.structs.replace(found, subjects=tuple(told)), now))

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "seen": dict(self._seen),
            "values": dict(self._values),
            "resets": list(self._resets),
            "number": self._number,
            "read": self._read,
            "usual": None if self._usual is None else self._usual.state(),
            "evidence": msgspec.to_builtins(self.evidence),
            "ledgers": {
                name: {
                    **{key: getattr(ledger, key) for key in SAVED},
                    "memory": ledger.memory.state(),
                    "blind": ledger.blind.since,
                    "queue": [[block.served, block.unmatched, block.excess, block.deadline] for block in ledger.queue],
                }
                for name, ledger in self._ledgers.items()
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state. What was waiting may take its delay anew: the log must be caught up with first."""
        self._seen = Counter(state["seen"])
        self._marked = self._seen.copy()
        self._values = dict(state["values"])
        self._resets = deque(state["resets"])
        self._number = state["number"]
        self._read = state["read"]
        self._grace = True
        if self._usual is not None and state["usual"] is not None:
            self._usual.restore(state["usual"])
        self.evidence = msgspec.convert(state["evidence"], list[Evidence])
        self._ledgers = {
            name: _Ledger(
                **{
                    **saved,
                    "memory": Memory(**saved["memory"]),
                    "blind": Lasting(saved["blind"]),
                    "queue": deque(_Block(*block) for block in saved["queue"]),
                }
            )
            for name, saved in state["ledgers"].items()
        }
