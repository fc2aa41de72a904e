"""Laws of the simulated city: same seed, same readings, however time is cut; formats give back exactly the truth."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from citynet.formats import decode
from citynet_sim.city import CityParameters, build
from citynet_sim.device import encode
from citynet_sim.kinds import KINDS
from citynet_sim.scenario import find, schedule
from citynet_sim.simulation import Simulation

ORIGIN_US = 1_767_225_600_000_000
SMALL = CityParameters(
    population=0,
    devices={"gas-well": 3, "water-meter": 2, "manhole": 3, "pump-station": 2}
    | {"pressure-point": 1, "heat-station": 1, "tunnel-section": 1, "bridge": 1, "river-gauge": 1, "rain-gauge": 1}
    | {"air-station": 1},
)
HOUR_MS = 3_600_000

seeds = st.integers(0, (1 << 63) - 1)
moments_us = st.integers(-2 * HOUR_MS, 2 * HOUR_MS).map(lambda ms: ORIGIN_US + ms * 1000)
odd_moments_us = st.integers(-7_200_000_000, 7_200_000_000).map(lambda us: ORIGIN_US + us)


def _simulation(seed: int, period_ms: int = 7_000, scenario: str = "demo", *, texture: bool = True) -> Simulation:
    city = build(seed, SMALL)
    faults = schedule(find(scenario), city, ORIGIN_US, 7200.0)
    return Simulation(city, faults, dict.fromkeys(KINDS, period_ms), texture=texture)


@cache
def _shared(seed: int) -> Simulation:
    """One that has been asked before: its kept blocks must not show."""
    return _simulation(seed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.lists(odd_moments_us, min_size=3, max_size=3).map(sorted))
def test_cutting_the_time_changes_nothing(seed: int, cuts: list[int]) -> None:
    a, b, c = cuts
    whole = _simulation(seed).readings(a, c)
    used = _shared(seed)
    assert used.readings(a, b) + used.readings(b, c) == whole


@settings(max_examples=25, deadline=None)
@given(seeds, moments_us)
@example(1822, 1_767_225_600_000_000)  # rain three days ago: asked for together with it, or not
def test_columns_are_the_samples(seed: int, start_us: int) -> None:
    """The fast way of a backtest and the way of a live run say the same."""
    simulation, end_us = _simulation(seed, scenario="sick-sensors"), start_us + 300_000_000
    columns = []
    for device in simulation.city.devices:
        found = simulation.span(device, start_us, end_us)
        rows = zip(found.at_us.tolist(), found.stamp_us.tolist(), found.values.T.tolist(), strict=True)
        columns += [(at, device.index, stamp, row) for at, stamp, row in rows]
    samples = [(s.at_us, s.device.index, s.time_us, list(s.values)) for s in simulation.samples(start_us, end_us)]
    assert sorted(columns) == samples
    assert all(start_us <= at < end_us for at, _, _, _ in samples)


@settings(max_examples=25, deadline=None)
@given(seeds, seeds, moments_us)
def test_seed_decides(seed: int, other: int, start_us: int) -> None:
    end_us = start_us + 20_000_000
    first = _simulation(seed).readings(start_us, end_us)
    assert first == _simulation(seed).readings(start_us, end_us)
    if other != seed:
        assert first != _simulation(other).readings(start_us, end_us)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(100, 90_000), moments_us)
def test_each_device_keeps_its_period(seed: int, period_ms: int, start_us: int) -> None:
    simulation = _simulation(seed, period_ms, texture=False)
    for device in simulation.city.devices:
        times = simulation.columns(device, start_us, start_us + 600 * period_ms * 1000)[0]
        assert len(times) == 600
        assert {later - earlier for earlier, later in pairwise(times)} == {period_ms * 1000}
        assert times[0] % 1000 == 0


@settings(max_examples=40, deadline=None)
@given(seeds, moments_us)
def test_incidents_change_nothing_before_they_start(seed: int, start_us: int) -> None:
    end_us = min(start_us + 60_000_000, ORIGIN_US + 5_000_000)
    calm = _simulation(seed, scenario="calm")
    assert _simulation(seed).readings(start_us, end_us) == calm.readings(start_us, end_us)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 4_000_000_000_000), st.integers(100, 90_000))
def test_messages_give_exactly_the_truth_back(seed: int, start_ms: int, period_ms: int) -> None:
    """Values and times survive both formats bit for bit, for any time from 1970 + 10 years to 2096."""
    start_us = max(start_ms, 315_532_800_000) * 1000
    samples = list(_simulation(seed, period_ms, texture=False).samples(start_us, start_us + 2 * period_ms * 1000))
    assert {len(sample.values) for sample in samples} >= {2, 3, 4, 5, 6, 7}
    for sample in samples:
        content_type, payload = encode(sample)
        decoded = decode(content_type, payload, sample.device.name, accept_us=1)
        assert decoded.rejects == []
        assert decoded.readings == sample.readings()
