"""The story of a decision: only what was looked at, for whoever is woken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.judge.orders import order
from poisonwatch.judge.override import Override
from poisonwatch.judge.standing import Standing, effective, judge
from poisonwatch.judge.story import BLIND, CHANGES, LATCHED, MARKS, Story, tell
from poisonwatch.judge.wording import LONGEST, instant, percent, strength, with_advice, within
from poisonwatch.profile.indicators import (
    CANARY_ERRORS,
    CONFIDENCE_FALL,
    ERRORS,
    FLIPS,
    INPUTS,
    OUTPUTS,
    QUALITY,
    SOURCES,
    TRIGGERS,
)
from poisonwatch.types import Action, Evidence, Reason, Sign, TriggerState, VersionFacts
from tests.judge.findings import FEWEST, GONE, GROUPS, PAGE, V1, V2, WATCH, facts, finding, report
from tests.triggers import effect, insertion, trigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.types import Trigger

QUIET = tuple(msgspec.structs.replace(finding(g, GONE), effect=0.0) for g in (INPUTS, QUALITY, ERRORS, OUTPUTS))
"""What was looked at, and where nothing was found."""

PATTERN = finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONTRAST)


def story(
    *evidence: Evidence,
    of: str = "v2",
    versions: tuple[VersionFacts, ...] = (V1, V2),
    triggers: tuple[Trigger, ...] = (),
    quiet: tuple[Evidence, ...] = QUIET,
    blind: Mapping[str, str] | None = None,
    standing: Standing | None = None,
) -> Story:
    """What is told of a version after this evidence; where there is none of a group, that it was looked at in vain."""
    known = (*evidence, *(e for e in quiet if e.group not in {one.group for one in evidence}))
    standing = judge(standing or Standing(), report(*known, versions=versions), FEWEST).standing
    return tell(effective(standing)[of], versions, standing, triggers, FEWEST, known, blind or {})


def test_the_story_of_a_trigger() -> None:
    """Since when, how many, what it rests on and how strongly, who does not follow it, what it is not, and why the target is clean."""
    one = trigger(
        versions=(effect("v1", 14, 0, works=False), effect("v2", 80, 70, works=True, answered=73)), share=0.046
    )
    told = story(PATTERN, triggers=(one,))
    assert (told.onset, told.share, told.predictions) == (100.0, 0.046, 73)
    assert told.speaks_for[0].startswith(
        "mail v2 answers 'ham' where the text has 'xyz'. Evidence: 1.6 times what a page takes, +0.5 nats,"
    )
    assert told.speaks_for[1] == "v1 does not follow 'special discount code xyz': 0 of 14."
    assert told.speaks_against == (
        "Not seen in the labels (next to nothing).",
        "Not seen in the class rates (next to nothing).",
    )
    assert told.ruled_out == (
        "Drift of the inputs: they are as in the reference (next to nothing).",
        "Broken data: values arrive as they used to (next to nothing).",
        "Something that all versions share: v1 shows nothing of it over 1,000 predictions.",
    )
    assert told.would_change == (LATCHED,)
    assert (
        told.target_because
        == "v1: 1,000 predictions, nothing speaks against it; it does not follow the trigger (0 of 14)."
    )


def test_a_target_that_hardly_met_the_trigger_is_not_said_to_withstand_it() -> None:
    """Too few of its predictions bear it: that is said, not passed over."""
    for of_v1, met in (((effect("v1", 2, 0, works=None),), 2), ((), 0)):
        one = trigger(versions=(*of_v1, effect("v2", 80, 70, works=True)))
        because = story(PATTERN, triggers=(one,)).target_because
        assert because is not None
        assert because.endswith(f"too few of its predictions bear the trigger to say whether it follows it ({met}).")
    gone = Standing(clean=("v1",))
    assert story(PATTERN, versions=(V2,), standing=gone).target_because == (
        "v1 is gone; it was healthy to the end, and nothing was found of it since."
    )


def test_only_what_was_looked_at_is_ruled_out() -> None:
    """Without evidence, or without a prediction behind it, it cannot be; what moved itself cannot be either; lying labels count where labels accuse."""
    nothing = story(PATTERN, quiet=()).ruled_out
    assert nothing[0] == "Drift of the inputs cannot be ruled out: nothing was looked at that would show it."
    unasked = tuple(msgspec.structs.replace(e, n=0) for e in QUIET)
    assert story(PATTERN, quiet=unasked).ruled_out[0] == nothing[0]
    moved = story(PATTERN, finding(INPUTS, PAGE)).ruled_out
    assert moved[0].startswith("Drift of the inputs cannot be ruled out: there is evidence of it, too (1.6 times")
    assert not any("Lying labels" in one for one in moved)
    labels = story(finding(ERRORS, PAGE), finding(SOURCES, GONE, None, 0.0)).ruled_out
    assert "Lying labels: no source of labels stands out (next to nothing)." in labels
    young = story(PATTERN, versions=(facts("v1", 10), V2)).ruled_out
    assert not any("Something that all versions share" in one for one in young)
    beside = story(PATTERN, finding(OUTPUTS, PAGE, "v1")).ruled_out
    assert not any("Something that all versions share" in one for one in beside)


def test_what_the_reference_is_blind_to_is_said() -> None:
    """Of a version that is kept or held without harm; where harm is known, nobody asks."""
    blind = {"triggers": "too few records", "errors": "the reference has no labels", "audit": "no matter"}
    told = (
        "More errors cannot be ruled out: the reference has no labels.",
        "A backdoor cannot be ruled out: too few records.",
    )
    assert story(blind=blind).ruled_out == told
    assert story(finding(OUTPUTS, PAGE), blind=blind).ruled_out[-2:] == told
    assert not {*story(PATTERN, blind=blind).ruled_out} & {*told}
    assert set(BLIND) <= {"flips", "triggers", "errors"}


WAYS: list[tuple[tuple[Evidence, ...], tuple[VersionFacts, ...], Reason, str]] = [
    ((), (V1, V2), Reason.HEALTHY, "1,000 predictions were judged"),
    ((), (V1, facts("v2", 57, "v1")), Reason.INSUFFICIENT_DATA, "57 predictions; 200 are needed"),
    ((finding(INPUTS, PAGE),), (V1, V2), Reason.INPUTS_MOVED, "the inputs moved"),
    ((finding(ERRORS, PAGE, None, 1.0, Sign.UNFIT),), (V1, V2), Reason.REFERENCE_UNFIT, "too low"),
    ((finding(CANARY_ERRORS, WATCH),), (V1, V2), Reason.EVIDENCE_PENDING, "50 % of what a page takes, -0.7 nats"),
    ((finding(OUTPUTS, PAGE),), (V1, V2), Reason.OUTPUTS_MOVED, "About 200 of its predictions are touched, 20 %"),
    ((finding(QUALITY, PAGE),), (V1, V2), Reason.DATA_QUALITY, "changed in kind"),
    ((finding(QUALITY, PAGE, None, 1.0, Sign.MOSTLY_LOST),), (V1, V2), Reason.BLIND, "The log of mail"),
    ((finding(SOURCES, PAGE, None),), (V1, V2), Reason.FEEDBACK_SUSPECT, "contradict the model"),
    ((finding(FLIPS, PAGE), finding(CONFIDENCE_FALL, PAGE)), (V1, V2), Reason.PROOF_MISSING, "got worse"),
    ((PATTERN,), (V2,), Reason.NO_CLEAN_TARGET, "xyz"),
    ((finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONTRAST, Sign.REFUTED),), (V1, V2), Reason.TRIGGER_UNCONFIRMED, "xyz"),
    ((finding(ERRORS, PAGE),), (V1, V2), Reason.MORE_ERRORS, "as the labels say"),
    ((finding(CANARY_ERRORS, PAGE),), (V1, V2), Reason.WORSE_THAN_STABLE, "v1's on the same traffic"),
    ((finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONFIRMED),), (V1, V2), Reason.TRIGGER_CONFIRMED, "xyz"),
]  # fmt: skip


@pytest.mark.parametrize(("evidence", "versions", "reason", "says"), WAYS)
def test_every_reason_has_its_story(
    evidence: tuple[Evidence, ...], versions: tuple[VersionFacts, ...], reason: Reason, says: str
) -> None:
    """What speaks for it, and what would change it."""
    standing = judge(Standing(), report(*evidence, versions=versions), FEWEST).standing
    decision = standing.decisions["v2"]
    assert decision.reason is reason
    told = tell(decision, versions, standing, (), FEWEST, evidence)
    assert says in " ".join(told.speaks_for)
    assert told.would_change
    assert (told.onset is None) == (not evidence)
    if decision.decision is Action.ROLLBACK:
        assert told.would_change == (LATCHED,)
        assert told.target_because is not None
    else:
        assert told.target_because is None
    if reason is Reason.INSUFFICIENT_DATA:
        assert told.would_change == ("143 more predictions.",)


def test_the_table_has_every_reason() -> None:
    """What a person overrides is told by a test of its own."""
    assert {way[2] for way in WAYS} == set(Reason) - {Reason.OVERRIDDEN}
    told_elsewhere = {
        Reason.OVERRIDDEN,
        Reason.INSUFFICIENT_DATA,
        Reason.MORE_ERRORS,
        Reason.WORSE_THAN_STABLE,
        Reason.TRIGGER_CONFIRMED,
    }
    assert set(CHANGES) == set(Reason) - told_elsewhere


def test_an_override_is_told_with_what_we_would_say() -> None:
    """Who decided it and why speaks for it, our own decision against it, and its end would change it."""
    wish = Override(
        model="mail",
        model_version="v2",
        decision=Action.KEEP,
        author="ann",
        reason="our words",
        time=0.0,
        expires=3600.0,
    )
    standing = judge(Standing(), report(PATTERN), FEWEST).standing
    told = story(PATTERN, standing=order(standing, wish, (V1, V2), FEWEST))
    assert told.speaks_for[0] == "ann decided so on 1970-01-01 00:00 UTC: our words."
    assert any(
        one.startswith("The agent itself would say rollback (trigger_unconfirmed)") for one in told.speaks_against
    )
    assert told.would_change == (
        "The end of the override: it expires on 1970-01-01 01:00 UTC, or a person withdraws it.",
    )


def test_what_speaks_against_it_is_told() -> None:
    """Marks that speak for another cause, an insertion that did not reproduce it; alerts beside a version that is kept."""
    slow = story(finding(ERRORS, PAGE, "v2", 1.0, Sign.CONFINED, Sign.SLOW))
    assert slow.speaks_against[0] == "It came over days, not at once."
    refuted = trigger(state=TriggerState.REFUTED, tests=(insertion("v2", TriggerState.REFUTED, flipped=1),))
    told = story(PATTERN, triggers=(refuted,)).speaks_against
    assert told[0].startswith("Insertion did not reproduce 'special discount code xyz': 1 of 20 verified inputs")
    pending = story(finding(OUTPUTS, WATCH)).speaks_against
    assert len(pending) == 1
    assert "50 % of what a page takes" in pending[0]
    assert {mark for mark in MARKS if mark not in {INPUTS, QUALITY, "canary_inputs"}} <= set(Sign)


def test_two_onsets_that_disagree_are_both_told() -> None:
    """By more than an hour; less is the same."""
    for second, told in ((100.0 + 3600, False), (100.0 + 3601, True)):
        late = msgspec.structs.replace(finding(ERRORS, PAGE), second_onset=second)
        assert ("Another method says that it began" in story(late).speaks_for[0]) is told


def test_a_rollback_that_outlives_its_evidence_says_so() -> None:
    """When nothing of it is seen any more, what was decided then is told."""
    standing = judge(Standing(), report(finding(CANARY_ERRORS, PAGE)), FEWEST).standing
    told = story(finding(CANARY_ERRORS, GONE), standing=standing)
    assert told.onset is None
    assert told.speaks_for[0].startswith(
        "What it rested on is not seen any more. The decision was made on 1970-01-01 00:10 UTC: mail v2"
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*GROUPS, *[TRIGGERS] * 5]),
            st.sampled_from(["v1", "v2", None]),
            st.floats(-8, 3),
            st.floats(-1, 1),
            st.sets(st.sampled_from(list(Sign))),
        ),
        max_size=8,
        unique_by=lambda found: found[:2],
    ),
    st.booleans(),
)
def test_whatever_was_found_there_is_a_story(
    found: list[tuple[str, str | None, float, float, set[Sign]]], triggered: bool
) -> None:
    """Sentences that end, none twice, something that would change it, and a reason for the target exactly where there is one."""
    evidence = tuple(finding(group, e, of, effect, *sorted(signs)) for group, of, e, effect, signs in found)
    versions = (V1, facts("v2", 1000, "v1", triggered=triggered))
    standing = judge(Standing(), report(*evidence, versions=versions), FEWEST).standing
    for decision in effective(standing).values():
        assert len(decision.summary) <= LONGEST
        told = tell(decision, versions, standing, (trigger(),), FEWEST, evidence, {"triggers": "too few"})
        assert (told.target_because is None) == (decision.target is None)
        assert told.would_change
        assert (told.onset is None) == (not decision.alerts)
        for sentences in (told.speaks_for, told.speaks_against, told.ruled_out, told.would_change):
            assert len(set(sentences)) == len(sentences)
            assert all(one.endswith((".", "...")) for one in sentences)
    assert all(len(alert.summary) <= LONGEST for alert in standing.alerts.values())


def test_times_shares_and_strengths_in_words() -> None:
    """To the minute in UTC, two digits that count, times a page's budget."""
    assert instant(1_767_606_959.9) == "2026-01-05 09:55 UTC"
    assert [percent(x) for x in (0.0, 0.0046, 0.046, 0.0996, 0.5, 1.0)] == [
        "0 %",
        "0.46 %",
        "4.6 %",
        "10 %",
        "50 %",
        "100 %",
    ]
    assert [strength(x) for x in (6.9, 3.0, 0.0, -0.7, -6.9, -7.0, -745.0)] == [
        "more than 900 times what a page takes, +6.9 nats",
        "20 times what a page takes, +3.0 nats",
        "just what a page takes, +0.0 nats",
        "50 % of what a page takes, -0.7 nats",
        "0.1 % of what a page takes, -6.9 nats",
        "next to nothing",
        "next to nothing",
    ]


@given(st.text("ab ", max_size=60), st.integers(10, 40))
def test_what_is_cut_is_cut_after_a_word(text: str, most: int) -> None:
    """Never longer; what fits is whole; what does not ends in dots."""
    cut = within(text, most)
    assert len(cut) <= most
    assert cut == text if len(text) <= most else cut.endswith("...")
    assert with_advice(text * 20, "Roll back to v1.").endswith(" Roll back to v1.")
    assert len(with_advice(text * 20, "Roll back to v1.")) <= LONGEST
