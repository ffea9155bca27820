"""One decision per version: every reason is reached, and a rollback never without proof and a clean target."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.judge.alerts import step_alerts
from poisonwatch.judge.cause import PROOFS
from poisonwatch.judge.decision import HARM, decide
from poisonwatch.judge.standing import Standing
from poisonwatch.profile.indicators import (
    CANARY_CONFIDENCE,
    CANARY_ERRORS,
    CONFIDENCE_FALL,
    COVERAGE,
    ERRORS,
    FLIPS,
    GOLDEN,
    GOLDEN_CHANGE,
    INPUTS,
    OUTPUTS,
    QUALITY,
    SLICE_ERRORS,
    SOURCES,
    TRIGGERS,
)
from poisonwatch.types import Action, Alert, AlertState, Cause, Decision, Evidence, Reason, Severity, Sign, VersionFacts
from tests.judge.findings import FEWEST, GROUPS, PAGE, V1, V2, WATCH, facts, finding

YOUNG = facts("v2", FEWEST - 1, "v1")
TRIGGERED = facts("v2", 1000, "v1", triggered=True)
KEEP, HOLD, ROLLBACK = Action.KEEP, Action.HOLD, Action.ROLLBACK


def trigger(*signs: Sign, of: str = "v2") -> Evidence:
    """Evidence on triggers of a version."""
    return finding(TRIGGERS, PAGE, of, 1.0, *signs)


def decided(
    *evidence: Evidence,
    of: VersionFacts = V2,
    beside: tuple[VersionFacts, ...] = (V1,),
    before: dict[str, Decision] | None = None,
    clean: tuple[str, ...] = (),
) -> Decision:
    """The decision for a version after this evidence."""
    alerts, _ = step_alerts({}, evidence, 0.0)
    before = before or {}
    latched = {name: one for name, one in before.items() if one.decision is ROLLBACK}
    return decide("mail", of, (*beside, of), Standing(alerts, before, clean, latched), FEWEST, 600.0)


def rollback_of(version: str) -> Decision:
    """A rollback that stands."""
    return Decision(
        model="mail",
        model_version=version,
        decision=ROLLBACK,
        reason=Reason.WORSE_THAN_STABLE,
        cause=Cause.DEGRADATION,
        target="v0",
        alerts=(),
        time=1.0,
        summary="",
    )


TABLE: list[tuple[list[Evidence], VersionFacts, Action, Reason, Cause | None]] = [
    ([], V2, KEEP, Reason.HEALTHY, None),
    ([finding(OUTPUTS, WATCH)], V2, KEEP, Reason.HEALTHY, None),
    ([finding(QUALITY, WATCH, None)], V2, KEEP, Reason.HEALTHY, None),
    ([finding(QUALITY, PAGE, None)], V2, HOLD, Reason.DATA_QUALITY, Cause.DATA_QUALITY),
    ([finding(CANARY_ERRORS, PAGE, "v3")], V2, KEEP, Reason.HEALTHY, None),
    ([], YOUNG, HOLD, Reason.INSUFFICIENT_DATA, None),
    ([finding(INPUTS, PAGE)], YOUNG, HOLD, Reason.INSUFFICIENT_DATA, None),
    ([finding(INPUTS, PAGE)], V2, KEEP, Reason.INPUTS_MOVED, Cause.INPUT_DRIFT),
    ([finding(INPUTS, PAGE), finding(OUTPUTS, PAGE)], V2, KEEP, Reason.INPUTS_MOVED, Cause.INPUT_DRIFT),
    ([finding(OUTPUTS, PAGE)], V2, HOLD, Reason.OUTPUTS_MOVED, Cause.OUTPUT_CHANGE),
    ([finding(OUTPUTS, PAGE)], YOUNG, HOLD, Reason.OUTPUTS_MOVED, Cause.OUTPUT_CHANGE),
    ([finding(CANARY_CONFIDENCE, PAGE), finding(INPUTS, PAGE)], V2, HOLD, Reason.OUTPUTS_MOVED, Cause.OUTPUT_CHANGE),
    ([finding(QUALITY, PAGE)], V2, HOLD, Reason.DATA_QUALITY, Cause.DATA_QUALITY),
    ([finding(QUALITY, PAGE), finding(INPUTS, PAGE)], V2, HOLD, Reason.DATA_QUALITY, Cause.DATA_QUALITY),
    ([finding(CANARY_ERRORS, WATCH)], V2, HOLD, Reason.EVIDENCE_PENDING, Cause.DEGRADATION),
    ([finding(CANARY_ERRORS, PAGE, effect=0.1)], V2, HOLD, Reason.EVIDENCE_PENDING, Cause.DEGRADATION),
    ([finding(CANARY_ERRORS, PAGE)], V2, ROLLBACK, Reason.WORSE_THAN_STABLE, Cause.DEGRADATION),
    ([finding(CANARY_ERRORS, PAGE), finding(QUALITY, PAGE)], V2, ROLLBACK, Reason.WORSE_THAN_STABLE, Cause.DEGRADATION),
    ([finding(CANARY_ERRORS, PAGE)], YOUNG, ROLLBACK, Reason.WORSE_THAN_STABLE, Cause.DEGRADATION),
    ([finding(ERRORS, PAGE)], V2, ROLLBACK, Reason.MORE_ERRORS, Cause.DEGRADATION),
    ([finding(SLICE_ERRORS, PAGE)], V2, ROLLBACK, Reason.MORE_ERRORS, Cause.SLICE_DEGRADATION),
    ([finding(ERRORS, PAGE, "v2", 1.0, Sign.SLOW)], V2, ROLLBACK, Reason.MORE_ERRORS, Cause.BASELINE_CREEP),
    ([finding(FLIPS, PAGE), finding(CONFIDENCE_FALL, PAGE)], V2, HOLD, Reason.PROOF_MISSING, Cause.DEGRADATION),
    ([trigger(Sign.CONTRAST)], V2, ROLLBACK, Reason.TRIGGER_UNCONFIRMED, Cause.BACKDOOR),
    ([trigger(Sign.CONTRAST, Sign.CONFIRMED)], V2, ROLLBACK, Reason.TRIGGER_CONFIRMED, Cause.BACKDOOR),
    ([trigger(Sign.CONTRAST)], YOUNG, ROLLBACK, Reason.TRIGGER_UNCONFIRMED, Cause.BACKDOOR),
    ([trigger(Sign.CONTRAST, Sign.AWAITED)], V2, HOLD, Reason.EVIDENCE_PENDING, Cause.BACKDOOR),
    ([trigger(Sign.CONTRAST, Sign.REFUTED)], V2, HOLD, Reason.TRIGGER_UNCONFIRMED, Cause.BACKDOOR),
    (
        [trigger(Sign.CONTRAST, Sign.AWAITED), finding(FLIPS, PAGE), finding(CONFIDENCE_FALL, PAGE)],
        V2,
        HOLD,
        Reason.EVIDENCE_PENDING,
        Cause.BACKDOOR,
    ),
    ([trigger()], V2, HOLD, Reason.OUTPUTS_MOVED, Cause.OUTPUT_CHANGE),
    ([trigger(Sign.CONTRAST), trigger(of="v1")], V2, HOLD, Reason.NO_CLEAN_TARGET, Cause.BACKDOOR),
    ([trigger(Sign.CONTRAST), finding(ERRORS, PAGE)], V2, ROLLBACK, Reason.TRIGGER_UNCONFIRMED, Cause.BACKDOOR),
    (
        [trigger(Sign.CONTRAST, Sign.AWAITED), finding(ERRORS, PAGE)],
        V2,
        ROLLBACK,
        Reason.MORE_ERRORS,
        Cause.BACKDOOR,
    ),
    ([trigger(Sign.CONTRAST, of="v3")], V2, KEEP, Reason.HEALTHY, None),
    ([trigger(Sign.CONTRAST, of="v1")], TRIGGERED, HOLD, Reason.TRIGGER_UNCONFIRMED, Cause.BACKDOOR),
    ([], TRIGGERED, KEEP, Reason.HEALTHY, None),
    ([finding(GOLDEN, PAGE)], V2, ROLLBACK, Reason.MORE_ERRORS, Cause.DEGRADATION),
    ([finding(GOLDEN_CHANGE, PAGE)], V2, HOLD, Reason.OUTPUTS_MOVED, Cause.OUTPUT_CHANGE),
    ([finding(SOURCES, PAGE, None)], V2, HOLD, Reason.FEEDBACK_SUSPECT, Cause.FEEDBACK_POISONING),
    ([finding(QUALITY, PAGE, None, 1.0, Sign.MOSTLY_LOST)], V2, HOLD, Reason.BLIND, Cause.BLIND),
    ([finding(ERRORS, PAGE, None, 1.0, Sign.UNFIT)], V2, KEEP, Reason.REFERENCE_UNFIT, Cause.REFERENCE_UNFIT),
    (
        [finding(CANARY_ERRORS, PAGE), finding(CANARY_ERRORS, PAGE, "v1")],
        V2,
        HOLD,
        Reason.NO_CLEAN_TARGET,
        Cause.DEGRADATION,
    ),
]


@pytest.mark.parametrize(("evidence", "of", "action", "reason", "cause"), TABLE)
def test_every_row_of_the_table(
    evidence: list[Evidence], of: VersionFacts, action: Action, reason: Reason, cause: Cause | None
) -> None:
    """What was found of a version leads to this decision, for this reason, resting on alerts of that cause."""
    found = decided(*evidence, of=of)
    assert (found.decision, found.reason, found.cause) == (action, reason, cause)
    assert found.target == ("v1" if action is ROLLBACK else None)
    assert bool(found.alerts) == (cause is not None)
    assert found.summary
    assert found.time == 600.0


def test_the_table_is_complete() -> None:
    """Every reason, every action and every cause is in it."""
    assert {row[3] for row in TABLE} == set(Reason) - {Reason.OVERRIDDEN}
    assert {row[2] for row in TABLE} == set(Action)
    assert {row[4] for row in TABLE} == {*Cause, None}


@pytest.mark.parametrize(
    ("beside", "before"),
    [
        ((), {}),
        ((facts("v0", stable=True),), {}),
        ((facts("v1", FEWEST - 1, stable=True),), {}),
        ((V1,), {"v1": rollback_of("v1")}),
        ((facts("v1", stable=True, triggered=True),), {}),
    ],
)
def test_a_target_must_be_known_to_be_clean(beside: tuple[VersionFacts, ...], before: dict[str, Decision]) -> None:
    """Nothing beside it, nothing stable, too little traffic, condemned, or with a trigger of its own: then hold, and say that there is no target."""
    found = decided(finding(CANARY_ERRORS, PAGE), beside=beside, before=before)
    assert (found.decision, found.reason, found.target) == (HOLD, Reason.NO_CLEAN_TARGET, None)


def test_a_version_is_never_its_own_target() -> None:
    """A page against the stable version itself has no target."""
    found = decided(finding(CANARY_ERRORS, PAGE, "v1"), of=V1, beside=(V2,))
    assert found.reason is Reason.NO_CLEAN_TARGET


def test_a_rollback_latches() -> None:
    """Once recommended it stands unchanged, whatever is or is not found afterwards."""
    standing = rollback_of("v2")
    for evidence in ([], [finding(INPUTS, PAGE)], [finding(CANARY_ERRORS, PAGE)], [trigger()]):
        assert decided(*evidence, before={"v2": standing}) is standing


def test_a_trigger_that_is_found_later_is_told_by_the_rollback_that_stands() -> None:
    """Found, the cause becomes a backdoor; confirmed, the reason too; then nothing moves any more, and the target never did."""
    standing = rollback_of("v2")
    awaited = decided(trigger(Sign.CONTRAST, Sign.AWAITED), before={"v2": standing})
    assert (awaited.decision, awaited.target) == (ROLLBACK, "v0")
    assert (awaited.reason, awaited.cause) == (Reason.WORSE_THAN_STABLE, Cause.BACKDOOR)
    assert "where the text has 'xyz'" in awaited.summary
    assert decided(trigger(Sign.CONTRAST), before={"v2": awaited}) is awaited
    confirmed = decided(trigger(Sign.CONFIRMED), before={"v2": awaited})
    assert (confirmed.decision, confirmed.target) == (ROLLBACK, "v0")
    assert (confirmed.reason, confirmed.cause) == (Reason.TRIGGER_CONFIRMED, Cause.BACKDOOR)
    for evidence in ([], [trigger(Sign.CONTRAST)], [trigger(Sign.CONFIRMED)]):
        assert decided(*evidence, before={"v2": confirmed}) is confirmed


def test_a_target_in_which_the_trigger_works_is_given_up() -> None:
    """A rollback that stands does not go on naming a version that turns out to follow the trigger: another clean one, or none."""
    before = {"v2": msgspec.structs.replace(rollback_of("v2"), target="v1")}
    poisoned = facts("v1", stable=True, triggered=True)
    of = facts("v2", 1000, "v1", "v0")
    found = decided(trigger(Sign.CONFIRMED), of=of, beside=(poisoned,), before=before, clean=("v0",))
    assert (found.decision, found.target) == (ROLLBACK, "v0")
    found = decided(trigger(Sign.CONFIRMED), of=of, beside=(poisoned,), before=before)
    assert (found.decision, found.reason, found.target) == (HOLD, Reason.NO_CLEAN_TARGET, None)


def test_the_summary_says_what_is_known_and_what_is_awaited() -> None:
    """On-call reads the trigger, what proves the harm beside it, and where to go, or what the decision waits for."""
    told = trigger(Sign.CONTRAST).told
    assert decided(trigger(Sign.CONTRAST)).summary == f"{told} Roll back to v1."
    waits = decided(trigger(Sign.CONTRAST, Sign.AWAITED)).summary
    assert waits == f"{told} The decision waits for the inference endpoint to confirm or refute it."
    proven = decided(trigger(Sign.CONTRAST, Sign.AWAITED), finding(ERRORS, PAGE)).summary
    assert proven.startswith(f"{told} mail v2: ")
    assert "the model got worse. About 20 % of its predictions are touched" in proven
    assert proven.endswith(" Roll back to v1.")
    elsewhere = decided(trigger(Sign.CONTRAST, of="v1"), of=TRIGGERED).summary
    assert elsewhere == f"A trigger that was found in another version works in v2, too. {told}"


def test_the_most_recent_clean_elder_is_the_target() -> None:
    """In the order of the elders: one that runs must have shown enough and be clean, one that is gone remembered as clean."""
    three = facts("v3", 1000, "v2", "v1", "v0")
    page = finding(ERRORS, PAGE, "v3")

    def target(*evidence: Evidence, beside: tuple[VersionFacts, ...], clean: tuple[str, ...] = ()) -> str | None:
        return decided(page, *evidence, of=three, beside=beside, clean=clean).target

    assert target(beside=(V1, V2)) == "v2"
    assert target(finding(OUTPUTS, PAGE, "v2"), beside=(V1, V2)) == "v1"
    assert target(beside=(V1, YOUNG)) == "v1"
    assert target(beside=(V1,), clean=("v2",)) == "v2"
    assert target(beside=(V1,), clean=("v9", "v0")) == "v1"
    assert target(beside=(), clean=("v9", "v0")) == "v0"
    assert target(finding(ERRORS, PAGE, "v1"), beside=(V1,), clean=("v1",)) is None


versions = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2", "v3"]),
        st.sampled_from([0, FEWEST - 1, FEWEST, 10_000]),
        st.lists(st.sampled_from(["v0", "v1", "v2", "v3"]), unique=True),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda version: version[0],
)
findings = st.lists(
    st.tuples(
        st.sampled_from([*GROUPS, *[TRIGGERS] * 5]),
        st.sampled_from(["v1", "v2", "v3", None]),
        st.sampled_from([WATCH, PAGE]),
        st.sampled_from([0.1, 1.0]),
        st.sets(st.sampled_from([Sign.CONTRAST, Sign.CONFIRMED, Sign.AWAITED])),
    ),
    max_size=8,
    unique_by=lambda found: found[:2],
)


@given(
    versions=versions,
    found=findings,
    condemned=st.sets(st.sampled_from(["v1", "v2", "v3"])),
    gone=st.sets(st.sampled_from(["v0", "v1", "v2", "v3"])),
)
def test_a_rollback_is_never_without_proof(
    versions: list[tuple[str, int, list[str], bool]],
    found: list[tuple[str, str | None, float, float, set[Sign]]],
    condemned: set[str],
    gone: set[str],
) -> None:
    """Whatever is known: a new rollback has a firing page of that very version and proof, and a target that is older, seen, and accused of nothing."""
    known = [
        facts(name, n, *(elder for elder in elders if elder != name), triggered=triggered)
        for name, n, elders, triggered in versions
    ]
    alerts, _ = step_alerts({}, [finding(group, e, v, effect, *signs) for group, v, e, effect, signs in found], 0.0)
    before = {name: rollback_of(name) for name in condemned}
    for of in known:
        name = of.model_version
        standing = Standing(alerts, before, tuple(sorted(gone)), dict(before))
        decision = decide("mail", of, known, standing, FEWEST, 600.0)
        pages = own_pages(alerts, name)
        concern = {a.fingerprint for a in alerts.values() if a.model_version in {name, None}}
        works = {a.fingerprint for a in alerts.values() if a.cause is Cause.BACKDOOR and of.triggered}
        assert set(decision.alerts) <= concern | works
        assert (decision.target is not None) == (decision.decision is ROLLBACK)
        if name in condemned:
            assert (decision.decision, decision.target) == (ROLLBACK, "v0")
            assert decision is before[name] or decision.cause is Cause.BACKDOOR
        elif decision.decision is ROLLBACK:
            harm = [a for a in alerts.values() if a.fingerprint in decision.alerts]
            assert {(a.model_version, a.state, a.cause in HARM) for a in harm} == {(name, AlertState.FIRING, True)}
            assert any(a.group in PROOFS and Sign.AWAITED not in a.because for a in harm)
            assert any(page.state is AlertState.FIRING for page in pages)
            assert decision.target in of.elders
            running = [f for f in known if f.model_version == decision.target]
            assert running or decision.target in gone
            for target in running:
                assert target.predictions >= FEWEST
                assert target.model_version not in {name, *condemned}
                assert not target.triggered
                assert not own_pages(alerts, target.model_version)
        elif pages:
            assert decision.decision is HOLD


def own_pages(alerts: dict[str, Alert], version: str) -> list[Alert]:
    """Alerts of a version that are pages, firing or not."""
    return [a for a in alerts.values() if a.model_version == version and a.severity is Severity.PAGE]


@given(
    versions=versions,
    found=findings,
    signs=st.sets(st.sampled_from([Sign.CONTRAST, Sign.SATURATED])),
    predictions=st.sampled_from([FEWEST, 10_000]),
)
def test_a_confirmed_trigger_and_a_clean_elder_make_a_rollback(
    versions: list[tuple[str, int, list[str], bool]],
    found: list[tuple[str, str | None, float, float, set[Sign]]],
    signs: set[Sign],
    predictions: int,
) -> None:
    """Whatever else is known of whom: what is confirmed by insertion is rolled back, and to the elder that nothing speaks against."""
    known = [facts(name, n, *elders, triggered=triggered) for name, n, elders, triggered in versions if name == "v3"]
    of, elder = facts("v2", 1000, "v3", "v1", triggered=True), facts("v1", predictions)
    evidence = [
        finding(group, e, version, effect, *more)
        for group, version, e, effect, more in found
        if version not in {"v1", "v3"} and (group, version) != (TRIGGERS, "v2")
    ]
    dirty = finding(ERRORS, PAGE, "v3")
    alerts, _ = step_alerts({}, [*evidence, dirty, trigger(Sign.CONFIRMED, *signs)], 0.0)
    decision = decide("mail", of, (*known, elder, of), Standing(alerts), FEWEST, 600.0)
    assert (decision.decision, decision.target) == (ROLLBACK, "v1")
    assert (decision.reason, decision.cause) == (Reason.TRIGGER_CONFIRMED, Cause.BACKDOOR)
    assert trigger(Sign.CONFIRMED).told in decision.summary


@pytest.mark.parametrize("of", [None, "v2"])
@pytest.mark.parametrize("signs", [(), (Sign.LASTING,)])
def test_who_is_not_seen_is_not_kept(of: str | None, signs: tuple[Sign, ...]) -> None:
    """A ticket or a page: held as blind, not for evidence on its way; a version's own account holds nobody else."""
    known = (facts("v1", 10_000, stable=True), facts("v2", 10_000, "v1"))
    alerts, _ = step_alerts({}, [finding(COVERAGE, PAGE, of, 1.0, *signs)], 0.0)
    decided = {f.model_version: decide("mail", f, known, Standing(alerts), FEWEST, 600.0) for f in known}
    assert (decided["v2"].decision, decided["v2"].reason, decided["v2"].cause) == (HOLD, Reason.BLIND, Cause.BLIND)
    other = (HOLD, Reason.BLIND) if of is None else (Action.KEEP, Reason.HEALTHY)
    assert (decided["v1"].decision, decided["v1"].reason) == other


def test_every_reason_and_every_state_of_a_rollback_is_documented() -> None:
    """docs/decisions.md has a row for each reason with its decision, and one for each state."""
    rows = {
        tuple(cell.strip(" `") for cell in line.split("|")[1:3])
        for line in (Path(__file__).parents[2] / "docs" / "decisions.md").read_text("utf-8").splitlines()
        if line.startswith("| `")
    }
    told = {(reason.value, action.value) for _, _, action, reason, _ in TABLE}
    reasons = {reason.value for reason in Reason}
    assert {row for row in rows if row[0] in reasons} == told | {(Reason.OVERRIDDEN.value, "any")}
    assert {state.value for state in RollbackState} <= {row[0] for row in rows}
