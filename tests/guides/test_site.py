"""The site of the pages builds without a warning: every page is in it, and every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guides.following import ROOT
from tests.guides.listing import PAGES

pytestmark = pytest.mark.slow


def _build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs."""
    (recipe,) = re.findall(r"sphinx-build (.*) build/site", (ROOT / "Makefile").read_text())
    words = recipe.replace("build/doctrees", str(target / "doctrees")).split()
    command = [Path(sys.executable).parent / "sphinx-build", *words, target / "site"]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A page that is in no table of contents is one, and so is a link or an anchor that leads nowhere."""
    done = _build(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    for page in PAGES:
        assert (site / page).with_suffix(".html").exists(), page
    assert "poisonwatch reference build" in re.sub(r"<[^>]*>", "", (site / "docs" / "cli.html").read_text())
    addresses = {
        address
        for page in site.rglob("*.html")
        for address in re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?://[^\"]+)", page.read_text())
    }
    assert not addresses, "a reader's browser asks nobody else"


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("[a page](nowhere.md)", "nowhere.md"),
        ("[a heading](docs/index.md#nowhere)", "nowhere"),
        ("[a file](deploy/nowhere.yaml)", "nowhere.yaml"),
    ],
)
def test_a_link_that_leads_nowhere_stops_the_build(wrong: str, found: str, tmp_path: Path) -> None:
    """A small site with the same configuration."""
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text("# All\n\n```{toctree}\n../README\n```\n")
    (tmp_path / "README.md").write_text(f"# Read me\n\nHere is {wrong}.\n")
    done = _build(tmp_path, tmp_path / "built")
    assert done.returncode != 0
    assert found in done.stderr
