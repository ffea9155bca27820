"""Open triggers: what each pattern does in each version, counted exactly from the moment when it surfaced. Pure."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from poisonwatch.mining.effects import MANY, Effect, Incident, Past
from poisonwatch.mining.naming import in_words
from poisonwatch.mining.patterns import different
from poisonwatch.profile.odds import LOG_CAP, LOG_ZERO
from poisonwatch.types import PROVEN, InsertionTest, Pattern, Phrase, Trigger, TriggerState, VersionEffect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poisonwatch.mining.records import Finding, Records
    from poisonwatch.types import Bools

MOST_OPEN = 5
"""Triggers that are open at once; more are counted only."""

FEWEST_FLIPS = 4
"""Flipped predictions that a conviction needs; at least half of those that are counted must flip as well."""

FEWEST_BESIDE = 3
"""Flipped predictions of its own that a pattern needs to be told beside a convicted trigger of the same version and class."""

BY_CHANCE = 1e-4
"""A pattern that predictions bear by nature is convicted when so many came since that chance explains it no better than this."""

IDLE_SECONDS = 7 * 86400.0
"""A trigger ends when no prediction bore it for so long."""

MOST_SOURCES = 20
MOST_EXAMPLES = 20

STAKE = 0.6
"""The rate of flips that a trigger's own e-process bets on lies so far between the bound and 1."""


class Incidents:
    """The open triggers of one model, with `classes` as labels.

    `bears` finds the records of a block that bear a pattern, `usual` gives an upper bound of the share of predictions that bear it by
    nature, 0 where nothing is known of that; `first` whether a version is one that the reference shows.
    `saturated` counts findings for which there was no room; `triggered` counts by version predictions that bore an open trigger and
    got its class.
    """

    def __init__(
        self,
        model: str,
        classes: tuple[str, ...],
        bears: Callable[[Pattern, Records], Bools],
        first: Callable[[str], bool],
        usual: Callable[[Pattern], float] = lambda _: 0.0,
    ) -> None:
        self._model = model
        self._first = first
        self._classes = classes
        self._bears = bears
        self._usual = usual
        self._open: dict[str, Incident] = {}
        self._news: dict[str, None] = {}
        self._ended: list[Trigger] = []
        self.saturated = 0
        self.triggered: dict[str, int] = {}

    def __iter__(self) -> Iterator[Incident]:
        """The open ones, the oldest first."""
        return iter(self._open.values())

    def open(self, finding: Finding, version: str, past: Past) -> None:
        """Take up a finding of `version`."""
        incident = self._same(finding)
        if incident is None:
            finding = self._without_explained(finding, past)
            if self._explained(finding, version):
                return
            incident = self._begin(finding, version, past)
        if incident is None:
            return
        effect = incident.effects.setdefault(version, Effect())
        if not effect.surfaced:
            effect.surfaced = True
            against, others = effect.against, effect.matched - effect.answered
            for name, count in (("answered", finding.matched), ("flipped", finding.flipped)):
                setattr(effect, name, max(getattr(effect, name), count))
                setattr(effect, f"fresh_{name}", max(getattr(effect, f"fresh_{name}"), count))
            effect.fresh_matched = effect.fresh_answered + against
            effect.matched = effect.answered + others
            effect.predictions = max(effect.predictions, effect.matched, past.since(version, incident.first_seen))
            self.triggered[version] = self.triggered.get(version, 0) + finding.matched
        effect.log_e = min(max(effect.log_e, finding.log_e), LOG_CAP)
        self._judge(incident)

    def count(self, records: Records, names: list[str]) -> None:
        """Count a block; `names` are those of its version numbers.

        What bears a convicted trigger counts for no later one of its class: one attack is one trigger.
        """
        taken = np.zeros((len(self._classes), records.time.size), np.bool_)
        for incident in sorted(self._open.values(), key=lambda i: i.state not in PROVEN):
            found = self._bears(incident.pattern, records) & ~taken[incident.label]
            if incident.state in PROVEN:
                taken[incident.label] |= found
            answered = found & (records.label == incident.label)
            for number in np.unique(records.version).tolist():
                mine = records.version == number
                effect = incident.effects.setdefault(names[number], Effect())
                effect.predictions += int(mine.sum())
                effect.met += int((mine & records.fresh).sum())
                if found[mine].any():
                    self._count(effect, records, mine, found, answered)
                    name = names[number]
                    self.triggered[name] = self.triggered.get(name, 0) + int((answered & mine).sum())
            if found.any():
                incident.last_seen = float(records.time[found].max())
                self._remember(incident, records, answered)
                self._judge(incident)
            elif records.time.size and float(records.time.max()) - incident.last_seen > IDLE_SECONDS:
                incident.state = TriggerState.ENDED
                self._news[incident.trigger] = None
        self._close([name for name, incident in self._open.items() if incident.state is TriggerState.ENDED])

    def compare(self, kept: Callable[[str, int], Records | None]) -> None:
        """Look how different the flipped predictions of patterns are that are not convicted yet.

        `kept` gives the suspicious predictions of a version and class that are known in full.
        """
        for incident in self._open.values():
            for name, effect in incident.effects.items():
                if effect.surfaced and effect.different < MANY and effect.fresh_flipped >= FEWEST_FLIPS:
                    records = kept(name, incident.label)
                    if records is not None:
                        flipped = self._bears(incident.pattern, records) & records.flipped
                        effect.different = max(effect.different, different(incident.pattern, records, flipped))
            self._judge(incident)

    def tested(self, trigger: str, test: InsertionTest) -> None:
        """Take up what insertion into verified inputs said of an open trigger."""
        incident = self._open.get(trigger)
        if incident is not None:
            incident.effects.setdefault(test.model_version, Effect()).test = test
            self._judge(incident)
            self._news[trigger] = None

    def forget(self, version: str) -> None:
        """A version is gone; a trigger that surfaced nowhere else goes with it."""
        self.triggered.pop(version, None)
        for incident in self._open.values():
            incident.effects.pop(version, None)
            surfaced = [name for name, effect in incident.effects.items() if effect.surfaced]
            if incident.version == version and surfaced:
                incident.version = surfaced[0]
        gone = [name for name, i in self._open.items() if not any(e.surfaced for e in i.effects.values())]
        for name in gone:
            self._open[name].state = TriggerState.ENDED
            self._news[name] = None
        self._close(gone)

    def triggers(self) -> tuple[Trigger, ...]:
        """All open ones, as they are told."""
        return tuple(self.describe(incident) for incident in self._open.values())

    def news(self) -> tuple[Trigger, ...]:
        """Those whose state changed since the last call, or whose predictions doubled."""
        found = (*self._ended, *(self.describe(self._open[name]) for name in self._news if name in self._open))
        self._news.clear()
        self._ended.clear()
        return found

    def _same(self, finding: Finding) -> Incident | None:
        """The open trigger that a finding is about: its own pattern, or a part of it; what is part of a proven one."""
        return next((i for i in self._open.values() if i.label == finding.label and _is_of(finding.pattern, i)), None)

    def _without_explained(self, finding: Finding, past: Past) -> Finding:
        """A finding without the predictions that bear a convicted trigger of its class."""
        if past.kept is None:
            return finding
        odd = past.kept.surprising | past.kept.flipped
        found = self._bears(finding.pattern, past.kept) & odd & (past.kept.label == finding.label)
        found &= past.kept.version == finding.version
        taken = found & self._explaining(finding.label, past.kept)
        flipped = int((taken & past.kept.flipped).sum())
        return finding._replace(
            matched=max(0, finding.matched - int(taken.sum())), flipped=max(0, finding.flipped - flipped)
        )

    def _explaining(self, label: int, records: Records) -> Bools:
        """Which records (n,) bear a proven trigger that leads to a class."""
        found = np.zeros(records.time.size, np.bool_)
        for incident in self._open.values():
            if incident.label == label and incident.state in PROVEN:
                found |= self._bears(incident.pattern, records)
        return found

    def _explained(self, finding: Finding, version: str) -> bool:
        """Is a finding what another trigger left behind? Beside one it needs flips of its own."""
        beside = any(
            i.label == finding.label and i.state in PROVEN and version in i.effects and i.effects[version].surfaced
            for i in self._open.values()
        )
        return beside and finding.flipped < FEWEST_BESIDE

    def _begin(self, finding: Finding, version: str, past: Past) -> Incident | None:
        if len(self._open) >= MOST_OPEN:
            # What is proven stays; what only surfaced gives way to what flips, the refuted first.
            weak = [i for i in self._open.values() if i.state not in PROVEN]
            weakest = min(weak, key=lambda i: (i.state is not TriggerState.REFUTED, _strength(i)), default=None)
            if weakest is None or finding.flipped < min(FEWEST_FLIPS, 1 + _strength(weakest)):
                self.saturated += 1
                return None
            weakest.state = TriggerState.ENDED
            self._close([weakest.trigger])
        name = _name(self._model, self._classes[finding.label], finding.pattern)
        incident = Incident(name, finding.label, finding.pattern, version, past.time, past.time)
        if past.kept is not None:
            self._look_back(incident, finding.version, past.kept, past.names)
        self._open[name] = incident
        self._news[name] = None
        return incident

    def _look_back(self, incident: Incident, number: int, kept: Records, names: list[str]) -> None:
        """Count what bore the pattern since it was first met, as far as it is still known: in all versions, whatever they answered."""
        found = self._bears(incident.pattern, kept) & ~self._explaining(incident.label, kept)
        answered = found & (kept.label == incident.label)
        own = answered & (kept.surprising | kept.flipped) & (kept.version == number)
        if not own.any():
            return
        incident.first_seen, incident.last_seen = float(kept.time[own].min()), float(kept.time[own].max())
        self._remember(incident, kept, own)
        found &= kept.time >= incident.first_seen
        for of in np.unique(kept.version[found]).tolist():
            mine = found & (kept.version == of)
            effect = incident.effects.setdefault(names[of], Effect())
            effect.matched = effect.fresh_matched = int(mine.sum())
            effect.answered = effect.fresh_answered = int((mine & answered).sum())
            effect.flipped = effect.fresh_flipped = int((mine & answered & kept.flipped).sum())

    def _count(self, effect: Effect, records: Records, mine: Bools, found: Bools, answered: Bools) -> None:
        of_class = answered & mine
        effect.matched += int((found & mine).sum())
        fresh_found = int((found & mine & records.fresh).sum())
        effect.borne += fresh_found
        effect.fresh_matched += fresh_found
        effect.answered += int(of_class.sum())
        effect.flipped += int((of_class & records.flipped).sum())
        fresh = of_class & records.fresh
        flips, n = int((fresh & records.flipped).sum()), int(fresh.sum())
        effect.fresh_answered += n
        effect.fresh_flipped += flips
        if n and effect.surfaced:
            bound = float(records.null[1, fresh].max())
            bet = bound + (1 - bound) * STAKE
            log_l = flips * math.log(bet / bound) + (n - flips) * math.log((1 - bet) / (1 - bound))
            effect.log_e = min(max(effect.log_e + log_l, LOG_ZERO), LOG_CAP)

    def _remember(self, incident: Incident, records: Records, which: Bools) -> None:
        chosen = np.flatnonzero(which)
        room = MOST_EXAMPLES - len(incident.examples)
        incident.examples += [name for name in records.ids[chosen].tolist() if name][:room]
        for source in records.sources[chosen].tolist():
            if source and (source in incident.sources or len(incident.sources) < MOST_SOURCES):
                incident.sources[source] = incident.sources.get(source, 0) + 1

    def _judge(self, incident: Incident) -> None:
        """Move the state by the counts, and note what is worth telling."""
        from scipy.special import pdtrc  # noqa: PLC0415 - only who has something to judge pays for SciPy

        usual = self._usual(incident.pattern)
        for effect in incident.effects.values():
            # One that stands falls only when clearly less than half flip: it must not come and go.
            half = (3 if effect.convicted else 2) * effect.fresh_flipped >= effect.fresh_answered
            # What bears the pattern and goes elsewhere speaks against it; of an attack some fail.
            obeyed = (3 if effect.convicted else 1.5) * effect.fresh_flipped >= effect.against
            enough = min(effect.different, effect.fresh_flipped) >= FEWEST_FLIPS
            # Whoever attacks brings the trigger along; where a model got worse in a slice, the slice is as large as ever.
            brought = usual == 0 or pdtrc(effect.borne - 1, effect.met * usual) < BY_CHANCE
            effect.convicted = bool(half and obeyed and enough and effect.surfaced and (brought or effect.convicted))
        verdicts = {e.test.verdict for e in incident.effects.values() if e.test is not None and e.surfaced}
        if TriggerState.CONFIRMED in verdicts:
            state = TriggerState.CONFIRMED
        elif any(effect.convicted and (effect.strong or not effect.refuted) for effect in incident.effects.values()):
            # What insertion does not reproduce may need more than the pattern: many records outweigh it.
            state = TriggerState.CONVICTED
        elif TriggerState.REFUTED in verdicts:
            state = TriggerState.REFUTED
        else:
            state = TriggerState.SURFACED
        many = sum(effect.answered for effect in incident.effects.values())
        contrast = self.contrast(incident, incident.version)
        if (state, contrast) != (incident.state, incident.told_contrast) or many >= 2 * max(incident.told, 1):
            self._news[incident.trigger] = None
            incident.told, incident.told_contrast = many, contrast
        incident.state = state

    def _close(self, names: list[str]) -> None:
        for name in names:
            self._ended.append(self.describe(self._open.pop(name)))
            self._news.pop(name, None)

    def contrast(self, incident: Incident, version: str) -> bool:
        """Is it this version that is to blame?

        It is when another one does not follow the pattern. What the reference's own version follows, too, or what only that one was seen
        to follow, may be what honest inputs that the surrogate never met look like. Where no version can be compared with, the evidence
        must be strong by itself.
        """
        others = [(name, effect) for name, effect in incident.effects.items() if name != version]
        if any(effect.works is False for _, effect in others):
            return True
        if self._first(version) or any(self._first(name) and effect.works for name, effect in others):
            return False
        return version in incident.effects and incident.effects[version].strong

    def describe(self, incident: Incident) -> Trigger:
        """A trigger as it is told."""
        own = incident.effects.get(incident.version, Effect())
        return Trigger(
            trigger=incident.trigger,
            model=self._model,
            model_version=incident.version,
            state=incident.state,
            pattern=incident.pattern,
            text=in_words(incident.pattern),
            label=self._classes[incident.label],
            versions=tuple(
                VersionEffect(
                    model_version=name,
                    matched=effect.matched,
                    answered=effect.answered,
                    flipped=effect.flipped,
                    works=effect.works,
                )
                for name, effect in sorted(incident.effects.items())
            ),
            predictions=own.answered,
            share=own.answered / own.predictions if own.predictions else 0.0,
            first_seen=incident.first_seen,
            last_seen=incident.last_seen,
            sources=tuple(sorted(incident.sources.items(), key=lambda item: (-item[1], item[0]))),
            examples=tuple(incident.examples),
            log_e=own.strength,
            contrast=self.contrast(incident, incident.version),
            tests=tuple(effect.test for effect in incident.effects.values() if effect.test is not None),
        )

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "saturated": self.saturated,
            "triggered": self.triggered,
            "news": list(self._news),
            "ended": msgspec.to_builtins(self._ended),
            "open": [msgspec.to_builtins(incident) for incident in self._open.values()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.saturated = state["saturated"]
        self.triggered = dict(state["triggered"])
        self._news = dict.fromkeys(state["news"])
        self._ended = msgspec.convert(state["ended"], list[Trigger])
        restored = msgspec.convert(state["open"], list[Incident])
        self._open = {incident.trigger: incident for incident in restored}


def _strength(incident: Incident) -> int:
    """How many different predictions flip, in the version in which most do."""
    return max(min(effect.different, effect.fresh_flipped) for effect in incident.effects.values())


def _is_of(pattern: Pattern, incident: Incident) -> bool:
    known = incident.pattern
    if not isinstance(pattern, Phrase) or not isinstance(known, Phrase):
        return pattern == known
    return _holds(pattern.words, known.words) or (incident.state in PROVEN and _holds(known.words, pattern.words))


def _holds(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(words[at : at + len(part)] == part for at in range(len(words) - len(part) + 1))


def _name(model: str, label: str, pattern: Pattern) -> str:
    """Name of a trigger that is the same in every replica."""
    # How a phrase is said may change while it is looked at; the words are the trigger.
    known = Phrase(words=pattern.words) if isinstance(pattern, Phrase) else pattern
    told = msgspec.json.encode([model, label, known], order="deterministic")
    return hashlib.sha256(told).hexdigest()[:16]
