"""Whoever types what the quickstarts and the pages on installing say gets what they say. See `test_pages.py` for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guides.following import ROOT
from tests.guides.listing import QUICKSTARTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("page", QUICKSTARTS)
def test_the_commands_of_a_page_work(page: str, follow_page: Callable[[Path], None]) -> None:
    """From an environment with nothing in it to the last decision."""
    follow_page(ROOT / page)
