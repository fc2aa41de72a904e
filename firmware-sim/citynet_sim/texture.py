"""How like a real town's a series is: autocorrelation, night-to-mean ratio, peak factor, missing share, weeks that differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citynet_sim.city import City
from citynet_sim.kinds import KINDS
from citynet_sim.models.rhythm import DAY_S, LOCAL_OFFSET_S
from citynet_sim.noise import F64
from citynet_sim.simulation import Simulation

STEP_S = 300.0
WEEKS = 3
START_US = 1_778_947_200_000_000  # 2026-05-17 00:00 in UTC+8, a Sunday
_WINTER_US = 1_768_060_800_000_000  # 2026-01-11 00:00 in UTC+8, a Sunday
_SEASON = {"heat-station": _WINTER_US}  # it stands still when nobody heats
_DEVICES_MAX = 3  # of a kind that are looked at
_NIGHT_H = (2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Texture:
    """Figures of one series. Autocorrelations at an hour, a day, a week; flow in the night (02:00-04:00) over the mean; highest
    hour over the mean of its day; share of samples that are missing; standard deviation of weekly means over their mean."""

    hour: float
    day: float
    week: float
    night_to_mean: float
    peak_factor: float
    missing_share: float
    weekly_change: float


def autocorrelation(values: F64, lag: int) -> float:
    """Of an evenly spaced series at `lag` steps; pairs with a missing (NaN) side are left out; 0 for a constant."""
    a, b = values[:-lag], values[lag:]
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both] - np.nanmean(values), b[both] - np.nanmean(values)
    scale = float(np.nanvar(values))
    return float((a * b).mean() / scale) if scale > 0.0 else 0.0


def texture(values: F64) -> Texture:
    """Of whole days of a series at `STEP_S` from local midnight on; NaN where a sample is missing."""
    per_hour, per_day = int(3600 / STEP_S), int(DAY_S / STEP_S)
    days = values.reshape(-1, per_day)
    mean = float(np.nanmean(values))
    night = days[:, int(_NIGHT_H[0] * per_hour) : int(_NIGHT_H[1] * per_hour)]
    hours = _means(days.reshape(len(days), -1, per_hour))
    weeks = np.nanmean(values[: 7 * per_day * (len(days) // 7)].reshape(-1, 7 * per_day), axis=1)
    return Texture(
        autocorrelation(values, per_hour), autocorrelation(values, per_day), autocorrelation(values, 7 * per_day),
        _over(float(np.nanmean(night)), mean), _peak_factor(hours),
        float(np.isnan(values).mean()), _over(float(np.std(weeks)), mean),
    )  # fmt: skip


def _means(values: F64) -> F64:
    """Means over the last axis without what is missing; NaN where all is missing."""
    there = ~np.isnan(values)
    count = there.sum(axis=-1)
    return np.where(count > 0, np.where(there, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def _peak_factor(hours: F64) -> float:
    """Highest hour over the mean of its day, the mean of all days with any flow; `hours` is (days, 24)."""
    mean = np.nanmean(hours, axis=1)
    some = mean > 0.0
    return float((np.nanmax(hours, axis=1)[some] / mean[some]).mean()) if some.any() else 0.0


def _over(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def series(simulation: Simulation, kind: str, number: int, metric: str, weeks: int = WEEKS) -> F64:
    """`weeks` of one series at `STEP_S`, on the grid of its steps; NaN where a sample is missing."""
    device = simulation.city.of_kind(kind)[number]
    start_us = _SEASON.get(kind, START_US)
    found = simulation.span(device, start_us, start_us + round(weeks * 7 * DAY_S * 1e6))
    values = np.full(int(weeks * 7 * DAY_S / STEP_S), np.nan)
    slot = np.clip((found.at_us - start_us) / 1e6 // STEP_S, 0, len(values) - 1).astype(np.int64)
    values[slot] = found.values[KINDS[kind].row(metric)]
    return values


def of_city(city: City) -> list[dict[str, object]]:
    """Texture of the metric of every kind that says most (`FLOW`, else its first): the mean over a few devices, rounded."""
    simulation = Simulation(city, (), dict.fromkeys(KINDS, round(STEP_S * 1000)))
    rows: list[dict[str, object]] = []
    for kind in KINDS.values():
        count = min(len(city.of_kind(kind.name)), _DEVICES_MAX)
        metric = FLOW.get(kind.name, kind.metrics[0].name)
        if count:
            figures = [texture(series(simulation, kind.name, k, metric)) for k in range(count)]
            means = {name: round(float(np.mean([getattr(f, name) for f in figures])), 3) for name in Texture.__slots__}
            rows.append({"kind": kind.name, "metric": metric, **means})
    return rows


FLOW = {"water-meter": "water_flow_m3_h", "heat-station": "heat_power_kw", "bridge": "accel_rms_mm_s2"}

assert LOCAL_OFFSET_S == 8 * 3600.0  # noqa: S101  (START_US is midnight there)
