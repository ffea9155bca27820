"""The configuration of an endpoint: what could call somebody else, or could not be understood, is refused with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from poisonwatch.config import Config, dump, load
from poisonwatch.config.endpoint import EndpointConfig
from poisonwatch.errors import ConfigError

HEAD = "sources: [{path: log.ndjson}]\nmodels:\n  - name: mail\n    reference: r.json\n    golden: {path: g.ndjson}\n    endpoint: "
URL = "http://models:8080/infer"
GOOD = {
    "open_inference": f"{{kind: open_inference, url: '{URL}', inputs: {{text: t}}, label: y}}",
    "mlserver": f"{{kind: mlserver, url: '{URL}', inputs: {{tensor_per_feature: true}}, probabilities: p, classes: [a, b]}}",
    "kserve_v1": f"{{kind: kserve_v1, versions: {{v1: '{URL}'}}, label: ''}}",
    "template": f"{{kind: template, url: '{URL}', request: {{q: '{{{{text}}}}'}}, label: /a, bearer_token_file: token}}",
}


def loaded(tmp_path: Path, endpoint: str) -> Config:
    """A configuration with this endpoint."""
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + endpoint + "\n")
    return load(path)


@pytest.mark.parametrize("kind", GOOD)
def test_each_kind_is_read_and_written(tmp_path: Path, kind: str) -> None:
    """Every kind can be said in YAML; what is dumped is read again as the same; the token's path starts from the file's folder."""
    config = loaded(tmp_path, GOOD[kind])
    endpoint = config.models[0].endpoint
    assert endpoint is not None
    assert endpoint.kind == kind
    assert endpoint.timeout_seconds == 2.0
    if kind == "template":
        assert endpoint.bearer_token_file == tmp_path / "token"
    again = tmp_path / "again.yaml"
    again.write_text(dump(config))
    assert load(again) == config


def test_without_endpoint_nothing_is_called(tmp_path: Path) -> None:
    """There is no default endpoint."""
    path = tmp_path / "config.yaml"
    path.write_text("sources: [{path: log.ndjson}]\nmodels: [{name: mail, reference: r.json}]\n")
    assert load(path).models[0].endpoint is None


def endpoint(**keys: Any) -> EndpointConfig:
    """An endpoint of any kind, by default a template."""
    full = {"kind": "template", "url": URL, "request": "{{text}}", "label": "", **keys}
    found: EndpointConfig = TypeAdapter(EndpointConfig).validate_python(full)
    return found


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "https://models.example:8443/v2/models/{model}/versions/{model_version}/infer?x=1",
        "http://[::1]:8080/a",
        "http://10.0.0.7/%7Bnot%7D",
    ],
)
def test_urls_that_can_be_asked(url: str) -> None:
    """Absolute http and https URLs, with placeholders in path and query."""
    assert endpoint(url=url).url == url
    assert endpoint(versions={"v1": url}).versions == {"v1": url}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "say it as http://HOST/PATH"),
        ("models:8080/infer", "say it as http://HOST/PATH"),
        ("/v1/models", "say it as http://HOST/PATH"),
        ("//models/infer", "say it as http://HOST/PATH"),
        ("http:///infer", "say it as http://HOST/PATH"),
        ("http://:8080/infer", "say it as http://HOST/PATH"),
        ("http://models:0/", "say it as http://HOST/PATH"),
        ("http://models:65536/", "Port out of range"),
        ("http://models:x/", "Port could not be cast"),
        ("http://[::1/", "Invalid IPv6 URL"),
        ("file:///etc/passwd", "say it as http://HOST/PATH"),
        ("ftp://models/infer", "say it as http://HOST/PATH"),
        ("http+unix://models/infer", "say it as http://HOST/PATH"),
        ("http://user:secret@models/", "no credentials in a URL"),
        ("http://token@models/", "no credentials in a URL"),
        ("http://{model}/infer", "the host of a URL is fixed"),
        ("http://{model_version}.models/infer", "the host of a URL is fixed"),
        ("http://models:{model_version}/", "Port could not be cast"),
        ("http://models/{version}", "only {model} and {model_version}"),
        ("http://models/{model", "only {model} and {model_version}"),
        ("http://models/model}", "only {model} and {model_version}"),
        ("http://models/{{model}}", "only {model} and {model_version}"),
        ("http://models/a#b", "a URL has no `#`"),
        ("http://models/a b", "printable ASCII"),
        ("http://models/\r\nX: y", "printable ASCII"),
        ("http://models/\tx", "printable ASCII"),
        ("http://m\u00f6dels/", "printable ASCII"),
        (" http://models/", "printable ASCII"),
    ],
)
def test_urls_that_are_refused(url: str, told: str) -> None:
    """What is no absolute web address, holds a secret, or could lead elsewhere, is refused wherever a URL may stand."""
    for keys in ({"url": url}, {"versions": {"v1": url}}):
        with pytest.raises(ValidationError) as raised:
            endpoint(**keys)
        assert told in str(raised.value)


OPEN = f"kind: open_inference, url: '{URL}'"
TEMPLATE = f"kind: template, url: '{URL}'"

MISTAKES = [
    # (endpoint, what the error says after the file's name)
    (f"{{url: '{URL}'}}", "models[0].endpoint: `kind` is required here"),
    (
        f"{{kind: triton, url: '{URL}'}}",
        "models[0].endpoint: `kind` must be one of open_inference, mlserver, kserve_v1, template",
    ),
    ("http://models", "models[0].endpoint: "),
    (f"{{{OPEN}, label: y}}", "models[0].endpoint.inputs: this key is required"),
    (f"{{{OPEN}, label: y, inputs: {{txt: t}}}}", "models[0].endpoint.inputs.txt: unknown key; did you mean `text`?"),
    (
        f"{{{OPEN}, label: y, inputs: {{text: t}}, lable: y}}",
        "models[0].endpoint.lable: unknown key; did you mean `label`?",
    ),
    (f"{{{OPEN}, request: x, label: y, inputs: {{text: t}}}}", "models[0].endpoint.request: unknown key"),
    (f"{{{OPEN}, label: y, inputs: {{}}}}", "models[0].endpoint.inputs: name at least one tensor"),
    (
        f"{{{OPEN}, label: y, inputs: {{features: f, tensor_per_feature: true}}}}",
        "models[0].endpoint.inputs: features go into one tensor (`features`) or into one each",
    ),
    (
        f"{{{OPEN}, label: y, inputs: {{text: t, order: [a]}}}}",
        "models[0].endpoint.inputs: `order` is for the one tensor",
    ),
    (f"{{{OPEN}, inputs: {{text: t}}}}", "models[0].endpoint: say which output tensor is the answer"),
    (f"{{{OPEN}, inputs: {{text: t}}, probabilities: p}}", "models[0].endpoint: `probabilities` needs `classes`"),
    (
        f"{{{OPEN}, inputs: {{text: t}}, probabilities: p, classes: [a, a]}}",
        "models[0].endpoint: classes: a class is named twice",
    ),
    (
        f"{{{OPEN}, inputs: {{text: t}}, label: y, classes: [a]}}",
        "models[0].endpoint.classes: at least one entry is needed",
    ),
    ("{kind: kserve_v1, label: ''}", "models[0].endpoint: say where it is: `url` for all versions, or `versions`"),
    (f"{{kind: kserve_v1, url: '{URL}'}}", "models[0].endpoint: say where the answer is: `label`, `probabilities`"),
    (
        f"{{kind: kserve_v1, url: '{URL}', probabilities: '', confidence: /c}}",
        "models[0].endpoint: the confidence is that of the probabilities",
    ),
    (f"{{kind: kserve_v1, url: '{URL}', label: a/b}}", "models[0].endpoint.label: say it as a JSON pointer (RFC 6901)"),
    (
        f"{{kind: kserve_v1, url: '{URL}', label: /a~2}}",
        "models[0].endpoint.label: say it as a JSON pointer (RFC 6901)",
    ),
    ("{kind: kserve_v1, versions: [a], label: ''}", "models[0].endpoint.versions: this must be a mapping"),
    (f"{{{TEMPLATE}, label: ''}}", "models[0].endpoint.request: this key is required"),
    (
        f"{{{TEMPLATE}, label: '', request: {{q: text}}}}",
        "models[0].endpoint.request: nothing of the question is in it",
    ),
    (
        f"{{{TEMPLATE}, label: '', request: '{{{{model}}}}'}}",
        "models[0].endpoint.request: nothing of the question is in it",
    ),
    (
        f"{{{TEMPLATE}, label: '', request: ['{{{{txt}}}}']}}",
        "models[0].endpoint.request: '{{txt}}' is no placeholder: a whole value may be {{text}}",
    ),
    (
        f"{{{TEMPLATE}, label: '', request: 'Classify: {{{{text}}}}'}}",
        "models[0].endpoint.request: 'Classify: {{text}}' is no placeholder",
    ),
    (
        f"{{{TEMPLATE}, label: '', request: {{'{{{{text}}}}': '{{{{text}}}}'}}}}",
        "models[0].endpoint.request: placeholders are for values, not for keys",
    ),
    (
        f"{{{TEMPLATE}, label: '', request: '{{{{text}}}}', timeout_seconds: 0}}",
        "models[0].endpoint.timeout_seconds: Input",
    ),
    (
        f"{{{TEMPLATE}, label: '', request: '{{{{text}}}}', timeout_seconds: .inf}}",
        "models[0].endpoint.timeout_seconds: ",
    ),
]


@pytest.mark.parametrize(("written", "told"), MISTAKES, ids=[told for _, told in MISTAKES])
def test_mistakes_are_told_with_their_place(tmp_path: Path, written: str, told: str) -> None:
    """One line, with the place as the file has it (the kind is no key) and what to do."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, written)
    lines = str(raised.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{tmp_path / 'config.yaml'}: {told}")


def test_a_secret_in_a_url_is_not_told(tmp_path: Path) -> None:
    """The error about credentials does not print them."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, "{kind: kserve_v1, url: 'http://user:hunter2@models/', label: ''}")
    assert "hunter2" not in str(raised.value)


def test_the_documentations_examples_can_be_used(tmp_path: Path) -> None:
    """Every configuration of an endpoint that docs/configuration.md shows is read without a complaint."""
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    shown = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    examples = [block for block in shown if "endpoint:" in block]
    assert len(examples) >= 3
    for example in examples:
        path = tmp_path / "config.yaml"
        path.write_text(example + "sources:\n  - path: log.ndjson\n")
        assert load(path).models[0].endpoint is not None
