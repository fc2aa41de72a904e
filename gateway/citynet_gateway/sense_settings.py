"""Settings of the edge sense: ``[[gateway.sense]]``."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, Field, model_validator

from citynet_gateway import units

PATTERNS_MAX = 64


class SenseSettings(BaseModel, extra="forbid", frozen=True):
    """What is done to the readings of some series before they are kept. The first entry that fits a series counts."""

    metrics: list[str] = Field(
        min_length=1, max_length=PATTERNS_MAX, description="shell patterns of the metrics this is for"
    )
    devices: list[str] = Field(
        ["*"], min_length=1, max_length=PATTERNS_MAX, description="shell patterns of their devices"
    )
    unit_in: str | None = Field(None, description="unit that the device speaks, such as degF, psi or L/min")
    unit_out: str | None = Field(None, description="unit that is kept, such as Cel, kPa or m3/h")
    min: float | None = Field(None, description="below it (in unit_out) a reading is flagged out of range")
    max: float | None = Field(None, description="above it (in unit_out) a reading is flagged out of range")
    stuck_after_s: float = Field(
        0.0, ge=0, le=30 * 86_400, description="the same value for so long is flagged stuck; 0: never"
    )
    deadband: float = Field(
        0.0, ge=0, description="a value is kept when it differs by more than this from the last one kept; 0: off"
    )
    deadband_percent: float = Field(
        0.0, ge=0, le=1_000, description="the same in percent of the last one kept; the wider band counts"
    )
    heartbeat_s: float = Field(
        300.0, ge=1, le=86_400, description="at the latest after so long a value is kept whatever the deadband says"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.unit_in is None) != (self.unit_out is None):
            raise ValueError("unit_in and unit_out stand together")
        if self.unit_in is not None and self.unit_out is not None:
            units.conversion(self.unit_in, self.unit_out)
        numbers = [item for item in (self.min, self.max, self.deadband, self.stuck_after_s) if item is not None]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("min, max, deadband and stuck_after_s must be finite")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError("min must be below max")
        if bad := [item for item in (*self.metrics, *self.devices) if not item or len(item) > 64]:
            raise ValueError(f"patterns have 1 to 64 characters, not {bad[0][:80]!r}")
        return self
