"""The pure machine of one model: micro-batches go in, reports of closed windows come out.

No clock, no I/O, no randomness. Its state can be taken out and put back between any two calls, and the reports depend
neither on how the stream was chopped into batches nor on where it was interrupted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poisonwatch.detect.canary import Canary
from poisonwatch.detect.distance import FEWEST, distances
from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory
from poisonwatch.detect.shift import Shift
from poisonwatch.profile.indicators import CANARY_CLASS, CANARY_CONFIDENCE, INPUTS, OUTPUTS, QUALITY, REJECTED
from poisonwatch.profile.traffic import Traffic
from poisonwatch.profile.window import Window, Windows
from poisonwatch.types import OTHER_VERSIONS, Evidence, Report, VersionFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.types import Batch, Ints


class Settings(NamedTuple):
    """What an operator may set of one model's monitor; times in seconds, floors in log-odds.

    `shares` is each group's part of this model's budget, `period` the budget's period already divided by the model's
    own part of it. `stable` is the version to compare with, `known` are those that the reference shows.
    """

    window: float
    lateness: float
    period: float
    shares: dict[str, float]
    effect_floor: float
    retrain_floor: float
    canary_floor: float
    smallest_arm: int
    most_versions: int
    stable: str | None
    known: frozenset[str]


@dataclass(slots=True)
class _Version:
    """What is known of one version. `number` counts versions from 1 and sets its share of the budget.

    `judged` and `compared` are up to when its budget was spent, against the reference and against stable versions.
    """

    number: int
    first_seen: float
    last_seen: float
    judged: float
    compared: float
    totals: Ints
    memory: Memory
    evidence: list[Evidence] = field(default_factory=list)
    recent: deque[Ints] = field(default_factory=deque)
    recent_count: int = 0

    @property
    def share(self) -> float:
        """Shares that add up to one over any number of versions."""
        return 1.0 / (self.number * (self.number + 1))


@dataclass(slots=True)
class _Pair:
    """A canary beside the stable version: their profiles since the last block, and what was found so far."""

    since: float
    canary_profile: Ints
    stable_profile: Ints
    memory: Memory


class VersionView(NamedTuple):
    """What is shown of a version: counts since it was first seen, distances over recent windows, evidence."""

    facts: VersionFacts
    totals: Ints
    distances: dict[str, dict[str, float]]
    evidence: list[Evidence]


class Monitor:
    """Watches one model.

    `baseline` is the reference's over all indicators, `lines` the one over the share of rejected lines.
    """

    def __init__(self, model: str, baseline: Baseline, lines: Baseline, settings: Settings) -> None:
        self.model = model
        self.questions = baseline.questions
        self._baseline = baseline
        self._settings = settings
        self._windows = Windows(self.questions, settings.window, settings.lateness)
        group_of = np.array([signal.group for signal in self.questions.signals])[self.questions.signal_of]
        floor = settings.effect_floor + 3.5 * baseline.day_noise
        shares = {name: settings.shares[name] for name in (OUTPUTS, INPUTS, QUALITY)}
        # The first version is the one that the reference shows; every later one may differ as a retraining does.
        self._first = Shift(baseline, floor, shares)
        self._later = Shift(baseline, floor + np.where(group_of == OUTPUTS, settings.retrain_floor, 0.0), shares)
        self._lines = Shift(lines, settings.effect_floor + 3.5 * lines.day_noise, {QUALITY: settings.shares[REJECTED]})
        self._canary = Canary(
            baseline,
            settings.canary_floor,
            {name: settings.shares[name] for name in (CANARY_CLASS, CANARY_CONFIDENCE)},
            settings.smallest_arm,
        )
        self._texts = tuple(indicator.text for indicator in self.questions.indicators)
        self._canary_texts = tuple(self._texts[of] for of in self._canary.indicators)
        self._canary_floor = np.full(len(self._canary_texts), settings.canary_floor)
        self._versions: dict[str, _Version] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._traffic = Traffic(settings.stable, settings.known)
        self._seen_versions = 0
        self._lines_memory = self._lines.begin()
        self._lines_evidence: list[Evidence] = []
        self._lines_judged = -np.inf

    @property
    def newest(self) -> float:
        """Largest event time seen."""
        return self._windows.newest

    @property
    def late(self) -> int:
        """Predictions that came after their window was judged."""
        return self._windows.late

    def absorb(self, batch: Batch) -> Iterator[Report]:
        """Take a micro-batch; yield a report for every window it closes."""
        return self._judge(self._windows.absorb(batch))

    def flush(self, now: float) -> Iterator[Report]:
        """Judge what is open: nothing more comes for now. `now` is the time of what told none of its own."""
        return self._judge(self._windows.flush(now))

    def view(self) -> dict[str, VersionView]:
        """What is shown of every version."""
        return {
            name: VersionView(
                _facts(name, version, self._traffic), version.totals, self._distances(version), version.evidence
            )
            for name, version in self._versions.items()
        }

    def evidence_on_lines(self) -> list[Evidence]:
        """Evidence that concerns the model's log and none of its versions."""
        return self._lines_evidence

    def _judge(self, windows: Iterable[Window]) -> Iterator[Report]:
        for window in windows:
            self._lines_evidence = self._judge_lines(window)
            profiles = self._capped(window)
            for name, profile in profiles.items():
                self._judge_version(name, profile, window)
            retired = tuple(self._traffic.note(window.end, {name: int(p[0]) for name, p in profiles.items()}))
            for name in retired:
                del self._versions[name]
                self._pairs = {names: pair for names, pair in self._pairs.items() if name not in names}
            self._judge_pairs(profiles, window)
            for name, version in self._versions.items():
                version.evidence = self._evidence(name, version)
            yield Report(
                model=self.model,
                time=window.end,
                versions=tuple(_facts(name, version, self._traffic) for name, version in self._versions.items()),
                retired=retired,
                evidence=(*self._lines_evidence, *(e for v in self._versions.values() for e in v.evidence)),
            )

    def _capped(self, window: Window) -> dict[str, Ints]:
        """Profiles by version, the oldest first; versions beyond the cap are counted together."""
        capped: dict[str, Ints] = {}
        for name in window.by_age():
            profile = window.profiles[name]
            named = {*self._versions, *capped, name} - {OTHER_VERSIONS}
            kept = name if name in self._versions or len(named) <= self._settings.most_versions else OTHER_VERSIONS
            capped[kept] = capped[kept] + profile if kept in capped else profile
            window.last_seen[kept] = max(window.last_seen[name], window.last_seen.get(kept, -np.inf))
        return capped

    def _judge_version(self, name: str, profile: Ints, window: Window) -> None:
        version = self._versions.get(name)
        if version is None:
            self._seen_versions += 1
            version = self._versions[name] = _Version(
                number=self._seen_versions,
                first_seen=window.start,
                last_seen=window.start,
                judged=window.start,
                compared=window.start,
                totals=np.zeros(self.questions.size, np.int64),
                memory=self._first.begin(),
            )
        elapsed = window.end - version.judged
        shift = self._shift(name, version)
        shift.step(version.memory, profile, elapsed / self._settings.period * version.share, window.start)
        version.judged = window.end
        version.last_seen = max(version.last_seen, window.last_seen[name])
        version.totals = version.totals + profile
        version.recent.append(profile)
        version.recent_count += int(profile[0])
        while version.recent_count - int(version.recent[0][0]) >= FEWEST:
            version.recent_count -= int(version.recent.popleft()[0])

    def _judge_lines(self, window: Window) -> list[Evidence]:
        kept = sum(int(profile[0]) for profile in window.profiles.values())
        counts = np.array([kept + window.lost, window.lost], np.int64)
        # Lines lost before any prediction were judged at the clock's time, which may be later than the log's.
        since = window.end - self._lines_judged
        elapsed = since if self._settings.window <= since < np.inf else self._settings.window
        self._lines.step(self._lines_memory, counts, elapsed / self._settings.period, window.start)
        self._lines_judged = window.end
        return self._collect_lines()

    def _judge_pairs(self, profiles: dict[str, Ints], window: Window) -> None:
        """Compare with the stable version whoever had traffic together with it in this window."""
        stable = self._traffic.stable
        for name, profile in profiles.items():
            if stable is None or stable not in profiles or not self._traffic.comparable(name):
                continue
            pair = self._pairs.get((name, stable))
            none = np.zeros(self.questions.size, np.int64)
            if pair is None:
                pair = self._pairs[name, stable] = _Pair(window.start, none, none, self._canary.begin())
            if not int(pair.canary_profile[0]):
                pair.since = window.start
            pair.canary_profile = pair.canary_profile + profile
            pair.stable_profile = pair.stable_profile + profiles[stable]
            if self._canary.ready(pair.canary_profile, pair.stable_profile):
                version = self._versions[name]
                share = (window.end - version.compared) / self._settings.period * version.share
                self._canary.step(pair.memory, pair.canary_profile, pair.stable_profile, share, pair.since)
                version.compared = window.end
                pair.canary_profile = pair.stable_profile = none

    def _shift(self, name: str, version: _Version) -> Shift:
        first = name in self._settings.known if self._settings.known else version.number == 1
        return self._first if first else self._later

    def _evidence(self, name: str, version: _Version) -> list[Evidence]:
        shift = self._shift(name, version)
        found = collect(self.model, name, version.memory, shift.bets, self._texts, self._baseline.rate, shift.floor)
        stable = self._traffic.stable
        if stable is None or not any(canary == name for canary, _ in self._pairs):
            return found
        if name == stable:
            # It took the place of the version that it was compared with: what was found then can neither grow nor fade.
            memory, against = self._canary.begin(), None
        else:
            pair = self._pairs.get((name, stable))
            if pair is None or not pair.memory.asked.any():
                return found
            memory, against = pair.memory, stable
        rates, floor = self._baseline.rate[self._canary.indicators], self._canary_floor
        return found + collect(self.model, name, memory, self._canary.bets, self._canary_texts, rates, floor, against)

    def _collect_lines(self) -> list[Evidence]:
        texts = tuple(indicator.text for indicator in self._lines.baseline.questions.indicators)
        expected, floor = self._lines.baseline.rate, self._lines.floor
        return collect(self.model, None, self._lines_memory, self._lines.bets, texts, expected, floor)

    def _distances(self, version: _Version) -> dict[str, dict[str, float]]:
        recent = np.sum(np.array(version.recent), axis=0)
        return distances(self.questions, self._baseline.counts, recent) if recent[0] >= FEWEST else {}

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "windows": self._windows.state(),
            "seen_versions": self._seen_versions,
            "lines": self._lines_memory.state(),
            "lines_judged": self._lines_judged,
            "versions": {
                name: {
                    "number": version.number,
                    "first_seen": version.first_seen,
                    "last_seen": version.last_seen,
                    "judged": version.judged,
                    "compared": version.compared,
                    "totals": version.totals,
                    "memory": version.memory.state(),
                    "recent_count": version.recent_count,
                    "recent": np.array(version.recent, np.int64).reshape(-1, self.questions.size),
                }
                for name, version in self._versions.items()
            },
            "traffic": self._traffic.state(),
            "pairs": [
                {
                    "canary": canary,
                    "stable": stable,
                    "since": pair.since,
                    "canary_profile": pair.canary_profile,
                    "stable_profile": pair.stable_profile,
                    "memory": pair.memory.state(),
                }
                for (canary, stable), pair in self._pairs.items()
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state; the evidence shown is derived from it anew."""
        self._windows.restore(state["windows"])
        self._seen_versions = state["seen_versions"]
        self._lines_memory = Memory(**state["lines"])
        self._lines_judged = state["lines_judged"]
        self._lines_evidence = self._collect_lines() if np.isfinite(self._lines_judged) else []
        self._versions = {
            name: _Version(**{**saved, "memory": Memory(**saved["memory"]), "recent": deque(saved["recent"])})
            for name, saved in state["versions"].items()
        }
        self._traffic.restore(state["traffic"])
        self._pairs = {
            (saved["canary"], saved["stable"]): _Pair(
                saved["since"], saved["canary_profile"], saved["stable_profile"], Memory(**saved["memory"])
            )
            for saved in state["pairs"]
        }
        for name, version in self._versions.items():
            version.evidence = self._evidence(name, version)


def _facts(name: str, version: _Version, traffic: Traffic) -> VersionFacts:
    return VersionFacts(
        model_version=name,
        predictions=int(version.totals[0]),
        first_seen=version.first_seen,
        last_seen=version.last_seen,
        stable=name == traffic.stable,
        junior=traffic.is_junior(name),
    )
