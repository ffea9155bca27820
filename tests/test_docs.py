"""The documentation says what is true now.

The tables of docs/metrics.md and docs/configuration.md are rendered from the code. After a change there, write them anew with
`POISONWATCH_REWRITE_DOCS=1 .venv/bin/pytest tests/test_docs.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest

from poisonwatch.cli import cli
from poisonwatch.judge.budget import SHARES
from poisonwatch.judge.cause import RULES
from poisonwatch.sinks.prometheus import CATALOGUE
from tests.configuration_reference import rendered

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


def test_every_key_of_the_configuration_is_documented() -> None:
    """docs/configuration.md has every key, by the part that it belongs to, with what it takes and its default."""
    _check(DOCS / "configuration.md", rendered())


PAGES = sorted(
    page
    for place in ("*.md", "dashboards/*.md", "deploy/**/*.md", "docs/**/*.md", "poisonwatch/**/*.md")
    for page in ROOT.glob(place)
)
KNOWN_HOSTS = {
    "127.0.0.1",
    "creativecommons.org",
    "doi.org",
    "github.com",
    "keepachangelog.com",
    "semver.org",
    "www.standardwebhooks.com",
}
"""Hosts that pages may name. The names that RFC 2606 keeps for examples are free; so is what is told to be replaced."""


def _prose(page: Path) -> str:
    """A page without its fenced blocks, in which nothing is a link."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        name = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        anchors.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there, and a heading that it has."""
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)", _prose(page)):
        path, _, anchor = target.partition("#")
        named = page.parent / path if path else page
        assert named.exists(), target
        assert not anchor or anchor in _anchors(named), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_host_that_nobody_looked_at(page: Path) -> None:
    """Links lead to places that are known; placeholders are names that nobody can own, or words in capitals."""
    hosts = set(re.findall(r"https?://(?:[^/\s@`\"'<>]*@)?([A-Za-z0-9.-]+)", page.read_text()))
    reserved = re.compile(
        r"(.+\.)?example(\.com|\.org|\.net)?|[A-Z._]+|[a-z0-9-]+|[a-z0-9.-]+\.(svc|models|monitoring)|grafana\.MINE"
    )
    assert {host for host in hosts if not reserved.fullmatch(host)} <= KNOWN_HOSTS


def test_commands_of_the_readme_exist() -> None:
    """Every `poisonwatch ...` in the README and the documentation is a command that exists."""
    text = "\n".join(page.read_text() for page in PAGES)
    typed = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    used = {
        *re.findall(r"`poisonwatch ([a-z]+)[^`]*`", text),
        *re.findall(r"^poisonwatch ([a-z]+)", typed, re.MULTILINE),
    }
    assert used
    assert used <= set(cli.list_commands(click.Context(cli)))


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
