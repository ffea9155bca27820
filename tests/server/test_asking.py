"""Commands ask a protected agent, with what a file says; what they are told, and where secrets must not appear."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from poisonwatch.cli.asking import asked
from poisonwatch.config.http_client import load_http_client
from poisonwatch.errors import ConfigError
from poisonwatch.sinks.snapshot import Published
from tests.server.clients import HASHED, PASSWORD, get, issue, lay_out, listening, trusting, web_file
from tests.server.snapshots import demo, fresh
from tests.server.test_access import MUTUAL, TLS, USERS, basic
from tests.serving import serving
from tests.system.programs import Sidecar, fetch, free_port, poisonwatch, running, tool, wait_for

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A folder with certificates of a server and a client, a password and a token."""
    issue(lay_out(tmp_path), tmp_path, "client", "client.test")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "token").write_text("t0ken-s3cret\n")
    return tmp_path


def how(folder: Path, text: str) -> Path:
    """A file that says how to ask."""
    path = folder / "http.yml"
    path.write_text(text)
    return path


CA = "tls_config: {ca_file: ca.crt}"
CERTIFICATE = "tls_config: {ca_file: ca.crt, cert_file: client.crt, key_file: client.key}"
LOGIN = "basic_auth: {username: ann, password_file: password}"


@pytest.mark.parametrize(
    ("web", "text", "answered"),
    [
        (TLS, CA, True),
        (TLS, "tls_config: {}", False),
        (TLS, LOGIN, False),
        (f"{TLS}\n{USERS}", f"{CA}\n{LOGIN}", True),
        (f"{TLS}\n{USERS}", f"{CA}\nbasic_auth: {{username: ann, password: {PASSWORD}}}", True),
        (f"{TLS}\n{USERS}", f"{CA}\nbasic_auth: {{username: bob, password_file: password}}", False),
        (f"{TLS}\n{USERS}", CA, False),
        (MUTUAL % "", CERTIFICATE, True),
        (MUTUAL % "", CA, False),
    ],
)
def test_asking(pki: Path, capsys: pytest.CaptureFixture[str], web: str, text: str, answered: bool) -> None:
    """An agent that is protected answers whoever brings what it wants; others are told so, and no secret is."""
    with listening(fresh(demo()), web_file=web_file(pki, web)) as address:
        found = asked(f"https://{address}", "decisions", json.loads, how(pki, text))
    told = capsys.readouterr().err
    if answered:
        assert {one["model_version"] for one in found or []} == {"v1", "v2"}
        assert told == ""
    else:
        assert found is None
        assert "no answer from the agent" in told
    assert PASSWORD not in told


def test_the_remedy_is_told(pki: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a password the message names the option."""
    with listening(Published(), web_file=web_file(pki, USERS)) as address:
        assert asked(f"http://{address}", "decisions", json.loads, None) is None
    assert "give --http.config.file" in capsys.readouterr().err


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """Answers /v1/decisions with a redirect, and keeps what credentials came to which path."""

    heard: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.heard.append((self.path, self.headers["Authorization"]))
        self.send_response(302)
        self.send_header("Location", "/v1/taken")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_redirects_are_not_followed(pki: Path) -> None:
    """A token is sent to the agent and not where it points; it comes as a token does."""
    _Elsewhere.heard = []
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)) as url:
        path = how(pki, "authorization: {credentials_file: token}")
        assert asked(url, "decisions", json.loads, path) is None
    assert _Elsewhere.heard == [("/v1/decisions", "Bearer t0ken-s3cret")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("basic_auth: {username: ann}", "basic_auth: give the password once"),
        ("basic_auth: {username: ann, password: s3cret, password_file: a}", "give the password once"),
        ("authorization: {}", "authorization: give the token once"),
        (f"{LOGIN}\nauthorization: {{credentials: s3cret}}", "a request has one Authorization"),
        ("tls_config: {insecure_skip_verify: true}", "would believe anybody: name the server's CA as `ca_file`"),
        ("tls_config: {cert_file: client.crt}", "`cert_file` and `key_file` belong together"),
        ("tls_config: {server_name: a}", "tls_config.server_name: unknown key; known are ca_file"),
        ("basic_auth: [s3cret", "this is not valid YAML"),
        ("", "must be a mapping with at least `basic_auth`"),
    ],
)
def test_mistakes_in_how_to_ask(pki: Path, text: str, expected: str) -> None:
    """Each has its place and remedy, and no secret."""
    with pytest.raises(ConfigError) as refused:
        load_http_client(how(pki, text))
    assert expected in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "tls_config: {ca_file: nothing}",
        "tls_config: {ca_file: password}",
        "tls_config: {cert_file: client.crt, key_file: tls.key}",
        "basic_auth: {username: ann, password_file: nothing}",
    ],
)
def test_files_that_cannot_be_used(pki: Path, text: str) -> None:
    """A file that is not there or not what it should be is named, before anything is asked."""
    with pytest.raises(ConfigError) as refused:
        asked("https://127.0.0.1:1", "decisions", json.loads, how(pki, text))
    assert "nothing" in str(refused.value) or "cannot be used" in str(refused.value)
    assert PASSWORD not in str(refused.value)


PROMETHEUS = """\
scrape_configs:
  - job_name: poisonwatch
    scrape_interval: 1s
    scrape_timeout: 1s
    scheme: https
    basic_auth: {{username: ann, password_file: {folder}/password}}
    tls_config: {{ca_file: {folder}/ca.crt, cert_file: {folder}/client.crt, key_file: {folder}/client.key}}
    static_configs:
      - targets: ["{target}"]
"""


@pytest.mark.system
def test_a_protected_agent(pki: Path) -> None:
    """The real agent behind certificates and passwords is scraped by Prometheus and asked by `decision`.

    `check` and the log tell no secret, and without protection it takes no records from a network.
    """
    Sidecar(pki)  # lays out the folder
    web_file(pki, f"{MUTUAL % ''}\n{USERS}")
    config = (pki / "config.yaml").read_text()
    source = "  - {kind: http, token_file: token}\n"
    config = config.replace("detection:\n", f"{source}detection:\n").replace(
        "state:\n", "state:\n  spool: state/spool\n"
    )
    (pki / "config.yaml").write_text(config)
    command = poisonwatch("run", "--config", "config.yaml", "--web.config.file", "web.yml")
    with running(command, pki) as agent:
        address = agent.said(r"listening.*\baddress=(\S+)")[1]
        tls = trusting(pki, "client")
        wait_for("ready", lambda: get(address, "/-/ready", tls=tls, headers=basic("ann", PASSWORD))[0] == 200)
        ask = poisonwatch("decision", "--url", f"https://{address}")
        for more, code in ((["--http.config.file", str(how(pki, f"{CERTIFICATE}\n{LOGIN}"))], 1), ([], 3)):
            done = subprocess.run([*ask, *more], cwd=pki, capture_output=True, text=True, check=False)
            assert done.returncode == code, done.stderr
            assert PASSWORD not in done.stdout + done.stderr
        (pki / "prometheus.yaml").write_text(PROMETHEUS.format(folder=pki, target=address))
        port = free_port()
        started = [tool("prometheus"), "--config.file=prometheus.yaml", f"--web.listen-address=127.0.0.1:{port}"]
        with running([*started, "--storage.tsdb.path=tsdb"], pki) as prometheus:
            prometheus.said("Server is ready to receive web requests")
            query = f"http://127.0.0.1:{port}/api/v1/query?query=up"
            wait_for("a scrape", lambda: '"1"' in fetch(query), lambda: fetch(query))
        assert agent.ends(signal.SIGTERM) == 0
        said = "\n".join(agent.output)
    checked = subprocess.run(
        poisonwatch("check", "--config", "config.yaml"), cwd=pki, capture_output=True, text=True, check=True
    )
    secrets = (PASSWORD, HASHED, "t0ken-s3cret", (pki / "tls.key").read_text()[40:80])
    assert not [secret for secret in secrets if secret in said + checked.stdout + checked.stderr]
    (pki / "config.yaml").write_text(config.replace(", token_file: token", ""))
    open_ = poisonwatch("run", "--config", "config.yaml", "--web.listen-address", "0.0.0.0:0")
    done = subprocess.run(open_, cwd=pki, capture_output=True, text=True, check=False)
    assert done.returncode == 65
    assert "would take records from everybody" in done.stderr
