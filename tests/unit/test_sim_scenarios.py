"""Scenarios: every shipped one in short form with its physics; bad files; faults of all layers and how they compose."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from citynet.errors import ConfigError
from citynet_sim import catalogue, consequences, scenario
from citynet_sim.city import City, CityParameters, Device, build
from citynet_sim.faults import EVENT, SENSOR, TRANSPORT, Fault, incidents
from citynet_sim.kinds import KINDS
from citynet_sim.noise import F64
from citynet_sim.scenario import find, parse, schedule, shipped
from citynet_sim.settings import SimSettings
from citynet_sim.simulation import Columns, Simulation
from citynet_sim.staging import simulation_of
from citynet_sim.world import World

MINUTE_MS = dict.fromkeys(KINDS, 60_000)
HOUR_US = 3_600_000_000


@cache
def _played(name: str, seed: int = 1) -> Simulation:
    """A shipped scenario in the default city, a sample a minute."""
    chosen = find(name)
    city = build(seed, CityParameters())
    staged = schedule(chosen, city, chosen.start_us or 0, chosen.file.duration_s)
    staged += tuple(consequences.ponding(World(city, staged), city, staged))
    return Simulation(city, staged, MINUTE_MS, texture=False)


def _fault(simulation: Simulation, identity: str) -> Fault:
    return next(fault for fault in simulation.faults if fault.id == identity)


def _device(simulation: Simulation, name: str) -> Device:
    return next(device for device in simulation.city.devices if device.name == name)


def _values(simulation: Simulation, name: str, metric: str, from_us: int, to_us: int) -> F64:
    device = _device(simulation, name)
    found: F64 = simulation.span(device, from_us, to_us).values[KINDS[device.kind].row(metric)]
    return found


def _before_and_during(simulation: Simulation, identity: str, metric: str) -> tuple[F64, F64]:
    """The hour before a fault's start, and what follows its rise, at its origin."""
    fault = _fault(simulation, identity)
    risen_us = fault.start_us + round(fault.rise_s * 1e6)
    name = fault.devices[0]
    before = _values(simulation, name, metric, fault.start_us - HOUR_US, fault.start_us)
    return before, _values(simulation, name, metric, risen_us, fault.end_us)


def test_every_kind_of_fault_of_the_issue_is_staged_somewhere() -> None:
    names = set(shipped())
    assert {
        "gas-leak", "main-burst", "storm-pump-failure", "underpass-flooding", "tunnel-fire", "bridge-overload", "heat-leak",
        "dust-episode", "replayed-readings", "calm-week", "demo",
    } <= names  # fmt: skip
    assert next(iter(shipped())) == "demo"


@pytest.mark.parametrize("name", sorted(shipped()))
@pytest.mark.parametrize("seed", [1, 2])
def test_every_scenario_can_be_placed_and_the_truth_names_every_fault(name: str, seed: int) -> None:
    city = build(seed, CityParameters())
    chosen = find(name)
    staged = schedule(chosen, city, 0, chosen.file.duration_s)
    assert len(staged) >= len(chosen.file.weather) + len(chosen.file.fault)
    assert len({fault.id for fault in staged}) == len(staged)
    known = {device.name for device in city.devices}
    for fault in staged:
        told = fault.to_json()
        assert set(fault.devices) <= known
        assert fault.devices or fault.gateways or fault.domain == "weather"
        assert 0 <= fault.start_us < fault.end_us
        assert told["cause"]
        assert len(fault.peaks) == max(len(fault.devices), 1)
        assert (fault.expected_rule is None) or fault.expected_level is not None
    assert {told["id"] for told in incidents(staged)} == {
        fault.id for fault in staged if fault.layer == EVENT and fault.expected_rule
    }


def test_gas_leak_is_sudden_without_h2s_and_biogas_slow_with_it() -> None:
    played = _played("gas-leak")
    before, during = _before_and_during(played, "gas-leak-1", "ch4_lel")
    assert before.max() < 10.0
    assert during.min() > 50.0
    _, h2s = _before_and_during(played, "gas-leak-1", "h2s_mg_m3")
    assert h2s.max() < 2.0
    slow = _fault(played, "biogas-1")
    start = slow.start_us
    methane = _values(played, slow.devices[0], "ch4_lel", start, start + 2 * HOUR_US)
    sulphide = _values(played, slow.devices[0], "h2s_mg_m3", start, start + 2 * HOUR_US)
    assert 4.0 < methane.max() < 20.0
    assert np.diff(methane).max() < 1.0
    assert np.corrcoef(methane, sulphide)[0, 1] > 0.9


def test_burst_grows_for_hours_and_then_is_mended() -> None:
    played = _played("main-burst")
    before, during = _before_and_during(played, "burst-1", "water_flow_m3_h")
    assert during.min() > before.mean() + 150.0
    pressure_before, pressure = _before_and_during(played, "burst-1", "water_pressure_mpa")
    calm = Simulation(played.city, (), MINUTE_MS, texture=False)
    burst = _fault(played, "burst-1")
    span = (burst.start_us + round(burst.rise_s * 1e6), burst.end_us)
    assert (pressure < _values(calm, burst.devices[0], "water_pressure_mpa", *span)).all()
    half_us = burst.start_us + round(0.1 * burst.rise_s * 1e6)
    grown = _values(played, burst.devices[0], "water_flow_m3_h", half_us, half_us + HOUR_US // 30)
    assert grown.mean() < during.mean() - 40.0  # it was not there at once
    assert pressure_before.size == 60


def test_storm_ponds_where_the_sewer_is_small_and_the_river_rises_late() -> None:
    played = _played("storm-pump-failure")
    start_us = find("storm-pump-failure").start_us or 0
    wet = [fault for fault in played.faults if fault.kind == "ponding"]
    assert wet
    assert {fault.district for fault in wet} == {"district-3"}
    red = next(fault for fault in wet if fault.expected_level == "red")
    for name in red.devices:
        depth = _values(played, name, "ponding_cm", start_us, start_us + 8 * HOUR_US)
        level = _values(played, name, "level_m", start_us, start_us + 8 * HOUR_US)
        assert depth.max() > 25.0
        assert level[depth > 1.0].min() > 2.5  # water stands only above a full manhole
        assert depth[-1] == 0.0
    named = {name for fault in wet for name in fault.devices}
    others = [device for device in played.city.of_kind("manhole") if device.name not in named][:60]
    for device in others:
        assert _values(played, device.name, "ponding_cm", start_us, start_us + 8 * HOUR_US).max() < 6.5
    stage = _values(played, "rv-0001", "stage_m", start_us, start_us + 8 * HOUR_US)
    rain = _fault(played, "rain-2")
    assert stage.argmax() * 60 > (rain.end_us - start_us) / 1e6 - 600
    assert stage.max() > stage[:25].mean() + 0.8


def test_pump_that_stands_still_lets_its_sump_rise_above_the_alarm() -> None:
    played = _played("storm-pump-failure")
    fault = _fault(played, "pump-failure-1")
    sump = _values(played, fault.devices[0], "sump_level_m", fault.start_us, fault.end_us)
    current = _values(played, fault.devices[0], "pump_current_a", fault.start_us, fault.end_us)
    assert not current.any()
    assert (np.diff(sump) > -0.03).all()
    assert (sump > 3.0).sum() > 20
    assert fault.expected_rule == "drainage-sump-high"


def test_underpass_fills_and_drains() -> None:
    before, during = _before_and_during(_played("underpass-flooding"), "ponding-1", "ponding_cm")
    assert before.max() == 0.0
    assert during.min() > 50.0


def test_fire_heats_the_tunnel_takes_oxygen_and_makes_smoke() -> None:
    played = _played("tunnel-fire")
    for metric, low, high in (("temperature_c", 150.0, 260.0), ("co_mg_m3", 500.0, 1000.0), ("smoke_db_m", 5.0, 10.1)):
        before, during = _before_and_during(played, "tunnel-fire-1", metric)
        assert before.mean() < low / 3
        assert low < during.max() < high
    before, during = _before_and_during(played, "tunnel-fire-1", "o2_vol")
    assert during.min() < before.min() - 1.0
    fire = _fault(played, "tunnel-fire-1")
    beside = _values(played, fire.devices[1], "temperature_c", fire.start_us, fire.end_us)
    assert 5.0 < beside.max() - beside[0] < 30.0


def test_gas_in_the_tunnel_takes_the_place_of_oxygen() -> None:
    """35 %LEL of methane are 1.75 % of the volume: so much less of everything else."""
    city = build(1, CityParameters(population=0, devices={"tunnel-section": 1}))
    staged = schedule(parse("x", "x", 'about = "x"\n[[fault]]\nkind = "tunnel-gas"\nat_s = 3600\n'), city, 0, 7200.0)
    played = Simulation(city, staged, {"tunnel-section": 10_000}, texture=False)
    before, during = _before_and_during(played, "tunnel-gas-1", "o2_vol")
    assert during.mean() / before.mean() == pytest.approx(1.0 - 0.0175, abs=0.002)


def test_overload_bends_the_bridge_and_leaves_it_softer() -> None:
    played = _played("bridge-overload")
    fault, damage = _fault(played, "overload-1"), _fault(played, "structural-change-1")
    assert fault.devices == damage.devices
    start, name = fault.start_us, fault.devices[0]
    before = _values(played, name, "deflection_mm", start - HOUR_US, start)
    during = _values(played, name, "deflection_mm", start, fault.end_us + 5_000_000)
    assert during.max() > 2.5 * before.max()
    calm = _values(played, name, "frequency_hz", start - HOUR_US, start).mean()
    soft = _values(played, name, "frequency_hz", start + HOUR_US, start + 2 * HOUR_US).mean()
    assert soft / calm == pytest.approx(np.sqrt(0.85), abs=0.01)


def test_heat_leak_is_made_up_and_lowers_the_pressure() -> None:
    played = _played("heat-leak")
    for metric, sign in (("makeup_m3_h", 1.0), ("heat_pressure_mpa", -1.0)):
        before, during = _before_and_during(played, "heat-leak-1", metric)
        assert sign * (during.mean() - before.mean()) > (10.0 if sign > 0 else 0.04)
    supply = _values(played, _fault(played, "heat-leak-1").devices[0], "supply_temperature_c", 0, HOUR_US)
    assert supply.size == 60


def test_dust_is_coarse_and_reaches_every_station() -> None:
    played = _played("dust-episode")
    fault = _fault(played, "dust-1")
    assert len(fault.devices) == len(played.city.of_kind("air-station"))
    for name in fault.devices[:3]:
        from_us, to_us = fault.start_us + round(fault.rise_s * 1e6), fault.end_us
        coarse, fine = (_values(played, name, m, from_us, to_us) for m in ("pm10_ug_m3", "pm25_ug_m3"))
        assert coarse.min() > 600.0
        assert fine.max() < 0.4 * coarse.min()


def test_calm_week_stages_nothing() -> None:
    assert _played("calm-week").faults == ()


# --- sensor faults ---------------------------------------------------------------------------------------------------

CITY = build(5, CityParameters(population=0, devices={"manhole": 2, "gas-well": 1}))


def _sensor(kind: str, peak: float, *, metric: str = "level_m", name: str = "mh-0001", number: int = 1) -> Fault:
    return Fault(
        f"{kind}-{number}", SENSOR, kind, "device", metric, metric, (name,), (peak,), "", HOUR_US, 3 * HOUR_US, 1e-3, 600.0,
        "test",
    )  # fmt: skip


def _span(*faults: Fault, name: str = "mh-0001", city: City = CITY, texture: bool = False) -> Columns:
    simulation = Simulation(city, faults, MINUTE_MS, texture=texture)
    return simulation.span(_device(simulation, name), 0, 4 * HOUR_US)


def _during(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return (columns.at_us >= HOUR_US) & (columns.at_us < 3 * HOUR_US)


def test_bias_drift_and_unit_slip_are_what_they_say() -> None:
    clean = _span()
    inside = _during(clean)
    for fault, expected in (
        (_sensor("bias", 0.5), clean.values[0] + 0.5),
        (_sensor("drift", 2.0), clean.values[0] + 2.0 * (clean.at_us / 1e6 - 3600.0) / 7200.0),
        (_sensor("unit-slip", 10.0), clean.values[0] * 10.0),
    ):
        found = _span(fault)
        assert found.values[0][inside] == pytest.approx(np.clip(expected, 0.0, 7.0)[inside], abs=6e-4)
        assert np.array_equal(found.values[0][~inside], clean.values[0][~inside])
        assert np.array_equal(found.values[1:], clean.values[1:])


def test_stuck_stays_at_its_first_reading_wherever_the_span_begins() -> None:
    clean, stuck = _span(), _span(_sensor("stuck", 0.0))
    inside = _during(clean)
    assert set(stuck.values[0][inside].tolist()) == {float(clean.values[0][inside][0])}
    simulation = Simulation(CITY, (_sensor("stuck", 0.0),), MINUTE_MS, texture=False)
    late = simulation.span(_device(simulation, "mh-0001"), 2 * HOUR_US, 2 * HOUR_US + HOUR_US // 2)
    assert set(late.values[0].tolist()) == {float(clean.values[0][inside][0])}


def test_spikes_are_few_and_high() -> None:
    simulation = Simulation(CITY, (_sensor("spike", 2.0),), dict.fromkeys(KINDS, 1000), texture=False)
    calm = Simulation(CITY, (), dict.fromkeys(KINDS, 1000), texture=False)
    found, clean = (s.span(_device(s, "mh-0001"), HOUR_US, 3 * HOUR_US) for s in (simulation, calm))
    jumps = found.values[0] - clean.values[0]
    assert set(np.round(np.unique(jumps), 3).tolist()) == {0.0, 2.0}
    assert 0.03 < (jumps > 0).mean() < 0.07


def test_clock_skew_changes_stamps_and_nothing_else() -> None:
    clean, skewed = _span(), _span(_sensor("clock-skew", 240.0))
    inside = _during(clean)
    assert np.array_equal(skewed.values, clean.values)
    assert np.array_equal(skewed.at_us, clean.at_us)
    assert set((skewed.stamp_us - skewed.at_us)[inside].tolist()) == {240_000_000}
    assert not (skewed.stamp_us - skewed.at_us)[~inside].any()


def test_dead_is_silent_and_reboot_warms_up() -> None:
    dead = _span(_sensor("dead", 1.0, metric="ch4_lel", name="gas-0001"), name="gas-0001")
    clean = _span(name="gas-0001")
    assert not _during(dead).any()
    assert len(dead.at_us) == len(clean.at_us) - 120
    after = clean.at_us >= 3 * HOUR_US
    warm = dead.values[0][dead.at_us >= 3 * HOUR_US] - clean.values[0][after]
    assert 2.5 < warm[0] < 4.1  # the catalytic head's warm-up
    assert warm[30:].max() < 0.3


def test_faults_compose_and_leave_others_alone() -> None:
    both = _span(_sensor("bias", 0.5), _sensor("unit-slip", 2.0), _sensor("clock-skew", 60.0))
    clean = _span()
    inside = _during(clean)
    assert both.values[0][inside] == pytest.approx(2.0 * (clean.values[0][inside] + 0.5), abs=2e-3)
    swapped = _span(_sensor("clock-skew", 60.0), _sensor("unit-slip", 2.0), _sensor("bias", 0.5))
    assert np.array_equal(both.values, swapped.values)
    assert np.array_equal(_span(_sensor("bias", 0.5), name="mh-0002").values, _span(name="mh-0002").values)


def test_texture_misses_little_and_jitters_within_its_bounds() -> None:
    simulation = Simulation(build(5, CityParameters(population=0, devices={"manhole": 40})), (), MINUTE_MS)
    day_us = 24 * HOUR_US
    counts, worst = [], 0
    for device in simulation.city.devices:
        found = simulation.span(device, 0, day_us)
        counts.append(len(found.at_us))
        gaps = np.diff(found.at_us)
        assert gaps.min() > 55_000_000
        assert gaps.max() < 14 * 60_000_000  # never as long as a silent device's 15 minutes
        worst = max(worst, int(gaps.max()))
    missing = 1.0 - sum(counts) / (1440 * 40)
    assert 0.0005 < missing < 0.02
    assert worst > 3 * 60_000_000


# --- drawn faults ----------------------------------------------------------------------------------------------------

DRAWN = """
about = "faults at a rate"
duration_s = 8640000
[[draw]]
kind = "stuck"
device_kind = "manhole"
per_year = 6.0
"""


def test_drawn_faults_come_at_their_rate_and_a_longer_run_keeps_the_first() -> None:
    city = build(1, CityParameters(population=0, devices={"manhole": 50}))
    chosen = parse("drawn", "drawn.toml", DRAWN)
    many = schedule(chosen, city, 0, 365.25 * 86_400.0)
    assert 215 < len(many) < 385  # 300 ± 5 standard deviations
    few = schedule(chosen, city, 0, 30 * 86_400.0)

    def told(faults: tuple[Fault, ...]) -> set[tuple[tuple[str, ...], int]]:
        return {(fault.devices, fault.start_us) for fault in faults}

    assert told(few) == {item for item in told(many) if item[1] < 30 * 86_400_000_000}


# --- bad files -------------------------------------------------------------------------------------------------------

BAD = """
about = ""
speed = 3
duration_s = "long"

[[fault]]
kind = "gas-leek"
at_s = 10

[[fault]]
kind = "burst"
at_s = -5
rise_s = 0

[[weather]]
kind = "rain"
at_s = 0
when = "now"
"""


def test_bad_file_gets_one_line_a_mistake_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    with pytest.raises(ConfigError) as caught:
        find(str(path))
    problems = caught.value.problems
    for where in (
        "about",
        "speed",
        "duration_s",
        "fault[0].kind",
        "fault[1].at_s",
        "fault[1].rise_s",
        "weather[0].when",
    ):
        assert any(line.startswith(f"{path}: {where}: ") for line in problems), where
    assert len(problems) == 7
    assert all("\n" not in line for line in problems)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('[[fault]]\nkind = "rain"\nat_s = 0', "fault[0].kind: 'rain' belongs under [[weather]]"),
        ('[[weather]]\nkind = "burst"\nat_s = 0', "weather[0].kind: 'burst' belongs under [[fault]]"),
        ('[[fault]]\nkind = "stuck"\nat_s = 0', "fault[0].device: 'stuck' needs a device or a device_kind"),
        ('[[fault]]\nkind = "burst"\nat_s = 0\nmetric = "x"', "fault[0].metric: 'burst' acts upon leak_m3_h"),
        (
            '[[fault]]\nkind = "burst"\nat_s = 0\ngateway = "gw-01"',
            "fault[0].gateway: 'burst' does not act upon a gateway",
        ),
        (
            '[[fault]]\nkind = "burst"\nat_s = 0\ndevice = "ufo-1"',
            "fault[0].device: 'ufo-1' is not a device of this city",
        ),
        ('[[fault]]\nkind = "burst"\nat_s = 0\ndevice = "mh-0001"', "fault[0].device: 'mh-0001' is a manhole"),
        (
            '[[fault]]\nkind = "loss"\nat_s = 0\ngateway = "gw-9"',
            "fault[0].gateway: 'gw-9' is not a gateway of this city",
        ),
        (
            '[[weather]]\nkind = "rain"\nat_s = 0\ndistrict = "x"',
            "weather[0].district: 'x' is not a district of this city",
        ),
        (
            '[[fault]]\nkind = "stuck"\nat_s = 0\ndevice = "mh-0001"\nmetric = "x"',
            "fault[0].metric: 'x' is not measured by",
        ),
        (
            '[[draw]]\nkind = "stuck"\ndevice = "mh-0001"\nper_year = 1',
            "draw[0].device: what is drawn falls on every device",
        ),
        (
            '[[draw]]\nkind = "stuck"\ndevice_kind = "manhole"\nmetric = "x"\nper_year = 1',
            "draw[0].metric: 'x' is not measured",
        ),
        ('[[draw]]\nkind = "rain"\nper_year = 1', "draw[0].kind: 'rain' cannot be drawn"),
        ('[[fault]]\nkind = "ponding"\nat_s = 0\ndistrict = "x"', "fault[0].district: 'x' is not a district"),
        ('[[fault]]\nkind = "loss"\nat_s = 0\ndevice = "mh-0001"', "fault[0].device: 'loss' acts upon a gateway"),
        ('[[weather]]\nkind = "rain"\nat_s = 0\nplace = "lowest"', "weather[0].place: 'rain' is everywhere"),
        ('[[fault]]\nkind = "ponding"\nat_s = 0\ndevice = "mh-0001"\nplace = "all"', "fault[0].place: not together"),
        ('[[fault]]\nkind = "loss"\nat_s = 0\npeak = 1.5', "fault[0].peak: 1.5 is not in 0 to 1 (1)"),
        ('[[fault]]\nkind = "burst"\nat_s = 0\npeak = -1', "fault[0].peak: -1 is not in 0 to 20000 (m3/h)"),
        ('[[fault]]\nkind = "burst"\nat_s = 0\npeak = nan', "fault[0].peak: Input should be a finite number"),
        ('duration_s = 60\n[[fault]]\nkind = "burst"\nat_s = 60', "fault[0].at_s: the run has ended by then"),
        ('climate = "lunar"', "climate: 'lunar' is unknown"),
        ('"a\\nb" = 1', r"'a\nb': Extra inputs"),
        ("start = 2026-01-01T00:00:00", "start: needs a time zone"),
        ("[[fault]", "bad.toml: "),
        ("deep = " + "[" * 5000 + "]" * 5000, "bad.toml: nested too deeply"),
    ],
)
def test_mistakes_are_told_with_file_and_key(entry: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schedule(parse("bad", "bad.toml", f'about = "x"\n{entry}\n'), build(1, CityParameters()), 0, 60.0)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("bad.toml: ")
    assert complaint in caught.value.problems[0]


def test_mistakes_of_syntax_of_sense_and_of_the_city_come_at_once(tmp_path: Path) -> None:
    """What can be understood of a file with mistakes is looked up in the city all the same, under its own number."""
    path = tmp_path / "bad.toml"
    burst = '[[fault]]\nkind = "burst"\nat_s = 1\n'
    path.write_text(f'about = "x"\nwind = 1\n{burst}colour = 1\n{burst}metric = "x"\n{burst}device = "dma-9"\n')
    with pytest.raises(ConfigError) as caught:
        simulation_of(SimSettings.model_validate({"scenario": str(path), "city": {"population": 100_000}}), 0)
    assert [line.partition(".toml: ")[2].partition(": ")[0] for line in caught.value.problems] == [
        "fault[0].colour",
        "wind",
        "fault[1].metric",
        "fault[2].device",
    ]


def test_default_peaks_are_in_their_bounds() -> None:
    assert all(kind.low <= kind.peak <= kind.high for kind in catalogue.CATALOGUE.values())


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"\xff\xfea\x00", "is no text in UTF-8 (byte 0)"),
        (b"", "about: Field required"),
        (b"about: x", "Expected '='"),
        (b"\x00", "Invalid statement"),
    ],
)
def test_what_is_no_scenario_is_one_line(tmp_path: Path, body: bytes, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(body)
    with pytest.raises(ConfigError) as caught:
        find(str(path))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: {complaint}")
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        find(str(path))


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_bytes(b'\xef\xbb\xbfabout = "x"')
    assert find(str(path)).file.about == "x"


def test_unknown_scenario_and_absent_file_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/x\.toml: No such file"):
        find("/nowhere/x.toml")
    with pytest.raises(ConfigError, match="unknown"):
        find("nothing-of-that-name")


def test_catalogue_fits_the_kinds() -> None:
    """Every event acts upon a kind that exists and shows in a metric that it has."""
    for kind in catalogue.CATALOGUE.values():
        assert kind.layer in (EVENT, SENSOR, TRANSPORT)
        if kind.device_kind:
            KINDS[kind.device_kind].row(kind.metric)
        assert kind.spread[0] == 1.0
    assert scenario.FAULTS_MAX >= 1000
    assert replace(CITY.parameters, population=5).counts()["manhole"] == 2
