"""The fields that the controllers' own objects have, in few lines, and what is wrong with a manifest by them.

An API server drops a field that it does not know without a word, so a misspelt limit is a limit that is not there. Only the
fields that concern the shipped manifests are listed, as the controllers' published definitions have them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"

Document = dict[str, Any]

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DURATION = re.compile(r"[0-9]+(ms|s|m|h)")
FLAGGER_DURATION = re.compile(r"[0-9]+(m|s)")
URL = re.compile(r"https?://[^\s]+|\"?\{\{args\.[a-z-]+\}\}[^\s]*")
TEXT = re.compile(r"(?s).*\S.*")

# A schema: a type; a pattern that the whole text matches; a set of allowed texts; a list with the schema of its items; a
# dictionary of fields, where a name with `?` may be left out. No other fields are allowed, unless `str` says what those may be.
METADATA = {"name": NAME, "namespace?": NAME, "labels?": {"app?": NAME}}
MAPPING = {str: TEXT}
OUR_METADATA = {"name": NAME, "namespace?": NAME, "labels?": MAPPING, "annotations?": MAPPING}
SERVICE_METADATA = {
    "name": NAME,
    "namespace?": NAME,
    "labels?": {"poisonwatch?": {"sidecar"}},
    "annotations?": {
        "serving.kserve.io/deploymentMode?": {"Standard", "RawDeployment", "Knative", "Serverless"},
        "example.com/model-version?": TEXT,
    },
}
REFERENCE = {"apiVersion": TEXT, "kind": TEXT, "name": NAME}

ARGO_METRIC = {
    "name": NAME,
    "interval?": DURATION,
    "initialDelay?": DURATION,
    "count?": int,
    "successCondition?": TEXT,
    "failureCondition?": TEXT,
    "failureLimit?": int,
    "inconclusiveLimit?": int,
    "consecutiveErrorLimit?": int,
    "consecutiveSuccessLimit?": int,
    "provider": {
        "prometheus?": {"address": URL, "query": TEXT, "timeout?": int, "insecure?": bool},
        "web?": {
            "url": URL,
            "jsonPath?": re.compile(r"\{\$.*\}"),
            "timeoutSeconds?": int,
            "method?": {"GET", "POST", "PUT"},
            "insecure?": bool,
            "headers?": [{"key": TEXT, "value": TEXT}],
        },
    },
}
ARGUMENT = {"name": NAME, "value?": TEXT, "valueFrom?": {"secretKeyRef?": {"name": NAME, "key": TEXT}}}
ANALYSIS = {"templates": [{"templateName": NAME, "clusterScope?": bool}], "args?": [ARGUMENT]}
WEBHOOK_TYPES = {
    *("confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion", "post-rollout"),
    *("event", "rollback"),
}

SECRET_KEY = {"name": TEXT, "key": TEXT, "optional?": bool}
CERTIFICATE = {"secret?": SECRET_KEY, "configMap?": SECRET_KEY}

# What an object has beside its kind; those that are not here have METADATA.
METADATAS: dict[str, Document] = {
    "PodMonitor": OUR_METADATA,
    "PrometheusRule": OUR_METADATA,
    "InferenceService": SERVICE_METADATA,
}

KINDS: dict[tuple[str, str], Document] = {
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): {"args?": [ARGUMENT], "metrics": [ARGO_METRIC]},
    ("argoproj.io/v1alpha1", "Rollout"): {
        "replicas?": int,
        "selector?": {"matchLabels": {"app": NAME}},
        "workloadRef": REFERENCE,
        "strategy": {
            "canary": {
                "analysis?": {**ANALYSIS, "startingStep?": int},
                "steps": [{"setWeight?": int, "pause?": {"duration?": DURATION}, "analysis?": ANALYSIS}],
            }
        },
    },
    ("flagger.app/v1beta1", "MetricTemplate"): {
        "provider": {"type": {"prometheus"}, "address": URL, "secretRef?": {"name": NAME}},
        "query": TEXT,
    },
    ("flagger.app/v1beta1", "Canary"): {
        "targetRef": REFERENCE,
        "service": {"port": int, "targetPort?": int},
        "analysis": {
            "interval": FLAGGER_DURATION,
            "threshold": int,
            "maxWeight?": int,
            "stepWeight": int,
            "metrics?": [
                {
                    "name": NAME,
                    "templateRef": {"name": NAME, "namespace?": NAME},
                    # Free in the definition; these are what our template asks for.
                    "templateVariables": {"model": TEXT, "model_version": TEXT, "namespace": TEXT, "cluster": TEXT},
                    "thresholdRange": {"min?": int, "max?": int},
                    "interval?": FLAGGER_DURATION,
                }
            ],
            "webhooks?": [
                {
                    "name": NAME,
                    "type": WEBHOOK_TYPES,
                    "url": URL,
                    "timeout?": FLAGGER_DURATION,
                    "retries?": int,
                    "muteAlert?": bool,
                    # Free in the definition; these two are what our endpoints read.
                    "metadata": {"model": TEXT, "model_version": TEXT},
                }
            ],
        },
    },
    ("serving.kserve.io/v1beta1", "InferenceService"): {
        "predictor": {
            "canaryTrafficPercent?": int,
            "minReplicas?": int,
            "labels?": {"poisonwatch?": {"sidecar"}},
            "logger?": {"mode": {"all", "request", "response"}, "url": URL, "metadataAnnotations?": [TEXT]},
            "model": {"modelFormat": {"name": NAME, "version?": TEXT}, "storageUri": TEXT},
            # Fields of a pod, to be checked as such.
            "initContainers?": list,
            "volumes?": list,
        }
    },
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": {"matchLabels": MAPPING},
        "sampleLimit?": int,
        "labelLimit?": int,
        "labelNameLengthLimit?": int,
        "labelValueLengthLimit?": int,
        "podMetricsEndpoints": [
            {
                "port": NAME,
                "path?": re.compile(r"/\S*"),
                "scheme?": {"http", "https"},
                "interval?": DURATION,
                "basicAuth?": {"username": SECRET_KEY, "password": SECRET_KEY},
                "tlsConfig?": {
                    "serverName?": TEXT,
                    "insecureSkipVerify?": bool,
                    "keySecret?": SECRET_KEY,
                    "ca?": CERTIFICATE,
                    "cert?": CERTIFICATE,
                },
            }
        ],
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "groups": [
            {
                "name": TEXT,
                "interval?": DURATION,
                "rules": [
                    {
                        "alert?": TEXT,
                        "record?": TEXT,
                        "expr": TEXT,
                        "for?": DURATION,
                        "keep_firing_for?": DURATION,
                        "labels?": MAPPING,
                        "annotations?": MAPPING,
                    }
                ],
            }
        ]
    },
}


def documents(path: Path) -> list[Document]:
    """The objects of a file."""
    return list(YAML(typ="safe").load_all(path))


def manifests() -> dict[str, Document]:
    """Every object that is shipped for a rollout controller, by its file and name."""
    found = {}
    for folder in ("argo-rollouts", "flagger", "kserve"):
        for path in sorted((DEPLOY / folder).glob("*.yaml")):
            for document in documents(path):
                found[f"{folder}/{path.name} {document['metadata']['name']}"] = document
    return found


def problems(document: Document) -> list[str]:
    """What is wrong with an object: fields that nobody knows, fields that lack, values of the wrong kind."""
    kind = (str(document.get("apiVersion")), str(document.get("kind")))
    if kind not in KINDS:
        return [f"apiVersion, kind: {kind} is not known"]
    metadata = METADATAS.get(kind[1], METADATA)
    return list(_wrong(document, {"apiVersion": TEXT, "kind": TEXT, "metadata": metadata, "spec": KINDS[kind]}, ""))


def _wrong(value: Any, schema: Any, place: str) -> Iterator[str]:
    match schema:
        case dict():
            yield from _wrong_fields(value, schema, place)
        case [item]:
            if not isinstance(value, list) or not value:
                yield f"{place}: is no list of something"
            else:
                for index, one in enumerate(value):
                    yield from _wrong(one, item, f"{place}[{index}]")
        case re.Pattern():
            if not isinstance(value, str) or not schema.fullmatch(value):
                yield f"{place}: {value!r} is not {schema.pattern}"
        case set():
            if not isinstance(value, str) or value not in schema:
                yield f"{place}: {value!r} is none of {sorted(schema)}"
        case _:
            if type(value) is not schema:
                yield f"{place}: {value!r} is no {schema.__name__}"


def _wrong_fields(value: Any, schema: dict[Any, Any], place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: is no mapping"
        return
    fields = {name.removesuffix("?"): inner for name, inner in schema.items() if name is not str}
    for name in value:
        if name in fields:
            continue
        if str in schema:
            yield from _wrong(value[name], schema[str], f"{place}.{name}")
        else:
            yield f"{place}.{name}: unknown field"
    for name, inner in fields.items():
        if name in value:
            yield from _wrong(value[name], inner, f"{place}.{name}")
        elif name in schema:
            yield f"{place}.{name}: is missing"
