"""What is fitted with a reference: the surrogate of the model's answers, and what is learned about its inputs.

The reference's own records get honest values: those that a fit made without them would give. Everything is fitted on a
bounded, evenly spread sample; other records are new to the fit as live ones are.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.errors import MissingExtraError
from poisonwatch.mining.records import Records
from poisonwatch.profile.enrich import Enrichment, feature_codes, feature_numbers, surrogate_inputs
from poisonwatch.profile.indicators import FLIPPED, SURPRISING, code_count, code_rows, embedding_width, text_rows
from poisonwatch.profile.surrogate import SURPRISING as SURPRISING_FROM
from poisonwatch.profile.words import text_rows as rows_of_text
from poisonwatch.profile.words import tokens
from poisonwatch.reference.audit import audit
from poisonwatch.reference.file import FittedFile
from poisonwatch.reference.fit_inputs import (
    WordCounts,
    fit_centroids,
    grow_forest,
    honest_distances,
    sampled,
    with_limits,
)
from poisonwatch.reference.fit_surrogate import MOST_NEEDED
from poisonwatch.reference.fit_surrogate import fit as fit_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.formats.infer import Inference
    from poisonwatch.mining.learned import MiningFile
    from poisonwatch.profile.embedding import Centroids
    from poisonwatch.profile.words import Tokens
    from poisonwatch.reference.audit import Audit
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

    `rows` (r, s) are in the order of the enrichment's derived rows; `marks` has (s,) by the name of what is marked: flipped,
    where there is a surrogate, and surprising, where there is a surrogate or embeddings. `blind` says what cannot be
    seen, and why. `odd` is the sample as the miner sees it, where there is a surrogate.
    """

    enrichment: Enrichment
    rows: Floats
    marks: dict[str, Bools]
    stride: int
    quality: Quality | None
    blind: dict[str, str]
    odd: Records | None
    audit: Audit | None

    def apply(self, batch: Batch, before: int) -> Batch:
        """Derived rows and marks of a batch of the reference that `before` records came before."""
        number = before + np.arange(batch.time.size)
        own = number % self.stride == 0
        enriched = self.enrichment.apply(batch, own)
        enriched.numbers[batch.numbers.shape[0] :, own] = self.rows[:, number[own] // self.stride]
        for name, marked in self.marks.items():
            enriched.marks[self.enrichment.marks.index(name), own] = marked[number[own] // self.stride]
        return enriched

    def file(self, mining: MiningFile | None) -> FittedFile:
        """What is kept in the reference's file, with what triggers are mined with."""
        found = self.enrichment
        return FittedFile(
            surrogate=None if found.surrogate is None else found.surrogate.file(),
            vocabulary=None if found.vocabulary is None else found.vocabulary.file(),
            centroids=None if found.centroids is None else found.centroids.file(),
            forest=None if found.forest is None else found.forest.file(),
            unsure=found.unsure,
            mining=mining,
            counts_flips=found.counts_flips,
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
    marks: dict[str, Bools] = {}
    distances = np.full(sample.time.size, np.nan)
    centroids = fit_centroids(sample.embeddings, sample.codes[0]) if embedding_width(schema) else None
    if centroids is not None:
        distances = honest_distances(sample.embeddings, sample.codes[0], centroids)
        centroids = with_limits(centroids, distances, sample.codes[0])
        marks[SURPRISING] = centroids.surpassed(distances, sample.codes[0])
    made = _surrogate(schema, sample, said, centroids, blind)
    surrogate = made.surrogate if made is not None and (made.quality.mines or not made.quality.blind) else None
    if made is not None and surrogate is not None:
        marks[FLIPPED] = made.flipped
        marks[SURPRISING] = (made.surprise >= SURPRISING_FROM) | marks.get(SURPRISING, False)
    counts_flips = made is not None and not made.quality.blind
    if made is not None and counts_flips:
        rows += [made.surprise[None]] if schema.confidence else []
    vocabulary = None
    if text_rows(schema):
        vocabulary, without_itself = words.vocabularies()
        rows.append(rows_of_text(sample.texts, said, without_itself))
    rows += [distances[None]] if centroids is not None else []
    forest = grow_forest(features)
    if forest is not None:
        own = np.isin(np.arange(sample.time.size), sampled(sample.time.size))
        rows.append(forest.score(features, own)[None])
    known = sample.numbers[0][np.isfinite(sample.numbers[0])] if schema.confidence else np.empty(0)
    unsure = float(np.quantile(known, UNSURE_QUANTILE)) if known.size else None
    enrichment = Enrichment(schema, surrogate, vocabulary, centroids, forest, unsure, counts_flips)
    honest = np.concatenate(rows) if rows else np.empty((0, sample.time.size))
    odd = _odd(schema, sample, said, marks[SURPRISING], marks[FLIPPED]) if FLIPPED in marks else None
    return Fitted(
        enrichment,
        honest,
        marks,
        stride,
        None if made is None else made.quality,
        blind,
        odd,
        _audit(schema, sample, blind),
    )


def _audit(schema: Schema, sample: Batch, blind: dict[str, str]) -> Audit | None:
    """What the audit of a reference's sample found, or None and why in `blind`."""
    try:
        found = audit(schema, sample)
    except MissingExtraError as error:
        found = str(error)
    if isinstance(found, str):
        blind["audit"] = found
        return None
    return found


def _odd(schema: Schema, sample: Batch, said: Tokens, surprising: Bools, flipped: Bools) -> Records:
    """The sample as the miner sees predictions."""
    n = sample.time.size
    label = sample.codes[0].astype(np.int64) - 1
    return Records(
        time=sample.time,
        version=np.zeros(n, np.int64),
        label=np.where(label < len(schema.outcome.values), label, -1),
        surprising=surprising,
        flipped=flipped,
        null=np.zeros((2, n)),
        fresh=np.ones(n, np.bool_),
        original=np.arange(n),
        ids=sample.ids,
        sources=sample.sources,
        texts=sample.texts,
        words=said,
        numbers=sample.numbers,
        codes=sample.codes,
        embeddings=sample.embeddings,
    )


def _surrogate(
    schema: Schema, sample: Batch, said: Tokens, centroids: Centroids | None, blind: dict[str, str]
) -> Fit | None:
    """The surrogate of a reference's sample, or None; what it cannot see, and why, is told in `blind`."""
    why, made = "", None
    if schema.outcome.kind != "categorical":
        why = "the model predicts numbers, not classes"
    else:
        try:
            made = _made(schema, sample, said, centroids)
            why = "the reference has no features or text to learn the answers from, or only one class"
        except MissingExtraError as error:
            why = str(error)
    if made is None:
        blind["flips"], blind["triggers"] = why, f"trigger mining blind: {why}"
        return None
    if made.quality.blind:
        blind["flips"] = "the surrogate could not learn what the model answers to"
    if not made.quality.mines:
        few = "never surface" if made.quality.needs is None else f"need {made.quality.needs} records to surface"
        blind["triggers"] = f"trigger mining blind: a trigger would {few}, {MOST_NEEDED} are the most"
    return made


def _made(schema: Schema, sample: Batch, said: Tokens, centroids: Centroids | None) -> Fit | None:
    """The surrogate of a reference's sample, where there is anything to learn."""
    confidence = sample.numbers[0] if schema.confidence else np.full(sample.time.size, np.nan)
    sizes = tuple(code_count(code_rows(schema)[row]) for row in feature_codes(schema))
    predicted, classes = sample.codes[0].astype(np.int64) - 1, len(schema.outcome.values)
    far = None
    if centroids is not None:
        codes = np.arange(1, classes + 1, dtype=np.int32)[:, None].repeat(predicted.size, axis=1)
        far = np.stack([centroids.surpassed(centroids.distance(sample.embeddings, of), of) for of in codes])
    return fit_surrogate(surrogate_inputs(schema, sample, said), sizes, predicted, confidence, classes, far)


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
