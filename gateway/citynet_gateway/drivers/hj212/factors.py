"""What HJ 212-2017 calls factors (its appendix B) and what we call them; what its data flags mean as quality. Pure.

A metric is the factor's name, the period and kind of the value, and the unit last: ``cod_mg_l`` (real time),
``cod_hour_avg_mg_l``, ``cod_day_total_kg``. A factor that is not in the table keeps its code as name. Units are
those of the standard; a station that sends others gets a factor of its own in the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from citynet.quality import BAD, GOOD, OUT_OF_RANGE, SUBSTITUTED, TEST, UNCERTAIN

REAL_TIME = "2011"
PERIODS: Mapping[str, str] = {REAL_TIME: "", "2021": "", "2031": "day", "2041": "day", "2051": "minute", "2061": "hour"}

QUALITY_OF_FLAG: Mapping[str, int] = {
    "N": GOOD,  # instrument works
    "F": BAD,  # instrument stopped
    "M": BAD | TEST,  # maintenance
    "S": UNCERTAIN | SUBSTITUTED,  # set by hand
    "D": BAD,  # instrument fault
    "C": BAD | TEST,  # calibration
    "T": UNCERTAIN | OUT_OF_RANGE,  # above the measuring range
    "B": BAD,  # no communication with the instrument
    "P": BAD,  # power failure (2005)
    "0": BAD | TEST,  # air stations, 2005: calibration
    "1": GOOD,  # … weather
    "2": BAD,  # … abnormal
    "3": GOOD,  # … normal
}


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor's name and unit here; `total_unit` is that of its sum over a period (Cou). Values are multiplied by `scale`."""

    metric: str
    unit: str = ""
    total_unit: str = ""
    scale: float = 1.0


def quality_of(flag: str) -> int:
    """Quality code of a factor's Flag; none at all is good, an unknown one uncertain."""
    return QUALITY_OF_FLAG.get(flag.upper(), UNCERTAIN) if flag else GOOD


@lru_cache(4_096)  # a station says the same all its life
def metric_of(factor: Factor, period: str, field: str) -> str:
    """The metric of one value. `field` is the standard's name: ``Rtd``, ``Avg``, ``ZsMin``, ``Cou`` …"""
    kind, unit = field.lower(), factor.unit
    if kind.startswith("zs"):  # converted to standard oxygen content
        kind = f"zs_{kind[2:]}".removesuffix("_rtd")
    elif kind == "rtd":
        kind = ""
    elif kind == "cou":
        kind, unit = "total", factor.total_unit
    elif kind in ("rs", "rt"):  # running state, running time: not in the factor's unit
        unit = "h" if kind == "rt" else ""
    return "_".join(part for part in (factor.metric, period, kind, unit) if part)


def _table(unit: str, total_unit: str, names: Iterable[tuple[str, str]]) -> dict[str, Factor]:
    return {code: Factor(name, unit, total_unit) for code, name in names}


FACTORS: Mapping[str, Factor] = {
    "w00000": Factor("sewage_flow", "l_s", "m3"),
    "w01001": Factor("ph"),
    "w01003": Factor("turbidity", "ntu"),
    "w01009": Factor("dissolved_oxygen", "mg_l"),
    "w01010": Factor("water_temperature", "c"),
    "w01014": Factor("conductivity", "us_cm"),
    **_table(
        "mg_l",
        "kg",
        (
            ("w01012", "suspended_solids"), ("w01017", "bod5"), ("w01018", "cod"), ("w01019", "permanganate_index"),
            ("w01020", "toc"), ("w21001", "total_nitrogen"), ("w21003", "nh3_n"), ("w21011", "total_phosphorus"),
            ("w22001", "petroleum"), ("w23002", "volatile_phenol"),
        ),
    ),
    "a00000": Factor("waste_gas_flow", "m3_s", "m3"),
    "a01001": Factor("air_temperature", "c"),
    "a01002": Factor("humidity", "pct"),
    "a01006": Factor("air_pressure", "kpa"),
    "a01007": Factor("wind_speed", "m_s"),
    "a01008": Factor("wind_direction", "deg"),
    "a01011": Factor("flue_gas_speed", "m_s"),
    "a01012": Factor("flue_gas_temperature", "c"),
    "a01013": Factor("flue_gas_pressure", "kpa"),
    "a01014": Factor("flue_gas_humidity", "pct"),
    "a19001": Factor("o2", "vol"),
    **_table(
        "mg_m3",
        "kg",
        (
            ("a05024", "o3"), ("a21002", "nox"), ("a21003", "no"), ("a21004", "no2"), ("a21005", "co"),
            ("a21024", "hcl"), ("a21026", "so2"), ("a21028", "h2s"), ("a24088", "nmhc"), ("a34001", "tsp"),
            ("a34002", "pm10"), ("a34004", "pm2_5"), ("a34013", "smoke"),
        ),
    ),
    **_table(
        "db",
        "",
        (
            ("LA", "noise_la"), ("Leq", "noise_leq"), ("Ldn", "noise_ldn"), ("Ld", "noise_ld"), ("Ln", "noise_ln"),
            ("L5", "noise_l5"), ("L10", "noise_l10"), ("L50", "noise_l50"), ("L90", "noise_l90"), ("L95", "noise_l95"),
            ("LMx", "noise_max"), ("LMn", "noise_min"),
        ),
    ),
}  # fmt: skip
