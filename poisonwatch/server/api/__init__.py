"""The API: requests are led to operations by their path as it was sent, answers and refusals are JSON.

A path is not decoded before it is taken apart: a name may hold any character, `/` too, and `a%2Fb` is one name where `a/b`
is two. Frameworks that decode first cannot tell these apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poisonwatch.server.api import flagger, overrides, queries
from poisonwatch.server.api.answers import as_json, refusal
from poisonwatch.server.api.openapi import document
from poisonwatch.server.api.operation import Operation
from poisonwatch.server.api.requests import STALE, Asked, Refused, checked, name_of, stale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from poisonwatch.server.orders import Orders
    from poisonwatch.sinks.snapshot import Published


class Api:
    """An ASGI application over what is published; `orders` go to the loop, from whom `trusts` says that they may."""

    def __init__(self, published: Published, orders: Orders | None, trusts: Callable[[], bool]) -> None:
        self._published = published

        async def told(_: Asked) -> dict[str, Any]:
            return self._document

        about = Operation("GET", "/v1/openapi.json", "openapi", "This document.", dict[str, Any], told, stale_too=True)
        operations = [about, *queries.operations(), *overrides.operations(orders, trusts), *flagger.operations()]
        self._document = document(operations)
        self._routes: dict[tuple[bytes, ...], dict[str, Operation]] = {}
        for operation in operations:
            segments = tuple(segment.encode() for segment in operation.path.split("/"))
            self._routes.setdefault(segments, {})[operation.method] = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            answer = as_json(await self._answer(scope, receive))
        except Refused as refused:
            answer = refusal(refused.status, refused.error, refused.headers)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Any:
        """What is answered.

        Raises:
            Refused: when there is no answer.
        """
        methods, names = self._found(scope["raw_path"])
        # HEAD is GET whose body stays here.
        operation = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if operation is None:
            allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
            raise Refused(405, f"this takes {', '.join(allowed)}", Allow=", ".join(allowed))
        snapshot = self._published.snapshot
        if stale(snapshot) and not operation.stale_too:
            raise Refused(503, f"the loop does not turn since {STALE:.0f} seconds: what was found before would be old")
        decoded = {name: name_of(segment) for name, segment in names.items()}
        parameters = checked(scope["query_string"], operation.parameters)
        return await operation.act(Asked(decoded, parameters, snapshot, scope, receive))

    def _found(self, path: bytes) -> tuple[Mapping[str, Operation], dict[str, bytes]]:
        """Operations by method, and the names in the path.

        Raises:
            Refused: when there is nothing there.
        """
        given = path.split(b"/")
        for segments, methods in self._routes.items():
            if len(segments) == len(given) and all(
                segment.startswith(b"{") or segment == part for segment, part in zip(segments, given, strict=True)
            ):
                pairs = zip(segments, given, strict=True)
                return methods, {name[1:-1].decode(): part for name, part in pairs if name.startswith(b"{")}
        raise Refused(404, "there is nothing here; /v1/openapi.json says what there is")
