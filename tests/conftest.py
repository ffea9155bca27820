"""Settings that hold for every test, and how several processes share them (`pytest -n auto --dist loadfile`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

# No deadline: machines are shared, and a slow example is no defect.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_xdist_auto_num_workers() -> int:
    """Two processes a core, up to eight: the long tests wait for programs, timers and rotations more than they compute."""
    return min(2 * (os.cpu_count() or 1), 8)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test after an argument that is long, not by it: each process names all tests, and salts and times differ."""
    return argname if isinstance(val, bytes) or (isinstance(val, str) and len(val) > 60) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that none is left over when all others have ended; within, as they were shuffled."""
    items.sort(key=lambda item: not any(item.iter_markers("slow")) and not any(item.iter_markers("system")))
