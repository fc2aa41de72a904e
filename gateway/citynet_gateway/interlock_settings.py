"""Settings of the interlocks: ``[[gateway.interlocks]]``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from citynet.ids import is_id

INTERLOCKS_MAX = 64


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


_Id = Annotated[str, AfterValidator(_identifier)]


class InterlockSettings(BaseModel, extra="forbid", frozen=True):
    """A limit that switches an output on the gateway itself, with or without a link.

    Tripped is the safe side: the output has `trip`. Released, it has the opposite.
    """

    name: _Id = Field(description="name in records, in the status, and for the command that resets it")
    device: _Id = Field(description="device of the reading that is watched")
    metric: _Id = Field(description="its metric; the limit is in the unit after [[gateway.sense]]")
    output: _Id = Field(description="name of the output that is switched")
    trip: bool = Field(True, description="what the output is set to when tripped; released it gets the opposite")
    above: float | None = Field(None, description="trips above this value")
    below: float | None = Field(None, description="trips below this value; one of above and below must be set")
    hysteresis: float = Field(0.0, ge=0, description="so far back within the limit the value must come to be clear")
    on_delay_s: float = Field(0.0, ge=0, le=3_600, description="how long the value must be beyond the limit to trip")
    off_delay_s: float = Field(0.0, ge=0, le=86_400, description="how long it must be clear again to release")
    min_on_s: float = Field(1.0, ge=0.1, le=86_400, description="shortest time tripped; bounds flapping")
    min_off_s: float = Field(0.0, ge=0, le=3_600, description="shortest time released; it delays a trip")
    stale_after_s: float = Field(
        60.0, ge=0.1, le=86_400, description="a reading older than this is none, and silence for so long is stale"
    )
    on_stale: Literal["trip", "hold", "release"] = Field("trip", description="what a stale input does")
    on_start: Literal["trip", "release"] = Field("trip", description="state from the start to the first reading")
    on_stop: Literal["trip", "hold"] = Field("trip", description="what a stop of the gateway does")
    latch: bool = Field(False, description="stay tripped until a person resets it (command interlock-reset)")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("one of above and below must be set, and not both")
        limit = self.above if self.above is not None else self.below
        if limit is None or not math.isfinite(limit) or not math.isfinite(self.hysteresis):
            raise ValueError("above, below and hysteresis must be finite")
        return self


def problem(interlocks: Sequence[InterlockSettings], outputs: Sequence[str]) -> str:
    """What is wrong with them together, and with the `outputs` that there are; empty if nothing."""
    names = [item.name for item in interlocks]
    if missing := [item for item in interlocks if item.output not in outputs]:
        return f"interlocks: {missing[0].name}: no output is called {missing[0].output}"
    if twice := [name for name in names if names.count(name) > 1]:
        return f"interlocks: the name {twice[0]} stands twice"
    for item in interlocks:
        if any(other.output == item.output and other.trip != item.trip for other in interlocks):
            return f"interlocks: those of output {item.output} must agree on trip"
    return ""
