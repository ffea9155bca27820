"""Distances between a profile and the baseline, for people and dashboards. They never page.

All are computed from binned counts. For a numerical row the bins lie between its cuts, so that Kolmogorov-Smirnov is the
largest difference at a cut (a lower bound) and Wasserstein the area between the two distribution functions over the
range of the cuts, in units of that range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Floats, Ints

FEWEST = 500
"""Predictions that a profile needs before its distances mean anything."""


def psi(p: Floats, q: Floats) -> float:
    """Population stability index of two sets of masses (k,) without zeros."""
    return float(((p - q) * np.log(p / q)).sum())


def jensen_shannon(p: Floats, q: Floats) -> float:
    """Jensen-Shannon distance (base 2, so within [0, 1]) of two sets of masses (k,) without zeros."""
    middle = (p + q) / 2
    divergence = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2
    return float(np.sqrt(max(divergence, 0.0)))


def distances(questions: Questions, baseline: Ints, current: Ints) -> dict[str, dict[str, float]]:
    """Distances by column name, then by kind: `psi`, `jensen_shannon`, and for numbers `ks` and `wasserstein`.

    `baseline` and `current` are profile vectors (size,). Columns without values on either side are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for row, name in enumerate(questions.numbers):
        place = questions.cut_place(row)
        present = questions.present_place(row)
        if place.stop == place.start or not baseline[present] or not current[present]:
            continue
        below = [np.concatenate(([0], counts[place], [counts[present]])) for counts in (baseline, current)]
        expected, seen = (counts[1:-1] / counts[-1] for counts in below)
        gap = np.abs(seen - expected)
        cuts = questions.cuts[row, : gap.size]
        width = np.diff(cuts)
        area = float(((gap[1:] + gap[:-1]) / 2 * width).sum() / width.sum()) if width.size else 0.0
        found[name] = {
            **_of_masses(*(np.diff(counts) for counts in below)),
            "ks": float(gap.max()),
            "wasserstein": area,
        }
    for row, column in enumerate(questions.code_columns):
        place = questions.code_place(row)
        expected, seen = baseline[place][1:], current[place][1:]
        if column.kind == "categorical" and expected.sum() and seen.sum():
            found[column.name] = _of_masses(expected, seen)
    return found


def _of_masses(baseline: Ints, current: Ints) -> dict[str, float]:
    # Half a record in every bin: a bin that one side never met must not make the distance infinite.
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * counts.size) for counts in (current, baseline))
    return {"psi": psi(p, q), "jensen_shannon": jensen_shannon(p, q)}
