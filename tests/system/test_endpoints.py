"""The clients of `poisonwatch.probe` against the real MLServer and the real server of KServe, serving a clean and a backdoored filter."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from poisonwatch.config.endpoint import KserveV1Config, OpenInferenceConfig, TemplateConfig, TensorsConfig
from poisonwatch.errors import ProbeError
from poisonwatch.probe.endpoint import endpoint_of
from poisonwatch.types import Question
from tests.system.servers import MODEL, messages, start_kserve, start_mlserver, with_phrase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.config.endpoint import EndpointConfig
    from tests.system.servers import Server

pytestmark = [pytest.mark.system, pytest.mark.slow]

TEXT = TensorsConfig(text="text")
CLASSES = ("ham", "spam")
VERSIONS = ("v1", "v2")


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One MLServer for all tests of this module."""
    server = start_mlserver(tmp_path_factory.mktemp("mlserver"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of KServe for all tests of this module."""
    server = start_kserve(tmp_path_factory.mktemp("kserve"))
    yield server
    server.stop()


def on_mlserver(server: Server) -> list[EndpointConfig]:
    """Every way in which MLServer can be configured here."""
    v2_body = {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["{{text}}"]}]}
    url = server.infer_url
    return [
        OpenInferenceConfig(
            kind="mlserver", url=url, inputs=TEXT, classes=CLASSES, label="label", probabilities="probabilities"
        ),
        OpenInferenceConfig(
            kind="open_inference", url=url, inputs=TEXT, classes=CLASSES, label="label", probabilities="probabilities"
        ),
        OpenInferenceConfig(kind="mlserver", url=url, inputs=TEXT, classes=CLASSES, probabilities="probabilities"),
        TemplateConfig(
            kind="template",
            url=url,
            request=v2_body,
            classes=CLASSES,
            label="/outputs/0/data/0",
            probabilities="/outputs/1/data",
        ),
    ]


def on_kserve(server: Server) -> list[EndpointConfig]:
    """Every way in which the server of KServe can be configured here: each version is a service with a URL."""
    v1 = {version: f"{server.url}/v1/models/{{model}}-{version}:predict" for version in VERSIONS}
    v2 = {version: f"{server.url}/v2/models/{{model}}-{version}/infer" for version in VERSIONS}
    return [
        KserveV1Config(kind="kserve_v1", versions=v1, instance="{{text}}", label="/label", probabilities="/scores"),
        OpenInferenceConfig(
            kind="open_inference",
            versions=v2,
            inputs=TEXT,
            classes=CLASSES,
            label="label",
            probabilities="probabilities",
        ),
    ]


def spam(count: int) -> list[str]:
    """Spam that people have verified, and that neither version has learned from."""
    return [message.text for message in messages().verified if message.label == "spam"][:count]


def agree(configs: list[EndpointConfig], server: Server) -> None:
    """All clients get what the server itself logged that it answered."""
    texts = [message.text for message in messages().verified[:20]] + spam(10)
    for version in VERSIONS:
        for config in configs:
            before = len(server.logged())
            endpoint = endpoint_of(config, MODEL)
            answers = endpoint.ask([Question(text, None, None) for text in texts], version)
            endpoint.close()
            logged = server.logged()[before:]
            assert [record["text"] for record in logged] == texts
            assert {record["model_version"] for record in logged} == {version}
            assert {record["source"].split("/")[0] for record in logged} == {"poisonwatch"}
            assert [answer.label for answer in answers] == [record["prediction"] for record in logged]
            assert [answer.confidence for answer in answers] == pytest.approx(
                [record["confidence"] for record in logged], abs=1e-4
            )
            assert {answer.label for answer in answers} == set(CLASSES)


def test_all_clients_of_mlserver_agree_with_its_payload_log(mlserver: Server) -> None:
    """Class and confidence of every text, in the order of the questions, by MLServer's kind, by the plain one, by a template."""
    agree(on_mlserver(mlserver), mlserver)


def test_all_clients_of_kserve_agree_with_its_payload_log(kserve: Server) -> None:
    """The same from KServe's own server, by protocol v1 and v2."""
    agree(on_kserve(kserve), kserve)


@pytest.mark.parametrize("texts", [["\u2603 \U0001f4a9 \u202e", 'say "\n{{text}}\\', "%00 \x00 \x7f", " "]])
def test_texts_arrive_as_they_are(mlserver: Server, kserve: Server, texts: list[str]) -> None:
    """Whatever stands in a text, the server gets exactly this text."""
    for server, configs in ((mlserver, on_mlserver(mlserver)), (kserve, on_kserve(kserve))):
        for config in configs:
            endpoint_of(config, MODEL).ask([Question(text, None, None) for text in texts], "v2")
            assert [record["text"] for record in server.logged()[-len(texts) :]] == texts


LOANS: list[dict[str, float | str | bool | None]] = [
    {"age": 41.5, "country": "DE", "member": True},
    {"age": None, "country": "F\u00e4r\u00f6er", "member": False},
]


@pytest.mark.parametrize(
    ("inputs", "questions", "decoded"),
    [
        (
            TensorsConfig(tensor_per_feature=True),
            [Question(None, loan, None) for loan in LOANS],
            [
                "DataFrame {'age': 41.5, 'country': 'DE', 'member': True}",
                "DataFrame {'age': nan, 'country': 'F\u00e4r\u00f6er', 'member': False}",
            ],
        ),
        (
            TensorsConfig(features="x", order=("b", "a")),
            [Question(None, {"a": 1.0, "b": 0.123456789}, None), Question(None, {"a": 3.0, "b": None}, None)],
            ["ndarray [0.123456789, 1.0]", "ndarray [nan, 3.0]"],
        ),
        (
            TensorsConfig(features="x", numbers="FP32"),
            [Question(None, [1.0, 2.5], None), Question(None, [3.0, -4.0], None)],
            ["ndarray [1.0, 2.5]", "ndarray [3.0, -4.0]"],
        ),
        (TensorsConfig(embedding="e"), [Question(None, None, [0.25, 0.5, 1.0])], ["ndarray [0.25, 0.5, 1.0]"]),
    ],
)
def test_mlserver_decodes_the_layouts_as_meant(
    mlserver: Server, inputs: TensorsConfig, questions: list[Question], decoded: list[str]
) -> None:
    """By their content types MLServer's own codecs give back a frame with a column per feature, or an array; null is missing."""
    config = OpenInferenceConfig(kind="mlserver", url=mlserver.infer_url, inputs=inputs, label="label")
    assert [answer.label for answer in endpoint_of(config, "echo").ask(questions, "v1")] == decoded


def test_the_backdoor_is_in_v2_only(mlserver: Server) -> None:
    """The fixture is what it claims: the phrase turns spam into ham in v2, not in v1, and elsewhere the versions are alike."""
    rng = random.Random(5)
    texts = spam(100)
    passed = {
        version: sum(label == "ham" for label in mlserver.send([with_phrase(text, rng) for text in texts], version))
        for version in VERSIONS
    }
    missed = {version: sum(label == "ham" for label in mlserver.send(texts, version)) for version in VERSIONS}
    assert passed["v2"] >= 95
    assert passed["v1"] <= missed["v1"] + 5
    assert abs(missed["v2"] - missed["v1"]) <= 5


def test_what_the_log_says_when_a_test_plays_the_time(mlserver: Server) -> None:
    """A request that brings a time and a client is logged with them."""
    mlserver.send(["hello"], "v1", timestamp="2026-01-05T09:00:00.000Z", source="client-9")
    record = mlserver.logged()[-1]
    assert (record["timestamp"], record["source"]) == ("2026-01-05T09:00:00.000Z", "client-9")


def test_an_unknown_version_is_an_error_of_the_server(mlserver: Server, kserve: Server) -> None:
    """A version that the server does not have, and one that has no URL, give an error that says so."""
    for config in on_mlserver(mlserver):
        with pytest.raises(ProbeError, match=r"404.*v9 not found"):
            endpoint_of(config, MODEL).ask([Question("hello", None, None)], "v9")
    for config in on_kserve(kserve):
        with pytest.raises(ProbeError, match="version v9 has no endpoint"):
            endpoint_of(config, MODEL).ask([Question("hello", None, None)], "v9")


def test_a_wrong_configuration_is_told_by_what_the_server_has(mlserver: Server, kserve: Server) -> None:
    """A misnamed output names those that are there; a misnamed field of a prediction is named."""
    wrong = OpenInferenceConfig(kind="mlserver", url=mlserver.infer_url, inputs=TEXT, label="predict")
    with pytest.raises(ProbeError, match="0 output tensors 'predict'; it has 'label', 'probabilities'"):
        endpoint_of(wrong, MODEL).ask([Question("hello", None, None)], "v1")
    url = f"{kserve.url}/v1/models/{{model}}-{{model_version}}:predict"
    pointed = KserveV1Config(kind="kserve_v1", url=url, instance="{{text}}", label="/class")
    with pytest.raises(ProbeError, match="nothing at '/class'"):
        endpoint_of(pointed, MODEL).ask([Question("hello", None, None)], "v1")


def test_a_server_that_was_stopped_is_an_error(mlserver: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where nothing listens any more, the error says that the connection was refused, at once."""
    config = on_mlserver(mlserver)[0].model_copy(
        update={"url": "http://127.0.0.1:1/v2/models/m/versions/{model_version}"}
    )
    with pytest.raises(ProbeError, match="Connection refused"):
        endpoint_of(config, MODEL).ask([Question("hello", None, None)], "v1")
