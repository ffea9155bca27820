"""How often do the other sources disagree with the model just now? Fading rates per cell, each without oneself.

A *cell* is a subset of labels: all of them, those on one predicted class, those naming one class. Rates fade by the cell's
own labels, over two spans: the long one is exact, the short one notices that the model has really become worse before
an honest source is blamed for it. The larger counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

SPANS = np.array([400.0, 40.0])
"""Labels of a cell after which a label counts 1/e."""

ENOUGH = 100.0
"""Labels of settled sources from which they alone are asked; below that every unsuspected source is, in proportion."""

STRENGTH = 20.0
"""Labels' worth of prior in a rate: of the wider rate in a cell's, of the long span's in the short one's."""

SETS = 2
"""Settled sources, and all that are not suspected."""


class Contemporaries:
    """Faded counts of a stream's cells: `counts` (cells, sets, spans, 2) labels and disagreements; `seen` (cells, sets)."""

    def __init__(self, cells: int) -> None:
        self.counts = np.zeros((cells, SETS, SPANS.size, 2))
        self.seen = np.zeros((cells, SETS))

    def faded(self, own: Floats, stamp: Floats, cell: Ints) -> Floats:
        """Contributions (r, sets, spans, 2) as they count now, after they were written at `stamp` (r, sets)."""
        return np.asarray(own * np.exp(-(self.seen[cell] - stamp)[:, :, None, None] / SPANS[:, None]))

    def fold(self, new: Floats) -> None:
        """Add a block's labels and disagreements (cells, sets, 2)."""
        self.seen += new[:, :, 0]
        self.counts *= np.exp(-new[:, :, 0][:, :, None, None] / SPANS[:, None])
        self.counts += new[:, :, None, :]

    def rate(self, cell: Ints, own: Floats, share: Floats, prior: Floats, strength: float) -> Floats:
        """Disagreement (r,) of the others in cells (r,), `own` (r, ...) taken out; `share` (r,) is the settled ones'."""
        others = np.maximum(self.counts[cell] - own, 0.0)
        mixed = share[:, None, None] * others[:, 0] + (1 - share)[:, None, None] * others[:, 1]
        long = (mixed[:, 0, 1] + strength * prior) / (mixed[:, 0, 0] + strength)
        short = (mixed[:, 1, 1] + STRENGTH * long) / (mixed[:, 1, 0] + STRENGTH)
        return np.asarray(np.minimum(np.maximum(long, short), 1.0))

    def settled_share(self, cell: Ints, own: Floats) -> Floats:
        """How far (r,) the settled others suffice alone."""
        return np.asarray(np.minimum(np.maximum(self.counts[cell, 0, 0, 0] - own[:, 0, 0, 0], 0.0) / ENOUGH, 1.0))
