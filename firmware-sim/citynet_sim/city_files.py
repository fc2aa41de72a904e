"""Which files a city is read from: an EPANET network, assets as GeoJSON. In `[sim.city.files]`, or `[city]` of a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

Degrees = Annotated[tuple[float, float], Field(description="longitude, latitude, WGS 84")]


class CityFiles(BaseModel, extra="forbid", frozen=True):
    """Files that a city is read from, and where the network's coordinates lie."""

    inp: str = Field(default="", description="EPANET .inp file: the water network with its meters and pressure points")
    geojson: str = Field(default="", description="GeoJSON file: districts, and the devices of the kinds it names")
    coordinates: Literal["wgs84", "local"] = Field(
        default="wgs84",
        description="of the .inp file: degrees of longitude and latitude, or a plane with x to the east",
    )
    unit_m: float = Field(default=1.0, gt=0.0, le=100_000.0, description="metres in a unit of local coordinates")
    origin_deg: Degrees | None = Field(
        default=None,
        description="longitude and latitude of x = y = 0; unset: the middle of the network is the centre of the city",
    )

    def beside(self, folder: Path) -> CityFiles:
        """The same with paths that are not absolute taken from `folder`."""
        changes = {key: str(folder / path) for key in ("inp", "geojson") if (path := getattr(self, key))}
        return self.model_copy(update=changes)
