"""Halves of predictions meet, or are counted; nothing waits for ever and nothing leaves unseen."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.checkpoint import load, save
from poisonwatch.formats.foreign import Draft
from poisonwatch.formats.pairing import OVERHEAD, Half, Pair, Pairing

SECONDS = 10.0
ROOMY = 1 << 30

Step = tuple[str, bool, float]
"""Key, is it a response, and how many seconds after the one before it came (NaN: nobody knows when)."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.booleans(),
        st.sampled_from([0.0, 0.5, 4.0, 11.0, -3.0, math.nan]),
    ),
    max_size=40,
)


Given = list[Pair]
"""Responses that were given up."""


def waits(seconds: float = SECONDS, most_bytes: int = ROOMY) -> tuple[Pairing, Given]:
    """A pairing, and what it gives back as a response without a request."""
    given: Given = []
    return Pairing(seconds, most_bytes, lambda pair, _: given.append(pair)), given


def half(number: int) -> Half:
    """A half that can be told from others."""
    return Half(b"body %d" % number, {"number": number, "word": "é", "none": None})


def play(
    pairing: Pairing, steps: list[Step], draft: Draft, start: int = 0, now: float = 0.0
) -> tuple[list[Pair], float]:
    """Give the steps to a pairing; the pairs, and the time at the end."""
    pairs = []
    for number, (key, response, after) in enumerate(steps, start):
        now = now if math.isnan(after) else now + after
        pair = pairing.add(key, half(number), math.nan if math.isnan(after) else now, draft, response=response)
        if pair is not None:
            pairs.append(pair)
    return pairs, now


def test_either_order() -> None:
    """The request comes first or the response does; `about` comes back with them."""
    (pairing, _), draft = waits(), Draft()
    assert pairing.add("a", half(1), 1.0, draft, response=False) is None
    assert pairing.add("a", half(2), 2.0, draft, response=True) == (half(1), half(2))
    assert pairing.add("a", half(3), 3.0, draft, response=True) is None
    assert pairing.add("a", half(4), 4.0, draft, response=False) == (half(4), half(3))
    assert len(pairing) == 0
    assert not draft.rejected + draft.faults


def test_an_id_that_is_used_again_hides_nothing() -> None:
    """A client may choose ids: those that wait are answered in their order, and the reuse shows.

    Which of them a response answers is not known, and a request whose answer fails is never answered: whoever sends a harmless one
    first could lend its inputs to the next. So no such pair has inputs, also not the last one of the key.
    """
    (pairing, _), draft = waits(), Draft()
    for number in range(3):
        pairing.add("a", half(number), 1.0, draft, response=False)
    assert draft.faults == {"id_reused": 2}
    answered = [pairing.add("a", half(number), 2.0, draft, response=True) for number in (10, 11)]
    assert answered == [(half(0)._replace(body=b""), half(10)), (half(1)._replace(body=b""), half(11))]
    saved = pairing.state()
    pairing.restore(saved)
    last = pairing.add("a", half(12), 2.0, draft, response=True)
    assert last == (half(2)._replace(body=b""), half(12))
    assert draft.faults == {"id_reused": 2, "ambiguous_pair": 3}
    pairing.add("a", half(3), 3.0, draft, response=False)
    assert pairing.add("a", half(13), 3.0, draft, response=True) == (half(3), half(13))
    assert not draft.rejected


def test_what_waits_too_long_expires_by_its_side() -> None:
    """At the bound it still waits, past it it is counted, and then its late partner is alone, too."""
    (pairing, given), draft = waits(), Draft()
    pairing.add("a", half(1), 0.0, draft, response=False)
    pairing.add("b", half(2), 0.0, draft, response=True)
    pairing.add("c", half(3), SECONDS, draft, response=True)
    assert len(pairing) == 3
    assert pairing.add("a", half(4), SECONDS + 0.1, draft, response=True) is None
    assert (draft.rejected, draft.faults) == ({"unpaired_request": 1}, {"unpaired_response": 1})
    assert [sample for _, sample in draft.samples] == [b"body 1"]
    assert given == [(Half(b"", {}), half(2))]
    pairing.flush(draft)
    assert [pair.response for pair in given] == [half(2), half(3), half(4)]
    assert (draft.rejected, draft.faults) == ({"unpaired_request": 1}, {"unpaired_response": 3})


def test_the_clock_never_runs_back_and_waits_for_nobody_without_time() -> None:
    """A late event does not stop the clock; halves of unknown time wait from the first known time on."""
    (pairing, _), draft = waits(), Draft()
    pairing.add("a", half(1), math.nan, draft, response=False)
    pairing.add("b", half(2), 1000.0, draft, response=False)
    pairing.add("c", half(3), 5.0, draft, response=False)
    assert len(pairing) == 3
    pairing.add("d", half(4), 1000.0 + SECONDS + 1, draft, response=False)
    assert len(pairing) == 1


def test_one_time_from_the_future_breaks_no_later_pair() -> None:
    """A forged time costs those that wait, once; who comes later waits from there on."""
    (pairing, _), draft = waits(), Draft()
    pairing.add("x", half(0), 4e9, draft, response=False)
    pairing.add("a", half(1), 100.0, draft, response=False)
    assert pairing.add("a", half(2), 100.5, draft, response=True) is not None


def test_the_oldest_are_crowded_out() -> None:
    """Whatever is sent, what waits stays within its bytes; even one half that is larger than all of them."""
    most = 20 * OVERHEAD
    (pairing, given), draft = waits(1e9, most), Draft()
    for number in range(1000):
        pairing.add(str(number), Half(b"x" * 100, {}), 1.0, draft, response=False)
    assert len(pairing) == most // (OVERHEAD + 103)
    assert draft.rejected == {"crowded_out": 1000 - len(pairing)}
    assert pairing.add("999", half(1), 1.0, draft, response=True) is not None
    pairing.add("big", Half(b"x" * most, {}), 1.0, draft, response=False)
    assert len(pairing) == 0
    assert draft.rejected == {"crowded_out": 1000}
    pairing.add("answered", half(2), 1.0, draft, response=True)
    pairing.add("big", Half(b"x" * most, {}), 1.0, draft, response=True)
    assert [len(pair.response.body) for pair in given] == [6, most]
    assert (draft.rejected["crowded_out"], draft.faults) == (1000, {"crowded_out": 2})


@given(steps=STEPS, most=st.sampled_from([ROOMY, 3 * OVERHEAD + 400]))
def test_every_half_has_one_end(steps: list[Step], most: int) -> None:
    """Paired with a half of the other side and the same key, or counted; the books are empty in the end."""
    (pairing, given), draft = waits(SECONDS, most), Draft()
    pairs, _ = play(pairing, steps, draft)
    assert 2 * len(pairs) + len(given) + draft.rejected.total() + len(pairing) == len(steps)
    for request, response in pairs:
        asked, answered = steps[request.about["number"]], steps[response.about["number"]]
        assert (asked[0], asked[1], answered[1]) == (answered[0], False, True)
    pairing.flush(draft)
    assert len(pairing) == 0
    assert 2 * len(pairs) + len(given) + draft.rejected.total() == len(steps)
    assert pairing.state()["waiting"] == []
    if most < ROOMY:
        # There is room again for one half that takes all of it.
        pairing.add("e", Half(b"x" * (most - OVERHEAD - 1), {}), math.nan, draft, response=False)
        assert len(pairing) == 1


@given(steps=STEPS, cut=st.integers(0, 40), most=st.sampled_from([ROOMY, 3 * OVERHEAD + 400]))
def test_a_restart_changes_nothing(steps: list[Step], cut: int, most: int) -> None:
    """Through a checkpoint on disk, between any two halves."""
    (whole, expected_alone), told = waits(SECONDS, most), Draft()
    expected, _ = play(whole, steps, told)
    whole.flush(told)
    (first, alone), draft = waits(SECONDS, most), Draft()
    before, now = play(first, steps[:cut], draft)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state.npz"
        save(path, {"pairing": first.state()}, {})
        saved = load(path, {})
    assert saved is not None
    second, others = waits(SECONDS, most)
    second.restore(saved["pairing"])
    after, _ = play(second, steps[cut:], draft, len(steps[:cut]), now)
    second.flush(draft)
    assert before + after == expected
    assert alone + others == expected_alone
    assert Counter(draft.rejected) == Counter(told.rejected)
    assert draft.faults == told.faults
