"""What a cluster says of rendered manifests, without one: strict schemas of three versions, the restricted standard, selectors."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import kubernetes_validate.utils as known
from jsonschema import Draft202012Validator
from referencing import Resource
from referencing.jsonschema import EMPTY_REGISTRY
from ruamel.yaml import YAML

from tests.deploy.manifests import KINDS, Document, problems
from tests.system.programs import ROOT, tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSIONS = ("1.29", "1.33", "1.37")
"""Of Kubernetes: the oldest that knows sidecars, one between, the newest that the validator knows."""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


@cache
def kustomized(folder: Path) -> str:
    """What `kubectl apply -k FOLDER` would send."""
    if shutil.which("kustomize") or (ROOT / ".tools/debian/usr/bin/kustomize").exists():
        command = [tool("kustomize"), "build", str(folder)]
    else:
        command = [tool("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[Document]:
    """The objects of a rendered page."""
    return [one for one in YAML(typ="safe").load_all(text) if one is not None]


def of_kind(found: list[Document], kind: str) -> list[Document]:
    """Those of a kind."""
    return [one for one in found if one["kind"] == kind]


def mistakes(document: Document, version: str) -> list[str]:
    """What a version of Kubernetes, or a controller, would drop or refuse of an object."""
    if (document.get("apiVersion"), document.get("kind")) in KINDS:
        found = problems(document)
        inner = None if found else pod(document)
        if inner is not None:
            # A predictor is a pod's specification with more fields; what KServe puts in stands here as `server`.
            whole = {"containers": [{"name": "server", "image": "server"}], **inner}
            found = mistakes({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": whole}, version)
        return found
    try:
        validator = _validator(str(document["kind"]), str(document["apiVersion"]), version)
    except FileNotFoundError:
        return [f"{document['apiVersion']} {document['kind']}: Kubernetes {version} does not know it"]
    return [f"{wrong.json_path}: {wrong.message}" for wrong in validator.iter_errors(document)]


@cache
def _validator(kind: str, api_version: str, version: str) -> Draft202012Validator:
    """The strict schema of a kind, from kubernetes-validate, which itself reads a megabyte of them for every object."""
    full = next(one for one in known.all_versions() if known.major_minor(one) == version)
    group, _, number = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number)))
    folder = f"kubernetes-json-schema/v{full}-local-strict"
    parts = [known.schema_contents(f"{folder}/{file}.json", version) for file in (name, "_definitions")]
    registry = EMPTY_REGISTRY
    for part in parts:
        registry = Resource.from_contents(part) @ registry
    return Draft202012Validator(parts[0], registry=registry)


def pod(document: Document) -> Document | None:
    """The specification of the pods that an object makes."""
    if document["kind"] == "InferenceService":
        predictor = document["spec"]["predictor"]
        return {name: predictor[name] for name in ("initContainers", "volumes") if name in predictor} or None
    inner = document.get("spec", {}).get("template", {}).get("spec")
    return inner if isinstance(inner, dict) else None


def pod_labels(document: Document) -> dict[str, str]:
    """The labels of those pods."""
    if document["kind"] == "InferenceService":
        found = document["spec"]["predictor"].get("labels", {})
        return {**found, "serving.kserve.io/inferenceservice": document["metadata"]["name"]}
    return dict(document["spec"]["template"]["metadata"]["labels"])


def containers(spec: Document) -> list[Document]:
    """All containers of a pod."""
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def unrestricted(spec: Document) -> list[str]:
    """What of a pod breaks the restricted pod security standard, which has the baseline within."""
    return [*_pod_wide(spec), *(wrong for one in containers(spec) for wrong in _of_container(one, spec))]


def _pod_wide(spec: Document) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name}: shares the node's"
    context = spec.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls: are set"
    if context.get("runAsUser") == 0:
        yield "runAsUser: is root"
    for volume in spec.get("volumes", []):
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volumes.{volume['name']}: {kind} is not allowed"


def _of_container(container: Document, spec: Document) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = {**spec.get("securityContext", {}), **own}
    capabilities = own.get("capabilities", {})
    probes = [container.get(f"{name}Probe", {}) for name in ("startup", "readiness", "liveness")]
    rules = {
        "runAsNonRoot is not true": both.get("runAsNonRoot") is True,
        "runAsUser is root": both.get("runAsUser") != 0,
        "seccompProfile is not set": both.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
        "options of the system are set": not set(both) & {"seLinuxOptions", "windowsOptions", "appArmorProfile"},
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is False,
        "is privileged": not own.get("privileged"),
        "procMount is set": own.get("procMount", "Default") == "Default",
        "does not drop ALL": "ALL" in capabilities.get("drop", []),
        "adds capabilities": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "has a port of the node": not any(port.get("hostPort") for port in container.get("ports", [])),
        "probes another host": not any(
            "host" in probe.get(way, {}) for probe in probes for way in ("httpGet", "tcpSocket")
        ),
    }
    yield from (f"{container['name']}: {wrong}" for wrong, holds in rules.items() if not holds)


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Does a selector match labels?"""
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        found = labels.get(rule["key"])
        means = {
            "Exists": found is not None,
            "DoesNotExist": found is None,
            "In": found in rule.get("values", []),
            "NotIn": found not in rule.get("values", []),
        }
        if not means[rule["operator"]]:
            return False
    return True


def admitted(policy: Document, port: int, labels: dict[str, str], namespace: str) -> bool:
    """Does a policy let a pod of these labels, in a namespace of this name, reach a port?"""
    there = {"kubernetes.io/metadata.name": namespace}
    here = policy["metadata"].get("namespace")
    for rule in policy["spec"]["ingress"]:
        if port not in [one["port"] for one in rule["ports"]]:
            continue
        if "from" not in rule:
            return True
        for peer in rule["from"]:
            place = selects(peer["namespaceSelector"], there) if "namespaceSelector" in peer else namespace == here
            if place and selects(peer.get("podSelector", {}), labels):
                return True
    return False


def misspelt(document: Document) -> Iterator[tuple[str, Document]]:
    """The object with one field misspelt, for every field whose name is not free to choose: its place, and the object."""
    yield from _misspelt(document, document, ())


FREE = {"labels", "annotations", "matchLabels", "data", "nodeSelector", "limits", "requests"}
"""Fields below which names are free to choose."""


def _misspelt(whole: Document, inner: Any, way: tuple[str | int, ...]) -> Iterator[tuple[str, Document]]:
    if isinstance(inner, dict):
        free = bool(way) and (way[-1] in FREE or (whole["kind"], way) == ("Service", ("spec", "selector")))
        for name in inner:
            if not free and (way or name not in {"apiVersion", "kind"}):
                changed = _copy(whole)
                fields: Any = changed
                for part in way:
                    fields = fields[part]
                fields[f"{name}x"] = fields.pop(name)
                yield ".".join(map(str, (*way, name))), changed
            yield from _misspelt(whole, inner[name], (*way, name))
    elif isinstance(inner, list):
        for index, one in enumerate(inner[:1]):
            yield from _misspelt(whole, one, (*way, index))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value
