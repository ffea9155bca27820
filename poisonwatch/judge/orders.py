"""What people order: a decision of their own for a version, and its end. The agent then lets the judge restate what stands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import msgspec

from poisonwatch.errors import OrderError, UnknownVersionError
from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.judge.decision import find_target, is_condemned
from poisonwatch.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poisonwatch.judge.override import Override
    from poisonwatch.judge.standing import Standing
    from poisonwatch.types import VersionFacts

Kept = TypeVar("Kept")


def order(standing: Standing, override: Override, facts: Iterable[VersionFacts], fewest: int) -> Standing:
    """What stands once a person has decided for a version; `facts` are those of all versions that run.

    A target that the judge chooses has answered at least `fewest` predictions. An earlier override of it is replaced. Where it says anything but `rollback`, what was latched is let go and no rollback is watched any
    more: once it ends, the evidence decides anew. A `rollback` without a target leads where the judge would go.

    Raises:
        UnknownVersionError: when nothing was decided for the version.
        OrderError: when a rollback leads nowhere, or to a version that is not known, or not to be trusted; or what is no rollback leads anywhere.
    """
    name = override.model_version
    if name not in standing.decisions:
        seen = ", ".join(standing.decisions) or "none yet"
        msg = f"{override.model} has no version {name} with a decision: the versions are {seen}"
        raise UnknownVersionError(msg)
    if override.decision is Action.ROLLBACK:
        target = _target(standing, override, {one.model_version: one for one in facts}, fewest)
        made = msgspec.structs.replace(override, target=target)
        return replace(standing, overrides={**standing.overrides, name: made})
    if override.target is not None:
        msg = f"only a rollback has a target: leave {override.target} out, or decide `rollback`"
        raise OrderError(msg)
    return replace(
        standing,
        overrides={**standing.overrides, name: override},
        latched=_without(standing.latched, name),
        rollbacks=_without(standing.rollbacks, name),
    )


def withdraw(standing: Standing, version: str) -> Standing:
    """What stands once a person's override has ended. A rollback that it ordered and that nobody has carried out is watched no longer.

    Raises:
        UnknownVersionError: when there is none for the version.
    """
    if version not in standing.overrides:
        msg = f"no override stands for version {version}: see GET /v1/overrides for those that do"
        raise UnknownVersionError(msg)
    rollbacks = standing.rollbacks
    watched = rollbacks.get(version)
    ours = version in standing.latched
    if watched is not None and watched.state is RollbackState.AWAITED and not ours:
        rollbacks = _without(rollbacks, version)
    return replace(standing, overrides=_without(standing.overrides, version), rollbacks=rollbacks)


def expired(standing: Standing, now: float) -> list[Override]:
    """Overrides whose time is over at `now`, of the wall clock, those that ended first first."""
    over = (override for override in standing.overrides.values() if override.expires <= now)
    return sorted(over, key=lambda override: (override.expires, override.model_version))


def _target(standing: Standing, override: Override, running: dict[str, VersionFacts], fewest: int) -> str:
    """Where a person's rollback leads."""
    name, target = override.model_version, override.target
    if target is None:
        target = standing.decisions[name].target
        if target is None or is_condemned(target, standing):
            target = find_target(running[name], running.values(), standing, fewest) if name in running else None
        if target is None:
            msg = f"no version is known to be older or trusted, and clean: name the target of the rollback of {name} yourself"
            raise OrderError(msg)
        return target
    fit = {one for one in {*running, *standing.clean} - {name} if not _is_compromised(one, standing, running)}
    known = ", ".join(sorted(fit)) or "none"
    if target == name:
        msg = f"{name} cannot be rolled back to itself: name another target; known are {known}"
        raise OrderError(msg)
    if target not in running and target not in standing.clean:
        msg = f"{target} neither runs nor is remembered as clean: name another target, or let it answer some traffic first; known are {known}"
        raise OrderError(msg)
    if _is_compromised(target, standing, running):
        msg = f"{target} is compromised itself: name another target; known are {known}"
        raise OrderError(msg)
    return target


def _is_compromised(name: str, standing: Standing, running: dict[str, VersionFacts]) -> bool:
    return is_condemned(name, standing) or (name in running and running[name].triggered)


def _without(kept: dict[str, Kept], name: str) -> dict[str, Kept]:
    return {of: one for of, one in kept.items() if of != name}
