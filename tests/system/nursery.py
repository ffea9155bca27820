"""Starts agents within milliseconds: a process that has imported all of poisonwatch and forks one at each command.

As a module it is that process; `Nursery` is how a test talks to it. What runs is the program itself, `poisonwatch run`,
without the rights by which root may write what is read-only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Self


def main() -> None:
    """Fork an agent for every line of arguments, tell its number, and tell how it ended."""
    # What every child then has; a test imports this module for another reason.
    cli: Any = import_module("poisonwatch.cli")
    for name in ("agent", "assemble", "server.thread"):
        import_module(f"poisonwatch.{name}")

    for line in sys.stdin:
        child = os.fork()
        if not child:
            _give_up_rights()
            sys.argv = ["poisonwatch", *line.rstrip("\n").split("\t")]
            sys.stdin.close()
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            code = 70
            try:
                cli.main()
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)  # noqa: T201 - the other end of the pipe reads it
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def _give_up_rights() -> None:
    """Drop all capabilities: also for root a file is then what its permissions say."""
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    failed = ctypes.CDLL(None, use_errno=True).capset(version_3, none)
    assert not failed, os.strerror(ctypes.get_errno())


@dataclass
class Nursery:
    """Starts one agent at a time in `folder`; its output goes to `agents.log` there."""

    folder: Path
    _process: subprocess.Popen[bytes] | None = None
    child: int = 0
    ends: list[int] = field(default_factory=list)

    def __enter__(self) -> Self:
        with (self.folder / "agents.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.system.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.child:
            self.kill()
        process = self._running
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait(30)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the nursery is not open"
        return self._process

    def start(self, arguments: Sequence[str]) -> int:
        """Start `poisonwatch` with these arguments; its process number."""
        process = self._running
        assert not self.child
        assert process.stdin is not None
        process.stdin.write("\t".join(arguments).encode() + b"\n")
        process.stdin.flush()
        self.child = int(self._said())
        return self.child

    def kill(self) -> int:
        """End it as a crash does; how it ended (-9, or its own exit code)."""
        with suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        return self.ended()

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        os.kill(self.child, signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; its exit code, or minus the signal."""
        self.ends.append(int(self._said()))
        self.child = 0
        return self.ends[-1]

    def _said(self) -> str:
        process = self._running
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        assert said, (self.folder / "agents.log").read_text()[-4000:]
        return said

    def told(self) -> Iterator[str]:
        """What the agents have said."""
        yield from (self.folder / "agents.log").read_text().splitlines()


if __name__ == "__main__":
    main()
