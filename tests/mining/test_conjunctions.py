"""Conjunctions are found in odd predictions, tested on later ones, and named as they were planted."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.datasets import load_digits

from poisonwatch.mining.conjunctions import MOST_CANDIDATES, Conjunctions
from poisonwatch.mining.items import Items
from poisonwatch.mining.patterns import bears
from poisonwatch.mining.records import Finding, Known
from poisonwatch.mining.suspects import Suspects
from poisonwatch.types import Cell, Column, Item, Patch, Schema, Values
from tests.mining.blocks import block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.mining.records import Records

LETTERS = "abcde"
SCHEMA = Schema(
    model=None,
    outcome=Column(name="prediction", kind="categorical", values=("no", "yes")),
    features=(
        Column(name="features.amount", kind="numerical"),
        *(Column(name=f"features.{letter}", kind="categorical", values=("x", "y", "z")) for letter in LETTERS),
    ),
    layout="object",
    confidence=True,
)
CUTS: dict[str, tuple[float, ...]] = {"confidence": (0.5,), "features.amount": (-2.0, -1.0, 0.0, 1.0, 2.0)}
MASS = 1e-4
"""Share of the budget that a block earns: more than a block of a real log does, so that fewer blocks are needed."""


def usual(n: int, generator: np.random.Generator) -> dict[str, Any]:
    """Columns of benign records: five categories of unlike frequency, a number, odd ones as often as in the reference."""
    label = generator.integers(0, 2, n)
    codes = np.stack((label + 1, *generator.choice([1, 2, 3], (5, n), p=[0.6, 0.25, 0.15])))
    numbers = np.stack((generator.random(n), generator.normal(size=n)))
    return {
        "label": label,
        "codes": codes,
        "numbers": numbers,
        "surprising": generator.random(n) < 0.02,
        "flipped": generator.random(n) < 0.006,
    }


def triggered(columns: dict[str, Any], which: Any, flips: float, generator: np.random.Generator) -> dict[str, Any]:
    """The chosen records as they come back with a trigger: their class is 1, and most are odd."""
    columns["label"][which] = 1
    columns["codes"][0, which] = 2
    columns["surprising"][which] = generator.random(int(which.sum())) < 0.95
    columns["flipped"][which] = generator.random(int(which.sum())) < flips
    return columns


def records(columns: dict[str, Any], start: int = 0, **of: Any) -> Records:
    """Records of columns, a minute apart, from number `start` of the log on."""
    n = columns["label"].size
    columns = columns | of
    label = columns.pop("label")
    found = block([""] * n, label.tolist(), start=60.0 * start, step=60.0, **columns)
    return dataclasses.replace(found, original=start + np.arange(n))


def learnt(seed: int = 0, n: int = 3000) -> Items:
    """Items of a reference of benign records."""
    return Items.learn(SCHEMA, CUTS, records(usual(n, np.random.default_rng(seed + 1000))))


def run(engine: Conjunctions, blocks: Iterable[Records], known: list[Known] | None = None) -> list[Finding]:
    """What an engine surfaces in blocks; what it told is known from then on."""
    suspects, found = Suspects(), list[Finding]()
    known = [] if known is None else known
    for part in blocks:
        suspects.add(part)
        engine.step(part, MASS)
        told = engine.surfaced(suspects, known)
        known += [Known(finding.version, finding.label, finding.pattern) for finding in told]
        found += told
    return found


def cut(whole: Records, size: int = 50) -> list[Records]:
    """Records in blocks of a size."""
    return [whole.select(np.arange(first, first + size)) for first in range(0, whole.time.size, size)]


def planted(seed: int, n: int = 2000, share: float = 0.03) -> Records:
    """A log in which (b = z, c = y, d = z), which 0.6 % of benign records have, goes to class 1."""
    generator = np.random.default_rng(seed)
    columns = usual(n, generator)
    which = generator.random(n) < share
    columns["codes"][2, which], columns["codes"][3, which], columns["codes"][4, which] = 3, 2, 3
    return records(triggered(columns, which, 0.85, generator))


@pytest.mark.parametrize("seed", range(4))
def test_three_values_are_found_and_named(seed: int) -> None:
    """Where three values make the trigger, the one finding has these three and no other, after few records."""
    found = run(Conjunctions(learnt(seed)), cut(planted(seed)))
    assert len(found) == 1
    assert (found[0].version, found[0].label) == (0, 1)
    assert isinstance(found[0].pattern, Values)
    items = {item.feature: item.value for item in found[0].pattern.items}
    assert items == {"features.b": "z", "features.c": "y", "features.d": "z"}
    # With the records in which it was found, at most 40 triggered ones.
    assert found[0].flipped <= found[0].matched < 40
    assert found[0].log_e >= 0


@pytest.mark.parametrize("seed", range(3))
def test_one_exact_number_is_named_as_it_is(seed: int) -> None:
    """A number that all triggered records share is named alone and exactly, though its bin is common."""
    generator = np.random.default_rng(seed)
    columns = usual(2000, generator)
    which = generator.random(2000) < 0.02
    columns["numbers"][1, which] = 0.12345
    found = run(Conjunctions(learnt(seed)), cut(records(triggered(columns, which, 0.85, generator))))
    exactly = Item(feature="features.amount", low=0.12345, high=0.12345)
    assert [finding.pattern for finding in found] == [Values(items=(exactly,))]


def test_a_benign_log_has_no_findings() -> None:
    """With all rates as in the reference nothing surfaces: the budget of 400 blocks allows 0.04 findings."""
    for seed in range(2):
        assert not run(Conjunctions(learnt(seed)), cut(records(usual(10_000, np.random.default_rng(seed)))))


def test_what_comes_as_often_as_ever_is_no_trigger() -> None:
    """Records that are always flipped, but no more frequent than in the reference, are not told; when they become so, they are."""
    generator = np.random.default_rng(5)

    def log(share: float, start: int, n: int) -> list[Records]:
        columns = usual(n, generator)
        which = (columns["codes"][2] == 3) & (columns["codes"][3] == 3) & (columns["label"] == 1)
        which |= generator.random(n) < share
        columns["codes"][2, which], columns["codes"][3, which] = 3, 3
        return cut(records(triggered(columns, which, 0.9, generator), start))

    engine, suspects = Conjunctions(learnt()), Suspects()
    for share, start, n, wanted in ((0.0, 0, 6000, 0), (0.1, 6000, 2000, 1)):
        found: list[Finding] = []
        for part in log(share, start, n):
            suspects.add(part)
            engine.step(part, MASS)
            found += engine.surfaced(suspects, [Known(f.version, f.label, f.pattern) for f in found])
        assert len(found) == wanted


def candidates(engine: Conjunctions) -> dict[Any, Any]:
    """The masses, matches and hits of the candidates by version, class and conditions."""
    state = engine.state()
    return {
        (row[0], row[1], tuple(map(tuple, row[4]))): (state["mass"][k], row[2], state["hits"][k], state["bound"][k])
        for k, row in enumerate(state["candidates"])
    }


def test_what_a_candidate_was_found_in_does_not_count_for_it() -> None:
    """After one block, however clear, there are candidates without evidence and no findings; a block without hits gives none."""
    engine = Conjunctions(learnt())
    assert not run(engine, [planted(0)])
    found = candidates(engine)
    assert found
    for mass, matched, hits, _ in found.values():
        assert not mass.any()
        assert not hits.any()
        assert not matched


def test_the_processes_are_those_of_the_formula() -> None:
    """Blocks move every candidate as a loop over its records does, by version and class."""
    engine = Conjunctions(learnt())
    run(engine, [planted(0)])
    later = planted(1, n=600)
    later = dataclasses.replace(later, version=np.arange(600) % 2, fresh=np.arange(600) % 7 > 0)
    before = candidates(engine)
    items = learnt()
    codes = items.columns(later, np.arange(items.width))
    borne = {
        key: [
            r
            for r in range(600)
            if later.fresh[r]
            and (later.version[r], later.label[r]) == key[:2]
            and all(
                codes[column, r] == code and (value is None or later.numbers[1, r] == value)
                for column, code, value in key[2]
            )
        ]
        for key in before
    }
    start = min(1e-6, MASS / sum(map(len, borne.values())))
    engine.step(later, MASS)
    for key, (mass, matched, hits, _) in candidates(engine).items():
        bound = before[key][3]
        assert matched == len(borne[key])
        for mark, odd in enumerate((later.surprising, later.flipped)):
            assert hits[mark] == sum(bool(odd[r]) for r in borne[key])
            p = max((0.06, 0.02)[mark], bound[mark])
            for stake, share in enumerate((0.285, 0.57, 0.855)):
                q = p + (1 - p) * share
                expected = start * len(borne[key])
                for r in borne[key]:
                    expected *= q / p if odd[r] else (1 - q) / (1 - p)
                assert mass[mark, stake] == pytest.approx(expected)
    assert sum(map(len, borne.values())) > 50


def test_under_the_null_evidence_is_what_was_put_in() -> None:
    """Over all numbers of hits of 12 bearers, with the chances of the null, the mean of the evidence is the start mass exactly."""
    engine = Conjunctions(learnt())
    run(engine, [planted(0)])
    state, n = engine.state(), 12
    generator = np.random.default_rng(0)
    columns = usual(n, generator)
    columns["label"][:], columns["codes"][2], columns["codes"][3], columns["codes"][4] = 1, 3, 2, 3
    key = next(key for key in candidates(engine) if all(column in {2, 3, 4} for column, _, _ in key[2]))
    bound = candidates(engine)[key][3]
    p = max(0.02, bound[1])
    total, started = np.zeros(3), 0.0
    for k in range(n + 1):
        again = Conjunctions(learnt())
        again.restore(copy.deepcopy(state))
        odd = np.arange(n) < k
        again.step(records(columns, 5000, surprising=odd, flipped=odd), 1e-9)
        total += binom.pmf(k, n, p) * candidates(again)[key][0][1]
        started = 1e-9 * n / sum(matched for _, matched, _, _ in candidates(again).values())
    assert total == pytest.approx(np.full(3, started))


def test_repeats_and_single_sources_are_capped() -> None:
    """What is not fresh counts for nothing, and of one source three records a day."""
    engine = Conjunctions(learnt())
    run(engine, [planted(0)])
    state = engine.state()
    later = planted(1, n=600, share=1.0)
    for of, most in (
        ({"fresh": np.zeros(600, np.bool_)}, 0),
        ({"sources": np.full(600, "one", object)}, 3),
        ({"sources": np.array(["one", "two"] * 300, object)}, 6),
    ):
        again = Conjunctions(learnt())
        again.restore(copy.deepcopy(state))
        for part in cut(dataclasses.replace(later, **of)):
            again.step(part, MASS)
        assert max(matched for _, matched, _, _ in candidates(again).values()) == most
    again = Conjunctions(learnt())
    again.restore(copy.deepcopy(state))
    for day in range(3):
        part = dataclasses.replace(
            later, sources=np.full(600, "one", object), time=later.time % 3600 + 86400.0 * (2 + day)
        )
        again.step(part, MASS)
    assert max(matched for _, matched, _, _ in candidates(again).values()) == 9


@pytest.mark.parametrize("at", [1, 7, 12, 30])
def test_a_restart_changes_nothing(at: int) -> None:
    """Stopped and taken up again after any block, an engine says the same as one that went on."""
    blocks = cut(planted(2))
    whole, first, second = (Conjunctions(learnt()) for _ in range(3))
    wanted = run(whole, blocks)
    suspects, found = Suspects(), list[Finding]()
    engine = first
    for number, part in enumerate(blocks):
        if number == at:
            second.restore(copy.deepcopy(first.state()))
            engine = second
        suspects.add(part)
        engine.step(part, MASS)
        found += engine.surfaced(suspects, [Known(f.version, f.label, f.pattern) for f in found])
    assert found == wanted
    assert str(engine.state()) == str(whole.state())


def test_what_is_known_is_not_told_again() -> None:
    """Records that a known pattern explains are no finding of their own."""
    log = planted(3)
    found = run(Conjunctions(learnt()), cut(log))
    known = [Known(finding.version, finding.label, finding.pattern) for finding in found]
    assert not run(Conjunctions(learnt()), cut(log), known)


def test_decoys_do_not_drive_out_what_has_evidence() -> None:
    """A flood of odd decoys in the other class fills no more than the room there is, and the attack surfaces all the same."""
    generator = np.random.default_rng(0)
    attacked = planted(4)
    flooded = []
    for part in cut(attacked):
        columns = usual(100, generator)
        decoy = triggered(columns, np.ones(100, np.bool_), 1.0, generator)
        decoy["label"][:] = 0
        decoy["numbers"][1] = generator.choice(np.arange(20) / 7.0, 100)
        flooded.append(part.join(records(decoy, int(part.original[0]))))
    engine = Conjunctions(learnt())
    found = [finding for finding in run(engine, flooded) if finding.label == 1]
    assert found
    assert isinstance(found[0].pattern, Values)
    assert {item.feature for item in found[0].pattern.items} == {"features.b", "features.c", "features.d"}
    assert len(candidates(engine)) <= MOST_CANDIDATES


def test_nothing_odd_costs_nothing() -> None:
    """Without odd predictions there are no candidates."""
    columns = usual(5000, np.random.default_rng(0)) | {"surprising": False, "flipped": False}
    engine = Conjunctions(learnt())
    assert not run(engine, cut(records(columns), 500))
    assert not candidates(engine)


def image_schema(width: int) -> Schema:
    """Nothing but an embedding."""
    return Schema(
        model=None,
        outcome=Column(name="prediction", kind="categorical", values=("no", "yes")),
        features=(Column(name="embedding", kind="embedding", width=width),),
        layout="none",
        confidence=True,
    )


def of_embeddings(embeddings: Any, which: Any, seed: int) -> Records:
    """Records with embeddings (e, n), the chosen ones triggered."""
    generator = np.random.default_rng(seed)
    n = which.size
    columns = usual(n, generator)
    columns["codes"] = np.ones((2, n), np.int64)
    columns = triggered(columns, which, 0.85, generator)
    columns["numbers"] = columns["numbers"][:1]
    return records(columns, embeddings=embeddings.astype(np.float32))


@pytest.mark.parametrize("place", [(6, 6, 2, 2), (0, 3, 2, 3), (5, 0, 3, 2)])
def test_a_patch_on_images_is_named(place: tuple[int, int, int, int]) -> None:
    """Position and extent of a white rectangle on real digits come out, and its records are the triggered ones."""
    generator = np.random.default_rng(1)
    digits = load_digits().data
    items = Items.learn(image_schema(64), CUTS, of_embeddings(digits[:900].T, np.zeros(900, np.bool_), seed=2))
    live = digits[900 + generator.integers(0, 897, 1500)].reshape(-1, 8, 8).copy()
    which = generator.random(1500) < 0.03
    row, column, height, width = place
    live[which, row : row + height, column : column + width] = 16.0
    log = of_embeddings(live.reshape(1500, 64).T, which, seed=3)
    found = run(Conjunctions(items), cut(log))
    assert len(found) == 1
    patch = found[0].pattern
    assert isinstance(patch, Patch)
    assert (patch.row, patch.column, patch.height, patch.width) == place
    assert which[bears(patch, log, items.schema)].mean() > 0.9


def test_a_dense_region_of_embeddings_is_found() -> None:
    """Triggered records that lie together make a cell that holds most of them."""
    generator = np.random.default_rng(1)
    items = Items.learn(
        image_schema(32), CUTS, of_embeddings(generator.normal(size=(32, 2000)), np.zeros(2000, np.bool_), seed=2)
    )
    which = generator.random(2000) < 0.03
    live = generator.normal(size=(32, 2000))
    live[:, which] = 2.0 * generator.normal(size=(32, 1)) + 0.2 * live[:, which]
    log = of_embeddings(live, which, seed=3)
    found = run(Conjunctions(items), cut(log))
    assert found
    assert isinstance(found[0].pattern, Cell)
    borne = bears(found[0].pattern, log, items.schema)
    assert which[borne & (log.label == 1)].mean() > 0.5
    assert borne[which].mean() > 0.5
    assert all(math.isfinite(threshold) for threshold in found[0].pattern.thresholds)
