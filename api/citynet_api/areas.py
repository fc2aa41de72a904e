"""Which series of the city: by district, bounding box, device and metric."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from citynet_api.paging import Text
from citynet_api.problems import wrong

_SIDES = (("west", 180), ("south", 90), ("east", 180), ("north", 90))
BBOX = Field(None, max_length=128, description="west,south,east,north in degrees, WGS 84, edges included")


def area(district: Text, device: Text, metric: Text, bbox: str | None) -> dict[str, Any]:
    """The parameters of the queries that choose series by area; None is no filter. Problem 422 naming ``bbox``."""
    sides = dict.fromkeys((name for name, _ in _SIDES)) if bbox is None else box(bbox)
    return {"district": district, "device": device, "metric": metric, **sides}


def box(text: str) -> dict[str, float]:
    """The sides of ``west,south,east,north``. A box over the 180th meridian is two requests. Problem 422."""
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != len(_SIDES):
        raise wrong("bbox", f"is west,south,east,north in degrees, such as 117.1,31.7,117.4,31.9 (got {text[:60]!r})")
    for (name, most), value in zip(_SIDES, values, strict=True):
        if not -most <= value <= most:
            raise wrong("bbox", f"{name} is between -{most} and {most} (got {value:g})")
    west, south, east, north = values
    if west > east or south > north:
        raise wrong("bbox", "is west,south,east,north: west not above east, south not above north")
    return {"west": west, "south": south, "east": east, "north": north}
