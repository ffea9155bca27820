"""Native JSON lines: every field is read, every bad line is counted, and no neighbour is lost."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poisonwatch.config.formats import KserveConfig
from poisonwatch.formats.decoding import Foreign, Native
from poisonwatch.formats.events import Block, Event, frame
from poisonwatch.formats.foreign import Translator
from poisonwatch.formats.jsonl import MOST_ATTRIBUTES, JsonlFeedback, JsonlPredictions
from poisonwatch.formats.kserve import Kserve
from poisonwatch.formats.records import LONGEST_NAME, MOST_EXTRAS
from poisonwatch.profile.indicators import code_rows, number_rows
from poisonwatch.types import UNVERSIONED, Batch, Column, Decoded, Schema
from tests.streams import START, Record, lines

LONGEST = 1 << 20

MAIL = Schema(
    model="mail",
    outcome=Column(name="prediction", kind="categorical", values=("ham", "spam", "1")),
    features=(
        Column(name="features.amount", kind="numerical"),
        Column(name="features.age", kind="numerical"),
        Column(name="features.country", kind="categorical", values=("de", "fr"), folded=("it", "nl")),
        Column(name="features.subject", kind="text", values=("present",)),
        Column(name="features.vector", kind="opaque", values=("present",)),
        Column(name="segment", kind="categorical", values=("eu", "1"), folded=("us",)),
        Column(name="text", kind="text", values=("present",)),
        Column(name="embedding", kind="embedding", values=("present",), width=2),
    ),
    layout="object",
    confidence=True,
)
STRINGS = msgspec.structs.replace(
    MAIL,
    outcome=msgspec.structs.replace(MAIL.outcome, strings=True),
    features=tuple(msgspec.structs.replace(c, strings=c.kind == "categorical") for c in MAIL.features),
)
"""The same, learned from a reference that writes every category as a string: they are decoded to codes at once."""
PRICE = Schema(
    model="price",
    outcome=Column(name="prediction", kind="numerical"),
    features=tuple(Column(name=f"features[{n}]", kind="numerical") for n in range(3)),
    layout="list",
    confidence=False,
)
GOOD: Record = {
    "timestamp": START,
    "prediction_id": "p1",
    "model": "mail",
    "model_version": "v1",
    "features": {"amount": 1.5, "age": 40, "country": "de", "subject": "hello", "vector": [1, 2]},
    "text": "hello you",
    "embedding": [0.1, 0.2],
    "segment": "eu",
    "prediction": "ham",
    "confidence": 0.75,
    "probabilities": [0.75, 0.25],
    "source": "web",
    "latency_ms": 12.5,
    "label": "ham",
}


def decoder(schema: Schema = MAIL, longest: int = LONGEST, *, timed: bool = True) -> JsonlPredictions:
    """A decoder of one model's predictions."""
    return JsonlPredictions({schema.model or "": schema}, longest, timed=timed)


def decode(*records: Record, schema: Schema = MAIL) -> Decoded:
    """Records, as they would stand in a log."""
    return decoder(schema).decode(lines(records))


def only(decoded: Decoded) -> Batch:
    """The batch of the one model."""
    (batch,) = decoded.batches
    return batch


def row(batch: Batch, name: str, schema: Schema = MAIL) -> list[Any]:
    """One column by its name; missing numbers are None."""
    if name in number_rows(schema):
        found = batch.numbers[number_rows(schema).index(name)]
        return [None if np.isnan(value) else float(value) for value in found]
    names = [column.name for column in code_rows(schema)]
    return [int(code) for code in batch.codes[names.index(name)]]


def without(record: Record, *names: str) -> Record:
    """The record without some of its fields."""
    return {name: value for name, value in record.items() if name not in names}


def same(first: Batch, second: Batch) -> bool:
    """Are two batches the same, column by column? Versions are compared by name."""
    return (
        np.array_equal(first.time, second.time, equal_nan=True)
        and [first.versions[c] for c in first.version] == [second.versions[c] for c in second.version]
        and np.array_equal(first.numbers, second.numbers, equal_nan=True)
        and np.array_equal(first.codes, second.codes)
        and first.ids.tolist() == second.ids.tolist()
        and first.labels.tolist() == second.labels.tolist()
        and first.texts.tolist() == second.texts.tolist()
        and np.array_equal(first.embeddings, second.embeddings, equal_nan=True)
        and first.marks.shape == second.marks.shape
        and first.rejected_at.tolist() == second.rejected_at.tolist()
    )


def joined(parts: list[Decoded]) -> Batch:
    """The batches of consecutive blocks as one."""
    batches = [only(part) for part in parts]
    names = tuple(dict.fromkeys(name for batch in batches for name in batch.versions))
    before = np.cumsum([0, *(batch.time.size for batch in batches)])
    columns = ("time", "numbers", "codes", "ids", "labels", "texts", "embeddings", "marks")
    whole: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches], axis=-1) for name in columns
    }
    return dataclasses.replace(
        batches[0],
        **whole,
        version=np.array([names.index(b.versions[code]) for b in batches for code in b.version], np.int32),
        versions=names,
        rejected_at=np.concatenate([b.rejected_at + n for b, n in zip(batches, before.tolist(), strict=False)]),
    )


def line_count(block: bytes) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in block.split(b"\n"))


def assert_adds_up(decoded: Decoded, block: bytes) -> None:
    """Every line that is not blank was accepted or rejected, and rejected with a reason."""
    assert decoded.lines == line_count(block) == decoded.predictions + sum(decoded.rejected.values())
    assert decoded.predictions == sum(batch.time.size for batch in decoded.batches)


# What a record says


def test_every_native_field() -> None:
    """A full native record gives its time, version, numbers, codes, id, label, texts and embedding, and no fault."""
    decoded = decode(GOOD)
    batch = only(decoded)
    assert (decoded.lines, decoded.predictions, decoded.rejected, decoded.faults) == (1, 1, {}, {})
    assert (batch.model, batch.time.tolist(), batch.versions) == ("mail", [START], ("v1",))
    assert row(batch, "confidence") == [0.75]
    assert row(batch, "features.amount") == [1.5]
    assert row(batch, "features.age") == [40.0]
    assert row(batch, "prediction") == [1]
    assert row(batch, "features.country") == [1]
    for name in ("features.subject", "features.vector", "text", "embedding", "segment"):
        assert row(batch, name) == [1]
    assert (batch.ids.tolist(), batch.labels.tolist()) == (["p1"], ["ham"])
    assert batch.texts.tolist() == [["hello"], ["hello you"]]
    assert batch.embeddings.tolist() == [[np.float32(0.1)], [np.float32(0.2)]]
    assert batch.embeddings.dtype == np.float32
    assert batch.marks.shape == (0, 1)


def test_only_what_is_required() -> None:
    """A time and a prediction make a record; all else is missing, without a fault."""
    decoded = decode({"timestamp": START, "prediction": "spam"})
    batch = only(decoded)
    assert (decoded.predictions, decoded.faults, batch.versions) == (1, {}, (UNVERSIONED,))
    assert row(batch, "prediction") == [2]
    assert np.isnan(batch.numbers).all()
    assert not batch.codes[1:].any()
    assert (batch.ids.tolist(), batch.labels.tolist(), batch.texts.tolist()) == ([""], [""], [[""], [""]])
    assert np.isnan(batch.embeddings).all()


@pytest.mark.parametrize("alias", ["prediction_id", "request_id", "inference_id"])
def test_aliases_of_the_identity(alias: str) -> None:
    """Every name of the identity is a native field, and gives the id."""
    decoded = decode({**without(GOOD, "prediction_id"), alias: "x"})
    assert (only(decoded).ids.tolist(), decoded.faults) == (["x"], {})


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"prediction_id": "a", "request_id": "b", "inference_id": "c"}, "a"),
        ({"prediction_id": None, "inference_id": "c", "request_id": "b"}, "b"),
        ({"prediction_id": 2**53 + 1}, "9007199254740993"),
        ({"prediction_id": 2**64 + 1}, "18446744073709551617"),
        ({"prediction_id": -(2**63)}, "-9223372036854775808"),
        ({"prediction_id": 7.0}, "7"),
        ({"prediction_id": 0}, "0"),
        ({"prediction_id": "x" * 999}, "x" * LONGEST_NAME),
        ({"prediction_id": "x\u202ey\n"}, "x\u25a1y\u25a1"),
        ({}, ""),
    ],
)
def test_ids(said: Record, name: str) -> None:
    """Of several ids the first one counts; a number keeps all its digits; what cannot be shown is replaced.

    A label's own id reads the same: else it would never meet its prediction.
    """
    record = {**without(GOOD, "prediction_id"), **said}
    of_slow = decoder().decode(json.dumps(record)[:-1].encode() + b', "scores": "none"}\n')
    assert only(decode(record)).ids.tolist() == only(of_slow).ids.tolist() == [name]
    if name:
        found = feedback({"timestamp": START, "label": "ham", **said}).feedback
        assert found is not None
        assert found.ids.tolist() == [name]


@pytest.mark.parametrize("label", ["ham", 1, 1.0, 1.5, True, 2**60, "x" * 999, "a\u2028b", ""])
def test_labels_read_as_those_of_feedback(label: object) -> None:
    """A label in the record is the same text as in a log of labels."""
    found = feedback({"timestamp": START, "prediction_id": "p", "label": label}).feedback
    assert found is not None
    assert only(decode({**GOOD, "label": label})).labels.tolist() == found.labels.tolist()
    assert bool(found.labels[0]) == (label != "")


@pytest.mark.parametrize("schema", [MAIL, STRINGS], ids=["mixed", "strings"])
@pytest.mark.parametrize(("segment", "code"), [("eu", 1), ("1", 2), (1, 2), (1.0, 2), ("us", 3), ("xx", 4), (None, 0)])
def test_segments(schema: Schema, segment: object, code: int) -> None:
    """A segment has a code as a category has; `1` and `"1"` are the same."""
    decoded = decode({**GOOD, "segment": segment}, schema=schema)
    assert (row(only(decoded), "segment", schema), decoded.faults) == ([code], {})


@pytest.mark.parametrize(
    ("value", "found", "fault"),
    [
        ("[1, 2]", [1, 2], {}),
        ("[1, null]", [1, None], {}),
        ("null", [None, None], {}),
        ("[1, 2, 3]", [None, None], {"embedding_wrong_length": 1}),
        ("[]", [None, None], {"embedding_wrong_length": 1}),
        ("[1e300, -1e39]", [None, None], {"embedding_not_finite": 2}),
        ("[1, 1e999]", [1, None], {"embedding_not_finite": 1}),
        ("[1, NaN]", [1, None], {"embedding_not_finite": 1}),
        ("[1, " + "9" * 400 + "]", [1, None], {"embedding_not_finite": 1}),
        ('[1, "2"]', [1, None], {"embedding_wrong_type": 1}),
        ("[true, 2]", [None, 2], {"embedding_wrong_type": 1}),
    ],
)
def test_embeddings(value: str, found: list[float | None], fault: dict[str, int]) -> None:
    """What is wrong with an embedding is missing and counted, number by number; its neighbours keep theirs."""
    block = lines([GOOD]) + raw(embedding=value) + b"\n" + lines([GOOD])
    decoded = decoder().decode(block)
    batch = only(decoded)
    assert [None if np.isnan(number) else float(number) for number in batch.embeddings[:, 1]] == found
    assert decoded.faults == fault
    assert np.array_equal(batch.embeddings[:, [0, 2]], only(decode(GOOD, GOOD)).embeddings)


@pytest.mark.parametrize(
    ("said", "confidence"),
    [
        ({"probabilities": [0.1, 0.9]}, 0.9),
        ({"scores": [0.1, 0.9]}, 0.9),
        ({"probabilities": {"ham": 0.2, "spam": 0.8}}, 0.8),
        ({"scores": {"ham": 0.2, "spam": 0.8}}, 0.8),
        ({"confidence": 0.3, "probabilities": [0.1, 0.9]}, 0.3),
        ({"confidence": None, "probabilities": [0.1, 0.9]}, 0.9),
        ({"probabilities": None, "scores": [0.4, 0.6]}, 0.6),
        ({"probabilities": []}, None),
        ({"probabilities": {}}, None),
        ({"confidence": 0}, 0.0),
        ({"confidence": 1}, 1.0),
        ({}, None),
    ],
)
def test_confidence(said: Record, confidence: float | None) -> None:
    """The confidence is what is stated, else the largest probability, of whichever name and shape."""
    decoded = decode({**without(GOOD, "confidence", "probabilities"), **said})
    assert (row(only(decoded), "confidence"), decoded.faults) == ([confidence], {})


@pytest.mark.parametrize("said", [{"confidence": 75}, {"confidence": -0.1}, {"probabilities": [3.0, 1.0]}])
def test_confidence_out_of_range(said: Record) -> None:
    """A confidence outside of [0, 1] is missing and counted; the record stays."""
    decoded = decode({**without(GOOD, "confidence", "probabilities"), **said})
    assert (row(only(decoded), "confidence"), decoded.faults) == ([None], {"confidence_out_of_range": 1})


@pytest.mark.parametrize(
    ("prediction", "code"),
    [("ham", 1), ("spam", 2), ("1", 3), (1, 3), (1.0, 3), ("eggs", 5), (7, 5), (False, 5), ("true", 5)],
)
def test_classes_of_any_type(prediction: object, code: int) -> None:
    """A class is the same as string and as number; one that the reference does not have is kept as unseen."""
    decoded = decode({**GOOD, "prediction": prediction})
    assert (row(only(decoded), "prediction"), decoded.faults) == ([code], {})


@pytest.mark.parametrize(("prediction", "code"), [(True, 1), ("true", 1), (False, 2), ("false", 2), ("yes", 4)])
def test_classes_that_are_booleans(*, prediction: object, code: int) -> None:
    """A boolean class is the same as JSON and as text."""
    outcome = Column(name="prediction", kind="categorical", values=("true", "false"))
    decoded = decode({**GOOD, "prediction": prediction}, schema=msgspec.structs.replace(MAIL, outcome=outcome))
    assert (row(only(decoded), "prediction"), decoded.faults) == ([code], {})


@pytest.mark.parametrize(
    ("country", "code"), [("de", 1), ("fr", 2), ("it", 3), ("nl", 3), ("xx", 4), (None, 0), (5, 4)]
)
def test_categories(country: object, code: int) -> None:
    """A category has its code; rare ones of the reference share one, unseen ones another; null is missing."""
    decoded = decode({**GOOD, "features": {**GOOD["features"], "country": country}})
    assert (row(only(decoded), "features.country"), decoded.faults) == ([code], {})


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("v1", "v1"),
        (None, UNVERSIONED),
        ("", UNVERSIONED),
        (3, "3"),
        (3.0, "3"),
        (1.5, "1.5"),
        ("x" * 999, "x" * LONGEST_NAME),
    ],
)
def test_versions_of_any_type(version: object, name: str) -> None:
    """A version is named alike by string and number, and cut where it is too long."""
    assert only(decode({**GOOD, "model_version": version})).versions == (name,)


@pytest.mark.parametrize(
    "said",
    [
        START,
        int(START),
        "2026-01-05T08:00:00Z",
        "2026-01-05T08:00:00+00:00",
        "2026-01-05T09:00:00+01:00",
        "2026-01-04T22:30:00.000-09:30",
        "2026-01-05t08:00:00z",
        "20260105T080000Z",
    ],
)
def test_times(said: object) -> None:
    """Unix seconds and RFC 3339 in any zone are the same time."""
    decoded = decode({**GOOD, "timestamp": said})
    assert (only(decoded).time.tolist(), decoded.rejected) == ([START], {})


def test_times_of_several_kinds_in_one_block() -> None:
    """Records that write their time differently stand in one block."""
    said = [START, "2026-01-05T08:00:01Z", int(START) + 2, "2026-01-05T08:00:03.5Z"]
    assert only(decode(*({**GOOD, "timestamp": time} for time in said))).time.tolist() == [
        START,
        START + 1,
        START + 2,
        START + 3.5,
    ]


def test_list_features() -> None:
    """Features given as a list are columns by position; a list of another length is cut or filled, and counted."""
    records = [
        {"timestamp": START, "prediction": 9.5, "features": values}
        for values in ([1, 2.5, None], [4, 5], [7, 8, 9, 10], [])
    ]
    decoded = decode(*records, schema=PRICE)
    batch = only(decoded)
    assert row(batch, "prediction", PRICE) == [9.5] * 4
    assert row(batch, "features[0]", PRICE) == [1.0, 4.0, 7.0, None]
    assert row(batch, "features[1]", PRICE) == [2.5, 5.0, 8.0, None]
    assert row(batch, "features[2]", PRICE) == [None, None, 9.0, None]
    assert decoded.faults == {"features_wrong_length": 3}


def test_reference_needs_no_time() -> None:
    """In a reference a record without a time is kept; its time is unknown, and an absurd one is still refused."""
    block = lines([without(GOOD, "timestamp"), GOOD, {**GOOD, "timestamp": 5}])
    decoded = decoder(timed=False).decode(block)
    assert np.isnan(only(decoded).time).tolist() == [True, False]
    assert decoded.rejected == {"absurd_timestamp": 1}


# What a record says wrong


def raw(**changes: str) -> bytes:
    """The good record as a line, with some of its fields as raw JSON text."""
    members = {name: json.dumps(value) for name, value in GOOD.items()} | changes
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}").encode()


REJECTED: list[tuple[str, bytes]] = [
    ("malformed", b'{"timestamp": 1767600000, "prediction": "ham"'),
    ("malformed", b'{"timestamp": 1767600000, "prediction": "ham"}}'),
    ("malformed", b"hello"),
    ("malformed", b"{'prediction': 'ham'}"),
    ("malformed", b"\x00\x00\x00"),
    ("malformed", lines([GOOD]).strip() + lines([GOOD]).strip()),
    ("malformed", raw(prediction="1" * 5000)),
    ("not_an_object", b"[1, 2]"),
    ("not_an_object", b'"ham"'),
    ("not_an_object", b"null"),
    ("not_an_object", b"12"),
    ("invalid_utf8", b'{"timestamp": 1767600000, "prediction": "h\xff"}'),
    ("invalid_utf8", b"\x80"),
    ("wrong_type", b'{"timestamp": 1767600000, "prediction": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("not_an_object", b"[" * 100_000 + b"]" * 100_000),
    ("malformed", b"[" * 100_000),
    ("too_long", b'{"timestamp": 1767600000, "prediction": "ham", "text": "' + b"x" * (10 << 20) + b'"}'),
    ("missing_timestamp", b'{"prediction": "ham"}'),
    ("missing_timestamp", raw(timestamp="null")),
    ("missing_timestamp", b"{}"),
    ("missing_prediction", b'{"timestamp": 1767600000}'),
    ("missing_prediction", raw(prediction="null")),
    ("wrong_type", raw(prediction='["ham"]')),
    ("wrong_type", raw(prediction='{"class": "ham"}')),
    ("wrong_type", raw(timestamp="true")),
    ("wrong_type", raw(timestamp="[1]")),
    ("wrong_type", raw(model="5")),
    ("not_finite", raw(prediction="NaN")),
    ("not_finite", raw(prediction="-Infinity")),
    ("not_finite", raw(prediction="1e999")),
    ("not_finite", raw(prediction="1" * 400)),
    ("absurd_timestamp", raw(timestamp="1767600000000")),
    ("absurd_timestamp", raw(timestamp="0")),
    ("absurd_timestamp", raw(timestamp="-1767600000")),
    ("absurd_timestamp", raw(timestamp="1e999")),
    ("absurd_timestamp", raw(timestamp="Infinity")),
    ("absurd_timestamp", raw(timestamp="9" * 400)),
    ("absurd_timestamp", raw(timestamp='"yesterday"')),
    ("absurd_timestamp", raw(timestamp='"2026-13-45T08:00:00Z"')),
    ("absurd_timestamp", raw(timestamp='"0001-01-01T00:00:00+14:00"')),
    ("absurd_timestamp", raw(timestamp='"9999-12-31T23:59:59-14:00"')),
    ("timestamp_without_zone", raw(timestamp='"2026-01-05T08:00:00"')),
    ("other_model", raw(model='"price"')),
]
NAMED = [f"{reason}-{number}" for number, (reason, _) in enumerate(REJECTED)]


@pytest.mark.parametrize(("reason", "line"), REJECTED, ids=NAMED)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_bad_line_is_rejected_alone(reason: str, line: bytes, newline: bytes) -> None:
    """A bad line is counted under its reason, at its place, and its neighbours are what they are without it."""
    around = [lines([{**GOOD, "timestamp": START + n, "confidence": n / 10}]).strip() for n in range(4)]
    block = newline.join([around[0], around[1], line, around[2], around[3]]) + newline
    decoded = decoder().decode(block)
    assert decoded.rejected == {reason: 1}
    assert_adds_up(decoded, block)
    batch = only(decoded)
    assert batch.rejected_at.tolist() == [2]
    clean = only(decoder().decode(newline.join(around) + newline))
    assert batch.time.tolist() == [START, START + 1, START + 2, START + 3]
    assert np.array_equal(batch.numbers, clean.numbers)
    assert np.array_equal(batch.codes, clean.codes)
    ((told, sample),) = decoded.samples
    assert (told, len(sample) <= 500) == (reason, True)


@pytest.mark.parametrize("depth", [900, 5000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
@pytest.mark.parametrize("models", [{"mail": MAIL}, {"mail": MAIL, "price": PRICE}])
def test_depth_hides_no_record(models: dict[str, Schema], brackets: str, depth: int) -> None:
    """Whoever may add a field cannot nest it so deep that the record is not read; a field that is needed costs itself only."""
    opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    deep = opening * depth + '"]}{[\\""' + closing * depth
    features = json.dumps(GOOD["features"])
    for line, fault in (
        (raw(other=deep), "unknown_field"),
        (raw(confidence=deep), "confidence_wrong_type"),
        (raw(features=f'{{"other": {deep}, {features[1:]}'), "unknown_feature"),
    ):
        decoded = JsonlPredictions(models, LONGEST).decode(line + b"\n")
        assert (decoded.rejected, decoded.faults) == ({}, {fault: 1})
        expected = without(GOOD, "confidence") if "confidence" in fault else GOOD
        assert same(decoded.batches[0], only(decode(expected)))


@pytest.mark.parametrize(("reason", "line"), REJECTED, ids=NAMED)
def test_bad_line_alone(reason: str, line: bytes) -> None:
    """A block of nothing but one bad line is an empty batch with one rejected line."""
    decoded = decoder().decode(line + b"\n")
    assert (decoded.rejected, decoded.predictions) == ({reason: 1}, 0)
    assert only(decoded).rejected_at.tolist() == [0]


def test_bad_numerical_prediction() -> None:
    """Where the model predicts a number, a string is no prediction."""
    decoded = decode({"timestamp": START, "prediction": "much"}, {"timestamp": START, "prediction": True}, schema=PRICE)
    assert decoded.rejected == {"wrong_type": 2}


def test_future_time() -> None:
    """A time after the latest that is allowed is refused; the latest itself is not."""
    decoded = decoder().decode(lines([GOOD, {**GOOD, "timestamp": START + 61}]), START + 60)
    assert (decoded.predictions, decoded.rejected) == (1, {"future_timestamp": 1})
    assert decoder().decode(lines([GOOD]), START).predictions == 1


FAULTS: list[tuple[dict[str, str], str, dict[str, int]]] = [
    ({"confidence": '"high"'}, "confidence", {"confidence_wrong_type": 1}),
    ({"confidence": "true"}, "confidence", {"confidence_wrong_type": 1}),
    ({"confidence": "NaN"}, "confidence", {"confidence_not_finite": 1}),
    ({"confidence": "Infinity"}, "confidence", {"confidence_not_finite": 1}),
    ({"confidence": "1e999"}, "confidence", {"confidence_not_finite": 1}),
    ({"features": '{"amount": "much"}'}, "features.amount", {"feature_wrong_type": 1}),
    ({"features": '{"amount": [1]}'}, "features.amount", {"feature_wrong_type": 1}),
    ({"features": '{"amount": false}'}, "features.amount", {"feature_wrong_type": 1}),
    ({"features": '{"amount": NaN}'}, "features.amount", {"feature_not_finite": 1}),
    ({"features": '{"amount": -1e999}'}, "features.amount", {"feature_not_finite": 1}),
    ({"features": '{"amount": ' + "9" * 400 + "}"}, "features.amount", {"feature_not_finite": 1}),
    ({"features": '{"country": ["de"]}'}, "features.country", {"feature_wrong_type": 1}),
    ({"features": '{"country": {"de": 1}}'}, "features.country", {"feature_wrong_type": 1}),
    ({"features": '{"subject": 5}'}, "features.subject", {"feature_wrong_type": 1}),
    ({"features": "[1, 2]"}, "features.amount", {"features_wrong_type": 1}),
    ({"features": '"none"'}, "features.amount", {"features_wrong_type": 1}),
    ({"features": "null"}, "features.amount", {}),
    ({"text": "5"}, "text", {"text_wrong_type": 1}),
    ({"embedding": "null"}, "embedding", {}),
    ({"segment": '["eu"]'}, "segment", {"segment_wrong_type": 1}),
    ({"segment": "{}"}, "segment", {"segment_wrong_type": 1}),
    ({"segment": "NaN"}, "segment", {"segment_not_finite": 1}),
    ({"model_version": "[1]"}, "prediction", {"model_version_wrong_type": 1}),
]


@pytest.mark.parametrize(("changes", "name", "faults"), FAULTS, ids=[json.dumps(f[0])[:50] for f in FAULTS])
def test_bad_value_is_missing(changes: dict[str, str], name: str, faults: dict[str, int]) -> None:
    """One bad value is missing and counted; the record is kept with all else that it says."""
    block = lines([GOOD]) + raw(**{"probabilities": "null", **changes}) + b"\n" + lines([GOOD])
    decoded = decoder().decode(block)
    assert (decoded.predictions, decoded.rejected, decoded.faults) == (3, {}, faults)
    batch = only(decoded)
    missing: list[Any] = [None] if name in number_rows(MAIL) else [0] if name != "prediction" else [1]
    found = row(batch, name)
    assert found[1:2] == missing
    assert found[0] == found[2] == row(only(decode(GOOD)), name)[0]


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"prediction_id": "[1]"}, {"prediction_id_wrong_type": 1}),
        ({"prediction_id": "true"}, {"prediction_id_wrong_type": 1}),
        ({"prediction_id": "NaN"}, {"prediction_id_not_finite": 1}),
        ({"label": "[1]", "prediction_id": "null"}, {"label_wrong_type": 1}),
        ({"label": "1e999", "prediction_id": "null"}, {"label_not_finite": 1}),
        ({"text": '["a"]', "prediction_id": "null"}, {"text_wrong_type": 1}),
    ],
)
def test_bad_text_is_empty(changes: dict[str, str], faults: dict[str, int]) -> None:
    """An id, a label or a text of a wrong type is none, and counted; the others stand."""
    decoded = decoder().decode(raw(**{**changes, "request_id": '"r"'}) + b"\n")
    batch = only(decoded)
    assert (decoded.predictions, decoded.faults) == (1, faults)
    assert batch.ids.tolist() == ["r"]
    assert batch.labels.tolist() == ["" if "label" in changes else "ham"]
    assert batch.texts[1].tolist() == ["" if "text" in changes else "hello you"]


@pytest.mark.parametrize("value", ['"high"', "[]", '[0.5, "x"]', '{"ham": null}', "[NaN]", "1e999"])
def test_bad_probabilities(value: str) -> None:
    """Probabilities that are not numbers give no confidence; an empty list is none and no fault."""
    line = raw(probabilities=value, confidence="null") + b"\n"
    decoded = decoder().decode(line)
    assert row(only(decoded), "confidence") == [None]
    assert decoded.faults == ({} if value == "[]" else {"probabilities_wrong_type": 1})


def test_duplicate_keys() -> None:
    """Of a key said twice the last counts, on the fast path and on the slow one."""
    twice = raw()[:-1] + b', "prediction": "spam"'
    fast = decoder().decode(twice + b"}\n")
    slow = decoder().decode(twice + b', "confidence": NaN}\n')
    assert row(only(fast), "prediction") == row(only(slow), "prediction") == [2]


@pytest.mark.parametrize(
    "place",
    [
        '"prediction": "\\ud800"',
        '"text": "\\udfff"',
        '"model_version": "v\\ud800"',
        '"\\ud800": 1',
        '"prediction_id": "\\ud800"',
        '"label": "\\udbff"',
        '"segment": "\\ud800"',
        '"features": {"subject": "\\ud800"}',
    ],
)
def test_lone_surrogates(place: str) -> None:
    """Half a surrogate pair anywhere leaves a record whose every name can be written to a file."""
    decoded = decoder().decode(raw()[:-1] + b", " + place.encode() + b"}\n")
    assert decoded.predictions == 1
    batch = only(decoded)
    for text in (*batch.versions, *batch.ids, *batch.labels, *batch.texts.ravel()):
        text.encode()


# Unknown fields


@pytest.mark.parametrize(
    "name", ["zz", "", "x0", "f0", 'qu"ote', "back\\slash", "new\nline", "a` - at `$.features", "`", "é", "\ud800"]
)
@pytest.mark.parametrize("inside", [False, True], ids=["field", "feature"])
def test_unknown_names_are_ignored_and_counted(name: str, *, inside: bool) -> None:
    """A field or feature of any name that is not known is counted each time it is met, and changes nothing."""
    odd = {**GOOD, "features": {**GOOD["features"], name: [1]}} if inside else {**GOOD, name: {"a": 1}}
    decoded = decode(GOOD, odd, GOOD, odd, odd)
    assert (decoded.predictions, decoded.rejected) == (5, {})
    assert decoded.faults == {"unknown_feature" if inside else "unknown_field": 3}
    assert same(only(decoded), only(decode(*[GOOD] * 5)))


@pytest.mark.parametrize("inside", [False, True], ids=["field", "feature"])
def test_unknown_names_without_end(*, inside: bool) -> None:
    """When every record has another unknown name, the first 64 names are counted and no record is lost or changed."""
    names = [f"z{number}" for number in range(3 * MOST_EXTRAS)]
    records = [{**GOOD, "features": {**GOOD["features"], name: 1}} if inside else {**GOOD, name: 1} for name in names]
    told = decoder()
    first, second = (told.decode(lines(records)) for _ in range(2))
    for decoded in (first, second):
        assert decoded.faults == {"unknown_feature" if inside else "unknown_field": MOST_EXTRAS}
        assert same(only(decoded), only(decode(*[GOOD] * len(names))))


def test_many_unknown_names_in_one_record() -> None:
    """One record with more unknown names than are remembered is kept, and all of its names are counted."""
    decoded = decode(GOOD, {**GOOD, **{f"z{number}": 1 for number in range(200)}})
    assert (decoded.predictions, decoded.faults) == (2, {"unknown_field": 200})


# Lines


def test_nothing() -> None:
    """An empty block has no lines."""
    decoded = decoder().decode(b"")
    assert (decoded.lines, decoded.predictions, decoded.rejected, only(decoded).time.size) == (0, 0, {}, 0)


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b"  \t\n", b"\n\n\n"])
def test_blank_lines_are_no_lines(blank: bytes) -> None:
    """Blank lines are neither accepted nor rejected, wherever they stand."""
    line = lines([GOOD])
    decoded = decoder().decode(blank + line + blank + line + blank)
    assert (decoded.lines, decoded.predictions, decoded.rejected) == (2, 2, {})
    assert (decoder().decode(blank).lines, decoder().decode(blank).rejected) == (0, {})


def test_carriage_returns() -> None:
    """Lines that end as on Windows are the same lines."""
    block = lines([GOOD, {**GOOD, "prediction": "spam"}])
    assert same(only(decoder().decode(block)), only(decoder().decode(block.replace(b"\n", b"\r\n"))))


def test_last_line_without_newline() -> None:
    """A block that does not end with a newline has a last line all the same."""
    assert decoder().decode(lines([GOOD, GOOD]).rstrip()).predictions == 2


def test_record_over_two_lines() -> None:
    """A value that spans lines is no record, also when two on the next line make the numbers agree."""
    line = lines([GOOD]).strip()
    middle = line.index(b",") + 1
    spread = line[:middle] + b"\n" + line[middle:]
    nested = line.replace(b"}, ", b"}\n, ", 1)
    for block in (spread + b" " + line + b"\n", nested + line + b"\n", b"\n" + line + line + b"\n"):
        decoded = decoder().decode(block)
        assert decoded.predictions == 0
        assert_adds_up(decoded, block)


# Several models


def test_models_in_one_log() -> None:
    """Each line goes to the model that it names; a line that names none, or another, is counted and spoils nothing."""
    price = {"timestamp": START, "model": "price", "prediction": 5, "features": [1, 2, 3]}
    bad = [b'{"prediction"', b"[]", b"\xff", raw(model="5"), raw(model='"tax"'), raw(model="null")]
    block = lines([GOOD, price]) + b"\n".join(bad) + b"\n" + lines([price, GOOD, {**GOOD, "prediction": []}])
    decoded = JsonlPredictions({"mail": MAIL, "price": PRICE}, LONGEST).decode(block)
    assert_adds_up(decoded, block)
    assert decoded.rejected == {
        "malformed": 1,
        "not_an_object": 1,
        "invalid_utf8": 1,
        "wrong_type": 2,
        "other_model": 1,
        "missing_model": 1,
    }
    mail, prices = decoded.batches
    alone = only(decoder().decode(lines([GOOD, GOOD, {**GOOD, "prediction": []}])))
    # Lines that name no model are heard of by the first.
    assert same(mail, dataclasses.replace(alone, rejected_at=np.array([2] * 7)))
    assert same(prices, only(decode(price, price, schema=PRICE)))


@pytest.mark.parametrize("others", [0, 2])
def test_lines_of_nobody_are_heard_of(others: int) -> None:
    """Also where the block holds no line of the first model, or of none at all: somebody must ask what was lost."""
    price = {"timestamp": START, "model": "price", "prediction": 5, "features": [1, 2, 3]}
    told = JsonlPredictions({"mail": MAIL, "price": PRICE}, LONGEST)
    decoded = told.decode(b"[]\n" + lines([price] * others) + raw(model='"tax"') + b"\n")
    assert [(b.model, b.time.size, b.rejected_at.tolist()) for b in decoded.batches] == [
        ("mail", 0, [0, 0]),
        *[("price", 2, [])] * bool(others),
    ]
    assert told.decode(lines([price])).batches[0].model == "price"


@pytest.mark.parametrize("models", [{"mail": MAIL}, {"mail": MAIL, "price": PRICE}])
def test_what_is_lost_before_it_is_a_line_is_heard_of(models: dict[str, Schema]) -> None:
    """A block of nothing but broken bodies, native or not, is an empty batch of the first model; lost labels are nobody's."""
    broken = Block(frame(Event(b"\x1f\x8b\x08 broken")) * 3, framed=True)
    predictions, labels = JsonlPredictions(models, LONGEST), JsonlFeedback(LONGEST)
    for told in (Native(predictions, LONGEST), Foreign(Translator(Kserve(KserveConfig())), predictions, labels)):
        decoded = told.decode(broken)
        assert (decoded.lines, decoded.rejected) == (3, {"bad_compression": 3})
        assert [(b.model, b.rejected_at.tolist()) for b in decoded.batches] == [("mail", [0, 0, 0])]
    assert Native(labels, LONGEST).decode(broken).batches == ()


def test_long_line_among_models() -> None:
    """A line that is too long is refused before it is looked at, also where its model is not known yet."""
    told = JsonlPredictions({"mail": MAIL, "price": PRICE}, 2048)
    decoded = told.decode(lines([{**GOOD, "text": "x" * 4096}, GOOD]))
    assert (decoded.predictions, decoded.rejected) == (1, {"too_long": 1})


# Properties

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["ham", "de", START, "2026-01-05T08:00:00Z", 10**400])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from([*GOOD, "request_id", "inference_id", "scores"]) | st.text(max_size=4)
FEATURES = st.dictionaries(
    st.sampled_from(["amount", "age", "country", "subject", "vector", "zz", "yy"]) | st.text(max_size=3),
    JSON,
    max_size=6,
)
RECORDS = st.builds(
    lambda keep, changes, features: {**({**GOOD} if keep else {}), **changes, **features},
    st.booleans(),
    st.dictionaries(NAMES, JSON, max_size=4),
    st.just({}) | FEATURES.map(lambda found: {"features": found}),
)
LINES = (
    RECORDS.map(lambda record: json.dumps(record).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=40).map(lambda found: found.replace(b"\n", b""))
    | st.sampled_from([b"", b" ", raw(), raw() + raw(), raw()[:100], raw()[100:], raw(confidence="NaN")])
)


@given(block=st.binary(max_size=300))
@example(b"{}\n{")
@example(b"\n{}{}\n")
def test_any_bytes_are_counted(block: bytes) -> None:
    """Whatever the bytes, nothing is raised and every line is counted once."""
    for found in (
        decoder().decode(block),
        decoder(PRICE).decode(block),
        JsonlPredictions({"mail": MAIL, "price": PRICE}, LONGEST).decode(block),
    ):
        assert_adds_up(found, block)


@given(found=st.lists(LINES, max_size=12))
def test_any_json_is_counted(found: list[bytes]) -> None:
    """Whatever the JSON, nothing is raised, every line is counted once, and no kept number is infinite."""
    block = b"".join(line + b"\n" for line in found)
    for told in (
        decoder(),
        decoder(STRINGS),
        decoder(PRICE),
        decoder(timed=False),
        JsonlPredictions({"mail": MAIL, "price": PRICE}, LONGEST),
    ):
        decoded = told.decode(block)
        assert_adds_up(decoded, block)
        for batch in decoded.batches:
            assert not np.isinf(batch.numbers).any()
            assert not np.isinf(batch.embeddings).any()
            for text in (*batch.ids, *batch.labels, *batch.texts.ravel()):
                text.encode()
            assert max(map(len, (*batch.ids, *batch.labels)), default=0) <= LONGEST_NAME
            assert (batch.codes >= 0).all()
            assert (np.diff(batch.rejected_at) >= 0).all()
            assert (batch.rejected_at <= batch.time.size).all()


@given(found=st.lists(LINES, min_size=1, max_size=12), cuts=st.lists(st.integers(0, 12), max_size=4))
def test_chopping_does_not_matter(found: list[bytes], cuts: list[int]) -> None:
    """A block cut anywhere between lines gives the same columns, rejected places, reasons and faults."""
    whole = b"".join(line + b"\n" for line in found)
    edges = sorted({0, len(found), *(min(cut, len(found)) for cut in cuts)})
    blocks = [b"".join(line + b"\n" for line in found[a:b]) for a, b in pairwise(edges)]
    at_once = decoder().decode(whole)
    told = decoder()
    parts = [told.decode(block) for block in blocks]
    assert same(only(at_once), joined(parts))
    for counts in ("rejected", "faults"):
        added: Counter[str] = Counter()
        for part in parts:
            added.update(getattr(part, counts))
        assert dict(added) == getattr(at_once, counts)


def test_chunks_do_not_matter() -> None:
    """A block of many chunks, with bad lines and versions all over, is what its lines are one by one."""
    rng = np.random.default_rng(5)
    records = [
        {**GOOD, "timestamp": START + n, "model_version": f"v{rng.integers(3)}", "confidence": round(rng.random(), 3)}
        for n in range(1500)
    ]
    found = lines(records).splitlines()
    for place in rng.choice(1500, 40, replace=False).tolist():
        found[place] = REJECTED[place % len(REJECTED)][1][:1000]
    told = decoder()
    parts = [told.decode(line + b"\n") for line in found]
    assert same(only(decoder().decode(b"\n".join(found) + b"\n")), joined(parts))


@given(
    schema=st.sampled_from([MAIL, STRINGS]),
    changes=st.dictionaries(
        st.sampled_from(
            [
                *("prediction", "confidence", "text", "embedding", "model_version", "model"),
                *("prediction_id", "request_id", "inference_id", "label", "segment"),
            ]
        ),
        st.none()
        | st.sampled_from(["ham", "eggs", "mail", "eu", "", 0.5, 1, True, 2**60 + 1, 2**70, [1, 2], [0.5, None], [1]])
        | st.text(max_size=3),
    ),
    features=st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "amount": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60),
            "country": st.none() | st.sampled_from(["de", "it", "xx", 4, True]),
            "subject": st.none() | st.text(max_size=5),
            "vector": st.none() | st.lists(st.floats(0, 1)),
            "unknown": st.integers(),
        },
    ),
    probabilities=st.none()
    | st.lists(st.floats(0, 1), max_size=3)
    | st.dictionaries(st.sampled_from(["ham", "spam"]), st.floats(0, 1)),
)
def test_both_paths_agree(schema: Schema, changes: Record, features: Record | None, probabilities: object) -> None:
    """A record that the typed decoder takes gives the same columns and faults when the slow path reads it."""
    record = {**GOOD, **changes, "features": features or {}, "probabilities": probabilities}
    fast = decode(record, schema=schema)
    # The slow path is taken for a line that says something the typed decoder refuses, here in a field that is no column.
    odd = json.dumps(record)[:-1] + ', "scores": "none"}'
    slow = decoder(schema).decode(odd.encode() + b"\n")
    faults = Counter(slow.faults)
    faults["probabilities_wrong_type"] -= 1
    assert slow.rejected == fast.rejected
    assert same(only(fast), only(slow)) or slow.rejected
    if fast.predictions:
        assert +faults == Counter(fast.faults)


# Feedback

LABEL: Record = {"timestamp": START, "prediction_id": "p1", "label": "spam", "source": "reviewer"}


def feedback(*records: Record) -> Decoded:
    """Labels, as they would stand in a log."""
    return JsonlFeedback(LONGEST).decode(lines(records))


def test_feedback_fields() -> None:
    """A label has a time, a prediction by any of its names, the label itself in any type, and perhaps a source."""
    decoded = feedback(
        LABEL,
        {"timestamp": "2026-01-05T08:00:01Z", "request_id": 7, "label": 1, "source": 3},
        {
            "timestamp": int(START) + 2,
            "inference_id": "p3",
            "label": True,
            "note": "ignored",
            "attributes": {"network": "10.1", "age": None, "client": "web"},
        },
    )
    found = decoded.feedback
    assert found is not None
    assert (decoded.lines, decoded.labels, decoded.predictions, decoded.rejected) == (3, 3, 0, {})
    assert found.time.tolist() == [START, START + 1, START + 2]
    assert found.ids.tolist() == ["p1", "7", "p3"]
    assert found.labels.tolist() == ["spam", "1", "true"]
    assert found.sources.tolist() == ["reviewer", "3", ""]
    assert found.attributes.tolist() == [(), (), ("client=web", "network=10.1")]


@pytest.mark.parametrize(
    ("said", "shared"),
    [
        (None, ()),
        ({}, ()),
        ({"b": "2", "a": "1"}, ("a=1", "b=2")),
        ({"a": None, "b": 1, "c": True, "d": 1.5, "e": ""}, ("b=1", "c=true", "d=1.5", "e=")),
        ({f"k{n:02d}": n for n in reversed(range(50))}, tuple(f"k{n:02d}={n}" for n in range(MOST_ATTRIBUTES))),
        ({f"k{n:02d}": n if n > 19 else None for n in range(50)}, tuple(f"k{n}={n}" for n in range(20, 28))),
        ({"x" * 999: "y" * 999}, ("x" * LONGEST_NAME + "=" + "y" * LONGEST_NAME,)),
        ({"a\nb": "c\u202ed"}, ("a\u25a1b=c\u25a1d",)),
    ],
)
def test_attributes(said: Record | None, shared: tuple[str, ...]) -> None:
    """What a source shares is told by name, sorted, null left out, a bounded number of bounded texts."""
    found = feedback({**LABEL, "attributes": said}).feedback
    assert found is not None
    assert found.attributes.tolist() == [shared]


@pytest.mark.parametrize("attributes", ["[1]", '"web"', "5", '{"a": [1]}', '{"a": {}}', '{"a": NaN}'])
def test_attributes_of_a_wrong_type(attributes: str) -> None:
    """A label whose attributes are no mapping of names to single values is rejected alone."""
    odd = json.dumps(LABEL)[:-1] + f', "attributes": {attributes}' + "}\n"
    decoded = JsonlFeedback(LONGEST).decode(lines([LABEL]) + odd.encode() + lines([LABEL]))
    assert (decoded.labels, decoded.rejected) == (2, {"wrong_type": 1})


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("malformed", b"{"),
        ("not_an_object", b"[]"),
        ("invalid_utf8", b'{"label": "\xff"}'),
        ("wrong_type", b'{"label": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("too_long", b'{"label": "' + b"x" * LONGEST + b'"}'),
        ("missing_timestamp", json.dumps(without(LABEL, "timestamp")).encode()),
        ("missing_prediction_id", json.dumps(without(LABEL, "prediction_id")).encode()),
        ("missing_label", json.dumps(without(LABEL, "label")).encode()),
        ("missing_label", json.dumps({**LABEL, "label": None}).encode()),
        ("wrong_type", json.dumps({**LABEL, "label": ["spam"]}).encode()),
        ("wrong_type", json.dumps({**LABEL, "label": float("nan")}).encode()),
        ("absurd_timestamp", json.dumps({**LABEL, "timestamp": START * 1000}).encode()),
        ("absurd_timestamp", json.dumps({**LABEL, "timestamp": "soon"}).encode()),
        ("absurd_timestamp", json.dumps({**LABEL, "timestamp": 10**400}).encode()),
        ("absurd_timestamp", json.dumps({**LABEL, "timestamp": float("inf")}).encode()),
        ("timestamp_without_zone", json.dumps({**LABEL, "timestamp": "2026-01-05T08:00:00"}).encode()),
    ],
)
def test_bad_label_is_rejected_alone(reason: str, line: bytes) -> None:
    """A bad label is counted under its reason; its neighbours are kept."""
    decoded = JsonlFeedback(LONGEST).decode(lines([LABEL]) + line + b"\r\n\n" + lines([LABEL]))
    assert (decoded.lines, decoded.labels, decoded.rejected) == (3, 2, {reason: 1})


def test_future_label() -> None:
    """A label from the future is refused."""
    assert JsonlFeedback(LONGEST).decode(lines([LABEL]), START - 1).rejected == {"future_timestamp": 1}


@given(
    found=st.lists(
        st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
        | st.builds(
            lambda changes: json.dumps({**LABEL, **changes}).encode(),
            st.dictionaries(st.sampled_from([*LABEL, "attributes"]) | st.text(max_size=3), JSON, max_size=3),
        ),
        max_size=8,
    )
)
def test_any_feedback_is_counted(found: list[bytes]) -> None:
    """Whatever the lines, nothing is raised, each is counted once, and every text kept can be written."""
    block = b"\n".join(found)
    decoded = JsonlFeedback(LONGEST).decode(block)
    assert decoded.lines == line_count(block) == decoded.labels + sum(decoded.rejected.values())
    kept = decoded.feedback
    assert kept is not None
    for text in (*kept.ids, *kept.labels, *kept.sources, *(one for shared in kept.attributes for one in shared)):
        text.encode()
    assert all(len(shared) <= MOST_ATTRIBUTES and list(shared) == sorted(shared) for shared in kept.attributes)
