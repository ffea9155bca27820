"""From a detector's memory to evidence: how strong, how large, since when, and who is guilty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poisonwatch.detect.kernel import log_evidence
from poisonwatch.profile.odds import LOG_ZERO, logit
from poisonwatch.types import Evidence, Subject

if TYPE_CHECKING:
    from poisonwatch.detect.kernel import Bets, Memory
    from poisonwatch.types import Floats

QUIET = np.log(0.01)
"""Below this many nats from a page nothing is said but the number itself."""

MOST_SUBJECTS = 5
NEAR = 3.0
"""An indicator is guilty with the strongest one when its own evidence is within this many nats of it."""

EQUAL = 1e-6
"""Evidence that differs by less, in nats, differs by rounding."""


def collect(
    model: str,
    version: str | None,
    memory: Memory,
    bets: Bets,
    texts: tuple[str, ...],
    expected: Floats,
    floor: Floats,
    compared_with: str | None = None,
) -> list[Evidence]:
    """One `Evidence` per group of signals; where it is negligible, of no signal in particular. `texts`, `expected`, `floor` (j,) belong to the detector's indicators.

    Where the memory has two arms, the expected rate is the other version's over the same interval.
    """
    found = []
    per_group = log_evidence(memory, bets)
    for group, name in enumerate(bets.groups):
        log_e = float(per_group[group])
        effect, best = 0.0, bets.of_group(group).start
        subjects: tuple[Subject, ...] = ()
        # Of what is negligible, which happens a thousand times an hour, nobody asks for more than the number.
        if log_e >= QUIET:
            of_group = bets.of_group(group)
            best = _strongest(memory, bets, of_group, expected)
            effect = _effect(memory, bets, best, expected)
            if abs(effect) >= floor[bets.indicator[best]]:
                subjects = _guilty(memory, bets, of_group, texts, expected)
        signal = bets.signals[bets.signal[best]]
        n = int(memory.asked[0, bets.indicator[best]] - memory.asked_before[0, best])
        found.append(
            Evidence(
                model=model,
                model_version=version,
                group=name,
                signal=signal,
                log_e=log_e,
                effect=effect,
                floor=float(floor[bets.indicator[best]]),
                n=n,
                onset=float(memory.since[best]),
                subjects=subjects,
                compared_with=compared_with,
            )
        )
    return found


def _rates(memory: Memory, bets: Bets, component: int, expected: Floats) -> tuple[float, float]:
    """Rate since the component's onset, and what it should be.

    Both hold one made-up prediction that says what is expected, so that they stay inside (0, 1) and nothing seen is no
    effect.
    """
    of = bets.indicator[component]
    asked = memory.asked[:, of] - memory.asked_before[:, component]
    yes = memory.yes[:, of] - memory.yes_before[:, component]
    if asked.size == 1:
        should = float(expected[of])
        return (float(yes[0]) + should) / (float(asked[0]) + 1), should
    pooled = (float(yes.sum()) + 1) / (float(asked.sum()) + 2)
    rates = (yes + pooled) / (asked + 1)
    return float(rates[0]), float(rates[1])


def _effect(memory: Memory, bets: Bets, component: int, expected: Floats) -> float:
    rate, should = _rates(memory, bets, component, expected)
    moved = logit(np.array([rate, should]))
    # A component bets on one side; what happened on the other is no effect of its.
    sign = float(bets.sign[component])
    return sign * max(sign * float(moved[0] - moved[1]), 0.0)


def _strongest(memory: Memory, bets: Bets, of_group: slice, expected: Floats) -> int:
    """The component with the strongest evidence; among equals the one of the rarer answer, which says more.

    Of two classes one falls as the other rises: their evidence is the same but for rounding, which must not choose.
    """
    log_m = memory.log_m[of_group]
    equal = of_group.start + np.flatnonzero(log_m >= log_m.max() - EQUAL)
    return int(equal[np.argmin(expected[bets.indicator[equal]])])


def _guilty(
    memory: Memory, bets: Bets, of_group: slice, texts: tuple[str, ...], expected: Floats
) -> tuple[Subject, ...]:
    """The indicators whose evidence comes near the strongest one's, strongest first, each once."""
    log_m = memory.log_m[of_group]
    near = np.flatnonzero(log_m >= max(log_m.max() - NEAR, LOG_ZERO + 1))
    rarity = expected[bets.indicator[of_group.start + near]]
    order = of_group.start + near[np.lexsort((rarity, -np.round(log_m[near] / EQUAL)))]
    subjects: dict[int, Subject] = {}
    for component in order:
        of = int(bets.indicator[component])
        if of not in subjects:
            rate, should = _rates(memory, bets, int(component), expected)
            signal = bets.signals[bets.signal[component]]
            subjects[of] = Subject(indicator=texts[of], signal=signal, rate=rate, expected=should)
        if len(subjects) == MOST_SUBJECTS:
            break
    return tuple(subjects.values())
