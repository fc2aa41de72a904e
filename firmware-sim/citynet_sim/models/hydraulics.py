"""Steady hydraulics of a looped pipe network, for many moments at once: the global gradient method.

Head loss is Hazen-Williams, h = r Q |Q|^0.852 with r = 10.6668 L / (C^1.852 D^4.871) (SI units, the constant
that EPANET uses). Flows and heads follow by Newton's method on energy and continuity together (E. Todini and S. Pilati,
"A gradient algorithm for the analysis of pipe networks", 1988), the method of EPANET 2, which the tests compare it with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from citynet_sim.noise import F64

EXPONENT = 1.852
ROUGHNESS = 120.0
_CONSTANT = 10.666829500036352
_Q_MIN = 1e-7  # m3/s: below it a pipe's law is taken as linear, so that still water has a slope
_STEPS_MAX = 60
_CLOSE_ENOUGH = 1e-9  # m3/s
GRAVITY = 9.80665
WEIGHT_MPA_PER_M = GRAVITY * 1e-3
_DISCHARGE = 0.6


def resistance(length_m: F64 | float, diameter_m: F64 | float, roughness: float = ROUGHNESS) -> F64:
    """r of Hazen-Williams, in m per (m3/s)^1.852."""
    found: F64 = np.asarray(
        _CONSTANT * np.asarray(length_m) / (roughness**EXPONENT * np.asarray(diameter_m) ** 4.871), np.float64
    )
    return found


def loss_m(r: F64 | float, q: F64) -> F64:
    """Head loss in m of the flow `q` (m3/s), with its sign."""
    found: F64 = r * q * np.abs(q) ** (EXPONENT - 1.0)
    return found


def orifice_m3_s(area_m2: F64 | float, pressure_m: F64) -> F64:
    """What leaves a hole: Cd A sqrt(2 g p), Cd = 0.6 (Torricelli); nothing where there is no pressure."""
    found: F64 = _DISCHARGE * area_m2 * np.sqrt(2.0 * GRAVITY * np.maximum(pressure_m, 0.0))
    return found


@dataclass(frozen=True)
class Loops:
    """A looped network: pipes from node `start` to node `end`; nodes from `junctions` on have a fixed head."""

    junctions: int
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    r: F64
    fixed_m: F64

    @cached_property
    def _incidence(self) -> F64:
        """(nodes, pipes): -1 where a pipe leaves a node, 1 where it arrives."""
        pipes = len(self.r)
        found = np.zeros((self.junctions + len(self.fixed_m), pipes))
        found[self.start, np.arange(pipes)] = -1.0
        found[self.end, np.arange(pipes)] = 1.0
        return found

    @cached_property
    def _outer(self) -> tuple[NDArray[np.int64], F64]:
        """Where the matrix of the heads can be other than 0 (flat), and what a pipe of unit slope puts there, (pipes, places).

        Without its zeros the product is so small that no library shares it among threads that wait for each other.
        """
        b = self._incidence[: self.junctions]
        whole = np.einsum("jp,kp->pjk", b, b).reshape(len(self.r), -1)
        places = np.flatnonzero(whole.any(axis=0))
        return places, np.ascontiguousarray(whole[:, places])

    def solve(self, demand: F64, near: F64 | None = None) -> tuple[F64, F64]:
        """Heads (n, junctions) in m and pipe flows (n, pipes) in m3/s for demands (n, junctions) in m3/s.

        `near` are flows to start from, (n, pipes), where some are known.

        Raises:
            ArithmeticError: the method did not come to rest.
        """
        b, fixed = self._incidence[: self.junctions], self._incidence[self.junctions :].T @ self.fixed_m
        q = np.full((len(demand), len(self.r)), 0.05) if near is None else near
        places, outer = self._outer
        matrix = np.zeros((len(demand), self.junctions * self.junctions))
        for _ in range(_STEPS_MAX):
            slope = 1.0 / (EXPONENT * self.r * np.maximum(np.abs(q), _Q_MIN) ** (EXPONENT - 1.0))
            held = (1.0 - 1.0 / EXPONENT) * q
            matrix[:, places] = slope @ outer
            right = (held - slope * fixed) @ b.T - demand
            heads = np.asarray(
                np.linalg.solve(matrix.reshape(-1, self.junctions, self.junctions), right[..., None])[..., 0],
                np.float64,
            )
            new = held - slope * (heads @ b + fixed)
            change = float(np.abs(new - q).max(initial=0.0))
            q = new
            if change < _CLOSE_ENOUGH:
                return heads, q
        raise ArithmeticError(f"hydraulics: flows still change by {change:.3g} m3/s after {_STEPS_MAX} steps")
