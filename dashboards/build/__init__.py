"""The dashboards as typed code: `python -m dashboards.build` writes them as JSON that Grafana imports and provisions as is."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.build import agent, model, overview

PAGES = {"overview.json": overview.page, "model.json": model.page, "agent.json": agent.page}


def files() -> dict[str, str]:
    """Every dashboard: name of its file and what stands in it."""
    return {name: JSONEncoder(indent=2).encode(_finished(page().build())) + "\n" for name, page in PAGES.items()}


def reread(page: dict[str, Any]) -> dict[str, Any]:
    """A dashboard as it is after it was read by Grafana's schema, which drops what it does not know, and written again."""
    register_default_plugins()
    again: dict[str, Any] = json.loads(JSONEncoder().encode(_with_links_in_sight(Dashboard.from_json(page))))
    return again


def _finished(page: Dashboard) -> Dashboard:
    """What the builders leave open: the numbers of panels, by which a link points at one."""
    for number, panel in enumerate(page.panels or (), start=1):
        panel.id_val = number
    return _with_links_in_sight(page)


def _with_links_in_sight(page: Dashboard) -> Dashboard:
    """The SDK knows one place for links, a menu of the newest Grafana; without any they stand above the panels, as ever."""
    for link in page.links or ():
        link.placement = None  # type: ignore[assignment]
    return page
