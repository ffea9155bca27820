"""Where the agent answers, and how that is protected: the web configuration is in the format of Prometheus' exporter-toolkit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from poisonwatch.config.part import Part
from poisonwatch.config.reading import read
from poisonwatch.errors import ConfigError


def split_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; an empty host means every interface.

    Raises:
        ConfigError: when it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        msg = f"web.listen_address: {text!r} is not HOST:PORT"
        raise ConfigError(msg)
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what was asked for


def _check_address(text: str) -> str:
    try:
        split_address(text)
    except ConfigError:
        msg = "say it as HOST:PORT"
        raise ValueError(msg) from None
    return text


class WebConfig(Part):
    """Where the agent answers."""

    listen_address: Annotated[str, AfterValidator(_check_address)] = Field(
        "127.0.0.1:9787", description="HOST:PORT of /metrics and the decision API."
    )
    config_file: Path | None = Field(
        None,
        description="TLS, client certificates and passwords, in the format of Prometheus' exporter-toolkit; read anew "
        "when it changes. See security.md.",
    )


CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Suites of TLS 1.2 that are not known to be weak: as Go names them, which the format does, and as OpenSSL does."""

CLIENT_AUTH = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
UNVERIFIED = ("RequestClientCert", "RequireClientCert", "RequireAnyClientCert")
VERSIONS = ("TLS12", "TLS13")


class TlsServerConfig(Part):
    """TLS of what the agent answers. Paths are relative to the file."""

    cert_file: Path = Field(description="Certificate and its chain, PEM.")
    key_file: Path = Field(description="Private key, PEM, without a passphrase.")
    client_auth_type: str = Field("NoClientCert", description="Whether clients must show a certificate.")
    client_ca_file: Path | None = Field(None, description="Who signs the certificates of clients, PEM.")
    client_allowed_sans: tuple[str, ...] = Field(
        (), description="Of these names a client's certificate must have one; empty: any."
    )
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    cipher_suites: tuple[str, ...] = Field((), description="For TLS 1.2; those of TLS 1.3 are all sound.")
    prefer_server_cipher_suites: bool = True

    @model_validator(mode="before")
    @classmethod
    def _not_inline(cls, value: object) -> object:
        if isinstance(value, dict):
            for name in ("cert", "key", "client_ca"):
                if value.get(name):
                    msg = f"`{name}` in the configuration itself is not taken: write it to a file and name it as {name}_file"
                    raise ValueError(msg)
            if value.get("curve_preferences"):
                msg = "`curve_preferences` is not supported: leave it out, the curves of OpenSSL are used"
                raise ValueError(msg)
        return value

    @field_validator("client_auth_type")
    @classmethod
    def _verified(cls, value: str) -> str:
        if value in UNVERIFIED:
            msg = f"{value} takes any certificate unseen, which protects nothing: say RequireAndVerifyClientCert"
            raise ValueError(msg)
        if value not in CLIENT_AUTH:
            msg = f"say one of {', '.join(CLIENT_AUTH)}"
            raise ValueError(msg)
        return value

    @field_validator("min_version", "max_version", mode="before")
    @classmethod
    def _sound_version(cls, value: object) -> object:
        if value in {"TLS10", "TLS11"}:
            msg = f"{value} is broken and not offered: say TLS12 or TLS13"
            raise ValueError(msg)
        return value

    @field_validator("cipher_suites")
    @classmethod
    def _sound_suites(cls, suites: tuple[str, ...]) -> tuple[str, ...]:
        weak = [suite for suite in suites if suite not in CIPHERS]
        if weak:
            msg = f"{weak[0]!r} is unknown, weak or of TLS 1.3, where nothing is chosen: choose among {', '.join(CIPHERS)}"
            raise ValueError(msg)
        return suites

    @model_validator(mode="after")
    def _consistent(self) -> TlsServerConfig:
        if self.client_auth_type == "NoClientCert":
            if self.client_ca_file is not None:
                msg = "client_ca_file does nothing without client_auth_type: say RequireAndVerifyClientCert, or leave it out"
                raise ValueError(msg)
        elif self.client_ca_file is None:
            msg = (
                f"{self.client_auth_type} needs client_ca_file: name the CA that signs the certificates of your clients"
            )
            raise ValueError(msg)
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            msg = "client_allowed_sans needs `client_auth_type: RequireAndVerifyClientCert`"
            raise ValueError(msg)
        if self.min_version > self.max_version:
            msg = "min_version is above max_version: no version is left"
            raise ValueError(msg)
        return self

    @property
    def files(self) -> list[Path]:
        """Every file that it names."""
        return [path for path in (self.cert_file, self.key_file, self.client_ca_file) if path is not None]


HEADERS: dict[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
"""Headers that may be set, as the exporter-toolkit has it, and which values they may have; none: any."""


class HttpServerConfig(Part):
    """How HTTP is spoken."""

    http2: bool = Field(True, description="Of no consequence: HTTP/1.1 is offered, and every client takes it.")
    headers: dict[str, str] = Field({}, description="Headers of every answer.")

    @field_validator("headers")
    @classmethod
    def _known(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name not in HEADERS:
                msg = f"{name!r} cannot be set: known are {', '.join(HEADERS)}"
                raise ValueError(msg)
            if HEADERS[name] and value not in HEADERS[name]:
                msg = f"{name} must be one of {', '.join(HEADERS[name])}"
                raise ValueError(msg)
            if not value.isascii() or not value.isprintable() or value != value.strip():
                msg = f"{name}: a value of a header is printable ASCII, without spaces around it"
                raise ValueError(msg)
        return headers


BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}")
COSTS = range(4, 16)
"""Costs of bcrypt that are taken: above, one wrong password would keep a core busy for seconds."""


class WebFile(Part):
    """The web configuration file."""

    tls_server_config: TlsServerConfig | None = None
    http_server_config: HttpServerConfig = HttpServerConfig()
    basic_auth_users: dict[str, str] = Field({}, repr=False, description="Names and the bcrypt hash of each password.")

    @model_validator(mode="before")
    @classmethod
    def _spoken(cls, value: object) -> object:
        if isinstance(value, dict):
            if value.get("rate_limit"):
                msg = "`rate_limit` is not supported: leave it out. The number of connections and the time of each are bounded"
                raise ValueError(msg)
            # A key without a value is one that was left out, as for the exporter-toolkit.
            return {key: given for key, given in value.items() if given is not None}
        return value

    @field_validator("basic_auth_users")
    @classmethod
    def _hashed(cls, users: dict[str, str]) -> dict[str, str]:
        for name, hashed in users.items():
            found = BCRYPT.fullmatch(hashed)
            if found is None or int(found["cost"]) not in COSTS:
                msg = (
                    f"the password of {name!r} must be a bcrypt hash of cost {COSTS[0]} to {COSTS[-1]}: "
                    "make one by `htpasswd -nBC 10 NAME`"
                )
                raise ValueError(msg)
            if not name or ":" in name or not name.isprintable():
                msg = f"{name!r} is no name of a user: it has no colon and no control characters"
                raise ValueError(msg)
        return users

    @property
    def admits_only_known(self) -> bool:
        """Must everybody show who they are, by a password or a certificate?"""
        tls = self.tls_server_config
        return bool(self.basic_auth_users) or (tls is not None and tls.client_auth_type == "RequireAndVerifyClientCert")


def load_web_file(path: Path) -> WebFile:
    """Read a web configuration; relative paths in it start from its own folder.

    Raises:
        ConfigError: one line per mistake, with the YAML path and the remedy.
    """
    found = read(path, WebFile, "`tls_server_config` or `basic_auth_users`")
    tls = found.tls_server_config
    if tls is None:
        return found
    folder = path.parent.absolute()
    named = {
        name: folder / given for name in ("cert_file", "key_file", "client_ca_file") if (given := getattr(tls, name))
    }
    return found.model_copy(update={"tls_server_config": tls.model_copy(update=named)})
