"""One malformed line in a hundred leaves the loop at least half of its pace for honest records."""

from __future__ import annotations

import pytest

from benchmarks.hostile import kserve_blocks, kserve_decoder, native_blocks, native_decoder, ratio


@pytest.mark.slow
def test_native_lines_keep_their_pace() -> None:
    """CPU time of decoding, best of several rounds; the bound is generous: the machine is busy."""
    clean, dirty = ratio(native_decoder, native_blocks(50_000, 0), native_blocks(50_000, 100), 50_000, rounds=5)
    assert dirty > 0.4 * clean


@pytest.mark.slow
def test_posts_of_kserve_keep_their_pace() -> None:
    """The same of requests and responses."""
    clean, dirty = ratio(kserve_decoder, kserve_blocks(5_000, 0), kserve_blocks(5_000, 100), 5_000, rounds=5)
    assert dirty > 0.5 * clean
