"""What is answered over HTTP, from the published snapshot alone: the metrics, health, the status page; and the API beside them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import threading
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from poisonwatch.server.api import Api
from poisonwatch.server.api.answers import refusal
from poisonwatch.server.api.requests import STALE, stale
from poisonwatch.server.page import STYLE, page
from poisonwatch.sinks.prometheus import registry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from poisonwatch.server.orders import Orders
    from poisonwatch.sinks.snapshot import Published, Snapshot

MOST_FORMS = 8
"""Forms of the metrics that are kept of one snapshot."""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

SECURITY_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing is loaded, run, framed or kept, whatever names a log brings onto the page."""


def build(
    published: Published,
    routes: Sequence[Route] = (),
    *,
    orders: Orders | None = None,
    trusts: Callable[[], bool] = lambda: True,
) -> Starlette:
    """The application over whatever snapshot is published at the time of a request, and further routes beside it.

    `orders` is where overrides go, None for an agent that takes none; `trusts` says whether whoever reaches it may override.
    """
    pages = _Pages(published)
    app = Starlette(
        routes=[
            *routes,
            Route("/", lambda _: HTMLResponse(page(published.snapshot))),
            Route("/metrics", pages.answer),
            Route("/-/healthy", lambda _: _healthy(published)),
            Route("/-/ready", lambda _: _ready(published)),
        ],
        exception_handlers={HTTPException: _refused},
    )
    # Behind the routes, so that a path that somebody gave to a source is the source's alone, whatever the method.
    app.router.default = Api(published, orders, trusts)
    # An agent sends nobody elsewhere.
    app.router.redirect_slashes = False
    return app


def _refused(_: Request, error: Exception) -> Response:
    """What a route does not take."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    return refusal(error.status_code, error.detail, error.headers)


class _Pages:
    """The metrics, rendered once for each snapshot and form, however often and by however many they are asked for."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._registry = registry_of(published)
        self._lock = threading.Lock()
        self._of: Snapshot | None = None
        self._rendered: dict[tuple[str, bool], bytes] = {}

    def answer(self, request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        packed = "gzip" in request.headers.get("accept-encoding", "")
        headers = {"Content-Type": content_type, **({"Content-Encoding": "gzip"} if packed else {})}
        with self._lock:
            # Taken before it is rendered: if the loop publishes meanwhile, the page is rendered anew the next time.
            snapshot = self._published.snapshot
            if snapshot is not self._of or len(self._rendered) >= MOST_FORMS:
                self._of, self._rendered = snapshot, {}
            if (content_type, packed) not in self._rendered:
                body = encoder(self._registry)
                # Level 1: ten times faster than the default for a sixth more bytes.
                self._rendered[content_type, packed] = gzip.compress(body, 1) if packed else body
            return Response(self._rendered[content_type, packed], headers=headers)


def _healthy(published: Published) -> Response:
    if stale(published.snapshot):
        return PlainTextResponse(f"The loop has not turned for {STALE:.0f} seconds.\n", 503)
    return PlainTextResponse("poisonwatch is healthy.\n")


def _ready(published: Published) -> Response:
    if published.snapshot is None:
        return PlainTextResponse("poisonwatch is starting.\n", 503)
    return PlainTextResponse("poisonwatch is ready.\n")
