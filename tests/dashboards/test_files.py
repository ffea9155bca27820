"""The dashboards' files: they are what the code makes, and follow every rule; each rule notices a broken copy."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from dashboards.build import files
from tests.dashboards.expressions import Json, panels
from tests.dashboards.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parents[2] / "dashboards"
NAMES = ("overview", "model", "agent")


def read(name: str) -> Json:
    """A dashboard as it is shipped."""
    page: Json = json.loads((HERE / f"{name}.json").read_text())
    return page


def test_files_are_what_the_code_makes() -> None:
    """Nobody edited them by hand, and nobody forgot `make dashboards`."""
    made = files()
    assert set(made) == {f"{name}.json" for name in NAMES}
    for name, text in made.items():
        assert (HERE / name).read_text() == text, f"{name} is not what the code makes: run make dashboards"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_follows_the_rule(name: str, rule: Callable[[Json], list[str]]) -> None:
    """No rule has anything to say."""
    assert rule(read(name)) == []


def _variable(page: Json, name: str) -> Json:
    found: Json = next(one for one in page["templating"]["list"] if one["name"] == name)
    return found


def _panel(page: Json) -> Json:
    return next(panel for panel in panels(page) if panel["type"] == "timeseries")


def _rewrite(page: Json, old: str, new: str) -> None:
    """Change the first expression that has `old` in it."""
    target = next(t for panel in panels(page) for t in panel["targets"] if old in t["expr"])
    target["expr"] = target["expr"].replace(old, new, 1)


BREAKS: dict[str, list[Callable[[Json], object]]] = {
    "template_datasource": [
        lambda page: page["templating"]["list"].pop(0),
        lambda page: _variable(page, "datasource").update(name="prom"),
        lambda page: _variable(page, "datasource").update(label="datasource"),
    ],
    "template_job": [
        lambda page: page["templating"]["list"].remove(_variable(page, "job")),
        lambda page: _variable(page, "job").update(multi=False),
    ],
    "template_instance": [
        lambda page: page["templating"]["list"].remove(_variable(page, "instance")),
        lambda page: _variable(page, "instance").update(allValue=".*"),
    ],
    "template_label_promql": [
        lambda page: _variable(page, "instance").update(query="label_values(instance)"),
        lambda page: _variable(page, "instance").update(query="label_values(x{job=, instance)"),
    ],
    "template_on_time_change_reload": [lambda page: _variable(page, "job").update(refresh=1)],
    "panel_datasource": [
        lambda page: _panel(page).update(datasource={"type": "prometheus", "uid": "abc"}),
        lambda page: _panel(page)["targets"][0].pop("datasource"),
    ],
    "panel_title_description": [
        lambda page: _panel(page).update(title=""),
        lambda page: _panel(page).pop("description"),
        lambda page: _panel(page).update(title=page["panels"][1]["title"]),
    ],
    "panel_units": [
        lambda page: _panel(page)["fieldConfig"]["defaults"].pop("unit"),
        lambda page: _panel(page)["fieldConfig"]["defaults"].update(unit="percentuint"),
        lambda page: _panel(page)["fieldConfig"]["overrides"].append(
            {"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "unit", "value": "seconds"}]}
        ),
    ],
    "panel_no_targets": [lambda page: _panel(page).update(targets=[])],
    "uneditable": [lambda page: page.update(editable=True), lambda page: page.pop("editable")],
    "target_promql": [
        lambda page: _rewrite(page, "(", "(("),
        lambda page: _rewrite(page, "$instance", "$pod"),
    ],
    "target_rate_interval": [lambda page: _rewrite(page, "$__rate_interval", "5m")],
    "target_job": [
        lambda page: _rewrite(page, 'job=~"$job", ', ""),
        lambda page: _rewrite(page, 'job=~"$job"', 'job="$job"'),
    ],
    "target_instance": [lambda page: _rewrite(page, 'instance=~"$instance"', 'instance="a"')],
    "target_counter_agg": [
        lambda page: _rewrite(page, "rate(", "avg_over_time("),
        lambda page: _panel(page)["targets"][0].update(
            expr='rate(poisonwatch_source_lag_bytes{job=~"$job", instance=~"$instance"}[$__rate_interval])'
        ),
    ],
    "target_histogram": [
        lambda page: _panel(page)["targets"][0].update(
            expr="sum(rate(poisonwatch_prediction_confidence_ratio_bucket[$__rate_interval]))"
        )
    ],
    "target_catalogue": [
        lambda page: _rewrite(page, "poisonwatch_", "poisonwatch_no_"),
        lambda page: _rewrite(page, "_total{", "{"),
        lambda page: _rewrite(page, "{", '{team="a",'),
        lambda page: _rewrite(page, "by (", "by (team, "),
    ],
    "legend": [
        lambda page: _panel(page)["targets"][0].update(
            expr="sum by (model) (up)", legendFormat="{{model}} {{model_version}}"
        ),
        lambda page: _panel(page)["targets"][0].pop("legendFormat"),
    ],
    "importable": [
        lambda page: page.update(__inputs=[]),
        lambda page: page.update(id=7),
        lambda page: page.pop("uid"),
        lambda page: page.update(uid="poisonwatch-" + "a" * 40),
        lambda page: page.update(schemaVersion=30),
        lambda page: page.update(tags=[]),
        lambda page: page.update(graphTooltip=0),
    ],
    "layout": [
        lambda page: page["panels"][2]["gridPos"].update(page["panels"][1]["gridPos"]),
        lambda page: page["panels"][1]["gridPos"].update(w=25),
        lambda page: page["panels"][1].update(id=page["panels"][2]["id"]),
        lambda page: page["panels"][1].pop("id"),
    ],
    "schema": [
        lambda page: page.update(pannels=[]),
        lambda page: _panel(page)["fieldConfig"]["defaults"].update(unti="s"),
        lambda page: _panel(page)["options"].update(legende={}),
    ],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_notices_a_broken_copy(name: str, rule: Callable[[Json], list[str]]) -> None:
    """Each way to break a rule is told by that rule."""
    for number, break_it in enumerate(BREAKS[rule.__name__]):
        page = copy.deepcopy(read(name))
        break_it(page)
        assert rule(page), f"{rule.__name__} does not notice break {number}"


def test_provisioning_is_what_the_readme_says() -> None:
    """The examples are of Grafana's first version of such files, and let nobody lose changes made by hand."""
    (provider,) = _yaml("dashboards.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")
    assert not provider["allowUiUpdates"]
    (source,) = _yaml("datasources.yml")["datasources"]
    variable = _variable(read("overview"), "datasource")
    assert source["type"] == variable["query"]


def _yaml(name: str) -> Json:
    found: Json = YAML(typ="safe").load(HERE / "provisioning" / name)
    assert found["apiVersion"] == 1
    return found


def test_pictures_are_small() -> None:
    """There is a picture of each, that a page loads at once."""
    for name in NAMES:
        size = (HERE / "pictures" / f"{name}.png").stat().st_size
        assert 20_000 < size < 200_000, f"{name}.png has {size} bytes"


def test_links_lead_to_dashboards_that_are_there() -> None:
    """A link in a table opens one of ours, with variables that it has."""
    uids = {read(name)["uid"]: read(name) for name in NAMES}
    links = {
        link["url"]
        for name in NAMES
        for panel in panels(read(name))
        for override in panel["fieldConfig"]["overrides"]
        for found in override["properties"]
        if found["id"] == "links"
        for link in found["value"]
    }
    assert links
    for link in links:
        path, _, query = link.partition("?")
        page = uids[path.removeprefix("/d/")]
        for given in re.findall(r"var-(\w+)=|\$\{(\w+):queryparam\}", query):
            _variable(page, given[0] or given[1])
