"""How Sphinx builds the site of these pages: `make docs`, into build/site.

The source is the whole repository, so that a link from page to page, or to a file beside the pages, is the same here and where the repository
is read.
"""

from __future__ import annotations

import poisonwatch

project = "poisonwatch"
author = "The poisonwatch authors"
copyright = author  # noqa: A001 - Sphinx calls it so
version = release = poisonwatch.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
root_doc = "docs/index"
include_patterns = ["*.md", "dashboards/*.md", "deploy/**/*.md", "docs/**", "poisonwatch/**/*.md"]
exclude_patterns = [".*", "build", "dist", "tests", "benchmarks", "**/node_modules"]

# Anchors of headings as GitHub makes them.
myst_heading_anchors = 4
# A page begins where its text does; `pygments` knows no console of Prometheus.
autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"poisonwatch {version}"
html_copy_source = False
html_show_copyright = False
