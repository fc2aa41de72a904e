"""Section of a utility tunnel: temperature, oxygen, carbon monoxide, H2S, methane, smoke, sump level.

Ground temperature at depth z is the season, damped and delayed: exp(-z/d) of its swing, d = 2.5 m for a year's wave in
usual soil (Carslaw and Jaeger, Conduction of Heat in Solids, 1959, 2.6). A fire of heat release Q warms the ventilated air by
dT = Q / (m c) with the air's mass flow m, takes O2 at 13.1 MJ a kg (Huggett, 1980) and gives CO in proportion. It grows by the
course of its fault. Methane that leaks displaces air, as in a gas well. The sump fills with seepage at a constant rate and is
pumped down at its start level.
"""

from __future__ import annotations

from math import exp, tau
from typing import TYPE_CHECKING

import numpy as np

from citynet_sim import weather
from citynet_sim.kind import Kind
from citynet_sim.kinds.gas_well import LEL_PER_VOL
from citynet_sim.metrics import Metric
from citynet_sim.models import rhythm
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, wander
from citynet_sim.places import tunnel

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

_DEPTH_M, _DAMPING_M = 3.0, 2.5
_YEAR_S = 365.2425 * DAY_S
AIR_KG_S = 12.0  # what ventilation moves through a section in a fire
_AIR_KJ_KG_K = 1.006
_O2_KJ_KG = 13_100.0
_OXYGEN_VOL = 20.9
_O2_VOL_PER_MASS = 28.97 / 32.0  # of air by volume, for a mass share
_CO_MG_M3_PER_KW = 0.35  # a smouldering cable: about 0.04 kg CO a kg, 12 MJ a kg, in 10 m3/s
_SMOKE_DB_M_PER_KW = 0.004
_SUMP_STOP_M, _SUMP_START_M = 0.25, 0.75


def fire(heat_kw: F64) -> tuple[F64, F64, F64, F64]:
    """What a fire of `heat_kw` does to the air: rise in K, loss of O2 in %vol, CO in mg/m3, smoke in dB/m."""
    warming = heat_kw / (AIR_KG_S * _AIR_KJ_KG_K)
    oxygen = 100.0 * _O2_VOL_PER_MASS * heat_kw / _O2_KJ_KG / AIR_KG_S
    return warming, oxygen, _CO_MG_M3_PER_KW * heat_kw, _SMOKE_DB_M_PER_KW * heat_kw


def ground_c(mean_c: float, season_c: float, t_s: F64) -> F64:
    """Temperature of the ground at the tunnel's depth."""
    delay = _DEPTH_M / _DAMPING_M
    angle = tau * (np.mod(t_s, _YEAR_S) / _YEAR_S - 200.0 / 365.2425) - delay
    found: F64 = mean_c + season_c * exp(-delay) * np.cos(angle)
    return found


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    where: weather.Climate = world.climate
    warming, oxygen, co, smoke = fire(world.effect(device, "fire_kw", t_s))
    cables = (2.0 + 3.0 * float(u[0])) * (0.8 + 0.2 * rhythm.demand(t_s))  # their load follows the city's day
    temperature = ground_c(where.mean_c, where.season_c, t_s) + cables + warming
    breath = wander(world.seed, f"air/{device.name}", t_s, 4 * 3600.0)
    leak = world.effect(device, "ch4_lel", t_s)
    methane = 0.3 + 0.3 * float(u[1]) + 0.1 * breath + leak
    remaining = (_OXYGEN_VOL - oxygen) * (1.0 - np.minimum(leak, 100.0) / LEL_PER_VOL / 100.0)
    h2s = np.maximum(0.15 + 0.2 * float(u[2]) + 0.05 * breath, 0.0)
    cycle = np.mod(t_s / ((8.0 + 8.0 * float(u[3])) * 3600.0) + float(u[4]), 1.0)
    share = np.where(cycle < 0.95, cycle / 0.95, (1.0 - cycle) / 0.05)
    sump = _SUMP_STOP_M + (_SUMP_START_M - _SUMP_STOP_M) * share
    return np.stack([temperature, remaining, 0.5 + 0.2 * float(u[5]) + co, h2s, methane, smoke, sump])


KIND = Kind(
    name="tunnel-section",
    domain="tunnel",
    prefix="ut",
    per_100k=1.2,
    place=tunnel,
    metrics=(
        Metric("temperature_c", "Cel", -20.0, 300.0, 10, 0.1, 300.0, drift=0.1),
        Metric("o2_vol", "%", 0.0, 30.0, 100, 0.03, 120.0, drift=0.03),
        Metric("co_mg_m3", "mg/m3", 0.0, 1200.0, 10, 0.3, 60.0, drift=0.1, warm_up=5.0),
        Metric("h2s_mg_m3", "mg/m3", 0.0, 150.0, 100, 0.03, 60.0, drift=0.02, warm_up=1.5),
        Metric("ch4_lel", "%", 0.0, 100.0, 10, 0.1, 60.0, drift=0.1, warm_up=4.0),
        Metric("smoke_db_m", "dB/m", 0.0, 10.0, 1000, 0.002, 30.0, quiet_at_zero=True),
        Metric("sump_level_m", "m", 0.0, 5.0, 1000, 0.003, 20.0),
    ),
    truth=_truth,
)
