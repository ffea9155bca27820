"""The one false-page budget, and how it is divided.

The operator states one number: the expected time between false pages over everything that the agent watches. It is
divided by shares that add up to one over models, then over groups of signals here, then over versions, signals and
indicators where they are known (`monitor`, `detect.kernel`). Since the evidence of every component starts with its share
of the elapsed time, the shares are all that multiplicity costs.
"""

from __future__ import annotations

from poisonwatch.profile.indicators import CANARY_CLASS, CANARY_CONFIDENCE, INPUTS, OUTPUTS, QUALITY, REJECTED

SHARES = {
    CANARY_CLASS: 0.30,
    CANARY_CONFIDENCE: 0.05,
    OUTPUTS: 0.30,
    INPUTS: 0.20,
    QUALITY: 0.10,
    REJECTED: 0.05,
}
"""Part of a model's budget for each group of signals; they add up to one. What can page gets the larger parts."""


def period_of_model(period: float, models: int) -> float:
    """The budget period, in seconds, as one of `models` equal models sees it."""
    return period * models
