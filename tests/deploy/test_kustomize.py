"""Kustomize: what each folder renders is what Kubernetes and the operators know, safe by their standard, and an agent that starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from poisonwatch.config.sources import HttpSourceConfig
from poisonwatch.config.web import WebConfig
from tests.deploy.agents import check, furnish
from tests.deploy.cluster import (
    VERSIONS,
    admitted,
    containers,
    kustomized,
    misspelt,
    mistakes,
    objects,
    of_kind,
    pod,
    pod_labels,
    selects,
    unrestricted,
)
from tests.deploy.manifests import DEPLOY, Document

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = DEPLOY / "kubernetes" / "kustomize"
EXAMPLES = sorted(path.parent.name for path in (HERE / "examples").glob("*/kustomization.yaml"))
PORT = int(WebConfig().listen_address.rpartition(":")[2])
YAMLLINT = (
    "{extends: default, rules: {document-start: disable, line-length: {max: 160}, indentation: {indent-sequences: whatever},"
    " brackets: {max-spaces-inside: 0}, comments: {min-spaces-from-content: 1}}}"
)


def _rendered(example: str) -> list[Document]:
    return objects(kustomized(HERE / "examples" / example))


def _agent(found: list[Document]) -> tuple[Document, Document]:
    """The object whose pods have the agent, and its container."""
    ((owner, container),) = [
        (one, container)
        for one in found
        for container in containers(pod(one) or {})
        if container["name"] == "poisonwatch"
    ]
    return owner, container


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the mounts of a pod hold."""
    return furnish(tmp_path_factory.mktemp("mounts"))


def test_all_three_ways_are_there() -> None:
    """The examples are those that the guide tells of."""
    assert EXAMPLES == ["deployment", "kserve-receiver", "kserve-sidecar"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_what_is_rendered_is_what_the_cluster_knows(example: str, version: str) -> None:
    """No version drops or refuses a field of any object."""
    found = _rendered(example)
    assert found
    assert {one["kind"]: wrong for one in found if (wrong := mistakes(one, version))} == {}


def _one_of_each() -> dict[str, Document]:
    return {one["kind"]: one for example in EXAMPLES for one in _rendered(example)}


def test_a_misspelt_field_of_any_kind_is_seen() -> None:
    """Whichever field of whichever object is misspelt, something is said: what the tests above would miss, they cannot."""
    kinds = _one_of_each()
    assert set(kinds) >= {"StatefulSet", "Deployment", "InferenceService", "PodMonitor", "NetworkPolicy", "ConfigMap"}
    for kind, document in kinds.items():
        missed = [place for place, changed in misspelt(document) if not mistakes(changed, VERSIONS[1])]
        assert missed == [], kind


@pytest.mark.parametrize("example", EXAMPLES)
def test_pods_are_as_the_restricted_standard_wants(example: str) -> None:
    """All containers that are shipped; and each rule of the standard that is broken is told."""
    pods = [inner for one in _rendered(example) if (inner := pod(one))]
    assert pods
    for inner in pods:
        assert unrestricted(inner) == []


def _lax() -> Iterator[tuple[str, Document]]:
    """Changes of a container's or a pod's specification, each of which breaks one rule."""
    contexts: list[Document] = [
        {"privileged": True},
        {"allowPrivilegeEscalation": True},
        {"runAsUser": 0},
        {"runAsNonRoot": False},
        {"capabilities": {}},
        {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
        {"seccompProfile": {"type": "Unconfined"}},
        {"procMount": "Unmasked"},
    ]
    for context in contexts:
        yield "container", {"securityContext": context}
    yield "container", {"ports": [{"containerPort": 1, "hostPort": 1}]}
    yield "container", {"livenessProbe": {"tcpSocket": {"port": 1, "host": "node"}}}
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        yield "pod", {field: True}
    yield "pod", {"volumes": [{"name": "etc", "hostPath": {"path": "/etc"}}]}
    yield "pod", {"securityContext": {"runAsNonRoot": True, "sysctls": [{"name": "a", "value": "b"}]}}


def test_each_rule_of_the_standard_can_be_broken() -> None:
    """The check is one: a lax pod does not pass."""
    (whole,) = [pod(one) for one in of_kind(_rendered("kserve-receiver"), "StatefulSet")]
    assert whole is not None
    for where, change in _lax():
        if where == "pod":
            lax = {**whole, **change}
        else:
            (container,) = whole["containers"]
            context = {**container["securityContext"], **change.get("securityContext", {})}
            lax = {**whole, "containers": [{**container, **change, "securityContext": context}]}
        assert unrestricted(lax), change


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_agent_would_start_with_what_is_rendered(example: str, folder: Path) -> None:
    """Its configuration holds, and what it needs is mounted, where it may be written too; without the Secret it would not start."""
    found = _rendered(example)
    (config,) = of_kind(found, "ConfigMap")
    owner, container = _agent(found)
    inner = pod(owner)
    assert inner is not None
    code, said = check(config, folder)
    assert code == 0, said
    mounted = {one["mountPath"]: one for one in container["volumeMounts"]}
    for mount in ("/references", "/etc/poisonwatch-web", "/var/lib/poisonwatch", "/var/log/model"):
        if mount + "/" in config["data"]["poisonwatch.yaml"]:
            assert mounted[mount].get("readOnly", False) is (mount != "/var/lib/poisonwatch")
    (volume,) = [one for one in inner["volumes"] if one.get("configMap", {}).get("name") == config["metadata"]["name"]]
    assert mounted["/etc/poisonwatch"]["name"] == volume["name"]
    # The name has a hash of the content: with another configuration there are other pods.
    assert config["metadata"]["name"] != "poisonwatch"
    if "config_file" in config["data"]["poisonwatch.yaml"]:
        code, said = check(config, folder, lambda text: text.replace("config_file:", "# config_file:"))
        assert code != 0
        assert "would take records from everybody" in said


@pytest.mark.parametrize("example", EXAMPLES)
def test_whoever_must_reach_the_agent_finds_it(example: str) -> None:
    """PodMonitor, Service and policy select its pods, and its port is where it listens."""
    found = _rendered(example)
    owner, container = _agent(found)
    labels = pod_labels(owner)
    (port,) = container["ports"]
    assert port["containerPort"] == PORT
    (monitor,) = of_kind(found, "PodMonitor")
    assert selects(monitor["spec"]["selector"], labels)
    assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == [port["name"]]
    assert "poisonwatch" in monitor["metadata"]["name"]
    # No other container of the pod may have a port of that name.
    named = [one["name"] for each in containers(pod(owner) or {}) for one in each.get("ports", [])]
    assert named.count(port["name"]) == 1
    for service in of_kind(found, "Service"):
        assert selects({"matchLabels": service["spec"]["selector"]}, labels)
        assert [one["targetPort"] for one in service["spec"]["ports"]] == [PORT]
    for policy in of_kind(found, "NetworkPolicy"):
        assert selects(policy["spec"]["podSelector"], labels)
        prometheus = {"app.kubernetes.io/name": "prometheus"}
        assert admitted(policy, PORT, prometheus, "monitoring")
        assert not admitted(policy, PORT, prometheus, "elsewhere")
        assert not admitted(policy, PORT, {"app": "stranger"}, "models")


def test_only_predictors_may_post_to_the_receiver() -> None:
    """Its policy lets KServe's pods in, wherever they are, and it may reach nobody itself."""
    (policy,) = of_kind(_rendered("kserve-receiver"), "NetworkPolicy")
    (service,) = of_kind(_rendered("kserve-receiver"), "InferenceService")
    assert admitted(policy, PORT, pod_labels(service), "anywhere")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["egress"] == []


@pytest.mark.parametrize("example", ["kserve-sidecar", "kserve-receiver"])
def test_the_logger_posts_to_a_source(example: str) -> None:
    """Its path is one that the agent takes, and the version's annotation is sent and read."""
    found = _rendered(example)
    (service,) = of_kind(found, "InferenceService")
    logger = service["spec"]["predictor"]["logger"]
    (config,) = of_kind(found, "ConfigMap")
    written = objects(config["data"]["poisonwatch.yaml"])[0]
    (source,) = written["sources"]
    HttpSourceConfig.model_validate(source)
    host, _, path = logger["url"].removeprefix("http://").partition("/")
    assert f"/{path}" == source["path"]
    if example == "kserve-sidecar":
        assert host.rpartition("@")[2] == f"127.0.0.1:{PORT}"
    else:
        (receiver,) = of_kind(found, "Service")
        name, namespace = receiver["metadata"]["name"], receiver["metadata"]["namespace"]
        assert host.rpartition("@")[2] == f"{name}.{namespace}:{receiver['spec']['ports'][0]['port']}"
    annotation = source["format"]["version_annotation"]
    assert annotation in logger["metadataAnnotations"]
    assert annotation in service["metadata"]["annotations"]


@pytest.mark.parametrize("example", ["deployment", "kserve-sidecar"])
def test_a_sidecar_never_holds_up_the_model(example: str) -> None:
    """It has no probe that the server waits for, or that makes the pod unready, and no limit of CPU; it is restarted late."""
    owner, container = _agent(_rendered(example))
    assert container in (pod(owner) or {})["initContainers"]
    assert container["restartPolicy"] == "Always"
    assert set(container) & {"startupProbe", "readinessProbe", "livenessProbe"} == {"livenessProbe"}
    probe = container["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300
    # A wrong password must not restart it, and names of ports of sidecars are not known everywhere.
    (way,) = [probe[way] for way in ("httpGet", "tcpSocket") if way in probe]
    assert way["port"] == PORT
    assert "cpu" not in container["resources"]["limits"]


def test_the_two_sidecars_differ_in_what_they_must_only() -> None:
    """One text in two files, since kustomize patches the one kind otherwise than the other."""
    (_, plain), (_, kserve) = (_agent(_rendered(example)) for example in ("deployment", "kserve-sidecar"))
    apart = {"livenessProbe", "volumeMounts"}
    assert {name: plain[name] for name in plain if name not in apart} == {
        name: kserve[name] for name in kserve if name not in apart
    }


def test_the_receiver_is_alone_on_its_state() -> None:
    """One pod, which is gone before the next one comes, and time to save."""
    (receiver,) = of_kind(_rendered("kserve-receiver"), "StatefulSet")
    assert receiver["spec"]["replicas"] == 1
    assert receiver["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 30
    (claim,) = receiver["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] in {one["name"] for one in _agent([receiver])[1]["volumeMounts"]}


def test_an_image_is_set_in_one_place(tmp_path: Path) -> None:
    """What the guide says to write, `images`, reaches the agent in every kind, the InferenceService too."""
    for example in EXAMPLES:
        place = HERE.parent / "kustomize" / "examples" / example
        overlay = tmp_path / example
        overlay.mkdir()
        way = Path(*[".."] * len(overlay.resolve().parts[1:]), *place.parts[1:])
        (overlay / "kustomization.yaml").write_text(
            f"resources: ['{way}']\nimages: [{{name: example.com/poisonwatch, newName: mine.example/watch, newTag: '9'}}]\n"
        )
        assert _agent(objects(kustomized(overlay)))[1]["image"] == "mine.example/watch:9"


def test_the_files_are_tidy() -> None:
    """Yamllint finds nothing."""
    command = [sys.executable, "-m", "yamllint", "--strict", "-d", YAMLLINT, str(HERE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
