"""AQI of a station or city from its pollutants' means: hourly and daily forms, primary pollutants, missing ones.

AQI is the largest IAQI; the primary pollutants are those that reach it, named only above 50. With a pollutant missing
the index is published only when the rest give more than 100, else there is none (HJ 633-2026, domain reference 2.13,
status P; its three-year exception is not modelled).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from citynet_rules.aqi.table import EDITIONS, Class, class_of

HOURLY = {
    "so2": "so2_1h", "no2": "no2_1h", "co": "co_1h", "o3": "o3_1h", "pm10": "pm10_24h", "pm2_5": "pm2_5_24h",
}  # fmt: skip
"""Column of each pollutant's 1-hour mean; those of particles use the daily column (HJ 633-2026, status P; applied to 2012
as well, status D)."""
DAILY = {
    "so2": "so2_24h", "no2": "no2_24h", "co": "co_24h", "o3": "o3_8h", "pm10": "pm10_24h", "pm2_5": "pm2_5_24h",
}  # fmt: skip
"""Column of each pollutant's daily value: the 24-hour mean, of ozone the day's largest 8-hour mean."""
PUBLISHED_ABOVE = 100
PRIMARY_ABOVE = 50


@dataclass(frozen=True)
class StationIndex:
    """`aqi` None when it must not be published; `iaqi` of the pollutants that have one; `missing` those that have none."""

    aqi: int | None
    iaqi: dict[str, int]
    primary: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def rank(self) -> Class | None:
        """The class, None without an index."""
        return None if self.aqi is None else class_of(self.aqi)


def hourly(means: Mapping[str, float], edition: str = "2026") -> StationIndex:
    """Index of an hour from 1-hour means (keys of `HOURLY`; ug/m3, CO in mg/m3).

    Raises:
        KeyError: unknown edition or pollutant.
    """
    return _index(means, HOURLY, edition)


def daily(means: Mapping[str, float], edition: str = "2026") -> StationIndex:
    """Index of a day; as `hourly`, with the values `DAILY` names."""
    return _index(means, DAILY, edition)


def _index(means: Mapping[str, float], form: Mapping[str, str], edition: str) -> StationIndex:
    columns = EDITIONS[edition].columns
    found = {name: columns[form[name]].iaqi(value) for name, value in means.items()}
    iaqi = {name: int(found[name]) for name in form if name in found and not isnan(found[name])}
    missing = tuple(name for name in form if name not in iaqi)
    top = max(iaqi.values(), default=0)
    if missing and top <= PUBLISHED_ABOVE:
        return StationIndex(None, iaqi, (), missing)
    primary = tuple(name for name, value in iaqi.items() if value == top) if top > PRIMARY_ABOVE else ()
    return StationIndex(top, iaqi, primary, missing)
