"""Signs: what pieces of evidence say about each other, for the table of causes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.profile.indicators import (
    BY_LABELS,
    INPUTS,
    QUALITY,
    SLICE_CONFIDENCE,
    SLICE_ERRORS,
    SLICE_FLIPS,
    SLICE_HARMFUL_FLIPS,
    WRONG_OF_FLIPPED,
)
from poisonwatch.types import Sign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.types import Evidence

SUSPECTED = math.log(0.1)
"""Nats from which evidence of moved inputs is taken into account: before it may raise an alert itself."""

FIRES = 0.0
"""Nats from which evidence may raise an alert."""

BROKEN_EFFECT = 2.5
"""A feature that moved by more, in log-odds, did not drift: its unit changed, or it is no longer filled."""

MORE_IN_A_SLICE = 2.0
"""How many times as often as elsewhere records of a slice may be broken."""

BROKEN_OF_FLIPPED = 0.05
"""Share of broken records from which they may be what is flipped and wrong."""

MOSTLY = 0.5

LASTS_SECONDS = 3600.0
"""How long the monitor may be blind before it is worth waking somebody."""


def moved(evidence: Iterable[Evidence], least: float = SUSPECTED) -> frozenset[str]:
    """Groups whose evidence has at least `least` nats and a size beyond its floor."""
    return frozenset(e.group for e in evidence if e.log_e >= least and abs(e.effect) >= e.floor)


def with_signs(found: list[Evidence]) -> list[Evidence]:
    """The same evidence of one version, with what each piece shows beside the others."""
    if not any(e.subjects for e in found):
        return found
    broken = max(
        (
            abs(subject.rate - subject.expected)
            for e in found
            if e.group == QUALITY or (e.group == INPUTS and abs(e.effect) >= BROKEN_EFFECT)
            if moved([e])
            for subject in e.subjects
        ),
        default=0.0,
    )
    unsure = {_slice(subject.indicator) for e in found if e.group == SLICE_CONFIDENCE for subject in e.subjects}
    return [
        _signed(e, Sign.BROKEN)
        if e.group in BY_LABELS and e.subjects and broken >= _more_errors(e)
        else _signed(e, Sign.CONFINED)
        if e.group == SLICE_FLIPS and unsure & {_slice(subject.indicator) for subject in e.subjects}
        else e
        for e in found
    ]


def _more_errors(evidence: Evidence) -> float:
    """The least share of broken records that explains how far errors rose.

    A broken record is wrong at the worst: no more errors come of it than there are such records. What is asked of the
    flipped only says nothing of their number. A slice may hold more of the broken than its share.
    """
    subject = evidence.subjects[0]
    if subject.indicator == WRONG_OF_FLIPPED:
        return BROKEN_OF_FLIPPED
    rise = subject.rate - subject.expected
    return rise / MORE_IN_A_SLICE if evidence.group in {SLICE_ERRORS, SLICE_HARMFUL_FLIPS} else rise


def mostly_lost(evidence: Evidence) -> Evidence:
    """Evidence on lost lines, with the sign that they are most of the lines."""
    lost = any(subject.rate >= MOSTLY for subject in evidence.subjects)
    return _signed(evidence, Sign.MOSTLY_LOST) if lost else evidence


@dataclass(slots=True)
class Lasting:
    """Since when the monitor is blind; infinite while it sees."""

    since: float = math.inf

    def of(self, evidence: Evidence, now: float, *, blind: bool = True) -> Evidence:
        """The evidence as of `now`, with the sign that it has been there for long; `blind` says whether it can mean that at all."""
        if blind and moved([evidence], FIRES):
            self.since = min(self.since, now)
        elif not blind or not moved([evidence]):
            self.since = math.inf
        return _signed(evidence, Sign.LASTING) if now - self.since >= LASTS_SECONDS else evidence


def _slice(indicator: str) -> str:
    """The slice that an indicator is about."""
    return indicator.partition(" where ")[2]


def _signed(evidence: Evidence, sign: Sign) -> Evidence:
    return msgspec.structs.replace(evidence, signs=(*evidence.signs, sign))
