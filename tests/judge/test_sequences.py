"""Whatever happens in whatever order: reports, orders of people, restarts, versions that come and go."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.errors import OrderError
from poisonwatch.judge.cause import PROOFS
from poisonwatch.judge.decision import HARM, is_condemned
from poisonwatch.judge.orders import expired, order, withdraw
from poisonwatch.judge.override import Override
from poisonwatch.judge.standing import Standing, effective, judge
from poisonwatch.profile.indicators import CANARY_ERRORS, ERRORS, FLIPS, INPUTS, OUTPUTS, TRIGGERS
from poisonwatch.types import Action, AlertState, Reason, Report, Severity, Sign, VersionFacts
from tests.judge.findings import FEWEST, GONE, PAGE, WATCH, facts, finding, report

ELDERS = {"v0": (), "v1": ("v0",), "v2": ("v1", "v0")}

found = st.lists(
    st.tuples(
        st.sampled_from([CANARY_ERRORS, ERRORS, OUTPUTS, INPUTS, FLIPS, TRIGGERS, TRIGGERS]),
        st.sampled_from([*ELDERS, "v2", "v2", None]),
        st.sampled_from([GONE, WATCH, PAGE, PAGE]),
        st.sampled_from([0.1, 1.0, 1.0]),
        st.sets(st.sampled_from([Sign.CONTRAST, Sign.CONFIRMED, Sign.AWAITED, Sign.REFUTED])),
    ),
    max_size=4,
    unique_by=lambda one: one[:2],
)
told = st.fixed_dictionaries(
    {
        "found": found,
        "triggered": st.sets(st.sampled_from(sorted(ELDERS)), max_size=1),
        "gone": st.one_of(st.just(set()), st.just(set()), st.sets(st.sampled_from(sorted(ELDERS)), max_size=2)),
        "young": st.booleans(),
        "wish": st.one_of(
            st.none(),
            st.none(),
            st.tuples(
                st.sampled_from([*Action, None]),
                st.sampled_from(sorted(ELDERS)),
                st.sampled_from([None, *sorted(ELDERS), "v9"]),
                st.integers(1, 4),
            ),
        ),
    }
)


def versions_of(one: dict[str, Any]) -> tuple[VersionFacts, ...]:
    """The versions that run, in a step."""
    return tuple(
        facts(name, 10 if one["young"] and name == "v1" else 1000, *elders, triggered=name in one["triggered"])
        for name, elders in ELDERS.items()
        if name not in one["gone"]
    )


def report_of(one: dict[str, Any], standing: Standing, number: int) -> Report:
    """What a step reports."""
    running = versions_of(one)
    names = {f.model_version for f in running}
    evidence = [finding(g, e, of, effect, *signs) for g, of, e, effect, signs in one["found"] if of in {*names, None}]
    retired = tuple(name for name in standing.decisions if name not in names)
    return report(*evidence, time=600.0 * number, versions=running, retired=retired)


def ordered(standing: Standing, one: dict[str, Any], number: int) -> Standing:
    """What stands after what a person orders in a step, if anything; refusals change nothing."""
    for over in expired(standing, float(number)):
        standing = withdraw(standing, over.model_version)
    if one["wish"] is None:
        return standing
    action, version, target, lasts = one["wish"]
    with suppress(OrderError):
        if action is None:
            return withdraw(standing, version)
        wish = Override(
            model="mail",
            model_version=version,
            decision=action,
            author="ann",
            reason="so",
            time=float(number),
            expires=float(number + lasts),
            target=target,
        )
        return order(standing, wish, versions_of(one), FEWEST)
    return standing


@settings(max_examples=150)
@given(st.lists(told, max_size=8))
def test_whatever_happens(steps: list[dict[str, Any]]) -> None:
    """One decision per version; a rollback only on proof and to a clean version; latched until a person or the end; told exactly when it changes."""
    standing = Standing()
    heard: dict[str, tuple[object, ...]] = {}
    for number, one in enumerate(steps):
        before = ordered(standing, one, number)
        for name, own in standing.decisions.items():
            assert before.decisions[name] == own, "an order moves no decision of ours"
        now = report_of(one, before, number)
        judged = judge(before, now, FEWEST)
        after = judged.standing
        assert judge(restarted(before), now, FEWEST) == judged, "a restart between two reports changes nothing"
        running = {f.model_version: f for f in now.versions}
        assert set(after.decisions) == set(effective(after)) == set(after.told) == set(running)
        assert set(after.overrides) <= set(running)
        assert set(after.latched) <= {*running, *after.rollbacks}
        for name, own in after.decisions.items():
            latched_before, said = before.latched.get(name), before.overrides.get(name)
            assert (own.target is not None) == (own.decision is Action.ROLLBACK)
            if own.decision is Action.ROLLBACK:
                rolled = latched_before is not None and latched_before.decision is Action.ROLLBACK
                harm = [a for a in after.alerts.values() if a.model_version == name and a.cause in HARM]
                proven = [a for a in harm if a.state is AlertState.FIRING and a.group in PROOFS]
                settled = [a for a in proven if not {Sign.AWAITED, Sign.REFUTED} & set(a.because)]
                assert rolled or settled
                own_pages = [a for a in harm if a.severity is Severity.PAGE and a.state is AlertState.FIRING]
                assert rolled or own_pages
                sound(own.target, own.model_version, after, before, running)
            if latched_before is not None and name in running:
                assert own.decision is not Action.KEEP, "what latched is never kept"
                if latched_before.decision is Action.ROLLBACK:
                    assert own.decision is Action.ROLLBACK or own.reason is Reason.NO_CLEAN_TARGET
            if said is not None and name in after.overrides:
                held = effective(after)[name]
                if said.target is not None and is_condemned(said.target, after):
                    assert (held.decision, held.reason, held.target) == (Action.HOLD, Reason.OVERRIDDEN, None)
                else:
                    assert (held.decision, held.reason, held.target) == (said.decision, Reason.OVERRIDDEN, said.target)
                assert said.target != name
        for decision in judged.decisions:
            assert heard.get(decision.model_version) != gist(decision), "told twice"
            heard[decision.model_version] = gist(decision)
        heard = {name: one for name, one in heard.items() if name in running}
        assert heard == {name: gist(decision) for name, decision in effective(after).items()}
        standing = after


def sound(target: str | None, name: str, after: Standing, before: Standing, running: dict[str, VersionFacts]) -> None:
    """A target is another version that is not compromised, by anybody's word."""
    assert target is not None
    assert target != name
    assert target in ELDERS[name]
    assert target not in before.latched
    assert target not in before.rollbacks
    if target in running:
        assert not running[target].triggered
        proven = [
            a
            for a in after.alerts.values()
            if a.model_version == target and a.state is AlertState.FIRING and a.cause in HARM and a.group in PROOFS
        ]
        assert not [a for a in proven if not {Sign.AWAITED, Sign.REFUTED} & set(a.because)]
        said = after.overrides.get(target)
        assert said is None or said.decision is not Action.ROLLBACK


def gist(decision: Any) -> tuple[object, ...]:
    """What makes a decision worth telling."""
    return decision.decision, decision.reason, decision.target, decision.cause == "backdoor"


def restarted(standing: Standing) -> Standing:
    """What stands, saved and restored as a checkpoint does."""
    return msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(standing))), Standing)


@settings(max_examples=60)
@given(st.lists(found, max_size=12))
def test_decisions_change_no_more_often_than_alerts(windows: list[list[Any]]) -> None:
    """No flapping: while the facts stay as they are, decisions change only in a report that changes an alert."""
    standing = judge(Standing(), report(versions=versions_of(STILL)), FEWEST).standing
    changes = alerts = 0
    for number, window in enumerate(windows):
        before = standing
        judged = judge(before, report_of({**STILL, "found": window}, before, number), FEWEST)
        standing = judged.standing
        if not judged.alerts:
            assert not judged.decisions
        changes += len(judged.decisions)
        alerts += len(judged.alerts)
        again = judge(standing, report_of({**STILL, "found": window}, standing, number), FEWEST)
        if not again.alerts:
            assert not again.decisions, "the same evidence again tells nothing"
    # What is found of one version changes the targets of the others.
    assert changes <= len(ELDERS) * alerts


STILL: dict[str, Any] = {"found": [], "triggered": set(), "gone": set(), "young": False}
