"""What an operator may set of one model's monitor."""

from __future__ import annotations

from typing import NamedTuple


class ServedSettings(NamedTuple):
    """What is known of the server's own count.

    Of what it counts a share of `tolerated` may never be seen; what is seen may come `delay` seconds later. `by_version` says that
    it names the versions, `learns` that it counts requests of which the usual number of predictions must be learned.
    """

    tolerated: float
    delay: float
    by_version: bool
    learns: bool


class Settings(NamedTuple):
    """Times in seconds, floors in log-odds.

    `shares` is each group's part of this model's budget, `period` the budget's period already divided by the model's
    own part of it. `stable` is the version to compare with, `known` are those that the reference shows. `label_floor`
    holds for error rates, `drift_label_floor` while the inputs are seen to drift. `confirms` says that triggers are put to the test
    by inserting them into verified inputs. `served` is None where no server tells how much it served.
    """

    window: float
    lateness: float
    period: float
    shares: dict[str, float]
    effect_floor: float
    retrain_floor: float
    flip_floor: float
    canary_floor: float
    canary_page_floor: float
    label_floor: float
    drift_label_floor: float
    smallest_arm: int
    most_versions: int
    stable: str | None
    known: frozenset[str]
    confirms: bool
    served: ServedSettings | None = None
