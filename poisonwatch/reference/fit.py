"""What is fitted with a reference: the surrogate of the model's answers, and what is learned about its inputs.

The reference's own records get honest values: those that a fit made without them would give. Everything is fitted on a
bounded, evenly spread sample; other records are new to the fit as live ones are.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.errors import MissingExtraError
from poisonwatch.profile.enrich import Enrichment, feature_codes, feature_numbers
from poisonwatch.profile.indicators import code_count, code_rows, embedding_width, text_rows
from poisonwatch.profile.scorer import Inputs
from poisonwatch.profile.words import text_rows as rows_of_text
from poisonwatch.profile.words import tokens
from poisonwatch.reference.file import FittedFile
from poisonwatch.reference.fit_inputs import WordCounts, fit_centroids, grow_forest, sampled
from poisonwatch.reference.fit_surrogate import fit as fit_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.formats.infer import Inference
    from poisonwatch.profile.words import Tokens
    from poisonwatch.reference.fit_surrogate import Fitted as Fit
    from poisonwatch.reference.fit_surrogate import Quality
    from poisonwatch.types import Batch, Bools, Floats, Schema

MOST_FITTED = 50_000
"""Records that are fitted on."""

UNSURE_QUANTILE = 0.25
"""Share of the reference's predictions that count as unsure."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted, and the honest values of the sample, which every `stride`-th record belongs to.

    `rows` (r, s) are in the order of the enrichment's derived rows, `flipped` (s,) where there is a surrogate. `blind` says
    what cannot be seen, and why.
    """

    enrichment: Enrichment
    rows: Floats
    flipped: Bools | None
    stride: int
    quality: Quality | None
    blind: dict[str, str]

    def apply(self, batch: Batch, before: int) -> Batch:
        """Derived rows and marks of a batch of the reference that `before` records came before."""
        number = before + np.arange(batch.time.size)
        own = number % self.stride == 0
        enriched = self.enrichment.apply(batch, own)
        enriched.numbers[batch.numbers.shape[0] :, own] = self.rows[:, number[own] // self.stride]
        if self.flipped is not None:
            enriched.marks[0, own] = self.flipped[number[own] // self.stride]
        return enriched

    def file(self) -> FittedFile:
        """What is kept in the reference's file."""
        found = self.enrichment
        return FittedFile(
            surrogate=None if found.surrogate is None else found.surrogate.file(),
            vocabulary=None if found.vocabulary is None else found.vocabulary.file(),
            centroids=None if found.centroids is None else found.centroids.file(),
            forest=None if found.forest is None else found.forest.file(),
            unsure=found.unsure,
        )


def fit(found: Inference, batches: Iterable[Batch]) -> Fitted:
    """Fit everything that the schema gives ground for; what cannot be fitted is told as blind."""
    schema, blind = found.schema, dict[str, str]()
    stride = max(1, -(-found.records // MOST_FITTED))
    words = WordCounts()
    sample = _sample(batches, stride, words)
    rows: list[Floats] = []
    said = tokens(sample.texts)
    features = sample.numbers[feature_numbers(schema)]
    surrogate = quality = flipped = None
    made = _surrogate(schema, sample, said, blind)
    if made is not None:
        quality = made.quality
    if made is not None and not made.quality.blind:
        surrogate, flipped = made.surrogate, made.flipped
        rows += [made.surprise[None]] if schema.confidence else []
    vocabulary = None
    if text_rows(schema):
        vocabulary, without_itself = words.vocabularies()
        rows.append(rows_of_text(sample.texts, said, without_itself))
    every = np.ones(sample.time.size, np.bool_)
    centroids = fit_centroids(sample.embeddings, sample.codes[0]) if embedding_width(schema) else None
    if centroids is not None:
        rows.append(centroids.distance(sample.embeddings, sample.codes[0], every)[None])
    forest = grow_forest(features)
    if forest is not None:
        own = np.isin(np.arange(sample.time.size), sampled(sample.time.size))
        rows.append(forest.score(features, own)[None])
    known = sample.numbers[0][np.isfinite(sample.numbers[0])] if schema.confidence else np.empty(0)
    unsure = float(np.quantile(known, UNSURE_QUANTILE)) if known.size else None
    enrichment = Enrichment(schema, surrogate, vocabulary, centroids, forest, unsure)
    honest = np.concatenate(rows) if rows else np.empty((0, sample.time.size))
    return Fitted(enrichment, honest, flipped, stride, quality, blind)


def _surrogate(schema: Schema, sample: Batch, said: Tokens, blind: dict[str, str]) -> Fit | None:
    """The surrogate of a reference's sample, or None and why in `blind`."""
    if schema.outcome.kind != "categorical":
        blind["flips"] = "the model predicts numbers, not classes"
        return None
    of_codes = feature_codes(schema)
    inputs = Inputs(sample.numbers[feature_numbers(schema)], sample.codes[of_codes], said if said.word.size else None)
    confidence = sample.numbers[0] if schema.confidence else np.full(sample.time.size, np.nan)
    sizes = tuple(code_count(code_rows(schema)[row]) for row in of_codes)
    predicted = sample.codes[0].astype(np.int64) - 1
    try:
        made = fit_surrogate(inputs, sizes, predicted, confidence, len(schema.outcome.values))
    except MissingExtraError as error:
        blind["flips"] = str(error)
        return None
    if made is None:
        blind["flips"] = "the reference has no features or text to learn the answers from, or only one class"
    elif made.quality.blind:
        blind["flips"] = "the surrogate could not learn what the model answers to"
    return made


def _sample(batches: Iterable[Batch], stride: int, words: WordCounts) -> Batch:
    """Every `stride`-th record of the reference; the words of all of them are counted."""
    columns = ("time", "version", "numbers", "codes", "ids", "labels", "sources", "texts", "embeddings", "marks")
    kept, seen = [], 0
    for batch in batches:
        words.add(tokens(batch.texts))
        of = np.flatnonzero((seen + np.arange(batch.time.size)) % stride == 0)
        seen += batch.time.size
        kept.append(dataclasses.replace(batch, **{name: getattr(batch, name)[..., of] for name in columns}))
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in kept], axis=-1) for name in columns
    }
    return dataclasses.replace(kept[0], **joined)
