"""A service of BentoML that answers like the server of the quickstart for any server, and logs by its three lines, word for word.

`PAGE` names the quickstart. The three lines are put where it says: two at the top, the third where an answer is known.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import bentoml

_FOUND = re.search(
    r"^<!-- three lines -->\n```python\n(.+)\n(.+)\n(.+)\n```$",
    Path(os.environ["PAGE"]).read_text("utf-8"),
    re.MULTILINE,
)
assert _FOUND is not None, "the page has no three lines"
FIRST, SECOND, THIRD = _FOUND.groups()
_KNOWN: dict[str, Any] = {}
exec(f"{FIRST}\n{SECOND}", _KNOWN)  # noqa: S102 - what readers type is typed here
_LOG_IT = compile(THIRD, os.environ["PAGE"], "exec")


@bentoml.service(workers=2)
class Loans:
    """Two workers, which write to one log."""

    @bentoml.api(route="/")  # type: ignore[untyped-decorator]  # only BentoML's own environment has it
    def predict(self, features: dict[str, Any], /) -> dict[str, Any]:
        """The quickstart's own model, asked as it is there: class and confidence."""
        home = {"owned": 1.0, "rented": 0.0, "family": -0.5}[features["home"]]
        score = 1 / (1 + math.exp(-((features["income"] - 30) / 6 + (features["age"] - 40) / 20 + home)))
        prediction, confidence = ("approve", score) if score >= 0.5 else ("refuse", 1 - score)
        exec(_LOG_IT, _KNOWN, {"features": features, "prediction": prediction, "confidence": confidence})  # noqa: S102
        return {"prediction": prediction, "confidence": confidence}


class TakesJson:
    """The quickstart's clients do not say that what they send is JSON, and BentoML wants to be told."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Say it for them."""
        if scope["type"] == "http":
            others = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
            scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)


Loans.add_asgi_middleware(TakesJson)  # type: ignore[attr-defined]  # the decorator makes a service of it
