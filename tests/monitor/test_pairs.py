"""A canary beside the stable version: what differs is told by classes, flips and errors, and ends with the comparison."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from poisonwatch.judge.alerts import RESOLVED_AT
from poisonwatch.monitor.machine import Monitor
from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_CONFIDENCE,
    CANARY_ERRORS,
    CANARY_FLIPS,
    CANARY_INPUTS,
)
from poisonwatch.types import Batch, Evidence, Sign
from tests.monitor.small import DETECTION, MONTH, constant, labels, learned_of, reports_of, small_monitor
from tests.streams import START, small_batch

CANARY = (CANARY_CLASS, CANARY_CONFIDENCE, CANARY_ERRORS, CANARY_FLIPS, CANARY_INPUTS)
MINUTES = 120
EACH = 15
"""Predictions of each version in a minute."""


def answered(
    seed: int,
    version: str,
    *,
    flips: float = 0.05,
    to_spam: float = 0.0,
    wrong: float = 0.05,
    unsure: float = 0.05,
    moved: float = 0.0,
) -> list[Batch]:
    """Minutes of a version that says spam where the amount is positive, but for flips to either side and more to spam."""
    rng = np.random.default_rng(seed)
    pieces = []
    for minute in range(MINUTES):
        drawn = small_batch(START + 60.0 * minute + np.sort(rng.uniform(0, 60, EACH)), rng, (version,))
        amount = rng.normal(moved, 1.0, EACH)
        drawn.codes[0] = 1 + (((amount > 0) ^ (rng.random(EACH) < flips)) | (rng.random(EACH) < to_spam))
        said = np.where(rng.random(EACH) < wrong, 3 - drawn.codes[0], drawn.codes[0])
        drawn.labels[:] = np.array(["", "ham", "spam"], np.object_)[said]
        confidence = np.where(rng.random(EACH) < unsure, 0.2, 0.9)
        pieces.append(dataclasses.replace(drawn, numbers=np.stack((confidence, amount))))
    return pieces


def beside(canary: dict[str, Any], stable: dict[str, Any], *, late: bool = False) -> Monitor:
    """A monitor that saw v1, the stable version, and v2 beside it; `late` labels come as feedback after the traffic."""
    whole = small_batch(START - 4000.0 + np.arange(2000), np.random.default_rng(1))
    monitor = Monitor("mail", learned_of(whole), DETECTION._replace(period=MONTH, stable="v1"))
    both = [p for pair in zip(answered(5, "v1", **stable), answered(6, "v2", **canary), strict=True) for p in pair]
    said = [(piece.time.copy(), piece.ids.copy(), piece.labels.copy()) for piece in both]
    for piece in both if late else []:
        piece.labels[:] = ""
    reports_of(monitor, both)
    end = float(both[-1].time.max())
    for time, ids, label in said if late else []:
        reports_of(monitor, [labels(time - START + end, ids, label)])
    list(monitor.flush(0.0))
    return monitor


def compared(monitor: Monitor, version: str = "v2") -> dict[str, Evidence]:
    """Evidence of a comparison by group."""
    return {e.group: e for e in monitor.view()[version].evidence if e.compared_with is not None and e.group in CANARY}


def firing(monitor: Monitor) -> set[str]:
    """Groups that fire on the canary."""
    return {e.group for e in compared(monitor).values() if e.log_e >= 0 and abs(e.effect) >= e.floor}


@pytest.mark.parametrize(
    ("canary", "groups"),
    [
        ({}, set()),
        ({"to_spam": 0.4}, {CANARY_CLASS}),
        ({"flips": 0.4}, {CANARY_FLIPS}),
        ({"wrong": 0.3}, {CANARY_ERRORS}),
        ({"unsure": 0.4}, {CANARY_CONFIDENCE}),
        ({"moved": 0.7}, {CANARY_INPUTS, CANARY_CLASS}),
    ],
)
def test_what_a_canary_does_otherwise_is_told_in_its_own_group(canary: dict[str, Any], groups: set[str]) -> None:
    """Against v1 and by name, and in no other group than what follows from it."""
    monitor = beside(canary, {})
    found = compared(monitor)
    assert set(found) == set(CANARY)
    assert {e.compared_with for e in found.values()} == {"v1"}
    assert firing(monitor) == groups
    assert not compared(monitor, "v1")


@pytest.mark.parametrize("change", [{"flips": 0.4}, {"wrong": 0.3}])
def test_a_canary_that_flips_or_errs_less_than_the_stable_version_is_not_accused(change: dict[str, Any]) -> None:
    """It is the stable version that got worse."""
    assert firing(beside({}, change)) == set()


def test_labels_that_come_after_the_traffic_are_compared_as_those_that_came_with_it() -> None:
    """Blocks of labels are their own: what they say does not depend on when the predictions were made."""
    found = compared(beside({"wrong": 0.3}, {}, late=True))[CANARY_ERRORS]
    assert found.log_e >= 0
    assert found.subjects[0].indicator.startswith("wrong")
    assert found.n <= MINUTES * EACH


def test_a_clear_difference_of_two_classes_is_a_sign() -> None:
    """A lower bound of the effect beyond what pages; of two classes one explains the other."""
    assert compared(beside({"to_spam": 0.6}, {}))[CANARY_CLASS].signs == (Sign.CLEAR, Sign.CONFINED)
    assert compared(beside({}, {}))[CANARY_CLASS].signs == ()


def test_no_evidence_is_left_of_a_comparison_that_ended() -> None:
    """When a canary becomes the stable version, its reports say that nothing is left, so that open alerts end."""
    monitor = small_monitor()
    both = [constant([START + 60.0 * n + i for i in range(10)], v) for n in range(5) for v in ("v1", "v2")]
    alone = [constant([START + 600.0 * n + i for i in range(10)], "v2") for n in range(1, 12)]
    found = reports_of(monitor, [*both, *alone])
    assert any(e.compared_with == "v1" for e in found[3].evidence)
    assert [facts.model_version for facts in found[-1].versions if facts.stable] == ["v2"]
    for report in found:
        stable = {facts.model_version for facts in report.versions if facts.stable}
        assert not [e for e in report.evidence if e.model_version in stable and e.compared_with]
    left = [e for e in found[-1].evidence if e.model_version == "v2" and e.group in CANARY]
    assert {e.group for e in left} == set(CANARY)
    assert all(e.log_e <= RESOLVED_AT for e in left)
