"""The web configuration at work: certificates, passwords and headers as their files have them now."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from poisonwatch.config.web import CIPHERS, load_web_file
from poisonwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from poisonwatch.config.web import TlsServerConfig

LOG = structlog.get_logger()

TLS_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True, eq=False)
class Protection:
    """How what is answered is protected. `names` are those of which a client's certificate must have one; empty: any."""

    tls: ssl.SSLContext | None = None
    names: frozenset[str] = frozenset()
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def admits_only_known(self) -> bool:
        """Must everybody show who they are, by a password or a certificate?"""
        return bool(self.users) or (self.tls is not None and self.tls.verify_mode is ssl.CERT_REQUIRED)

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Has the certificate of a client, as `ssl` tells it, one of the names?"""
        given = (certificate or {}).get("subjectAltName", ())
        return not self.names or not self.names.isdisjoint(_plain(value) for _, value in given)


class Files:
    """Gives the protection that the files say, and takes it up again when they change.

    Raises:
        ConfigError: when the files cannot be used at the start. Later ones that cannot be used change nothing and are logged.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._named: tuple[Path, ...] = ()
        self._seen: object = None
        self.current = Protection() if path is None else self._read(path)

    def refresh(self) -> None:
        """Look whether a file has changed; if so, read all anew."""
        if self._path is None or self._stamp(self._path) == self._seen:
            return
        try:
            self.current = self._read(self._path)
        except ConfigError as error:
            LOG.warning("web configuration is broken: the one before it stays in force", error=str(error))
        else:
            LOG.info("web configuration was read anew", file=str(self._path))

    def _read(self, path: Path) -> Protection:
        # Stamped before it is read: what changes meanwhile is seen at the next look.
        self._seen = self._stamp(path)
        web = load_web_file(path)
        tls = web.tls_server_config
        self._named = tuple(tls.files) if tls is not None else ()
        self._seen = self._stamp(path)
        return Protection(
            tls=_context(path, tls) if tls is not None else None,
            names=frozenset(_plain(name) for name in tls.client_allowed_sans) if tls is not None else frozenset(),
            users=web.basic_auth_users,
            headers=web.http_server_config.headers,
        )

    def _stamp(self, path: Path) -> tuple[tuple[int, ...], ...]:
        return tuple(_stamps((path, *self._named)))


def _stamps(paths: Iterable[Path]) -> Iterable[tuple[int, ...]]:
    """What changes when a file does: also where a link to it is turned to another, or it may be read at last."""
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            yield (error.errno or 0,)
        else:
            yield status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _context(path: Path, tls: TlsServerConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = TLS_VERSIONS[tls.min_version]
    context.maximum_version = TLS_VERSIONS[tls.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(":".join(CIPHERS[suite] for suite in tls.cipher_suites or CIPHERS))
    context.set_alpn_protocols(["http/1.1"])
    for name, file in (
        ("cert_file", tls.cert_file),
        ("key_file", tls.key_file),
        ("client_ca_file", tls.client_ca_file),
    ):
        try:
            if file is not None:
                file.read_bytes()
        except OSError as error:
            msg = f"{path}: tls_server_config.{name}: {file} cannot be read ({error.strerror})"
            raise ConfigError(msg) from None
    try:
        # An empty passphrase, or a key that needs one would be asked for on the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except (ssl.SSLError, OSError) as error:
        msg = (
            f"{path}: tls_server_config: {tls.cert_file} and {tls.key_file} are not a certificate and its key without a "
            f"passphrase, both PEM ({_reason(error)})"
        )
        raise ConfigError(msg) from None
    try:
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
    except (ssl.SSLError, OSError) as error:
        msg = f"{path}: tls_server_config.client_ca_file: {tls.client_ca_file} holds no certificates in PEM ({_reason(error)})"
        raise ConfigError(msg) from None
    context.verify_mode = VERIFY[tls.client_auth_type]
    return context


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or "unreadable")


def _plain(name: str) -> str:
    """A name to compare: an address in its one short form."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
