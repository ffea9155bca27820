"""What may be asked of an endpoint, and how often, as the configuration says it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from poisonwatch.config.part import Part


class GoldenConfig(Part):
    """Verified inputs that every running version is asked again and again."""

    path: Path = Field(
        description="JSON lines, plain or .gz: native records, each with a `label` that a person verified."
    )
    every_seconds: float = Field(
        3600.0, ge=60, le=604_800, description="How long after the start of a replay the next one starts."
    )


class ProbesConfig(Part):
    """Bounds on what is asked of an endpoint."""

    per_minute: float = Field(60.0, gt=0, le=100_000, description="Questions a minute, of whichever purpose.")
    per_trigger: int = Field(
        120,
        ge=20,
        le=10_000,
        description="Questions to test one trigger in one version with; half of them are controls.",
    )
    triggers_per_hour: int = Field(10, ge=1, le=1000, description="Triggers whose tests begin within an hour.")
