"""The sequential kernel: Shiryaev-Roberts e-detectors over indicator counts, in log space, all at once.

A *component* bets that one indicator has moved to one side by one amount. With L the likelihood ratio of that bet
against the boundary of the null, and c the share of the false-page budget that the elapsed time earned it,

    M <- L * (M + c)        and a page is allowed when the sum of M over a group of components reaches 1.

If every L has conditional mean at most 1 under the null, E[sum of M at a stopping time] <= E[elapsed time] / T for
shares that add up to one, whatever the dependence between components: the mean time to the first false page over
everything is at least the period T. (e-detectors: Shin, Ramdas, Rinaldo, arXiv 2203.03532. The bets on indicators
with an effect floor, tempering and wall-clock shares are described in docs/detection.md.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch.profile.odds import LOG_CAP, LOG_ZERO

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

THETAS = (0.15, 0.4, 1.0, 2.5)
"""How far beyond the null boundary the alternatives stand, in log-odds."""


@dataclass(frozen=True, slots=True)
class Bets:
    """The components of one detector, those of one signal side by side; all arrays (c,).

    `indicator` says whose counts a component reads, `signal` and `group` what its evidence belongs to (indices into the
    names), `sign` +1 for a rise and -1 for a fall, `theta` the step of the alternative.
    `weight` is the component's share of the budget; the shares of one detector add up to that detector's share.
    """

    signals: tuple[str, ...]
    groups: tuple[str, ...]
    indicator: Ints
    signal: Ints
    group: Ints
    sign: Floats
    theta: Floats
    weight: Floats

    @property
    def starts(self) -> Ints:
        """Where the components of each group begin (groups,): they are side by side too."""
        return np.searchsorted(self.group, np.arange(len(self.groups)))

    def of_group(self, group: int) -> slice:
        """Where the components of a group stand."""
        first, last = np.searchsorted(self.group, (group, group + 1))
        return slice(int(first), int(last))


def lay_bets(
    signal_of: Ints,
    sides: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    signals: tuple[tuple[str, str], ...],
    shares: dict[str, float],
    thetas: tuple[float, ...] = THETAS,
) -> Bets:
    """Components for indicators (j,) of `signals` (name, group); `shares` has the budget share of each group.

    Every watched side has a bet on each of the steps `thetas`. A group's share is divided equally over its signals, a signal's over its components.
    """
    indicator, side = np.nonzero(sides)
    indicator = np.repeat(indicator, len(thetas))
    sign = np.repeat(np.where(side == 0, 1.0, -1.0), len(thetas))
    signal = signal_of[indicator]
    group_names = tuple(dict.fromkeys(group for _, group in signals))
    group_of_signal = np.array([group_names.index(group) for _, group in signals], np.int64)
    per_signal = np.array([shares[group] for _, group in signals]) / np.bincount(group_of_signal)[group_of_signal]
    return Bets(
        signals=tuple(name for name, _ in signals),
        groups=group_names,
        indicator=indicator,
        signal=signal,
        group=group_of_signal[signal],
        sign=sign,
        theta=np.tile(thetas, indicator.size // len(thetas)),
        weight=per_signal[signal] / np.bincount(signal, minlength=len(signals))[signal],
    )


@dataclass(slots=True)
class Memory:
    """What a detector remembers between steps. `arms` is 1 against a baseline, 2 where two versions are compared.

    `log_m`, `cusum`, `since` (c,): the e-detector, and a CUSUM with the time of its last restart, which places the
    onset. `asked`, `yes` (arms, j): counts so far; `asked_before`, `yes_before` (arms, c): the counts at the restart.
    """

    log_m: Floats
    cusum: Floats
    since: Floats
    asked: Floats
    yes: Floats
    asked_before: Floats
    yes_before: Floats

    @classmethod
    def fresh(cls, bets: Bets, indicators: int, arms: int = 1) -> Memory:
        """Nothing seen yet."""
        components = bets.indicator.size
        return cls(
            log_m=np.full(components, LOG_ZERO),
            cusum=np.zeros(components),
            since=np.zeros(components),
            asked=np.zeros((arms, indicators)),
            yes=np.zeros((arms, indicators)),
            asked_before=np.zeros((arms, components)),
            yes_before=np.zeros((arms, components)),
        )

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {field.name: getattr(self, field.name).copy() for field in fields(self)}


def advance(
    memory: Memory,
    bets: Bets,
    log_l: Floats,
    share_of_time: float,
    asked: Floats | Ints,
    yes: Floats | Ints,
    start: float,
) -> None:
    """One step: `log_l` (c,) for counts `asked`, `yes` (arms, j) of a block that began at `start`.

    `share_of_time` is elapsed time over budget period since the previous step, times the detector's weight.
    """
    restart = memory.cusum <= 0
    memory.since = np.where(restart, start, memory.since)
    for so_far, before in ((memory.asked, memory.asked_before), (memory.yes, memory.yes_before)):
        for arm, counts in enumerate(so_far):
            before[arm] = np.where(restart, counts[bets.indicator], before[arm])
    np.maximum(memory.cusum, 0.0, out=memory.cusum)
    memory.cusum += log_l
    # M itself would do as well; its logarithm costs two fast functions more and is what is kept, saved and shown.
    grown = np.exp(memory.log_m)
    grown += bets.weight * share_of_time
    with np.errstate(divide="ignore"):
        np.log(grown, out=grown)
    grown += log_l
    np.clip(grown, LOG_ZERO, LOG_CAP, out=memory.log_m)
    memory.asked += asked
    memory.yes += yes


def log_evidence(memory: Memory, bets: Bets) -> Floats:
    """Logarithm of the sum of M over the components of each group (groups,)."""
    # Nothing is above the cap, so that the sums need no common factor; below the smallest float they are nothing.
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(np.add.reduceat(np.exp(memory.log_m), bets.starts)), LOG_ZERO)


def log_sum(values: Floats, of: Ints, size: int) -> Floats:
    """Logarithm of the sums of exp(values) (c,) that share a number in `of` (c,): (size,)."""
    top = np.full(size, LOG_ZERO)
    np.maximum.at(top, of, values)
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(top + np.log(np.bincount(of, np.exp(values - top[of]), size)), LOG_ZERO))
