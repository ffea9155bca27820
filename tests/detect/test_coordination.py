"""Coordinated groups: who meets on the same items in the same direction within minutes, more often than by chance."""

from __future__ import annotations

import numpy as np

from poisonwatch.detect.coordination import find_groups


def background(rng: np.random.Generator, size: int) -> list[tuple[float, int, int, int]]:
    """Disagreeing labels of 100 independent sources on items of their own choice."""
    return [(float(n * 60), int(rng.integers(5000)), int(rng.integers(2)), int(rng.integers(100))) for n in range(size)]


def groups_in(labels: list[tuple[float, int, int, int]]) -> list[list[int]]:
    """Groups found in labels (time, item, label, source)."""
    time, item, label, source = zip(*sorted(labels), strict=True)
    found = find_groups(np.array(time), np.array(item, np.uint64), np.array(label), np.array(source))
    return [group.tolist() for group in found]


def together(label: int, gap: float, items: int = 4) -> list[tuple[float, int, int, int]]:
    """Three sources that label the same items, `gap` seconds apart."""
    return [(n * 9000.0 + who * gap, 9000 + n, label, 200 + who) for n in range(items) for who in range(3)]


def test_sources_that_meet_on_items_are_a_group() -> None:
    """Three that contradict the model on the same items within a minute stand out of 1,000 independent labels."""
    assert groups_in(background(np.random.default_rng(0), 1000) + together(0, 20.0)) == [[200, 201, 202]]


def test_time_direction_and_number_matter() -> None:
    """An hour between them, each another label, or a single meeting: no group."""
    rng = np.random.default_rng(1)
    noise = background(rng, 1000)
    assert groups_in(noise + together(0, 3600.0)) == []
    assert groups_in(noise + together(0, 20.0, items=1)) == []
    assert groups_in(noise + [(t, item, who - 200, who) for t, item, _, who in together(0, 20.0)]) == []
    assert groups_in(noise + [label for label in together(0, 20.0) if label[3] != 202]) == []


def test_a_panel_that_sees_every_item_is_no_group() -> None:
    """Annotators who all see the same items meet as often as their numbers say."""
    rng = np.random.default_rng(2)
    panel = [(n * 600.0 + who, n, 1, who) for n in range(200) for who in range(5) if rng.random() < 0.8]
    assert groups_in(panel) == []
    assert find_groups(np.zeros(0), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)) == []
