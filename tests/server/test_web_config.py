"""The web configuration: what the exporter-toolkit refuses is refused, what we do not offer is said, secrets stay inside."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from poisonwatch.config.web import load_web_file
from poisonwatch.errors import ConfigError
from poisonwatch.server.web_config import Files
from tests.server.clients import HASHED, issue, lay_out, web_file
from tests.system.programs import ROOT, tool

if TYPE_CHECKING:
    from pathlib import Path

TLS = "cert_file: tls.crt, key_file: tls.key"
MUTUAL = f"{TLS}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate, its key, and another certificate that does not fit."""
    folder = tmp_path_factory.mktemp("pki")
    issue(lay_out(folder), folder, "other", "other.test")
    (folder / "text.crt").write_text("no certificate")
    return folder


REFUSED_BY_ALL = {
    "tls_server_config: {cert_file: tls.crt}": "tls_server_config.key_file: this key is required",
    "tls_server_config: {key_file: tls.key}": "tls_server_config.cert_file: this key is required",
    f"tls_server_config: {{{TLS}, nonsense: 1}}": "tls_server_config.nonsense: unknown key",
    f"tls_server_config: {{{TLS}, client_ca_file: ca.crt}}": "client_ca_file does nothing without client_auth_type",
    f"tls_server_config: {{{TLS}, client_auth_type: Nonsense}}": "client_auth_type: say one of NoClientCert",
    f"tls_server_config: {{{TLS}, min_version: TLS9}}": "min_version",
    f"tls_server_config: {{{TLS}, cipher_suites: [NONE]}}": "cipher_suites: 'NONE' is unknown, weak",
    "tls_server_config: {cert_file: nothing, key_file: tls.key}": "tls_server_config.cert_file: ",
    "tls_server_config: {cert_file: tls.crt, key_file: nothing}": "tls_server_config.key_file: ",
    "tls_server_config: {cert_file: other.crt, key_file: tls.key}": "are not a certificate and its key",
    "tls_server_config: {cert_file: text.crt, key_file: tls.key}": "are not a certificate and its key",
    f"tls_server_config: {{{MUTUAL.replace('ca.crt', 'nothing')}}}": "tls_server_config.client_ca_file: ",
    "basic_auth_users: {ann: s3cret-plain}": "basic_auth_users: the password of 'ann' must be a bcrypt hash",
    "basic_auth_users: [ann]": "basic_auth_users: this must be a mapping",
    "http_server_config: {headers: {X-Foo: a}}": "http_server_config.headers: 'X-Foo' cannot be set",
    "http_server_config: {headers: {x-frame-options: deny}}": "'x-frame-options' cannot be set",
    "http_server_config: {headers: {X-Frame-Options: a}}": "X-Frame-Options must be one of deny, sameorigin",
    "nonsense: 1": "nonsense: unknown key; known are tls_server_config",
    "basic_auth_users: {": "this is not valid YAML",
}
"""What both we and promtool refuse, and what we say."""

REFUSED_BY_US = {
    f"tls_server_config: {{{TLS}, client_auth_type: RequestClientCert}}": "takes any certificate unseen",
    f"tls_server_config: {{{TLS}, client_auth_type: RequireAnyClientCert}}": "say RequireAndVerifyClientCert",
    f"tls_server_config: {{{TLS}, client_auth_type: RequireAndVerifyClientCert}}": "needs client_ca_file",
    f"tls_server_config: {{{MUTUAL.replace('ca.crt', 'text.crt')}}}": "holds no certificates in PEM",
    f"tls_server_config: {{{TLS}, client_allowed_sans: [a]}}": "client_allowed_sans needs",
    f"tls_server_config: {{{TLS}, min_version: TLS10}}": "TLS10 is broken and not offered: say TLS12 or TLS13",
    f"tls_server_config: {{{TLS}, min_version: TLS13, max_version: TLS12}}": "no version is left",
    f"tls_server_config: {{{TLS}, cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]}}": "choose among TLS_ECDHE_ECDSA_WITH",
    f"tls_server_config: {{{TLS}, curve_preferences: [CurveP256]}}": "`curve_preferences` is not supported: leave it out",
    f"tls_server_config: {{{TLS}, key: s3cret}}": "write it to a file and name it as key_file",
    "rate_limit: {burst: 20}": "`rate_limit` is not supported: leave it out",
    f"basic_auth_users: {{ann: {HASHED.replace('$04$', '$31$')}}}": "of cost 4 to 15",
    f"basic_auth_users: {{'a:b': {HASHED}}}": "is no name of a user",
    'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nX: b"}}': "printable ASCII",
    "": "must be a mapping with at least",
    "[]": "must be a mapping with at least",
}
"""What promtool may take and we do not, and what we say."""

TAKEN = (
    "tls_server_config:",
    f"tls_server_config: {{{TLS}}}",
    f"tls_server_config: {{{MUTUAL}, min_version: TLS13}}",
    f"tls_server_config: {{{TLS}, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt}}",
    f"tls_server_config: {{{TLS}, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], max_version: TLS12}}",
    f"tls_server_config: {{{TLS}, prefer_server_cipher_suites: false}}",
    f"basic_auth_users: {{ann: {HASHED}, bob: {HASHED.replace('$2b$', '$2y$')}}}",
    "http_server_config: {http2: true, headers: {X-Frame-Options: sameorigin}}",
    "http_server_config: {http2: false, headers: {Strict-Transport-Security: max-age=9}}",
)
"""What both take."""


@pytest.mark.parametrize("text", [*REFUSED_BY_ALL, *REFUSED_BY_US])
def test_mistakes_are_told(pki: Path, text: str) -> None:
    """Each mistake is refused with its file, its place and a remedy, and never with the secret that stands there."""
    path = web_file(pki, text)
    with pytest.raises(ConfigError) as refused:
        Files(path)
    told = str(refused.value)
    assert told.startswith(f"{path}: ")
    assert {**REFUSED_BY_ALL, **REFUSED_BY_US}[text] in told
    assert "s3cret" not in told
    assert "$2" not in told


@pytest.mark.parametrize("text", TAKEN)
def test_what_is_taken(pki: Path, text: str) -> None:
    """These are in order."""
    Files(web_file(pki, text))


@pytest.mark.system
@pytest.mark.parametrize("text", [*REFUSED_BY_ALL, *TAKEN])
def test_promtool_agrees(pki: Path, text: str) -> None:
    """What promtool refuses we refuse, and what both take is the same format."""
    path = web_file(pki, text)
    done = subprocess.run([tool("promtool"), "check", "web-config", path], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (text in TAKEN), done.stdout + done.stderr


@pytest.mark.system
def test_promtool_takes_our_example(tmp_path: Path) -> None:
    """The example that we ship is in order for promtool and for us, beside certificates of the names that it gives."""
    ca = lay_out(tmp_path)
    ca.cert_pem.write_to_path(tmp_path / "clients.crt")
    path = tmp_path / "web-config.yml"
    shutil.copy(ROOT / "deploy" / "web-config.yml", path)
    done = subprocess.run([tool("promtool"), "check", "web-config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Files(path).current.tls is not None
    assert load_web_file(path).admits_only_known


def test_a_secret_in_broken_yaml_is_not_told(tmp_path: Path) -> None:
    """Where YAML breaks on the line of a secret, the message has the place and not the line."""
    path = web_file(tmp_path, 'basic_auth_users:\n  ann: "s3cret-plain\n  bob: [s3cret-plain: : {\n')
    with pytest.raises(ConfigError, match="this is not valid YAML") as refused:
        load_web_file(path)
    assert "s3cret" not in str(refused.value)


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    """A key that needs a passphrase is refused at once: nobody is asked for it on a terminal."""
    lay_out(tmp_path)
    key = tmp_path / "tls.key"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:s3cret", "-out", tmp_path / "locked.key"],
        check=True,
    )
    path = web_file(tmp_path, "tls_server_config: {cert_file: tls.crt, key_file: locked.key}")
    with pytest.raises(ConfigError, match="without a passphrase"):
        Files(path)


def test_a_change_is_taken_up(tmp_path: Path) -> None:
    """Without a change nothing is read; with one, in the file or in a certificate, all is."""
    ca = lay_out(tmp_path)
    files = Files(web_file(tmp_path, f"tls_server_config: {{{TLS}}}\nbasic_auth_users: {{ann: {HASHED}}}"))
    first = files.current
    files.refresh()
    assert files.current is first
    issue(ca, tmp_path, "tls", "127.0.0.1")
    files.refresh()
    second = files.current
    assert second is not first
    web_file(tmp_path, f"basic_auth_users: {{bob: {HASHED}}}")
    files.refresh()
    assert files.current.tls is None
    assert set(files.current.users) == {"bob"}


def test_a_broken_change_keeps_what_was(tmp_path: Path) -> None:
    """A new file that is broken, half-written or gone is logged once, and the old one stays in force until a good one comes."""
    ca = lay_out(tmp_path)
    good = f"tls_server_config: {{{TLS}}}\nbasic_auth_users: {{ann: {HASHED}}}"
    path = web_file(tmp_path, good)
    files = Files(path)
    first = files.current
    for breaking in (
        lambda: web_file(tmp_path, "basic_auth_users: {ann: s3cret-plain}"),
        lambda: (web_file(tmp_path, good), (tmp_path / "tls.key").write_text("half")),
        (tmp_path / "tls.key").unlink,
        path.unlink,
    ):
        breaking()
        with structlog.testing.capture_logs() as entries:
            files.refresh()
            files.refresh()
        assert [entry["log_level"] for entry in entries] == ["warning"]
        assert "s3cret" not in str(entries)
        assert files.current is first
    web_file(tmp_path, good)
    issue(ca, tmp_path, "tls", "127.0.0.1")
    files.refresh()
    assert files.current is not first
