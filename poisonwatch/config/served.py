"""Where a model's server says how much it served, as the configuration says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from poisonwatch.config.endpoint import Url
from poisonwatch.config.part import Part

METRIC = r"^[A-Za-z_:][A-Za-z0-9_:]*$"
LABEL = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _check_fixed(url: str) -> str:
    if "{" in url or "}" in url:
        msg = "one page has the counts of all versions: no placeholders, name the label of the version as version_label"
        raise ValueError(msg)
    return url


class ServedConfig(Part):
    """The server's own count of what it served, on a page in the text format of Prometheus."""

    url: Annotated[Url, AfterValidator(_check_fixed)] = Field(
        description="The page with the server's metrics. Of several servers behind one log: a page with all of them, such as "
        "/federate of a Prometheus."
    )
    metric: str = Field(
        pattern=METRIC, description="Name of the counter as the page has it; all its series that match are summed."
    )
    labels: dict[Annotated[str, Field(pattern=LABEL)], str | tuple[str, ...]] = Field(
        {},
        description="Labels that a series must have to count, such as the model's name and the status of success; a list "
        "means any of its values.",
    )
    version_label: str | None = Field(
        None,
        pattern=LABEL,
        description="Label that names the version as the log does; each is then watched by itself. By default all are one.",
    )
    counts: Literal["predictions", "requests"] = Field(
        "predictions",
        description="`predictions`: the log has one record for each that is counted. `requests`: there may be several or "
        "fewer; the usual ratio is learned for a day, and little is seen meanwhile.",
    )
    delay_seconds: float = Field(
        300.0,
        ge=1,
        le=86400,
        description="How long after it was counted a prediction may take to reach the agent: longer than the server buffers.",
    )
    tolerated_ratio: float = Field(
        0.02, ge=0.0001, le=0.5, description="Share of what is served that may never reach the log without an alert."
    )
    every_seconds: float = Field(15.0, ge=1, le=300, description="Time between two readings.")
    timeout_seconds: float = Field(
        5.0, ge=0.05, le=60, description="For one reading, from the connection to the last byte."
    )
    bearer_token_file: Path | None = Field(
        None, description="A file with a token to send; it is read anew for every reading."
    )

    @model_validator(mode="after")
    def _countable(self) -> ServedConfig:
        if self.version_label is not None and self.counts == "requests":
            msg = "version_label needs `counts: predictions`: the usual ratio is learned of all versions together"
            raise ValueError(msg)
        if self.delay_seconds < 2 * self.every_seconds:
            # A gap longer than the delay is taken for a pause of the agent, after which all that waits gets its delay anew.
            msg = (
                f"delay_seconds ({self.delay_seconds:g}) must be at least twice every_seconds ({self.every_seconds:g}): "
                "raise the one or lower the other, or no loss would ever show"
            )
            raise ValueError(msg)
        return self
