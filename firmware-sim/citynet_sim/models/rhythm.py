"""How a city's day goes: the rhythm of water use and of temperature, in local time (UTC+8).

Two harmonics give the two-peaked domestic day: about 0.39 of the mean at 03:00, peaks at 08:00 and 20:00,
peak factor 1.4. The shape follows the usual diurnal patterns of distribution design; the coefficients are
this project's choice.
"""

from __future__ import annotations

from math import tau

import numpy as np

from citynet_sim.noise import F64

DAY_S = 86_400.0
LOCAL_OFFSET_S = 8 * 3600.0
_FIRST = 0.35  # amplitude of the daily harmonic, highest at 15:00
_FIRST_PEAK_S = 15 * 3600.0
_SECOND = 0.30  # amplitude of the twelve-hour harmonic, highest at 08:00 and 20:00
_SECOND_PEAK_S = 8 * 3600.0
_WEEKEND = 0.03  # more use at home at the weekend; the Unix epoch was a Thursday, so 2.5 days later it is Sunday 0:00


def demand(t_s: F64) -> F64:
    """Water use relative to its mean; `t_s` seconds since 1970 (UTC); dimensionless, mean 1 over a week."""
    local = t_s + LOCAL_OFFSET_S
    day = _FIRST * np.cos(tau * (local - _FIRST_PEAK_S) / DAY_S)
    half = _SECOND * np.cos(2 * tau * (local - _SECOND_PEAK_S) / DAY_S)
    week = _WEEKEND * np.cos(tau * (local / DAY_S - 2.5) / 7.0)
    return 1.0 + day + half + week


def demand_integral_s(t_s: F64) -> F64:
    """Integral of `demand` without its weekly part, in seconds of mean use, up to a constant."""
    local = t_s + LOCAL_OFFSET_S
    day = _FIRST * DAY_S / tau * np.sin(tau * (local - _FIRST_PEAK_S) / DAY_S)
    half = _SECOND * DAY_S / (2 * tau) * np.sin(2 * tau * (local - _SECOND_PEAK_S) / DAY_S)
    return t_s + day + half


def warmth(t_s: F64) -> F64:
    """Daily course of temperature, -1..1, warmest at 15:00 local time."""
    warm: F64 = np.cos(tau * (t_s + LOCAL_OFFSET_S - _FIRST_PEAK_S) / DAY_S)
    return warm


def battery(t_s: F64, life_days: float, phase: float) -> F64:
    """State of charge in percent: 96 down to 56 over `life_days`, then the battery is changed; `phase` 0..1."""
    used = np.mod(t_s / (DAY_S * life_days) + phase, 1.0)
    return 96.0 - 40.0 * used
