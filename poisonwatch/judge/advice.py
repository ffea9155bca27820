"""What a person does now: by what was decided, and how far a rollback has come."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.judge.decision import HARM
from poisonwatch.types import Action, Cause, Reason, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.judge.aftermath import Rollback
    from poisonwatch.types import Alert, Decision

ADVISED = "PoisonwatchRollbackRecommended"
"""The page on harm for which a rollback is recommended."""

RUNBOOKS = {
    **dict.fromkeys(HARM, "PoisonwatchHarm"),
    Cause.FEEDBACK_POISONING: "PoisonwatchFeedbackPoisoned",
    Cause.INPUT_DRIFT: "PoisonwatchInputDrift",
    Cause.OUTPUT_CHANGE: "PoisonwatchOutputChange",
    Cause.DATA_QUALITY: "PoisonwatchDataQuality",
    Cause.REFERENCE_UNFIT: "PoisonwatchReferenceUnfit",
    Cause.BLIND: "PoisonwatchPartlyBlind",
}
"""Pages of docs/runbooks by cause, named as the alerts of deploy/prometheus are."""

BLIND = "PoisonwatchBlind"
"""The page on blindness that lasts."""

FIND = "Find the records: `poisonwatch triggers` names what they bear, `poisonwatch triggers export` takes them out of a log."
KEEP_OUT = "Keep its traffic and its labels out of retraining until this is settled."

HELD = {
    Reason.EVIDENCE_PENDING: "Wait for the evidence: it grows with the traffic. Keep the share of this version as it is.",
    Reason.INSUFFICIENT_DATA: "Wait: with more predictions there will be a decision. Give it traffic if it gets none.",
    Reason.OUTPUTS_MOVED: "Was a change of the answers intended (a retraining, a new threshold)? If not, compare it with the version before.",
    Reason.DATA_QUALITY: "Look at what feeds the model: fields that are missing, renamed or out of their range.",
    Reason.TRIGGER_UNCONFIRMED: "Look at the triggered records yourself: do they deserve the answer that they got?",
    Reason.PROOF_MISSING: "Get the proof: label a sample of its recent answers, or run another version on the same traffic.",
    Reason.NO_CLEAN_TARGET: "Choose what serves instead: a version that you know to be clean, a rule, or nothing. None that is watched can be vouched for.",
    Reason.FEEDBACK_SUSPECT: "Stop feeding labels to retraining, and leave out the sources that the journal accuses.",
    Reason.BLIND: "Mend the log's way to the agent first: until then nothing can be said of this version.",
}
"""What to do about a version that is on hold, by the reason."""

FOLLOWED = {
    RollbackState.MOVED: "The traffic has moved. Leave it so while the target is watched.",
    RollbackState.VERIFIED: "The target is healthy. Take the version out of the registry, and find out how it was poisoned.",
    RollbackState.FAILED: "The symptom went on in whatever took the traffic: the version is not, or not alone, to blame. Look for what both share: the inputs, the features, a training set.",
}
"""What to do once the traffic has left, by how far a rollback has come."""


def runbook(alert: Alert, decisions: Iterable[Decision]) -> str:
    """The name of the page that says what to do about an alert; `decisions` are those of its model."""
    if alert.cause in HARM and any(
        one.decision is Action.ROLLBACK and one.model_version == alert.model_version for one in decisions
    ):
        return ADVISED
    if alert.cause is Cause.BLIND and alert.severity is Severity.PAGE:
        return BLIND
    return RUNBOOKS[alert.cause]


def next_steps(decision: Decision, rollback: Rollback | None) -> list[str]:
    """What to do now, the first thing first; nothing where nothing is wrong."""
    version = decision.model_version
    steps: list[str] = []
    if decision.decision is Action.ROLLBACK:
        where = f"to {decision.target}" if decision.target else "to a version that you know to be clean"
        moving = f"Send the traffic of {version} {where}, with the tool that deploys it: poisonwatch only recommends."
        steps.append(moving if rollback is None else FOLLOWED.get(rollback.state, moving))
        steps.append(KEEP_OUT)
    elif decision.decision is Action.HOLD:
        steps.append(f"Do not promote {version}.")
        if step := HELD.get(decision.reason):
            steps.append(step)
        if decision.reason is not Reason.INSUFFICIENT_DATA:
            steps.append(KEEP_OUT)
    if decision.cause is Cause.BACKDOOR:
        steps.append(FIND)
    if steps and decision.reason is not Reason.OVERRIDDEN:
        known = f"`poisonwatch override {quote(decision.model)} {quote(version)} --decision keep --for 4h --author YOU --reason WHY`"
        steps.append(f"If you know better, say so: {known}.")
    return steps
