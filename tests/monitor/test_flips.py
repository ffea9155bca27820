"""Flips: with a fall of confidence they page and hold, alone they are a ticket; labels tell harmful ones from honest ones."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest

from poisonwatch.judge.standing import Standing, judge
from poisonwatch.monitor.machine import Learned, Monitor
from poisonwatch.profile.baseline import describe_errors
from poisonwatch.profile.indicators import (
    CONFIDENCE_FALL,
    ERRORS,
    FLIPS,
    HARMFUL_FLIPS,
    WRONG_OF_FLIPPED,
    ask_errors,
)
from poisonwatch.types import Action, AlertState, Batch, Cause, Decision, Evidence, Reason, Severity
from tests.monitor.small import DETECTION, MONTH, learned_of, reports_of
from tests.streams import SMALL, START, small_batch

SPACING = 6.0
"""Seconds between predictions: ten make a window."""

USUAL = 0.05
"""Share of flipped predictions, and of unsure ones, in the reference."""


def answered(
    seed: int,
    count: int,
    start: float = START,
    *,
    flips: float = USUAL,
    unsure: float = USUAL,
    moved: float = 0.0,
    version: str = "v1",
) -> Batch:
    """Predictions of a model that says spam where the amount is positive, as the surrogate does, but for so many flips.

    So many are unsure. The amounts have the mean `moved`.
    """
    rng = np.random.default_rng(seed)
    drawn = small_batch(start + SPACING * np.arange(count), rng, (version,))
    amount = np.round(rng.normal(moved, 1.0, count) * 4) / 4 + 0.125
    confidence = np.where(rng.random(count) < unsure, 0.2, 0.9)
    drawn.codes[0] = 1 + ((amount > 0) ^ ((rng.random(count) < flips) & (np.abs(amount) > 0.5)))
    return dataclasses.replace(drawn, numbers=np.stack((confidence, amount)))


@cache
def learned() -> Learned:
    """A reference of 4,000 such predictions, and 4,000 labels: half of the flipped are wrong, and 5 % of the others."""
    asked = ask_errors(SMALL, flips=True)
    rng = np.random.default_rng(2)
    flipped = np.arange(4000) < 4000 * USUAL
    wrong = rng.random(4000) < np.where(flipped, 0.5, 0.05)
    facts = rng.integers(1, 3, (2, 4000)).astype(np.int32)
    counts = asked.count(np.empty((0, 4000)), facts, np.stack((wrong, wrong & flipped, flipped)))
    return learned_of(answered(1, 4000))._replace(errors=describe_errors(asked, counts))


def watching() -> Monitor:
    """A monitor with the budget of a month and the usual floors."""
    return Monitor(
        "mail", learned(), DETECTION._replace(period=MONTH, flip_floor=0.7, label_floor=0.3, effect_floor=0.25)
    )


@pytest.mark.parametrize(
    ("change", "fires", "kind", "told"),
    [
        ({}, set(), None, (Action.KEEP, Reason.HEALTHY)),
        (
            {"flips": 0.4},
            {FLIPS},
            (Cause.OUTPUT_CHANGE, Severity.TICKET),
            (Action.HOLD, Reason.OUTPUTS_MOVED),
        ),
        (
            {"unsure": 0.4},
            {CONFIDENCE_FALL},
            (Cause.OUTPUT_CHANGE, Severity.TICKET),
            (Action.HOLD, Reason.OUTPUTS_MOVED),
        ),
        (
            {"flips": 0.4, "unsure": 0.4},
            {FLIPS, CONFIDENCE_FALL},
            (Cause.DEGRADATION, Severity.PAGE),
            (Action.HOLD, Reason.PROOF_MISSING),
        ),
        (
            {"flips": 0.4, "unsure": 0.4, "moved": 1.5},
            {FLIPS, CONFIDENCE_FALL},
            (Cause.INPUT_DRIFT, Severity.TICKET),
            (Action.KEEP, Reason.INPUTS_MOVED),
        ),
    ],
)
def test_two_marks_together_page_and_either_alone_is_a_ticket(
    change: dict[str, Any],
    fires: set[str],
    kind: tuple[Cause, Severity] | None,
    told: tuple[Action, Reason],
) -> None:
    """Flips and a fall of confidence page and hold, for want of proof; not where the inputs moved, which explains both."""
    monitor, standing = watching(), Standing()
    seen: dict[str, tuple[Cause, Severity]] = {}
    decisions: list[Decision] = []
    pieces = [answered(11, 1000), answered(12, 1000, START + SPACING * 1000, **change)]
    for report in reports_of(monitor, pieces):
        standing, alerts, news, _ = judge(standing, report, 200)
        seen |= {a.group: (a.cause, a.severity) for a in alerts if a.state is AlertState.FIRING}
        decisions += news
    assert {FLIPS, CONFIDENCE_FALL} & set(seen) == fires
    assert (seen[FLIPS if FLIPS in fires else CONFIDENCE_FALL] if fires else None) == kind
    assert (Severity.PAGE in {severity for _, severity in seen.values()}) is (
        kind is not None and kind[1] is Severity.PAGE
    )
    assert (decisions[-1].decision, decisions[-1].reason) == told


@pytest.mark.parametrize(
    ("flips", "wrong_of_flipped", "harmful"), [(USUAL, 0.5, False), (0.08, 0.5, False), (USUAL, 0.95, True)]
)
def test_flips_that_are_wrong_are_harm_and_those_of_an_honest_retraining_are_not(
    flips: float, wrong_of_flipped: float, harmful: bool
) -> None:
    """A second version flips as often as the first, or more often and as often wrong as right; or nearly all are wrong.

    It always errs as often as the reference in all, so that nothing but its flips tells.
    """
    monitor = watching()
    rng = np.random.default_rng(21)
    before = with_labels(answered(22, 800), rng, USUAL, 0.5)
    after = answered(23, 4000, START + SPACING * 800, flips=flips, version="v2")
    reports = reports_of(monitor, [before, with_labels(after, rng, flips, wrong_of_flipped)])
    found = [e for report in reports for e in report.evidence if e.model_version == "v2"]
    firing = {e.group for e in found if e.log_e >= 0 and abs(e.effect) >= e.floor}
    assert (HARMFUL_FLIPS in firing) is harmful
    assert ERRORS not in firing
    assert any(is_about_the_flipped(e) for e in found if e.log_e >= 0) is harmful


def with_labels(drawn: Batch, rng: np.random.Generator, flips: float, wrong_of_flipped: float) -> Batch:
    """The predictions, so many of them flipped, with labels that contradict so many of these and 7.25 % in all."""
    flipped = (drawn.codes[0] == 2) != (drawn.numbers[1] > 0)
    others = (0.0725 - flips * wrong_of_flipped) / (1 - flips)
    wrong = rng.random(flipped.size) < np.where(flipped, wrong_of_flipped, others)
    said = np.where(wrong, 3 - drawn.codes[0], drawn.codes[0])
    drawn.labels[:] = np.array(["", "ham", "spam"], np.object_)[said]
    return drawn


def is_about_the_flipped(evidence: Evidence) -> bool:
    """Is it the answer to how many of the flipped were wrong?"""
    return WRONG_OF_FLIPPED in {subject.indicator for subject in evidence.subjects}
