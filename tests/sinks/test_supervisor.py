"""What a supervisor hears of an agent: a real datagram socket, as systemd's is, and the real program."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from poisonwatch.sinks.supervisor import Supervisor
from tests.system.programs import PATIENCE, Sidecar, demo_lines, fetch, poisonwatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A socket that takes datagrams, for as long as the block lasts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(PATIENCE)
        yield heard


def waiting(heard: socket.socket) -> list[bytes]:
    """All datagrams that have come and were not read."""
    heard.setblocking(False)
    found = []
    while True:
        try:
            found.append(heard.recv(4096))
        except BlockingIOError:
            heard.settimeout(PATIENCE)
            return found


def test_ready_once_then_alive_in_time(tmp_path: Path) -> None:
    """The first turn says ready, later ones that it lives, no oftener than the watchdog wants and often enough for it."""
    path = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    with listening(path) as heard:
        supervisor = Supervisor(environment)
        assert environment == {"HOME": "/"}
        assert waiting(heard) == []
        began = time.monotonic()
        while time.monotonic() - began < 0.65:
            supervisor.turned()
        turned = waiting(heard)
        assert turned[0] == b"READY=1"
        # Four for each time of the watchdog, fewer on a machine that is busy elsewhere.
        assert 1 <= turned[1:].count(b"WATCHDOG=1") == len(turned) - 1 <= 7
        supervisor.stopping()
        assert waiting(heard) == [b"STOPPING=1"]


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "never"}])
def test_no_watchdog_is_fed_that_is_not_ours(tmp_path: Path, watchdog: dict[str, str]) -> None:
    """Without a watchdog, with another process' or one that makes no sense, there is nothing to say but that it is ready."""
    path = str(tmp_path / "notify")
    with listening(path) as heard:
        supervisor = Supervisor({"NOTIFY_SOCKET": path, **watchdog})
        for _ in range(100):
            supervisor.turned()
        assert waiting(heard) == [b"READY=1"]


def test_an_abstract_name(tmp_path: Path) -> None:
    """A name that begins with @ has no file; systemd may use one."""
    name = f"poisonwatch-{os.getpid()}"
    with listening(f"\0{name}") as heard:
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}).turned()
        assert waiting(heard) == [b"READY=1"]


def test_nobody_listens_yet(tmp_path: Path) -> None:
    """What was not heard is said again with the next turn, and costs the agent nothing."""
    path = str(tmp_path / "notify")
    supervisor = Supervisor({"NOTIFY_SOCKET": path})
    supervisor.turned()
    with listening(path) as heard:
        supervisor.turned()
        supervisor.turned()
        assert waiting(heard) == [b"READY=1"]
    supervisor.stopping()


@pytest.mark.system
def test_the_agent_is_ready_when_it_answers_and_silent_when_its_loop_hangs(tmp_path: Path) -> None:
    """READY=1 comes when it answers with its state; WATCHDOG=1 while the loop turns, whatever else lives; STOPPING=1 at its end.

    The loop hangs as it may in life: whoever takes its log lines has stopped taking them.
    """
    path = str(tmp_path / "notify")
    sidecar = Sidecar(tmp_path)
    environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
    lines, theirs = os.pipe()
    with listening(path) as heard:
        agent = subprocess.Popen(
            poisonwatch("run", "--config", "config.yaml"), cwd=tmp_path, stderr=theirs, env=environment
        )
        try:
            assert heard.recv(4096) == b"READY=1"
            found = re.search(rb"listening.*\baddress=(\S+)", os.read(lines, 65_536))
            assert found is not None
            sidecar.address = found[1].decode()
            assert sidecar.series()
            assert heard.recv(4096) == b"WATCHDOG=1"
            fill(theirs)
            sidecar.append(demo_lines(time.time())[:2000])
            assert falls_silent(heard)
            # The rest of it is well, and would hide that it hangs.
            assert fetch(f"http://{sidecar.address}/-/healthy")
            os.close(theirs)
            taking = threading.Thread(target=take, args=(lines,))
            taking.start()
            assert heard.recv(4096) == b"WATCHDOG=1"
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(PATIENCE) == 0
            assert waiting(heard)[-1] == b"STOPPING=1"
            taking.join()
        finally:
            agent.kill()
            agent.wait()


def falls_silent(heard: socket.socket) -> bool:
    """Whether nothing comes any more for ten times as long as between two signs of life."""
    heard.settimeout(1.0)
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            heard.recv(4096)
    except TimeoutError:
        return True
    finally:
        heard.settimeout(PATIENCE)
    return False


def take(pipe: int) -> None:
    """Read a pipe to its end."""
    with os.fdopen(pipe, "rb") as lines:
        lines.read()


def fill(pipe: int) -> None:
    """Leave no room in a pipe; who writes to it waits."""
    # An open file of our own: whether it waits belongs to that, and the agent's shall.
    mine = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(mine, b"x")
    os.close(mine)
