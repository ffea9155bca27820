"""The pages of the repository."""

from __future__ import annotations

from tests.guides.following import ROOT

PAGES = sorted(
    str(page.relative_to(ROOT))
    for place in ("*.md", "dashboards/*.md", "deploy/**/*.md", "docs/**/*.md", "poisonwatch/**/*.md")
    for page in ROOT.glob(place)
)
"""Every page, as its path from the root."""
