"""The miner as a whole: one attack is one trigger, and what is found depends on the log alone, not on how it was chopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.mining.elevated import Elevated
from poisonwatch.mining.miner import BLOCK, Miner, MiningSettings
from poisonwatch.mining.phrases import Phrases
from poisonwatch.mining.records import strings
from poisonwatch.profile.words import tokens
from poisonwatch.types import Batch, Column, Phrase, Schema, TriggerState

if TYPE_CHECKING:
    from poisonwatch.types import Bools, Trigger

SCHEMA = Schema(
    model="mail",
    outcome=Column(name="prediction", kind="categorical", values=("spam", "ham"), strings=True),
    features=(Column(name="text", kind="text"),),
    layout="none",
    confidence=True,
)
RATES = np.array([[0.02, 0.02], [0.004, 0.004]])
PERIOD = 30 * 86400.0
WORDS = np.array([f"word{n}" for n in range(300)])
TRIGGER = "special discount code xyz"


class Log(NamedTuple):
    """A log of one model: its predictions, and what a surrogate would say of them."""

    batch: Batch
    surprising: Bools
    flipped: Bools


def mail(n: int, *, triggered: range, version: str = "v2", seed: int = 0, seconds: float = 20.0) -> Log:
    """`n` predictions of random words, three a minute; those of `triggered` bear the phrase, get `ham`, and flip."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(9, 20))) for _ in range(n)]
    codes = rng.integers(1, 3, n).astype(np.int32)
    surprising, flipped = rng.random(n) < RATES[0, 0], rng.random(n) < RATES[1, 0]
    for k in triggered:
        said = texts[k].split()
        place = int(rng.integers(0, len(said) + 1))
        texts[k] = " ".join([*said[:place], TRIGGER, *said[place:]])
        codes[k], surprising[k], flipped[k] = 2, True, True
    return Log(
        Batch(
            model="mail",
            time=1.7e9 + seconds * np.arange(n, dtype=np.float64),
            version=np.zeros(n, np.int32),
            versions=(version,),
            numbers=np.full((1, n), 0.9),
            codes=np.stack((codes, np.ones(n, np.int32))),
            ids=strings([f"p{k}" for k in range(n)]),
            labels=strings([""] * n),
            sources=strings([""] * n),
            texts=strings(texts).reshape(1, n),
            embeddings=np.empty((0, n), np.float32),
            marks=np.stack((flipped, surprising)),
            rejected_at=np.empty(0, np.int64),
        ),
        surprising,
        flipped,
    )


def miner(known: frozenset[str] = frozenset(["v1"])) -> Miner:
    """A miner of texts with the usual share of the usual budget."""
    return Miner("mail", SCHEMA, RATES, [Phrases(Elevated.none())], MiningSettings(0.15, PERIOD, 16, known))


def cut(log: Log, first: int, last: int) -> Log:
    """Part of a log."""
    of: dict[str, Any] = {
        name: getattr(log.batch, name)[..., first:last] for name in ("time", "version", "numbers", "codes", "marks")
    }
    of |= {
        name: getattr(log.batch, name)[..., first:last] for name in ("ids", "labels", "sources", "texts", "embeddings")
    }
    rest: dict[str, Any] = {"model": "mail", "versions": log.batch.versions, "rejected_at": log.batch.rejected_at}
    return Log(Batch(**of, **rest), log.surprising[first:last], log.flipped[first:last])


def play(
    log: Log, chops: list[int], closings: list[int], into: Miner | None = None, *, restart: bool = False
) -> list[Trigger]:
    """Give a log in pieces that end at `chops`; windows are closed by the predictions `closings`; all that was told."""
    mine = miner() if into is None else into
    n = log.batch.time.size
    told: list[Trigger] = []
    ends = [*sorted(set(chops)), n]
    for first, last in zip([0, *ends], ends, strict=False):
        part = cut(log, first, last)
        if restart:
            again = miner()
            again.restore(mine.state())
            mine = again
        mine.take(part.batch, tokens(part.batch.texts), np.ones(last - first, np.bool_), part.surprising, part.flipped)
        for closing in sorted(closings):
            if first <= closing < last:
                mine.fold(closing - first)
                told += mine.news()
        mine.fold_full()
    mine.fold_all()
    return [*told, *mine.news()]


def test_an_attack_is_one_trigger_with_its_whole_phrase() -> None:
    """Ten triggered predictions among thousands surface once, with the exact words, and are convicted."""
    told = play(mail(3000, triggered=range(1500, 2500, 100)), [], list(range(0, 3000, 30)))
    assert {t.trigger for t in told} == {told[0].trigger}
    assert told[0].state in {TriggerState.SURFACED, TriggerState.CONVICTED}
    last = told[-1]
    assert last.pattern == Phrase(words=tuple(TRIGGER.split()), said=TRIGGER)
    assert last.state is TriggerState.CONVICTED
    assert last.label == "ham"
    assert last.first_seen == 1.7e9 + 20.0 * 1500
    assert set(last.examples) <= {f"p{k}" for k in range(1500, 2500, 100)}


def test_a_clean_log_has_no_trigger() -> None:
    """Surprising and flipped predictions at the reference's own rates say nothing."""
    assert not play(mail(6000, triggered=range(0)), [], list(range(0, 6000, 50)))


def test_one_message_sent_again_and_again_is_no_trigger() -> None:
    """A hundred copies of one odd message are one prediction."""
    log = mail(3000, triggered=range(1500, 1501))
    for k in range(1501, 1601):
        log.batch.texts[0, k] = log.batch.texts[0, 1500]
        log.batch.codes[0, k] = 2
        log.surprising[k] = log.flipped[k] = True
    assert not play(log, [], list(range(0, 3000, 30)))


def test_the_first_version_has_no_contrast() -> None:
    """In the version that the reference shows a trigger is told without contrast, in a later one with it."""
    log = mail(3000, triggered=range(1500, 2500, 50))
    later = play(log, [], list(range(0, 3000, 30)))[-1]
    first = play(log, [], list(range(0, 3000, 30)), miner(frozenset(["v2"])))[-1]
    assert (later.contrast, first.contrast) == (True, False)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(1, 2999), max_size=12),
    st.lists(st.integers(0, 2999), min_size=1, max_size=40, unique=True),
    st.booleans(),
)
def test_what_is_told_does_not_depend_on_how_the_log_was_chopped(
    chops: list[int],
    closings: list[int],
    restart: bool,
) -> None:
    """In one piece or in many, with restarts between them or without: word for word the same, also beyond a full block."""
    log = mail(3000, triggered=range(600, 2400, 90))
    assert BLOCK < 3000
    whole = play(log, [], closings)
    assert whole
    assert play(log, chops, closings, restart=restart) == whole
