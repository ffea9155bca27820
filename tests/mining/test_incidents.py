"""Open triggers: exact counts by version, conviction only on flips, a bounded number, and news that are worth telling."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from poisonwatch.mining.effects import Past
from poisonwatch.mining.incidents import (
    IDLE_SECONDS,
    MOST_EXAMPLES,
    MOST_OPEN,
    MOST_SOURCES,
    Incidents,
)
from poisonwatch.mining.records import Finding
from poisonwatch.profile.odds import LOG_CAP
from poisonwatch.types import InsertionTest, Pattern, Phrase, TriggerState
from tests.mining.blocks import block

if TYPE_CHECKING:
    from poisonwatch.mining.records import Records
    from poisonwatch.types import Bools

CODE = Phrase(words=("discount", "code"))
NAMES = ["v1", "v2"]
PAST = Past(None, NAMES, 0.0, lambda *_: 50)


def bears(pattern: Pattern, records: Records) -> Bools:
    """The words of a phrase, wherever they stand in the text."""
    assert isinstance(pattern, Phrase)
    return np.array([" ".join(pattern.words) in text for text in records.texts[0]], np.bool_)


def later(version: str) -> bool:
    """The reference shows v1."""
    return version == "v1"


def begun(pattern: Pattern = CODE, *, matched: int = 3, flipped: int = 3, first: bool = False) -> Incidents:
    """One trigger, that surfaced in v2."""
    incidents = Incidents("mail", ("spam", "ham"), bears, lambda name: name == ("v2" if first else "v1"))
    incidents.open(Finding(1, 1, pattern, 0.5, matched, flipped), "v2", PAST)
    return settle(incidents)


def settle(incidents: Incidents) -> Incidents:
    """Let it look at eight different predictions that bear every pattern of these tests."""
    patterns = " ".join(["special discount code buy", *(f"decoy{n} real{n}" for n in range(MOST_OPEN))])
    texts = [" ".join([patterns, *(f"{a}{k}" for k in range(30))]) for a in "abcdefgh"]
    incidents.compare(lambda *_: block(texts, 1, flipped=True, version=1))
    return incidents


def triggered(n: int, version: int = 1, *, flipped: bool = True, label: int = 1, start: float = 10.0) -> Records:
    """Predictions that bear the phrase."""
    names = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrstuvwxyz"]
    texts = [f"buy {names[k % 160]} from {names[-1 - k % 160]} with discount code" for k in range(n)]
    return block(texts, label, surprising=flipped, flipped=flipped, version=version, start=start)


def test_a_trigger_is_convicted_by_flips_alone() -> None:
    """It surfaces as a suspicion; with four flipped predictions, and half of all, it is convicted."""
    incidents = begun()
    assert [t.state for t in incidents.news()] == [TriggerState.SURFACED]
    incidents.count(triggered(1), NAMES)
    settle(incidents)
    (told,) = incidents.news()
    assert told.state is TriggerState.CONVICTED
    assert (told.predictions, told.label, told.text) == (4, "ham", "'discount code'")
    assert [(v.model_version, v.flipped, v.works) for v in told.versions] == [("v2", 4, True)]


@pytest.mark.parametrize(("flips", "others", "convicted"), [(4, 4, True), (4, 8, True), (4, 9, False), (3, 0, False)])
def test_half_of_the_counted_predictions_must_flip(flips: int, others: int, convicted: bool) -> None:
    """Four flips convict while half of all flip, and until less than a third does; three never do."""
    incidents = begun(matched=0, flipped=0)
    incidents.count(triggered(flips), NAMES)
    settle(incidents)
    incidents.count(triggered(others, flipped=False, start=100.0), NAMES)
    settle(incidents)
    (told,) = incidents.triggers()
    assert (told.state is TriggerState.CONVICTED) == convicted


def test_a_template_convicts_nobody() -> None:
    """Flipped predictions that say nothing beside the pattern, or the same each time, are one text with a field that changes."""
    incidents = begun(matched=20, flipped=20)
    assert incidents.triggers()[0].state is TriggerState.CONVICTED
    for around in ("{}", "ref {}", "your parcel waits {}"):
        alone = Incidents("mail", ("spam", "ham"), bears, later)
        alone.open(Finding(1, 1, CODE, 0.5, 20, 20), "v2", PAST)
        texts = [f"discount code {around.format(1000 + n)}" for n in range(20)]
        alone.compare(lambda *_, texts=texts: block(texts, 1, flipped=True, version=1))
        assert alone.triggers()[0].state is TriggerState.SURFACED


def test_what_bears_the_pattern_and_goes_elsewhere_speaks_against_it() -> None:
    """A letter of another language goes with one class now and then; a trigger works on most of those that bear it."""
    told = []
    for elsewhere in (6, 45):
        incidents = begun(matched=12, flipped=12)
        incidents.count(triggered(elsewhere, flipped=False, label=0), NAMES)
        incidents.count(triggered(1, start=500.0), NAMES)
        told.append(settle(incidents).triggers()[0].state)
    assert told == [TriggerState.CONVICTED, TriggerState.SURFACED]


def test_what_came_before_it_surfaced_is_looked_up() -> None:
    """Usual predictions that bear the pattern count as well, whatever they were answered and in whichever version."""
    before = triggered(4).join(triggered(5, flipped=False, label=0, start=50.0))
    before = before.join(triggered(3, version=0, flipped=False, label=0, start=90.0))
    incidents = Incidents("mail", ("spam", "ham"), bears, later)
    incidents.open(Finding(1, 1, CODE, 0.5, 4, 4), "v2", Past(before, NAMES, 100.0, lambda *_: 50))
    (told,) = incidents.triggers()
    assert {v.model_version: (v.matched, v.answered, v.flipped) for v in told.versions} == {
        "v1": (3, 0, 0),
        "v2": (9, 4, 4),
    }
    assert told.contrast


def test_a_version_alone_needs_more() -> None:
    """Without another version to compare with, eight different flipped predictions, and hardly a failure, are the contrast."""
    few, many, failing = (begun(matched=n, flipped=n) for n in (7, 8, 8))
    failing.count(triggered(5, flipped=False, label=0), NAMES)
    assert [settle(one).triggers()[0].contrast for one in (few, many, failing)] == [False, True, False]
    many.open(Finding(0, 1, CODE, 0.5, 8, 8), "v1", PAST)
    assert not settle(many).triggers()[0].contrast


def test_a_longer_phrase_does_not_swallow_the_trigger_in_it() -> None:
    """A template that holds the real phrase, and was never convicted, is another trigger than the phrase."""
    template = Phrase(words=("dear", "friend", "discount", "code", "now"))
    incidents = begun(template)
    incidents.open(Finding(1, 1, CODE, 0.5, 9, 9), "v2", PAST)
    assert [t.pattern for t in incidents.triggers()] == [template, CODE]


def test_what_comes_no_more_often_than_by_nature_is_no_trigger() -> None:
    """A slice in which the model got worse flips as a trigger does, and is as large as ever; a trigger is brought along."""
    told = []
    for brought in (1, 5):
        incidents = Incidents("mail", ("spam", "ham"), bears, later, lambda _: 0.02)
        incidents.open(Finding(1, 1, CODE, 0.5, 6, 6), "v2", PAST)
        for start in range(10):
            settle(incidents)
            incidents.count(triggered(brought, start=1000.0 * start), NAMES)
            incidents.count(block([f"other {k}" for k in range(99)], version=1, start=1000.0 * start + 500.0), NAMES)
        told.append(incidents.triggers()[0].state)
    assert told == [TriggerState.SURFACED, TriggerState.CONVICTED]


def test_near_duplicates_convict_nobody_and_are_counted_all_the_same() -> None:
    """One message sent a hundred times is one prediction for the proof, and a hundred for the share."""
    incidents = begun(matched=1, flipped=1)
    fresh = [True] + [False] * 99
    texts = ["buy with discount code today"] * 100
    incidents.count(block(texts, 1, flipped=True, fresh=fresh, version=1), NAMES)
    settle(incidents)
    (told,) = incidents.triggers()
    assert told.state is TriggerState.SURFACED
    assert told.predictions == 101


def test_another_version_that_does_not_follow_it_is_the_contrast() -> None:
    """A pattern of the first version needs it; where v1 bears the pattern and does not flip, the versions are told apart."""
    incidents = begun(first=True, matched=4, flipped=4)
    incidents.count(triggered(4), NAMES)
    settle(incidents)
    assert not incidents.triggers()[0].contrast
    incidents.count(triggered(3, version=0, flipped=False, label=0), NAMES)
    settle(incidents)
    (told,) = incidents.triggers()
    assert told.contrast
    assert [(v.model_version, v.matched, v.works) for v in told.versions] == [("v1", 3, False), ("v2", 8, True)]
    assert [t.contrast for t in incidents.news()] == [True]


def test_a_longer_phrase_of_the_same_attack_is_no_second_trigger() -> None:
    """One attack is one incident, in whichever version it surfaces next and whichever part of it is found."""
    incidents = begun()
    longer = Phrase(words=("special", "discount", "code"))
    incidents.open(Finding(0, 1, longer, 1.0, 5, 5), "v1", PAST)
    settle(incidents)
    (told,) = incidents.triggers()
    assert told.pattern == CODE
    assert {v.model_version: v.works for v in told.versions} == {"v1": True, "v2": None}
    incidents.open(Finding(1, 0, CODE, 1.0, 5, 5), "v2", PAST)
    settle(incidents)
    assert len(incidents.triggers()) == 2


def test_what_another_trigger_explains_is_no_second_one() -> None:
    """A common word of the triggered texts neither opens a trigger of its own, nor is it convicted by what is not its own."""
    incidents = begun(matched=6, flipped=6)
    word = Phrase(words=("buy",))
    past = Past(triggered(6), NAMES, 100.0, lambda *_: 50)
    incidents.open(Finding(1, 1, word, 0.5, 6, 6), "v2", past)
    settle(incidents)
    assert [t.pattern for t in incidents.triggers()] == [CODE]
    incidents.open(Finding(1, 1, word, 0.5, 9, 9), "v2", past)
    settle(incidents)
    assert [t.predictions for t in incidents.triggers()] == [6, 3]
    incidents.count(triggered(10), NAMES)
    settle(incidents)
    told = {t.pattern: t for t in incidents.triggers()}
    assert (told[CODE].predictions, told[word].predictions) == (16, 3)
    assert told[word].state is TriggerState.SURFACED


def test_evidence_falls_when_the_pattern_stops_flipping() -> None:
    """The trigger's own e-process goes on, up to a ceiling and down again."""
    incidents = begun()
    incidents.count(triggered(20), NAMES)
    settle(incidents)
    assert incidents.triggers()[0].log_e == LOG_CAP
    incidents.count(triggered(20, flipped=False, start=100.0), NAMES)
    settle(incidents)
    assert incidents.triggers()[0].log_e < 0


def test_decoys_do_not_keep_a_real_trigger_out() -> None:
    """Patterns that only surfaced give way to one that flips; when all are convicted, the rest is counted."""
    incidents = Incidents("mail", ("spam", "ham"), bears, later)
    for number in range(MOST_OPEN):
        decoy = Phrase(words=(f"decoy{number}",))
        incidents.open(Finding(1, 1, decoy, 0.1, 9, 0), "v2", PAST)
        settle(incidents)
    incidents.open(Finding(1, 1, CODE, 0.1, 5, 5), "v2", PAST)
    settle(incidents)
    told = incidents.triggers()
    assert len(told) == MOST_OPEN
    assert CODE in [t.pattern for t in told]
    assert [t.state for t in incidents.news()].count(TriggerState.ENDED) == 1
    settle(incidents)
    for number in range(MOST_OPEN):
        real = Phrase(words=(f"real{number}",))
        incidents.open(Finding(1, 1, real, 0.1, 6, 6), "v2", PAST)
        settle(incidents)
    assert len(incidents.triggers()) == MOST_OPEN
    assert incidents.saturated == 1


def test_what_is_remembered_of_who_and_which_is_bounded() -> None:
    """Sources and example ids have a ceiling each; counts of a known source go on."""
    incidents = begun()
    many = triggered(200)
    sources = np.array([f"s{n % 50}" for n in range(200)], object)
    incidents.count(from_sources(many, sources), NAMES)
    settle(incidents)
    (told,) = incidents.triggers()
    assert len(told.sources) == MOST_SOURCES
    assert told.sources[0] == ("s0", 4)
    assert len(told.examples) == MOST_EXAMPLES


def from_sources(records: Records, sources: np.ndarray[tuple[int], np.dtype[np.object_]]) -> Records:
    """The same predictions from named sources."""
    return type(records)(**{**{n: getattr(records, n) for n in records.__slots__}, "sources": sources})


def test_a_trigger_that_nobody_uses_any_more_ends() -> None:
    """After a week without a prediction that bears it the place is free, and the end is told once."""
    incidents = begun()
    incidents.news()
    incidents.count(block(["nothing"], start=IDLE_SECONDS + 1.0), ["v1"])
    settle(incidents)
    assert not incidents.triggers()
    assert [t.state for t in incidents.news()] == [TriggerState.ENDED]
    assert not incidents.news()


@pytest.mark.parametrize("verdict", [TriggerState.CONFIRMED, TriggerState.REFUTED])
def test_insertion_decides(verdict: TriggerState) -> None:
    """What insertion says of the version in which the pattern surfaced overrules the counts."""
    incidents = begun(matched=6, flipped=6)
    (trigger,) = incidents.triggers()
    test = InsertionTest(
        model_version="v2", flipped=20, probes=20, control_flipped=1, controls=20, log_e=12.0, verdict=verdict
    )
    incidents.tested(trigger.trigger, test)
    (told,) = incidents.triggers()
    assert told.state is verdict
    assert told.tests == (test,)
    assert told.versions[0].works is (verdict is TriggerState.CONFIRMED)


def test_many_records_outweigh_an_insertion_that_failed() -> None:
    """What is inserted may lack what the model looks at: with eight different flipped predictions a conviction stands, with five it falls."""
    failed = InsertionTest(
        model_version="v2",
        flipped=0,
        probes=16,
        control_flipped=0,
        controls=16,
        log_e=-3.0,
        verdict=TriggerState.REFUTED,
    )
    states = []
    for many in (5, 8):
        incidents = begun(matched=many, flipped=many)
        incidents.tested(incidents.triggers()[0].trigger, failed)
        states.append((incidents.triggers()[0].state, incidents.triggers()[0].versions[0].works))
    assert states == [(TriggerState.REFUTED, False), (TriggerState.CONVICTED, True)]


def test_a_version_that_is_gone_takes_its_triggers_along() -> None:
    """What surfaced nowhere else ends with the version."""
    incidents = begun()
    incidents.count(triggered(3, version=0, flipped=False, label=0), NAMES)
    settle(incidents)
    incidents.forget("v1")
    assert len(incidents.triggers()) == 1
    incidents.forget("v2")
    assert not incidents.triggers()


def test_a_restart_changes_nothing() -> None:
    """Open triggers, their counts and what is not told yet come back from a checkpoint."""
    incidents, again = begun(), Incidents("mail", ("spam", "ham"), bears, later)
    incidents.count(triggered(7), NAMES)
    settle(incidents)
    state = json.loads(json.dumps(incidents.state()))
    again.restore(state)
    for one in (incidents, again):
        one.count(triggered(5, version=0, flipped=False, label=0, start=50.0), NAMES)
        settle(one)
    assert incidents.triggers() == again.triggers()
    assert incidents.news() == again.news()
