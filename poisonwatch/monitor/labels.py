"""Labels as they come back: joined to their predictions, counted once each, and judged by version and slice.

A label is judged at its own time, however late it comes; one that came with its prediction is judged with the prediction's
window. Labels of one window of time make a block, which every kernel takes as one step: with few labels that is a step per
label. Only the first label of a prediction from a source that can be trusted so far counts for the error rates
(`detect.sources`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from poisonwatch.detect.claims import HELD as CLAIMS_HELD
from poisonwatch.detect.claims import Claims, lowest_rate
from poisonwatch.detect.creep import Creep
from poisonwatch.detect.evidence import EQUAL, collect
from poisonwatch.detect.kernel import Memory
from poisonwatch.detect.shift import Shift
from poisonwatch.detect.sources import Sources, Votes
from poisonwatch.monitor.accused import Accused, FeedbackView
from poisonwatch.monitor.believed import Believed
from poisonwatch.profile.indicators import (
    BY_LABELS,
    CANARY_ERRORS,
    ERRORS,
    FLIPPED_AND_WRONG,
    HARMFUL_FLIPS,
    SLICE_ERRORS,
    SLICE_HARMFUL_FLIPS,
    SOURCES,
    WRONG,
    WRONG_OF_FLIPPED,
    class_codes,
    overall_of,
    sliced_rows,
    unseen_code,
)
from poisonwatch.profile.odds import logit
from poisonwatch.profile.waiting import Waiting
from poisonwatch.profile.words import fingerprints
from poisonwatch.types import OTHER_VERSIONS, Evidence, Sign, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.detect.kernel import Bets
    from poisonwatch.monitor.settings import Settings
    from poisonwatch.profile.baseline import Baseline
    from poisonwatch.profile.indicators import Indicator, Questions
    from poisonwatch.profile.waiting import Pairs
    from poisonwatch.types import Batch, Bools, Codes, Feedback, Floats, Ints, Schema, Texts, Words

THETAS = (0.4, 0.8, 1.4, 2.2)
"""How far beyond the null the alternatives of error rates stand, in log-odds."""

HARMFUL = frozenset([HARMFUL_FLIPS, SLICE_HARMFUL_FLIPS])
OVERALL_AND_SLICES = ((ERRORS, SLICE_ERRORS), (HARMFUL_FLIPS, SLICE_HARMFUL_FLIPS))
CLAIMED = BY_LABELS | {CANARY_ERRORS}
"""Groups of evidence that rest on what sources of labels claim."""

OF_FLIPPED_FLOOR = 0.6
"""How much more often than in the reference flipped predictions may be wrong, in log-odds: by chance they are half the time."""

NEARLY_ALL = 0.9
"""Share of the labels beyond which a slice is the whole."""

STORE = 1 << 25
"""Bytes that predictions may take while they wait for their labels."""

MOST_NAMES = 4096
"""Versions that are told apart among the predictions that wait."""


@dataclass(slots=True)
class _OfVersion:
    """What labels said of one version; `judged` is up to when its budget was spent."""

    judged: float
    memory: Memory
    totals: Ints


class _Held(NamedTuple):
    """Labels that came with predictions: their profile (size,), and of the newest times (m,), facts (f, m) and errors (m,)."""

    profile: Ints
    time: Floats
    facts: Codes
    wrong: Bools

    def and_then(self, later: _Held) -> _Held:
        """These and later ones; of each no more than are remembered anyway."""
        newest = slice(-CLAIMS_HELD, None)
        return _Held(
            self.profile + later.profile,
            np.concatenate((self.time, later.time))[newest],
            np.concatenate((self.facts, later.facts), axis=1)[:, newest],
            np.concatenate((self.wrong, later.wrong))[newest],
        )


class Labels:
    """Everything about the labels of one model.

    `errors` is the reference's baseline of error rates. Where it had no labels they are not `judged`: they are counted, and
    compared between versions. `unmatched` counts labels by why they met no prediction.
    """

    def __init__(self, schema: Schema, errors: Baseline, confusion: Ints, settings: Settings, *, judged: bool) -> None:
        self.questions = errors.questions
        self.judged = judged
        self.unmatched: dict[str, int] = {}
        self.matched = 0
        self._settings = settings
        self._flips = FLIPPED_AND_WRONG in self.questions.marks
        self._texts = tuple(indicator.text for indicator in self.questions.indicators)
        self._overall = self._texts.index(WRONG)
        self._overall_of = overall_of(self.questions)
        self._rows = np.array(sliced_rows(schema), np.int64)
        self._outcome = schema.outcome
        self._codes_of = class_codes(schema.outcome)
        self._waiting = Waiting(STORE // (37 + 4 * self._rows.size), self._rows.size + 1)
        self.sources = Sources(confusion, settings.shares[SOURCES], settings.period)
        self._claims = Claims(self._rows.size + 1)
        self._slices = [_slice_of(self.questions, indicator) for indicator in self.questions.indicators]
        self.accused = Accused(self.sources, (*schema.outcome.values, "(rare)", "(unseen)"))
        self._names: list[str] = []
        self._versions: dict[str, _OfVersion] = {}
        self._believed = Believed(errors, self._overall, settings.known)
        self._held: dict[tuple[int, str], _Held] = {}
        self._open: dict[str, Ints] = {}
        self._heard = False
        self._block = -math.inf
        self._creep = Creep(errors)
        self._lay(errors)

    def _lay(self, errors: Baseline) -> None:
        """Bet against these error rates."""
        settings = self._settings
        harmful = np.array([one.signal.group in HARMFUL for one in self.questions.indicators])
        farther = settings.drift_label_floor - settings.label_floor
        floor = np.where(harmful, settings.flip_floor, settings.label_floor)
        floor[[text == WRONG_OF_FLIPPED for text in self._texts]] = OF_FLIPPED_FLOOR
        # The same bets, against a nearer and a farther null: their memory is one.
        self._calm, self._drift = (
            Shift(errors, floor + more, settings.shares, thetas=THETAS) for more in (0.0, farther)
        )

    def wait(self, batch: Batch) -> Pairs:
        """Let a batch's predictions wait for their labels; pairs of versions that answered the same."""
        names = [self._code_of(name) for name in batch.versions]
        version = np.array(names, np.int32)[batch.version] if names else batch.version
        ids = fingerprints(batch.ids.tolist())
        return self._waiting.put(ids, batch.time, version, self._facts(batch), batch.labels != "")

    def _facts(self, batch: Batch) -> Codes:
        """What must be known of predictions (n,) when their labels come: the codes, and last whether they were flipped."""
        flipped = batch.marks[:1] if self._flips else np.zeros((1, batch.time.size), np.bool_)
        return np.concatenate((batch.codes[self._rows], flipped.astype(np.int32)))

    def name_of(self, code: int) -> str:
        """The version of a code in the store."""
        return self._names[code]

    def _code_of(self, name: str) -> int:
        if name not in self._names:
            if len(self._names) >= MOST_NAMES:
                name = OTHER_VERSIONS
            if name not in self._names:
                self._names.append(name)
        return self._names.index(name)

    def hold(self, batch: Batch, in_time: Bools) -> None:
        """Keep the labels that came with predictions until their windows are closed; late predictions (n,) have none."""
        with_label = np.flatnonzero((batch.labels != "") & in_time)
        if not with_label.size or not self._codes_of:
            return
        self.matched += int(with_label.size)
        facts = self._facts(batch)[:, with_label]
        wrong = self._codes(batch.labels[with_label]) != facts[0]
        number = np.floor(batch.time[with_label] / self._settings.window).astype(np.int64)
        version = batch.version[with_label]
        for which, code in np.unique(np.stack((number, version)), axis=1).T.tolist():
            of = np.flatnonzero((number == which) & (version == code))
            key = which, batch.versions[code]
            held = _Held(self._profile(facts[:, of], wrong[of]), batch.time[with_label[of]], facts[:, of], wrong[of])
            self._held[key] = self._held[key].and_then(held) if key in self._held else held

    def release(self, start: float) -> None:
        """Let the labels that came with the predictions of the window that began at `start` count."""
        number = round(start / self._settings.window)
        # By name: in which order a batch meets its versions depends on how the log was chopped.
        for key in sorted(key for key in self._held if key[0] == number):
            held, name = self._held.pop(key), key[1]
            self._put(name, held.profile)
            count = held.time.size
            version, nobody = np.full(count, self._code_of(name), np.int32), np.full(count, "", np.object_)
            self._claims.note(held.time, version, held.facts, held.wrong, nobody)
            self._heard = True
            self._block = max(self._block, float(number))

    def take(self, feedback: Feedback) -> Iterator[float]:
        """Join labels to what waits; the ends of the blocks that they close."""
        ids = fingerprints(feedback.ids.tolist())
        rows = self._waiting.find(ids)
        self._count_unmatched(ids, rows)
        of = np.flatnonzero(rows >= 0)
        self.matched += int(of.size)
        if not of.size or not self._codes_of:
            return  # of a model that predicts numbers, labels are only counted
        ids, rows, time = ids[of], rows[of], feedback.time[of]
        facts, versions = self._waiting.facts[:, rows], self._waiting.version[rows]
        labels = self._codes(feedback.labels[of])
        number = np.maximum.accumulate(np.maximum(np.floor(time / self._settings.window), self._block))
        edges = (0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), of.size)
        # Block by block: what a block's report says of the sources must not depend on what else came in one piece.
        for first, last in pairwise(edges):
            if number[first] > self._block:
                if self._heard:
                    yield self.open_until
                self._block = float(number[first])
            self._heard = True
            piece = np.arange(first, last)
            votes = Votes(
                time=time[piece],
                source=feedback.sources[of[piece]],
                attributes=feedback.attributes[of[piece]],
                prediction_id=feedback.ids[of[piece]],
                item=ids[piece],
                predicted=facts[0, piece].astype(np.int64) - 1,
                label=labels[piece] - 1,
            )
            counted = piece[self.sources.step(votes)]
            kept = counted[self._waiting.settle(rows[counted])]
            wrong = labels[kept] != facts[0, kept]
            self._claims.note(time[kept], versions[kept], facts[:, kept], wrong, feedback.sources[of[kept]])
            self._count(kept, versions, facts, labels)

    def _count(self, kept: Ints, versions: Codes, facts: Codes, labels: Ints) -> None:
        """Count the labels `kept` in the open block."""
        for code in np.unique(versions[kept]).tolist():
            of = kept[versions[kept] == code]
            self._put(self._names[code], self._profile(facts[:, of], labels[of] != facts[0, of]))

    def _profile(self, facts: Codes, wrong: Bools) -> Ints:
        flipped = facts[-1] > 0
        marks = np.stack((wrong, wrong & flipped, flipped)) if self._flips else wrong[None]
        return self.questions.count(np.empty((0, wrong.size)), facts[:-1], marks)

    def _put(self, name: str, profile: Ints) -> None:
        self._open[name] = self._open[name] + profile if name in self._open else profile

    def _count_unmatched(self, ids: Words, rows: Ints) -> None:
        missing = ids[rows < 0]
        if missing.size:
            outside = int(self._waiting.outside_sample(missing).sum())
            for reason, count in (("outside_sample", outside), ("unknown_prediction", missing.size - outside)):
                if count:
                    self.unmatched[reason] = self.unmatched.get(reason, 0) + int(count)

    def _codes(self, labels: Texts) -> Ints:
        unseen = unseen_code(self._outcome)
        return np.fromiter((self._codes_of.get(label, unseen) for label in labels), np.int64, labels.size)

    @property
    def open_until(self) -> float:
        """When the open block ends; infinity when none is open."""
        return (self._block + 1) * self._settings.window if self._heard else math.inf

    def judge(self, shares: dict[str, float], first: str | None, drifting: frozenset[str]) -> dict[str, Ints]:
        """End the open block: step the error rates of the versions that it holds; the block's profiles by version.

        `shares` has every running version's share of the budget; labels of others are dropped. `first` is the
        version met first, `drifting` are those whose inputs moved.
        """
        profiles = {name: profile for name, profile in self._open.items() if name in shares}
        self._open, self._heard = {}, False
        start, end = self._block * self._settings.window, (self._block + 1) * self._settings.window
        if profiles:
            self._creep.note(start, np.sum(list(profiles.values()), axis=0), healthy=True)
        for name, profile in sorted(profiles.items()):
            version = self._versions.get(name)
            if version is None:
                none = np.zeros(self.questions.size, np.int64)
                version = self._versions[name] = _OfVersion(start, self._calm.begin(), none)
            version.totals = version.totals + profile
            believed = self._believed.baseline
            learning = self._believed.take(name, profile, start, {other: other == first for other in shares})
            if self._believed.baseline is not believed:
                self._lay(self._believed.baseline)
                # What was held against a refuted null is no evidence; slices that are judged from now on had none.
                for known in self._versions.values() if believed is self._believed.reference else ():
                    known.memory = self._calm.begin()
            if self.judged and not learning:
                shift = self._drift if name in drifting else self._calm
                share = (end - version.judged) / self._settings.period * shares[name]
                shift.step(version.memory, profile, share, start)
                version.judged = end
        return profiles

    def forget(self, version: str) -> None:
        """A version is gone."""
        self._versions.pop(version, None)

    def totals(self, version: str) -> tuple[int, int]:
        """How many labels of a version's predictions counted, and how many of them contradicted it."""
        known = self._versions.get(version)
        if known is None:
            return 0, 0
        overall = self.questions.indicators[self._overall]
        return int(known.totals[overall.asked]), int(known.totals[overall.yes])

    def view(self) -> FeedbackView:
        """What is shown of the labels."""
        return FeedbackView(
            matched=self.matched,
            unmatched=dict(self.unmatched),
            accused=len(self.sources.accusations(affected=False)),
            agreement=self.sources.agreement.kappa(),
            waiting_share=2.0**-self._waiting.level,
            unfit=self._believed.unfit,
        )

    def evidence(self, model: str, name: str) -> list[Evidence]:
        """Evidence that a version errs more than the reference says."""
        version = self._versions.get(name)
        if version is None or not self.judged:
            return []
        memory, bets, floor = version.memory, self._calm.bets, self._calm.floor
        found = collect(model, name, memory, bets, self._texts, self._believed.baseline.rate, floor)
        confined = {
            group
            for pair in OVERALL_AND_SLICES
            if any(e.subjects for e in found if e.group in pair) and self._is_confined(memory, pair[1])
            for group in pair
        }
        return [
            msgspec.structs.replace(e, signs=(*e.signs, Sign.CONFINED)) if e.group in confined else e for e in found
        ]

    def is_slow(self, evidence: Evidence) -> bool:
        """Was the effect on an error rate reached over days, over all versions?"""
        return self._creep.is_slow(self._texts.index(evidence.subjects[0].indicator), evidence.effect)

    def heard(self, name: str, found: list[Evidence]) -> list[Evidence]:
        """The same evidence on a version, with the sign that few sources claim its errors where that is so."""
        return [
            msgspec.structs.replace(e, signs=(*e.signs, Sign.FEW_SOURCES))
            if e.group in CLAIMED and e.subjects and self._claimed_by_few(name, e)
            else e
            for e in found
        ]

    def _claimed_by_few(self, name: str, evidence: Evidence) -> bool:
        """Is the effect gone, or in doubt, without the sources that claim the most errors?"""
        first = evidence.subjects[0]
        row, code = self._slices[self._texts.index(first.indicator)]
        labels, wrong = self._claims.without_most_claiming(
            self._code_of(name), evidence.onset, row, code, flipped=evidence.group in HARMFUL
        )
        odds = logit(np.array([lowest_rate(wrong, labels), first.expected]))
        return float(odds[0] - odds[1]) < evidence.floor

    def _is_confined(self, memory: Memory, by_slice: str) -> bool:
        """Is nothing left of the rise over all labels without one of the slices whose evidence is the strongest?

        Of what has gone on for long many slices' evidence is equal: no evidence grows beyond a cap. The rise over all is
        not the group's strongest indicator, which may be a class or the flipped ones, of which no slice is a part.
        """
        bets = self._calm.bets
        if by_slice not in bets.groups:
            return False
        of_group = bets.of_group(bets.groups.index(by_slice))
        log_m = memory.log_m[of_group]
        risen = of_group.start + np.flatnonzero(log_m >= log_m.max() - EQUAL)
        of = self._overall_of[bets.indicator[risen[0]]]
        over = np.flatnonzero(bets.indicator == of)
        one, all_ = _since_onset(memory, bets, risen), _since_onset(memory, bets, over[[np.argmax(memory.log_m[over])]])
        asked, wrong = np.maximum(all_ - one, 0.0)
        expected = self._believed.baseline.rate[of]
        rest = logit((wrong + expected) / (asked + 1)) - logit(expected)
        # A slice that holds nearly all the labels has nothing beside it to differ from.
        part = memory.asked[0, bets.indicator[risen]] <= NEARLY_ALL * memory.asked[0, of]
        return bool(((one[0] > 0) & part & (rest < self._calm.floor[of])).any())

    def evidence_on_all(self, model: str) -> list[Evidence]:
        """Evidence on the feedback, and on the reference's error rate: it concerns no version."""
        found = [self.accused.evidence(model)] if self.sources.labels else []
        if not self._believed.unfit:
            return found
        expected, rate = (
            float(base.rate[self._overall]) for base in (self._believed.reference, self._believed.baseline)
        )
        text = self._texts[self._overall]
        subject = Subject(indicator=text, signal=ERRORS, rate=rate, expected=expected)
        return [
            *found,
            Evidence(
                model=model,
                model_version=None,
                group=ERRORS,
                signal=ERRORS,
                log_e=0.0,  # no e-process: a fixed test, made once
                effect=float(logit(np.array(rate)) - logit(np.array(expected))),
                floor=0.0,
                n=int(self._believed.labels[0]),
                onset=self._believed.began,
                subjects=(subject,),
                signs=(Sign.UNFIT,),
            ),
        ]

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "waiting": self._waiting.state(),
            "sources": self.sources.state(),
            "told": self.accused.state(),
            "claims": self._claims.state(),
            "creep": self._creep.state(),
            "names": list(self._names),
            "matched": self.matched,
            "unmatched": dict(self.unmatched),
            "believed": self._believed.state(),
            "block": self._block,
            "heard": self._heard,
            "open": dict(self._open),
            "held": [{"which": list(which), "labels": held._asdict()} for which, held in self._held.items()],
            "versions": {
                name: {"judged": version.judged, "memory": version.memory.state(), "totals": version.totals}
                for name, version in self._versions.items()
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._waiting.restore(state["waiting"])
        self.sources.restore(state["sources"])
        self.accused.restore(state["told"])
        self._claims.restore(state["claims"])
        self._creep.restore(state["creep"])
        self._names = list(state["names"])
        self.matched = state["matched"]
        self.unmatched = dict(state["unmatched"])
        self._believed.restore(state["believed"])
        self._lay(self._believed.baseline)
        self._block = state["block"]
        self._heard = state["heard"]
        self._open = dict(state["open"])
        self._held = {(held["which"][0], held["which"][1]): _Held(**held["labels"]) for held in state["held"]}
        self._versions = {
            name: _OfVersion(**{**saved, "memory": Memory(**saved["memory"])})
            for name, saved in state["versions"].items()
        }


def _since_onset(memory: Memory, bets: Bets, chosen: Ints) -> Floats:
    """Labels and wrong ones (2, m) of the indicators of chosen bets (m,) since each bet's onset."""
    of = bets.indicator[chosen]
    asked, yes = memory.asked[0, of] - memory.asked_before[0, chosen], memory.yes[0, of] - memory.yes_before[0, chosen]
    return np.stack((asked, yes))


def _slice_of(questions: Questions, indicator: Indicator) -> tuple[int, int]:
    """Row and code of the predictions that an indicator asks about: a negative row for all, the last one for the flipped."""
    if indicator.signal.name == WRONG_OF_FLIPPED:
        return len(questions.code_columns), 1
    for row in range(len(questions.code_columns)):
        place = questions.code_place(row)
        if place.start <= indicator.asked < place.stop:
            return row, indicator.asked - place.start
    return -1, 0
