"""`systemctl` where systemd does not run: starts and stops the one service of a host below a folder, as its unit says.

python -m tests.guides.system_control ROOT COMMAND [--now] [SERVICE]
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.deploy.units import run, settings
from tests.guides.following import ROOT

PATIENCE = 120.0


class Host:
    """A host whose root is a folder."""

    def __init__(self, root: Path) -> None:
        """Take the folder."""
        self.root = root
        self.unit = root / "etc" / "systemd" / "system" / "poisonwatch.service"
        self._pid = root / "run" / "pid"
        self._log = root / "run" / "log"

    def reload(self) -> None:
        """Look at the unit and its drop-ins: systemd would know each of their lines."""
        drop_ins = [
            line for file in self.unit.parent.glob("poisonwatch.service.d/*.conf") for line in [file.read_text()]
        ]
        with TemporaryDirectory() as folder:
            whole = Path(folder) / self.unit.name
            whole.write_text(self._here(self.unit.read_text()) + "\n" + "\n".join(drop_ins))
            done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", whole)
        wrong = [line for line in done.stderr.splitlines() if "poisonwatch" in line and "not executable" not in line]
        assert not wrong, wrong

    def process(self) -> int | None:
        """The running service's, if one runs."""
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            process = int(self._pid.read_text())
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return process
        return None

    def start(self) -> None:
        """Start it within its walls, and come back when it is ready or has ended."""
        if self.process() is not None:
            return
        told = settings(self.unit)
        (self.root / "var" / "lib" / told["StateDirectory"][-1]).mkdir(
            int(told["StateDirectoryMode"][-1], 8), exist_ok=True
        )
        words = self._here(told["ExecStart"][-1]).split()
        with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(f"{folder}/notify")
            heard.settimeout(0.1)
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": f"{folder}/notify"}
            with self._log.open("ab") as log:
                agent = subprocess.Popen(
                    [sys.executable, "-m", "tests.deploy.units", str(self.unit), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd="/",
                )
            self._pid.write_text(str(agent.pid))
            deadline = time.monotonic() + PATIENCE
            while agent.poll() is None and time.monotonic() < deadline:
                with suppress(TimeoutError):
                    if heard.recv(4096) == b"READY=1":
                        # It lives on when this program has ended; so nobody is to warn of it.
                        agent.returncode = 0
                        return
        sys.exit(f"Job for poisonwatch.service failed ({agent.poll()}).\n{self._log.read_text()}")

    def stop(self) -> None:
        """End it, and come back when it has."""
        process = self.process()
        if process is None:
            return
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while self.process() is not None:
            assert time.monotonic() < deadline, "it does not stop"
            time.sleep(0.02)

    def _here(self, text: str) -> str:
        return re.sub(r"(?<![\w./-])/(etc|opt|var)/", rf"{self.root}/\1/", text)


def main() -> None:
    """Do what `systemctl` is told."""
    root, command, *others = sys.argv[1:]
    host = Host(Path(root))
    assert command == "daemon-reload" or others[-1] == "poisonwatch", others
    if command == "daemon-reload":
        host.reload()
    elif command in {"start", "enable"}:
        host.start()
    elif command == "stop":
        host.stop()
    elif command == "restart":
        host.stop()
        host.start()
    elif command == "is-active":
        print("inactive" if host.process() is None else "active")  # noqa: T201 - it is what is asked
        sys.exit(0 if host.process() is not None else 3)
    else:
        sys.exit(f"nothing stands in for systemctl {command}")


if __name__ == "__main__":
    main()
