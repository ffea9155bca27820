"""What a person who was woken types: the story of an alert, and a decision of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from poisonwatch.types import Severity
from tests.server.clients import PASSWORD, listening, web_file
from tests.server.loops import turning
from tests.server.snapshots import demo, fresh
from tests.server.stories import changed, told_in_full
from tests.server.test_access import USERS
from tests.system.programs import Sidecar, demo_lines, value, wait_for
from tests.test_cli import DATA, UNREACHABLE, USAGE, assert_told, poisonwatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from poisonwatch.sinks.snapshot import Snapshot

pytestmark = pytest.mark.system

ASIS = ["--author", "ann", "--reason", "our own campaign"]


@contextmanager
def agent(snapshot: Snapshot, **given: Any) -> Iterator[str]:
    """The URL of a server whose orders are carried out."""
    published = fresh(snapshot)
    with turning(published) as orders, listening(published, orders=orders, **given) as address:
        yield f"http://{address}"


def nobody() -> str:
    """The URL of an agent that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "http://{}:{}".format(*free.getsockname())


def assert_done(done: subprocess.CompletedProcess[str], text: str) -> None:
    """The command did what it was told, and says so in one line."""
    assert (done.returncode, done.stderr) == (0, "")
    assert text in done.stdout
    assert done.stdout.count("\n") == 1


PAGE = next(alert for alert in demo().models[0].alerts if alert.severity is Severity.PAGE)


def test_explain() -> None:
    """A version, a model and an alert are told: what to do first, then why, in lines that a terminal holds."""
    with agent(told_in_full(demo())) as url:
        version = poisonwatch("explain", "sms-spam/v2", "--url", url)
        model = poisonwatch("explain", "sms-spam", "--url", url)
        alert = poisonwatch("explain", PAGE.fingerprint, "--url", url)
    said = [
        "sms-spam v2: ROLLBACK to v1 (trigger unconfirmed)",
        "began     2026-01-05 09:55 UTC",
        "affected  4.6% of its predictions since then, 73 so far",
        "rollback  awaited: v2 still answers 40 % of the predictions.",
        "override  hold by ann, until 2026-01-05 14:05 UTC: the words are our own campaign",
        "1. Send the traffic of v2 to v1",
        "What speaks for it\n  - The same trigger does nothing in v1",
        "What speaks against it\n  - No endpoint is configured",
        "What was ruled out\n  - The inputs did not move.",
        "Why v1\n  - v1 answered 1100 predictions",
        "What would change it\n",
    ]
    for done in (version, model, alert):
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= 100
        places = [done.stdout.index(text) for text in said]
        assert places == sorted(places)
    assert "sms-spam v1: KEEP (healthy)" in model.stdout
    assert "sms-spam v1" not in version.stdout
    assert alert.stdout.startswith(f"\nOpen alert\n  - {PAGE.fingerprint}, page firing, cause backdoor, since")
    assert "docs/runbooks/PoisonwatchRollbackRecommended.md" in " ".join(alert.stdout.split())


def test_explain_on_a_narrow_terminal() -> None:
    """Lines are no longer than the terminal is wide."""
    with agent(told_in_full(demo())) as url:
        done = subprocess.run(
            [sys.executable, "-m", "poisonwatch", "explain", "sms-spam", "--url", url],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "50"},
        )
    wide = [line for line in done.stdout.splitlines() if len(line) > 50]
    # What has no space in it is not broken: somebody copies it.
    assert all(" " not in line.strip(" -") for line in wide)


def test_explain_as_json() -> None:
    """The same as the agent tells it, for another program."""
    with agent(told_in_full(demo())) as url:
        story = json.loads(poisonwatch("explain", PAGE.fingerprint, "--json", "--url", url).stdout)
        versions = json.loads(poisonwatch("explain", "sms-spam", "--json", "--url", url).stdout)
    assert (story["alert"]["fingerprint"], story["decisions"][0]["target"]) == (PAGE.fingerprint, "v1")
    assert [one["for"] for one in versions] == [[], ["The same trigger does nothing in v1: 0 of 7."]]


def test_explain_what_is_not_there() -> None:
    """What there is is listed, and the code is that of a wrong name."""
    with agent(demo()) as url:
        done = poisonwatch("explain", "sms-spam/v9", "--url", url)
        assert_told(
            done, DATA, "sms-spam/v9: no open alert", "sms-spam/v2  rollback", f"{PAGE.fingerprint}  page firing"
        )
    with agent(changed(demo(), decisions=(), alerts=())) as url:
        assert_told(poisonwatch("explain", "x", "--url", url), DATA, "none yet: the first window is still open")
    url = nobody()
    assert_told(poisonwatch("explain", "x", "--url", url), UNREACHABLE, url, "do not read this as healthy")


def test_explain_forges_no_lines() -> None:
    """Names from a log are shown as one line without control characters."""
    (model,) = demo().models
    hostile = "v2\x1b[2J\nkeep"
    fields = {name: getattr(model.decisions[1], name) for name in model.decisions[1].__struct_fields__}
    told = type(model.decisions[1])(**{**fields, "model_version": hostile, "summary": hostile})
    with agent(changed(demo(), decisions=(told,))) as url:
        for what in ("sms-spam", "nothing\x1b[2J"):
            done = poisonwatch("explain", what, "--url", url)
            assert "\x1b" not in done.stdout + done.stderr
            assert "\nkeep" not in done.stdout + done.stderr


def test_override() -> None:
    """A person's decision holds for the time that they say, everybody sees whose it is, and it ends when they say so."""
    with agent(demo()) as url:
        done = poisonwatch("override", "sms-spam", "v2", "--decision", "hold", "--for", "4h", *ASIS, "--url", url)
        assert_done(done, "UTC, by ann: our own campaign")
        assert done.stdout.startswith("sms-spam v2: hold until 20")
        assert "override  hold by ann" in poisonwatch("explain", "sms-spam/v2", "--url", url).stdout
        to = ["--decision", "rollback", "--to", "v1", "--for", "2d"]
        assert_done(poisonwatch("override", "sms-spam", "v2", *to, *ASIS, "--url", url), "v2: rollback to v1 until")
        done = poisonwatch("override", "sms-spam", "v2", "--withdraw", *ASIS, "--url", url)
        assert_done(done, "sms-spam v2: what the agent itself decides holds again")
        assert "override  " not in poisonwatch("explain", "sms-spam/v2", "--url", url).stdout
        done = poisonwatch("override", "sms-spam", "v2", "--withdraw", *ASIS, "--url", url)
        assert_told(done, DATA, "no override stands for version v2")


def test_override_that_the_agent_refuses() -> None:
    """Its words are passed on."""
    hold = ["--decision", "hold", "--for", "30m"]
    with agent(demo()) as url:
        done = poisonwatch("override", "sms-spam", "v9", *hold, *ASIS, "--url", url)
        assert_told(done, DATA, f"{url}: sms-spam has no version v9 with a decision")
        done = poisonwatch("override", "a/b", "..", *hold, *ASIS, "--url", url)
        assert_told(done, DATA, "no model is called a/b; known: sms-spam")
        done = poisonwatch("override", "sms-spam", "v2", *hold, "--author", "a\nb", "--reason", "x", "--url", url)
        assert_told(done, DATA, "author: text on one line")
    with listening(fresh(demo())) as address:
        done = poisonwatch("override", "sms-spam", "v2", *hold, *ASIS, "--url", f"http://{address}")
        assert_told(done, UNREACHABLE, "this agent takes no orders")
    url = nobody()
    done = poisonwatch("override", "sms-spam", "v2", *hold, *ASIS, "--url", url)
    assert_told(done, UNREACHABLE, url, "nothing is known to have been changed")


def test_override_of_a_protected_agent(tmp_path: Path) -> None:
    """Without a password the option is named; with it the journal knows whose it was."""
    hold = ["--decision", "hold", "--for", "30m"]
    (tmp_path / "http.yml").write_text(f"basic_auth: {{username: ann, password: {PASSWORD}}}")
    with agent(demo(), web_file=web_file(tmp_path, USERS)) as url:
        done = poisonwatch("override", "sms-spam", "v2", *hold, *ASIS, "--url", url)
        assert_told(done, UNREACHABLE, "give --http.config.file with its user")
        done = poisonwatch(
            "override", "sms-spam", "v2", *hold, *ASIS, "--url", url, "--http.config.file", tmp_path / "http.yml"
        )
        assert_done(done, "by ann")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--decision", "hold"], "say what holds, and how long: --decision keep|hold|rollback --for 4h"),
        (["--for", "4h"], "say what holds, and how long"),
        ([], "say what holds, and how long"),
        (["--withdraw", "--decision", "hold"], "--withdraw ends an override: it takes no --decision"),
        (["--withdraw", "--for", "1h"], "--withdraw ends an override"),
        (["--withdraw", "--to", "v1"], "--withdraw ends an override"),
        (["--decision", "promote", "--for", "1h"], "Invalid value for '--decision'"),
        *(
            (["--decision", "hold", "--for", wrong], "say it like 30m, 4h or 2d")
            for wrong in ("0m", "4", "31d", "1s", "-1h")
        ),
        (["--decision", "hold", "--for", "٤h"], "say it like 30m, 4h or 2d"),
    ],
)
def test_usage_of_override(arguments: list[str], told: str) -> None:
    """What is missing, too much or no time is told before anything is sent."""
    assert_told(poisonwatch("override", "m", "v", *ASIS, *arguments, "--url", nobody()), USAGE, told)


def test_override_names_its_author() -> None:
    """Nobody decides without a name and a reason."""
    hold = ["override", "m", "v", "--decision", "hold", "--for", "1h"]
    assert_told(poisonwatch(*hold, "--reason", "x"), USAGE, "Missing option '--author'")
    assert_told(poisonwatch(*hold, "--author", "ann"), USAGE, "Missing option '--reason'")


@pytest.mark.slow
def test_a_real_agent(tmp_path: Path) -> None:
    """What a person decides holds in the running agent, in its journal and metrics, also after a crash, until it is withdrawn."""
    sidecar = Sidecar(tmp_path)
    try:
        url = f"http://{sidecar.start()}"
        log = demo_lines(time.time())
        sidecar.append(log)
        sidecar.has_read(len(log))
        decided = ["decision", "--model-version", "v2", "--json", "--url"]
        named = {"model": "sms-spam", "model_version": "v2"}
        wait_for(
            "a rollback",
            lambda: value(sidecar.series(), "poisonwatch_decision", **named, decision="rollback") == 1,
            sidecar.told,
        )
        said = poisonwatch("override", "sms-spam", "v2", "--decision", "hold", "--for", "4h", *ASIS, "--url", url)
        assert_done(said, "sms-spam v2: hold until")
        sidecar.stop(signal.SIGKILL)
        url = f"http://{sidecar.start()}"
        (one,) = json.loads(poisonwatch(*decided, url).stdout)
        assert (one["decision"], one["reason"], one["override"]["author"]) == ("hold", "overridden", "ann")
        assert value(sidecar.series(), "poisonwatch_decision", **named, decision="hold") == 1
        assert value(sidecar.series(), "poisonwatch_override_info", **named, decision="hold", author="ann") == 1
        assert "override  hold by ann" in poisonwatch("explain", "sms-spam/v2", "--url", url).stdout
        assert_done(poisonwatch("override", "sms-spam", "v2", "--withdraw", *ASIS, "--url", url), "holds again")
        (one,) = json.loads(poisonwatch(*decided, url).stdout)
        assert (one["decision"], one["target"], one["override"]) == ("rollback", "v1", None)
        with urlopen(f"{url}/v1/journal?limit=256") as answer:  # noqa: S310 - loopback only
            told = json.load(answer)
        assert told == sidecar.entries()[-256:]
        assert {"override", "override_ended"} <= {entry["kind"] for entry in told}
    finally:
        sidecar.close()
