"""The machine of one model: neither chopping nor restarts change a report, and it sees what it should and no more."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.detect.kernel import log_sum
from poisonwatch.detect.shift import Shift
from poisonwatch.judge.budget import SHARES
from poisonwatch.monitor.machine import AGAINST_REFERENCE
from poisonwatch.profile.indicators import CANARY_ERRORS, ERRORS, FLIPS, INPUTS, OUTPUTS, QUALITY, SHADOW, SLICE_FLIPS
from poisonwatch.types import OTHER_VERSIONS
from tests.monitor.small import (
    DAY,
    chopped_events,
    constant,
    labels,
    reloaded,
    reports_of,
    shown,
    small_enrichment,
    small_events,
    small_learned,
    small_monitor,
    take,
)
from tests.streams import START, small_batch

if TYPE_CHECKING:
    from pathlib import Path

cut_lists = st.one_of(st.just(list(range(200))), st.lists(st.integers(0, 120), max_size=12))


@pytest.mark.slow
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), cuts=cut_lists, most=st.sampled_from([1, 2, 3, 8]))
def test_any_chopping_gives_the_same_reports(seed: int, cuts: list[int], most: int) -> None:
    """Predictions and labels at once, one by one or cut anywhere: every report is the same to the last bit."""
    events = small_events(seed)
    whole, pieces = small_monitor(most_versions=most), small_monitor(most_versions=most)
    expected = reports_of(whole, events) + list(whole.flush(0.0))
    found = reports_of(pieces, chopped_events(events, cuts)) + list(pieces.flush(0.0))
    assert found == expected
    assert shown(pieces) == shown(whole)
    assert expected


@pytest.mark.slow
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), cuts=cut_lists, at=st.lists(st.integers(0, 300), min_size=1, max_size=3))
def test_a_restart_anywhere_changes_nothing(
    seed: int, cuts: list[int], at: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Saved to the real checkpoint file and loaded into a new monitor, between any two pieces, the future is the same."""
    path = tmp_path_factory.mktemp("restart") / "checkpoint.npz"
    pieces = chopped_events(small_events(seed), cuts)
    steady, restarted = small_monitor(stable="v1"), small_monitor(stable="v1")
    places = {min(place, len(pieces)) for place in at}
    for number, piece in enumerate([*pieces, None]):
        if number in places:
            restarted = reloaded(restarted, path, small_monitor(stable="v1"))
            assert shown(restarted) == shown(steady)
        reports = [list(one.flush(0.0)) if piece is None else take(one, piece) for one in (steady, restarted)]
        assert reports[0] == reports[1]
    assert shown(restarted) == shown(steady)


def test_saved_state_is_not_touched_by_what_follows() -> None:
    """A state that was taken out stays what it was while the monitor goes on."""
    events = small_events(5)
    monitor = small_monitor(stable="v1")
    reports_of(monitor, events[:9])
    state = monitor.state()
    expected = reports_of(monitor, events[9:])
    again = small_monitor(stable="v1")
    again.restore(state)
    assert reports_of(again, events[9:]) == expected


def test_the_streams_of_these_properties_have_something_in_them() -> None:
    """Over a few seeds there are late predictions, canaries, shadows, labels by either way, accusations, strong evidence."""
    seen = dict.fromkeys(("late", "canary", "strong", SHADOW, ERRORS, CANARY_ERRORS, "sources", "unmatched"), 0)
    for seed in range(12):
        monitor = small_monitor(most_versions=3)
        found = reports_of(monitor, small_events(seed))
        evidence = [e for report in found for e in report.evidence]
        seen["late"] += monitor.late
        seen["canary"] += sum(e.compared_with is not None and e.log_e > -5 for e in evidence)
        seen["strong"] += sum(e.log_e > 0 for e in evidence)
        seen["unmatched"] += sum(monitor.labels.unmatched.values())
        seen["sources"] += sum(e.group == "sources" and e.log_e > -5 for e in evidence)
        for group in (SHADOW, ERRORS, CANARY_ERRORS):
            seen[group] += sum(e.group == group and e.n > 0 for e in evidence)
    assert min(seen.values()) > 0, seen


def test_evidence_carries_the_time_of_empty_windows() -> None:
    """For one version with pauses, `log_e` is what the detector gives on the windows with the time between them."""
    monitor = small_monitor(lateness=0.0)
    rng = np.random.default_rng(72)
    minutes = [0, 1, 2, 7, 8, 60, 61, 700]
    pieces = [small_batch(START + 60.0 * minute + np.sort(rng.uniform(0, 60, 40)), rng) for minute in minutes]
    found = reports_of(monitor, pieces) + list(monitor.flush(0.0))
    questions, baseline = monitor.questions, small_learned().baseline
    group_of = np.array([signal.group for signal in questions.signals])[questions.signal_of]
    floor = 0.1 + 3.5 * baseline.day_noise
    floor[np.isin(group_of, [FLIPS, SLICE_FLIPS])] = 0.1
    shift = Shift(baseline, floor, {name: SHARES[name] for name in AGAINST_REFERENCE})
    memory = shift.begin()
    before = START
    for minute, piece, report in zip(minutes, pieces, found, strict=True):
        end = START + 60.0 * (minute + 1)
        assert report.time == end
        enriched = small_enrichment().apply(piece, np.ones(piece.time.size, np.bool_))
        profile = questions.count(enriched.numbers, enriched.codes, enriched.marks)
        shift.step(memory, profile, (end - before) / DAY / 2, end - 60.0)  # the first version's share is a half
        before = end
        groups = len(shift.bets.groups)
        per_group = dict(zip(shift.bets.groups, log_sum(memory.log_m, shift.bets.group, groups), strict=True))
        told = {e.group: e.log_e for e in report.evidence if e.model_version and e.group in per_group}
        assert told == pytest.approx(per_group)


def test_shares_of_versions_never_exceed_the_budget() -> None:
    """However many versions come, their shares add up to less than one: the first has a half, the next a sixth."""
    monitor = small_monitor(most_versions=50)
    for number in range(40):
        list(monitor.absorb(constant([START + 60.0 * number + 1] * 3, f"v{number}")))
    list(monitor.flush(0.0))
    shares = [version.share for version in monitor._versions.values()]  # noqa: SLF001
    assert len(shares) == 40
    assert shares[:2] == [1 / 2, 1 / 6]
    assert sum(shares) < 1


def test_the_oldest_version_is_the_first_whatever_its_name_or_place_in_a_batch() -> None:
    """Of versions that begin in one window, the one whose earliest prediction is older is told first."""
    for names in (("a", "b"), ("b", "a")):
        one, other = constant([START + 5.0, START + 70.0], names[0]), constant([START + 9.0, START + 20.0], names[1])
        monitor = small_monitor()
        list(monitor.absorb(other))
        list(monitor.absorb(one))
        found = list(monitor.flush(0.0))
        assert [facts.model_version for facts in found[0].versions] == list(names)


def test_versions_beyond_the_cap_count_as_other() -> None:
    """As many versions as the cap have a name, whenever they begin; all later ones are counted together."""
    for start in ([START] * 5, [START + 600.0 * n for n in range(5)]):
        monitor = small_monitor(most_versions=3)
        versions = [constant([time + number] * 10, f"v{number}") for number, time in enumerate(start)]
        found = reports_of(monitor, versions) + list(monitor.flush(0.0))
        assert {facts.model_version: facts.predictions for facts in found[-1].versions} == {
            "v0": 10,
            "v1": 10,
            "v2": 10,
            OTHER_VERSIONS: 20,
        }


def test_versions_counted_together_are_no_version_to_roll_back_to() -> None:
    """`other` is never the stable version, also when it is the oldest that still runs or configured to be."""
    pieces = [constant([START + 1.0 + n], f"w{n}") for n in range(2)]
    pieces += [constant([START + 600.0 * n + i for i in range(10)], "w1") for n in range(1, 12)]
    for stable in (None, OTHER_VERSIONS):
        monitor = small_monitor(most_versions=1, stable=stable)
        found = reports_of(monitor, pieces) + list(monitor.flush(0.0))
        assert {facts.model_version for facts in found[-1].versions} == {"w0", OTHER_VERSIONS}
        assert not [facts for facts in found[-1].versions if facts.stable]


def test_a_later_version_may_differ_as_a_retraining_does() -> None:
    """Its outputs have the retrain floor on top; its inputs and the data's quality have the first version's floor."""
    monitor = small_monitor()
    list(monitor.absorb(constant([START + i for i in range(20)], "v1")))
    list(monitor.absorb(constant([START + i for i in range(20)], "v2")))
    (report,) = monitor.flush(0.0)
    floors = {(e.model_version, e.group): e.floor for e in report.evidence if e.compared_with is None}
    for group, extra in ((OUTPUTS, 0.1), (INPUTS, 0.0), (QUALITY, 0.0), (FLIPS, 0.0)):
        assert floors["v2", group] - floors["v1", group] == pytest.approx(extra)


def test_a_silent_version_retires_and_makes_room() -> None:
    """A day without predictions, and a version is gone, is told once, and its name may go to another."""
    monitor = small_monitor(most_versions=2)
    list(monitor.absorb(constant([START + 1.0] * 5, "old")))
    hours = [constant([START + 3600.0 * hour] * 5, "new") for hour in range(1, 30)]
    found = reports_of(monitor, hours)
    retired = [(report.time, report.retired) for report in found if report.retired]
    (told,) = retired
    assert told[1] == ("old",)
    assert 0 < told[0] - (START + DAY) <= 3660
    assert set(monitor.view()) == {"new"}
    later = constant([START + 40 * 3600.0] * 5, "next"), constant([START + 40 * 3600.0 + 90] * 5, "old")
    found = reports_of(monitor, later) + list(monitor.flush(0.0))
    assert {facts.model_version for facts in found[-1].versions} == {"new", "next", OTHER_VERSIONS}


def test_labels_of_a_version_that_is_gone_are_dropped() -> None:
    """They neither bring it back nor count for another version, and nothing is kept of it."""
    monitor = small_monitor()
    old = dataclasses.replace(constant([START + 1.0] * 5, "old"), ids=np.array(list("abcde"), np.object_))
    hours = [constant([START + 3600.0 * hour] * 5, "new") for hour in range(1, 30)]
    reports_of(monitor, [old, *hours])
    assert set(monitor.view()) == {"new"}
    late = START + 31 * 3600.0
    found = reports_of(monitor, [labels([late] * 5, old.ids, ["spam"] * 5)]) + list(monitor.flush(0.0))
    assert monitor.labels.matched == 5
    assert {facts.model_version for facts in found[-1].versions} == {"new"}
    assert monitor.view()["new"].labels == (0, 0)
    assert monitor.labels.totals("old") == (0, 0)


def test_the_stable_version_is_the_configured_one_while_it_runs() -> None:
    """Without traffic for an hour a version is not compared with; then the one with most traffic is."""
    hours = [constant([START + 600.0 * n + i for i in range(10)], "v2") for n in range(1, 12)]
    pieces = [constant([START + 1.0] * 10, "v1"), *hours]
    for configured, expected in ((None, "v1"), ("v1", "v1"), ("v2", "v2"), ("absent", "v1")):
        monitor = small_monitor(stable=configured)
        found = reports_of(monitor, pieces)
        early = {facts.model_version for facts in found[2].versions if facts.stable}
        late = {facts.model_version for facts in found[-1].versions if facts.stable}
        assert early == {expected}
        assert late == {"v2"}


def test_what_is_shown_is_a_function_of_the_state(tmp_path: Path) -> None:
    """Also of a version that is silent while the one it was compared with stops and another takes its place."""
    monitor = small_monitor()
    rng = np.random.default_rng(73)
    minutes = [(float(n), version) for n in range(10) for version in ("v1", "v2", "v3")]
    minutes += [(10.0 * n, "v3") for n in range(1, 16)]
    for minute, version in minutes:
        list(monitor.absorb(small_batch(START + 60 * minute + np.arange(20.0), rng, (version,))))
        assert shown(reloaded(monitor, tmp_path / "checkpoint.npz", small_monitor())) == shown(monitor)
    assert {name for name, view in monitor.view().items() if view.facts.stable} == {"v3"}
    # v2 and v3 were never compared: an alert that rests on v1 must not be resolved by evidence of nothing.
    assert {e.compared_with for e in monitor.view()["v2"].evidence} == {None}


def test_distances_survive_a_restart(tmp_path: Path) -> None:
    """The windows that they are taken over, and what falls out of them later, are those of an agent that never stopped."""
    steady, restarted = small_monitor(), small_monitor()
    rng = np.random.default_rng(74)
    for number in range(12):
        piece = small_batch(START + 60.0 * number + np.linspace(0, 59, 150), rng)
        restarted = reloaded(restarted, tmp_path / "checkpoint.npz", small_monitor())
        assert list(restarted.absorb(piece)) == list(steady.absorb(piece))
        assert shown(restarted) == shown(steady)
    assert steady.view()["v1"].distances
