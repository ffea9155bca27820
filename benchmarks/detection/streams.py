"""Streams whose law is known, what is done to them, and the least delay that information theory allows.

Two kinds. *Counts*: streams of normal values, of which only how many are at most each cut point is drawn, block by block,
so that a billion records cost seconds. *Records*: confidences, Beta(9, 1.2) or a Gaussian copula of them, value by
value, so that every detector sees the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import quad
from scipy.signal import lfilter
from scipy.special import ndtr, rel_entr
from scipy.stats import beta

if TYPE_CHECKING:
    from poisonwatch.types import Floats, Ints

DAY = 86_400
HOUR = 3600
SLOT = 600
"""The finest time that a reference is counted in."""

BETA = (9.0, 1.2)
"""Shape of the confidences: mean 0.882, standard deviation 0.096."""

CONFIDENCE_SD = float(beta.std(*BETA))
_GRID = np.linspace(0, 1, 20_001)
_QUANTILES = beta.ppf(_GRID, *BETA)

SATURATED = 0.999
"""What a backdoor answers, at least."""


@dataclass(frozen=True)
class World:
    """How the level of normal streams moves; `cycle` is the daily amplitude, `day_noise` a random level per day, in sd."""

    name: str
    cycle: float
    day_noise: float


WORLDS = (
    World("independent", 0.0, 0.0),
    World("daily cycle 0.3 sd", 0.3, 0.0),
    World("daily cycle 0.3 sd, day noise 0.05 sd", 0.3, 0.05),
)


class Normal:
    """`streams` streams of one world at one record a second; each has its own phase and its own noise."""

    def __init__(self, world: World, streams: int, rng: np.random.Generator) -> None:
        self.world = world
        self.streams = streams
        self._rng = rng
        self._phase = rng.random(streams) * 2 * np.pi
        self._day = -1
        self._noise = np.zeros(streams)

    def sample(self, n: int) -> Floats:
        """Records of one stream over a whole day: what the cut points are learned from."""
        level = self.world.cycle * np.sin(2 * np.pi * self._rng.random(n))
        return np.asarray(level + self._rng.standard_normal(n))

    def at_most(self, cuts: tuple[float, ...], start: int, width: int, moved: float = 0.0) -> Ints:
        """How many of the records in [start, start + width) seconds were at most each cut: (streams, cuts).

        The level is taken as constant over the block: `width` is ten minutes or less. `moved` is added to the level of every
        stream, in sd.
        """
        if start // DAY != self._day:
            self._day = start // DAY
            self._noise = self._rng.normal(0.0, self.world.day_noise, self.streams)
        angle = 2 * np.pi * (start + width / 2) / DAY + self._phase
        level = self.world.cycle * np.sin(angle) + self._noise + moved
        shares = np.diff(ndtr(np.array(cuts)[None, :] - level[:, None]), prepend=0.0, append=1.0, axis=1)
        return np.cumsum(self._rng.multinomial(width, shares), axis=1)[:, :-1]


def confidences(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Independent confidences."""
    return np.asarray(np.interp(rng.random(shape), _GRID, _QUANTILES))


class Autoregressive:
    """Confidences that are a Gaussian copula of an AR(1) process, drawn piece by piece: `streams` of them."""

    def __init__(self, streams: int, rho: float, rng: np.random.Generator) -> None:
        self._rho = rho
        self._rng = rng
        self._last = rng.standard_normal((streams, 1)) * rho
        self._streams = streams

    def latent(self, n: int) -> Floats:
        """The normal process itself: (streams, n)."""
        noise = self._rng.standard_normal((self._streams, n)) * np.sqrt(1 - self._rho**2)
        values, self._last = lfilter([1.0], [1.0, -self._rho], noise, axis=1, zi=self._last)
        return np.asarray(values)

    def draw(self, n: int) -> Floats:
        """The next `n` confidences of every stream: (streams, n)."""
        return np.asarray(np.interp(ndtr(self.latent(n)), _GRID, _QUANTILES))


def daily(rng: np.random.Generator, n: int, cycle: float = 0.3) -> Floats:
    """Confidences whose latent level goes up and down with the time of day, at one record a second: (n,)."""
    level = cycle * np.sin(2 * np.pi * np.arange(n) / DAY)
    return np.asarray(np.interp(ndtr(rng.standard_normal(n) + level), _GRID, _QUANTILES))


@dataclass(frozen=True)
class Change:
    """What happens to confidences: all fall by `fall` standard deviations, or a share `saturated` is sure."""

    name: str
    fall: float = 0.0
    saturated: float = 0.0

    def of(self, values: Floats, rng: np.random.Generator) -> Floats:
        """The values after the change."""
        if self.fall:
            return np.clip(values - self.fall * CONFIDENCE_SD, 0.0, 1.0)
        sure = rng.random(values.shape) < self.saturated
        return np.where(sure, SATURATED + (1 - SATURATED) * rng.random(values.shape), values)

    def below(self, cuts: Floats) -> Floats:
        """Probability of a value at most each cut, after the change."""
        if self.fall:
            return np.asarray(beta.cdf(cuts + self.fall * CONFIDENCE_SD, *BETA))
        sure = np.clip((cuts - SATURATED) / (1 - SATURATED), 0.0, 1.0)
        return np.asarray((1 - self.saturated) * beta.cdf(cuts, *BETA) + self.saturated * sure)

    def nats(self) -> float:
        """Kullback-Leibler divergence of the changed law from the unchanged one, in nats a record.

        No detector with a mean time between false alarms of 1 / alpha records can be faster, in the mean and as alpha goes to
        zero, than log(1 / alpha) over this (Lorden 1971), and only one that knows both laws is as fast.
        """
        return float(sum(quad(self._integrand, low, high, limit=200)[0] for low, high in self._pieces()))

    def _pieces(self) -> tuple[tuple[float, float], ...]:
        if self.fall:
            # Below, the unchanged law would need negative values; 1e-12 of the changed one stands there.
            return ((0.05, 1 - self.fall * CONFIDENCE_SD),)
        return ((0.05, SATURATED), (SATURATED, 1.0))

    def _integrand(self, x: float) -> float:
        old = float(beta.pdf(x, *BETA))
        if self.fall:
            new = float(beta.pdf(x + self.fall * CONFIDENCE_SD, *BETA))
        else:
            new = (1 - self.saturated) * old + self.saturated / (1 - SATURATED) * (x > SATURATED)
        return new * np.log(new / old) if new > 0 and old > 0 else 0.0


CHANGES = (
    Change("0.5 sd", fall=0.5),
    Change("0.25 sd", fall=0.25),
    Change("0.1 sd", fall=0.1),
    Change("3 % saturated", saturated=0.03),
)


def bernoulli_nats(p: Floats, q: Floats) -> Floats:
    """Kullback-Leibler divergence of a yes/no answer with probability `p` from one with `q`, in nats."""
    return np.asarray(rel_entr(p, q) + rel_entr(1 - p, 1 - q))
