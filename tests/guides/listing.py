"""The pages of the repository."""

from __future__ import annotations

from tests.guides.following import ROOT

PAGES = sorted(
    str(page.relative_to(ROOT))
    for place in ("*.md", "dashboards/*.md", "deploy/**/*.md", "docs/**/*.md", "poisonwatch/**/*.md")
    for page in ROOT.glob(place)
)
"""Every page, as its path from the root."""

_WITH_COMMANDS = [page for page in PAGES if "```sh" in (ROOT / page).read_text("utf-8")]
QUICKSTARTS = [page for page in _WITH_COMMANDS if page.startswith(("docs/quickstarts/", "docs/install/"))]
"""Pages with commands that lead from nothing to a running agent."""
FOLLOWED = [page for page in _WITH_COMMANDS if page not in QUICKSTARTS]
"""All others with commands. Two files of tests, so that two processes can share them."""
