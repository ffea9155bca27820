"""Overrides over HTTP: who may, what is taken, and what the loop answers."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.server.api import overrides
from poisonwatch.server.api.requests import Asked, Refused
from poisonwatch.server.orders import MOST_WAITING, Order, Orders
from poisonwatch.server.thread import Server
from tests.server.clients import PASSWORD, get, issue, lay_out, listening, trusting, web_file
from tests.server.loops import turning
from tests.server.snapshots import demo, fresh
from tests.server.test_access import MUTUAL, TLS, USERS, basic
from tests.server.test_api import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import Message

    from poisonwatch.server.api.operation import Operation

PATH = "/v1/models/sms-spam/versions/v2/override"
JSON = {"Content-Type": "application/json"}
WISH: dict[str, Any] = {"decision": "hold", "author": "ann", "reason": "our own campaign", "expires_in_seconds": 3600}


def put(address: str, wish: Any, path: str = PATH, **headers: str) -> tuple[int, Any]:
    """Status and JSON of what is answered to a wish."""
    body = wish if isinstance(wish, bytes) else json.dumps(wish).encode()
    return ask(address, path, "PUT", body, **{"Content_Type": "application/json", **headers})


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """HOST:PORT of a server over the demo's end whose orders are carried out."""
    published = fresh(demo())
    with turning(published) as orders, listening(published, orders=orders) as address:
        yield address


def test_override_and_withdraw(served: str) -> None:
    """What a person decides stands for as long as they say, in every answer, until it is withdrawn."""
    code, made = put(served, WISH | {"decision": "rollback", "target": "v1"})
    assert (code, made["decision"], made["author"], made["target"], made["user"]) == (200, "rollback", "ann", "v1", "")
    assert ask(served, "/v1/overrides") == (200, [made])
    assert ask(served, "/v1/models/sms-spam/versions/v2/decision")[1]["override"] == made
    code, again = put(served, WISH)
    assert (code, again["decision"]) == (200, "hold")
    assert ask(served, "/v1/overrides") == (200, [again])
    gone = {"model": "sms-spam", "model_version": "v2", "override": None}
    assert ask(served, f"{PATH}?author=ann&reason=done", "DELETE") == (200, gone)
    assert ask(served, "/v1/overrides") == (200, [])
    code, found = ask(served, f"{PATH}?author=ann&reason=done", "DELETE")
    assert code == 404
    assert found["error"].startswith("no override stands for version v2")


def test_what_the_loop_refuses(served: str) -> None:
    """Its words come back: not there, or not possible."""
    unknown = PATH.replace("v2", "v9")
    code, found = put(served, WISH, unknown)
    assert (code, found["error"].partition(":")[0]) == (404, "sms-spam has no version v9 with a decision")
    assert put(served, WISH, PATH.replace("sms-spam", "other"))[0] == 404
    code, found = put(served, WISH | {"decision": "rollback", "target": "v2"})
    assert code == 409
    assert found["error"].startswith("v2 cannot be rolled back to itself")
    code, found = put(served, WISH | {"target": "v1"})
    assert (code, found["error"].partition(":")[0]) == (409, "only a rollback has a target")
    assert ask(served, f"{unknown}?author=ann&reason=x", "DELETE")[0] == 404


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (b"", "body: this is no JSON object with decision, author, reason, expires_in_seconds, target"),
        (b"{", "body: this is no JSON object"),
        (b'"\xff"', "body: "),
        (b"[" * 60000, "body: "),
        ([], "body: Expected `object`, got `array`"),
        ({}, "body: Object missing required field `decision`; it takes decision, author"),
        (WISH | {"colour": "red"}, "body: Object contains unknown field `colour`; it takes decision, author"),
        (WISH | {"decision": "promote"}, "body: Invalid enum value 'promote' - at `$.decision`"),
        (WISH | {"author": ""}, "body: Expected `str` of length >= 1 - at `$.author`"),
        (WISH | {"author": "x" * 201}, "body: Expected `str` of length <= 200 - at `$.author`"),
        (WISH | {"reason": "x" * 1001}, "body: Expected `str` of length <= 1000 - at `$.reason`"),
        (WISH | {"author": " \t "}, "author: text on one line"),
        (WISH | {"author": "ann\n"}, "author: text on one line"),
        (WISH | {"author": "ann\nfake line"}, "author: text on one line"),
        (WISH | {"reason": "\x1b[31m"}, "reason: text on one line"),
        (WISH | {"reason": "\x01"}, "reason: text on one line"),
        (WISH | {"reason": "abc\u202ecba"}, "reason: text on one line"),
        (WISH | {"expires_in_seconds": 59.9}, "body: Expected `float` >= 60.0 - at `$.expires_in_seconds`"),
        (WISH | {"expires_in_seconds": 2592001}, "body: Expected `float` <= 2592000.0 - at `$.expires_in_seconds`"),
        (WISH | {"expires_in_seconds": "60"}, "body: Expected `float`, got `str`"),
        (WISH | {"expires_in_seconds": True}, "body: Expected `float`, got `bool`"),
        (WISH | {"target": ""}, "body: Expected `str` of length >= 1 - at `$.target`"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_wishes_that_are_wrong(served: str, wish: Any, told: str) -> None:
    """Each is refused with the field and what is expected there, and nothing is changed."""
    code, found = put(served, wish)
    assert code == 400
    assert found["error"].startswith(told)
    assert ask(served, "/v1/overrides") == (200, [])


@pytest.mark.parametrize(
    "query", ["", "author=ann", "reason=x", "author=&reason=x", "author=a&reason=%0A", "author=a&reason=x&all=1"]
)
def test_withdrawals_that_are_wrong(served: str, query: str) -> None:
    """Who ends an override, and why, must be said too."""
    assert ask(served, f"{PATH}?{query}", "DELETE")[0] == 400


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_only_json(served: str, kind: str) -> None:
    """What a form on a web page can send is not taken, nor what does not say what it is."""
    assert put(served, WISH, Content_Type=kind)[0] == 415


def test_parameters_of_json(served: str) -> None:
    """The media type may say its encoding."""
    assert put(served, WISH, Content_Type="Application/JSON; charset=utf-8")[0] == 200
    assert ask(served, f"{PATH}?author=ann&reason=done", "DELETE")[0] == 200


def test_not_from_web_pages(served: str) -> None:
    """A browser says where a page comes from: neither order is taken from one."""
    assert put(served, WISH, Origin="http://127.0.0.1")[0] == 403
    assert ask(served, f"{PATH}?author=ann&reason=x", "DELETE", Origin="null")[0] == 403


@settings(max_examples=60, deadline=None)
@given(author=st.text(max_size=20), reason=st.text(max_size=20))
def test_what_is_taken_can_be_shown(served: str, author: str, reason: str) -> None:
    """What passes has something on its one line, and no control character; it comes back as it was said."""
    try:
        body = json.dumps(WISH | {"author": author, "reason": reason}).encode()
    except UnicodeEncodeError:
        return
    code, found = put(served, body)
    if code == 200:
        assert (found["author"], found["reason"]) == (author, reason)
        assert author.strip()
        assert reason.strip()
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in author + reason)
        assert ask(served, f"{PATH}?author=ann&reason=done", "DELETE")[0] == 200
    else:
        assert code == 400


def test_an_agent_that_takes_no_orders() -> None:
    """It says so."""
    with listening(fresh(demo())) as address:
        assert put(address, WISH) == (503, {"error": "this agent takes no orders"})


def withdrawal(orders: Orders) -> str:
    """What is answered to a withdrawal where the loop has a tenth of a second."""
    (operation,) = (one for one in overrides.operations(orders, lambda: True, 0.1) if one.method == "DELETE")
    names, parameters = {"model": "sms-spam", "version": "v2"}, {"author": "ann", "reason": "done"}

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    asked = Asked(names, parameters, fresh(demo()).snapshot, {"type": "http"}, nothing)
    with pytest.raises(Refused) as refused:
        asyncio.run(_done(operation, asked))
    assert refused.value.status == 503
    return refused.value.error


async def _done(operation: Operation, asked: Asked) -> None:
    await operation.act(asked)


def test_a_loop_that_does_not_answer() -> None:
    """An order that nobody takes is taken back, so that it is not carried out later; one that was begun may still be done."""
    orders = Orders()
    assert withdrawal(orders) == "the agent did not answer within 0.1 seconds; nothing was changed"
    assert list(orders.take()) == []
    begun = threading.Event()

    def take() -> None:
        while not begun.wait(0.005):
            for _ in orders.take():
                begun.set()

    thread = threading.Thread(target=take)
    thread.start()
    told = withdrawal(orders)
    thread.join()
    assert told == "the agent did not answer within 0.1 seconds; it may still do it: look at /v1/overrides"


def test_too_many_orders() -> None:
    """Who finds the queue full is told to come again."""
    orders = Orders()
    for _ in range(MOST_WAITING):
        orders.give(Order("m", "v", None, "ann", "x", 0.0))
    assert withdrawal(orders).startswith("too many orders wait")


NETWORK = "127.1:0"
"""Loopback in a spelling that is not known for it, and so treated as a network."""


@contextmanager
def exposed(**given: Any) -> Iterator[str]:
    """HOST:PORT of a server that believes others reach it."""
    published = fresh(demo())
    with turning(published) as orders:
        server = Server(NETWORK, published, orders=orders, **given)
        server.start()
        try:
            yield server.address
        finally:
            server.close()


def test_who_may_on_a_network(tmp_path: Path) -> None:
    """On a network an override is taken only where nobody unknown is admitted; otherwise the remedy is told."""
    lay_out(tmp_path)
    for web in (None, web_file(tmp_path, TLS)):
        tls = None if web is None else trusting(tmp_path)
        with exposed(web_file=web) as address:
            for method, path in (("PUT", PATH), ("DELETE", f"{PATH}?author=ann&reason=x")):
                body = json.dumps(WISH).encode()
                code, _, found = get(address, path, tls=tls, method=method, body=body, headers=JSON)
                assert code == 403
                for remedy in (b"basic_auth_users", b"RequireAndVerifyClientCert", b"127.0.0.1"):
                    assert remedy in found
            assert get(address, "/v1/overrides", tls=tls)[2] == b"[]"
    with exposed(web_file=web_file(tmp_path, USERS)) as address:
        assert put(address, WISH)[0] == 401
        code, made = put(address, WISH, **basic("ann", PASSWORD))
        assert (code, made["user"]) == (200, "ann")


def test_a_certificate_is_enough(tmp_path: Path) -> None:
    """Where only known certificates are admitted an override is taken."""
    issue(lay_out(tmp_path), tmp_path, "client", "client.test")
    with exposed(web_file=web_file(tmp_path, MUTUAL % "")) as address:
        body = json.dumps(WISH).encode()
        tls = trusting(tmp_path, "client")
        assert get(address, PATH, tls=tls, method="PUT", body=body, headers=JSON)[0] == 200


def test_the_user_is_told_on_loopback_too(tmp_path: Path) -> None:
    """Where a password is asked for, the journal can say whose it was, whatever the author calls themselves."""
    published = fresh(demo())
    file = web_file(tmp_path, USERS)
    with turning(published) as orders, listening(published, orders=orders, web_file=file) as address:
        made = put(address, WISH | {"author": "eve"}, **basic("ann", PASSWORD))[1]
    assert (made["author"], made["user"]) == ("eve", "ann")
