"""The image of `deploy/docker`, really built and really run: buildah and crun do what an engine does with them.

The base is a Debian of debootstrap's and the wheels lie in a folder, both made by `.ci/image-tools`, so that a build needs no
network and has none. A container runs by crun, an OCI runtime, from the image's own configuration: user, command, variables.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.system.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PLACE = ROOT / ".tools" / "image"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
STATE = "/var/lib/poisonwatch"
"""The one place in a container that can be written to, and the image's volume."""

_PIP = "[global]\nno-index = true\nfind-links = /wheels\n"
_HIDDEN = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware")
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def why_not() -> str:
    """Why no image can be built on this machine; empty where one can. That it was not made ready is never a reason."""
    reason = PLACE / "not-here"
    if reason.exists():
        return reason.read_text().strip()
    assert (PLACE / "made-from").exists(), f"{PLACE} is not made: run .ci/image-tools"
    return ""


def _done(*command: str, folder: Path = ROOT) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def buildah(*arguments: str) -> str:
    """What buildah prints."""
    return _done(str(PLACE / "buildah"), *arguments)


def made_from() -> str:
    """A hash of all that goes into the image: another one is another image."""
    found = hashlib.sha256((PLACE / "made-from").read_bytes())
    files = [ROOT / name for name in (".dockerignore", "pyproject.toml", "README.md", "LICENSE")]
    for folder in (ROOT / "poisonwatch", ROOT / "deploy" / "docker"):
        files += sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    for path in files:
        found.update(f"{path.relative_to(ROOT)}\n{path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def build(name: str, **arguments: str) -> None:
    """Build the image as the Dockerfile says, with build arguments, under a name.

    `docker` is the form of image that has a health check; the network is one without anything in it.
    """
    secret = PLACE / "pip.conf"
    secret.write_text(_PIP)
    given = {"BASE": "localhost/base", **arguments}
    options = [f"--build-arg={key}={text}" for key, text in given.items()]
    _done(
        *("unshare", "--net", str(PLACE / "buildah"), "build", "--quiet", "--isolation=chroot", "--pull-never"),
        *("--format=docker", f"--signature-policy={PLACE / 'policy.json'}", f"--volume={PLACE / 'wheels'}:/wheels:ro"),
        *(f"--secret=id=pip,src={secret}", f"--tag=localhost/{name}", f"--file={DOCKERFILE}", *options, str(ROOT)),
    )


@contextmanager
def turn() -> Iterator[None]:
    """One builds at a time, whatever the number of processes."""
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def built(version: str) -> Image:
    """The image of this checkout, built once. Those of other states of it are thrown away."""
    name = f"poisonwatch:{made_from()}"
    with turn():
        if f"localhost/{name}" not in buildah("images", "--format={{.Name}}:{{.Tag}}").split():
            discard("poisonwatch")
            build(name, VERSION=version)
        return unpacked(name)


def discard(repository: str) -> None:
    """Throw away all images of a name, and what was unpacked of them."""
    for image in buildah("images", "--format={{.Name}}:{{.Tag}}").split():
        if image.startswith(f"localhost/{repository}:"):
            buildah("rmi", "--force", image)


def unpacked(name: str) -> Image:
    """An image with its files, unpacked once to look at and once to run: a runtime makes the folders that it mounts on."""
    described = json.loads(buildah("inspect", "--type=image", f"localhost/{name}"))
    return Image(_files(name, "look"), _files(name, "run"), described["Docker"]["config"])


def _files(name: str, purpose: str) -> Path:
    container = f"{name.replace(':', '-')}-{purpose}"
    if container not in buildah("containers", "--format={{.ContainerName}}").split():
        buildah("from", "--quiet", "--pull-never", f"--name={container}", f"localhost/{name}")
    return Path(buildah("mount", container).strip())


@dataclass(frozen=True)
class Image:
    """An image: a folder with its files, one more to run it from, and its configuration as `docker inspect` has it."""

    files: Path
    runs: Path
    config: dict[str, Any]

    @property
    def health_check(self) -> list[str]:
        """The command that says whether a container is well; it needs no shell."""
        kind: str
        command: list[str]
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return command


@dataclass
class Container:
    """A container of an image, in `folder`: read-only but for its volumes, without capabilities, with pids of its own.

    `volumes` are folders by their place in the container, `writable` those of them that can be written to. With a network of its
    own (a loopback alone) nothing outside can be reached by it, nor it from outside.
    """

    image: Image
    folder: Path
    name: str
    volumes: Mapping[str, Path]
    writable: Sequence[str] = (STATE,)
    arguments: Sequence[str] = ()
    user: str = ""
    workdir: str = ""
    own_network: bool = True
    laid_out: bool = False
    """Whether it is one that runs already, and is only asked for by its name."""
    crun: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Lay out what the runtime reads."""
        self.crun = [str(PLACE / "inside"), "crun", f"--root={self.folder / 'crun'}", "--cgroup-manager=disabled"]
        if not self.laid_out:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.json").write_text(json.dumps(self._specification()))

    def _specification(self) -> dict[str, Any]:
        config = self.image.config
        uid, _, gid = (self.user or config["User"]).partition(":")
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            *(
                {
                    "destination": place,
                    "type": "bind",
                    "source": str(folder),
                    "options": ["rbind", "nosuid", "nodev", "rw" if place in self.writable else "ro"],
                }
                for place, folder in self.volumes.items()
            ),
        ]
        namespaces = ["pid", "ipc", "uts", "mount", *(["network"] if self.own_network else [])]
        return {
            "ociVersion": "1.0.0",
            "process": {
                "terminal": False,
                "user": {"uid": int(uid), "gid": int(gid or 0)},
                "args": [*config["Entrypoint"], *(self.arguments or config["Cmd"])],
                "env": config["Env"],
                "cwd": self.workdir or config["WorkingDir"],
                "noNewPrivileges": True,
                "capabilities": {},
            },
            "root": {"path": str(self.image.runs), "readonly": True},
            "hostname": self.name,
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": kind} for kind in namespaces],
                "maskedPaths": _HIDDEN,
                "readonlyPaths": _READ_ONLY,
            },
        }

    def command(self) -> list[str]:
        """What runs it until it ends, with its output and its exit code."""
        return [*self.crun, "run", f"--bundle={self.folder}", self.name]

    def pid(self) -> int:
        """Its first process, as the system counts."""
        found: int = json.loads(_done(*self.crun, "state", self.name))["pid"]
        return found

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its user."""
        user = self.user or self.image.config["User"]
        whole = [*self.crun, "exec", f"--user={user}", self.name, *command]
        return subprocess.run(whole, capture_output=True, text=True, check=False)

    def stop(self) -> None:
        """Send the signal that the image asks for."""
        _done(*self.crun, "kill", self.name, self.image.config["StopSignal"].removeprefix("SIG"))

    def fetch(self, url: str) -> str:
        """The body of a page, asked for from outside, in the container's network: as Prometheus asks a pod."""
        ask = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=30).read().decode())"
        return _done("nsenter", f"--net=/proc/{self.pid()}/ns/net", sys.executable, "-c", ask, url)
