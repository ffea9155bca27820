"""Asking one model's endpoint: the URL that serves a version, the token, JSON there and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from poisonwatch import __version__
from poisonwatch.errors import ProbeError
from poisonwatch.outgoing import Call, authorization
from poisonwatch.types import UNVERSIONED

if TYPE_CHECKING:
    from poisonwatch.config.endpoint import EndpointConfig

IN_A_URL = re.compile(r"(?!\.+$)[A-Za-z0-9._:@+~-]{1,128}")
"""Versions that may go into a URL. They come from the log, so nobody vouches for them: no slashes, no `..`."""


class Client:
    """Posts documents to the configured places, one at a time. `names_version` says that each request names its version."""

    def __init__(self, config: EndpointConfig, model: str, *, names_version: bool = False) -> None:
        self._config = config
        self._model = model
        self._names_version = names_version or "{model_version}" in (config.url or "")
        self._call: Call | None = None
        self._closed = False

    def post(self, document: object, model_version: str) -> Any:
        """The JSON that the endpoint of a version answers.

        Raises:
            ProbeError: when there is no such endpoint, or it gave no JSON.
        """
        url = self._url(model_version)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"poisonwatch/{__version__}",
            **authorization(self._config.bearer_token_file),
        }
        self._call = call = Call(self._config.timeout_seconds)
        if self._closed:
            msg = "the endpoint is closed"
            raise ProbeError(msg)
        answer = call.post(url, msgspec.json.encode(document), headers)
        try:
            return msgspec.json.decode(answer)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            msg = f"the endpoint of version {model_version} did not answer with JSON ({error})"
            raise ProbeError(msg) from None

    def answered(self, model_version: str, said: str | None) -> str | None:
        """The version that a server says has answered, None where it says none.

        What is asked of one version must not be answered by another: where neither the configuration nor the server says who
        answers, the answer is worth nothing.

        Raises:
            ProbeError: when it may be another one than was asked.
        """
        if model_version in self._config.versions or model_version in {UNVERSIONED, said}:
            return said or None
        if said:
            msg = (
                f"version {said} answered where {model_version} was asked: give {model_version} a URL under `versions`"
            )
            raise ProbeError(msg)
        if not self._names_version:
            msg = f"nothing says which version answered: give {model_version} a URL under `versions`"
            raise ProbeError(msg)
        return None

    def close(self) -> None:
        """End what is under way, and ask nothing any more."""
        self._closed = True
        if self._call is not None:
            self._call.abort()

    def _url(self, model_version: str) -> str:
        url = self._config.versions.get(model_version, self._config.url)
        if url is None:
            msg = f"version {model_version} has no endpoint: give it a URL under `versions`"
            raise ProbeError(msg)
        if "{model_version}" in url and not IN_A_URL.fullmatch(model_version):
            msg = f"version {model_version!r} cannot go into a URL: give it one under `versions`"
            raise ProbeError(msg)
        # In one pass: what is put in is not looked at again.
        values = {"{model}": quote(self._model, safe=""), "{model_version}": quote(model_version, safe="")}
        return re.sub(r"\{model(?:_version)?\}", lambda found: values[found[0]], url)
