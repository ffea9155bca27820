"""What is seen of a realistic model: alerts and decisions on health, drift, bad canaries and broken data."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from poisonwatch.detect.distance import FEWEST
from poisonwatch.judge.standing import Standing, judge
from poisonwatch.profile.indicators import CANARY_CLASS, CONFIDENCE_FALL, INPUTS, QUALITY, SLICE_CONFIDENCE
from poisonwatch.types import Action, Alert, AlertState, Batch, Cause, Decision, Report, Severity
from tests.streams import START, batch, merged, predictions, reference, watched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.reference.file import Reference
    from tests.streams import Record

DAY = 86400.0


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A reference of 20,000 predictions of the day before."""
    return reference(tmp_path_factory.mktemp("reference"), 20_000, rate=20_000 / DAY)


class Seen:
    """What was told of a log: reports, and the alerts and decisions that came of them."""

    def __init__(self, learned: Reference, pieces: Iterable[Batch], **detection: Any) -> None:
        self.monitor = watched(learned, **detection).monitor
        self.reports: list[Report] = []
        self.alerts: list[Alert] = []
        self.decisions: list[Decision] = []
        self.standing = Standing()
        for piece in pieces:
            self._judge(self.monitor.absorb(piece))
        self._judge(self.monitor.flush(0.0))

    def _judge(self, reports: Iterable[Report]) -> None:
        for report in reports:
            self.reports.append(report)
            self.standing, alerts, decisions, _ = judge(self.standing, report, 200)
            self.alerts += alerts
            self.decisions += decisions

    def firing(self) -> set[tuple[str, str | None, Cause, Severity]]:
        """Alerts that ever fired: group, version, cause and severity."""
        return {(a.group, a.model_version, a.cause, a.severity) for a in self.alerts if a.state is AlertState.FIRING}

    def actions(self, version: str) -> list[Action]:
        """Decisions on a version, in order."""
        return [d.decision for d in self.decisions if d.model_version == version]


def seen(learned: Reference, records: list[Record], **detection: Any) -> Seen:
    """What is told of these records."""
    return Seen(learned, [batch(learned, records)], **detection)


def two_versions(seed: int, spam: float, *, hours: float = 4.0, rate: float = 0.5, **how: Any) -> list[Record]:
    """Hours of v1 and, beside it on the same kind of traffic, v2 with this rate of spam."""
    count = int(hours * 3600 * rate)
    return merged(
        predictions(count, 1000 + seed, rate=rate, version="v1"),
        predictions(count // 3, 2000 + seed, rate=rate / 3, version="v2", spam=spam, **how),
    )


@pytest.mark.slow
def test_health_is_silent(learned: Reference) -> None:
    """Five half days of health and an honest canary: nothing fires, both versions are kept.

    The budget allows one page in 30 days over everything: 2.5 days have a false one with a chance of at most 1 / 12 by
    the theorem (and tickets share the same budget). These seeds are fixed; none comes near.
    """
    for seed in range(5):
        told = seen(learned, two_versions(seed, 0.2, hours=12))
        assert told.firing() == set(), f"seed {seed}"
        assert told.actions("v1")[-1] is Action.KEEP
        assert told.actions("v2")[-1] is Action.KEEP


@pytest.mark.parametrize("spam", [0.45, 0.06])
def test_a_canary_with_other_classes_is_rolled_back(learned: Reference, spam: float) -> None:
    """A page for degradation that names v2 against v1, and a rollback to v1; v1 itself is kept."""
    told = seen(learned, two_versions(7, spam))
    assert (CANARY_CLASS, "v2", Cause.DEGRADATION, Severity.PAGE) in told.firing()
    (rollback,) = (d for d in told.decisions if d.decision is Action.ROLLBACK)
    assert (rollback.model_version, rollback.target, rollback.cause) == ("v2", "v1", Cause.DEGRADATION)
    pages = [a for a in told.alerts if a.fingerprint in rollback.alerts and a.severity is Severity.PAGE]
    page = next(a for a in pages if a.state is AlertState.FIRING)
    assert page.subjects[0].indicator == "prediction = spam"
    assert math.copysign(1, page.effect) == math.copysign(1, spam - 0.2)
    assert "v1" in page.summary
    assert Action.ROLLBACK not in told.actions("v1")


def test_drift_of_the_inputs_is_a_ticket_and_never_a_rollback(learned: Reference) -> None:
    """A feature that moves half a standard deviation for all versions: `input_drift`, nobody is blamed."""
    records = merged(
        two_versions(8, 0.2, hours=1),
        predictions(1800, 81, start=START + 3600, rate=0.5, version="v1", shift=0.5),
        predictions(600, 82, start=START + 3600, rate=0.17, version="v2", shift=0.5),
    )
    told = seen(learned, records)
    assert {fired[0::2] for fired in told.firing()} == {(INPUTS, Cause.INPUT_DRIFT)}
    assert "v1" in {fired[1] for fired in told.firing()}
    assert {a.severity for a in told.alerts} == {Severity.TICKET}
    assert all("features.amount" in a.signal for a in told.alerts if a.state is AlertState.FIRING)
    assert Action.ROLLBACK not in {d.decision for d in told.decisions}
    assert told.actions("v1")[-1] is Action.KEEP


def test_a_fall_of_confidence_alone_is_a_change_of_outputs(learned: Reference) -> None:
    """Confidence that falls without any input or class moving: `output_change`, and hold."""
    records = merged(
        predictions(1800, 83, rate=0.5),
        predictions(5400, 84, start=START + 3600, rate=0.5, confidence=-0.8),
    )
    told = seen(learned, records)
    assert {fired[1:] for fired in told.firing()} == {("v1", Cause.OUTPUT_CHANGE, Severity.TICKET)}
    assert {fired[0] for fired in told.firing()} == {CONFIDENCE_FALL, SLICE_CONFIDENCE}
    (alert,) = (a for a in told.alerts if a.state is AlertState.FIRING and a.group == CONFIDENCE_FALL)
    assert alert.signal == "confidence"
    assert alert.onset >= START + 1800
    assert told.actions("v1")[-1] is Action.HOLD


def test_a_feature_that_turns_null_is_a_matter_of_data_quality(learned: Reference) -> None:
    """Half of the values of a feature missing: `data_quality` that names it, and hold."""
    records = predictions(3600, 85, rate=0.5)
    for record in records[1800::2]:
        record["features"] = {**record["features"], "age": None}
    told = seen(learned, records)
    assert (QUALITY, "v1", Cause.DATA_QUALITY, Severity.TICKET) in told.firing()
    alert = next(a for a in told.alerts if a.state is AlertState.FIRING and a.group == QUALITY)
    assert alert.signal == "missing:features.age"
    assert alert.subjects[0].rate > 0.3
    assert told.actions("v1")[-1] is Action.HOLD


def test_an_unseen_category_is_a_matter_of_data_quality(learned: Reference) -> None:
    """A fifth of the records with a country that the reference does not have."""
    records = predictions(3600, 86, rate=0.5)
    for record in records[1800::5]:
        record["features"] = {**record["features"], "country": "xx"}
    told = seen(learned, records)
    assert "unseen:features.country" in {a.signal for a in told.alerts if a.state is AlertState.FIRING}


def test_rejected_lines_are_a_matter_of_the_log(learned: Reference) -> None:
    """A tenth of the lines rejected from one hour on: `data_quality` of the log, and no version is blamed, but held."""
    whole = batch(learned, predictions(3600, 87, rate=0.5))
    rejected = np.arange(1800, 3600, 10)
    told = Seen(
        learned,
        [dataclasses.replace(whole, rejected_at=rejected)],
    )
    assert told.firing() == {(QUALITY, None, Cause.DATA_QUALITY, Severity.TICKET)}
    (alert,) = (a for a in told.alerts if a.state is AlertState.FIRING)
    assert alert.signal == "rejected"
    assert 0.05 < alert.subjects[0].rate < 0.15
    assert told.actions("v1")[-1] is Action.HOLD


@pytest.mark.parametrize(("count", "shown_at_all"), [(FEWEST - 1, False), (FEWEST, True)])
def test_distances_appear_with_enough_predictions(learned: Reference, count: int, shown_at_all: bool) -> None:
    """They are absent up to 499 predictions and present from 500 on, for every column that has values."""
    told = seen(learned, predictions(count, 88, rate=5.0))
    found = told.monitor.view()["v1"].distances
    columns = {"prediction", "confidence", "features.amount", "features.age", "features.country", "outlier"}
    assert set(found) == (columns if shown_at_all else set())
    # Under the null n * PSI is about chi-square with at most 11 degrees of freedom: n = 500 leaves it far below .1.
    assert all(kinds["psi"] < 0.1 for kinds in found.values())


def test_distances_tell_a_shift(learned: Reference) -> None:
    """A feature that moved a standard deviation is far away, and no other is."""
    told = seen(learned, predictions(FEWEST, 89, rate=5.0, shift=1.0))
    psi = {name: kinds["psi"] for name, kinds in told.monitor.view()["v1"].distances.items()}
    assert psi.pop("features.amount") > 0.25
    assert max(psi.values()) < 0.1


def test_distances_forget_what_is_old(learned: Reference) -> None:
    """They are taken over the latest windows with 500 predictions, not over all time."""
    records = predictions(2000, 90, rate=5.0) + predictions(1000, 91, rate=5.0, start=START + 500, shift=1.5)
    told = seen(learned, records)
    assert told.monitor.view()["v1"].distances["features.amount"]["ks"] > 0.4
