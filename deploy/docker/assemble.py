# ruff: noqa: INP001 - a program of the Dockerfile's, and in no package
"""Lays out the root file system of the image: what poisonwatch needs to run, and nothing else; no shell, no package manager.

The Dockerfile runs this in its build stage, in which poisonwatch is installed in a virtual environment. Into OUT go three
folders, each of which becomes a layer, so that a new release of poisonwatch is a small download:

- `system`: the interpreter, its standard library, the shared libraries that it and the packages load, certificates, time zones
- `packages`: the virtual environment without poisonwatch
- `poisonwatch`: poisonwatch itself
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

USER = 65532
NAME = "poisonwatch"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ZONES = Path("/usr/share/zoneinfo")

# Of the standard library: what is for tests, for a terminal or for a screen, and what installs. The libraries that only
# these load stay out with them.
UNUSED = re.compile(
    r"(?:__pycache__|test|tests|idle_test|idlelib|tkinter|turtledemo|turtle\.py|ensurepip|lib2to3|pydoc_data|config-.*"
    r"|site-packages|dist-packages"
    r"|(?:_tkinter|_curses|_curses_panel|readline|_dbm|_gdbm|_test\w*|_ctypes_test|_xxtestfuzz|xxlimited\w*)\..*\.so)"
)
# Of packages: their own tests, which nothing imports (SciPy's and NumPy's builds can leave them out, too); and the half of
# zstandard that wants a package cffi, which is not here.
LEFT_OUT = ("numpy/**/tests", "scipy/**/tests", "zstandard/*cffi*")


def fail(message: str) -> None:
    """End the build with a reason."""
    sys.exit(f"assemble: {message}")


def place(out: Path, path: Path) -> Path:
    """Where an absolute path lies below `out`."""
    return out / path.relative_to("/")


def copy(path: Path, out: Path) -> None:
    """Copy a file with every link that leads to it, also where a folder on the way is one (`/lib` to `usr/lib`)."""
    real = path.parent.resolve() / path.name
    for folder in reversed(path.parents):
        if folder.is_symlink():
            link(folder, out)
    target = place(out, real)
    target.parent.mkdir(parents=True, exist_ok=True)
    if real.is_symlink():
        link(real, out)
        copy(real.parent / real.readlink(), out)
    elif not target.exists():
        shutil.copy(real, target)


def link(path: Path, out: Path) -> None:
    """Copy a symbolic link as such."""
    target = place(out, path.parent.resolve() / path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        target.symlink_to(path.readlink())


def libraries(files: Collection[Path]) -> set[Path]:
    """The shared libraries of the system that these files load, by what the loader itself finds; also the loader.

    Raises:
        SystemExit: when one is missing.
    """
    found: set[Path] = set()
    names = sorted(map(str, files))
    for first in range(0, len(names), 100):
        done = subprocess.run(["ldd", *names[first : first + 100]], capture_output=True, text=True, check=False)  # noqa: S603, S607
        # A wheel brings libraries that find each other once they are loaded.
        if missing := set(re.findall(r"(\S+) => not found", done.stdout)) - {path.name for path in files}:
            fail(
                f"{', '.join(sorted(missing))}: not in the base, and a package needs it: install it in the build stage"
            )
        found.update(map(Path, re.findall(r"(?:=> |^\t)(/\S+) \(0x", done.stdout, re.MULTILINE)))
    return found


def shared(folder: Path) -> Iterator[Path]:
    """Every shared object below a folder."""
    return (path for path in folder.rglob("*.so*") if path.is_file())


def copy_python(out: Path) -> None:
    """The interpreter by all its names, and the part of its library that a service can use."""
    library = Path(sysconfig.get_path("stdlib"))

    def unused(_folder: str, names: list[str]) -> set[str]:
        return {name for name in names if UNUSED.fullmatch(name)}

    # Links into other folders (Debian's sitecustomize.py) become files.
    shutil.copytree(library, place(out, library.resolve()), ignore=unused, ignore_dangling_symlinks=True)
    base = Path(sys.base_prefix) / "bin" / "python3"
    copy(base if base.exists() else Path(os.path.realpath(sys.executable)), out)


def check_version(environment: Path, asked: str) -> None:
    """Refuse a version that is not the package's; none is asked for where it is empty."""
    (found,) = environment.glob(f"lib/python*/site-packages/{NAME}-*.dist-info")
    version = found.name.removeprefix(f"{NAME}-").removesuffix(".dist-info")
    if asked not in {"", version}:
        fail(f"this is {NAME} {version}, and the build argument VERSION says {asked}")


def copy_packages(environment: Path, out: Path) -> None:
    """The virtual environment in two parts: poisonwatch, and all others without their tests."""
    site = next(environment.glob("lib/python*/site-packages"))
    ours = {site / NAME, *site.glob(f"{NAME}-*.dist-info"), environment / "bin" / NAME}
    scripts = {path for path in (environment / "bin").iterdir() if not path.name.startswith("python")}
    without = ours | scripts | {path for pattern in LEFT_OUT for path in site.glob(pattern)}

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if Path(folder, name) in without}

    shutil.copytree(environment, place(out / "packages", environment), symlinks=True, ignore=left_out)
    for path in ours:
        target = place(out / NAME, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copy(path, target)


def copy_surroundings(out: Path) -> None:
    """Certificates, time zones, the names of the user and of hosts."""
    if not CERTIFICATES.exists() or not ZONES.is_dir():
        fail(f"the base has no {CERTIFICATES} or no {ZONES}: install ca-certificates and tzdata in the build stage")
    copy(CERTIFICATES, out)
    # The other two are the same zones again, counted otherwise.
    shutil.copytree(ZONES, place(out, ZONES), symlinks=True, ignore=shutil.ignore_patterns("posix", "right"))
    etc = out / "etc"
    home = f"/var/lib/{NAME}"
    (etc / "passwd").write_text(
        f"root:x:0:0:root:/:/nonexistent\n{NAME}:x:{USER}:{USER}:{NAME}:{home}:/nonexistent\n", encoding="utf-8"
    )
    (etc / "group").write_text(f"root:x:0:\n{NAME}:x:{USER}:\n", encoding="utf-8")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n", encoding="utf-8")
    (etc / NAME).mkdir()
    # For a tmpfs, if anyone wants one: poisonwatch writes nothing there.
    (out / "tmp").mkdir()


def copy_loader_cache(out: Path) -> None:
    """Where the loader finds what lies in no usual folder, such as the library of a Python in /usr/local."""
    for path in (Path("/etc/ld.so.conf"), *sorted(Path("/etc/ld.so.conf.d").glob("*.conf"))):
        if path.exists():
            copy(path, out)
    if shutil.which("ldconfig"):
        subprocess.run(["ldconfig", "-r", str(out)], check=True)  # noqa: S603, S607
        # It has inode numbers in it, which no two builds share.
        shutil.rmtree(out / "var" / "cache", ignore_errors=True)


def note_debian_packages(out: Path) -> None:
    """What Debian packages are in here, with their licences: scanners read this where there is no dpkg."""
    status = Path("/var/lib/dpkg/status")
    if not status.exists():
        return
    stanzas = {
        found[1]: stanza + "\n"
        for stanza in status.read_text(encoding="utf-8").split("\n\n")
        if (found := re.search(r"^Package: (\S+)", stanza, re.MULTILINE))
    }
    have = {"/" + str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()}
    notes = out / "var" / "lib" / "dpkg" / "status.d"
    notes.mkdir(parents=True)
    for listed in sorted(Path("/var/lib/dpkg/info").glob("*.list")):
        name = listed.stem.partition(":")[0]
        paths = listed.read_text(encoding="utf-8").splitlines()
        # The list may say /lib where the file lies in /usr/lib.
        if not have.intersection(paths + ["/usr" + path for path in paths]):
            continue
        (notes / name).write_text(stanzas[name], encoding="utf-8")
        licence = Path("/usr/share/doc") / name / "copyright"
        if licence.exists():
            copy(licence, out)


def compile_all(out: Path) -> None:
    """Bytecode for every module, as nothing can be written at run time; the same whenever it is made.

    It is never compared with the source, whose time of change is that of the build.
    """
    for part in ("system", "packages", NAME):
        folder = out / part
        done = compileall.compile_dir(
            folder,
            maxlevels=64,
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            stripdir=str(folder),
            prependdir="/",
        )
        if not done and part == NAME:
            fail("poisonwatch does not compile")


def set_times(out: Path, seconds: int) -> None:
    """One time of change for everything, that two builds give the same layers."""
    for path in out.rglob("*"):
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def main(environment: Path, out: Path, version: str) -> None:
    """Lay out everything below `out` from a virtual environment with poisonwatch in this version."""
    check_version(environment, version)
    system = out / "system"
    system.mkdir(parents=True)
    copy_python(system)
    copy_packages(environment, out)
    objects = [*shared(system), *shared(out / "packages"), Path(os.path.realpath(sys.executable))]
    for path in sorted(libraries(objects)):
        if not path.is_relative_to(environment) and not path.is_relative_to(out):
            copy(path, system)
    copy_surroundings(system)
    copy_loader_cache(system)
    note_debian_packages(system)
    compile_all(out)
    (out / "state").mkdir(mode=0o750)
    (system / "tmp").chmod(0o1777)
    set_times(out, int(os.environ.get("SOURCE_DATE_EPOCH") or 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
