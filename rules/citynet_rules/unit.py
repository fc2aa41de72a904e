"""Units of measure: the part of UCUM that a city's sensors need, as exact factors and dimensions.

A unit is a product of powers of atoms: ``mg/m3``, ``L/s``, ``kW.h``, ``/min``, ``1``. Annotations in braces are
discarded, as UCUM asks (``%{vol}`` is ``%``). Metric atoms take the prefixes n, u, m, c, d, h, k, M, G. ``Cel`` stands
alone, because its zero is not that of the kelvin. Degrees of angle, turbidity, pH, decibels and the explosive limit are
dimensions of their own: nothing turns one into another. Source: UCUM 2.1, and the domain reference, 2.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

Dimension = tuple[tuple[str, Fraction], ...]
"""Powers of base units, by name; a power of 0 is left out."""

LENGTH_MAX = 64
_PREFIXES = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "c": Fraction(1, 100), "d": Fraction(1, 10),
    "h": Fraction(100), "k": Fraction(1000), "M": Fraction(10**6), "G": Fraction(10**9),
}  # fmt: skip
_METRIC: dict[str, tuple[Fraction, dict[str, int]]] = {
    "m": (Fraction(1), {"m": 1}),
    "g": (Fraction(1, 1000), {"kg": 1}),
    "s": (Fraction(1), {"s": 1}),
    "A": (Fraction(1), {"A": 1}),
    "K": (Fraction(1), {"K": 1}),
    "mol": (Fraction(1), {"mol": 1}),
    "Hz": (Fraction(1), {"s": -1}),
    "N": (Fraction(1), {"kg": 1, "m": 1, "s": -2}),
    "Pa": (Fraction(1), {"kg": 1, "m": -1, "s": -2}),
    "bar": (Fraction(10**5), {"kg": 1, "m": -1, "s": -2}),
    "J": (Fraction(1), {"kg": 1, "m": 2, "s": -2}),
    "W": (Fraction(1), {"kg": 1, "m": 2, "s": -3}),
    "V": (Fraction(1), {"kg": 1, "m": 2, "s": -3, "A": -1}),
    "Ohm": (Fraction(1), {"kg": 1, "m": 2, "s": -3, "A": -2}),
    "S": (Fraction(1), {"kg": -1, "m": -2, "s": 3, "A": 2}),
    "L": (Fraction(1, 1000), {"m": 3}),
    "l": (Fraction(1, 1000), {"m": 3}),
    "t": (Fraction(1000), {"kg": 1}),
}
_PLAIN: dict[str, tuple[Fraction, dict[str, int]]] = {
    "1": (Fraction(1), {}),
    "%": (Fraction(1, 100), {}),
    "[ppth]": (Fraction(1, 1000), {}),
    "[ppm]": (Fraction(1, 10**6), {}),
    "[ppb]": (Fraction(1, 10**9), {}),
    "min": (Fraction(60), {"s": 1}),
    "h": (Fraction(3600), {"s": 1}),
    "d": (Fraction(86_400), {"s": 1}),
    "wk": (Fraction(604_800), {"s": 1}),
    "deg": (Fraction(1), {"deg": 1}),
    "[NTU]": (Fraction(1), {"NTU": 1}),
    "NTU": (Fraction(1), {"NTU": 1}),
    "[pH]": (Fraction(1), {"pH": 1}),
    "dB": (Fraction(1), {"dB": 1}),
    "dB[SPL]": (Fraction(1), {"dB": 1}),
    "%LEL": (Fraction(1), {"LEL": 1}),
}
_ANNOTATION = re.compile(r"\{[^{}]*\}")
_TERM = re.compile(r"(.*?)([+-]?\d{1,2})?$")


class UnitError(ValueError):
    """A unit that is not understood, or two that do not fit."""


@dataclass(frozen=True, slots=True)
class Unit:
    """value in base units = value · `factor` + `offset`."""

    factor: Fraction
    dimension: Dimension
    offset: Fraction = Fraction(0)


ONE = Unit(Fraction(1), ())


@cache
def parse(text: str) -> Unit:
    """The unit that `text` names.

    Raises:
        UnitError: unknown, too long, or ``Cel`` within a product.
    """
    if len(text) > LENGTH_MAX:
        raise UnitError(f"unit {text[:20]!r}… is longer than {LENGTH_MAX} characters")
    plain = _ANNOTATION.sub("", text)
    if plain == "Cel":
        return Unit(Fraction(1), (("K", Fraction(1)),), Fraction("273.15"))
    factor, powers = Fraction(1), dict[str, Fraction]()
    for sign, term in _terms(plain, text):
        size, base = _term(term, text)
        factor *= size**sign
        for name, power in base.items():
            powers[name] = powers.get(name, Fraction(0)) + sign * power
    return Unit(factor, dimension_of(powers))


def _terms(plain: str, text: str) -> list[tuple[int, str]]:
    """Terms with +1 before which a dot stood, −1 before which a slash stood."""
    if not plain and text:
        return []  # nothing but an annotation: UCUM's ``{count}`` is 1
    parts = re.split(r"([./])", plain)
    if parts[0] == "" and len(parts) > 1 and parts[1] == "/":
        parts = ["1", *parts[1:]]
    if "" in parts:
        raise UnitError(f"unit {text!r} is not understood")
    return [(-1 if number and parts[number - 1] == "/" else 1, parts[number]) for number in range(0, len(parts), 2)]


def _term(term: str, text: str) -> tuple[Fraction, dict[str, int]]:
    found = _PLAIN.get(term) or _METRIC.get(term)
    if found is not None:
        return found
    match = _TERM.fullmatch(term)
    symbol, power = (match[1], int(match[2] or 1)) if match else (term, 1)
    found = _PLAIN.get(symbol) or _METRIC.get(symbol)
    if found is None and symbol[:1] in _PREFIXES and symbol[1:] in _METRIC:
        size, base = _METRIC[symbol[1:]]
        found = (size * _PREFIXES[symbol[0]], base)
    if found is None:
        hint = "; Cel stands alone" if symbol == "Cel" else ""
        raise UnitError(f"unit {text!r}: {symbol or term!r} is not known{hint}")
    size, base = found
    return size**power, {name: exponent * power for name, exponent in base.items()}


def dimension_of(powers: dict[str, Fraction]) -> Dimension:
    """Powers in order of their names, without zeros."""
    return tuple((name, power) for name, power in sorted(powers.items()) if power)


def product(one: Dimension, other: Dimension, sign: int = 1) -> Dimension:
    """Dimension of a product, or of a quotient (`sign` −1)."""
    powers = dict(one)
    for name, power in other:
        powers[name] = powers.get(name, Fraction(0)) + sign * power
    return dimension_of(powers)


def power(one: Dimension, exponent: Fraction) -> Dimension:
    """Dimension of a power."""
    return tuple((name, exponent * of) for name, of in one) if exponent else ()


def named(dimension: Dimension) -> str:
    """A dimension for people, in base units: ``kg.m-1.s-2``."""
    return ".".join(f"{name}{'' if of == 1 else of}" for name, of in dimension) or "1"
