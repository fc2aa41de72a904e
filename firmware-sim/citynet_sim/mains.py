"""The water supply of a network that was read from a file: EPANET's own hydraulics of that very network, at any moment.

A local day is computed at once, in steps of five minutes. Its run begins at the network's own first moment of the day
before, with the file's levels, so that tanks have a day to forget where they began; where they do not, midnight shows a
step. Demands keep their patterns, and weeks, days and districts differ by a few per cent around them.

A leak is an emitter at its junction, or in the middle of its pipe, whose coefficient follows the leak's course: with
the file's exponent, 0.5 where it says nothing, which is the orifice law. What leaks change is computed on the same
steps and on the moments at which a leak starts, is grown or ends, and is added: before it starts it changes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from citynet_sim import inp
from citynet_sim.faults import Fault
from citynet_sim.models import hydraulics
from citynet_sim.models.rhythm import DAY_S, LOCAL_OFFSET_S
from citynet_sim.noise import F64, wander
from citynet_sim.pieced import pieced

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.metering import Metering

STEP_S = 300
_VARY_S = 900  # demands are set anew so often
_KEPT_BYTES = 192e6  # of computed days
_BASE_DEMAND, _EMITTER, _PRESSURE, _FLOW, _HYDRAULIC_STEP = 1, 3, 11, 8, 1  # EPANET's numbers for them
_SMALLEST_L_S = 1e-4  # EPANET squares what an emitter resists with: the last of a decay would be beyond its numbers
BURST_PRESSURE_M = 40.0  # a leak's flow is given for this pressure


@dataclass(slots=True)
class _Scene:
    """EPANET with the network open, and the numbers that it knows things by."""

    epanet: Any
    demands: list[tuple[int, float, int]]  # junction's number, base demand in L/s, its meter's row
    emitters: dict[str, int]  # leak to its junction's number
    own: dict[int, float]  # emitters of the file at those junctions
    pressures: list[int]
    flows: list[int]


@dataclass(slots=True)
class _Record:
    """What was read off: seconds since the run's begin, heads (steps, nodes) in m, flows (steps, links) in m3/s."""

    at_s: list[float] = field(default_factory=list)
    pressure_m: list[list[float]] = field(default_factory=list)
    flow_l_s: list[list[float]] = field(default_factory=list)


class PipedSupply:
    """The network with its meters, pressure points and the leaks of a city. `is_varied`: demands differ by weeks and days."""

    def __init__(
        self, seed: int, network: inp.Network, metering: Metering, devices: Iterable[Device], leaks: Sequence[Fault],
        *, is_varied: bool = True,
    ) -> None:  # fmt: skip
        self.network, self.metering = network, metering
        self._seed, self._is_varied = seed, is_varied
        rows = [device for device in devices if device.name in metering.node_of]
        self._row = {device.index: row for row, device in enumerate(rows)}
        self._names = [device.name for device in rows]
        self._leaks = [leak for leak in leaks if leak.devices[0] in metering.node_of]
        of_pipe = {leak.pipe: leak.devices[0] for leak in self._leaks if leak.pipe}
        self._broken = {pipe: (of_pipe[pipe], f"~p{k}") for k, pipe in enumerate(sorted(of_pipe))}
        self._cuts = {pipe: f"~j{k}" for k, pipe in enumerate(sorted(of_pipe))}
        self._crossing = metering.crossings(self._broken)
        self._links = sorted({link for crossing in self._crossing.values() for link, _ in crossing})
        self._clock_s = float(network.model.options.time.start_clocktime) % DAY_S
        kept = max(int(_KEPT_BYTES / (16 * (DAY_S / STEP_S + 1) * max(len(rows), 1))), 2)
        self._normal_day = lru_cache(kept)(self._compute_normal)
        self._leaking_day = lru_cache(kept)(self._compute_leaks)

    def mean_m3_h(self, device: Device) -> float:
        """What a meter's district uses on average, by the file."""
        junctions = self.metering.junctions[self.metering.meter_of[device.name]]
        return max(3600.0 * sum(self.network.nodes[name].demand_m3_s for name in junctions), 0.01)

    def at(self, device: Device, t_s: F64) -> tuple[F64, F64]:
        """Pressure in MPa at a meter or pressure point, and the flow in m3/h through its district's meter; times in order."""
        row = self._row[device.index]
        days = np.floor((t_s + LOCAL_OFFSET_S) / DAY_S).astype(np.int64)

        def tables(number: int) -> list[tuple[F64, F64]]:
            return [self._normal_day(number), *([self._leaking_day(number)] if self._leaking(number) else [])]

        return pieced(t_s, days, row, tables)

    def directions(self) -> dict[str, int]:
        """Link to 1 where water flows from its start to its end over a day by the file, -1 the other way."""
        with tempfile.TemporaryDirectory(prefix="citynet-inp-") as folder:
            scene = self._open(folder, [], list(self.network.links), self.network.model, [])
            record = self._run(scene, 0, [], is_varied=False)
        mean = np.asarray(record.flow_l_s).mean(axis=0)
        return {name: -1 if value < 0.0 else 1 for name, value in zip(self.network.links, mean.tolist(), strict=True)}

    def _leaking(self, number: int) -> list[Fault]:
        """The leaks that tanks know of on this day: those of the day and the one before."""
        from_s = (number - 1) * DAY_S - LOCAL_OFFSET_S
        return [f for f in self._leaks if f.start_us / 1e6 < from_s + 2 * DAY_S and f.over_s() > from_s]

    def _compute_normal(self, number: int) -> tuple[F64, F64]:
        return self._solve(number, [])

    def _compute_leaks(self, number: int) -> tuple[F64, F64]:
        """What the leaks of the day change, (2, rows, knots) as in `_table`; nothing before the first starts."""
        leaks = self._leaking(number)
        grid, normal = self._normal_day(number)
        knots, table = self._solve(number, leaks)
        first_s = min(leak.start_us for leak in leaks) / 1e6
        as_normal = np.array([[np.interp(knots, grid, row) for row in kind] for kind in normal])
        return knots, np.where(knots > first_s, table - as_normal, 0.0)

    def _solve(self, number: int, leaks: list[Fault]) -> tuple[F64, F64]:
        """Knots of a local day (s since 1970) and the table (2, rows, knots): pressure in MPa, flow in m3/h."""
        nodes = [self.metering.node_of[name] for name in self._names]
        with tempfile.TemporaryDirectory(prefix="citynet-inp-") as folder:
            scene = self._open(folder, nodes, self._links, self._cut_model, leaks)
            record = self._run(scene, number, leaks, is_varied=self._is_varied)
        begin_s = self._begin_s(number)
        at_s = np.asarray(record.at_s) + begin_s
        midnight_s = number * DAY_S - LOCAL_OFFSET_S
        first = max(int(np.searchsorted(at_s, midnight_s, "right")) - 1, 0)
        position = {link: k for k, link in enumerate(self._links)}
        flow = np.asarray(record.flow_l_s).reshape(len(at_s), -1)
        through = {
            meter: sum((sign * flow[:, position[link]] for link, sign in crossing), np.zeros(len(at_s)))
            for meter, crossing in self._crossing.items()
        }
        meters = [self.metering.meter_of[name] for name in self._names]
        flows = 3.6 * np.array([through[meter] for meter in meters])
        pressures = hydraulics.WEIGHT_MPA_PER_M * np.asarray(record.pressure_m).T
        return at_s[first:], np.stack([pressures[:, first:], flows[:, first:]])

    def _begin_s(self, number: int) -> float:
        """When the run of a local day begins: the network's first moment on the day before."""
        return (number - 1) * DAY_S - LOCAL_OFFSET_S + self._clock_s

    @cached_property
    def _cut_model(self) -> Any:
        """The network with a junction in the middle of every pipe that bursts."""
        model = self.network.model
        for pipe, (_, second) in self._broken.items():
            model = inp.wntr("wntr.morph").split_pipe(model, pipe, second, self._cuts[pipe])
        return model

    def _open(self, folder: str, nodes: list[str], links: list[str], model: Any, leaks: list[Fault]) -> _Scene:
        network = inp.wntr("wntr.network")
        options = model.options
        kept = (options.time.duration, options.time.hydraulic_timestep, options.time.report_timestep)
        options.time.duration = 2 * int(DAY_S) - int(self._clock_s)
        options.time.hydraulic_timestep = options.time.report_timestep = STEP_S
        try:
            path = str(Path(folder) / "network.inp")
            network.write_inpfile(model, path, units="LPS")
        finally:
            options.time.duration, options.time.hydraulic_timestep, options.time.report_timestep = kept
        epanet = inp.engine(path, folder)
        demands = []
        for row, junctions in enumerate(self.metering.junctions.values()):
            for name in junctions:
                number = epanet.ENgetnodeindex(name)
                if base := epanet.ENgetnodevalue(number, _BASE_DEMAND):
                    demands.append((number, base, row))
        emitters = {
            leak.id: epanet.ENgetnodeindex(
                self._cuts[leak.pipe] if leak.pipe else self.metering.node_of[leak.devices[0]]
            )
            for leak in leaks
        }
        own = {node: float(epanet.ENgetnodevalue(node, _EMITTER)) for node in emitters.values()}
        return _Scene(
            epanet, demands, emitters, own, [epanet.ENgetnodeindex(name) for name in nodes],
            [epanet.ENgetlinkindex(name) for name in links],
        )  # fmt: skip

    def _run(self, scene: _Scene, number: int, leaks: list[Fault], *, is_varied: bool) -> _Record:
        """Two days of the network up to the end of a local day."""
        epanet, begin_s, record = scene.epanet, self._begin_s(number), _Record()
        stops = sorted({round(knot - begin_s) for leak in leaks for knot in leak.knots_s()})
        factors = self._factors(begin_s) if is_varied else None
        epanet.ENopenH()
        epanet.ENinitH(0)
        now = 0
        while True:
            if factors is not None and now % _VARY_S == 0:
                for node, base, row in scene.demands:
                    epanet.ENsetnodevalue(node, _BASE_DEMAND, base * factors[row][now // _VARY_S])
            self._leak(scene, leaks, begin_s + now)
            epanet.ENrunH()
            record.at_s.append(float(now))
            record.pressure_m.append([epanet.ENgetnodevalue(node, _PRESSURE) for node in scene.pressures])
            record.flow_l_s.append([epanet.ENgetlinkvalue(link, _FLOW) for link in scene.flows])
            epanet.ENsettimeparam(_HYDRAULIC_STEP, _until(now, stops))
            step = epanet.ENnextH()
            if step <= 0:
                break
            now += step
        epanet.ENcloseH()
        epanet.ENclose()
        return record

    def _leak(self, scene: _Scene, leaks: list[Fault], t_s: float) -> None:
        """Set the emitters: L/s at a metre of pressure, so that a leak has its flow at `BURST_PRESSURE_M`."""
        exponent = float(self.network.model.options.hydraulic.emitter_exponent)
        found: dict[int, float] = {}
        for leak in leaks:
            flow_l_s = float(leak.effect(leak.devices[0], np.array([t_s]))[0]) / 3.6
            flow_l_s = flow_l_s if flow_l_s > _SMALLEST_L_S else 0.0
            node = scene.emitters[leak.id]
            found[node] = found.get(node, scene.own[node]) + flow_l_s / BURST_PRESSURE_M**exponent
        for node, coefficient in found.items():
            scene.epanet.ENsetnodevalue(node, _EMITTER, coefficient)

    def _factors(self, begin_s: float) -> list[list[float]]:
        """By meter: what multiplies its demands, every `_VARY_S` from the run's begin."""
        t_s = begin_s + np.arange(0.0, 2 * DAY_S + _VARY_S, _VARY_S)
        city = 0.035 * wander(self._seed, "demand/week", t_s, 7 * DAY_S)
        city += 0.02 * wander(self._seed, "demand/day", t_s, DAY_S)
        rows = []
        for meter in self.metering.junctions:
            own = 0.03 * wander(self._seed, f"use/{meter}", t_s, 2 * DAY_S)
            own += 0.05 * wander(self._seed, f"hour/{meter}", t_s, 3600.0)
            rows.append(np.maximum((1.0 + city) * (1.0 + own), 0.0).tolist())
        return rows


def _until(now: int, stops: list[int]) -> int:
    """Seconds to the next whole step, or to a stop before it."""
    to = now - now % STEP_S + STEP_S
    return min([to, *(stop for stop in stops if now < stop < to)]) - now
