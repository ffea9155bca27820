"""Posted bodies become native lines: all their records, whatever way they were put, or a reason."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.formats.events import Block, Event, frame
from poisonwatch.formats.foreign import Draft
from poisonwatch.formats.native import opened_lines

MOST = 1 << 16
RECORDS = [{"timestamp": 1700000000 + n, "prediction_id": str(n), "text": 'a ],}{[ "q" \\ é\n'} for n in range(3)]
JSON = "application/json"
STRUCTURED = "application/cloudevents+json"


def read(*sent: Event) -> tuple[bytes, Draft]:
    """The lines of some events, and what was lost."""
    draft = Draft()
    return opened_lines(Block(b"".join(map(frame, sent)), framed=True), MOST, draft), draft


def records(*sent: Event) -> list[Any]:
    """The records of some events, of which nothing is lost."""
    lines, draft = read(*sent)
    assert (draft.rejected, +draft.faults) == ({}, {})
    assert lines.endswith(b"\n")
    return [json.loads(line.decode()) for line in lines.split(b"\n")[:-1]]  # of bytes it would take a byte order mark


def ndjson(members: list[Any]) -> bytes:
    """One a line."""
    return b"".join(json.dumps(member).encode() + b"\n" for member in members)


def test_lines_of_a_file() -> None:
    """A block of lines is as it is."""
    assert opened_lines(Block(b"{}\nx\n"), MOST, Draft()) == b"{}\nx\n"


@pytest.mark.parametrize("kind", ["", JSON, "application/json; charset=utf-8", "text/plain", "application/x-ndjson"])
def test_ndjson(kind: str) -> None:
    """One record a line, by that name or by another, with or without the last newline, with returns and blank lines."""
    headers = {"content-type": kind} if kind else {}
    body = ndjson(RECORDS)
    for put in (body, body[:-1], body.replace(b"\n", b"\r\n"), b"\n\n" + body, b"\xef\xbb\xbf" + body):
        assert records(Event(put, headers)) == RECORDS


@pytest.mark.parametrize("kind", ["", JSON, "application/octet-stream"])
@pytest.mark.parametrize("indent", [None, 2])
def test_list_and_object(kind: str, indent: int | None) -> None:
    """A list gives its members, an object itself, on one line each, however they are laid out."""
    headers = {"content-type": kind} if kind else {}
    assert records(Event(json.dumps(RECORDS, indent=indent).encode(), headers)) == RECORDS
    for record in RECORDS:
        assert records(Event(json.dumps(record, indent=indent).encode(), headers)) == [record]


def test_compressed() -> None:
    """Bodies are opened, by gzip or zstd, with their header or after something has taken it off."""
    body = ndjson(RECORDS)
    for packed, name in ((gzip.compress(body), "gzip"), (zstandard.compress(body), "zstd")):
        assert records(Event(packed, {"content-encoding": name}), Event(packed)) == RECORDS * 2


def test_bombs_and_rubbish() -> None:
    """What cannot be opened, is too large or holds nothing is counted; what stands around it is read."""
    good = Event(ndjson(RECORDS))
    bomb = gzip.compress(b"x" * (MOST + 1))
    lines, draft = read(
        good, Event(bomb), good, Event(b"\x1f\x8b\x08 broken"), Event(b" \n "), Event(b"x" * (MOST + 1)), good
    )
    assert [json.loads(line) for line in lines.split(b"\n")[:-1]] == RECORDS * 3
    assert draft.rejected == {"body_too_large": 2, "bad_compression": 1, "empty_body": 1}
    assert len(draft.samples) > 0


def test_empty_list() -> None:
    """A list of nothing is no loss, but is told."""
    lines, draft = read(Event(b"[]"))
    assert (lines, draft.rejected, draft.faults) == (b"", {}, {"empty_list": 1})


@pytest.mark.parametrize(
    "odd",
    [b'{"a": NaN}', b'{"a": ' + b"[" * 9000 + b"]" * 9000 + b"}", b'{"a": "\xff"}', b"nonsense", b'{"a": "\\"}]{,"}'],
)
def test_an_odd_record_hides_no_other(odd: bytes) -> None:
    """One record that the decoder does not take costs no other one of its body, wherever in it it stands."""
    good = [json.dumps(record).encode() for record in RECORDS]
    for place in range(4):
        put = [*good[:place], odd, *good[place:]]
        for body in (b"[" + b",".join(put) + b"]", b"\n".join(put), b"[\n " + b" ,\n ".join(put) + b"\n]"):
            lines, draft = read(Event(body, {"content-type": JSON}))
            assert [line.strip() for line in lines.split(b"\n")[:-1]] == put
            assert draft.rejected == {}


def test_what_follows_a_list() -> None:
    """Lists one after another, or with records behind them, are no way to hide these."""
    good = [json.dumps(record).encode() for record in RECORDS]
    for body in (b"[%s]\n[%s,%s]", b"[%s]%s%s", b"[%s,%s]\n%s\n", b"[%s,%s,%s", b"[[],%s,[%s],%s]]]"):
        lines, _ = read(Event(body % tuple(good)))
        for record in good:
            assert record in lines


def test_no_json_at_all() -> None:
    """Something else is as many losses as it has lines, for the decoder to refuse; what begins as one object of several is one."""
    for body, count in (
        (b"name,value\n1,2\n", 2),
        (b"x\n" * 10, 10),
        (b"\n\nx\n \n\ny\n{\n", 3),
        (b'{"timestamp": 17\n' * 10, 10),
        (b"{\n broken", 1),
        (b'{\n "a": 1,\n "b": {\n  "c": 2\n', 1),
    ):
        lines, draft = read(Event(body, {"content-type": JSON}))
        assert sum(bool(line.strip()) for line in lines.split(b"\n")) == count
        assert draft.rejected == {}


def test_binary_cloud_event() -> None:
    """The body is the record; the event's id and time stand in where the record has none."""
    headers = {"ce-id": "e-1", "ce-time": "2023-11-14T22:13:20Z", "ce-specversion": "1.0", "content-type": JSON}
    own = {"timestamp": 5.0, "prediction_id": "mine", "prediction": "a"}
    assert records(Event(json.dumps(own).encode(), headers)) == [own]
    (record,) = records(Event(b'{"prediction":\n "a"}', headers))
    assert record == {"prediction": "a", "prediction_id": "e-1", "timestamp": 1700000000}
    (record,) = records(Event(b'{"prediction": "a", "request_id": 7, "timestamp": null}', headers))
    assert record == {"prediction": "a", "request_id": 7, "timestamp": 1700000000}
    (record,) = records(Event(gzip.compress(b'{"prediction": "a"}'), headers))
    assert record["prediction_id"] == "e-1"


def test_depth_takes_no_time_and_id_from_a_record() -> None:
    """A field that is nested too deep does not keep the event from standing in for what the record lacks."""
    deep = b'{"a": ' + b"[" * 9000 + b"]" * 9000 + b', "prediction": "ham"}'
    headers = {
        "ce-specversion": "1.0",
        "ce-type": "t",
        "ce-source": "s",
        "ce-id": "7",
        "ce-time": "2026-01-05T08:00:00Z",
    }
    (record,) = records(Event(deep, headers))
    assert (record["prediction"], record["timestamp"], record["prediction_id"]) == ("ham", 1767600000, "7")


def test_records_of_one_cloud_event_do_not_share_its_id() -> None:
    """Else all but one would be taken for duplicates."""
    headers = {"ce-id": "e-1", "ce-time": "2023-11-14T22:13:20Z", "ce-specversion": "1.0"}
    for body in (b'[{"prediction": "a"}, {"prediction": "b"}]', b'{"prediction": "a"}\n{"prediction": "b"}\n'):
        assert records(Event(body, headers)) == [
            {"prediction": "a", "timestamp": 1700000000},
            {"prediction": "b", "timestamp": 1700000000},
        ]


def test_odd_time_of_a_cloud_event() -> None:
    """A time that cannot be costs no record: the time of receipt stands in, and the fault is counted."""
    headers = {"ce-id": "e-1", "ce-time": "yesterday", "ce-specversion": "1.0"}
    lines, draft = read(Event(b'{"prediction": "a"}', headers, 1700000001.5))
    assert json.loads(lines)["timestamp"] == 1700000001.5
    assert draft.faults == {"odd_event_time": 1}


def test_structured_cloud_events() -> None:
    """One, and a batch, with their data as JSON, as a string, in base64, or of several records."""
    event = {"specversion": "1.0", "id": "e", "type": "t", "source": "s", "data": RECORDS[0]}
    assert records(Event(json.dumps(event).encode(), {"content-type": STRUCTURED})) == RECORDS[:1]
    batch = [event, {**event, "data": RECORDS}, {**event, "data": ndjson(RECORDS).decode()}]
    assert records(Event(json.dumps(batch).encode(), {"content-type": "application/cloudevents-batch+json"})) == [
        RECORDS[0],
        *RECORDS,
        *RECORDS,
    ]
    lines, draft = read(Event(b'{"no json', {"content-type": STRUCTURED}))
    assert (lines, draft.rejected) == (b"", {"malformed": 1})


MEMBERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), MEMBERS, min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from([None, 1]),
)
def test_any_records_come_back(members: list[Any], indent: int | None) -> None:
    """Whatever stands in the records (NaN, surrogates, brackets in strings), each is a line of its own."""
    for body in (json.dumps(members, indent=indent), "".join(json.dumps(member) + "\n" for member in members)):
        lines, draft = read(Event(body.encode()))
        assert draft.rejected == {}
        assert [repr(json.loads(line)) for line in lines.split(b"\n")[:-1]] == [repr(member) for member in members]


@given(
    st.binary(max_size=200) | st.text(alphabet='[]{}",:\\\n\r a1', max_size=60).map(str.encode),
    st.sampled_from(["", JSON, STRUCTURED, "application/x-ndjson", "application/cloudevents-batch+json"]),
    st.dictionaries(st.sampled_from(["ce-id", "ce-time", "ce-specversion", "content-encoding"]), st.text(max_size=9)),
)
def test_any_bytes(body: bytes, kind: str, headers: dict[str, str]) -> None:
    """Nothing is an exception; what is no line is counted."""
    lines, draft = read(Event(body, {**headers, "content-type": kind}))
    assert lines or draft.rejected.total() + draft.faults.total()
    assert not lines or lines.endswith(b"\n")


def test_hostile_bodies_are_read_in_one_pass() -> None:
    """Bodies made to be looked at again and again by a scanner are done with; quadratic time would take hours."""
    for unit in (b'\\"', b'"', b"[", b"[]", b"{", b"],", b'"\\'):
        body = b'[NaN,"' + unit * ((1 << 21) // len(unit))
        draft = Draft()
        lines = opened_lines(Block(frame(Event(body)), framed=True), 1 << 22, draft)
        assert lines or draft.rejected
