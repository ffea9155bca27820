"""What every dashboard has to follow: the rules of Grafana's dashboard-linter, written anew, and a few of our own.

A rule gets a dashboard and tells what is wrong with it, in words.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING

from dashboards.build import reread
from poisonwatch.sinks.prometheus import CATALOGUE
from tests.dashboards.expressions import RANGE, RATE_INTERVAL, Expression, Json, Selected, expressions, panels, selected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNITS = frozenset(
    [
        "none",
        "short",
        "percent",
        "percentunit",
        "s",
        "ms",
        "dtdurations",
        "bytes",
        "decbytes",
        "cps",
        "ops",
        "reqps",
        "rps",
        "dateTimeAsIso",
        "dateTimeAsIsoNoDateIfToday",
        "dateTimeFromNow",
        "string",
        "bool_yes_no",
    ]
)
"""Units of Grafana that are of use here; any other is most likely misspelt."""

DAY = f"{24 * 3600}s"

COUNTING = frozenset(["rate", "irate", "increase"])

OF_AN_AGENT = ("cluster", "namespace", "job", "instance")
"""Labels that a Prometheus adds, the first two not everyone."""

OF_PROMETHEUS = {"up": ()}
"""Metrics that Prometheus itself writes of every target."""


def _variables(page: Json, kind: str = "") -> list[Json]:
    return [one for one in page["templating"]["list"] if kind in {"", one["type"]}]


def _selectors(page: Json) -> Iterator[tuple[Expression, Selected]]:
    for expression in expressions(page):
        try:
            found = selected(expression.text)
        except ValueError:
            continue  # another rule tells of it
        for one in found:
            yield expression, one


def template_datasource(page: Json) -> list[str]:
    """The data source is a variable, named and labelled as everybody does."""
    found = [(one["name"], one.get("label"), one.get("query")) for one in _variables(page, "datasource")]
    return [] if found == [("datasource", "Data source", "prometheus")] else [f"variables of data sources: {found}"]


def _template_of(page: Json, name: str) -> list[str]:
    found = [one for one in _variables(page, "query") if one["name"] == name]
    if len(found) != 1:
        return [f"{len(found)} variables {name}"]
    (one,) = found
    wanted = {
        "label": name.capitalize(),
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
    }
    return [f"{name}: {key} is {one.get(key)!r}" for key, value in wanted.items() if one.get(key) != value]


def template_job(page: Json) -> list[str]:
    """There is a variable for the job, with several values."""
    return _template_of(page, "job")


def template_instance(page: Json) -> list[str]:
    """There is a variable for the instance, with several values."""
    return _template_of(page, "instance")


def template_label_promql(page: Json) -> list[str]:
    """Variables with values from a query ask for the values of a label, by PromQL."""
    wrong = []
    for one in _variables(page, "query"):
        found = re.fullmatch(r"label_values\((.+), *(\w+)\)", one["query"])
        try:
            known = found is not None and [s.metric for s in selected(found[1])]
        except ValueError:
            known = False
        if not known or one.get("definition") != one["query"]:
            wrong.append(f"{one['name']}: {one['query']}")
    return wrong


def template_on_time_change_reload(page: Json) -> list[str]:
    """Variables are read anew when the time range changes."""
    return [one["name"] for one in _variables(page, "query") if one.get("refresh") != 2]


def panel_datasource(page: Json) -> list[str]:
    """Panels and their targets use the data source that was chosen."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    return [
        f"{panel['title']}: {one.get('datasource')}"
        for panel in panels(page)
        for one in (panel, *panel.get("targets", []))
        if one.get("datasource") != chosen
    ]


def panel_title_description(page: Json) -> list[str]:
    """Panels say what they are, and what it means; no two have one title."""
    found = list(panels(page))
    titles = [panel.get("title", "") for panel in found]
    return [
        *(
            f"{panel.get('title')!r} is not told"
            for panel in found
            if not (panel.get("title") and panel.get("description"))
        ),
        *(f"{title!r} is there twice" for title in set(titles) if titles.count(title) > 1),
    ]


def panel_units(page: Json) -> list[str]:
    """Values have units, and Grafana knows them."""
    wrong = []
    for panel in panels(page):
        fields = panel["fieldConfig"]
        given = [fields["defaults"].get("unit")]
        given += [p["value"] for o in fields["overrides"] for p in o["properties"] if p["id"] == "unit"]
        wrong += [f"{panel['title']}: {unit}" for unit in given if unit not in UNITS]
    return wrong


def panel_no_targets(page: Json) -> list[str]:
    """Panels ask for something."""
    return [panel["title"] for panel in panels(page) if not panel.get("targets")]


def uneditable(page: Json) -> list[str]:
    """A change by hand would be lost at the next update, so there is none."""
    return [] if page.get("editable") is False else ["it can be edited"]


def target_promql(page: Json) -> list[str]:
    """Expressions are PromQL, once their variables are filled in; and only variables that the page has are in them."""
    known = {"__rate_interval", "__range", *(one["name"] for one in _variables(page))}
    wrong = []
    for expression in expressions(page):
        wrong += [
            f"{expression.place}: ${name}" for name in re.findall(r"\$\{?(\w+)", expression.text) if name not in known
        ]
        try:
            selected(expression.text)
        except ValueError as error:
            wrong.append(f"{expression.place}: {error}")
    return wrong


def target_rate_interval(page: Json) -> list[str]:
    """Rates are taken over `$__rate_interval`; an increase over it or over all that is looked at; who is gone is remembered for a day."""
    wrong = []
    for expression, one in _selectors(page):
        if one.range is None:
            continue
        seconds = f"{one.range.total_seconds():.0f}s"
        more = {"increase": {RANGE}, "last_over_time": {DAY}}
        allowed = {RATE_INTERVAL} | more.get(next(iter(one.inside), ""), set())
        if seconds not in allowed:
            wrong.append(f"{expression.place}: {one.metric}[{seconds}]")
    return wrong


def _matched(page: Json, label: str) -> list[str]:
    texts = [(expression.place, expression.text) for expression in expressions(page)]
    texts += [(one["name"], one["query"]) for one in _variables(page, "query") if one["name"] not in {"job", label}]
    wrong = []
    for place, text in texts:
        selectors = re.findall(r"\b[a-z_]+\{([^}]*)\}", text)
        bare = [metric for metric in re.findall(r"\bpoisonwatch_\w+\b(?!\{)", text) if metric]
        if bare or any(f'{label}=~"${label}"' not in matchers for matchers in selectors):
            wrong.append(f"{place}: {text}")
    return wrong


def target_job(page: Json) -> list[str]:
    """Selectors match the chosen job."""
    return _matched(page, "job")


def target_instance(page: Json) -> list[str]:
    """Selectors match the chosen instances."""
    return _matched(page, "instance")


def target_counter_agg(page: Json) -> list[str]:
    """A counter says nothing by itself: it stands in a rate or an increase, and nothing else does."""
    return [
        f"{expression.place}: {one.metric}"
        for expression, one in _selectors(page)
        if one.metric.endswith(("_total", "_bucket")) is not (one.inside[:1] != () and one.inside[0] in COUNTING)
    ]


def target_histogram(page: Json) -> list[str]:
    """Buckets make a quantile."""
    return [
        f"{expression.place}: {one.metric}"
        for expression, one in _selectors(page)
        if one.metric.endswith("_bucket") and "histogram_quantile" not in one.inside
    ]


def target_catalogue(page: Json) -> list[str]:
    """Every metric and every label is one that the agent exports, or that Prometheus adds."""
    texts = [expression.text for expression in expressions(page)]
    texts += [
        found[1] for one in _variables(page, "query") if (found := re.match(r"label_values\((.+), ", one["query"]))
    ]
    wrong = []
    for text in texts:
        known = set()
        for one in selected(text):
            labels = labels_of(one.metric)
            if labels is None:
                wrong.append(f"{one.metric} is not exported")
                continue
            known |= {*labels, *OF_AN_AGENT}
            wrong += [
                f"{one.metric} has no label {label}"
                for label in one.matchers
                if label not in {*labels, "job", "instance"}
            ]
        named = re.findall(r"\b(?:by|without|on|group_left|group_right) \(([^)]*)\)", text)
        wrong += [
            f"no metric of it has the label {label}: {text}"
            for names in named
            for label in names.replace(" ", "").split(",")
            if label and label not in known
        ]
    return wrong


def labels_of(metric: str) -> tuple[str, ...] | None:
    """Labels of a series as the agent exports it; None when it does not."""
    if metric in OF_PROMETHEUS:
        return OF_PROMETHEUS[metric]
    for suffix, kind, more in (
        ("", "GaugeMetricFamily", ()),
        ("_total", "CounterMetricFamily", ()),
        ("_bucket", "HistogramMetricFamily", ("le",)),
    ):
        described = CATALOGUE.get(metric.removesuffix(suffix)) if metric.endswith(suffix) else None
        if described is not None and described.kind.__name__ == kind:
            return (*described.labels, *more)
    return None


def legend(page: Json) -> list[str]:
    """Series are named by labels that they keep; where several are drawn, all have a name."""
    wrong = []
    for panel in panels(page):
        if panel["type"] == "table":
            continue
        for target in panel.get("targets", []):
            names = re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))
            kept = re.findall(r"\b(?:by|without) \(([^)]*)\)", target["expr"])
            wrong += [
                f"{panel['title']}: {name}"
                for name in names
                if kept and not any(name in labels.replace(" ", "").split(",") for labels in kept)
            ]
        if panel["type"] != "stat" and not all(target.get("legendFormat") for target in panel["targets"]):
            wrong.append(f"{panel['title']}: a series without a name")
    return wrong


def importable(page: Json) -> list[str]:
    """It can be imported and provisioned as it is, again and again, and is the same dashboard each time."""
    wrong: list[str] = [key for key in ("__inputs", "__requires") if key in page]
    if page.get("id") is not None:
        wrong.append("it has the id of one Grafana")
    if not re.fullmatch(r"poisonwatch-[a-z]{1,28}", page.get("uid") or ""):
        wrong.append(f"uid {page.get('uid')}")
    if page.get("schemaVersion", 0) < 39:
        wrong.append(f"schema {page.get('schemaVersion')}")
    if "poisonwatch" not in page.get("tags", []) or not any(one["tags"] == ["poisonwatch"] for one in page["links"]):
        wrong.append("it is not tied to the others")
    if page.get("graphTooltip") != 1:
        wrong.append("its graphs do not share the cursor")
    return wrong


def layout(page: Json) -> list[str]:
    """Panels lie within the 24 columns, none on another, and each has a number of its own."""
    wrong = []
    found = page["panels"]
    places = {panel["title"] + panel["type"]: panel["gridPos"] for panel in found}
    wrong += [name for name, at in places.items() if at["x"] + at["w"] > 24]
    for (one, a), (other, b) in combinations(places.items(), 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        if not (beside or above):
            wrong.append(f"{one} lies on {other}")
    numbers = [panel.get("id") for panel in found]
    if len(set(numbers)) < len(numbers) or None in numbers:
        wrong.append("panels without a number of their own")
    return wrong


def schema(page: Json) -> list[str]:
    """Nothing is in it that Grafana's schema does not know: read and written again, it is the same."""
    return (
        []
        if _without_nothing(reread(page)) == _without_nothing(page)
        else ["it has a key that the schema does not know"]
    )


def _without_nothing(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nothing(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nothing(one) for one in value]
    return value


RULES: tuple[Callable[[Json], list[str]], ...] = (
    template_datasource,
    template_job,
    template_instance,
    template_label_promql,
    template_on_time_change_reload,
    panel_datasource,
    panel_title_description,
    panel_units,
    panel_no_targets,
    uneditable,
    target_promql,
    target_rate_interval,
    target_job,
    target_instance,
    target_counter_agg,
    target_histogram,
    target_catalogue,
    legend,
    importable,
    layout,
    schema,
)
