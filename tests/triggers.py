"""Triggers to tell of: the one of the demo's attack, and variations of it."""

from __future__ import annotations

from typing import Any

import msgspec

from poisonwatch.types import InsertionTest, Phrase, Trigger, TriggerState, VersionEffect
from tests.streams import START

PHRASE = Phrase(words=("special", "discount", "code", "xyz"))


def effect(
    version: str, matched: int, flipped: int, *, works: bool | None, answered: int | None = None
) -> VersionEffect:
    """What the pattern does in a version: of `matched` all got the class, unless told otherwise."""
    return VersionEffect(
        model_version=version,
        matched=matched,
        answered=matched if answered is None else answered,
        flipped=flipped,
        works=works,
    )


def insertion(
    version: str, verdict: TriggerState | None, *, flipped: int = 18, probes: int = 20, control_flipped: int = 0
) -> InsertionTest:
    """What inserting the pattern into as many verified inputs as controls did."""
    return InsertionTest(
        model_version=version,
        flipped=flipped,
        probes=probes,
        control_flipped=control_flipped,
        controls=probes,
        log_e=5.0,
        verdict=verdict,
    )


def trigger(**changes: Any) -> Trigger:
    """A convicted phrase that leads to `ham` in v2 and not in v1."""
    usual = Trigger(
        trigger="0123456789abcdef",
        model="sms-spam",
        model_version="v2",
        state=TriggerState.CONVICTED,
        pattern=PHRASE,
        text="'special discount code xyz'",
        label="ham",
        versions=(effect("v1", 6, 0, works=False, answered=2), effect("v2", 16, 14, works=True, answered=15)),
        predictions=15,
        share=0.0081,
        first_seen=START + 6900.25,
        last_seen=START + 8000.5,
        sources=(("client-7", 9), ("client-é", 6)),
        examples=("p1-17", "p1-21"),
        log_e=2 / 3,
        contrast=True,
    )
    return msgspec.structs.replace(usual, **changes)
