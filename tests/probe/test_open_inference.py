"""The Open Inference Protocol: questions as tensors, tensors as answers, and an error for every answer that is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.endpoint import OpenInferenceConfig, TensorsConfig
from poisonwatch.errors import ProbeError
from poisonwatch.probe.open_inference import OpenInference
from poisonwatch.types import Answer, Question
from tests.probe.answering import answering

CLASSES = ("ham", "spam")
TEXTS = [Question("hello", None, None), Question("win \u00a31000", None, None)]
PATH = "/v2/models/{model}/versions/{model_version}/infer"


def config(url: str = "http://localhost", **keys: Any) -> OpenInferenceConfig:
    """A configured endpoint, for texts unless said otherwise."""
    keys = {"kind": "open_inference", "inputs": TensorsConfig(text="text"), **keys}
    return OpenInferenceConfig(url=url + PATH, **keys)


def tensor(name: str, shape: Any, data: Any) -> dict[str, Any]:
    """An output tensor, as far as it is read."""
    return {"name": name, "shape": shape, "datatype": "FP64", "data": data}


# An answer of KServe's server as captured, with a second row.
CAPTURED = {
    "model_name": "sms-spam",
    "model_version": None,
    "id": "8274b453",
    "parameters": None,
    "outputs": [
        {"name": "predict", "shape": [2], "datatype": "BYTES", "parameters": None, "data": ["ham", "spam"]},
        {
            "name": "predict_proba",
            "shape": [2, 2],
            "datatype": "FP64",
            "parameters": None,
            "data": [0.957725890053329, 0.042274109946671, 0.25, 0.75],
        },
    ],
}


def test_the_answer_of_a_captured_server() -> None:
    """Labels and probabilities of both rows; the request names the tensors that it wants and says nothing beside."""
    with answering(CAPTURED) as server:
        endpoint = OpenInference(
            config(server.url, label="predict", probabilities="predict_proba", classes=CLASSES), "m"
        )
        assert endpoint.ask(TEXTS, "v1") == [Answer("ham", 0.957725890053329, None), Answer("spam", 0.75, None)]
        assert server.bodies() == [
            {
                "inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["hello", "win \u00a31000"]}],
                "outputs": [{"name": "predict"}, {"name": "predict_proba"}],
            }
        ]
        assert server.requests[0].startswith(b"POST /v2/models/m/versions/v1/infer HTTP/1.1\r\n")
        endpoint.close()
        with pytest.raises(ProbeError, match="closed"):
            endpoint.ask(TEXTS, "v1")


def test_no_question_no_request() -> None:
    """Nothing is sent when there is nothing to ask."""
    with answering(CAPTURED) as server:
        assert OpenInference(config(server.url, label="predict"), "m").ask([], "v1") == []
    assert server.requests == []


def test_mlserver_is_told_content_types() -> None:
    """Text is `str`, numbers are `np`, and a tensor per feature makes a frame, `pd`."""
    question = Question("hello", {"age": 41.0, "country": "DE"}, [0.5])
    typed = config(kind="mlserver", label="x", inputs=TensorsConfig(text="t", tensor_per_feature=True, embedding="e"))
    request = OpenInference(typed, "m").request([question])
    assert request["parameters"] == {"content_type": "pd"}
    assert [(one["name"], one["datatype"], one["parameters"]["content_type"]) for one in request["inputs"]] == [
        ("t", "BYTES", "str"),
        ("age", "FP64", "np"),
        ("country", "BYTES", "str"),
        ("e", "FP64", "np"),
    ]
    one_tensor = config(kind="mlserver", label="x", inputs=TensorsConfig(features="f", order=("age",)))
    assert "parameters" not in OpenInference(one_tensor, "m").request([Question(None, {"age": 1.0}, None)])


NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(
    rows=st.integers(1, 4).flatmap(
        lambda w: st.lists(st.lists(NUMBERS, min_size=w, max_size=w), min_size=1, max_size=5)
    )
)
def test_one_tensor_holds_the_rows_in_order(rows: list[list[float | None]]) -> None:
    """Lists go in as they are, named features in the server's order, row by row, with the shape that they have."""
    names = [f"f{place}" for place in range(len(rows[0]))]
    layouts = (
        (TensorsConfig(features="x", numbers="FP32"), [Question(None, row, None) for row in rows]),
        (
            TensorsConfig(features="x", order=tuple(names), numbers="FP32"),
            [Question(None, dict(reversed(list(zip(names, row, strict=True)))), None) for row in rows],
        ),
    )
    for inputs, questions in layouts:
        document = OpenInference(config(inputs=inputs, label="y"), "m").request(questions)
        assert document["inputs"] == [
            {
                "name": "x",
                "shape": [len(rows), len(names)],
                "datatype": "FP32",
                "data": [v for row in rows for v in row],
            }
        ]


def test_a_log_may_have_features_that_the_server_does_not_take() -> None:
    """The server's order chooses among the features of a question."""
    inputs = TensorsConfig(features="x", order=("c", "a"))
    question = Question(None, {"a": 1.0, "b": "text", "c": 3.0}, None)
    document = OpenInference(config(inputs=inputs, label="y"), "m").request([question])
    assert document["inputs"] == [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [3.0, 1.0]}]


def test_each_feature_may_have_a_tensor() -> None:
    """A column per feature, with the datatype of its values; what is missing is null and has the others' datatype."""
    rows: list[dict[str, float | str | bool | None]] = [
        {"age": 41.0, "country": None, "member": True, "gone": None},
        {"age": None, "country": "DE", "member": False, "gone": None},
    ]
    inputs = TensorsConfig(tensor_per_feature=True)
    document = OpenInference(config(inputs=inputs, label="y"), "m").request([Question(None, row, None) for row in rows])
    assert document["inputs"] == [
        {"name": "age", "shape": [2, 1], "datatype": "FP64", "data": [41.0, None]},
        {"name": "country", "shape": [2, 1], "datatype": "BYTES", "data": [None, "DE"]},
        {"name": "member", "shape": [2, 1], "datatype": "BOOL", "data": [True, False]},
        {"name": "gone", "shape": [2, 1], "datatype": "FP64", "data": [None, None]},
    ]


UNASKABLE: list[tuple[dict[str, Any], list[Question], str]] = [
    ({"text": "t"}, [TEXTS[0], Question(None, None, None)], "without text"),
    ({"embedding": "e"}, [TEXTS[0]], "without embedding"),
    ({"embedding": "e"}, [Question(None, None, [1.0]), Question(None, None, [1.0, 2.0])], "rows of different widths"),
    ({"features": "f"}, [TEXTS[0]], "without features"),
    ({"features": "f"}, [Question(None, {"a": 1.0}, None)], "under `inputs.order`"),
    ({"features": "f", "order": ("a",)}, [Question(None, {"a": "x"}, None)], "say `tensor_per_feature: true`"),
    (
        {"features": "f", "order": ("a", "b")},
        [Question(None, {"a": 1.0, "c": 1.0}, None)],
        "names features that a question has not: b$",
    ),
    ({"tensor_per_feature": True}, [Question(None, [1.0], None)], "without named features"),
    ({"tensor_per_feature": True}, [Question(None, {}, None)], "without named features"),
    (
        {"tensor_per_feature": True},
        [Question(None, {"a": 1.0}, None), Question(None, {"b": 1.0}, None)],
        "different features",
    ),
    (
        {"tensor_per_feature": True},
        [Question(None, {"a": 1.0}, None), Question(None, {"a": "x"}, None)],
        "tensor 'a' would hold numbers and text",
    ),
]


@pytest.mark.parametrize(("inputs", "questions", "told"), UNASKABLE)
def test_what_cannot_be_asked(inputs: dict[str, Any], questions: list[Question], told: str) -> None:
    """A question that does not fit the tensors is refused before anything is sent."""
    with answering(CAPTURED) as server:
        endpoint = OpenInference(config(server.url, inputs=TensorsConfig(**inputs), label="predict"), "m")
        with pytest.raises(ProbeError, match=told):
            endpoint.ask(questions, "v1")
    assert server.requests == []


LABELS = tensor("y", [2, 1], [["ham"], ["spam"]])

BAD: list[tuple[object, str]] = [
    (None, "none of the Open Inference Protocol"),
    ([], "none of the Open Inference Protocol"),
    ({"model_version": 7, "outputs": [LABELS]}, "none of the Open Inference Protocol"),
    ({"model_version": "v2", "outputs": [LABELS]}, "version v2 answered where v1 was asked"),
    ({"error": "boom"}, "0 output tensors 'y'; it has none"),
    ({"outputs": {"y": ["ham", "spam"]}}, "0 output tensors 'y'; it has none"),
    ({"outputs": [1, None, tensor("z", [2], ["a", "b"])]}, "0 output tensors 'y'; it has 'z'"),
    ({"outputs": [LABELS, LABELS]}, "2 output tensors 'y'"),
    ({"outputs": [tensor("y", None, ["ham", "spam"])]}, "has no shape"),
    ({"outputs": [tensor("y", [], ["ham", "spam"])]}, "has no shape"),
    ({"outputs": [tensor("y", [-2, -1], ["ham", "spam"])]}, "has no shape"),
    ({"outputs": [tensor("y", [2.0], ["ham", "spam"])]}, "has no shape"),
    ({"outputs": [tensor("y", [True, 2], ["ham", "spam"])]}, "has no shape"),
    ({"outputs": [tensor("y", [1], ["ham"])]}, "1 values for 2 questions"),
    ({"outputs": [tensor("y", [2], ["ham"])]}, "1 values for 2 questions"),
    ({"outputs": [tensor("y", [3], ["ham", "spam", "ham"])]}, "3 values for 2 questions"),
    ({"outputs": [tensor("y", [2, 2], ["ham", "spam"] * 2)]}, "4 values for 2 questions"),
    ({"outputs": [tensor("y", [2], None)]}, "0 values for 2 questions"),
    ({"outputs": [tensor("y", [2], "ab")]}, "0 values for 2 questions"),
    ({"outputs": [tensor("y", [2, 0], [])]}, "0 values for 2 questions"),
    ({"outputs": [tensor("y", [2], ["ham", None])]}, "where a class was expected"),
    ({"outputs": [tensor("y", [2], [[[[[[[[[["ham"]]]]]]]]], "spam"])]}, "nested too deeply"),
]


@pytest.mark.parametrize(("answer", "told"), BAD)
def test_what_is_no_answer(answer: object, told: str) -> None:
    """Each way in which an answer is none of the protocol, or not about these questions, is told."""
    with answering(answer) as server, pytest.raises(ProbeError, match=told):
        OpenInference(config(server.url, label="y"), "m").ask(TEXTS, "v1")


def test_the_version_that_a_server_says_is_passed_on() -> None:
    """Where the server says which version answered, the answers say it too."""
    with answering({"model_version": "v1", "outputs": [LABELS]}) as server:
        found = OpenInference(config(server.url, label="y"), "m").ask(TEXTS, "v1")
    assert found == [Answer("ham", None, "v1"), Answer("spam", None, "v1")]


@given(
    weights=st.integers(2, 5).flatmap(
        lambda width: st.lists(st.lists(st.floats(0.01, 1.0), min_size=width, max_size=width), min_size=1, max_size=6)
    ),
    nested=st.booleans(),
)
def test_probabilities_come_back_row_by_row(weights: list[list[float]], nested: bool) -> None:
    """Flat in row-major order or nested, each question gets its own row: compared with NumPy's reshape and argmax."""
    probabilities = np.array(weights)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    count, width = probabilities.shape
    classes = tuple(f"c{place}" for place in range(width))
    data = probabilities.tolist() if nested else probabilities.ravel().tolist()
    with answering({"outputs": [tensor("p", [count, width], data)]}) as server:
        endpoint = OpenInference(config(server.url, probabilities="p", classes=classes), "m")
        found = endpoint.ask([Question("x", None, None)] * count, "v1")
    assert [answer.label for answer in found] == [classes[place] for place in probabilities.argmax(axis=1)]
    assert [answer.confidence for answer in found] == probabilities.max(axis=1).tolist()
