"""From a configuration to the client that speaks its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from poisonwatch.config.endpoint import EndpointConfig
from poisonwatch.probe.endpoint import endpoint_of
from poisonwatch.types import Answer, Question
from tests.probe.answering import answering

if TYPE_CHECKING:
    from poisonwatch.probe.endpoint import Endpoint

URL = "/{model}/{model_version}"


@pytest.mark.parametrize(
    ("keys", "answer", "sent"),
    [
        (
            {"kind": "open_inference", "inputs": {"text": "t"}, "label": "y"},
            {"outputs": [{"name": "y", "shape": [1], "data": ["spam"]}]},
            {
                "inputs": [{"name": "t", "shape": [1, 1], "datatype": "BYTES", "data": ["hi"]}],
                "outputs": [{"name": "y"}],
            },
        ),
        (
            {"kind": "mlserver", "inputs": {"text": "t"}, "label": "y"},
            {"outputs": [{"name": "y", "shape": [1], "data": ["spam"]}]},
            {
                "inputs": [
                    {
                        "name": "t",
                        "shape": [1, 1],
                        "datatype": "BYTES",
                        "data": ["hi"],
                        "parameters": {"content_type": "str"},
                    }
                ],
                "outputs": [{"name": "y"}],
            },
        ),
        (
            {"kind": "kserve_v1", "instance": "{{text}}", "label": ""},
            {"predictions": ["spam"]},
            {"instances": ["hi"]},
        ),
        (
            {"kind": "template", "request": {"q": "{{text}}"}, "label": "/a"},
            {"a": "spam"},
            {"q": "hi"},
        ),
    ],
    ids=lambda value: value.get("kind", "") if isinstance(value, dict) else "",
)
def test_each_kind_speaks_its_protocol(keys: dict[str, Any], answer: object, sent: object) -> None:
    """The kind chooses the client; every one asks the model by the name that it was given, and gives the same answer."""
    with answering(answer) as server:
        config: EndpointConfig = TypeAdapter(EndpointConfig).validate_python({**keys, "url": server.url + URL})
        endpoint: Endpoint = endpoint_of(config, "mail")
        assert endpoint.ask([Question("hi", None, None)], "v1") == [Answer("spam", None, None)]
        assert server.bodies() == [sent]
        assert server.requests[0].startswith(b"POST /mail/v1 HTTP/1.1\r\n")
        endpoint.close()
