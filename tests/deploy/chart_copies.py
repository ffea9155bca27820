"""What the chart has copies of, because Helm reads nothing outside of a chart: rules, dashboards, the schema of `config`.

`python -m tests.deploy.chart_copies` writes them anew, and the table of values in the chart's README.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

import poisonwatch
from poisonwatch.config import Config
from tests.deploy.manifests import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHART = DEPLOY / "kubernetes" / "chart"
BEGIN, END = "<!-- values -->\n", "<!-- end -->"


def copies() -> dict[Path, str]:
    """What each file that is made should hold."""
    found = {
        CHART / "files" / path.name: path.read_text() for path in sorted((DEPLOY / "prometheus").glob("*.rules.yml"))
    }
    found |= {
        CHART / "files" / path.name: path.read_text() for path in sorted((DEPLOY.parent / "dashboards").glob("*.json"))
    }
    schema = CHART / "values.schema.json"
    found[schema] = _schema(schema.read_text())
    readme = CHART / "README.md"
    found[readme] = _readme(readme.read_text(), json.loads(found[schema]))
    chart = CHART / "Chart.yaml"
    found[chart] = "".join(
        f'appVersion: "{poisonwatch.__version__}"\n' if line.startswith("appVersion:") else line
        for line in chart.read_text().splitlines(keepends=True)
    )
    return found


def _schema(text: str) -> str:
    """The schema of the values with that of the agent's configuration in it, but for `web`."""
    schema = json.loads(text)
    config = Config.model_json_schema()
    parts = {name: part for name, part in schema["$defs"].items() if name[0].islower()}
    parts |= config.pop("$defs")
    del config["properties"]["web"]
    schema["$defs"] = {**parts, "Config": config}
    return json.dumps(_plain(schema), indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Without what Helm's validator passes over: it knows draft 7, and these say nothing there."""
    match value:
        case dict():
            return {
                key: _plain(inner)
                for key, inner in value.items()
                if key != "discriminator" and (key, inner) != ("format", "path")
            }
        case list():
            return [_plain(inner) for inner in value]
    return value


def _readme(text: str, schema: dict[str, Any]) -> str:
    """The page with its table made anew."""
    values = YAML(typ="safe").load(CHART / "values.yaml")
    before, _, rest = text.partition(BEGIN)
    rows = [
        "| `{}` | {} | {} |\n".format(name, f"`{json.dumps(default)}`" if default not in ("", None) else "", told)
        for name, default, told in _rows(schema["properties"], values, "")
    ]
    return f"{before}{BEGIN}| value | default | |\n|---|---|---|\n{''.join(rows)}{END}{rest.partition(END)[2]}"


def _rows(properties: dict[str, Any], values: dict[str, Any], place: str) -> Iterator[tuple[str, Any, str]]:
    for name, schema in properties.items():
        if name not in values:
            continue  # Helm's own `global`.
        value = values[name]
        inner = schema.get("properties", {})
        if inner and isinstance(value, dict) and value:
            yield from _rows(inner, value, f"{place}{name}.")
        elif name == "config":
            yield f"{place}{name}", None, f"Required. {schema['description']}"
        else:
            yield f"{place}{name}", value, schema["description"]


if __name__ == "__main__":
    for path, content in copies().items():
        path.write_text(content)
