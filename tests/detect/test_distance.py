"""Distances: zero between equals, within their ranges, and those of the distributions that the counts stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from poisonwatch.detect.distance import distances, jensen_shannon, psi
from poisonwatch.profile.indicators import ask
from poisonwatch.types import Column, Schema
from tests.streams import small_batch, small_questions

QUESTIONS = small_questions()

masses = st.lists(st.floats(0.01, 1), min_size=2, max_size=8)


@given(masses, st.integers(0, 99))
def test_distances_of_masses(raw: list[float], seed: int) -> None:
    """Symmetric, zero between equals only, Jensen-Shannon as SciPy has it and within [0, 1]."""
    p = np.array(raw) / sum(raw)
    q = np.random.default_rng(seed).dirichlet(np.ones(p.size)) * 0.99 + 0.01 / p.size
    assert psi(p, p) == 0
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-7)
    assert psi(p, q) == pytest.approx(psi(q, p)) == pytest.approx(float(np.sum((p - q) * np.log(p / q))))
    assert jensen_shannon(p, q) == pytest.approx(float(jensenshannon(p, q, base=2)), abs=1e-6)
    assert 0 < jensen_shannon(p, q) <= 1
    assert psi(p, q) > 0


def test_equal_profiles_have_no_distance() -> None:
    """A profile is at distance zero from itself, and from itself twice over but for the smoothing."""
    batch = small_batch(range(3000), np.random.default_rng(61))
    profile = QUESTIONS.count(batch.numbers, batch.codes)
    found = distances(QUESTIONS, profile, profile)
    assert set(found) == {"confidence", "features.amount", "prediction", "features.country"}
    for kinds in found.values():
        assert all(value == pytest.approx(0, abs=1e-7) for value in kinds.values())
    for kinds in distances(QUESTIONS, profile, profile * 2).values():
        assert all(value < 1e-3 for value in kinds.values())


def test_numbers_have_the_distances_of_their_distributions() -> None:
    """With fine cuts, Kolmogorov-Smirnov is that of the samples and Wasserstein the shift, in units of the cuts' range."""
    schema = Schema(
        model=None,
        outcome=Column(name="prediction", kind="numerical"),
        features=(),
        layout="none",
        confidence=False,
    )
    cuts = tuple(np.linspace(-1, 3, 401).tolist())
    questions = ask(schema, {"prediction": cuts})
    rng = np.random.default_rng(62)
    one, two = rng.random(4000), rng.random(4000) + 0.7
    none = np.empty((0, 4000), np.int32)
    found = distances(questions, questions.count(one[None], none), questions.count(two[None], none))["prediction"]
    # A lower bound, off by at most what lies between two cuts: a hundredth of the mass, and its noise.
    exact = float(ks_2samp(one, two).statistic)
    assert exact - 0.02 <= found["ks"] <= exact
    assert found["wasserstein"] == pytest.approx((two.mean() - one.mean()) / 4, abs=0.001)


def test_columns_without_values_have_no_distance() -> None:
    """Where either side never had a value, or the column is a text, nothing is said."""
    batch = small_batch(range(600), np.random.default_rng(63))
    profile = QUESTIONS.count(batch.numbers, batch.codes)
    batch.numbers[1] = np.nan
    batch.codes[1] = 0
    empty = QUESTIONS.count(batch.numbers, batch.codes)
    for one, other in ((profile, empty), (empty, profile)):
        assert set(distances(QUESTIONS, one, other)) == {"confidence", "prediction"}


def test_a_bin_that_one_side_never_met_is_no_infinity() -> None:
    """A class that disappears, or a new one, gives finite distances that are large."""
    batch = small_batch(range(1000), np.random.default_rng(64))
    profile = QUESTIONS.count(batch.numbers, batch.codes)
    batch.codes[0] = 1
    only_ham = QUESTIONS.count(batch.numbers, batch.codes)
    for one, other in ((profile, only_ham), (only_ham, profile)):
        found = distances(QUESTIONS, one, other)["prediction"]
        assert np.isfinite(list(found.values())).all()
        assert found["psi"] > 1
        assert found["jensen_shannon"] > 0.5
