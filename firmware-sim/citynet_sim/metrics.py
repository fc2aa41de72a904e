"""What the city's sensors measure: names, units, ranges and how each instrument distorts the truth.

Units are UCUM codes. ``%`` carries no basis in UCUM, so the basis is in the metric's name (``ch4_lel``,
``o2_vol``). Ranges are those of common field instruments; noise figures are typical of the instrument class,
not of one product.
"""

from __future__ import annotations

from dataclasses import dataclass

GAS_WELL = "gas-well"
WATER_METER = "water-meter"
MANHOLE = "manhole"
PUMP_STATION = "pump-station"
KINDS = (GAS_WELL, WATER_METER, MANHOLE, PUMP_STATION)
DOMAIN_OF_KIND = {GAS_WELL: "gas", WATER_METER: "water", MANHOLE: "drainage", PUMP_STATION: "drainage"}
PREFIX_OF_KIND = {GAS_WELL: "gas", WATER_METER: "dma", MANHOLE: "mh", PUMP_STATION: "ps"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity of a device.

    A reading is a whole number of steps of ``1 / steps_per_unit`` inside ``low``..``high``. Noise is an AR(1)
    process of standard deviation `sigma` (in the metric's unit) and correlation time `tau_s`; where
    `quiet_at_zero`, a true zero is reported as zero (a dry gauge is silent), because the instrument has a
    dead band there.
    """

    name: str
    unit: str
    low: float
    high: float
    steps_per_unit: int
    sigma: float
    tau_s: float
    quiet_at_zero: bool = False


_BATTERY = Metric("battery_pct", "%", 0.0, 100.0, 1, 0.2, 3600.0)

METRICS_OF_KIND: dict[str, tuple[Metric, ...]] = {
    GAS_WELL: (
        Metric("ch4_lel", "%", 0.0, 100.0, 10, 0.12, 60.0),
        Metric("gas_pressure_kpa", "kPa", 0.0, 10.0, 1000, 0.008, 120.0),
        Metric("h2s_mg_m3", "mg/m3", 0.0, 150.0, 100, 0.03, 60.0),
        Metric("o2_vol", "%", 0.0, 30.0, 100, 0.03, 120.0),
        _BATTERY,
    ),
    WATER_METER: (
        Metric("water_pressure_mpa", "MPa", 0.0, 1.6, 10_000, 0.0015, 30.0),
        Metric("water_flow_m3_h", "m3/h", 0.0, 500.0, 100, 0.9, 90.0),
        Metric("turbidity_ntu", "[NTU]", 0.0, 100.0, 1000, 0.015, 600.0),
        Metric("chlorine_mg_l", "mg/L", 0.0, 5.0, 1000, 0.008, 600.0),
        _BATTERY,
    ),
    MANHOLE: (
        Metric("level_m", "m", 0.0, 7.0, 1000, 0.004, 60.0),
        Metric("ponding_cm", "cm", 0.0, 200.0, 10, 0.25, 30.0, quiet_at_zero=True),
        Metric("cover_tilt_deg", "deg", 0.0, 180.0, 10, 0.06, 300.0),
        _BATTERY,
    ),
    PUMP_STATION: (
        Metric("sump_level_m", "m", 0.0, 5.0, 1000, 0.004, 20.0),
        Metric("pump_current_a", "A", 0.0, 200.0, 10, 0.35, 10.0, quiet_at_zero=True),
        Metric("rain_mm_h", "mm/h", 0.0, 400.0, 10, 0.03, 60.0, quiet_at_zero=True),
    ),
}
