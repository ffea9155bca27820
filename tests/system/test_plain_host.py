"""A plain host as its owner sets it up: a real inference server that logs by the quickstart's three lines, the agent as the page says.

Everything of `docs/quickstarts/any-server.md` is typed word for word; but where it starts its little server, BentoML is started in two
workers, with the page's three lines in it. Then clients ask under load, real logrotate moves the log away by the shipped example, and the
agent is stopped, started, killed and started again: what it has counted in the end is what the clients saw.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.deploy.test_logrotate import example
from tests.deploy.units import run
from tests.guides.conftest import installed, shared, tools, wheels
from tests.guides.following import PORT, Environment, Reader, own_network
from tests.guides.pages import Block, commands
from tests.system.programs import ROOT, Program, Series, series_of, total, wait_for
from tests.system.servers import plain_host

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["installed", "shared", "tools", "wheels"]

pytestmark = [pytest.mark.system, pytest.mark.slow]

PAGE = ROOT / "docs" / "quickstarts" / "any-server.md"
SERVER = 8080
ASKED = 4000


class PlainHost:
    """Who sets up a host by the page, and afterwards keeps it running."""

    def __init__(self, folder: Path, environment: Environment, enter: list[str]) -> None:
        self.enter = enter
        self.environment = environment
        self.reader = Reader(folder, environment, enter)
        self.folder = self.reader.folder
        self.programs: list[Program] = []
        self.started: Block | None = None

    def close(self) -> None:
        """End all that was started."""
        for program in self.programs:
            if program.process.poll() is None:
                program.process.send_signal(signal.SIGTERM)
        for program in self.programs:
            program.ends()
        self.reader.__exit__(None, None, None)

    def type(self, block: Block) -> None:
        """Type a block, its server being BentoML; programs in other terminals are kept at hand."""
        if block.terminal == "server":
            assert block.text == "python server.py\n"
            server = self.begin(plain_host(PAGE, SERVER, self.folder, self.enter))
            for worker in (1, 2):
                server.said(rf":{worker}\] Service Loans initialized")
        elif block.terminal == "agent":
            self.started = block
            self.start_agent()
        else:
            self.reader.type(block, block.text)

    def begin(self, program: Program) -> Program:
        """Start a program that ends with the host."""
        program.start()
        self.programs.append(program)
        return program

    def start_agent(self) -> None:
        """Type the page's command again, in the agent's terminal."""
        assert self.started is not None
        variables = [f"{name}={value}" for name, value in self.environment.variables(self.folder).items()]
        command = [*self.enter, "env", "-i", *variables, *shlex.split(self.started.text)]
        self.agent = self.begin(Program(command, self.folder))
        self.agent.said("listening")

    def series(self) -> Series:
        """The metrics as they stand, through the page's own network; none while no loop has turned."""
        curl = Program([*self.enter, "curl", "-fsS", f"http://127.0.0.1:{PORT}/metrics"], self.folder)
        curl.start()
        assert curl.ends() == 0, self.told()
        return series_of("\n".join(curl.output) + "\n")

    def told(self) -> str:
        """What all programs wrote, for a failing test."""
        return "\n--\n".join("\n".join(program.output[-30:]) for program in self.programs)

    def judged(self, count: int) -> dict[str, float]:
        """Wait until so many predictions are judged, or more: how many of each class."""

        def look() -> dict[str, float] | None:
            found = {
                dict(labels)["class"]: number
                for (name, labels), number in self.series().items()
                if name == "poisonwatch_predictions_total" and number
            }
            return found if sum(found.values()) >= count else None

        classes: dict[str, float] = wait_for(
            f"{count} predictions judged", look, lambda: f"{self.series()}{self.told()}"
        )
        return classes


def test_counts_are_what_the_clients_saw(installed: Path, wheels: Path, tools: Path, tmp_path: Path) -> None:
    """Rotations, an upgrade and a kill under load: every answer is counted under its class, once."""
    log = "predictions.ndjson"
    with own_network() as enter:
        host = PlainHost(tmp_path, Environment(installed, wheels, tools), enter)
        try:
            for block in commands(PAGE):
                host.type(block)
            # The page's own: so that it has an answer within seconds, nothing may be late. Under load on a busy machine much may be.
            assert host.agent.ends(signal.SIGTERM) == 0
            config = host.folder / "poisonwatch.yaml"
            text = config.read_text().replace("lateness_seconds: 1\n", "lateness_seconds: 300\n  quiet_seconds: 5\n")
            assert text != config.read_text()
            config.write_text(text)
            host.start_agent()
            before = host.judged(501)

            rotation = tmp_path / "logrotate.conf"
            rotation.write_text(example("opened-for-each-line", host.folder / log, signal_to=[]))
            clients = host.begin(
                Program(
                    [
                        *enter,
                        "env",
                        f"PYTHONPATH={ROOT}",
                        sys.executable,
                        "-m",
                        "tests.system.asking_loans",
                        str(SERVER),
                        str(ASKED),
                    ],
                    ROOT,
                )
            )
            for asked in range(400, ASKED, 400):
                clients.said(f"^asked {asked}$")
                done = run("logrotate", "--force", "--state", tmp_path / "logrotate.state", rotation)
                assert (done.returncode, done.stderr) == (0, "")
                if asked == 1200:
                    assert host.agent.ends(signal.SIGTERM) == 0, host.told()
                if asked == 2000:
                    host.start_agent()
                if asked == 2800:
                    assert host.agent.ends(signal.SIGKILL) == -signal.SIGKILL
                    host.start_agent()
            assert clients.ends() == 0, clients.output
            saw = json.loads(clients.output[-1])
            assert sum(saw.values()) == ASKED
            assert (host.folder / f"{log}.2.gz").exists()

            after = host.judged(501 + ASKED)
            assert {label: after[label] - before.get(label, 0) for label in after} == saw, host.told()
            series = host.series()
            for lost in ("records_rejected", "duplicates", "faults", "predictions_late"):
                assert total(series, f"poisonwatch_{lost}_total") == 0, (lost, host.told())
        finally:
            host.close()
