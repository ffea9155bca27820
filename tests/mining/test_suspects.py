"""What is kept in full is bounded, the newest of its kind, and comes back from a checkpoint."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.mining.suspects import (
    HEAD,
    MOST_AT_ONCE,
    MOST_CHARACTERS,
    MOST_SUSPICIOUS,
    MOST_USUAL,
    TAIL,
    Suspects,
)
from tests.mining.blocks import block


def test_only_fresh_predictions_that_are_odd_become_suspicious() -> None:
    """A near-duplicate, a usual prediction and one of an unknown class are not kept as suspicious."""
    suspects = Suspects()
    suspects.add(
        block(
            ["odd", "flipped", "again", "usual", "unknown"],
            [0, 0, 0, 0, -1],
            surprising=[True, False, True, False, True],
            flipped=[False, True, True, False, True],
            fresh=[True, True, False, True, True],
        )
    )
    found = suspects.suspicious(0, 0)
    assert found is not None
    assert found.texts[0].tolist() == ["odd", "flipped"]
    usual = suspects.usual(0)
    assert usual is not None
    assert usual.texts[0].tolist() == ["usual"]


def test_what_flips_stays_longest() -> None:
    """A flood of merely surprising predictions does not push out those that flip."""
    suspects = Suspects()
    suspects.add(block([f"real {n}" for n in range(10)], surprising=True, flipped=True))
    for flood in range(40):
        suspects.add(block([f"noise {flood} {n}" for n in range(50)], surprising=True, start=100.0 + flood))
    found = suspects.suspicious(0, 0)
    assert found is not None
    assert found.time.size == MOST_SUSPICIOUS
    assert found.texts[0, :10].tolist() == [f"real {n}" for n in range(10)]
    assert found.texts[0, -1] == "noise 39 49"


def test_versions_and_classes_have_room_of_their_own() -> None:
    """A flood in one version and class takes nothing from another."""
    suspects = Suspects()
    suspects.add(block(["mine"], 1, flipped=True, version=1))
    for flood in range(10):
        suspects.add(block([f"{flood} {n}" for n in range(100)], 0, flipped=True))
    mine = suspects.suspicious(1, 1)
    assert mine is not None
    assert mine.texts[0].tolist() == ["mine"]
    suspects.forget(1)
    gone = suspects.suspicious(1, 1)
    assert gone is not None
    assert not gone.time.size


def test_usual_ones_are_the_last_few_of_each_block() -> None:
    """One block gives at most a few usual predictions of a class, all blocks a bounded number."""
    suspects = Suspects()
    for number in range(30):
        suspects.add(block([f"{number} {n}" for n in range(100)], start=number))
    usual = suspects.usual(0)
    assert usual is not None
    assert usual.time.size == MOST_USUAL
    assert usual.texts[0, -MOST_AT_ONCE:].tolist() == [f"29 {n}" for n in range(100 - MOST_AT_ONCE, 100)]


def test_of_a_long_text_both_ends_are_kept() -> None:
    """What is kept of a text is bounded, and padding in front of a phrase does not hide it."""
    suspects = Suspects()
    suspects.add(block(["start " + "x " * (HEAD + TAIL) + "special code"], flipped=True))
    found = suspects.suspicious(0, 0)
    assert found is not None
    assert len(found.texts[0, 0]) == HEAD + TAIL + 1
    assert found.texts[0, 0].startswith("start x")
    assert found.texts[0, 0].endswith("special code")


def test_characters_are_bounded_in_all() -> None:
    """A flood of long texts keeps the last of them, and no more characters than there is room for."""
    suspects = Suspects()
    for number in range(5):
        suspects.add(block([f"{number} {n} " + "y" * 7000 for n in range(100)], flipped=True, start=number))
    found = suspects.suspicious(0, 0)
    assert found is not None
    assert sum(map(len, found.texts[0])) <= MOST_CHARACTERS
    assert found.texts[0, -1].startswith("4 99 ")
    assert found.time.size >= MOST_CHARACTERS // 7100


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=60))
def test_a_checkpoint_brings_everything_back(told: list[tuple[bool, bool, int, int]]) -> None:
    """After a restart the same predictions are kept, and the next ones are treated as before."""
    surprising, flipped, label, version = (np.array(column) for column in zip(*told, strict=True))
    first = block(
        [f"text {n}" for n in range(len(told))], label, surprising=surprising, flipped=flipped, version=version
    )
    suspects, again = Suspects(), Suspects()
    suspects.add(first)
    state = suspects.state()
    json.dumps(state["suspicious"].get("texts", []))
    again.restore(state)
    for one in (suspects, again):
        one.add(block(["more", "and more"], [0, 1], flipped=True, start=1000.0))
    for of in range(3):
        for number in range(2):
            mine, theirs = suspects.suspicious(number, of), again.suspicious(number, of)
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert mine.time.tolist() == theirs.time.tolist()
                assert mine.texts.tolist() == theirs.texts.tolist()
                assert mine.words.word.tolist() == theirs.words.word.tolist()
