"""The image: what it is made from is pinned, it is built, twice the same, and run as an engine runs it; and it is small."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from poisonwatch import __version__
from tests.deploy.engine import DOCKERFILE, STATE, Container, Image, build, built, discard, turn, unpacked, why_not
from tests.system.programs import ROOT, Program, demo_lines, series_of, shipped_reference, total, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKER = DOCKERFILE.parent
USER = 65532
LOGS = "/var/log/sms-spam"
LINES = 3000
"""At least so many are logged before a container starts."""

CONFIG = f"""\
models:
  - name: sms-spam
    reference: reference.json
sources:
  - path: {LOGS}/predictions.ndjson
detection:
  quiet_seconds: 5
state:
  checkpoint: {STATE}/checkpoint
  journal: {STATE}/journal.jsonl
  dead_letter: {STATE}/dead.jsonl
"""
PAGE = ROOT / "docs" / "install" / "container.md"


# ------------------------------------------------------------------ what it is made from


def _pins(lock: Path) -> dict[str, str]:
    """What a lock pins: each line with its marker, and its hashes."""
    text = re.sub(r"\n? *#.*", "", lock.read_text())
    found = {}
    for entry in re.findall(r"^(\S.*?)((?: \\\n +--hash=\S+)+)$", text, re.MULTILINE):
        found[entry[0].strip()] = " ".join(sorted(re.findall(r"sha256:\w+", entry[1])))
    assert len(found) == len(re.findall(r"^\S+==", text, re.MULTILINE)), f"{lock} has lines without hashes"
    return found


def _needed(wanted: list[str]) -> set[str]:
    """All packages that come with these, by what those in this environment say they need."""
    found: set[str] = set()
    todo = [(Requirement(text), "") for text in wanted]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for one in ("", *requirement.extras):
            if (name, one) not in seen:
                seen.add((name, one))
                todo += [(Requirement(text), one) for text in requires(name) or []]
    return found


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("kafka.lock", ["poisonwatch[kafka]"]),
        ("all.lock", ["poisonwatch[all]"]),
        ("build.lock", [(DOCKER / "build.in").read_text().strip()]),
    ],
)
def test_locks_are_in_step(lock: str, wanted: list[str]) -> None:
    """Each pins all that it is for and nothing else, by the versions and hashes that the tests run with, from no particular place."""
    pins = _pins(DOCKER / lock)
    mine = {name for pin in pins if (name := _applies(pin))}
    assert mine == _needed(wanted) - {"poisonwatch"}, "run `make lock`"
    tested = _pins(ROOT / "requirements-dev.lock")
    for pin, hashes in pins.items():
        assert tested.get(pin) == hashes, f"{pin}: run `make lock`"
    assert "://" not in (DOCKER / lock).read_text()


def _applies(pin: str) -> str:
    """The name that a line of a lock pins here; empty where it is for another Python."""
    requirement = Requirement(pin)
    return canonicalize_name(requirement.name) if requirement.marker is None or requirement.marker.evaluate() else ""


def test_build_lock_is_for_our_build_system() -> None:
    """What builds the wheel in the image is what pyproject.toml asks for."""
    text = (ROOT / "pyproject.toml").read_text()
    (asked,) = re.findall(r'^requires = \["(.*)"\]$', text, re.MULTILINE)
    assert (DOCKER / "build.in").read_text().strip() == asked


def test_hadolint_has_nothing_to_say() -> None:
    """The linter of Dockerfiles finds no fault, and none is hushed up."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "hadolint ignore" not in DOCKERFILE.read_text()


def test_hadolint_would_notice(tmp_path: Path) -> None:
    """The linter fails on what is no good practice."""
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.read_text().replace("ARG BASE=python:3.13-slim", "ARG BASE\nFROM python:latest"))
    hadolint = Path(sys.executable).with_name("hadolint")
    assert subprocess.run([hadolint, str(bad)], capture_output=True, check=False).returncode == 1


# ------------------------------------------------------------------ the image


@pytest.fixture(scope="module")
def image() -> Image:
    """The image of this checkout."""
    if reason := why_not():
        pytest.skip(f"no image can be built and run on this machine: {reason}")
    return built(__version__)


def _entries(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """Everything in an image: mode, owner, time of change, and a link's target or a file's hash, by path."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        content = (
            str(path.readlink())
            if path.is_symlink()
            else hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else ""
        )
        changed = 0 if path.is_dir() and not path.is_symlink() else int(about.st_mtime)
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_uid, changed, content)
    return found


@pytest.mark.system
@pytest.mark.slow
def test_image_says_how_it_is_run(image: Image) -> None:
    """User, signal, volume, port and command are those that the guides and manifests rely on, and the version is the package's."""
    config = image.config
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == [STATE]
    assert list(config["ExposedPorts"]) == ["9787/tcp"]
    assert config["Entrypoint"] == ["/opt/poisonwatch/bin/poisonwatch"]
    assert config["Cmd"] == ["run", "--config", "/etc/poisonwatch/poisonwatch.yaml"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.system
@pytest.mark.slow
def test_image_has_nothing_that_need_not_be_there(image: Image) -> None:
    """One program: the interpreter. No shell, no installer, nothing that makes anyone root, nothing but the state that its user can write."""
    entries = _entries(image.files)
    programs = [
        path
        for path, (mode, _, _, _) in entries.items()
        if stat.S_ISREG(mode) and mode & 0o111 and (image.files / path).read_bytes()[:4] == b"\x7fELF"
    ]
    version = re.search(r"python3\.\d+", " ".join(programs))
    assert version is not None
    assert [path for path in programs if ".so" not in path] == [f"usr/bin/{version[0]}"]
    assert not [path for path in entries if re.search(r"(^|/)(pip|ensurepip|bin/(dpkg|apt|busybox|(ba|da)?sh))$", path)]
    assert not [path for path, (mode, _, _, _) in entries.items() if mode & (stat.S_ISUID | stat.S_ISGID)]
    owned = [path for path, (_, uid, _, _) in entries.items() if uid != 0]
    assert owned == [STATE.lstrip("/")]
    others = [path for path, (mode, _, _, _) in entries.items() if mode & stat.S_IWOTH and not stat.S_ISLNK(mode)]
    assert others == ["tmp"]
    # Bytecode is there for every module that has any, since none can be written.
    site = next(image.files.glob("opt/poisonwatch/lib/python*/site-packages/poisonwatch"))
    assert len([*site.rglob("*.pyc")]) == len([*site.rglob("*.py")]) > 50
    # A scanner finds what came from Debian's packages, and the licences are with it.
    for name in ("libc6", "libssl3"):
        assert (image.files / "var/lib/dpkg/status.d" / name).read_text().startswith(f"Package: {name}\n")
        assert (image.files / "usr/share/doc" / name / "copyright").is_file()


@pytest.mark.system
@pytest.mark.slow
def test_page_says_the_size(image: Image) -> None:
    """The guide's figure is that of the image, to within a twentieth."""
    size = sum(path.lstat().st_size for path in image.files.rglob("*") if not path.is_dir()) / 1e6
    said = re.search(r"takes (\d+) MB on disk", PAGE.read_text())
    assert said is not None
    assert size == pytest.approx(float(said[1]), rel=0.05)


def test_compose_is_the_same_container() -> None:
    """The page's example for Compose says what its `docker run` says."""
    text = PAGE.read_text()
    (block,) = re.findall(r"```yaml\n(services:.*?)```", text, re.DOTALL)
    document = YAML(typ="safe").load(block)
    service = document["services"]["poisonwatch"]
    commands = re.findall(r"^docker run --rm --name (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace("$PWD", "."))
        given = [(words[place], words[place + 1]) for place in range(len(words) - 1)]
        assert ("--cap-drop", *service["cap_drop"]) in given
        assert ("--security-opt", *service["security_opt"]) in given
        assert ("--memory", service["mem_limit"]) in given
        assert [after for flag, after in given if flag == "-p"] == service["ports"]
        assert [after for flag, after in given if flag == "-v"] == service["volumes"]
        assert service["read_only"] == ("--read-only" in words)
        assert words[-1] == service["image"] == f"poisonwatch:{__version__}"
    assert list(document["volumes"]) == ["poisonwatch-state"]


@pytest.mark.system
@pytest.mark.slow
def test_image_is_the_same_when_built_again(image: Image) -> None:
    """A second build, later, gives every file with the same content, mode, owner and time."""
    try:
        with turn():
            build("again:again", VERSION=__version__)
            again = unpacked("again:again")
        mine, theirs = _entries(again.files), _entries(image.files)
        assert {path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path)} == set()
        # A name that the builder draws, and that no engine uses.
        assert again.config | {"Hostname": ""} == image.config | {"Hostname": ""}
    finally:
        with turn():
            discard("again")


# ------------------------------------------------------------------ a container


@cache
def logged() -> tuple[list[bytes], list[bytes]]:
    """The shipped log in two parts; no window has records of both, so nothing of the second is late."""
    lines = sorted(demo_lines(time.time() - 300), key=_minute)
    cut = next(place for place in range(LINES, len(lines)) if _minute(lines[place]) != _minute(lines[place - 1]))
    return lines[:cut], lines[cut : cut + LINES]


def _minute(line: bytes) -> str:
    timestamp: str = json.loads(line)["timestamp"]
    return timestamp[:16]


class Running:
    """A container beside a server that appends to a log."""

    def __init__(self, image: Image, folder: Path) -> None:
        """Lay out a configuration, a log and a volume."""
        self.folder = folder
        for name in ("config", "logs", "state"):
            (folder / name).mkdir()
        (folder / "config" / "reference.json").write_bytes(shipped_reference())
        (folder / "config" / "poisonwatch.yaml").write_text(CONFIG)
        self.log = folder / "logs" / "predictions.ndjson"
        self.state = folder / "state"
        os.chown(self.state, USER, USER)
        volumes = {"/etc/poisonwatch": folder / "config", LOGS: folder / "logs", STATE: self.state}
        self.container = Container(image, folder / "bundle", f"poisonwatch-{os.getpid()}", volumes)

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.program = Program(self.container.command(), self.folder)
        self.program.start()
        self.program.said(r"listening.*\baddress=127\.0\.0\.1:9787")

    def counted(self, lines: int) -> dict[str, float]:
        """Lines and predictions as the metrics count them, once there are so many predictions."""

        def look() -> dict[str, float] | None:
            series = series_of(self.container.fetch("http://127.0.0.1:9787/metrics"))
            found = {
                name: total(series, f"poisonwatch_{name}_total") for name in ("lines", "predictions", "lines_rejected")
            }
            return found if found["predictions"] >= lines else None

        counted: dict[str, float] = wait_for(f"{lines} predictions", look, lambda: "\n".join(self.program.output))
        return counted

    def healthy(self) -> bool:
        """What the health check of the image says."""
        done = self.container.exec(*self.container.image.health_check)
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode == 0

    def stop(self) -> int:
        """Stop it as an engine does: the exit code."""
        self.container.stop()
        return self.program.ends()

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.program.process.poll() is None:
            with suppress(AssertionError, ProcessLookupError):
                os.kill(self.container.pid(), signal.SIGKILL)
            self.program.close()


@pytest.fixture
def running(image: Image, tmp_path: Path) -> Iterator[Running]:
    """A container that has been started beside a log of some lines."""
    found = Running(image, tmp_path)
    found.log.write_bytes(b"".join(logged()[0]))
    found.start()
    yield found
    found.close()


@pytest.mark.system
@pytest.mark.slow
def test_container_counts_what_was_logged(running: Running) -> None:
    """All that a server wrote shows in the metrics once, also after a stop by SIGTERM, which leaves a checkpoint, and another start."""
    first, second = map(len, logged())
    assert running.counted(first) == {"lines": first, "predictions": first, "lines_rejected": 0}
    before = time.time()
    assert running.stop() == 0
    assert running.state.joinpath("checkpoint").stat().st_mtime >= before - 1
    with running.log.open("ab") as log:
        log.write(b"".join(logged()[1]))
    running.start()
    both = first + second
    assert running.counted(both) == {"lines": both, "predictions": both, "lines_rejected": 0}


@pytest.mark.system
@pytest.mark.slow
def test_container_is_confined(running: Running) -> None:
    """Its process is 65532 without capabilities and cannot gain any; nothing but the volume can be written, not even by root."""
    process = Path("/proc") / str(running.container.pid())
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    mounts = {line.split()[4]: line.split()[5].split(",") for line in (process / "mountinfo").read_text().splitlines()}
    writable = {place for place, options in mounts.items() if "rw" in options}
    assert writable == {STATE, "/dev", "/proc"} & set(mounts) | {
        place for place in writable if place.startswith("/proc/")
    }
    script = "import sys\ntry: open(sys.argv[1], 'w')\nexcept OSError as error: sys.exit(error.errno)"
    python = "/opt/poisonwatch/bin/python"
    for place in ("/", "/etc/poisonwatch/", "/opt/poisonwatch/", "/tmp/", LOGS + "/"):  # noqa: S108
        assert running.container.exec(python, "-c", script, f"{place}new").returncode == 30, place  # EROFS
    assert running.container.exec(python, "-c", script, f"{STATE}/new").returncode == 0
    assert running.container.exec("/bin/sh", "-c", "true").returncode != 0


@pytest.mark.system
@pytest.mark.slow
def test_health_check_tells(running: Running) -> None:
    """An agent that runs is healthy, one that stands still is not, and is again once it goes on; the decision is no matter of health."""
    assert running.healthy()
    pid = running.container.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not running.healthy()
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("healthy again", running.healthy)
    told = json.loads(running.container.exec("/opt/poisonwatch/bin/poisonwatch", "decision", "--json").stdout)
    assert isinstance(told, list)
