"""The miner of one model: predictions go in, in the order of the log; triggers come out. Pure.

Predictions are folded in blocks that end where a window closes, if any of them is odd, and after `BLOCK` predictions: where
they end depends on the log alone, never on how it was chopped into batches.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poisonwatch.mining.duplicates import Duplicates
from poisonwatch.mining.effects import Past
from poisonwatch.mining.incidents import Incidents
from poisonwatch.mining.nulls import Nulls
from poisonwatch.mining.patterns import bears
from poisonwatch.mining.records import Known, Records, restored, saved
from poisonwatch.mining.suspects import Suspects
from poisonwatch.mining.volume import Volume
from poisonwatch.types import OTHER_VERSIONS, PROVEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poisonwatch.mining.effects import Incident
    from poisonwatch.mining.records import Engine
    from poisonwatch.profile.words import Tokens
    from poisonwatch.types import Batch, Bools, Floats, InsertionTest, Ints, Pattern, Schema, Trigger

BLOCK = 2048
"""Predictions after which a block ends at the latest."""


PATIENCE = 256
"""Predictions that wait at most when none of them is odd; where traffic is sparse a block costs more than its predictions."""


class MiningSettings(NamedTuple):
    """What the miner is told: its share of the page budget and that budget's period, in seconds, and the most versions at once.

    `known` are the versions that the reference was learned from; where it names none, the first version met stands for them.
    """

    share: float
    period: float
    most_versions: int
    known: frozenset[str]


class Miner:
    """Looks for patterns of one model. `salt` is a number that senders do not know, `usual` as in `Incidents`.

    `rates` (2, classes) are how often the reference's own predictions are surprising and flipped; `engines` share the budget equally.
    """

    def __init__(
        self,
        model: str,
        schema: Schema,
        rates: Floats,
        engines: Sequence[Engine],
        settings: MiningSettings,
        salt: int = 0,
        usual: Callable[[Pattern], float] = lambda _: 0.0,
    ) -> None:
        self._schema = schema
        self._settings = settings
        self._engines = engines
        self._nulls = Nulls(rates)
        self._duplicates = Duplicates(salt)
        self._suspects = Suspects()
        self._volume = Volume()
        self._incidents = Incidents(model, schema.outcome.values, self._bears, self._is_first, usual)
        self._versions: dict[str, int] = {}
        self._names: list[str] = []
        self._first: str | None = None
        self._pending: Records | None = None
        self._before = 0
        self._kept = np.empty(0, np.int64)
        self._met = 0
        self._folded_at = math.nan

    @property
    def saturated(self) -> int:
        """Findings for which there was no room among the open triggers."""
        return self._incidents.saturated

    def take(self, batch: Batch, words: Tokens, in_time: Bools, surprising: Bools, flipped: Bools) -> None:
        """Take a batch, with the tokens of its texts, and what the surrogate says of its predictions (n,)."""
        kept = np.flatnonzero(in_time)
        records = self._records(batch, words, surprising, flipped, kept)
        records = records if kept.size == in_time.size else records.select(kept)
        fresh = self._duplicates.fresh(
            records.label, records.version, records.words, records.numbers, records.codes, records.embeddings
        )
        records = dataclasses.replace(records, fresh=fresh)
        self._before = 0 if self._pending is None else self._pending.time.size
        self._kept = kept
        self._pending = records if self._pending is None else self._pending.join(records)

    def fold(self, closed_by: int) -> None:
        """Fold what came up to and with prediction `closed_by` of the last batch: a window ends there.

        A few predictions none of which is odd can wait: they take evidence away and give none.
        """
        upto = self._before + int(np.searchsorted(self._kept, closed_by, "right"))
        full = upto // BLOCK * BLOCK
        self._fold(full)
        rest, waiting = upto - full, self._pending
        if waiting is not None and (rest >= PATIENCE or (waiting.surprising | waiting.flipped)[:rest].any()):
            self._fold(rest)

    def fold_full(self) -> None:
        """Fold the blocks that are full: the batch has ended."""
        if self._pending is not None:
            self._fold(self._pending.time.size // BLOCK * BLOCK)

    def fold_all(self) -> None:
        """Fold everything: nothing more comes for now."""
        if self._pending is not None:
            self._fold(self._pending.time.size)

    def _fold(self, upto: int) -> None:
        if self._pending is None or upto <= 0:
            return
        for first in range(0, upto, BLOCK):
            self._step(self._pending.cut(first, min(upto, first + BLOCK)))
        self._pending = self._pending.cut(upto, self._pending.time.size)
        self._before -= upto

    def _step(self, block: Records) -> None:
        newest = float(block.time.max())
        since = float(block.time.min()) if math.isnan(self._folded_at) else self._folded_at
        elapsed = max(0.0, newest - since)
        self._folded_at = since + elapsed
        block = dataclasses.replace(block, null=self._nulls.of(block.version, block.label))
        self._suspects.add(block)
        mass = self._settings.share * elapsed / self._settings.period / max(1, len(self._engines))
        for engine in self._engines:
            engine.step(block, mass)
        self._nulls.add(block)
        self._volume.add(block)
        self._incidents.count(block, self._names)
        for engine in self._engines:
            surfaced = engine.surfaced(self._suspects, self._known())
            if surfaced:
                past = Past(self._suspects.everything(), self._names, newest, self._since)
                for found in surfaced:
                    self._incidents.open(found, self._names[found.version], past)
        self._incidents.compare(self._suspicious)

    def _since(self, version: str, time: float) -> int:
        return self._volume.since(self._versions[version], time) if version in self._versions else 0

    def _suspicious(self, version: str, label: int) -> Records | None:
        number = self._versions.get(version)
        return None if number is None else self._suspects.suspicious(number, label)

    def _is_first(self, name: str) -> bool:
        return name in self._settings.known if self._settings.known else name == self._first

    def _known(self) -> list[Known]:
        return [
            Known(self._versions[name], incident.label, incident.pattern)
            for incident in self._incidents
            for name, effect in incident.effects.items()
            if effect.surfaced and name in self._versions and incident.state in PROVEN
        ]

    def _bears(self, pattern: Any, records: Records) -> Bools:
        return bears(pattern, records, self._schema, records.words)

    def _records(self, batch: Batch, words: Tokens, surprising: Bools, flipped: Bools, kept: Ints) -> Records:
        n = batch.time.size
        label = batch.codes[0].astype(np.int64) - 1
        label[label >= len(self._schema.outcome.values)] = -1
        # A version of which nothing came in time runs for nobody else either, and would never be forgotten.
        number = np.zeros(len(batch.versions), np.int64)
        for code in np.unique(batch.version[kept]).tolist():
            number[code] = self._number(batch.versions[code])
        self._met += n
        return Records(
            time=batch.time,
            version=number[batch.version] if n else np.empty(0, np.int64),
            label=label,
            surprising=surprising,
            flipped=flipped,
            null=np.zeros((2, n)),
            fresh=np.ones(n, np.bool_),
            original=np.arange(self._met - n, self._met),
            ids=batch.ids,
            sources=batch.sources,
            texts=batch.texts,
            words=words,
            numbers=batch.numbers,
            codes=batch.codes,
            embeddings=batch.embeddings,
        )

    def _number(self, name: str) -> int:
        """Number of a version. Numbers are not used twice, so that nothing is left of a version that is gone."""
        if name not in self._versions and len(self._versions) >= self._settings.most_versions:
            name = OTHER_VERSIONS
        if name not in self._versions:
            self._versions[name] = len(self._names)
            self._names.append(name)
            self._first = self._first or name
        return self._versions[name]

    def forget(self, version: str) -> None:
        """A version is gone."""
        number = self._versions.pop(version, None)
        if number is not None:
            self._nulls.forget(number)
            self._volume.forget(number)
            self._suspects.forget(number)
            self._incidents.forget(version)

    def tested(self, trigger: str, test: InsertionTest) -> None:
        """Take up what insertion into verified inputs said of an open trigger."""
        self._incidents.tested(trigger, test)

    def triggers(self) -> tuple[Trigger, ...]:
        """All open triggers."""
        return self._incidents.triggers()

    def news(self) -> tuple[Trigger, ...]:
        """Triggers whose state changed since the last call, or whose predictions doubled."""
        return self._incidents.news()

    @property
    def triggered(self) -> dict[str, int]:
        """Predictions by version that bore an open trigger and got its class."""
        return self._incidents.triggered

    def contrast(self, incident: Incident, version: str) -> bool:
        """Is it this version that is to blame for a trigger?"""
        return self._incidents.contrast(incident, version)

    def describe(self, incident: Incident) -> Trigger:
        """A trigger as it is told."""
        return self._incidents.describe(incident)

    def guilty(self, version: str) -> list[Incident]:
        """Open triggers that are proven enough of a version to be told: the strongest first."""
        found = [
            incident
            for incident in self._incidents
            if version in incident.effects and incident.state in PROVEN and incident.effects[version].works
        ]
        return sorted(found, key=lambda i: (not i.effects[version].confirmed, -i.effects[version].fresh_flipped))

    def works_in(self, version: str) -> bool:
        """Does a convicted trigger of any version work in this one?"""
        return any(
            incident.state in PROVEN and version in incident.effects and incident.effects[version].works is True
            for incident in self._incidents
        )

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "versions": self._versions,
            "names": self._names,
            "first": self._first,
            "met": self._met,
            "folded_at": self._folded_at,
            "pending": {} if self._pending is None else saved(self._pending.columns(slice(None))),
            "nulls": self._nulls.state(),
            "volume": self._volume.state(),
            "duplicates": self._duplicates.state(),
            "suspects": self._suspects.state(),
            "incidents": self._incidents.state(),
            "engines": [engine.state() for engine in self._engines],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._versions, self._names, self._first = dict(state["versions"]), list(state["names"]), state["first"]
        self._met, self._folded_at = state["met"], state["folded_at"]
        pending = restored(state["pending"])
        self._pending = Records.of(pending) if pending else None
        self._nulls.restore(state["nulls"])
        self._volume.restore(state["volume"])
        self._duplicates.restore(state["duplicates"])
        self._suspects.restore(state["suspects"])
        self._incidents.restore(state["incidents"])
        for engine, saved_engine in zip(self._engines, state["engines"], strict=True):
            engine.restore(saved_engine)
