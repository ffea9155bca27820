"""CloudEvents in each of their modes say the same."""

from __future__ import annotations

import base64
import json
import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.formats.cloudevents import CloudEvent, cloud_events, event_time, structured
from poisonwatch.formats.foreign import Draft
from poisonwatch.formats.lenient import Rejected
from tests.formats.posted import JSON, reason_of
from tests.streams import START

EVENT = {"specversion": "1.0", "id": "a b", "type": "x.request", "source": "http://x/", "datacontenttype": "application/json"}  # fmt: skip
DATA = {"instances": [[1, "é"]]}
BODY = json.dumps(DATA).encode()
BATCH = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}
STRUCTURED = {"content-type": "Application/CloudEvents+JSON"}


def read(headers: dict[str, str], body: bytes, draft: Draft | None = None) -> list[CloudEvent]:
    """The events of one POST, which is one."""
    found = cloud_events(headers, body, Draft() if draft is None else draft)
    assert found is not None
    return found


@pytest.mark.parametrize("prefix", ["ce-", "ce_"])
def test_binary_mode(prefix: str) -> None:
    """Attributes are headers, also as Kafka writes them and percent-encoded; the content type is the data's."""
    headers = {
        f"{prefix}{name}": value.replace(" ", "%20") for name, value in EVENT.items() if name != "datacontenttype"
    }
    (found,) = read({**headers, "content-type": "application/json", "host": "x"}, BODY)
    assert found == CloudEvent(EVENT, BODY)


def test_structured_and_batch_mode() -> None:
    """Data may be JSON, the text of it, or base64."""
    (plain,) = read(STRUCTURED, json.dumps({**EVENT, "data": DATA}).encode())
    (text,) = read(STRUCTURED, json.dumps({**EVENT, "data": BODY.decode()}).encode())
    encoded = base64.b64encode(BODY).decode()
    batch = read(BATCH, json.dumps([{**EVENT, "data_base64": encoded}, {**EVENT, "Id": "2", "data": DATA}]).encode())
    assert text == batch[0] == CloudEvent(EVENT, BODY)
    assert plain.attributes == EVENT
    assert json.loads(plain.data) == json.loads(batch[1].data) == DATA


def test_attributes_that_are_no_strings() -> None:
    """A store's number, truth or object is its JSON; null is no attribute."""
    (found,) = structured({"id": 7, "ok": True, "annotations": {"v": "2"}, "time": None, "data": None}, b"", Draft())
    assert found.attributes == {"id": "7", "ok": "true", "annotations": '{"v":"2"}'}


def test_a_broken_member_costs_no_other() -> None:
    """What is wrong with one event of a batch is counted for that one."""
    draft = Draft()
    found = read(BATCH, json.dumps([7, {**EVENT, "data_base64": "?"}, {**EVENT, "data": 1}]).encode(), draft)
    assert [event.data for event in found] == [b"1"]
    assert draft.rejected == {"not_an_object": 1, "bad_base64": 1}


def test_a_missing_version_is_a_fault_only() -> None:
    """Some senders forget `specversion`; their events count."""
    draft = Draft()
    assert len(read({"ce-id": "1"}, BODY, draft)) == 1
    assert len(read(STRUCTURED, b'{"id": "1", "data": 1}', draft)) == 1
    assert draft.faults == {"no_specversion": 2}
    assert not draft.rejected


def test_what_is_no_cloudevent() -> None:
    """A plain POST is none; a structured one that is broken is a reason."""
    assert cloud_events({"content-type": "application/json", "host": "x"}, BODY, Draft()) is None
    with pytest.raises(Rejected, match="malformed"):
        cloud_events(STRUCTURED, b"{", Draft())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("2026-01-05T08:00:00.0789529Z", START + 0.078952),
        ("2026-01-05T09:00:00+01:00", START),
        (str(START), START),
        (START, START),
        (None, 5.0),
        ("", 5.0),
    ],
)
def test_event_time(said: Any, expected: float) -> None:
    """RFC 3339 with as many digits as Go writes, or Unix seconds; without one, the time of receipt."""
    draft = Draft()
    assert event_time(said, 5.0, draft) == pytest.approx(expected, abs=1e-6)
    assert not draft.faults


@pytest.mark.parametrize(
    "said", ["2026-01-05T08:00:00", "yesterday", "nan", "1e999", 10**400, "9" * 400, True, [], "²", 12.0]
)
def test_a_time_that_cannot_be_is_a_fault(said: Any) -> None:
    """The prediction counts at the time of its receipt."""
    draft = Draft()
    assert event_time(said, 5.0, draft) == 5.0
    assert draft.faults == {"odd_event_time": 1}
    assert math.isnan(event_time(said, math.nan, draft))


@given(loaded=JSON, binary=st.binary(), content=st.sampled_from([*STRUCTURED.values(), *BATCH.values(), "text/plain"]))
def test_nothing_raises(loaded: Any, binary: bytes, content: str) -> None:
    """Any body in any mode is events, no event, or a reason."""
    for body in (binary, json.dumps(loaded).encode()):
        for headers in ({"content-type": content}, {"content-type": content, "ce-id": "%zz%ff"}):
            reason = reason_of(partial(cloud_events, headers, body, Draft()))
            assert reason in {"", "malformed", "too_deep", "invalid_utf8"}
    if isinstance(loaded, dict):
        draft = Draft()
        assert len(structured({**loaded, "data": loaded}, b"", draft)) + draft.rejected.total() == 1
