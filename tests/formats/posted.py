"""What servers posted, and what formats make of it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from poisonwatch.checkpoint import load, save
from poisonwatch.formats.events import Block, Event, frame
from poisonwatch.formats.foreign import Draft, Format, Translated, Translator
from poisonwatch.formats.lenient import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from poisonwatch.formats.pairing import Pairing

CAPTURES = Path(__file__).parent / "captures"

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
"""Any JSON value, NaN and halves of surrogate pairs among them."""


def reason_of(call: Callable[[], object]) -> str:
    """Why something was rejected; empty where it was not."""
    try:
        call()
    except Rejected as rejected:
        return str(rejected.args[0])
    return ""


def posted(name: str) -> list[Event]:
    """The events of a capture, as the agent's own server would frame them."""
    events = []
    for line in (CAPTURES / name).read_text("utf-8").splitlines():
        post = json.loads(line)
        headers = {key.lower(): value for key, value in post["headers"]}
        received = datetime.fromisoformat(post["received"]).timestamp()
        events.append(Event(post["body"].encode(), headers, received, post["path"]))
    return events


class Told(NamedTuple):
    """All that a format made of events."""

    records: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    rejected: Counter[str]
    faults: Counter[str]


def gathered(parts: Iterable[Translated]) -> Told:
    """What several blocks were translated to, together."""
    told = Told([], [], Counter(), Counter())
    for part in parts:
        told.records.extend(json.loads(line) for line in part.records.splitlines())
        told.labels.extend(json.loads(line) for line in part.labels.splitlines())
        told.rejected.update(part.lost.rejected)
        told.faults.update(part.lost.faults)
    return told


def block(events: Sequence[Event]) -> Block:
    """The events as frames."""
    return Block(b"".join(map(frame, events)), framed=True)


def tell(made: Format, events: Sequence[Event]) -> Told:
    """What a format makes of events that come in one block, and of what then still waits."""
    translator = Translator(made)
    return gathered([translator.translate(block(events)), translator.flush()])


def tell_in_pieces(
    make: Callable[[], Format], events: Sequence[Event], cuts: Iterable[int], restarts: bool, folder: Path
) -> Told:
    """The same of a stream that is cut before the events at `cuts`; where `restarts`, through a checkpoint at each."""
    translator = Translator(make())
    parts = []
    edges = sorted({0, *cuts, len(events)})
    for start, end in pairwise(edges):
        parts.append(translator.translate(block(events[start:end])))
        if restarts:
            save(folder / "state.npz", {"translator": translator.state()}, {})
            saved = load(folder / "state.npz", {})
            translator = Translator(make())
            translator.restore((saved or {})["translator"])
    return gathered([*parts, translator.flush()])


def assert_one_end(made: Format, pairing: Pairing, events: Iterable[Event]) -> None:
    """Each event, none of which lets another expire, is rejected, waits, or completes a pair that is told of."""
    for event in events:
        waiting, draft = len(pairing), Draft()
        reason = reason_of(partial(made.read, event, draft))
        told = len(draft.records) + len(draft.labels) + draft.rejected.total()
        match len(pairing) - waiting:
            case 1:
                assert reason == ""
                assert told == 0
            case -1:
                assert reason == ""
                assert told > 0
            case change:
                assert change == 0
                assert (reason == "") == (told > 0)
