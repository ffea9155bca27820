"""What to ask next, and what the answers say: golden replays when they are due, triggers inserted when there are any.

One job of a model is under way at a time, so that a trigger never waits behind a whole replay. A trigger is tested first in
its own version; when it is confirmed there, in every other one that runs, so that nobody is sent back to a version in which it works too.
A version is asked the golden inputs as they are before anything is inserted: only what it answers rightly is worth a probe.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from poisonwatch.mining.insertion import FEWEST_INPUTS, Insertion, insertable, suitable
from poisonwatch.monitor.golden import GoldenAnswers
from poisonwatch.types import Answer, InsertionTest, TriggerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.config.probing import ProbesConfig
    from poisonwatch.probe.echoes import Echoes
    from poisonwatch.probe.golden_set import GoldenSet
    from poisonwatch.probe.prober import Outcome, Prober
    from poisonwatch.types import Trigger

GOLDEN_AT_ONCE = 32
"""Golden inputs of one job."""

HOUR = 3600.0
REST_SECONDS = (60.0, HOUR)
"""How long a version whose endpoint fails is left alone: at first, and at most; doubled from failure to failure."""

PATIENCE = 3
"""Failed jobs in a row after which a trigger is told without a test; it is tested when the endpoint answers again."""


class Probed(NamedTuple):
    """What came of a turn: finished tests by the name of their trigger, answers to golden inputs, and by version why there were none."""

    insertions: list[tuple[str, InsertionTest]]
    golden: list[GoldenAnswers]
    problems: list[tuple[str, str]]


@dataclass(slots=True)
class _Version:
    """What is known of a version: its answers by number, where its replay stands, and since when its endpoint fails."""

    answered: dict[int, Answer] = field(default_factory=dict)
    began: float = -math.inf
    at: int = 0
    replays: int = 0
    failures: int = 0
    rest_until: float = -math.inf


class Probing:
    """Decides what one model is asked. `every_seconds` is from the start of a replay to the start of the next.

    `echoes` is told of every question: it will appear in the model's log.
    """

    def __init__(
        self, golden: GoldenSet, every_seconds: float, limits: ProbesConfig, prober: Prober, echoes: Echoes
    ) -> None:
        self.prober = prober
        self.echoes = echoes
        self._golden = golden
        self._every = every_seconds
        self._limits = limits
        # The file's order may be one class after the other; each part of a replay shall have all of them.
        self._order = sorted(range(len(golden.inputs)), key=lambda n: hashlib.sha256(f"{n}".encode()).digest())
        self._versions: dict[str, _Version] = {}
        self._tests: dict[tuple[str, str], Insertion] = {}
        self._saved: dict[tuple[str, str], dict[str, Any]] = {}
        self._told: dict[tuple[str, str], InsertionTest] = {}
        self._vain: dict[tuple[str, str], int] = {}
        self._begun: deque[float] = deque()
        self._asked: tuple[str, str, list[int]] | None = None

    @property
    def golden(self) -> GoldenSet:
        """The verified inputs."""
        return self._golden

    def turn(self, now: float, triggers: Sequence[Trigger], versions: Sequence[str]) -> Probed:
        """One turn: collect what was answered, ask what is due. Never waits.

        `triggers` are the open ones that are to be tested, `versions` those that run, the rollback target first. Each finished test
        of a trigger in a version is told once; one with no probe could not be made.
        """
        probed = Probed([], [], [])
        for outcome in self.prober.results():
            self._collect(now, outcome, probed)
        self._forget(triggers, versions)
        if self._asked is None:
            self._ask(now, triggers, versions, probed)
        return probed

    def close(self) -> None:
        """Ask nothing any more."""
        self.prober.close()

    def _collect(self, now: float, outcome: Outcome, probed: Probed) -> None:
        asked, self._asked = self._asked, None
        version = self._versions.get(outcome.model_version)
        if asked is None or version is None:
            return
        if outcome.problem is not None:
            first, most = REST_SECONDS
            version.rest_until = now + min(most, first * 2.0**version.failures)
            version.failures = min(version.failures + 1, 32)
            probed.problems.append((outcome.model_version, outcome.problem))
            return
        version.failures = 0
        trigger, name, numbers = asked
        if not trigger:
            version.answered.update(zip(numbers, outcome.answers, strict=True))
            version.at += len(numbers)
            version.replays += version.at >= len(self._order)
            labels = tuple(self._golden.inputs[number].label for number in numbers)
            probed.golden.append(GoldenAnswers(now, name, tuple(numbers), labels, outcome.answers))
        elif (trigger, name) in self._tests:
            test = self._tests[trigger, name]
            test.take(outcome.answers)
            if test.finished:
                self._tell(trigger, test.result, probed)

    def _tell(self, trigger: str, result: InsertionTest, probed: Probed) -> None:
        self._told[trigger, result.model_version] = result
        probed.insertions.append((trigger, result))

    def _forget(self, triggers: Sequence[Trigger], versions: Sequence[str]) -> None:
        """What is gone leaves nothing behind."""
        running = set(versions)
        for name in self._versions.keys() - running:
            del self._versions[name]
        for name in running - self._versions.keys():
            self._versions[name] = _Version()
        names = {trigger.trigger for trigger in triggers}
        for kept in (self._tests, self._saved, self._told, self._vain):
            for key in [key for key in kept if key[0] not in names or key[1] not in running]:
                del kept[key]

    def _ask(self, now: float, triggers: Sequence[Trigger], versions: Sequence[str], probed: Probed) -> None:
        wanted: list[str] = []
        for trigger in triggers:
            for name in self._to_test(trigger, versions):
                if self._insert(now, trigger, name, wanted, probed):
                    return
        overdue = sorted(versions, key=lambda name: (name not in wanted, self._versions[name].began))
        for name in overdue:
            if self._replay(now, name):
                return

    def _to_test(self, trigger: Trigger, versions: Sequence[str]) -> list[str]:
        """Versions in which a trigger is still to be tested."""
        own = self._told.get((trigger.trigger, trigger.model_version))
        if own is None or own.probes == 0:
            return [trigger.model_version] if trigger.model_version in self._versions else []
        if own.verdict is not TriggerState.CONFIRMED:
            return []
        done = {name for name in versions if (told := self._told.get((trigger.trigger, name))) and told.probes}
        return [name for name in versions if name not in done]

    def _insert(self, now: float, trigger: Trigger, name: str, wanted: list[str], probed: Probed) -> bool:
        """Ask the next probes of a trigger in a version, when that can be done now."""
        version, key = self._versions[name], (trigger.trigger, name)
        if version.rest_until > now:
            if version.failures >= PATIENCE and key not in self._told:
                self._tell(trigger.trigger, _untested(name), probed)
            return False
        if key not in self._tests and not self._begin(now, trigger, name, wanted, probed):
            return False
        questions = self._tests[key].questions()
        if not self.prober.submit("insertion", questions, name):
            return False
        self.echoes.asked(now, questions)
        self._asked = (trigger.trigger, name, [])
        return True

    def _begin(self, now: float, trigger: Trigger, name: str, wanted: list[str], probed: Probed) -> bool:
        """Begin or take up the test of a trigger in a version, when enough is known of the version and the hour allows it."""
        version, key = self._versions[name], (trigger.trigger, name)
        first = name == trigger.model_version and key not in self._saved
        while self._begun and self._begun[0] <= now - HOUR:
            self._begun.popleft()
        if self._vain.get(key) == version.replays or (first and len(self._begun) >= self._limits.triggers_per_hour):
            return False
        golden = self._golden.inputs
        possible = insertable(trigger.pattern, golden[0].question)
        suited = suitable(trigger.pattern, trigger.label, golden, version.answered)
        if possible and len(suited) < self._limits.per_trigger and not version.replays:
            wanted.append(name)
            return False
        if len(suited) < FEWEST_INPUTS:
            # Another replay may answer more of them rightly.
            self._vain[key] = version.replays
            if key not in self._told:
                self._tell(trigger.trigger, _untested(name), probed)
            return False
        if first:
            self._begun.append(now)
        test = Insertion(
            trigger.trigger, trigger.pattern, trigger.label, name, golden, version.answered, self._limits.per_trigger
        )
        if key in self._saved:
            test.restore(self._saved.pop(key))
        self._tests[key] = test
        return True

    def _replay(self, now: float, name: str) -> bool:
        """Ask a version the next golden inputs, when its replay is due or under way."""
        version = self._versions[name]
        if version.rest_until > now:
            return False
        if version.at >= len(self._order) or version.began == -math.inf:
            if now - version.began < self._every:
                return False
            version.began, version.at = now, 0
        numbers = self._order[version.at : version.at + GOLDEN_AT_ONCE]
        questions = [self._golden.inputs[number].question for number in numbers]
        if not self.prober.submit("golden", questions, name):
            return False
        self.echoes.asked(now, questions)
        self._asked = ("", name, numbers)
        return True

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart; what is under way is asked again."""
        tests = {key: test.state() for key, test in self._tests.items() if not test.finished}
        return {
            "golden": self._golden.sha256,
            "versions": {
                name: {
                    "numbers": list(version.answered),
                    "answers": [list(answer) for answer in version.answered.values()],
                    "began": version.began,
                    "at": version.at,
                    "replays": version.replays,
                }
                for name, version in self._versions.items()
            },
            "tests": [{"of": list(key), "test": test} for key, test in (self._saved | tests).items()],
            "told": [{"trigger": key[0], "test": msgspec.to_builtins(test)} for key, test in self._told.items()],
            "begun": list(self._begun),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state; of another golden set nothing is worth keeping."""
        if state["golden"] != self._golden.sha256:
            return
        self._versions = {
            name: _Version(
                answered={int(n): Answer(*a) for n, a in zip(saved["numbers"], saved["answers"], strict=True)},
                began=saved["began"],
                at=saved["at"],
                replays=saved["replays"],
            )
            for name, saved in state["versions"].items()
        }
        self._saved = {(saved["of"][0], saved["of"][1]): saved["test"] for saved in state["tests"]}
        told = [(saved["trigger"], msgspec.convert(saved["test"], InsertionTest)) for saved in state["told"]]
        self._told = {(trigger, test.model_version): test for trigger, test in told}
        self._begun = deque(state["begun"])


def _untested(name: str) -> InsertionTest:
    """The test that could not be made."""
    return InsertionTest(
        model_version=name, flipped=0, probes=0, control_flipped=0, controls=0, log_e=0.0, verdict=None
    )
