"""What stands of a model: moved by reports, told only when it changes."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.judge.standing import MOST_CLEAN, Standing, judge
from poisonwatch.profile.indicators import CANARY_ERRORS, ERRORS, INPUTS, OUTPUTS, QUALITY, TRIGGERS
from poisonwatch.types import Action, Alert, AlertState, Cause, Decision, Reason, Report, Sign, TriggerState
from tests.judge.findings import FEWEST, GONE, GROUPS, PAGE, V1, V2, WATCH, facts, finding, report
from tests.triggers import effect, insertion, trigger


def judged(*reports: Report) -> tuple[Standing, list[list[Alert]], list[list[Decision]]]:
    """What stands in the end, and what each report made be told."""
    standing, alerts, decisions = Standing(), [], []
    for one in reports:
        standing, changed, news, _ = judge(standing, one, FEWEST)
        alerts.append(changed)
        decisions.append(news)
    return standing, alerts, decisions


def test_health_is_told_once() -> None:
    """The first report decides for every version; the same again tells nothing."""
    standing, alerts, decisions = judged(report(), report(time=660.0), report(time=720.0))
    assert [len(news) for news in decisions] == [2, 0, 0]
    assert alerts == [[], [], []]
    assert {name: (d.decision, d.time) for name, d in standing.decisions.items()} == {
        "v1": (Action.KEEP, 600.0),
        "v2": (Action.KEEP, 600.0),
    }


def test_a_bad_canary_from_arrival_to_rollback_and_after() -> None:
    """Too little data, healthy, pending, rollback; the rollback outlives its alert and ends with the version."""
    young = (V1, facts("v2", 10, "v1"))
    standing, alerts, decisions = judged(
        report(versions=young),
        report(),
        report(finding(CANARY_ERRORS, WATCH)),
        report(finding(CANARY_ERRORS, PAGE)),
        report(finding(CANARY_ERRORS, PAGE)),
        report(finding(CANARY_ERRORS, GONE)),
    )
    reasons = [[d.reason for d in news if d.model_version == "v2"] for news in decisions]
    assert reasons == [
        [Reason.INSUFFICIENT_DATA],
        [Reason.HEALTHY],
        [Reason.EVIDENCE_PENDING],
        [Reason.WORSE_THAN_STABLE],
        [],
        [],
    ]
    states = [[a.state for a in changed] for changed in alerts]
    assert states == [[], [], [AlertState.PENDING], [AlertState.FIRING], [], [AlertState.RESOLVED]]
    assert standing.alerts == {}
    assert standing.decisions["v2"].decision is Action.ROLLBACK
    assert standing.decisions["v2"].target == "v1"
    standing, _, news, _ = judge(standing, report(versions=(V1,), retired=("v2",)), FEWEST)
    assert set(standing.decisions) == {"v1"}
    assert not news
    again, _, news, _ = judge(standing, report(), FEWEST)
    assert again.decisions["v2"].decision is Action.ROLLBACK, "whoever deploys it again has to say why"
    assert [d.model_version for d in news] == ["v2"]


def test_alerts_of_a_retired_version_resolve() -> None:
    """They are told as resolved and stand no longer; those of the others and of the log stay."""
    found = [finding(OUTPUTS, PAGE), finding(INPUTS, WATCH), finding(OUTPUTS, PAGE, "v1"), finding(QUALITY, PAGE, None)]
    standing, alerts, _ = judged(report(*found), report(time=660.0, versions=(V1,), retired=("v2",)))
    ended = alerts[1]
    assert {(a.model_version, a.group, a.state, a.time) for a in ended} == {
        ("v2", OUTPUTS, AlertState.RESOLVED, 660.0),
        ("v2", INPUTS, AlertState.RESOLVED, 660.0),
    }
    assert all("is gone" in a.summary for a in ended)
    assert {(a.model_version, a.group) for a in standing.alerts.values()} == {("v1", OUTPUTS), (None, QUALITY)}


def test_a_new_target_is_news() -> None:
    """A hold for want of a target becomes a rollback when the stable version has shown enough."""
    thin = (facts("v1", 10, stable=True), V2)
    _, _, decisions = judged(report(finding(CANARY_ERRORS, PAGE), versions=thin), report(finding(CANARY_ERRORS, PAGE)))
    assert [d.reason for d in decisions[0] if d.model_version == "v2"] == [Reason.NO_CLEAN_TARGET]
    assert [(d.reason, d.target) for d in decisions[1] if d.model_version == "v2"] == [(Reason.WORSE_THAN_STABLE, "v1")]


def test_a_clean_version_that_is_gone_can_be_a_target_and_only_the_last_are_remembered() -> None:
    """It must have shown enough and been accused of nothing to the end; a bounded number is kept; who runs again is judged anew."""
    standing, _, _ = judged(report())
    standing, *_ = judge(standing, report(versions=(V2,), retired=("v1",)), FEWEST)
    assert standing.clean == ("v1",)
    after, _, news, _ = judge(standing, report(finding(CANARY_ERRORS, PAGE), versions=(V2,)), FEWEST)
    assert [(d.decision, d.target) for d in news] == [(Action.ROLLBACK, "v1")]
    assert judge(after, report(versions=(V1,), retired=("v2",)), FEWEST)[0].clean == ()
    for number in range(2, MOST_CLEAN + 4):
        here, following = facts(f"v{number}"), facts(f"v{number + 1}")
        standing, *_ = judge(standing, report(versions=(here, following)), FEWEST)
        standing, *_ = judge(standing, report(versions=(following,), retired=(f"v{number}",)), FEWEST)
    assert standing.clean == tuple(f"v{number}" for number in range(4, MOST_CLEAN + 4))


def test_a_version_that_went_young_or_accused_is_no_target() -> None:
    """Too few predictions, a ticket of its own, or a page on its way when it went: it is not remembered as clean."""
    for evidence, of in (
        ((), facts("v1", 10)),
        ((finding(OUTPUTS, PAGE, "v1"),), V1),
        ((finding(CANARY_ERRORS, WATCH, "v1"),), V1),
    ):
        standing, _, _ = judged(report(*evidence, versions=(of, V2)))
        standing, *_ = judge(standing, report(versions=(V2,), retired=("v1",)), FEWEST)
        assert standing.clean == ()


def test_a_version_in_which_a_trigger_works_is_no_target_even_when_it_is_gone() -> None:
    """A trigger that is convicted or confirmed takes the versions it works in out of those that are remembered as clean; one that only surfaced does not."""
    clean, *_ = judge(judged(report())[0], report(versions=(V2,), retired=("v1",)), FEWEST)
    assert clean.clean == ("v1",)
    works = (effect("v1", 6, 5, works=True), effect("v2", 16, 14, works=True))
    for told, remembered in (
        (trigger(), ("v1",)),
        (trigger(versions=works, state=TriggerState.SURFACED), ("v1",)),
        (trigger(versions=works), ()),
        (trigger(versions=works, state=TriggerState.CONFIRMED), ()),
        (trigger(tests=(insertion("v1", TriggerState.CONFIRMED),)), ()),
        (trigger(tests=(insertion("v1", TriggerState.REFUTED),)), ("v1",)),
    ):
        after, *_ = judge(clean, report(versions=(V2,), triggers=(told,)), FEWEST)
        assert after.clean == remembered
    page = finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONTRAST)
    held = report(page, versions=(facts("v1", stable=True, triggered=True), V2))
    standing, _, news, _ = judge(judged(report())[0], held, FEWEST)
    assert [d.reason for d in news if d.model_version == "v1"] == [Reason.TRIGGER_UNCONFIRMED]
    assert judge(standing, report(page, versions=(V2,), retired=("v1",)), FEWEST)[0].clean == ()


def test_a_rollback_that_a_trigger_explains_later_is_told_again_once() -> None:
    """The decision stays, its cause becomes the backdoor, and the journal hears of it once."""
    page, pattern = finding(CANARY_ERRORS, PAGE), finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONTRAST)
    _, _, decisions = judged(report(page), report(page, pattern), report(page, pattern))
    assert [[(d.decision, d.reason, d.cause) for d in news if d.model_version == "v2"] for news in decisions] == [
        [(Action.ROLLBACK, Reason.WORSE_THAN_STABLE, Cause.DEGRADATION)],
        [(Action.ROLLBACK, Reason.WORSE_THAN_STABLE, Cause.BACKDOOR)],
        [],
    ]


windows = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([*GROUPS, *[TRIGGERS] * 5]),
            st.sampled_from(["v1", "v2", None]),
            st.floats(-8, 3),
            st.floats(-1, 1),
            st.sets(st.sampled_from([Sign.CONTRAST, Sign.CONFIRMED, Sign.AWAITED])),
        ),
        max_size=6,
        unique_by=lambda found: found[:2],
    ),
    max_size=12,
)


def gist(decision: Decision) -> tuple[object, ...]:
    """What makes a decision worth telling."""
    return decision.decision, decision.reason, decision.target, decision.cause is Cause.BACKDOOR


@given(windows)
def test_one_line_per_change(steps: list[list[tuple[str, str | None, float, float, set[Sign]]]]) -> None:
    """Whatever the evidence: decisions are told exactly when action, reason or target changed, or a backdoor became the cause; a rollback stays."""
    standing = Standing()
    for number, window in enumerate(steps):
        evidence = [finding(group, log_e, version, effect, *signs) for group, version, log_e, effect, signs in window]
        after, _, news, _ = judge(standing, report(*evidence, time=60.0 * number, versions=(V1, V2)), FEWEST)
        told = {d.model_version: d for d in news}
        for name, decision in after.decisions.items():
            before = standing.decisions.get(name)
            if before is None or gist(before) != gist(decision):
                assert told.pop(name) is decision
                if before is not None and before.decision is Action.ROLLBACK:
                    given_up = (decision.decision, decision.reason, decision.target)
                    assert given_up == (Action.HOLD, Reason.NO_CLEAN_TARGET, None) or (
                        (decision.decision, decision.target, decision.cause)
                        == (Action.ROLLBACK, before.target, Cause.BACKDOOR)
                    )
            else:
                assert decision is before
        assert not told
        assert set(after.decisions) == {"v1", "v2"}
        standing = after


def test_a_rollback_never_goes_on_naming_a_target_that_is_found_out() -> None:
    """Proven harm of the target, a rollback of it, a trigger in it: another clean one, or a hold that is never a keep; a ticket or what is pending changes nothing."""
    three = (facts("v0"), facts("v1", 1000, "v0"), facts("v2", 1000, "v1", "v0"))
    page, gone = finding(CANARY_ERRORS, PAGE), finding(CANARY_ERRORS, GONE)
    rolled, *_ = judge(Standing(), report(page, versions=three), FEWEST)
    for evidence in (finding(OUTPUTS, PAGE, "v1"), finding(ERRORS, WATCH, "v1")):
        same, *_ = judge(rolled, report(page, evidence, versions=three), FEWEST)
        assert same.decisions["v2"] is rolled.decisions["v2"]
    dirty = finding(ERRORS, PAGE, "v1")
    other, _, news, _ = judge(rolled, report(page, dirty, versions=three), FEWEST)
    assert [(d.decision, d.target) for d in news if d.model_version == "v2"] == [(Action.ROLLBACK, "v0")]
    assert other.latched["v2"].target == "v0"
    two = three[1:]
    alone, *_ = judge(Standing(), report(page, versions=two), FEWEST)
    none, _, news, _ = judge(alone, report(gone, dirty, versions=two), FEWEST)
    told = [(d.decision, d.reason, d.cause, d.target) for d in news if d.model_version == "v2"]
    assert told == [(Action.HOLD, Reason.NO_CLEAN_TARGET, Cause.DEGRADATION, None)]
    assert "Roll back to" not in none.decisions["v2"].summary
    clean, _, news, _ = judge(none, report(gone, finding(ERRORS, GONE, "v1"), versions=two), FEWEST)
    assert [(d.decision, d.target) for d in news if d.model_version == "v2"] == [(Action.ROLLBACK, "v1")]
    assert clean.decisions["v2"].summary == alone.decisions["v2"].summary


def test_silence_mends_nothing() -> None:
    """A version held for a backdoor that nobody brings any more, or for a comparison with a version that is gone, stays on hold and is no target; what is refuted by traffic does not."""
    pattern, nothing = finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONTRAST), finding(TRIGGERS, GONE)
    ended = trigger(state=TriggerState.ENDED, versions=(effect("v2", 16, 14, works=True),))
    alone = (facts("v2"),)
    held, *_ = judge(Standing(), report(pattern, versions=alone), FEWEST)
    assert held.decisions["v2"].reason is Reason.NO_CLEAN_TARGET
    silent, alerts, news, _ = judge(held, report(nothing, versions=alone, triggers=(ended,), time=660.0), FEWEST)
    assert [a.state for a in alerts] == [AlertState.RESOLVED]
    assert "the evidence of backdoor is gone" in alerts[0].summary
    assert "does not say that v2 is healthy" in alerts[0].summary
    assert not news
    for later in range(3):
        silent, _, news, _ = judge(silent, report(versions=alone, time=720.0 + later), FEWEST)
        assert (silent.decisions["v2"].decision, news) == (Action.HOLD, [])
    beside = (*alone, facts("v3", 1000, "v2"))
    after, *_ = judge(silent, report(finding(ERRORS, PAGE, "v3"), versions=beside), FEWEST)
    assert after.decisions["v3"].reason is Reason.NO_CLEAN_TARGET
    again, *_ = judge(silent, report(pattern, versions=(V1, V2)), FEWEST)
    assert again.decisions["v2"].decision is Action.ROLLBACK
    for told in ((), (trigger(state=TriggerState.ENDED, versions=(effect("v2", 90, 3, works=False),)),)):
        refuted, *_ = judge(held, report(nothing, versions=alone, triggers=told), FEWEST)
        assert refuted.decisions["v2"].reason is Reason.HEALTHY


def test_a_comparison_that_ends_is_no_acquittal() -> None:
    """The stable version goes while a canary is held for its errors beside it: it stays on hold. What only was on its way, or fell in the comparison, ends."""
    page = finding(CANARY_ERRORS, PAGE)
    thin = (facts("v1", 10, stable=True), V2)
    over = msgspec.structs.replace(finding(CANARY_ERRORS, GONE), compared_with=None)
    for evidence, ends, action in (
        (page, over, Action.HOLD),
        (page, finding(CANARY_ERRORS, GONE), Action.KEEP),
        (finding(CANARY_ERRORS, WATCH), over, Action.KEEP),
    ):
        standing, *_ = judge(Standing(), report(evidence, versions=thin), FEWEST)
        assert standing.decisions["v2"].decision is Action.HOLD
        standing, alerts, *_ = judge(standing, report(ends, versions=thin), FEWEST)
        assert [a.state for a in alerts] == [AlertState.RESOLVED]
        assert standing.decisions["v2"].decision is action


def test_no_news_tells_nothing_and_an_alert_without_traffic_stays() -> None:
    """A report in which a version says nothing leaves its alerts and decisions as they are, however late it comes."""
    standing, *_ = judge(Standing(), report(finding(CANARY_ERRORS, PAGE)), FEWEST)
    for time in (660.0, 1e6, 1e9):
        after, alerts, news, _ = judge(standing, report(time=time), FEWEST)
        assert (alerts, news) == ([], [])
        assert after.alerts == standing.alerts


def test_without_a_page_that_fires_there_is_no_rollback() -> None:
    """A proof that was a ticket beside a page which has ended, and that fades itself, is held; as strong as ever it pages and is acted on."""
    waits = finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONTRAST, Sign.AWAITED)
    thin = (facts("v1", 10, stable=True), V2)
    standing, *_ = judge(Standing(), report(waits, finding(CANARY_ERRORS, PAGE), versions=thin), FEWEST)
    over = finding(TRIGGERS, GONE)
    held, *_ = judge(standing, report(over, finding(CANARY_ERRORS, WATCH)), FEWEST)
    assert (held.decisions["v2"].decision, held.decisions["v2"].reason) == (Action.HOLD, Reason.EVIDENCE_PENDING)
    acted, *_ = judge(held, report(over, finding(CANARY_ERRORS, PAGE)), FEWEST)
    assert acted.decisions["v2"].decision is Action.ROLLBACK
