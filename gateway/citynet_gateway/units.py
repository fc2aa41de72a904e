"""Conversions between units that field devices really use, exact to the last bit of a float: pure.

Names are those of SenML's registry (RFC 8428, section 12.1) where it has one, else UCUM's. The factors are the definitions of
the SI brochure and of the international yard and pound agreement, as fractions.
"""

from __future__ import annotations

from fractions import Fraction

# A unit's size in the first unit of its quantity, as text that `Fraction` reads or as a fraction.
_INCH, _POUND, _GRAVITY = Fraction("0.0254"), Fraction("0.45359237"), Fraction("9.80665")
_SIZES: dict[str, dict[str, str | Fraction]] = {
    "temperature": {"K": "1", "Cel": "1", "degF": "5/9"},
    "pressure": {
        "Pa": "1", "hPa": "100", "kPa": "1000", "MPa": "1000000", "mbar": "100", "bar": "100000",
        "psi": _POUND * _GRAVITY / _INCH**2, "mH2O": 1_000 * _GRAVITY, "atm": "101325",
    },
    "length": {"m": "1", "mm": "1/1000", "cm": "1/100", "km": "1000", "in": _INCH, "ft": 12 * _INCH},
    "speed": {"m/s": "1", "km/h": "5/18", "kn": "1852/3600", "mph": 63_360 * _INCH / 3_600},
    "volume": {"m3": "1", "L": "1/1000", "gal": 231 * _INCH**3},
    "flow": {
        "m3/s": "1", "m3/h": "1/3600", "L/s": "1/1000", "L/min": "1/60000", "gal/min": 231 * _INCH**3 / 60,
    },
    "mass": {"kg": "1", "g": "1/1000", "t": "1000", "lb": _POUND},
    "energy": {"J": "1", "kJ": "1000", "MJ": "1000000", "Wh": "3600", "kWh": "3600000"},
    "power": {"W": "1", "kW": "1000", "MW": "1000000"},
    "voltage": {"V": "1", "mV": "1/1000", "kV": "1000"},
    "current": {"A": "1", "mA": "1/1000"},
    "share": {"/": "1", "%": "1/100", "%RH": "1/100", "ppm": "1e-6", "ppb": "1e-9"},
    "concentration": {"kg/m3": "1", "g/m3": "1e-3", "mg/m3": "1e-6", "ug/m3": "1e-9", "mg/L": "1e-3"},
    "duration": {"s": "1", "ms": "1/1000", "min": "60", "h": "3600", "d": "86400"},
}  # fmt: skip
_ZEROS = {"Cel": Fraction("273.15"), "degF": Fraction(45_967, 180)}  # where a unit's zero lies in the first one
# unit: (quantity, factor, offset), so that value x factor + offset is in the quantity's first unit
_UNITS = {
    name: (quantity, Fraction(size), _ZEROS.get(name, Fraction(0)))
    for quantity, sizes in _SIZES.items()
    for name, size in sizes.items()
}


def names() -> list[str]:
    """Every unit there is a conversion for."""
    return list(_UNITS)


def conversion(unit_in: str, unit_out: str) -> tuple[float, float]:
    """(scale, offset), so that ``value * scale + offset`` is in `unit_out`. ValueError says which unit does not fit."""
    for name in (unit_in, unit_out):
        if name not in _UNITS:
            raise ValueError(f"no unit {name[:40]!r} (known: {', '.join(_UNITS)})")
    (quantity, scale_in, offset_in), (other, scale_out, offset_out) = _UNITS[unit_in], _UNITS[unit_out]
    if quantity != other:
        raise ValueError(f"{unit_in} is a {quantity}, {unit_out} a {other}")
    return float(scale_in / scale_out), float((offset_in - offset_out) / scale_out)
