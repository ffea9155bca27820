"""The OpenAPI document, made from the operations and the shapes of what they take and give."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from poisonwatch import __version__
from poisonwatch.server.api.answers import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.server.api.operation import Operation

REFERENCE = "#/components/schemas/{name}"

ALWAYS = (400, 401, 503)
"""Refusals that every operation may have."""

SAID = {
    400: "The path, the query or the body is wrong: which, and why.",
    401: "The agent's web configuration asks for a password.",
    403: "Not from here: from a web page, or over a network to an agent that asks nobody who they are.",
    404: "There is none of this name; which there are.",
    408: "The body came too slowly.",
    409: "Not so: why.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    503: "The agent is starting, its loop does not turn, or too many ask at once.",
}

DESCRIPTION = """\
What poisonwatch says of the models that it watches, as of its last turn, and what a person may decide instead.

A name in a path is one segment, percent-encoded as UTF-8 (`/` is `%2F`), and compared as it is sent: `..` is a name like another. Clients \
and proxies that rewrite such paths ask by the query instead: `/v1/decisions?model=NAME&model_version=NAME`.
"""

NAMES = {
    "model": "Name of the model, one segment.",
    "version": "Name of the version, one segment.",
    "fingerprint": "Fingerprint of the alert.",
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1 of these operations."""
    types = {
        id(kind): kind for operation in operations for kind in (operation.answer, operation.body) if kind is not None
    }
    parameters = [(operation.name, parameter) for operation in operations for parameter in operation.parameters]
    kinds = [Problem, *types.values(), *(parameter.type for _, parameter in parameters)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    found = dict(zip(map(id, kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "poisonwatch",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"basic": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "Where the web configuration has users."},
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Where a proxy before the agent asks for it.",
                },
            },
        },
    }


def _operation(operation: Operation, schemas: dict[int, Any]) -> dict[str, Any]:
    def json(kind: Any) -> dict[str, Any]:
        return {"application/json": {"schema": schemas[id(kind)]}}

    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *(
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "description": NAMES[name],
                    "schema": {"type": "string"},
                }
                for name in re.findall(r"{(\w+)}", operation.path)
            ),
            *(
                {
                    "name": parameter.name,
                    "in": "query",
                    "required": parameter.required,
                    "description": parameter.description,
                    "schema": schemas[id(parameter.type)],
                }
                for parameter in operation.parameters
            ),
        ],
        "responses": {
            "200": {"description": "The answer.", "content": json(operation.answer)},
            **{
                str(status): {"description": SAID[status], "content": json(Problem)}
                for status in sorted({*ALWAYS, *operation.refusals})
            },
        },
    }
    if operation.body is not None:
        told["requestBody"] = {"required": operation.method == "PUT", "content": json(operation.body)}
    return told
