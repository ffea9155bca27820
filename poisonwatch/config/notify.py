"""Who is told of alerts by the agent itself, where no Prometheus does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from poisonwatch.config.endpoint import Url
from poisonwatch.config.part import Part

OURS = frozenset(["alertname", "model", "model_version", "cause", "severity", "fingerprint"])
"""Labels that every alert has from us."""


def _check_secretless(url: object) -> object:
    if isinstance(url, str) and "@" in urlsplit(url).netloc:
        msg = "no credentials in a URL: put them into the file that http_config_file names"
        raise ValueError(msg)
    return url


def _check_fixed(url: str) -> str:
    if "{" in url or "}" in url:
        msg = "a receiver takes all alerts at one place: no placeholders"
        raise ValueError(msg)
    return url


def _check_plain(url: str) -> str:
    if urlsplit(url).query:
        msg = "the place of a page is put behind it: no query"
        raise ValueError(msg)
    return url.rstrip("/")


FixedUrl = Annotated[Url, BeforeValidator(_check_secretless), AfterValidator(_check_fixed)]
BaseUrl = Annotated[FixedUrl, AfterValidator(_check_plain)]
LabelName = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]


class _ReceiverPart(Part):
    kind: str
    name: str = Field(
        "",
        max_length=128,
        pattern=r"^[!-~]*$",
        description="What metrics and the log call it; by default the host of its URL with the port, never its path.",
    )
    timeout_seconds: float = Field(
        10.0, ge=0.05, le=60, description="For one message, from the connection to the last byte of the answer."
    )
    http_config_file: Path | None = Field(
        None,
        description="Password or token, CA and certificate to show, in the format of `promtool --http.config.file`; read "
        "anew for every message.",
    )
    labels: dict[LabelName, str] = Field(
        {}, max_length=16, description="Labels that every alert gets beside ours, such as the cluster."
    )
    runbooks_url: BaseUrl | None = Field(
        None, description="Where docs/runbooks is published; each alert links to its page there."
    )
    dashboards_url: BaseUrl | None = Field(
        None, description="A Grafana that has our dashboards; each alert links to that of its model."
    )

    @model_validator(mode="after")
    def _foreign(self) -> _ReceiverPart:
        taken = OURS & self.labels.keys()
        if taken:
            msg = f"labels: {min(taken)} is what we say: choose another name"
            raise ValueError(msg)
        return self


class AlertmanagerConfig(_ReceiverPart):
    """An Alertmanager, to which alerts are pushed as Prometheus does. Of a cluster each member is a receiver of its own."""

    kind: Literal["alertmanager"] = Field(description="`alertmanager`: API v2 of an Alertmanager.")
    url: BaseUrl = Field(description="Its address, with the path under which it is served if any.")
    resend_seconds: float = Field(60.0, ge=1, le=3600, description="Time between two tellings of what still stands.")


class WebhookConfig(_ReceiverPart):
    """Anything that takes signed JSON, after the Standard Webhooks specification."""

    kind: Literal["webhook"] = Field(description="`webhook`: signed JSON by POST.")
    url: FixedUrl = Field(description="The whole URL to post to.")
    secret_file: Path = Field(
        description="A file with the secret that signs: `whsec_` and base64 of 24 to 64 random bytes. Two lines sign twice, "
        "while one replaces the other. Read anew for every message."
    )


AnyReceiver = Annotated[AlertmanagerConfig | WebhookConfig, Field(discriminator="kind")]
"""Who is told; `kind` says how."""


def name_of_receiver(receiver: AnyReceiver) -> str:
    """What metrics and the log call it."""
    return receiver.name or urlsplit(receiver.url).netloc


def _check_distinct(receivers: tuple[AnyReceiver, ...]) -> tuple[AnyReceiver, ...]:
    names = [name_of_receiver(receiver) for receiver in receivers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"two receivers are called {twice}: give each a `name`"
        raise ValueError(msg)
    return receivers


Receivers = Annotated[tuple[AnyReceiver, ...], Field(max_length=16), AfterValidator(_check_distinct)]


def rooted(receiver: AnyReceiver, folder: Path) -> AnyReceiver:
    """The same receiver with absolute paths, where they start from `folder`."""
    paths = {
        name: folder / path for name in ("secret_file", "http_config_file") if (path := getattr(receiver, name, None))
    }
    return receiver.model_copy(update=paths)
