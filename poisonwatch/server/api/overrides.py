"""What people order over HTTP: an override, or its end."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.errors import BusyError, OrderError, UnknownVersionError
from poisonwatch.server.api.answers import PRINTABLE, Author, OverrideAnswer, Why, Wish, Withdrawn
from poisonwatch.server.api.operation import Operation
from poisonwatch.server.api.queries import VERSION_PATH, model_of
from poisonwatch.server.api.requests import Parameter, Refused
from poisonwatch.server.api.telling import told_override
from poisonwatch.server.orders import Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from poisonwatch.judge.override import Override
    from poisonwatch.server.api.requests import Asked
    from poisonwatch.server.orders import Orders

ANSWER_SECONDS = 10.0
"""How long the loop is waited for."""

PATH = f"{VERSION_PATH}/override"
REFUSALS = (403, 404, 409)

AUTHOR = Parameter("author", Author, "Who withdraws it: a person.", required=True)
WHY = Parameter("reason", Why, "Why.", required=True)

EXPOSED = (
    "this agent listens on a network and does not ask who comes: overrides are taken once its web configuration "
    "(--web.config.file) has basic_auth_users or client_auth_type: RequireAndVerifyClientCert, or where it listens on 127.0.0.1"
)


def operations(orders: Orders | None, trusts: Callable[[], bool], seconds: float = ANSWER_SECONDS) -> list[Operation]:
    """What can be ordered. `trusts` says whether whoever reaches the agent may; the loop has `seconds` to answer."""

    async def override(asked: Asked) -> OverrideAnswer:
        _admit(trusts)
        wish = await _wish(asked)
        order = Order(
            asked.names["model"],
            asked.names["version"],
            wish.decision,
            wish.author,
            wish.reason,
            wish.expires_in_seconds,
            wish.target,
            asked.user,
        )
        made = await _given(orders, order, asked, seconds)
        if made is None:
            raise Refused(409, "no override stands after this: somebody else withdrew it")
        return told_override(made)

    async def withdraw(asked: Asked) -> Withdrawn:
        _admit(trusts)
        author, reason = (_plain(name, asked.parameters[name]) for name in ("author", "reason"))
        order = Order(asked.names["model"], asked.names["version"], None, author, reason, 0.0, None, asked.user)
        await _given(orders, order, asked, seconds)
        return Withdrawn(model=order.model, model_version=order.model_version)

    return [
        Operation(
            "PUT",
            PATH,
            "override",
            "Decide for a version instead of the agent, for a time.",
            OverrideAnswer,
            override,
            body=Wish,
            refusals=(*REFUSALS, 408, 413, 415),
        ),
        Operation(
            "DELETE",
            PATH,
            "withdraw",
            "End an override before its time.",
            Withdrawn,
            withdraw,
            (AUTHOR, WHY),
            refusals=REFUSALS,
        ),
    ]


def _admit(trusts: Callable[[], bool]) -> None:
    if not trusts():
        raise Refused(403, EXPOSED)


async def _wish(asked: Asked) -> Wish:
    """What a body asks for.

    Raises:
        Refused: names the field that is wrong.
    """
    if asked.content_type != "application/json":
        raise Refused(
            415, "say what you decide as application/json, in the header Content-Type too", Connection="close"
        )
    body = await asked.body()
    try:
        wish = msgspec.json.decode(body, type=Wish)
    except msgspec.ValidationError as error:
        raise Refused(400, f"body: {error}; it takes {', '.join(Wish.__struct_fields__)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, f"body: this is no JSON object with {', '.join(Wish.__struct_fields__)}") from None
    _plain("author", wish.author)
    _plain("reason", wish.reason)
    return wish


def _plain(name: str, text: str) -> str:
    if re.fullmatch(PRINTABLE, text) is None:
        raise Refused(400, f"{name}: text on one line with something on it, without control characters")
    return text


async def _given(orders: Orders | None, order: Order, asked: Asked, seconds: float) -> Override | None:
    """What the loop answers to an order.

    Raises:
        Refused: when it refuses, or does not answer.
    """
    model_of(asked.snapshot, order.model)
    if orders is None:
        raise Refused(503, "this agent takes no orders")
    try:
        answer = orders.give(order)
    except BusyError as error:
        raise Refused(503, str(error), **{"Retry-After": "1"}) from None
    try:
        return await asyncio.wait_for(asyncio.wrap_future(answer), seconds)
    except UnknownVersionError as error:
        raise Refused(404, str(error)) from None
    except OrderError as error:
        raise Refused(409, str(error)) from None
    except TimeoutError:
        done = "it may still do it: look at /v1/overrides" if answer.running() else "nothing was changed"
        raise Refused(503, f"the agent did not answer within {seconds:g} seconds; {done}") from None
