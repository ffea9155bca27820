"""What the wheel gives to an environment that has nothing else."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import metadata
from typing import TYPE_CHECKING

import pytest

import poisonwatch
from tests.guides.conftest import make_environment
from tests.guides.following import ROOT
from tests.system.programs import Program, fetch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.system]

CODE = re.compile(r"poisonwatch/([a-z0-9_]+/)*[a-z0-9_]+\.py")
DATA = {
    "poisonwatch/py.typed",
    "poisonwatch/demo/NOTICE.md",
    "poisonwatch/demo/predictions.ndjson.gz",
    "poisonwatch/demo/reference.ndjson.gz",
}
"""What the package needs beside its code: the demo, whose licence asks for its notice."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """The programs of an environment with the wheel and what it requires, without any extra."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    make_environment(folder, wheels, "poisonwatch")
    return folder / "bin"


def _run(*command: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_archives_pass_the_check_of_the_index(built: Path) -> None:
    """Their descriptions can be shown."""
    files = sorted(built.iterdir())
    assert [file.name for file in files] == [
        f"poisonwatch-{poisonwatch.__version__}-py3-none-any.whl",
        f"poisonwatch-{poisonwatch.__version__}.tar.gz",
    ]
    said = _run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files)
    assert said.count("PASSED") == 2


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    """Every module, the demo, and no test."""
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "poisonwatch").rglob("*.py")}
    assert all(CODE.fullmatch(name) for name in modules)
    assert names == modules | DATA


def test_the_source_archive_holds_what_makes_the_wheel(built: Path) -> None:
    """And what its users read."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    others = {name for name in names if not CODE.fullmatch(name)} - DATA
    assert others == {"CHANGELOG.md", "LICENSE", "README.md", "PKG-INFO", "pyproject.toml", ".gitignore"}


def test_the_version_comes_from_one_place(bare: Path) -> None:
    """The command, the module and the metadata say the same."""
    said = {
        _run(bare / "poisonwatch", "version"),
        _run(bare / "poisonwatch", "--version"),
        _run(bare / "python", "-m", "poisonwatch", "version"),
    }
    assert said == {f"poisonwatch {poisonwatch.__version__}\n"}
    asked = "from importlib.metadata import version; print(version('poisonwatch'))"
    assert _run(bare / "python", "-c", asked) == f"{poisonwatch.__version__}\n"


def test_all_is_every_other_extra() -> None:
    """Whoever installs `all` misses nothing."""
    told = metadata("poisonwatch")
    found = [line.partition("; extra == ") for line in told.get_all("Requires-Dist") or () if "extra == " in line]
    by_extra: dict[str, set[str]] = {}
    for package, _, extra in found:
        by_extra.setdefault(extra.strip("'\""), set()).add(package)
    assert by_extra.pop("all") == set().union(*by_extra.values())
    assert by_extra.keys() == {"fit", "kafka", "parquet"}


def test_without_extras_the_agent_runs(bare: Path, tmp_path: Path) -> None:
    """A log is watched and scraped; what an extra is needed for says which."""
    demo = ROOT / "poisonwatch" / "demo"
    lines = gzip.decompress((demo / "predictions.ndjson.gz").read_bytes()).splitlines(keepends=True)[:500]
    (tmp_path / "predictions.ndjson").write_bytes(b"".join(lines))
    said = _run(bare / "poisonwatch", "reference", "build", demo / "reference.ndjson.gz", "--out", tmp_path / "r.json")
    assert "learned from 2400 predictions" in said
    config = {
        "models": [{"name": "sms-spam", "reference": "r.json"}],
        "sources": [{"path": "predictions.ndjson"}],
        "web": {"listen_address": "127.0.0.1:0"},
    }
    (tmp_path / "poisonwatch.yaml").write_text(json.dumps(config))
    program = Program([str(bare / "poisonwatch"), "run", "--config", "poisonwatch.yaml"], tmp_path)
    program.start()
    try:
        address = program.said(r"listening.*\baddress=(\S+)")[1]
        assert "poisonwatch_build_info{" in fetch(f"http://{address}/metrics")
    finally:
        program.close()
    (tmp_path / "log.parquet").write_bytes(b"PAR1")
    command = [str(bare / "poisonwatch"), "replay", "--reference", "r.json", "log.parquet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 65
    assert 'pip install "poisonwatch[parquet]"' in done.stderr


USER = """
from poisonwatch.offline import build_reference, replay

reference = build_reference("trusted.ndjson")
found = replay(["predictions.ndjson"], reference=reference, format={"kind": "kserve"})
for version, told in found.decisions.items():
    reveal_type(version)
    reveal_type(told.decision)
    reveal_type(found.code)
"""


def test_users_have_its_types(bare: Path, tmp_path: Path) -> None:
    """A strict type checker looks at code of a user, who has the wheel alone."""
    (tmp_path / "user.py").write_text(USER)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "/dev/null")
    said = _run(*mypy, "--python-executable", bare / "python", "user.py", folder=tmp_path)
    assert re.findall(r'Revealed type is "([^"]*)"', said) == [
        "str",
        "poisonwatch.types.Action",
        "int",
    ]
