"""The wheel and the environments that the pages are followed in: made once, whatever the number of processes."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.guides.following import ROOT, Environment, follow
from tests.guides.pages import commands
from tests.guides.stand_ins import STAND_INS

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = ("helm",)
"""Programs of the development environment that pages use, and nothing else of it."""

SERVERS = (Path("bentoml", "bin", "bentoml"), Path("mlserver", "bin", "mlserver"))
"""Programs of the servers' environments that pages use, below `.tools`."""


def _run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of this run have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "guides"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def wheels(shared: Path) -> Path:
    """A folder with the wheel of this repository and all that it needs, as pip finds it where pip is told to look."""
    folder = shared / "wheels"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = shared / "draft"
            _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", draft, ROOT)
            (wheel,) = draft.glob("*.whl")
            pip = [sys.executable, "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check", "--no-input"]
            _run(*pip, "download", "--dest", draft, "pip", f"poisonwatch[all] @ {wheel.as_uri()}")
            draft.rename(folder)
    return folder


@pytest.fixture(scope="session")
def installed(shared: Path, wheels: Path) -> Path:
    """A clean virtual environment with `poisonwatch[all]` from the wheel."""
    folder = shared / "installed"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = shared / "installed-draft"
            make_environment(draft, wheels, "pip", "poisonwatch[all]")
            folder.symlink_to(draft)
    return folder


@pytest.fixture(scope="session")
def tools(shared: Path, worker_id: str) -> Path:
    """A folder with links to further programs that pages use: of the development environment, and what Debian's packages gave."""
    folder = shared / f"tools-{worker_id}"
    if folder.exists():
        # A process that waits for its next file has taken its fixtures down.
        return folder
    folder.mkdir()
    for name in OURS:
        (folder / name).symlink_to(Path(sys.executable).parent / name)
    for server in SERVERS:
        (folder / server.name).symlink_to(ROOT / ".tools" / server)
    unpacked = ROOT / ".tools" / "debian" / "usr" / "bin"
    for program in unpacked.iterdir() if unpacked.exists() else ():
        (folder / program.name).symlink_to(program)
    return folder


def make_environment(folder: Path, wheels: Path, *packages: str) -> None:
    """A virtual environment with packages from a folder of wheels. uv makes it in a second, and links instead of copying."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    uv = Path(sys.executable).parent / "uv"
    target = ("--python", folder / "bin" / "python", "--no-index", "--find-links", wheels)
    _run(uv, "pip", "install", "--quiet", "--no-config", *target, *packages)


@pytest.fixture
def follow_page(tmp_path: Path, wheels: Path, installed: Path, tools: Path) -> Callable[[Path], None]:
    """Follow a page. One that installs something itself begins in an environment with nothing but pip."""

    def follow_one(page: Path) -> None:
        environment = installed
        if any("pip install" in block.text and not block.stands_in for block in commands(page)):
            environment = tmp_path / "environment"
            make_environment(environment, wheels, "pip")
        follow(page, tmp_path / "reader", Environment(environment, wheels, tools), STAND_INS)

    return follow_one
