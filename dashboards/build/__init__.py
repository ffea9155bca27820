"""The dashboards as typed code: `python -m dashboards.build` writes them as JSON that Grafana imports and provisions as is."""

from __future__ import annotations

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.build import agent, model, overview

PAGES = {"overview.json": overview.page, "model.json": model.page, "agent.json": agent.page}


def files() -> dict[str, str]:
    """Every dashboard: name of its file and what stands in it."""
    return {name: JSONEncoder(indent=2).encode(page().build()) + "\n" for name, page in PAGES.items()}
