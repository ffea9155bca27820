"""What the panels share: their defaults, and how a decision looks wherever it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeNamePlacement,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.models.dashboard import ValueMapping

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, ORANGE, RED, PURPLE, BLUE, GREY = "green", "yellow", "orange", "red", "purple", "blue", "text"

HEALTHY_FROM_ZERO = ((None, GREEN), (1.0, RED))
"""Thresholds of a number that has to be zero."""


class Target(NamedTuple):
    """An expression and what its series are called; a table needs no names."""

    expression: str
    legend: str = ""


def words(**texts: tuple[str, str]) -> list[ValueMapping]:
    """Text and colour by value; a leading underscore lets a number be a name here."""
    return [
        ValueMap(
            options={
                value.removeprefix("_"): ValueMappingResult(text=text, color=colour, index=number)
                for number, (value, (text, colour)) in enumerate(texts.items())
            }
        )
    ]


DECISIONS = words(_0=("KEEP", GREEN), _1=("HOLD", YELLOW), _2=("ROLLBACK", RED), _3=("STALE", PURPLE))
DECISION_NAMES = words(keep=("KEEP", GREEN), hold=("HOLD", YELLOW), rollback=("ROLLBACK", RED))
SEVERITIES = words(page=("PAGE", RED), ticket=("ticket", YELLOW))
ROLLBACK_STATES = words(
    awaited=("awaited", RED), moved=("traffic moved", YELLOW), verified=("verified", GREEN), failed=("FAILED", RED)
)
YES_IS_BAD = words(_0=("no", GREEN), _1=("YES", RED))
UP = words(_0=("MISSING", RED), _1=("there", GREEN))
LEARNED = words(_0=("not yet", YELLOW), _1=("known", GREEN))


def steps(*given: tuple[float | None, str]) -> ThresholdsConfig:
    """Colours from values on; the first has no value."""
    config = ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    return config.steps([Threshold(value=value, color=colour) for value, colour in given])


def _queries(targets: Sequence[Target], *, instant: bool, rows: bool = False) -> list[prometheus.Dataquery]:
    made = []
    for number, target in enumerate(targets):
        query = prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(target.expression).datasource(SOURCE)
        query = query.legend_format(target.legend) if target.legend else query
        query = query.format(PromQueryFormat.TABLE if rows else PromQueryFormat.TIME_SERIES)
        made.append(query.instant() if instant else query.range())
    return made


def tiles(
    title: str,
    description: str,
    *targets: Target,
    unit: str = "short",
    width: int = 6,
    height: int = 4,
    mappings: list[ValueMapping] | None = None,
    thresholds: Sequence[tuple[float | None, str]] = ((None, GREEN),),
    no_value: str = "-",
    decimals: int | None = None,
    named: bool = False,
) -> stat.Panel:
    """One large value per series; `named` shows the names of series also where there is only one."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets([*_queries(targets, instant=True)])
        .unit(unit)
        .span(width)
        .height(height)
        .thresholds(steps(*thresholds))
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .color_mode(BigValueColorMode.BACKGROUND_SOLID if mappings else BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME if named else BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .orientation(VizOrientation.AUTO)
        .no_value(no_value)
    )
    panel = panel.decimals(decimals) if decimals is not None else panel
    return panel.mappings(mappings) if mappings else panel


def lines(
    title: str,
    description: str,
    *targets: Target,
    unit: str = "short",
    width: int = 12,
    height: int = 8,
    least: float | None = None,
    most: float | None = None,
    mappings: list[ValueMapping] | None = None,
    line_at: tuple[float, str] | None = None,
    stacked: bool = False,
    stepped: bool = False,
    decimals: int | None = None,
    axis: str = "",
    beside: bool = False,
    colours: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Series over time.

    `line_at` draws a threshold and colours what lies above it; `beside` puts the legend there, for many series; `colours` gives all series
    whose name a regular expression finds shades of one colour.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets([*_queries(targets, instant=False)])
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(2 if stepped else 1)
        .line_interpolation(LineInterpolation.STEP_AFTER if stepped else LineInterpolation.LINEAR)
        .fill_opacity(30 if stacked else 0)
        .show_points(VisibilityMode.NEVER)
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.RIGHT if beside else LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull"])
            .sort_by("Last *")
            .sort_desc(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if line_at is not None:
        value, colour = line_at
        panel = panel.thresholds(steps((None, "transparent"), (value, colour))).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED_AND_AREA)
        )
    panel = panel.min(least) if least is not None else panel
    panel = panel.max(most) if most is not None else panel
    panel = panel.decimals(decimals) if decimals is not None else panel
    panel = panel.axis_label(axis) if axis else panel
    for pattern, colour in (colours or {}).items():
        fixed = {"mode": FieldColorModeId.SHADES.value, "fixedColor": colour}
        panel = panel.override_by_regexp(f"/{pattern}/", [DynamicConfigValue(id_val="color", value=fixed)])
    return panel.mappings(mappings) if mappings else panel


def bars(
    title: str,
    description: str,
    *targets: Target,
    unit: str = "short",
    width: int = 12,
    height: int = 8,
    most: float | None = None,
    decimals: int | None = None,
    thresholds: Sequence[tuple[float | None, str]] = ((None, BLUE),),
) -> bargauge.Panel:
    """One horizontal bar per series."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets([*_queries(targets, instant=True)])
        .unit(unit)
        .span(width)
        .height(height)
        .min(0)
        .thresholds(steps(*thresholds))
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .display_mode(BarGaugeDisplayMode.BASIC)
        .name_placement(BarGaugeNamePlacement.TOP)
        .orientation(VizOrientation.HORIZONTAL)
        .show_unfilled(True)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )
    panel = panel.decimals(decimals) if decimals is not None else panel
    return panel.max(most) if most is not None else panel


class Column(NamedTuple):
    """A column of a table: its name in the data and as it is shown, and what is special about it."""

    name: str
    shown: str
    unit: str = ""
    width: int = 0
    mappings: list[ValueMapping] | None = None
    wraps: bool = False
    link: str = ""
    decimals: int | None = None
    no_value: str = "-"


def rows(
    title: str,
    description: str,
    *targets: Target,
    columns: Sequence[Column],
    hidden: Sequence[str] = (),
    by: Sequence[str] = (),
    width: int = 24,
    height: int = 7,
    no_value: str = "",
    sorted_by: Sequence[tuple[str, bool]] = (),
) -> table.Panel:
    """A table of what holds now, with `columns` in this order and `hidden` left out.

    Several targets are put side by side where all that they share is equal; with `by`, where this one label is.
    `sorted_by` are columns as they are shown, the first counts most, and whether the largest comes first.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets([*_queries(targets, instant=True, rows=True)])
        .unit("none")
        .span(width)
        .height(height)
        .show_header(True)
        .filterable(False)
        .thresholds(steps((None, GREY)))
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
    )
    panel = panel.no_value(no_value) if no_value else panel
    if sorted_by:
        panel = panel.sort_by(
            [common.TableSortByFieldState().display_name(name).desc(down) for name, down in sorted_by]
        )
    if len(targets) > 1:
        how = (
            DataTransformerConfig(id_val="joinByField", options={"byField": by[0], "mode": "outer"})
            if by
            else DataTransformerConfig(id_val="merge", options={})
        )
        panel = panel.with_transformation(how)
    left_out = ["Time", *(f"Time {number + 1}" for number in range(len(targets)) if len(targets) > 1), *hidden]
    panel = panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(left_out, True),
                "indexByName": {column.name: number for number, column in enumerate(columns)},
                "renameByName": {column.name: column.shown for column in columns if column.name != column.shown},
            },
        )
    )
    for column in columns:
        panel = panel.override_by_name(column.shown, _properties(column))
    return panel


def _properties(column: Column) -> list[DynamicConfigValue]:
    found: list[DynamicConfigValue] = []
    if column.unit:
        found.append(DynamicConfigValue(id_val="unit", value=column.unit))
    if column.decimals is not None:
        found.append(DynamicConfigValue(id_val="decimals", value=column.decimals))
    # What the table says when it is empty is not what an empty cell says.
    found.append(DynamicConfigValue(id_val="noValue", value=column.no_value))
    if column.width:
        found.append(DynamicConfigValue(id_val="custom.width", value=column.width))
    if column.mappings is not None:
        found.append(DynamicConfigValue(id_val="mappings", value=column.mappings))
        found.append(
            DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"})
        )
    if column.wraps:
        # Older and newer Grafana look for it in different places.
        found.append(DynamicConfigValue(id_val="custom.cellOptions", value={"type": "auto", "wrapText": True}))
        found.append(DynamicConfigValue(id_val="custom.wrapText", value=True))
    if column.link:
        found.append(DynamicConfigValue(id_val="links", value=[{"title": column.link, "url": LINKS[column.link]}]))
    return found


MODEL_PAGE = "Open the page of this model"
LINKS = {
    MODEL_PAGE: "/d/poisonwatch-model?var-model=${__value.text:percentencode}&${datasource:queryparam}"
    "&${job:queryparam}&${__url_time_range}"
}
