"""Expressions of derived metrics: whatever is written is a formula or an error with its column; units decide, and convert."""

from __future__ import annotations

from fractions import Fraction
from math import isclose, isfinite
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from citynet_rules import unit
from citynet_rules.evaluate import evaluate, named
from citynet_rules.expression import ExpressionError, compile_

from .rules_streams import law

UNITS = {"flow": "m3/h", "level": "cm", "pressure": "kPa", "share": "%", "count": "1"}
OTHER = {"flow": "L/s", "level": "m", "pressure": "bar", "share": "1", "count": "%"}
TOKENS = [
    "flow", "level", "share", "count", "nobody", "1", "2.5", "1e3", "[m3/h]", "[s]", "[furlong]", "+", "-", "*", "/", "**", "<",
    ">=", "==", "and", "or", "not", "(", ")", ",", "min", "max", "abs", "sqrt", "log", "clip", "where", "delta", "mean", "lag",
    "10 [min]", " ", "'", "§", ".", "__", "\n",
]  # fmt: skip


@law
@given(st.one_of(st.lists(st.sampled_from(TOKENS), max_size=40).map(" ".join), st.text(max_size=60)))
def test_whatever_is_written_is_a_formula_or_an_error_in_its_place(text: str) -> None:
    operands = {name: unit.parse(of) for name, of in UNITS.items()}
    try:
        formula = compile_(text, operands, unit.ONE)
    except ExpressionError as error:
        assert 1 <= error.at <= len(text) + 1
        assert str(error).startswith(f"column {error.at}: ")
        assert "\n" not in str(error)
    else:
        assert set(formula.names) <= operands.keys()
        values = {named(name): np.array([1.0, -1.0, np.nan, 1e300]) for name in operands}
        values |= dict.fromkeys(formula.pasts, np.array([1.0, 0.0, -2.0, 1e-300]))  # type: ignore[arg-type]
        assert evaluate(formula.node, values, 4).shape == (4,)


class Made(NamedTuple):
    """An expression with its value in base units, for readings of its own, and its dimension."""

    text: str
    value: float
    powers: dict[str, int]


READINGS = {"flow": 36.0, "level": 250.0, "pressure": 180.0, "share": 40.0, "count": 3.0}


def leaf(name: str) -> Made:
    of = unit.parse(UNITS[name])
    return Made(name, READINGS[name] * float(of.factor), {base: int(power) for base, power in of.dimension})


def joined(sign: int, one: Made, other: Made) -> dict[str, int]:
    powers = {base: one.powers.get(base, 0) + sign * other.powers.get(base, 0) for base in one.powers | other.powers}
    return {base: power for base, power in powers.items() if power}


def combined(parts: tuple[str, Made, Made]) -> Made | None:
    """Two expressions by an operator or function; None where that makes no sense."""
    how, one, other = parts
    if how == "*":
        return Made(f"({one.text}) * ({other.text})", one.value * other.value, joined(1, one, other))
    if how == "/":
        return (
            Made(f"({one.text}) / ({other.text})", one.value / other.value, joined(-1, one, other))
            if other.value
            else None
        )
    if one.powers != other.powers:
        return None
    if how in "+-":
        return Made(
            f"({one.text}) {how} ({other.text})", one.value + other.value * (1 if how == "+" else -1), one.powers
        )
    if how == "where":
        chosen = one if one.value > other.value else other
        return Made(f"where({one.text} > {other.text}, {one.text}, {other.text})", chosen.value, one.powers)
    function = {"min": min, "max": max}[how]
    return Made(f"{how}({one.text}, {other.text})", function(one.value, other.value), one.powers)


HOW = st.sampled_from(["+", "-", "*", "/", "min", "max", "where"])
EXPRESSIONS = st.recursive(
    st.sampled_from(sorted(UNITS)).map(leaf),
    lambda inner: (
        st.tuples(HOW, inner, inner).map(combined).filter(lambda made: made is not None and len(made.text) < 400)  # type: ignore[arg-type,return-value]
    ),
    max_leaves=6,
)


def computed(made: Made, units: dict[str, str]) -> float:
    """By the library, the operands told in `units`."""
    given_ = {name: unit.parse(of) for name, of in units.items()}
    result = unit.Unit(Fraction(1), unit.dimension_of({base: Fraction(power) for base, power in made.powers.items()}))
    formula = compile_(made.text, given_, result)
    values = {}
    for name, reading in READINGS.items():
        told = reading * float(unit.parse(UNITS[name]).factor) / float(given_[name].factor)
        values[named(name)] = np.array([told * float(given_[name].factor)])
    return float(evaluate(formula.node, dict(values), 1)[0])


@law
@given(EXPRESSIONS)
def test_a_sound_expression_has_its_value_in_whatever_units_it_is_told(made: Made) -> None:
    assume(isfinite(made.value))
    for units in (UNITS, OTHER):
        assert isclose(computed(made, units), made.value, rel_tol=1e-9, abs_tol=1e-9)


@law
@given(EXPRESSIONS, EXPRESSIONS, st.sampled_from(["+", "-", "<", ">=", "=="]))
def test_what_does_not_fit_is_refused_at_its_operator(one: Made, other: Made, operator: str) -> None:
    assume(one.powers != other.powers)
    text = f"({one.text}) {operator} ({other.text})"
    with pytest.raises(ExpressionError) as caught:
        compile_(text, {name: unit.parse(of) for name, of in UNITS.items()}, unit.ONE)
    assert caught.value.at == len(one.text) + 4
    assert str(caught.value).startswith(f"column {caught.value.at}: '{operator}' of ")
