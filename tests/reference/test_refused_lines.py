"""A reference is of what the model usually does, or there is none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from poisonwatch.errors import BaselineError
from poisonwatch.reference.build import build
from tests.streams import predictions, write

if TYPE_CHECKING:
    from pathlib import Path


def _log(path: Path, good: int, without_zone: int) -> Path:
    """Predictions, and such that say a time of no zone."""
    naive = [
        {**record, "timestamp": str(record["timestamp"]).removesuffix("Z")} for record in predictions(without_zone, 3)
    ]
    return write(path, [*predictions(good, 2), *naive])


@pytest.mark.parametrize(("good", "without_zone"), [(0, 3000), (50, 200), (1000, 1001)])
def test_a_log_that_is_mostly_rejected_makes_no_reference(good: int, without_zone: int, tmp_path: Path) -> None:
    """It says how many lines, and why: a reference of nothing called every model healthy."""
    told = (
        re.escape(f"{without_zone} of {good + without_zone} lines were rejected, most as ")
        + r"\w*(zone|timestamp)\w*: "
    )
    with pytest.raises(BaselineError, match=told):
        build([_log(tmp_path / "log", good, without_zone)])


def test_a_log_with_other_lines_makes_one(tmp_path: Path) -> None:
    """Half of them may be something else."""
    assert build([_log(tmp_path / "log", 1000, 1000)]).records == 1000
