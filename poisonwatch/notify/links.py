"""Where to read on, and where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from poisonwatch.notify.notices import Notice

DASHBOARD = "/d/poisonwatch-model"


def runbook_url(base: str | None, notice: Notice) -> str | None:
    """The page that says what to do, where they are published."""
    return None if base is None else f"{base}/{notice.name}.md"


def dashboard_url(base: str | None, notice: Notice) -> str | None:
    """The picture of the model, where there is a Grafana."""
    shown = {"var-model": notice.model} | ({"var-model_version": notice.model_version} if notice.model_version else {})
    return None if base is None else f"{base}{DASHBOARD}?{urlencode(shown)}"
