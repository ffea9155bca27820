"""The demo that `make run` starts, as a newcomer meets it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.programs import fetch, poisonwatch, running, wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.slow]

STORY = (
    "v1, a clean spam filter, answers all messages",
    "DECISION for v1: KEEP (healthy)",
    "The canary v2 now answers",
    "DECISION for v2: KEEP (healthy)",
    "The attack begins",
    "ALERT, PAGE FIRING, cause backdoor",
    "DECISION for v2: ROLLBACK to v1",
    "The log has ended",
)
"""What a person sees, in this order."""


def decide(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask a running agent with the real command."""
    return subprocess.run(
        poisonwatch("decision", "--url", url, *arguments), cwd=folder, capture_output=True, text=True, check=False
    )


def test_tells_the_story_in_order_and_ends(tmp_path: Path) -> None:
    """Healthy v1, canary v2, the attack, the page, rollback to v1, in this order; exit 0 at the end of the log."""
    command = poisonwatch("demo", "--speed", "2000", "--exit-at-end", "--web.listen-address", "127.0.0.1:0")
    with running(command, tmp_path) as demo:
        assert demo.ends() == 0
        told = "\n".join(demo.output)
        places = [told.find(scene) for scene in STORY]
        assert -1 not in places, told
        assert places == sorted(places), told
        assert "v1 keep, v2 rollback to v1" in told.splitlines()[-1]
        assert "Ctrl-C" not in told
        # In a pipe there is nothing but plain lines.
        assert "\x1b" not in told
        assert told.count("PAGE FIRING") == 1
        assert told.count("ROLLBACK") == 1
    assert not list(tmp_path.iterdir())


def test_serves_on_until_interrupted(tmp_path: Path) -> None:
    """After the log's end the agent answers with the decision until Ctrl-C, then it exits 0 and leaves nothing behind."""
    command = poisonwatch("demo", "--speed", "20000", "--web.listen-address", "127.0.0.1:0")
    with running(command, tmp_path) as demo:
        url = demo.said(r"poisonwatch decision --url (\S+?)`")[1]
        folder = demo.said(r"files +(\S+)")[1]
        demo.said(f"goes on serving {re.escape(url)} until Ctrl-C")
        rollback = 'poisonwatch_decision{decision="rollback",model="sms-spam",model_version="v2"} 1.0'
        assert rollback in fetch(f"{url}/metrics")
        worst = decide(url, tmp_path)
        assert worst.returncode == 2, worst
        assert "sms-spam v2: rollback to v1" in worst.stdout
        assert decide(url, tmp_path, "--model-version", "v1").returncode == 0
        assert decide(url, tmp_path, "--model-version", "v9").returncode == 1
        told = json.loads(decide(url, tmp_path, "--json").stdout)
        assert {one["model_version"]: one["decision"] for one in told} == {"v1": "keep", "v2": "rollback"}
        assert "sms-spam v2: roll back to v1" in fetch(url)
        assert demo.ends(signal.SIGINT) == 0
    assert decide(url, tmp_path).returncode == 3
    assert not (tmp_path / folder).exists()


def test_interrupted_in_the_middle(tmp_path: Path) -> None:
    """Ctrl-C while the log plays ends the demo with 0, without the words that belong to the log's end."""
    command = poisonwatch("demo", "--web.listen-address", "127.0.0.1:0")
    with running(command, tmp_path) as demo:
        url = demo.said(r"poisonwatch decision --url (\S+?)`")[1]
        demo.said("answers all messages")
        wait_for("records", lambda: re.search(r"poisonwatch_records_total\{[^}]*\} [1-9]", fetch(f"{url}/metrics")))
        assert demo.ends(signal.SIGINT) == 0
        assert not any("ended" in line for line in demo.output)


def test_taken_port_is_said(tmp_path: Path) -> None:
    """A port that another process holds gives one sentence with the remedy, and exit 65."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running(poisonwatch("demo", "--web.listen-address", address), tmp_path) as demo:
            assert demo.ends() == 65
            (line,) = demo.output
            assert f"cannot listen on {address}" in line
            assert "choose another" in line
