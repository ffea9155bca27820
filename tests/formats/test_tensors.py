"""Tensors of v2 are rows whatever way they are written, and no shape makes more of them than was sent."""

from __future__ import annotations

import base64
import json
import math
import tracemalloc
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.formats import KserveConfig
from poisonwatch.formats.bodies import answer_of, columns_as_rows, input_rows, load_body
from poisonwatch.formats.tensors import BINARY, MOST_TENSORS, Tensor, are_tensors, rows_of, tensors_of
from tests.formats.posted import JSON, reason_of

NUMBERS = [[0, 1, 1], [1, 0, 1]]


def read(body: dict[str, Any], tail: bytes = b"", faults: Counter[str] | None = None, **told: Any) -> list[Any]:
    """Rows of a request."""
    data = json.dumps(body).encode() + tail
    return input_rows(load_body(data), KserveConfig(**told), Counter() if faults is None else faults)


def tensor(data: Any = None, shape: Any = None, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """One tensor of a body."""
    return {"name": "x", "shape": shape, "datatype": datatype, "data": data, **more}


def refused(body: dict[str, Any], tail: bytes = b"") -> str:
    """The reason for which a request is refused."""
    return reason_of(lambda: read(body, tail))


def words(*texts: bytes) -> bytes:
    """Strings as a binary tensor has them."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


@pytest.mark.parametrize("datatype", sorted(BINARY))
def test_every_datatype_is_the_same_flat_nested_and_binary(datatype: str) -> None:
    """Row-major values in two rows of three, in each of the three ways to write them."""
    packed = np.array(NUMBERS).astype(BINARY[datatype]).tobytes()
    flat = tensor(NUMBERS[0] + NUMBERS[1], [2, 3], datatype)
    nested = tensor(NUMBERS, [2, 3], datatype)
    binary = tensor(shape=[2, 3], datatype=datatype, parameters={"binary_data_size": len(packed)})
    del binary["data"]
    assert read({"inputs": [flat]}) == read({"inputs": [nested]}) == read({"inputs": [binary]}, packed) == NUMBERS


def test_half_precision() -> None:
    """FP16, which JSON readers never meet in binary."""
    packed = np.array([0.5, -2.0, 65504.0], "<f2").tobytes()
    binary = {"name": "x", "shape": [3], "datatype": "FP16", "parameters": {"binary_data_size": 6}}
    assert read({"inputs": [binary]}, packed) == [0.5, -2.0, 65504.0]


def test_several_binary_tensors_follow_one_another() -> None:
    """Each takes its bytes in the order of the JSON; one that has data in the JSON takes none."""
    text = words("ä".encode(), b"\n{")
    numbers = np.array([1.5, 2.5]).tobytes()
    body = {
        "inputs": [
            {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(text)}},
            {"name": "plain", "shape": [2], "datatype": "INT64", "data": [7, 8]},
            {"name": "amount", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": 16}},
        ]
    }
    faults: Counter[str] = Counter()
    expected = [{"text": "ä", "plain": 7, "amount": 1.5}, {"text": "\n{", "plain": 8, "amount": 2.5}]
    assert read(body, text + numbers, faults) == expected
    assert not faults
    assert read(body, text + numbers + b"{}", faults) == expected
    assert faults == {"bytes_behind_tensors": 1}


@pytest.mark.parametrize("wrong", ["3", "999", "0", "x", "9" * 50, "²"])
def test_the_length_of_the_head_is_used_and_not_believed(wrong: str) -> None:
    """Where it is right, it splits; where it is wrong, or the request's own beside the response, the JSON says its end."""
    head = json.dumps(
        {"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}}]}
    )
    data = head.encode() + b"{"
    for said in (str(len(head)), None, wrong):
        body = load_body(data, said)
        assert input_rows(body, KserveConfig(), Counter()) == [123]


def test_bytes_in_base64_are_their_text() -> None:
    """The content type of the tensor, or of the request; what is none stays as it is and is counted."""
    encoded = base64.b64encode("grüß".encode()).decode()
    faults: Counter[str] = Counter()
    own = tensor([encoded], [1], "BYTES", parameters={"content_type": "base64"})
    assert read({"inputs": [own]}, faults=faults) == ["grüß"]
    assert read({"inputs": [tensor([encoded], [1], "BYTES")], "parameters": {"content_type": "base64"}}) == ["grüß"]
    assert not faults
    assert read({"inputs": [{**own, "data": ["?"]}]}, faults=faults) == ["?"]
    assert read({"inputs": [{**own, "data": ["/w=="]}]}, faults=faults) == ["\ufffd"]
    assert faults == {"bad_base64": 1, "invalid_utf8": 1}


def test_columns() -> None:
    """One tensor per feature; a single one is a column, too, where the content type says a table."""
    age = {"name": "age", "shape": [2, 1], "datatype": "INT64", "data": [41, 42]}
    country = {"name": "country", "shape": [2], "datatype": "BYTES", "data": ["DE", "FR"]}
    assert read({"inputs": [age, country]}) == [{"age": 41, "country": "DE"}, {"age": 42, "country": "FR"}]
    assert read({"inputs": [age], "parameters": {"content_type": "pd"}}) == [{"age": 41}, {"age": 42}]
    assert read({"inputs": [age]}) == [41, 42]
    assert read({"inputs": [country]}, text="country") == [{"country": "DE"}, {"country": "FR"}]


def test_an_added_tensor_does_not_hide_the_others() -> None:
    """A client adds a tensor that the server never looks at: the features stay, the addition is counted."""
    features = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
    junk = {"name": "y", "shape": [1], "datatype": "FP32", "data": [9.0]}
    faults: Counter[str] = Counter()
    assert read({"inputs": [features, junk]}, faults=faults, features=("a", "b")) == [[1.0, 2.0]]
    assert faults == {"unknown_input": 1}
    read({"inputs": [features, {**junk, "name": "x"}]}, faults=faults)
    read({"inputs": [features], "instances": [[5]]}, faults=faults)
    assert faults == {"unknown_input": 1, "ambiguous_request": 2}


def test_outputs() -> None:
    """A label and its probabilities, in a batch of two."""
    label = {"name": "predict", "shape": [2], "datatype": "BYTES", "data": ["ham", "spam"]}
    shares = {"name": "predict_proba", "shape": [2, 2], "datatype": "FP64", "data": [[0.75, 0.25], [0.25, 0.75]]}
    faults: Counter[str] = Counter()
    body = {"model_name": "m", "model_version": 7, "outputs": [label, shares]}
    answer = answer_of(load_body(json.dumps(body).encode()), faults)
    assert answer.rows == [
        {"predict": "ham", "predict_proba": [0.75, 0.25]},
        {"predict": "spam", "predict_proba": [0.25, 0.75]},
    ]
    assert (answer.model, answer.version) == ("m", "7")
    assert answer_of(load_body(b'{"outputs":[%s]}' % json.dumps(shares).encode()), faults).rows == shares["data"]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (tensor([1], [10**9, 10**9]), "shape_mismatch"),
        (tensor([1], [10**400]), "shape_mismatch"),
        (tensor([1, 2], [3]), "shape_mismatch"),
        (tensor([[[1]]], [1] * 17), "bad_tensor"),
        (tensor([1], [-1]), "bad_tensor"),
        (tensor([1], [True]), "bad_tensor"),
        (tensor([1], ["1"]), "bad_tensor"),
        (tensor([1], "1"), "bad_tensor"),
        (tensor("1", [1]), "bad_tensor"),
        (tensor(None, [1]), "bad_tensor"),
        ({"name": "x", "shape": [1], "datatype": "FP32"}, "bad_tensor"),
        *(
            ({"name": "x", "shape": [1], "datatype": kind, "parameters": {"binary_data_size": size}}, "bad_tensor")
            for kind, size in (("FP32", 5), ("FP32", -1), ("FP32", 10**400), ("FP32", "4"), ("FP32", 3), ("X", 4), ([], 4), ("BYTES", 4))
        ),
    ],
)  # fmt: skip
def test_what_is_no_tensor_is_a_reason(found: dict[str, Any], reason: str) -> None:
    """Shapes that claim more than is there, sizes beyond the body, types that are none."""
    assert refused({"inputs": [found]}, b"\xff\xff\xff\xff") == reason


def test_nothing_is_allocated_for_a_claim() -> None:
    """A shape of many empty rows, columns of very different lengths, deep data and many tensors cost what they weigh."""
    empty = [tensor([], [10**9, 0]), tensor([], [0])]
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert read({"inputs": [tensor(deep, [1, 1])]}) != []
    # One of 20,000 values beside 5,000 of one: a table of both would have a hundred million cells.
    ragged = [tensor(list(range(20_000)), [20_000])] + [tensor([1], [1], name=f"t{n}") for n in range(5_000)]
    plain = {"a": list(range(20_000)), **{f"t{n}": [1] for n in range(5_000)}}
    bodies = [json.dumps({"inputs": found}).encode() for found in (ragged, plain)]
    bodies.append(json.dumps({"inputs": [tensor([1], [1])] * (MOST_TENSORS + 1)}).encode())
    tracemalloc.start()
    try:
        for found in empty:
            assert read({"inputs": [found]}) == []
        reasons = [
            reason_of(lambda body=body: input_rows(load_body(body), KserveConfig(), Counter()))  # type: ignore[misc]
            for body in bodies
        ]
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert reasons == ["ragged_columns", "ragged_columns", "too_many_tensors"]


def test_values_that_are_no_numbers_pass() -> None:
    """The native decoder says what is wrong with one value; it costs no neighbour."""
    assert read({"inputs": [tensor([1, None, "x", {"y": 1}], [2, 2])]}) == [[1, None], ["x", {"y": 1}]]
    (row,) = columns_as_rows({"a": [math.nan], "b": 5})
    assert math.isnan(row["a"])
    assert row["b"] == 5


@given(
    found=st.lists(
        st.fixed_dictionaries(
            {"name": st.text(max_size=2)},
            optional={
                "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
                "datatype": st.sampled_from([*BINARY, "BYTES"]) | JSON,
                "data": st.lists(st.integers(), max_size=6) | JSON,
                "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 12) | JSON, "content_type": st.sampled_from(["base64", "pd"])}),
            },
        )
        | JSON,
        max_size=3,
    ),
    tail=st.binary(max_size=12),
)  # fmt: skip
def test_no_tensors_raise(found: list[Any], tail: bytes) -> None:
    """They are rows no more than there are values, or there is a reason."""
    tensors: list[Tensor] = []
    rows: list[Any] = []

    def all_of_it() -> None:
        tensors.extend(tensors_of(found, tail, None, Counter()))
        rows.extend(rows_of(tensors, named=False))

    assert reason_of(all_of_it) in {"", "bad_tensor", "shape_mismatch", "ragged_columns"}
    assert len(rows) <= sum(len(one.values) for one in tensors)
    assert are_tensors(found) in {True, False}


@given(
    data=st.binary(max_size=60) | JSON.map(lambda loaded: json.dumps(loaded).encode()),
    head=st.none() | st.text(max_size=3),
)
def test_no_body_raises(data: bytes, head: str | None) -> None:
    """Any bytes are a body, or there is a reason."""
    for whole in (data, data + b"\xff\0"):
        assert reason_of(partial(load_body, whole, head)) in {"", "malformed", "invalid_utf8", "too_deep"}
        reason_of(lambda whole=whole: input_rows(load_body(whole, head), KserveConfig(), Counter()))  # type: ignore[misc]
        reason_of(lambda whole=whole: answer_of(load_body(whole, head), Counter()))  # type: ignore[misc]
