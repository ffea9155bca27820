"""Whoever types what the pages say gets what the pages say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guides.following import ROOT
from tests.guides.listing import FOLLOWED, PAGES
from tests.guides.pages import commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_written_so_that_it_can_be_followed(page: str) -> None:
    """Commands are in `sh` blocks, and the comments above them are understood."""
    commands(ROOT / page)


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("page", FOLLOWED)
def test_the_commands_of_a_page_work(page: str, follow_page: Callable[[Path], None]) -> None:
    """All of them, in their order, in one shell, in a clean environment and without a network."""
    follow_page(ROOT / page)
