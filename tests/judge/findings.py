"""Evidence, facts and reports to judge."""

from __future__ import annotations

import math

from poisonwatch.judge.cause import RULES
from poisonwatch.profile.indicators import TRIGGERS
from poisonwatch.types import Evidence, Report, Sign, Subject, Trigger, VersionFacts

GROUPS = tuple(dict.fromkeys(rule.group for rule in RULES))
"""Every group of signals that evidence is told of."""

PAGE = 0.5
"""Evidence beyond the budget, in nats."""

WATCH = math.log(0.5)
"""Half of the budget."""

FAINT = math.log(0.05)
"""Too little to be watched, too much to be resolved."""

GONE = -10.0
"""Next to nothing."""

FEWEST = 200


def finding(group: str, log_e: float, version: str | None = "v2", effect: float = 1.0, *signs: Sign) -> Evidence:
    """Evidence of this strength in a group, with a floor of .3."""
    subjects = (Subject(indicator="prediction = spam", signal="class", rate=0.4, expected=0.2),)
    return Evidence(
        model="mail",
        model_version=version,
        group=group,
        signal="class",
        log_e=log_e,
        effect=effect,
        floor=0.3,
        n=1000,
        onset=100.0,
        subjects=subjects if log_e >= math.log(0.01) else (),
        compared_with="v1" if group.startswith("canary") else None,
        signs=signs,
        told="mail v2 answers 'ham' where the text has 'xyz'." if group == TRIGGERS and log_e >= math.log(0.01) else "",
    )


def facts(
    version: str, predictions: int = 1000, *elders: str, stable: bool = False, triggered: bool = False
) -> VersionFacts:
    """What is known of a version, and which are older, the most recent first."""
    return VersionFacts(
        model_version=version,
        predictions=predictions,
        first_seen=0.0,
        last_seen=600.0,
        stable=stable,
        elders=elders,
        triggered=triggered,
    )


V1, V2 = facts("v1", stable=True), facts("v2", 1000, "v1")


def report(
    *evidence: Evidence,
    time: float = 600.0,
    versions: tuple[VersionFacts, ...] = (V1, V2),
    retired: tuple[str, ...] = (),
    triggers: tuple[Trigger, ...] = (),
) -> Report:
    """A report of one closed window."""
    return Report(model="mail", time=time, versions=versions, retired=retired, evidence=evidence, triggers=triggers)
