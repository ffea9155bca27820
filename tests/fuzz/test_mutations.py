"""Captures of real servers, changed in whatever way keeps them parseable: never an exception, always a count."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.formats.decoding import Foreign
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.jsonl import JsonlFeedback, JsonlPredictions
from tests.fuzz.formats import LONGEST, accounted, block, consistent, formats, schema_of
from tests.fuzz.mutation import changed_event

if TYPE_CHECKING:
    from poisonwatch.formats.events import Event

pytestmark = pytest.mark.slow

NAMES = sorted(formats())
MOST = 10


def predictions_of(name: str, events: list[Event]) -> tuple[int, int]:
    """How many predictions are accepted, and how many are counted as lost."""
    schema = schema_of(name)
    decoder = Foreign(
        Translator(formats()[name].make()),
        JsonlPredictions({schema.model or "": schema}, LONGEST),
        JsonlFeedback(LONGEST),
    )
    parts = [decoder.decode(block(events)), decoder.flush()]
    for part in parts:
        consistent(part)
    return sum(part.predictions for part in parts), sum(sum(part.rejected.values()) for part in parts)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(MOST)), changes=st.integers(1, 6))
def test_every_event_has_one_end(name: str, seed: int, order: list[int], changes: int) -> None:
    """Changed, repeated, in any order, with restarts between: no event vanishes, and all decodes to columns."""
    rng = random.Random(seed)
    events = list(formats()[name].events[:MOST])
    events = [events[place] for place in order if place < len(events)]
    for _ in range(changes):
        place = rng.randrange(len(events))
        if rng.random() < 0.2:
            events.append(events[place])
        events[place] = changed_event(events[place], rng)
    accounted(formats()[name].make, events)
    predictions_of(name, events)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), at=st.integers(0, 3))
def test_what_is_odd_costs_the_others_nothing(name: str, seed: int, at: int) -> None:
    """One prediction's events are changed: those of all others are accepted as before."""
    rng = random.Random(seed)
    written = formats()[name]
    events = list(written.events[: 4 * written.halves])
    mine = slice(at * written.halves, (at + 1) * written.halves)
    others = [*events[: mine.start], *events[mine.stop :]]
    alone, _ = predictions_of(name, others)
    assert alone == 3
    changed = [changed_event(event, rng) for event in events[mine]]
    accepted, lost = predictions_of(name, [*events[: mine.start], *changed, *events[mine.stop :]])
    assert accepted >= 3
    assert accepted + lost >= 3
