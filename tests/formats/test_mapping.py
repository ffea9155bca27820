"""Logs of any shape: every field is found where the configuration says, and nothing makes the reader stumble."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from poisonwatch.config import formats as config
from poisonwatch.formats.decoding import Foreign
from poisonwatch.formats.events import Block, Event, frame
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.infer import infer
from poisonwatch.formats.instants import instant, unix_seconds, zone_of
from poisonwatch.formats.jsonl import JsonlFeedback, JsonlPredictions
from poisonwatch.formats.mapping import NATIVE as NATIVE_FIELDS
from poisonwatch.formats.mapping import Mapped, path_of, value_at

MOST = 1 << 20
START = 1_795_330_207.25
SHAPE = {
    "timestamp": "meta.at",
    "prediction": "outputs.0.label",
    "confidence": "outputs.0.score",
    "prediction_id": "meta.id",
    "model_version": r"labels.app\.kubernetes\.io/version",
    "features": "request.inputs",
    "features.age": "person.age",
    "text": "request.words",
}
LOGGED = {
    "meta": {"at": START, "id": "p1"},
    "labels": {"app.kubernetes.io/version": "v7"},
    "outputs": [{"label": "spam", "score": 0.75}],
    "request": {"inputs": {"country": "de", "amount": 1.5}, "words": "hello you"},
    "person": {"age": 40},
    "segment": "eu",
    "other": {"deep": 1},
}
NATIVE = {
    "timestamp": START,
    "prediction": "spam",
    "confidence": 0.75,
    "prediction_id": "p1",
    "model_version": "v7",
    "features": {"country": "de", "amount": 1.5, "age": 40},
    "text": "hello you",
    "segment": "eu",
}


def mapped(fields: dict[str, str], *lines: Any, timezone: str = "UTC", **options: Any) -> list[dict[str, Any]]:
    """Native records of the lines."""
    told = Translator(Mapped(fields, timezone, MOST, **options)).translate(
        Block(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    )
    assert not told.lost.rejected
    return [json.loads(line) for line in (told.labels if options.get("feedback") else told.records).splitlines()]


def test_every_field_is_found_at_its_path() -> None:
    """Objects in objects, places of lists, dots that belong to a key, one feature beside an object of them."""
    assert mapped(SHAPE, LOGGED) == [NATIVE]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a", ["a"]),
        ("a.b.c", ["a", "b", "c"]),
        (r"a\.b.c", ["a.b", "c"]),
        (r"a\\.b", ["a\\", "b"]),
        ("outputs.0.label", ["outputs", "0", "label"]),
        ("a b.ä", ["a b", "ä"]),
    ],
)
def test_paths_are_cut_at_dots_that_are_not_escaped(text: str, keys: list[str]) -> None:
    """A backslash takes the meaning from what follows it."""
    assert [step.key for step in path_of(text)] == keys


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a\\"])
def test_paths_with_an_empty_step_are_refused(text: str) -> None:
    """Rather than never to find anything."""
    with pytest.raises(ValueError, match="no dotted path"):
        path_of(text)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5), st.integers())
def test_every_key_can_be_written(keys: list[str], leaf: int) -> None:
    """Whatever characters it has."""
    value: Any = leaf
    for key in reversed(keys):
        value = {key: value}
    assert value_at(value, path_of(".".join(k.replace("\\", "\\\\").replace(".", "\\.") for k in keys))) == leaf


def test_a_place_is_one_of_a_list_or_a_key_of_an_object() -> None:
    """What is beyond the end, or no number, is not there."""
    assert value_at({"a": [5, 6]}, path_of("a.1")) == 6
    assert value_at({"a": {"1": 7}}, path_of("a.1")) == 7
    assert value_at({"a": [5, 6]}, path_of("a.2")) is None
    assert value_at({"a": [5, 6]}, path_of("a.-1")) is None
    assert value_at({"a": [5, 6]}, path_of("a.01")) is None
    assert value_at({"a": "56"}, path_of("a.1")) is None


def test_a_native_name_that_means_something_else_is_not_taken_for_native() -> None:
    """Where the prediction stands under `label`, it is not the truth too; nor is another id, or other scores."""
    record = {"timestamp": START, "label": "spam", "request_id": "r", "id": "i", "scores": [1], "p": [0.5, 0.5]}
    fields = {"prediction": "label", "prediction_id": "id", "probabilities": "p"}
    assert mapped(fields, record) == [
        {"timestamp": START, "prediction": "spam", "prediction_id": "i", "probabilities": [0.5, 0.5]}
    ]


def test_a_field_inside_the_features_leaves_the_others_in_their_place() -> None:
    """A path may begin in a native object without hiding the rest of it."""
    record = {"timestamp": START, "features": {"id": "i", "age": 4, "y": 1}}
    assert mapped({"prediction": "features.y", "prediction_id": "features.id"}, record) == [
        {"timestamp": START, "features": {"id": "i", "age": 4, "y": 1}, "prediction": 1, "prediction_id": "i"}
    ]


def test_features_may_be_a_list() -> None:
    """As in a native record; single features need an object to stand in, and the list is counted as wrong."""
    record = {"timestamp": START, "y": 1, "x": [1, 2], "age": 4}
    assert mapped({"prediction": "y", "features": "x"}, record)[0]["features"] == [1, 2]
    told = Translator(Mapped({"prediction": "y", "features": "x", "features.age": "age"}, "UTC", MOST)).translate(
        Block(json.dumps(record).encode())
    )
    assert json.loads(told.records)["features"] == {"age": 4}
    assert told.lost.faults == {"features_wrong_type": 1}


def test_labels_are_found_by_paths_too() -> None:
    """Feedback of any shape."""
    record = {"when": START, "truth": {"y": "ham", "of": "p1", "by": "ann"}, "attributes": {"network": "10"}}
    fields = {"timestamp": "when", "label": "truth.y", "prediction_id": "truth.of", "source": "truth.by"}
    assert mapped(fields, record, feedback=True) == [
        {"timestamp": START, "label": "ham", "prediction_id": "p1", "source": "ann", "attributes": {"network": "10"}}
    ]


def test_the_configured_model_is_that_of_all_and_the_version_of_those_without() -> None:
    """A log may name another model, or none."""
    lines = [{"prediction": 1, "model": "x", "model_version": "v1"}, {"prediction": 1, "model_version": None}]
    found = mapped({}, *lines, model="mail", model_version="v0")
    assert [(r["model"], r["model_version"]) for r in found] == [("mail", "v1"), ("mail", "v0")]


def test_a_zone_alone_is_enough_for_native_lines() -> None:
    """All fields are then in their native place."""
    record = {"timestamp": "2026-11-22T07:50:07.25", "prediction": "spam", "features": {"age": 4}}
    assert mapped({}, record, timezone="Europe/Berlin") == [record | {"timestamp": START}]


def test_one_body_may_hold_many_records() -> None:
    """One object, a list of them, or one a line; each bad one is counted alone."""
    bodies = [
        b'{"prediction":1}',
        b'[{"prediction":2},{"prediction":3},7]',
        b'{"prediction":4}\n{"predic\n{"prediction":5}',
    ]
    block = Block(b"".join(frame(Event(body)) for body in bodies), framed=True)
    told = Translator(Mapped({}, "UTC", MOST)).translate(block)
    assert [json.loads(line)["prediction"] for line in told.records.splitlines()] == [1, 2, 3, 4, 5]
    assert told.lost.rejected == {"not_an_object": 1, "malformed": 1}


@pytest.mark.parametrize(
    ("written", "zone", "meant"),
    [
        ("2026-11-22T06:50:07.25Z", "Europe/Berlin", START),
        ("2026-11-22T06:50:07.25", "UTC", START),
        ("2026-11-22 07:50:07.250000", "Europe/Berlin", START),
        ("2026-11-22T06:50:07.2500009+00:00", "UTC", START),
        (START, "Europe/Berlin", START),
        (int(START * 1e3), "UTC", START),
        (int(START * 1e6), "UTC", START),
        (int(START * 1e9), "UTC", START),
        (str(START), "UTC", START),
        (str(int(START * 1e3)), "UTC", START),
        ("1712012300123", "UTC", 1712012300.123),  # its digits would make a date of 1712, too
        # Clocks set back: the hour is there twice, the first is meant. Set forward: the clock that was not set.
        ("2026-10-25T02:30:00", "Europe/Berlin", 1_792_888_200.0),
        ("2026-03-29T02:30:00", "Europe/Berlin", 1_774_747_800.0),
    ],
)
def test_times_are_read_in_the_zone_and_the_unit_that_they_are_in(written: object, zone: str, meant: float) -> None:
    """A hundred years are shorter than a thousandfold: a Unix time can be of one unit only."""
    assert instant(written, zone_of(zone)) == pytest.approx(meant, abs=1e-5)


@pytest.mark.parametrize("odd", ["2026-11-22", "yesterday", "", None, True, [1], {}, "0001-01-01T00:00:00+14:00"])
def test_times_that_cannot_be_understood_stay_as_they_are(odd: object) -> None:
    """The decoder says what is wrong: a date alone is no time."""
    assert instant(odd, ZoneInfo("Europe/Berlin")) in (odd, -62135647200.0)


@given(st.floats(), st.integers())
def test_any_number_stays_a_number(number: float, whole: int) -> None:
    """And one that is no time of this century stays the same."""
    for value in (number, whole):
        found = unix_seconds(value)
        assert found == value or math.isnan(value) or 946_684_800 <= found <= 4_102_444_800


@given(st.datetimes(min_value=datetime(2001, 1, 1), max_value=datetime(2098, 1, 1)))  # noqa: DTZ001 - local time
def test_local_time_is_the_time_of_that_zone(local: datetime) -> None:
    """Every day of the century."""
    zone = ZoneInfo("America/New_York")
    assert instant(local.isoformat(), zone) == local.replace(tzinfo=zone).timestamp()


def test_the_configuration_knows_every_field() -> None:
    """And no other; paths and zones that cannot be are refused with what to write instead."""
    assert set(config.NATIVE) == set(NATIVE_FIELDS)
    config.NativeConfig(fields=SHAPE, timezone="Europe/Berlin")
    for wrong in (
        {"fields": {"predicton": "a"}},
        {"fields": {"features.": "a"}},
        {"fields": {"prediction": "a..b"}},
        {"timezone": "Mars/Olympus"},
        {"timezone": "../etc/passwd"},
    ):
        with pytest.raises(ValidationError):
            config.NativeConfig.model_validate(wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["meta", "at", "id", "outputs", "0", "label", "request", "inputs", "person", "age", "model"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=4), st.booleans())
def test_whatever_the_values_are_every_event_is_a_record_or_counted(values: list[Any], feedback: bool) -> None:
    """Of any structure: nothing but a count comes of what is odd."""
    reference = infer([json.dumps(NATIVE).encode()])
    decoder = Foreign(
        Translator(Mapped(SHAPE, "Europe/Berlin", MOST, feedback=feedback)),
        JsonlPredictions({"": reference.schema}, MOST),
        JsonlFeedback(MOST),
    )
    decoded = decoder.decode(Block(b"".join(frame(Event(json.dumps(value).encode())) for value in values), framed=True))
    # Of an empty list nothing can be read: that is counted, as every event is.
    expected = sum(max(len(value), 1) if isinstance(value, list) else 1 for value in values)
    assert decoded.lines == decoded.predictions + decoded.labels + sum(decoded.rejected.values()) == expected


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_whatever_the_bytes_are_nothing_is_raised(bodies: list[bytes]) -> None:
    """Events of no shape at all."""
    block = Block(b"".join(frame(Event(body)) for body in bodies), framed=True)
    told = Translator(Mapped(SHAPE, "UTC", MOST)).translate(block)
    assert len(told.records.splitlines()) + told.lost.rejected.total() >= sum(map(bool, bodies)) - bodies.count(b"[]")


def test_nesting_of_any_depth_is_a_record_or_counted() -> None:
    """Where one reader goes deeper than another, too."""
    for depth in (10, 300, 400, 450, 480, 490, 495, 500, 900, 980, 990, 1000, 3000, 100_000):
        line = b'{"timestamp":1,"y":1,"x":' + b"[" * depth + b"]" * depth + b"}\n"
        told = Translator(Mapped({"prediction": "y", "features.x": "x"}, "UTC", MOST)).translate(Block(line))
        assert len(told.records.splitlines()) + told.lost.rejected.total() == 1


def test_what_is_bigger_than_allowed_is_refused() -> None:
    """Compressed or not."""
    body = msgspec.json.encode({"prediction": "x" * 100})
    told = Translator(Mapped({}, "UTC", 50)).translate(Block(body))
    assert told.lost.rejected == {"body_too_large": 1}
