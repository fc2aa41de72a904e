"""The value of a checked expression, over columns. What is not a number (0/0, log of a negative) becomes NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citynet.batch import F64
from citynet_rules.expression import Call, Name, Node, Number, Past

Column = NDArray[Any]
_FUNCTIONS: dict[str, Callable[..., Column]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power, "neg": np.negative,
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "where": np.where,
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "min": lambda *columns: np.minimum.reduce(np.broadcast_arrays(*columns)),
    "max": lambda *columns: np.maximum.reduce(np.broadcast_arrays(*columns)),
}  # fmt: skip


def evaluate(node: Node, values: Mapping[Name | Past, F64], count: int) -> F64:
    """`node` for each of `count` instants.

    Args:
        values: in base units, one column an operand (`named`) or look back (`Past`); NaN where unknown.
    """
    with np.errstate(all="ignore"):
        result = np.asarray(_value(node, values), np.float64)
    return np.broadcast_to(result, count).copy()


def named(name: str) -> Name:
    """The key of an operand's column."""
    return Name(0, name)


def _value(node: Node, values: Mapping[Name | Past, F64]) -> Any:
    if isinstance(node, Number):
        return np.float64(node.value)
    if isinstance(node, Name):
        return values[named(node.name)]
    if isinstance(node, Past):
        return values[node]
    if isinstance(node, Call):
        return _FUNCTIONS[node.function](*(_value(argument, values) for argument in node.arguments))
    raise AssertionError(node)
