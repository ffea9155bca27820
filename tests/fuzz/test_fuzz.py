"""A short run of every fuzzer: nothing raises, hangs or grows. `make fuzz` runs them for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import NAMES

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("atheris", reason="atheris has no wheel for this Python; CI has one that it has")

SECONDS = 2


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_input_breaks(name: str, tmp_path: Path) -> None:
    """Seeds from captures, and what a few seconds make of them."""
    done = fuzz(name, SECONDS, folder=tmp_path)
    assert done.code == 0, done.output[-6000:]
    assert done.executions > 0
    assert done.coverage > 0
