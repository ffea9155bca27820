"""The miner inside of the machine: what goes in from a batch, and what its triggers are as evidence on a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.mining.miner import MiningSettings
from poisonwatch.mining.naming import in_a_sentence, in_words
from poisonwatch.profile.indicators import FLIPPED, SURPRISING, TRIGGERS, number_rows
from poisonwatch.profile.odds import LOG_ZERO, log_odds_gap
from poisonwatch.types import Evidence, Sign, Subject, Trigger

if TYPE_CHECKING:
    from poisonwatch.mining.learned import Mining
    from poisonwatch.mining.miner import Miner
    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.enrich import Enrichment
    from poisonwatch.profile.words import Tokens
    from poisonwatch.types import Batch, Bools, InsertionTest


UNSEEN = "text.unseen"

MOST_UNSEEN = 0.7
"""Of a text with a larger share of words that the reference does not have, the surrogate knows nothing that could be held against an answer.

So it is with another language, or another alphabet: what it says of them is what it says of an empty text.
"""


class Triggers:
    """Triggers of one model; without `mining` there are none."""

    def __init__(self, model: str, enrichment: Enrichment, mining: Mining | None, settings: Settings) -> None:
        self._model = model
        self._classes = enrichment.schema.outcome.values
        self._floor = settings.flip_floor
        self._confirms = settings.confirms
        self._expected = np.empty(0)
        self._miner: Miner | None = None
        self._accused: dict[str, None] = {}
        self._unseen: int | None = None
        if UNSEEN in enrichment.derived:
            self._unseen = len(number_rows(enrichment.schema)) + enrichment.derived.index(UNSEEN)
        if mining is not None:
            self._rows = [enrichment.marks.index(name) for name in (SURPRISING, FLIPPED)]
            self._expected = mining.rates[1]
            told = MiningSettings(settings.shares[TRIGGERS], settings.period, settings.most_versions, settings.known)
            self._miner = mining.miner(model, enrichment.schema, told)

    def take(self, batch: Batch, words: Tokens, in_time: Bools) -> None:
        """Take an enriched batch, with the tokens of its texts."""
        if self._miner is not None:
            odd = batch.marks[self._rows]
            if self._unseen is not None:
                # NaN, for a text without words, is not beyond it.
                odd = odd & ~(batch.numbers[self._unseen] > MOST_UNSEEN)
            self._miner.take(batch, words, in_time, *odd)

    def fold(self, closed_by: int) -> None:
        """A window ends with prediction `closed_by` of the last batch."""
        if self._miner is not None:
            self._miner.fold(closed_by)

    def end(self) -> None:
        """The batch has ended."""
        if self._miner is not None:
            self._miner.fold_full()

    def flush(self) -> None:
        """Nothing more comes for now."""
        if self._miner is not None:
            self._miner.fold_all()

    def forget(self, version: str) -> None:
        """A version is gone."""
        self._accused.pop(version, None)
        if self._miner is not None:
            self._miner.forget(version)

    def tested(self, trigger: str, test: InsertionTest) -> None:
        """Take up what insertion into verified inputs said of an open trigger."""
        if self._miner is not None:
            self._miner.tested(trigger, test)

    def open(self) -> tuple[Trigger, ...]:
        """All open triggers."""
        return () if self._miner is None else self._miner.triggers()

    def news(self) -> tuple[Trigger, ...]:
        """Triggers of which there is something new to tell."""
        return () if self._miner is None else self._miner.news()

    @property
    def saturated(self) -> int:
        """Findings for which there was no room."""
        return 0 if self._miner is None else self._miner.saturated

    @property
    def triggered(self) -> dict[str, int]:
        """Predictions by version that bore an open trigger and got its class."""
        return {} if self._miner is None else dict(self._miner.triggered)

    def works_in(self, version: str) -> bool:
        """Does a convicted trigger of any version work in this one?"""
        return self._miner is not None and self._miner.works_in(version)

    def evidence(self, version: str) -> list[Evidence]:
        """What convicted triggers say of a version: nothing while none was ever convicted in it.

        A pattern without contrast, in the version that the reference shows, is no evidence: values that the surrogate never met look like it.
        """
        miner = self._miner
        found = [] if miner is None else miner.guilty(version)
        told = [i for i in found if i.effects[version].confirmed or (miner is not None and miner.contrast(i, version))]
        if miner is None or not told:
            return [_nothing(self._model, version, self._floor)] if version in self._accused else []
        self._accused[version] = None
        first = told[0]
        effect = first.effects[version]
        signs = [Sign.CONTRAST] if miner.contrast(first, version) else []
        if effect.confirmed:
            signs.append(Sign.CONFIRMED)
        if effect.refuted:
            signs.append(Sign.REFUTED)
        # Other versions are asked once the trigger is confirmed in the one in which it surfaced.
        asked = version == first.version or first.effects[first.version].confirmed
        awaited = self._confirms and effect.test is None and asked
        if awaited:
            signs.append(Sign.AWAITED)
        if self.saturated:
            signs.append(Sign.SATURATED)
        expected = effect.answered * self._expected[first.label]
        subjects = tuple(
            Subject(
                indicator=f"{in_words(i.pattern)} -> {self._classes[i.label]}",
                signal="trigger",
                rate=i.effects[version].flipped / max(1, i.effects[version].answered),
                expected=float(self._expected[i.label]),
            )
            for i in told
        )
        return [
            Evidence(
                model=self._model,
                model_version=version,
                group=TRIGGERS,
                signal="trigger",
                log_e=max(i.effects[version].strength for i in told),
                effect=float(log_odds_gap(np.array(effect.answered), np.array(effect.flipped), expected)),
                floor=self._floor,
                n=effect.answered,
                onset=first.first_seen,
                subjects=subjects,
                signs=tuple(signs),
                told=in_a_sentence(miner.describe(first), version, awaited=awaited),
                affected=min(1.0, effect.answered / effect.predictions) if effect.predictions else None,
            )
        ]

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"accused": list(self._accused), "miner": None if self._miner is None else self._miner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._accused = dict.fromkeys(state["accused"])
        if self._miner is not None:
            self._miner.restore(state["miner"])


def _nothing(model: str, version: str, floor: float) -> Evidence:
    """What is left when the last trigger of a version has ended."""
    return Evidence(
        model=model,
        model_version=version,
        group=TRIGGERS,
        signal="trigger",
        log_e=LOG_ZERO,
        effect=0.0,
        floor=floor,
        n=0,
        onset=0.0,
        subjects=(),
    )
