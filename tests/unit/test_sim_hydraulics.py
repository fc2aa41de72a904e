"""The water network: conservation, head loss, leaks by the orifice law, and agreement with EPANET."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from citynet_sim.catalogue import CATALOGUE
from citynet_sim.city import City, CityParameters, build
from citynet_sim.faults import EVENT, Fault
from citynet_sim.kinds import KINDS
from citynet_sim.models import hydraulics
from citynet_sim.models.hydraulics import Loops
from citynet_sim.noise import F64
from citynet_sim.simulation import Simulation
from citynet_sim.supply import HEAD_M, WaterSupply

NOON_S = 1_767_225_600.0 + 4 * 3600.0
TIMES = NOON_S + 3600.0 * np.arange(0.0, 24.0, 4.0)


def _city(meters: int = 20, points: int = 10) -> City:
    return build(3, CityParameters(population=0, devices={"water-meter": meters, "pressure-point": points}))


def _burst(city: City, peak_m3_h: float = 250.0) -> Fault:
    kind, meter = CATALOGUE["burst"], city.of_kind("water-meter")[0]
    return Fault(
        "burst-1", EVENT, "burst", "water", kind.channel, kind.metric, (meter.name,), (peak_m3_h,), meter.district,
        round((NOON_S + 7200.0) * 1e6), round((NOON_S + 18_000.0) * 1e6), 3600.0, 300.0, "test",
    )  # fmt: skip


def test_two_equal_pipes_share_the_flow_and_lose_what_hazen_williams_says() -> None:
    r = hydraulics.resistance(np.array([1000.0, 1000.0]), 0.3)
    loops = Loops(1, np.array([1, 1]), np.array([0, 0]), r, np.array([50.0]))
    heads, flows = loops.solve(np.array([[0.08]]))
    assert flows == pytest.approx(np.array([[0.04, 0.04]]))
    assert heads[0, 0] == pytest.approx(50.0 - 10.666829500036352 * 1000 / (120**1.852 * 0.3**4.871) * 0.04**1.852)


def test_still_water_stands_level() -> None:
    loops = Loops(2, np.array([2, 0]), np.array([0, 1]), np.array([10.0, 10.0]), np.array([50.0]))
    heads, flows = loops.solve(np.zeros((1, 2)))
    assert heads == pytest.approx(50.0)
    assert np.abs(flows).max() < 1e-8


def test_what_the_works_deliver_is_what_the_districts_take() -> None:
    """Mass balance at every node, and energy around every loop, at moments of a whole day."""
    supply = WaterSupply(_city(), [])
    state = supply.solve(TIMES)
    from_works = state.works[:, -4:].sum(axis=1)
    assert from_works == pytest.approx(state.inflow.sum(axis=1), abs=1e-8)
    assert state.inflow == pytest.approx(supply.demand(TIMES))
    assert (state.head < max(HEAD_M)).all()


def test_a_leak_obeys_the_orifice_law_and_flows_through_its_meter() -> None:
    city = _city()
    supply = WaterSupply(city, [])
    area = np.zeros((len(TIMES), 30))
    area[:, 4], area[:, 25] = 0.004, 0.001
    normal, leaking = supply.solve(TIMES), supply.solve(TIMES, area)
    at_meter = 0.6 * 0.004 * np.sqrt(2 * 9.80665 * (leaking.head[:, 4] - supply.tree.ground_m[4]))
    at_point = 0.6 * 0.001 * np.sqrt(2 * 9.80665 * (leaking.point_head[:, 5] - supply.tree.point_ground_m[5]))
    lost = leaking.inflow - normal.inflow
    owner = int(supply.tree.district[5])
    assert lost[:, 4] - (at_point if owner == 4 else 0.0) == pytest.approx(at_meter, abs=1e-8)
    assert lost.sum(axis=1) == pytest.approx(at_meter + at_point, abs=1e-8)
    assert (leaking.head <= normal.head + 1e-9).all()
    assert leaking.works[:, -4:].sum(axis=1) == pytest.approx(leaking.inflow.sum(axis=1), abs=1e-7)


def test_epanet_agrees(tmp_path: Path) -> None:
    """Heads and flows of the whole network, with a leak as an emitter, against EPANET's own solver."""
    wntr = pytest.importorskip("wntr", reason="needs the extra sim-hydraulics")
    supply = WaterSupply(_city(), [])
    area = np.zeros((len(TIMES), 30))
    area[:, 4] = 0.004
    ours = supply.solve(TIMES, area)
    used = supply.demand(TIMES)
    for k in range(0, len(TIMES), 2):
        heads, flows = _epanet(wntr, supply, used[k], area[k], tmp_path / f"net{k}")
        meters = len(supply.meters)
        assert ours.head[k] == pytest.approx([heads[f"m{m}"] for m in range(meters)], abs=2e-3)
        assert ours.point_head[k] == pytest.approx([heads[f"p{p}"] for p in range(len(supply.points))], abs=2e-3)
        assert ours.inflow[k] == pytest.approx([flows[f"inlet{m}"] for m in range(meters)], abs=2e-5)
        assert ours.works[k] == pytest.approx([flows[f"main{p}"] for p in range(len(supply.loops.r))], abs=5e-4)


def _epanet(  # noqa: C901  (a network is written down node by node)
    wntr: object, supply: WaterSupply, used: F64, area: F64, prefix: Path
) -> tuple[dict[str, float], dict[str, float]]:
    net = wntr.network.WaterNetworkModel()  # type: ignore[attr-defined]
    net.options.hydraulic.accuracy, net.options.hydraulic.trials = 1e-8, 200
    net.options.time.duration = 0
    tree, loops, meters = supply.tree, supply.loops, len(supply.meters)
    per_point = used[tree.district] * tree.share
    for k in range(loops.junctions):
        net.add_junction(f"c{k}", base_demand=0.0, elevation=0.0)
    for k, head in enumerate(loops.fixed_m):
        net.add_reservoir(f"w{k}", base_head=float(head))
    for m in range(meters):
        own = float(used[m] - per_point[tree.district == m].sum())
        net.add_junction(f"m{m}", base_demand=own, elevation=float(tree.ground_m[m]))
    for p in range(len(supply.points)):
        net.add_junction(f"p{p}", base_demand=float(per_point[p]), elevation=float(tree.point_ground_m[p]))

    def node(k: int) -> str:
        return f"c{k}" if k < loops.junctions else f"w{k - loops.junctions}"

    def pipe(name: str, start: str, end: str, r: float) -> None:
        # Any pipe of that resistance will do; EPANET wants a length and a diameter.
        diameter = 0.5
        length = r * 120.0**1.852 * diameter**4.871 / 10.666829500036352
        net.add_pipe(name, start, end, length=length, diameter=diameter, roughness=120.0, minor_loss=0.0)

    for k, (a, b) in enumerate(zip(loops.start.tolist(), loops.end.tolist(), strict=True)):
        pipe(f"main{k}", node(a), node(b), float(loops.r[k]))
    for m in range(meters):
        pipe(f"inlet{m}", f"c{tree.crossing[m]}", f"m{m}", float(tree.inlet_r[m]))
    for p in range(len(supply.points)):
        pipe(f"branch{p}", f"m{tree.district[p]}", f"p{p}", float(tree.branch_r[p]))
    for m in np.flatnonzero(area[:meters]).tolist():
        net.get_node(f"m{m}").emitter_coefficient = float(0.6 * area[m] * np.sqrt(2 * 9.80665))
    result = wntr.sim.EpanetSimulator(net).run_sim(file_prefix=str(prefix))  # type: ignore[attr-defined]
    return result.node["head"].iloc[0].to_dict(), result.link["flowrate"].iloc[0].to_dict()


def test_a_burst_grows_from_nothing_and_shows_in_flow_and_pressure() -> None:
    city = _city()
    burst = _burst(city)
    calm, hurt = WaterSupply(city, []), WaterSupply(city, [burst])
    meter = city.of_kind("water-meter")[0]
    t = NOON_S + 60.0 * np.arange(0.0, 600.0)
    (p0, q0), (p1, q1) = calm.at(meter, t), hurt.at(meter, t)
    before, late = t <= NOON_S + 7200.0, (t > NOON_S + 12_000.0) & (t < NOON_S + 18_000.0)
    assert np.array_equal(q0[before], q1[before])
    assert np.array_equal(p0[before], p1[before])
    more = q1 - q0
    growing = (t > NOON_S + 7200.0) & (t < NOON_S + 12_000.0)
    assert (np.diff(more[growing]) > -0.6).all()  # it grows; pressure falls and rises a little meanwhile
    assert 200.0 < more[late].mean() < 330.0
    assert (p1 < p0)[late].all()
    after = t > NOON_S + 18_000.0 + 20 * 300.0
    assert more[after] == pytest.approx(0.0, abs=1e-3)


def test_neighbours_of_a_burst_lose_pressure_and_no_flow() -> None:
    city = _city()
    calm, hurt = WaterSupply(city, []), WaterSupply(city, [_burst(city, 600.0)])
    t = np.array([NOON_S + 15_000.0])
    for meter in city.of_kind("water-meter")[1:]:
        (p0, q0), (p1, q1) = calm.at(meter, t), hurt.at(meter, t)
        assert q1 == pytest.approx(q0)
        assert p1[0] < p0[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pressure_is_enough_everywhere_on_a_summer_evening(seed: int) -> None:
    city = build(seed, CityParameters())
    simulation = Simulation(city, (), dict.fromkeys(KINDS, 300_000))
    start_us = 1_783_872_000_000_000  # 2026-07-12, a Sunday
    for device in [*city.of_kind("water-meter"), *city.of_kind("pressure-point")]:
        pressure = simulation.span(device, start_us, start_us + 86_400_000_000).values[0]
        assert 0.2 < pressure.min() < pressure.max() < 0.8
