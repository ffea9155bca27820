"""Every manifest for a rollout controller has the fields that the controller knows, and nothing else."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.config.web import WebConfig
from tests.deploy.manifests import DEPLOY, manifests, problems

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFESTS = manifests()


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value of a document."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from _places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


def test_every_folder_has_its_manifests() -> None:
    """The search for manifests finds those of each controller."""
    assert {name.split("/")[0] for name in MANIFESTS} == {"argo-rollouts", "flagger", "kserve"}
    assert len(MANIFESTS) == sum(
        path.read_text().count("\nkind: ")
        for path in DEPLOY.glob("*/*.yaml")
        if f"{path.parent.name}/" in str(MANIFESTS)
    )


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_valid_and_no_field_of_it_may_be_misspelt(name: str) -> None:
    """As shipped nothing is wrong; with any one name or kind of value changed, something is."""
    document = MANIFESTS[name]
    assert problems(document) == []
    for *way, last in _places(document):
        if isinstance(last, str):
            misspelt = copy.deepcopy(document)
            fields = _at(misspelt, tuple(way))
            fields[last[:-2] + last[-1] + last[-2] if last[-1] != last[-2] else last + "s"] = fields.pop(last)
            assert problems(misspelt), (*way, last)
        value = _at(document, (*way, last))
        wrong = copy.deepcopy(document)
        _at(wrong, tuple(way))[last] = "many of them" if not isinstance(value, str) else [value]
        assert problems(wrong), (*way, last)


def test_names_that_refer_to_each_other_agree() -> None:
    """Rollouts name templates and Canaries name metrics that are shipped; arguments are those that the template has."""
    templates = {
        one["metadata"]["name"]: one["spec"] for one in MANIFESTS.values() if one["kind"] == "AnalysisTemplate"
    }
    metrics = {one["metadata"]["name"] for one in MANIFESTS.values() if one["kind"] == "MetricTemplate"}
    analyses = []
    for document in MANIFESTS.values():
        if document["kind"] == "Rollout":
            canary = document["spec"]["strategy"]["canary"]
            analyses += [canary["analysis"], *(step["analysis"] for step in canary["steps"] if "analysis" in step)]
        if document["kind"] == "Canary":
            used = {metric["templateRef"]["name"] for metric in document["spec"]["analysis"].get("metrics", [])}
            assert used <= metrics
    assert analyses
    for analysis in analyses:
        given = {argument["name"] for argument in analysis["args"]}
        for template in analysis["templates"]:
            arguments = templates[template["templateName"]]["args"]
            assert given <= {argument["name"] for argument in arguments}
            assert {argument["name"] for argument in arguments if "value" not in argument} <= given


def test_the_agent_is_looked_for_where_it_listens() -> None:
    """Manifests and commands name one port, the default of the agent."""
    files = [path for folder in ("argo-rollouts", "flagger", "kserve") for path in (DEPLOY / folder).iterdir()]
    ports = [port for path in files for port in re.findall(r"poisonwatch\.models[a-z.]*:(\d+)", path.read_text())]
    assert len(ports) == 5
    assert set(ports) == {WebConfig().listen_address.rpartition(":")[2]}
