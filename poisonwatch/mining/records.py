"""What passes between the parts of the miner: a block of predictions, and what an engine finds in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np

from poisonwatch.profile.words import Tokens, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.mining.suspects import Suspects
    from poisonwatch.types import Bools, Codes, Floats, Ints, Pattern, Texts, Vectors

    Columns = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """Predictions of one model that came in time, in the order of the log.

    `time` (n,) seconds. `version` (n,) numbers of the model's versions from 0, which stay the same for as long as the version runs.
    `label` (n,) the predicted class from 0, -1 for one that the reference does not have. `surprising` (n,): the surprise is in the upper
    2 % of the reference's; `flipped` (n,): the surrogate says another class; `null` (2, n): upper bounds of the rates of both among
    benign predictions of this version and class. `fresh` (n,): no near-duplicate of one before, and `original` (n,) the number of the record from the
    beginning of the log. `ids`, `sources` (n,), `texts` (t, n), `words` (their tokens), `numbers` (d, n), `codes` (c, n) and `embeddings`
    (e, n) are as in `types.Batch`, without derived rows.
    """

    time: Floats
    version: Ints
    label: Ints
    surprising: Bools
    flipped: Bools
    null: Floats
    fresh: Bools
    original: Ints
    ids: Texts
    sources: Texts
    texts: Texts
    words: Tokens
    numbers: Floats
    codes: Codes
    embeddings: Vectors

    def columns(self, which: Bools | Ints | slice) -> Columns:
        """The columns of the chosen records, in the order of the choice."""
        return {name: getattr(self, name)[..., which] for name in COLUMNS}

    def select(self, which: Bools | Ints) -> Records:
        """The chosen records, in the order of the choice."""
        return Records.of(self.columns(which))

    def cut(self, first: int, last: int) -> Records:
        """Records first to last, without looking for their words anew."""
        start, stop = np.searchsorted(self.words.row, (first, last))
        words = Tokens(self.words.word[start:stop], self.words.row[start:stop] - first)
        return Records(**self.columns(slice(first, last)), words=words)

    def join(self, other: Records) -> Records:
        """These records and those that follow."""
        columns = {name: np.concatenate((getattr(self, name), getattr(other, name)), axis=-1) for name in COLUMNS}
        row = np.concatenate((self.words.row, other.words.row + self.time.size))
        return Records(**columns, words=Tokens(np.concatenate((self.words.word, other.words.word)), row))

    @classmethod
    def of(cls, columns: Columns) -> Self:
        """Records of columns; their words are found in the texts."""
        return cls(**columns, words=tokens(columns["texts"]))


COLUMNS = tuple(field.name for field in dataclasses.fields(Records) if field.name != "words")
"""All that is indexed by record on its last axis."""


def strings(values: list[str]) -> Texts:
    """An array of objects (n,)."""
    found = np.empty(len(values), np.object_)
    found[:] = values
    return found


def saved(columns: Columns) -> dict[str, Any]:
    """Columns as a checkpoint takes them: strings as lists."""
    return {name: column.tolist() if column.dtype == object else column for name, column in columns.items()}


def restored(saved: dict[str, Any]) -> Columns:
    """Columns as they were saved."""
    if not saved:
        return {}
    columns = {name: strings(column) if name in {"ids", "sources"} else column for name, column in saved.items()}
    shape = len(saved["texts"]), len(saved["time"])
    columns["texts"] = strings([text for row in saved["texts"] for text in row]).reshape(shape)
    return columns


class Finding(NamedTuple):
    """A pattern whose e-process crossed its budget, in one version and class.

    `log_e` is its evidence in units of the page budget. Of `matched` fresh predictions of the class that bear it `flipped` flip, as far
    as the engine counted.
    """

    version: int
    label: int
    pattern: Pattern
    log_e: float
    matched: int
    flipped: int


class Known(NamedTuple):
    """A pattern that is told already: what it explains is nobody's finding."""

    version: int
    label: int
    pattern: Pattern


class Engine(Protocol):
    """Runs e-processes over one kind of patterns."""

    def step(self, records: Records, mass: float) -> None:
        """Take a block. `mass` is the share of the budget that the time since the last block earned all patterns of this engine."""
        ...

    def surfaced(self, suspects: Suspects, known: Sequence[Known]) -> list[Finding]:
        """What crossed since the last call, explained away: one finding for one attack, none for what is `known`."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        ...
