"""The city's weather, one for all models: temperature, wind and rain, drawn by address so that any moment can be asked for.

Temperature is season, day and passing fronts; wind is log-normal about its mean; rain comes in gentle events on some days.
A scenario adds rain, warmth and wind of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import tau

import numpy as np

from citynet.errors import ConfigError
from citynet_sim.models import rhythm
from citynet_sim.models.reservoir import response
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, uniforms, wander

RUNOFF_S = 1200.0  # time constant of runoff from paved ground into the sewer
RIVER_S = 6 * 3600.0  # and of the river's basin
MEMORY_DAYS = 3  # rain longer ago than this matters to nothing
_PEAK_MM_H = (1.5, 6.0)  # gentle: a calm city's sewers take it
_PROFILE = (0.4, 1.0, 0.7, 0.3)  # of the peak, four pulses of equal length
_YEAR_S = 365.2425 * DAY_S
_WARMEST_S = 200 * DAY_S  # after the new year: the third week of July, in the north


@dataclass(frozen=True, slots=True)
class Climate:
    """Annual mean (°C), half the difference of the warmest and the coldest month, of day and night, and of fronts; rain."""

    mean_c: float
    season_c: float
    day_c: float
    front_c: float
    wet_share: float  # of days with rain
    design_c: float  # heating systems are designed for this outdoor temperature


CLIMATES = {
    "humid-subtropical": Climate(16.5, 12.5, 4.0, 2.5, 0.45, -2.0),
    "continental": Climate(12.5, 15.5, 5.5, 3.0, 0.22, -9.0),
    "cold": Climate(5.0, 20.5, 5.5, 3.5, 0.25, -24.0),
    "tropical": Climate(25.0, 3.0, 4.0, 1.0, 0.5, 10.0),
}


def climate(name: str) -> Climate:
    """The climate of that name. ConfigError if there is none."""
    if name not in CLIMATES:
        raise ConfigError([f"climate {name[:80]!r}: unknown (known: {', '.join(CLIMATES)})"])
    return CLIMATES[name]


@dataclass(frozen=True, slots=True)
class RainPulse:
    """Rain of constant intensity from `start_s` to `end_s` (s since 1970)."""

    start_s: float
    end_s: float
    intensity_mm_h: float


@lru_cache(maxsize=256)
def day_rain(seed: int, day: int, wet_share: float = 0.45) -> tuple[RainPulse, ...]:
    """The calm city's rain that begins on a day (`day` counts days since 1970, UTC)."""
    u = uniforms(seed, "weather", day, 4)
    if u[0] >= wet_share:
        return ()
    start = (day + 0.8 * float(u[1])) * DAY_S
    length = 1800.0 + 1800.0 * float(u[2])
    peak = _PEAK_MM_H[0] + (_PEAK_MM_H[1] - _PEAK_MM_H[0]) * float(u[3])
    return tuple(
        RainPulse(start + k * length, start + (k + 1) * length, share * peak) for k, share in enumerate(_PROFILE)
    )


def pulses_around(seed: int, t_s: F64, wet_share: float = 0.45) -> list[RainPulse]:
    """All calm-weather pulses that matter for the moments `t_s`: those of its days and of the days before."""
    first, last = int(t_s.min() // DAY_S) - MEMORY_DAYS, int(t_s.max() // DAY_S)
    return [pulse for day in range(first, last + 1) for pulse in day_rain(seed, day, wet_share)]


def intensity(pulses: list[RainPulse], t_s: F64) -> F64:
    """Rain intensity in mm/h, shape of `t_s`."""
    rain = np.zeros_like(t_s)
    for pulse in pulses:
        rain += pulse.intensity_mm_h * ((t_s >= pulse.start_s) & (t_s < pulse.end_s))
    return rain


def runoff(pulses: list[RainPulse], t_s: F64, constant_s: float = RUNOFF_S) -> F64:
    """Runoff in mm/h over the catchment, by superposition of the pulses' responses; shape of `t_s`.

    A pulse is forgotten `MEMORY_DAYS` after its end: whichever moments are asked for together, each hears of the same rain.
    """
    flow = np.zeros_like(t_s)
    for pulse in pulses:
        part = response(t_s, pulse.start_s, pulse.end_s, constant_s, constant_s)
        flow += pulse.intensity_mm_h * np.where(t_s < pulse.end_s + MEMORY_DAYS * DAY_S, part, 0.0)
    return flow


def temperature_c(seed: int, where: Climate, t_s: F64, lat_deg: float = 30.0) -> F64:
    """Air temperature in °C; the seasons are the other way round in the south."""
    turn = 0.0 if lat_deg >= 0 else tau / 2
    season = np.cos(tau * (np.mod(t_s, _YEAR_S) - _WARMEST_S) / _YEAR_S + turn)
    clear = 1.0 + 0.3 * wander(seed, "sky", t_s, DAY_S)  # clear days swing more
    front = wander(seed, "front", t_s, 2.5 * DAY_S)
    found: F64 = (
        where.mean_c + where.season_c * season + where.day_c * clear * rhythm.warmth(t_s) + where.front_c * front
    )
    return found


def wind_m_s(seed: int, t_s: F64) -> F64:
    """Wind speed in m/s: log-normal about 2.3 m/s, livelier in the afternoon."""
    breeze = np.exp(0.4 * wander(seed, "wind", t_s, 8 * 3600.0)) * (1.0 + 0.25 * rhythm.warmth(t_s))
    found: F64 = 2.3 * breeze
    return found
