"""Which files a city is read from: an EPANET network, assets as GeoJSON. In `[sim.city.files]`, or `[city]` of a scenario."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, model_validator


class CityFiles(BaseModel, extra="forbid", frozen=True):
    """Files that a city is read from, and where the network's coordinates lie."""

    inp: str = Field(default="", description="EPANET .inp file: the water network with its meters and pressure points")
    geojson: str = Field(default="", description="GeoJSON file: districts, and the devices of the kinds it names")
    coordinates: str = Field(
        default="wgs84",
        pattern=r"^(wgs84|local)$",
        description="of the .inp file: wgs84 (degrees, x is longitude), or local (a plane with x to the east)",
    )
    unit_m: float = Field(default=1.0, gt=0.0, le=100_000.0, description="metres in a unit of local coordinates")
    origin_lon_deg: float | None = Field(
        default=None, ge=-180.0, le=180.0, description="longitude of x = y = 0; unset: the city's centre is the middle"
    )
    origin_lat_deg: float | None = Field(default=None, ge=-80.0, le=80.0, description="latitude of x = y = 0")

    @model_validator(mode="after")
    def _whole_origin(self) -> CityFiles:
        if (self.origin_lon_deg is None) != (self.origin_lat_deg is None):
            raise ValueError("origin_lon_deg and origin_lat_deg go together")
        return self

    @property
    def is_given(self) -> bool:
        """Whether there is any file."""
        return bool(self.inp or self.geojson)

    def beside(self, folder: Path) -> CityFiles:
        """The same with paths that are not absolute taken from `folder`."""
        changes = {key: str(folder / path) for key in ("inp", "geojson") if (path := getattr(self, key))}
        return self.model_copy(update=changes)
