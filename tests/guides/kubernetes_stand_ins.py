"""What stands in for a cluster: what would be sent to one is rendered, checked against its schemas, and remembered.

Commands that ask for an object find it only where one before made it, so a page that forgets a Secret or misspells a name fails.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.deploy.agents import settled, trusted_log
from tests.deploy.cluster import VERSIONS, containers, kustomized, mistakes, objects, of_kind, pod, pod_labels, selects
from tests.deploy.manifests import DEPLOY
from tests.guides.following import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.deploy.manifests import Document

MOST = 1 << 20
"""Bytes that a ConfigMap or a Secret holds."""


def kubernetes_files(text: str, folder: Path) -> None:
    """The folders that are copied out of a clone."""
    (copy,) = [line for line in text.splitlines() if line.startswith("cp -r ")]
    for path in re.findall(r"poisonwatch/(\S+)", copy):
        shutil.copytree(ROOT / path, folder / Path(path).name)


def kubernetes_log(text: str, folder: Path) -> None:
    """A log that a server wrote where the example's volume is mounted."""
    words = shlex.split(text.replace(">", " > "))
    (owner,) = of_kind(objects(kustomized(DEPLOY / "kubernetes/kustomize/examples/deployment")), "Deployment")
    assert f"deployment/{owner['metadata']['name']}" in words
    (server,) = [one for one in containers(pod(owner) or {}) if one["name"] != "poisonwatch"]
    (mount,) = server["volumeMounts"]
    assert words[words.index("cat") + 1].startswith(f"{mount['mountPath']}/")
    (folder / words[words.index(">") + 1]).write_text(trusted_log())


def kubernetes_port(text: str, folder: Path) -> str:
    """The agent whose port is forwarded, with the configuration that was applied, on this machine."""
    _, *words = shlex.split(text)
    owner = _known(folder, _target(words))
    names = {one["configMap"]["name"] for one in (pod(owner) or {})["volumes"] if "configMap" in one}
    (config,) = [
        one for one in _cluster(folder) if one["kind"] == "ConfigMap" and "poisonwatch.yaml" in one.get("data", {})
    ]
    assert config["metadata"]["name"] in names
    place = folder.parent / "pod"
    for made in ("references", "var/lib/poisonwatch", "var/log/model"):
        (place / made).mkdir(parents=True)
    for reference in folder.glob("*.reference.json"):
        shutil.copy(reference, place / "references")
    (place / "poisonwatch.yaml").write_text(settled(config["data"]["poisonwatch.yaml"], place))
    port = words[-1]
    return f"poisonwatch run --config {place / 'poisonwatch.yaml'} --web.listen-address 127.0.0.1:{port}\n"


def kubectl(text: str, folder: Path) -> None:
    """Commands of kubectl and helm, one a line."""
    for line in text.splitlines():
        program, *words = shlex.split(line)
        namespace = _option(words, "--namespace")
        if program == "helm":
            _helm(words, namespace, folder)
            continue
        assert program == "kubectl", line
        if words[:2] == ["create", "namespace"]:
            _remember(folder, [{"kind": "Namespace", "metadata": {"name": words[2]}}])
            continue
        verb, rest = words[0], words[1:]
        if verb == "apply":
            _apply(objects(kustomized(folder / _option(rest, "-k"))), folder)
            continue
        _known(folder, ("namespace", namespace))
        VERBS[verb](rest, folder)


def _create(words: list[str], folder: Path) -> None:
    kind, *rest = words
    assert kind in {"configmap", "secret"}
    if kind == "secret":
        assert rest.pop(0) == "generic"
    source = folder / _option(rest, "--from-file")
    (name,) = rest
    files = [source] if source.is_file() else sorted(source.iterdir())
    assert files
    assert sum(path.stat().st_size for path in files) < MOST
    keys = {path.name: "" for path in files}
    _remember(
        folder,
        [{"kind": {"configmap": "ConfigMap", "secret": "Secret"}[kind], "metadata": {"name": name}, "keys": keys}],
    )


def _exec(words: list[str], folder: Path) -> None:
    before, command = words[: words.index("--")], words[words.index("--") + 1 :]
    inner = pod(_known(folder, _target(before))) or {}
    (container,) = containers(inner)
    assert command[0] == "poisonwatch"
    for path in (Path(word) for word in command if word.startswith("/")):
        (volume,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == str(path.parent)]
        (secret,) = [one["secret"]["secretName"] for one in inner["volumes"] if one["name"] == volume]
        assert path.name in _known(folder, ("secret", secret))["keys"], path
    # Each option is one that the command has; what it would answer needs an agent.
    told = subprocess.run(
        [sys.executable, "-m", "poisonwatch", command[1], "--help"], capture_output=True, text=True, check=True
    )
    assert all(word in told.stdout for word in command if word.startswith("--"))


def _logs(words: list[str], folder: Path) -> None:
    name, value = _option(words, "--selector").split("=")
    wanted = _option(words, "--container")
    assert any(
        container["name"] == wanted and selects({"matchLabels": {name: value}}, pod_labels(one))
        for one in _cluster(folder)
        if "spec" in one
        for container in containers(pod(one) or {})
    )


def _named(words: list[str], folder: Path) -> None:
    _known(folder, _target(words))


VERBS: dict[str, Callable[[list[str], Path], None]] = {
    "create": _create,
    "exec": _exec,
    "logs": _logs,
    "rollout": _named,
    "wait": _named,
}


def _helm(words: list[str], namespace: str, folder: Path) -> None:
    assert words[:2] == ["upgrade", "--install"]
    values = str(folder / _option(words, "--values"))
    _, _, release, chart = words
    helm = str(Path(sys.executable).parent / "helm")
    command = [helm, "template", release, str(folder / chart), "--namespace", namespace, "--values", values]
    for version in VERSIONS:
        done = subprocess.run([*command, "--kube-version", version], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        _apply(objects(done.stdout), folder)


def _apply(found: list[Document], folder: Path) -> None:
    """Check what is sent to a cluster: each object, and that what it names is there."""
    assert found
    _remember(folder, found)
    for one in found:
        _known(folder, ("namespace", one["metadata"]["namespace"]))
        for version in VERSIONS:
            assert mistakes(one, version) == []
        for kind, name, key in _needs(one):
            keys = _known(folder, (kind, name)).get("keys", {})
            assert key is None or key in keys, f"{kind}/{name} has no {key}"
        assert "PASSWORD" not in json.dumps(one)


def _needs(one: Document) -> Iterator[tuple[str, str, str | None]]:
    """The ConfigMaps and Secrets that an object names, and the keys that it wants of them."""
    for volume in ((pod(one) if "spec" in one else None) or {}).get("volumes", []):
        if "configMap" in volume:
            yield "configmap", volume["configMap"]["name"], None
        if "secret" in volume:
            yield "secret", volume["secret"]["secretName"], None
    if one["kind"] == "PodMonitor":
        for endpoint in one["spec"]["podMetricsEndpoints"]:
            for secret in endpoint.get("basicAuth", {}).values():
                yield "secret", secret["name"], secret["key"]


def _cluster(folder: Path) -> list[Document]:
    path = folder.parent / "cluster.json"
    found: list[Document] = json.loads(path.read_text()) if path.exists() else []
    return found


def _remember(folder: Path, new: list[Document]) -> None:
    keys = {(one["kind"], one["metadata"]["name"]) for one in new}
    kept = [one for one in _cluster(folder) if (one["kind"], one["metadata"]["name"]) not in keys]
    (folder.parent / "cluster.json").write_text(json.dumps(kept + new))


def _known(folder: Path, target: tuple[str, str]) -> Document:
    """The object that commands before made."""
    for one in _cluster(folder):
        if (one["kind"].lower(), one["metadata"]["name"]) == target:
            return one
    msg = f"nothing on the page made {'/'.join(target)}"
    raise AssertionError(msg)


def _target(words: list[str]) -> tuple[str, str]:
    """KIND/NAME among the words of a command."""
    ((kind, name),) = [word.split("/") for word in words if re.fullmatch(r"[a-z]+/[a-z0-9-]+", word)]
    return kind, name


def _option(words: list[str], name: str) -> str:
    """Take an option with its value out of a command; empty where it is not."""
    for index, word in enumerate(words):
        if word == name:
            value = words[index + 1]
            del words[index : index + 2]
            return value
        if word.startswith(f"{name}="):
            del words[index]
            return word.partition("=")[2]
    return ""
