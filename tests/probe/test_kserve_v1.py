"""KServe's protocol v1: instances there, predictions back, as many as there were."""

from __future__ import annotations

from typing import Any

import pytest

from poisonwatch.config.endpoint import KserveV1Config
from poisonwatch.errors import ProbeError
from poisonwatch.probe.kserve_v1 import KserveV1
from poisonwatch.types import Answer, Question
from tests.probe.answering import Listening, answering

PATH = "/v1/models/{model}-{model_version}:predict"
ROWS = [Question(None, [66.0, 9.0], None), Question(None, [30.0, 13.0], None)]


def ask(server: Listening, questions: list[Question], **keys: Any) -> list[Answer]:
    """What a configured endpoint answers about version v1 of the model `income`."""
    return KserveV1(KserveV1Config(kind="kserve_v1", url=server.url + PATH, **keys), "income").ask(questions, "v1")


def test_labels_and_scores_by_class() -> None:
    """The answer of a captured service, which names the class and the score of each."""
    captured = {
        "predictions": [
            {"label": ">50K", "scores": {"<=50K": 0.4448879992237257, ">50K": 0.5551120007762743}},
            {"label": "<=50K", "scores": {"<=50K": 0.9, ">50K": 0.1}},
        ]
    }
    with answering(captured) as server:
        found = ask(server, ROWS, label="/label", probabilities="/scores")
        assert found == [Answer(">50K", 0.5551120007762743, None), Answer("<=50K", 0.9, None)]
        assert server.bodies() == [{"instances": [[66.0, 9.0], [30.0, 13.0]]}]
        assert server.requests[0].startswith(b"POST /v1/models/income-v1:predict HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("predictions", "keys", "labels"),
    [
        # scikit-learn and XGBoost by KServe: the class itself, or its number.
        ([1, 0], {"label": ""}, ["1", "0"]),
        ([1, 0], {"label": "", "classes": ("low", "high")}, ["high", "low"]),
        # TensorFlow Serving: rows of probabilities, or one of a logistic output.
        ([[0.1, 0.9], [0.8, 0.2]], {"probabilities": "", "classes": ("low", "high")}, ["high", "low"]),
        ([[0.9], [0.2]], {"probabilities": "", "classes": ("low", "high")}, ["high", "low"]),
    ],
)
def test_answers_of_usual_servers(predictions: list[Any], keys: dict[str, Any], labels: list[str]) -> None:
    """Bare classes, their numbers, rows of probabilities."""
    with answering({"predictions": predictions}) as server:
        assert [answer.label for answer in ask(server, ROWS, **keys)] == labels


def test_an_instance_is_laid_out_by_its_template() -> None:
    """An instance may be an object with the text in it, or a list of single features in the server's order."""
    question = Question("hello", {"age": 41.0, "country": "DE"}, None)
    for instance, sent in (
        ({"text": "{{text}}", "lang": "en"}, {"text": "hello", "lang": "en"}),
        (["{{features.country}}", "{{features.age}}"], ["DE", 41.0]),
        ("{{features}}", {"age": 41.0, "country": "DE"}),
    ):
        with answering({"predictions": ["x"]}) as server:
            assert ask(server, [question], instance=instance, label="") == [Answer("x", None, None)]
            assert server.bodies() == [{"instances": [sent]}]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"predictions": [1]}, "1 predictions to 2 questions"),
        ({"predictions": [1, 0, 1]}, "3 predictions to 2 questions"),
        ({"predictions": {"label": [1, 0]}}, "no list of predictions"),
        ({"outputs": [1, 0]}, "no list of predictions"),
        ([1, 0], "no list of predictions"),
        (None, "no list of predictions"),
        ({"predictions": [1, None]}, "nothing at ''"),
        ({"predictions": [[1], [0]]}, "where a class was expected"),
    ],
)
def test_what_is_no_answer(answer: object, told: str) -> None:
    """Too few, too many, or none of the protocol."""
    with answering(answer) as server, pytest.raises(ProbeError, match=told):
        ask(server, ROWS, label="")


def test_who_answers_must_be_known() -> None:
    """The protocol says no version, so a URL that serves them all is worth nothing; no question, no request."""
    with answering({"predictions": [1]}) as server:
        endpoint = KserveV1(KserveV1Config(kind="kserve_v1", url=server.url, label=""), "income")
        assert endpoint.ask([], "v1") == []
        assert server.requests == []
        with pytest.raises(ProbeError, match="nothing says which version answered"):
            endpoint.ask(ROWS[:1], "v1")
        named = {"row": "{{features}}", "release": "{{model_version}}"}
        assert KserveV1(KserveV1Config(kind="kserve_v1", url=server.url, instance=named, label=""), "income").ask(
            ROWS[:1], "v1"
        ) == [Answer("1", None, None)]
        endpoint.close()
        with pytest.raises(ProbeError, match="closed"):
            endpoint.ask(ROWS[:1], "v1")
