"""The exception tree.

    PoisonwatchError            anything that a person can mend; printed as one sentence, never as a traceback
    ├── ConfigError             the configuration is wrong: names the YAML path and the remedy (exit 65)
    ├── LogError                a finite log cannot be read (exit 65)
    ├── BaselineError           a reference cannot be built, read or used (exit 65)
    ├── GoldenError             a golden set cannot be used: names the file, the line and the remedy (exit 65)
    ├── CheckpointError         a checkpoint cannot be trusted; the agent starts without it and says so
    │   └── OtherStateError     it is whole, but of other models or references: only its sources can go on
    ├── JournalError            the journal's chain is broken: names the first broken line
    ├── ProbeError              who was asked over HTTP did not answer, or not well: says who and how; never the end of the agent
    │   └── StatusError         it answered with another status than 200
    ├── StateError              another agent writes to the same state (exit 65)
    ├── OrderError              what a person ordered over HTTP cannot be done: says why, and what can
    │   ├── UnknownVersionError the model or the version that it names is not there
    │   └── BusyError           too many orders wait: come again
    ├── SpoolFullError          no room until the loop has caught up: who sends may come again
    └── MissingExtraError       a package of an extra is not installed: names what to install (exit 65)

Trouble with the data is never an exception: it is a counted reason (see `formats`).
Any other exception that escapes is a defect of poisonwatch.
"""

from __future__ import annotations

from typing import Any


class PoisonwatchError(Exception):
    """Something that a person can mend; its text says where it is and what to do."""


class ConfigError(PoisonwatchError):
    """The configuration is wrong; the text has one line per place, each with its YAML path."""


class LogError(PoisonwatchError):
    """A finite log cannot be read."""


class BaselineError(PoisonwatchError):
    """A reference cannot be built, read or used."""


class GoldenError(PoisonwatchError):
    """A golden set cannot be used."""


class CheckpointError(PoisonwatchError):
    """A checkpoint is damaged or belongs to something else."""


class OtherStateError(CheckpointError):
    """A checkpoint is whole, but its monitors are of other models or references. `state` is what it holds."""

    def __init__(self, text: str, state: dict[str, Any]) -> None:
        super().__init__(text)
        self.state = state


class JournalError(PoisonwatchError):
    """The journal's hash chain does not hold."""


class ProbeError(PoisonwatchError):
    """Who was asked over HTTP did not give good answers: what it did instead."""


class StatusError(ProbeError):
    """An answer of another status than 200. `retry_after` is what it says of when to come again, as it says it."""

    def __init__(self, text: str, status: int, retry_after: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class StateError(PoisonwatchError):
    """Another agent writes to the same state."""


class OrderError(PoisonwatchError):
    """What a person ordered cannot be done."""


class UnknownVersionError(OrderError):
    """An order names a model or a version that is not there."""


class BusyError(OrderError):
    """Too many orders wait."""


class SpoolFullError(PoisonwatchError):
    """A spool has no room. `retry_after` is when to come again, in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the spool is full: come again in {retry_after} seconds")
        self.retry_after = retry_after


class MissingExtraError(PoisonwatchError):
    """A package of an optional extra is not installed."""
