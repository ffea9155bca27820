"""What Argo Rollouts and Flagger do with an answer: their documented rules, played over the manifests that are shipped.

Argo Rollouts: `analysis/analysis.go`, `utils/evaluate`, the `prometheus` and `web` providers, `validation_references.go` and
`docs/features/analysis.md`.
Flagger: `pkg/controller/scheduler.go`, `scheduler_hooks.go`, `scheduler_metrics.go`, `webhook.go` and the Prometheus provider.
Where versions differ, or the documents leave it open, what is worse for us is played.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.deploy.manifests import Document


@dataclass(frozen=True)
class Answers:
    """What a controller that asks now is answered. None: no connection, or none in time."""

    query: list[float] | None
    """The values of the vector that Prometheus gives for our query."""
    decision: tuple[int, str] | None
    """Status and decision of the agent's decision API."""
    gate: int | None
    """Status of POST /flagger/gate."""
    rollback: int | None
    """Status of POST /flagger/rollback."""


class End(Enum):
    """How far a rollout came."""

    PROMOTED = "promoted"
    ABORTED = "rolled back"
    PAUSED = "paused for a person"
    WAITING = "waits"


@dataclass(frozen=True)
class Outcome:
    """The end of a rollout, or where it stands when the play is over."""

    end: End
    checks: int
    """Checks until then."""
    seconds: int
    weight: int
    """Share of the traffic in percent that the new version got at last, before the end."""


class Phase(Enum):
    """Of a measurement and of an analysis run."""

    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


class ConditionError(Exception):
    """A condition that cannot be evaluated: the measurement is an error."""


def condition(text: str, result: Any) -> bool:
    """Evaluate the part of Argo's expressions that the manifests use: `&&`, `||`, `!`, comparisons, `len`, `isNaN`."""
    value = _value(_parsed(text), result)
    if not isinstance(value, bool):
        raise ConditionError(text)
    return value


@cache
def _parsed(text: str) -> ast.expr:
    python = re.sub(r"!(?!=)", " not ", text.replace("&&", " and ").replace("||", " or "))
    return ast.parse(python.strip(), mode="eval").body


def _value(node: ast.expr, result: Any) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id="result"):
            return result
        case ast.Subscript(value=inner, slice=ast.Constant(value=int(place))):
            items = _value(inner, result)
            if not isinstance(items, list) or not 0 <= place < len(items):
                raise ConditionError(ast.unparse(node))
            return items[place]
        case ast.Call(func=ast.Name(id="len"), args=[inner]):
            return len(_value(inner, result))
        case ast.Call(func=ast.Name(id="isNaN"), args=[inner]):
            return math.isnan(_value(inner, result))
    return _truth(node, result)


def _truth(node: ast.expr, result: Any) -> bool:
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _value(inner, result)
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, result) for part in parts)
        case ast.BoolOp(op=ast.Or(), values=parts):
            return any(_value(part, result) for part in parts)
        case ast.Compare(left=left, ops=[compare], comparators=[right]):
            return _compared(compare, _value(left, result), _value(right, result))
    raise ConditionError(ast.unparse(node))


def _compared(compare: ast.cmpop, left: Any, right: Any) -> bool:
    if isinstance(left, str) != isinstance(right, str):
        msg = f"{left!r} and {right!r} are of different kinds"
        raise ConditionError(msg)
    names: dict[type[ast.cmpop], bool] = {
        ast.Eq: left == right,
        ast.NotEq: left != right,
        ast.Lt: left < right,
        ast.LtE: left <= right,
        ast.Gt: left > right,
        ast.GtE: left >= right,
    }
    return names[type(compare)]


def measured(metric: Document, answers: Answers) -> Phase:
    """One measurement of a metric of an AnalysisTemplate."""
    result: Any
    if "prometheus" in metric["provider"]:
        result = answers.query
    else:
        status, result = answers.decision or (0, None)
        result = result if 200 <= status < 300 else None
    if result is None:
        return Phase.ERROR
    success, failure = metric.get("successCondition"), metric.get("failureCondition")
    try:
        succeeded = condition(success, result) if success else None
        failed = condition(failure, result) if failure else None
    except ConditionError:
        return Phase.ERROR
    # With one condition only, what does not meet it is the opposite.
    if failed or (failed is None and succeeded is False):
        return Phase.FAILED
    return Phase.SUCCESSFUL if succeeded or succeeded is None else Phase.INCONCLUSIVE


@dataclass
class Run:
    """One AnalysisRun of a template with one metric."""

    metric: Document
    count: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors_in_a_row: int = 0
    successes_in_a_row: int = 0

    def take(self, answers: Answers) -> Phase:
        """Take one measurement: where the run stands then."""
        phase = measured(self.metric, answers)
        self.count += phase is not Phase.ERROR
        self.failed += phase is Phase.FAILED
        self.inconclusive += phase is Phase.INCONCLUSIVE
        self.errors_in_a_row = self.errors_in_a_row + 1 if phase is Phase.ERROR else 0
        self.successes_in_a_row = self.successes_in_a_row + 1 if phase is Phase.SUCCESSFUL else 0
        return self._assessed()

    def _assessed(self) -> Phase:
        limit = self.metric.get
        if self.errors_in_a_row > limit("consecutiveErrorLimit", 4):
            return Phase.ERROR
        if self.inconclusive > limit("inconclusiveLimit", 0):
            return Phase.INCONCLUSIVE
        if self.failed > limit("failureLimit", 0) >= 0:
            return Phase.FAILED
        if 0 < limit("consecutiveSuccessLimit", 0) <= self.successes_in_a_row:
            return Phase.SUCCESSFUL
        # Without `interval` one measurement is all. What a run that reached its count without its successes is called
        # depends on the version: the worst is played.
        most = limit("count", 0) or (0 if "interval" in self.metric else 1)
        return Phase.SUCCESSFUL if 0 < most <= self.count else Phase.RUNNING


@dataclass
class Argo:
    """A Rollout that moves from step to step; its first step is taken at once."""

    rollout: Document
    templates: dict[str, Document]
    unknown: tuple[str, ...] = ()
    """Fields of a metric that this version of Argo does not know, so that they are dropped."""
    _weight: int = field(default=0, init=False)

    def play(self, world: Callable[[int, int], Answers], checks: int) -> Outcome:
        """Go on until the rollout has ended or so many checks were made."""
        canary = self.rollout["spec"]["strategy"]["canary"]
        steps, background = canary["steps"], canary.get("analysis")
        guard: Run | None = None
        gate: Run | None = None
        place = pauses = seconds = 0
        for check in range(checks):
            while place < len(steps) and "setWeight" in steps[place]:
                self._weight = steps[place]["setWeight"]
                place += 1
            if place == len(steps):
                return Outcome(End.PROMOTED, check, seconds, self._weight)
            answers = world(check, self._weight)
            if background and guard is None and place >= background.get("startingStep", 0):
                guard = self._run(background)
            phases = [guard.take(answers)] if guard else []
            if "analysis" in steps[place]:
                gate = gate or self._run(steps[place]["analysis"])
                phases.append(gate.take(answers))
                done = phases[-1] is Phase.SUCCESSFUL
            else:
                pauses += 1
                done = pauses * INTERVAL >= _seconds(steps[place]["pause"]["duration"])
            seconds += INTERVAL
            if {Phase.FAILED, Phase.ERROR} & set(phases):
                return Outcome(End.ABORTED, check + 1, seconds, self._weight)
            if Phase.INCONCLUSIVE in phases:
                return Outcome(End.PAUSED, check + 1, seconds, self._weight)
            if done:
                gate, pauses, place = None, 0, place + 1
        ended = End.PROMOTED if place == len(steps) else End.WAITING
        return Outcome(ended, checks, seconds, self._weight)

    def _run(self, analysis: Document) -> Run:
        [template] = analysis["templates"]
        [metric] = self.templates[template["templateName"]]["spec"]["metrics"]
        assert _seconds(metric["interval"]) == INTERVAL
        return Run({name: value for name, value in metric.items() if name not in self.unknown})


INTERVAL = 30
"""Seconds between two measurements of every shipped AnalysisTemplate."""


def _seconds(duration: str) -> int:
    """A duration like `30s`, in seconds."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


@dataclass
class Flagger:
    """A Canary with a new revision that is up and has no traffic yet."""

    canary: Document
    _weight: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _promoting: bool = field(default=False, init=False)

    def play(self, world: Callable[[int, int], Answers], checks: int) -> Outcome:
        """Go on until the canary has ended or so many intervals have passed."""
        interval = _seconds(self.canary["spec"]["analysis"]["interval"])
        for check in range(checks):
            end = self._advance(world(check, self._weight))
            if end is not End.WAITING:
                return Outcome(end, check + 1, (check + 1) * interval, self._weight)
        return Outcome(End.WAITING, checks, checks * interval, self._weight)

    def _advance(self, answers: Answers) -> End:
        """One interval, in the order of the scheduler."""
        analysis = self.canary["spec"]["analysis"]
        if any(map(_passed, self._asked("rollback", answers))):
            return End.ABORTED
        if self._failed >= analysis["threshold"]:
            return End.ABORTED
        if self._weight == 0:
            checked = all(map(_passed, self._asked("pre-rollout", answers)))
        else:
            checked = all(map(_passed, self._asked("rollout", answers))) and self._metrics_pass(answers)
        if not checked:
            self._failed += 1
            return End.WAITING
        if not self._promoting and not all(map(_passed, self._asked("confirm-traffic-increase", answers))):
            return End.WAITING
        most = analysis.get("maxWeight", 100)
        if self._weight < most:
            self._weight = min(100, self._weight + analysis["stepWeight"])
            return End.WAITING
        self._promoting = not all(map(_passed, self._asked("confirm-promotion", answers)))
        return End.WAITING if self._promoting else End.PROMOTED

    def _asked(self, kind: str, answers: Answers) -> list[int | None]:
        """The statuses that the hooks of a kind get, by the endpoint that each asks."""
        hooks = self.canary["spec"]["analysis"].get("webhooks", [])
        ends = {"/flagger/gate": answers.gate, "/flagger/rollback": answers.rollback}
        return [ends[re.sub(r"https?://[^/]+", "", hook["url"])] for hook in hooks if hook["type"] == kind]

    def _metrics_pass(self, answers: Answers) -> bool:
        for metric in self.canary["spec"]["analysis"].get("metrics", []):
            # The last series counts; nothing, an error and NaN are a failed check.
            if not answers.query or math.isnan(answers.query[-1]):
                return False
            value, span = answers.query[-1], metric["thresholdRange"]
            if value > span.get("max", math.inf) or value < span.get("min", -math.inf):
                return False
        return True


def _passed(status: int | None) -> bool:
    """Whether a hook's answer is a yes to Flagger: 200 to 202, and not even 204."""
    return status is not None and status <= 202
