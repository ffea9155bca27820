"""What is done here instead of commands that need what a test has not: a cluster, a cloud, a system to install into.

Each function is named by the comment `<!-- stands in: NAME -->` above a block. It gets the block's text and the reader's folder, checks that
the text says what it should (a path that it names exists, a target of the Makefile is there), and returns the commands to type instead, or
None when it has brought about the same by itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.guides.cloud_stand_ins import aws, databricks
from tests.guides.following import ROOT
from tests.guides.kubernetes_stand_ins import kubectl, kubernetes_files, kubernetes_log, kubernetes_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_demo(text: str, folder: Path) -> str:
    """The README's targets of make: each is in the Makefile. The demo is played to its end instead of for two minutes and on."""
    used = re.findall(r"^make (\S+)", text, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert used
    assert set(used) <= targets, set(used) - targets
    assert "poisonwatch demo" in (ROOT / "Makefile").read_text()
    return "poisonwatch demo --speed 600 --exit-at-end\n"


STAND_INS: dict[str, Callable[[str, Path], str | None]] = {
    "make_demo": make_demo,
    "aws": aws,
    "databricks": databricks,
    "kubectl": kubectl,
    "kubernetes_files": kubernetes_files,
    "kubernetes_log": kubernetes_log,
    "kubernetes_port": kubernetes_port,
}
