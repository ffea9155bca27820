"""Agreement of sources: majorities on items, Fleiss' kappa and Dawid-Skene against plain computations."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.detect.agreement import Agreement, dawid_skene, fleiss_kappa, rounds
from tests.detect.votes import same

VOTES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 2), st.booleans()), min_size=1, max_size=40
)


@given(st.lists(st.integers(0, 4), max_size=30))
def test_rounds_keep_order_and_repeat_no_key(keys: list[int]) -> None:
    """Every position comes once; the n-th of a key is in round n."""
    key = np.array(keys, np.int64)
    found = [part.tolist() for part in rounds(key)]
    expected: list[list[int]] = []
    seen: Counter[int] = Counter()
    for position, one in enumerate(keys):
        if seen[one] == len(expected):
            expected.append([])
        expected[seen[one]].append(position)
        seen[one] += 1
    assert found == expected


@settings(deadline=None)
@given(cast=VOTES, cuts=st.sets(st.integers(1, 39)))
def test_majority_is_of_the_earlier_trusted_votes_of_others(
    cast: list[tuple[int, int, int, bool]], cuts: set[int]
) -> None:
    """The class that more than half of at least two others named before, however the votes come in pieces; -1 else."""
    votes: dict[int, dict[int, tuple[int, bool]]] = {}
    expected = []
    for item, voter, vote, trusted in cast:
        others = [v for who, (v, t) in votes.get(item, {}).items() if who != voter and t]
        best, times = Counter(others).most_common(1)[0] if others else (-1, 0)
        expected.append(best if len(others) >= 2 and 2 * times > len(others) else -1)
        votes.setdefault(item, {})[voter] = (vote, trusted)
    agreement, whole = Agreement(3, 64), Agreement(3, 64)
    columns = [
        np.array(column, kind)
        for column, kind in zip(zip(*cast, strict=True), (np.uint64, int, int, bool), strict=True)
    ]
    bounds = sorted({0, len(cast), *(cut for cut in cuts if cut < len(cast))})
    found: list[int] = []
    for start, end in pairwise(bounds):
        found += agreement.add(*(column[start:end] for column in columns)).tolist()
        state = agreement.state()
        agreement = Agreement(3, 64)
        agreement.restore(state)
    assert found == expected
    whole.add(*columns)
    assert same(agreement.state(), whole.state())


def test_kappa_is_that_of_the_worked_example() -> None:
    """Fleiss 1971 as widely reproduced: ten subjects, fourteen raters, five categories: kappa = 0.210."""
    rows = "0 0 0 0 14|0 2 6 4 2|0 0 3 5 6|0 3 9 2 0|2 2 8 1 1|7 7 0 0 0|3 2 6 3 0|2 5 3 2 2|6 5 2 1 0|0 2 2 3 7"
    counts = np.array([row.split() for row in rows.split("|")], np.float64)
    assert fleiss_kappa(counts, np.ones(10)) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(counts, np.full(10, 7.0)) == pytest.approx(fleiss_kappa(counts, np.ones(10)))


def test_agreement_falls_and_the_guilty_are_insensitive() -> None:
    """3 of 12 annotators begin to name class 1 as 0: kappa falls by a third, and their sensitivity to class 1 to nothing."""
    rng = np.random.default_rng(0)
    agreement = Agreement(2)
    right = rng.uniform(0.86, 0.95, 12)
    kappas = []
    for n in range(2000):
        voters = rng.choice(12, 5, replace=False)
        truth = int(rng.random() < 0.4)
        vote = np.where(rng.random(5) < right[voters], truth, 1 - truth)
        if n >= 1000 and truth:
            vote[voters < 3] = 0
        agreement.add(np.full(5, n, np.uint64), voters, vote, np.ones(5, np.bool_))
        kappas.append(agreement.kappa() if n % 999 == 0 else None)
    before, after = kappas[999], kappas[1998]
    assert before is not None
    assert after is not None
    assert kappas[0] is None
    assert 0.55 < before < 0.75
    assert after < before * 2 / 3
    sensitivities = agreement.sensitivities()
    assert all(sensitivities[voter][1] < 0.1 for voter in range(3))
    assert all(sensitivities[voter].min() > 0.8 for voter in range(3, 12))


def test_dawid_skene_takes_the_steps_of_the_paper() -> None:
    """Equal to loops over items, voters and classes, and better than the majority where a minority is better informed."""
    rng = np.random.default_rng(1)
    items, voters, classes = 60, 5, 3
    truth = rng.integers(0, classes, items)
    item, voter = np.repeat(np.arange(items), voters), np.tile(np.arange(voters), items)
    right = np.array([0.95, 0.95, 0.4, 0.4, 0.4])
    vote = np.where(rng.random(item.size) < right[voter], truth[item], rng.integers(0, classes, item.size))
    found, confusion = dawid_skene(item, voter, vote, items, voters, classes)
    belief = np.array([[np.mean(vote[item == i] == c) for c in range(classes)] for i in range(items)])
    table = np.zeros((voters, classes, classes))
    for _ in range(30):
        for j in range(voters):
            for a in range(classes):
                for b in range(classes):
                    mass = sum(belief[i, a] for i, who, v in zip(item, voter, vote, strict=True) if who == j and v == b)
                    table[j, a, b] = mass + 2.0 * (a == b) + 0.5 / classes
                table[j, a] /= table[j, a].sum()
        prior = belief.mean(axis=0)
        new = np.tile(prior, (items, 1))
        for i, j, v in zip(item, voter, vote, strict=True):
            new[i] *= table[j, :, v]
        belief = new / new.sum(axis=1, keepdims=True)
    assert found == pytest.approx(belief, abs=1e-9)
    assert confusion == pytest.approx(table, abs=1e-9)
    majority = np.array([np.bincount(vote[item == i], minlength=classes).argmax() for i in range(items)])
    assert (found.argmax(axis=1) == truth).sum() > (majority == truth).sum()


def test_votes_that_are_not_trusted_make_no_majority() -> None:
    """Two of them before the third vote say nothing; two that are trusted do, whatever three others say."""
    agreement = Agreement(3, 64)
    item, yes = np.zeros(8, np.uint64) + 5, np.array([False, False, True, False, True, True, True, True])
    votes = np.array([1, 1, 0, 1, 0, 2, 1, 1])
    assert agreement.add(item, np.arange(8), votes, yes).tolist() == [-1, -1, -1, -1, -1, 0, 0, -1]
