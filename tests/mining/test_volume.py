"""How many predictions came since when is known to within one mark, in bounded memory."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.mining.volume import MOST_MARKS, Volume
from tests.mining.blocks import block


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1)), min_size=1, max_size=60), st.integers(0, 700))
def test_counts_are_exact_to_within_the_block_that_holds_the_time(told: list[tuple[int, int]], asked: int) -> None:
    """Never fewer than came from that time on, and never more than with the blocks that reach back over it."""
    volume, again = Volume(), Volume()
    times: dict[int, list[float]] = {0: [], 1: []}
    start = 0.0
    for many, version in told:
        made = block(["x"] * many, version=version, start=start)
        volume.add(made)
        times[version] += made.time.tolist()
        start += 10.0
    again.restore(json.loads(json.dumps(volume.state())))
    for version in (0, 1):
        came = np.array(times[version])
        found = volume.since(version, float(asked))
        assert (came >= asked).sum() <= found <= came.size
        # Blocks begin ten seconds apart.
        reaching = max((start for start in came if start <= asked and start % 10 == 0), default=came.min(initial=0.0))
        assert found == (came >= reaching).sum()
        assert found == again.since(version, float(asked))


def test_memory_is_bounded() -> None:
    """Ten thousand blocks leave a bounded number of marks, and a total that is exact."""
    volume = Volume()
    for number in range(10_000):
        volume.add(block(["x"], start=float(number)))
    assert volume.since(0, 0.0) == 10_000
    assert len(volume.state()["marks"][0]["times"]) <= MOST_MARKS
    assert 5000 <= volume.since(0, 5000.0) <= 5200
    volume.forget(0)
    assert volume.since(0, 0.0) == 0
