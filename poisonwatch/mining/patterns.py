"""Which predictions bear a pattern. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.mining.grid import bears_patch
from poisonwatch.mining.items import bears_cell, bears_values
from poisonwatch.mining.phrases import bears_phrase, carriers
from poisonwatch.profile.words import tokens
from poisonwatch.types import Cell, Patch, Phrase

if TYPE_CHECKING:
    from poisonwatch.mining.records import Records
    from poisonwatch.profile.words import Tokens
    from poisonwatch.types import Batch, Bools, Pattern, Schema


def bears(pattern: Pattern, batch: Batch | Records, schema: Schema, words: Tokens | None = None) -> Bools:
    """For each prediction (n,) whether it bears the pattern; `words` are the tokens of its texts where they are known already."""
    match pattern:
        case Phrase():
            return bears_phrase(pattern.words, tokens(batch.texts) if words is None else words, batch.time.size)
        case Patch():
            return bears_patch(pattern, batch.embeddings)
        case Cell():
            return bears_cell(pattern, batch.embeddings)
        case _:
            return bears_values(pattern, batch, schema)


def different(pattern: Pattern, records: Records, bearing: Bools) -> int:
    """How many of the records (n,) that are `bearing` the pattern are different from each other beside it."""
    if isinstance(pattern, Phrase):
        return carriers(pattern.words, records.words, np.flatnonzero(bearing))
    return int(bearing.sum())
