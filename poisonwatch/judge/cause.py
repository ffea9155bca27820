"""What has happened: from the marks that the evidence shows to a cause, and whether it deserves a page.

A *mark* is another group of signals of the same version whose evidence fires too, or a sign that the monitor saw beside the
evidence. `RULES` is read from top to bottom; the first rule of the evidence's group whose marks are all there holds.

Outputs that merely moved say nothing of harm: they are tickets. A page needs harm that was seen (labels), a comparison that
neither inputs nor season explain (canary), a trigger that another version does not follow or that was confirmed by insertion, verified inputs that
are answered wrongly (golden), or two independent marks that agree (the surrogate says other classes, and confidence fell); or that the
monitor has been blind for long. Labels prove nothing where few of their sources claim the errors. Where inputs moved as well, label-free marks prove nothing; where values are broken, the data are to
blame and no version is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from poisonwatch.judge.wording import instant, percent, with_advice, within
from poisonwatch.profile.indicators import (
    BY_LABELS,
    CANARY_CLASS,
    CANARY_CONFIDENCE,
    CANARY_ERRORS,
    CANARY_FLIPS,
    CANARY_INPUTS,
    CONFIDENCE_FALL,
    COVERAGE,
    ERRORS,
    FLIPPED,
    FLIPPED_AND_WRONG,
    FLIPS,
    GOLDEN,
    GOLDEN_CHANGE,
    HARMFUL_FLIPS,
    INPUTS,
    OUTPUTS,
    QUALITY,
    SHADOW,
    SLICE_CONFIDENCE,
    SLICE_ERRORS,
    SLICE_FLIPS,
    SLICE_HARMFUL_FLIPS,
    SOURCES,
    TRIGGERS,
    UNSURE,
    VOLUME,
    WRONG,
    WRONG_OF_FLIPPED,
)
from poisonwatch.types import Cause, Severity, Sign

if TYPE_CHECKING:
    from poisonwatch.types import Alert, Evidence


class Rule(NamedTuple):
    """Evidence of `group`, with all `marks` beside it, has this cause and this severity."""

    group: str
    marks: frozenset[str]
    cause: Cause
    severity: Severity


class Diagnosis(NamedTuple):
    """A cause, how loud it is, the marks that speak for it, and those that speak for another one."""

    cause: Cause
    severity: Severity
    because: tuple[str, ...]
    against: tuple[str, ...]


def _page(group: str, cause: Cause, *marks: str) -> Rule:
    return Rule(group, frozenset(marks), cause, Severity.PAGE)


def _ticket(group: str, cause: Cause, *marks: str) -> Rule:
    return Rule(group, frozenset(marks), cause, Severity.TICKET)


RULES = (
    _page(TRIGGERS, Cause.BACKDOOR, Sign.CONFIRMED),
    _page(TRIGGERS, Cause.BACKDOOR, Sign.REFUTED, Sign.CONTRAST),
    _page(TRIGGERS, Cause.BACKDOOR, Sign.AWAITED, Sign.CONTRAST),
    _page(TRIGGERS, Cause.BACKDOOR, Sign.CONTRAST),
    _ticket(TRIGGERS, Cause.OUTPUT_CHANGE),
    _ticket(ERRORS, Cause.REFERENCE_UNFIT, Sign.UNFIT),
    _ticket(ERRORS, Cause.DATA_QUALITY, Sign.BROKEN),
    _ticket(ERRORS, Cause.OUTPUT_CHANGE, Sign.FEW_SOURCES),
    _page(ERRORS, Cause.SLICE_DEGRADATION, Sign.CONFINED),
    _page(ERRORS, Cause.BASELINE_CREEP, Sign.SLOW),
    _page(ERRORS, Cause.DEGRADATION),
    _ticket(SLICE_ERRORS, Cause.DATA_QUALITY, Sign.BROKEN),
    _ticket(SLICE_ERRORS, Cause.OUTPUT_CHANGE, Sign.FEW_SOURCES),
    _page(SLICE_ERRORS, Cause.SLICE_DEGRADATION, ERRORS, Sign.CONFINED),
    _page(SLICE_ERRORS, Cause.DEGRADATION, ERRORS),
    _page(SLICE_ERRORS, Cause.SLICE_DEGRADATION),
    _ticket(CANARY_ERRORS, Cause.OUTPUT_CHANGE, Sign.FEW_SOURCES),
    _page(CANARY_ERRORS, Cause.DEGRADATION),
    _ticket(HARMFUL_FLIPS, Cause.DATA_QUALITY, Sign.BROKEN),
    _ticket(HARMFUL_FLIPS, Cause.OUTPUT_CHANGE, Sign.FEW_SOURCES),
    _page(HARMFUL_FLIPS, Cause.SLICE_DEGRADATION, Sign.CONFINED),
    _page(HARMFUL_FLIPS, Cause.BASELINE_CREEP, Sign.SLOW),
    _page(HARMFUL_FLIPS, Cause.DEGRADATION),
    _ticket(SLICE_HARMFUL_FLIPS, Cause.DATA_QUALITY, Sign.BROKEN),
    _ticket(SLICE_HARMFUL_FLIPS, Cause.OUTPUT_CHANGE, Sign.FEW_SOURCES),
    _page(SLICE_HARMFUL_FLIPS, Cause.SLICE_DEGRADATION, HARMFUL_FLIPS, Sign.CONFINED),
    _page(SLICE_HARMFUL_FLIPS, Cause.DEGRADATION, HARMFUL_FLIPS),
    _page(SLICE_HARMFUL_FLIPS, Cause.SLICE_DEGRADATION),
    _page(CANARY_CLASS, Cause.DEGRADATION, CANARY_ERRORS),
    _ticket(CANARY_CLASS, Cause.INPUT_DRIFT, CANARY_INPUTS),
    _page(CANARY_CLASS, Cause.DEGRADATION, CANARY_FLIPS),
    _page(CANARY_CLASS, Cause.DEGRADATION, FLIPS),
    _page(CANARY_CLASS, Cause.DEGRADATION, Sign.CLEAR, Sign.CONFINED),
    _page(CANARY_CLASS, Cause.DEGRADATION, Sign.CLEAR, Sign.UNWATCHED),
    _ticket(CANARY_CLASS, Cause.OUTPUT_CHANGE),
    _ticket(CANARY_FLIPS, Cause.OUTPUT_CHANGE),
    _ticket(CANARY_CONFIDENCE, Cause.OUTPUT_CHANGE),
    _ticket(CANARY_INPUTS, Cause.INPUT_DRIFT),
    _ticket(SHADOW, Cause.OUTPUT_CHANGE),
    _page(GOLDEN, Cause.DEGRADATION),
    _ticket(GOLDEN_CHANGE, Cause.OUTPUT_CHANGE),
    _ticket(FLIPS, Cause.INPUT_DRIFT, INPUTS),
    _ticket(FLIPS, Cause.DATA_QUALITY, QUALITY),
    _page(FLIPS, Cause.BASELINE_CREEP, CONFIDENCE_FALL, Sign.SLOW),
    _page(FLIPS, Cause.DEGRADATION, CONFIDENCE_FALL),
    _ticket(FLIPS, Cause.OUTPUT_CHANGE),
    _ticket(SLICE_FLIPS, Cause.INPUT_DRIFT, INPUTS),
    _ticket(SLICE_FLIPS, Cause.DATA_QUALITY, QUALITY),
    _page(SLICE_FLIPS, Cause.DEGRADATION, FLIPS, CONFIDENCE_FALL),
    _page(SLICE_FLIPS, Cause.SLICE_DEGRADATION, Sign.CONFINED, SLICE_CONFIDENCE),
    _ticket(SLICE_FLIPS, Cause.OUTPUT_CHANGE),
    _page(SOURCES, Cause.FEEDBACK_POISONING),
    *(
        rule
        for group in (OUTPUTS, CONFIDENCE_FALL, SLICE_CONFIDENCE)
        for rule in (_ticket(group, Cause.INPUT_DRIFT, INPUTS), _ticket(group, Cause.OUTPUT_CHANGE))
    ),
    _ticket(INPUTS, Cause.INPUT_DRIFT),
    _ticket(VOLUME, Cause.INPUT_DRIFT),
    _page(QUALITY, Cause.BLIND, Sign.MOSTLY_LOST, Sign.LASTING),
    _ticket(QUALITY, Cause.BLIND, Sign.MOSTLY_LOST),
    _ticket(QUALITY, Cause.DATA_QUALITY),
    _page(COVERAGE, Cause.BLIND, Sign.LASTING),
    _ticket(COVERAGE, Cause.BLIND),
)

PROOFS = frozenset([TRIGGERS, *BY_LABELS, CANARY_ERRORS, CANARY_CLASS, GOLDEN])
"""Groups whose page proves harm beyond a moved rate: a rollback needs one of them."""


def diagnose(evidence: Evidence, marks: frozenset[str]) -> Diagnosis:
    """Cause of one piece of evidence; `marks` are the other groups of the same version whose evidence fires."""
    present = marks | frozenset(evidence.signs)
    rules = [rule for rule in RULES if rule.group == evidence.group]
    holds = next(rule for rule in rules if rule.marks <= present)
    others = frozenset().union(*(rule.marks for rule in rules if rule.cause != holds.cause)) - holds.marks
    return Diagnosis(
        holds.cause,
        holds.severity,
        tuple(sorted((evidence.group, *holds.marks))),
        tuple(sorted(others & present)),
    )


def summarise(evidence: Evidence, cause: Cause) -> str:
    """A page in a few English sentences: who, what, since when, how many; what to do is the decision's to say."""
    who = _who(evidence)
    if not evidence.subjects:
        return f"{who}: what is left of {_named(cause)} is too small to matter."
    if evidence.group == TRIGGERS:
        return within(_of_triggers(evidence))
    first = evidence.subjects[0]
    seen, expected = f"{first.rate:.1%}", f"{first.expected:.1%}"
    others = len(evidence.subjects) - 1
    more = f" (and {others} more {'indicators' if others > 1 else 'indicator'})" if others else ""
    asked = _ASKED.get(evidence.group, "predictions" if evidence.model_version else "lines")
    since = f"since {instant(evidence.onset)}"
    if evidence.group == SOURCES:
        return within(
            f"{evidence.model}: the labels of '{first.indicator}' contradict the model in {seen} of {evidence.n} {since}, those of "
            f"honest sources in {expected}{more}; {_MEANING[cause]}."
        )
    if evidence.group == COVERAGE:
        of = f"{evidence.model} {evidence.model_version}" if evidence.model_version else evidence.model
        return within(
            f"{of}: {since}, {seen} of {evidence.n} predictions that its server counted never reached the monitor ({expected} are "
            "tolerated): what they were nobody knows. Look at the log's way here, and at what is rejected, late or refused."
        )
    counted = f"'{first.indicator}'{_gloss(first.indicator)} holds for {seen} of {evidence.n} {asked} {since}"
    touched = _touched(evidence)
    if evidence.group == CANARY_CLASS:
        against = f"{seen} of its predictions, {evidence.compared_with} in {expected} on the same traffic{more}"
        what = (
            f"{who} answers '{first.indicator}' in {against}, over {evidence.n} predictions {since}; {_MEANING[cause]}."
        )
    elif evidence.group in {GOLDEN, GOLDEN_CHANGE}:
        why = "the model behind the name changed" if evidence.group == GOLDEN_CHANGE else _MEANING[cause]
        what = f"{who}: {counted}, expected are {expected}{more}; {why}."
    elif evidence.group == SHADOW:
        what = f"{who}: {counted} that {evidence.compared_with} answered too{more}; which of them is right, labels must say."
    elif Sign.FEW_SOURCES in evidence.signs:
        what = f"{who}: {counted}, the reference says {expected}{more}; but few sources of labels claim it."
    elif evidence.compared_with is not None:
        against = f"for {expected} of {evidence.compared_with}'s on the same traffic{more}"
        what = f"{who}: {counted}, {against}; {_MEANING[cause]}."
    else:
        what = f"{who}: {counted}, the reference says {expected}{more}; {_MEANING[cause]}."
    return with_advice(what, touched) if touched else within(what)


def farewell(evidence: Evidence, cause: Cause) -> str:
    """What is told when an alert ends: that its evidence is gone, which is not to say that the version is healthy."""
    if evidence.group == TRIGGERS:
        why = "no prediction has shown the trigger for long, or what shows it no longer convicts it"
    elif evidence.group in COMPARED and evidence.compared_with is None:
        why = "there is no version beside it any more to compare it with"
    else:
        why = "what came since looks as expected, and what is left is too small to matter"
    is_healthy = f"that {evidence.model_version} is healthy" if evidence.model_version else "that all is well"
    return f"{_who(evidence)}: the evidence of {_named(cause)} is gone: {why}. This does not say {is_healthy}: its decision does."


def affected(evidence: Evidence | Alert) -> float | None:
    """Which share of the version's predictions since the onset is touched, None where that cannot be said.

    Of rates it is how far the first indicator lies from what was expected of it. What is asked of a slice says nothing of the rest, a verified input
    is nobody's, and lines, labels of one source and spans of time are no predictions.
    """
    if evidence.affected is not None:
        return evidence.affected
    if not evidence.subjects or evidence.group in _NO_PREDICTIONS or evidence.model_version is None:
        return None
    first = evidence.subjects[0]
    return None if OF_A_PART in first.indicator else abs(first.rate - first.expected)


def predictions(evidence: Evidence | Alert) -> int | None:
    """How many predictions were touched since the onset, None where that cannot be said: labels come back for some only."""
    if not evidence.subjects or evidence.model_version is None:
        return None
    if evidence.group == TRIGGERS:
        return evidence.n
    if evidence.group in _NO_PREDICTIONS or evidence.group in _BY_LABELS:
        return None
    first = evidence.subjects[0]
    return round(abs(first.rate - first.expected) * evidence.n)


def _who(evidence: Evidence) -> str:
    return f"{evidence.model} {evidence.model_version}" if evidence.model_version else f"The log of {evidence.model}"


def _named(cause: Cause) -> str:
    return cause.value.replace("_", " ")


def _gloss(indicator: str) -> str:
    """What a mark's name means; a class or a feature says it itself."""
    mark = indicator.partition(OF_A_PART)[0]
    return f" ({_MARKS[mark]})" if mark in _MARKS else ""


def _touched(evidence: Evidence) -> str:
    """How many predictions it is about."""
    share, many = affected(evidence), predictions(evidence)
    if many is not None:
        of = f", {percent(share)} of its traffic" if share is not None else ""
        return f"About {many:,} of its predictions are touched{of}."
    return f"About {percent(share)} of its predictions are touched, as the labels say." if share is not None else ""


def _of_triggers(evidence: Evidence) -> str:
    """The strongest trigger as the miner tells it, and how many there are beside it."""
    others = len(evidence.subjects) - 1
    more = f" {others} more {'triggers are' if others > 1 else 'trigger is'} open in it." if others else ""
    if Sign.SATURATED in evidence.signs:
        more = f"{more} There are more triggers than can be told apart: the journal has the strongest."
    return f"{evidence.told}{more}"


COMPARED = frozenset([CANARY_CLASS, CANARY_CONFIDENCE, CANARY_ERRORS, CANARY_FLIPS, CANARY_INPUTS])
"""Groups that hold a version against the stable one: without it beside them they can neither grow nor fade."""

OF_A_PART = " where "
"""What stands in the name of an indicator that is asked of a class's or a slice's predictions only."""

_BY_LABELS = frozenset([*BY_LABELS, CANARY_ERRORS])

_NO_PREDICTIONS = frozenset([SOURCES, GOLDEN, GOLDEN_CHANGE, VOLUME, COVERAGE])

_MARKS = {
    FLIPPED: "other inputs like it got another answer in the reference",
    UNSURE: "less confident than this model used to be",
    WRONG: "the label says otherwise",
    FLIPPED_AND_WRONG: "the reference and the label both say otherwise",
    WRONG_OF_FLIPPED: "where the reference would answer otherwise, the label does, too",
}

_ASKED = {
    **dict.fromkeys(_BY_LABELS, "labels"),
    **dict.fromkeys([GOLDEN, GOLDEN_CHANGE], "verified inputs"),
    VOLUME: "spans of time",
}

_MEANING = {
    Cause.DEGRADATION: "the model got worse",
    Cause.SLICE_DEGRADATION: "the model got worse in one slice",
    Cause.FEEDBACK_POISONING: "these labels must not reach retraining",
    Cause.BASELINE_CREEP: "the model got worse step by step",
    Cause.INPUT_DRIFT: "the inputs moved, which is no fault of the version",
    Cause.OUTPUT_CHANGE: "the answers moved and nothing yet says that it does harm",
    Cause.DATA_QUALITY: "the data that reach the model or its log changed in kind",
    Cause.REFERENCE_UNFIT: "it was so from the first labels on: the reference's own error rate is too low",
    Cause.BLIND: "too little of the log can be read to watch the model",
}
