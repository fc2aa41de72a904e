"""The four warning colours and their levels, and seconds as event time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Colour = Literal["blue", "yellow", "orange", "red"]
COLOURS: tuple[Colour, ...] = ("blue", "yellow", "orange", "red")
COLOURS_ZH = ("蓝色", "黄色", "橙色", "红色")

DELAY_S_MAX = 30 * 86_400.0  # a delay beyond 30 days is a typing error, not a rule
AGE_S_MAX = 400 * 86_400.0  # readings older than 400 days are not accepted either

Delay = Annotated[float, Field(ge=0, le=DELAY_S_MAX, allow_inf_nan=False)]
Age = Annotated[float, Field(gt=0, le=AGE_S_MAX, allow_inf_nan=False)]


def level_of(colour: Colour) -> int:
    """Level 1 (blue) to 4 (red) of a colour."""
    return COLOURS.index(colour) + 1


def microseconds(seconds: float) -> int:
    """Seconds as whole microseconds, the unit of event time."""
    return round(seconds * 1_000_000)
