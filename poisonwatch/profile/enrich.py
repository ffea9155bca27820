"""What is learned offline and asked of every prediction: derived rows of numbers, and marks. Pure.

The surrogate says what the model normally answers: *surprise* and *flips*. Text, embeddings and outliers give rows like any
other number. All of it is fitted with the reference and never moves by itself.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.profile.embedding import EMBEDDING_DISTANCE
from poisonwatch.profile.indicators import (
    CONFIDENCE,
    FLIPPED,
    OUTCOME,
    SURPRISE,
    SURPRISING,
    UNSURE,
    code_rows,
    number_rows,
)
from poisonwatch.profile.outlier import OUTLIER, Sampler
from poisonwatch.profile.scorer import Inputs
from poisonwatch.profile.surrogate import SURPRISING as SURPRISING_FROM
from poisonwatch.profile.words import TEXT_ROWS, Tokens, text_rows, tokens

if TYPE_CHECKING:
    from poisonwatch.profile.embedding import Centroids
    from poisonwatch.profile.outlier import Forest
    from poisonwatch.profile.surrogate import Surrogate
    from poisonwatch.profile.words import Vocabulary
    from poisonwatch.types import Batch, Bools, Floats, Ints, Schema


def feature_numbers(schema: Schema) -> Ints:
    """Rows of `Batch.numbers` that are features."""
    rows = number_rows(schema)
    return np.array([row for row, name in enumerate(rows) if name not in {CONFIDENCE, OUTCOME}], np.int64)


def feature_codes(schema: Schema) -> Ints:
    """Rows of `Batch.codes` that are categorical inputs."""
    rows = code_rows(schema)
    return np.array([r for r, c in enumerate(rows) if c.kind == "categorical" and c.name != OUTCOME], np.int64)


def surrogate_inputs(schema: Schema, batch: Batch, words: Tokens) -> Inputs:
    """What the surrogate sees of a batch, whose words are given."""
    numbers, codes = batch.numbers[feature_numbers(schema)], batch.codes[feature_codes(schema)]
    return Inputs(numbers, codes, words, batch.embeddings if len(batch.embeddings) else None)


@dataclass(frozen=True, slots=True)
class Enrichment:
    """Everything that is fitted for a schema; None is what the reference gave no ground for.

    `unsure` is the confidence up to which a prediction counts as unsure: a low quantile of the reference's. A surrogate whose
    flips say too little to be counted (`counts_flips` false) still serves to mine triggers.
    """

    schema: Schema
    surrogate: Surrogate | None = None
    vocabulary: Vocabulary | None = None
    centroids: Centroids | None = None
    forest: Forest | None = None
    unsure: float | None = None
    counts_flips: bool = True

    @property
    def derived(self) -> tuple[str, ...]:
        """Names of the rows that are added to `Batch.numbers`."""
        return (
            *((SURPRISE,) if self._flips and self.schema.confidence else ()),
            *(TEXT_ROWS if self.vocabulary is not None else ()),
            *((EMBEDDING_DISTANCE,) if self.centroids is not None else ()),
            *((OUTLIER,) if self.forest is not None else ()),
        )

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the marks that indicators ask of, which are the first rows of `Batch.marks`."""
        return (*((FLIPPED,) if self._flips else ()), *((UNSURE,) if self.unsure is not None else ()))

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of the rows of `Batch.marks`: beside those that are asked of, what the mining of triggers sees."""
        return (
            *self.asked,
            *((FLIPPED,) if self.surrogate is not None and not self._flips else ()),
            *((SURPRISING,) if self.surrogate is not None or self.centroids is not None else ()),
        )

    @property
    def _flips(self) -> bool:
        return self.surrogate is not None and self.counts_flips

    def sampler(self, window: float) -> Sampler:
        """Which predictions are looked at for outliers, in windows of so many seconds."""
        return Sampler(window)

    def apply(self, batch: Batch, scored: Bools, words: Tokens | None = None) -> Batch:
        """The batch with derived rows and marks; outliers are looked for among the `scored` (n,) records.

        `words` are the tokens of its texts where they are known already.
        """
        if not self.derived and not self.marks:
            return batch
        n = batch.time.size
        rows: list[Floats] = [batch.numbers]
        marks: dict[str, Bools] = {SURPRISING: np.zeros(n, np.bool_)}
        words = tokens(batch.texts) if words is None else words
        if self.surrogate is not None:
            marks[FLIPPED], surprise = self._answers(batch, words)
            marks[SURPRISING] |= surprise >= SURPRISING_FROM
            rows += [surprise[None]] if SURPRISE in self.derived else []
        if self.vocabulary is not None:
            rows.append(text_rows(batch.texts, words, self.vocabulary))
        if self.centroids is not None:
            distances = self.centroids.distance(batch.embeddings, batch.codes[0])
            marks[SURPRISING] |= self.centroids.surpassed(distances, batch.codes[0])
            rows.append(distances[None])
        if self.forest is not None:
            found = np.full(n, np.nan)
            found[scored] = self.forest.score(batch.numbers[np.ix_(feature_numbers(self.schema), scored)])
            rows.append(found[None])
        if self.unsure is not None:
            marks[UNSURE] = batch.numbers[0] <= self.unsure
        bearing = [marks[name] for name in self.marks]
        return dataclasses.replace(
            batch, numbers=np.concatenate(rows), marks=np.array(bearing, np.bool_).reshape(len(bearing), n)
        )

    def _answers(self, batch: Batch, words: Tokens) -> tuple[Bools, Floats]:
        """Which predictions the surrogate says otherwise of, and how surprising each is (n,)."""
        assert self.surrogate is not None  # noqa: S101 - asked for by those who know
        n = batch.time.size
        confidence = batch.numbers[0] if self.schema.confidence else np.full(n, np.nan)
        inputs = surrogate_inputs(self.schema, batch, words)
        return self.surrogate.compare(self.surrogate.scores(inputs), batch.codes[0].astype(np.int64) - 1, confidence)
