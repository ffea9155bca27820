"""One thing that can be asked of the API: how it is addressed, what it takes and gives, and what does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from poisonwatch.server.api.requests import Asked, Parameter


@dataclass(frozen=True, slots=True)
class Operation:
    """`path` has names in braces, each one segment. `body` and `answer` are types; `refusals` statuses beside those that all may have.

    `stale_too` says that it answers for itself while the loop does not turn.
    """

    method: str
    path: str
    name: str
    summary: str
    answer: Any
    act: Callable[[Asked], Awaitable[Any]]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    refusals: tuple[int, ...] = ()
    stale_too: bool = False
