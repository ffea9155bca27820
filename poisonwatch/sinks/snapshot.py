"""What is published: one immutable value that the server renders, and the counters that go into it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.judge.aftermath import Rollback
    from poisonwatch.judge.override import Override
    from poisonwatch.judge.story import Story
    from poisonwatch.monitor.accused import FeedbackView
    from poisonwatch.monitor.coverage import CoverageView
    from poisonwatch.monitor.machine import VersionView
    from poisonwatch.profile.indicators import Questions
    from poisonwatch.types import Alert, Decision, Evidence, Trigger


@dataclass(slots=True)
class Counters:
    """The agent's own counts, by source and reason. Plain integers: the hot path touches them once a block.

    `refused` is what a source refused or could not read, before it was lines; `duplicates`, by model, what was delivered again; `waiting`
    halves of predictions that wait for the other. These three are counted where they arise.
    """

    lines: Counter[str] = field(default_factory=Counter)
    predictions: Counter[str] = field(default_factory=Counter)
    feedback: Counter[str] = field(default_factory=Counter)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "lines": dict(self.lines),
            "predictions": dict(self.predictions),
            "feedback": dict(self.feedback),
            "rejected": [[*key, count] for key, count in self.rejected.items()],
            "faults": [[*key, count] for key, count in self.faults.items()],
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Counters:
        """Counters as they were saved."""
        return cls(
            lines=Counter(state["lines"]),
            predictions=Counter(state["predictions"]),
            feedback=Counter(state["feedback"]),
            rejected=Counter({(source, reason): count for source, reason, count in state["rejected"]}),
            faults=Counter({(source, reason): count for source, reason, count in state["faults"]}),
        )

    def copy(self) -> Counters:
        """The counts as they stand now."""
        return Counters(
            self.lines.copy(), self.predictions.copy(), self.feedback.copy(), self.rejected.copy(), self.faults.copy()
        )


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """How a source does: whether its file is there, bytes not read yet, largest event time that it gave."""

    name: str
    found: bool
    lag_bytes: int
    newest: float


class ReceiverSnapshot(NamedTuple):
    """How a receiver of notifications does: how many it took and how many tries failed, what was given up, and what waits for it."""

    name: str
    sent: int
    failed: int
    dropped: int
    waiting: int


@dataclass(frozen=True, slots=True)
class MiningSnapshot:
    """How the miner and the probes do.

    `triggered` counts by version the predictions that bear a trigger and got its class: it never falls, also when a trigger ends. `probes`
    are questions that were answered, `probe_failures` requests that failed by reason, `echoes` records of the log that were the agent's own
    questions; `golden` is the accuracy on the verified inputs by version. `saturated` says that more triggers were found than are kept apart.
    """

    triggered: Mapping[str, int] = field(default_factory=dict)
    saturated: bool = False
    probes: int = 0
    probe_failures: Mapping[str, int] = field(default_factory=dict)
    echoes: int = 0
    golden: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """What stands of one model; `triggers` are the open ones.

    `decisions` are those that hold, a person's `overrides` among them; `stories` say by version what stands behind them; `rollbacks` are those
    that are being watched. `coverage` is what the server's own count says, None where none is configured; `read` is how many predictions entered a
    profile, and how many lines did not.
    """

    model: str
    reference: str
    reference_predictions: int
    questions: Questions
    versions: Mapping[str, VersionView]
    lines: tuple[Evidence, ...]
    alerts: tuple[Alert, ...]
    decisions: tuple[Decision, ...]
    late: int
    unproven: bool
    quality: Mapping[str, float]
    blind: Mapping[str, str]
    feedback: FeedbackView
    displacement: float
    triggers: tuple[Trigger, ...] = ()
    mining: MiningSnapshot = field(default_factory=MiningSnapshot)
    coverage: CoverageView | None = None
    read: tuple[int, int] = (0, 0)
    stories: Mapping[str, Story] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    rollbacks: tuple[Rollback, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown, as of wall-clock time `time`.

    `journal` are its last entries, the newest last; `journal_unwritten` entries wait for a disk that refuses; of rejected lines, `dead_letters_lost` samples were not kept.
    """

    time: float
    started: float
    models: tuple[ModelSnapshot, ...]
    sources: tuple[SourceSnapshot, ...]
    counters: Counters
    checkpoint: float | None
    checkpoint_failures: int
    journal_failures: int = 0
    journal_unwritten: int = 0
    dead_letters_lost: int = 0
    journal: tuple[Mapping[str, Any], ...] = ()
    receivers: tuple[ReceiverSnapshot, ...] = ()


@dataclass(slots=True)
class Published:
    """Where the loop leaves the newest snapshot and the server finds it; one reference, replaced at once."""

    snapshot: Snapshot | None = None
