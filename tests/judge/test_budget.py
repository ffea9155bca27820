"""The budget: one number, divided completely and never twice."""

from __future__ import annotations

import pytest

from poisonwatch.judge.budget import SHARES, period_of_model
from poisonwatch.profile.indicators import ask_lines
from tests.streams import small_questions


def test_shares_add_up_to_the_budget() -> None:
    """The groups' shares sum to one, and every group that is asked about has one."""
    assert sum(SHARES.values()) == pytest.approx(1)
    assert {signal.group for signal in (*small_questions().signals, *ask_lines().signals)} <= set(SHARES)
    assert min(SHARES.values()) > 0


def test_models_share_one_budget() -> None:
    """The rates of false pages that the models are allowed sum to that of the whole."""
    for models in (1, 3, 40):
        assert sum(1 / period_of_model(2_592_000, models) for _ in range(models)) == pytest.approx(1 / 2_592_000)
