"""Blocks of predictions for tests of the miner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.mining.records import Records, strings
from poisonwatch.profile.words import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence


def block(
    texts: Sequence[str],
    label: Any = 0,
    *,
    surprising: Any = False,
    flipped: Any = False,
    fresh: Any = True,
    version: Any = 0,
    start: float = 0.0,
    step: float = 1.0,
    sources: Sequence[str] | None = None,
    null: tuple[float, float] = (0.06, 0.02),
    numbers: Any = None,
    codes: Any = None,
    embeddings: Any = None,
) -> Records:
    """A block of texts; what is given once holds for all."""
    n = len(texts)
    rows = strings(list(texts)).reshape(1, n)
    return Records(
        time=start + step * np.arange(n, dtype=np.float64),
        version=np.broadcast_to(np.asarray(version, np.int64), n).copy(),
        label=np.broadcast_to(np.asarray(label, np.int64), n).copy(),
        surprising=np.broadcast_to(np.asarray(surprising, np.bool_), n).copy(),
        flipped=np.broadcast_to(np.asarray(flipped, np.bool_), n).copy(),
        null=np.broadcast_to(np.array(null)[:, None], (2, n)).copy(),
        fresh=np.broadcast_to(np.asarray(fresh, np.bool_), n).copy(),
        original=np.arange(n),
        ids=strings([f"p{start:g}-{number}" for number in range(n)]),
        sources=strings([""] * n if sources is None else list(sources)),
        texts=rows,
        words=tokens(rows),
        numbers=np.empty((0, n)) if numbers is None else np.asarray(numbers, np.float64),
        codes=np.empty((0, n), np.int32) if codes is None else np.asarray(codes, np.int32),
        embeddings=np.empty((0, n), np.float32) if embeddings is None else np.asarray(embeddings, np.float32),
    )
