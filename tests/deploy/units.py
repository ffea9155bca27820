"""What a unit of systemd says, and a process confined as it says, where systemd itself does not run.

Of a unit's walls those are put up that can break a program and that a process can put up around itself: the filters of system
calls, the ban on memory that is writable and executable, the families of addresses, umask and limits. They are made as systemd makes
them, by libseccomp. What needs another view of the file system (`ProtectSystem=` and its like) is not.

    python -m tests.deploy.units UNIT COMMAND...        runs a command confined
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.system.programs import ROOT

UNIT = ROOT / "deploy" / "systemd" / "poisonwatch.service"
UNPACKED = ROOT / ".tools" / "debian"

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _AT_LEAST, _MASKED = 4, 5, 7
_NO_NEW_PRIVILEGES = 38
_WRITE, _EXECUTE, _SHARED_EXECUTE = 2, 4, 0o100000
_MOST_FAMILIES = 64


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program that belongs to a system says: systemd's own, logrotate. The system's, or as `.ci/debian-tools` unpacked it."""
    folders = [f"{UNPACKED}/{folder}" for folder in ("usr/bin", "bin", "usr/sbin", "sbin")]
    program = shutil.which(name) or shutil.which(name, path=":".join(folders))
    assert program, f"{name} is neither on PATH nor in {UNPACKED}: run .ci/debian-tools"
    environment = dict(os.environ)
    if Path(program).is_relative_to(UNPACKED):
        libraries = {library.parent for library in UNPACKED.glob("usr/lib/**/*.so.*")}
        libraries |= {library.parent for library in UNPACKED.glob("usr/lib/**/libsystemd-*.so")}
        environment["LD_LIBRARY_PATH"] = ":".join(map(str, sorted(libraries)))
        environment["SYSTEMD_UNIT_PATH"] = str(UNPACKED / "lib" / "systemd" / "system")
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def settings(unit: Path = UNIT, section: str = "Service") -> dict[str, list[str]]:
    """Every value of a section, in their order: a key may come several times."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    here = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif here == section and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return dict(found)


def allowed_calls(told: dict[str, list[str]]) -> set[str]:
    """Names of the system calls that `SystemCallFilter=` lets through: a list, and lists that are taken out of it."""
    first, *others = told["SystemCallFilter"]
    calls = {call for word in first.split() for call in _calls_of(word)}
    for line in others:
        assert line.startswith("~"), line
        calls -= {call for word in line.removeprefix("~").split() for call in _calls_of(word)}
    # systemd lets these through whatever is said: without them no program starts or ends.
    return calls | _calls_of("@default")


def _calls_of(word: str) -> set[str]:
    """The calls of a group, and of the groups in it."""
    if not word.startswith("@"):
        return {word}
    done = run("systemd-analyze", "syscall-filter", word)
    assert done.returncode == 0, done.stderr
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    return {call for one in words if one and not one.startswith("#") for call in _calls_of(one)}


class _Compared(ctypes.Structure):
    """An argument of a call, compared: libseccomp's `struct scmp_arg_cmp`."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Filter:
    """A filter of system calls, made call by call and then put upon this process."""

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._made = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(otherwise)))
        assert self._made.value is not None

    def add(self, action: int, call: str, *compared: tuple[int, int, int, int]) -> None:
        """What becomes of a call with such arguments; one that this machine does not have is passed over."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        arguments = (_Compared * len(compared))(*(_Compared(*one) for one in compared))
        failed = self._library.seccomp_rule_add_array(
            self._made, ctypes.c_uint32(action), number, ctypes.c_uint(len(compared)), arguments
        )
        assert failed == 0, (call, failed)

    def load(self) -> None:
        """From now on it holds, for this process and all that it becomes or starts."""
        failed = self._library.seccomp_load(self._made)
        assert failed == 0, failed


def confine(unit: Path) -> None:
    """Put the walls of a unit around this process."""
    told = settings(unit)
    calls = allowed_calls(told)
    resource.setrlimit(resource.RLIMIT_CORE, (int(told["LimitCORE"][-1]),) * 2)
    os.umask(int(told["UMask"][-1], 8))
    assert told["NoNewPrivileges"] == ["yes"]
    assert ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    filters = []
    if told["MemoryDenyWriteExecute"] == ["yes"]:
        hidden = _Filter(_ALLOW)
        both = _WRITE | _EXECUTE
        hidden.add(_ERRNO | errno.EPERM, "mmap", (2, _MASKED, both, both))
        for call in ("mprotect", "pkey_mprotect"):
            hidden.add(_ERRNO | errno.EPERM, call, (2, _MASKED, _EXECUTE, _EXECUTE))
        hidden.add(_ERRNO | errno.EPERM, "shmat", (2, _MASKED, _SHARED_EXECUTE, _SHARED_EXECUTE))
        filters.append(hidden)
    families = {getattr(socket, name) for name in told["RestrictAddressFamilies"][-1].split()}
    reached = _Filter(_ALLOW)
    for family in set(range(_MOST_FAMILIES)) - families:
        reached.add(_ERRNO | errno.EAFNOSUPPORT, "socket", (0, _EQUAL, family, 0))
    reached.add(_ERRNO | errno.EAFNOSUPPORT, "socket", (0, _AT_LEAST, _MOST_FAMILIES, 0))
    filters.append(reached)
    assert told["SystemCallErrorNumber"] == ["EPERM"]
    called = _Filter(_ERRNO | errno.EPERM)
    for call in calls:
        called.add(_ALLOW, call)
    filters.append(called)
    for one in filters:
        one.load()


def main() -> None:
    """Become a command, confined."""
    unit, *command = sys.argv[1:]
    told = settings(Path(unit))
    os.environ.update(pair.partition("=")[::2] for pair in told.get("Environment", []))
    confine(Path(unit))
    os.execvp(command[0], command)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
