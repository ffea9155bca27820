"""What every part of the configuration is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A mapping of the configuration: keys that it does not know are mistakes, and it never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
