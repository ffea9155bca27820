# ruff: noqa: INP001 - Sphinx runs this file, nobody imports it
"""How Sphinx builds the site of these pages: `make docs`, into build/site.

The source is the whole repository, so that a link from page to page, or to a file beside the pages, is the same here and where the repository
is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

import poisonwatch

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "poisonwatch"
author = "The poisonwatch authors"
version = release = poisonwatch.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
root_doc = "docs/index"
include_patterns = ["*.md", "dashboards/*.md", "deploy/**/*.md", "docs/**", "poisonwatch/**/*.md"]
exclude_patterns = [".*", "build", "dist", "tests", "benchmarks", "**/node_modules"]

# Anchors of headings as GitHub makes them.
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Types that the functions for notebooks speak of and that have no page of their own: the library's, and the standard library's.
nitpick_ignore_regex = [
    (r"py:class", r"(poisonwatch\.[\w.]+|os\.PathLike|Log|Reference|Signature|\w+Answer|\w+Config)"),
    (r"py:exc", r"\w+Error"),
]

html_theme = "furo"
html_title = f"poisonwatch {version}"
html_copy_source = False
html_show_copyright = False


class FolderLinks(SphinxPostTransform):
    """A link to a folder leads to its README; one without a README is on the site only a name."""

    # Before MyST resolves links, and warns of those that are no file.
    default_priority = 8

    def run(self, **_: Any) -> None:
        """Replace such links of one page."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link["reftype"] != "myst":
                continue
            folder = (here / link["reftarget"]).resolve()
            if not folder.is_dir():
                continue
            words = nodes.inline("", "", *link.children)
            page = str((folder / "README").relative_to(self.env.srcdir))
            if page in self.env.all_docs:
                link.replace_self(make_refnode(self.app.builder, self.env.docname, page, None, words))
            else:
                link.replace_self(words)


def setup(app: Sphinx) -> None:
    """Add what this file defines to Sphinx."""
    app.add_post_transform(FolderLinks)
