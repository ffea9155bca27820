"""The documentation says what is true now.

The tables of docs/metrics.md and docs/configuration.md are rendered from the code. After a change there, write them anew with
`POISONWATCH_REWRITE_DOCS=1 .venv/bin/pytest tests/test_docs.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from poisonwatch.cli import cli
from poisonwatch.config import Config
from poisonwatch.judge.budget import SHARES
from poisonwatch.judge.cause import RULES
from poisonwatch.sinks.prometheus import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)


def _check(path: Path, table: str) -> None:
    """The table between the markers of a page is the one that the code gives."""
    text = path.read_text()
    assert TABLE.search(text), f"{path.name} has no table"
    expected = TABLE.sub(lambda _: table, text)
    if os.environ.get("POISONWATCH_REWRITE_DOCS"):
        path.write_text(expected)
    assert path.read_text() == expected


def test_every_metric_is_documented() -> None:
    """docs/metrics.md has the catalogue, line by line."""
    kinds = {"GaugeMetricFamily": "gauge", "CounterMetricFamily": "counter", "HistogramMetricFamily": "histogram"}
    rows = ["| metric | type | labels | |", "|---|---|---|---|"]
    for name, described in CATALOGUE.items():
        kind = kinds[described.kind.__name__]
        labels = ", ".join(f"`{label}`" for label in described.labels)
        rows.append(f"| `{name}{'_total' if kind == 'counter' else ''}` | {kind} | {labels} | {described.help} |")
    _check(DOCS / "metrics.md", "\n".join(rows) + "\n")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every key of the configuration with its default and its description."""
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        many = "[]" if str(field.annotation).startswith("tuple") else ""
        for part in inner:
            yield from _keys(part, f"{prefix}{name}{many}.")
        if not inner:
            default = "required" if field.is_required() else "" if field.default is None else f"`{field.default}`"
            yield f"{prefix}{name}", default, field.description or ""


def _inner(annotation: Any) -> list[type[BaseModel]]:
    """The parts of the configuration that an annotation speaks of; `kind` chooses among several."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [part for inner in getattr(annotation, "__args__", ()) for part in _inner(inner)]


def test_every_key_of_the_configuration_is_documented() -> None:
    """docs/configuration.md has every key with its default."""
    rows = ["| key | default | |", "|---|---|---|"]
    # What several kinds have in common is told once.
    rows += dict.fromkeys(f"| `{key}` | {default} | {text} |" for key, default, text in _keys(Config))
    _check(DOCS / "configuration.md", "\n".join(rows) + "\n")


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *DOCS.glob("*.md")]), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of the documentation names a file that is there."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_commands_of_the_readme_exist() -> None:
    """Every `poisonwatch ...` in the README and the documentation is a command that exists."""
    text = "\n".join(page.read_text() for page in [ROOT / "README.md", *DOCS.glob("*.md")])
    used = set(re.findall(r"^poisonwatch (\w+)|`poisonwatch (\w+)", text, re.MULTILINE))
    names = {name for pair in used for name in pair if name}
    assert names
    assert names <= set(cli.list_commands(click.Context(cli)))


def test_shares_in_the_documentation_are_those_of_the_code() -> None:
    """The table of docs/detection.md gives each share of the budget, and they add up to one."""
    text = (DOCS / "detection.md").read_text()
    assert sum(SHARES.values()) == pytest.approx(1.0)
    told = sorted(float(share) for share in re.findall(r"^\| [^|]+ \| (0\.\d\d) \|", text, re.MULTILINE))
    assert told == sorted(SHARES.values())


def test_every_rule_of_the_causes_is_documented() -> None:
    """docs/detection.md has the table of causes, row by row in the order in which it is read."""
    rows = ["| group | with | cause | |", "|---|---|---|---|"]
    for rule in RULES:
        marks = ", ".join(f"`{mark}`" for mark in sorted(map(str, rule.marks)))
        rows.append(f"| {rule.group} | {marks} | `{rule.cause.value}` | {rule.severity.value} |")
    _check(DOCS / "detection.md", "\n".join(rows) + "\n")
