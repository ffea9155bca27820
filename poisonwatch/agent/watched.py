"""One model as the loop holds it, and what is shown of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.judge.standing import Standing, effective
from poisonwatch.judge.story import tell
from poisonwatch.sinks.snapshot import MiningSnapshot, ModelSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poisonwatch.judge.story import Story
    from poisonwatch.monitor.machine import Monitor
    from poisonwatch.probe.probing import Probing
    from poisonwatch.probe.served import ServedCount
    from poisonwatch.reference.file import Reference
    from poisonwatch.types import Decision, Evidence, Trigger, VersionFacts


@dataclass(slots=True)
class Watched:
    """One model: its reference, its machine, what was judged of it.

    `probing` asks its endpoint and `served` reads its server's count, where there are any. `redacted` is how a trigger is told to people.
    """

    reference: Reference
    monitor: Monitor
    probing: Probing | None = None
    served: ServedCount | None = None
    redacted: Callable[[Trigger], Trigger] = lambda trigger: trigger
    standing: Standing = field(default_factory=Standing)

    def story(
        self, decision: Decision, facts: Sequence[VersionFacts], evidence: Sequence[Evidence], fewest: int
    ) -> Story:
        """What stands behind a decision now; see `judge.story.tell`."""
        triggers, blind = self.monitor.triggers.open(), self.reference.blind
        return tell(decision, facts, self.standing, triggers, fewest, evidence, blind)


def model_snapshot(name: str, watched: Watched, fewest: int) -> ModelSnapshot:
    """What is shown of one model; `fewest` is how many predictions a version must have before it can be called healthy."""
    decisions = effective(watched.standing)
    versions = watched.monitor.view()
    on_log = watched.monitor.evidence_on_log()
    facts = [view.facts for view in versions.values()]
    evidence = [*on_log, *(found for view in versions.values() for found in view.evidence)]
    return ModelSnapshot(
        model=name,
        reference=watched.reference.sha256,
        reference_predictions=watched.reference.records,
        questions=watched.monitor.questions,
        versions=versions,
        lines=tuple(on_log),
        alerts=tuple(watched.standing.alerts.values()),
        decisions=tuple(decisions.values()),
        stories={version: watched.story(one, facts, evidence, fewest) for version, one in decisions.items()},
        overrides=tuple(watched.standing.overrides.values()),
        rollbacks=tuple(watched.standing.rollbacks.values()),
        late=watched.monitor.late,
        coverage=None if watched.monitor.coverage is None else watched.monitor.coverage.view(),
        read=watched.monitor.lines,
        unproven=watched.reference.unproven,
        quality=watched.reference.measures(),
        blind=watched.reference.blind,
        feedback=watched.monitor.labels.view(),
        displacement=watched.monitor.displacement,
        triggers=tuple(map(watched.redacted, watched.monitor.triggers.open())),
        mining=_mining_snapshot(watched),
    )


def _mining_snapshot(watched: Watched) -> MiningSnapshot:
    """How the miner and the probes do."""
    monitor, probing = watched.monitor, watched.probing
    golden = {name: monitor.golden.view(name) for name in monitor.running} if monitor.golden is not None else {}
    return MiningSnapshot(
        triggered=monitor.triggers.triggered,
        saturated=monitor.triggers.saturated > 0,
        probes=0 if probing is None else probing.prober.answered,
        probe_failures={} if probing is None else dict(probing.prober.failed),
        echoes=0 if probing is None else probing.echoes.met,
        golden={
            name: sum(view.right.values()) / sum(view.answered.values())
            for name, view in golden.items()
            if view.answered
        },
    )


def provenance(reference: Reference) -> dict[str, Any]:
    """What the journal says of a reference."""
    return {
        "sha256": reference.sha256,
        "records": reference.records,
        "timed": reference.timed,
        "unproven": reference.unproven,
        "blind": reference.blind,
        "origins": msgspec.to_builtins(reference.origins),
        "audit": msgspec.to_builtins(reference.audit),
    }
