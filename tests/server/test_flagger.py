"""Flagger's two questions: 2xx means yes, and yes means the opposite for the two, so silence must be neither."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.server.api.requests import MOST_BODY, STALE
from poisonwatch.sinks.snapshot import Published
from poisonwatch.types import Action
from tests.server.clients import listening
from tests.server.snapshots import demo, fresh
from tests.server.stories import changed
from tests.server.test_api import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

GATE, ROLLBACK = "/flagger/gate", "/flagger/rollback"


@pytest.fixture(scope="module")
def published() -> Published:
    """What the module's server answers from."""
    return Published()


@pytest.fixture(scope="module")
def address(published: Published) -> Iterator[str]:
    """HOST:PORT of it."""
    with listening(published) as found:
        yield found


@pytest.fixture
def served(address: str, published: Published) -> str:
    """The same over the demo's end: v1 keep, v2 rollback."""
    published.snapshot = fresh(demo()).snapshot
    return address


def sent(version: str = "v2", **changes: Any) -> dict[str, Any]:
    """What Flagger sends."""
    metadata = {"model": "sms-spam", "model_version": version}
    usual = {"name": "spam", "namespace": "ml", "phase": "Progressing", "checksum": "85d557f47b", "metadata": metadata}
    return usual | changes


def flagger(address: str, path: str, body: Any) -> tuple[int, Any]:
    """Status and JSON of what is answered to a webhook."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(address, path, "POST", raw, Content_Type="application/json")


def test_yes_and_no(served: str) -> None:
    """The gate opens for keep alone, the rollback is ordered for rollback alone; every no says why."""
    assert flagger(served, GATE, sent("v1"))[0] == 200
    assert flagger(served, ROLLBACK, sent("v2"))[0] == 200
    code, found = flagger(served, GATE, sent("v2"))
    assert code == 409
    assert found["error"].startswith("sms-spam v2: rollback to v1. sms-spam v2 answers 'ham' where")
    code, found = flagger(served, ROLLBACK, sent("v1"))
    assert (code, found["error"].split(".")[0]) == (409, "sms-spam v1: keep")


def test_hold_is_neither(served: str, published: Published) -> None:
    """A version that is held is not promoted and not rolled back."""
    (model,) = demo().models
    kept = model.decisions[0]
    fields = {name: getattr(kept, name) for name in kept.__struct_fields__}
    published.snapshot = fresh(changed(demo(), decisions=(type(kept)(**{**fields, "decision": Action.HOLD}),))).snapshot
    for path in (GATE, ROLLBACK):
        assert flagger(served, path, sent("v1"))[0] == 409


def test_named_in_the_query(served: str) -> None:
    """The query may name them instead, or as well where it says the same, and then there need be no body."""
    query = "?model=sms-spam&model_version=v1"
    for body in (b"", b" ", sent("v1"), sent(metadata={}), sent(metadata=None), {}):
        assert flagger(served, GATE + query, body)[0] == 200
    code, found = flagger(served, GATE + query, sent("v2"))
    assert code == 409
    assert "model_version: two of them are named, v1 and v2" in found["error"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "model: none is named: say it once, in the query or in the metadata"),
        ({}, "model: none is named"),
        (sent(metadata={"model": "sms-spam"}), "model_version: none is named"),
        (sent(metadata={"model": "", "model_version": ""}), "model: none is named"),
        (sent("v9"), "no decision for sms-spam/v9; known: sms-spam/v1, sms-spam/v2"),
        (sent(metadata={"model": "other", "model_version": "v1"}), "no model is called other"),
        (sent(metadata=[]), "body: this is not what Flagger sends"),
        (sent(metadata={"model": 1}), "body: this is not what Flagger sends"),
        (b"{", "body: this is not what Flagger sends"),
        (b"\xff", "body: this is not what Flagger sends"),
        (b"[" * 50000, "body: this is not what Flagger sends"),
        (b" " * (MOST_BODY + 1), f"a body may have {MOST_BODY} bytes"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_not_known(served: str, body: Any, told: str) -> None:
    """Whatever cannot be told for sure is no for both."""
    for path in (GATE, ROLLBACK):
        code, found = flagger(served, path, body)
        assert code == 409
        assert found["error"].startswith(told)


def test_starting_and_stale(served: str, published: Published) -> None:
    """An agent that does not turn says neither yes."""
    stale = dataclasses.replace(demo(), time=time.time() - STALE - 5)
    for snapshot, told in ((None, "the agent is starting"), (stale, "the loop has not turned for 60 seconds")):
        published.snapshot = snapshot
        for path in (GATE, ROLLBACK):
            for version in ("v1", "v2"):
                code, found = flagger(served, path, sent(version))
                assert code == 409
                assert found["error"].startswith(told)


@settings(max_examples=100, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=100),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["metadata", "name", "x"]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    query=st.sampled_from(["", "?", "?model=sms-spam", "?model_version=v1", "?model=sms-spam&model=sms-spam", "?x=1"]),
)
def test_never_yes_by_accident(address: str, published: Published, body: bytes, query: str) -> None:
    """No body that does not name a version opens the gate or orders a rollback."""
    published.snapshot = fresh(demo()).snapshot
    for path in (GATE, ROLLBACK):
        code, found = flagger(address, path + query, body)
        assert code in {400, 409}
        assert found["error"]


def test_reading_is_no_answer(served: str) -> None:
    """A look at it by a browser or a probe is not taken for the question."""
    for path in (GATE, ROLLBACK):
        assert ask(served, f"{path}?model=sms-spam&model_version=v1")[0] == 405
