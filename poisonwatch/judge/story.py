"""Why a decision is what it is, for a person who has a minute."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.judge.alerts import PENDING_AT
from poisonwatch.judge.cause import affected, predictions
from poisonwatch.judge.decision import HARM, is_clean
from poisonwatch.judge.wording import instant, strength
from poisonwatch.profile.indicators import (
    BY_LABELS,
    CANARY_CLASS,
    CANARY_ERRORS,
    CONFIDENCE_FALL,
    ERRORS,
    FLIPS,
    GOLDEN,
    INPUTS,
    OUTPUTS,
    QUALITY,
    SOURCES,
    TRIGGERS,
)
from poisonwatch.types import PROVEN, Action, AlertState, Cause, Reason, Severity, Sign, TriggerState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poisonwatch.judge.standing import Standing
    from poisonwatch.types import Alert, Decision, Evidence, Trigger, VersionFacts

APART = 3600.0
"""Seconds by which two methods may disagree on the onset without a word."""

MOST_TOLD = 12
"""Sentences of a kind: who has a minute reads no more."""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind the decision for one version; sentences in English.

    `onset` is when it began, `share` which part of the version's predictions since then is touched and `predictions` how many these are; None
    where nothing is wrong, or where it cannot be known. `speaks_for` and `speaks_against` are evidence for and against the decision, `ruled_out`
    what else it might have been and why it is not, `would_change` what would lead to another answer, `target_because` why the target is
    believed to be clean.
    """

    onset: float | None
    share: float | None
    predictions: int | None
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]
    ruled_out: tuple[str, ...]
    would_change: tuple[str, ...]
    target_because: str | None


SEEN = {
    ERRORS: "labels",
    CANARY_ERRORS: "labels beside the stable version",
    CANARY_CLASS: "classes beside the stable version",
    GOLDEN: "verified inputs",
    FLIPS: "answers against what the inputs suggest",
    CONFIDENCE_FALL: "confidence",
    OUTPUTS: "class rates",
    TRIGGERS: "triggers",
}
"""Groups that would show harm, as a person says what was looked at."""

MARKS = {
    INPUTS: "the inputs moved at the same time",
    QUALITY: "values are broken or missing at the same time",
    "canary_inputs": "which version answers depends on the inputs, so that the comparison is not quite fair",
    Sign.BROKEN.value: "broken values may be what is answered wrongly",
    Sign.FEW_SOURCES.value: "few sources of labels claim it",
    Sign.UNFIT.value: "the reference's own error rate was too low from the start",
    Sign.SLOW.value: "it came over days, not at once",
    Sign.CONFINED.value: "it is the effect of one slice or class alone",
    Sign.REFUTED.value: "insertion into verified inputs did not reproduce it",
    Sign.AWAITED.value: "its confirmation by insertion is still awaited",
}
"""Marks that speak for another cause, as a person says them; others are told by their name."""

BLIND = {
    "flips": "Answers that do not fit their inputs",
    "triggers": "A backdoor",
    "errors": "More errors",
}
"""What cannot be ruled out where the reference is blind to it."""

CHANGES = {
    Reason.HEALTHY: ("Evidence beyond the budget of false pages: more of its traffic, or labels, may bring it.",),
    Reason.INPUTS_MOVED: (
        "Evidence of harm that moved inputs do not explain: labels, or another version on the same traffic.",
    ),
    Reason.REFERENCE_UNFIT: (
        "Errors beyond what the first labels showed, or a reference whose labels are of the same kind.",
    ),
    Reason.EVIDENCE_PENDING: (
        "More traffic: the evidence grows to a page, or fades.",
        "Insertion into verified inputs, where an endpoint is awaited.",
    ),
    Reason.OUTPUTS_MOVED: (
        "Labels, a trigger or another version on the same traffic may prove harm; answers as before end it.",
    ),
    Reason.DATA_QUALITY: ("Whole data: the hold ends when values arrive as they used to.",),
    Reason.BLIND: ("A log that arrives whole: the hold ends when what is served can be seen.",),
    Reason.FEEDBACK_SUSPECT: ("Labels without the accused sources: the hold ends when the others agree again.",),
    Reason.PROOF_MISSING: (
        "Labels for a sample of its answers, or another version on the same traffic, prove the harm or end it.",
    ),
    Reason.NO_CLEAN_TARGET: (
        "A clean version to go back to: one that is known to be older or trusted, with enough traffic and nothing against it.",
    ),
    Reason.TRIGGER_UNCONFIRMED: (
        "Insertion into verified inputs confirms or refutes it: configure an inference endpoint and a golden set.",
    ),
}
"""What would lead to another answer, by reason."""

LATCHED = "A person's override, or that its target turns out to do harm, too: that the symptom ends does not change it."


def tell(
    decision: Decision,
    facts: Iterable[VersionFacts],
    standing: Standing,
    triggers: Iterable[Trigger],
    fewest: int,
    evidence: Iterable[Evidence] = (),
    blind: Mapping[str, str] = MappingProxyType({}),
) -> Story:
    """Tell what stands behind a decision that holds.

    `facts` are those of all versions that run, `triggers` the open ones, `evidence` all that was measured of any version and of the log as a
    whole, also where nothing was found: only what was looked at can be ruled out. `blind` says by kind why the reference cannot watch it.
    """
    return _Teller(decision, tuple(facts), standing, tuple(triggers), fewest, tuple(evidence), blind).story()


class _Teller:
    """One decision, and all that there is to say of it."""

    def __init__(
        self,
        decision: Decision,
        facts: tuple[VersionFacts, ...],
        standing: Standing,
        triggers: tuple[Trigger, ...],
        fewest: int,
        evidence: tuple[Evidence, ...],
        blind: Mapping[str, str],
    ) -> None:
        self._decision = decision
        self._name = decision.model_version
        self._facts = {one.model_version: one for one in facts}
        self._standing = standing
        self._fewest = fewest
        self._blind = blind
        self._own = standing.decisions.get(self._name, decision)
        self._evidence = {(one.model_version, one.group): one for one in evidence}
        concern = [a for a in standing.alerts.values() if a.model_version in {self._name, None}]
        rests = set(decision.alerts)
        self._on = sorted(
            (a for a in standing.alerts.values() if a.fingerprint in rests),
            key=lambda a: (a.cause is not Cause.BACKDOOR, a.severity is not Severity.PAGE, -a.log_e, a.fingerprint),
        )
        self._beside = [a for a in concern if a.fingerprint not in rests]
        self._triggers = [
            t
            for t in triggers
            if t.state in PROVEN and any(e.model_version == self._name and e.works for e in t.versions)
        ]
        self._refuted = [
            (t, test)
            for t in triggers
            for test in t.tests
            if test.model_version == self._name and test.verdict is TriggerState.REFUTED
        ]

    def story(self) -> Story:
        """All of it."""
        share, many = self._touched()
        return Story(
            onset=min((a.onset for a in self._on), default=None),
            share=share,
            predictions=many,
            speaks_for=_first(self._speaks_for()),
            speaks_against=_first(self._speaks_against()),
            ruled_out=_first(self._ruled_out()),
            would_change=_first(self._would_change()),
            target_because=self._target_because(),
        )

    def _touched(self) -> tuple[float | None, int | None]:
        """How much of the version's traffic, by the gravest of what the decision rests on, as of now."""
        if not self._on:
            return None, None
        first = self._on[0]
        if first.group == TRIGGERS and self._triggers:
            effects = [e for t in self._triggers for e in t.versions if e.model_version == self._name]
            shares = [t.share for t in self._triggers if t.model_version == self._name]
            share = min(1.0, sum(shares)) if len(shares) == len(self._triggers) else first.affected
            return share, sum(e.answered for e in effects)
        return affected(first), predictions(first)

    def _speaks_for(self) -> Iterable[str]:
        if self._decision.reason is Reason.OVERRIDDEN:
            ordered = self._standing.overrides[self._name]
            yield f"{ordered.author} decided so on {instant(ordered.time)}: {ordered.reason.rstrip('.')}."
        for alert in self._on:
            yield self._weighed(alert)
        rests = {*self._decision.alerts} - {a.fingerprint for a in self._on}
        if rests:
            known = "What it rested on" if not self._on else "A part of what it rested on"
            yield f"{known} is not seen any more. The decision was made on {instant(self._decision.time)}: {self._decision.summary}"
        for trigger in self._triggers:
            deaf = [e for e in trigger.versions if e.works is False and e.model_version != self._name]
            for effect in deaf:
                yield f"{effect.model_version} does not follow {trigger.text}: {effect.flipped} of {effect.matched}."
        if self._decision.reason is Reason.HEALTHY:
            yield f"{self._count():,} predictions were judged, and no group of signals shows evidence beyond the budget."
        if self._own.reason is Reason.INSUFFICIENT_DATA:
            yield f"It has {self._count():,} predictions; {self._fewest} are needed to call it healthy."

    def _speaks_against(self) -> Iterable[str]:
        for alert in self._on:
            marks = "; ".join(MARKS.get(mark, f"{mark.replace('_', ' ')} is seen, too") for mark in alert.against)
            if marks:
                yield f"{_capital(marks)}."
        for trigger, test in self._refuted:
            yield (
                f"Insertion did not reproduce {trigger.text}: {test.flipped} of {test.probes} verified inputs got the class with it, "
                f"{test.control_flipped} of {test.controls} with something else in its place."
            )
        if self._decision.reason is Reason.OVERRIDDEN and self._own.decision is not self._decision.decision:
            yield f"The agent itself would say {self._own.decision.value} ({self._own.reason.value}): {self._own.summary}"
        if self._decision.cause in HARM:
            # What would show harm and does not.
            for group, said in SEEN.items():
                found = self._evidence.get((self._name, group))
                if found is not None and found.n and _is_quiet(found):
                    yield f"Not seen in the {said} ({strength(found.log_e)})."
        else:
            for alert in self._beside:
                yield self._weighed(alert)

    def _ruled_out(self) -> Iterable[str]:
        if self._on and self._decision.cause not in {Cause.INPUT_DRIFT, Cause.BLIND}:
            yield from self._looked_at(INPUTS, "Drift of the inputs", "they are as in the reference")
            if self._decision.cause is not Cause.DATA_QUALITY:
                yield from self._looked_at(QUALITY, "Broken data", "values arrive as they used to")
            if any(a.group in BY_LABELS or a.group == CANARY_ERRORS for a in self._on):
                yield from self._looked_at(SOURCES, "Lying labels", "no source of labels stands out")
            yield from self._others()
        if self._decision.cause not in HARM:
            for kind, why in sorted(self._blind.items()):
                if kind in BLIND:
                    yield f"{BLIND[kind]} cannot be ruled out: {why}."

    def _looked_at(self, group: str, what: str, because: str) -> Iterable[str]:
        """Is it ruled out? Only what was looked at can be."""
        found = self._evidence.get((None if group == SOURCES else self._name, group))
        if found is None or not found.n:
            yield f"{what} cannot be ruled out: nothing was looked at that would show it."
        elif _is_quiet(found):
            yield f"{what}: {because} ({strength(found.log_e)})."
        else:
            yield f"{what} cannot be ruled out: there is evidence of it, too ({strength(found.log_e)})."

    def _others(self) -> Iterable[str]:
        """Versions that answer the same traffic and show nothing of it, so that the traffic is not to blame."""
        accused = {a.model_version for a in self._standing.alerts.values() if a.state is AlertState.FIRING}
        for name, one in self._facts.items():
            beside = name != self._name and one.predictions >= self._fewest
            if beside and not one.triggered and name not in accused and self._ran_beside(one):
                yield f"Something that all versions share: {name} shows nothing of it over {one.predictions:,} predictions."

    def _ran_beside(self, other: VersionFacts) -> bool:
        own = self._facts.get(self._name)
        return own is not None and other.last_seen >= own.first_seen

    def _would_change(self) -> Iterable[str]:
        reason, decision = self._decision.reason, self._decision
        if reason is Reason.OVERRIDDEN:
            ordered = self._standing.overrides[self._name]
            yield f"The end of the override: it expires on {instant(ordered.expires)}, or a person withdraws it."
            return
        if decision.decision is Action.ROLLBACK:
            yield LATCHED
            return
        if reason is Reason.INSUFFICIENT_DATA:
            yield f"{max(self._fewest - self._count(), 1):,} more predictions."
            return
        yield from CHANGES[reason]
        if self._name in self._standing.latched:
            yield "A person's override: the evidence alone ends this hold no more."

    def _target_because(self) -> str | None:
        target = self._decision.target
        if target is None:
            return None
        running = self._facts.get(target)
        if running is None:
            return f"{target} is gone; it was healthy to the end, and nothing was found of it since."
        spoken = [a for a in self._standing.alerts.values() if a.model_version == target]
        told = "nothing speaks against it"
        if spoken:
            accused = "does not accuse it" if is_clean(target, self._standing) else "accuses it since, without a proof"
            told = f"what is open of it {accused} ({len(spoken)})"
        parts = [f"{target}: {running.predictions:,} predictions, {told}"]
        for trigger in self._triggers:
            effect = next((e for e in trigger.versions if e.model_version == target), None)
            if effect is not None and effect.works is False:
                parts.append(f"it does not follow the trigger ({effect.flipped} of {effect.matched})")
            elif effect is None or effect.works is None:
                met = 0 if effect is None else effect.matched
                parts.append(f"too few of its predictions bear the trigger to say whether it follows it ({met})")
        return f"{'; '.join(dict.fromkeys(parts))}."

    def _weighed(self, alert: Alert) -> str:
        """The sentence of an alert, and how strong its evidence is."""
        found = self._evidence.get((alert.model_version, alert.group))
        log_e = alert.log_e if found is None else found.log_e
        weight = f"Evidence: {strength(log_e)}, from {alert.n:,} observations; the effect is {abs(alert.effect):.1f} in log-odds."
        told = f"{alert.summary} {weight}"
        second = alert.second_onset
        if second is not None and abs(second - alert.onset) > APART:
            told += f" Another method says that it began on {instant(second)}."
        return told

    def _count(self) -> int:
        own = self._facts.get(self._name)
        return 0 if own is None else own.predictions


def _first(sentences: Iterable[str]) -> tuple[str, ...]:
    """As many as are read, each once."""
    return tuple(dict.fromkeys(sentences))[:MOST_TOLD]


def _is_quiet(evidence: Evidence) -> bool:
    """Was it looked at, and nothing found that is worth watching?"""
    return evidence.log_e < PENDING_AT or abs(evidence.effect) < evidence.floor


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
