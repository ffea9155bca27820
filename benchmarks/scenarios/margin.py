"""How many nats a log was away from another verdict: the judge is pure, so it can be asked again.

The overheard reports are judged anew with all evidence that speaks for harm raised (or lowered) by the same amount; the
evidence that takes a version's part (inputs, data quality) stays, so that the nearest page is found and not the loudest ticket.
Effects stay too: an effect below its floor keeps silent however much evidence there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch.judge.standing import Standing, judge
from poisonwatch.profile.indicators import CANARY_INPUTS, INPUTS, QUALITY, REJECTED, VOLUME
from poisonwatch.types import AlertState, Report, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from poisonwatch.types import Alert

EXONERATING = frozenset([INPUTS, CANARY_INPUTS, QUALITY, REJECTED, VOLUME])
FARTHEST = 64.0
PRECISION = 0.25
FEWEST = 200
"""The default of `detection.min_predictions`."""


def read(path: Path) -> tuple[list[Report], list[dict[str, Any]]]:
    """The overheard reports, and the most of each group."""
    *reports, last = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Report) for line in reports], msgspec.json.decode(last)["most"]


def nearest_page(reports: Sequence[Report]) -> float:
    """By how many nats evidence must rise for the first page; 0 or less where one came anyway."""
    return _least(lambda nats: _pages(reports, nats, lambda _: True))


def nearest_miss(reports: Sequence[Report], right: Callable[[Alert], bool]) -> float:
    """By how many nats evidence must fall for the last right page to vanish; 0 where none came."""
    return _least(lambda nats: not _pages(reports, -nats, right))


def _least(changed: Callable[[float], bool]) -> float:
    """The least amount at which the verdict is another, up to the farthest."""
    if not changed(FARTHEST):
        return FARTHEST
    low, high = 0.0, FARTHEST
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if changed(middle) else (middle, high)
    return high if low else 0.0


def _pages(reports: Sequence[Report], nats: float, right: Callable[[Alert], bool]) -> bool:
    standing = Standing()
    for report in reports:
        moved = tuple(
            e if e.group in EXONERATING else msgspec.structs.replace(e, log_e=e.log_e + nats) for e in report.evidence
        )
        standing, alerts, *_ = judge(standing, msgspec.structs.replace(report, evidence=moved), FEWEST)
        if any(a.state is AlertState.FIRING and a.severity is Severity.PAGE and right(a) for a in alerts):
            return True
    return False
