"""Sources of labels: the e-detectors do what their formulas say, find who poisons, and accuse nobody for the model's faults."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.detect import sources as module
from poisonwatch.detect.sources import ACCUSED, DAY, SUSPECTED, Sources
from tests.detect.votes import CONFUSION, part, play, same, votes

if TYPE_CHECKING:
    from poisonwatch.detect.sources import Accusation, Votes
    from poisonwatch.types import Bools, Floats, Ints

MONTH = 30 * DAY
SHARE = 0.1


def fresh(capacity: int = 50_000) -> Sources:
    """Sources that have seen nothing."""
    return Sources(CONFUSION, SHARE, MONTH, capacity)


def zipf(size: int) -> Floats:
    """How active each source is."""
    weight = 1 / (1 + np.arange(size)) ** 0.9
    return np.asarray(weight / weight.sum())


def answers(rng: np.random.Generator, source: Ints, own_error: Floats, model_error: Floats) -> tuple[Ints, Ints, Ints]:
    """Truth, predicted and labelled class, where model and honest source err independently."""
    truth = (rng.random(source.size) < 0.4).astype(np.int64)
    predicted = np.where(rng.random(source.size) < model_error, 1 - truth, truth)
    label = np.where(rng.random(source.size) < own_error[source], 1 - truth, truth)
    return truth, predicted, label


def named(found: list[Accusation], kind: str) -> set[str]:
    """Names of the accused of a kind."""
    return {accusation.source for accusation in found if accusation.kind == kind}


class Slow:
    """The same by the book, label by label, from the whole history, without groups and evictions."""

    def __init__(self) -> None:
        self.m: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0] * 4)
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.labels: Counter[str] = Counter()
        self.founder: dict[str, bool] = {}
        self.suspected: set[str] = set()
        self.folded: dict[int, list[tuple[tuple[str, ...], bool, bool, list[int]]]] = defaultdict(list)
        self.known: dict[tuple[int, str], list[list[float]]] = {}
        self.seen: Counter[tuple[int, int]] = Counter()
        self.block: list[tuple[tuple[str, ...], list[tuple[int, bool]]]] = []
        self.length = 1
        self.items: dict[str, dict[str, tuple[int, bool]]] = defaultdict(dict)
        self.clock = self.began = 0.0

    def counts(self, cell: int, party: str) -> list[list[float]]:
        """Faded labels and disagreements of others in a cell: of settled sources and of all, over both spans."""
        if (cell, party) not in self.known:
            found = [[0.0, 0.0] for _ in range(4)]
            for parties, wrong, settled, stamp in self.folded[cell]:
                if party not in parties:
                    for n, (in_set, span) in enumerate(((0, 400), (0, 40), (1, 400), (1, 40))):
                        weight = math.exp(-(self.seen[cell, in_set] - stamp[in_set]) / span)
                        weight *= settled or in_set == 1
                        found[n] = [found[n][0] + weight, found[n][1] + weight * wrong]
            self.known[cell, party] = found
        return self.known[cell, party]

    def rate(self, cell: int, party: str, prior: float, strength: float) -> float:
        """Disagreement of the others in a cell."""
        share = min(self.counts(0, party)[0][0] / 100, 1.0)
        found = self.counts(cell, party)
        mixed = [
            [share * a + (1 - share) * b for a, b in zip(found[span], found[2 + span], strict=True)] for span in (0, 1)
        ]
        long = (mixed[0][1] + strength * prior) / (mixed[0][0] + strength)
        short = (mixed[1][1] + 20 * long) / (mixed[1][0] + 20)
        return max(long, short)

    def label(
        self, time: float, source: str, attributes: tuple[str, ...], item: str, predicted: int, label: int
    ) -> bool:
        """One label; whether it counts for error rates."""
        if not self.first:
            self.began = self.clock = time
        founding = time - self.began < 3 * DAY or self.total() < 500
        for party in (source, *attributes):
            if party not in self.first:
                self.first[party], self.founder[party] = time, founding
        parties = (source, *attributes)
        if not self.founder[source]:
            cohort = f"cohort {self.first[source] // DAY}"
            parties = (*parties, cohort)
            self.first.setdefault(cohort, time)
        earned = SHARE / MONTH * (time - self.clock) / len(parties) / 16
        self.clock = time
        standing = self.founder[source] or time - self.first[source] >= 7 * DAY
        votes_of_others = [vote for voter, (vote, trusted) in self.items[item].items() if voter != source and trusted]
        asked = [(0, predicted != label), (1 + predicted, predicted != label), (3 + label, predicted != label)]
        asked += [
            (5, choice != label)
            for choice in (0, 1)
            if len(votes_of_others) >= 2 and 2 * votes_of_others.count(choice) > len(votes_of_others)
        ]
        self.items[item][source] = (label, standing and source not in self.suspected)
        for party in parties:
            self.last[party] = time
            self.labels[party] += 1
            everywhere = self.rate(0, party, 1.0, 1.0)
            for cell, yes in asked:
                own_cell = 1 + predicted if cell == 0 else cell
                if cell == 5:
                    expected = self.rate(5, party, 1.0, 1.0)
                else:
                    expected = max(self.rate(own_cell, party, everywhere, 20.0), self.reference(own_cell))
                null = min(1.5 * expected, 0.999)
                for n, theta in enumerate((0.5, 1.0, 2.0, 3.5)):
                    q = null * math.exp(theta) / (1 - null + null * math.exp(theta))
                    ratio = q / null if yes else (1 - q) / (1 - null)
                    self.m[party, cell][n] = min((self.m[party, cell][n] + earned) * ratio, 1000.0)
        self.block.append((parties, asked))
        counted = standing and all(self.of(party) < SUSPECTED for party in parties)
        if len(self.block) == self.length:
            self.close()
        return counted

    def total(self) -> int:
        """Labels so far."""
        return sum(n for party, n in self.labels.items() if party.startswith("s"))

    def of(self, party: str) -> float:
        """The evidence against a party."""
        return sum(sum(m) for (who, _), m in self.m.items() if who == party)

    def reference(self, cell: int) -> float:
        """Disagreement in the reference."""
        overall = (19 + 36) / 1000
        n, d = {1: (563, 19), 2: (437, 36), 3: (580, 36), 4: (420, 19)}[cell]
        return (d + 20 * overall) / (n + 20)

    def close(self) -> None:
        """Fold the block's labels."""
        self.suspected = {party for party in self.first if self.of(party) >= SUSPECTED}
        self.known = {}
        stamps: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for parties, asked in self.block:
            source = parties[0]
            if self.suspected.isdisjoint(parties):
                settled = self.labels[source] >= 20 and self.last[source] - self.first[source] >= 3 * DAY
                for cell, yes in asked:
                    self.seen[cell, 0] += settled
                    self.seen[cell, 1] += 1
                    self.folded[cell].append((parties, yes, settled, stamps[cell]))
        for cell, stamp in stamps.items():
            stamp[:] = self.seen[cell, 0], self.seen[cell, 1]
        self.block = []
        self.length = min(max(sum(party.startswith("s") for party in self.first) // 2, 1), 256)


def small_stream(seed: int, size: int, days: float = 12.0) -> Votes:
    """A few sources, items with several labels, an attacker, newcomers, and labels out of order."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 8, size) + np.where(np.arange(size) > size // 2, rng.integers(0, 3, size), 0)
    truth, predicted, label = answers(rng, source, np.full(16, 0.05), np.full(size, 0.05))
    label = np.where((source == 1) & (np.arange(size) > size // 3) & (truth == 1), 0, label)
    # Two labels of one item are never closer than a meeting: the slow one knows no groups.
    time = np.arange(size) * days * DAY / size
    return votes(
        time,
        [f"s{n}" for n in source],
        rng.integers(0, size // 3, size),
        predicted,
        label,
        [(f"a{n % 3}",) if n % 2 else () for n in source],
    )


@pytest.mark.parametrize(("size", "days"), [(620, 30.0), (300, 5.0)])
def test_sources_step_as_the_book_says(size: int, days: float) -> None:
    """Evidence per party and cell, and what counts, equal the plain computation from the whole history.

    Within five days some have given enough labels to be settled before they are known for long enough.
    """
    stream = small_stream(0, size, days)
    found, slow = fresh(), Slow()
    counted = play(found, stream, 61)
    plain = [
        slow.label(time, source, attributes, item, int(predicted), int(label))
        for time, source, attributes, item, predicted, label in zip(
            stream.time.tolist(),
            stream.source.tolist(),
            stream.attributes.tolist(),
            stream.prediction_id.tolist(),
            stream.predicted,
            stream.label,
            strict=True,
        )
    ]
    assert counted.tolist() == plain
    p = found.parties
    assert not p.party["group"].any()
    checked = 0
    for slot, (kind, name) in enumerate(p.names):
        party = f"cohort {float(name)}" if kind == 2 else name
        for row in p.rows_of(slot).tolist():
            expected = slow.m[party, int(p.row["cell"][row])]
            assert p.evidence[row] == pytest.approx(expected, rel=1e-6, abs=1e-15)
            checked += 1
        assert p.party["m"][slot] == pytest.approx(slow.of(party), rel=1e-6, abs=1e-12)
    assert checked == len(slow.m)
    assert {cell for _, cell in slow.m} == {0, 1, 2, 3, 4, 5}
    settled = [settled for folded in slow.folded.values() for _, _, settled, _ in folded]
    assert 0 < sum(settled) < len(settled)
    assert not all(plain)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 600), max_size=12), restart=st.integers(0, 600), capacity=st.sampled_from([16, 500])
)
def test_neither_chopping_nor_a_restart_changes_anything(cuts: list[int], restart: int, capacity: int) -> None:
    """The same stream in any pieces, interrupted anywhere, leaves the same state to the last bit."""
    stream = small_stream(3, 600)
    whole, pieces = fresh(capacity), fresh(capacity)
    at_once = whole.step(stream)
    bounds = sorted({0, 600, restart, *cuts})
    counted = []
    for start, end in pairwise(bounds):
        if start == restart:
            state = pieces.state()
            pieces = fresh(capacity)
            pieces.restore(state)
        counted.append(pieces.step(part(stream, start, end)))
    assert np.concatenate(counted).tolist() == at_once.tolist()
    assert same(pieces.state(), whole.state())
    assert pieces.accusations() == whole.accusations()


def coordinated(seed: int, size: int, of_each: int) -> tuple[Votes, Bools]:
    """2,000 honest sources of very different activity and 20 that turn class 1 into 0; which labels are the attack's."""
    rng = np.random.default_rng(seed)
    own_error = np.r_[rng.beta(4, 96, 2000), np.zeros(20)]
    attack = np.zeros(size, np.bool_)
    attack[rng.choice(size, 20 * of_each, replace=False)] = True
    source = rng.choice(2000, size, p=zipf(2000))
    source[attack] = 2000 + rng.permutation(np.repeat(np.arange(20), of_each))
    _, predicted, label = answers(rng, source, own_error, np.full(size, 0.05))
    predicted = np.where(attack, rng.random(size) < 0.95, predicted).astype(np.int64)
    label = np.where(attack, rng.random(size) < 0.1, label).astype(np.int64)
    return votes(np.arange(size) / 5, [f"s{n}" for n in source], np.arange(size), predicted, label), attack


@pytest.mark.slow
def test_coordinated_sources_are_found_and_no_honest_one() -> None:
    """1 % of the labels: all 20 after 15 items in the median, named with their direction and the predictions that they touched.

    All that they contradicted, then what they confirmed among the newest 8,192 that anyone did.
    """
    stream, attack = coordinated(0, 60_000, 30)
    sources = fresh()
    needed: dict[str, int] = {}
    for at in range(0, stream.time.size, 50):
        sources.step(part(stream, at, at + 50))
        for accusation in sources.accusations(affected=False):
            needed.setdefault(accusation.source, accusation.labels)
    guilty = {f"s{n}" for n in range(2000, 2020)}
    assert named(sources.accusations(), "source") == guilty == set(needed)
    assert np.median(list(needed.values())) <= 15
    disagrees = stream.predicted != stream.label
    held = ~disagrees & (np.cumsum(~disagrees[::-1])[::-1] <= sources.confirmed.size)
    for accusation in sources.accusations():
        mine = stream.source == accusation.source
        assert accusation.direction == (1, 0)
        wrong = stream.prediction_id[mine & disagrees].tolist()
        right = stream.prediction_id[mine & held].tolist()
        assert list(accusation.prediction_ids) == wrong[::-1] + right[::-1]
        assert accusation.rate > 0.7
        assert accusation.expected < 0.2
        assert accusation.disagreements == len(wrong)
        assert accusation.labels == mine.sum()
    assert attack.sum() == 600


@pytest.mark.slow
def test_many_small_accounts_are_found_by_what_they_share() -> None:
    """400 accounts of 5 labels each: the network that they share is accused within 20 labels, no other attribute is."""
    rng = np.random.default_rng(0)
    size = 20_000
    own_error = np.r_[rng.beta(4, 96, 2000), np.full(400, 0.0)]
    attack = np.zeros(size, np.bool_)
    attack[rng.choice(np.arange(5000, size), 2000, replace=False)] = True
    source = rng.choice(2000, size, p=zipf(2000))
    source[attack] = 2000 + rng.permutation(np.repeat(np.arange(400), 5))
    truth, predicted, label = answers(rng, source, own_error, np.full(size, 0.05))
    label[attack & (truth == 1)] = 0
    network = ["network=66.6" if bad else f"network={rng.integers(200)}" for bad in attack]
    stream = votes(
        np.arange(size) / 5, [f"s{n}" for n in source], np.arange(size), predicted, label, [(n,) for n in network]
    )
    sources = fresh()
    at = int(np.flatnonzero(attack)[40])
    sources.step(part(stream, 0, at))
    assert named(sources.accusations(), "attribute") == {"network=66.6"}
    sources.step(part(stream, at, size))
    assert named(sources.accusations(), "attribute") == {"network=66.6"}


@pytest.mark.slow
@pytest.mark.parametrize("reviewers", [1, 2, 5, 300])
def test_a_model_that_became_worse_accuses_nobody(reviewers: int) -> None:
    """Errors rise from 5 to 20 % for everyone: no accusation, nobody suspected, every label counts."""
    rng = np.random.default_rng(reviewers)
    size = 3000
    source = rng.choice(reviewers, size, p=zipf(reviewers))
    _, predicted, label = answers(
        rng, source, rng.beta(4, 96, reviewers), np.where(np.arange(size) < size // 2, 0.05, 0.2)
    )
    sources = fresh()
    stream = votes(np.arange(size) * 240.0, [f"s{n}" for n in source], np.arange(size), predicted, label)
    counted = play(sources, stream)
    assert sources.accusations() == []
    founders = set(stream.source[:500].tolist())
    assert counted[[name in founders for name in stream.source]].all()


def test_new_sources_do_not_count_before_they_are_named() -> None:
    """A campaign by new sources on day 5 never touches the error rates; founders, and who is known for a week, count."""
    rng = np.random.default_rng(0)
    size = 5000
    time = np.arange(size) * 240.0
    attack = (time > 5 * DAY) & (rng.random(size) < 0.3)
    source = np.where(attack, 100 + rng.integers(0, 15, size), rng.integers(0, 100, size))
    source[(source == 7) & (time < 4 * DAY)] = 8
    truth, predicted, label = answers(rng, source, np.full(115, 0.04), np.full(size, 0.05))
    label[attack & (truth == 1)] = 0
    sources = fresh()
    counted = play(sources, votes(time, [f"s{n}" for n in source], np.arange(size), predicted, label))
    assert not counted[attack].any()
    assert named(sources.accusations(), "source") == {f"s{n}" for n in range(100, 115)}
    late = source == 7
    known = time - time[late][0] >= 7 * DAY
    assert counted[late].tolist() == known[late].tolist()
    assert counted[~attack & ~late].all()


@pytest.mark.slow
def test_evidence_against_honest_sources_at_the_boundary_keeps_to_the_budget() -> None:
    """20 sources that disagree with the model exactly 1.5 times as often as the reference, and 80 that never do.

    The others' rate, some 8 %, stays far below the reference's 20 %, so the null is 30 % in every cell, and that is how often
    the 20 disagree. A quarter of the labels are theirs and earn a quarter of the budget, 16 pages in the time of a run: so
    in the mean at most 4 of a run's 20 ever have one budget of evidence against them (Ville), 20 in five runs, and in all
    but one of some 30,000 at most 20 + 4 sqrt(20) = 37.
    """
    confusion, size = np.array([[400, 100], [100, 400]]), 20_000
    reached = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        tested = rng.random(size) < 0.25
        source = np.where(tested, rng.integers(0, 20, size), rng.integers(20, 100, size))
        predicted = rng.integers(0, 2, size)
        label = np.where(tested & (rng.random(size) < 0.3), 1 - predicted, predicted)
        stream = votes(
            np.arange(size) * 16 / SHARE * MONTH / size, [f"s{n}" for n in source], np.arange(size), predicted, label
        )
        sources = Sources(confusion, SHARE, MONTH)
        ever: set[str] = set()
        for at in range(0, size, 50):
            sources.step(part(stream, at, at + 50))
            of = np.flatnonzero(sources.parties.party["m"][: len(sources.parties)] >= ACCUSED)
            ever |= {sources.parties.names[slot][1] for slot in of}
        assert ever <= {f"s{n}" for n in range(20)}
        reached += len(ever)
    assert reached <= 20 + 4 * math.sqrt(20)


def test_labels_without_a_source_count_and_leave_no_trace() -> None:
    """Where no source is named nothing is known, and nothing is held against the label."""
    sources = fresh()
    zeros = np.zeros(9, np.int64)
    assert play(sources, votes(np.arange(9.0), [""] * 9, np.arange(9), zeros, zeros + 1)).all()
    assert same(sources.state(), fresh().state())


@pytest.mark.slow
def test_a_flood_of_names_neither_grows_memory_nor_frees_the_guilty() -> None:
    """With room for 400 parties, 5,000 new names push out neither a suspect nor the honest founders."""
    rng = np.random.default_rng(0)
    sources = fresh(400)
    size = 3000
    source = rng.integers(0, 30, size)
    truth, predicted, label = answers(rng, source, np.full(30, 0.04), np.full(size, 0.05))
    label[(source == 0) & (truth == 1)] = 0
    play(sources, votes(np.arange(size) * 240.0, [f"s{n}" for n in source], np.arange(size), predicted, label))
    before = sources.accusations()
    assert named(before, "source") == {"s0"}
    flood = 5_000
    zeros = np.zeros(flood, np.int64)
    time = size * 240.0 + np.arange(flood) * 0.1
    attributes = [tuple(f"x{n}-{k}" for k in range(30)) for n in range(flood)]
    play(sources, votes(time, [f"f{n}" for n in range(flood)], np.arange(flood), zeros, zeros, attributes))
    assert len(sources.parties) <= 400
    assert sources.parties.evidence.shape[0] <= 4 * 400 * module.MOST_ATTRIBUTES
    assert {f"s{n}" for n in range(30)} <= {name for _, name in sources.parties.names}
    assert [a.labels for a in sources.accusations()] == [a.labels for a in before]


@pytest.mark.slow
def test_an_acquitted_source_is_no_longer_accused() -> None:
    """Who long does as the others do loses the evidence against him, and counts again."""
    rng = np.random.default_rng(1)
    size = 12_000
    source = rng.integers(0, 20, size)
    truth, predicted, label = answers(rng, source, np.full(20, 0.03), np.full(size, 0.03))
    label[(source == 0) & (truth == 1) & (np.arange(size) < 1500)] = 0
    stream = votes(np.arange(size) * 240.0, [f"s{n}" for n in source], np.arange(size), predicted, label)
    sources = fresh()
    play(sources, part(stream, 0, 1500))
    assert named(sources.accusations(), "source") == {"s0"}
    assert sources.log_e() >= math.log(ACCUSED)
    counted = play(sources, part(stream, 1500, size))
    assert sources.accusations() == []
    assert counted[-500:].all()


def among_honest(seed: int, size: int, mine: Ints, items: Ints, start: int) -> Votes:
    """A label every four minutes; where `mine` names a source it contradicts the model on its item, from `start` on."""
    rng = np.random.default_rng(seed)
    source = np.where(mine >= 0, mine, rng.integers(0, 30, size))
    _, predicted, label = answers(rng, source, np.full(40, 0.04), np.full(size, 0.05))
    attack = (mine >= 0) & (np.arange(size) >= start)
    predicted = np.where(attack, items % 2, predicted)
    label = np.where(attack, 1 - predicted, label)
    return votes(np.arange(size) * 240.0, [f"s{n}" for n in source], items, predicted, label)


def test_a_group_is_judged_by_what_it_says_after_it_was_found() -> None:
    """Three who label the same items within minutes, and a fourth who joins later, are one group of four.

    Its evidence is from labels after the search that found it, none of those by which it was found.
    """
    size = 3000
    at = np.arange(size)
    turn = at % 10
    mine = np.where((turn < 3) & (at >= 1000), 30 + turn, np.where((turn == 3) & (at >= 2000), 33, -1))
    items = np.where(mine >= 0, 100_000 + at // 10, at)
    stream = among_honest(0, size, mine, items, 1000)
    sources = fresh()
    known: dict[str, int] = {}
    for start in range(0, size, 10):
        sources.step(part(stream, start, start + 10))
        known |= {n: start for k, n in sources.parties.names if k == 3 and n not in known}
    assert list(known) == ["1"]
    group = next(a for a in sources.accusations() if a.kind == "group")
    assert group.source == "coordinated group 1"
    assert sorted(group.members) == ["s30", "s31", "s32", "s33"]
    assert 1000 < known["1"] < 1400
    of_group = (mine >= 30) & (mine <= 32) & (at >= known["1"])
    joined = (mine == 33) & (at >= 2000)
    assert of_group.sum() <= group.labels < of_group.sum() + joined.sum() + 10
    assert group.labels < (mine >= 0).sum() - 30
    assert group.first >= stream.time[known["1"]]
    assert group.disagreements == group.labels
    assert group.expected < 0.2


def test_the_onset_is_where_a_source_turned() -> None:
    """Who was honest for long and then contradicts the model is told with the time and the rate since then."""
    size = 3000
    at = np.arange(size)
    mine = np.where(at % 10 == 0, 30, -1)
    sources = fresh()
    stream = among_honest(1, size, mine, at, 2000)
    play(sources, stream)
    accusation = next(a for a in sources.accusations() if a.source == "s30")
    assert abs(accusation.onset - stream.time[2000]) <= 10 * 2400.0
    assert accusation.rate > 0.9
    assert accusation.disagreements < 0.5 * accusation.labels


def test_evidence_has_a_ceiling_and_so_an_end() -> None:
    """However long a source lied, no bet against him exceeds the ceiling, and that one is reached."""
    size = 3000
    at = np.arange(size)
    sources = fresh()
    play(sources, among_honest(2, size, np.where(at % 5 == 0, 30, -1), at, 0))
    evidence = sources.parties.evidence
    assert evidence.max() == module.CAP


def test_three_labels_accuse_nobody_however_large_the_budget() -> None:
    """Where a month lies between two labels, evidence is reached at once: suspected, but accused with the fourth only."""
    sources = fresh()
    zeros, ones = np.zeros(500, np.int64), np.ones(4, np.int64)
    play(sources, votes(np.arange(500.0), [f"s{n % 20}" for n in range(500)], np.arange(500), zeros, zeros))
    for n in range(4):
        time = 500 + 40 * MONTH * (1 + n)
        stream = votes(np.array([time]), ["bad"], np.array([900 + n]), ones[:1], 1 - ones[:1])
        counted = sources.step(stream)
        assert not counted.any()
        bad = sources.parties.party["m"][sources.parties.find(0, "bad")]
        assert bad >= ACCUSED or n == 0
        assert bool(named(sources.accusations(), "source")) == (n == 3)


def test_of_a_label_only_so_many_attributes_are_parties() -> None:
    """The first eight of thirty, each once: what a label costs does not depend on who sent it."""
    sources = fresh()
    zero = np.zeros(1, np.int64)
    attributes = tuple(f"a{n // 2}" for n in range(30))
    sources.step(votes(np.zeros(1), ["s0"], zero, zero, zero, [attributes]))
    assert [name for _, name in sources.parties.names] == ["s0", "a0", "a1", "a2", "a3"]
