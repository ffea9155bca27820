"""Labels: counted once, by version and slice, whenever they come; a rise of errors is found in time and no other is."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from poisonwatch.judge.budget import SHARES
from poisonwatch.monitor.believed import FIRST
from poisonwatch.monitor.labels import THETAS
from poisonwatch.monitor.machine import Learned, Monitor
from poisonwatch.profile.baseline import describe, describe_errors
from poisonwatch.profile.enrich import Enrichment
from poisonwatch.profile.indicators import ERRORS, SHADOW, SLICE_ERRORS, SOURCES, ask, ask_errors
from poisonwatch.profile.odds import expit, logit
from poisonwatch.types import Batch, Column, Evidence, Feedback, Report, Sign
from tests.monitor.small import (
    DAY,
    DETECTION,
    MONTH,
    labels,
    learned_of,
    reports_of,
    small_learned,
    small_monitor,
    take,
)
from tests.streams import SMALL, START, small_batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.types import Bools

SPACING = 6.0
"""Seconds between predictions: ten labels make a block."""


def answered(seed: int, count: int, error: float, start: float = START, version: str = "v1", within: int = 0) -> Batch:
    """Predictions with their labels, of which so many contradict; only in the country with the code `within`, if any."""
    rng = np.random.default_rng(seed)
    drawn = small_batch(start + SPACING * np.arange(count), rng, (version,))
    drawn.codes[0] = rng.integers(1, 3, count)
    wrong: Bools = rng.random(count) < (error if not within else np.where(drawn.codes[1] == within, error, 0.05))
    said = np.where(wrong, 3 - drawn.codes[0], drawn.codes[0])
    drawn.labels[:] = np.array(["", "ham", "spam"], np.object_)[said]
    return drawn


@cache
def learned(wrong: int = 100) -> Learned:
    """A reference of 2,000 labels, so many of them contradicting."""
    return learned_of(answered(1, 4000, 0.05), (2000, wrong))


def watching() -> Monitor:
    """A monitor with the budget of a month."""
    return Monitor("mail", learned(), DETECTION._replace(period=MONTH, label_floor=0.3))


def firing(reports: Iterable[Report], group: str) -> list[tuple[float, Evidence]]:
    """When evidence of a group fired, and what it was."""
    return [
        (r.time, e)
        for r in reports
        for e in r.evidence
        if e.group == group and e.log_e >= 0 and abs(e.effect) >= e.floor
    ]


def bound(rate: float) -> float:
    """Labels after which errors at this rate have fired but for 3 standard deviations, by the mean growth of the best bet.

    The null ends at the reference's upper bound, moved by what the first labels may add (their rate by one standard error)
    and by the floor. A bet has its part of a block's budget and needs as many nats as that is below 1.
    """
    of = next(n for n, one in enumerate(learned().errors.questions.indicators) if one.text == "wrong")
    first = 0.05 + math.sqrt(0.05 * 0.95 / FIRST)
    null = float(np.maximum(learned().errors.high[of], logit(np.array([first]))[0])) + 0.3
    earned = SHARES[ERRORS] / 2 / len(THETAS) * 0.5 * 60.0 / MONTH
    found = []
    for theta in THETAS:
        p0, p1 = expit(np.array([null, null + theta]))
        yes, no = math.log(p1 / p0), math.log((1 - p1) / (1 - p0))
        grows, spread = rate * yes + (1 - rate) * no, abs(yes - no) * math.sqrt(rate * (1 - rate))
        if grows > 0:
            root = (3 * spread + math.sqrt(9 * spread**2 - 4 * grows * math.log(earned))) / (2 * grows)
            found.append(root**2)
    return min(found)


@pytest.mark.parametrize("seed", range(4))
def test_a_rise_of_errors_is_found_within_the_bound(seed: int) -> None:
    """From 5 to 20 % errors: evidence on errors fires after the rise and within the labels that theory gives."""
    monitor = watching()
    before = 800
    change = START + SPACING * before
    reports = reports_of(monitor, [answered(seed, before, 0.05), answered(seed + 50, 800, 0.20, change)])
    (first, evidence), *_ = firing(reports, ERRORS)
    assert change < first <= change + SPACING * bound(0.20) + 3 * 60.0  # windows close a minute and lateness later
    assert evidence.model_version == "v1"
    assert Sign.CONFINED not in evidence.signs
    assert monitor.view()["v1"].labels[0] >= before


def test_honest_labels_keep_to_the_budget() -> None:
    """30 streams of a quarter of the budget's period at the reference's own rate.

    By Ville's inequality each fires with a chance of at most T / period times the share of both groups and of the first
    version: .25 * .2 / 2 = .025, so 30 of them .75 times in the mean, and more than 4 times with less than 1 in 1,000.
    """
    fired = 0
    for seed in range(30):
        monitor = Monitor("mail", learned(), DETECTION._replace(period=4 * 1200 * SPACING))
        reports = reports_of(monitor, [answered(100 + seed, 1200, 0.05)])
        fired += bool(firing(reports, ERRORS) or firing(reports, SLICE_ERRORS))
    assert fired <= 4


def test_errors_of_one_slice_are_named_and_confined() -> None:
    """Only France errs more: its slice is the first subject, and nothing is left of the rise without it."""
    monitor = watching()
    reports = reports_of(monitor, [answered(7, 800, 0.05), answered(8, 1500, 0.35, START + SPACING * 800, within=2)])
    found = firing(reports, SLICE_ERRORS)
    assert found[0][1].subjects[0].indicator == "wrong where features.country = fr"
    assert Sign.CONFINED in found[-1][1].signs


def test_a_rise_that_is_strongest_in_a_class_is_not_confined_to_a_slice_larger_than_the_class() -> None:
    """Three answers in twenty are spam, of which most turn wrong, and all else errs twice as often: also outside of Germany.

    The six tenths that come from Germany hold more labels, and more wrong ones, than spam does, and are no part of it.
    """
    monitor = watching()
    rng = np.random.default_rng(17)
    before, after = answered(17, 800, 0.05), answered(18, 1500, 0.0, START + SPACING * 800)
    after.codes[0] = np.where(rng.random(1500) < 0.15, 2, 1)
    after.codes[1] = np.where(rng.random(1500) < 0.6, 1, 2)
    wrong = rng.random(1500) < np.where(after.codes[0] == 2, 0.95, 0.10)
    after.labels[:] = np.array(["", "ham", "spam"], np.object_)[np.where(wrong, 3 - after.codes[0], after.codes[0])]
    reports = reports_of(monitor, [before, after])
    found = firing(reports, ERRORS)
    assert found[0][1].subjects[0].indicator == "wrong where prediction = spam"
    assert firing(reports, SLICE_ERRORS)[0][1].subjects[0].indicator == "wrong where features.country = de"
    assert not [e for _, e in found if Sign.CONFINED in e.signs]


@pytest.mark.parametrize("named", [False, True])
def test_errors_that_labels_without_a_source_show_are_no_claim_of_few(named: bool) -> None:
    """Labels that come with the predictions are nobody's claim; those of the only source are all that is known."""
    monitor = watching()
    drawn = answered(19, 1200, 0.05)
    later = answered(20, 600, 0.5, START + SPACING * 1200)
    pieces: list[Batch | Feedback] = [drawn, later]
    if named:
        said = later.labels.copy()
        later.labels[:] = ""
        pieces += [labels(later.time + 600.0, later.ids, said, ["s"] * 600)]
    found = [e for _, e in firing(reports_of(monitor, pieces) + list(monitor.flush(0.0)), ERRORS)]
    assert found
    assert {Sign.FEW_SOURCES in e.signs for e in found} == {False}


def test_without_labels_in_the_reference_errors_are_counted_and_not_judged() -> None:
    """There is nothing to hold them against, so nothing is said of any rate."""
    monitor = Monitor("mail", learned_of(answered(1, 500, 0.0), (0, 0)), DETECTION)
    reports = reports_of(monitor, [answered(2, 300, 0.9)]) + list(monitor.flush(0.0))
    assert not [e for r in reports for e in r.evidence if e.group in {ERRORS, SLICE_ERRORS}]
    assert monitor.view()["v1"].labels[0] == 300


def test_a_reference_that_the_first_labels_refute_is_unfit_and_a_further_rise_is_found() -> None:
    """20 % from the first label on where the reference says 5 %: unfit, no page; 50 % then is a rise beyond that."""
    monitor = watching()
    reports = reports_of(monitor, [answered(3, 1200, 0.20)])
    unfit = firing(reports, ERRORS)
    assert {(e.model_version, e.signs) for _, e in unfit} == {(None, (Sign.UNFIT,))}
    assert unfit[0][1].n >= FIRST
    reports = reports_of(monitor, [answered(4, 400, 0.50, START + SPACING * 1200)])
    assert "v1" in {e.model_version for _, e in firing(reports, ERRORS)}


def test_a_fit_reference_is_rarely_called_unfit() -> None:
    """The first labels' lower bound and the reference's upper one stand two standard errors off: less than 2.3 % each.

    Of 40 streams at the true rate at most 5 may be called unfit: a binomial of 40 and .023 has more with less than 1 in 1,000.
    """
    unfit = 0
    for seed in range(40):
        monitor = watching()
        reports_of(monitor, [answered(300 + seed, FIRST + 30, 0.05)])
        unfit += any(Sign.UNFIT in e.signs for e in monitor.evidence_on_log())
    assert unfit <= 5


def test_labels_count_once_however_they_come() -> None:
    """One that came with its prediction counts, and not again as feedback; feedback twice counts once; a later one not at all."""
    monitor = small_monitor()
    drawn = answered(5, 10, 0.0)
    drawn.labels[5:] = ""
    truth = np.array(["", "ham", "spam"], np.object_)[drawn.codes[0]]
    other = np.where(truth == "ham", "spam", "ham")
    reports_of(monitor, [drawn, small_batch([START + 200.0], np.random.default_rng(0))])
    late = START + 300.0
    for said in (other, truth, other):
        take(monitor, labels([late] * 10, drawn.ids, said))
    list(monitor.flush(0.0))
    assert monitor.view()["v1"].labels == (10, 5)
    assert monitor.labels.matched == 5 + 3 * 10


def test_labels_of_unknown_predictions_are_counted_by_reason() -> None:
    """What waits is joined; what was never heard of is told apart from it and changes nothing."""
    monitor = small_monitor()
    drawn = answered(6, 4, 0.0)
    drawn.labels[:] = ""
    take(monitor, drawn)
    take(monitor, labels([START + 30.0] * 6, [*drawn.ids, "nobody", ""], ["ham"] * 6))
    assert monitor.labels.matched == 4
    assert monitor.labels.unmatched == {"unknown_prediction": 2}


def test_labels_go_on_after_the_traffic_has_stopped() -> None:
    """Each block of them makes a report of its own time when the next begins, and the last one at the flush."""
    monitor = small_monitor()
    drawn = answered(9, 30, 0.0)
    drawn.labels[:] = ""
    take(monitor, drawn)
    list(monitor.flush(0.0))
    days = START + DAY * (1.0 + np.arange(3))
    found = [reports_of(monitor, [labels([day] * 5, drawn.ids[:5], ["ham"] * 5)]) for day in days.tolist()]
    found.append(list(monitor.flush(0.0)))
    assert [[report.time for report in reports] for reports in found] == [
        [],
        *([(day // 60 + 1) * 60] for day in days.tolist()),
    ]
    assert list(monitor.flush(0.0)) == []


def test_sources_that_lie_are_told_once_and_again_when_they_doubled_and_do_not_count() -> None:
    """One of eight sources contradicts the model: it is accused, of no version, and what it says after that is no error."""
    monitor = watching()
    rng = np.random.default_rng(11)
    reports: list[Report] = []
    for hour in range(24 * 8):
        now = START + 3600.0 * hour
        drawn = answered(1000 + hour, 16, 0.0, now)
        said = np.where(rng.random(16) < 0.05, 3 - drawn.codes[0], drawn.codes[0])
        who = np.arange(16) % 8
        if hour > 24 * 4:
            said[who == 0] = 3 - drawn.codes[0, who == 0]
        drawn.labels[:] = ""
        names = np.array(["", "ham", "spam"], np.object_)[said]
        reports += reports_of(monitor, [drawn, labels([now + 300.0] * 16, drawn.ids, names, [f"s{n}" for n in who])])
    told = [a for report in reports for a in report.accusations]
    assert {a.source for a in told} == {"s0"}
    counts = [a.labels for a in told]
    assert all(later >= 2 * earlier for earlier, later in pairwise(counts))
    assert told[0].prediction_ids
    evidence = firing(reports, SOURCES)
    assert {e.model_version for _, e in evidence} == {None}
    assert evidence[0][1].subjects[0].indicator == "s0"
    assert not firing(reports, ERRORS)


def test_a_model_that_predicts_numbers_takes_labels_and_shadows_without_harm() -> None:
    """There are no classes to err in: labels are counted, pairs are not compared, reports go on."""
    schema = msgspec.structs.replace(
        SMALL, outcome=Column(name="prediction", kind="numerical"), features=SMALL.features[:1]
    )
    cuts: dict[str, tuple[float, ...]] = {"confidence": (0.5,), "prediction": (0.5,), "features.amount": (0.0,)}
    questions, asked = ask(schema, cuts), ask_errors(schema, flips=False)
    counts = questions.count(np.random.default_rng(0).random((3, 100)), np.empty((0, 100), np.int32))
    given = Learned(
        baseline=describe(questions, counts, counts[None], counts[None]),
        errors=describe_errors(asked, np.zeros(asked.size, np.int64)),
        confusion=np.zeros((0, 0), np.int64),
        lines=small_learned().lines,
        volume=None,
        with_labels=False,
        enrichment=Enrichment(schema),
        mining=None,
    )
    monitor = Monitor("mail", given, DETECTION)
    drawn = answered(1, 40, 0.0)
    numbers = np.random.default_rng(2).random((3, 40))
    one = dataclasses.replace(
        drawn, numbers=numbers, codes=np.empty((0, 40), np.int32), texts=np.empty((0, 40), object)
    )
    two = dataclasses.replace(one, versions=("v2",))
    found = reports_of(monitor, [one, two, labels([START + 500.0] * 40, drawn.ids, ["0.5"] * 40, ["s"] * 40)])
    found += list(monitor.flush(0.0))
    assert monitor.labels.matched == 40
    assert {f.model_version for f in found[-1].versions} == {"v1", "v2"}
    assert not [e for r in found for e in r.evidence if e.group in {ERRORS, SHADOW}]
