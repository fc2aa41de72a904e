"""Rain: gentle events on some days, drawn by day, so that any moment can be asked for without its past."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from citynet_sim.models.drainage import RUNOFF_S
from citynet_sim.models.reservoir import response
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, uniforms

_DAY_WITH_RAIN = 0.45
_PEAK_MM_H = (1.5, 6.0)  # gentle: a calm city's sewers take it
_PROFILE = (0.4, 1.0, 0.7, 0.3)  # of the peak, four pulses of equal length


@dataclass(frozen=True, slots=True)
class RainPulse:
    """Rain of constant intensity from `start_s` to `end_s` (s since 1970)."""

    start_s: float
    end_s: float
    intensity_mm_h: float


@lru_cache(maxsize=256)
def day_rain(seed: int, day: int) -> tuple[RainPulse, ...]:
    """The calm city's rain that begins on a day (`day` counts days since 1970, UTC)."""
    u = uniforms(seed, "weather", day, 4)
    if u[0] >= _DAY_WITH_RAIN:
        return ()
    start = (day + 0.8 * float(u[1])) * DAY_S
    length = 1800.0 + 1800.0 * float(u[2])
    peak = _PEAK_MM_H[0] + (_PEAK_MM_H[1] - _PEAK_MM_H[0]) * float(u[3])
    return tuple(
        RainPulse(start + k * length, start + (k + 1) * length, share * peak) for k, share in enumerate(_PROFILE)
    )


def pulses_around(seed: int, t_s: F64) -> list[RainPulse]:
    """All calm-weather pulses that matter for the moments `t_s`: those of its days and of the day before."""
    first, last = int(t_s.min() // DAY_S) - 1, int(t_s.max() // DAY_S)
    return [pulse for day in range(first, last + 1) for pulse in day_rain(seed, day)]


def intensity(pulses: list[RainPulse], t_s: F64) -> F64:
    """Rain intensity in mm/h, shape of `t_s`."""
    rain = np.zeros_like(t_s)
    for pulse in pulses:
        rain += pulse.intensity_mm_h * ((t_s >= pulse.start_s) & (t_s < pulse.end_s))
    return rain


def runoff(pulses: list[RainPulse], t_s: F64) -> F64:
    """Runoff in mm/h over the catchment, by superposition of the pulses' responses; shape of `t_s`."""
    flow = np.zeros_like(t_s)
    for pulse in pulses:
        flow += pulse.intensity_mm_h * response(t_s, pulse.start_s, pulse.end_s, RUNOFF_S, RUNOFF_S)
    return flow
