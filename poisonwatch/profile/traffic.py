"""Who answers the traffic: which versions run side by side, which of them is the stable one, which are gone.

Time without any traffic hardly counts here: a silent weekend must neither retire a version nor change who is compared with
whom. And the order in which versions were first met says little: a canary may be the first to write after a start.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from poisonwatch.types import OTHER_VERSIONS

CONCURRENT = 3600.0
"""Seconds of other versions' traffic after which a silent version no longer runs beside them; no gap counts for more."""

RETIRED = 86400.0
"""Seconds of other versions' traffic after which a silent version is gone."""

FEWEST_SHARE = 0.05
"""Share of the recent traffic below which a version is no yardstick: a straggler that was not updated, or a forged name."""

ESTABLISHED = 500
"""Predictions after which the version that others are compared with keeps that place while it runs."""


@dataclass(slots=True)
class _Presence:
    """How much a version answered in all, recently (fading over `CONCURRENT`), and how long it has been silent.

    `after` are the versions that had been stable when it was first met.
    """

    after: list[str]
    total: int = 0
    recent: float = 0.0
    silent: float = 0.0


class Traffic:
    """Follows the versions of one model. `configured` is the stable version by decree, `known` those of the reference."""

    def __init__(self, configured: str | None, known: frozenset[str]) -> None:
        self._configured = configured
        self._known = known
        self._presence: dict[str, _Presence] = {}
        self._order: dict[str, int] = {}
        self._judged = math.nan
        self.stable: str | None = None

    def note(self, time: float, counts: dict[str, int]) -> list[str]:
        """Take the predictions of one closed window into account, by version; the versions that are gone now."""
        passed = min(max(time - self._judged, 0.0), CONCURRENT) if math.isfinite(self._judged) else 0.0
        self._judged = time
        for presence in self._presence.values():
            presence.recent *= math.exp(-passed / CONCURRENT)
            presence.silent += passed
        for name, count in counts.items():
            presence = self._presence.setdefault(name, _Presence(list(self._order)))
            presence.total += count
            presence.recent += count
            presence.silent = 0.0
        gone = [name for name, presence in self._presence.items() if presence.silent > RETIRED]
        for name in gone:
            del self._presence[name]
        self.stable = self._choose()
        if self.stable is not None and self._is_settled(self.stable):
            self._order.setdefault(self.stable, len(self._order))
        return gone

    def comparable(self, version: str) -> bool:
        """Is it held against the stable version? Not one that was stable before it: the newer has to prove itself."""
        if self.stable is None or version in {self.stable, OTHER_VERSIONS} or not self._is_settled(self.stable):
            return False
        return self._order.get(version, math.inf) > self._order[self.stable]

    def elders(self, version: str) -> tuple[str, ...]:
        """The versions known to be older or trusted, and no mere guess: the configured one, then the most recent first."""
        if version == OTHER_VERSIONS:
            return ()
        trusted = [] if version in {*self._known, self._configured} else [*sorted(self._known)]
        decreed = [] if self._configured in {None, version} else [str(self._configured)]
        found = dict.fromkeys((*decreed, *reversed(self._presence[version].after), *trusted))
        return tuple(name for name in found if name not in {version, OTHER_VERSIONS})

    def _is_settled(self, version: str) -> bool:
        named = version == self._configured or version in self._known
        return named or self._presence[version].total >= ESTABLISHED

    def _choose(self) -> str | None:
        running = {n: p for n, p in self._presence.items() if p.silent <= CONCURRENT and n != OTHER_VERSIONS}
        if self._configured in running:
            return self._configured
        answered = sum(presence.recent for presence in running.values())
        fit = [name for name, presence in running.items() if presence.recent >= FEWEST_SHARE * answered]
        if self.stable in fit and self._is_settled(self.stable):
            return self.stable
        return max(fit, key=lambda name: (name in self._known, running[name].recent, name), default=None)

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "presence": {name: asdict(presence) for name, presence in self._presence.items()},
            "order": self._order,
            "judged": self._judged,
            "stable": self.stable,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._presence = {name: _Presence(**saved) for name, saved in state["presence"].items()}
        self._order = dict(state["order"])
        self._judged = state["judged"]
        self.stable = state["stable"]
