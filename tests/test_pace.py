"""A malformed line costs what it costs, and its neighbours nothing: counted in calls, which no busy machine changes.

What it takes in seconds is measured by `make bench`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.hostile import kserve_blocks, kserve_decoder, native_blocks, native_decoder
from tests.streams import START

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poisonwatch.formats.events import Block
    from poisonwatch.sources.intake import BlockDecoder


def calls(decoder: BlockDecoder, blocks: list[Block]) -> int:
    """How many functions are called, of Python and of C, until all blocks are decoded."""
    count = 0

    def called(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(called)
    try:
        for block in blocks:
            decoder.decode(block, START + 1e9)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "blocks", "records", "each"),
    [(native_decoder, native_blocks, 50_000, 2_500), (kserve_decoder, kserve_blocks, 5_000, 200)],
    ids=["native", "kserve"],
)
def test_a_malformed_line_does_not_slow_its_neighbours(
    make: Callable[[], BlockDecoder], blocks: Callable[[int, int], list[Block]], records: int, each: int
) -> None:
    """One in a thousand is looked for, a bounded number of calls each; to look at every line by itself would take ten times as many."""
    malformed = records // 1000
    more = calls(make(), blocks(records, 1000)) - calls(make(), blocks(records, 0))
    assert more < each * malformed
