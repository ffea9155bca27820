"""Rates and their log-odds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats

TINY = 1e-9
"""Rates are kept this far from 0 and 1."""


def logit(p: Floats) -> Floats:
    """Log-odds of rates, kept finite."""
    p = np.clip(p, TINY, 1 - TINY)
    return np.asarray(np.log(p) - np.log1p(-p))


def expit(z: Floats) -> Floats:
    """Rates of log-odds, kept off 0 and 1."""
    return np.clip(1.0 / (1.0 + np.exp(-z)), TINY, 1 - TINY)
