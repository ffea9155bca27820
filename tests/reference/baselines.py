"""What the tests of references share: the demo's reference, and when baselines are the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import poisonwatch.demo
from poisonwatch.reference.build import build

if TYPE_CHECKING:
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.reference.file import Reference

DEMO = Path(poisonwatch.demo.__file__).parent / "reference.ndjson.gz"


def same_baselines(first: Baseline, second: Baseline) -> bool:
    """Are two baselines the same, bit for bit?"""
    return (
        first.questions.indicators == second.questions.indicators
        and all(
            np.array_equal(getattr(first, name), getattr(second, name))
            for name in ("counts", "rate", "low", "high", "design_effect", "day_noise")
        )
        and (
            (first.season is None and second.season is None)
            or (
                first.season is not None
                and second.season is not None
                and all(
                    np.array_equal(getattr(first.season, name), getattr(second.season, name))
                    for name in ("rate", "low", "high")
                )
            )
        )
    )


def all_baselines(learned: Reference) -> list[Baseline]:
    """Every baseline that a reference holds."""
    volume = learned.usual_volume()
    found = [learned.baseline(), learned.errors_baseline(), learned.lines_baseline()]
    return found if volume is None else [*found, volume.baseline]


@cache
def demo() -> Reference:
    """The reference of the demo."""
    return build([DEMO])
