"""Alerts rise and fall with the evidence, slowly enough, and every change is told once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from poisonwatch.judge.alerts import FIRING_AT, PENDING_AT, RESOLVED_AT, fingerprint, step_alerts
from poisonwatch.judge.cause import predictions
from poisonwatch.judge.decision import HARM
from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_ERRORS,
    CONFIDENCE_FALL,
    COVERAGE,
    ERRORS,
    FLIPS,
    INPUTS,
    OUTPUTS,
    QUALITY,
    SOURCES,
    TRIGGERS,
)
from poisonwatch.types import Alert, AlertState, Cause, Evidence, Severity, Sign, Subject
from tests.judge.findings import FAINT, GONE, GROUPS, PAGE, WATCH, finding

OF_TRIGGERS = (Sign.CONTRAST, Sign.CONFIRMED, Sign.AWAITED)

PENDING, FIRING, RESOLVED = AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED

LARGE, SMALL = 1.0, 0.1
"""Effects above and below the floor of the findings."""


def told(steps: list[tuple[float, float]], group: str = OUTPUTS) -> list[AlertState | None]:
    """What was told after each step of (log_e, effect): a state, or nothing."""
    alerts: dict[str, Alert] = {}
    states: list[AlertState | None] = []
    for number, (log_e, effect) in enumerate(steps):
        alerts, changes = step_alerts(alerts, [finding(group, log_e, effect=effect)], 60.0 * number)
        states.append(changes[0].state if changes else None)
        assert len(changes) <= 1
        if changes:
            assert changes[0].time == 60.0 * number
    return states


@pytest.mark.parametrize(
    ("steps", "states"),
    [
        ([(GONE, LARGE)], [None]),
        ([(FAINT, LARGE)], [None]),
        ([(WATCH, LARGE)], [PENDING]),
        ([(PAGE, LARGE)], [FIRING]),
        ([(PAGE, SMALL)], [PENDING]),
        ([(PAGE, -LARGE)], [FIRING]),
        ([(WATCH, LARGE), (PAGE, LARGE)], [PENDING, FIRING]),
        ([(PAGE, SMALL), (PAGE, LARGE)], [PENDING, FIRING]),
        ([(WATCH, SMALL)], [None]),
        ([(WATCH, LARGE), (WATCH, LARGE), (FAINT, LARGE)], [PENDING, None, None]),
        ([(WATCH, LARGE), (WATCH, SMALL)], [PENDING, RESOLVED]),
        ([(WATCH, LARGE), (FAINT, LARGE), (GONE, LARGE)], [PENDING, None, RESOLVED]),
        ([(PAGE, LARGE), (WATCH, LARGE), (FAINT, LARGE), (PAGE, SMALL)], [FIRING, None, None, None]),
        ([(PAGE, LARGE), (WATCH, SMALL)], [FIRING, RESOLVED]),
        ([(PAGE, LARGE), (GONE, LARGE), (GONE, LARGE)], [FIRING, RESOLVED, None]),
        ([(PAGE, LARGE), (GONE, LARGE), (PAGE, LARGE)], [FIRING, RESOLVED, FIRING]),
    ],
)
def test_the_states_of_one_alert(steps: list[tuple[float, float]], states: list[AlertState | None]) -> None:
    """From nothing over pending and firing to resolved, with hysteresis down to a hundredth of the budget.

    Without an effect beyond the floor nothing begins to be watched, and below the budget nothing goes on.
    """
    assert told(steps) == states


def blind(log_e: float, *signs: Sign, group: str = COVERAGE) -> Evidence:
    """Evidence on the log of a model."""
    return finding(group, log_e, None, LARGE, *signs)


def test_what_stays_blind_becomes_a_page_and_ends_as_one() -> None:
    """A ticket at once; a page when it lasts, told once; by unreadable lines as by what the server counted."""
    for signs, group in (((), COVERAGE), ((Sign.MOSTLY_LOST,), QUALITY)):
        alerts: dict[str, Alert] = {}
        told = []
        for e in (
            blind(PAGE, *signs, group=group),
            blind(PAGE, *signs, group=group),
            blind(PAGE, *signs, Sign.LASTING, group=group),
            blind(WATCH, *signs, Sign.LASTING, group=group),
            blind(GONE, group=group),
        ):
            alerts, changes = step_alerts(alerts, [e], 0.0)
            told += [(a.state, a.severity, a.cause) for a in changes]
        assert told == [
            (FIRING, Severity.TICKET, Cause.BLIND),
            (FIRING, Severity.PAGE, Cause.BLIND),
            (RESOLVED, Severity.PAGE, Cause.BLIND),
        ]


def test_no_other_page_hides_that_the_monitor_is_blind() -> None:
    """Whoever poisons labels must not be able to hide his requests behind that page, nor the other way round; but blind pages once."""
    lasting = blind(PAGE, Sign.LASTING)
    unreadable = blind(PAGE, Sign.MOSTLY_LOST, Sign.LASTING, group=QUALITY)
    poisoned = finding(SOURCES, PAGE, None)
    for first, then in ((poisoned, lasting), (lasting, poisoned)):
        alerts, _ = step_alerts({}, [first], 0.0)
        alerts, _ = step_alerts(alerts, [first, then], 60.0)
        assert [a.severity for a in alerts.values()] == [Severity.PAGE, Severity.PAGE]
    alerts, _ = step_alerts({}, [lasting, unreadable], 0.0)
    assert sorted(a.severity for a in alerts.values()) == [Severity.PAGE, Severity.TICKET]


def test_thresholds_are_exact() -> None:
    """An alert begins at a tenth of the budget, fires at the whole and ends at a hundredth, each included."""
    assert (math.log(0.1), 0.0, math.log(0.01)) == (PENDING_AT, FIRING_AT, RESOLVED_AT)
    assert told([(PENDING_AT, LARGE)]) == [PENDING]
    assert told([(math.nextafter(PENDING_AT, -9), LARGE)]) == [None]
    assert told([(FIRING_AT, 0.3)]) == [FIRING]
    assert told([(FIRING_AT, math.nextafter(0.3, 0))]) == [PENDING]
    assert told([(WATCH, math.nextafter(0.3, 0))]) == [None]
    assert told([(PAGE, 0.3), (WATCH, 0.241), (WATCH, 0.239)]) == [FIRING, None, RESOLVED]
    assert told([(PAGE, LARGE), (RESOLVED_AT, LARGE)]) == [FIRING, RESOLVED]
    assert told([(PAGE, LARGE), (math.nextafter(RESOLVED_AT, 0), LARGE)]) == [FIRING, None]


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([*GROUPS, *[TRIGGERS] * 5]),
                st.sampled_from(["v1", "v2", None]),
                st.floats(-8, 3),
                st.floats(-1, 1),
                st.sets(st.sampled_from(OF_TRIGGERS)),
            ),
            max_size=6,
            unique_by=lambda found: found[:2],
        ),
        max_size=12,
    )
)
def test_only_changes_are_told(windows: list[list[tuple[str, str | None, float, float, set[Sign]]]]) -> None:
    """Whatever the evidence: what is told differs from what stood, what stands is what was told last, nothing is forgotten."""
    alerts: dict[str, Alert] = {}
    for number, window in enumerate(windows):
        evidence = [finding(group, log_e, version, effect, *signs) for group, version, log_e, effect, signs in window]
        kept = dict(alerts)
        after, changes = step_alerts(alerts, evidence, float(number))
        assert alerts == kept, "the alerts that stood were changed in place"
        for change in changes:
            before = alerts.get(change.fingerprint)
            assert before is None or standing(before) != standing(change)
            if before is None:
                assert change.state is not RESOLVED
            elif before.state is FIRING and change.state is not RESOLVED:
                rises = (before.severity, change.severity) == (Severity.TICKET, Severity.PAGE)
                assert change.state is FIRING, "what fires goes on firing until it is resolved"
                assert rises or (before.severity == change.severity and change.cause in HARM)
        ended = {change.fingerprint for change in changes if change.state is RESOLVED}
        moved = {change.fingerprint: change for change in changes if change.state is not RESOLVED}
        expected = {name: alert for name, alert in (alerts | moved).items() if name not in ended}
        assert {name: words(one) for name, one in after.items()} == {name: words(one) for name, one in expected.items()}
        heard = {fingerprint("mail", found.model_version, found.group) for found in evidence}
        assert {name for name in after if name not in heard} == {name for name in alerts if name not in heard}
        pages = [a.model_version for a in after.values() if a.state is FIRING and a.severity is Severity.PAGE]
        assert len(pages) == len(set(pages)), "one page per version"
        alerts = after


def words(alert: Alert) -> Alert:
    """An alert without the numbers of now."""
    return replace(alert, log_e=0.0, effect=0.0, n=0, subjects=(), affected=None)


def standing(alert: Alert) -> tuple[AlertState, Severity, Cause, tuple[str, ...]]:
    """What makes a change worth telling: once it fires, what it rests on, too."""
    return alert.state, alert.severity, alert.cause, alert.because if alert.state is FIRING else ()


def test_alerts_are_known_by_model_version_and_group() -> None:
    """Each of the three tells alerts apart, and the name does not depend on anything else."""
    names = {
        fingerprint(model, version, group)
        for model in ("mail", "mai")
        for version in ("v1", "lv1", None)
        for group in GROUPS
    }
    assert len(names) == 2 * 3 * len(GROUPS)
    one, other = (step_alerts({}, [finding(OUTPUTS, PAGE, effect=e)], t)[1][0] for e, t in ((1.0, 5.0), (-2.0, 9.0)))
    assert one.fingerprint == other.fingerprint == fingerprint("mail", "v2", OUTPUTS)


def fired(*evidence: Evidence) -> dict[str, Alert]:
    """The alerts of one window by group and version."""
    return {f"{alert.group} {alert.model_version}": alert for alert in step_alerts({}, evidence, 0.0)[1]}


def test_outputs_follow_the_inputs_of_their_own_version_only() -> None:
    """Outputs that move with the inputs are drift; the inputs of another version explain nothing."""
    inputs, outputs = finding(INPUTS, WATCH, "v2"), finding(OUTPUTS, PAGE, "v2")
    assert fired(outputs, inputs)["outputs v2"].cause is Cause.INPUT_DRIFT
    assert fired(outputs, finding(INPUTS, PAGE, "v1"))["outputs v2"].cause is Cause.OUTPUT_CHANGE
    assert fired(outputs, finding(INPUTS, FAINT, "v2"))["outputs v2"].cause is Cause.OUTPUT_CHANGE
    unmoved = finding(INPUTS, WATCH, "v2", effect=SMALL)
    assert fired(outputs, unmoved)["outputs v2"].cause is Cause.OUTPUT_CHANGE


def test_the_cause_of_a_firing_alert_is_not_rewritten() -> None:
    """When the inputs move after the outputs fired, the alert ends under the cause it began with."""
    alerts, _ = step_alerts({}, [finding(OUTPUTS, PAGE)], 0.0)
    alerts, changes = step_alerts(alerts, [finding(OUTPUTS, PAGE), finding(INPUTS, PAGE)], 60.0)
    assert [change.group for change in changes] == [INPUTS]
    alerts, changes = step_alerts(alerts, [finding(OUTPUTS, GONE), finding(INPUTS, PAGE)], 120.0)
    assert [(change.group, change.state, change.cause) for change in changes] == [
        (OUTPUTS, RESOLVED, Cause.OUTPUT_CHANGE)
    ]


def test_a_pending_alert_fires_under_the_cause_of_that_moment() -> None:
    """While pending, nothing is established: drift of the inputs before it fires makes it drift."""
    alerts, _ = step_alerts({}, [finding(OUTPUTS, WATCH)], 0.0)
    _, changes = step_alerts(alerts, [finding(OUTPUTS, PAGE), finding(INPUTS, PAGE)], 60.0)
    assert {change.cause for change in changes} == {Cause.INPUT_DRIFT}


def test_an_alert_carries_its_evidence() -> None:
    """Strength, size, onset, count and subjects are those of the evidence."""
    evidence = finding(CANARY_ERRORS, PAGE)
    (alert,) = step_alerts({}, [evidence], 600.0)[1]
    for name in ("model", "model_version", "group", "signal", "log_e", "effect", "onset", "n", "subjects"):
        assert getattr(alert, name) == getattr(evidence, name)
    assert alert.severity is Severity.PAGE
    assert alert.because == (CANARY_ERRORS,)


def test_an_open_alert_shows_the_numbers_of_now_and_the_words_of_its_last_change() -> None:
    """Who looks half an hour later must not read how many were touched in the first minute."""
    opened, (first,) = step_alerts({}, [finding(FLIPS, PAGE)], 60.0)
    later = replace(finding(FLIPS, PAGE + 2, effect=1.5), n=5000, onset=120.0)
    later = replace(later, subjects=(replace(later.subjects[0], rate=0.7),))
    opened, changes = step_alerts(opened, [later], 120.0)
    assert changes == []
    (now,) = opened.values()
    assert (now.log_e, now.effect, now.n) == (PAGE + 2, 1.5, 5000)
    assert now.affected == pytest.approx(0.5)
    assert (now.time, now.onset, now.summary) == (first.time, first.onset, first.summary)


def test_an_alert_ends_with_the_onset_it_had_and_without_a_word_of_health() -> None:
    """What is left of the evidence began at another time; that it is gone is told, and why."""
    for evidence, over, why in (
        (finding(ERRORS, PAGE), finding(ERRORS, GONE), "looks as expected"),
        (trigger(PAGE, Sign.CONTRAST), trigger(GONE), "no prediction has shown the trigger for long"),
        (finding(CANARY_ERRORS, PAGE), finding(CANARY_ERRORS, GONE), "looks as expected"),
        (
            finding(CANARY_ERRORS, PAGE),
            replace(finding(CANARY_ERRORS, GONE), compared_with=None),
            "no version beside it",
        ),
        (finding(QUALITY, PAGE, None), finding(QUALITY, GONE, None), "does not say that all is well"),
    ):
        alerts, _ = step_alerts({}, [evidence], 0.0)
        (ended,) = step_alerts(alerts, [replace(over, onset=9000.0)], 60.0)[1]
        assert (ended.state, ended.onset) == (RESOLVED, evidence.onset)
        assert why in ended.summary
        assert "is gone" in ended.summary
        assert "This does not say that" in ended.summary


def test_how_many_are_touched() -> None:
    """A finder's own share, else how far the rate lies from what was expected; nothing where it is asked of a part, of verified inputs, of sources or of lines."""

    def touched(evidence: Evidence) -> tuple[float | None, int | None]:
        (alert,) = step_alerts({}, [evidence], 0.0)[1]
        share = alert.affected
        return None if share is None else round(share, 6), predictions(alert)

    slice_ = (Subject(indicator="flipped where segment = a", signal="flips", rate=0.3, expected=0.1),)
    assert touched(finding(OUTPUTS, PAGE)) == (0.2, 200)
    assert touched(replace(finding(FLIPS, PAGE), subjects=slice_)) == (None, 200)
    assert touched(finding(ERRORS, PAGE)) == (0.2, None)
    assert touched(finding(CANARY_ERRORS, PAGE)) == (0.2, None)
    assert touched(finding("golden", PAGE)) == (None, None)
    assert touched(finding(SOURCES, PAGE, None)) == (None, None)
    assert touched(finding("volume", PAGE, None)) == (None, None)
    assert touched(finding(QUALITY, PAGE, None)) == (None, None)
    assert touched(replace(trigger(PAGE, Sign.CONTRAST), affected=0.046, n=66)) == (0.046, 66)
    falls = (Subject(indicator="prediction = spam", signal="class", rate=0.05, expected=0.2),)
    assert touched(replace(finding(OUTPUTS, PAGE), subjects=falls)) == (0.15, 150)


def test_a_ticket_rises_to_a_page_when_the_second_mark_comes_and_never_sinks() -> None:
    """Flips are a ticket; when confidence falls too they page, and go on paging when it recovers."""
    alerts, changes = step_alerts({}, [finding(FLIPS, PAGE)], 0.0)
    assert [standing(c)[:3] for c in changes] == [(FIRING, Severity.TICKET, Cause.OUTPUT_CHANGE)]
    alerts, changes = step_alerts(alerts, [finding(FLIPS, PAGE), finding(CONFIDENCE_FALL, PAGE)], 60.0)
    assert [standing(c)[:3] for c in changes if c.group == FLIPS] == [(FIRING, Severity.PAGE, Cause.DEGRADATION)]
    alerts, changes = step_alerts(alerts, [finding(FLIPS, PAGE), finding(CONFIDENCE_FALL, GONE)], 120.0)
    assert [(c.group, c.state) for c in changes] == [(CONFIDENCE_FALL, RESOLVED)]
    assert [standing(a)[:3] for a in alerts.values()] == [(FIRING, Severity.PAGE, Cause.DEGRADATION)]


def test_a_version_pages_once() -> None:
    """Of several pages at one time one wakes, the others are tickets of the same cause; when it ends, another takes its place."""
    both = [finding(ERRORS, PAGE), finding(CANARY_ERRORS, PAGE), finding(ERRORS, PAGE, "v1")]
    alerts, changes = step_alerts({}, both, 0.0)
    assert [(c.model_version, c.severity) for c in changes] == [
        ("v2", Severity.PAGE),
        ("v2", Severity.TICKET),
        ("v1", Severity.PAGE),
    ]
    assert {c.cause for c in changes} == {Cause.DEGRADATION}
    alerts, _ = step_alerts(alerts, [finding(ERRORS, GONE), finding(CANARY_ERRORS, PAGE)], 60.0)
    _, changes = step_alerts(alerts, [finding(CANARY_ERRORS, PAGE)], 120.0)
    assert {a.severity for a in (*alerts.values(), *changes) if a.model_version == "v2"} == {Severity.PAGE}


def test_trouble_with_the_log_belongs_to_no_version() -> None:
    """Evidence on lines makes an alert without a version, beside that of a version's quality."""
    found = fired(finding(QUALITY, PAGE, None), finding(QUALITY, PAGE, "v2"))
    assert set(found) == {"quality None", "quality v2"}


def trigger(log_e: float, *signs: Sign) -> Evidence:
    """Evidence on triggers of v2."""
    return finding(TRIGGERS, log_e, "v2", 1.0, *signs)


def test_one_attack_wakes_once_and_the_trigger_is_told() -> None:
    """Where a trigger and its effects fire together the trigger pages; where its effects paged first, it is told without a second page."""
    effects = [finding(CANARY_ERRORS, PAGE), finding(ERRORS, PAGE)]
    _, changes = step_alerts({}, [*effects, trigger(PAGE, Sign.CONTRAST)], 0.0)
    assert [(c.group, c.severity) for c in changes if c.severity is Severity.PAGE] == [(TRIGGERS, Severity.PAGE)]
    assert {c.group for c in changes} == {TRIGGERS, CANARY_ERRORS, ERRORS}
    alerts, _ = step_alerts({}, effects, 0.0)
    _, changes = step_alerts(alerts, [*effects, trigger(PAGE, Sign.CONTRAST)], 60.0)
    assert [(c.severity, c.cause) for c in changes] == [(Severity.TICKET, Cause.BACKDOOR)]


def test_a_ticket_does_not_keep_a_trigger_from_paging() -> None:
    """What was only a ticket before leaves the page to the trigger."""
    alerts, changes = step_alerts({}, [finding(CANARY_CLASS, PAGE), finding(FLIPS, WATCH)], 0.0)
    assert {c.severity for c in changes} == {Severity.TICKET}
    _, changes = step_alerts(alerts, [finding(CANARY_CLASS, PAGE), trigger(PAGE, Sign.CONTRAST)], 60.0)
    assert [(c.severity, c.cause) for c in changes] == [(Severity.PAGE, Cause.BACKDOOR)]


def test_what_becomes_known_of_a_trigger_is_told_by_the_alert_that_is_open() -> None:
    """From a pattern without contrast over a page that awaits confirmation to a confirmed one: each is told once, and what is confirmed stays so."""
    alerts: dict[str, Alert] = {}
    told = []
    for number, signs in enumerate(
        [
            (),
            (Sign.CONTRAST, Sign.AWAITED),
            (Sign.CONTRAST, Sign.AWAITED),
            (Sign.CONTRAST, Sign.CONFIRMED),
            (Sign.CONTRAST,),
            (),
        ]
    ):
        alerts, changes = step_alerts(alerts, [trigger(PAGE, *signs)], 60.0 * number)
        told.append([(c.severity, c.cause, c.because) for c in changes])
    assert told == [
        [(Severity.TICKET, Cause.OUTPUT_CHANGE, ("triggers",))],
        [(Severity.PAGE, Cause.BACKDOOR, ("awaited", "contrast", "triggers"))],
        [],
        [(Severity.PAGE, Cause.BACKDOOR, ("confirmed", "triggers"))],
        [],
        [],
    ]


def test_a_trigger_becomes_known_beside_another_page_without_waking_anybody() -> None:
    """Beside a page of its version a pattern becomes a backdoor as a ticket; when that page ends, it takes its place."""
    page = finding(ERRORS, PAGE)
    alerts, _ = step_alerts({}, [page], 0.0)
    alerts, _ = step_alerts(alerts, [page, trigger(PAGE)], 60.0)
    alerts, changes = step_alerts(alerts, [page, trigger(PAGE, Sign.CONTRAST)], 120.0)
    assert [(c.group, c.severity, c.cause) for c in changes] == [(TRIGGERS, Severity.TICKET, Cause.BACKDOOR)]
    alerts, _ = step_alerts(alerts, [finding(ERRORS, GONE), trigger(PAGE, Sign.CONTRAST)], 180.0)
    alerts, _ = step_alerts(alerts, [trigger(PAGE, Sign.CONTRAST)], 240.0)
    assert [(a.group, a.severity, a.cause) for a in alerts.values()] == [(TRIGGERS, Severity.PAGE, Cause.BACKDOOR)]


def test_a_trigger_that_ends_resolves_as_what_it_was() -> None:
    """When its evidence is gone, with the signs, the alert ends under its cause."""
    alerts, _ = step_alerts({}, [trigger(PAGE, Sign.CONTRAST)], 0.0)
    alerts, changes = step_alerts(alerts, [trigger(GONE)], 60.0)
    assert [(c.state, c.severity, c.cause) for c in changes] == [(RESOLVED, Severity.PAGE, Cause.BACKDOOR)]
    assert not alerts
    alerts, _ = step_alerts({}, [finding(ERRORS, PAGE)], 0.0)
    alerts, _ = step_alerts(alerts, [finding(ERRORS, PAGE), trigger(PAGE, Sign.CONTRAST)], 60.0)
    alerts, _ = step_alerts(alerts, [finding(ERRORS, GONE)], 120.0)
    _, changes = step_alerts(alerts, [trigger(GONE, Sign.CONTRAST)], 180.0)
    assert [(c.state, c.severity, c.cause) for c in changes] == [(RESOLVED, Severity.TICKET, Cause.BACKDOOR)]
