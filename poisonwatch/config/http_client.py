"""How a protected server is asked, an agent or a receiver, in the format of Prometheus' HTTP clients (`promtool --http.config.file`)."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

from pydantic import Field, model_validator

from poisonwatch.config.part import Part
from poisonwatch.config.reading import read
from poisonwatch.errors import ConfigError

LONGEST_SECRET = 1 << 16
"""Bytes of a file with a secret that are read: tokens of some issuers are long."""


class BasicAuth(Part):
    """A user and a password. Paths are relative to the file."""

    username: str = Field(min_length=1, pattern="^[^:]*$")
    password: str | None = Field(None, repr=False)
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> BasicAuth:
        if (self.password is None) == (self.password_file is None):
            msg = "give the password once: as `password_file`, or as `password`"
            raise ValueError(msg)
        return self


class Authorization(Part):
    """A token, for a server that asks for one, or a proxy before it."""

    type: str = Field("Bearer", pattern="^[A-Za-z0-9-]+$")
    credentials: str | None = Field(None, repr=False)
    credentials_file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Authorization:
        if (self.credentials is None) == (self.credentials_file is None):
            msg = "give the token once: as `credentials_file`, or as `credentials`"
            raise ValueError(msg)
        return self


class TlsClientConfig(Part):
    """Whom to believe, and which certificate to show."""

    ca_file: Path | None = Field(None, description="Who signs the server's certificate, PEM; by default the system's.")
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _verified(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("insecure_skip_verify"):
            msg = "`insecure_skip_verify` would believe anybody: name the server's CA as `ca_file`"
            raise ValueError(msg)
        return (
            {key: given for key, given in value.items() if key != "insecure_skip_verify"}
            if isinstance(value, dict)
            else value
        )

    @model_validator(mode="after")
    def _both(self) -> TlsClientConfig:
        if (self.cert_file is None) != (self.key_file is None):
            msg = "`cert_file` and `key_file` belong together: give both"
            raise ValueError(msg)
        return self


class HttpClientConfig(Part):
    """The file."""

    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    tls_config: TlsClientConfig = TlsClientConfig()

    @model_validator(mode="after")
    def _one(self) -> HttpClientConfig:
        if self.basic_auth is not None and self.authorization is not None:
            msg = "a request has one Authorization: give `basic_auth` or `authorization`"
            raise ValueError(msg)
        return self


def load_http_client(path: Path) -> HttpClientConfig:
    """Read how to ask; relative paths start from the folder of the file.

    Raises:
        ConfigError: one line per mistake, with the YAML path and the remedy.
    """
    found = read(path, HttpClientConfig, "`basic_auth`, `authorization` or `tls_config`")
    folder = path.parent.absolute()
    basic, bearer, tls = found.basic_auth, found.authorization, found.tls_config
    if basic is not None and basic.password_file is not None:
        basic = basic.model_copy(update={"password_file": folder / basic.password_file})
    if bearer is not None and bearer.credentials_file is not None:
        bearer = bearer.model_copy(update={"credentials_file": folder / bearer.credentials_file})
    named = {name: folder / given for name in ("ca_file", "cert_file", "key_file") if (given := getattr(tls, name))}
    return HttpClientConfig(basic_auth=basic, authorization=bearer, tls_config=tls.model_copy(update=named))


def authorization_of(client: HttpClientConfig) -> str | None:
    """What the header `Authorization` says, None where there is nothing to say; secrets are read anew.

    Raises:
        ConfigError: when a secret cannot be read.
    """
    if (basic := client.basic_auth) is not None:
        password = basic.password if basic.password_file is None else secret_in(basic.password_file)
        return "Basic " + base64.b64encode(f"{basic.username}:{password}".encode()).decode()
    if (bearer := client.authorization) is not None:
        token = bearer.credentials if bearer.credentials_file is None else secret_in(bearer.credentials_file)
        return f"{bearer.type} {token}"
    return None


def secret_in(path: Path) -> str:
    """What a file with a secret says.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_SECRET).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: the secret cannot be read ({getattr(error, 'strerror', None) or 'it is no text'})"
        raise ConfigError(msg) from None


def context_of(path: Path, client: HttpClientConfig) -> ssl.SSLContext:
    """Whom to believe over TLS, and what to show; `path` is where `client` was read from, for whoever has to mend it.

    Raises:
        ConfigError: when a certificate or a key cannot be used.
    """
    tls = client.tls_config
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except OSError as error:
        named = ", ".join(str(given) for given in (tls.ca_file, tls.cert_file, tls.key_file) if given is not None)
        reason = getattr(error, "reason", None) or error.strerror
        msg = f"{path}: tls_config: {named} cannot be used ({reason}): they are PEM, and a key has no passphrase"
        raise ConfigError(msg) from None
    return context
