"""The usual detectors, as their users run them and at a setting calibrated to one false alarm in a million records.

river's are its own; the windowed tests are what hand-written monitoring does: the last 1,000 values (or the last hour)
against a fixed sample of 10,000, a p-value or a distance against a fixed threshold, every window anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import chdtrc
from scipy.stats import kstwobign

from benchmarks.detection.streams import CONFIDENCE_SD, confidences

if TYPE_CHECKING:
    from collections.abc import Callable

    from poisonwatch.types import Floats, Ints

    Detector = Callable[[Floats], list[int]]
    """Values in order to the numbers of records after which it alarmed."""

WINDOW = 1000
REFERENCE = 10_000
BINS = 10
LEAST_SHARE = 1e-4
"""Stands for an empty bin in PSI, as is usual."""


class Hourly:
    """Tests of every stream's hour against its reference, from counts at cut points; `alarms` by name of the test."""

    def __init__(self, reference: Ints, n: int) -> None:
        self._shares = _shares(reference, n)
        self.alarms = {"chi-square p < 0.05": 0, "chi-square p < 0.05, Bonferroni": 0, "PSI > 0.1": 0, "PSI > 0.2": 0}

    def test(self, at_most: Ints, n: int) -> None:
        """One hour: counts (streams, cuts) of `n` records."""
        shares = _shares(at_most, n)
        statistic = (n * (shares - self._shares) ** 2 / self._shares).sum(axis=1)
        p = chdtrc(self._shares.shape[1] - 1, statistic)
        distance = _psi(self._shares, shares)
        for name, hits in zip(self.alarms, (p < 0.05, p < 0.05 / p.size, distance > 0.1, distance > 0.2), strict=True):
            self.alarms[name] += int(hits.sum())


def _shares(at_most: Ints, n: int) -> Floats:
    return np.asarray(np.diff(at_most, prepend=0, append=n, axis=1) / n)


def _psi(old: Floats, new: Floats) -> Floats:
    a, b = np.maximum(old, LEAST_SHARE), np.maximum(new, LEAST_SHARE)
    return np.asarray(((b - a) * np.log(b / a)).sum(axis=-1))


class Windowed:
    """One windowed test over confidences: `kind` is `ks`, `chi2` (p-values, alarm below) or `psi` (alarm above)."""

    def __init__(self, kind: str, threshold: float, seed: int) -> None:
        self._kind = kind
        self._threshold = threshold
        self._reference = np.sort(confidences(np.random.default_rng((seed, 7)), (REFERENCE,)))
        self._edges = np.quantile(self._reference, np.arange(1, BINS) / BINS)
        self._shares = self._binned(self._reference)

    def __call__(self, values: Floats) -> list[int]:
        """Alarms at the ends of windows."""
        windows = values[: values.size // WINDOW * WINDOW].reshape(-1, WINDOW)
        return [int((i + 1) * WINDOW) for i, window in enumerate(windows) if self._hit(window)]

    def _hit(self, window: Floats) -> bool:
        if self._kind == "ks":
            window = np.sort(window)
            both = np.concatenate([self._reference, window])
            below = [np.searchsorted(of, both, side="right") / of.size for of in (self._reference, window)]
            scale = np.sqrt(REFERENCE * WINDOW / (REFERENCE + WINDOW))
            return bool(kstwobign.sf(scale * np.abs(below[0] - below[1]).max()) < self._threshold)
        shares = self._binned(window)
        if self._kind == "psi":
            return bool(_psi(self._shares, shares) > self._threshold)
        # Both are samples: the variance of a bin's difference has both their shares of it.
        scale = 1 / (1 / WINDOW + 1 / REFERENCE)
        pooled = (shares * WINDOW + self._shares * REFERENCE) / (WINDOW + REFERENCE)
        return bool(chdtrc(BINS - 1, (scale * (shares - self._shares) ** 2 / pooled).sum()) < self._threshold)

    def _binned(self, values: Floats) -> Floats:
        return np.bincount(np.searchsorted(self._edges, values), minlength=BINS) / values.size


def river(make: Callable[[], Any], scale: float = 1.0) -> Detector:
    """A detector of river: fed value by value, alarms where it says drift."""

    def run(values: Floats) -> list[int]:
        detector, alarms = make(), []
        for number, value in enumerate((values * scale).tolist(), 1):
            detector.update(value)
            if detector.drift_detected:
                alarms.append(number)
        return alarms

    return run


def adwin(delta: float) -> Detector:
    """ADWIN (Bifet, Gavalda 2007)."""
    from river import drift

    make: Any = drift.ADWIN  # river has no types
    return river(lambda: make(delta=delta))


def page_hinkley() -> Detector:
    """Page-Hinkley with river's defaults, both directions."""
    from river import drift

    make: Any = drift.PageHinkley
    return river(lambda: make(mode="both"))


def page_hinkley_calibrated(threshold: float) -> Detector:
    """Page-Hinkley on standardised values; without the fading, whose own fluctuation is larger than any useful threshold."""
    from river import drift

    make: Any = drift.PageHinkley
    return river(lambda: make(mode="both", threshold=threshold, delta=0.1, alpha=1.0), 1 / CONFIDENCE_SD)


def kswin(alpha: float) -> Detector:
    """KSWIN (Raab, Heusinger, Schleif 2020): half a millisecond a record."""
    from river import drift

    return river(lambda: drift.KSWIN(alpha=alpha, seed=1))


SLOW = "KSWIN"
"""Detectors whose name begins so are given fewer records."""


def as_users_run_them(seed: int) -> dict[str, Detector]:
    """Library defaults, and the thresholds that guides and tools propose."""
    return {
        "river ADWIN, delta 0.002": adwin(0.002),
        "river PageHinkley, defaults": page_hinkley(),
        "river KSWIN, alpha 0.005": kswin(0.005),
        "KS, p < 0.05": Windowed("ks", 0.05, seed),
        "chi-square, p < 0.05": Windowed("chi2", 0.05, seed),
        "PSI > 0.1": Windowed("psi", 0.1, seed),
        "PSI > 0.2": Windowed("psi", 0.2, seed),
    }


def calibrated(seed: int) -> dict[str, Detector]:
    """The most sensitive setting of each that gives at most one false alarm in a million independent records."""
    return {
        "river ADWIN, delta 0.05": adwin(0.05),
        "river PageHinkley, in sd, delta 0.1, threshold 60, no fading": page_hinkley_calibrated(60.0),
        "river KSWIN, alpha 1e-7": kswin(1e-7),
        "KS, p < 0.001": Windowed("ks", 0.001, seed),
        "chi-square, p < 0.001": Windowed("chi2", 0.001, seed),
        "PSI > 0.03": Windowed("psi", 0.03, seed),
    }
