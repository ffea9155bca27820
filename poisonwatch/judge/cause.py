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
    VOLUME,
)
from poisonwatch.types import Cause, Severity, Sign

if TYPE_CHECKING:
    from poisonwatch.types import Evidence


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
    """One English sentence that on-call can act on."""
    who = f"{evidence.model} {evidence.model_version}" if evidence.model_version else f"The log of {evidence.model}"
    if not evidence.subjects:
        return f"{who}: what is left of {cause.value.replace('_', ' ')} is too small to matter."
    if evidence.group == TRIGGERS:
        return _of_triggers(evidence)
    first = evidence.subjects[0]
    seen, expected = f"{first.rate:.1%}", f"{first.expected:.1%}"
    others = len(evidence.subjects) - 1
    more = f" (and {others} more {'indicators' if others > 1 else 'indicator'})" if others else ""
    asked = _ASKED.get(evidence.group, "predictions" if evidence.model_version else "lines")
    if evidence.group == CANARY_CLASS:
        against = f"{seen} of its predictions, {evidence.compared_with} in {expected} on the same traffic{more}"
        return f"{who} answers '{first.indicator}' in {against}, over {evidence.n} predictions."
    if evidence.group == SOURCES:
        return (
            f"{evidence.model}: the labels of '{first.indicator}' contradict the model in {seen} of {evidence.n}, those of "
            f"honest sources in {expected}{more}; {_MEANING[cause]}."
        )
    if evidence.group == COVERAGE:
        of = f"{evidence.model} {evidence.model_version}" if evidence.model_version else evidence.model
        return (
            f"{of}: {seen} of {evidence.n} predictions that its server counted never reached the monitor ({expected} are "
            "tolerated): what they were nobody knows. Look at the log's way here, and at what is rejected, late or refused."
        )
    counted = f"'{first.indicator}' holds for {seen} of {evidence.n} {asked}"
    if evidence.group in {GOLDEN, GOLDEN_CHANGE}:
        why = "the model behind the name changed" if evidence.group == GOLDEN_CHANGE else _MEANING[cause]
        return f"{who}: {counted}, expected are {expected}{more}; {why}."
    if evidence.group == SHADOW:
        return f"{who}: {counted} that {evidence.compared_with} answered too{more}; which of them is right, labels must say."
    if Sign.FEW_SOURCES in evidence.signs:
        return f"{who}: {counted}, the reference says {expected}{more}; but few sources of labels claim it."
    if evidence.compared_with is not None:
        against = f"for {expected} of {evidence.compared_with}'s on the same traffic{more}"
        return f"{who}: {counted}, {against}; {_MEANING[cause]}."
    return f"{who}: {counted}, the reference says {expected}{more}; {_MEANING[cause]}."


def _of_triggers(evidence: Evidence) -> str:
    """The strongest trigger as the miner tells it, and how many there are beside it."""
    others = len(evidence.subjects) - 1
    more = f" {others} more {'triggers are' if others > 1 else 'trigger is'} open in it." if others else ""
    if Sign.SATURATED in evidence.signs:
        more = f"{more} There are more triggers than can be told apart: the journal has the strongest."
    return f"{evidence.told}{more}"


_ASKED = {
    **dict.fromkeys([*BY_LABELS, CANARY_ERRORS], "labels"),
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
