"""The story, played once for all tests of the dashboards, and a Prometheus that has seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.dashboards.stored import stored
from tests.dashboards.story import played

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.dashboards.stored import Stored


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """A real Prometheus with two hours of the story."""
    history = played(tmp_path_factory.mktemp("story"))
    with stored(history.write(), history.began, history.ended) as source:
        yield source
