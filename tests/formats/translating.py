"""Reading with a format in tests: what it makes of events, and the pairs of the captures that the formats share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from poisonwatch.formats.decoding import Foreign
from poisonwatch.formats.events import Block
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.infer import infer
from poisonwatch.formats.jsonl import JsonlFeedback, JsonlPredictions
from tests.formats.posted import CAPTURES, Told, gathered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poisonwatch.formats.foreign import Format

LONGEST = 1 << 20


def told(format_: Format, blocks: Iterable[Block]) -> Told:
    """Everything that a format makes of a log."""
    translator = Translator(format_)
    return gathered([*map(translator.translate, blocks), translator.flush()])


def lines(*values: Any, origin: str = "") -> Block:
    """A block of one JSON value a line."""
    return Block(b"".join(json.dumps(value).encode() + b"\n" for value in values), origin=origin)


def captured(folder: str, *files: str) -> list[Block]:
    """Files below a folder of the captures, each a block."""
    return [Block((CAPTURES / folder / file).read_bytes(), origin=f"logs/{folder}/{file}") for file in files]


def adult() -> dict[str, dict[str, Any]]:
    """What the client sent (`features`) and got (`label`, `probability`, `probabilities`), by id."""
    return {row["id"]: row for row in map(json.loads, (CAPTURES / "adult.jsonl").read_text("utf-8").splitlines())}


def counts_hold(make: Callable[[], Format], blocks: list[Block], sample: list[dict[str, Any]]) -> None:
    """Decode to columns: every line is a prediction, a label or a rejection, whatever the blocks hold."""
    schema = infer([json.dumps(record).encode() for record in sample]).schema
    decoder = Foreign(
        Translator(make()), JsonlPredictions({schema.model or "": schema}, LONGEST), JsonlFeedback(LONGEST)
    )
    for decoded in [*map(decoder.decode, blocks), decoder.flush()]:
        assert decoded.lines == decoded.predictions + decoded.labels + sum(decoded.rejected.values())


def json_values(names: list[str], texts: list[str]) -> st.SearchStrategy[Any]:
    """JSON of any structure, often with these names and texts in it, also as JSON within JSON."""
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(texts)
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(names) | st.text(max_size=3), inner, max_size=5)
            | inner.map(json.dumps)
        ),
        max_leaves=25,
    )
