"""Values between computed ones: hydraulics are computed a piece of time at once, and are linear in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from citynet_sim.noise import F64


def pieced(
    t_s: F64, piece: NDArray[np.int64], row: int, tables: Callable[[int], Iterable[tuple[F64, F64]]]
) -> tuple[F64, F64]:
    """Pressure and flow at moments in ascending order, each in its `piece`.

    Args:
        tables: of a piece, what is added up: (knots in s, values as (pressure and flow, row, knot)).
    """
    pressure, flow = np.zeros_like(t_s), np.zeros_like(t_s)
    numbers, starts = np.unique(piece, return_index=True)
    for number, start, end in zip(numbers.tolist(), starts.tolist(), [*starts[1:].tolist(), len(t_s)], strict=True):
        inside = slice(start, end)
        for knots, table in tables(number):
            pressure[inside] += np.interp(t_s[inside], knots, table[0, row])
            flow[inside] += np.interp(t_s[inside], knots, table[1, row])
    return pressure, flow
