"""The expressions of a dashboard: where they stand, with Grafana's variables filled in, and what is in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import promql_parser
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

Json = dict[str, Any]

RATE_INTERVAL = "61s"
"""Stands for `$__rate_interval` where an expression is only parsed; no expression says it by itself."""
RANGE = "3607s"
"""The same for `$__range`."""

PARSED = {
    "__rate_interval": RATE_INTERVAL,
    "__range": RANGE,
    "__interval": "17s",
    "job": ".+",
    "instance": ".+",
    "model": "m",
    "model_version": ".+",
}


class Expression(NamedTuple):
    """One expression: the dashboard, the panel or whatever else it stands in, its letter, and its text."""

    page: str
    place: str
    letter: str
    text: str
    instant: bool = False
    interval: str = ""


class Selected(NamedTuple):
    """A selector in an expression: metric, matchers by label as (operator, value), its range, and the functions around it, the nearest first."""

    metric: str
    matchers: Mapping[str, tuple[str, str]]
    range: timedelta | None
    inside: tuple[str, ...]


def panels(page: Json) -> Iterator[Json]:
    """Every panel that shows something: no rows."""
    for panel in page.get("panels", []):
        if panel["type"] == "row":
            yield from panels(panel)
        else:
            yield panel


def expressions(page: Json) -> Iterator[Expression]:
    """Every expression of the panels and of the marks on them."""
    for panel in panels(page):
        for target in panel.get("targets", []):
            yield Expression(
                page["uid"],
                panel.get("title", "?"),
                target["refId"],
                target["expr"],
                target.get("instant", False),
                panel.get("interval", ""),
            )
    for mark in page["annotations"]["list"]:
        yield Expression(page["uid"], mark["name"], "", mark["expr"], interval=mark["step"])


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with `$name` and `${name}` replaced; a variable without a value stays."""
    return re.sub(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))", lambda found: values.get(found[1] or found[2], found[0]), text)


def selected(text: str) -> list[Selected]:
    """Every selector of an expression.

    Raises:
        ValueError: when it is not PromQL.
    """
    return list(_walk(promql_parser.parse(filled(text, PARSED)), ()))


def _walk(node: Any, inside: tuple[str, ...]) -> Iterator[Selected]:
    if isinstance(node, VectorSelector):
        yield _selected(node, None, inside)
    elif isinstance(node, MatrixSelector):
        yield _selected(node.vector_selector, node.range, inside)
    elif isinstance(node, Call):
        for argument in node.args:
            yield from _walk(argument, (node.func.name, *inside))
    elif isinstance(node, BinaryExpr):
        yield from _walk(node.lhs, inside)
        yield from _walk(node.rhs, inside)
    elif isinstance(node, AggregateExpr | ParenExpr | UnaryExpr | SubqueryExpr):
        yield from _walk(node.expr, inside)


def _selected(node: VectorSelector, spans: timedelta | None, inside: tuple[str, ...]) -> Selected:
    operators = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
    matchers = {
        matcher.name: (operators[str(matcher.op).removeprefix("MatchOp.")], matcher.value)
        for matcher in node.matchers.matchers
    }
    return Selected(node.name or "", matchers, spans, inside)
