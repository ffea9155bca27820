"""The little of `docker` that the guides use, done by what really builds and runs containers here; all else is refused."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from poisonwatch import __version__
from tests.deploy.engine import DOCKERFILE, Container, built
from tests.system.programs import ROOT


def main() -> int:
    """Do what is asked: the exit code."""
    parser = argparse.ArgumentParser("docker", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, dest="command")
    build = commands.add_parser("build")
    build.add_argument("-f", dest="file", required=True)
    build.add_argument("--build-arg", action="append", default=[])
    build.add_argument("-t", dest="tag", required=True)
    build.add_argument("context")
    run = commands.add_parser("run")
    for flag in ("--rm", "--read-only"):
        run.add_argument(flag, action="store_true", required=True)
    run.add_argument("--name", default="unnamed")
    run.add_argument("--network", choices=["none"])
    run.add_argument("--user", default="")
    run.add_argument("--cap-drop", choices=["ALL"])
    run.add_argument("--security-opt", choices=["no-new-privileges"])
    run.add_argument("--memory")
    run.add_argument("-p", dest="port")
    run.add_argument("-v", dest="volumes", action="append", default=[])
    run.add_argument("-w", dest="workdir", default="")
    run.add_argument("image")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    for name in ("exec", "stop", "inspect"):
        one = commands.add_parser(name)
        if name == "stop":
            one.add_argument("--time", type=int)
        if name == "inspect":
            one.add_argument("--format", choices=["{{.State.Health.Status}}"], required=True)
        one.add_argument("name")
        if name == "exec":
            one.add_argument("arguments", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    return {"build": _build, "run": _run, "exec": _exec, "stop": _stop, "inspect": _inspect}[asked.command](asked)


def _folder() -> Path:
    return Path(os.environ["CONTAINERS"])


def _called(name: str) -> str:
    """What the runtime calls a container: two readers may use the same name."""
    return f"{name}-{_folder().stat().st_ino}"


def _build(asked: argparse.Namespace) -> int:
    """Build this checkout's image, which is what the page's reader has a clone of."""
    assert (ROOT / asked.file).resolve() == DOCKERFILE
    assert asked.context == "."
    assert asked.build_arg == [f"VERSION={__version__}"]
    assert asked.tag == f"poisonwatch:{__version__}"
    built(__version__)
    return 0


def _container(asked: argparse.Namespace) -> Container:
    assert asked.image == f"poisonwatch:{__version__}"
    volumes, writable = {}, []
    for volume in asked.volumes:
        source, place, *mode = volume.split(":")
        assert mode in ([], ["ro"]), volume
        folder = Path(source)
        if not folder.is_absolute():
            folder = _folder() / "volumes" / source
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, 65532, 65532)
        assert folder.is_dir(), f"{folder} is not there"
        volumes[place] = folder
        if not mode:
            writable.append(place)
    if asked.port:
        # The container is in the network of its reader, who has one of their own.
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", asked.port), asked.port
    return Container(
        built(__version__),
        _folder() / asked.name,
        _called(asked.name),
        volumes,
        writable,
        asked.arguments,
        asked.user,
        asked.workdir,
        own_network=asked.network == "none",
    )


def _run(asked: argparse.Namespace) -> int:
    container = _container(asked)
    with subprocess.Popen(container.command(), start_new_session=True) as process:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: container.stop())
        return process.wait()


def _named(asked: argparse.Namespace) -> Container:
    """The container that runs by that name."""
    return Container(built(__version__), _folder() / asked.name, _called(asked.name), {}, laid_out=True)


def _exec(asked: argparse.Namespace) -> int:
    done = _named(asked).exec(*asked.arguments)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def _stop(asked: argparse.Namespace) -> int:
    _named(asked).stop()
    return 0


def _inspect(asked: argparse.Namespace) -> int:
    container = _named(asked)
    well = container.exec(*container.image.health_check).returncode == 0
    sys.stdout.write("healthy\n" if well else "unhealthy\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
