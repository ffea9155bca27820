"""Which error rates to hold labels against: the reference's, corrected by the first labels of its own versions.

A reference's labels are often better than live ones, whose sources err too, and sometimes they are those of the training
set, on which a model errs least. So the first labels of the versions that the reference shows are not judged but believed:
where they say more errors, that is the null. Where they refute the reference outright it is *unfit*, and slices of which it
has shown nothing since are not judged until enough labels have shown their own rate.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.profile.baseline import LABELS_Z, describe_errors
from poisonwatch.profile.indicators import overall_of
from poisonwatch.profile.odds import expit, logit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.types import Floats, Ints

FIRST = 300
"""Labels that are believed."""

FIRST_Z = 1.0
"""Standard errors of the first labels' rate that the null allows for, beside the effect floor."""

NOISE = 0.05
"""Errors in excess of the reference that its sources' own mistakes explain; beyond, it is the reference that is wrong."""

FEWEST = 40
"""Labels that a slice must have had before it is judged under an unfit reference."""

NEVER = float(logit(np.array([1.0]))[0])
"""A null up to here cannot be refuted."""


class Believed:
    """The baseline of error rates.

    `overall` is the indicator over all labels; `own` are the versions that the reference shows. Where it names none, it is
    taken to show the first version met.
    """

    def __init__(self, reference: Baseline, overall: int, own: frozenset[str]) -> None:
        self.reference = reference
        self.baseline = reference
        self.unfit = False
        self.began = math.nan
        self.labels: Ints = np.zeros(reference.questions.size, np.int64)
        self._overall = overall
        self._own = own

    def take(self, version: str, profile: Ints, start: float, running: Mapping[str, bool]) -> bool:
        """Believe a version's labels (size,) of the block that began at `start`, if they are to be believed.

        `running` has the versions that run, and whether one is the first met. False where the labels are to be judged. Those
        of other versions are neither while the null is being learned: it is not known what they should be held against.
        """
        questions = self.reference.questions
        if not self._is_own(version, running[version]):
            learning = 0 < self.labels[questions.asked[self._overall]] < FIRST
            return learning and any(self._is_own(name, first) for name, first in running.items())
        if math.isnan(self.began):
            self.began = start
        if self.labels[questions.asked[self._overall]] < FIRST:
            self.labels = self.labels + profile
            if self.labels[questions.asked[self._overall]] >= FIRST:
                self._settle()
            return True
        if self.unfit:
            # Those over all labels have shown theirs; two of them share a place, which must not be counted on alone.
            by_slice = overall_of(questions) != np.arange(questions.asked.size)
            few = by_slice & (self.labels[questions.asked] < FEWEST)
            for places in (questions.asked[few], questions.yes[few]):
                self.labels[places] += profile[places]
            if (self.labels[questions.asked[few]] >= FEWEST).any():
                self._settle()
        return False

    def _is_own(self, version: str, first: bool) -> bool:  # noqa: FBT001 - a fact, not an option
        return version in self._own or (first and not self._own)

    def _settle(self) -> None:
        """Let the labels so far say which null holds.

        Sources that err make every slice look worse by as much as all labels together: what they say in excess of the
        reference is added to all rates.
        """
        questions, reference = self.reference.questions, self.reference
        of = overall_of(questions)
        strict = describe_errors(questions, self.labels, LABELS_Z)
        refuted = strict.low[self._overall] > reference.high[self._overall]
        excess = strict.rate[self._overall] - reference.rate[self._overall]
        self.unfit = self.unfit or bool(refuted and excess > NOISE)
        if self.unfit:
            asked: Floats = self.labels[questions.asked].astype(np.float64)
            few = asked < FEWEST
            # What little they have shown is counted on between two calls: it must not depend on a restart.
            rate, high = np.where(few, strict.rate[of], strict.rate), np.where(few, NEVER, strict.high)
            self.baseline = dataclasses.replace(strict, rate=rate, high=high)
            return
        seen = describe_errors(questions, self.labels, FIRST_Z)
        more = np.maximum(seen.rate - reference.rate, 0.0)[of]
        high = np.maximum(reference.high, logit(expit(reference.high) + more))
        overall = (np.arange(of.size) == of) & (self.labels[questions.asked] >= FEWEST)
        high = np.where(overall, np.maximum(reference.high, seen.high), high)
        self.baseline = dataclasses.replace(reference, high=high, rate=np.minimum(reference.rate + more, 0.99))

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        settled = self.baseline is not self.reference
        return {"labels": self.labels.copy(), "unfit": self.unfit, "began": self.began, "settled": settled}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.labels, self.unfit, self.began = state["labels"].copy(), state["unfit"], state["began"]
        if state["settled"]:
            self._settle()
