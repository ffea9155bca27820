"""What is told of the sources of labels: evidence for the judge, and accusations for who has to clean the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poisonwatch.detect.evidence import MOST_SUBJECTS
from poisonwatch.detect.sources import FLOOR
from poisonwatch.profile.indicators import SOURCES
from poisonwatch.profile.odds import LOG_ZERO, logit
from poisonwatch.types import Accusation, Evidence, Subject

if TYPE_CHECKING:
    from poisonwatch.detect.sources import Sources

MOST_TOLD = 4096
"""Accused sources that are remembered although nothing is left of the accusation."""


class FeedbackView(NamedTuple):
    """What is shown of a model's labels.

    `agreement` is Fleiss' kappa over predictions with several labels, None where there are too few. `waiting_share` of the
    predictions can meet their label: traffic beyond the store is sampled.
    """

    matched: int
    unmatched: dict[str, int]
    accused: int
    agreement: float | None
    waiting_share: float
    unfit: bool


class Accused:
    """Tells what `sources` found. `classes` are the names of their class codes."""

    def __init__(self, sources: Sources, classes: tuple[str, ...]) -> None:
        self._sources = sources
        self._classes = classes
        self._told: dict[str, int] = {}

    def evidence(self, model: str) -> Evidence:
        """Evidence that sources give labels that no honest source would give."""
        accused = self._sources.accusations(affected=False)
        first = accused[0] if accused else None
        effect = 0.0
        if first is not None:
            odds = logit(np.array([first.rate, first.expected]))
            effect = float(odds[0] - odds[1])
        return Evidence(
            model=model,
            model_version=None,
            group=SOURCES,
            signal=SOURCES,
            log_e=max(self._sources.log_e(), LOG_ZERO),
            effect=effect,
            floor=FLOOR,
            n=first.labels if first is not None else 0,
            onset=first.onset if first is not None else 0.0,
            subjects=tuple(
                Subject(indicator=party.source, signal=party.kind, rate=party.rate, expected=party.expected)
                for party in accused[:MOST_SUBJECTS]
            ),
        )

    def news(self) -> tuple[Accusation, ...]:
        """Sources whose labels must not reach retraining: those not told yet, or with twice as many labels since."""
        known = self._sources.accusations(affected=False)
        told = {party.source: party.labels for party in known if party.labels >= 2 * self._told.get(party.source, 0)}
        if not told:
            return ()
        self._told |= told
        if len(self._told) > MOST_TOLD:
            accused = {party.source for party in known}
            self._told = {name: labels for name, labels in self._told.items() if name in accused}
        return tuple(
            Accusation(
                source=party.source,
                kind=party.kind,
                members=party.members,
                labels=party.labels,
                disagreements=party.disagreements,
                expected=party.expected,
                rate=party.rate,
                predicted=self._classes[party.direction[0]] if party.direction is not None else "",
                label=self._classes[party.direction[1]] if party.direction is not None else "",
                log_e=party.log_e,
                onset=party.onset,
                first=party.first,
                last=party.last,
                prediction_ids=party.prediction_ids,
            )
            for party in self._sources.accusations()
            if party.source in told
        )

    def state(self) -> dict[str, int]:
        """Everything that must survive a restart."""
        return dict(self._told)

    def restore(self, state: dict[str, int]) -> None:
        """Take up a saved state."""
        self._told = dict(state)
