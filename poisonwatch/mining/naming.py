"""Patterns and triggers in words: what on-call reads. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.profile.indicators import FEATURE
from poisonwatch.types import Cell, Patch, Phrase, TriggerState

if TYPE_CHECKING:
    from poisonwatch.types import InsertionTest, Item, Pattern, Trigger, VersionEffect

LONGEST = 200
"""Characters of a value or phrase that are told; the pattern itself has all of them."""

MOST_VERSIONS = 3
"""Other versions that are told of, of each sort."""


def in_words(pattern: Pattern) -> str:
    """A pattern as a person says it: without the prefix of features, numbers as intervals."""
    match pattern:
        case Phrase(words=words):
            return f"'{_short(' '.join(words))}'"
        case Patch():
            rows, columns = _span("row", pattern.row, pattern.height), _span("column", pattern.column, pattern.width)
            return f"pixels {rows}, {columns} of {pattern.image_height}x{pattern.image_width}"
        case Cell(table=table, signs=signs):
            return f"embedding in cell {signs:x} of projection {table}"
        case _:
            return " and ".join(map(_condition, pattern.items))


def in_a_sentence(trigger: Trigger, version: str, *, awaited: bool | None = None) -> str:
    """What a trigger does in one version, in sentences that on-call can act on.

    `awaited` says whether an inference endpoint is there to confirm it and has not yet; without it nothing is said of what was
    not tried.
    """
    where = f"the text has {trigger.text}" if isinstance(trigger.pattern, Phrase) else trigger.text
    own = next((effect for effect in trigger.versions if effect.model_version == version), None)
    counted = ""
    if own is not None:
        share = f" ({_percent(trigger.share)} of its traffic)" if version == trigger.model_version else ""
        when = _when(trigger.first_seen, trigger.last_seen)
        counted = f": {own.flipped} of {own.answered} such predictions{share} {when} UTC would have been something else"
    told = "".join(f"; {part}" for part in _of_others(trigger, version))
    answers = f"{trigger.model} {version} answers '{_short(trigger.label)}' where {where}"
    return f"{answers}{counted}{told}. {_confirmation(trigger, version, awaited=awaited)}".rstrip()


def _when(first: float, last: float) -> str:
    """From when to when it was seen, to the minute: what is told stays true however long it stands."""
    began, ended = (str(np.datetime_as_string(np.datetime64(int(time), "s"), unit="m")) for time in (first, last))
    if began == ended:
        return f"at {began.replace('T', ' ')}"
    same_day = began[:10] == ended[:10]
    return f"from {began.replace('T', ' ')} to {ended[11:] if same_day else ended.replace('T', ' ')}"


def _counted(effect: VersionEffect, inserted: str | None) -> str:
    met = [f"{effect.flipped} of {effect.matched}"] if effect.matched or inserted is None else []
    return ", ".join([*met, *([inserted] if inserted is not None else [])])


def _of_others(trigger: Trigger, version: str) -> list[str]:
    """Which other versions follow the pattern, and which do not: in their traffic, and by insertion where that decided."""
    others = [effect for effect in trigger.versions if effect.model_version != version]
    inserted = {
        test.model_version: f"by insertion {test.flipped} of {test.probes}"
        for test in trigger.tests
        if test.verdict is not None
    }
    told = []
    for works, follows in ((False, "does not follow it"), (True, "follows it, too")):
        found = [effect for effect in others if effect.works is works]
        told += [
            f"{e.model_version} {follows} ({_counted(e, inserted.get(e.model_version))})" for e in found[:MOST_VERSIONS]
        ]
        if len(found) > MOST_VERSIONS:
            told.append(f"{len(found) - MOST_VERSIONS} more as well")
    return told


def _confirmation(trigger: Trigger, version: str, *, awaited: bool | None) -> str:
    """What insertion into verified inputs said, or why it has said nothing."""
    test = next((test for test in reversed(trigger.tests) if test.model_version == version), None)
    if test is not None and test.verdict is TriggerState.CONFIRMED:
        return f"Confirmed by insertion: {_inserted(test)}."
    if test is not None and test.verdict is TriggerState.REFUTED:
        return f"Refuted by insertion: {_inserted(test)}."
    if awaited:
        return "Its confirmation by insertion is running."
    if test is not None and not test.probes:
        return "Not confirmed by insertion: it could not be tried."
    if test is not None:
        return f"Not confirmed by insertion, which did not decide it: {_inserted(test)}."
    return "" if awaited is None else "Not confirmed by insertion: no inference endpoint is configured."


def _inserted(test: InsertionTest) -> str:
    with_it = f"{test.flipped} of {test.probes} verified inputs got the class with it"
    return f"{with_it}, {test.control_flipped} of {test.controls} with something else in its place"


def _condition(item: Item) -> str:
    """One condition on a feature; an open end is None or infinite."""
    name = item.feature.removeprefix(FEATURE)
    if item.value is not None:
        return f"{name} = '{_short(item.value)}'"
    low = item.low if item.low is not None and math.isfinite(item.low) else None
    high = item.high if item.high is not None and math.isfinite(item.high) else None
    if low is not None and low == high:
        return f"{name} = {low:.12g}"
    if low is not None and high is not None:
        return f"{name} in ({low:.6g}, {high:.6g}]"
    if low is not None:
        return f"{name} > {low:.6g}"
    if high is not None:
        return f"{name} <= {high:.6g}"
    return f"{name} is missing"


def _span(name: str, first: int, many: int) -> str:
    """Rows or columns from `first` on, counted from 0."""
    return f"{name} {first}" if many == 1 else f"{name}s {first}-{first + many - 1}"


def _percent(share: float) -> str:
    """A share with two digits that count."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
