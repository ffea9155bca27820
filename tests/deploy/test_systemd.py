"""The unit for systemd: without mistakes, walled in, and an agent within its walls watches as it does without.

systemd itself is not what starts it here: a test has no right to be the first process of a machine. Its own programs look at the
files, and the walls that can break a program are put around a real agent by `units.py`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from tests.deploy.units import UNIT, run, settings
from tests.system.programs import PATIENCE, Program, Sidecar, demo_lines, fetch, series_of, total, wait_for

if TYPE_CHECKING:
    from pathlib import Path

SYSTEMD = UNIT.parent
EXPOSURE = 9
"""Tenths of a point that `systemd-analyze security` gives: 0.9. Below 2 it calls a service safe; what is left is that it has a network."""


def with_program(folder: Path, text: str) -> Path:
    """The unit with a program that is there: where it is installed is the reader's."""
    unit = folder / "poisonwatch.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    return unit


def test_no_mistake_is_in_it(tmp_path: Path) -> None:
    """Systemd knows every section, key and value."""
    done = run(
        "systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", with_program(tmp_path, UNIT.read_text())
    )
    assert done.returncode == 0, done.stderr
    # What it says of other units, where they are only unpacked, is not about ours.
    assert "poisonwatch" not in done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("WatchdogSec=", "WatchDogSec="), ("2min", "2mim"), ("@system-service", "@sytem-service")],
)
def test_a_mistake_would_be_seen(tmp_path: Path, right: str, wrong: str) -> None:
    """What is misspelt is not passed over."""
    unit = with_program(tmp_path, UNIT.read_text().replace(right, wrong, 1))
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", unit)
    assert done.returncode == 1
    assert wrong.rstrip("=") in done.stderr


def test_how_exposed_it_is(tmp_path: Path) -> None:
    """It has few rights left: systemd's own measure, and a threshold that fails when one wall is taken away."""
    judged = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", UNIT)
    assert judged.returncode == 0, judged.stdout
    assert f"{EXPOSURE / 10} SAFE" in judged.stdout
    weaker = tmp_path / "poisonwatch.service"
    weaker.write_text(UNIT.read_text().replace("PrivateMounts=yes\n", ""))
    assert run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", weaker).returncode == 1


def test_user_and_folders(tmp_path: Path) -> None:
    """Systemd's own programs make the user and the folder of the configuration, which the user can read and nobody else."""
    (tmp_path / "etc" / "poisonwatch" / "references").mkdir(parents=True)
    key = tmp_path / "etc" / "poisonwatch" / "tls.key"
    key.write_text("")
    key.chmod(0o644)
    done = run("systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "poisonwatch.sysusers.conf")
    assert done.returncode == 0, done.stderr
    user = (tmp_path / "etc" / "passwd").read_text().split(":")
    assert user[0] == settings()["User"][-1] == settings()["Group"][-1] == "poisonwatch"
    assert user[5] == f"/var/lib/{settings()['StateDirectory'][-1]}"
    if os.getuid() != 0:
        # Files of another user are made by root alone; what is written wrongly is seen all the same.
        done = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", SYSTEMD / "poisonwatch.tmpfiles.conf")
        assert "poisonwatch.conf:" not in done.stderr
        return
    done = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", SYSTEMD / "poisonwatch.tmpfiles.conf")
    assert (done.returncode, done.stderr) == (0, "")
    for path, mode in ((key.parent, 0o750), (key.parent / "references", 0o750), (key, 0o640)):
        found = path.stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, 0, int(user[3])), path


WALLS = """
import mmap, os, socket, sys
def refused(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "allowed"
print(refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)))
print(refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)))
print(refused(lambda: os.chroot("/")))
print(refused(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5)))
print(refused(lambda: socket.socket().close()))
"""


def confined(*command: str, variables: tuple[str, ...] = ()) -> list[str]:
    """A command within the walls of the unit."""
    return ["env", *variables, sys.executable, "-m", "tests.deploy.units", str(UNIT), *command]


@pytest.mark.system
def test_the_walls_stand() -> None:
    """What the next test puts around the agent is really there: code in writable memory, other families and calls are refused."""
    program = Program(confined(sys.executable, "-c", WALLS), UNIT.parents[2])
    program.start()
    try:
        assert program.ends() == 0, program.output
    finally:
        program.close()
    no = "Operation not permitted"
    assert program.output == [no, "Address family not supported by protocol", no, no, "allowed"]


@pytest.mark.system
@pytest.mark.slow
def test_an_agent_watches_within_them(tmp_path: Path) -> None:
    """As the unit starts it: it says that it is ready, reads a log, takes a POST, judges, saves, and stops with 0."""
    notify = tmp_path / "notify"
    sidecar = Sidecar(tmp_path)
    sidecar.configure()
    config = tmp_path / "config.yaml"
    pushed = "sources:\n  - kind: http\n    path: /v1/predictions\n"
    text = config.read_text().replace("sources:\n", pushed).replace("state:\n", "state:\n  spool: state/spool\n")
    config.write_text(text)
    lines = demo_lines(time.time())
    (tmp_path / "predictions.ndjson").write_bytes(b"".join(lines[:2000]))
    program, *arguments = settings()["ExecStart"][-1].split()
    assert program.endswith("/bin/poisonwatch")
    arguments = [str(config) if word.startswith("/etc/") else word for word in arguments]
    variables = (f"NOTIFY_SOCKET={notify}", "WATCHDOG_USEC=400000")
    command = confined(sys.executable, "-m", "poisonwatch", *arguments, variables=variables)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(notify))
        heard.settimeout(PATIENCE)
        agent = Program(command, UNIT.parents[2])
        agent.start()
        try:
            assert heard.recv(4096) == b"READY=1"
            address = agent.said(r"listening.*\baddress=(\S+)")[1]
            request = Request(f"http://{address}/v1/predictions", b"".join(lines[2000:2500]))
            with urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                assert answer.status == 200
            wait_for(
                "all lines are read",
                lambda: total(series_of(fetch(f"http://{address}/metrics")), "poisonwatch_records_total") == 2500,
                lambda: "\n".join(agent.output),
            )
            assert heard.recv(4096) == b"WATCHDOG=1"
            assert agent.ends(signal.SIGTERM) == 0, agent.output
        finally:
            agent.close()
    assert not [line for line in agent.output if "level=warning" in line or "level=error" in line]
    for written in ("agent.checkpoint", "journal.jsonl"):
        # As UMask= says: nobody else reads what was in the records.
        assert (tmp_path / "state" / written).stat().st_mode & 0o077 == 0


@pytest.mark.system
def test_it_is_not_started_again_in_vain(tmp_path: Path) -> None:
    """What only a person can mend ends with a code that the unit does not try again after; a crash does not."""
    final = {int(code) for code in settings()["RestartPreventExitStatus"][-1].split()}
    wrong = tmp_path / "config.yaml"
    wrong.write_text("models: []\nsurces: []\n")
    codes = set()
    for arguments in (("run", "--config", str(wrong)), ("run", "--no-such-option")):
        program = Program(confined(sys.executable, "-m", "poisonwatch", *arguments), UNIT.parents[2])
        program.start()
        codes.add(program.ends())
    assert codes == final == {64, 65}
    assert settings()["Restart"] == ["on-failure"]
