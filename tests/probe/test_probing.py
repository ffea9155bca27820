"""Probing: replays when they are due, triggers where they matter, and never more than is allowed."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from poisonwatch import checkpoint
from poisonwatch.config.endpoint import KserveV1Config
from poisonwatch.config.probing import ProbesConfig
from poisonwatch.errors import ProbeError
from poisonwatch.probe.echoes import Echoes
from poisonwatch.probe.endpoint import endpoint_of
from poisonwatch.probe.golden_set import GoldenSet
from poisonwatch.probe.prober import Prober
from poisonwatch.probe.probing import PATIENCE, Probed, Probing
from poisonwatch.types import Cell, Column, Pattern, Phrase, Schema, Trigger, TriggerState
from tests.probe.models import PHRASE, InProcess, answering, messages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from poisonwatch.probe.endpoint import Endpoint

GOLDEN = GoldenSet(tuple(messages()), "a" * 64, {})
SCHEMA = Schema(
    model="mail",
    outcome=Column(name="prediction", kind="categorical", values=("ham", "spam"), strings=True),
    features=(Column(name="text", kind="text"),),
    layout="none",
    confidence=True,
)
VERSIONS = ("v1", "v2", "v3")
START = 1_760_000_000.0


def _trigger(name: str = "t", pattern: Pattern = Phrase(words=PHRASE), version: str = "v2") -> Trigger:  # noqa: B008 - frozen
    return Trigger(
        trigger=name,
        model="mail",
        model_version=version,
        state=TriggerState.CONVICTED,
        pattern=pattern,
        text="",
        label="spam",
        versions=(),
        predictions=10,
        share=0.1,
        first_seen=START,
        last_seen=START,
        sources=(),
        examples=(),
        log_e=1.0,
        contrast=True,
    )


def _probing(endpoint: Endpoint, **limits: float) -> Probing:
    probes = ProbesConfig.model_validate({"per_minute": 100_000, **limits})
    return Probing(GOLDEN, 3600.0, probes, Prober(endpoint, probes.per_minute, waits=()), Echoes(SCHEMA))


def _until(
    probing: Probing,
    done: Callable[[Probed], bool],
    triggers: list[Trigger],
    now: Callable[[], float] = lambda: START,
    versions: tuple[str, ...] = VERSIONS,
) -> Probed:
    """All that came of turns until it is enough, for at most twenty seconds."""
    found = Probed([], [], [])
    until = time.monotonic() + 20
    while not done(found) and time.monotonic() < until:
        probed = probing.turn(now(), triggers, versions)
        found.insertions.extend(probed.insertions)
        found.golden.extend(probed.golden)
        found.problems.extend(probed.problems)
        time.sleep(0.001)
    return found


def _settle(probing: Probing, triggers: list[Trigger], now: float = START) -> Probed:
    """All that comes of a good while of turns at one time."""
    until = time.monotonic() + 0.4
    return _until(probing, lambda _: time.monotonic() > until, triggers, lambda: now)


def test_a_trigger_is_confirmed_and_then_sought_in_every_version() -> None:
    """Through a real server: confirmed where it was found, refuted in the others; each is told once, within 60 questions."""
    with answering() as url:
        config = KserveV1Config(kind="kserve_v1", url=url, instance="{{text}}", label="/label", confidence="/sure")
        probing = _probing(endpoint_of(config, "mail"))
        found = _until(probing, lambda probed: len(probed.insertions) == 3, [_trigger()])
        more = _settle(probing, [_trigger()])
        probing.close()
    verdicts = {test.model_version: test.verdict for _, test in found.insertions}
    assert found.insertions[0][1].model_version == "v2"
    assert verdicts == {
        "v1": TriggerState.REFUTED,
        "v2": TriggerState.CONFIRMED,
        "v3": TriggerState.REFUTED,
    }
    assert all(test.probes + test.controls <= 60 for _, test in found.insertions)
    assert more.insertions == []


def test_each_version_is_replayed_whole_once_and_again_when_due() -> None:
    """Of every replay each input is asked once, of each version; the next one begins an hour after the last began."""
    endpoint = InProcess()
    probing = _probing(endpoint)
    everything = len(VERSIONS) * len(GOLDEN.inputs)
    first = _until(probing, lambda p: sum(len(g.numbers) for g in p.golden) >= everything, [])
    assert _settle(probing, [], START + 3599).golden == []
    second = _settle(probing, [], START + 3600)
    probing.close()
    for replay in (first, second):
        asked = Counter((g.model_version, number) for g in replay.golden for number in g.numbers)
        assert asked == Counter({(v, number): 1 for v in VERSIONS for number in range(len(GOLDEN.inputs))})
    for told in first.golden:
        assert told.labels == tuple(GOLDEN.inputs[number].label for number in told.numbers)
        assert len(told.answers) == len(told.numbers)
    assert len(endpoint.asked) == 2 * everything


def test_a_restart_asks_again_what_was_under_way_and_nothing_else(tmp_path: Path) -> None:
    """Killed after every few turns and taken up from the checkpoint, the tests say the same as without interruption."""
    whole = _probing(InProcess())
    expected = _until(whole, lambda p: len(p.insertions) == 3, [_trigger()])
    whole.close()
    found: dict[str, object] = {}
    path = tmp_path / "state"
    until = time.monotonic() + 20
    while len(found) < 3 and time.monotonic() < until:
        probing = _probing(InProcess())
        state = checkpoint.load(path, {})
        if state is not None:
            probing.restore(state)
        count = 0

        def enough(probed: Probed) -> bool:
            nonlocal count
            count += 1
            return count > 9 or bool(probed.insertions)

        found |= {test.model_version: test for _, test in _until(probing, enough, [_trigger()]).insertions}
        checkpoint.save(path, probing.state(), {})
        probing.close()
    assert found == {test.model_version: test for _, test in expected.insertions}


def test_another_golden_set_is_another_test() -> None:
    """What was learned from one golden set says nothing about another."""
    one = _probing(InProcess())
    _until(one, lambda p: len(p.insertions) == 3, [_trigger()])
    state = one.state()
    one.close()
    other = Probing(GOLDEN._replace(sha256="b" * 64), 3600.0, ProbesConfig(), Prober(InProcess(), 1e5), Echoes(SCHEMA))
    other.restore(state)
    assert other.state()["told"] == []
    assert other.state()["versions"] == {}
    other.close()


def test_what_cannot_be_tested_is_told_at_once() -> None:
    """A region of an embedding space has nothing to insert; that is told once, with no probe and no verdict."""
    probing = _probing(InProcess())
    trigger = _trigger(pattern=Cell(table=0, signs=1, thresholds=(0.0,)))
    found = _until(probing, lambda p: bool(p.insertions), [trigger])
    more = _settle(probing, [trigger])
    probing.close()
    ((name, test),) = found.insertions
    assert (name, test.model_version, test.probes, test.verdict) == ("t", "v2", 0, None)
    assert more.insertions == []


def test_an_endpoint_that_fails_is_left_alone_and_then_asked_again() -> None:
    """After some failures the trigger is told as untested, and why; when the endpoint answers again it is tested after all."""
    endpoint = InProcess()
    endpoint.broken = ProbeError("no route to host")
    probing = _probing(endpoint)
    clock = START

    def later() -> float:
        nonlocal clock
        clock += 5.0
        return clock

    found = _until(probing, lambda p: bool(p.insertions), [_trigger()], later, ("v2",))
    assert [test.probes for _, test in found.insertions] == [0]
    failures = probing.prober.failed["endpoint"]
    assert len(found.problems) >= PATIENCE
    assert {*found.problems} == {("v2", "no route to host")}
    assert probing.turn(clock, [_trigger()], ("v2",)) == Probed([], [], [])
    endpoint.broken = None
    found = _until(probing, lambda p: bool(p.insertions), [_trigger()], later, ("v2",))
    probing.close()
    assert [test.verdict for _, test in found.insertions] == [TriggerState.CONFIRMED]
    # Half an hour of failing every second turn would have been hundreds.
    assert probing.prober.failed["endpoint"] <= failures + 5


def test_only_so_many_triggers_begin_within_an_hour() -> None:
    """Of five triggers two are tested now, and two more in an hour."""
    probing = _probing(InProcess(), triggers_per_hour=2)
    triggers = [_trigger(f"t{number}") for number in range(5)]
    tested = {name for name, _ in _settle(probing, triggers).insertions}
    assert tested == {"t0", "t1"}
    assert {name for name, _ in _settle(probing, triggers, START + 3599).insertions} == set()
    assert {name for name, _ in _settle(probing, triggers, START + 3601).insertions} == {"t2", "t3"}
    probing.close()


def test_what_is_gone_leaves_nothing_behind() -> None:
    """When trigger and versions are gone the state is as small as in the beginning."""
    probing = _probing(InProcess())
    _until(probing, lambda p: len(p.insertions) == 3, [_trigger()])
    assert probing.state()["told"]
    _until(probing, lambda _: not probing.state()["versions"], [], versions=())
    state = probing.state()
    probing.close()
    assert (state["told"], state["tests"], state["versions"]) == ([], [], {})


@pytest.mark.parametrize("budget", [20, 60])
def test_the_budget_of_a_trigger_holds(budget: int) -> None:
    """However undecided, no test asks more than it may: twenty questions are too few to decide here and sixty are not."""
    endpoint = InProcess()
    probing = _probing(endpoint, per_trigger=budget)
    found = _until(probing, lambda p: bool(p.insertions), [_trigger(pattern=Phrase(words=("prize", "lunch")))])
    probing.close()
    (_, test) = found.insertions[0]
    assert test.probes + test.controls <= budget
    known = {one.question.text for one in GOLDEN.inputs}
    assert sum(text not in known for _, text in endpoint.asked) == test.probes + test.controls
