"""What is done here instead of commands that need what a test has not: a cluster, a cloud, a system to install into.

Each function is named by the comment `<!-- stands in: NAME -->` above a block. It gets the block's text and the reader's folder, checks that
the text says what it should (a path that it names exists, a target of the Makefile is there), and returns the commands to type instead, or
None when it has brought about the same by itself.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from tests.guides.cloud_stand_ins import aws, az, databricks
from tests.guides.docker_stand_ins import docker
from tests.guides.following import ROOT
from tests.guides.host_stand_ins import host, installed_host
from tests.guides.kubernetes_stand_ins import kubectl, kubernetes_files, kubernetes_log, kubernetes_port
from tests.guides.push_stand_ins import kserve, seldon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_demo(text: str, folder: Path) -> str:
    """The README's targets of make: each is in the Makefile. The demo is played to its end instead of for two minutes and on."""
    used = re.findall(r"^make (\S+)", text, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert used
    assert set(used) <= targets, set(used) - targets
    assert "poisonwatch demo" in (ROOT / "Makefile").read_text()
    return "poisonwatch demo --speed 600 --exit-at-end\n"


_RECEIVER = """
logs=$(python -c 'import poisonwatch.demo; print(poisonwatch.demo.__path__[0])')
poisonwatch reference build "$logs/reference.ndjson.gz" --out sms-spam.reference.json
gunzip -c "$logs/predictions.ndjson.gz" >log.ndjson
cat >poisonwatch.yaml <<END
models: [{name: sms-spam, reference: sms-spam.reference.json}]
sources: [{kind: %s}]
state: {checkpoint: state/checkpoint, spool: state/spool}
END
mkdir state
"""
"""A configuration of one source that needs nothing more said, and a log to send it."""


def posted(text: str, folder: Path) -> str:
    """A log that is posted: the very command, to an agent that listens. The page shows the configuration alone."""
    assert "@today.ndjson" in text
    return (
        f"{_RECEIVER % 'http'}head -100 log.ndjson >today.ndjson\npoisonwatch run --config poisonwatch.yaml &\n"
        f"until curl -fsS http://127.0.0.1:9787/-/ready; do sleep 0.2; done\n{text}"
        "until curl -fsS http://127.0.0.1:9787/metrics | grep '^poisonwatch_records_total.* 100.0$'; do sleep 0.2; done\n"
        "kill %1\nwait\n"
    )


def piped(text: str, folder: Path) -> str:
    """A log that is piped in: the very agent, with a file in the place of what a cluster's pods write."""
    source, agent = text.strip().split(" | ")
    assert source == "kubectl logs --follow deployment/mail"
    return (
        f"rm -r state poisonwatch.yaml\n{_RECEIVER % 'stdin'}(head -100 log.ndjson; sleep 1000) | {agent} &\n"
        "until curl -fsS http://127.0.0.1:9787/metrics | grep '^poisonwatch_records_total.* 100.0$'; do sleep 0.2; done\n"
    )


def argo_apply(text: str, folder: Path) -> None:
    """Templates for Argo Rollouts: the file is there and has nothing else in it. What is in it is tested with the manifests."""
    kubectl_apply, path = text.rsplit(maxsplit=1)
    assert kubectl_apply == "kubectl apply -f"
    documents = list(YAML(typ="safe").load_all((folder / path).read_text()))
    assert {one["kind"] for one in documents} == {"AnalysisTemplate"}


def kserve_patch(text: str, folder: Path) -> None:
    """A patch of an InferenceService: the field is one that the example of the canary has, at the same place."""
    words = shlex.split(text)
    assert words[:3] == ["kubectl", "patch", "inferenceservice"]
    patch = json.loads(words[words.index("-p") + 1])
    example = YAML(typ="safe").load((folder / "canary.yaml").read_text())
    assert words[3] == example["metadata"]["name"]
    ((place, fields),) = patch["spec"].items()
    assert set(fields) <= set(example["spec"][place])


def kserve_pipeline(text: str, folder: Path) -> str:
    """A pipeline that asks an agent in a cluster: the very loop, asking the demo's agent on this machine, and it rolls back."""
    loop = text
    for there, here in (
        ("http://poisonwatch.models:9787", "http://127.0.0.1:9787"),
        ("--model spam-filter", "--model sms-spam"),
        ("sleep 30", "sleep 0.3"),
    ):
        assert there in loop
        loop = loop.replace(there, here)
    (folder / "pipeline.sh").write_text(loop)
    return (
        "poisonwatch demo --speed 600 &\n"
        "for step in promote roll-back; do printf '#!/bin/sh\\ntouch did-%s\\n' $step >$step; chmod +x $step; done\n"
        "bash -e pipeline.sh\ntest -e did-roll-back\ntest ! -e did-promote\n"
    )


STAND_INS: dict[str, Callable[[str, Path], str | None]] = {
    "make_demo": make_demo,
    "argo_apply": argo_apply,
    "posted": posted,
    "piped": piped,
    "kserve_patch": kserve_patch,
    "kserve_pipeline": kserve_pipeline,
    "aws": aws,
    "kserve": kserve,
    "seldon": seldon,
    "az": az,
    "databricks": databricks,
    "docker": docker,
    "host": host,
    "installed_host": installed_host,
    "kubectl": kubectl,
    "kubernetes_files": kubernetes_files,
    "kubernetes_log": kubernetes_log,
    "kubernetes_port": kubernetes_port,
}
