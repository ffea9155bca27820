"""Shadows: of two versions that answer the same ids, the one that answers otherwise is named, whoever answers first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from poisonwatch.monitor.machine import Monitor
from poisonwatch.profile.indicators import SHADOW
from tests.monitor.small import DETECTION, MONTH, reports_of, small_learned
from tests.streams import START, small_batch


@pytest.mark.parametrize("first", ["v1", "v2"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_version_that_answers_otherwise_is_named(first: str, share: float) -> None:
    """v2 says spam to half of what v1 calls ham, or to none of it: evidence against v2 only, and only when it does."""
    rng = np.random.default_rng(3)
    monitor = Monitor("mail", small_learned(), DETECTION._replace(period=MONTH, stable="v1"))
    pieces = []
    for minute in range(60):
        one = small_batch(START + 60.0 * minute + np.arange(20.0), rng, ("v1",))
        one.codes[0] = rng.integers(1, 3, 20)
        codes = one.codes.copy()
        codes[0, (codes[0] == 1) & (rng.random(20) < share)] = 2
        two = dataclasses.replace(one, versions=("v2",), codes=codes, time=one.time + 20.0)
        early, late = (one, two) if first == "v1" else (two, one)
        pieces += [dataclasses.replace(early, time=one.time), dataclasses.replace(late, time=one.time + 20.0)]
    reports = reports_of(monitor, pieces) + list(monitor.flush(0.0))
    evidence = [e for report in reports for e in report.evidence if e.group == SHADOW]
    assert {(e.model_version, e.compared_with) for e in evidence} == {("v2", "v1")}
    assert (evidence[-1].log_e >= 0) is (share > 0)
    assert evidence[-1].n > 0
    if share:
        more = {s.indicator: s.rate > s.expected for s in evidence[-1].subjects}
        assert {"prediction = spam": True, "prediction = ham": False}.items() & more.items()
        assert not {"prediction = spam": False, "prediction = ham": True}.items() & more.items()
