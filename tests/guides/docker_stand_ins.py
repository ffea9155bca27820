"""What stands in for a container engine: a `docker` in front on PATH, which builds by buildah and runs by crun."""

from __future__ import annotations

import sys
from shlex import quote
from typing import TYPE_CHECKING

import pytest

from tests.deploy.engine import why_not
from tests.guides.following import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def docker(text: str, folder: Path) -> str:
    """The same commands, with our `docker`. The page cannot be followed where containers cannot be run."""
    if reason := why_not():
        pytest.skip(f"no container can be run on this machine: {reason}")
    containers = folder.parent / "containers"
    containers.mkdir(exist_ok=True)
    program = containers / "docker"
    program.write_text(
        f"#!/bin/sh\nCONTAINERS={quote(str(containers))} PYTHONPATH={quote(str(ROOT))} exec {quote(sys.executable)} "
        f'-m tests.guides.docker_program "$@"\n',
        "utf-8",
    )
    program.chmod(0o755)
    return f'PATH={quote(str(containers))}:"$PATH"\n{text}'
