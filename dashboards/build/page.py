"""What all three dashboards have in common: variables, links to each other, marks of decisions on every graph."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableRefresh,
    VariableSort,
)

from dashboards.build.looks import SOURCE
from dashboards.build.queries import of

TAG = "poisonwatch"


def chosen(name: str, label: str, metric: str, *, several: bool, description: str) -> QueryVariable:
    """A variable with the values of a label. `several` at once, or all of them, or only one."""
    query = f"label_values({metric}, {name})"
    variable = (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query(query)
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )
    return variable.all_value(".+") if several else variable


def new_page(title: str, uid: str, description: str) -> Dashboard:
    """A dashboard without panels."""
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-3h", "now")
        .refresh("30s")
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            chosen("job", "Job", "poisonwatch_build_info", several=True, description="Scrape jobs of the agents.")
        )
        .with_variable(
            chosen(
                "instance",
                "Instance",
                'poisonwatch_build_info{job=~"$job"}',
                several=True,
                description="Agents: one for every server that is watched.",
            )
        )
        .link(
            DashboardLink("poisonwatch")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(
            AnnotationQuery()
            .name("Rollback recommended")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr(f"max by (model, model_version) ({of('poisonwatch_decision', decision='rollback')}) == 1")
            .step("30s")
            .title_format("Rollback recommended")
            .text_format("{{model}} {{model_version}}")
        )
        .annotation(
            AnnotationQuery()
            .name("Page firing")
            .datasource(SOURCE)
            .enable(False)
            .icon_color("orange")
            .expr(f"sum by (model, model_version) ({of('poisonwatch_alerts', severity='page', state='firing')}) > 0")
            .step("30s")
            .title_format("Page firing")
            .text_format("{{model}} {{model_version}}")
        )
    )
