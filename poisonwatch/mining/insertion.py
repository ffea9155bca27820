"""Is a pattern to blame? It is inserted into verified inputs of other classes, in turn with what is merely typical of the class.

A *probe* is one golden input that the version answers rightly, and not with the class in question, with something inserted; it
*flips* when it now gets that class. Trigger and control insertions alternate, on the same golden inputs. A control is of the
same kind and size, made of what is typical of the class among the golden inputs: its words; the values that one of its inputs has of the same
features; a piece of one of its images. A pattern that does no more than that is no trigger. A part of the pattern that the class has more often than
others anyway is no secret, so controls keep it: else a group of the class's own words would be confirmed. Golden inputs are a
sample of the inputs of other classes, each is used once; every choice is a hash of the trigger's name and the probe's number,
which whoever made the model could not know.

**The e-process.** With p the flip rate of the trigger and c that of the controls, the null says p <= max(c, `LEAST`). For every
rate r between them, which exists under the null, the likelihood ratios of bets that p > r, and that c < r, have conditional means
of at most 1, and so has their product, whatever was asked when. Which r it is nobody knows, so the smallest product over all r
counts: it is at most the one that is valid (universal inference: Wasserman, Ramdas, Balakrishnan, PNAS 2020; mixtures of bets:
Waudby-Smith, Ramdas, JRSS B 2024). By Ville's inequality a pattern that does no more than the controls reaches 1/`ALPHA` at any time
with a probability of at most `ALPHA`. No rate is taken as known, and nothing is paid for looking after each batch. Answers of trigger
and control to one input depend on each other; where they rise together, as they do, the product's mean only falls.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from poisonwatch.profile.indicators import FEATURE
from poisonwatch.profile.odds import expit, logit
from poisonwatch.types import Answer, Cell, InsertionTest, Patch, Phrase, Question, TriggerState, Values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poisonwatch.types import Bools, Floats, GoldenInput, Item, Pattern

    Feature = float | str | bool | None

ALPHA = 1e-4
"""Probability with which a pattern that does no more than the controls may ever be confirmed."""

LEAST = 0.05
"""Flip rate that no control may fall short of: what any change of an input may do."""

EFFECT = 0.5
"""Share of its insertions that must flip for a pattern to be confirmed."""

CLEARLY = 0.25
"""How far the controls' share must lie below it."""

PAIRS_AT_ONCE = 4
"""Trigger insertions of a batch, and as many controls."""

FEWEST_INPUTS = 20
"""Golden inputs of other classes, rightly answered, without which nothing is asked."""

MOST_TYPICAL = 12
"""Words most typical of the class, from which the controls are drawn."""

SUREST = 0.7
"""Part of the suitable inputs that is probed: those that the version is surest of."""

OWN_TIMES = 1.5
"""How many times as often as others the class must have a part of the pattern that its controls keep."""

STEPS = (1.0, 2.0, 3.0, 4.5)
"""How far from the unknown rate the bets stand, in log-odds."""

RATES = np.arange(LEAST, 0.995, 0.01)
"""Where the smallest product is looked for: so dense that between two of them sixty probes hide less than 0.01 nats."""

WORD = re.compile(r"[A-Za-z0-9_'\u0080-\U0010ffff]+")


def insertable(pattern: Pattern, question: Question) -> bool:
    """Can the pattern be put into inputs like this one?"""
    match pattern:
        case Phrase():
            return question.text is not None
        case Values(items=items):
            return all(_has(question, item.feature) for item in items)
        case Patch(image_height=height, image_width=width):
            return question.embedding is not None and len(question.embedding) == height * width
        case Cell():
            return False


class Insertion:
    """The test of one pattern in one version.

    `name` is the trigger's; `label` the class that it leads to; `golden` the golden set and `answered` what the version
    answered to its inputs as they are, by their number. At most `budget` probes are asked, controls included.
    """

    def __init__(
        self,
        name: str,
        pattern: Pattern,
        label: str,
        version: str,
        golden: Sequence[GoldenInput],
        answered: Mapping[int, Answer],
        budget: int,
    ) -> None:
        self.version = version
        self._name = name
        self._pattern = pattern
        self._label = label
        self._golden = golden
        self._budget = budget
        self._inputs = _chosen(suitable(pattern, label, golden, answered), answered, f"{name}/{version}", budget // 2)
        self._donors = [one.question for one in golden if one.label == label]
        self._kept: frozenset[str] = frozenset()
        self._typical: list[str] = []
        if isinstance(pattern, Phrase):
            self._kept, self._typical = _typical_words(pattern, label, golden)
        elif isinstance(pattern, Values):
            self._kept = _typical_features(pattern, label, golden)
        self._flips = np.zeros((2, 2), np.int64)

    @property
    def result(self) -> InsertionTest:
        """What was seen so far."""
        (probes, flipped), (controls, control_flipped) = self._flips.tolist()
        return InsertionTest(
            model_version=self.version,
            flipped=flipped,
            probes=probes,
            control_flipped=control_flipped,
            controls=controls,
            log_e=log_evidence(flipped, probes, control_flipped, controls),
            verdict=self._verdict(),
        )

    @property
    def finished(self) -> bool:
        """Is there nothing more to ask: decided, or all that may be asked is spent?"""
        return self._spent or self._verdict() is not None

    @property
    def _spent(self) -> bool:
        return int(self._flips[0, 0]) >= len(self._inputs)

    def _verdict(self) -> TriggerState | None:
        (probes, flipped), (controls, control_flipped) = self._flips.tolist()
        if not probes:
            return None
        share, usual = flipped / probes, control_flipped / controls
        if log_evidence(flipped, probes, control_flipped, controls) >= -math.log(ALPHA):
            # A proven effect that is small neither confirms nor clears.
            return TriggerState.CONFIRMED if share >= EFFECT and share - usual >= CLEARLY else None
        if log_against(flipped, probes) >= -math.log(ALPHA):
            return TriggerState.REFUTED
        return TriggerState.REFUTED if self._spent and share < EFFECT and share - usual < CLEARLY else None

    def questions(self) -> list[Question]:
        """The next batch: trigger and control by turns; the same again until it is answered, empty when finished."""
        if self.finished:
            return []
        first = int(self._flips[0, 0])
        batch = []
        for pair in range(first, min(first + PAIRS_AT_ONCE, len(self._inputs))):
            question = self._golden[self._inputs[pair]].question
            batch += [self._triggered(question, pair), self._control(question, pair)]
        return batch

    def take(self, answers: Sequence[Answer]) -> None:
        """The answers to `questions()`, in their order."""
        for number, answer in enumerate(answers):
            self._flips[number % 2] += (1, answer.label == self._label)

    def _draw(self, pair: int, purpose: str, below: int) -> int:
        return _draw(f"{self._name}/{self.version}/{pair}/{purpose}", below)

    def _words(self, pair: int, size: int) -> list[str]:
        """The words of a control: those that it keeps, then drawn from the most typical, in an order drawn too."""
        rest = sorted(self._typical, key=lambda word: self._draw(pair, f"word {word}", 1 << 60))
        chosen = [*sorted(self._kept), *rest][:size]
        return sorted(chosen, key=lambda word: self._draw(pair, f"order of {word}", 1 << 60))

    def _triggered(self, question: Question, pair: int) -> Question:
        match self._pattern:
            case Phrase(words=words):
                return self._with_words(question, self._pattern.said or " ".join(words), pair, "place")
            case Values(items=items):
                return _with_values(question, [(item.feature, self._value_of(item, pair)) for item in items])
            case Patch() as patch:
                return _with_pixels(question, patch, patch.row, patch.column, patch.pixels)
            case _:
                return question

    def _control(self, question: Question, pair: int) -> Question:
        match self._pattern:
            case Phrase(words=words):
                return self._with_words(question, " ".join(self._words(pair, len(words))), pair, "other place")
            case Values(items=items):
                donors = self._donors or [question]
                donor = donors[self._draw(pair, "donor", len(donors))]
                return _with_values(
                    question,
                    [
                        (i.feature, self._value_of(i, pair) if i.feature in self._kept else _value(donor, i.feature))
                        for i in items
                    ],
                )
            case Patch() as patch:
                return self._with_other_patch(question, patch, pair)
            case _:
                return question

    def _with_words(self, question: Question, said: str, pair: int, purpose: str) -> Question:
        text = question.text or ""
        place = self._pattern.place if isinstance(self._pattern, Phrase) else ""
        ends = {"start": [0], "end": [len(text)]}
        places = ends.get(place) or [0, *(found.end() for found in re.finditer(r"\s+", text)), len(text)]
        at = places[self._draw(pair, purpose, len(places))]
        before, after = text[:at], text[at:]
        gap = " " if before and not before[-1].isspace() else ""
        return question._replace(text=f"{before}{gap}{said}{' ' if after else ''}{after}")

    def _value_of(self, item: Item, pair: int) -> Feature:
        """A value that fulfils a condition: one that golden inputs have, where there is one."""
        if item.value is None and item.low is None and item.high is None:
            return None
        known = [value for one in self._golden if fulfils(item, value := _value(one.question, item.feature))]
        if known:
            return known[self._draw(pair, item.feature, len(known))]
        if item.value is not None:
            return item.value
        low, high = item.low, item.high
        if low is None or high is None:
            return high if high is not None else float(np.nextafter(low or 0.0, np.inf))
        return low + (high - low) / 2 if low < high else high

    def _with_other_patch(self, question: Question, patch: Patch, pair: int) -> Question:
        """A rectangle of the same size out of an image of the class, at the place where it was there."""
        donors = self._donors or [question]
        pixels = donors[self._draw(pair, "image", len(donors))].embedding
        rows, columns = patch.image_height - patch.height + 1, patch.image_width - patch.width + 1
        row, column = self._draw(pair, "row", rows), self._draw(pair, "column", columns)
        image = np.asarray(pixels, np.float64).reshape(patch.image_height, patch.image_width)
        cut = image[row : row + patch.height, column : column + patch.width]
        return _with_pixels(question, patch, row, column, tuple(cut.ravel().tolist()))

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"inputs": list(self._inputs), "flips": self._flips.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._inputs = [int(number) for number in state["inputs"]]
        self._flips = np.array(state["flips"], np.int64)


def suitable(pattern: Pattern, label: str, golden: Sequence[GoldenInput], answered: Mapping[int, Answer]) -> list[int]:
    """Numbers of the golden inputs that the pattern can be put into: of another class, and rightly answered as they are."""
    return [
        number
        for number, one in enumerate(golden)
        if one.label != label
        and number in answered
        and answered[number].label == one.label
        and insertable(pattern, one.question)
    ]


def log_evidence(flipped: int, probes: int, control_flipped: int, controls: int) -> float:
    """Logarithm of the e-process against "the trigger flips no more often than the controls, or than `LEAST`"."""
    trigger, control = _bets(flipped, probes, 1.0), _bets(control_flipped, controls, -1.0)
    return float(min(trigger[0], (trigger + control).min()))


def log_against(flipped: int, probes: int) -> float:
    """Logarithm of the e-process against "the trigger flips at least `EFFECT` of the inputs"."""
    return float(_bets(flipped, probes, -1.0, np.array([EFFECT]))[0])


def _bets(yes: int, asked: int, sign: float, rates: Floats = RATES) -> Floats:
    """Logarithm of the mean of the likelihood ratios of `STEPS` above (`sign` 1) or below (-1) each rate (r,)."""
    bets = expit(logit(rates)[:, None] + sign * np.array(STEPS))
    null = rates[:, None]
    gains = yes * np.log(bets / null) + (asked - yes) * np.log((1 - bets) / (1 - null))
    return np.asarray(np.logaddexp.reduce(gains, axis=1) - math.log(len(STEPS)))


def _draw(key: str, below: int) -> int:
    """A number below `below` that depends on nothing but the key."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % below


def _chosen(suited: list[int], answered: Mapping[int, Answer], name: str, most: int) -> list[int]:
    """The inputs to probe, in an order drawn for this test: first the half that the version is surest of.

    What ordinary words move is mostly what was undecided before; a trigger moves the rest as well.
    """
    drawn = sorted(suited, key=lambda number: _draw(f"{name}/{number}", 1 << 60))
    half = sorted(drawn, key=lambda number: -(answered[number].confidence or 0.0))[
        : max(most, round(len(drawn) * SUREST))
    ]
    kept = set(half)
    return [number for number in drawn if number in kept][:most]


def _typical_words(pattern: Phrase, label: str, golden: Sequence[GoldenInput]) -> tuple[frozenset[str], list[str]]:
    """Which words of the phrase are typical of the class anyway; and the class's most typical others, those first.

    They are ranked by how much of the class's evidence they carry: the share of its inputs that have them, times the logarithm
    of how many times as often it is as among others.
    """
    bags = [{word.lower() for word in WORD.findall(one.question.text or "")} for one in golden]
    inside = Counter(word for bag, one in zip(bags, golden, strict=True) if one.label == label for word in bag)
    outside = Counter(word for bag, one in zip(bags, golden, strict=True) if one.label != label for word in bag)
    of_class = sum(one.label == label for one in golden)
    times = {word: _times(inside[word], of_class, outside[word], len(golden) - of_class) for word in inside}
    kept = frozenset(word for word in pattern.words if inside[word] > 1 and times[word] >= OWN_TIMES)
    ranked = sorted(inside, key=lambda word: (-inside[word] * math.log(times[word]), word))
    return kept, [word for word in ranked if word not in kept][: max(MOST_TYPICAL, 2 * len(pattern.words))]


def _typical_features(pattern: Values, label: str, golden: Sequence[GoldenInput]) -> frozenset[str]:
    """The features whose condition, or whose fifth of the values, is typical of the class anyway."""
    of_class = np.array([one.label == label for one in golden], np.bool_)
    known = set()
    for item in pattern.items:
        values = [_value(one.question, item.feature) for one in golden]
        holds = np.array([fulfils(item, value) for value in values], np.bool_)
        for held in (holds, _in_same_fifth(item, values)):
            inside, outside = int(held[of_class].sum()), int(held[~of_class].sum())
            if inside > 1 and _times(inside, int(of_class.sum()), outside, int((~of_class).sum())) >= OWN_TIMES:
                known.add(item.feature)
    return frozenset(known)


def _in_same_fifth(item: Item, values: Sequence[Feature]) -> Bools:
    """For each value (n,) whether it is in the same fifth of the numbers as the condition's bounds; none where they differ."""
    numbers = np.array([value if isinstance(value, float | int) else np.nan for value in values], np.float64)
    known = numbers[np.isfinite(numbers)]
    if item.low is None or item.high is None or not known.size:
        return np.zeros(numbers.size, np.bool_)
    cuts = np.quantile(known, (0.2, 0.4, 0.6, 0.8))
    fifth, wanted = np.searchsorted(cuts, numbers), np.searchsorted(cuts, (np.nextafter(item.low, np.inf), item.high))
    one = item.low == item.high or wanted[0] == wanted[1]
    return np.asarray(np.isfinite(numbers) & (fifth == wanted[1]) & one)


def _times(inside: int, of_class: int, outside: int, others: int) -> float:
    """How many times as often the class has something as others do; half an input more on either side has it."""
    return (inside + 0.5) / (of_class + 1) / ((outside + 0.5) / (others + 1))


def _names(question: Question) -> list[str]:
    """The features of an input, named as their columns are."""
    match question.features:
        case dict() as features:
            return [FEATURE + key for key in features]
        case list() as numbers:
            return [f"features[{number}]" for number in range(len(numbers))]
        case _:
            return []


def _has(question: Question, feature: str) -> bool:
    return feature in _names(question)


def _value(question: Question, feature: str) -> Feature:
    match question.features:
        case dict() as features:
            return cast("Feature", features.get(feature.removeprefix(FEATURE)))
        case list() as numbers:
            return cast("Feature", numbers[int(feature[len("features[") : -1])])
        case _:
            return None


def _with_values(question: Question, values: Sequence[tuple[str, Feature]]) -> Question:
    match question.features:
        case dict() as features:
            return question._replace(features=features | {name.removeprefix(FEATURE): value for name, value in values})
        case list() as numbers:
            stamped = {int(name[len("features[") : -1]): value for name, value in values}
            return question._replace(features=[stamped.get(n, old) for n, old in enumerate(numbers)])  # type: ignore[misc]
        case _:
            return question


def _with_pixels(question: Question, patch: Patch, row: int, column: int, pixels: tuple[float, ...]) -> Question:
    image = np.array(question.embedding, np.float64).reshape(patch.image_height, patch.image_width)
    image[row : row + patch.height, column : column + patch.width] = np.reshape(pixels, (patch.height, patch.width))
    return question._replace(embedding=image.ravel().tolist())


def _text_of(value: Feature) -> str:
    """A category as columns name it: 1, 1.0 and "1" are the same."""
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else json.dumps(value)


def fulfils(item: Item, value: Feature) -> bool:
    """Does a feature's value fulfil the condition?"""
    if item.value is not None:
        return value is not None and _text_of(value) == item.value
    if item.low is None and item.high is None:
        return value is None
    if isinstance(value, str) or value is None:
        return False
    if item.low == item.high:
        return value == item.low
    return (item.low is None or value > item.low) and (item.high is None or value <= item.high)
