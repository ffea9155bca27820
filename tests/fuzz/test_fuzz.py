"""A short run of the fuzzers: nothing raises, hangs or grows. `make fuzz` runs each by itself, and for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import EVERY

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("atheris", reason="atheris has no wheel for this Python; CI has one that it has")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seconds"), [(EVERY, 30), ("agent", 5)])
def test_no_input_breaks(name: str, seconds: int, tmp_path: Path) -> None:
    """Seeds from captures, and what some seconds make of them."""
    done = fuzz(name, seconds, folder=tmp_path)
    assert done.code == 0, done.output[-6000:]
    assert done.executions > 0
    assert done.coverage > 0
