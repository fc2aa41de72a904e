"""Where devices stand: near street corners, along the river, along the utility tunnel. Metres east and north of the centre."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from citynet_sim.noise import uniforms

EXTENT_M = 9_000.0  # a city of 81 km² is a square of this side; others are scaled
STREET_M = 450.0
_CORNER_M = 60.0  # a device stands within this distance of its corner, along each axis
# The river passes the south-east of the city, where the ground is lowest, from south-west to north-east.
RIVER = ((500.0, -4_400.0), (4_400.0, -500.0))
TUNNEL = ((-4_000.0, 225.0), (1_500.0, 225.0))  # under a street that crosses the centre

Place = Callable[[int, str, int, int], tuple[float, float]]
"""(seed, device's name, its number from 1, devices of its kind) to metres east and north in a city of `EXTENT_M`."""


def corner(seed: int, name: str, _number: int, _count: int) -> tuple[float, float]:
    """Near a street corner, anywhere."""
    u = uniforms(seed, f"place/{name}", 0, 4)
    corners = int(EXTENT_M // STREET_M)
    east, north = int(corners * u[0]), int(corners * u[1])
    half = (corners - 1) / 2
    return (
        (east - half) * STREET_M + (2.0 * float(u[2]) - 1.0) * _CORNER_M,
        (north - half) * STREET_M + (2.0 * float(u[3]) - 1.0) * _CORNER_M,
    )


def river(_seed: int, _name: str, number: int, count: int) -> tuple[float, float]:
    """Along the river, downstream with the number."""
    return _along(RIVER, (number - 0.5) / count)


def tunnel(_seed: int, _name: str, number: int, count: int) -> tuple[float, float]:
    """Along the utility tunnel."""
    return _along(TUNNEL, (number - 0.5) / count)


def _along(line: tuple[tuple[float, float], tuple[float, float]], share: float) -> tuple[float, float]:
    (x0, y0), (x1, y1) = line
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def ground_m(x_m: float, y_m: float) -> float:
    """Height of the ground without its hollows: it falls to the south-east, to the river."""
    return 30.0 - 0.0008 * x_m + 0.0008 * y_m


def scale(area_km2: float) -> float:
    """How much wider a city of that area is than the one that places are given for."""
    return sqrt(area_km2 * 1e6) / EXTENT_M
