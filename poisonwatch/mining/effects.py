"""What a pattern does in a version, and the trigger that it makes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from poisonwatch.profile.odds import LOG_CAP, LOG_ZERO
from poisonwatch.types import InsertionTest, Pattern, TriggerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from poisonwatch.mining.records import Records

FEWEST_TO_SAY = 3
"""Different predictions that bear a pattern and got another class, before it can be said that it does not work in a version."""

MANY = 8
"""Different flipped predictions that say enough where no other version can be compared with."""


class Past(NamedTuple):
    """What is known when a pattern surfaces, at `time`.

    `kept` are all predictions that are still known in full, odd ones and usual ones, of all classes and versions, which `names` names by their numbers;
    `since` says how many predictions of a version came from a time on.
    """

    kept: Records | None
    names: list[str]
    time: float
    since: Callable[[str, float], int]


@dataclass(slots=True)
class Effect:
    """Counts of one version: all predictions since the trigger was opened, and those that bear the pattern.

    `answered` got its class, `flipped` flip of these; `fresh_*` are without near-duplicates, and `different` of the latter say something
    else beside the pattern, too. Since the trigger was opened `met` predictions came, of which `borne` bear it. `surfaced` says that the pattern's
    e-process crossed in this version; `test` is what insertion said.
    """

    predictions: int = 0
    matched: int = 0
    answered: int = 0
    flipped: int = 0
    fresh_matched: int = 0
    fresh_answered: int = 0
    fresh_flipped: int = 0
    different: int = 0
    met: int = 0
    borne: int = 0
    log_e: float = LOG_ZERO
    surfaced: bool = False
    convicted: bool = False
    test: InsertionTest | None = None

    @property
    def against(self) -> int:
        """Different predictions that bear the pattern and got another class."""
        return self.fresh_matched - self.fresh_answered

    @property
    def strong(self) -> bool:
        """Is it evident in this version alone: in many different predictions, and seldom without success?"""
        return min(self.different, self.fresh_flipped) >= MANY and self.fresh_flipped >= 2 * self.against

    @property
    def confirmed(self) -> bool:
        """Did insertion into verified inputs confirm it in this version?"""
        return self.test is not None and self.test.verdict is TriggerState.CONFIRMED

    @property
    def refuted(self) -> bool:
        """Did insertion into verified inputs refute it in this version?"""
        return self.test is not None and self.test.verdict is TriggerState.REFUTED

    @property
    def strength(self) -> float:
        """Evidence in nats: of what was met, or of what insertion showed."""
        return min(max(self.log_e, self.test.log_e), LOG_CAP) if self.confirmed and self.test else self.log_e

    @property
    def works(self) -> bool | None:
        """Does the version follow the pattern? None where too few predictions bear it."""
        if self.confirmed or (self.convicted and (self.strong or not self.refuted)):
            return True
        if self.refuted:
            return False
        return False if self.against >= FEWEST_TO_SAY and 10 * self.fresh_flipped <= self.against else None


@dataclass(slots=True)
class Incident:
    """One trigger. `told` is how many predictions it had when it was last told of."""

    trigger: str
    label: int
    pattern: Pattern
    version: str
    first_seen: float
    last_seen: float
    state: TriggerState = TriggerState.SURFACED
    effects: dict[str, Effect] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    told: int = 0
    told_contrast: bool = False
