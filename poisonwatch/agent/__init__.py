"""The agent: one loop in one thread carries bytes to the monitors and facts to the sinks.

The same loop serves a live log and a replay; they differ in where lines come from, in the clock, and in when to stop.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import structlog

from poisonwatch import __version__, checkpoint
from poisonwatch.agent.watched import model_snapshot, provenance
from poisonwatch.errors import CheckpointError, OrderError, OtherStateError, UnknownVersionError
from poisonwatch.formats.records import LATEST
from poisonwatch.judge.orders import expired, order, withdraw
from poisonwatch.judge.standing import Standing, judge
from poisonwatch.notify.notices import notices_of
from poisonwatch.notify.notifier import Notifier
from poisonwatch.server.orders import Orders
from poisonwatch.sinks.journal import (
    accusation_entry,
    alert_entry,
    decision_entry,
    override_ended_entry,
    override_entry,
    rollback_entry,
    trigger_entry,
)
from poisonwatch.sinks.snapshot import Published, Snapshot
from poisonwatch.types import AlertState, Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from poisonwatch.agent.clocks import Clock
    from poisonwatch.agent.watched import Watched
    from poisonwatch.config import DetectionConfig
    from poisonwatch.judge.override import Override
    from poisonwatch.server.orders import Order
    from poisonwatch.sinks.journal import Journal
    from poisonwatch.sinks.lock import Lock
    from poisonwatch.sinks.snapshot import SourceSnapshot
    from poisonwatch.sources.intake import Intake
    from poisonwatch.types import Alert, Report

log = structlog.get_logger()

GOLDEN_REMEDY = "add verified inputs of these classes: triggers can hardly be tested with so few"

REST = 0.2
"""Seconds that the loop rests when it keeps up: a turn costs much more than a record, and so it gets them in batches."""

FULL = 500
"""Records in one turn from which on a turn costs more than what it costs to begin one."""

LONGEST_TURN = 30.0
"""Seconds between two turns beyond which the clock must have been set."""

PUBLISH_SECONDS = 1.0
"""How often a new snapshot is published while nothing changes."""

MISSES = 3
"""After how many snapshots without its file a source is told to be missing."""

SOURCE_REMEDY = "look whether the path is right, whether the agent may read there, and whether its server writes; it is looked for on"

DISK_REMEDY = "make room, or make it writable: it is tried again"


class App:
    """All state of the agent, owned by the thread that runs the loop.

    Where the logs of `intake` are finite, the loop ends with them. `tell` hears every entry of the journal as it is written.
    """

    def __init__(
        self,
        models: dict[str, Watched],
        intake: Intake,
        journal: Journal,
        detection: DetectionConfig,
        *,
        checkpoint_path: Path | None = None,
        checkpoint_seconds: float = math.inf,
        lock: Lock | None = None,
        skew_seconds: float = math.inf,
        notifier: Notifier | None = None,
        tell: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.models = models
        self.intake = intake
        self.published = Published()
        self.orders = Orders()
        self.exhausted = False
        self._taken = 0
        self._journal = journal
        self._detection = detection
        self._checkpoint_path = checkpoint_path
        self._checkpoint_seconds = checkpoint_seconds
        self._lock = lock
        self._skew = skew_seconds
        self._notifier = notifier or Notifier()
        self._resolved: list[Alert] = []
        self._tell = tell
        self._started = self._last_turn = self._last_data = self._last_published = self._last_checkpoint = 0.0
        self._checkpointed: float | None = None
        self._checkpoint_failures = 0
        self._unsaved_findings = False
        self._behind = False
        self._misses: Counter[str] = Counter()

    def start(self, now: float) -> None:
        """Take up the last checkpoint, or begin anew and say so in the journal."""
        self._started = self._last_turn = self._last_data = self._last_checkpoint = now
        if self._checkpoint_path is not None:
            self._restore(self._checkpoint_path, now)
        aside = self._journal.set_aside
        if aside is not None:
            log.error(aside["kind"], problem=aside["problem"], kept_as=aside["file"], remedy="find out who did this")
            self.note(now, aside)
        self.note(now, {"kind": "start", "version": __version__})
        if self._checkpointed is None:
            for name, watched in self.models.items():
                self.note(now, {"kind": "reference", "model": name, **provenance(watched.reference)})
                if watched.probing is not None:
                    golden = watched.probing.golden
                    self.note(
                        now, {"kind": "golden", "model": name, "sha256": golden.sha256, "records": len(golden.inputs)}
                    )
        for name, watched in self.models.items():
            if watched.probing is not None and watched.probing.golden.thin:
                log.warning("golden_set_thin", model=name, inputs=watched.probing.golden.thin, remedy=GOLDEN_REMEDY)
        ended = self._end_overrides(now)
        if self._checkpointed is None or aside is not None or ended:
            # A crash before the first checkpoint is due must know, too, what the journal said before it.
            self.save(now)
        self.publish(now)

    def turn(self, now: float) -> bool:
        """One turn of the loop; False when there was nothing to do."""
        self._note_time(now)
        latest = now + self._skew if math.isfinite(self._skew) else LATEST
        pieces, busy = self.intake.step(latest)
        for piece in pieces:
            if isinstance(piece, Batch):
                watched = self.models[piece.model]
                self._conclude(watched, watched.monitor.absorb(_without_echoes(watched, now, piece)))
            else:
                # A label names no model: it belongs to whichever knows its prediction.
                for watched in self.models.values():
                    self._conclude(watched, watched.monitor.learn(piece))
        self._taken = sum(piece.time.size for piece in pieces)
        if self._taken:
            self._last_data = now
        self.exhausted = not busy and not self.intake.live
        return busy

    @property
    def pressed(self) -> bool:
        """Is there so much to read that the next turn should begin at once?"""
        return self._taken >= FULL or self.intake.behind

    def probe(self, now: float) -> None:
        """Ask the endpoints what is due, and take up what they answered; never waits."""
        for name, watched in self.models.items():
            if watched.probing is not None:
                monitor = watched.monitor
                probed = watched.probing.turn(now, monitor.triggers.open(), monitor.running)
                self._conclude(watched, (monitor.tested(*tested) for tested in probed.insertions))
                self._conclude(watched, map(monitor.verified, probed.golden))
                for version, problem in probed.problems:
                    log.warning("endpoint_failed", model=name, model_version=version, problem=problem)

    def count_served(self, now: float) -> None:
        """Hold what the servers say they served against what was seen; never waits."""
        for name, watched in self.models.items():
            coverage = watched.monitor.coverage
            if watched.served is None or coverage is None:
                continue
            reading = watched.served.reading()
            if reading is not None:
                if reading.problem is not None:
                    log.warning("served_count_failed", model=name, problem=reading.problem)
                self._conclude(watched, watched.monitor.served(now, reading.series))
            if watched.served.ask(now):
                coverage.mark()

    def obey(self, now: float) -> None:
        """Carry out what people ordered, and end what has run out; never waits."""
        done = []
        for order_, answer in self.orders.take():
            try:
                done.append((answer, self._carry_out(now, order_)))
            except OrderError as error:
                answer.set_exception(error)
        if self._end_overrides(now) or done:
            # Whoever is told that it stands must find it so, also after a crash.
            self.save(now)
            self.publish(now)
        for answer, stands in done:
            answer.set_result(stands)

    def _end_overrides(self, now: float) -> bool:
        """End what has run out: was there any?"""
        over = [(watched, override) for watched in self.models.values() for override in expired(watched.standing, now)]
        for watched, override in over:
            watched.standing = withdraw(watched.standing, override.model_version)
            self.note(now, override_ended_entry(override, "expired"))
            self._unsaved_findings = True
            self._conclude(watched, [watched.monitor.restated()])
        return bool(over)

    def idle(self, now: float) -> None:
        """When live logs have given nothing usable for long, what is open is judged.

        Event time does not follow the clock: a server that buffers its log is silent for minutes, then writes all of them.
        """
        if self.intake.live and now - self._last_data >= self._detection.quiet_seconds:
            self._last_data = now
            self.finish(now)

    def finish(self, now: float) -> None:
        """The logs have ended, for now or for good: judge what is open."""
        for watched in self.models.values():
            self._conclude(watched, watched.monitor.flush(now or watched.reference.last or 0.0))

    def publish(self, now: float, *, at_once: bool = True) -> None:
        """Leave a new snapshot for the server, at most once a second unless `at_once`; a replay has no server."""
        if not at_once and (not self.intake.live or 0 <= now - self._last_published < PUBLISH_SECONDS):
            return
        self._last_published = now
        self._watch_journal()
        sources = self.intake.snapshots()
        self._watch_sources(sources)
        self.published.snapshot = Snapshot(
            time=now,
            started=self._started,
            models=tuple(
                model_snapshot(name, watched, self._detection.min_predictions) for name, watched in self.models.items()
            ),
            sources=sources,
            counters=self.intake.counted(),
            checkpoint=self._checkpointed,
            checkpoint_failures=self._checkpoint_failures,
            journal_failures=self._journal.failures,
            journal_unwritten=self._journal.unwritten,
            dead_letters_lost=self.intake.dead_letters_lost,
            journal=tuple(self._journal.recent),
            receivers=self._notifier.counts(),
        )
        self._notifier.notify(now, notices_of(now, self._started, self.published.snapshot.models, self._resolved))
        self._resolved = []

    def save(self, now: float, *, at_once: bool = True) -> None:
        """Write a checkpoint when one is due, and let the sources forget what stands before it.

        One is due after every finding: what was shown must not be taken back by a crash.
        """
        due = at_once or self._unsaved_findings or not 0 <= now - self._last_checkpoint < self._checkpoint_seconds
        if self._checkpoint_path is None or not due:
            return
        self._last_checkpoint = now
        self._unsaved_findings = False
        state = self._state()
        try:
            checkpoint.save(self._checkpoint_path, state, self._identity())
        except OSError as error:
            self._checkpoint_failures += 1
            problem = error.strerror or str(error)
            log.warning("checkpoint_failed", path=str(self._checkpoint_path), error=problem, remedy=DISK_REMEDY)
        else:
            self._checkpointed = now
            self.intake.commit(state["intake"]["positions"])

    def note(self, at: float, entry: dict[str, Any]) -> None:
        """Write to the journal, then tell whoever listens."""
        self._journal.append(at, entry)
        self._tell({**entry, "time": at})

    def _watch_sources(self, sources: Iterable[SourceSnapshot]) -> None:
        """Say which source is not there, also when it never was, and when it is. A file that is rotated is away for a moment."""
        for source in sources:
            before = self._misses[source.name]
            self._misses[source.name] = 0 if source.found else before + 1
            if self._misses[source.name] == MISSES:
                log.warning("source_missing", source=source.name, remedy=SOURCE_REMEDY)
            if source.found and before >= MISSES:
                log.info("source_found", source=source.name)

    def _watch_journal(self) -> None:
        """Write what waits for the disk, and say when it begins to wait and when no more."""
        behind = not self._journal.write()
        if behind and not self._behind:
            log.error("journal_failed", unwritten=self._journal.unwritten, remedy=DISK_REMEDY)
        if self._behind and not behind:
            log.info("journal_written", remedy="none is needed: all that waited is in it, in its order")
        self._behind = behind

    def close(self, now: float) -> None:
        """Say goodbye in the journal and let go of files."""
        self.note(now, {"kind": "stop"})
        # Last, so that whatever is cut off the journal from now on is missed at the next start.
        self.save(now)
        self.intake.close()
        self._notifier.close()
        self._journal.close()
        for watched in self.models.values():
            for asking in (watched.probing, watched.served):
                if asking is not None:
                    asking.close()
        if self._lock is not None:
            self._lock.close()

    def _conclude(self, watched: Watched, reports: Iterable[Report]) -> None:
        """Judge closed windows; what changed goes to the journal first."""
        for report in reports:
            overrides = watched.standing.overrides
            judged = judge(watched.standing, report, self._detection.min_predictions)
            watched.standing, alerts, decisions, rollbacks = judged
            for alert in alerts:
                self.note(report.time, alert_entry(alert))
            self._resolved += [alert for alert in alerts if alert.state is AlertState.RESOLVED]
            for trigger in report.triggers:
                self.note(report.time, trigger_entry(watched.redacted(trigger)))
            for accusation in report.accusations:
                self.note(report.time, accusation_entry(report.model, accusation))
            for decision in decisions:
                story = watched.story(decision, report.versions, report.evidence, self._detection.min_predictions)
                self.note(report.time, decision_entry(decision, story))
            for rollback in rollbacks:
                self.note(report.time, rollback_entry(rollback))
            for version in overrides.keys() - watched.standing.overrides.keys():
                self.note(report.time, override_ended_entry(overrides[version], "gone"))
            found = alerts or report.accusations or report.triggers or decisions or rollbacks
            self._unsaved_findings = self._unsaved_findings or bool(found)

    def _carry_out(self, now: float, asked: Order) -> Override | None:
        """The override that stands after an order.

        Raises:
            OrderError: when it cannot be done.
        """
        watched = self.models.get(asked.model)
        if watched is None:
            msg = f"there is no model {asked.model!r} here: {', '.join(map(repr, self.models))}"
            raise UnknownVersionError(msg)
        before = watched.standing.overrides.get(asked.model_version)
        override = asked.override(now)
        if override is None:
            watched.standing = withdraw(watched.standing, asked.model_version)
        else:
            facts = [view.facts for view in watched.monitor.view().values()]
            watched.standing = order(watched.standing, override, facts, self._detection.min_predictions)
        stands = watched.standing.overrides.get(asked.model_version)
        if stands is not None:
            self.note(now, override_entry(stands))
        elif before is not None:
            self.note(now, override_ended_entry(before, "withdrawn", asked.author, asked.reason))
        self._unsaved_findings = True
        self._conclude(watched, [watched.monitor.restated()])
        return stands

    def _note_time(self, now: float) -> None:
        """A clock that was set, in either direction, has not made the logs silent for so long."""
        step = now - self._last_turn
        if not 0 <= step <= LONGEST_TURN:
            self._last_data += step
        self._last_turn = now

    def _identity(self) -> dict[str, Any]:
        """What saved arrays depend on: another of these, and they mean something else."""
        return {
            "models": {name: watched.reference.sha256 for name, watched in self.models.items()},
            "window_seconds": self._detection.window_seconds,
        }

    def _state(self) -> dict[str, Any]:
        return {
            "models": {
                name: {
                    "monitor": watched.monitor.state(),
                    "standing": msgspec.to_builtins(watched.standing),
                    "probing": None if watched.probing is None else watched.probing.state(),
                }
                for name, watched in self.models.items()
            },
            "intake": self.intake.state(),
            "journal": self._journal.position(),
        }

    def _restore(self, path: Path, now: float) -> None:
        try:
            state = checkpoint.load(path, self._identity())
        except OtherStateError as error:
            kept = checkpoint.set_aside(path)
            remedy = "sources go on where they were"
            log.warning("monitors_start_anew", error=str(error), kept_as=str(kept), remedy=remedy)
            self._restore_intake(error.state, held=False)
            return
        except CheckpointError as error:
            kept = checkpoint.set_aside(path)
            log.warning("checkpoint_refused", error=str(error), kept_as=str(kept), remedy="starting anew")
            return
        if state is None:
            return
        for name, saved in state["models"].items():
            watched = self.models[name]
            watched.monitor.restore(saved["monitor"])
            watched.standing = msgspec.convert(saved["standing"], Standing)
            if watched.probing is not None and saved["probing"] is not None:
                watched.probing.restore(saved["probing"])
        self._restore_intake(state, held=True)
        self._checkpointed = now
        log.info("checkpoint_restored", path=str(path))

    def _restore_intake(self, state: dict[str, Any], *, held: bool) -> None:
        """Take up what was read so far; `held` records only by monitors that know the same columns."""
        for name, problem in self.intake.restore(state["intake"], held=held):
            log.warning("source_lost", source=name, problem=problem)
        self._journal.resume(*state["journal"])


def _without_echoes(watched: Watched, now: float, batch: Batch) -> Batch:
    """A batch of the log without what the agent asked itself: its server counted that, and nobody hid it."""
    if watched.probing is None:
        return batch
    mine = watched.probing.echoes.without(now, batch)
    coverage = watched.monitor.coverage
    if coverage is not None and mine is not batch:
        left_out = _by_version(batch) - _by_version(mine)
        for version, count in left_out.items():
            coverage.note(version, count)
    return mine


def _by_version(batch: Batch) -> Counter[str]:
    counts = np.bincount(batch.version, minlength=len(batch.versions)).tolist()
    return Counter(dict(zip(batch.versions, counts, strict=True)))


def run(app: App, clock: Clock, stop: Callable[[], bool]) -> None:
    """Carry bytes to the monitors and facts to the sinks, until told to stop or the logs have ended."""
    app.start(clock.now())
    while not stop() and not app.exhausted:
        now = clock.now()
        app.turn(now)
        app.probe(now)
        app.count_served(now)
        app.obey(now)
        app.idle(now)
        app.save(now, at_once=False)
        app.publish(now, at_once=False)
        if not app.pressed:
            clock.sleep(REST)
    if app.exhausted:
        app.intake.end()
        app.finish(clock.now())
    now = clock.now()
    app.publish(now)
    app.close(now)
