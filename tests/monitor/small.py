"""A small monitor, and streams of predictions and labels in which much happens in few records."""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from poisonwatch import checkpoint
from poisonwatch.judge.budget import SHARES
from poisonwatch.mining.learned import Mining
from poisonwatch.mining.records import Records
from poisonwatch.monitor.machine import Learned, Monitor
from poisonwatch.monitor.settings import Settings
from poisonwatch.profile.baseline import describe, describe_errors
from poisonwatch.profile.enrich import Enrichment
from poisonwatch.profile.indicators import FLIPPED, SURPRISE, SURPRISING, UNSURE, ask, ask_errors, ask_lines
from poisonwatch.profile.scorer import Linear
from poisonwatch.profile.surrogate import Residuals, Surrogate
from poisonwatch.profile.words import tokens
from poisonwatch.types import Batch, Feedback
from tests.streams import SMALL, START, chopped, shuffled, small_batch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from poisonwatch.types import Report

DAY = 86400.0
MONTH = 30 * DAY

CUTS = {"confidence": (0.25, 0.5, 0.75), "features.amount": (-1.0, 0.0, 0.5, 1.0), SURPRISE: (0.5, 0.9)}
CLASSES = 4
"""Classes that a label of `SMALL` may have: its two, the rare and the unseen."""

DETECTION = Settings(
    window=60.0,
    lateness=20.0,
    period=DAY,
    shares=SHARES,
    effect_floor=0.1,
    retrain_floor=0.1,
    flip_floor=0.1,
    canary_floor=0.1,
    canary_page_floor=0.4,
    label_floor=0.1,
    drift_label_floor=0.3,
    smallest_arm=5,
    most_versions=8,
    stable=None,
    known=frozenset(["v1"]),
    confirms=False,
)
"""Windows, floors and a budget that are small, so that much happens in few records."""


@cache
def small_enrichment() -> Enrichment:
    """A surrogate that says spam where the amount is positive, and a confidence below which a prediction is unsure."""
    model = Linear(
        code_counts=(5,),
        bits=1,
        start=np.zeros(1),
        weight=np.zeros((1, 2), np.float32),
        centre=np.zeros(1),
        scale=np.ones(1),
        slope=np.full((1, 1), 3.0),
        of_code=np.zeros((1, 5)),
    )
    tables = tuple(Residuals.of(np.random.default_rng(k).normal(0, 3, 200)) for k in range(2))
    return Enrichment(SMALL, Surrogate(model, np.array([0, 1]), 2, 0.5, tables), unsure=0.25)


def learned_of(whole: Batch, errors: tuple[int, int] = (2000, 200)) -> Learned:
    """What a reference of these predictions, and of so many labels of which so many said otherwise, would give."""
    enrichment = small_enrichment()
    questions = ask(SMALL, CUTS, (SURPRISE,), (FLIPPED, UNSURE))
    enriched = enrichment.apply(whole, np.ones(whole.time.size, np.bool_))
    counts = questions.count(enriched.numbers, enriched.codes, enriched.marks)
    lines = np.array([2000, 10])
    labels, wrong = errors
    asked = ask_errors(SMALL, flips=True)
    facts = np.resize(np.array([[1, 2], [1, 2]], np.int32), (2, labels))
    is_wrong = np.arange(labels) < wrong
    flipped = np.arange(labels) // 2 % 2 == 0  # the answers are drawn: half are flipped
    of_errors = asked.count(np.empty((0, labels)), facts, np.stack((is_wrong, is_wrong & flipped, flipped)))
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    confusion[0, 0] = confusion[1, 1] = (labels - wrong) // 2
    confusion[0, 1] = confusion[1, 0] = wrong // 2
    return Learned(
        baseline=describe(questions, counts, counts[None], counts[None]),
        errors=describe_errors(asked, of_errors),
        confusion=confusion,
        lines=describe(ask_lines(), lines, lines[None], lines[None]),
        volume=None,
        with_labels=labels > 0,
        enrichment=enrichment,
        mining=mining_of(enriched, enrichment),
    )


def mining_of(enriched: Batch, enrichment: Enrichment) -> Mining:
    """What a reference of these enriched predictions would give the miner."""
    n = enriched.time.size
    odd = {name: enriched.marks[enrichment.marks.index(name)] for name in (SURPRISING, FLIPPED)}
    names = ("time", "ids", "sources", "texts", "numbers", "codes", "embeddings")
    return Mining.learn(
        enrichment.schema,
        CUTS,
        Records(
            version=np.zeros(n, np.int64),
            label=enriched.codes[0].astype(np.int64) - 1,
            **odd,
            null=np.zeros((2, n)),
            fresh=np.ones(n, np.bool_),
            original=np.arange(n),
            words=tokens(enriched.texts),
            **{name: getattr(enriched, name) for name in names},
        ),
    )


@cache
def small_learned() -> Learned:
    """Learned of 2,000 predictions drawn like those of `small_stream`."""
    return learned_of(small_batch(range(2000), np.random.default_rng(71)))


def small_monitor(**changed: Any) -> Monitor:
    """A monitor of the small schema, with other settings where they are `changed`."""
    return Monitor("mail", small_learned(), DETECTION._replace(**changed))


def small_stream(seed: int) -> Batch:
    """Some minutes of up to four versions out of order, with pauses of hours and days, shifts and rejected lines.

    Some ids are answered twice, some are missing, and some predictions come with their labels.
    """
    rng = np.random.default_rng(seed)
    pauses = rng.choice([0.0, 0.0, 0.0, 5000.0, 100_000.0], 6)
    parts = np.concatenate([np.sort(rng.uniform(0, 400, 40)) + 400 * i + pauses[: i + 1].sum() for i in range(6)])
    times = shuffled(START + parts, rng, float(rng.choice([0, 30, 90])))
    rejected = rng.integers(0, times.size + 1, int(rng.integers(0, 60)))
    stream = small_batch(times, rng, ("v2", "v1", "v4", "v3"), rejected.tolist())
    stream.version[: times.size // 3] %= 2
    stream.version[-times.size // 4 :] //= 2
    changed = stream.version == 0
    stream.codes[0, changed] = np.where(rng.random(int(changed.sum())) < 0.7, 2, stream.codes[0, changed])
    again = np.flatnonzero(rng.random(times.size) < 0.3)
    stream.ids[again] = stream.ids[np.maximum(again - rng.integers(1, 4, again.size), 0)]
    stream.ids[rng.random(times.size) < 0.05] = ""
    with_label = rng.random(times.size) < 0.3
    stream.labels[with_label] = rng.choice(np.array(["ham", "spam", "it", "odd"], np.object_), int(with_label.sum()))
    return stream


def labels(
    time: Iterable[float], ids: Iterable[str], said: Iterable[str], sources: Iterable[str] | None = None
) -> Feedback:
    """Labels that come back, from nobody in particular or from these sources."""
    times, names = np.array(list(time), np.float64), list(ids)
    attributes = np.empty(times.size, np.object_)
    attributes[:] = [()] * times.size
    return Feedback(
        time=times,
        ids=np.array(names, np.object_),
        labels=np.array(list(said), np.object_),
        sources=np.array([""] * times.size if sources is None else list(sources), np.object_),
        attributes=attributes,
    )


def small_events(seed: int) -> list[Batch | Feedback]:
    """A small stream with labels between its predictions: known and unknown, repeated, of few sources, some days late."""
    rng = np.random.default_rng(seed)
    whole = small_stream(seed)
    events: list[Batch | Feedback] = []
    places = np.sort(rng.integers(0, whole.time.size, 8)).tolist()
    known, clock = np.array(["unheard of"], np.object_), START
    for piece in chopped(whole, places):
        events.append(piece)
        known = np.concatenate((known, piece.ids))
        clock = max(clock, float(piece.time.max(initial=clock)))
        m = int(rng.integers(0, 60))
        feedback = labels(
            clock + np.sort(rng.uniform(0, 400, m)) - rng.integers(0, 2) * 60,
            rng.choice(known, m),
            rng.choice(np.array(["ham", "spam", "spam", "it", "odd"], np.object_), m),
            rng.choice(np.array(["", "s0", "s0", "s1", "s2", "s3"], np.object_), m),
        )
        feedback.attributes[: m // 2] = [("team=a",)] * (m // 2)
        events.append(feedback)
    last = labels([clock + 3 * DAY, clock + 3 * DAY + 200], known[-2:], ["spam", "ham"], ["s0", ""])
    return [*events, last]


def chopped_events(events: Iterable[Batch | Feedback], cuts: Iterable[int]) -> list[Batch | Feedback]:
    """The same predictions and labels in the same order, each stretch of one kind cut at these places."""
    cuts = list(cuts)
    pieces: list[Batch | Feedback] = []
    for event in events:
        if isinstance(event, Batch):
            pieces += chopped(event, cuts)
        else:
            pieces += cut_labels(event, cuts)
    return pieces


def cut_labels(whole: Feedback, cuts: Iterable[int]) -> list[Feedback]:
    """Labels in pieces."""
    edges = sorted({0, whole.time.size, *(min(max(cut, 0), whole.time.size) for cut in cuts)})
    fields = [field.name for field in dataclasses.fields(whole)]
    return [Feedback(**{name: getattr(whole, name)[a:b] for name in fields}) for a, b in pairwise(edges)]


def take(monitor: Monitor, piece: Batch | Feedback) -> list[Report]:
    """The reports that a piece makes."""
    return list(monitor.absorb(piece) if isinstance(piece, Batch) else monitor.learn(piece))


def reports_of(monitor: Monitor, pieces: Iterable[Batch | Feedback]) -> list[Report]:
    """The reports that a stream in pieces makes, in their order."""
    return [report for piece in pieces for report in take(monitor, piece)]


def reloaded(monitor: Monitor, path: Path, fresh: Monitor) -> Monitor:
    """What a monitor is after a stop and a start of the program: `fresh` with the state of the real checkpoint file."""
    checkpoint.save(path, monitor.state(), {"model": "mail"})
    state = checkpoint.load(path, {"model": "mail"})
    assert state is not None
    fresh.restore(state)
    return fresh


def shown(monitor: Monitor) -> dict[str, Any]:
    """Everything that a monitor shows of itself."""
    views = {
        name: (
            view.facts,
            view.totals.tolist(),
            view.labels,
            view.distances,
            view.evidence,
        )
        for name, view in monitor.view().items()
    }
    counted = (monitor.labels.matched, monitor.labels.unmatched, monitor.labels.open_until)
    return {
        "views": views,
        "lines": monitor.evidence_on_log(),
        "accused": monitor.labels.sources.accusations(),
        "labels": counted,
        "late": monitor.late,
        "newest": monitor.newest,
    }


def constant(times: list[float], version: str = "v1") -> Batch:
    """Predictions of ham that are all alike."""
    n = len(times)
    drawn = small_batch(times, np.random.default_rng(0), (version,))
    return dataclasses.replace(drawn, numbers=np.tile([[0.5], [0.0]], n), codes=np.ones((3, n), np.int32))
