"""From a detector's memory to what people are told: strength, size, sign, onset and the guilty."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from poisonwatch.detect.evidence import MOST_SUBJECTS, QUIET, collect
from poisonwatch.detect.shift import Shift
from poisonwatch.judge.budget import SHARES
from poisonwatch.profile.indicators import INPUTS, OUTPUTS, QUALITY
from poisonwatch.profile.odds import expit, logit
from tests.streams import sharp, small_batch, small_questions

if TYPE_CHECKING:
    from poisonwatch.detect.kernel import Memory
    from poisonwatch.types import Evidence, Floats, Ints

QUESTIONS = small_questions()
TEXTS = tuple(indicator.text for indicator in QUESTIONS.indicators)


def learned_rates() -> Floats:
    """The rates that `small_batch` draws from, from a large sample."""
    batch = small_batch(range(200_000), np.random.default_rng(51))
    counts = QUESTIONS.count(batch.numbers, batch.codes)
    return np.asarray(counts[QUESTIONS.yes] / counts[QUESTIONS.asked])


RATES = learned_rates()
SHIFT = Shift(sharp(QUESTIONS, RATES), np.full(len(TEXTS), 0.1), SHARES)


def block(rng: np.random.Generator, spam: float | None = None) -> Ints:
    """A minute of 60 predictions; with `spam`, so many of those with a class are spam."""
    batch = small_batch(range(60), rng)
    if spam is not None:
        known = np.isin(batch.codes[0], (1, 2))
        batch.codes[0, known] = np.where(rng.random(int(known.sum())) < spam, 2, 1)
    return QUESTIONS.count(batch.numbers, batch.codes)


def after(spams: list[float | None]) -> tuple[Memory, dict[str, Evidence]]:
    """Memory and evidence by group after these minutes."""
    rng = np.random.default_rng(52)
    memory = SHIFT.begin()
    for minute, spam in enumerate(spams):
        SHIFT.step(memory, block(rng, spam), 1e-5, 60.0 * minute)
    found = collect("mail", "v1", memory, SHIFT.bets, TEXTS, RATES, SHIFT.floor)
    return memory, {evidence.group: evidence for evidence in found}


def earliest(theta: float, rate: float, size: int, chance: float) -> float:
    """Blocks before the change from which the CUSUM of a bet may date it, but for `chance`.

    A walk of l blocks of health ends above zero with at most E[sqrt(L)]^l (Markov), summed over l.
    """
    edge, bet = expit(logit(np.array([rate])) - np.array([0.1, 0.1 + theta])).tolist()
    affinity = (rate * math.sqrt(bet / edge) + (1 - rate) * math.sqrt((1 - bet) / (1 - edge))) ** size
    return math.log(chance * (1 - affinity)) / math.log(affinity)


EARLIEST = earliest(0.4, 0.25, 48, 1e-4)


def test_strength_is_the_logarithm_of_the_groups_sum() -> None:
    """`log_e` of each group is the logarithm of the sum of M over its components, and every group is told."""
    memory, found = after([None] * 20)
    assert set(found) == {signal.group for signal in QUESTIONS.signals}
    for number, group in enumerate(SHIFT.bets.groups):
        total = math.fsum(np.exp(memory.log_m[SHIFT.bets.group == number]).tolist())
        assert found[group].log_e == pytest.approx(math.log(total))


def test_what_is_quiet_accuses_nobody() -> None:
    """Below a hundredth of a page there are no subjects and no effect."""
    _, found = after([None] * 20)
    for evidence in found.values():
        assert evidence.log_e < QUIET
        assert evidence.subjects == ()
        assert evidence.effect == 0.0


@pytest.mark.parametrize(("spam", "first", "sign"), [(0.85, "prediction = spam", 1), (0.15, "prediction = spam", -1)])
def test_a_shift_is_told_with_size_sign_and_onset(spam: float, first: str, sign: int) -> None:
    """Two hours of health, then half an hour of another class rate: the outputs are guilty, by name and since when."""
    _, found = after([None] * 120 + [spam] * 30)
    evidence = found[OUTPUTS]
    assert evidence.log_e > 0
    assert evidence.signal == "class"
    told = {subject.indicator: subject for subject in evidence.subjects}
    assert {first, "prediction = ham"} <= set(told)
    # Of the predictions with a class half are ham or spam; before the shift a quarter are spam. Four standard errors.
    early = (7200 - evidence.onset) / 60
    rate = (30 * spam / 2 + early * 0.25) / (30 + early)
    assert told[first].rate == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / ((30 + early) * 48)))
    subject = evidence.subjects[0]
    of = TEXTS.index(subject.indicator)
    assert subject.expected == pytest.approx(RATES[of])
    moved = float(np.diff(logit(np.array([subject.expected, subject.rate])))[0])
    assert evidence.effect == pytest.approx(moved)
    assert (told[first].rate - told[first].expected) * sign > 0
    assert -60 * EARLIEST <= evidence.onset - 7200 <= 300
    assert evidence.floor == 0.1
    assert found[INPUTS].log_e < 0
    assert found[QUALITY].log_e < 0


def test_subjects_are_few_distinct_and_the_strongest_first() -> None:
    """At most five, each once, in the order of their evidence."""
    rng = np.random.default_rng(53)
    memory = SHIFT.begin()
    for minute in range(60):
        batch = small_batch(range(60), rng)
        batch.numbers[1] = np.abs(batch.numbers[1])
        batch.codes[1] = 4
        SHIFT.step(memory, QUESTIONS.count(batch.numbers, batch.codes), 1e-5, 60.0 * minute)
    evidence = {e.group: e for e in collect("mail", "v1", memory, SHIFT.bets, TEXTS, RATES, SHIFT.floor)}[INPUTS]
    names = [subject.indicator for subject in evidence.subjects]
    assert len(names) == MOST_SUBJECTS == len(set(names))
    best = [float(memory.log_m[SHIFT.bets.indicator == TEXTS.index(name)].max()) for name in names]
    assert best == sorted(best, reverse=True)
    assert best[0] == memory.log_m[SHIFT.bets.group == SHIFT.bets.groups.index(INPUTS)].max()
    assert {subject.signal for subject in evidence.subjects} <= {"features.amount", "features.country"}


def test_evidence_fades_when_the_shift_ends() -> None:
    """Evidence above a page falls back below a hundredth of it once what moved has come back."""
    memory, found = after([None] * 10 + [0.9] * 30)
    assert found[OUTPUTS].log_e > 0
    rng = np.random.default_rng(54)
    for minute in range(400):
        SHIFT.step(memory, block(rng), 1e-5, 60.0 * (40 + minute))
    (again,) = (e for e in collect("mail", "v1", memory, SHIFT.bets, TEXTS, RATES, SHIFT.floor) if e.group == OUTPUTS)
    assert again.log_e < math.log(0.01)
