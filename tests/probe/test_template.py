"""JSON templates: placeholders become values and nothing else; pointers find what they name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.endpoint import TemplateConfig
from poisonwatch.errors import ProbeError
from poisonwatch.probe.template import Template, at, filled, mentions
from poisonwatch.types import Answer, Question
from tests.probe.answering import answering

FULL = Question("hello", {"age": 41.0, "a.b": "x", "gone": None}, [0.5, -1.0])

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ["{{text}}", "{{features}}", '"}, {"x": "', "\\", "\x00", "{{model_version}}"]
)
VALUES = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS


@given(
    text=TEXTS,
    features=st.dictionaries(TEXTS, VALUES, max_size=4),
    embedding=st.lists(st.floats(-1e9, 1e9), max_size=4),
)
def test_no_input_changes_the_shape_of_a_request(
    text: str, features: dict[str, float | str | bool | None], embedding: list[float]
) -> None:
    """Through JSON and back every input stands at its place as it was, whatever it contains, and all else is the template."""
    template = {"a": ["{{text}}", {"b": "{{features}}"}, 1, None], "c": "{{embedding}}", "text": "text"}
    document = filled(template, Question(text, features, embedding), "m", "v")
    expected = {"a": [text, {"b": features}, 1, None], "c": embedding, "text": "text"}
    assert json.loads(msgspec.json.encode(document)) == expected
    assert template == {"a": ["{{text}}", {"b": "{{features}}"}, 1, None], "c": "{{embedding}}", "text": "text"}


def test_every_placeholder() -> None:
    """Each stands for what its name says; one feature by its name, even with dots in it, and even when it is missing."""
    names = ("text", "features", "embedding", "model", "model_version", "features.age", "features.a.b", "features.gone")
    found = filled([f"{{{{{name}}}}}" for name in names], FULL, "mail", "v3")
    assert found == ["hello", FULL.features, [0.5, -1.0], "mail", "v3", 41.0, "x", None]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{text}}", "has no text"),
        ("{{features}}", "has no features"),
        ("{{embedding}}", "has no embedding"),
        ("{{features.age}}", "has no feature 'age'"),
    ],
)
def test_a_question_that_lacks_what_is_asked_for(template: str, told: str) -> None:
    """Nothing is asked with a hole in it."""
    with pytest.raises(ProbeError, match=told):
        filled({"x": [template]}, Question(None, None, None), "m", "v")


def test_one_feature_of_a_list_has_no_name() -> None:
    """Features without names cannot be asked for by name."""
    with pytest.raises(ProbeError, match="has no feature '0'"):
        filled("{{features.0}}", Question(None, [1.0], None), "m", "v")


DOCUMENT: dict[str, Any] = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, "~1": 2, "deep": [{"x": [False]}]}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/m~0n", 8),
        ("/~01", 2),
        ("/deep/0/x/0", False),
    ],
)
def test_pointers_find_what_rfc_6901_says(pointer: str, found: object) -> None:
    """The examples of RFC 6901, section 5, and deeper ones."""
    assert at(DOCUMENT, pointer) == found


@pytest.mark.parametrize(
    "pointer", ["/foo/2", "/foo/-1", "/foo/-", "/foo/x", "/bar", "/foo/0/0", "/deep/x", "/foo/\u0661"]
)
def test_pointers_that_lead_nowhere(pointer: str) -> None:
    """What is not there is an error that names the pointer."""
    with pytest.raises(ProbeError, match="has nothing at"):
        at(DOCUMENT, pointer)


def test_a_version_in_the_body_is_noticed() -> None:
    """Wherever the placeholder of the version stands, it is found."""
    assert mentions({"a": [1, {"b": "{{model_version}}"}]}, "{{model_version}}")
    assert not mentions({"{{model_version}}": ["x", None, 1]}, "{{model_version}}")


def test_each_question_is_one_request() -> None:
    """Questions are asked in their order, in the template's words, and each answer is read by the pointers."""
    config = TemplateConfig(
        kind="template",
        url="http://localhost/",
        request={"prompt": "{{text}}", "model": ["{{model}}", "{{model_version}}"]},
        label="/result/0/class",
        confidence="/result/0/score",
    )
    with answering({"result": [{"class": "spam", "score": 0.75}]}) as server:
        endpoint = Template(config.model_copy(update={"url": server.url}), "mail")
        questions = [Question(text, None, None) for text in ("one", "two")]
        assert endpoint.ask(questions, "v2") == [Answer("spam", 0.75, None)] * 2
        assert server.bodies() == [{"prompt": text, "model": ["mail", "v2"]} for text in ("one", "two")]
        assert endpoint.ask([], "v2") == []
        endpoint.close()
        with pytest.raises(ProbeError, match="closed"):
            endpoint.ask(questions, "v2")
        assert len(server.requests) == 2


@pytest.mark.parametrize("answer", [None, [], {}, {"result": []}, {"result": [{"class": None, "score": 1}]}, "spam", 3])
def test_an_answer_without_class(answer: object) -> None:
    """Where the pointer finds nothing, there is no answer."""
    with answering(answer) as server:
        config = TemplateConfig(
            kind="template", url=f"{server.url}/{{model_version}}", request="{{text}}", label="/result/0/class"
        )
        with pytest.raises(ProbeError, match="nothing at '/result/0/class'"):
            Template(config, "mail").ask([FULL], "v2")
