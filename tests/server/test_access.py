"""Who may ask: what must be protected, passwords, certificates of clients, and their rotation while the server runs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
import time
from typing import TYPE_CHECKING

import bcrypt
import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from poisonwatch.config.sources import FileSourceConfig, HttpSourceConfig
from poisonwatch.errors import ConfigError
from poisonwatch.server.access import REMEMBERED, Passwords, check_exposure, tokened
from tests.server.clients import (
    HASHED,
    PASSWORD,
    dial,
    get,
    issue,
    lay_out,
    listening,
    trusting,
    web_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request

TLS = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}"
MUTUAL = (
    "tls_server_config: {cert_file: tls.crt, key_file: tls.key, "
    "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt%s}"
)
USERS = f"basic_auth_users: {{ann: {HASHED}}}"

OPEN = HttpSourceConfig(kind="http")
TOKENED = HttpSourceConfig(kind="http", path="/v1/feedback", token_file="token")
LOG = FileSourceConfig(path="log")


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("address", "sources", "web", "fine"),
    [
        ("127.0.0.1:9787", [OPEN], None, True),
        ("127.8.9.1:9787", [OPEN], None, True),
        ("localhost:9787", [OPEN], None, True),
        ("[::1]:9787", [OPEN], None, True),
        ("[::ffff:127.0.0.1]:9787", [OPEN], None, True),
        (":9787", [OPEN], None, False),
        ("0.0.0.0:9787", [LOG, OPEN], None, False),
        ("[::]:9787", [OPEN], None, False),
        ("[::ffff:10.0.0.1]:9787", [OPEN], None, False),
        ("10.0.0.1:9787", [OPEN], None, False),
        ("localhost.example.org:9787", [OPEN], None, False),
        ("127.0.0.1.example.org:9787", [OPEN], None, False),
        ("0.0.0.0:9787", [LOG], None, True),
        ("0.0.0.0:9787", [LOG, TOKENED], None, True),
        ("0.0.0.0:9787", [TOKENED, OPEN], None, False),
        ("0.0.0.0:9787", [OPEN], USERS, True),
        ("0.0.0.0:9787", [OPEN], TLS, False),
        ("0.0.0.0:9787", [OPEN], MUTUAL % "", True),
        ("0.0.0.0:9787", [OPEN], MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven") % "", False),
    ],
)
def test_exposure(tmp_path: Path, address: str, sources: list[HttpSourceConfig], web: str | None, fine: bool) -> None:
    """Who takes records from a network without asking who sends them is refused at start, with place and remedy."""
    file = None if web is None else web_file(tmp_path, web)
    if fine:
        check_exposure(address, sources, file)
        return
    with pytest.raises(ConfigError) as refused:
        check_exposure(address, sources, file)
    told = str(refused.value)
    assert told.startswith(f"sources[{sources.index(OPEN)}]: /v1/predictions would take records from everybody")
    for remedy in ("`token_file`", "web.config_file", "127.0.0.1"):
        assert remedy in told


def test_passwords(tmp_path: Path) -> None:
    """The right password opens every path, health too; anything else opens none, and says how to ask."""
    with listening(web_file=web_file(tmp_path, USERS)) as address:
        for path in ("/", "/metrics", "/-/healthy", "/v1/decisions", "/nothing"):
            expected = 404 if path == "/nothing" else 200
            assert get(address, path, headers=basic("ann", PASSWORD))[0] == expected
            for wrong in (
                {},
                basic("ann", "wrong"),
                basic("bob", PASSWORD),
                basic("", ""),
                {"Authorization": "Basic !!!"},
                {"Authorization": "Basic YQ=="},
                {"Authorization": f"Bearer {PASSWORD}"},
                {"Authorization": "Basic " + base64.b64encode(b"\xff\xff:\x00").decode()},
            ):
                code, headers, body = get(address, path, headers=wrong)
                assert code == 401
                assert json.loads(body)["error"].startswith("Unauthorized: ")
                assert headers["www-authenticate"].startswith("Basic ")


def test_two_authorizations(tmp_path: Path) -> None:
    """Of two Authorization headers none counts, or two readers might each believe another one."""
    with listening(web_file=web_file(tmp_path, USERS)) as address, dial(address) as client:
        right = f"Authorization: {basic('ann', PASSWORD)['Authorization']}\r\n"
        client.sendall(f"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{right * 2}\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 401")


def test_paths_with_a_token_of_their_own(tmp_path: Path) -> None:
    """A path that asks for a bearer token asks for no password, and only it: not what merely looks like it."""

    async def post(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.headers.get("authorization", "none"))

    routes = [Route(path, post, methods=["POST"]) for path in ("/v1/feedback", "/v1/predictions")]
    paths = tokened([LOG, OPEN, TOKENED])
    assert paths == {"/v1/feedback"}
    with listening(web_file=web_file(tmp_path, USERS), routes=routes, tokened=paths) as address:
        bearer = {"Authorization": "Bearer t0ken"}
        assert get(address, "/v1/feedback", method="POST", headers=bearer)[2] == b"Bearer t0ken"
        for path in ("/v1/predictions", "/v1/feedback/", "/v1/feedback%0A", "/metrics", "//v1/feedback"):
            assert get(address, path, method="POST", headers=bearer)[0] == 401
        assert get(address, "/v1/predictions", method="POST", headers=basic("ann", PASSWORD))[0] == 200


def test_posts_from_web_pages() -> None:
    """A page in a browser on this host cannot post to the agent, though it reaches loopback."""

    async def post(_: Request) -> PlainTextResponse:
        return PlainTextResponse("taken")

    with listening(routes=[Route("/v1/predictions", post, methods=["POST"])]) as address:
        assert get(address, "/v1/predictions", method="POST")[0] == 200
        for origin in ("http://evil.example", "null"):
            assert get(address, "/v1/predictions", method="POST", headers={"Origin": origin})[0] == 403


def test_headers_of_every_answer(tmp_path: Path) -> None:
    """Nothing is framed, sniffed or kept; what the web configuration says overrides, also where access is refused."""
    configured = "http_server_config: {headers: {X-Frame-Options: sameorigin, Strict-Transport-Security: max-age=9}}\n"
    with listening() as address:
        for path in ("/", "/metrics", "/nothing"):
            headers = get(address, path)[1]
            assert headers["x-frame-options"] == "deny"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
            assert "server" not in headers
    with listening(web_file=web_file(tmp_path, configured + USERS)) as address:
        code, headers, _ = get(address, "/")
        assert code == 401
        assert (headers["x-frame-options"], headers["strict-transport-security"]) == ("sameorigin", "max-age=9")


def test_the_style_of_the_page_is_allowed() -> None:
    """The one style on the page is the one that the policy names."""
    with listening() as address:
        _, headers, body = get(address, "/")
    style = body.split(b"<style>")[1].split(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert f"'sha256-{digest}'" in headers["content-security-policy"]


def hashed(password: bytes) -> str:
    """A quick bcrypt hash."""
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


def test_what_was_right_is_remembered() -> None:
    """A right password is known afterwards, a wrong one never, nor one whose hash has changed; what is kept is bounded."""

    async def play() -> None:
        passwords = Passwords()
        users = {"ann": hashed(b"a"), "bob": hashed(b"b")}
        assert not passwords.knows("ann", b"a", users)
        assert await passwords.fits("ann", b"a", users)
        assert passwords.knows("ann", b"a", users)
        assert not passwords.knows("ann", b"a", {**users, "ann": hashed(b"a")})
        for user, password in (("ann", b"b"), ("bob", b"a"), ("eve", b"a"), ("eve", b"b"), ("", b"")):
            assert not await passwords.fits(user, password, users)
            assert not passwords.knows(user, password, users)
        for _ in range(REMEMBERED + 3):
            assert await passwords.fits("bob", b"b", {"bob": hashed(b"b")})
        assert not passwords.knows("ann", b"a", users)
        assert len(passwords._right) == REMEMBERED  # noqa: SLF001

    asyncio.run(play())


def test_long_passwords() -> None:
    """Bcrypt looks at 72 bytes: a longer password is not right because its beginning is."""

    async def play() -> None:
        users = {"ann": hashed(b"a" * 72)}
        assert await Passwords().fits("ann", b"a" * 72, users)
        assert not await Passwords().fits("ann", b"a" * 73, users)

    asyncio.run(play())


@settings(max_examples=30, deadline=None)
@given(user=st.text(max_size=8), password=st.binary(max_size=90))
def test_no_other_password_is_right(user: str, password: bytes) -> None:
    """Whatever is tried, only the right user with the right password fits, and nothing raises."""
    users = {"ann": hashed(b"a")}
    assert asyncio.run(Passwords().fits(user, password, users)) == (user == "ann" and password == b"a")


def test_unknown_users_cost_what_known_ones_do() -> None:
    """A user who is unknown is compared with somebody's hash, always the same one."""
    users = {"ann": hashed(b"a"), "bob": hashed(b"b")}
    passwords = Passwords()
    chosen = {name: passwords._another(name, users) for name in map(str, range(50))}  # noqa: SLF001
    assert set(chosen.values()) == set(users.values())
    assert chosen == {name: passwords._another(name, users) for name in chosen}  # noqa: SLF001


def test_guessing_does_not_stop_who_is_known(tmp_path: Path) -> None:
    """While many guess at a costly hash, who was right before is answered, and the guesses are refused in their number."""
    costly = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    with listening(web_file=web_file(tmp_path, f"basic_auth_users: {{ann: {costly}}}")) as address:
        assert get(address, headers=basic("ann", PASSWORD))[0] == 200
        guesses = []
        for number in range(60):
            guess = dial(address)
            header = basic("ann", f"guess {number}")["Authorization"]
            guess.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {header}\r\n\r\n".encode())
            guesses.append(guess)
        assert get(address, headers=basic("ann", PASSWORD))[0] == 200
        codes = [int(guess.recv(100).split()[1]) for guess in guesses]
        for guess in guesses:
            guess.close()
    assert set(codes) == {401, 503}


def test_tls(tmp_path: Path) -> None:
    """TLS is spoken, from 1.2 on, and only by those who are believed."""
    lay_out(tmp_path)
    with listening(web_file=web_file(tmp_path, TLS)) as address:
        assert get(address, tls=trusting(tmp_path))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            get(address, tls=ssl.create_default_context())
        new = trusting(tmp_path)
        new.minimum_version = ssl.TLSVersion.TLSv1_3
        assert get(address, tls=new)[0] == 200
    with listening(web_file=web_file(tmp_path, TLS.replace("}", ", min_version: TLS13}"))) as address:
        old = trusting(tmp_path)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            get(address, tls=old)


def test_a_cipher_that_was_chosen(tmp_path: Path) -> None:
    """Only the suites of the list are offered for TLS 1.2."""
    lay_out(tmp_path)
    listed = TLS.replace("}", ", cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]}")
    with listening(web_file=web_file(tmp_path, listed)) as address:
        for suites, fine in (("ECDHE+CHACHA20", True), ("ECDHE+AESGCM", False)):
            client = trusting(tmp_path)
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            client.set_ciphers(suites)
            if fine:
                assert get(address, tls=client)[0] == 200
            else:
                with pytest.raises(ssl.SSLError):
                    get(address, tls=client)


def test_certificates_of_clients(tmp_path: Path) -> None:
    """Without a certificate of the CA nobody is answered; with allowed names only who has one of them."""
    ca = lay_out(tmp_path)
    for name, host in (("scraper", "prometheus.test"), ("other", "other.test"), ("numbered", "10.0.0.9")):
        issue(ca, tmp_path, name, host)
    stranger = tmp_path / "stranger"
    issue(lay_out(stranger), stranger, "scraper", "prometheus.test")
    forged = trusting(tmp_path)
    forged.load_cert_chain(stranger / "scraper.crt", stranger / "scraper.key")
    with listening(web_file=web_file(tmp_path, MUTUAL % "")) as address:
        for name in ("scraper", "other"):
            assert get(address, tls=trusting(tmp_path, name))[0] == 200
        for context in (trusting(tmp_path), forged):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                get(address, tls=context)
    allowed = MUTUAL % ", client_allowed_sans: [prometheus.test, 10.0.0.9]"
    with listening(web_file=web_file(tmp_path, allowed)) as address:
        for name in ("scraper", "numbered"):
            assert get(address, tls=trusting(tmp_path, name))[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(address, tls=trusting(tmp_path, "other"))


def test_certificates_rotate_while_it_runs(tmp_path: Path) -> None:
    """A new certificate, CA and password are in force a moment after they are there, for connections that are open too."""
    lay_out(tmp_path)
    path = web_file(tmp_path, f"{TLS}\n{USERS}")
    right = basic("ann", PASSWORD)
    with listening(web_file=path) as address:
        old = trusting(tmp_path)
        assert get(address, tls=old, headers=right)[0] == 200
        with dial(address) as plain, old.wrap_socket(plain, server_hostname="127.0.0.1") as kept:
            lay_out(tmp_path)
            new = trusting(tmp_path)
            _until(lambda: _works(address, new, right))
            with pytest.raises(ssl.SSLCertVerificationError):
                get(address, tls=old, headers=right)
            request = f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {right['Authorization']}\r\n\r\n"
            kept.sendall(request.encode())
            assert b"connection: close" in kept.recv(1 << 16).lower()
        with structlog.testing.capture_logs() as entries:
            web_file(tmp_path, f"{TLS}\n{USERS.replace('ann', 'bob')}\nnonsense: s3cret")
            _until(lambda: len(entries) > 0)
        assert "s3cret" not in str(entries)
        assert get(address, tls=new, headers=right)[0] == 200
        web_file(tmp_path, f"{TLS}\n{USERS.replace('ann', 'bob')}")
        _until(lambda: get(address, tls=new, headers=right)[0] == 401)
        assert get(address, tls=new, headers=basic("bob", PASSWORD))[0] == 200


def _works(address: str, tls: ssl.SSLContext, headers: dict[str, str]) -> bool:
    try:
        return get(address, tls=tls, headers=headers)[0] == 200
    except ssl.SSLError:
        return False


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
