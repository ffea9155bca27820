"""A reader who types what a page says, word for word: one shell, other terminals, an environment of their own, and no network."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.guides.pages import Block, commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

ROOT = Path(__file__).parents[2]
PORT = 9787
"""Where pages let the agent listen."""
PATIENCE = 300.0
"""Seconds after which a block is called hanging: a bound, not a measure of speed."""
REPEATED = 60.0
"""Seconds for which a block is typed again."""

StandIn = "Callable[[str, Path], str | None]"
"""Gets the text of a block and the reader's folder; returns the commands to type instead, or None when it has done all itself."""

_ENDED_WELL = {0, *(code for number in (signal.SIGINT, signal.SIGTERM) for code in (-number, 128 + number))}
_DRIVER = r"""
set -euo pipefail
exec 3<&0 4>&1 </dev/null
while read -r -u 3 _how _script _output; do
    if [ "$_how" = again ]; then
        ( . "$_script" ) >"$_output" 2>&1 </dev/null 3<&- 4>&- &
        if wait $!; then echo 0 >&4; else echo $? >&4; fi
    else
        . "$_script" >"$_output" 2>&1 </dev/null 3<&- 4>&-
        echo 0 >&4
    fi
done
"""
# Not every system has `ip`. The ioctl is SIOCSIFFLAGS, the flags are IFF_UP and IFF_RUNNING.
_HOLD_NETWORK = """
import fcntl, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 0x1 | 0x40))
print("up", flush=True)
sys.stdin.read()
"""


class NotFollowableError(Exception):
    """A page whose commands do not do what it says; the message has all that was typed and printed."""


@contextmanager
def own_network() -> Iterator[list[str]]:
    """Words to put before a command, so that it runs in a network with nothing but a loopback of its own.

    Then two pages may use the same port at once, and what a page needs from the network shows. Where the system gives nobody a network
    of their own, pages take turns instead.
    """
    ways = [
        (["unshare", "--net"], ["nsenter", "--net=/proc/{}/ns/net", "--"]),
        (
            ["unshare", "--map-root-user", "--net"],
            ["nsenter", "--target={}", "--user", "--net", "--preserve-credentials", "--"],
        ),
    ]
    for make, enter in ways:
        if shutil.which(make[0]) is None or shutil.which(enter[0]) is None:
            break
        with subprocess.Popen(
            [*make, sys.executable, "-c", _HOLD_NETWORK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            try:
                if holder.stdout.readline() == b"up\n":
                    yield [word.format(holder.pid) for word in enter]
                    return
            finally:
                holder.stdin.close()
    with (Path(tempfile.gettempdir()) / f"poisonwatch-pages-{os.getuid()}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                msg = f"something listens on 127.0.0.1:{PORT} already: end it, since the pages start their agent there"
                raise NotFollowableError(msg)
        yield []


class Environment:
    """Where a reader works: a virtual environment first on PATH, a home of their own, and pip that finds wheels in a folder only."""

    def __init__(self, environment: Path, wheels: Path, tools: Path) -> None:
        """Take the virtual environment, the wheels that can be installed, and a folder with further programs."""
        self.environment = environment
        self.wheels = wheels
        self._tools = tools

    def variables(self, home: Path) -> dict[str, str]:
        """All variables of the shell; nothing of the one that runs the tests but where the system's programs are."""
        system = [part for part in os.environ["PATH"].split(os.pathsep) if part != str(Path(sys.executable).parent)]
        return {
            "PATH": os.pathsep.join([str(self.environment / "bin"), *system, str(self._tools)]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_COMPILE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }


class Reader:
    """One who follows one page."""

    def __init__(self, folder: Path, environment: Environment, enter: list[str]) -> None:
        """Begin in an empty folder below `folder`, with the words that lead into a network."""
        self.folder = folder / "here"
        self._notes = folder / "notes"
        home = folder / "home"
        for made in (self.folder, self._notes, home):
            made.mkdir(parents=True)
        self._variables = environment.variables(home)
        self._enter = enter
        self._typed: list[tuple[str, Path]] = []
        self._terminals: dict[str, tuple[subprocess.Popen[bytes], Block, Path]] = {}
        driver = self._notes / "driver.sh"
        driver.write_text(_DRIVER)
        self._shell = self._start(["bash", str(driver)], subprocess.PIPE, subprocess.PIPE)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything that was started."""
        for process, _, _ in self._terminals.values():
            _end(process)
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.close()
        _end(self._shell)
        self._shell.stdout.close()

    def _start(self, command: list[str], taken: int, given: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._enter, *command],
            cwd=self.folder,
            env=self._variables,
            stdin=taken,
            stdout=given,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def type(self, block: Block, text: str) -> None:
        """Type the commands of a block, or what stands in for them.

        Raises:
            NotFollowableError: when a command fails, or prints something else than the page says.
        """
        script = self._notes / f"line-{block.line}.sh"
        script.write_text(text)
        output = script.with_suffix(".out")
        where = f"line {block.line}" + (f", in terminal {block.terminal}" if block.terminal else "")
        self._typed.append((f"--- {where}\n{text}--- printed", output))
        if block.terminal:
            self._type_elsewhere(block, script, output)
        elif block.repeated:
            deadline = time.monotonic() + REPEATED
            while (code := self._ask("again", block, script, output)) or not block.is_printed(_read(output)):
                if time.monotonic() > deadline:
                    self._fail(block, f"ends with {code}" if code else "prints something else than the page says")
                self._look_at_terminals()
                time.sleep(0.2)
        else:
            code = self._ask("once", block, script, output)
            if code:
                self._fail(block, f"ends with {code}")
            if not block.is_printed(_read(output)):
                self._fail(block, "prints something else than the page says")
        self._look_at_terminals()

    def _type_elsewhere(self, block: Block, script: Path, output: Path) -> None:
        """Leave a block running; what it shall print, it prints soon."""
        running = self._terminals.pop(block.terminal, None)
        if running is not None:
            self._check_ended(*running[:2], _end(running[0]))
        with output.open("wb") as printed:
            command = ["bash", "-euo", "pipefail", str(script)]
            process = self._start(command, subprocess.DEVNULL, printed.fileno())
        self._terminals[block.terminal] = (process, block, output)
        deadline = time.monotonic() + REPEATED
        while not block.is_printed(_read(output)):
            if process.poll() is not None or time.monotonic() > deadline:
                self._fail(block, "prints something else than the page says")
            time.sleep(0.1)

    def _ask(self, how: str, block: Block, script: Path, output: Path) -> int:
        """Have the shell take a script: its exit code."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        output.touch()
        self._shell.stdin.write(f"{how} {script} {output}\n".encode())
        self._shell.stdin.flush()
        ready, _, _ = select.select([self._shell.stdout], [], [], PATIENCE)
        if not ready:
            self._fail(block, f"is not done after {PATIENCE:.0f} s")
        answer = self._shell.stdout.readline()
        if answer:
            return int(answer)
        # A failing command ends the shell, and `exit 0` does too: neither lets a reader go on.
        code = self._shell.wait(PATIENCE)
        if code == 0:
            self._fail(block, "closes the reader's shell")
        return code

    def _look_at_terminals(self) -> None:
        """What was started in other terminals is still running, or ended well."""
        for process, block, _ in self._terminals.values():
            code = process.poll()
            if code is not None:
                self._check_ended(process, block, code)

    def _check_ended(self, process: subprocess.Popen[bytes], block: Block, code: int) -> None:
        if code not in _ENDED_WELL:
            self._fail(block, f"ends with {code} in its terminal (process {process.pid})")

    def _fail(self, block: Block, why: str) -> None:
        told = "\n".join(f"{typed}\n{_read(output)}" for typed, output in self._typed)
        msg = f"line {block.line}: {why}\n{told}"
        raise NotFollowableError(msg)


def _read(output: Path) -> str:
    return output.read_text("utf-8", "replace") if output.exists() else ""


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a process and all that it started in its group, as Ctrl-C does and then less gently: its exit code."""
    for number, patience in ((signal.SIGINT, 20.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, PATIENCE)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    # Whoever is left of the group has outlived its leader.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait(PATIENCE)


def follow(
    page: Path,
    folder: Path,
    environment: Environment,
    stand_ins: Mapping[str, Callable[[str, Path], str | None]],
    root: Path = ROOT,
) -> None:
    """Follow a page from its first command to its last.

    Raises:
        PageError: when the page is not written as `pages.py` says.
        NotFollowableError: when it does not do what it says.
    """
    blocks = commands(page)
    for block in blocks:
        if block.stands_in and block.stands_in not in stand_ins:
            msg = f"line {block.line}: stand_ins.py has no {block.stands_in!r}; it has {', '.join(sorted(stand_ins))}"
            raise NotFollowableError(msg)
    with own_network() as enter, Reader(folder, environment, enter) as reader:
        # What a page in deploy/ speaks of lies beside it.
        if page.is_relative_to(root / "deploy"):
            _copy(page.parent, reader.folder)
        for given in dict.fromkeys(path for block in blocks for path in block.given):
            _copy(root / given, reader.folder / given)
        for block in blocks:
            text: str | None = block.text
            if block.stands_in:
                text = stand_ins[block.stands_in](block.text, reader.folder)
            if text is not None:
                reader.type(block, text)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder of the repository."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
