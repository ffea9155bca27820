"""The one false-page budget, and how it is divided.

The operator states one number: the expected time between false pages over everything that the agent watches. It is
divided by shares that add up to one over models, then over groups of signals here, then over versions, signals and
indicators where they are known (`monitor`, `detect.kernel`). Since the evidence of every component starts with its share
of the elapsed time, the shares are all that multiplicity costs.
"""

from __future__ import annotations

from poisonwatch.profile.indicators import (
    CANARY_CLASS,
    CANARY_CONFIDENCE,
    CANARY_ERRORS,
    CANARY_FLIPS,
    CANARY_INPUTS,
    CONFIDENCE_FALL,
    COVERAGE,
    ERRORS,
    FLIPS,
    GOLDEN,
    GOLDEN_CHANGE,
    HARMFUL_FLIPS,
    INPUTS,
    OUTPUTS,
    QUALITY,
    REJECTED,
    SHADOW,
    SLICE_CONFIDENCE,
    SLICE_ERRORS,
    SLICE_FLIPS,
    SLICE_HARMFUL_FLIPS,
    SOURCES,
    TRIGGERS,
    VOLUME,
)

SHARES = {
    ERRORS: 0.06,
    SLICE_ERRORS: 0.05,
    HARMFUL_FLIPS: 0.03,
    SLICE_HARMFUL_FLIPS: 0.04,
    CANARY_ERRORS: 0.04,
    CANARY_CLASS: 0.10,
    CANARY_FLIPS: 0.02,
    CANARY_CONFIDENCE: 0.02,
    CANARY_INPUTS: 0.02,
    SHADOW: 0.03,
    TRIGGERS: 0.15,
    GOLDEN: 0.02,
    GOLDEN_CHANGE: 0.01,
    SOURCES: 0.08,
    FLIPS: 0.06,
    SLICE_FLIPS: 0.05,
    CONFIDENCE_FALL: 0.04,
    SLICE_CONFIDENCE: 0.04,
    OUTPUTS: 0.04,
    INPUTS: 0.03,
    QUALITY: 0.03,
    REJECTED: 0.02,
    VOLUME: 0.01,
    COVERAGE: 0.01,
}
"""Part of a model's budget for each group of signals; they add up to one. What can page gets the larger parts."""


def period_of_model(period: float, models: int) -> float:
    """The budget period, in seconds, as one of `models` equal models sees it."""
    return period * models
