"""Claims: a campaign of few sources never looks like all of them, and a real drop that all see keeps its sign."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.detect import claims as module
from poisonwatch.detect.claims import Claims, lowest_rate
from poisonwatch.profile.odds import expit, logit
from tests.detect.votes import same

Label = tuple[float, int, tuple[int, int], bool, str]
"""Time, version, code and whether flipped, wrong, source."""

LABELS = st.lists(
    st.tuples(
        st.integers(0, 5).map(float),
        st.integers(0, 1),
        st.tuples(st.integers(0, 1), st.integers(0, 1)),
        st.booleans(),
        st.sampled_from(["", "a", "b", "c", "d\0", "d"]),
    ),
    max_size=40,
)


def note(claims: Claims, labels: list[Label]) -> None:
    """Remember labels in one piece."""
    if labels:
        time, version, facts, wrong, source = zip(*labels, strict=True)
        claims.note(
            np.array(time), np.array(version), np.array(facts).T, np.array(wrong), np.array(source, dtype=object)
        )


def by_hand(
    labels: list[Label], version: int, since: float, row: int, code: int, *, flipped: bool
) -> tuple[float, int, int]:
    """The lowest rate that any choice of the sources left out leaves, and all labels and wrong ones, from lists."""
    everybody = len({source for *_, source in labels} - {""})
    left_out = math.ceil(module.COLLUDING * everybody) if everybody >= module.FEWEST_SOURCES else 0
    chosen = [
        (source, wrong and (not flipped or facts[1] > 0))
        for time, of, facts, wrong, source in labels
        if of == version and time >= since and (row < 0 or facts[row] == code)
    ]
    anonymous = sum(source == "" for source, _ in chosen)
    one_of_them = left_out and 2 * anonymous < len(chosen)
    sources = sorted({source for source, _ in chosen} - (set() if one_of_them else {""}))
    rates = []
    for out in combinations(sources, min(left_out, len(sources))):
        kept = [wrong for source, wrong in chosen if source not in out]
        rates.append(sum(kept) / len(kept) if kept else 0.0)
    return min(rates), len(chosen), sum(wrong for _, wrong in chosen)


@settings(deadline=None)
@given(
    labels=LABELS,
    since=st.integers(0, 5).map(float),
    row=st.integers(-1, 0),
    flipped=st.booleans(),
    share=st.sampled_from([0.05, 0.4, 0.7]),
)
def test_who_claims_the_most_is_found_among_all_choices(
    labels: list[Label], since: float, row: int, flipped: bool, share: float
) -> None:
    """No choice of as many sources would leave a lower rate; labels without a source are one where most name theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COLLUDING", share)
        claims = Claims(2)
        note(claims, labels)
        found, wrong = claims.without_most_claiming(1, since, row, 1, flipped=flipped)
        lowest, all_labels, all_wrong = by_hand(labels, 1, since, row, 1, flipped=flipped)
    assert (wrong / found if found else 0.0) == pytest.approx(lowest)
    assert 0 <= wrong <= all_wrong
    assert wrong <= found <= all_labels
    of = [label for label in labels if label[1] == 1 and label[0] >= since and (row < 0 or label[2][row] == 1)]
    nobody = sum(label[4] == "" for label in of)
    if 2 * nobody >= len(of):
        assert found >= nobody


@settings(deadline=None)
@given(seed=st.integers(0, 9), cuts=st.sets(st.integers(1, 129)), restart=st.integers(0, 130), held=st.integers(1, 60))
def test_the_newest_are_held_in_whatever_pieces_and_after_a_restart(
    seed: int, cuts: set[int], restart: int, held: int
) -> None:
    """The state is that of the newest `HELD` labels taken at once, to the last bit."""
    rng = np.random.default_rng(seed)
    labels: list[Label] = [
        (float(n), int(rng.integers(2)), (int(rng.integers(2)), 0), bool(rng.random() < 0.3), f"s{rng.integers(30)}")
        for n in range(130)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD", held)
        whole, pieces, newest = Claims(2), Claims(2), Claims(2)
        note(whole, labels)
        note(newest, labels[-held:])
        for start, end in pairwise(sorted({0, 130, restart, *cuts})):
            if start == restart:
                state = pieces.state()
                pieces = Claims(2)
                pieces.restore(state)
            note(pieces, labels[start:end])
        assert same(pieces.state(), whole.state())
        for row in (-1, 0):
            answers = {c.without_most_claiming(0, 0.0, row, 1, flipped=False) for c in (whole, pieces, newest)}
            assert len(answers) == 1
        assert len(whole.state()["source"]) == held


@given(asked=st.integers(1, 3000), share=st.floats(0, 1))
def test_the_lower_bound_solves_wilsons_equation(asked: int, share: float) -> None:
    """At the bound p, what was seen lies two standard errors of p itself above it."""
    yes = round(share * asked)
    low = lowest_rate(yes, asked)
    assert 0 <= low <= yes / asked + 1e-12
    assert yes / asked - low == pytest.approx(2 * math.sqrt(low * (1 - low) / asked), abs=1e-7)


def test_the_lower_bound_has_known_values() -> None:
    """Newcombe 1998, table I, method 3, at 1.96 standard errors: 81 of 263: .2553, 15 of 148: .0624, 0 of 20: 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Z", 1.959964)
        assert lowest_rate(81, 263) == pytest.approx(0.2553, abs=5e-5)
        assert lowest_rate(15, 148) == pytest.approx(0.0624, abs=5e-5)
        assert lowest_rate(0, 20) == 0.0
    assert lowest_rate(0, 0) == 0.0


@pytest.mark.parametrize("loud", [1, 40, 400, 3000])
def test_a_campaign_of_few_sources_never_gets_through(loud: int) -> None:
    """Whatever five of a hundred say, and though honest sources are of very different activity.

    What is left errs at most as the honest labels do, whose rate is within four standard errors of 5 %; so the lower bound
    is no more, which is below 5 % raised by the floor of .4 log-odds.
    """
    rng = np.random.default_rng(loud)
    honest = [f"s{int(n)}" for n in rng.zipf(1.5, 3000) % 95]
    labels: list[Label] = [(0.0, 0, (0, 0), bool(rng.random() < 0.05), source) for source in honest]
    labels += [(0.0, 0, (0, 0), True, f"bad{n % 5}") for n in range(5 * loud)]
    order = rng.permutation(len(labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD", 1 << 15)
        claims = Claims(2)
        note(claims, [labels[n] for n in order])
        found, wrong = claims.without_most_claiming(0, 0.0, -1, 0, flipped=False)
    said = sum(wrong for *_, wrong, source in labels if source.startswith("s"))
    assert wrong / found <= said / 3000 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 3000)
    assert logit(np.array(lowest_rate(wrong, found)))[()] < logit(np.array(0.05))[()] + 0.4


def test_nothing_is_left_where_only_few_have_spoken() -> None:
    """Errors in a slice that five of a hundred sources alone have labelled are theirs."""
    claims = Claims(2)
    note(claims, [(0.0, 0, (0, 0), False, f"s{n}") for n in range(95)])
    note(claims, [(0.0, 0, (1, 0), True, f"bad{n % 5}") for n in range(300)])
    assert claims.without_most_claiming(0, 0.0, 0, 1, flipped=False) == (0, 0)
    note(claims, [(0.0, 0, (1, 0), False, "")])
    assert claims.without_most_claiming(0, 0.0, 0, 1, flipped=False) == (1, 0)


@pytest.mark.parametrize(("sources", "of_each"), [(100, 3), (40, 8), (300, 1)])
def test_a_real_drop_that_all_see_is_soon_beyond_doubt(sources: int, of_each: int) -> None:
    """Errors of 5 % that become 20 % for all keep their sign within some 300 labels.

    Of 300 labels or a few more, 5 % of the sources, so at most 16, are left out, all wrong at the worst. Wilson's lower
    bound of 30 of 285 is .0742, and 5 % raised by .4 log-odds are .0728: so a run fails only below 46 wrong of 300, where 60 are
    expected, 2.1 standard errors (6.9) lower: 2 %. Of 40 runs .8 fail in the mean, more than 5 with a chance below 1e-3.
    """
    labels_needed = sources * of_each
    rng = np.random.default_rng(sources)
    threshold = float(expit(logit(np.array(0.05)) + 0.4))
    failed = 0
    for _ in range(40):
        claims = Claims(2)
        note(
            claims,
            [(0.0, 0, (0, 0), bool(rng.random() < 0.2), f"s{n % sources}") for n in range(labels_needed)],
        )
        found, wrong = claims.without_most_claiming(0, 0.0, -1, 0, flipped=False)
        failed += lowest_rate(wrong, found) < threshold
    assert failed <= 5


def test_of_flips_only_those_that_were_wrong_are_claims() -> None:
    """Asked of flips, a label counts as wrong where its prediction was flipped as well."""
    claims = Claims(2)
    labels: list[Label] = [(0.0, 0, (n % 2, n % 3 == 0), n % 4 < 2, "") for n in range(120)]
    note(claims, labels)
    assert claims.without_most_claiming(0, 0.0, -1, 0, flipped=False) == (120, 60)
    assert claims.without_most_claiming(0, 0.0, -1, 0, flipped=True) == (120, 20)
    assert claims.without_most_claiming(0, 0.0, 0, 1, flipped=True) == (60, 10)
