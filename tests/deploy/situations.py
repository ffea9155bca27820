"""What controllers are answered in each state of the world, and the stories that are played to them.

That the agent and Prometheus really answer so is tested where they are real: test_decision_query.py and test_flagger.py.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

from tests.deploy.controllers import Answers

if TYPE_CHECKING:
    from collections.abc import Callable

NO_SERVER = (None, None, None)


class State(Enum):
    """Of the agent, of Prometheus and of the network between them and a controller."""

    KEEP = Answers([0.0], (200, "keep"), 200, 409)
    HOLD = Answers([1.0], (200, "hold"), 409, 409)
    ROLLBACK = Answers([2.0], (200, "rollback"), 409, 200)
    UNKNOWN = Answers([1.0], (404, ""), 409, 409)
    STUCK = Answers([1.0], (503, ""), 409, 409)
    DEAD = Answers([1.0], *NO_SERVER)
    UNSCRAPED = Answers([1.0], (200, "keep"), 200, 409)
    """The agent lives and says keep, but its last scrape failed."""
    UNREACHABLE = Answers([0.0], *NO_SERVER)
    """The agent says keep to Prometheus, but controllers cannot reach it."""
    UNREACHABLE_ROLLBACK = Answers([2.0], *NO_SERVER)
    NO_PROMETHEUS = Answers(None, (200, "keep"), 200, 409)
    NO_NETWORK = Answers(None, *NO_SERVER)
    EMPTY = Answers([], (200, "keep"), 200, 409)
    """Somebody has put a query of his own in place of ours, which gives nothing; or NaN; or two series."""
    NAN = Answers([math.nan], (200, "keep"), 200, 409)
    TWO = Answers([0.0, 2.0], (200, "keep"), 200, 409)
    BROKEN = Answers(None, (200, ""), 204, 500)
    """Something else listens at the agent's address."""


S = State

AFTER = 5
"""Checks after which a story turns."""


def _turns(first: State, then: State) -> Callable[[int], State]:
    return lambda check: first if check < AFTER else then


STORIES: dict[str, Callable[[int], State]] = {
    "keep throughout": lambda _: S.KEEP,
    "hold, then keep": _turns(S.HOLD, S.KEEP),
    "hold for ever": lambda _: S.HOLD,
    "rollback at once": lambda _: S.ROLLBACK,
    "keep, then rollback": _turns(S.KEEP, S.ROLLBACK),
    "hold, then rollback": _turns(S.HOLD, S.ROLLBACK),
    "keep and hold in turn": lambda check: (S.KEEP, S.HOLD)[check % 2],
    "the agent does not know the version": lambda _: S.UNKNOWN,
    "the agent is dead from the start": lambda _: S.DEAD,
    "keep, then the agent dies": _turns(S.KEEP, S.DEAD),
    "the agent dies and comes back": lambda check: S.DEAD if AFTER <= check < 2 * AFTER else S.KEEP,
    "the agent's loop is stuck (on any decision)": lambda _: S.STUCK,
    "every other scrape fails": lambda check: (S.KEEP, S.UNSCRAPED)[check % 2],
    "controllers cannot reach the agent, which says keep": lambda _: S.UNREACHABLE,
    "controllers cannot reach the agent, which says rollback": lambda _: S.UNREACHABLE_ROLLBACK,
    "Prometheus is down": lambda _: S.NO_PROMETHEUS,
    "keep, then neither Prometheus nor the agent answers": _turns(S.KEEP, S.NO_NETWORK),
    "a query that is not ours gives no series": lambda _: S.EMPTY,
    "a query that is not ours gives NaN": lambda _: S.NAN,
    "something else answers at the agent's address": lambda _: S.BROKEN,
}


def world(story: Callable[[int], State]) -> Callable[[int, int], Answers]:
    """A story as a controller meets it: nobody has judged a version that gets no traffic.

    While the weight is 0 a live agent does not know the version; the story begins with the version's first request.
    """
    began: list[int] = []

    def answers(check: int, weight: int) -> Answers:
        if weight:
            began.append(check)
            return story(check - began[0]).value
        now = story(0).value
        gate, rollback = (409 if status == 200 else status for status in (now.gate, now.rollback))
        return Answers(now.query and [1.0], now.decision and (404, ""), gate, rollback)

    return answers
