"""The water supply of a city: waterworks, looped mains, district inlets with meters, pressure points; hydraulics at any moment.

Mains form a square grid fed by two waterworks of fixed head. Every metered district hangs on the nearest crossing by one
inlet pipe; pressure points hang on the nearest district by a branch that takes a share of its demand. So the loops are solved
by `models.hydraulics`, and what hangs on them follows by continuity and head loss. Demands are those of the districts.

States are computed on a grid of five minutes, an hour at once, and are linear in between; continuity, being linear, holds
at every moment. A leak obeys the orifice law at its node; what it changes is computed on the same grid and on the
moments at which a leak starts, is grown or ends, and is added: before it starts it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot

import numpy as np
from numpy.typing import NDArray

from citynet_sim import places
from citynet_sim.city import City, Device
from citynet_sim.faults import Fault
from citynet_sim.kinds.water_meter import mean_m3_h
from citynet_sim.models import hydraulics, rhythm
from citynet_sim.models.hydraulics import Loops
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, wander
from citynet_sim.pieced import pieced

GRID_S = 300.0
CROSSINGS = 5  # of the mains, along each side of the city
HEAD_M = (88.0, 86.0)  # of the two waterworks: 46 to 65 m above the ground
BURST_PRESSURE_M = 40.0  # a leak's flow is given for this pressure
_POINT_SHARE, _POINT_SHARE_MAX = 0.15, 0.6  # of a district's demand: one branch's, and all branches' together
_MAIN_M = 0.9  # diameter that suits `_MAIN_M3_S`, scaled so that losses stay what they are
_MAIN_M3_S = 2.4
_BLOCK_S = 3600.0
_KEPT_BYTES = 192e6  # of computed hours
_ORIFICE_STEPS_MAX = 200
_ORIFICE_CLOSE_ENOUGH = 1e-10  # m3/s


@dataclass(frozen=True, slots=True)
class Tree:
    """What hangs on the loops. Arrays by meter (m) or pressure point (p); `crossing` and `district` are positions."""

    base_m3_s: F64  # (m,) mean demand
    crossing: NDArray[np.int64]  # (m,)
    inlet_r: F64  # (m,)
    ground_m: F64  # (m,)
    district: NDArray[np.int64]  # (p,) its meter
    share: F64  # (p,) of the district's demand
    branch_r: F64  # (p,)
    point_ground_m: F64  # (p,)


@dataclass(frozen=True, slots=True)
class State:
    """Hydraulics at n moments: flows in m3/s, heads in m. `inflow` (n, m) goes through the districts' meters."""

    inflow: F64
    head: F64  # (n, m) at the districts' inlets
    point_head: F64  # (n, p)
    works: F64  # (n, pipes of the loops)


class WaterSupply:
    """The network of a city with the leaks among its faults."""

    def __init__(self, city: City, leaks: Sequence[Fault]) -> None:
        self.seed = city.seed
        self.meters, self.points = city.of_kind("water-meter"), city.of_kind("pressure-point")
        self._row = {device.index: k for k, device in enumerate(self.meters)}
        self._row |= {device.index: len(self.meters) + k for k, device in enumerate(self.points)}
        self._mean_m3_h = {meter.index: mean_m3_h(city.site(meter)) for meter in self.meters}
        self.tree = _tree(city, self.meters, self.points)
        self.corners = _corners(places.scale(city.parameters.area_km2))
        self.loops = _loops(self.corners, float(self.tree.base_m3_s.sum()))
        rows = {device.name: self._row[device.index] for device in [*self.meters, *self.points]}
        self._leaks = [(rows[leak.devices[0]], leak) for leak in leaks if leak.devices[0] in rows]
        kept = int(_KEPT_BYTES / (16 * (_BLOCK_S / GRID_S + 1) * max(len(self._row), 1)))
        self._normal_block = lru_cache(kept)(self._compute_normal)
        self._leak_block = lru_cache(kept)(self._compute_leaks)

    def mean_m3_h(self, device: Device) -> float:
        """What a meter's district uses on average."""
        return self._mean_m3_h[device.index]

    def demand(self, t_s: F64) -> F64:
        """What every district uses, (n, m) in m3/s: the city's rhythm, better and worse weeks and days, local hours."""
        week = 0.035 * wander(self.seed, "demand/week", t_s, 7 * DAY_S) + 0.02 * wander(
            self.seed, "demand/day", t_s, DAY_S
        )
        city = rhythm.demand(t_s) * (1.0 + week)
        columns = []
        for meter, base in zip(self.meters, self.tree.base_m3_s, strict=True):
            own = 0.03 * wander(self.seed, f"use/{meter.name}", t_s, 2 * DAY_S)
            own += 0.05 * wander(self.seed, f"hour/{meter.name}", t_s, 3600.0)
            columns.append(base * city * (1.0 + own))
        return np.stack(columns, axis=1) if columns else np.empty((len(t_s), 0))

    def solve(self, t_s: F64, area_m2: F64 | None = None) -> State:
        """The state at the moments `t_s`, with holes of `area_m2` (n, m + p) at inlets and pressure points."""
        used = self.demand(t_s)
        holes = np.zeros((len(t_s), len(self.meters) + len(self.points)))
        state = self._balance(used, holes)
        if area_m2 is None or not self._row:
            return state
        leak, step, pace = holes, np.inf, 0.85
        for _ in range(_ORIFICE_STEPS_MAX):
            pressure = np.concatenate(
                [state.head - self.tree.ground_m, state.point_head - self.tree.point_ground_m], axis=1
            )
            wanted = hydraulics.orifice_m3_s(area_m2, pressure)
            before, step = step, float(np.abs(wanted - leak).max(initial=0.0))
            if step < _ORIFICE_CLOSE_ENOUGH:
                return state
            # A hole lowers the pressure that drives it; where that overshoots, smaller steps come to rest.
            pace = pace if step < before else 0.5 * pace
            leak = leak + pace * (wanted - leak)
            state = self._balance(used, leak, state.works)
        raise ArithmeticError(f"hydraulics: a leak still changes by {step:.3g} m3/s")

    def _balance(self, used: F64, leak: F64, near: F64 | None = None) -> State:
        """Continuity from the leaves to the loops, then heads from the loops to the leaves."""
        tree, count = self.tree, len(self.meters)
        branch = used[:, tree.district] * tree.share + leak[:, count:]
        inflow = used + leak[:, :count]
        np.add.at(inflow.T, tree.district, leak[:, count:].T)
        at_crossing = np.zeros((len(used), len(self.corners)))
        np.add.at(at_crossing.T, tree.crossing, inflow.T)
        heads, works = self.loops.solve(at_crossing, near)
        head = heads[:, tree.crossing] - hydraulics.loss_m(tree.inlet_r, inflow)
        return State(inflow, head, head[:, tree.district] - hydraulics.loss_m(tree.branch_r, branch), works)

    def at(self, device: Device, t_s: F64) -> tuple[F64, F64]:
        """Pressure in MPa at a meter or pressure point, and the flow in m3/h through its district's meter; times in order."""
        row = self._row[device.index]
        blocks = np.floor(t_s / _BLOCK_S).astype(np.int64)

        def tables(number: int) -> list[tuple[F64, F64]]:
            return [self._normal_block(number), *([self._leak_block(number)] if self._leaking(number) else [])]

        return pieced(t_s, blocks, row, tables)

    def _leaking(self, number: int) -> list[tuple[int, Fault]]:
        from_s, to_s = number * _BLOCK_S, (number + 1) * _BLOCK_S
        return [item for item in self._leaks if item[1].start_us / 1e6 < to_s and item[1].over_s() > from_s]

    def _compute_normal(self, number: int) -> tuple[F64, F64]:
        """Knots of an hour and the table (2, m + p, knots): pressure in MPa, flow in m3/h."""
        knots: F64 = number * _BLOCK_S + GRID_S * np.arange(int(_BLOCK_S / GRID_S) + 1, dtype=np.float64)
        return knots, self._table(self.solve(knots))

    def _compute_leaks(self, number: int) -> tuple[F64, F64]:
        """As `_compute_normal`, what the leaks of the hour change."""
        grid, _ = self._normal_block(number)
        leaking = self._leaking(number)
        more = [moment for _, leak in leaking for moment in leak.knots_s()]
        knots = np.unique(np.concatenate([grid, np.array([m for m in more if grid[0] < m < grid[-1]])]))
        area = np.zeros((len(knots), len(self._row)))
        for row, leak in leaking:
            area[:, row] += leak.effect(leak.devices[0], knots) / _flow_of_a_square_metre()
        change = self._table(self.solve(knots, area)) - self._table(self.solve(knots))
        return knots, change * area.any(axis=1)  # to the last bit nothing where nothing leaks

    def _table(self, state: State) -> F64:
        head = np.concatenate([state.head, state.point_head], axis=1)
        ground = np.concatenate([self.tree.ground_m, self.tree.point_ground_m])
        pressure = hydraulics.WEIGHT_MPA_PER_M * (head - ground)
        flow = 3600.0 * np.concatenate([state.inflow, state.inflow[:, self.tree.district]], axis=1)
        return np.stack([pressure.T, flow.T])


def _flow_of_a_square_metre() -> float:
    """m3/h that leave a hole of 1 m2 at `BURST_PRESSURE_M`: what turns a leak's flow into its area."""
    return 3600.0 * float(hydraulics.orifice_m3_s(1.0, np.array([BURST_PRESSURE_M]))[0])


def _corners(scale: float) -> list[tuple[float, float]]:
    """Crossings of the mains, metres east and north of the centre, row by row from the south-west."""
    step = places.EXTENT_M * scale / CROSSINGS
    half = (CROSSINGS - 1) / 2
    return [((col - half) * step, (row - half) * step) for row in range(CROSSINGS) for col in range(CROSSINGS)]


def _loops(corners: list[tuple[float, float]], demand_m3_s: float) -> Loops:
    """The mains: along the grid, and from the waterworks in the west and in the north-east to it."""
    pairs = []
    for row in range(CROSSINGS):
        for col in range(CROSSINGS):
            node = row * CROSSINGS + col
            pairs += [(node, node + 1)] if col + 1 < CROSSINGS else []
            pairs += [(node, node + CROSSINGS)] if row + 1 < CROSSINGS else []
    step = corners[1][0] - corners[0][0]
    lengths = [step] * len(pairs)
    count = len(corners)
    west, north_east = CROSSINGS * (CROSSINGS // 2), count - 1
    pairs += [(count, west), (count, west - CROSSINGS), (count + 1, north_east), (count + 1, north_east - 1)]
    lengths += [2 * step] * 4
    diameter = _MAIN_M * max(demand_m3_s, 0.01) ** 0.38 / _MAIN_M3_S**0.38
    start, end = np.array(pairs).T
    r = hydraulics.resistance(np.array(lengths), diameter)
    return Loops(count, start, end, r, np.array(HEAD_M))


def _tree(city: City, meters: list[Device], points: list[Device]) -> Tree:
    corners = _corners(places.scale(city.parameters.area_km2))
    base = np.array([mean_m3_h(city.site(meter)) / 3600.0 for meter in meters])
    near = [_nearest((meter.x_m, meter.y_m), corners) for meter in meters]
    spots = [(meter.x_m, meter.y_m) for meter in meters]
    owner = [_nearest((point.x_m, point.y_m), spots) for point in points] if meters else []
    crowd = np.bincount([k for k, _ in owner], minlength=len(meters)) if owner else np.zeros(len(meters), np.int64)
    share = np.array([min(_POINT_SHARE, _POINT_SHARE_MAX / int(crowd[k])) for k, _ in owner])
    through = np.array([base[k] for k, _ in owner]) * share
    return Tree(
        base,
        np.array([k for k, _ in near], np.int64),
        hydraulics.resistance(np.array([max(d, 50.0) for _, d in near]), _diameter(base)),
        np.array([meter.ground_m for meter in meters]),
        np.array([k for k, _ in owner], np.int64),
        share,
        hydraulics.resistance(np.array([max(d, 50.0) for _, d in owner]), _diameter(through)),
        np.array([point.ground_m for point, _ in zip(points, owner, strict=False)]),
    )


def _diameter(flow_m3_s: F64) -> F64:
    """What carries the mean flow at 0.6 m/s, the usual economic velocity of small mains; at least 100 mm."""
    found: F64 = np.maximum(np.sqrt(4.0 * np.asarray(flow_m3_s) / np.pi / 0.6), 0.1)
    return found


def _nearest(spot: tuple[float, float], others: list[tuple[float, float]]) -> tuple[int, float]:
    """Position of the nearest of `others` and its distance in m."""
    distances = [hypot(spot[0] - x, spot[1] - y) for x, y in others]
    k = min(range(len(others)), key=lambda index: (distances[index], index))
    return k, distances[k]
