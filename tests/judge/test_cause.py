"""The table of causes: every rule is reached, none hides another, and the sentence that people read."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from poisonwatch.judge.budget import SHARES
from poisonwatch.judge.cause import PROOFS, RULES, Rule, diagnose, summarise
from poisonwatch.judge.decision import HARM
from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_INPUTS,
    CONFIDENCE_FALL,
    COVERAGE,
    FLIPS,
    GOLDEN,
    GOLDEN_CHANGE,
    INPUTS,
    OUTPUTS,
    QUALITY,
    REJECTED,
    SOURCES,
    TRIGGERS,
    VOLUME,
)
from poisonwatch.types import Cause, Severity, Sign
from tests.judge.findings import GONE, GROUPS, PAGE, finding

SIGNS = frozenset(Sign)


def told(rule: Rule, *more: str) -> tuple[Cause, Severity, tuple[str, ...], tuple[str, ...]]:
    """The diagnosis of evidence of a rule's group with its marks, and more, beside it."""
    marks = rule.marks | set(more)
    evidence = finding(rule.group, PAGE, "v2", 1.0, *(Sign(mark) for mark in marks & SIGNS))
    return diagnose(evidence, frozenset(marks - SIGNS))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "+".join((rule.group, *sorted(rule.marks))))
def test_every_rule_is_reached_by_its_own_marks(rule: Rule) -> None:
    """Evidence with just these marks has the rule's cause and severity, and names the marks as the reasons for it."""
    cause, severity, because, against = told(rule)
    assert (cause, severity) == (rule.cause, rule.severity)
    assert because == tuple(sorted((rule.group, *rule.marks)))
    assert against == ()


@pytest.mark.parametrize("group", GROUPS)
def test_no_rule_hides_another_and_every_group_has_a_last_one(group: str) -> None:
    """No earlier rule asks for a part of what a later one asks for, and the last asks for nothing."""
    marks = [rule.marks for rule in RULES if rule.group == group]
    for number, earlier in enumerate(marks):
        assert not [later for later in marks[number + 1 :] if earlier <= later]
    assert marks[-1] == frozenset()
    assert all(last for last, _ in pairwise(marks)), "only the last rule may ask for nothing"


def test_the_table_is_complete() -> None:
    """Every cause and severity is in it, and every group that has a share of the budget; rejected lines are told as quality."""
    assert {rule.cause for rule in RULES} == set(Cause)
    assert {rule.severity for rule in RULES} == set(Severity)
    assert set(GROUPS) == set(SHARES) - {REJECTED}


def test_a_page_is_for_harm_or_for_the_feedback() -> None:
    """Whatever pages says that a version does harm, its labels are poisoned, or nothing was seen for long; and harm is never only a ticket."""
    pages = {rule.cause for rule in RULES if rule.severity is Severity.PAGE}
    assert pages == {*HARM, Cause.FEEDBACK_POISONING, Cause.BLIND}
    assert {rule.severity for rule in RULES if rule.cause in pages - {Cause.BLIND}} == {Severity.PAGE}
    blind = [rule for rule in RULES if rule.cause is Cause.BLIND]
    assert all((rule.severity is Severity.PAGE) == (Sign.LASTING in rule.marks) for rule in blind)
    assert {rule.group for rule in blind} == {QUALITY, COVERAGE}
    unproven = {rule.group for rule in RULES if rule.severity is Severity.PAGE and rule not in blind} - PROOFS
    assert unproven == {FLIPS, "slice_flips", SOURCES}


def test_moved_inputs_take_the_proof_out_of_everything_without_labels() -> None:
    """With inputs moved, or routing that depends on them, nothing but labels and shadows pages."""
    everything = SIGNS - {Sign.UNFIT, Sign.BROKEN, *(s for s in Sign if s.value == "few_sources")}
    for group in (FLIPS, "slice_flips", OUTPUTS, CONFIDENCE_FALL, "slice_confidence", CANARY_CLASS):
        evidence = finding(group, PAGE, "v2", 1.0, *sorted(everything))
        marks = frozenset([INPUTS, CANARY_INPUTS, FLIPS, CONFIDENCE_FALL, "slice_confidence", "canary_flips"])
        found = diagnose(evidence, marks)
        assert (found.cause, found.severity) == (Cause.INPUT_DRIFT, Severity.TICKET), group


def test_what_speaks_for_another_cause_is_told() -> None:
    """Marks that other rules of the group ask for, and that are there too, stand against; what nobody asks for does not."""
    rule = next(rule for rule in RULES if rule.group == FLIPS and rule.marks == {INPUTS})
    _, _, because, against = told(rule, CONFIDENCE_FALL, VOLUME)
    assert because == (FLIPS, INPUTS)
    assert against == (CONFIDENCE_FALL,)


def test_an_unknown_group_is_a_defect() -> None:
    """Evidence that nobody gave a cause is not passed over in silence."""
    with pytest.raises(StopIteration):
        diagnose(finding("surprise", PAGE), frozenset())


@pytest.mark.parametrize(
    ("group", "version", "words"),
    [
        (CANARY_CLASS, "v2", ["mail v2", "prediction = spam", "40.0%", "v1 in 20.0%", "1000 predictions"]),
        ("canary_errors", "v2", ["mail v2", "40.0% of 1000 labels", "20.0% of v1's", "got worse"]),
        (OUTPUTS, "v2", ["mail v2", "prediction = spam", "40.0%", "20.0%", "nothing yet says that it does harm"]),
        (QUALITY, None, ["The log of mail", "40.0%", "changed in kind"]),
        (GOLDEN, "v2", ["mail v2", "40.0% of 1000 verified inputs", "expected are 20.0%", "got worse"]),
        (GOLDEN_CHANGE, "v2", ["mail v2", "40.0% of 1000 verified inputs", "the model behind the name changed"]),
        (TRIGGERS, "v2", ["mail v2 answers 'ham' where the text has 'xyz'"]),
        (SOURCES, None, ["mail", "contradict the model in 40.0% of 1000", "must not reach retraining"]),
    ],
)
def test_the_sentence_says_who_what_and_how_much(group: str, version: str | None, words: list[str]) -> None:
    """On-call reads the model, the version, the indicator, both rates and over how many predictions."""
    evidence = finding(group, PAGE, version)
    sentence = summarise(evidence, diagnose(evidence, frozenset()).cause)
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence


def test_triggers_beside_the_strongest_are_counted() -> None:
    """The strongest is told as its finder tells it, the others are counted, and when there are too many that is said."""
    one = finding(TRIGGERS, PAGE, "v2", 1.0, Sign.CONTRAST)
    assert summarise(one, Cause.BACKDOOR) == one.told

    def told(subjects: int, *signs: Sign) -> str:
        many = msgspec.structs.replace(one, subjects=one.subjects * subjects, signs=(*one.signs, *signs))
        return summarise(many, Cause.BACKDOOR).removeprefix(one.told)

    assert told(2) == " 1 more trigger is open in it."
    assert told(3) == " 2 more triggers are open in it."
    assert told(3, Sign.SATURATED).startswith(
        " 2 more triggers are open in it. There are more triggers than can be told apart"
    )


def test_what_is_over_is_said_to_be_over() -> None:
    """Evidence without subjects says that there is nothing to see any more."""
    for group, cause in ((OUTPUTS, Cause.OUTPUT_CHANGE), (TRIGGERS, Cause.BACKDOOR)):
        assert "too small to matter" in summarise(finding(group, GONE), cause)
