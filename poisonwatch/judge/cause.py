"""What has happened: from the marks that the evidence shows to a cause, and whether it deserves a page.

    group                moved                                   cause            severity
    canary_class         the canary's classes against stable's   degradation      page
    canary_confidence    the canary's confidence against it      output_change    ticket
    outputs              classes or confidence, inputs too       input_drift      ticket
    outputs              classes or confidence, inputs not       output_change    ticket
    inputs               features                                input_drift      ticket
    quality, rejected    missing, unseen, rejected               data_quality     ticket

Outputs that merely moved say nothing of harm. The canary's classes do: both versions answer the same traffic, so
neither the inputs nor the season explains why one of them stopped, or began, to give a class, and the difference is
larger than an honest retraining makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poisonwatch.profile.indicators import CANARY_CLASS, CANARY_CONFIDENCE, INPUTS, OUTPUTS, QUALITY
from poisonwatch.types import Cause, Severity

if TYPE_CHECKING:
    from poisonwatch.types import Evidence


TABLE = {
    CANARY_CLASS: (Cause.DEGRADATION, Severity.PAGE),
    CANARY_CONFIDENCE: (Cause.OUTPUT_CHANGE, Severity.TICKET),
    OUTPUTS: (Cause.OUTPUT_CHANGE, Severity.TICKET),
    INPUTS: (Cause.INPUT_DRIFT, Severity.TICKET),
    QUALITY: (Cause.DATA_QUALITY, Severity.TICKET),
}


def cause_of(evidence: Evidence, *, inputs_moved: bool) -> tuple[Cause, Severity]:
    """Cause and severity of one piece of evidence; `inputs_moved` says whether the same version's inputs moved too."""
    if evidence.group == OUTPUTS and inputs_moved:
        return Cause.INPUT_DRIFT, Severity.TICKET
    return TABLE[evidence.group]


def summarise(evidence: Evidence, cause: Cause) -> str:
    """One English sentence that on-call can act on."""
    who = f"{evidence.model} {evidence.model_version}" if evidence.model_version else f"The log of {evidence.model}"
    if not evidence.subjects:
        return f"{who}: what is left of {cause.value.replace('_', ' ')} is too small to matter."
    first = evidence.subjects[0]
    seen, expected = f"{first.rate:.1%}", f"{first.expected:.1%}"
    others = len(evidence.subjects) - 1
    more = f" (and {others} more {'indicators' if others > 1 else 'indicator'})" if others else ""
    if evidence.group == CANARY_CLASS:
        against = f"{seen} of its predictions, {evidence.compared_with} in {expected} on the same traffic{more}"
        return f"{who} answers '{first.indicator}' in {against}, over {evidence.n} predictions."
    counted = (
        f"'{first.indicator}' holds for {seen} of {evidence.n} {'predictions' if evidence.model_version else 'lines'}"
    )
    if evidence.group == CANARY_CONFIDENCE:
        against = f"for {expected} of {evidence.compared_with}'s on the same traffic{more}"
        return f"{who}: {counted}, {against}; {_MEANING[cause]}."
    return f"{who}: {counted}, the reference says {expected}{more}; {_MEANING[cause]}."


_MEANING = {
    Cause.DEGRADATION: "the model got worse",
    Cause.INPUT_DRIFT: "the inputs moved, which is no fault of the version",
    Cause.OUTPUT_CHANGE: "the answers moved and nothing yet says that it does harm",
    Cause.DATA_QUALITY: "the data that reach the model or its log changed in kind",
}
