"""How much records have in common, of all that the surrogate sees: what the audit explains answers by.

Whatever is left out here could not speak for an honest group, which would then look as if nothing explained its answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.profile.embedding import usable
from poisonwatch.profile.kernel import MOST_DIRECTIONS, gaussian
from poisonwatch.reference.fit_inputs import principal
from poisonwatch.reference.fit_models import NARROWNESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poisonwatch.profile.scorer import Inputs
    from poisonwatch.profile.words import Tokens
    from poisonwatch.types import Floats

KNOTS = 8
"""A number that so many parts of the records share has a weight of its own; all others lie between as many quantiles of them."""

SHARPNESS = 8.0
HEIGHT = 25.0
ADDITIVE = 5.0
"""The kernel of records that share the part m of their values is HEIGHT exp(SHARPNESS (m - 1)) + ADDITIVE m; embeddings are as high.

The second part is what each value says by itself, which the first one would learn anew for each neighbourhood.
"""

COMPARED = 500
"""Embeddings between which distances are looked at."""


def kernel(inputs: Inputs) -> Floats:
    """How much n records have in common (n, n): the sum over words, values and embeddings, each where there are any."""
    found = np.zeros((inputs.n, inputs.n))
    if inputs.tokens is not None and inputs.tokens.word.size:
        found += of_words(inputs.tokens, inputs.n)
    if len(inputs.numbers) + len(inputs.codes):
        places = weights(inputs)
        found += of_values(places @ places.T)
    if inputs.embeddings is not None:
        found += of_embeddings(inputs.embeddings)
    return found


def of_words(tokens: Tokens, n: int) -> Floats:
    """Inner products (n, n) of the records' words, each record's divided by the root of their number."""
    from scipy import sparse  # noqa: PLC0415

    word, row = tokens
    share = 1.0 / np.sqrt(np.maximum(1, np.bincount(row, minlength=n)))
    known, place = np.unique(word, return_inverse=True)
    words = sparse.csr_matrix((share[row], (row, place)), shape=(n, known.size))
    return np.asarray((words @ words.T).toarray())


def weights(inputs: Inputs) -> Floats:
    """Numbers and categories as weights (n, w), whose inner products are the part of their values that records share."""
    parts = [_placed(row) for row in inputs.numbers]
    parts += [(row[:, None] == np.unique(row)).astype(np.float64) for row in inputs.codes]
    found = np.concatenate(parts, axis=1)
    found /= np.sqrt(len(parts))
    return np.asarray(found)


def of_values(part: Floats) -> Floats:
    """The kernel (n, n) of records that share a part (n, n) of their values."""
    found = np.exp(SHARPNESS * (part - 1.0))
    found *= HEIGHT
    found += ADDITIVE * part
    return np.asarray(found)


def of_embeddings(embeddings: NDArray[np.float32]) -> Floats:
    """Gaussian bumps (n, n) of embeddings (e, n), as the surrogate compares them; 0 where one is missing."""
    there = np.flatnonzero(usable(embeddings))
    found = np.zeros((embeddings.shape[1], embeddings.shape[1]))
    if there.size > 1:
        points = embeddings[:, there].T.astype(np.float64)
        places = points @ principal(points - points.mean(axis=0), MOST_DIRECTIONS)
        some = places[np.unique(np.linspace(0, there.size - 1, min(there.size, COMPARED)).astype(np.int64))]
        between = np.sqrt(np.square(some[:, None] - some[None]).sum(axis=2))
        width = max(NARROWNESS * float(np.median(between[np.triu_indices(len(some), 1)])), 1e-12)
        found[np.ix_(there, there)] = HEIGHT * gaussian(places / width, places / width)
    return found


def _placed(x: Floats) -> Floats:
    """Weights (n, w), of length one, that tell how near numbers are: the frequent ones, quantiles of the others, missing."""
    known = np.isfinite(x)
    values, place, counts = np.unique(x[known], return_inverse=True, return_counts=True)
    frequent = np.flatnonzero(counts * KNOTS >= x.size)
    usual = np.zeros(x.size, np.bool_)
    usual[known] = np.isin(place, frequent)
    others = known & ~usual
    found = np.zeros((x.size, frequent.size + KNOTS + 1))
    found[~known, -1] = 1.0
    for column, value in enumerate(values[frequent]):
        found[usual & (x == value), column] = 1.0
    if others.any():
        knots = np.unique(np.quantile(x[others], np.linspace(0, 1, KNOTS), method="inverted_cdf"))
        at = np.interp(x[others], knots, np.arange(knots.size))
        low = np.minimum(at.astype(np.int64), max(0, knots.size - 2))
        rows = np.flatnonzero(others)
        found[rows, frequent.size + low] = 1.0 - (at - low)
        found[rows, frequent.size + low + 1] += at - low
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))
