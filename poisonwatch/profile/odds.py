"""Rates, their log-odds and bounds, and the ends of the scale of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

TINY = 1e-9
"""Rates are kept this far from 0 and 1."""


LOG_ZERO = -745.0
"""Stands for log 0: the smallest logarithm whose exponential is still a float above zero."""

LOG_CAP = 6.9
"""Ceiling of evidence in nats (a thousand budgets): what lies beyond it must not delay the resolution."""


def logit(p: Floats) -> Floats:
    """Log-odds of rates, kept finite."""
    p = np.clip(p, TINY, 1 - TINY)
    return np.asarray(np.log(p) - np.log1p(-p))


def expit(z: Floats) -> Floats:
    """Rates of log-odds, kept off 0 and 1."""
    return np.clip(1.0 / (1.0 + np.exp(-z)), TINY, 1 - TINY)


def log_odds_gap(asked: Floats | Ints, yes: Floats | Ints, expected: Floats) -> Floats:
    """How far rates lie from what was expected of them, in log-odds: `yes` and `expected` numbers of yes among `asked`."""
    return logit((yes + 0.5) / (asked + 1.0)) - logit((expected + 0.5) / (asked + 1.0))


def poisson_upper(k: Floats | Ints, errors: float) -> Floats:
    """Upper ends of score intervals, so many standard errors wide, of the Poisson means of which k were met."""
    return np.asarray(k + errors**2 / 2 + errors * np.sqrt(k + errors**2 / 4))
