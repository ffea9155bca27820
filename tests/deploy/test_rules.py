"""The shipped Prometheus rules: each alert is complete, true to the catalogue, explained, and does what its promtool tests say."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from poisonwatch.sinks.prometheus import CATALOGUE, C, H
from poisonwatch.types import Cause
from tests.dashboards.expressions import selected
from tests.system.programs import ROOT, tool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.system

Rule = dict[str, Any]

PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
README = PROMETHEUS / "README.md"
RUNBOOKS = ROOT / "docs" / "runbooks"

RULES = [PROMETHEUS / "poisonwatch.rules.yml", PROMETHEUS / "poisonwatch-agent.rules.yml"]
TESTS = sorted(PROMETHEUS.glob("*.test.yml"))

CASES = ("fires and resolves", "stays silent", "data missing", "agent gone")
"""How the names of an alert's tests begin, after the alert's own."""

TARGET = {"cluster", "namespace", "job", "instance"}
"""Labels that Prometheus gives a target."""

SECTIONS = ("## What it means", "## Look at", "## Decide", "## Silence", "## Find the poisoned data")
SECTIONS_OF_THE_AGENT = SECTIONS[:-1]
"""Where the alert is about the agent, or about a person's decision, there are no data to find."""

NEVER = "vector(1) == 2"


def _loaded(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def _rules(path: Path) -> list[Rule]:
    return [rule for group in _loaded(path)["groups"] for rule in group["rules"]]


ALERTS: dict[str, Rule] = {rule["alert"]: rule for path in RULES for rule in _rules(path) if "alert" in rule}
RECORDED: dict[str, Rule] = {rule["record"]: rule for path in RULES for rule in _rules(path) if "record" in rule}


def _promtool(*arguments: str, folder: Path = PROMETHEUS) -> tuple[int, str]:
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def _labels_of(metric: str) -> set[str]:
    """Labels that a metric can have, the target's among them; what a rule records has those that it aggregates by."""
    if metric == "up":
        return TARGET
    if metric in RECORDED:
        return set(re.findall(r"\w+", re.findall(r"by \(([^)]*)\)", RECORDED[metric]["expr"])[0]))
    names = {
        f"{name}_total" if described.kind is C else f"{name}_count" if described.kind is H else name: described.labels
        for name, described in CATALOGUE.items()
    }
    assert metric in names, f"the agent exports no {metric}"
    return TARGET | set(names[metric])


def _queries(rule: Rule) -> list[str]:
    """Queries in the templates of a rule, with something in place of each argument."""
    texts = [
        text
        for annotation in rule.get("annotations", {}).values()
        for text in re.findall(r'printf "((?:[^"\\]|\\.)*)"', annotation)
    ]
    return [text.replace("%q", "'x'") for text in texts if text != "%.1f"]


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    """No lint, and nothing that Prometheus would refuse."""
    code, told = _promtool("check", "rules", "--lint=all", "--lint-fatal", *(path.name for path in RULES))
    assert code == 0, told
    code, told = _promtool("check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")
    assert code == 0, told
    assert _loaded(PROMETHEUS / "prometheus.yml")["rule_files"] == [
        "poisonwatch.rules.yml",
        "poisonwatch-agent.rules.yml",
    ]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
@pytest.mark.slow
def test_alerts_do_what_their_tests_say(path: Path) -> None:
    """Promtool runs them."""
    code, told = _promtool("test", "rules", path.name)
    assert code == 0, told


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_complete(alert: str) -> None:
    """It says what, why and how bad; where to read and look on; a page of the runbook is there; links name the model."""
    rule = ALERTS[alert]
    assert re.fullmatch(r"(Poisonwatch)([A-Z][a-z]+)+", alert)
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}, "a label that moves makes another alert of it"
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert told["runbook_url"] == f"https://runbooks.example.com/{alert}.md"
    assert told["dashboard_url"].startswith("https://grafana.example.com/d/poisonwatch-")
    for label in re.findall(r"var-(\w+)=", told["dashboard_url"]):
        assert f"var-{label}={{{{ $labels." in told["dashboard_url"]
        assert re.search(rf"var-{label}={{{{ \$labels\.\w+ \| urlquery }}}}", told["dashboard_url"]), "escape it"


@pytest.mark.parametrize("alert", ALERTS)
def test_runbook_has_its_sections(alert: str) -> None:
    """Whoever follows the link finds an answer, which is not another page's with the name replaced."""
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    of_models = ALERTS[alert] in _rules(PROMETHEUS / "poisonwatch.rules.yml") and "Override" not in alert
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == list(SECTIONS if of_models else SECTIONS_OF_THE_AGENT)
    first = text.split("## Look at", 1)[1].split("## ", 1)[0]
    assert re.findall(r"^(\d)\. ", first, re.MULTILINE) == ["1", "2", "3"]
    assert f"]({alert}.md)" in (RUNBOOKS / "README.md").read_text()


def test_runbooks_are_no_copies() -> None:
    """No paragraph stands in two pages, and no page is left of an alert that is gone."""
    pages = {path.stem: path.read_text() for path in RUNBOOKS.glob("Poisonwatch*.md")}
    assert set(pages) == set(ALERTS)
    seen: dict[str, str] = {}
    for alert, text in pages.items():
        for paragraph in re.split(r"\n(?:\n|(?=\d\. ))", text.replace(alert, "ALERT")):
            if len(paragraph) > 60:
                assert paragraph not in seen, f"{alert} has what {seen[paragraph]} says: {paragraph}"
                seen[paragraph] = alert


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_names_are_in_the_catalogue(name: str) -> None:
    """Every metric and every label that a rule or its texts ask for is exported, or recorded by another rule."""
    rule = ALERTS.get(name) or RECORDED[name]
    for text in (rule["expr"], *_queries(rule)):
        for selector in selected(text):
            assert set(selector.matchers) <= _labels_of(selector.metric), (selector.metric, dict(selector.matchers))
        known = set().union(*(_labels_of(selector.metric) for selector in selected(text)))
        for labels in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", text):
            assert set(re.findall(r"\w+", labels)) <= known
    labels = set(re.findall(r'label "(\w+)"', " ".join(rule.get("annotations", {}).values())))
    exported = {label for described in CATALOGUE.values() for label in described.labels}
    assert labels <= exported


def test_every_cause_has_an_alert() -> None:
    """What the judge can say, a rule tells."""
    told = " ".join(rule["expr"] for rule in ALERTS.values())
    for cause in Cause:
        assert re.search(rf'["|]{cause.value}["|]', told), cause


def _tests(path: Path) -> list[dict[str, Any]]:
    return [dict(test) for test in _loaded(path)["tests"]]


def test_every_alert_has_its_tests() -> None:
    """Four cases each: it fires and resolves, stays silent, bears missing data and an agent that is gone."""
    names = [test["name"] for path in TESTS for test in _tests(path)]
    assert len(names) == len(set(names))
    for alert in ALERTS:
        for case in CASES:
            assert any(name.startswith(f"{alert}: {case}") for name in names), f"{alert} has no test that it {case}"
    for path in TESTS:
        for test in _tests(path):
            asked = {one["alertname"] for one in test["alert_rule_test"]}
            assert asked == {test["name"].split(":")[0]}, test["name"]


def _never(rule: Rule) -> None:
    rule["expr"] = NEVER


def _at_once(rule: Rule) -> None:
    rule.pop("for", None)


def _not_on(rule: Rule) -> None:
    rule.pop("keep_firing_for", None)


def _always(rule: Rule) -> None:
    """Fires whatever there is."""
    rule["expr"] = "vector(1)"
    rule.pop("for", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("break_it", "case", "has"),
    [
        (_never, "fires and resolves", "expr"),
        (_always, "stays silent", "expr"),
        (_at_once, "fires and resolves", "for"),
        (_not_on, "fires and resolves", "keep_firing_for"),
    ],
    ids=["never", "always", "at once", "not on"],
)
def test_tests_notice_a_broken_alert(break_it: Callable[[Rule], None], case: str, has: str, tmp_path: Path) -> None:
    """Every alert, broken in each way, fails at least one of its tests: none of them passes whatever the rules say."""
    writer = YAML(typ="safe")
    for path in RULES:
        rules = _loaded(path)
        for group in rules["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    break_it(rule)
                    rule.pop("annotations")  # only whether it fires counts here, and texts take time
        writer.dump(rules, tmp_path / path.name)
    left = [test for path in TESTS for test in _tests(path) if f": {case}" in test["name"]]
    for test in left:
        for asked in test["alert_rule_test"]:
            for told in asked.get("exp_alerts", []):
                told.pop("exp_annotations", None)
    tests = {**_loaded(TESTS[0]), "tests": [test for test in left if has in ALERTS[test["name"].split(":")[0]]]}
    writer.dump(tests, tmp_path / "left.test.yml")
    _, told = _promtool("test", "rules", "left.test.yml", folder=tmp_path)
    broken = {alert for alert, rule in ALERTS.items() if has in rule}
    assert _failed(told) == broken, f"not noticed: {broken - _failed(told)}"


def _failed(told: str) -> set[str]:
    """Alerts that fired where none, or did not where one, was expected."""
    found = set()
    for name, exp, got in re.findall(
        r"alertname: ?(\w+), ?time.*?exp:\[(.*?)\], *\n\s*got:\[(.*?)\](?=\n)", told, re.DOTALL
    ):
        if ("Labels" in exp) != ("Labels" in got):
            found.add(name)
    return found


@pytest.mark.parametrize(
    ("alert", "receiver"),
    [
        (alert, {"critical": "pager", "warning": "tickets", "info": "nobody"}[rule["labels"]["severity"]])
        for alert, rule in ALERTS.items()
    ],
)
def test_alertmanager_sends_it_where_it_belongs(alert: str, receiver: str) -> None:
    """A page wakes, a ticket waits, the rest bothers nobody."""
    severity = ALERTS[alert]["labels"]["severity"]
    done = subprocess.run(
        [tool("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={receiver}", f"alertname={alert}", f"severity={severity}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _about(alert: str) -> set[str]:
    """What the labels of an alert tell of whom it concerns."""
    text = ALERTS[alert]["expr"]
    aggregated = re.search(r"\bby \(([^)]*)\)", text)
    if aggregated is not None:
        return set(re.findall(r"\w+", aggregated[1]))
    return set().union(*(_labels_of(selector.metric) for selector in selected(text)))


def test_alertmanager_accepts_its_configuration() -> None:
    """Amtool has nothing to say; its inhibitions name alerts that there are, and never hide one that wakes for another reason."""
    done = subprocess.run(
        [tool("amtool"), "check-config", str(ALERTMANAGER)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    hidden = set()
    for rule in _loaded(ALERTMANAGER)["inhibit_rules"]:
        concerned = set()
        for side in ("source_matchers", "target_matchers"):
            (pattern,) = [matcher.split("=", 1)[1].lstrip("~ ").strip('"') for matcher in rule[side]]
            found = {alert for alert in ALERTS if re.fullmatch(pattern, alert)}
            assert found, f"{pattern} is the name of no alert"
            alternatives = re.search(r"\((.*)\)", pattern)
            for part in alternatives[1].split("|") if alternatives else []:
                assert any(re.fullmatch(f"Poisonwatch{part}", alert) for alert in ALERTS), part
            hidden |= found if side == "target_matchers" else set()
            concerned |= found
        # Nothing hides what is about another version, another model or another agent.
        about = set.intersection(*map(_about, concerned)) & {*TARGET, "model", "model_version"}
        assert set(rule["equal"]) == about
    loud = {alert for alert in hidden if ALERTS[alert]["labels"]["severity"] == "critical"}
    assert loud == {"PoisonwatchHarm", "PoisonwatchUnsteady"}


def test_readme_lists_the_alerts() -> None:
    """The table is made from the rules; `python -m tests.deploy.test_rules` writes it."""
    assert README.read_text() == _with_table(README.read_text())


def _with_table(text: str) -> str:
    head, rest = text.split("<!-- table -->\n")
    _, tail = rest.split("<!-- end -->\n")
    rows = ["| alert | severity | for | fires on |", "|---|---|---|---|"]
    for alert, rule in ALERTS.items():
        asked = sorted({one.metric for one in selected(rule["expr"])} - {"up"})
        metrics = ", ".join(f"`{name}`" for name in asked)
        link = f"[{alert}](../../docs/runbooks/{alert}.md)"
        rows.append(f"| {link} | {rule['labels']['severity']} | {rule.get('for', '0m')} | {metrics} |")
    table = "\n".join(rows)
    return f"{head}<!-- table -->\n{table}\n<!-- end -->\n{tail}"


if __name__ == "__main__":
    README.write_text(_with_table(README.read_text()))
