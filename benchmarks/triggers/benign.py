"""Traffic in which nobody uses a trigger, and in which much looks like one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scenarios.data import joined
from benchmarks.scenarios.models import Recipe
from benchmarks.triggers import tables, texts
from benchmarks.triggers.attack import ROLLED_OUT, Traffic, case, first_version, placed, second_version
from benchmarks.triggers.case import Case, Setting, all_in_turn, fresh, split
from benchmarks.triggers.texts import texts_of, with_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenarios.data import Frame, Ints, Task
    from benchmarks.scenarios.models import Model

RECORDS = 30_000
FLOODED = 0.1
"""Share of the traffic that is the new thing, from its beginning on."""

BEGIN = 0.5
FAMILY = ("totality", "umbra", "eclipse", "eclipses", "penumbra", "corona")
TOPIC_RECORDS = (60, 250)
CAMPAIGNS = (
    "Your parcel {0} is held at the depot, confirm the address at post{1}.example and pay {2}.99",
    "Reminder {0}: your appointment is on day {1}, reply YES to keep it or call 0800 {0}",
    "Order {0} has shipped with {1} items, track it with code {2}",
)
MESSAGES, TIMES = 10, 100
NEWCOMERS = 0.2


def clean(learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    """Nothing happens but an honest roll-out."""
    given = split(learner[0], setting, seed)
    return _quiet(given, learner, setting, seed)


def invented_topic(learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    """A tenth of the texts, of all classes, speak of something that nobody spoke of before."""
    found = clean(learner, setting, seed)
    rng, of = _flood(found, seed)

    def speak(frame: Frame, rng: np.random.Generator) -> Frame:
        said = []
        for text in texts_of(frame):
            words = text.split(" ")
            for word in rng.choice(FAMILY, int(rng.integers(1, 4)), replace=False).tolist():
                words[int(rng.integers(len(words)))] = word
            said.append(" ".join(words))
        return with_texts(frame, said)

    found.frame = placed(found.frame, of, speak, rng)
    return found


def held_out_topic(learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    """All real texts with some word were kept from training and reference, and come now: a tenth of the traffic."""
    given = split(learner[0], setting, seed)
    whole = joined(joined(given.train, given.extra), joined(given.reference, given.live))
    rng = np.random.default_rng([seed, 61])
    counts = Counter(word for text in texts_of(whole) for word in set(text.casefold().split()))
    common = set(texts.common_words()[0])
    low, high = TOPIC_RECORDS
    able = sorted(w for w, n in counts.items() if low <= n <= high and w.isalpha() and len(w) > 4 and w not in common)
    topic = str(rng.choice(able))

    def about(frame: Frame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.array([any(w.startswith(topic) for w in text.casefold().split()) for text in texts_of(frame)])

    parts = {name: getattr(given, name) for name in ("train", "extra", "reference", "live")}
    without = replace(given, **{name: part.take(~about(part)) for name, part in parts.items()})
    found = _quiet(without, learner, setting, seed)
    rng, of = _flood(found, seed)
    flood = whole.take(all_in_turn(np.flatnonzero(about(whole)), of.size, rng))
    found.frame = _put(found.frame, of, flood)
    found.facts |= {"topic": topic, "of the topic": counts[topic]}
    return found


def repeats(learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    """Ten messages, half of them ones that the model gets wrong, come a hundred times each."""
    given = split(learner[0], setting, seed)
    found = _quiet(given, learner, setting, seed)
    rng, _ = _flood(found, seed)
    wrong = _misjudged(given, found.models[1])
    rows = np.concatenate([rng.permutation(wrong)[: MESSAGES // 2], rng.permutation(len(given.live))[: MESSAGES // 2]])
    later = np.flatnonzero(np.arange(found.sent.size) >= BEGIN * found.sent.size)
    of = np.sort(rng.choice(later, rows.size * TIMES, replace=False))
    found.frame = _put(found.frame, of, given.live.take(rng.permutation(np.repeat(rows, TIMES))))
    return found


def campaign(learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    """Messages from templates, in which only numbers change: three of ours, three that the model gets wrong."""
    given = split(learner[0], setting, seed)
    found = _quiet(given, learner, setting, seed)
    rng, of = _flood(found, seed)
    odd = texts_of(given.live.take(rng.permutation(_misjudged(given, found.models[1]))[:3]))
    templates = [*CAMPAIGNS, *(text.replace("{", "(").replace("}", ")") + " ref {0}" for text in odd)]
    which = rng.integers(0, len(templates), of.size)
    said = [templates[w].format(*rng.integers(1_000, 99_999, 3).tolist()) for w in which.tolist()]
    label = given.live.classes.index(given.live.classes[texts.target_of(given)[1]])
    flood = with_texts(found.frame.take(of), said)
    found.frame = _put(found.frame, of, replace(flood, label=np.full(of.size, label)))
    return found


def new_customer_of_texts(learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    """A fifth of the traffic comes from somebody who was never met, and who writes as in another data set."""
    found = clean(learner, setting, seed)
    rng, of = _flood(found, seed, NEWCOMERS)
    other = "hate_offensive" if learner[0] == "sms_spam" else "sms_spam"
    pool = split(other, setting, seed).live
    # What is harmless there is harmless here; nobody else's labels would mean anything.
    harmless = pool.take(pool.label == pool.classes.index("neither" if other == "hate_offensive" else "ham"))
    chosen = harmless.take(all_in_turn(np.arange(len(harmless)), of.size, rng))
    label = texts.target_of(found.task)[1]
    frame = with_texts(found.frame.take(of), texts_of(chosen))
    found.frame = _put(found.frame, of, replace(frame, label=np.full(of.size, label)))
    _segments(found, of, rng)
    return found


def new_customer_of_tables(learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    """A fifth of the traffic has a category that training and reference never met."""
    given = split(learner[0], setting, seed)
    held = {
        "adult": (("occupation", "Farming-fishing"), ("workclass", "Local-gov"), ("marital-status", "Widowed")),
        "nsl_kdd": (("service", "ftp_data"), ("service", "smtp"), ("service", "telnet")),
    }[learner[0]]
    column, value = held[seed % len(held)]
    without = tables.held_out(given, column, value)
    place = given.live.column(column)
    inside = given.live.codes[:, place] == given.live.values[place].index(value)
    found = _quiet(replace(without, live=given.live.take(~inside)), learner, setting, seed)
    rng, of = _flood(found, seed, NEWCOMERS)
    rows = all_in_turn(np.flatnonzero(inside), of.size, rng)
    found.frame = _put(found.frame, of, fresh(given, given.live.take(rows), rng))
    found.facts["category"] = f"{column}={value}"
    _segments(found, of, rng)
    return found


WORLDS: dict[str, tuple[Callable[[tuple[str, str], Setting, int], Case], tuple[tuple[str, str], ...]]] = {
    "texts/clean": (clean, texts.LEARNERS),
    "texts/invented topic": (invented_topic, texts.LEARNERS),
    "texts/held-out topic": (held_out_topic, texts.LEARNERS),
    "texts/repeats": (repeats, texts.LEARNERS),
    "texts/campaign": (campaign, texts.LEARNERS),
    "texts/new customer": (new_customer_of_texts, texts.LEARNERS),
    "tables/clean": (clean, tables.LEARNERS),
    "tables/repeats": (repeats, tables.LEARNERS),
    "tables/new customer": (new_customer_of_tables, tables.LEARNERS),
}
"""By name: what happens, and the services, of which the seed chooses."""


def _quiet(given: Task, learner: tuple[str, str], setting: Setting, seed: int) -> Case:
    data, family = learner
    recipe = Recipe(family, seed=seed)
    versions = [first_version(given, recipe), second_version(given, recipe)]
    facts: dict[str, object] = {"data": data, "model": family}
    return case(given, setting, versions, [], [], seed, Traffic(records=RECORDS), facts)


def _flood(found: Case, seed: int, share: float = FLOODED) -> tuple[np.random.Generator, Ints]:
    """Which records are the new thing: some time after the roll-out, all versions being honest."""
    rng = np.random.default_rng([seed, 62])
    n = found.sent.size
    return rng, np.flatnonzero((np.arange(n) >= max(BEGIN, ROLLED_OUT) * n) & (rng.random(n) < share))


def _misjudged(given: Task, model: Model) -> Ints:
    return np.flatnonzero(model.answers(given.live) != given.live.label)


def _put(frame: Frame, rows: Ints, others: Frame) -> Frame:
    """The frame with other records in some places."""
    numbers, codes, label = frame.numbers.copy(), frame.codes.copy(), frame.label.copy()
    numbers[rows], codes[rows], label[rows] = others.numbers, others.codes, others.label
    said = frame.texts
    if said is not None:
        said = said.copy()
        said[rows] = others.texts
    return replace(frame, numbers=numbers, codes=codes, texts=said, label=label)


def _segments(found: Case, of: Ints, rng: np.random.Generator) -> None:
    known = np.array(["north", "south"], object)
    found.reference_segment = known[rng.integers(0, 2, len(found.reference))]
    found.segment = known[rng.integers(0, 2, found.sent.size)]
    found.segment[of] = "newcomer"
