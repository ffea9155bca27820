"""Why a decision is what it is, for a person who has a minute."""

from __future__ import annotations

import msgspec


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind the decision for one version; sentences in English.

    `onset` is when it began, `share` which part of the version's predictions since then is touched and `predictions` how many these are; None
    where nothing is wrong, or where it cannot be known. `speaks_for` and `speaks_against` are evidence for and against the decision, `ruled_out`
    what else it might have been and why it is not, `would_change` what would lead to another answer, `target_because` why the target is
    believed to be clean.
    """

    onset: float | None
    share: float | None
    predictions: int | None
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]
    ruled_out: tuple[str, ...]
    would_change: tuple[str, ...]
    target_because: str | None
