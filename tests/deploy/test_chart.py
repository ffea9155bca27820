"""The Helm chart: what it renders is what Kubernetes and the operators know, it refuses what it does not know, and its agent runs."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import poisonwatch as package
from tests.deploy.agents import check, furnish, settled
from tests.deploy.chart_copies import CHART, copies
from tests.deploy.cluster import (
    VERSIONS,
    admitted,
    containers,
    misspelt,
    mistakes,
    objects,
    of_kind,
    pod,
    pod_labels,
    selects,
    unrestricted,
)
from tests.deploy.manifests import DEPLOY, Document, documents
from tests.deploy.test_kustomize import PORT, YAMLLINT
from tests.system.programs import Program, free_port, poisonwatch, tool

HELM = str(Path(sys.executable).parent / "helm")
VARIANTS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
MEBIBYTE = 1 << 20


def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def _values(variant: str) -> Path:
    return CHART / "ci" / f"{variant}-values.yaml"


@cache
def _text(variant: str, version: str = VERSIONS[0]) -> str:
    """What a variant renders for a version of Kubernetes."""
    done = _helm(
        *("template", "watch", str(CHART), "--namespace", "models", "--kube-version", version),
        *("--values", str(_values(variant))),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rendered(variant: str, version: str = VERSIONS[0]) -> list[Document]:
    return objects(_text(variant, version))


def _refused(values: dict[str, Any], folder: Path) -> str:
    """What Helm says against values; empty if nothing."""
    path = folder / "values.yaml"
    path.write_text(json.dumps(values))
    return _helm("template", "watch", str(CHART), "--values", str(path)).stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the mounts of a pod hold."""
    return furnish(tmp_path_factory.mktemp("mounts"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_nothing_to_say(variant: str) -> None:
    """`helm lint --strict` of each variant."""
    done = _helm("lint", "--strict", str(CHART), "--values", str(_values(variant)))
    assert done.returncode == 0, done.stdout
    assert not re.search(r"WARNING|ERROR", done.stdout)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_rendered_is_what_the_cluster_knows(variant: str, version: str) -> None:
    """No version drops or refuses a field of any object; and all are in the release's namespace."""
    found = _rendered(variant, version)
    assert {one["kind"]: wrong for one in found if (wrong := mistakes(one, version))} == {}
    assert {one["metadata"]["namespace"] for one in found} == {"models"}


def test_a_misspelt_field_of_any_kind_is_seen() -> None:
    """Whichever field of whichever object is misspelt, something is said."""
    kinds = {one["kind"]: one for variant in ("kserve", "full") for one in _rendered(variant)}
    assert set(kinds) == {
        *("StatefulSet", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy"),
        *("PodMonitor", "PrometheusRule"),
    }
    for kind, document in kinds.items():
        missed = [place for place, changed in misspelt(document) if not mistakes(changed, VERSIONS[1])]
        assert missed == [], kind


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_are_as_the_restricted_standard_wants(variant: str) -> None:
    """Whatever the values."""
    (inner,) = [inner for one in _rendered(variant) if (inner := pod(one))]
    assert unrestricted(inner) == []
    (container,) = containers(inner)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert inner["automountServiceAccountToken"] is False
    assert "cpu" not in container["resources"]["limits"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_agent_would_start_with_what_is_rendered(variant: str, folder: Path) -> None:
    """Its configuration holds as it is mounted, and says what the values do."""
    found = _rendered(variant)
    (config,) = [one for one in of_kind(found, "ConfigMap") if "poisonwatch.yaml" in one["data"]]
    code, said = check(config, folder)
    assert code == 0, said
    written = objects(config["data"]["poisonwatch.yaml"])[0]
    (wanted,) = documents(_values(variant))
    assert {name: written[name] for name in wanted["config"] if name != "state"} == {
        name: value for name, value in wanted["config"].items() if name != "state"
    }
    assert wanted["config"].get("state", {}).items() <= written["state"].items()
    (inner,) = [inner for one in found if (inner := pod(one))]
    mounts = [one["mountPath"] for one in containers(inner)[0]["volumeMounts"]]
    for path in re.findall(r"(?<=[ '\"])/(?:references|etc|run|var)/\S+", config["data"]["poisonwatch.yaml"]):
        assert any(path.startswith(f"{mount}/") for mount in mounts), path
    volumes = {one["name"] for one in inner["volumes"]}
    for one in of_kind(found, "StatefulSet"):
        volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
    assert {one["name"] for one in containers(inner)[0]["volumeMounts"]} == volumes


@pytest.mark.parametrize("variant", VARIANTS)
def test_whoever_must_reach_the_agent_finds_it(variant: str) -> None:
    """Service, PodMonitor and policy select its pod, by the port where it listens."""
    found = _rendered(variant)
    (owner,) = of_kind(found, "StatefulSet")
    labels = pod_labels(owner)
    assert selects(owner["spec"]["selector"], labels)
    (container,) = containers(pod(owner) or {})
    (port,) = container["ports"]
    assert port["containerPort"] == PORT
    (service,) = of_kind(found, "Service")
    assert selects({"matchLabels": service["spec"]["selector"]}, labels)
    assert [one["targetPort"] for one in service["spec"]["ports"]] == [PORT]
    assert owner["spec"]["serviceName"] == service["metadata"]["name"]
    for monitor in of_kind(found, "PodMonitor"):
        assert selects(monitor["spec"]["selector"], labels)
        assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == [port["name"]]
        assert "poisonwatch" in monitor["metadata"]["name"]
    predictor = {"serving.kserve.io/inferenceservice": "loans"}
    for policy in of_kind(found, "NetworkPolicy"):
        assert selects(policy["spec"]["podSelector"], labels)
        assert admitted(policy, PORT, {"app.kubernetes.io/name": "prometheus"}, "monitoring")
        assert admitted(policy, PORT, predictor, "anywhere") is (variant != "full")
        assert not admitted(policy, PORT, {"app.kubernetes.io/name": "prometheus"}, "elsewhere")
        assert not admitted(policy, PORT, {"app": "stranger"}, "models")


def test_nobody_is_let_in_where_nobody_is_named(tmp_path: Path) -> None:
    """A policy without peers has no rule, since a rule without peers is for all."""
    (values,) = documents(_values("token"))
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps({**values, "networkPolicy": {"prometheus": [], "senders": []}}))
    done = _helm("template", "watch", str(CHART), "--values", str(path))
    (policy,) = of_kind(objects(done.stdout), "NetworkPolicy")
    assert policy["spec"]["ingress"] == []
    assert "Ingress" in policy["spec"]["policyTypes"]


def test_probes_name_ports_by_number_and_never_need_a_password_that_they_do_not_have() -> None:
    """Without a web configuration health is asked over HTTP; with one by the agent's command, with a file."""
    for variant in VARIANTS:
        (container,) = containers(pod(of_kind(_rendered(variant), "StatefulSet")[0]) or {})
        probes = [container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
        ports = [one[way]["port"] for one in probes for way in ("httpGet", "tcpSocket") if way in one]
        assert ports == [PORT] * len(ports)
        protected = any(one["name"] == "web" for one in container["volumeMounts"])
        assert protected is (variant in {"full", "kserve"})
        assert any("httpGet" in one for one in probes) is not protected
        assert ("exec" in probes[2]) is protected


@pytest.mark.slow
@pytest.mark.system
def test_probe_and_logger_get_into_a_protected_agent(folder: Path) -> None:
    """The rendered command against the agent that runs with the rendered configuration; with a wrong password it fails.

    KServe's logger gets in by its own.
    """
    found = _rendered("kserve")
    (config,) = [one for one in of_kind(found, "ConfigMap") if "poisonwatch.yaml" in one["data"]]
    (container,) = containers(pod(of_kind(found, "StatefulSet")[0]) or {})
    port = free_port()

    def here(text: str) -> str:
        changed = settled(text, folder).replace(f"0.0.0.0:{PORT}", f"127.0.0.1:{port}")
        return changed.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{port}")

    path = folder / "etc" / "poisonwatch" / "poisonwatch.yaml"
    path.write_text(here(config["data"]["poisonwatch.yaml"]))
    agent = Program(poisonwatch(*(here(word) for word in container["args"])), folder)
    agent.start()
    try:
        agent.said("listening")
        program, *arguments = map(here, container["livenessProbe"]["exec"]["command"])
        assert program == "poisonwatch"
        asked = subprocess.run(poisonwatch(*arguments), capture_output=True, text=True, check=False)
        assert asked.returncode == 0, asked.stderr
        wrong = folder / "wrong.yml"
        wrong.write_text("basic_auth: {username: probe, password: not-this-one}\n")
        arguments[arguments.index("--http.config.file") + 1] = str(wrong)
        refused = subprocess.run(poisonwatch(*arguments), capture_output=True, text=True, check=False)
        assert refused.returncode == 3, refused.stderr
        password = (folder / "kserve-password").read_text()
        assert _posted(port, f"kserve:{password}") == 200
        assert _posted(port, "kserve:not-this-one") == 401
    finally:
        agent.close()


def _posted(port: int, user: str) -> int:
    """What is answered to an event of KServe's logger, which makes of USER:PASSWORD@ in its URL what all clients in Go do."""
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    event = {
        "ce-id": "1",
        "ce-type": "org.kubeflow.serving.inference.request",
        "ce-specversion": "1.0",
        "ce-source": "a",
    }
    known = {"Authorization": "Basic " + b64encode(user.encode()).decode(), "Content-Type": "application/json"}
    client.request("POST", "/v1/kserve", '{"instances": [[30, 40]]}', {**event, **known})
    status = client.getresponse().status
    client.close()
    return status


def test_values_that_the_chart_does_not_know_are_refused(tmp_path: Path) -> None:
    """Unknown keys and wrong kinds, at every depth, in the agent's configuration too."""
    (good,) = documents(_values("token"))
    assert _refused(good, tmp_path) == ""
    changes: list[tuple[tuple[str | int, ...], Any]] = [
        (("imagee",), {}),
        (("image", "tga"), "1"),
        (("image", "digest"), "sha256:12"),
        (("image", "pullPolicy"), "Sometimes"),
        (("config", "web"), {"listen_address": "0.0.0.0:1"}),
        (("config", "detection"), {"windw_seconds": 60}),
        (("config", "models", 0, "refrence"), "a"),
        (("config", "sources", 0, "kind"), "htpp"),
        (("config", "models"), []),
        (("references", "claim"), "also"),
        (("secrets",), ["Not_A_Name"]),
        (("service",), {"port": "many"}),
        (("resources",), {"limit": {"memory": "1Gi"}}),
        (("podLabels",), {"app.kubernetes.io/name": "mine"}),
        (("networkPolicy",), {"senders": [{"podSelectr": {}}]}),
        (("networkPolicy",), {"senders": [{}]}),
        (("podMonitor",), {"basicAuth": {"user": {"name": "a", "key": "b"}}}),
        (("podMonitor",), {"tlsConfig": {"insecureSkipVerify": True}}),
        (("prometheusRule",), {"runbooksUrl": 'https://a.example"\n'}),
        (("fullnameOverride",), "without-the-word"),
    ]
    for (*way, last), value in changes:
        bad = copy.deepcopy(good)
        inner: Any = bad
        for part in way:
            if part not in inner and isinstance(inner, dict):
                inner[part] = {}
            inner = inner[part]
        inner[last] = value
        assert "values don't meet the specifications" in _refused(bad, tmp_path), (*way, last)


def test_every_value_is_described_and_every_described_value_is_used() -> None:
    """Schema, values and templates have the same names."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    (values,) = documents(CHART / "values.yaml")
    assert set(schema["properties"]) - {"global"} == set(values)
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
    for name, part in schema["properties"].items():
        assert name == "global" or f".Values.{name}" in templates, name
        for inner in part.get("properties", {}):
            assert name in {"affinity", "resources"} or f".Values.{name}.{inner}" in templates, f"{name}.{inner}"
            assert name == "affinity" or inner in values[name], f"{name}.{inner}"


def test_what_the_chart_copies_is_as_it_was_copied() -> None:
    """Rules, dashboards, the schema of `config`, the table of values, and the agent's version."""
    found = copies()
    assert {path.name for path in found} >= {
        "overview.json",
        "poisonwatch.rules.yml",
        "README.md",
        "values.schema.json",
    }
    assert {path.name for path in (CHART / "files").iterdir()} == {
        path.name for path in found if path.parent.name == "files"
    }
    stale = [str(path.relative_to(CHART)) for path, text in found.items() if path.read_text() != text]
    assert stale == [], "python -m tests.deploy.chart_copies writes them anew"
    (chart,) = documents(CHART / "Chart.yaml")
    assert chart["appVersion"] == package.__version__


def test_rules_and_dashboards_arrive_as_they_are(tmp_path: Path) -> None:
    """Promtool takes the rules, which are those of deploy/prometheus but for the links; each dashboard fits into a ConfigMap."""
    found = _rendered("kserve")
    (rule,) = of_kind(found, "PrometheusRule")
    path = tmp_path / "rules.yml"
    with path.open("w") as file:
        YAML().dump(rule["spec"], file)
    done = subprocess.run(
        [tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    own = [
        group
        for name in ("poisonwatch-agent.rules.yml", "poisonwatch.rules.yml")
        for one in documents(DEPLOY / "prometheus" / name)
        for group in one["groups"]
    ]
    linked = json.dumps(rule["spec"]["groups"])
    assert "runbooks.example.com" not in linked
    assert "grafana.example.com" not in linked
    back = linked.replace("https://runbooks.mine.example/poisonwatch", "https://runbooks.example.com")
    assert json.loads(back.replace("https://grafana.mine.example", "https://grafana.example.com")) == own
    boards = [one for one in of_kind(found, "ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]
    assert len(boards) == 3
    for board in boards:
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((name, text),) = board["data"].items()
        assert len(text) < MEBIBYTE
        shipped = DEPLOY.parent / "dashboards" / name.removeprefix("poisonwatch-")
        assert json.loads(text) == json.loads(shipped.read_text())


def test_a_changed_configuration_makes_a_new_pod() -> None:
    """The pod's annotation follows the configuration, and nothing else of the values."""

    def mark(*changes: str) -> str:
        sets = [word for change in changes for word in ("--set", change)]
        done = _helm("template", "watch", str(CHART), "--values", str(_values("token")), *sets)
        (owner,) = of_kind(objects(done.stdout), "StatefulSet")
        found: str = owner["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return found

    assert mark() == mark("podMonitor.enabled=true")
    assert mark() != mark("config.detection.window_seconds=30")


def test_one_agent_on_one_state() -> None:
    """A StatefulSet of one pod; with a volume of its own, an existing one, or one that goes with the pod."""
    for variant in VARIANTS:
        (owner,) = of_kind(_rendered(variant), "StatefulSet")
        assert owner["spec"]["replicas"] == 1
        claims = owner["spec"].get("volumeClaimTemplates", [])
        lent = [one for one in (pod(owner) or {})["volumes"] if one["name"] == "state"]
        assert len(claims) + len(lent) == 1
        assert bool(lent) is (variant == "small")


def test_notes_tell_where_to_post_and_what_lacks(tmp_path: Path) -> None:
    """What `helm install` prints last, which `helm template` leaves out: here it is rendered as an object."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    shown = '{{ define "notes" }}' + text + '{{ end }}\nkind: Notes\ntext: {{ include "notes" . | toJson }}\n'
    (chart / "templates" / "notes.yaml").write_text(shown)

    def notes(variant: str, *more: str) -> str:
        values = ("--namespace", "models", "--values", str(_values(variant)))
        done = _helm("template", "watch", str(chart), *values, "--show-only", "templates/notes.yaml", *more)
        assert done.returncode == 0, done.stderr
        told: str = objects(done.stdout)[0]["text"]
        return told

    assert f"http://watch-poisonwatch.models:{PORT}/v1/kserve\n" in notes("kserve")
    assert "WARNING" not in notes("kserve") + notes("full")
    assert "persistence.enabled is false" in notes("small")
    assert "networkPolicy.egress lets it reach none" in notes("full", "--set-json", "networkPolicy.egress=[]")
    assert "additionalLabels.release" in notes("full")


def test_names_fit_where_kubernetes_adds_to_them() -> None:
    """A StatefulSet's name gets 11 characters more in a label of 63."""
    long = "a" * 53
    done = _helm("template", long, str(CHART), "--values", str(_values("kserve")))
    names = [one["metadata"]["name"] for one in objects(done.stdout)]
    (owner,) = of_kind(objects(done.stdout), "StatefulSet")
    assert len(owner["metadata"]["name"]) <= 52
    assert all("poisonwatch" in name and len(name) <= 63 for name in names)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_is_tidy(variant: str, tmp_path: Path) -> None:
    """Yamllint finds nothing in what is rendered, but for the lengths of rules and dashboards, nor in the values."""
    page = tmp_path / "rendered.yaml"
    page.write_text(_text(variant))
    rules = YAMLLINT.replace("{max: 160}", "disable")
    command = [
        sys.executable,
        "-m",
        "yamllint",
        "--strict",
        "-d",
        rules,
        str(page),
        str(_values(variant)),
        str(CHART / "values.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
