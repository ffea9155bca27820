"""The pure machine of one model: micro-batches and labels go in, reports come out.

No clock, no I/O, no randomness. Its state can be taken out and put back between any two calls, and the reports depend
neither on how the stream was chopped into batches nor on where it was interrupted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from poisonwatch.detect.creep import Creep
from poisonwatch.detect.distance import FEWEST, distances
from poisonwatch.detect.evidence import collect
from poisonwatch.detect.kernel import Memory
from poisonwatch.detect.shift import Shift
from poisonwatch.monitor.coverage import Coverage
from poisonwatch.monitor.golden import Golden
from poisonwatch.monitor.labels import Labels
from poisonwatch.monitor.lines import Lines
from poisonwatch.monitor.names import Names
from poisonwatch.monitor.pairs import Pairs
from poisonwatch.monitor.past import Past
from poisonwatch.monitor.shadows import Shadows
from poisonwatch.monitor.signs import FIRES, moved, with_signs
from poisonwatch.monitor.triggers import Triggers
from poisonwatch.profile.indicators import (
    CONFIDENCE_FALL,
    ERRORS,
    FLIPS,
    INPUTS,
    OUTPUTS,
    QUALITY,
    SLICE_CONFIDENCE,
    SLICE_ERRORS,
    SLICE_FLIPS,
    TRIGGERS,
)
from poisonwatch.profile.traffic import Traffic
from poisonwatch.profile.window import Window, Windows
from poisonwatch.profile.words import tokens
from poisonwatch.types import OTHER_VERSIONS, Evidence, Report, Sign, VersionFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poisonwatch.mining.learned import Mining
    from poisonwatch.monitor.coverage import Series
    from poisonwatch.monitor.golden import GoldenAnswers
    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.profile.enrich import Enrichment
    from poisonwatch.profile.volume import UsualVolume
    from poisonwatch.types import Batch, Feedback, InsertionTest, Ints

RETRAINED = (OUTPUTS, CONFIDENCE_FALL, SLICE_CONFIDENCE)
"""What an honest retraining moves."""

FLIPPING = (FLIPS, SLICE_FLIPS)
DAY = 86400.0
HARMFUL = frozenset([*RETRAINED, *FLIPPING, ERRORS, SLICE_ERRORS, TRIGGERS])
"""What no traffic may show that the rolling baseline is fed with."""

AGAINST_REFERENCE = (*RETRAINED, *FLIPPING, INPUTS, QUALITY)

NAMES_PER_VERSION = 8
"""Names that are kept apart within an open window, by version that may have a machine: the oldest of them get it."""


class Learned(NamedTuple):
    """What the monitor takes from a reference.

    `baseline` is over all indicators, `errors` over error rates; `confusion` (classes, classes) counts labels by predicted
    and labelled class; `lines` over lost lines; `volume` is that of
    a timed reference.
    `with_labels` says whether `errors` rests on any label; without `mining` no triggers can be looked for.
    """

    baseline: Baseline
    errors: Baseline
    confusion: Ints
    lines: Baseline
    volume: UsualVolume | None
    with_labels: bool
    enrichment: Enrichment
    mining: Mining | None


@dataclass(slots=True)
class _Version:
    """What is known of one version. `number` counts versions from 1 and sets its share of the budget.

    `judged` is up to when its budget was spent against the reference.
    """

    number: int
    first_seen: float
    last_seen: float
    judged: float
    totals: Ints
    memory: Memory
    past: Past
    evidence: list[Evidence] = field(default_factory=list)
    recent: deque[Ints] = field(default_factory=deque)
    recent_count: int = 0

    @property
    def share(self) -> float:
        """Shares that add up to one over any number of versions."""
        return 1.0 / (self.number * (self.number + 1))


class VersionView(NamedTuple):
    """What is shown of a version.

    Counts since it was first seen; labels that counted, and how many of them contradicted it; distances over recent windows.
    """

    facts: VersionFacts
    totals: Ints
    labels: tuple[int, int]
    distances: dict[str, dict[str, float]]
    evidence: list[Evidence]


class Monitor:
    """Watches one model."""

    def __init__(self, model: str, learned: Learned, settings: Settings) -> None:
        baseline = learned.baseline
        self.model = model
        self.questions = baseline.questions
        self._baseline = baseline
        self._settings = settings
        self._enrichment = learned.enrichment
        self._sampler = learned.enrichment.sampler(settings.window)
        self._names = Names(NAMES_PER_VERSION * settings.most_versions, settings.known)
        self._windows = Windows(self.questions, settings.window, settings.lateness)
        group_of = np.array([signal.group for signal in self.questions.signals])[self.questions.signal_of]
        floor = settings.effect_floor + 3.5 * baseline.day_noise
        floor = np.where(np.isin(group_of, FLIPPING), settings.flip_floor, floor)
        shares = {name: settings.shares[name] for name in AGAINST_REFERENCE}
        # The first version is the one that the reference shows; every later one may differ as a retraining does.
        self._first = Shift(baseline, floor, shares)
        retrained = np.where(np.isin(group_of, RETRAINED), settings.retrain_floor, 0.0)
        self._later = Shift(baseline, floor + retrained, shares)
        self._lines = Lines(model, learned.lines, learned.volume, settings)
        self.coverage = None if settings.served is None else Coverage(model, settings.served, settings)
        schema = learned.enrichment.schema
        self.labels = Labels(schema, learned.errors, learned.confusion, settings, judged=learned.with_labels)
        self._pairs = Pairs(baseline, learned.errors, settings)
        self._shadows = Shadows(schema.outcome.values, settings)
        self.triggers = Triggers(model, learned.enrichment, learned.mining, settings)
        self.golden = Golden(model, schema, learned.confusion, settings) if schema.outcome.values else None
        self._creep = Creep(baseline)
        self._texts = tuple(indicator.text for indicator in self.questions.indicators)
        self._places = {one.text: (one.asked, one.yes) for one in self.questions.indicators}
        self._none = np.zeros(self.questions.size, np.int64)
        self._versions: dict[str, _Version] = {}
        self._traffic = Traffic(settings.stable, settings.known)
        self._seen_versions = 0

    @property
    def newest(self) -> float:
        """Largest event time seen."""
        return self._windows.newest

    @property
    def late(self) -> int:
        """Predictions that came after their window was judged."""
        return self._windows.late

    @property
    def displacement(self) -> float:
        """How far the rolling baseline has been moved from the reference: the largest of all indicators, in log-odds."""
        return float(np.abs(self._creep.displacement).max(initial=0.0))

    def absorb(self, batch: Batch) -> Iterator[Report]:
        """Take a micro-batch; yield a report for every window it closes."""
        batch = self._names.keep(batch)
        words = tokens(batch.texts)
        batch = self._enrichment.apply(batch, self._sampler.take(batch.time), words)
        in_time = self._windows.in_time(batch.time)
        if self.coverage is not None:
            self.coverage.see(batch, in_time)
        self._shadows.add(batch, self.labels.wait(batch), in_time, self.labels.name_of)
        self.labels.hold(batch, in_time)
        self.triggers.take(batch, words, in_time)
        for window in self._windows.absorb(batch):
            self.triggers.fold(window.closed_by)
            yield self._judge(window)
        self.triggers.end()

    def learn(self, feedback: Feedback) -> Iterator[Report]:
        """Take labels; yield a report for every block of them that is closed."""
        for end in self.labels.take(feedback):
            yield self._conclude_labels(end)

    def flush(self, now: float) -> Iterator[Report]:
        """Judge what is open: nothing more comes for now. `now` is the time of what told none of its own."""
        self.triggers.flush()
        for window in self._windows.flush(now):
            yield self._judge(window, now)
        if np.isfinite(self.labels.open_until):
            yield self._conclude_labels(self.labels.open_until)

    def tested(self, trigger: str, test: InsertionTest) -> Report:
        """Take up what insertion into verified inputs said of an open trigger."""
        self.triggers.tested(trigger, test)
        return self._report(self.newest, ())

    def verified(self, told: GoldenAnswers) -> Report:
        """Take up what a version answered to golden inputs; a version that is gone has nothing to say."""
        version = self._versions.get(told.model_version)
        if version is not None and self.golden is not None:
            self.golden.take(told, self._traffic.stable, version.share)
        return self._report(self.newest, ())

    def served(self, now: float, series: Iterable[Series] | None) -> Iterator[Report]:
        """Take up what the server says it served, None where it could not be asked; a report where that tells something.

        `now` is the clock's: a log that is dead tells no time.
        """
        if self.coverage is None:
            return
        told = self.coverage.tells
        if series is None:
            self.coverage.fail(now)
        else:
            self.coverage.take(now, series)
        if told or self.coverage.tells:
            yield self._report(now, ())

    def restated(self) -> Report:
        """What stands, for a judge of whom a person ordered something."""
        return self._report(self.newest, ())

    @property
    def lines(self) -> tuple[int, int]:
        """Predictions that entered a profile, and lines that were rejected or late."""
        return self._lines.kept, self._lines.lost

    @property
    def running(self) -> tuple[str, ...]:
        """The versions that run, the one to compare with first."""
        stable = self._traffic.stable
        return tuple(sorted(self._versions, key=lambda name: name != stable))

    def view(self) -> dict[str, VersionView]:
        """What is shown of every version."""
        return {
            name: VersionView(
                self._facts(name, version),
                version.totals,
                self.labels.totals(name),
                self._distances(version),
                version.evidence,
            )
            for name, version in self._versions.items()
        }

    def evidence_on_log(self) -> list[Evidence]:
        """Evidence that concerns the model's log, its labels or its reference, and none of its versions."""
        of_server = [] if self.coverage is None else self.coverage.evidence
        return [*self._lines.evidence, *of_server, *self.labels.evidence_on_all(self.model)]

    def _judge(self, window: Window, now: float = -np.inf) -> Report:
        profiles = self._capped(window)
        self._lines.judge(window, sum(int(profile[0]) for profile in profiles.values()), now)
        for name, profile in profiles.items():
            self._judge_version(name, profile, window)
        retired = tuple(self._traffic.note(window.end, {name: int(p[0]) for name, p in profiles.items()}))
        for name in retired:
            del self._versions[name]
            self._pairs.forget(name)
            self._shadows.forget(name)
            self.labels.forget(name)
            self.triggers.forget(name)
            if self.golden is not None:
                self.golden.forget(name)
        stable, span = self._traffic.stable, (window.start, window.end)
        for name in profiles:
            if stable is not None and stable in profiles and self._traffic.comparable(name):
                self._pairs.add_traffic(name, stable, profiles, span, self._versions[name].share)
        shares = {name: version.share for name, version in self._versions.items()}
        self._shadows.judge(window, stable, shares)
        if profiles:
            told = [e for version in self._versions.values() for e in version.evidence]
            healthy = moved(told, FIRES).isdisjoint(HARMFUL)
            self._creep.note(window.start, sum(profiles.values(), start=self._none), healthy=healthy)
        self.labels.release(window.start)
        if self.labels.open_until <= window.end:
            self._judge_labels()
        return self._report(window.end, retired)

    def _conclude_labels(self, end: float) -> Report:
        self._judge_labels()
        return self._report(end, ())

    def _judge_labels(self) -> None:
        """Step the error rates by the labels of the open block."""
        end = self.labels.open_until
        span = end - self._settings.window, end
        shares = {name: version.share for name, version in self._versions.items()}
        first = next((name for name, version in self._versions.items() if version.number == 1), None)
        drifting = frozenset(n for n, version in self._versions.items() if INPUTS in moved(version.evidence))
        profiles = self.labels.judge(shares, first, drifting)
        stable = self._traffic.stable
        for name in self._versions:
            if stable is not None and self._traffic.comparable(name) and not profiles.keys().isdisjoint({name, stable}):
                self._pairs.add_labels(name, stable, profiles, span, shares[name])

    def _report(self, time: float, retired: tuple[str, ...]) -> Report:
        for name, version in self._versions.items():
            version.evidence = self._evidence(name, version)
        return Report(
            model=self.model,
            time=time,
            versions=tuple(self._facts(name, version) for name, version in self._versions.items()),
            retired=retired,
            evidence=(*self.evidence_on_log(), *(e for v in self._versions.values() for e in v.evidence)),
            accusations=self.labels.accused.news(),
            triggers=self.triggers.news(),
        )

    def _capped(self, window: Window) -> dict[str, Ints]:
        """Profiles by version, the oldest first; versions beyond the cap are counted together."""
        capped: dict[str, Ints] = {}
        for name in window.by_age():
            profile = window.profiles[name]
            named = {*self._versions, *capped, name} - {OTHER_VERSIONS}
            # Names that a log makes up must not leave the version without one that the reference knows.
            entitled = name in self._versions or name in self._settings.known
            kept = name if entitled or len(named) <= self._settings.most_versions else OTHER_VERSIONS
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
                totals=self._none,
                memory=self._first.begin(),
                past=Past(self.questions.size),
            )
        elapsed = window.end - version.judged
        shift = self._shift(name, version)
        shift.step(version.memory, profile, elapsed / self._settings.period * version.share, window.start)
        version.judged = window.end
        version.last_seen = max(version.last_seen, window.last_seen[name])
        version.totals = version.totals + profile
        version.past.note(window.start, profile)
        version.recent.append(profile)
        version.recent_count += int(profile[0])
        while version.recent_count - int(version.recent[0][0]) >= FEWEST:
            version.recent_count -= int(version.recent.popleft()[0])

    def _shift(self, name: str, version: _Version) -> Shift:
        first = name in self._settings.known if self._settings.known else version.number == 1
        return self._first if first else self._later

    def _evidence(self, name: str, version: _Version) -> list[Evidence]:
        shift = self._shift(name, version)
        found = collect(self.model, name, version.memory, shift.bets, self._texts, self._baseline.rate, shift.floor)
        found = [self._dated(e, version) for e in found]
        found += [self._slow(e, version, self.labels.is_slow) for e in self.labels.evidence(self.model, name)]
        found += self._pairs.evidence(self.model, name, self._traffic.stable)
        found += self._shadows.evidence(self.model, name, self._traffic.stable)
        found += self.triggers.evidence(name)
        found += self.golden.evidence(name, self._traffic.stable) if self.golden is not None else []
        return with_signs(self.labels.heard(name, found))

    def _dated(self, evidence: Evidence, version: _Version) -> Evidence:
        """The evidence with what its past says: since when by another method, and whether it came slowly."""
        onset = version.past.onset(evidence, self._places)
        if onset is not None:
            evidence = msgspec.structs.replace(evidence, second_onset=onset)
        return self._slow(
            evidence,
            version,
            lambda e: self._creep.is_slow(self._texts.index(e.subjects[0].indicator), e.effect),
        )

    def _slow(self, evidence: Evidence, version: _Version, judge: Callable[[Evidence], bool]) -> Evidence:
        """The evidence with the sign that its effect was reached over days, where that is so."""
        if not version.past.is_slow(evidence, int(version.judged // DAY), judge):
            return evidence
        return msgspec.structs.replace(evidence, signs=(*evidence.signs, Sign.SLOW))

    def _distances(self, version: _Version) -> dict[str, dict[str, float]]:
        recent = np.sum(np.array(version.recent), axis=0)
        return distances(self.questions, self._baseline.counts, recent) if recent[0] >= FEWEST else {}

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "names": self._names.state(),
            "windows": self._windows.state(),
            "sampler": self._sampler.state(),
            "seen_versions": self._seen_versions,
            "lines": self._lines.state(),
            "coverage": None if self.coverage is None else self.coverage.state(),
            "labels": self.labels.state(),
            "versions": {
                name: {
                    "number": version.number,
                    "first_seen": version.first_seen,
                    "last_seen": version.last_seen,
                    "judged": version.judged,
                    "totals": version.totals,
                    "memory": version.memory.state(),
                    "past": version.past.state(),
                    "evidence": msgspec.to_builtins(version.evidence),
                    "recent_count": version.recent_count,
                    "recent": np.array(version.recent, np.int64).reshape(-1, self.questions.size),
                }
                for name, version in self._versions.items()
            },
            "traffic": self._traffic.state(),
            "pairs": self._pairs.state(),
            "shadows": self._shadows.state(),
            "triggers": self.triggers.state(),
            "golden": None if self.golden is None else self.golden.state(),
            "creep": self._creep.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state, with the evidence as it was last told: labels may have come since."""
        self._names.restore(state["names"])
        self._windows.restore(state["windows"])
        self._sampler.restore(state["sampler"])
        self._seen_versions = state["seen_versions"]
        self._lines.restore(state["lines"])
        if self.coverage is not None and state["coverage"] is not None:
            self.coverage.restore(state["coverage"])
        self.labels.restore(state["labels"])
        self._versions = {
            name: _Version(
                **{
                    **saved,
                    "memory": Memory(**saved["memory"]),
                    "past": Past.restored(self.questions.size, saved["past"]),
                    "evidence": msgspec.convert(saved["evidence"], list[Evidence]),
                    "recent": deque(saved["recent"]),
                }
            )
            for name, saved in state["versions"].items()
        }
        self._traffic.restore(state["traffic"])
        self._pairs.restore(state["pairs"])
        self._shadows.restore(state["shadows"])
        self.triggers.restore(state["triggers"])
        if self.golden is not None:
            self.golden.restore(state["golden"])
        self._creep.restore(state["creep"])

    def _facts(self, name: str, version: _Version) -> VersionFacts:
        return VersionFacts(
            model_version=name,
            predictions=int(version.totals[0]),
            first_seen=version.first_seen,
            last_seen=version.last_seen,
            stable=name == self._traffic.stable,
            elders=self._traffic.elders(name),
            triggered=self.triggers.works_in(name),
        )
